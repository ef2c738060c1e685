"""The progress of backfills in batches: a table beside the history, with a row for each unfinished one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg import errors as pg

if TYPE_CHECKING:
    from collections.abc import Collection

    from psycopg import Connection
    from psycopg.pq.abc import PGresult

    from outreach_migrate.history.table import Table
    from outreach_migrate.history.write import Place

_COLUMNS = """
    position  integer          PRIMARY KEY,
    last_key  text,
    upper_key text,
    rows      bigint           NOT NULL DEFAULT 0,
    total     bigint           NOT NULL,
    seconds   double precision NOT NULL DEFAULT 0,
    size      integer          NOT NULL
"""
_LITERALS = (
    "coalesce(pg_catalog.quote_literal(last_key), 'NULL'), coalesce(pg_catalog.quote_literal(upper_key), 'NULL')"
)


class BatchProgress(NamedTuple):
    """A backfill's progress; the keys are literals of text, NULL before the first range and of an empty table.

    `rows` of about `total` are done, in `seconds`; `size` is the last range's, in rows.
    """

    last_key: str
    upper_key: str
    rows: int
    total: int
    seconds: float
    size: int

    @property
    def is_done(self) -> bool:
        """Whether no range is left."""
        return self.last_key == self.upper_key


def table(history: Table) -> Table:
    """Name the table beside a history."""
    return history.beside("_batches")


def create(place: Place) -> str:
    """Write the statement that makes the table."""
    return f"CREATE TABLE {table(place.table).quoted} ({_COLUMNS})"


def exists(place: Place) -> str:
    """Write the query whether the table is there."""
    from psycopg import sql

    return f"SELECT pg_catalog.to_regclass({sql.quote(table(place.table).quoted)}) IS NOT NULL"


def begin(place: Place, *, upper_key: str, total: int, size: int) -> str:
    """Write the statement that adds a backfill's row; one of an earlier attempt gives way."""
    return (
        f"INSERT INTO {table(place.table).quoted} (position, upper_key, total, size)"
        f" VALUES ({place.position}, {upper_key}, {total}, {size})"
    )


def end(place: Place) -> str:
    """Write the statement that takes a backfill's row away."""
    return f"DELETE FROM {table(place.table).quoted} WHERE position = {place.position}"


def hold(place: Place, last_key: str) -> str:
    """Write the statement that locks the row to the transaction's end; it divides by zero if the key isn't the last.

    A killed run's server process may still be at work on the same range: then this waits for its end, and fails if it
    has committed.
    """
    return (
        f"SELECT 1 / pg_catalog.count(*) FROM (SELECT FROM {table(place.table).quoted}"
        f" WHERE position = {place.position} AND last_key IS NOT DISTINCT FROM {last_key} FOR UPDATE) AS held"
    )


def advance(place: Place, last_key: str, *, rows: int, size: int) -> str:
    """Write the statement that records a range."""
    return (
        f"UPDATE {table(place.table).quoted} SET last_key = {last_key}, rows = rows + {rows}, size = {size},"
        " seconds = seconds + extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.now())"
        f" WHERE position = {place.position}"
    )


def query(place: Place) -> str:
    """Write the query for a backfill's progress."""
    return (
        f"SELECT {_LITERALS}, rows, total, seconds, size FROM {table(place.table).quoted}"
        f" WHERE position = {place.position}"
    )


def of(result: PGresult) -> BatchProgress | None:
    """Read the progress from the result of `query`."""
    if not result.ntuples:
        return None
    last, upper, rows, total, seconds, size = ((result.get_value(0, n) or b"").decode() for n in range(6))
    return BatchProgress(last, upper, int(rows), int(total), float(seconds), int(size))


def read(connection: Connection, history: Table, positions: Collection[int]) -> dict[int, BatchProgress]:
    """Read the progress of backfills by their positions; those without a row, or hidden from the role, are left out."""
    if not positions:
        return {}
    there = connection.execute(b"SELECT pg_catalog.to_regclass(%s)::text", [table(history).quoted]).fetchone()
    if not (there and there[0]):
        return {}
    wanted = f"SELECT position, {_LITERALS}, rows, total, seconds, size FROM {table(history).quoted}"
    try:
        found = connection.execute(wanted.encode()).fetchall()
    except (pg.InsufficientPrivilege, pg.UndefinedTable):
        return {}
    return {position: BatchProgress(*rest) for position, *rest in found if position in positions}
