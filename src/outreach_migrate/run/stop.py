"""A request from another thread that a run end."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg

from outreach_migrate import errors
from outreach_migrate.postgres import messages

_AGAIN = 0.2  # s between two cancel requests, because one that arrives between two statements is lost
_PATIENCE = 0.7  # s until the connection is cut, if the server ignores cancel requests


class Stop:
    """Ends a run: cancels its statement, cuts its connections if the server doesn't react, and ends its pauses."""

    def __init__(self) -> None:
        self._number = 0
        self._asked = threading.Event()
        self._heard = threading.Event()
        self._lock = threading.Lock()  # so that no connection is closed while it is cancelled
        self._connections: list[psycopg.Connection] = []
        self._parts: list[Stop] = []

    def ask(self, number: int) -> None:
        """Ask the run, and each of its parts, to end, because of this signal, and return at once."""
        with self._lock:
            self._number = number
            self._asked.set()
            parts = list(self._parts)
        for part in parts:
            part.ask(number)
        threading.Thread(target=self._cancel, name="outreach-migrate cancel", daemon=True).start()

    def until(self, rows: Iterator[bytes]) -> Iterator[bytes]:
        """Give rows until the run is asked to end; then raise Interrupted, and let `check` raise it again."""
        for chunk in rows:
            if self._asked.is_set():
                raise errors.Interrupted(self._number)
            yield chunk

    @contextmanager
    def part(self) -> Iterator[Stop]:
        """Give a Stop for one of the run's threads, until the end of the block; it is asked when this one is."""
        part = Stop()
        with self._lock:
            self._parts.append(part)
            asked = self._asked.is_set()
        if asked:
            part.ask(self._number)
        try:
            yield part
        finally:
            with self._lock:
                self._parts.remove(part)

    @property
    def asked(self) -> bool:
        """Whether the run was asked to end."""
        return self._asked.is_set()

    def check(self) -> None:
        """Raise Interrupted, once, if the run was asked to end. After that no statement is cancelled."""
        if self._asked.is_set() and not self._heard.is_set():
            with self._lock:
                self._heard.set()
            raise errors.Interrupted(self._number)

    def pause(self, seconds: float) -> None:
        """Sleep, but raise Interrupted at once when the run is asked to end."""
        if self._heard.is_set():
            time.sleep(seconds)
            return
        self._asked.wait(seconds)
        self.check()

    @contextmanager
    def reaching(self, connection: psycopg.Connection) -> Iterator[None]:
        """Cancel this connection's statements too, until the end of the block."""
        self.reach(connection)
        try:
            yield
        finally:
            self.leave(connection)

    def reach(self, connection: psycopg.Connection) -> None:
        """Cancel this connection's statements too, until `leave`."""
        with self._lock:
            self._connections.append(connection)

    def leave(self, connection: psycopg.Connection) -> None:
        """Leave this connection alone from now on, because it may be closed."""
        with self._lock, suppress(ValueError):
            self._connections.remove(connection)

    def _cancel(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not self._heard.is_set():
            with self._lock:
                late = time.monotonic() > deadline
                for connection in () if self._heard.is_set() else self._connections:
                    if late:
                        _cut(connection)
                    else:
                        messages.cancel(connection, within=deadline - time.monotonic())
            if late or self._heard.wait(_AGAIN):
                return


def _cut(connection: psycopg.Connection) -> None:
    """Shut the socket down, so that the thread that waits on the connection finds it lost."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as copy:
        copy.shutdown(socket.SHUT_RDWR)
