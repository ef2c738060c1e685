"""The `schema_migrations` table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from psycopg import errors as pg
from psycopg import sql

from outreach_migrate.errors import HistoryError, Problem, UsageError

if TYPE_CHECKING:
    from psycopg import Connection, Cursor


_PATIENCE = "30s"  # to read the table: somebody who locks it for longer is to be told of

# Who made a table of our name, told by the columns it has.
_STRANGERS = {
    frozenset({"version"}): "Rails' or dbmate's",
    frozenset({"version", "inserted_at"}): "Ecto's",
    frozenset({"version", "dirty"}): "golang-migrate's",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the table; times are the database's.

    Of a file without a transaction `statements_done` counts the statements that are done, `done_checksum` is theirs
    (they must not change any more), and `statements_begun` is one more while one may be half done; else all are null.
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
        """The version as versions are compared."""
        return int(self.version)


@dataclass(frozen=True, slots=True)
class Table:
    """The table's name; without a schema it is looked up, and made, along the search path."""

    schema: str | None
    name: str

    def __str__(self) -> str:
        return ".".join(part for part in (self.schema, self.name) if part)

    @property
    def quoted(self) -> str:
        """The name as it stands in SQL."""
        return _quoted(self.schema, self.name)


@cache
def _quoted(schema: str | None, name: str) -> str:
    return sql.Identifier(*(part for part in (schema, name) if part)).as_string()


def table(name: str, schema: str | None = None) -> Table:
    """Read [SCHEMA.]NAME, each part as it is or in double quotes; case is kept. `schema` stands in for none."""
    parts = re.findall(r'"((?:[^"]|"")+)"|([^".]+)', name)
    written = ".".join(f'"{quoted}"' if quoted else plain for quoted, plain in parts)
    if written != name or not 1 <= len(parts) <= 2:
        raise UsageError(f"not a table's name: {name}", hint='Give NAME or SCHEMA.NAME, as ops."my table".')
    *first, last = [quoted.replace('""', '"') or plain for quoted, plain in parts]
    return Table(first[0] if first else schema, last)


@dataclass(frozen=True, slots=True)
class History:
    """What the table held when it was read; `table` has its schema, None where none is to be had.

    `missing_schemas` are those of the table and of the search path that are not there yet. `checks_client` says whether
    the server can be asked to end what it does for a client that is gone, and nobody has set how often it looks.
    """

    table: Table
    entries: tuple[Entry, ...]
    table_exists: bool
    missing_schemas: tuple[str, ...]
    standby: bool
    read_only: bool
    checks_client: bool

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


def read(connection: Connection, table: Table, *, search_path: str | None = None) -> History:
    """Read the table in one message; an absent one is an empty history.

    Raise HistoryError when it is a stranger's. Behind a pooler the session may be in any state, so it is put right
    in the same message, where SET LOCAL lasts to the end (a message is one implicit transaction). The encoding is set
    for longer: RESET ALL takes it to the database's own there, and the next message would be read as that.
    """
    start = "RESET ALL; SET client_encoding = 'UTF8'; RESET ROLE; SET standard_conforming_strings = on;"
    start += f"SET LOCAL lock_timeout = '{_PATIENCE}';"
    start += "SET LOCAL statement_timeout = 0;" + set_search_path(search_path)
    facts_query = _facts(table, sorted(filter(None, {table.schema, search_path})))
    try:
        cursor = connection.execute(f"{start}{facts_query};{_rows(table)}".encode())
    except (pg.UndefinedTable, pg.UndefinedColumn) as error:
        facts, _ = _last_two(connection.execute(f"{start}{facts_query};SELECT".encode()))
        if not facts[0]["columns"]:
            return _history(table, facts[0], ())
        if isinstance(error, pg.UndefinedTable):  # another run has made it since
            return read(connection, table, search_path=search_path)
        raise HistoryError([_stranger(table, facts[0])]) from None
    facts, rows = _last_two(cursor)
    return _history(table, facts[0], tuple(_entry(row) for row in rows))


def set_search_path(schema: str | None) -> str:
    """Write the SQL that puts a schema first for the rest of the transaction; nothing without one."""
    return f"SET LOCAL search_path = {sql.Identifier(schema).as_string()};" if schema else ""


def _facts(table: Table, schemas: list[str]) -> str:
    wanted = ", ".join(map(sql.quote, schemas))
    found = f"pg_catalog.to_regclass({sql.quote(table.quoted)})"
    return f"""
        SELECT pg_catalog.json_build_object(
            'schema', coalesce({sql.quote(table.schema)},
                (SELECT n.nspname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                  WHERE c.oid = {found}), pg_catalog.current_schema()),
            'missing_schemas', (SELECT coalesce(pg_catalog.json_agg(name), '[]')
                                  FROM pg_catalog.unnest(ARRAY[{wanted}]::text[]) AS name
                                 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = name)),
            'columns', (SELECT pg_catalog.json_agg(attname) FROM pg_catalog.pg_attribute
                         WHERE attrelid = {found} AND attnum > 0 AND NOT attisdropped),
            'standby', pg_catalog.pg_is_in_recovery(),
            'read_only', pg_catalog.current_setting('default_transaction_read_only') = 'on',
            -- elsewhere than on Linux setting it may be an error
            'checks_client', pg_catalog.current_setting('client_connection_check_interval', true) = '0'
                AND pg_catalog.version() LIKE '%linux%')"""


def _rows(table: Table) -> str:
    """Times come as UTC: psycopg would convert them to the session's time zone, by way of the zone database."""
    return f"""
        SELECT position, version, name, checksum, started_at AT TIME ZONE 'UTC', finished_at AT TIME ZONE 'UTC',
               statements_done, done_checksum, statements_begun, applied_by, origin
          FROM {table.quoted} ORDER BY position"""


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
    position, version, name, checksum, started_at, finished_at, *rest = row
    if not version.isascii() or not version.isdigit():
        message = f"the entry at position {position} has version {version!r}, which no file can have"
        raise HistoryError([Problem(message, hint="Put the row right by hand: versions are digits.")])
    finished_at = finished_at and finished_at.replace(tzinfo=UTC)
    return Entry(position, version, name, checksum, started_at.replace(tzinfo=UTC), finished_at, *rest)


def _history(table: Table, facts: dict[str, Any], entries: tuple[Entry, ...]) -> History:
    return History(
        table=Table(facts["schema"], table.name),
        entries=entries,
        table_exists=facts["columns"] is not None,
        missing_schemas=tuple(facts["missing_schemas"]),
        standby=facts["standby"],
        read_only=facts["read_only"],
        checks_client=bool(facts["checks_client"]),
    )


def _stranger(table: Table, facts: dict[str, Any]) -> Problem:
    columns = facts["columns"]
    whose = _STRANGERS.get(frozenset(columns), "another tool's")
    named = Table(facts["schema"], table.name)
    return Problem(
        f"the table {named} is not ours: it has the columns {', '.join(columns)}, and looks like {whose}",
        hint=f"Keep our history in a table of another name: --table {facts['schema']}.outreach_migrations",
    )
