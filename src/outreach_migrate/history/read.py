"""The history table, read in one message."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import errors as pg
from psycopg import sql

from outreach_migrate.errors import HistoryError, HistoryLocked, Problem
from outreach_migrate.history import catalog, foreign
from outreach_migrate.postgres import activity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from psycopg import Connection, Cursor

    from outreach_migrate.errors import Blocker
    from outreach_migrate.history.forms import Foreign
    from outreach_migrate.history.table import Table


SOON = 1  # s: a longer wait means that somebody locks the table, and is reported
_PATIENCE = 30  # s: a lock that lasts longer is an error
CLEAN = "RESET ALL; SET client_encoding = 'UTF8'; RESET ROLE; SET standard_conforming_strings = on"
_NEEDED = ("position", "version", "name", "checksum", "started_at")


class Entry(NamedTuple):
    """A row of the table; times are by the database's clock.

    Three fields are for a file without a transaction, and null otherwise. `statements_done` counts the statements that
    are done, `done_checksum` is their checksum, because they must not change now, and `statements_begun` is one
    more than `statements_done` while the next may be half done.
    """

    position: int
    version: str
    name: str
    checksum: str
    started_at: datetime
    finished_at: datetime | None
    statements_done: int | None
    done_checksum: str | None
    statements_begun: int | None
    applied_by: str
    origin: str

    @property
    def number(self) -> int:
        """The version as a number, as which versions are compared."""
        return int(self.version)

    @property
    def is_timed(self) -> bool:
        """Whether the times are those of the migration; some tools that it was adopted from keep none.

        Where a tool keeps some, an adoption's own time is one with an end after its start.
        """
        from outreach_migrate.history import forms

        if self.origin in forms.PARTLY_TIMED:
            return self.finished_at == self.started_at
        return self.origin not in forms.UNTIMED

    @property
    def seconds(self) -> float | None:
        """The seconds that the file took; None while it is unfinished, or if only the moment of its end is known."""
        took = (self.finished_at - self.started_at).total_seconds() if self.finished_at else None
        if self.origin == "run":
            return took
        return (took or None) if self.is_timed else None


class History(NamedTuple):
    """The table's entries when it was read, and facts about the server.

    `missing_schemas` are the schemas of the table and of the URL that are not there yet. `checks_client` says whether
    the server can check that a client is still there, and no setting says how often; `citus` whether the database has
    the extension of that name. `foreign` are the other tools' tables that record applied migrations; they are looked
    for while there are no entries.
    """

    table: Table
    entries: tuple[Entry, ...]
    table_exists: bool
    missing_schemas: tuple[str, ...]
    standby: bool
    read_only: bool
    checks_client: bool
    citus: bool
    foreign: tuple[Foreign, ...] = ()

    def before(self, position: int) -> int:
        """The position of the entry before a position, 0 without one."""
        return max((entry.position for entry in self.entries if entry.position < position), default=0)

    @property
    def newest(self) -> int:
        """The newest entry's position, 0 without entries."""
        return self.entries[-1].position if self.entries else 0

    @property
    def schema_exists(self) -> bool:
        """Whether the table's schema is there."""
        return self.table.schema not in self.missing_schemas


class Locked(NamedTuple):
    """Reading the table waits, because `blockers` lock it; they are empty if the role can't see them."""

    table: Table
    blockers: tuple[Blocker, ...]


def history(
    connection: Connection,
    table: Table,
    *,
    search_path: str | None = None,
    tell: Callable[[Locked], None] = lambda _: None,
    patience: int = _PATIENCE,
) -> History:
    """Read the table in one message; an absent one is an empty history.

    Raise HistoryError when it is not a history, or the role may not read it, and HistoryLocked when it stays locked for
    `patience` seconds; `tell` is called when a lock makes this wait.
    """
    try:
        return _read(connection, table, search_path, patience=SOON)
    except pg.LockNotAvailable:
        tell(Locked(table, _blockers(connection, table)))
    if patience > SOON:
        with suppress(pg.LockNotAvailable):
            return _read(connection, table, search_path, patience=patience - SOON)
    message = f"the history table {table} has been locked for {patience} s, and can't be read"
    raise HistoryLocked(message, _blockers(connection, table))


def _blockers(connection: Connection, table: Table) -> tuple[Blocker, ...]:
    try:
        return activity.holders(connection, table.schema, table.name)
    except pg.LockNotAvailable:  # somebody locks the catalog itself
        return ()


def _read(connection: Connection, table: Table, search_path: str | None, *, patience: int) -> History:
    """Read the table; if that fails, find the reason in the catalog.

    Behind a pooler the session may be in any state, so the same message resets it. SET LOCAL lasts to the message's
    end, because a message is one implicit transaction. The encoding is set for longer, because RESET ALL sets the
    database's own encoding behind a pooler, and the server would read the next message in it.
    """
    start = f"{CLEAN}; SET LOCAL lock_timeout = '{patience}s'; SET LOCAL statement_timeout = 0;"
    start += catalog.query(table, search_path)
    try:
        facts, rows = _last_two(connection.execute(f"{start};{_rows(table)}".encode()))
    except psycopg.Error as error:
        if connection.closed or isinstance(error, pg.LockNotAvailable):
            raise
        return _after(error, connection, table, start, search_path=search_path)
    if facts[0]["relation"] is None:  # another run has made it between the two queries
        return _read(connection, table, search_path, patience=patience)
    if problems := catalog.unfit(table, facts[0]):
        raise HistoryError(problems)
    return _history(connection, table, facts[0], tuple(_entry(row) for row in rows))


def _after(
    error: psycopg.Error, connection: Connection, table: Table, start: str, *, search_path: str | None
) -> History:
    """Find out why the table could not be read; an absent one is no error."""
    also = "SELECT" if table.chosen else catalog.alike(table)
    (facts,), others = _last_two(connection.execute(f"{start};{also}".encode()))
    if facts["relation"] is None:
        problems = catalog.absent(table, facts, others, search_path=search_path)
    else:
        problems = catalog.unfit(table, facts) or catalog.hidden(table, facts, others)
    if not problems and facts["relation"] and error.sqlstate is None:  # psycopg could not convert a timestamp
        problems = list(_no_times(connection, table, facts))
    if problems:
        raise HistoryError(problems) from None
    if facts["relation"] is None:
        return _history(connection, table, facts, ())
    if isinstance(error, pg.UndefinedTable):  # another run has made it since
        return _read(connection, table, search_path, patience=_PATIENCE)
    raise error


def _no_times(connection: Connection, table: Table, facts: dict[str, Any]) -> Iterator[Problem]:
    """Find the first entry with a time that Python's datetime can't hold; the next is found once this one is mended."""
    for column, right in (("started_at", "finished_at"), ("finished_at", "started_at")):
        no_time = (
            f"NOT coalesce({column} AT TIME ZONE 'UTC' BETWEEN '0001-01-01' AND '9999-12-31 23:59:59.999999', true)"
        )
        query = f"SELECT position, version, {column}::text FROM {table.quoted} WHERE {no_time} ORDER BY 1 LIMIT 1"
        for position, version, value in connection.execute(query.encode()).fetchall():
            message = f"the entry at position {position} (version {version}) has {column} {value}, which is no date"
            hint = f"Correct it: UPDATE {facts['sql']} SET {column} = {right} WHERE position = {position};"
            yield Problem(message, hint=hint)


def foreign_tables(
    connection: Connection, table: Table, *, search_path: str | None, reset: bool = True
) -> tuple[Foreign, ...]:
    """Read which other tools have a table where the history is; `reset` is for a session in any state."""
    from outreach_migrate.history import forms

    start = f"{CLEAN}; " if reset else ""
    cursor = connection.execute(f"{start}SELECT {foreign.query(table, search_path)}".encode())
    while cursor.nextset():
        pass
    return forms.known(cursor.fetchall()[0][0])


def set_search_path(schema: str | None) -> str:
    """Write the SQL that makes a schema the search path for the rest of the transaction; nothing without one."""
    return f"SET LOCAL search_path = {sql.Identifier(schema).as_string()};" if schema else ""


def _rows(table: Table) -> str:
    """Write the query for the entries, with times as UTC, because psycopg would load the time zone database else."""
    return f"""
        SELECT position, version, name, checksum, started_at AT TIME ZONE 'UTC', finished_at AT TIME ZONE 'UTC',
               statements_done, done_checksum, statements_begun, applied_by, origin
          FROM {table.quoted} ORDER BY position"""


def last(cursor: Cursor[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Give the rows of a message's last result."""
    while cursor.nextset():
        pass
    return cursor.fetchall()


def _last_two(cursor: Cursor[tuple[Any, ...]]) -> tuple[Any, list[tuple[Any, ...]]]:
    """Give the first row of the last result but one, and the last result's rows."""
    before: list[tuple[Any, ...]] = []
    rows: list[tuple[Any, ...]] = []
    while True:
        if cursor.description is not None:
            before, rows = rows, cursor.fetchall()
        if not cursor.nextset():
            return before[0], rows


def _entry(row: tuple[Any, ...]) -> Entry:
    if None in row[: len(_NEEDED)]:
        message = f"the entry at position {row[0]} has no {_NEEDED[row.index(None)]}"
        raise HistoryError([Problem(message, hint="Correct the row by hand.")])
    position, version, name, checksum, started_at, finished_at, *rest = row
    if not version.isascii() or not version.isdigit():
        message = f"the entry at position {position} has version {version!r}, which no file can have"
        raise HistoryError([Problem(message, hint="Correct the row by hand: a version is digits.")])
    finished_at = finished_at and finished_at.replace(tzinfo=UTC)
    return Entry(position, version, name, checksum, started_at.replace(tzinfo=UTC), finished_at, *rest)


def _history(connection: Connection, table: Table, facts: dict[str, Any], entries: tuple[Entry, ...]) -> History:
    return History(
        table=table,
        entries=entries,
        table_exists=facts["relation"] is not None,
        missing_schemas=tuple(facts["missing_schemas"]),
        standby=facts["standby"],
        read_only=facts["read_only"],
        checks_client=bool(facts["checks_client"]),
        citus=facts["citus"],
        foreign=_in_use(connection, facts["foreign"]) if facts["foreign"] and not entries else (),
    )


def _in_use(connection: Connection, facts: list[dict[str, Any]]) -> tuple[Foreign, ...]:
    """Choose the tables that record an applied migration; one that is locked counts."""
    from outreach_migrate.history import forms  # here, because few databases have such tables

    found = forms.known(facts)
    if not found:
        return ()
    try:
        message = f"SET LOCAL lock_timeout = '{SOON}s'; {forms.in_use(found)}"
        cursor = connection.execute(message.encode())
        cursor.nextset()
        used = cursor.fetchall()
    except pg.LockNotAvailable:
        return found
    return tuple(one for one, is_used in zip(found, used[0], strict=True) if is_used)
