"""A file in batches: its statement run over range after range of a key, each in a transaction with its progress."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg

from outreach_migrate.errors import MigrateError, Phase, StatementError
from outreach_migrate.files import batches as texts
from outreach_migrate.files import statements
from outreach_migrate.history import batches as progress
from outreach_migrate.history import progress as entries
from outreach_migrate.history import write
from outreach_migrate.history.batches import BatchProgress
from outreach_migrate.postgres import activity, connections
from outreach_migrate.run import events, keys, no_transaction, pace, retries, sending
from outreach_migrate.run.pace import Pace
from outreach_migrate.run.sending import Message
from outreach_migrate.run.sessions import BEGIN, RESET, Session
from outreach_migrate.run.transaction import ENDING, Done, Overtaken, Work

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

    from outreach_migrate.files.batches import Batches
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.postgres.activity import Waiter
    from outreach_migrate.run.keys import Key
    from outreach_migrate.run.no_transaction import Claim
    from outreach_migrate.run.request import Request

_ABANDONED = "SET LOCAL idle_in_transaction_session_timeout = '1min'"  # for a client that is gone before COMMIT
_LAG_AGAIN = 1.0  # s between two looks at replicas that are behind


@dataclass(frozen=True, slots=True)
class _Range:
    """A range of the key: the rows after one key, up to another, and how many there were, about."""

    last: str
    end: str
    rows: int


@dataclass(frozen=True, slots=True)
class _Backfill:
    """A backfill at work: where its session, its file's place and its key are."""

    session: Session
    request: Request
    work: Work
    wanted: Batches
    key: Key

    def ask(self, query: str) -> PGresult:
        return no_transaction.ask(self.session, self.work, query, settings=keys.SETTINGS)

    def look(self, query: str) -> PGresult:
        return _look(self.session, self.work, self.wanted, query)

    def text(self, query: str) -> str:
        return _text(self.look(query))


def key_of(session: Session, work: Work, wanted: Batches) -> Key:
    """Find the key of a file in batches; raise MigrationFileError if there is none that will do."""
    return keys.find(lambda query: _text(_look(session, work, wanted, query)), work.migration, wanted)


def _look(session: Session, work: Work, wanted: Batches, query: str) -> PGresult:
    """Ask for the key, or for keys; an error is placed at the directive, which names the table."""
    try:
        return no_transaction.ask(session, work, query, settings=keys.SETTINGS)
    except psycopg.Error as error:
        if connections.was_lost(error):
            raise
        raise sending.placed(session, work.migration, error, offset=wanted.offset) from error


def _text(result: PGresult) -> str:
    return (result.get_value(0, 0) or b"").decode()


def apply(
    session: Session, request: Request, work: Work, wanted: Batches, claim: Claim, *, from_start: bool
) -> Done | Overtaken:
    """Run the ranges that are not done yet.

    Return Overtaken when the entry has changed since the plan was made. Raise StatementError, LockTimeout,
    MigrationFileError when the key no longer is one, or psycopg.OperationalError when a connection is lost.
    """
    row = no_transaction.ask(session, work, entries.unfinished(work.place, work.migration))
    if not row.ntuples:
        return Overtaken()
    one = _Backfill(session, request, work, wanted, key_of(session, work, wanted))
    now = _progress(one, from_start=from_start, begun=row.get_value(0, 1) == b"1")
    if request.max_lag:
        _tell_unseen(one)
    changed, tag = _ranges(one, claim, now)
    done = entries.record(work.place, work.migration, done=1, begun=1, done_checksum=work.migration.checksum)
    finished = no_transaction.ask(session, work, progress.end(work.place), done, write.finish(work.place))
    return Done((f"{tag} {changed}",) if tag else (), write.seconds(finished))


def _progress(one: _Backfill, *, from_start: bool, begun: bool) -> BatchProgress:
    """Read the progress; of a file that begins, fix the upper end of its key.

    `begun` says whether a range is done; then the progress must be there, because the ranges must not be done again.
    """
    place, size = one.work.place, pace.FIRST
    if _text(one.ask(progress.exists(place))) != "t":
        one.ask(progress.create(place))
    if from_start:
        one.ask(progress.end(place))
    elif found := progress.of(one.ask(progress.query(place))):
        return found
    elif begun:
        message = f"the progress of {one.work.migration} is gone from {progress.table(place.table)}"
        anew = f"outreach-migrate up --from-start {one.work.migration.version}"
        hint = f"Restore its row. Or run the file anew, over all ranges: {anew}"
        raise MigrateError(message, hint=hint)
    upper = one.text(keys.upper(one.key))
    total = keys.estimate(one.text, one.key) if upper != keys.NONE else 0
    one.ask(progress.begin(place, upper_key=upper, total=total, size=size))
    return BatchProgress(keys.NONE, upper, 0, total, 0.0, size)


def _tell_unseen(one: _Backfill) -> None:
    """Tell of replicas whose lag the role may not see."""
    found = one.ask(activity.UNSEEN)
    if found.ntuples:
        replicas, role = int(found.get_value(0, 0) or 0), (found.get_value(0, 1) or b"").decode()
        one.session.tell(events.Unseen(one.work.migration, replicas, role))


def _ranges(one: _Backfill, claim: Claim, now: BatchProgress) -> tuple[int, str]:
    """Run the ranges up to the last; give the number of rows that they changed, and the statement's command."""
    speed, changed, tag = Pace(now.size), 0, ""
    began, before, failures = time.monotonic(), now.rows, 0
    migration, tell = one.work.migration, one.session.tell
    while not now.is_done:
        claim.check()
        next_one = _next(one, now, speed.size)
        started = time.monotonic()
        try:
            tags, waiting = _carry_out(one, claim, next_one, speed, is_first=now.last_key == keys.NONE)
        except StatementError as error:
            if _is_overtaken(error):
                now = _again(one, error)
                continue
            if error.sqlstate not in retries.RETRIED or failures >= one.request.lock_retries:
                raise
            speed = speed.halved()
            _pause(one, error, failures)
            failures += 1
            continue
        if tags is None:  # given up
            speed = speed.halved()
            tell(events.GivingWay(migration, waiting, speed.size))
            continue
        took, failures = time.monotonic() - started, 0
        tag, _, number = tags[0].rpartition(" ") if tags and tags[0][-1:].isdigit() else ("", "", "0")
        changed += int(number)
        now = now._replace(last_key=next_one.end, rows=now.rows + next_one.rows)
        rate = (now.rows - before) / max(time.monotonic() - began, 0.001)
        speed = speed.after(took, one.wanted.seconds, waited=bool(waiting))
        total = now.rows if now.is_done else max(now.total, now.rows)
        tell(events.Batched(migration, now.rows, total, changed, rate, next_one.rows))
        if waiting:
            tell(events.GivingWay(migration, waiting, speed.size))
    return changed, tag.removesuffix(" 0")


def _next(one: _Backfill, now: BatchProgress, size: int) -> _Range:
    """Choose the next range, once no replica is too far behind."""
    limit = one.request.max_lag
    while True:
        end = keys.next_end(one.key, now.last_key, now.upper_key, size)
        row = one.look(f"SELECT {end}, lag.* FROM (VALUES (1)) AS one LEFT JOIN ({activity.LAG}) AS lag ON true")
        lag = float(row.get_value(0, 2) or 0)
        if not limit or lag <= limit:
            break
        replica = (row.get_value(0, 1) or b"").decode()
        one.session.tell(events.Lagging(one.work.migration, replica, lag, limit))
        one.session.stop.pause(_LAG_AGAIN)
    if found := row.get_value(0, 0):
        return _Range(now.last_key, found.decode(), size)
    left = one.text(keys.count(one.key, now.last_key, now.upper_key))
    return _Range(now.last_key, now.upper_key, int(left))


def _carry_out(
    one: _Backfill, claim: Claim, of: _Range, speed: Pace, *, is_first: bool
) -> tuple[list[str] | None, tuple[Waiter, ...]]:
    """Run the statement over a range; give its command tags, and the sessions that waited for it.

    It has no tags if it was cancelled for these sessions, and rolled back. COMMIT is a message of its own, because the
    cancellation must not reach the statements after it; where the client is gone, the server ends the open transaction.
    """
    session, work = one.session, one.work
    place, file = work.place, in_range(work.migration, one.key, of.last, of.end)
    statement = next(statements.split(file.sql))
    # the file must not change once a range of it is done
    fixed = entries.record(place, file, done=0, begun=1, done_checksum=file.checksum)
    before = (BEGIN, *session.opening(), _ABANDONED, progress.hold(place, of.last), *session.limit(work.limits))
    advance = progress.advance(place, of.end, rows=of.rows, size=speed.size)
    after = (*ENDING, activity.WAITERS, advance, *([fixed] if is_first else []))
    message = Message(before, file.sql[statement.start : statement.end], statement.start, after)
    with speed.making_way(session, claim.connection) as waited:
        try:
            results = sending.exchange(session, file, message)
        except StatementError as error:
            if not (waited and error.sqlstate == "57014"):
                raise
            session.clean()
            return None, tuple(waited)
    sending.send(session, file, Message(after=("COMMIT", *RESET)))
    return sending.tags(message, results), tuple(waited) or activity.waiters(results[len(ENDING) - len(after)])


def in_range(migration: Migration, key: Key, last: str, end: str) -> Migration:
    """Give a file with the condition for a range in place of its :range."""
    text, written = texts.within(migration.sql, migration.written, key.after(last, end))
    return replace(migration, sql=text, written=written)


def _is_overtaken(error: StatementError) -> bool:
    """Tell whether a killed run's server process has committed the range meanwhile."""
    return error.phase is Phase.BEGIN and error.sqlstate == "22012"


def _again(one: _Backfill, error: StatementError) -> BatchProgress:
    """Read the progress that another server process has made."""
    one.session.clean()
    if found := progress.of(one.ask(progress.query(one.work.place))):
        return found
    raise error


def _pause(one: _Backfill, error: StatementError, failures: int) -> None:
    session = one.session
    session.clean()
    pause = retries.pause_after(failures)
    session.tell(events.Retrying(one.work.migration, error, pause, one.request.lock_retries - failures))
    session.watcher.wake()
    session.stop.pause(pause)
