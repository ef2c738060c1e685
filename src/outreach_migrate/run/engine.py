"""The engine: a plan made, and its steps carried out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outreach_migrate.postgres import connections
from outreach_migrate.run import planning, sessions

if TYPE_CHECKING:
    from outreach_migrate.history.read import History
    from outreach_migrate.run import events
    from outreach_migrate.run.plan import Plan, Planned
    from outreach_migrate.run.request import Request
    from outreach_migrate.run.stop import Stop


@dataclass(frozen=True, slots=True)
class Result:
    """The files that a run applied, the last plan that it made, and how long it took, in seconds.

    `code` are the files of code that it carried out after them.
    """

    applied: tuple[events.Applied, ...]
    plan: Plan
    seconds: float
    code: tuple[events.CodeApplied, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """The history that a run's caller has read, and the plan made of it; a run that finds it stale reads it again."""

    past: History
    planned: Planned


def run(request: Request, tell: events.Tell, stop: Stop, known: Prepared | None = None) -> Result:
    """Compare the files with the history, unless that is `known`, and apply the pending files in order.

    Raise errors.MigrateError; its `outcome` is the state that the run left the database in.
    """
    began = time.monotonic()
    applied: tuple[events.Applied, ...] = ()
    with connections.translated(), sessions.of(request, sessions.one_at_a_time(tell), stop) as session:
        if known:
            session.meets(known.past)
        if request.waited:
            session.watcher.wake()  # which else sleeps through waits of less than a second
        past = known.past if known else session.history()
        planned = known.planned if known else planning.to_carry_out(past, request)
        session.tell(planned)
        if planned.steps:
            from outreach_migrate.run import apply  # here, because a run with nothing to do needs none of it

            applied, planned = apply.run(session, request, past, planned)
        made: tuple[events.CodeApplied, ...] = ()
        if request.code is not None and request.reaches(planned.plan):
            from outreach_migrate.run import code

            made = code.carry_out(session, request, past, before=len(applied))
    return Result(applied, planned.plan, time.monotonic() - began, made)
