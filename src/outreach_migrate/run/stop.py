"""How a run is asked to end, from another thread."""

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

_AGAIN = 0.2  # s between two cancel requests: one that comes between two statements is lost
_PATIENCE = 0.7  # s until the connection is cut, where the server takes no notice of a cancel request


class Stop:
    """Ends a run: cancels its statement on the server, cuts its connection if that does not help, ends its pauses."""

    def __init__(self) -> None:
        self._number = 0
        self._asked = threading.Event()
        self._heard = threading.Event()
        self._lock = threading.Lock()  # of the connections: none is closed while it is being cancelled
        self._connections: list[psycopg.Connection] = []

    def ask(self, number: int) -> None:
        """Ask the run to end, as this signal does; returns at once."""
        self._number = number
        self._asked.set()
        threading.Thread(target=self._cancel, name="outreach-migrate cancel", daemon=True).start()

    def check(self) -> None:
        """Raise Interrupted, once, when the run was asked to end. No statement is cancelled any more after that."""
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
        """Cancel what this connection does, too, until the end of the block."""
        self.reach(connection)
        try:
            yield
        finally:
            self.leave(connection)

    def reach(self, connection: psycopg.Connection) -> None:
        """Cancel what this connection does, too, until it is left."""
        with self._lock:
            self._connections.append(connection)

    def leave(self, connection: psycopg.Connection) -> None:
        """Leave this connection alone from now on: it may be closed."""
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
    """Let the thread that waits on a connection find it lost."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.pgconn.socket)) as ours:
        ours.shutdown(socket.SHUT_RDWR)
