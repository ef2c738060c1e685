"""Template databases: one for each set of files, shared by all processes of all runs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace

import psycopg
from psycopg import Connection, sql

import outreach_migrate
from outreach_migrate import display, errors
from outreach_migrate.files import statements
from outreach_migrate.postgres import connections, dsn
from outreach_migrate.testing import marks
from outreach_migrate.testing.marks import Mark, Purpose
from outreach_migrate.testing.recipe import Recipe
from outreach_migrate.testing.servers import Server

# Bytes above which a copy of the files is cheaper than one through the WAL. Its checkpoints cost more than a small copy
# does, but hardly anything without fsync: there 20 tables took 10 ms instead of 15, and 300 tables 38 instead of 65.
LARGE = 100_000_000
_TOUCH = 3600  # s after which the use of a template is noted again
_DAY = 86_400
_LIFE = {Purpose.TEMPLATE: _DAY, Purpose.KEPT: 7 * _DAY}  # s that a database stays unused


@dataclass(frozen=True, slots=True)
class Template:
    """A finished template; its `settings` are set for each copy."""

    name: str
    strategy: sql.SQL
    settings: tuple[sql.Composed, ...]

    def read_only(self) -> Template:
        """Give the template of copies whose transactions are read-only unless one asks for more."""
        return replace(self, settings=(*self.settings, sql.Composed([sql.SQL("default_transaction_read_only = on")])))

    def copy(self, name: str) -> list[sql.Composed]:
        """Write the statements that make a copy."""
        quoted = sql.Identifier(name)
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {}{}").format(quoted, sql.Identifier(self.name), self.strategy)
        alter = sql.SQL("ALTER DATABASE {} SET {}")
        return [create, *(alter.format(quoted, one) for one in self.settings)]


def ready(server: Server, connection: Connection, recipe: Recipe) -> Template:
    """Find the recipe's template, or build it.

    1. The template's name carries the hash of everything that it depends on.
    2. A lock of that name is taken, so that one process builds it while other processes wait. The lock belongs to a
       transaction on a connection of its own, so a killed process leaves no lock.
    3. If the database is there, it is complete, and only its last use is noted.
    4. Else a database under a scratch name is made, migrated, seeded, closed to connections, and renamed.

    Raise MigrateError.
    """
    info = connection.info
    digest = recipe.digest(info.server_version, info.user, server.target.schema)
    name = f"outreach_template_{digest[:16]}"
    with _locked(server, name):
        run, now = marks.run(connection)
        mark = marks.read(connection, name)
        if mark is None:
            _build(server, connection, recipe, name, Mark(Purpose.SCRATCH, now, run))
        elif now - mark.used > _TOUCH:
            connection.execute(marks.write(name, Mark(Purpose.TEMPLATE, now)))
    return found(connection, name)


def clean(server: Server, connection: Connection) -> None:
    """Drop templates that no run has used for a day, databases that were kept a week ago, and leftovers of dead runs.

    Others are left alone, such as those without a mark in their comment, and those of other roles.
    """
    _, now = marks.run(connection)
    for one in marks.of_role(connection):
        if _is_old(one, now) or (one.mark.kind in (Purpose.COPY, Purpose.SCRATCH) and not one.lives):
            with suppress(psycopg.Error), _locked(server, one.name):
                if marks.read(connection, one.name) == one.mark:  # else it has been used meanwhile
                    connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(one.name)))


def _is_old(one: marks.Marked, now: int) -> bool:
    return one.mark.kind in _LIFE and now - one.mark.used > _LIFE[one.mark.kind]


@contextmanager
def _locked(server: Server, name: str) -> Iterator[None]:
    with closing(server.connect()) as connection, connection.transaction():
        for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
            connection.execute(sql.SQL("SET LOCAL {} = 0").format(sql.Identifier(setting)))
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [name])
        yield


def _build(server: Server, connection: Connection, recipe: Recipe, name: str, mark: Mark) -> None:
    scratch = f"outreach_scratch_{secrets.token_hex(8)}"
    made, quoted = server.database(scratch), sql.Identifier(scratch)
    create(connection, [sql.SQL("CREATE DATABASE {}").format(quoted)], scratch, mark)
    try:
        if recipe.migrations:
            _migrate(made, recipe)
        if recipe.seeds:
            _seed(made, recipe)
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(quoted))
        connection.execute(marks.write(scratch, Mark(Purpose.TEMPLATE, mark.used)))
        connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(quoted, sql.Identifier(name)))
    except BaseException as error:
        drop(connection, scratch)
        # a run that meets this one in no common database, and so in no lock, was faster
        if not isinstance(error, psycopg.errors.DuplicateDatabase) or marks.read(connection, name) is None:
            raise


def _migrate(made: dsn.Target, recipe: Recipe) -> None:
    last = recipe.migrations[-1].version
    result = outreach_migrate.up(
        dsn.url(made),
        folder=recipe.folder,
        schema=made.schema,
        table=recipe.table,
        to=last,
        wait=0,
        variables=recipe.values,
        code=recipe.code_folder,
    )
    if [one.migration.checksum for one in result.applied] != [one.checksum for one in recipe.migrations]:
        raise errors.MigrateError("the migrations were changed while they were being applied", hint="Run again.")


def _seed(made: dsn.Target, recipe: Recipe) -> None:
    with closing(connections.connect(made)) as connection:
        if made.schema:
            connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(made.schema)))
        for path, text in recipe.seeds:
            try:
                connection.execute(text.encode())
            except psycopg.Error as error:
                place = ""
                if position := error.diag.statement_position:
                    place = ":{}:{}".format(*statements.place(text, int(position) - 1))
                raise errors.MigrateError(f"{path}{place}: {_reason(error)}") from error


def create(connection: Connection, statements: list[sql.Composed], name: str, mark: Mark) -> None:
    """Make a database and mark it in one message, so that a process which is killed leaves none without a mark."""
    try:
        with connection.pipeline() as pipeline:
            for statement in (statements[0], marks.write(name, mark), *statements[1:]):
                connection.execute(statement)
                pipeline.sync()  # CREATE DATABASE must be alone in its transaction
    except psycopg.Error as error:
        hint = None
        if error.sqlstate == "42501":
            hint = f"Let the role make databases: ALTER ROLE {connection.info.user} CREATEDB"
        if connections.was_lost(error):
            raise errors.ConnectionFailed(connections.reason(error), transient=True) from error
        raise errors.MigrateError(f"cannot make a database for tests: {_reason(error)}", hint=hint) from error


def drop(connection: Connection, name: str) -> None:
    """Drop a database, and end its sessions."""
    with suppress(psycopg.Error):  # a later run drops it
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def found(connection: Connection, name: str, *, large: int = LARGE) -> Template:
    """Read how the template is best copied, and its settings, because CREATE DATABASE doesn't copy the settings."""
    query = """
        SELECT current_setting('fsync') = 'off' OR pg_database_size(d.oid) > %s, coalesce(setconfig, '{}')
          FROM pg_database d LEFT JOIN pg_db_role_setting s ON s.setdatabase = d.oid AND s.setrole = 0
         WHERE datname = %s"""
    [(as_files, settings)] = connection.execute(query, [large, name]).fetchall()
    strategy = sql.SQL("")
    if connection.info.server_version >= 150000:  # the first version that has both
        strategy = sql.SQL(" STRATEGY file_copy" if as_files else " STRATEGY wal_log")
    return Template(name, strategy, tuple(_setting(*one.split("=", 1)) for one in settings))


def _setting(name: str, value: str) -> sql.Composed:
    """Write a setting; the value of a list has its quotes already.

    https://www.postgresql.org/docs/current/view-pg-db-role-setting.html
    """
    is_list = name in {"search_path", "temp_tablespaces"} or name.endswith("_preload_libraries")
    written = sql.SQL(value) if is_list else sql.Literal(value)
    return sql.SQL("{} = {}").format(sql.SQL(".").join(map(sql.Identifier, name.split("."))), written)


def _reason(error: psycopg.Error) -> str:
    return display.in_line(error.diag.message_primary or connections.reason(error).partition("\n")[0])
