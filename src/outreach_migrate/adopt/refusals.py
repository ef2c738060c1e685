"""The reasons why a database can't be taken over as it is, each with a way out."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from psycopg import sql

from outreach_migrate import display
from outreach_migrate.adopt.matching import Verdict
from outreach_migrate.errors import Location, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from outreach_migrate.adopt.matching import Match
    from outreach_migrate.adopt.tables import Recorded

_PRISMA_AGAIN = "prisma migrate resolve --rolled-back {name}, then prisma migrate deploy runs it again"
_PRISMA_DONE = "If its changes are all there: prisma migrate resolve --applied {name}."
_BROKEN = {
    ("prisma", Verdict.FAILED): f"{_PRISMA_DONE} If none is: {_PRISMA_AGAIN}.",
    ("prisma", Verdict.UNFINISHED): f"Is it still running? If not, and its changes are all there: "
    f"prisma migrate resolve --applied {{name}}. If none is: {_PRISMA_AGAIN}.",
    ("prisma", Verdict.ROLLED_BACK): f"prisma migrate deploy runs it again. {_PRISMA_DONE}",
    ("golang-migrate", Verdict.DIRTY): "Complete its changes by hand, then: migrate force {name}. "
    "Or take them back, then migrate force with the version before it.",
    ("sqlx", Verdict.DIRTY): "Complete its changes by hand, then: UPDATE {table} SET success = true WHERE version = "
    "{name}; or take them back, then: DELETE FROM {table} WHERE version = {name};",
    ("flyway", Verdict.FAILED): "Take back its changes, then: flyway repair, which removes the row of {name}.",
}


def heads(recorded: Recorded) -> Problem | None:
    """Refuse several rows where one stands for those before it: alembic's heads rest on revisions of their own."""
    if not recorded.up_to or len(recorded.records) <= 1:
        return None
    names = ", ".join(display.in_line(one.name) for one in recorded.records)
    if recorded.table.tool != "alembic":
        hint = f"{recorded.table.tool} keeps a single row: leave only the one that it last wrote."
        return Problem(f"{recorded.table} has several rows: {names}", hint=hint)
    hint = "Merge them: alembic merge heads, then alembic upgrade head; and import the folder again."
    return Problem(f"{recorded.table} has several heads: {names}", hint=hint)


def problems(recorded: Recorded, matches: Iterable[Match], to: int | None) -> list[Problem]:
    """List the migrations that are in the way, each with a way out."""
    whole = tuple(matches)
    return [problem for one in whole for problem in _problem(recorded, one, whole, to)]


def _problem(recorded: Recorded, match: Match, whole: tuple[Match, ...], to: int | None) -> Iterator[Problem]:
    tool, name = recorded.table.tool, match.record.name if match.record else match.name
    place = Location(match.migration.path) if match.migration else None
    shown = display.in_line(name)
    match match.verdict:
        case Verdict.NO_FILE:
            hint = "Restore its file: a deployment must carry all of them."
            if before := _version_before(recorded, match, whole):
                hint += f" Or take over the ones before it alone: --to {before}"
            elif not recorded.up_to and not name.startswith("when:"):  # a row of drizzle's without a name
                line = f"-- migrate: from {tool}/{shown}"
                hint += f" If it is lost, write a file with its changes, and the first line: {line}"
            yield Problem(f"{tool} has applied {shown}, and there is no file of it here", place, hint)
        case Verdict.FAILED | Verdict.UNFINISHED | Verdict.ROLLED_BACK | Verdict.DIRTY:
            hint = _BROKEN[tool, match.verdict].format(name=shlex.quote(shown), table=recorded.table.table.quoted)
            yield Problem(f"{shown} is {_IS[match.verdict]}, as {recorded.table} says", place, hint)
        case Verdict.EDITED:
            theirs = (match.record and match.record.checksum) or ""
            origin = match.migration and match.migration.directives.origin
            mine = f", the file came from one with {_short(origin.checksums[0])}" if origin else ""
            hint = "Import the file as it was applied. If it does the same, take it over as it is: --accept-edited"
            yield Problem(f"edited: {tool} applied it with checksum {_short(theirs)}{mine}", place, hint)
        case Verdict.AFTER if match.migration:
            message = f"{tool} has applied {shown}, which --to {to} leaves out: up would run it again"
            newest = max((one for one in whole if one.migration and one.record), key=lambda one: int(one.version))
            hint = f"Give the newest version that is applied there and has a file: --to {newest.version}"
            yield Problem(message, place, hint)
        case Verdict.PASSED_OVER:
            yield Problem(
                "drizzle has not run it and never will: its journal has an older time for it than for the newest one "
                f"that ran, as {recorded.table} says",
                place,
                _recorded_by_hand(recorded, match),
            )


_IS = {
    Verdict.FAILED: "failed",
    Verdict.UNFINISHED: "unfinished",
    Verdict.ROLLED_BACK: "rolled back",
    Verdict.DIRTY: "dirty",
}


def _short(checksum: str) -> str:
    return checksum.partition(":")[2][:12]


def _version_before(recorded: Recorded, match: Match, whole: tuple[Match, ...]) -> str | None:
    """Give the newest version that can be taken over without a record that has no file.

    There is none if its tool applied one with a file after it, because `up` would run that one again.
    """
    names = [one.name for one in recorded.records]
    place = names.index(match.record.name) if match.record and match.record.name in names else 0
    earlier = {*names[:place]} if not recorded.up_to else {one.record.name for one in whole if one.record}
    applied = [one for one in whole if one.migration and one.record]
    newest = max(applied, key=lambda one: int(one.version), default=None)
    return newest.version if newest and newest.record and newest.record.name in earlier else None


def _recorded_by_hand(recorded: Recorded, match: Match) -> str:
    origin = match.migration and match.migration.directives.origin
    [when, *_] = origin.marked("when") if origin else ("0",)
    [checksum, *_] = origin.checksums if origin else ("",)
    insert = (
        f"INSERT INTO {recorded.table.table.quoted} (hash, created_at) "
        f"VALUES ({sql.quote(checksum.partition(':')[2])}, {when});"
    )
    return (
        f"If its changes are there all the same, record it: {insert} "
        "If not, give the file the newest version, without its first line: then up runs it."
    )
