"""Pending files applied in order, with retries, and recovery after a lost connection."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg

from outreach_migrate import errors
from outreach_migrate.errors import Outcome, StatementError
from outreach_migrate.files.migrations import Migration
from outreach_migrate.history import write
from outreach_migrate.history.read import History
from outreach_migrate.history.write import Place
from outreach_migrate.postgres import connections
from outreach_migrate.run import events, no_transaction, planning, recovery, retries, transaction
from outreach_migrate.run.no_transaction import Busy
from outreach_migrate.run.plan import Pending, Planned
from outreach_migrate.run.request import Request
from outreach_migrate.run.sessions import Session
from outreach_migrate.run.transaction import Done, Overtaken, Work

if TYPE_CHECKING:
    from outreach_migrate.files.batches import Batches


@dataclass(frozen=True, slots=True)
class Lost:
    """The connection was lost while a file ran."""

    migration: Migration
    cause: psycopg.Error


Stopped = Overtaken | Busy | Lost


def run(
    session: Session, request: Request, past: History, planned: Planned
) -> tuple[tuple[events.Applied, ...], Planned]:
    """Apply the files of a plan in order; give them, and the last plan, since other runs may make it anew.

    Raise errors.MigrateError; its `outcome` is the state that the run left the database in.
    """
    applied: list[events.Applied] = []
    in_vain = 0
    with _outcome_added(session, applied):
        while stopped := _apply_all(session, request, past, planned.steps, applied):
            _make_way(session, request, past, stopped, applied, in_vain=in_vain)
            # another run may have finished the file by now, and --from-start would run it a second time
            request = replace(request, from_start=None)
            before, past = past, session.history()
            in_vain = in_vain + 1 if past == before else 0
            planned = planning.to_carry_out(past, request)
        session.flush()
    return tuple(applied), planned


@contextmanager
def _outcome_added(session: Session, applied: list[events.Applied]) -> Iterator[None]:
    """Add the run's outcome to an error that is raised between two files."""
    try:
        with connections.translated():
            yield
    except errors.MigrateError as error:
        if error.outcome:
            raise
        session.flush()
        outcome = Outcome(None, before=len(applied), durable=not session.unflushed)
        raise error.after(outcome) from error.__cause__


def _make_way(
    session: Session,
    request: Request,
    past: History,
    stopped: Stopped,
    applied: list[events.Applied],
    *,
    in_vain: int,
) -> None:
    """Pause when another run is ahead; after a lost connection, find out whether the file was committed.

    `in_vain` counts the attempts since the history last changed. Any transaction can cause a serialization failure,
    so it is retried as often as a lock timeout.
    """
    match stopped:
        case Overtaken(error):
            session.clean()
            session.stop.pause(random.uniform(0.1, 0.3))  # spreads the runs that wait for one entry
            left = request.lock_retries - in_vain if error and error.sqlstate == "40001" else 0
            if error and left <= 0 and past == session.history():
                raise error  # no run is ahead, and trying again would never end
        case Busy(migration, claimants):
            session.clean()
            session.tell(events.Waiting(migration, claimants))
            session.stop.pause(random.uniform(0.2, 0.4))
        case Lost(migration, cause):
            seconds = recovery.after_loss(session, migration, applied, cause, wait=request.wait)
            applied.append(events.Applied(migration, seconds, ()))
            session.tell(applied[-1])


def _apply_all(
    session: Session, request: Request, past: History, steps: tuple[Pending, ...], applied: list[events.Applied]
) -> Stopped | None:
    """Apply the files in order; return early when another run is ahead or the connection is lost."""
    position, create = past.newest + 1, write.create(past)
    for left, step in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
        at = step.entry.position if step.entry else position
        previous = at - 1 if at > past.newest + 1 else past.before(at)
        wanted = step.migration.directives
        work = Work(
            step.migration,
            Place(past.table, at, previous, create),
            limits=request.limits.of_file(wanted.lock_timeout),
            patience=wanted.lock_timeout or 0.0,
            # Citus' workers commit durably at once, and a coordinator that lost its part would contradict them
            durable=past.citus or not left,
            code=_needed_code(request, wanted.code) if wanted.code else None,
        )
        session.stop.check()
        session.tell(events.Started(step.migration))
        done = _apply_one(session, request, work, applied, is_new=step.entry is None)
        if not isinstance(done, Done):
            return done
        for one in done.code:
            session.tell(one)
        applied.append(events.Applied(step.migration, done.seconds, done.tags))
        session.tell(applied[-1])
        position, create = position + (step.entry is None), ()
    return None


def _needed_code(request: Request, paths: tuple[str, ...]) -> Callable[[Session], tuple[events.CodeApplied, ...]]:
    """Give the function that carries out files of code, and those that they rest on, in a file's transaction."""
    from outreach_migrate.files import code as files
    from outreach_migrate.run import code

    needed = files.closure(request.code or (), paths)

    def carry_out(session: Session) -> tuple[events.CodeApplied, ...]:
        return code.within(session, request, needed)

    return carry_out


def _apply_one(
    session: Session, request: Request, work: Work, applied: list[events.Applied], *, is_new: bool
) -> Done | Stopped:
    """Apply a file; add the state that the file is in to an error that stops it."""
    migration = work.migration
    try:
        with session.at_work(migration), connections.translated():
            try:
                if migration.directives.transaction:
                    return _in_transaction(session, request, work)
                return _without_transaction(session, request, work, is_new=is_new)
            except psycopg.OperationalError as error:
                if not connections.was_lost(error):  # one of the program's own queries failed
                    raise
                return Lost(migration, error)
    except errors.MigrateError as error:
        raise _completed(session, migration, applied, error) from error.__cause__


def _completed(
    session: Session, migration: Migration, applied: list[events.Applied], error: errors.MigrateError
) -> errors.MigrateError:
    """Add the outcome to an error; a signal, before it or meanwhile, takes the error's place."""
    if not isinstance(error, errors.Interrupted):
        try:
            return error.after(recovery.take_back(session, migration, applied))
        except errors.Interrupted as late:
            error = late
    outcome = recovery.take_back(session, migration, applied)
    return errors.Interrupted(error.number, during=str(migration), outcome=outcome)


def _in_transaction(session: Session, request: Request, work: Work) -> Done | Stopped:
    def attempt() -> Done | Overtaken:
        session.unflushed = session.unflushed or not work.durable  # before the answer, which may be lost
        done = transaction.apply(session, work)
        session.unflushed = not work.durable
        return done

    return _retried(session, request, work, attempt)


def _without_transaction(session: Session, request: Request, work: Work, *, is_new: bool) -> Done | Stopped:
    from_start = request.from_start == work.migration.number
    if wanted := work.migration.directives.batches:
        return _in_batches(session, request, work, wanted, is_new=is_new, from_start=from_start)
    with no_transaction.claimed(session, work, is_new=is_new) as claim:
        if not isinstance(claim, no_transaction.Claim):
            return claim
        done = _retried(
            session, request, work, lambda: no_transaction.apply(session, work, claim, from_start=from_start)
        )
    session.unflushed = False
    return done


def _in_batches(
    session: Session, request: Request, work: Work, wanted: Batches, *, is_new: bool, from_start: bool
) -> Done | Overtaken | Busy:
    from outreach_migrate.run import batches  # here, because few files need it

    if is_new:  # so that a file whose key is none leaves no entry
        batches.key_of(session, work, wanted)
    with no_transaction.claimed(session, work, is_new=is_new) as claim:
        if not isinstance(claim, no_transaction.Claim):
            return claim
        return batches.apply(session, request, work, wanted, claim, from_start=from_start)


def _retried(
    session: Session, request: Request, work: Work, attempt: Callable[[], Done | Overtaken]
) -> Done | Overtaken:
    """Retry a file after a lock timeout, a deadlock or a serialization failure."""
    for left in range(request.lock_retries, 0, -1):
        try:
            return attempt()
        except StatementError as error:
            if not is_retried(error, work.migration):
                raise
            session.clean()
            pause = retries.pause_after(request.lock_retries - left)
            session.tell(events.Retrying(work.migration, error, pause, left))
            session.watcher.wake()  # which else sleeps through waits of less than a second
            session.stop.pause(pause)
    return attempt()


def is_retried(error: StatementError, migration: Migration) -> bool:
    """Tell whether a file is tried again after an error; of one without a transaction only the first statement is."""
    return error.sqlstate in retries.RETRIED and (migration.directives.transaction or error.statement == 1)
