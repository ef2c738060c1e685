"""The events that a run reports while it works."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from outreach_migrate.errors import Blocker, ServerMessage, StatementError
from outreach_migrate.files.migrations import Migration
from outreach_migrate.history.read import Locked
from outreach_migrate.postgres.activity import Progress, Waiter
from outreach_migrate.postgres.connections import Unreachable
from outreach_migrate.run.plan import Planned as Planned


class Started(NamedTuple):
    """A file is about to run."""

    migration: Migration


class Noticed(NamedTuple):
    """The server sent a notice or a warning, such as a file's RAISE."""

    migration: Migration
    notice: ServerMessage


class Waiting(NamedTuple):
    """A file waits for these sessions."""

    migration: Migration
    blockers: tuple[Blocker, ...]


class Progressing(NamedTuple):
    """A long statement reports its progress."""

    migration: Migration
    progress: Progress


class Retrying(NamedTuple):
    """A file was rolled back, as after a lock timeout, and runs again in `seconds`; `left` counts this retry too."""

    migration: Migration
    error: StatementError
    seconds: float
    left: int


class Applied(NamedTuple):
    """A file is applied and recorded; `seconds` is the time from its entry's start to its end.

    `statements` are the command tags of its statements, empty after a lost connection.
    """

    migration: Migration
    seconds: float
    statements: tuple[str, ...]

    @property
    def version(self) -> str:
        """The file's version, as its name spells it."""
        return self.migration.version

    @property
    def name(self) -> str:
        """The file's name, without version and ending."""
        return self.migration.name

    @property
    def path(self) -> str:
        """The file's path."""
        return self.migration.path


class Recovered(NamedTuple):
    """The connection was lost, but the file was already committed; `reason` is libpq's message."""

    migration: Migration
    reason: str


class AwaitingOrphan(NamedTuple):
    """A killed run's statement still runs on the server, and this run waits for its end; `pid` is null if unknown."""

    migration: Migration
    pid: int | None


class IndexFound(NamedTuple):
    """An earlier run built the index of this name, and was stopped before it could record that."""

    migration: Migration
    name: str


class IndexDropped(NamedTuple):
    """An earlier attempt left the index of this name invalid, so it is dropped before the next."""

    migration: Migration
    name: str


class AlreadyDone(NamedTuple):
    """An earlier run did the statement, and was stopped before it could record that; `error` is the server's proof."""

    migration: Migration
    error: ServerMessage


class CodeApplied(NamedTuple):
    """A file of code is carried out and recorded, in `seconds`.

    `objects` are those that it makes, `stale` those among them that it made before and no longer does, `dropped` those
    that it was to drop, `shared` those that another file makes as well, each with that file's path.
    """

    path: str
    seconds: float
    objects: tuple[str, ...]
    stale: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()


class CodeGone(NamedTuple):
    """A file of code is gone; its objects stay."""

    path: str
    objects: tuple[str, ...]


class Batched(NamedTuple):
    """A range of a file in batches is done, and committed with the progress.

    `rows` of about `total` rows are done, `per_second` by this run, whose ranges have changed `changed`; `size` is the
    range's. All are rows of the table that the file names, `changed` apart.
    """

    migration: Migration
    rows: int
    total: int
    changed: int
    per_second: float
    size: int

    @property
    def seconds_left(self) -> float | None:
        """The seconds until the end, about; null if no row is done."""
        return (self.total - self.rows) / self.per_second if self.per_second else None


class GivingWay(NamedTuple):
    """These sessions waited for a range of a file in batches, so the next is smaller: `size` rows."""

    migration: Migration
    waiting: tuple[Waiter, ...]
    size: int


class Lagging(NamedTuple):
    """A file in batches pauses, because a replica is behind by more seconds than `limit`."""

    migration: Migration
    replica: str
    seconds: float
    limit: float


OfCode = CodeApplied | CodeGone


class Unseen(NamedTuple):
    """So many replicas may be behind, but `role`, a quoted name, may not see how far; a file in batches goes on."""

    migration: Migration
    replicas: int
    role: str


OfBatches = Batched | GivingWay | Lagging | Unseen
Beside = Recovered | AwaitingOrphan | IndexFound | IndexDropped | AlreadyDone
OfAFile = Started | Noticed | Waiting | Progressing | Retrying | Applied | OfBatches | Beside
Event = Planned | OfAFile | OfCode | Unreachable | Locked
Tell = Callable[[Event], None]
