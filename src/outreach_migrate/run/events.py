"""What a run tells while it goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from outreach_migrate.errors import Blocker, ServerMessage, StatementError
from outreach_migrate.files.migrations import Migration
from outreach_migrate.history.read import Locked
from outreach_migrate.postgres.activity import Progress
from outreach_migrate.postgres.connections import Unreachable
from outreach_migrate.run.plan import Pending, Plan


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan is made, nothing is wrong with it, and these steps will be run."""

    plan: Plan
    steps: tuple[Pending, ...]


@dataclass(frozen=True, slots=True)
class Started:
    """A file's first statement comes next."""

    migration: Migration


@dataclass(frozen=True, slots=True)
class Noticed:
    """The server sent a notice or a warning, such as a file's RAISE."""

    migration: Migration
    notice: ServerMessage


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file waits for these sessions."""

    migration: Migration
    blockers: tuple[Blocker, ...]


@dataclass(frozen=True, slots=True)
class Progressing:
    """A long statement has come so far."""

    migration: Migration
    progress: Progress


@dataclass(frozen=True, slots=True)
class Retrying:
    """A file met a lock timeout, was rolled back, and is tried again in so many seconds; `left` tries come after it."""

    migration: Migration
    error: StatementError
    seconds: float
    left: int


@dataclass(frozen=True, slots=True)
class Applied:
    """A file is applied and recorded; `seconds` are those between the times of its entry.

    `statements` are its command tags, unknown after a lost connection.
    """

    migration: Migration
    seconds: float
    statements: tuple[str, ...]

    @property
    def version(self) -> str:
        """The file's version, as it is written."""
        return self.migration.version

    @property
    def name(self) -> str:
        """The file's name, without version and ending."""
        return self.migration.name

    @property
    def path(self) -> str:
        """The file's path."""
        return self.migration.path


@dataclass(frozen=True, slots=True)
class Recovered:
    """The connection was lost, and the file had been committed before; `reason` is libpq's."""

    migration: Migration
    reason: str


@dataclass(frozen=True, slots=True)
class AwaitingOrphan:
    """A statement that a killed run has left at work must end first."""

    migration: Migration
    pid: int | None


@dataclass(frozen=True, slots=True)
class IndexFound:
    """The index was built by an earlier run that was stopped before it could record that."""

    migration: Migration
    index: str


@dataclass(frozen=True, slots=True)
class IndexDropped:
    """An earlier try of a statement left this index invalid, and it is dropped."""

    migration: Migration
    index: str


@dataclass(frozen=True, slots=True)
class AlreadyDone:
    """The server's error says that an earlier run, stopped before it could record that, has done the statement."""

    migration: Migration
    error: ServerMessage


E = TypeVar("E")
Beside = Recovered | AwaitingOrphan | IndexFound | IndexDropped | AlreadyDone
Event = Planned | Started | Noticed | Waiting | Progressing | Retrying | Applied | Beside | Unreachable | Locked
Tell = Callable[[Event], None]


def one_at_a_time(tell: Callable[[E], None]) -> Callable[[E], None]:
    """Make `tell` be called by one thread at a time: the run's and the watcher's."""
    lock = threading.Lock()

    def told(event: E) -> None:
        with lock:
            tell(event)

    return told
