"""The statements by which a run makes the history table, and inserts and finishes an entry."""

from __future__ import annotations

import socket
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from psycopg import sql

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.read import History
    from outreach_migrate.history.table import Table

_COLUMNS = """
    position        integer     PRIMARY KEY,
    version         text        NOT NULL UNIQUE,
    name            text        NOT NULL,
    checksum        text        NOT NULL,
    started_at      timestamptz NOT NULL,
    finished_at     timestamptz,
    statements_done integer,
    done_checksum   text,
    statements_begun integer,
    applied_by      text        NOT NULL,
    origin          text        NOT NULL
"""


class Place(NamedTuple):
    """The place of a file's entry: the table, the statements that make an absent one, and the position.

    `previous` is the position of an entry that must still be there when the file ends, 0 for none.
    """

    table: Table
    position: int
    previous: int = 0
    create: tuple[str, ...] = ()


def create(past: History) -> tuple[str, ...]:
    """Write the statements that make the schemas and the table, if absent."""
    schemas = [f"CREATE SCHEMA {sql.Identifier(name).as_string()}" for name in past.missing_schemas]
    return (*schemas, *([] if past.table_exists else [create_table(past.table)]))


def create_table(table: Table) -> str:
    """Write the statement that makes the table."""
    return f"CREATE TABLE {table.quoted} ({_COLUMNS})"


def insert(place: Place, migration: Migration) -> str:
    """Write the statement that adds an entry, not yet finished."""
    # digits and hex need no more than their quotes
    shown = (f"{place.position}", f"'{migration.version}'", sql.quote(migration.name), f"'{migration.checksum}'")
    return (
        f"INSERT INTO {place.table.quoted}"
        " (position, version, name, checksum, started_at, applied_by, origin)"
        f" VALUES ({', '.join(shown)}, pg_catalog.clock_timestamp(),"
        f" session_user || {host()}, 'run')"
    )


@cache
def host() -> str:
    """Write the part of applied_by that names the client's host."""
    return sql.quote("@" + socket.gethostname())


def finish(place: Place) -> str:
    """Write the statement that finishes an entry; it divides by zero if the entry, or the one before it, is gone.

    Its result has the seconds that the file took. The clock is read in FROM, because Citus refuses volatile functions
    in SET if the table is distributed.
    """
    table = place.table.quoted
    before = f"EXISTS (SELECT FROM {table} WHERE position = {place.previous})" if place.previous else "true"
    return update(place, "finished_at = ended.at FROM pg_catalog.clock_timestamp() AS ended(at)", before)


def rewrite(table: Table) -> str:
    """Write a statement that rewrites the newest entry, because a transaction without a write flushes nothing."""
    newest = f"SELECT pg_catalog.max(position) FROM {table.quoted}"
    return f"UPDATE {table.quoted} SET name = name WHERE position = ({newest})"


def update(place: Place, change: str, condition: str) -> str:
    """Write a statement that changes an entry; it divides by zero unless the condition holds and the entry is there."""
    return (
        f"WITH changed AS (UPDATE {place.table.quoted} SET {change}"
        f" WHERE position = {place.position} AND {condition}"
        " RETURNING finished_at - started_at AS took)"
        " SELECT 1 / pg_catalog.count(*), extract(epoch FROM pg_catalog.max(took)) FROM changed"
    )


def seconds(finished: PGresult) -> float:
    """Read the seconds that the file took from the result of `finish`."""
    return float(finished.get_value(0, 1) or 0)
