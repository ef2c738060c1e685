"""The threads of a fleet, each with a connection of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic

import psycopg
from psycopg.pq import TransactionStatus

from outreach_migrate import errors
from outreach_migrate.fleet import events
from outreach_migrate.fleet.queue import J, Queue
from outreach_migrate.fleet.targets import Member
from outreach_migrate.postgres import connections
from outreach_migrate.run.stop import Stop


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers: their number, the failures that end their work (None: no number does), and how they report."""

    count: int
    most: int | None
    wait: float
    tell: events.Tell
    stop: Stop


class Worker(Generic[J]):
    """One thread's connection, used again for the next target of the same server."""

    def __init__(self, crew: Crew, queue: Queue[J]) -> None:
        self.queue = queue
        self.host: object = None  # of the job that was taken last
        self._crew = crew
        self._connection: psycopg.Connection | None = None
        self._server: object = None
        self._pooled: bool | None = None

    def connection(self, member: Member, stop: Stop) -> psycopg.Connection:
        """Give a connection to a target's server; raise ConnectionFailed."""
        one = self._connection
        if one is None or self._server != member.server or not _is_idle(one):
            self.close()
            one = self._connection = self._connected(member, stop)
            self._server, self._pooled = member.server, None
        return one

    def _connected(self, member: Member, stop: Stop) -> psycopg.Connection:
        target, wait = member.target, self._crew.wait
        try:
            return connections.connect(target, read_write=True)
        except errors.ConnectionFailed as error:
            if not wait or not error.transient or (error.full and self.queue.is_shared(member.host)):
                raise
        return connections.connect(target, wait=wait, read_write=True, tell=self._crew.tell, pause=stop.pause)

    @contextmanager
    def reading(self, member: Member, stop: Stop) -> Iterator[psycopg.Connection]:
        """Give the connection for the program's own queries, which a signal cancels."""
        with connections.translated():
            connection = self.connection(member, stop)
            with stop.reaching(connection):
                try:
                    yield connection
                finally:
                    stop.check()

    def is_pooled(self, member: Member, stop: Stop) -> bool:
        """Tell whether a pooler stands before the server: it hides the number of the server's process."""
        if self._pooled is None:
            with self.reading(member, stop) as connection:
                ((pid,),) = connection.execute(b"SELECT pg_catalog.pg_backend_pid()").fetchall()
                self._pooled = pid != connection.info.backend_pid
        return self._pooled

    def gives_back(self, error: errors.MigrateError, job: J, member: Member) -> bool:
        """Give the job back if its server has no connection left, and other workers have some there."""
        if not (isinstance(error, errors.ConnectionFailed) and error.full):
            return False
        left = self.queue.refused(job)
        if left:
            self.host = None
            self.close()
            shown = member.target.name
            self._crew.tell(events.Fewer(member.name, shown.rpartition("/")[0] or shown, left, error))
        return left > 0

    def close(self) -> None:
        """Close the connection."""
        if self._connection:
            self._connection.close()
        self._connection = None


def _is_idle(connection: psycopg.Connection) -> bool:
    return not connection.closed and connection.info.transaction_status == TransactionStatus.IDLE


def work(jobs: Iterable[J], do: Callable[[J, Worker[J]], None], crew: Crew) -> tuple[list[J], int]:
    """Do all jobs, some at once; give those that were not started, and the number of failures."""
    queue = Queue(jobs, most=crew.most, stop=crew.stop)
    failures: list[BaseException] = []

    def loop() -> None:
        worker = Worker(crew, queue)
        try:
            while job := queue.take(worker.host):
                worker.host = job.host
                try:
                    do(job, worker)
                finally:
                    queue.done()
        except BaseException as error:
            failures.append(error)
            queue.close()
        finally:
            worker.close()

    # daemons, because a server that hangs may keep one of them after the command has given up on it
    threads = [threading.Thread(target=loop, name=f"outreach-migrate {n}", daemon=True) for n in range(crew.count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return queue.left(), queue.failures
