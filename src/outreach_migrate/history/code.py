"""The table beside the history's that records the files of code."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

from outreach_migrate.history import write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from psycopg import Connection

    from outreach_migrate.history.table import Table

_COLUMNS = """
    path       text        PRIMARY KEY,
    checksum   text        NOT NULL,
    objects    text[]      NOT NULL,
    applied_at timestamptz NOT NULL,
    applied_by text        NOT NULL
"""


class Record(NamedTuple):
    """A file of code as it was last carried out; `objects` are those that it made, as in FUNCTION public.f(integer)."""

    path: str
    checksum: str
    objects: tuple[str, ...]
    applied_at: datetime
    applied_by: str


def name(table: Table) -> str:
    """Give the table's name, quoted."""
    return table.beside("_code").quoted


def read(connection: Connection, table: Table) -> dict[str, Record]:
    """Read the records, by path; none where the table is absent."""
    there = connection.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", (name(table),)).fetchall()[0][0]
    if not there:
        return {}
    rows = connection.execute(f"SELECT path, checksum, objects, applied_at, applied_by FROM {name(table)}".encode())
    return {row[0]: Record(row[0], row[1], tuple(row[2]), row[3], row[4]) for row in rows.fetchall()}


def lock(table: Table) -> list[str]:
    """Write the statements that make the table if it is absent, and lock it against other runs."""
    return [
        f"CREATE TABLE IF NOT EXISTS {name(table)} ({_COLUMNS})",
        f"LOCK TABLE {name(table)} IN SHARE ROW EXCLUSIVE MODE",
    ]


def record(table: Table, path: str, checksum: str, objects: Sequence[str]) -> str:
    """Write the statement that records a file as carried out."""
    made = f"ARRAY[{', '.join(map(sql.quote, objects))}]::text[]"
    return (
        f"INSERT INTO {name(table)} VALUES ({sql.quote(path)}, {sql.quote(checksum)}, {made},"
        f" pg_catalog.clock_timestamp(), session_user || {write.host()})"
        " ON CONFLICT (path) DO UPDATE SET checksum = excluded.checksum, objects = excluded.objects,"
        " applied_at = excluded.applied_at, applied_by = excluded.applied_by"
    )


def forget(table: Table, path: str) -> str:
    """Write the statement that removes a file's record."""
    return f"DELETE FROM {name(table)} WHERE path = {sql.quote(path)}"
