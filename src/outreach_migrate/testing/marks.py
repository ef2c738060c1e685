"""The mark in a database's comment, by which the plug-in knows its own databases again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import LiteralString

from psycopg import Connection, sql

PREFIX = "outreach-migrate testing: "


class Purpose(StrEnum):
    """The use of a database; a scratch database is a template that is being built."""

    SCRATCH = "scratch"
    TEMPLATE = "template"
    COPY = "copy"
    KEPT = "kept"


@dataclass(frozen=True, slots=True)
class Mark:
    """A database's use, the server's time in seconds when it was last used, and the run that uses it."""

    kind: Purpose
    used: int
    run: str = ""


@dataclass(frozen=True, slots=True)
class Marked:
    """A database that has a mark, and whether its run still lives."""

    name: str
    mark: Mark
    lives: bool


def write(name: str, mark: Mark) -> sql.Composed:
    """Write the statement that marks a database."""
    return sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(name), PREFIX + json.dumps(asdict(mark)))


def read(connection: Connection, name: str) -> Mark | None:
    """Read a database's mark, or None where the database is absent or has none."""
    found = _rows(connection, "datname = %s", name)
    return found[0][1] if found else None


def of_role(connection: Connection) -> list[Marked]:
    """Read the marked databases that belong to the connection's role."""
    query: LiteralString = f"SELECT {_RUN} FROM pg_stat_activity WHERE backend_start IS NOT NULL"
    living = {run for (run,) in connection.execute(query).fetchall()}
    found = _rows(connection, "pg_get_userbyid(datdba) = CURRENT_USER")
    return [Marked(name, mark, mark.run in living) for name, mark in found]


def run(connection: Connection) -> tuple[str, int]:
    """Name the run that has this connection, and give the server's time in seconds.

    The backend's pid alone would not do, because the system uses pids again.
    """
    query: LiteralString = f"""
        SELECT {_RUN}, extract(epoch FROM now())::int8 FROM pg_stat_activity WHERE pid = pg_backend_pid()"""
    [(name, now)] = connection.execute(query).fetchall()
    return name, now


_RUN: LiteralString = "pid || '/' || extract(epoch FROM backend_start)::numeric(20, 6)"


def _rows(connection: Connection, condition: LiteralString, *values: str) -> list[tuple[str, Mark]]:
    query: LiteralString = f"""
        SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database
         WHERE {condition} AND starts_with(shobj_description(oid, 'pg_database'), %s)"""
    found = connection.execute(query, [*values, PREFIX]).fetchall()
    return [(name, mark) for name, comment in found if (mark := _mark(comment))]


def _mark(comment: str) -> Mark | None:
    """Read a mark; None for one of another version, which is left alone."""
    try:
        fields = json.loads(comment.removeprefix(PREFIX))
        return Mark(Purpose(fields["kind"]), int(fields["used"]), str(fields["run"]))
    except (ValueError, TypeError, KeyError):
        return None
