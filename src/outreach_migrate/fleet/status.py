"""Many targets looked at, without a change to any."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from outreach_migrate.errors import MigrateError
from outreach_migrate.files import rules
from outreach_migrate.fleet import events, look, workers
from outreach_migrate.fleet.look import Together
from outreach_migrate.fleet.targets import Member
from outreach_migrate.fleet.workers import Crew, Worker
from outreach_migrate.history.read import History
from outreach_migrate.run import comparison, plan
from outreach_migrate.run.plan import Plan
from outreach_migrate.run.request import Request
from outreach_migrate.run.stop import Stop


def run(members: Sequence[Member], request: Request, jobs: int, tell: events.Tell, stop: Stop) -> None:
    """Look at all targets, and tell of each; raise Interrupted after a signal."""
    tell = events.one_at_a_time(tell)
    tell(events.Found(len(members)))
    looks = [Together(some) for some in look.together(members)]
    crew = Crew(min(jobs, len(looks)), None, request.wait, tell, stop)
    workers.work(looks, _Looking(request, crew).do, crew)
    stop.check()


class _Looking:
    """Looks at targets, for all workers."""

    def __init__(self, request: Request, crew: Crew) -> None:
        self._request = request
        self._crew = crew

    def do(self, job: Together, worker: Worker[Together]) -> None:
        """Look at the targets of a database."""
        with self._crew.stop.part() as stop:
            look.over(job, self, worker, stop)

    def together(self, readable: Sequence[tuple[Member, History]]) -> list[Member]:
        """Tell of the targets that are in order; give the rest, because the times in a problem are a target's own."""
        if self._request.code is not None:  # its records are read for each target
            return [member for member, _ in readable]
        plans, others = dict[int, tuple[Plan, bool]](), []
        for member, past in readable:
            shared = id(past.entries)  # alive as long as `readable`
            if shared not in plans:
                plans[shared] = _plan(self._request, past)
            whole, is_wrong = plans[shared]
            if is_wrong:
                others.append(member)
            else:
                self._crew.tell(events.Seen(member.name, whole, (), 0.0))
        return others

    def alone(self, member: Member, worker: Worker[Together], stop: Stop) -> None:
        """Look at one target, and tell of it."""
        began = time.monotonic()
        past = look.alone(member, worker, stop)
        with worker.reading(member, stop) as connection:
            seen = comparison.compare(connection, past, self._request)
            code = comparison.code_steps(connection, replace(self._request, table=member.table))
        changed = tuple(step for step in code if step.is_changed)
        seconds = time.monotonic() - began
        self._crew.tell(events.Seen(member.name, seen.plan, tuple(seen.problems()), seconds, code=changed))

    def failed(self, member: Member, error: MigrateError, seconds: float) -> None:
        """Tell that a target can't be looked at."""
        self._crew.tell(events.Seen(member.name, None, (), seconds, error))


def _plan(request: Request, past: History) -> tuple[Plan, bool]:
    whole = plan.make(request.files, past.entries)
    files = [step.migration for step in whole.to_run(to=None, out_of_order=True)]
    is_wrong = whole.contradictions(out_of_order=False) or whole.unfinished() or any(map(rules.problems, files))
    return whole, bool(is_wrong)
