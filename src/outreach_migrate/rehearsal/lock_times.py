"""The times for which a file's locks are held, and for which tables are not available."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from outreach_migrate.rehearsal.effects import Mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from outreach_migrate.errors import Location
    from outreach_migrate.rehearsal.effects import Effects, Lock


class Carried(Protocol):
    """A statement that was carried out."""

    @property
    def location(self) -> Location:
        """The place of the statement."""

    @property
    def seconds(self) -> float:
        """The seconds that it took."""

    @property
    def effects(self) -> Effects:
        """The effects of the statement."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lock that a file held, from the start of the statement `since` to the file's end."""

    lock: Lock
    since: Location
    seconds: float


@dataclass(frozen=True, slots=True)
class Blocked:
    """The seconds for which other sessions could not read, write or change a table, or an object of no table."""

    name: str
    reads: float
    writes: float
    changes: float


def of_file(done: Sequence[Carried], checks: float) -> tuple[Held, ...]:
    """Give each lock of a file's statements, with the seconds to the file's end; `checks` is the time of its checks."""
    left = sum(one.seconds for one in done) + checks
    found = []
    for one in done:
        found += [Held(lock, one.location, left) for lock in one.effects.locks]
        left -= one.seconds
    return tuple(found)


def blocked(files: Iterable[Iterable[Held]]) -> list[Blocked]:
    """Sum up, table by table, the times that each file's locks keep other sessions away, the longest first.

    An index's lock counts for its table, because the planner of any query locks all indexes of a table.
    https://www.postgresql.org/docs/current/sql-reindex.html#id-1.9.3.162.7
    """
    totals: dict[str, tuple[float, float, float]] = {}
    for file in files:
        of_file: dict[str, tuple[float, float, float]] = {}
        for held in file:
            relation, weakest = held.lock.relation, held.lock.mode.weakest_blocked
            name = relation.table or relation.name
            # read, write and change are each told by the weakest mode that they need
            modes = (Mode.ACCESS_SHARE, Mode.ROW_EXCLUSIVE, Mode.SHARE_UPDATE_EXCLUSIVE)
            spans = (held.seconds if weakest <= mode else 0.0 for mode in modes)
            reads, writes, changes = map(max, of_file.get(name, (0.0, 0.0, 0.0)), spans)
            of_file[name] = (reads, writes, changes)
        for name, (reads, writes, changes) in of_file.items():
            before = totals.get(name, (0.0, 0.0, 0.0))
            totals[name] = (before[0] + reads, before[1] + writes, before[2] + changes)
    found = [Blocked(name, *spans) for name, spans in totals.items() if any(spans)]
    return sorted(found, key=lambda one: (-one.reads, -one.writes, -one.changes, one.name))
