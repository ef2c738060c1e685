"""Carry a plan out and roll back, noting what each statement does to others."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from outreach_migrate import errors
from outreach_migrate.files import commands, scanner
from outreach_migrate.files.commands import Command
from outreach_migrate.files.control import Isolation
from outreach_migrate.postgres import connections, messages
from outreach_migrate.rehearsal import changes, effects, groups, lock_times, needs, snapshots
from outreach_migrate.rehearsal.effects import Mode
from outreach_migrate.run import events, sessions, transaction
from outreach_migrate.run import request as asked
from outreach_migrate.run.transaction import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outreach_migrate.errors import Location
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.rehearsal.changes import Change
    from outreach_migrate.rehearsal.effects import Effects, Seen
    from outreach_migrate.rehearsal.groups import Group
    from outreach_migrate.rehearsal.lock_times import Held
    from outreach_migrate.rehearsal.snapshots import Before
    from outreach_migrate.run.request import Request
    from outreach_migrate.run.sessions import Session
    from outreach_migrate.run.stop import Stop

ROLLED_BACK = errors.Outcome(errors.Fate.ROLLED_BACK)
_UNSAFE_ENUM = "55P04"  # a value of an enum type is used before the transaction that added it is committed
_NO_ROOM = "53200"  # in the lock table, among others
_SAVEPOINT = "outreach_migrate_rehearsal"


@dataclass(frozen=True, slots=True)
class Begun:
    """A file's first statement comes next."""

    migration: Migration


@dataclass(frozen=True, slots=True)
class Done:
    """A statement, or a group of them, was carried out; `tag` is its command tag, with the rows of all of the group."""

    migration: Migration
    group: Group
    seconds: float
    tag: str
    effects: Effects

    @property
    def location(self) -> Location:
        """Where it starts."""
        return self.group.location

    @property
    def rows(self) -> int | None:
        """The rows it affected, for the commands that count them."""
        count = re.search(r" (\d+)$", self.tag)
        return int(count[1]) if count else None


@dataclass(frozen=True, slots=True)
class Ended:
    """A file was carried out, to the checks that COMMIT would make; `seconds` of its statements and these."""

    migration: Migration
    seconds: float
    held: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class Unrehearsed:
    """A statement that was not carried out; `mode` is the lock that the manual names for it, null for no one's."""

    location: Location
    text: str
    mode: Mode | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file runs without a transaction, and so can't be taken back."""

    migration: Migration
    statements: tuple[Unrehearsed, ...]


class Why(Enum):
    """Why a file can't be carried out in a rehearsal, though nothing says that a run would fail."""

    ENUM_VALUE = "it uses an enum value that another file adds"
    NAME = "it uses what another file makes, or drops"
    ISOLATION = "its transaction has another isolation level than the rehearsal's, which is that of the first file"
    NO_ROOM = "the locks of all files together are too many"


@dataclass(frozen=True, slots=True)
class Stopped:
    """A file could not go on after `error`, or begin; `needs` is the file that it needs, if it needs one."""

    migration: Migration
    why: Why
    needs: Migration | None = None
    error: errors.StatementError | None = None


Event = Begun | Done | Ended | Skipped | Stopped | events.Event


@dataclass(frozen=True, slots=True)
class _Stage:
    """What a rehearsal goes on with; `scans` are the session's counts of before it."""

    session: Session
    told: _Told
    request: Request
    before: Before
    scans: snapshots.Scans


@dataclass(frozen=True)
class _File:
    """A file to rehearse, cut into what is rehearsed as one."""

    migration: Migration
    groups: tuple[Group, ...]

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """The names that its statements make and take away."""
        return tuple(changes.of(group.text for group in self.groups if not group.changes_rows))

    @property
    def adds_values(self) -> bool:
        """Whether it adds a value to an enum type, also in the text of a DO or a function."""
        return any(_adds_value(group.text) for group in self.groups if not group.changes_rows)

    def before(self, end: Group) -> _File:
        """Give what comes before a group of it."""
        return replace(self, groups=tuple(group for group in self.groups if group.first < end.first))


@dataclass(frozen=True, slots=True)
class _Failed:
    """A statement failed; `path` was the search path."""

    error: errors.StatementError
    group: Group
    path: tuple[str, ...]


class _Told:
    """Tells events, but holds notices back: they stand after the statement that they belong to."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = events.one_at_a_time(tell)
        self._held: list[events.Noticed] = []

    def __call__(self, event: Event) -> None:
        if isinstance(event, events.Noticed):
            self._held.append(event)
        else:
            self._tell(event)

    def notices(self) -> None:
        """Tell the notices that were held back."""
        while self._held:
            self._tell(self._held.pop(0))


def run(request: Request, tell: Callable[[Event], None], stop: Stop) -> None:
    """Carry out what a run would, in one transaction that is rolled back. Nothing is recorded.

    Raise errors.MigrateError, as a run would.
    """
    told = _Told(tell)
    with connections.translated(), sessions.of(request, told, stop) as session:
        plan, steps = asked.to_carry_out(session.history(), request)
        told(events.Planned(plan, steps))
        if not steps:
            return
        files = [_File(step.migration, groups.cut(step.migration)) for step in steps]
        with snapshots.Before(request.target) as before, connections.translated():
            before.look_up(group.whole for file in files for group in file.groups)
            try:
                session.exchange(f"BEGIN ISOLATION LEVEL {_level(files)}")
                scans = snapshots.earlier_scans(session)
                _files(_Stage(session, told, request, before, scans), files)
            except errors.Interrupted as error:
                raise error.after(ROLLED_BACK) from None
            except errors.MigrateError as error:
                raise error.after(ROLLED_BACK) from error.__cause__
            finally:
                told.notices()
                session.clean()


def _level(files: list[_File]) -> Isolation:
    """Give the isolation level of the first file that has a transaction: there is one for all of them."""
    levels = (file.migration.directives.isolation for file in files if file.migration.directives.transaction)
    return next(levels, Isolation.READ_COMMITTED)


def _adds_value(text: str) -> bool:
    words = (token.word for token in scanner.with_strings(text))
    return any(pair == ("add", "value") for pair in pairwise(words))


def _files(stage: _Stage, files: list[_File]) -> None:
    """Carry the files out, one after the other; go on after one that can't be.

    Only where a file may turn out to be such a one does it begin with a savepoint: each costs a transaction id, and
    servers before 17 know an enum type as new in its own subtransaction only.
    """
    left: list[Migration] = []
    is_marked = False
    for number, file in enumerate(files):
        migration = file.migration
        if not migration.directives.transaction:
            left.append(migration)
            is_marked = True
            stage.told(Skipped(migration, tuple(_unrehearsed(migration))))
            continue
        if migration.directives.isolation != _level(files):
            left.append(migration)
            is_marked = True
            stage.told(Stopped(migration, Why.ISOLATION))
            continue
        with stage.session.at_work(migration):
            failed = _file(stage, file, savepoint=is_marked)
        if failed:
            stopped = _stopped(stage, failed, files[: number + 1], left, is_marked=is_marked)
            if stopped is None:
                raise _with_hint(failed.error, left)
            stage.told(stopped)
            left.append(migration)
            if stopped.why is Why.NO_ROOM:
                for later in files[number + 1 :]:
                    stage.told(Stopped(later.migration, Why.NO_ROOM, None, failed.error))
                return
        is_marked = is_marked or file.adds_values


def _with_hint(error: errors.StatementError, left: list[Migration]) -> errors.StatementError:
    if left:
        names = ", ".join(map(str, left))
        error.hint = f"It may need what {names} does, which can't be rehearsed. {error.hint or ''}".strip()
    return error


def _stopped(
    stage: _Stage, failed: _Failed, files: list[_File], left: list[Migration], *, is_marked: bool
) -> Stopped | None:
    """Say whether only the rehearsal had to stop where a run would go on, and take the last of these files back."""
    error, migration = failed.error, files[-1].migration
    if error.sqlstate == _NO_ROOM and len(files) > 1 and "max_locks_per_transaction" in (error.report.hint or ""):
        return Stopped(migration, Why.NO_ROOM, None, error)
    if not is_marked:
        return None
    _take_back(stage.session)
    earlier = [needs.Earlier(file.migration, file.changes, file.migration not in left) for file in files[:-1]]
    if error.sqlstate == _UNSAFE_ENUM:
        is_there = _has_value(stage.session, error.report.message)
        needed = needs.adding_value(error.report, earlier)
        return Stopped(migration, Why.ENUM_VALUE, needed, error) if is_there else None
    own = needs.Earlier(migration, files[-1].before(failed.group).changes, rehearsed=True)
    seen = _look(stage)
    failure = needs.Failure(error.report, failed.group.text, failed.path)
    needed = needs.found(failure, [*earlier, own], seen.path[0] if seen.path else None)
    return Stopped(migration, Why.NAME, needed, error) if needed else None


def _take_back(session: Session) -> None:
    if failed := messages.failure(session.exchange(f"ROLLBACK TO {_SAVEPOINT}; RELEASE {_SAVEPOINT}")):
        raise psycopg.errors.error_from_result(failed)


def _has_value(session: Session, message: str) -> bool:
    """Say whether an enum value that a message names is there: an earlier file of this transaction has added it."""
    labels = ", ".join(map(sql.quote, needs.names(message)))
    query = f"""
        SELECT FROM pg_catalog.pg_enum e JOIN pg_catalog.pg_type t ON t.oid = e.enumtypid
         WHERE e.enumlabel = ANY (ARRAY[{labels}]::text[])
           AND pg_catalog.strpos({sql.quote(message)}, t.typname) > 0"""
    return bool(snapshots.ask(session, query))


def _unrehearsed(migration: Migration) -> Iterator[Unrehearsed]:
    for placed in groups.placed(migration.path, migration.sql):
        statement = placed.statement
        text = migration.sql[statement.start : statement.end]
        command, mode = commands.outside(migration.sql, statement), None
        if command is Command.VACUUM_FULL:
            mode = Mode.ACCESS_EXCLUSIVE
        elif command is Command.VACUUM or (command and command.is_concurrent):
            mode = Mode.SHARE_UPDATE_EXCLUSIVE
        yield Unrehearsed(placed.location, text, mode)


def _file(stage: _Stage, file: _File, *, savepoint: bool) -> _Failed | None:
    """Carry out one file, from a session as clean as it can be inside a transaction; give what failed."""
    migration, session = file.migration, stage.session
    limits = stage.request.limits.of_file(migration.directives.lock_timeout)
    mark = [f"SAVEPOINT {_SAVEPOINT}"] if savepoint else []
    stage.told(Begun(migration))
    transaction.send(session, migration, Message(before=(*session.opening(), *session.limit(limits), *mark)))
    seen = _look(stage)
    first, taken, done = effects.modes(seen.locks), set[int](), list[Done]()
    for group in file.groups:
        try:
            seconds, tag = _timed(session, migration, group)
        except errors.StatementError as error:
            stage.told.notices()
            return _Failed(error, group, seen.path)
        after = _look(stage)
        did = _effects(stage, seen, after, tag)
        taken |= {lock.relation.oid for lock in did.locks}
        named = stage.before.named(group.whole) - taken
        presumed = tuple(effects.presumed(named, tag, first, stage.before.known))
        taken |= {lock.relation.oid for lock in presumed}
        done.append(Done(migration, group, seconds, tag, replace(did, locks=did.locks + presumed)))
        stage.told(done[-1])
        stage.told.notices()
        seen = after
    checks = _check(stage, migration)
    if savepoint:
        session.exchange(f"RELEASE {_SAVEPOINT}")
    stage.told(Ended(migration, sum(one.seconds for one in done) + checks, lock_times.of_file(done, checks)))
    return None


def _look(stage: _Stage) -> Seen:
    return snapshots.look(stage.session, newest=stage.before.newest, scans=stage.scans)


def _effects(stage: _Stage, seen: Seen, after: Seen, tag: str) -> Effects:
    known = stage.before.known
    stage.before.learn(oid for oid, _ in after.locks - seen.locks)
    tables = {known[oid].table_oid for oid in seen.lost(after) & known.keys()} - {None}
    indexes = snapshots.indexes(stage.session, filter(None, tables)) if tables else {}
    return effects.between(seen, after, known, tag, indexes=indexes)


def _timed(session: Session, migration: Migration, group: Group) -> tuple[float, str]:
    """Send a group by itself; give the seconds from the message to its results, and the command tag."""
    began, tags = time.monotonic(), list[str]()
    for message in group.messages():
        tags += transaction.send(session, migration, message)
    seconds = time.monotonic() - began
    tag = tags[-1] if tags else ""
    if len(group.members) > 1:
        tag = re.sub(r"\d+$", str(sum(int(one.rpartition(" ")[2]) for one in tags)), tag)
    return seconds, tag


def _check(stage: _Stage, migration: Migration) -> float:
    """Check now what the entry's update and COMMIT would; give the seconds that the constraints took.

    Those that are deferred are so again for the next file. SET CONSTRAINTS ALL would hold for constraints that are yet
    to be made, too.
    """
    session = stage.session
    transaction.send(session, migration, Message(after=transaction.ENDING))
    ((read_only, immediate, deferred),) = snapshots.ask(session, _CONSTRAINTS)
    if read_only == "t":  # then this fails as the entry's update would: before any privilege is asked for
        update = "WITH u AS (UPDATE pg_catalog.pg_class SET relname = relname RETURNING 1) SELECT FROM u"
        transaction.send(session, migration, Message(after=(update,)))
    seconds = _constrain(session, migration, immediate) if immediate else 0.0
    if deferred:
        session.exchange(f"SET CONSTRAINTS {deferred} DEFERRED")
    return seconds


# A name stands for all constraints of its schema that have it, and can be deferred only where all of these can.
_CONSTRAINTS = """
    SELECT pg_catalog.current_setting('transaction_read_only') = 'on', pg_catalog.string_agg(DISTINCT name, ', '),
           pg_catalog.string_agg(DISTINCT name, ', ') FILTER (WHERE is_deferred)
      FROM (SELECT pg_catalog.format('%I.%I', n.nspname, c.conname) AS name,
                   NOT EXISTS (SELECT FROM pg_catalog.pg_constraint o
                                WHERE o.conname = c.conname AND o.connamespace = c.connamespace
                                  AND NOT (o.condeferrable AND o.condeferred)) AS is_deferred
              FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
             WHERE c.condeferrable AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')) AS found"""


def _constrain(session: Session, migration: Migration, names: str) -> float:
    began = time.monotonic()
    if failed := messages.failure(session.exchange(f"SET CONSTRAINTS {names} IMMEDIATE")):
        cause = psycopg.errors.error_from_result(failed, encoding=session.connection.info.encoding)
        raise transaction.placed(session, migration, cause, phase=errors.Phase.COMMIT)
    return time.monotonic() - began
