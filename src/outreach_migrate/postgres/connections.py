"""Connections: opened, asked, cancelled."""

from __future__ import annotations

import math
import os
import re
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from psycopg import generators, pq, waiting
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import tuple_row

from outreach_migrate.errors import ConnectionFailed, MigrateError, ServerMessage
from outreach_migrate.postgres.dsn import Target

T = TypeVar("T")

SILENCE = 1.0  # s without an answer, after which `silent` is called

# Found by what they say, since libpq gives no SQLSTATE for a connection that failed; a message in another
# language only means that --wait is waited out.
_FINAL = re.compile(
    r"password authentication failed|no password supplied|role \".*\" does not exist|database \".*\" does not exist"
    r"|pg_hba\.conf|authentication failed|certificate|not permitted to log in|permission denied for database"
    r"|service file|definition of service|server does not support SSL|invalid |bad value|unsupported"
    r"|not currently accepting"
)
# What psycopg puts before libpq's own words; and where libpq goes on with a sentence in a new line.
_BEFORE_A_REASON = re.compile(
    r"^\s*(?:- host: .*?, port: .*?, hostaddr: .*?: )?"
    r"(?:(?:connection failed|connection is bad|consuming input failed|sending query failed): )?"
)
_CONTINUED = re.compile(r"\n\t(?=[a-z])")
_DEFAULTS = {
    "fallback_application_name": "outreach-migrate",
    "connect_timeout": "10",
    # a link that is dead is noticed after a minute, not after libpq's two hours
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}


@dataclass(frozen=True, slots=True)
class Unreachable:
    """The server isn't there yet, and is tried again; `seconds` since the first try."""

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

    A server that does not answer ends the try when these have passed, if connect_timeout does not end it before. Raise
    ConnectionFailed: at once for what waiting can't mend, as a wrong password.
    """
    began = time.monotonic()
    while True:
        try:
            left = wait - (time.monotonic() - began) if wait else math.inf
            return _connect(target, read_write=read_write, within=left)
        except psycopg.Error as error:
            why = _reason(target, error)
            passed = time.monotonic() - began
            transient = not _FINAL.search(why)
            if not transient or passed >= wait:
                raise ConnectionFailed(why, hint=_hint(why), transient=transient) from error
        tell(Unreachable(why, passed))
        pause(min(0.5, max(0.0, wait - passed)))


@contextmanager
def borrowed(connection: psycopg.Connection) -> Iterator[None]:
    """Have the caller's connection give rows as tuples, and prepare nothing, until the end of the block."""
    before = connection.row_factory, connection.cursor_factory, connection.prepare_threshold
    connection.row_factory, connection.cursor_factory, connection.prepare_threshold = tuple_row, psycopg.Cursor, None
    try:
        yield
    finally:
        connection.row_factory, connection.cursor_factory, connection.prepare_threshold = before


@contextmanager
def of(given: psycopg.Connection | None, target: Target, *, wait: float) -> Iterator[psycopg.Connection]:
    """Give the caller's connection, borrowed, or one that is opened here and closed."""
    if given:
        with borrowed(given):
            yield given
        return
    with closing(connect(target, wait=wait)) as connection:
        yield connection


def _connect(target: Target, *, read_write: bool, within: float) -> psycopg.Connection:
    parameters = {**_DEFAULTS, **target.parameters, "client_encoding": "UTF8"}
    if read_write and len(target.hosts) > 1:
        parameters.setdefault("target_session_attrs", "read-write")
    if "PGCONNECT_TIMEOUT" in os.environ:
        parameters["connect_timeout"] = target.parameters.get("connect_timeout", os.environ["PGCONNECT_TIMEOUT"])
    # each of several hosts has this long
    parameters["connect_timeout"] = _shorter(parameters["connect_timeout"], within / len(target.hosts))
    return psycopg.connect(**parameters, autocommit=True, prepare_threshold=None)  # type: ignore[arg-type]


def _shorter(timeout: str, left: float) -> str:
    """Shorten a timeout to the time that is left; where that would leave too little for another try, it gets all.

    libpq takes whole seconds, no fewer than 2, and 0 as no limit.
    """
    is_short = timeout.isdecimal() and 0 < int(timeout) <= left - 2
    return timeout if is_short or left == math.inf or not timeout.isdecimal() else str(max(2, math.ceil(left)))


def _reason(target: Target, error: psycopg.Error) -> str:
    """Say why there is no connection; psycopg's own timeout names no server, so it is put as libpq puts its."""
    if isinstance(error, psycopg.errors.ConnectionTimeout):
        return f'connection to server at "{",".join(target.hosts)}" failed: timeout expired'
    return reason(error)


def _hint(why: str) -> str | None:
    hints = {
        "password": "Check the user and the password; in a URL, percent-encode signs such as @ : / %.",
        'database ".*" does not exist': "Create the database first, or name another one.",
        "too many c|remaining connection slots": "The server is out of connections: try again with --wait 60.",
        "starting up|recovery|shutting down": "Try again in a moment, or let it try: --wait 60.",
        "refused|No such file|timed out|timeout expired|resolve|Network": "Check the address."
        " While the server starts: --wait 60.",
        "read-only": "None of the hosts accepts writes; is a failover under way?",
    }
    return next((hint for pattern, hint in hints.items() if re.search(pattern, why)), None)


def reason(error: psycopg.Error) -> str:
    """Say what psycopg's error says, a sentence a line, each once: of several tries it tells the last one twice."""
    tries = str(error).strip().rpartition("All failures were:\n")[2]
    sentences = _CONTINUED.sub(" ", tries).splitlines()
    return "\n".join(dict.fromkeys(" ".join(_BEFORE_A_REASON.sub("", one).split()) for one in sentences))


@contextmanager
def translated() -> Iterator[None]:
    """Turn what psycopg raises into our errors: of a query of our own, one line is all there is to say."""
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
    """Tell whether an error ended its connection: shut down, terminated; without a SQLSTATE it just went away."""
    return (error.sqlstate or "08").startswith(("08", "57P"))


def exchange(
    connection: psycopg.Connection,
    message: str,
    *,
    silent: Callable[[], None] | None = None,
    within: float = math.inf,
) -> list[PGresult]:
    """Send one message and collect the results up to the first failing one.

    COPY TO STDOUT is read and thrown away, COPY FROM STDIN is refused. `silent` is called, once, when no answer has
    come for a second. Raise psycopg.OperationalError when the connection is lost, or the answer takes longer than
    `within`, in seconds.
    """
    pgconn = connection.pgconn
    deadline = time.monotonic() + within
    pgconn.send_query(message.encode())
    results: list[PGresult] = _wait(pgconn, generators.execute(pgconn), silent, deadline)
    while results and results[-1].status in (pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_IN):
        if results[-1].status == pq.ExecStatus.COPY_OUT:
            _wait(pgconn, _discard(pgconn), silent, deadline)
        else:
            pgconn.put_copy_end(b"a migration has no standard input")
        results += _wait(pgconn, generators.execute(pgconn), silent, deadline)
    return results


def pipeline(
    connection: psycopg.Connection, groups: Sequence[Sequence[str]], *, silent: Callable[[], None] | None = None
) -> list[list[PGresult]]:
    """Send groups of commands in one round trip; give each group's results, up to the first failing one.

    One result a command. A group is a transaction of its own, unless it begins one; a failure ends the group, not
    those after it. What can't run in a transaction stands alone in its group: a pooler in transaction mode gives the
    whole to one server connection, which SET, the statement and RESET in messages of their own would not be sure of.
    https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
    """
    pgconn = connection.pgconn
    pgconn.enter_pipeline_mode()
    for group in groups:
        for command in group:
            pgconn.send_query_params(command.encode(), None)
        pgconn.pipeline_sync()
    answers = _wait(pgconn, _answers(pgconn, len(groups)), silent)
    pgconn.exit_pipeline_mode()
    return answers


def _answers(pgconn: PGconn, groups: int) -> PQGen[list[list[PGresult]]]:
    yield from generators.send(pgconn)
    answers: list[list[PGresult]] = [[]]
    while len(answers) <= groups:
        try:
            *_, result = yield from generators.fetch_many(pgconn)
        except psycopg.OperationalError:
            for failed in (result for result in answers[-1] if result.status == pq.ExecStatus.FATAL_ERROR):
                raise psycopg.OperationalError(failed.get_error_message().strip()) from None  # told before the end
            raise
        if result.status == pq.ExecStatus.PIPELINE_SYNC:
            answers.append([])
        elif result.status == pq.ExecStatus.COPY_OUT:  # the command's own result comes after its data
            yield from _discard(pgconn)
        elif result.status != pq.ExecStatus.PIPELINE_ABORTED:
            answers[-1].append(result)
    return answers[:-1]


def _discard(pgconn: PGconn) -> PQGen[None]:
    while (size := pgconn.get_copy_data(1)[0]) >= 0:
        if size == 0:
            while not (yield waiting.Wait.R):
                pass
            pgconn.consume_input()


def _wait(pgconn: PGconn, generator: PQGen[T], silent: Callable[[], None] | None, deadline: float = math.inf) -> T:
    """Run a psycopg generator, as psycopg's own wait functions do, with a call when the server is silent."""
    quiet = time.monotonic() + SILENCE if silent else math.inf
    try:
        wanted = next(generator)
        with selectors.PollSelector() as selector:
            selector.register(pgconn.socket, wanted)
            while True:
                until = min(quiet, deadline)
                ready = selector.select(None if until == math.inf else max(0.0, until - time.monotonic()))
                if not ready and time.monotonic() >= deadline:
                    raise psycopg.OperationalError("no answer in time")
                if not ready and silent:
                    silent()
                    quiet = math.inf
                wanted = generator.send(waiting.Ready(ready[0][1]) if ready else waiting.Ready.NONE)
                selector.modify(pgconn.socket, wanted)
    except StopIteration as end:
        value: T = end.value
        return value


def failure(results: Sequence[PGresult]) -> PGresult | None:
    """Give the failing result, which is the last one, if there is one."""
    return results[-1] if results and results[-1].status == pq.ExecStatus.FATAL_ERROR else None


def position(connection: psycopg.Connection, text: str, failed: PGresult) -> int | None:
    """Give the offset in a text that the server's error points at, if any: it counts characters, from 1."""
    position = failed.error_field(pq.DiagnosticField.STATEMENT_POSITION)
    if position is None:
        return None
    offset = int(position) - 1
    if connection.pgconn.parameter_status(b"server_encoding") == b"SQL_ASCII":  # which knows bytes only
        return len(text.encode()[:offset].decode(errors="ignore"))
    return offset


def server_message(diagnostic: psycopg.errors.Diagnostic) -> ServerMessage:
    """Copy the fields of an error or a notice."""
    return ServerMessage(
        severity=diagnostic.severity_nonlocalized or diagnostic.severity or "ERROR",
        sqlstate=diagnostic.sqlstate or "",
        message=diagnostic.message_primary or "the server gave no reason",
        detail=diagnostic.message_detail,
        hint=diagnostic.message_hint,
        context=diagnostic.context,
        position=int(diagnostic.statement_position) if diagnostic.statement_position else None,
        constraint=diagnostic.constraint_name,
    )


def cancel(connection: psycopg.Connection, *, within: float = 0.7) -> None:
    """Cancel what the server does on a connection, without waiting for its answer."""
    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=within)
