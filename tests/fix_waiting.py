"""One way to wait, one to do the same several times at once, the sessions to wait for, and a gate for files."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
import pytest
from fix_servers import Connect

T = TypeVar("T")

PATIENCE = 45.0  # s until a test that waits gives up; less than files sleep that are to be ended
GATE = "SELECT pg_advisory_xact_lock(4711);"  # a file that has this stops there while the gate is shut


def until(happened: Callable[[], Any]) -> Any:
    """Wait until this gives something that is true, and give that."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := happened():
            return found
        time.sleep(0.01)
    raise AssertionError("it never happened")


def at_once(number: int, work: Callable[[], T]) -> list[T]:
    """Call this in several threads at once, and give each result."""
    with ThreadPoolExecutor(number) as pool:
        return [future.result() for future in [pool.submit(work) for _ in range(number)]]


class Sessions:
    """The sessions of the test's database, by their pids."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def waiting(self, event: str) -> list[int]:
        """Give those whose statement waits for an event, or an event of a type: PgSleep, virtualxid, Lock …."""
        return self._where("state = 'active' AND %s IN (wait_event, wait_event_type)", event)

    def of_runs(self) -> list[int]:
        """Give those that a run has opened."""
        return self._where("application_name = %s", "outreach-migrate")

    def _where(self, condition: str, value: str) -> list[int]:
        query = f"SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND {condition}"
        return [pid for (pid,) in self._connection.execute(query.encode(), [value])]


@pytest.fixture
def sessions(connect: Connect) -> Sessions:
    """The sessions of the test's database."""
    return Sessions(connect())


@pytest.fixture
def gate(connect: Connect) -> psycopg.Connection:
    """A connection that keeps the GATE in files shut until it is closed."""
    connection = connect(application_name="the gate")
    connection.execute("SELECT pg_advisory_lock(4711)")
    return connection
