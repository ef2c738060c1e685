"""The progress of a file without a transaction: its statements in the history table, and the locks that claim it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from outreach_migrate.history import write

if TYPE_CHECKING:
    from psycopg import Connection

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.write import Place


def record(place: Place, migration: Migration, *, done: int, begun: int, done_checksum: str) -> str:
    """Write the statement that records the progress of a file without a transaction; it fails if the entry is gone."""
    return write.update(
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
