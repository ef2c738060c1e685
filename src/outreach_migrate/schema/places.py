"""The two places of a scratch database: the server of another database, and a private server."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from outreach_migrate import errors
from outreach_migrate.postgres import connections, dsn, messages, private_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from psycopg import Connection

    from outreach_migrate.postgres.dsn import Target

_MARK = "a scratch database of outreach-migrate, dropped after use"
_PREFIX = "outreach_scratch_"
# A maker's transaction holds the lock whose number the name ends with, so a name that nobody locks is a leftover.
_LEFT = f"""
    SELECT d.datname::text FROM pg_catalog.pg_database d
     WHERE d.datname ~ '^{_PREFIX}[0-9a-f]{{16}}$' AND pg_catalog.pg_has_role(d.datdba, 'USAGE')
       AND pg_catalog.shobj_description(d.oid, 'pg_database') = '{_MARK}'
       AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_locks l
            WHERE l.locktype = 'advisory' AND l.objsubid = 1
              AND (l.classid::bigint << 32) | l.objid::bigint
                  = ('x' || pg_catalog.right(d.datname::text, 16))::bit(64)::bigint)"""


class Hidden(errors.ConnectionFailed):
    """A new database can't be reached, because a pooler knows the databases by name."""


@contextmanager
def on_server(target: Target) -> Iterator[Target]:
    """Make an empty database on the server of `target`, like its database in encoding and locale; drop it at the end.

    Databases that crashed processes left are dropped first. Raise Hidden or ConnectionFailed.
    """
    token = os.urandom(8)
    name, key = _PREFIX + token.hex(), int.from_bytes(token, signed=True)
    with ExitStack() as stack:
        keeper = stack.enter_context(closing(connections.connect(target, read_write=True)))
        keeper.execute("BEGIN")
        keeper.execute(
            """SELECT pg_catalog.set_config(name, '0', true) FROM pg_catalog.pg_settings
                WHERE name IN ('idle_in_transaction_session_timeout', 'transaction_timeout')"""
        )
        keeper.execute("SELECT pg_catalog.pg_advisory_xact_lock(%s::bigint)", (key,))
        with closing(connections.connect(target, read_write=True)) as maker:
            for (left,) in maker.execute(_LEFT.encode()).fetchall():
                with suppress(psycopg.Error):  # another process drops it, too
                    _drop(maker, left)
            # sent at once, so that a process that is killed here leaves no database without its mark
            comment = f"COMMENT ON DATABASE {name} IS '{_MARK}'"
            _checked(messages.pipeline(maker, [[f"CREATE DATABASE {name} {_like(maker)}"], [comment]]))
        made = replace(target, parameters={**target.parameters, "dbname": name})
        try:
            _reach(made)
            yield made
        finally:
            with suppress(psycopg.Error, errors.ConnectionFailed):  # else the next one drops it
                _drop(stack.enter_context(closing(connections.connect(target, read_write=True))), name)


def _reach(made: Target) -> None:
    try:
        connections.connect(made).close()
    except errors.ConnectionFailed as error:
        raise Hidden(error.message, hint=error.hint) from error


def _checked(answers: list[list[psycopg.pq.abc.PGresult]]) -> None:
    for results in answers:
        if failed := messages.failure(results):
            raise psycopg.errors.error_from_result(failed)


def _like(connection: Connection) -> str:
    """Write the options of CREATE DATABASE by which a new database has the connection's encoding and locale."""
    row = connection.execute(
        """SELECT pg_catalog.pg_encoding_to_char(encoding), datcollate, datctype, pg_catalog.to_jsonb(d)
             FROM pg_catalog.pg_database d WHERE datname = pg_catalog.current_database()"""
    ).fetchall()[0]
    encoding, collate, ctype, fields = row
    options = {"ENCODING": encoding, "LC_COLLATE": collate, "LC_CTYPE": ctype}
    provider = {"i": "icu", "b": "builtin", "c": "libc"}.get(fields.get("datlocprovider", ""))
    if provider:  # PostgreSQL 15 and later
        options["LOCALE_PROVIDER"] = provider
    if locale := fields.get("datlocale") or fields.get("daticulocale"):
        options["BUILTIN_LOCALE" if provider == "builtin" else "ICU_LOCALE"] = locale
    if rules := fields.get("daticurules"):
        options["ICU_RULES"] = rules
    return "TEMPLATE template0 " + " ".join(f"{option} {sql.quote(value)}" for option, value in options.items())


def _drop(connection: Connection, name: str) -> None:
    dropped = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    connection.execute(dropped)


@contextmanager
def on_private_server(folder: Path, roles: Iterable[str]) -> Iterator[Target]:
    """Make an empty database on the private server of `folder`, which has these roles and no other; drop it at the end.

    One process at a time has it, because a migration may make roles, which belong to the whole server.
    Raise MissingTool or ConnectionFailed.
    """
    with (
        private_server.without_libpqs_variables(),
        private_server.server(folder, settings={"fsync": "off"}) as conninfo,
        (folder / "lock.scratch").open("ab") as lock,
    ):
        fcntl.flock(lock, fcntl.LOCK_EX)
        name = _PREFIX + os.urandom(8).hex()
        target = dsn.read(conninfo)
        with closing(connections.connect(target)) as maker:
            _clear(maker)
            for role in roles:
                maker.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
            maker.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
            try:
                yield dsn.Target({**target.parameters, "dbname": name})
            finally:
                with suppress(psycopg.Error):  # else the next one drops it
                    _drop(maker, name)


def _clear(connection: Connection) -> None:
    """Drop the databases, the roles and the settings that files or a crashed process have left."""
    for (name,) in connection.execute(
        "SELECT datname FROM pg_catalog.pg_database WHERE datname NOT IN ('postgres', 'template0', 'template1')"
    ).fetchall():
        _drop(connection, name)
    for (name,) in connection.execute(
        "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_' AND rolname <> 'postgres'"
    ).fetchall():
        for command in ("DROP OWNED BY {}", "DROP ROLE {}"):
            connection.execute(sql.SQL(command).format(sql.Identifier(name)))
    connection.execute("ALTER SYSTEM RESET ALL")
