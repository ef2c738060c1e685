"""A run's working connection."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeVar

import psycopg
from psycopg import pq, sql
from psycopg.pq.abc import PGresult

from outreach_migrate.files.migrations import Migration
from outreach_migrate.history import read, write
from outreach_migrate.history.read import History
from outreach_migrate.history.table import Table
from outreach_migrate.postgres import activity, connections, messages
from outreach_migrate.postgres.dsn import Target
from outreach_migrate.run.request import Limits, Request
from outreach_migrate.run.stop import Stop
from outreach_migrate.run.watcher import Watcher

if TYPE_CHECKING:
    from outreach_migrate.run import events

E = TypeVar("E")

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
# The settings by which the server reads a text: a pooler's own connection may have another encoding, and statements are
# cut and placed by the standard's rule for strings, even if the role has another setting.
READING = ("SET client_encoding = 'UTF8'", "SET standard_conforming_strings = on")
# The commands that DISCARD ALL stands for; unlike it, they may stand inside a transaction.
# https://www.postgresql.org/docs/current/sql-discard.html
RESET = (
    *("CLOSE ALL", "SET SESSION AUTHORIZATION DEFAULT", "RESET ROLE", "RESET ALL", "DEALLOCATE ALL", "UNLISTEN *"),
    *READING,
    *("SELECT pg_catalog.pg_advisory_unlock_all()", "DISCARD PLANS", "DISCARD TEMP", "DISCARD SEQUENCES"),
)


class Session:
    """The connection on which a run works, opened anew after a loss.

    `token` marks its messages, so that other sessions find them behind a pooler too. `checks_client` says whether the
    server is asked to look for a client that is gone, `unflushed` whether a commit waits for a later one to make it
    durable, `is_clean` whether the last message has left the session as DISCARD ALL does.
    """

    def __init__(
        self, connection: psycopg.Connection, target: Target, table: Table, *, tell: events.Tell, stop: Stop
    ) -> None:
        self.connection = connection
        self.target = target
        self.table = table
        self.tell = tell
        self.stop = stop
        self.token = os.urandom(4).hex()
        self.watcher = Watcher(target, self.token, tell)
        self.silent = messages.Silent(messages.SILENCE, self.watcher.wake)
        self.checks_client = False
        self.one_by_one = False
        self.unflushed = False
        self.is_clean = False
        self._file: Migration | None = None
        self._opened: list[tuple[int, float]] = []
        self._take(connection)

    def _take(self, connection: psycopg.Connection) -> None:
        self.connection = connection
        self._opened.append((connection.info.backend_pid, time.monotonic()))
        self._application = sql.quote(connection.info.parameter_status("application_name") or "")
        connection.add_notice_handler(self._notice)
        self.stop.reach(connection)

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if self._file:
            from outreach_migrate.files import variables  # here, because a run with nothing to do needs neither
            from outreach_migrate.run import events

            notice = variables.hidden(self._file.written, messages.server_message(diagnostic))
            self.tell(events.Noticed(self._file, notice))

    def close(self) -> None:
        """Close the connection, after its running statement is cancelled."""
        self.stop.leave(self.connection)
        if self.connection.pgconn.transaction_status == pq.TransactionStatus.ACTIVE:
            messages.cancel(self.connection)
        self.connection.close()

    def give_back(self) -> None:
        """Leave the connection open, as DISCARD ALL leaves it."""
        self.stop.leave(self.connection)
        self.connection.remove_notice_handler(self._notice)
        if not self.connection.closed and not self.is_clean:
            self.clean()

    def reopen(self, *, wait: float) -> None:
        """Open the connection anew; raise ConnectionFailed."""
        self.close()
        self._take(connections.connect(self.target, wait=wait, read_write=True, tell=self.tell, pause=self.stop.pause))

    def reopen_briefly(self) -> None:
        """Open the connection anew for a last look, with a short timeout, because an interrupted run must end soon."""
        self.close()
        brief = replace(self.target, parameters={**self.target.parameters, "connect_timeout": "2"})
        self._take(connections.connect(brief, read_write=True))

    @contextmanager
    def at_work(self, migration: Migration) -> Iterator[None]:
        """Report the server's notices as this file's, and have the watcher look at the file."""
        self._file = migration
        self.watcher.look_at(migration)
        try:
            yield
        finally:
            self._file = None
            self.watcher.look_at(None)

    @contextmanager
    def calling(self, silent: messages.Silent) -> Iterator[None]:
        """Call this when the server is silent, rather than wake the watcher, until the end of the block."""
        usual, self.silent = self.silent, silent
        try:
            yield
        finally:
            self.silent = usual

    def mark(self, migration: Migration) -> str:
        """Write the comment that marks this run's messages."""
        return activity.mark(self.token, str(migration))

    def exchange(
        self, message: str, *, rows: Iterator[bytes] | None = None, within: float = math.inf
    ) -> list[PGresult]:
        """Send one message, see messages.exchange; raise Interrupted when the run was asked to end meanwhile."""
        rows = rows and self.stop.until(rows)
        self.is_clean = False
        try:
            return messages.exchange(self.connection, message, rows=rows, silent=self.silent, within=within)
        finally:
            self.stop.check()

    def pipeline(self, groups: Sequence[Sequence[str]]) -> list[list[PGresult]]:
        """Send groups of statements, see messages.pipeline; raise Interrupted as exchange does."""
        self.is_clean = False
        try:
            return messages.pipeline(self.connection, groups, silent=self.silent)
        finally:
            self.stop.check()

    def ask(self, migration: Migration, commands: Sequence[str]) -> list[PGresult]:
        """Send the program's own commands in one round trip; give a result for each, up to the first failing one."""
        mark = self.mark(migration)
        if not self.one_by_one:
            return self.exchange(mark + "; ".join(commands))
        (results,) = self.pipeline([[mark + command for command in commands]])
        return results

    def opening(self) -> list[str]:
        """Write the statements that follow BEGIN: a clean session, without limits yet."""
        path = [read.set_search_path(self.target.schema).rstrip(";")] if self.target.schema else []
        # behind a pooler RESET ALL has put back the name that the pooler's own connection was opened with
        name = f"SET LOCAL application_name = {self._application}"
        return [*RESET, *self.client_check("LOCAL"), name, *path, *self.limit(Limits(0, 0))]

    def begin(self) -> None:
        """Begin a transaction of the program's own in a clean session, without limits."""
        commands = [BEGIN, *self.opening()]
        for message in commands if self.one_by_one else ["; ".join(commands)]:
            self.connection.execute(message.encode())

    def limit(self, limits: Limits) -> list[str]:
        """Write the statements that set the limits of the transaction.

        Citus' workers don't know the coordinator's lock_timeout, and a worker's session may lock a shard. Citus passes
        it on if asked, with the text of the whole message, so these must go one by one. The coordinator alone measures
        statement_timeout.
        https://github.com/citusdata/citus/blob/main/src/backend/distributed/commands/variableset.c
        """
        lock_timeout, statement_timeout = limits.sql()
        if not self.one_by_one:
            return [lock_timeout, statement_timeout]
        told = "SET LOCAL citus.propagate_set_commands ="
        return [f"{told} 'local'", lock_timeout, f"{told} DEFAULT", statement_timeout]

    def client_check(self, scope: Literal["LOCAL", "SESSION"]) -> list[str]:
        """Write the statement by which the server ends the work of a client that is gone, where it can.

        https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-CLIENT-CONNECTION-CHECK-INTERVAL
        """
        return [f"SET {scope} client_connection_check_interval = '1s'"] if self.checks_client else []

    def read_as_written(self) -> None:
        """Let the server read the next text as UTF-8, with plain strings, if a statement has changed that."""
        status = self.connection.info.parameter_status
        if (status("client_encoding"), status("standard_conforming_strings")) != ("UTF8", "on"):
            self.exchange("; ".join(READING))

    def clean(self) -> None:
        """Roll back and clean the session, because behind a pooler another client gets it next.

        A lost connection is closed.
        """
        rollback = ["ROLLBACK"] if self.connection.pgconn.transaction_status != pq.TransactionStatus.IDLE else []
        try:
            self.is_clean = messages.failure(self.exchange("; ".join([*rollback, *RESET]))) is None
        except psycopg.Error:
            self.close()

    def history(self) -> History:
        """Read the history."""
        try:
            past = read.history(self.connection, self.table, search_path=self.target.schema, tell=self.tell)
        finally:
            self.is_clean = False
            self.stop.check()
        self.meets(past)
        return past

    def meets(self, past: History) -> None:
        """Work as the server's facts demand, which come with its history."""
        self.checks_client = past.checks_client
        self.one_by_one = self.watcher.in_cluster = past.citus

    def flush(self) -> None:
        """Flush the commits that did not wait for the disk. If the connection is lost, the flush is skipped."""
        if self.unflushed:
            # a lost connection's statement may still hold the entry, and a server that is stuck never answers
            message = f"SET LOCAL lock_timeout = '1s'; {write.rewrite(self.table)}"
            with suppress(psycopg.Error):
                self.unflushed = messages.failure(self.exchange(message, within=2.0)) is not None

    def ended(self) -> bool:
        """End the statements that earlier connections left running; tell whether all have ended."""
        *lost, current = self._opened
        for pid, opened in lost:
            if not activity.end(self.connection, self.token, lost=pid, opened=time.monotonic() - opened):
                return False
        self._opened = [current]
        return True


def one_at_a_time(tell: Callable[[E], None]) -> Callable[[E], None]:
    """Let the run's thread and the watcher's call `tell` one at a time."""
    lock = threading.Lock()

    def told(event: E) -> None:
        with lock:
            tell(event)

    return told


@contextmanager
def of(request: Request, tell: events.Tell, stop: Stop) -> Iterator[Session]:
    """Open a run's session, and close it at the end; the caller's own connection is cleaned and left open.

    Raise ConnectionFailed when the server can't be reached in time.
    """
    with connections.borrowed(request.connection) if request.connection else nullcontext():
        connection = request.connection or connections.connect(
            request.target, wait=request.wait, read_write=True, tell=tell, pause=stop.pause
        )
        session = Session(connection, request.target, request.table, tell=tell, stop=stop)
        try:
            with session.watcher:
                yield session
        finally:
            if session.connection is request.connection:
                session.give_back()
            else:
                session.close()
