"""One file of a rehearsal, and the effects of its statements."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import psycopg

from outreach_migrate import errors
from outreach_migrate.files import scanner
from outreach_migrate.postgres import messages
from outreach_migrate.rehearsal import changes, effects, lock_times, snapshots
from outreach_migrate.rehearsal.events import FileRehearsed, Rehearsing, StatementDone
from outreach_migrate.rehearsal.groups import Group
from outreach_migrate.run import events, sending, sessions, transaction
from outreach_migrate.run.sending import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.batches import BatchProgress
    from outreach_migrate.rehearsal.changes import NameChange
    from outreach_migrate.rehearsal.effects import Effects
    from outreach_migrate.rehearsal.events import Event, Stopped
    from outreach_migrate.rehearsal.relations import Before
    from outreach_migrate.rehearsal.snapshots import Looks
    from outreach_migrate.run.request import Request
    from outreach_migrate.run.sessions import Session

SAVEPOINT = "outreach_migrate_rehearsal"


class Holding:
    """Reports events, but holds notices back, because each belongs after its statement."""

    def __init__(self, tell: Callable[[Event], None]) -> None:
        self._tell = sessions.one_at_a_time(tell)
        self._held: list[events.Noticed] = []

    def __call__(self, event: Event) -> None:
        """Report an event; hold a notice back."""
        if isinstance(event, events.Noticed):
            self._held.append(event)
        else:
            self._tell(event)

    def taken(self) -> list[events.Noticed]:
        """Give the notices that were held back, for the caller to report."""
        taken, self._held = self._held, []
        return taken

    def notices(self, held: Sequence[events.Noticed] | None = None) -> None:
        """Report notices that were held back; without an argument, all of them."""
        for notice in self.taken() if held is None else held:
            self._tell(notice)


@dataclass(frozen=True, slots=True)
class Stage:
    """The state of a rehearsal."""

    session: Session
    told: Holding
    request: Request
    before: Before
    looks: Looks


@dataclass(frozen=True)
class File:
    """A file to rehearse, cut into groups of statements; one in batches with its progress, if it is unfinished.

    `left_out` is the reason why a file is not rehearsed that its text does not show.
    """

    migration: Migration
    groups: tuple[Group, ...]
    progress: BatchProgress | None = None
    left_out: Stopped | None = None

    @cached_property
    def changes(self) -> tuple[NameChange, ...]:
        """The names that its statements make and take away."""
        return tuple(changes.of(group.text for group in self.groups if not group.changes_rows))

    @property
    def adds_values(self) -> bool:
        """Whether it adds a value to an enum type, even in the text of a DO or a function."""
        return any(_adds_value(group.text) for group in self.groups if not group.changes_rows)

    @property
    def is_plain(self) -> bool:
        """Whether no statement can change the search path."""
        return all(group.is_plain for group in self.groups)

    def before(self, end: Group) -> File:
        """Give the part of the file before one of its groups."""
        return replace(self, groups=tuple(group for group in self.groups if group.first < end.first))


_MODE = "citus.multi_shard_modify_mode"


@dataclass(frozen=True, slots=True)
class Share:
    """A file to carry out; of one in batches over one range, with `rows` of about `left`."""

    file: File
    rows: int = 0
    left: int | None = None


@dataclass(frozen=True, slots=True)
class FailedStatement:
    """A statement failed; `path` was the search path."""

    error: errors.StatementError
    group: Group
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Carried:
    """A group was carried out, and its effects were not looked at yet."""

    group: Group
    seconds: float
    tag: str
    notices: Sequence[events.Noticed]


def _adds_value(text: str) -> bool:
    words = (token.word for token in scanner.with_strings(text))
    return any(pair == ("add", "value") for pair in pairwise(words))


def _sequential(stage: Stage) -> list[str]:
    """Write the statement that keeps Citus' mode, because RESET ALL takes it back.

    Citus sets it for the rest of a transaction that makes a schema, say, which only one connection to each worker sees.
    A file that sets it does so for itself alone.
    """
    if not stage.session.one_by_one or any(_MODE in file.sql for file in stage.request.files):
        return []
    found = snapshots.ask(stage.session, f"SELECT 1 WHERE current_setting('{_MODE}', true) = 'sequential'")
    return [f"SET LOCAL {_MODE} = 'sequential'"] if found else []


def carry_out(stage: Stage, file: File, *, savepoint: bool) -> FailedStatement | None:
    """Carry out one file, in a session as clean as it can be inside a transaction; give the statement that failed.

    A look takes time for each lock that any session holds, so consecutive statements that name no old relation share
    one, the more of them the more relations the rehearsal has made. They seldom touch an old relation, and the look
    shows whether they did.
    """
    migration, session, looks = file.migration, stage.session, stage.looks
    limits = stage.request.limits.of_file(migration.directives.lock_timeout)
    mark = [f"SAVEPOINT {SAVEPOINT}"] if savepoint else []
    stage.told(Rehearsing(migration))
    before = (*session.opening(), *_sequential(stage), *session.limit(limits), *mark)
    sending.send(session, migration, Message(before=before))
    looks.begin_file()
    done, waiting, taken = list[StatementDone](), list[_Carried](), set[int]()
    for group in file.groups:
        is_quiet = group.is_plain and not stage.before.may_be_named(group.whole)
        if waiting and not is_quiet:
            done += _settled(stage, migration, waiting, taken)
        try:
            waiting.append(_timed(stage, migration, group))
        except errors.StatementError as error:
            for one in waiting:  # the transaction is aborted, so its locks are gone
                _tell(stage, StatementDone(migration, one.group, one.seconds, one.tag, effects.NOTHING), one.notices)
            stage.told.notices()
            return FailedStatement(error, group, looks.path)
        if not is_quiet or len(waiting) >= looks.stride:
            done += _settled(stage, migration, waiting, taken)
    done += _settled(stage, migration, waiting, taken)
    checks = _check(stage, migration)
    if savepoint:
        session.exchange(f"RELEASE {SAVEPOINT}")
    looks.end_file(is_plain=file.is_plain and not checks)
    stage.told(FileRehearsed(migration, sum(one.seconds for one in done) + checks, lock_times.of_file(done, checks)))
    return None


def _settled(stage: Stage, migration: Migration, waiting: list[_Carried], taken: set[int]) -> list[StatementDone]:
    """Look at the effects of the groups that were carried out, report them, and clear the list.

    If several groups together had effects, they are reported as one, and later groups are looked at singly.
    """
    if not waiting:
        return []
    changed = stage.looks.look(len(waiting))
    did = _effects(stage, changed, waiting[-1].tag)
    if len(waiting) > 1 and did != effects.NOTHING:
        stage.looks.singly()
        waiting[:] = [_together(waiting)]
    found = []
    for one in waiting:
        presumed = _presumed(stage, one, did, taken)
        found.append(
            StatementDone(migration, one.group, one.seconds, one.tag, replace(did, locks=did.locks + presumed))
        )
        _tell(stage, found[-1], one.notices)
    waiting.clear()
    return found


def _together(carried: Sequence[_Carried]) -> _Carried:
    first = carried[0].group
    members = tuple(member for one in carried for member in one.group.members)
    notices = [notice for one in carried for notice in one.notices]
    return _Carried(
        Group(first.sql, first.first, members, None, first.shown), sum(one.seconds for one in carried), "", notices
    )


def _presumed(stage: Stage, one: _Carried, did: Effects, taken: set[int]) -> tuple[effects.Lock, ...]:
    """Give the locks that a group is presumed to have taken, and note all that it has taken."""
    taken |= {lock.relation.oid for lock in did.locks}
    named = stage.before.named(one.group.whole) - taken
    presumed = tuple(effects.presumed(named, one.tag, stage.looks.at_first, stage.before.known))
    taken |= {lock.relation.oid for lock in presumed}
    return presumed


def _tell(stage: Stage, done: StatementDone, notices: Sequence[events.Noticed]) -> None:
    stage.told(done)
    stage.told.notices(notices)


def _effects(stage: Stage, changed: effects.Changes, tag: str) -> Effects:
    if not changed:
        return effects.NOTHING
    known = stage.before.known
    stage.before.learn(oid for oid, (seen, after) in changed.items() if after.modes - seen.modes)
    tables = {known[oid].table_oid for oid in effects.lost(changed) & known.keys()} - {None}
    indexes = snapshots.indexes(stage.session, filter(None, tables)) if tables else {}
    return effects.between(changed, known, tag, locked=stage.looks.locked, indexes=indexes)


def _timed(stage: Stage, migration: Migration, group: Group) -> _Carried:
    """Send a group by itself; measure from the message to its results."""
    session, tags, began = stage.session, list[str](), time.monotonic()
    for message in group.messages():
        tags += sending.send(session, migration, message)
    seconds = time.monotonic() - began
    session.read_as_written()  # as a run, which reads the whole file before its first statement
    tag = tags[-1] if tags else ""
    if len(group.members) > 1:
        tag = re.sub(r"\d+$", str(sum(int(one.rpartition(" ")[2]) for one in tags)), tag)
    return _Carried(group, seconds, tag, stage.told.taken())


def _check(stage: Stage, migration: Migration) -> float:
    """Make the checks of the entry's update and of COMMIT; give the seconds that the constraints took.

    Deferred constraints are deferred again for the next file. They are set by name, because SET CONSTRAINTS ALL also
    holds for constraints that are made later.
    """
    session = stage.session
    ((read_only, immediate, deferred),) = snapshots.ask(session, _CONSTRAINTS, before=transaction.ENDING)
    if read_only == "t":  # fails as the entry's update would, before the check of privileges
        update = "WITH u AS (UPDATE pg_catalog.pg_class SET relname = relname RETURNING 1) SELECT FROM u"
        sending.send(session, migration, Message(after=(update,)))
    seconds = _constrain(session, migration, immediate) if immediate else 0.0
    if deferred:
        session.exchange(f"SET CONSTRAINTS {deferred} DEFERRED")
    return seconds


# A name stands for all constraints of its schema that have it, and can be deferred only if all of these can.
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
        raise sending.placed(session, migration, cause, phase=errors.Phase.COMMIT)
    return time.monotonic() - began
