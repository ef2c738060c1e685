"""What a run writes into the `schema_migrations` table."""

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
    """Where a file's entry goes: the table, with the statements that make it where it is absent, and the position.

    `previous` is the position of an entry that must still be there when the file ends, 0 for none.
    """

    table: Table
    position: int
    previous: int = 0
    create: tuple[str, ...] = ()


def create(past: History) -> tuple[str, ...]:
    """Write the statements that make what is absent of the schemas and the table."""
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
    """Write the statement that finishes an entry; it divides by zero when the entry, or the one before, is gone.

    Its result tells how long the file took. On Citus the table may be a distributed one, and SET refuses volatile
    functions there: FROM doesn't.
    """
    table = place.table.quoted
    before = f"EXISTS (SELECT FROM {table} WHERE position = {place.previous})" if place.previous else "true"
    return _update(place, "finished_at = ended.at FROM pg_catalog.clock_timestamp() AS ended(at)", before)


def progress(place: Place, migration: Migration, *, done: int, begun: int, done_checksum: str) -> str:
    """Write the statement that says how far a file without a transaction is; it fails when the entry is gone."""
    return _update(
        place,
        f"statements_done = {done}, statements_begun = {begun}, done_checksum = {sql.quote(done_checksum)},"
        f" checksum = {sql.quote(migration.checksum)}, name = {sql.quote(migration.name)}",
        "finished_at IS NULL",
    )


def hold(place: Place, done: int) -> tuple[str, ...]:
    """Write the statements that keep the entry of a file without a transaction for the rest of ours.

    What a killed run left behind may still be at the same statement: this waits for its end, and is a unique
    violation, as for any run that came second, when that one has been done meanwhile.
    """
    table, same = place.table.quoted, f"position = {place.position}"
    return (
        f"SELECT FROM {table} WHERE {same} FOR UPDATE",
        f"INSERT INTO {table} SELECT * FROM {table} WHERE {same} AND statements_done <> {done}",
    )


def rewrite(table: Table) -> str:
    """Write the statement that leaves the newest entry as it is: a transaction that writes nothing flushes nothing."""
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
    """Read from the result of `finish` how long the file took, by the times of its entry."""
    return float(finished.get_value(0, 1) or 0)


def claim(connection: Connection, key: str, mark: str) -> bool:
    """Take a file for this run, or find it taken.

    The lock lasts as long as the transaction that stays open here, idle: nobody waits for it, so no index build has
    to wait for somebody's snapshot, and it ends with this run, however that ends.
    """
    connection.execute("BEGIN")
    unlimited = """
        SELECT pg_catalog.set_config(name, '0', true) FROM pg_catalog.pg_settings
         WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout', 'statement_timeout')"""
    connection.execute(f"{mark}{unlimited}".encode())
    row = connection.execute(f"{mark}SELECT pg_catalog.pg_try_advisory_xact_lock({key})".encode()).fetchone()
    return bool(row and row[0])


def claim_key(connection: Connection, place: Place) -> str:
    """Read the number by which a file of this table is claimed: no hash, so no other file's."""
    return str(connection.execute(_claim_key(place).encode()).fetchall()[0][0])


def _claim_key(place: Place) -> str:
    return f"SELECT ({sql.quote(place.table.quoted)}::pg_catalog.regclass::oid::bigint << 32) | {place.position}"


def at_work_key(place: Place) -> str:
    """Write the expression for the number under which a statement of this file that runs alone is at work."""
    return f"-1 - (({_claim_key(place)}))"


def unfinished(place: Place, migration: Migration) -> str:
    """Write the query for how far a file is: no row when it is finished, or not there."""
    return (
        f"SELECT statements_done, statements_begun, done_checksum, checksum FROM {place.table.quoted}"
        f" WHERE finished_at IS NULL AND position = {place.position} AND version = {sql.quote(migration.version)}"
    )
