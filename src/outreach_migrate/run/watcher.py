"""A second connection that looks, while a file runs, for blocking sessions and a long statement's progress."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import psycopg

from outreach_migrate.errors import Blocker, ConnectionFailed
from outreach_migrate.files.migrations import Migration
from outreach_migrate.postgres import activity, connections
from outreach_migrate.postgres.dsn import Target

if TYPE_CHECKING:
    from outreach_migrate.run import events

_PAUSE = 0.2  # s between two looks
_LAST_LOOK = 0.5  # s: how long the end of a run waits for the last one
_PAUSE_IN_CLUSTER = 1.0  # s between two that ask all nodes


class Watcher:
    """A thread that looks at a run from its own connection, once the run has woken it.

    The run's end hardly waits for it, because a full pool may answer its look only after the run has ended.
    """

    def __init__(self, target: Target, token: str, tell: events.Tell) -> None:
        self._target = replace(target, parameters={**target.parameters, "connect_timeout": "2"})
        self.token = token
        self._tell = tell
        self._file: Migration | None = None
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.blockers: tuple[Blocker, ...] = ()
        self.in_cluster = False  # whether the run's statements may wait on Citus' workers
        self._ask_nodes_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread:
            self._thread.join(_LAST_LOOK)

    def look_at(self, migration: Migration | None) -> None:
        """Look at this file from now on, if awake; at nothing if None."""
        self._file = migration
        if migration:
            self.blockers = ()

    def wake(self) -> None:
        """Start to look, until the end of the run."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look, name="outreach-migrate watcher", daemon=True)
            self._thread.start()

    def _look(self) -> None:
        connection = None
        while not self._ended.is_set():
            if file := self._file:
                try:
                    connection = connection or connections.connect(self._target, read_write=True)
                    self._look_at(file, connection)
                except (ConnectionFailed, psycopg.Error):  # a look that fails shows nothing
                    _close(connection)
                    connection = None
            self._ended.wait(_PAUSE)
        _close(connection)

    def _look_at(self, file: Migration, connection: psycopg.Connection) -> None:
        from outreach_migrate.run import events  # here, because most runs need none

        blockers = activity.blockers(connection, self.token) or self._in_cluster(connection)
        progress = None if blockers else activity.progress(connection, self.token)
        if file is not self._file:
            return
        if blockers:
            self.blockers = blockers
            self._tell(events.Waiting(file, blockers))
        elif progress:
            self._tell(events.Progressing(file, progress))

    def _in_cluster(self, connection: psycopg.Connection) -> tuple[Blocker, ...]:
        now = time.monotonic()
        if self.in_cluster and now >= self._ask_nodes_at:
            self._ask_nodes_at = now + _PAUSE_IN_CLUSTER
            with suppress(psycopg.Error):  # of a node: the rest can be looked at all the same
                return activity.blockers_in_cluster(connection, self.token)
        return ()


def _close(connection: psycopg.Connection | None) -> None:
    if connection:
        with suppress(psycopg.Error):
            connection.close()
