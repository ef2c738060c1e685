"""The statements by which a run writes into the history table."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from psycopg import Connection
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


@dataclass(frozen=True, slots=True)
class Place:
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
    return (*schemas, *([] if past.table_exists else [f"CREATE TABLE {past.table.quoted} ({_COLUMNS})"]))


def insert(place: Place, migration: Migration) -> str:
    """Write the statement that adds an entry, not yet finished."""
    # digits and hex need no more than their quotes
    shown = (f"{place.position}", f"'{migration.version}'", sql.quote(migration.name), f"'{migration.checksum}'")
    return (
        f"INSERT INTO {place.table.quoted}"
        " (position, version, name, checksum, started_at, applied_by, origin)"
        f" VALUES ({', '.join(shown)}, pg_catalog.clock_timestamp(),"
        f" session_user || {_host()}, 'run')"
    )


@cache
def _host() -> str:
    return sql.quote("@" + socket.gethostname())


def finish(place: Place) -> str:
    """Write the statement that finishes an entry; it divides by zero if the entry, or the one before it, is gone.

    Its result has the seconds that the file took. The clock is read in FROM, because Citus refuses volatile functions
    in SET if the table is distributed.
    """
    table = place.table.quoted
    before = f"EXISTS (SELECT FROM {table} WHERE position = {place.previous})" if place.previous else "true"
    return _update(place, "finished_at = ended.at FROM pg_catalog.clock_timestamp() AS ended(at)", before)


def progress(place: Place, migration: Migration, *, done: int, begun: int, done_checksum: str) -> str:
    """Write the statement that records the progress of a file without a transaction; it fails if the entry is gone."""
    return _update(
        place,
        f"statements_done = {done}, statements_begun = {begun}, done_checksum = {sql.quote(done_checksum)},"
        f" checksum = {sql.quote(migration.checksum)}, name = {sql.quote(migration.name)}",
        "finished_at IS NULL",
    )


def hold(place: Place, done: int) -> tuple[str, ...]:
    """Write the statements that lock the entry of a file without a transaction until the transaction's end.

    A killed run's server process may still run the same statement. The lock waits for its end; if the statement was
    done meanwhile, the INSERT is a unique violation, as for any run that is overtaken.
    """
    table, same = place.table.quoted, f"position = {place.position}"
    return (
        f"SELECT FROM {table} WHERE {same} FOR UPDATE",
        f"INSERT INTO {table} SELECT * FROM {table} WHERE {same} AND statements_done <> {done}",
    )


def rewrite(table: Table) -> str:
    """Write a statement that rewrites the newest entry, because a transaction without a write flushes nothing."""
    newest = f"SELECT pg_catalog.max(position) FROM {table.quoted}"
    return f"UPDATE {table.quoted} SET name = name WHERE position = ({newest})"


def _update(place: Place, change: str, condition: str) -> str:
    return (
        f"WITH changed AS (UPDATE {place.table.quoted} SET {change}"
        f" WHERE position = {place.position} AND {condition}"
        " RETURNING finished_at - started_at AS took)"
        " SELECT 1 / pg_catalog.count(*), extract(epoch FROM pg_catalog.max(took)) FROM changed"
    )


def seconds(finished: PGresult) -> float:
    """Read the seconds that the file took from the result of `finish`."""
    return float(finished.get_value(0, 1) or 0)


def claim(connection: Connection, key: str, mark: str) -> bool:
    """Claim a file for this run by an advisory lock; return whether it was free.

    The transaction stays open and idle, and the lock lasts as long: until the run ends, in any way. It is only tried,
    because a session that waited for it would hold a snapshot, and an index build waits for those.
    """
    connection.execute("BEGIN")
    unlimited = """
        SELECT pg_catalog.set_config(name, '0', true) FROM pg_catalog.pg_settings
         WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'statement_timeout')"""
    connection.execute(f"{mark}{unlimited}".encode())
    row = connection.execute(f"{mark}SELECT pg_catalog.pg_try_advisory_xact_lock({key})".encode()).fetchone()
    return bool(row and row[0])


def claim_key(connection: Connection, place: Place) -> str:
    """Read the advisory lock's number for a file of this table; two files never share one, because it is no hash."""
    return str(connection.execute(_claim_key(place).encode()).fetchall()[0][0])


def _claim_key(place: Place) -> str:
    return f"SELECT ({sql.quote(place.table.quoted)}::pg_catalog.regclass::oid::bigint << 32) | {place.position}"


def at_work_key(place: Place) -> str:
    """Write the expression for the advisory lock's number that a statement outside of transactions holds."""
    return f"-1 - (({_claim_key(place)}))"


def unfinished(place: Place, migration: Migration) -> str:
    """Write the query for a file's progress; it has no row if the entry is finished or absent."""
    return (
        f"SELECT statements_done, statements_begun, done_checksum, checksum FROM {place.table.quoted}"
        f" WHERE finished_at IS NULL AND position = {place.position} AND version = {sql.quote(migration.version)}"
    )
