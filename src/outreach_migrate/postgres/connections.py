"""Connections to a server, and the errors of a failed one."""

from __future__ import annotations

import math
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple, Self, TypeVar, cast

import psycopg
from psycopg import conninfo
from psycopg.abc import PQGenConn
from psycopg.rows import tuple_row

from outreach_migrate import display
from outreach_migrate.errors import ConnectionFailed, MigrateError
from outreach_migrate.postgres.dsn import Target

T = TypeVar("T")

_SHORTEST = 0.2  # s that an address is tried at least

# Errors that waiting can't mend, found by their text, because libpq gives no SQLSTATE for a failed connection. A
# message in another language is not found, and then --wait is waited out.
_FINAL = (
    r"password authentication failed|no password supplied|role \".*\" does not exist|database \".*\" does not exist"
    r"|pg_hba\.conf|authentication failed|certificate|not permitted to log in|permission denied for database"
    r"|service file|definition of service|server does not support SSL|invalid |bad value|unsupported"
    r"|not currently accepting"
)
# The same for a server, a database, a role or a pooler that has as many connections as it may have.
_FULL = r"too many c|remaining connection slots|no more connections allowed"
# The words that psycopg puts before libpq's own; and a line break in the middle of libpq's sentence.
_BEFORE_A_REASON = (
    r"^\s*(?:- host: .*?, port: .*?, hostaddr: .*?: )?"
    r"(?:(?:connection failed|connection is bad|consuming input failed|sending query failed): )?"
)
_CONTINUED = r"\n\t(?=[a-z])"
_DEFAULTS = {
    "fallback_application_name": "outreach-migrate",
    "connect_timeout": "10",
    # a dead link is noticed after a minute, not after the system's two hours
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}


class Unreachable(NamedTuple):
    """The server can't be reached yet; the first attempt was `seconds` ago."""

    reason: str
    seconds: float


def connect(
    target: Target,
    *,
    wait: float = 0,
    read_write: bool = False,
    tell: Callable[[Unreachable], None] = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
) -> psycopg.Connection:
    """Connect, in autocommit mode and without prepared statements, trying for `wait` seconds.

    An attempt that gets no answer ends with `wait`, or before with connect_timeout. Raise ConnectionFailed; at once for
    an error that waiting can't mend, such as a wrong password.
    """
    began, addresses = time.monotonic(), sum(map(_addresses, target.hosts)) if wait else 1
    while True:
        try:
            left = wait - (time.monotonic() - began) if wait else math.inf
            return _connect(target, read_write=read_write, within=max(_SHORTEST, left / addresses))
        except psycopg.Error as error:
            why = _reason(target, error)
            passed = time.monotonic() - began
            transient = not re.search(_FINAL, why)
            left = wait - passed - _SHORTEST * addresses
            if not transient or left <= 0:
                hint, full = _hint(why, waited=wait > 0), re.search(_FULL, why) is not None
                raise ConnectionFailed(why, hint=hint, transient=transient, full=full) from error
        tell(Unreachable(why, passed))
        pause(min(0.5, left))


@contextmanager
def borrowed(connection: psycopg.Connection) -> Iterator[None]:
    """Make the caller's connection return rows as tuples and prepare nothing, until the end of the block."""
    before = connection.row_factory, connection.cursor_factory, connection.prepare_threshold
    connection.row_factory, connection.cursor_factory, connection.prepare_threshold = tuple_row, psycopg.Cursor, None
    try:
        yield
    finally:
        connection.row_factory, connection.cursor_factory, connection.prepare_threshold = before


@contextmanager
def of(given: psycopg.Connection | None, target: Target, *, wait: float) -> Iterator[psycopg.Connection]:
    """Give the caller's connection, borrowed, or a new one that is closed at the end of the block."""
    if given:
        with borrowed(given):
            yield given
        return
    with closing(connect(target, wait=wait)) as connection:
        yield connection


def _addresses(host: str) -> int:
    """Count a host's addresses, each of which is tried, as localhost's two are."""
    try:
        return 1 if host.startswith("/") else len(socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except OSError:
        return 1


def _connect(target: Target, *, read_write: bool, within: float) -> psycopg.Connection:
    """Connect; each address is tried for connect_timeout, and no longer than `within`, in seconds."""
    parameters: dict[str, str | int | None] = {**_DEFAULTS, **target.parameters, "client_encoding": "UTF8"}
    if read_write and len(target.hosts) > 1:
        parameters.setdefault("target_session_attrs", "read-write")
    if "PGCONNECT_TIMEOUT" in os.environ:
        parameters["connect_timeout"] = target.parameters.get("connect_timeout", os.environ["PGCONNECT_TIMEOUT"])
    longest = conninfo.timeout_from_conninfo(parameters)
    parameters["connect_timeout"] = longest + 1  # psycopg's own, which names no server
    kind = _ending(min(longest, within))
    return kind.connect(conninfo.make_conninfo("", **parameters), autocommit=True, prepare_threshold=None)


def _ending(within: float) -> type[psycopg.Connection]:
    """Make a class of connections whose attempts end in time, because psycopg's timeout is two seconds at least."""

    class Ending(psycopg.Connection):
        @classmethod
        def _connect_gen(cls, conninfo: str = "") -> PQGenConn[Self]:
            deadline = time.monotonic() + within
            attempt = super()._connect_gen(conninfo)
            try:
                wanted = next(attempt)
                while True:
                    ready = yield wanted
                    if time.monotonic() >= deadline:
                        raise psycopg.errors.ConnectionTimeout(f"{_server(conninfo)} failed: timeout expired")
                    wanted = attempt.send(ready)
            except StopIteration as end:
                return cast(Self, end.value)

    return Ending


def _server(given: str) -> str:
    """Name the server of an attempt as libpq does."""
    parameters = conninfo.conninfo_to_dict(given)
    host, port = parameters.get("host") or parameters.get("hostaddr"), parameters.get("port") or "5432"
    if not host or str(host).startswith("/"):
        return f'connection to server on socket "{host}/.s.PGSQL.{port}"' if host else "connection to server"
    return f'connection to server at "{host}", port {port}'


def _reason(target: Target, error: psycopg.Error) -> str:
    """Say why there is no connection."""
    said = str(error)
    for name in target.parameters.values():
        if "\n" in name:  # it would end a sentence
            said = said.replace(name, display.in_line(name))
    return _sentences(said)


def _hint(why: str, *, waited: bool) -> str | None:
    hints = {
        "password": "Check the user and the password; in a URL, percent-encode signs such as @ : / %.",
        'database ".*" does not exist': "Create the database first, or name another one.",
        _FULL: "The server is out of connections" + ("." if waited else ": try again with --wait 60."),
        "starting up|recovery|shutting down": "Try again in a moment"
        + ("." if waited else ", or let it try: --wait 60."),
        "refused|No such file|timed out|timeout expired|resolve|Network": "Check the address"
        + ("." if waited else ", or wait while the server starts: --wait 60."),
        "read-only": "None of the hosts accepts writes; is a failover under way?",
    }
    return next((hint for pattern, hint in hints.items() if re.search(pattern, why)), None)


def reason(error: psycopg.Error) -> str:
    """Give the text of psycopg's error, a sentence a line, each once, because it repeats the last of several tries."""
    return _sentences(str(error))


def _sentences(said: str) -> str:
    tries = said.strip().rpartition("All failures were:\n")[2]
    sentences = re.sub(_CONTINUED, " ", tries).splitlines()
    return "\n".join(dict.fromkeys(" ".join(re.sub(_BEFORE_A_REASON, "", one).split()) for one in sentences))


@contextmanager
def translated() -> Iterator[None]:
    """Turn psycopg's errors into MigrateError or ConnectionFailed, for the program's own queries."""
    try:
        yield
    except psycopg.Error as error:
        hint = error.diag.message_hint
        if error.sqlstate == "42501":
            hint = "The role needs USAGE on the schema, and SELECT, INSERT and UPDATE on the history table."
        if was_lost(error):
            raise ConnectionFailed(f"lost the connection: {reason(error)}", transient=True) from error
        raise MigrateError(error.diag.message_primary or reason(error), hint=hint) from error


def was_lost(error: psycopg.Error) -> bool:
    """Tell whether an error ended its connection; one without a SQLSTATE did, because the server said nothing."""
    return (error.sqlstate or "08").startswith(("08", "57P"))
