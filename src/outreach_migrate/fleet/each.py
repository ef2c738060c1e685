"""The same work done for each target, some at once: adopt, baseline, drift."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from outreach_migrate import errors
from outreach_migrate.errors import MigrateError
from outreach_migrate.fleet import events, workers
from outreach_migrate.fleet.targets import Member
from outreach_migrate.fleet.workers import Crew, Worker
from outreach_migrate.run.request import Request
from outreach_migrate.run.stop import Stop

if TYPE_CHECKING:
    Work = Callable[[Request, Stop], events.Value]


@dataclass(frozen=True, slots=True)
class Each:
    """The work and its targets; `jobs` run at once, and `most` failures end it. With None it goes on after all."""

    work: Work
    members: Sequence[Member]
    request: Request
    jobs: int
    most: int | None


def run(each: Each, tell: events.Tell, stop: Stop) -> int:
    """Do the work for all targets, and give the number of those that failed.

    Raise UsageError, because it would be the same for all, and Interrupted after a signal.
    """
    tell = events.one_at_a_time(tell)
    tell(events.Found(len(each.members)))
    crew = Crew(min(each.jobs, len(each.members)), each.most, each.request.wait, tell, stop)

    def do(member: Member, worker: Worker[Member]) -> None:
        began = time.monotonic()
        tell(events.Begun(member.name))
        with stop.part() as part:
            try:
                value = each.work(_asked(each.request, member, worker, part), part)
            except errors.UsageError:
                raise
            except MigrateError as failed:
                if worker.gives_back(failed, member, member):
                    return
                worker.queue.fail()
                tell(events.Failed(member.name, failed, time.monotonic() - began))
                return
        tell(events.Succeeded(member.name, value, time.monotonic() - began))

    _, failures = workers.work(each.members, do, crew)
    stop.check()
    return failures


def _asked(request: Request, member: Member, worker: Worker[Member], stop: Stop) -> Request:
    """Make the request for a target; raise MigrateError if its schema is gone, because a fleet makes none."""
    if schema := member.target.schema:
        with worker.reading(member, stop) as connection:
            found = connection.execute("SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s", [schema]).fetchall()
        if not found:
            raise errors.MigrateError(f"the database has no schema {schema}")
    connection = worker.connection(member, stop)
    return replace(request, target=member.target, table=member.table, connection=connection)
