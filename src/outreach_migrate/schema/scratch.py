"""A scratch database, to which migrations are applied to see the schema that they give."""

from __future__ import annotations

from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

from outreach_migrate import errors
from outreach_migrate.errors import Fate, Outcome, Problem
from outreach_migrate.files import reach
from outreach_migrate.postgres import connections
from outreach_migrate.run import engine
from outreach_migrate.run.request import Limits
from outreach_migrate.run.stop import Stop
from outreach_migrate.schema import places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from psycopg import Connection

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.postgres.dsn import Target
    from outreach_migrate.run.events import Event
    from outreach_migrate.run.request import Request


_ALONE = "no database is named"


@dataclass(frozen=True, slots=True)
class Scratch:
    """A scratch database. `reason` says why it is on the private server, None if it is beside another database.

    `preset` are the extensions that no file makes and the other database has, made here before the files ran; `lacks`
    are those that could not be made.
    """

    target: Target
    reason: str | None = None
    preset: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Model:
    """The other database's extensions, and the settings that ALTER DATABASE and ALTER ROLE … IN DATABASE gave it."""

    extensions: tuple[str, ...] = ()
    settings: tuple[tuple[str, str], ...] = ()


@contextmanager
def migrated(
    request: Request,
    files: Sequence[Migration],
    *,
    private: Path,
    beside: Connection | None = None,
    tell: Callable[[Event], None] = lambda _: None,
    stop: Stop | None = None,
) -> Iterator[Scratch]:
    """Give a scratch database to which `files` are applied, and drop it at the end of the block.

    1. `beside` is a connection to the request's database. If its role may create databases, and no file changes an
       object of the whole server, such as a role, the scratch database is a new one on the same server.
    2. Else, and without `beside`, it is on the private server of the folder `private`.
    3. It has the other database's settings, and those of its extensions that no file makes.
    4. A run applies the files.

    Raise Refused for a file that would connect to another server, MissingTool without a private server, and the errors
    of a run, with Fate.SCRATCH as the outcome.
    """
    every = [*files, *(one.migration for one in request.code or ())]
    _check(every)
    like = model(beside) if beside else Model()
    reason = _obstacle(beside, every) if beside else _ALONE
    with ExitStack() as stack:
        stack.enter_context(connections.translated())
        try:
            target = stack.enter_context(places.on_server(request.target)) if reason is None else request.target
        except places.Hidden as error:
            reason = f"a new database can't be reached: {error.message}"
        if reason:
            with _said(reason):
                place = places.on_private_server(private, reach.roles(every))
                target = replace(stack.enter_context(place), schema=request.target.schema)
        made = _furnished(Scratch(target, reason), like, every)
        with _on_another_server(reason):
            _apply(replace(request, target=target, connection=None), files, tell, stop or Stop())
        yield made


def _check(files: Sequence[Migration]) -> None:
    problems = [
        Problem(
            f"{command} would connect to another server, so a scratch database can't have it",
            migration.location(offset),
            hint="A file with WITH (connect = false) can be replayed.",
        )
        for migration in files
        for offset, command in reach.connecting(migration)
    ]
    if problems:
        raise errors.Refused(problems)


def _obstacle(beside: Connection, files: Sequence[Migration]) -> str | None:
    """Say why the scratch database can't be on the same server."""
    row = beside.execute(
        """SELECT pg_catalog.pg_is_in_recovery(), rolsuper OR rolcreatedb, pg_catalog.quote_ident(rolname)
             FROM pg_catalog.pg_roles WHERE rolname = current_user"""
    ).fetchall()[0]
    is_standby, may_create, role = row
    if is_standby:
        return "the server is a standby"
    if not may_create:
        return f"the role {role} may not create a database"
    for migration in files:
        for statement, words in reach.shared(migration):
            return f"{migration.location(statement.start)} has {words}, which changes the whole server"
    return None


@contextmanager
def _said(reason: str) -> Iterator[None]:
    """Add the reason for the private server to the error that it is not installed."""
    try:
        yield
    except errors.MissingTool as error:
        message = f"a scratch database needs a private PostgreSQL, because {reason}"
        raise errors.MissingTool(message, hint=error.message) from None


def model(beside: Connection) -> Model:
    """Read the properties that a scratch database copies from the other database."""
    extensions = beside.execute("SELECT extname::text FROM pg_catalog.pg_extension WHERE extname <> 'plpgsql'")
    found = tuple(name for (name,) in extensions.fetchall())
    settings = beside.execute(
        """SELECT s.setting FROM pg_catalog.pg_db_role_setting r, pg_catalog.unnest(r.setconfig) AS s(setting)
            WHERE r.setdatabase = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
              AND (r.setrole = 0 OR r.setrole = current_user::pg_catalog.regrole)
            ORDER BY r.setrole"""
    ).fetchall()
    pairs = (setting.partition("=") for (setting,) in settings)
    return Model(found, tuple((name, value) for name, _, value in pairs))


def _furnished(made: Scratch, like: Model, files: Sequence[Migration]) -> Scratch:
    """Give the scratch database the settings and the extensions that files take for granted."""
    needed = reach.extensions(files)
    made_here = reach.perhaps_extensions(files)
    wanted = [name for name in like.extensions if name not in made_here]
    with closing(connections.connect(made.target)) as connection:
        for name, value in like.settings:
            with suppress(psycopg.Error):  # a setting for superusers, or of an extension
                connection.execute(_keep(connection.info.dbname, name, value))
        rows = connection.execute("SELECT name::text FROM pg_catalog.pg_available_extensions").fetchall()
        available = {name for (name,) in rows}
        if made.reason and (missing := [name for name in needed if name not in available]):
            raise _lacking(missing, made.reason)
        preset = [name for name in wanted if name in available and _has_made(connection, name)]
    return replace(made, preset=tuple(preset), lacks=tuple(name for name in wanted if name not in preset))


def _has_made(connection: Connection, extension: str) -> bool:
    try:
        connection.execute(sql.SQL("CREATE EXTENSION {} CASCADE").format(sql.Identifier(extension)))
    except psycopg.errors.DuplicateObject:  # another one needed it
        return True
    except psycopg.Error:
        return False
    return True


def _keep(database: str, name: str, value: str) -> bytes:
    """Write the message that makes a setting the database's; FROM CURRENT takes a list as it is."""
    keep = sql.SQL("SELECT pg_catalog.set_config({}, {}, true); ALTER DATABASE {} SET {} FROM CURRENT")
    parts = (sql.Literal(name), sql.Literal(value), sql.Identifier(database), sql.Identifier(*name.split(".")))
    return keep.format(*parts).as_bytes()


def _lacking(names: Sequence[str], reason: str) -> errors.MigrateError:
    one = "the extension" if len(names) == 1 else "the extensions"
    message = f"the private PostgreSQL lacks {one} {', '.join(names)}, which the files make"
    hint = f"It is used because {reason}. On a server that has it, a role with CREATEDB can have a scratch database."
    if reason == _ALONE:
        hint = "On a server that has it, dump and types read a database that up has migrated, without --scratch;"
        hint += " squash makes its scratch databases beside the database that is named."
    return errors.MigrateError(message, hint=hint)


@contextmanager
def _on_another_server(reason: str | None) -> Iterator[None]:
    """Add the private server's difference to the error that an object is not there."""
    try:
        yield
    except errors.StatementError as error:
        if reason is None or error.sqlstate != "42704" or error.outcome is None:
            raise
        hint = "The private PostgreSQL has only the extensions that the files make, and the roles that their statements"
        hint += f" name, but not those in a computed string. It is used because {reason}."
        raise error.after(error.outcome, hint=hint) from error.__cause__


def _apply(request: Request, files: Sequence[Migration], tell: Callable[[Event], None], stop: Stop) -> None:
    try:
        wanted: dict[str, Any] = {"files": tuple(files), "file_problems": (), "to": None, "from_start": None}
        engine.run(replace(request, **wanted, limits=Limits(lock_timeout=0), wait=0.0), tell, stop)
    except errors.MigrateError as error:
        was = error.outcome
        if was is None:
            raise
        raise error.after(Outcome(Fate.SCRATCH, was.migration, was.version, was.path)) from error.__cause__
