"""Messages on a connection, and their results."""

from __future__ import annotations

import math
import selectors
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

import psycopg
from psycopg import generators, pq, waiting
from psycopg.abc import PQGen
from psycopg.pq.abc import PGconn, PGresult

from outreach_migrate.errors import MigrateError, ServerMessage

T = TypeVar("T")

SILENCE = 1.0  # s


class Silent(NamedTuple):
    """A function to call when no answer has come for `after` seconds; it may give the seconds until the next call."""

    after: float
    call: Callable[[], float | None]


def exchange(
    connection: psycopg.Connection,
    message: str,
    *,
    rows: Iterator[bytes] | None = None,
    silent: Silent | None = None,
    within: float = math.inf,
) -> list[PGresult]:
    """Send one message and collect the results up to the first failing one.

    COPY TO STDOUT is read and thrown away. COPY FROM STDIN is sent `rows`, of any length; it fails if they can't be
    read, and then their MigrateError is raised, or if there are none. Raise psycopg.OperationalError when the
    connection is lost, or the answer takes longer than `within`, in seconds.
    """
    pgconn = connection.pgconn
    deadline, broken = time.monotonic() + within, None
    pgconn.send_query(message.encode())
    results: list[PGresult] = _wait(pgconn, generators.execute(pgconn), silent, deadline)
    while results and results[-1].status in (pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_IN):
        if results[-1].status == pq.ExecStatus.COPY_OUT:
            _wait(pgconn, _discard(pgconn), silent, deadline)
        elif rows is None:
            pgconn.put_copy_end(b"a migration has no standard input")
        else:
            try:
                _wait(pgconn, _stream(pgconn, rows), silent, deadline)
            except MigrateError as error:
                broken = error
            except psycopg.OperationalError:
                if pgconn.status == pq.ConnStatus.OK:
                    raise
                pgconn.put_copy_end(b"lost")  # only then libpq reads the reason that the server gave
                return [*results, *filter(None, [pgconn.get_result()])]
            pgconn.put_copy_end(b"the rows can't be read" if broken else None)
        results += _wait(pgconn, generators.execute(pgconn), silent, deadline)
    if broken:
        raise broken
    return results


def pipeline(
    connection: psycopg.Connection, groups: Sequence[Sequence[str]], *, silent: Silent | None = None
) -> list[list[PGresult]]:
    """Send groups of commands in one round trip; give each group's results, up to the first failing one.

    One result a command. A group is a transaction of its own, unless it begins one; a failure ends its group, not the
    groups after it. A statement that can't run in a transaction stands alone in its group. A pooler in transaction mode
    sends all groups to one server connection; SET, the statement and RESET as separate messages could get three.
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
                raise psycopg.OperationalError(failed.get_error_message().strip()) from None  # the server's reason
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


def _stream(pgconn: PGconn, rows: Iterator[bytes]) -> PQGen[None]:
    """Send rows, and read notices meanwhile, because a server that can't send them waits."""
    for chunk in rows:
        pgconn.put_copy_data(chunk)
        yield from generators.send(pgconn)


def _wait(pgconn: PGconn, generator: PQGen[T], silent: Silent | None, deadline: float = math.inf) -> T:
    """Run a psycopg generator, as psycopg's wait functions do, and call `silent` when the server is silent."""
    quiet = time.monotonic() + silent.after if silent else math.inf
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
                    again = silent.call()
                    quiet = math.inf if again is None else time.monotonic() + again
                wanted = generator.send(waiting.Ready(ready[0][1]) if ready else waiting.Ready.NONE)
                selector.modify(pgconn.socket, wanted)
    except StopIteration as end:
        value: T = end.value
        return value


def failure(results: Sequence[PGresult]) -> PGresult | None:
    """Give the failing result, if there is one; it is the last."""
    return results[-1] if results and results[-1].status == pq.ExecStatus.FATAL_ERROR else None


def position(connection: psycopg.Connection, text: str, failed: PGresult) -> int | None:
    """Give the offset, from 0, in a text that the server's error points at, if any."""
    position = failed.error_field(pq.DiagnosticField.STATEMENT_POSITION)
    if position is None:
        return None
    offset = int(position) - 1
    if connection.pgconn.parameter_status(b"server_encoding") == b"SQL_ASCII":  # it counts bytes
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
    """Cancel a connection's statement on the server, without waiting for its answer."""
    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=within)
