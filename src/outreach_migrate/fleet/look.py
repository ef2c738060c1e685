"""The histories of many targets: together where they share a database, else alone."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from outreach_migrate import errors
from outreach_migrate.errors import MigrateError
from outreach_migrate.fleet.targets import Member
from outreach_migrate.fleet.workers import Worker
from outreach_migrate.history import many, read
from outreach_migrate.history.many import Unread
from outreach_migrate.history.read import History
from outreach_migrate.run.stop import Stop


@dataclass(frozen=True, slots=True)
class Together:
    """A job for a worker: targets of one database, whose histories can be read together."""

    members: tuple[Member, ...]

    @property
    def host(self) -> object:
        """The server."""
        return self.members[0].host


@dataclass(frozen=True, slots=True)
class Histories:
    """The histories of a look, and the targets without one: locked ones, and those that must be read alone."""

    readable: tuple[tuple[Member, History], ...]
    locked: tuple[Member, ...]
    strange: tuple[Member, ...]


def together(members: Iterable[Member]) -> Iterator[tuple[Member, ...]]:
    """Group the targets by their databases."""
    groups: dict[object, list[Member]] = defaultdict(list)
    for member in members:
        groups[member.server].append(member)
    return map(tuple, groups.values())


def histories(job: Together, worker: Worker[Any], stop: Stop) -> Histories:
    """Read the histories of a database's targets; raise MigrateError if the database can't be asked."""
    with worker.reading(job.members[0], stop) as connection:
        found = many.histories(connection, [member.table for member in job.members])
    each = [(member, found[member.table]) for member in job.members]
    return Histories(
        tuple((member, past) for member, past in each if isinstance(past, History)),
        tuple(member for member, past in each if past is Unread.LOCKED),
        tuple(member for member, past in each if past is Unread.STRANGE),
    )


class Look(Protocol):
    """A look at the targets of a database."""

    def together(self, readable: Sequence[tuple[Member, History]]) -> list[Member]:
        """Tell of targets by their histories; give those that must be looked at alone."""

    def alone(self, member: Member, worker: Worker[Together], stop: Stop) -> None:
        """Look at one target, and tell of it; raise MigrateError."""

    def failed(self, member: Member, error: MigrateError, seconds: float) -> None:
        """Tell that a target can't be looked at."""


def over(job: Together, looking: Look, worker: Worker[Together], stop: Stop) -> None:
    """Look at the targets of a database, at once where that is enough; leave them to other workers of a full server."""
    members = job.members
    if len(members) > 1:
        try:
            found = histories(job, worker, stop)
        except MigrateError as error:
            if not worker.gives_back(error, job, members[0]):
                for member in members:
                    looking.failed(member, error, 0.0)
            return
        members = (*looking.together(found.readable), *found.strange, *found.locked)
    for nth, member in enumerate(members):
        if stop.asked:
            return
        began = time.monotonic()
        try:
            looking.alone(member, worker, stop)
        except MigrateError as error:
            if worker.gives_back(error, Together(members[nth:]), member):
                return
            looking.failed(member, error, time.monotonic() - began)


def alone(member: Member, worker: Worker[Any], stop: Stop) -> History:
    """Read a target's own history. Raise MigrateError, also when its schema is gone, because a fleet makes none.

    A locked history is not waited for, because other targets can be migrated meanwhile.
    """
    schema = member.target.schema
    with worker.reading(member, stop) as connection:
        past = read.history(connection, member.table, search_path=schema, patience=read.SOON)
    if schema in past.missing_schemas:
        hint = "A fleet makes no schema; up makes one, if the URL names it with ?schema=."
        raise errors.MigrateError(f"the database has no schema {schema}", hint=hint)
    return past
