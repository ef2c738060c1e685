"""The plans of many targets, of which none is carried out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from outreach_migrate.errors import ConnectionFailed, HistoryLocked, MigrateError, StatementError
from outreach_migrate.fleet import events, look, plans, workers
from outreach_migrate.fleet.look import Together
from outreach_migrate.fleet.targets import Member
from outreach_migrate.fleet.up import Fleet
from outreach_migrate.fleet.workers import Crew, Worker
from outreach_migrate.history.read import History
from outreach_migrate.run import comparison
from outreach_migrate.run.engine import Prepared
from outreach_migrate.run.request import Request
from outreach_migrate.run.stop import Stop


def run(fleet: Fleet, tell: events.Tell, stop: Stop) -> None:
    """Make the plan of each target, and tell it, and the targets that a run would not start; raise as `up.run` does."""
    plans.check(fleet.request)
    tell = events.one_at_a_time(tell)
    tell(fleet.found)
    looks = [Together(some) for some in look.together(fleet.members)]
    crew = Crew(min(fleet.jobs, len(looks)), None, fleet.request.wait, tell, stop)
    planning = _Planning(fleet.request, crew)
    workers.work(looks, planning.do, crew)
    stop.check()
    if halted := _halted(fleet, planning.refused):
        tell(halted)


def _halted(fleet: Fleet, refused: set[str]) -> events.Halted | None:
    """Find the targets that a run would not start after these failures, which come before all else in a database."""
    canary, rest = fleet.parts
    if any(one.name in refused for one in canary):
        return events.Halted(_names(_of_one_database(canary), rest) - refused, by_canary=True)
    if fleet.most is not None and sum(one.name in refused for one in rest) >= fleet.most:
        return events.Halted(_names(_of_one_database(rest)) - refused, by_canary=False)
    return None


def _of_one_database(members: Sequence[Member]) -> Sequence[Member]:
    """Give the targets if they are looked at together, before any of them runs; else none."""
    return members if len({one.server for one in members}) == 1 else ()


def _names(*several: Sequence[Member]) -> frozenset[str]:
    return frozenset(one.name for members in several for one in members)


class _Planning:
    """Makes plans, for all workers."""

    def __init__(self, request: Request, crew: Crew) -> None:
        self._request = request
        self._crew = crew
        self._plans = plans.Plans(request)
        self.refused = set[str]()  # targets with an error that a run finds before it starts any of their database

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
        if not isinstance(error, ConnectionFailed | HistoryLocked | StatementError):
            self.refused.add(member.name)
        self._crew.tell(events.Failed(member.name, error, seconds))
