"""The statements that record migrations without a run: those applied by other means, and edited files."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

from outreach_migrate.history import write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime
    from typing import LiteralString

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.table import Table
    from outreach_migrate.history.write import Place


class Known(NamedTuple):
    """A migration that was applied by other means; times that are not known become the moment of the recording."""

    migration: Migration
    started_at: datetime | None = None
    finished_at: datetime | None = None


def record(place: Place, known: Sequence[Known], origin: str, *, ended: LiteralString = "now") -> str:
    """Write the statement that adds finished entries, from the place's position on.

    An entry without a time starts when the transaction began, and `ended` names the function that gives its end.
    """
    rows = ", ".join(
        f"({position}, '{one.migration.version}', {sql.quote(one.migration.name)}, '{one.migration.checksum}',"
        f" {_moment(one.started_at, 'now')}, {_moment(one.finished_at or one.started_at, ended)},"
        f" session_user || {write.host()}, {sql.quote(origin)})"
        for position, one in enumerate(known, place.position)
    )
    columns = "position, version, name, checksum, started_at, finished_at, applied_by, origin"
    return f"INSERT INTO {place.table.quoted} ({columns}) VALUES {rows}"


def _moment(given: datetime | None, clock: str) -> str:
    return f"'{given.isoformat()}'::pg_catalog.timestamptz" if given else f"pg_catalog.{clock}()"


def accept(table: Table, migration: Migration, before: str) -> str:
    """Write the statement that records a file's present checksum, if the entry still has the one from before."""
    return (
        f"UPDATE {table.quoted} SET checksum = '{migration.checksum}'"
        f" WHERE version::pg_catalog.numeric = {migration.number} AND checksum = {sql.quote(before)}"
        " AND finished_at IS NOT NULL RETURNING version"
    )
