"""Other tools' marks in a file's first lines, which look like comments here."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from outreach_migrate.files import foreign, statements, ways_down
from outreach_migrate.files.statements import Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.errors import Problem

# As the tools read them: sqlx-core/src/migrate/migration.rs, which looks at the first bytes alone; liquibase's
# SqlChangeLogParser; yoyo/migrations.py, in the comments before the first statement; migrate/migrate.go of tern;
# drizzle-orm's src/migrator.ts.
_SQLX = "-- no-transaction"
_LIQUIBASE = re.compile(r"\s*(?P<mark>--[ \t]*liquibase[ \t]+formatted[ \t]+sql\b.*)", re.IGNORECASE)
_COMMENTS = r"(?:[ \t]*(?:--.*)?\n)*?[ \t]*"
_TRANSACTIONAL = re.compile(
    rf"{_COMMENTS}(?P<mark>--[ \t]*transactional[ \t]*:[ \t]*(?:true|false)[ \t]*$)", re.MULTILINE
)
_DEPENDS = re.compile(rf"{_COMMENTS}(?P<mark>--[ \t]*depends[ \t]*:.*)")
_DATED = re.compile(r"[0-9]{8}_[0-9]{2}_(?P<id>[A-Za-z0-9]{5})(?:-.*)?\.sql", re.DOTALL)  # as `yoyo new` names a file
_RANDOM = re.compile(r".[a-z]*[0-9A-Z]")  # few words are written so, and few of yoyo's identifiers are not
_TERN, _DRIZZLE, _GRAPHILE = "---- tern: disable-tx ----", "--> statement-breakpoint", "--! Previous:"
_SQITCH = re.compile(r"-- Deploy \S+ to \w+\s")


def findings(sql: str, path: str) -> Iterator[Forbidden]:
    """Yield the mark of a tool that would run the file otherwise, if it is one without doubt."""
    folder, name = os.path.split(path)
    if sql.startswith(_SQLX):
        hint = (
            "sqlx runs such a file without a transaction. Write instead: -- migrate: no-transaction. If it needs none, "
            f"begin the comment with another word. {foreign.copied(folder, 'sqlx')}"
        )
        yield Forbidden(0, f"sqlx's mark: {_SQLX}", hint)
    elif found := _LIQUIBASE.match(sql):
        yield Forbidden(found.start("mark"), f"Liquibase's mark: {found['mark'].strip()}", foreign.RECIPE)
    elif found := _yoyos(sql, name):
        hint = f"Remove the line. {foreign.copied(folder, 'yoyo')}"
        yield Forbidden(found.start("mark"), f"yoyo's mark: {found['mark'].strip()}", hint)
    elif (named := _DATED.fullmatch(name)) and _RANDOM.match(named["id"]):
        hint = "yoyo goes by the whole name. Here the version is its date alone, which another file may have."
        yield Forbidden(0, "a name that yoyo gives", f"{hint} {foreign.copied(folder, 'yoyo')}")
    elif (at := _line(sql, _TERN)) is not None:
        hint = f"Write instead: -- migrate: no-transaction. {foreign.copied(folder, 'tern')}"
        yield Forbidden(at, f"tern's mark: {_TERN}", hint)
    elif (at := _line(sql, _DRIZZLE)) is not None:
        hint = (
            "Remove such lines, and end each statement with a semicolon. To copy drizzle's folder, the one with "
            "meta/_journal.json: outreach-migrate import FOLDER"
        )
        yield Forbidden(at, f"drizzle's mark: {_DRIZZLE}", hint)


def tools(sql: str) -> Iterator[str]:
    """Name the tool that the first lines of a text are of, if it is one without doubt; a name may say another."""
    if sql.startswith(_GRAPHILE):
        yield "graphile-migrate"
    elif _LIQUIBASE.match(sql):
        yield "liquibase"
    elif _TRANSACTIONAL.match(sql) or _DEPENDS.match(sql):
        yield "yoyo"
    elif _SQITCH.match(sql):
        yield "sqitch"
    elif _line(sql, _TERN) is not None:
        yield "tern"


def misnamed(path: str, raw: bytes) -> Problem:
    """Report a file whose name is no migration's here; its first bytes may say which tool's it is."""
    text = raw.decode(errors="replace")
    found = sorted({*ways_down.tools(text), *tools(text)})
    return foreign.misnamed(path, f"{found[0]}'s" if len(found) == 1 else "")


def _line(sql: str, mark: str) -> int | None:
    """Give the offset of a mark that is a comment between statements; only its first place is looked at."""
    at = sql.find(mark)
    if at < 0 or not any(one.start == at + 1 for one in statements.split(f"{sql[:at]};x;")):
        return None
    return at


def _yoyos(sql: str, name: str) -> re.Match[str] | None:
    """Find yoyo's mark; a comment about dependencies is one only in a file that has a name of yoyo's."""
    return _TRANSACTIONAL.match(sql) or (_DEPENDS.match(sql) if _DATED.fullmatch(name) else None)
