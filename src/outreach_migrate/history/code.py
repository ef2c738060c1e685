"""The table beside the history's that records the files of code."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from psycopg import errors as pg
from psycopg import sql

from outreach_migrate.errors import HistoryError, Problem
from outreach_migrate.history import write
from outreach_migrate.postgres import objects

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


class CodeRecord(NamedTuple):
    """A file of code as it was last carried out; `objects` are those that it made, as in FUNCTION public.f(integer).

    `missing` are those among them that are gone by now, as those that a migration has dropped.
    """

    path: str
    checksum: str
    objects: tuple[str, ...]
    applied_at: datetime
    applied_by: str
    missing: tuple[str, ...] = ()


def name(table: Table) -> str:
    """Give the table's name, quoted."""
    return table.beside("_code").quoted


def read(connection: Connection, table: Table) -> dict[str, CodeRecord]:
    """Read the records, by path, in one round trip; none where the table is absent, which fails an open transaction.

    Raise HistoryError when the role may not read them.
    """
    query = f"""
        WITH schemas AS MATERIALIZED (
            SELECT n.oid FROM pg_catalog.pg_namespace n WHERE EXISTS (
                SELECT FROM {name(table)} r, pg_catalog.unnest(r.objects) AS one
                 WHERE pg_catalog.strpos(one, pg_catalog.quote_ident(n.nspname) || '.') > 0)),
        known AS MATERIALIZED ({objects.there(schemas="SELECT oid FROM schemas")})
        SELECT path, checksum, objects, applied_at, applied_by,
               ARRAY(SELECT one FROM pg_catalog.unnest(objects) AS one WHERE one NOT IN (SELECT name FROM known))
          FROM {name(table)} ORDER BY path"""
    try:
        rows = connection.execute(query.encode()).fetchall()
    except pg.UndefinedTable:
        return {}
    except pg.InsufficientPrivilege as error:
        raise HistoryError([_hidden(connection, table)]) from error
    return {row[0]: CodeRecord(row[0], row[1], tuple(row[2]), row[3], row[4], tuple(row[5])) for row in rows}


def _hidden(connection: Connection, table: Table) -> Problem:
    quoted, where = name(table), table.beside("_code")
    role, usage = connection.execute(
        "SELECT pg_catalog.quote_ident(current_user), pg_catalog.has_schema_privilege(%s, 'USAGE')", [where.schema]
    ).fetchall()[0]
    schema = "" if usage else f"GRANT USAGE ON SCHEMA {sql.Identifier(where.schema).as_string()} TO {role}; "
    hint = f"{schema}GRANT SELECT ON {quoted} TO {role}; up also needs INSERT, UPDATE and DELETE."
    return Problem(f"the role {role} may not read the records of the files of code, {where}", hint=hint)


def lock(table: Table) -> list[str]:
    """Write the statements that make the table if it is absent, and lock it against other runs.

    The notice that it is there already would stand among those of a migration that needs code.
    """
    return [
        "SET LOCAL client_min_messages = warning",
        f"CREATE TABLE IF NOT EXISTS {name(table)} ({_COLUMNS})",
        "SET LOCAL client_min_messages = DEFAULT",
        f"LOCK TABLE {name(table)} IN SHARE ROW EXCLUSIVE MODE",
    ]


def record(table: Table, path: str, checksum: str, objects: Sequence[str]) -> str:
    """Write the statement that records a file as carried out."""
    made = _array(objects)
    return (
        f"INSERT INTO {name(table)} VALUES ({sql.quote(path)}, {sql.quote(checksum)}, {made},"
        f" pg_catalog.clock_timestamp(), session_user || {write.host()})"
        " ON CONFLICT (path) DO UPDATE SET checksum = excluded.checksum, objects = excluded.objects,"
        " applied_at = excluded.applied_at, applied_by = excluded.applied_by"
    )


def take_over(table: Table, path: str, made: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Write the statements that take objects from the records of other files, because a file has made them.

    The record of a file that is none of `paths`, and has no object left, goes.
    """
    others = f"path <> {sql.quote(path)} AND objects && {_array(made)}"
    left = f"ARRAY(SELECT one FROM pg_catalog.unnest(objects) AS one WHERE one <> ALL ({_array(made)}))"
    gone = f"path <> ALL ({_array(paths)}) AND objects <@ {_array(made)}"
    return [
        f"DELETE FROM {name(table)} WHERE {others} AND {gone}",
        f"UPDATE {name(table)} SET objects = {left} WHERE {others}",
    ]


def _array(values: Sequence[str]) -> str:
    return f"ARRAY[{', '.join(map(sql.quote, values))}]::text[]"


def forget(table: Table, path: str) -> str:
    """Write the statement that removes a file's record."""
    return f"DELETE FROM {name(table)} WHERE path = {sql.quote(path)}"
