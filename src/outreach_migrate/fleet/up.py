"""Many targets migrated, some at once."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from outreach_migrate import errors
from outreach_migrate.errors import MigrateError, StatementError
from outreach_migrate.files.code import FOLDER
from outreach_migrate.fleet import events, look, plans, workers
from outreach_migrate.fleet.look import Together
from outreach_migrate.fleet.targets import Member
from outreach_migrate.fleet.workers import Crew, Worker
from outreach_migrate.run import apply, engine, retries
from outreach_migrate.run import events as of_run
from outreach_migrate.run.engine import Prepared
from outreach_migrate.run.plan import Planned
from outreach_migrate.run.request import Request
from outreach_migrate.run.stop import Stop

_CONNECTS = 3  # retries of the last worker, if the server has no connection for it either


@dataclass(frozen=True, slots=True)
class Fleet:
    """The targets of a command, and the request that is made of each.

    The first `canary` targets run alone. After `most` failures no target is started; None means that all are tried.
    """

    members: tuple[Member, ...]
    request: Request
    jobs: int = 4
    canary: int = 0
    most: int | None = 1

    @property
    def parts(self) -> tuple[tuple[Member, ...], tuple[Member, ...]]:
        """The canary, and the rest."""
        return self.members[: self.canary], self.members[self.canary :]

    @property
    def found(self) -> events.Found:
        """The event with which the work begins."""
        return events.Found(len(self.members), tuple(one.name for one in self.parts[0]))


@dataclass(frozen=True, slots=True)
class One:
    """A target to migrate; the fields after `known` are those of its earlier tries.

    `retries` counts them by the version that failed, or by the kind of error.
    """

    member: Member
    known: Prepared | None = None
    applied: tuple[of_run.Applied, ...] = ()
    code: tuple[of_run.CodeApplied, ...] = ()
    retries: Mapping[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    error: MigrateError | None = None
    planned: Planned | None = None

    @property
    def host(self) -> object:
        """The server."""
        return self.member.host


Job = Together | One


def run(fleet: Fleet, tell: events.Tell, stop: Stop) -> int:
    """Migrate the targets, and give the number of those that failed.

    Raise UsageError if no file has the version to stop after, and Interrupted after a signal.
    """
    plans.check(fleet.request)
    tell = events.one_at_a_time(tell)
    tell(fleet.found)
    wait, failed = fleet.request.wait, 0
    canary, rest = fleet.parts
    if canary:
        failed = _run(canary, fleet.request, Crew(1, 1, wait, tell, stop))
    if rest and not failed and not stop.asked:
        failed = _run(rest, fleet.request, Crew(min(fleet.jobs, len(rest)), fleet.most, wait, tell, stop))
    stop.check()
    return failed


def _run(members: Sequence[Member], request: Request, crew: Crew) -> int:
    doing = _Doing(request, crew)
    jobs: list[Job] = [Together(some) if len(some) > 1 else One(some[0]) for some in look.together(members)]
    left, failures = workers.work(jobs, doing.do, crew)
    for job in left:
        if isinstance(job, One) and job.error:  # it was put off, and now there is no other try
            doing.ended(job, job.error)
            failures += 1
    return failures


class _Doing:
    """Does the jobs of all workers."""

    def __init__(self, request: Request, crew: Crew) -> None:
        self._request = replace(request, lock_retries=0)  # because a target that is retried goes back into the queue
        self._retries = request.lock_retries
        self._crew = crew
        self._plans = plans.Plans(request)
        self._turns: dict[object, threading.Lock] = defaultdict(threading.Lock)

    def do(self, job: Job, worker: Worker[Job]) -> None:
        """Do a job of the queue."""
        with self._crew.stop.part() as stop:
            if isinstance(job, Together):
                self._look(job, worker, stop)
            else:
                self._one(job, worker, stop)

    def _look(self, job: Together, worker: Worker[Job], stop: Stop) -> None:
        """Read the histories of a database, and queue the targets that lack something.

        The refused ones come first: each is read alone, for the times of its own entries, before any other runs.
        """
        try:
            found = look.histories(job, worker, stop)
        except MigrateError as error:
            if not worker.gives_back(error, job, job.members[0]):
                self._all_failed(job, worker, error)
            return
        refused, ready = list[One](), list[One]()
        for member, past in found.readable:
            try:
                known = self._plans.of(past)
            except MigrateError:
                refused.append(One(member))
                continue
            if known.planned.steps or self._request.code is not None:
                ready.append(One(member, known))
            else:
                self._crew.tell(events.Ended(member.name, (), (), 0.0, later=known.planned.later))
        for one in [*refused, *map(One, found.strange)]:
            if worker.host is None:  # the server refused a connection, so another worker reads it
                ready.append(one)
            elif not worker.queue.is_open:
                return
            elif found_alone := self._read(one, worker, stop):
                ready.append(replace(one, known=found_alone))
        worker.queue.add([*ready, *map(One, found.locked)])

    def _read(self, job: One, worker: Worker[Job], stop: Stop) -> Prepared | None:
        """Read a target's own history; tell its end and give None if it is up to date or refused."""
        try:
            known = self._plans.of(look.alone(job.member, worker, stop))
        except MigrateError as error:
            self._failed(job, error, worker)
            return None
        if known.planned.steps or self._request.code is not None:
            return known
        self.ended(replace(job, planned=known.planned), None)
        return None

    def _all_failed(self, job: Together, worker: Worker[Job], error: MigrateError) -> None:
        for member in job.members:
            if not worker.queue.is_open:
                return
            self.ended(One(member), error)
            worker.queue.fail()

    def _one(self, job: One, worker: Worker[Job], stop: Stop) -> None:
        began, applied, code = time.monotonic(), list(job.applied), list(job.code)
        planned, batched = job.planned, set[str]()

        def tell(event: of_run.Event) -> None:
            if isinstance(event, of_run.Applied):
                applied.append(event)
            elif isinstance(event, of_run.CodeApplied):
                code.append(event)
            elif isinstance(event, events.TOLD):
                self._crew.tell(events.Reported(job.member.name, event))
            if isinstance(event, of_run.Batched):
                batched.add(event.migration.version)

        self._crew.tell(events.Begun(job.member.name))
        try:
            known = job.known or self._plans.of(look.alone(job.member, worker, stop))
            planned = known.planned
            if planned.steps or self._request.code is not None:
                self._apply(job, known, worker, stop, tell)
            error = None
        except MigrateError as failed:
            error = failed
        seconds = job.seconds + time.monotonic() - began
        # the retries of a file in batches count anew after each range that is done, as those of `up`
        tried = {kind: count for kind, count in job.retries.items() if kind not in batched}
        done = replace(job, applied=tuple(applied), code=tuple(code), planned=planned)
        after = replace(done, known=None, seconds=seconds, retries=tried)
        if error:
            self._failed(after, error, worker)
        else:
            self.ended(after, None)

    def _failed(self, job: One, error: MigrateError, worker: Worker[Job]) -> None:
        if not self._is_tried_again(job, error, worker):
            worker.queue.fail()
            self.ended(job, error)

    def _apply(self, job: One, known: Prepared, worker: Worker[Job], stop: Stop, tell: of_run.Tell) -> None:
        member = job.member
        with self._turn(member, known.planned, worker, stop):
            request = replace(
                self._request,
                target=member.target,
                table=member.table,
                connection=worker.connection(member, stop),
                waited=isinstance(job.error, StatementError),
            )
            engine.run(request, tell, stop, known)

    @contextmanager
    def _turn(self, member: Member, planned: Planned, worker: Worker[Job], stop: Stop) -> Iterator[None]:
        """Behind a pooler let only one target at a time run files without a transaction.

        Such a file needs a second connection while the first has a transaction open. Several of them could fill the
        pool with first connections, and would wait for each other for ever.
        """
        if all(step.migration.directives.transaction for step in planned.steps) or not worker.is_pooled(member, stop):
            yield
            return
        turn = self._turns[member.server]
        while not turn.acquire(timeout=0.1):
            stop.check()
        try:
            yield
        finally:
            turn.release()

    def _is_tried_again(self, job: One, error: MigrateError, worker: Worker[Job]) -> bool:
        """Put a target back into the queue if another try may help."""
        if worker.gives_back(error, replace(job, error=error), job.member):
            return True
        kind, most = self._kind(error)
        tried = job.retries.get(kind, 0)
        if tried >= most:
            return False
        seconds = retries.pause_after(tried)
        self._crew.tell(events.PutOff(job.member.name, error, seconds, most - tried))
        worker.queue.put_back(replace(job, retries={**job.retries, kind: tried + 1}, error=error), seconds)
        return True

    def _kind(self, error: MigrateError) -> tuple[str, int]:
        """Give the key under which retries after an error are counted, and their greatest number."""
        if isinstance(error, errors.HistoryLocked):
            return "history", self._retries
        if isinstance(error, errors.ConnectionFailed) and error.full:
            return "connection", _CONNECTS
        if isinstance(error, StatementError):
            if error.version == FOLDER and error.sqlstate in retries.RETRIED:
                return FOLDER, self._retries
            file = next((one for one in self._request.files if one.version == error.version), None)
            if file and apply.is_retried(error, file):
                return error.version, self._retries
        return "", 0

    def ended(self, job: One, error: MigrateError | None) -> None:
        """Report the end of a target."""
        applied = {one.version for one in job.applied}
        steps = job.planned.steps if job.planned and error else ()
        pending = tuple(step for step in steps if step.version not in applied)
        later = job.planned.later if job.planned else ()
        self._crew.tell(events.Ended(job.member.name, job.applied, pending, job.seconds, error, job.code, later))
