"""Carry a plan out and roll back, noting what each statement does to others."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import psycopg

from outreach_migrate import errors
from outreach_migrate.files import outline, statements
from outreach_migrate.postgres import connections
from outreach_migrate.rehearsal import effects, held, observe
from outreach_migrate.rehearsal.effects import Mode
from outreach_migrate.run import events, sessions, transaction
from outreach_migrate.run import request as asked
from outreach_migrate.run.transaction import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outreach_migrate.errors import Location
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.rehearsal.effects import Effects
    from outreach_migrate.rehearsal.held import Held
    from outreach_migrate.rehearsal.observe import Before
    from outreach_migrate.run.request import Request
    from outreach_migrate.run.sessions import Session
    from outreach_migrate.run.stop import Stop

ROLLED_BACK = errors.Outcome(errors.Fate.ROLLED_BACK)
_UNSAFE_ENUM = "55P04"  # a value of an enum type is used before the transaction that added it is committed
_STRING = re.compile(r"'((?:[^']|'')+)'")


@dataclass(frozen=True, slots=True)
class Begun:
    """A file's first statement comes next."""

    migration: Migration


@dataclass(frozen=True, slots=True)
class Done:
    """A statement was carried out; `tag` is its command tag."""

    migration: Migration
    location: Location
    text: str
    seconds: float
    tag: str
    effects: Effects

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


@dataclass(frozen=True, slots=True)
class Stopped:
    """A statement needs what an earlier file commits; `left` are the files after its own."""

    migration: Migration
    error: errors.StatementError
    left: tuple[Migration, ...]


Event = Begun | Done | Ended | Skipped | Stopped | events.Event


@dataclass(frozen=True, slots=True)
class _Stage:
    """What a rehearsal goes on with; `scans` are the session's counts of before it."""

    session: Session
    tell: Callable[[Event], None]
    request: Request
    before: Before
    scans: dict[int, tuple[int, int]]


def run(request: Request, tell: Callable[[Event], None], stop: Stop) -> None:
    """Carry out what a run would, in one transaction that is rolled back. Nothing is recorded.

    Raise errors.MigrateError, as a run would.
    """
    tell = events.one_at_a_time(tell)
    with connections.translated(), sessions.of(request, tell, stop) as session:
        plan, steps = asked.to_carry_out(session.history(), request)
        session.tell(events.Planned(plan, steps))
        if not steps:
            return
        with observe.Before(request.target) as before, connections.translated():
            try:
                session.exchange(transaction.BEGIN)
                scans = observe.earlier_scans(session)
                _files(_Stage(session, tell, request, before, scans), tuple(step.migration for step in steps))
            except errors.Interrupted as error:
                raise error.after(ROLLED_BACK) from None
            except errors.MigrateError as error:
                raise error.after(ROLLED_BACK) from error.__cause__
            finally:
                session.clean()


def _files(stage: _Stage, files: tuple[Migration, ...]) -> None:
    skipped: list[Migration] = []
    for number, migration in enumerate(files, 1):
        if not migration.directives.transaction:
            skipped.append(migration)
            stage.tell(Skipped(migration, tuple(_unrehearsed(migration))))
            continue
        try:
            with stage.session.at_work(migration):
                _file(stage, migration)
        except errors.StatementError as error:
            if error.sqlstate == _UNSAFE_ENUM and not _adds_value(migration, error.report.message):
                stage.tell(Stopped(migration, error, files[number:]))
                return
            if skipped:
                names = ", ".join(map(str, skipped))
                error.hint = f"It may need what {names} does, which can't be rehearsed. {error.hint or ''}".strip()
            raise


def _unrehearsed(migration: Migration) -> Iterator[Unrehearsed]:
    for statement in statements.split(migration.sql):
        text = migration.sql[statement.start : statement.end]
        command = outline.outside_transaction(migration.sql, statement) or ""
        mode = None
        if command == "VACUUM" and re.search(r"(?i)\bfull\b", text):
            mode = Mode.ACCESS_EXCLUSIVE
        elif command == "VACUUM" or "CONCURRENTLY" in command:
            mode = Mode.SHARE_UPDATE_EXCLUSIVE
        yield Unrehearsed(migration.location(statement.start), text, mode)


def _adds_value(migration: Migration, message: str) -> bool:
    """Say whether the file itself adds the enum value that a message names: then it would fail in a run as well."""
    added = (
        migration.sql[statement.start : statement.end]
        for statement in statements.split(migration.sql)
        if statement.words[:2] == ("alter", "type") and "value" in statement.words
    )
    return any(label in message for text in added for label in _STRING.findall(text))


def _file(stage: _Stage, migration: Migration) -> None:
    """Carry out one file, from a session as clean as it can be inside a transaction."""
    limits = stage.request.limits.of_file(migration.directives.lock_timeout)
    session = stage.session
    stage.tell(Begun(migration))
    transaction.send(session, migration, Message(before=(*session.opening(), *limits.sql())))
    first = seen = observe.look(stage.session, scans=stage.scans)
    done, taken = list[Done](), set[int]()
    for location, text, message in _pieces(migration):
        named = stage.before.named(text)
        seconds, tag = _timed(session, migration, message)
        after = observe.look(stage.session, scans=stage.scans)
        stage.before.learn(oid for oid, _ in after.locks)
        did = effects.between(seen, after, stage.before.known, tag)
        taken |= {lock.relation.oid for lock in did.locks}
        presumed = tuple(effects.presumed(named - taken, tag, first, stage.before.known))
        taken |= {lock.relation.oid for lock in presumed}
        done.append(Done(migration, location, text, seconds, tag, replace(did, locks=did.locks + presumed)))
        stage.tell(done[-1])
        seen = after
    checks = _check(stage, migration)
    stage.tell(Ended(migration, sum(one.seconds for one in done) + checks, held.of_file(done, checks)))


def _pieces(migration: Migration) -> Iterator[tuple[Location, str, Message]]:
    """Cut a file before each statement: the text of an error counts to where the next one begins, as in a run."""
    sql = migration.body
    following = chain(statements.split(sql), [None])
    for number, (statement, after) in enumerate(pairwise(following)):
        if statement:
            text = sql[statement.start : after.start if after else None]
            message = Message(text=text, start=statement.start, first=number)
            yield migration.location(statement.start), sql[statement.start : statement.end], message


def _timed(session: Session, migration: Migration, message: Message) -> tuple[float, str]:
    """Send a statement by itself; give the seconds from the message to its results, and the command tag."""
    began = time.monotonic()
    tags = transaction.send(session, migration, message)
    return time.monotonic() - began, tags[-1] if tags else ""


def _check(stage: _Stage, migration: Migration) -> float:
    """Check now what COMMIT would, and defer it again for the next file; give the seconds of the check."""
    session = stage.session
    transaction.send(session, migration, Message(after=transaction.ENDING))
    seconds = _constrain(session, migration)
    deferred = """
        SELECT pg_catalog.format('%I.%I', n.nspname, c.conname)
          FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
         GROUP BY 1 HAVING pg_catalog.bool_and(c.condeferrable AND c.condeferred)"""
    names = observe.ask(stage.session, deferred)
    if names:
        again = f"SET CONSTRAINTS {', '.join(name for (name,) in names)} DEFERRED"
        observe.ask(stage.session, again)
    return seconds


def _constrain(session: Session, migration: Migration) -> float:
    began = time.monotonic()
    if failed := connections.failure(session.exchange("SET CONSTRAINTS ALL IMMEDIATE")):
        cause = psycopg.errors.error_from_result(failed, encoding=session.connection.info.encoding)
        raise transaction.placed(session, migration, cause, phase=errors.Phase.COMMIT)
    return time.monotonic() - began
