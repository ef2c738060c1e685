"""The objects of a database's schema, read from the catalog in one message."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from outreach_migrate import errors
from outreach_migrate.schema import few, relations, routines, sql

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg import Connection

    from outreach_migrate.history.table import Table

_LIMIT = "30s"  # for a lock that another session holds; the functions that print views and keys lock them for reading


@dataclass(frozen=True, slots=True)
class Object:
    """An object of the schema: its kind, its name with its schema, and its definition, for people to read.

    `parent` is the name of the table or view that it belongs to.
    """

    kind: str
    name: str
    parent: str | None
    definition: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def _objects(kind: str, name: str, parent: str | None, text: str) -> Iterator[Object]:
    """Give an object, and its privileges as another one, so that they can be ignored."""
    if sql.MARK not in text:
        yield Object(kind, name, parent, text)
        return
    lines = text.split("\n")
    yield Object(kind, name, parent, "\n".join(line for line in lines if not line.startswith(sql.MARK)))
    granted = [line.removeprefix(sql.MARK) for line in lines if line.startswith(sql.MARK)]
    yield Object("privileges", f"on {kind} {name}", parent or name, "\n".join(granted))


def read(connection: Connection, history: Table, *, version: int) -> tuple[Object, ...]:
    """Read all objects, without those of extensions and the history table, in one snapshot, sorted by kind and name.

    Owners, the order of columns, and the names of NOT NULL constraints are no part of a definition. Parts that a
    server of the other major `version` does not know, or has otherwise by default, are left out. Raise MigrateError if
    another session keeps an object locked.
    """
    facts = sql.Facts(connection.info.server_version // 10000, version, history)
    queries = [*relations.queries(facts), *routines.queries(facts), *few.queries(facts)]
    begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL search_path = '';"
    begin += f"SET LOCAL lock_timeout = '{_LIMIT}'; SET LOCAL statement_timeout = 0; SET LOCAL jit = off;"
    found = list[Object]()
    try:
        cursor = connection.execute(f"{begin}{';'.join(queries)}; COMMIT".encode())
        while True:
            if cursor.description is not None:
                found += [one for row in cursor.fetchall() for one in _objects(*row)]
            if not cursor.nextset():
                return tuple(sorted(found, key=lambda one: (one.kind, one.name)))
    except psycopg.errors.LockNotAvailable as error:
        with suppress(psycopg.Error):
            connection.execute("ROLLBACK")
        message = f"another session has locked an object of the schema for {_LIMIT}, so it can't be read"
        raise errors.MigrateError(message, hint="Run it again when that session is done.") from error
    except psycopg.Error:
        with suppress(psycopg.Error):
            connection.execute("ROLLBACK")
        raise
