"""The histories of many schemas of one database, read in a few messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import Enum
from itertools import chain

from psycopg import Connection, errors

from outreach_migrate.errors import HistoryError, HistoryLocked
from outreach_migrate.history import catalog, read
from outreach_migrate.history.read import History
from outreach_migrate.history.table import Table
from outreach_migrate.postgres import messages

# Tables in one transaction: each takes three of the server's locks, which are for all sessions; by default there are
# 6,400. More at once save no time.
_AT_ONCE = 100
_LOOK = 1000  # tables in one look at the catalog, because the answer has 2 kB for each
_PATIENCE = "100ms"  # for a lock that was taken since the look at all locks


class Unread(Enum):
    """The reason why a history was not read together with the rest."""

    STRANGE = "it must be read alone, to find its problem"
    LOCKED = "a session locks it"


def histories(connection: Connection, tables: Sequence[Table]) -> dict[Table, History | Unread]:
    """Read many tables of one database; an absent one is an empty history.

    Only a digest of each comes from the server, and then one history for each digest. So histories that are alike share
    their entries, whose times and roles are those of any of them.
    """
    found: dict[Table, History | Unread] = {}
    shared: dict[bytes | None, History] = {}
    several = (tables[start : start + _LOOK] for start in range(0, len(tables), _LOOK))
    for table, digest in chain.from_iterable(_digests(connection, some) for some in several):
        if not isinstance(digest, Unread) and digest not in shared:
            digest = _share(connection, table, digest, shared)
        found[table] = digest if isinstance(digest, Unread) else shared[digest]._replace(table=table)
    return found


def _share(
    connection: Connection, table: Table, digest: bytes | None, shared: dict[bytes | None, History]
) -> bytes | Unread | None:
    """Read the history that all with its digest share; the digest of an absent one is None."""
    try:
        past = read.history(connection, table, search_path=table.schema, patience=read.SOON)
    except HistoryLocked:
        return Unread.LOCKED
    except HistoryError:
        return Unread.STRANGE
    if past.missing_schemas or past.table_exists is (digest is None):  # it was dropped, or made, since
        return Unread.STRANGE
    shared[digest] = past
    return digest


def _digests(connection: Connection, tables: Sequence[Table]) -> Iterator[tuple[Table, bytes | Unread | None]]:
    """Give each table's digest, None if it is absent, or the reason why it can't be read."""
    start = f"{read.CLEAN}; SET LOCAL lock_timeout = '{read.SOON}s'; SET LOCAL statement_timeout = 0;"
    facts = read.last(connection.execute(f"{start}{catalog.query_of_many(tables)}".encode()))
    readable, doubtful = [], set[Table]()
    for table, (schema_exists, relation, name_is_taken, is_locked, is_foreign) in zip(tables, facts, strict=True):
        if is_foreign:  # it counts if the history is empty
            doubtful.add(table)
        if is_locked:
            yield table, Unread.LOCKED
        elif relation and catalog.is_fit(table, relation):
            readable.append(table)
        elif schema_exists and not (relation or name_is_taken or is_foreign) and table.chosen:
            yield table, None
        else:
            yield table, Unread.STRANGE
    while readable:
        batch, readable = readable[:_AT_ONCE], readable[_AT_ONCE:]
        read_so_far = list(_read(connection, batch))
        for table, digest in zip(batch, read_so_far, strict=False):
            yield table, Unread.STRANGE if not digest and table in doubtful else digest
        readable = batch[len(read_so_far) :] + readable


def _read(connection: Connection, tables: Sequence[Table]) -> Iterator[bytes | Unread]:
    """Give the tables' digests, up to the first that can't be read, because it is locked or dropped by now."""
    before = ("BEGIN READ ONLY", f"SET LOCAL lock_timeout = '{_PATIENCE}'", "SET LOCAL statement_timeout = 0")
    queries = [f"SELECT {_DIGEST} FROM {table.quoted}" for table in tables]
    results = messages.exchange(connection, "; ".join([*before, *queries, "COMMIT"]))
    failed = messages.failure(results)
    for result in results[len(before) : len(before) + len(tables)]:
        if result is not failed:
            yield result.get_value(0, 0) or b""
    if failed:
        with suppress(errors.Error):
            connection.execute("ROLLBACK")
        error = errors.error_from_result(failed)
        if connection.closed:
            raise error
        yield Unread.LOCKED if isinstance(error, errors.LockNotAvailable) else Unread.STRANGE


_DIGEST = """pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(pg_catalog.string_agg(
    ROW(position, version, name, checksum, finished_at IS NULL,
        statements_done, done_checksum, statements_begun, origin)::pg_catalog.text,
    ' ' ORDER BY position), 'UTF8')), 'hex')"""
