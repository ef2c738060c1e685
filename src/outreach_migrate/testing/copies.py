"""Copies of a template: made when a test needs one, dropped in the background."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psycopg

from outreach_migrate import errors
from outreach_migrate.testing import marks, templates
from outreach_migrate.testing.marks import Mark, Purpose
from outreach_migrate.testing.servers import Server
from outreach_migrate.testing.templates import Template


class Line:
    """A connection to the maintenance database, opened anew after it was lost."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._connection: psycopg.Connection | None = None
        self.run, self.now = "", 0

    def get(self) -> psycopg.Connection:
        """Give the connection."""
        if self._connection is None or self._connection.closed:
            self._connection = self.server.connect()
            self.run, self.now = marks.run(self._connection)
        return self._connection

    def close(self) -> None:
        """Close it."""
        if self._connection:
            self._connection.close()


class Copies:
    """The copies of one process."""

    def __init__(self, server: Server) -> None:
        self._line = Line(server)
        self._behind = Line(server)  # of the thread
        self._thread = ThreadPoolExecutor(1, "outreach-migrate")
        self.live: set[str] = set()

    @property
    def connection(self) -> psycopg.Connection:
        """The connection by which copies are made."""
        return self._line.get()

    def make(self, template: Template) -> str:
        """Make a copy and give its name."""
        name = f"outreach_test_{secrets.token_hex(8)}"
        connection = self._line.get()
        templates.create(connection, template.copy(name), name, Mark(Purpose.COPY, self._line.now, self._line.run))
        self.live.add(name)
        return name

    def drop(self, name: str) -> None:
        """Drop a copy, in the background."""
        self.live.discard(name)
        self.later(lambda connection: templates.drop(connection, name))

    def keep(self, name: str) -> None:
        """Mark a copy as one that is kept, so that it is not dropped."""
        self.live.discard(name)
        self._line.get().execute(marks.write(name, Mark(Purpose.KEPT, self._line.now)))

    def later(self, work: Callable[[psycopg.Connection], None]) -> None:
        """Do work in the background; a lost connection ends it."""
        self._thread.submit(self._work, work)

    def _work(self, work: Callable[[psycopg.Connection], None]) -> None:
        with suppress(psycopg.Error, errors.MigrateError):
            work(self._behind.get())

    def close(self) -> None:
        """Wait for the work in the background, and drop the copies that are left."""
        for name in tuple(self.live):
            self.drop(name)
        self._thread.shutdown()
        self._line.close()
        self._behind.close()
