"""Carry a plan out."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg

from outreach_migrate import errors
from outreach_migrate.history import record
from outreach_migrate.postgres import database, locks, wire
from outreach_migrate.run import aftermath, piecemeal, session, survey, watch
from outreach_migrate.run.watch import Link

if TYPE_CHECKING:
    from collections.abc import Generator

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.history import Entry, History
    from outreach_migrate.postgres.locks import Blocker
    from outreach_migrate.run.plan import Step
    from outreach_migrate.run.survey import Request

_CHANCE = random.SystemRandom()  # it spreads runs that wait for the same
_RETRIED = {"55P03", "40P01", "40001"}  # a lock timeout, a deadlock, a serialization failure


@dataclass(frozen=True, slots=True)
class Retrying:
    """A file gave way, was rolled back, and is tried again in so many seconds."""

    migration: Migration
    error: errors.StatementError
    seconds: float
    left: int


@dataclass(frozen=True, slots=True)
class Applied:
    """A file is applied and recorded; `seconds` are those between the times of its entry.

    `tags` are its statements' command tags, unknown after a lost connection.
    """

    migration: Migration
    seconds: float
    tags: tuple[str, ...]


Event = survey.Planned | Retrying | Applied | watch.Event | database.Unreachable


class _Busy(Exception):
    """Another run works on a file that has no transaction."""

    def __init__(self, migration: Migration, claimants: tuple[Blocker, ...]) -> None:
        self.migration = migration
        self.claimants = claimants


class _Lost(Exception):
    """The connection was lost while a file ran."""

    def __init__(self, migration: Migration, cause: psycopg.Error) -> None:
        self.migration = migration
        self.cause = cause


def run(request: Request) -> Generator[Event, None, None]:
    """Compare files and history, refuse what is wrong, apply what is pending, file by file.

    Raise errors.MigrateError; its `state` says what became of the file that was running.
    """
    applied: list[Migration] = []
    with Link(request.target, request.table, request.tell) as link, database.translated():
        yield from link.connect(request.wait)
        past = link.history()
        whole, steps = survey.to_carry_out(past, request)
        yield survey.Planned(whole, steps)
        try:
            while steps:
                try:
                    yield from _apply_all(link, request, past, steps, applied)
                    break
                except session.Overtaken as overtaken:
                    time.sleep(_CHANCE.uniform(0.1, 0.3))
                    if overtaken.error and past == link.history():
                        raise overtaken.error from None  # by nobody: it would go on for ever
                except _Busy as busy:
                    yield watch.Waiting(busy.migration, busy.claimants)
                    time.sleep(_CHANCE.uniform(0.2, 0.4))
                except _Lost as lost:
                    told, took = yield from aftermath.look(link, lost.migration, applied, lost.cause, wait=request.wait)
                    applied.append(lost.migration)
                    yield watch.Told(lost.migration, told)
                    yield Applied(lost.migration, took, ())
                # another run has been at work: what it has done is not done anew
                request = replace(request, from_start=None)
                past = link.history()
                whole, steps = survey.to_carry_out(past, request)
        except errors.MigrateError as error:  # between two files, or while another run was at work
            error.state = error.state or f"This run has applied and recorded {len(applied)} of what was pending."
            raise
        finally:
            link.flush()


def _apply_all(
    link: Link, request: Request, past: History, steps: tuple[Step, ...], applied: list[Migration]
) -> Generator[Event, None, None]:
    position, create = past.newest + 1, record.create(past)
    for left, step in zip(range(len(steps) - 1, -1, -1), steps, strict=True):
        migration = step.migration
        if migration is None:  # never: what is to run has a file
            continue
        at = step.entry.position if step.entry else position
        previous = at - 1 if at > past.newest + 1 else past.before(at)
        place = record.Place(past.table, at, previous, create)
        try:
            yield watch.Running(migration, 0.0)
            with database.translated():
                tags, took = yield from _apply_one(link, request, migration, place, step.entry, durable=not left)
            applied.append(migration)
            yield Applied(migration, took, tuple(tags))
        except (session.Overtaken, _Busy, _Lost):
            raise
        except BaseException as error:
            aftermath.take_back(link, migration, applied, error)
            raise
        position, create = position + (step.entry is None), ()


def _apply_one(
    link: Link, request: Request, migration: Migration, place: record.Place, entry: Entry | None, *, durable: bool
) -> Generator[Event, None, tuple[list[str], float]]:
    """Apply a file, and try it again where it only gave way to others; give its tags, and the seconds it took."""
    wanted = migration.directives
    setting = session.Setting(
        mark=link.mark(migration),
        limits=request.limits.of_file(wanted.lock_timeout),
        search_path=request.target.schema,
        patience=wanted.lock_timeout or 0.0,
        application=link.application,
        durable=durable,
        checks_client=link.checks_client,
    )
    work = piecemeal.Work(link.connection, migration, place, setting)
    for left in range(request.lock_retries, -1, -1):
        try:
            if wanted.transaction:
                link.unflushed = link.unflushed or not durable  # also where the answer is lost
                done = yield from link.watched(migration, session.apply(link.connection, migration, place, setting))
                link.unflushed = not durable
                return done
            if not link.claimed:
                yield from _claim(link, work, entry)
            whole = piecemeal.proceed(
                work, from_start=request.from_start == migration.number, still_ours=link.must_hold_claim
            )
            done = yield from link.watched(migration, whole)
            link.unflushed = False
            link.release()
            return done
        except errors.StatementError as error:
            past_first = not wanted.transaction and error.statement != 1
            if error.sqlstate not in _RETRIED or past_first or not left:
                raise
            aftermath.tidy(link)
            pause = min(30.0, 0.5 * 2 ** min(request.lock_retries - left, 10)) * _CHANCE.uniform(0.75, 1.25)
            yield Retrying(migration, error, pause, left)
            time.sleep(pause)
        except (session.Overtaken, _Busy):
            aftermath.tidy(link)
            link.release()
            raise
        except psycopg.OperationalError as error:
            if error.sqlstate and not error.sqlstate.startswith(("08", "57P")):  # a query of our own failed
                raise
            raise _Lost(migration, error) from error
    raise AssertionError  # the last try returns or raises


def _claim(link: Link, work: piecemeal.Work, entry: Entry | None) -> Generator[Event, None, None]:
    """Take a file that runs without a transaction; a new one before its entry can be seen.

    Raise _Busy when a living run has it; a dead one holds nothing.
    """
    if entry is None:
        yield from link.watched(work.migration, piecemeal.begin(work))
    key = record.claim_key(link.connection, work.place)
    if not link.claim(key, work.migration):
        raise _Busy(work.migration, locks.claimants(link.connection, key))
    if entry is None:
        wire.finish(wire.exchange(link.connection, b"COMMIT"))
        link.unflushed = False
