"""A connection whose work is undone after each test."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import pq
from psycopg.adapt import AdaptersMap

# The test's transaction lies within one that is rolled back; its savepoint stands for BEGIN.
_SAVEPOINT = b"SAVEPOINT outreach_migrate_test"
_ATTRIBUTES = ("row_factory", "cursor_factory", "server_cursor_factory", "prepare_threshold", "prepared_max")


class Connection(psycopg.Connection[Any]):
    """A connection where commit() and rollback() end only the test's own part of a larger transaction."""

    _map = psycopg.adapters
    _fresh: dict[str, Any] | None = None

    @property
    def adapters(self) -> AdaptersMap:
        """The adapters of the test: those it registers here are gone after it."""
        return self._map

    def begin(self) -> None:
        """Begin a test's transaction, with the attributes of a new connection."""
        if self._fresh is None:
            self._fresh = {name: getattr(self, name) for name in _ATTRIBUTES}
        for name, value in self._fresh.items():
            setattr(self, name, value)
        self._map = AdaptersMap(psycopg.adapters)
        self._send(_SAVEPOINT)

    def undo(self) -> bool:
        """Roll back the test's transaction; False where that can't be, because the test has ended it or closed this."""
        try:
            self._send(b"ROLLBACK TO " + _SAVEPOINT + b"; ROLLBACK; SELECT pg_advisory_unlock_all()")
        except psycopg.Error:
            return False
        return True

    def commit(self) -> None:
        """Keep the changes until the end of the test; after an error they are rolled back, as COMMIT does."""
        if self.pgconn.transaction_status == pq.TransactionStatus.INERROR:
            self.rollback()
        else:
            self._send(b"RELEASE " + _SAVEPOINT + b"; " + _SAVEPOINT)

    def rollback(self) -> None:
        """Roll back to the last commit()."""
        self._send(b"ROLLBACK TO " + _SAVEPOINT)

    def _send(self, statements: bytes) -> None:
        with psycopg.Cursor(self) as cursor:
            cursor.execute(statements)
