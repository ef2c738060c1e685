"""Many files replaced by one that gives the same schema and the same rows."""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from psycopg import sql

from outreach_migrate import errors
from outreach_migrate.errors import Location, Problem
from outreach_migrate.files import reach, squashed, statements
from outreach_migrate.files.migrations import Migration
from outreach_migrate.files.squashed import Replaced
from outreach_migrate.postgres import connections
from outreach_migrate.schema import catalog, differences, dump, scratch

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from psycopg import Connection

    from outreach_migrate.run.request import Request
    from outreach_migrate.schema.catalog import Object
    from outreach_migrate.schema.scratch import Scratch

_ROUTINES = {("create", "function"), ("create", "or"), ("create", "procedure"), ("create", "trigger")}
_ROWS = "--rows-per-insert=500"


@dataclass(frozen=True, slots=True)
class Squash:
    """The new file, the files that it replaces, and the number of rows that it has, by table."""

    file: Migration
    replaced: tuple[Migration, ...]
    rows: dict[str, int]


def make(
    request: Request, through: int, folder: str, *, private: Path, beside: Connection | None, with_rows: bool
) -> Squash:
    """Make the file that replaces those of the request up to a version; nothing is written yet.

    1. The files are applied to a scratch database, see scratch.migrated, and it is dumped.
    2. Their statements for the whole server, such as CREATE ROLE, come first, because no dump of a database has them.
    3. The new file is applied to another scratch database, which must have the same objects and the same rows.

    Raise UsageError if no file has the version, Refused if the file would have a variable's value, MigrateError if the
    two differ, and the errors of scratch.migrated.
    """
    files = _chosen(request, through)
    if request.target.schema:
        message = f"the files run in the schema {request.target.schema} of the URL, but a dump names its schema"
        raise errors.MigrateError(message, hint="Files for several schemas can't be squashed.")
    request = replace(request, code=None)  # its objects are not the squashed file's
    with scratch.migrated(request, files, private=private, beside=beside) as made:
        before, rows = _read(request, made)
        text = dump.whole(made.target, request.table, _ROWS if with_rows else "--schema-only")
        refreshed = "" if with_rows else _refreshes(made)
    version = files[-1].version
    path = os.path.join(folder, f"{version}_{squashed.NAME}.sql")
    body = f"{_of_the_server(files)}{text}{refreshed}"
    _must_have_no_values(files, body)
    file = Migration(version, squashed.NAME, path, f"{_head(files)}{body}")
    with scratch.migrated(request, [file], private=private, beside=beside) as made:
        after, rows_after = _read(request, made)
    _must_be_alike(before, after, rows if with_rows else {}, rows_after)
    return Squash(file, tuple(files), rows_after)


def _chosen(request: Request, through: int) -> list[Migration]:
    """Choose the files up to a version. Raise UsageError if no file has it."""
    if request.file_problems:
        raise errors.MigrationFileError(request.file_problems)
    files = [one for one in request.files if one.number <= through]
    if through not in {one.number for one in files}:
        raise errors.UsageError(f"no migration has version {through}")
    return files


def _must_have_no_values(files: Sequence[Migration], body: str) -> None:
    """Refuse a text with values of variables, because they are one environment's, and may be secret."""
    if found := [
        Problem(f"the squashed file would have the value of its variable {name}", Location(one.path), hint)
        for hint in ["Squash through an earlier version, or write a file without this variable."]
        for one in files
        for name in (one.written.shown_in(body) if one.written else ())
    ]:
        raise errors.Refused(found)


def write(squash: Squash) -> None:
    """Write the new file, and remove those that it replaces. Raise MigrateError.

    The file of the same version goes last, so a folder whose change was cut short has a version twice, and is refused.
    """
    folder, name = os.path.split(squash.file.path)
    draft = os.path.join(folder, f".{name}")  # no migration, because of the dot
    try:
        with open(draft, "w", encoding="utf-8", newline="") as file:
            file.write(squash.file.sql)
        os.replace(draft, squash.file.path)
        for one in squash.replaced:
            if one.path != squash.file.path:
                os.remove(one.path)
    except OSError as error:
        raise errors.MigrateError(f"cannot write {error.filename}: {error.strerror}") from error


def _head(files: Sequence[Migration]) -> str:
    """Write the lines that name the replaced files; files that an earlier squash has replaced count, too."""
    pairs = [(one.number, one.checksum) for one in files]
    sets = [Replaced().then(pairs), *(one.then(pairs[1:]) for one in files[0].replaces)]
    lines = [*map(str, sets), f"-- From {files[0]} to {files[-1]}: a database that has them is up to date."]
    return "\n".join(lines) + "\n"


def _of_the_server(files: Sequence[Migration]) -> str:
    """Copy the statements that change objects of the whole server."""
    found = [
        migration.sql[statement.start : statements.end(migration.sql, statement)].removesuffix(";")
        for migration in files
        for statement, _ in reach.shared(migration)
        if statement.words[:2] not in _ROUTINES
    ]
    return "".join(f"\n{one};\n" for one in found)


def _read(request: Request, made: Scratch) -> tuple[tuple[Object, ...], dict[str, int]]:
    """Read a scratch database's objects, and the number of rows in each table that has some."""
    with closing(connections.connect(made.target)) as connection:
        version = connection.info.server_version // 10000
        objects = catalog.read(connection, request.table, version=version)
        tables = connection.execute(
            """SELECT c.oid::pg_catalog.regclass::text, n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind IN ('r', 'm') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                  AND (c.relkind = 'r' OR c.relispopulated)
                ORDER BY 1"""
        ).fetchall()
        counts = {
            shown: _count(connection, *name)
            for shown, *name in tables
            if tuple(name) not in {(one.schema, one.name) for one in request.table.all}
        }
    return objects, {name: count for name, count in counts.items() if count}


def _count(connection: Connection, schema: str, name: str) -> int:
    query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, name))
    return int(connection.execute(query).fetchall()[0][0])


def _refreshes(made: Scratch) -> str:
    """Write the statements that fill the materialized views that the files have filled."""
    with closing(connections.connect(made.target)) as connection:
        views = connection.execute(
            """SELECT n.nspname::text, c.relname::text FROM pg_catalog.pg_class c
                 JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind = 'm' AND c.relispopulated ORDER BY c.oid"""
        ).fetchall()
    return "".join(f"\nREFRESH MATERIALIZED VIEW {sql.Identifier(*name).as_string()};\n" for name in views)


def _must_be_alike(
    before: Sequence[Object], after: Sequence[Object], rows: dict[str, int], rows_after: dict[str, int]
) -> None:
    wrong = [f"{one.kind} {one.name} is {one.change}" for one in differences.find(after, before).differences]
    counts = {name: rows_after.get(name, 0) for name in rows}
    wrong += [f"{name} has {counts[name]} rows, not {rows[name]}" for name in rows if rows[name] != counts[name]]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        message = f"one file can't give the same: {'; '.join(wrong[:3])}{more}"
        raise errors.MigrateError(message, hint="Nothing was changed. Squash through an earlier version.")
