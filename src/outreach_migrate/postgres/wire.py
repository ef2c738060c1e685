"""Messages on a connection: sent, waited for, read."""

from __future__ import annotations

import math
import selectors
import time
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg
from psycopg import generators, pq, waiting

from outreach_migrate.errors import ServerMessage

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from psycopg.abc import PQGen
    from psycopg.pq.abc import PGresult

T = TypeVar("T")

TICK = 0.1  # s: how often a wait lets its caller look around


def exchange(connection: psycopg.Connection, message: bytes) -> Generator[float, None, list[PGresult]]:
    """Send one message and collect the results up to the first failing one; yield every TICK without news.

    COPY TO STDOUT is read and thrown away, COPY FROM STDIN is refused. Raise psycopg.OperationalError when the
    connection is lost.
    """
    pgconn = connection.pgconn
    pgconn.send_query(message)
    results: list[PGresult] = yield from _ticking(pgconn.socket, generators.execute(pgconn))
    while results and results[-1].status in (pq.ExecStatus.COPY_OUT, pq.ExecStatus.COPY_IN):
        if results[-1].status == pq.ExecStatus.COPY_OUT:
            yield from _ticking(pgconn.socket, _discard(pgconn))
        else:
            pgconn.put_copy_end(b"a migration has no standard input")
        results += yield from _ticking(pgconn.socket, generators.execute(pgconn))
    return results


def exchange_apart(
    connection: psycopg.Connection, groups: Sequence[Sequence[str]]
) -> Generator[float, None, list[list[PGresult]]]:
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
    answers = yield from _ticking(pgconn.socket, _answers(pgconn, len(groups)))
    pgconn.exit_pipeline_mode()
    return answers


def _answers(pgconn: pq.abc.PGconn, groups: int) -> PQGen[list[list[PGresult]]]:
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


def _discard(pgconn: pq.abc.PGconn) -> PQGen[None]:
    while (size := pgconn.get_copy_data(1)[0]) >= 0:
        if size == 0:
            while not (yield waiting.Wait.R):
                pass
            pgconn.consume_input()


def _ticking(fileno: int, generator: PQGen[T]) -> Generator[float, None, T]:
    """Run a psycopg generator, as its own wait functions do, but yield whenever a TICK passes without news.

    What is yielded is for how long there has been none, in seconds.
    """
    heard = time.monotonic()
    try:
        wanted = next(generator)
        with selectors.PollSelector() as selector:
            selector.register(fileno, wanted)
            while True:
                ready = selector.select(TICK)
                if ready:
                    heard = time.monotonic()
                else:
                    yield time.monotonic() - heard
                wanted = generator.send(waiting.Ready(ready[0][1]) if ready else waiting.Ready.NONE)
                selector.modify(fileno, wanted)
    except StopIteration as end:
        value: T = end.value
        return value


def server_message(result: PGresult, encoding: str = "utf-8") -> ServerMessage:
    """Read PostgreSQL's fields of an error; the text may be in whatever encoding the file switched to."""

    def text(code: pq.DiagnosticField) -> str | None:
        value = result.error_field(code)
        return value.decode(encoding, "replace") if value is not None else None

    field = pq.DiagnosticField
    position = text(field.STATEMENT_POSITION)
    return ServerMessage(
        severity=text(field.SEVERITY_NONLOCALIZED) or "ERROR",
        sqlstate=text(field.SQLSTATE) or "",
        message=text(field.MESSAGE_PRIMARY) or "the server gave no reason",
        detail=text(field.MESSAGE_DETAIL),
        hint=text(field.MESSAGE_HINT),
        context=text(field.CONTEXT),
        position=int(position) if position else None,
        constraint=text(field.CONSTRAINT_NAME),
    )


def notice(diagnostic: psycopg.errors.Diagnostic) -> ServerMessage:
    """Read the fields of a notice."""
    return ServerMessage(
        severity=diagnostic.severity_nonlocalized or diagnostic.severity or "NOTICE",
        sqlstate=diagnostic.sqlstate or "",
        message=diagnostic.message_primary or "",
        detail=diagnostic.message_detail,
        hint=diagnostic.message_hint,
    )


def rows(connection: psycopg.Connection, query: str) -> Generator[float, None, list[tuple[Any, ...]]]:
    """Ask a query in a message of its own, and give its rows; yield every TICK without news."""
    result = (yield from exchange(connection, query.encode()))[-1]
    if result.status == pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(result)
    loader = psycopg.adapt.Transformer(connection)
    loader.set_pgresult(result)
    return loader.load_rows(0, result.ntuples, tuple)


def finish(work: Generator[object, None, T], *, within: float = math.inf) -> T:
    """Carry a waiting piece of work to its end, without looking around meanwhile.

    Raise psycopg.OperationalError when it takes longer than `within`, in seconds.
    """
    deadline = time.monotonic() + within
    while True:
        try:
            next(work)
            if time.monotonic() > deadline:
                raise psycopg.OperationalError("no answer in time")
        except StopIteration as end:
            value: T = end.value
            return value


def cancel(connection: psycopg.Connection, *, within: float = 0.7) -> None:
    """Cancel what the server does for us, and read what it still sends; close the connection if that fails."""
    pgconn = connection.pgconn
    if pgconn.transaction_status != pq.TransactionStatus.ACTIVE:
        return
    try:
        connection.cancel_safe(timeout=within)
        deadline = time.monotonic() + within
        for _ in _ticking(pgconn.socket, generators.fetch_many(pgconn)):
            if time.monotonic() > deadline:
                break
    except psycopg.Error:
        pass
    if pgconn.transaction_status == pq.TransactionStatus.ACTIVE or pgconn.pipeline_status:
        connection.close()
