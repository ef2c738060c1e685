"""Views as another version of PostgreSQL prints them: since 16 it names a column's table only where it must."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

    from outreach_migrate.schema.catalog import Object

_VIEWS = """
    SELECT format('%I.%I', n.nspname, c.relname), pg_get_viewdef(c.oid)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('v', 'm')"""


def alike(
    actual: Iterable[Object], connection: Connection, expected: Iterable[Object], scratch: Connection
) -> tuple[Object, ...]:
    """Give a database's objects, each view that is printed otherwise than in the scratch database as that prints it.

    A view that the scratch database can't have is left as it is.
    """
    there = {(one.kind, one.name): one.definition for one in expected}
    wanted = {
        one.name
        for one in actual
        if "view" in one.kind and there.get((one.kind, one.name), one.definition) != one.definition
    }
    texts = {name: text for name, text in _rows(connection, _VIEWS) if name in wanted}
    printed = {name: _printed(scratch, text) for name, text in texts.items()}
    return tuple(
        replace(one, definition=one.definition.replace(texts[one.name], new))
        if "view" in one.kind and (new := printed.get(one.name))
        else one
        for one in actual
    )


def _printed(scratch: Connection, query: str) -> str | None:
    with suppress(psycopg.Error):
        view = f"CREATE TEMP VIEW outreach_printed AS {query.rstrip().removesuffix(';')}"
        return str(_rows(scratch, f"{view}; SELECT pg_get_viewdef('pg_temp.outreach_printed'::regclass)")[0][0])
    return None


def _rows(connection: Connection, query: str) -> list[tuple[str, ...]]:
    """Run a query that changes nothing, because its transaction is rolled back."""
    try:
        cursor = connection.execute(f"BEGIN; SET LOCAL search_path = ''; {query}".encode())
        while cursor.nextset():
            pass
        return cursor.fetchall()
    finally:
        connection.execute("ROLLBACK")
