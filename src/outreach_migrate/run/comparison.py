"""The files compared with the history; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg

from outreach_migrate import errors
from outreach_migrate.errors import Blocker, Contradiction, Problem
from outreach_migrate.history import progress, read, write
from outreach_migrate.history.read import History
from outreach_migrate.postgres import activity, connections
from outreach_migrate.run import half_done, plan, planning
from outreach_migrate.run.plan import Pending, Plan
from outreach_migrate.run.request import Request

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.history.batches import BatchProgress
    from outreach_migrate.run.code_plan import CodeStep
    from outreach_migrate.run.plan import Planned

_AGAIN = 0.5  # s between two looks, while another process migrates


@dataclass(frozen=True, slots=True)
class Comparison:
    """The history at one moment, and the plan made of it.

    `at_work` maps the version of an unfinished file to its living run, `batched` one in batches to its progress.
    """

    connection: psycopg.Connection
    past: History
    plan: Plan
    at_work: dict[str, Blocker]
    batched: dict[str, BatchProgress]
    unadopted: tuple[Problem, ...] = ()

    def problems(self) -> list[Problem | Contradiction]:
        """List the problems of the files that are not applied, and the contradictions between files and history."""
        pending = self.plan.to_run(to=None, out_of_order=True)
        found = planning.of_texts(pending)
        unfinished = map(self._measured, self.plan.unfinished(at_work=self.at_work))
        return [*self.unadopted, *found, *self.plan.contradictions(out_of_order=False), *unfinished]

    def _measured(self, one: Contradiction) -> Contradiction:
        """Add the progress of a file in batches."""
        batched = self.batched.get(one.version)
        return one._replace(rows=batched.rows, total=batched.total) if batched else one


@contextmanager
def reading(request: Request, tell: Callable[[read.Locked], None]) -> Iterator[Comparison]:
    """Read the history and compare the files with it, on a connection that lasts to the end of the block.

    Nothing is written or created. Raise HistoryError when the table is not a history, or ConnectionFailed.
    """
    with connections.translated(), connections.of(request.connection, request.target, wait=request.wait) as connection:
        past = read.history(connection, request.table, search_path=request.target.schema, tell=tell)
        yield compare(connection, past, request)


def compare(connection: psycopg.Connection, past: History, request: Request) -> Comparison:
    """Compare the files with a history that was read."""
    made = plan.make(request.files, past.entries)
    batched = half_done.of(connection, past, made)
    unadopted = planning.unadopted(past, request.files)
    return Comparison(connection, past, made, _at_work(connection, past), batched, unadopted)


def _at_work(connection: psycopg.Connection, past: History) -> dict[str, Blocker]:
    unfinished = [entry for entry in past.entries if entry.finished_at is None]
    keys = [progress.claim_key(connection, write.Place(past.table, entry.position)) for entry in unfinished]
    found = [activity.claimants(connection, key) for key in keys]
    return {entry.version: runs[0] for entry, runs in zip(unfinished, found, strict=True) if runs}


def code_steps(connection: psycopg.Connection, request: Request) -> tuple[CodeStep, ...]:
    """Compare the files of code with their records; there are none without a folder of code."""
    if request.code is None:
        return ()
    from outreach_migrate.run import code_plan

    with connections.translated():
        return code_plan.steps(connection, request.code, request.table)


def in_order(planned: Planned, codes: Iterable[CodeStep], request: Request) -> Iterator[Pending | CodeStep]:
    """Yield the steps of a run, and the changed files of code, in the order in which the run carries them out.

    Those that a migration names come before it, with all that they rest on; the others after all migrations.
    """
    left = {step.path: step for step in codes if step.is_changed}
    for step in planned.steps:
        if left and step.migration.directives.code:
            from outreach_migrate.files import code  # here, because few projects have files of code

            needed = code.closure(request.code or (), step.migration.directives.code)
            yield from [left.pop(one.path) for one in needed if one.path in left]
        yield step
    if request.reaches(planned.plan):
        yield from left.values()


def lacking(request: Request, tell: Callable[[read.Locked], None]) -> tuple[str, ...]:
    """Name the files that the database lacks: pending migrations, and changed files of code.

    Raise HistoryError when the table is not a history, NotAdopted, HistoryLocked, ConnectionFailed.
    """
    with reading(request, tell) as seen:
        if seen.unadopted:
            raise errors.NotAdopted(seen.unadopted)
        pending = [f"{step.version}_{step.name}" for step in seen.plan.to_run(to=None, out_of_order=True)]
        codes = code_steps(seen.connection, request)
    return (*pending, *(f"code {step.path}" for step in codes if step.is_changed))


class Behind(errors.MigrateError):
    """The database lacks migrations of the folder; `pending` has their steps."""

    def __init__(self, pending: tuple[Pending, ...]) -> None:
        names = ", ".join(f"{step.version}_{step.name}" for step in pending)
        super().__init__(f"the database is behind, pending: {names}", hint="Migrate first: outreach-migrate up.")
        self.pending = pending


def await_current(request: Request, tell: Callable[[read.Locked], None]) -> None:
    """Return once no file is pending that a new release needs; raise Behind after `wait` seconds, or Refused."""
    request, deadline = replace(request, before_deploy=True), time.monotonic() + request.wait
    while True:
        left = max(0.0, deadline - time.monotonic())
        with reading(replace(request, wait=left), tell) as seen:
            pending = planning.plan_of(seen.past, request).steps
        if not pending:
            return
        if not left:
            raise Behind(pending)
        time.sleep(min(_AGAIN, left))
