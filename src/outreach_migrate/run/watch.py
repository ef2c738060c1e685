"""A run's connections, and what is seen through them while a file runs."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self, TypeVar

import psycopg

from outreach_migrate import errors
from outreach_migrate.history import history, record
from outreach_migrate.postgres import database, locks, wire

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from outreach_migrate.errors import ServerMessage
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.history import History
    from outreach_migrate.history.table import Table
    from outreach_migrate.postgres.database import Unreachable
    from outreach_migrate.postgres.dsn import Target
    from outreach_migrate.postgres.locks import Blocker, Progress

T = TypeVar("T")

_LOOK_AFTER = 1.0  # s: another connection is opened once the server has kept us waiting for that long


@dataclass(frozen=True, slots=True)
class Running:
    """A file has been running for so long; `seconds` is 0 when it starts."""

    migration: Migration
    seconds: float


@dataclass(frozen=True, slots=True)
class Noticed:
    """A file's RAISE, or another notice or warning of the server."""

    migration: Migration
    notice: ServerMessage


@dataclass(frozen=True, slots=True)
class Told:
    """Something that was done, or found done, beside the file's own statements."""

    migration: Migration
    message: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file waits for these."""

    migration: Migration
    blockers: tuple[Blocker, ...]


@dataclass(frozen=True, slots=True)
class Progressing:
    """A long statement has come so far."""

    migration: Migration
    progress: Progress


Event = Running | Noticed | Told | Waiting | Progressing


class Link:
    """A run's connections: the one that works, one that looks at it, one that claims; each opened when needed."""

    def __init__(self, target: Target, table: Table, tell: Callable[[history.Locked], None]) -> None:
        self.target = target
        self.table = table
        self._tell = tell
        self._brief = replace(target, parameters={**target.parameters, "connect_timeout": "2"})
        self.token = os.urandom(4).hex()
        self.connection: psycopg.Connection
        self.application = ""
        self.checks_client = False  # as the history says, once it has been read
        self._sessions: list[tuple[int, float]] = []  # the working connections' pids, and when they were opened
        self._looking: psycopg.Connection | None = None
        self._claiming: psycopg.Connection | None = None
        self._notices: list[ServerMessage] = []
        self._silent = 0.0  # s: for how long there has been no answer
        self._gave_way = False
        self.unflushed = False  # whether a commit was left to be made durable by a later one

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "connection"):
            self.connection.close()
        self.release()
        if self._looking:
            self._looking.close()

    def connect(self, wait: float) -> Generator[Unreachable, None, None]:
        """Open the working connection, anew after a loss."""
        yield from self._open(self.target, wait)

    def connect_briefly(self) -> None:
        """Open the working connection anew, for a last look: whoever interrupts a run doesn't wait for long."""
        wire.finish(self._open(self._brief, 0))

    def _open(self, target: Target, wait: float) -> Generator[Unreachable, None, None]:
        self.__exit__()
        self._looking = None
        self.connection = yield from database.connect(target, wait=wait, read_write=True)
        self._sessions.append((self.connection.info.backend_pid, time.monotonic()))
        self.application = self.connection.info.parameter_status("application_name") or ""
        # read at once: the fields are gone when the handler has returned
        self.connection.add_notice_handler(lambda fields: self._notices.append(wire.notice(fields)))

    def mark(self, migration: Migration) -> str:
        """Write the comment by which this run's messages are found."""
        return locks.mark(self.token, str(migration))

    def claim(self, key: str, migration: Migration) -> bool:
        """Take a file that runs without a transaction, until release."""
        self.release()
        self._claiming = wire.finish(database.connect(self.target, read_write=True))
        if not locks.claim(self._claiming, key, self.mark(migration)):
            self.release()
        return self.claimed

    @property
    def claimed(self) -> bool:
        """Whether a file is claimed."""
        return self._claiming is not None

    def must_hold_claim(self) -> None:
        """Raise psycopg.OperationalError when the claim is lost, and somebody else may have taken the file."""
        if self._claiming:
            self._claiming.execute("SELECT 1")

    def release(self) -> None:
        """Give a claim back."""
        if self._claiming:
            self._claiming.close()
            self._claiming = None

    def ended(self) -> bool:
        """End what the connections before this one may have left at work; tell whether that has ended."""
        *lost, ours = self._sessions
        for pid, opened in lost:
            if not locks.end(self.connection, self.token, lost=pid, opened=time.monotonic() - opened):
                return False
        self._sessions = [ours]
        return True

    def history(self) -> History:
        """Read the history."""
        past = history.read(self.connection, self.table, search_path=self.target.schema, tell=self._tell)
        self.checks_client = past.checks_client
        return past

    def flush(self) -> None:
        """Make durable what was committed without waiting for the disk; a connection that is lost leaves it to luck."""
        if self.unflushed:
            # what does not end may still hold the entry; and who doesn't answer in time, won't
            message = f"SET LOCAL lock_timeout = '1s'; {record.rewrite(self.table)}"
            with suppress(psycopg.Error):
                wire.finish(wire.rows(self.connection, message), within=2.0)
                self.unflushed = False

    def watched(self, migration: Migration, work: Generator[str | float, None, T]) -> Generator[Event, None, T]:
        """Do the work, and tell meanwhile how long it takes, what the server has to say, who is in the way."""
        began = time.monotonic()
        blockers: tuple[Blocker, ...] = ()
        looks = self._looks()
        try:
            while True:
                told = next(work)
                yield from self._noticed(migration)
                if isinstance(told, str):
                    yield Told(migration, told)
                else:
                    self._silent = told
                yield Running(migration, time.monotonic() - began)
                seen = next(looks)
                if isinstance(seen, locks.Progress):
                    yield Progressing(migration, seen)
                elif isinstance(seen, tuple) and seen:
                    blockers = seen
                    yield Waiting(migration, seen)
        except StopIteration as end:
            yield from self._noticed(migration)
            value: T = end.value
            return value
        except errors.StatementError as error:
            yield from self._noticed(migration)
            if isinstance(error, errors.LockTimeout):
                error.blockers = blockers
                self._gave_way = True
            raise
        finally:
            looks.close()

    def _looks(self) -> Generator[tuple[Blocker, ...] | Progress | float | None]:
        """Look again and again who blocks us, and how far we are; yield what was seen, or nothing yet.

        A look never waits for its answer, which a full pool may give only after our own work has ended.
        """
        looked = time.monotonic()
        while True:
            # a file that is tried again has waited before: its later, shorter waits are looked at as well
            soon = self._looking or self._gave_way
            while self._silent < (0 if soon else _LOOK_AFTER) or time.monotonic() - looked < 2 * wire.TICK:
                yield None
            asked = True
            try:
                if self._looking is None:
                    self._looking = wire.finish(database.connect(self._brief, read_write=True))
                blockers = yield from locks.blockers(self._looking, self.token)
                progress = None if blockers else (yield from locks.progress(self._looking, self.token))
                asked = False
                yield blockers or progress
            except (errors.ConnectionFailed, psycopg.Error):
                pass  # what can't be looked at was not seen
            finally:
                if asked and self._looking:
                    self._looking.close()
                    self._looking = None
            looked = time.monotonic()

    def _noticed(self, migration: Migration) -> Iterator[Noticed]:
        while self._notices:
            yield Noticed(migration, self._notices.pop(0))
