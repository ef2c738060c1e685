"""Carry a plan out and roll back, noting what each statement does to others."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from outreach_migrate import errors
from outreach_migrate.files import outline, statements
from outreach_migrate.postgres import database, wire
from outreach_migrate.rehearsal import effects, held, observe
from outreach_migrate.rehearsal.effects import Mode
from outreach_migrate.run import session, survey, watch
from outreach_migrate.run.watch import Link

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from outreach_migrate.errors import Location
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.rehearsal.effects import Effects
    from outreach_migrate.rehearsal.held import Held
    from outreach_migrate.rehearsal.observe import Before
    from outreach_migrate.run.session import Part, Setting
    from outreach_migrate.run.survey import Request

STATE = "Everything that was rehearsed is rolled back."
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


Event = survey.Planned | Begun | Done | Ended | Skipped | Stopped | watch.Event | database.Unreachable


@dataclass(frozen=True, slots=True)
class _Stage:
    """What a rehearsal goes on with; `scans` are the session's counts of before it."""

    link: Link
    request: Request
    before: Before
    scans: dict[int, tuple[int, int]]


def run(request: Request) -> Generator[Event, None, None]:
    """Carry out what a run would, in one transaction that is rolled back. Nothing is recorded.

    Raise errors.MigrateError, as a run would.
    """
    with Link(request.target, request.table, request.tell) as link, database.translated():
        yield from link.connect(request.wait)
        whole, steps = survey.to_carry_out(link.history(), request)
        yield survey.Planned(whole, steps)
        files = tuple(step.migration for step in steps if step.migration)
        if not files:
            return
        with observe.Before(request.target) as before:
            try:
                wire.finish(wire.exchange(link.connection, b"BEGIN ISOLATION LEVEL READ COMMITTED"))
                scans = wire.finish(observe.earlier_scans(link.connection))
                yield from _files(_Stage(link, request, before, scans), files)
            except errors.MigrateError as error:
                error.state = STATE
                raise
            finally:
                wire.cancel(link.connection)
                with suppress(psycopg.Error):
                    wire.finish(session.clean(link.connection))


def _files(stage: _Stage, files: tuple[Migration, ...]) -> Generator[Event, None, None]:
    skipped: list[Migration] = []
    for number, migration in enumerate(files, 1):
        if not migration.directives.transaction:
            skipped.append(migration)
            yield Skipped(migration, tuple(_unrehearsed(migration)))
            continue
        try:
            yield from _file(stage, migration)
        except errors.StatementError as error:
            if error.sqlstate == _UNSAFE_ENUM and not _adds_value(migration, error.report.message):
                yield Stopped(migration, error, files[number:])
                return
            if skipped:
                names = ", ".join(map(str, skipped))
                error.hint = f"It may need what {names} does, which can't be rehearsed. {error.hint or ''}".strip()
            raise


def _unrehearsed(migration: Migration) -> Generator[Unrehearsed, None, None]:
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


def _file(stage: _Stage, migration: Migration) -> Generator[Event, None, None]:
    """Carry out one file, from a session as clean as it can be inside a transaction."""
    limits = stage.request.limits.of_file(migration.directives.lock_timeout)
    link = stage.link
    path = stage.request.target.schema
    setting = session.Setting(link.mark(migration), limits, path, checks_client=link.checks_client)
    start = session.Part([*setting.begin()[1:], *limits.sql()], "", 0, [])  # without its BEGIN
    yield Begun(migration)
    yield from link.watched(migration, session.send(link.connection, migration, start, setting.mark))
    first = seen = yield from link.watched(migration, observe.look(link.connection, scans=stage.scans))
    done, taken = list[Done](), set[int]()
    for location, text, part in _pieces(migration):
        named = stage.before.named(text)
        seconds, tag = yield from link.watched(migration, _timed(link, migration, part, setting))
        after = yield from link.watched(migration, observe.look(link.connection, scans=stage.scans))
        stage.before.learn(oid for oid, _ in after.locks)
        did = effects.between(seen, after, stage.before.known, tag)
        taken |= {lock.relation.oid for lock in did.locks}
        presumed = tuple(effects.presumed(named - taken, tag, first, stage.before.known))
        taken |= {lock.relation.oid for lock in presumed}
        done.append(Done(migration, location, text, seconds, tag, replace(did, locks=did.locks + presumed)))
        yield done[-1]
        seen = after
    checks = yield from _check(stage, migration, setting)
    yield Ended(migration, sum(one.seconds for one in done) + checks, held.of_file(done, checks))


def _pieces(migration: Migration) -> Iterator[tuple[Location, str, Part]]:
    """Cut a file before each statement: the text of an error counts to where the next one begins, as in a run."""
    sql = statements.without_outer_transaction(migration.sql)
    following = chain(statements.split(sql), [None])
    for number, (statement, after) in enumerate(pairwise(following)):
        if statement:
            text = sql[statement.start : after.start if after else None]
            part = session.Part([], text, statement.start, [], number)
            yield migration.location(statement.start), sql[statement.start : statement.end], part


def _timed(link: Link, migration: Migration, part: Part, setting: Setting) -> Generator[float, None, tuple[float, str]]:
    """Send a statement by itself; give the seconds from the message to its results, and the command tag."""
    began = time.monotonic()
    try:
        tags = yield from session.send(link.connection, migration, part, setting.mark)
    except errors.StatementError as error:
        error.statement = part.first + 1
        raise
    return time.monotonic() - began, tags[-1] if tags else ""


def _check(stage: _Stage, migration: Migration, setting: Setting) -> Generator[Event, None, float]:
    """Check now what COMMIT would, and defer it again for the next file; give the seconds of the check."""
    link = stage.link
    ending = session.Part([], "", 0, list(session.ENDING))
    yield from link.watched(migration, session.send(link.connection, migration, ending, setting.mark))
    seconds = yield from link.watched(migration, _constrain(link, migration))
    deferred = """
        SELECT pg_catalog.format('%I.%I', n.nspname, c.conname)
          FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
         GROUP BY 1 HAVING pg_catalog.bool_and(c.condeferrable AND c.condeferred)"""
    names = yield from link.watched(migration, observe.ask(link.connection, deferred))
    if names:
        again = f"SET CONSTRAINTS {', '.join(name for (name,) in names)} DEFERRED"
        yield from link.watched(migration, observe.ask(link.connection, again))
    return seconds


def _constrain(link: Link, migration: Migration) -> Generator[float, None, float]:
    message = "SET CONSTRAINTS ALL IMMEDIATE"
    began = time.monotonic()
    results = yield from wire.exchange(link.connection, message.encode())
    if results[-1].status == pq.ExecStatus.FATAL_ERROR:
        part = session.Part([], "", 0, ["COMMIT"])  # for what it stands
        raise session.failure(link.connection, migration, part, results[-1], done=0, head="", message=message)
    return time.monotonic() - began
