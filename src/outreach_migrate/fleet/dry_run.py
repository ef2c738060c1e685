"""The plans of many targets, of which none is carried out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from outreach_migrate.errors import MigrateError
from outreach_migrate.fleet import events, look, plans, workers
from outreach_migrate.fleet.look import Together
from outreach_migrate.fleet.targets import Member
from outreach_migrate.fleet.workers import Crew, Worker
from outreach_migrate.history.read import History
from outreach_migrate.run import comparison
from outreach_migrate.run.engine import Prepared
from outreach_migrate.run.request import Request
from outreach_migrate.run.stop import Stop


def run(members: Sequence[Member], request: Request, jobs: int, tell: events.Tell, stop: Stop) -> None:
    """Make the plan of each target, and tell it; raise as `up.run` does."""
    plans.check(request)
    tell = events.one_at_a_time(tell)
    tell(events.Found(len(members)))
    looks = [Together(some) for some in look.together(members)]
    crew = Crew(min(jobs, len(looks)), None, request.wait, tell, stop)
    workers.work(looks, _Planning(request, crew).do, crew)
    stop.check()


class _Planning:
    """Makes plans, for all workers."""

    def __init__(self, request: Request, crew: Crew) -> None:
        self._request = request
        self._crew = crew
        self._plans = plans.Plans(request)

    def do(self, job: Together, worker: Worker[Together]) -> None:
        """Make the plans of a database's targets."""
        with self._crew.stop.part() as stop:
            look.over(job, self, worker, stop)

    def together(self, readable: Sequence[tuple[Member, History]]) -> list[Member]:
        """Tell of the targets that are not refused; give the rest, because an error has the times of its target."""
        others = []
        for member, past in readable:
            try:
                known = self._plans.of(past)
            except MigrateError:
                others.append(member)
                continue
            if self._request.code is None:
                self._crew.tell(events.Would(member.name, known.planned, (), 0.0))
            else:
                others.append(member)
        return others

    def alone(self, member: Member, worker: Worker[Together], stop: Stop) -> None:
        """Make the plan of one target, and tell of it."""
        began = time.monotonic()
        known = self._plans.of(look.alone(member, worker, stop))
        self._crew.tell(self._would(member, known, worker, stop, began))

    def _would(
        self, member: Member, known: Prepared, worker: Worker[Together], stop: Stop, began: float
    ) -> events.Would:
        request = replace(self._request, table=member.table)
        with worker.reading(member, stop) as connection:
            code = comparison.code_steps(connection, request) if request.reaches(known.planned.plan) else ()
        changed = tuple(step for step in code if step.is_changed)
        return events.Would(member.name, known.planned, changed, time.monotonic() - began)

    def failed(self, member: Member, error: MigrateError, seconds: float) -> None:
        """Tell that a target is refused, or can't be looked at."""
        self._crew.tell(events.Failed(member.name, error, seconds))
