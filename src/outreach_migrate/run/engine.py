"""The engine: a plan made, and its steps carried out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outreach_migrate.postgres import connections
from outreach_migrate.run import request as planning
from outreach_migrate.run import sessions

if TYPE_CHECKING:
    from outreach_migrate.run import events
    from outreach_migrate.run.plan import Plan
    from outreach_migrate.run.request import Request
    from outreach_migrate.run.stop import Stop


@dataclass(frozen=True, slots=True)
class Result:
    """The files that a run applied, the last plan that it made, and how long it took, in seconds."""

    applied: tuple[events.Applied, ...]
    plan: Plan
    seconds: float


def run(request: Request, tell: events.Tell, stop: Stop) -> Result:
    """Compare the files with the history, and apply the pending files in order.

    Raise errors.MigrateError; its `outcome` is the state that the run left the database in.
    """
    began = time.monotonic()
    applied: tuple[events.Applied, ...] = ()
    with connections.translated(), sessions.of(request, sessions.one_at_a_time(tell), stop) as session:
        past = session.history()
        planned = planning.to_carry_out(past, request)
        session.tell(planned)
        if planned.steps:
            from outreach_migrate.run import apply  # here, because a run with nothing to do needs none of it

            applied, planned = apply.run(session, request, past, planned)
    return Result(applied, planned.plan, time.monotonic() - began)
