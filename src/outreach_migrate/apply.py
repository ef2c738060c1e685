"""Carry a plan out."""

from __future__ import annotations

import random
import secrets
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self, TypeVar

import psycopg

from outreach_migrate import database, errors, history, locks, migrations, plan, session

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from outreach_migrate.database import Target, Unreachable
    from outreach_migrate.errors import Problem, ServerMessage
    from outreach_migrate.history import History, Table
    from outreach_migrate.locks import Blocker
    from outreach_migrate.migrations import Migration
    from outreach_migrate.plan import Plan, Step

T = TypeVar("T")

_RETRIED = {"55P03", "40P01", "40001"}  # a lock timeout, a deadlock, a serialization failure
_RECONNECT = 10.0  # s: how long a lost server is looked for, at the least
_LOOK_AFTER = 1.0  # s of waiting before a second connection looks who blocks us


@dataclass(frozen=True, slots=True)
class Request:
    """What a run is asked to do; `wait` and the limits in seconds."""

    target: Target
    table: Table
    files: tuple[Migration, ...]
    file_problems: tuple[Problem, ...] = ()
    to: int | None = None
    out_of_order: bool = False
    wait: float = 0.0
    limits: session.Limits = field(default_factory=session.Limits)
    lock_retries: int = 10


@dataclass(frozen=True, slots=True)
class Planned:
    """The plan is made, nothing is wrong with it, and these steps will be run."""

    plan: Plan
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Running:
    """A file has been running for so long; `seconds` is 0 when it starts."""

    migration: Migration
    seconds: float


@dataclass(frozen=True, slots=True)
class Noticed:
    """A file's RAISE, or another notice or warning of the server."""

    migration: Migration
    notice: ServerMessage


@dataclass(frozen=True, slots=True)
class Waiting:
    """A file waits for these."""

    migration: Migration
    blockers: tuple[Blocker, ...]


@dataclass(frozen=True, slots=True)
class Retrying:
    """A file gave way, was rolled back, and is tried again in so many seconds."""

    migration: Migration
    error: errors.StatementError
    seconds: float
    left: int


@dataclass(frozen=True, slots=True)
class Applied:
    """A file is applied and recorded. `tags` are its statements' command tags, unknown after a lost connection."""

    migration: Migration
    seconds: float
    tags: tuple[str, ...]


Event = Planned | Running | Noticed | Waiting | Retrying | Applied | database.Unreachable


class _Lost(Exception):
    """The connection was lost while a file ran."""

    def __init__(self, migration: Migration, cause: psycopg.Error) -> None:
        self.migration = migration
        self.cause = cause


class _Link:
    """A run's connections: the one that works, and the one that looks at it, opened when first needed."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.token = secrets.token_hex(4)
        self.notices: list[psycopg.errors.Diagnostic] = []
        self.connection: psycopg.Connection
        self.open: list[psycopg.Connection] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self.open:
            connection.close()

    def connect(self, wait: float) -> Generator[Unreachable, None, None]:
        """Open the working connection, anew after a loss."""
        self.connection = yield from database.connect(self.request.target, wait=wait, read_write=True)
        self.connection.add_notice_handler(self.notices.append)
        self.open = [self.connection]

    def blockers(self) -> tuple[Blocker, ...]:
        """Look who blocks us; a look that fails has seen nothing."""
        with suppress(errors.ConnectionFailed, psycopg.Error):
            if len(self.open) == 1:
                self.open.append(database.finish(database.connect(self.request.target)))
            return locks.blockers(self.open[1], self.token)
        return ()


def run(request: Request) -> Generator[Event, None, None]:
    """Compare files and history, refuse what is wrong, apply what is pending, file by file.

    Raise errors.MigrateError; its `state` says what became of the file that was running.
    """
    applied: list[Migration] = []
    with _Link(request) as link, database.translated():
        yield from link.connect(request.wait)
        past, whole, steps = survey(link.connection, request)
        yield Planned(whole, steps)
        while steps:
            try:
                yield from _apply_all(link, past, steps, applied)
                return
            except session.Overtaken:
                yield from _pause(random.uniform(0.02, 0.1))  # noqa: S311 (no secret: it spreads the runs)
            except _Lost as lost:
                yield from _look(link, lost, applied)
            past, whole, steps = survey(link.connection, request)


def look(request: Request) -> Planned:
    """Make the plan, as a run would; raise what it would raise before it runs anything."""
    connection = database.finish(database.connect(request.target, wait=request.wait))
    with closing(connection), database.translated():
        _, whole, steps = survey(connection, request)
    return Planned(whole, steps)


def survey(connection: psycopg.Connection, request: Request) -> tuple[History, Plan, tuple[Step, ...]]:
    """Read the history and make the plan; give them with the steps to run.

    Raise errors.Refused with all that is wrong in files and history, before anything runs.
    """
    past = history.read(connection, request.table, search_path=request.target.schema)
    whole = plan.make(request.files, past.entries)
    steps = whole.to_run(to=request.to, out_of_order=request.out_of_order)
    wrong = [*request.file_problems]
    if request.to is not None and request.to not in {int(step.version) for step in whole.steps}:
        wrong.append(errors.Problem(f"there is no version {request.to} to go to"))
    wrong += [problem for step in steps if step.migration for problem in migrations.problems(step.migration)]
    contradictions = whole.problems(out_of_order=request.out_of_order)
    if contradictions:
        raise errors.HistoryError(wrong + contradictions, whole.steps)
    if wrong:
        raise errors.MigrationFileError(wrong)
    if steps:
        _must_be_writable(past)
    return past, whole, steps


def _must_be_writable(past: History) -> None:
    if past.standby:
        hint = "Name the primary; with several hosts in the URL it is found by itself."
        raise errors.MigrateError("the server is a standby: it can only be read", hint=hint)
    if past.read_only:
        hint = "ALTER ROLE … SET default_transaction_read_only = off, or in the URL: ?options=-c%20default_…=off"
        raise errors.MigrateError("default_transaction_read_only is on: nothing can be written", hint=hint)
    if past.table.schema is None:
        hint = "Name one: --table SCHEMA.schema_migrations"
        raise errors.MigrateError("the search path names no schema to make the history table in", hint=hint)


def _apply_all(
    link: _Link, past: History, steps: tuple[Step, ...], applied: list[Migration]
) -> Generator[Event, None, None]:
    for nth, step in enumerate(steps):
        if step.migration is None:
            continue
        place = history.Place(past.table, past.newest + 1 + nth, history.create(past) if nth == 0 else ())
        try:
            yield Running(step.migration, 0.0)
            yield from _apply_one(link, step.migration, place)
        except (session.Overtaken, _Lost):
            raise
        except errors.StatementError as error:
            error.state = _state(applied, error.migration, recorded=False)
            raise
        except BaseException as error:
            _take_back(link, step.migration, applied, error)
            raise
        applied.append(step.migration)


def _apply_one(link: _Link, migration: Migration, place: history.Place) -> Generator[Event, None, None]:
    """Apply a file, and try it again where it only gave way to others."""
    request = link.request
    wanted = migrations.directives(migration).lock_timeout
    limits = request.limits if wanted is None else replace(request.limits, lock_timeout=wanted)
    for left in range(request.lock_retries, -1, -1):
        began = time.monotonic()
        try:
            tags = yield from _watched(
                link,
                migration,
                session.apply(
                    link.connection,
                    migration,
                    place,
                    limits=limits,
                    mark=locks.mark(link.token, str(migration)),
                    search_path=request.target.schema,
                ),
            )
        except errors.StatementError as error:
            _finish_quietly(session.clean(link.connection))
            if error.sqlstate not in _RETRIED or not left:
                raise
            pause = min(30.0, 0.5 * 2 ** (request.lock_retries - left)) * random.uniform(0.75, 1.25)  # noqa: S311
            yield Retrying(migration, error, pause, left)
            yield from _pause(pause)
        except session.Overtaken:
            _finish_quietly(session.clean(link.connection))
            raise
        except psycopg.OperationalError as error:
            raise _Lost(migration, error) from error
        else:
            yield Applied(migration, time.monotonic() - began, tuple(tags))
            return


def _watched(link: _Link, migration: Migration, work: Generator[None, None, T]) -> Generator[Event, None, T]:
    """Do the work, and tell meanwhile how long it takes, what the server has to say, and who is in the way."""
    began = looked = time.monotonic()
    seen: tuple[Blocker, ...] = ()
    while True:
        try:
            next(work)
        except StopIteration as end:
            yield from _notices(link, migration)
            value: T = end.value
            return value
        except errors.LockTimeout as error:
            error.blockers = seen
            raise
        yield from _notices(link, migration)
        now = time.monotonic()
        yield Running(migration, now - began)
        if now - looked >= _LOOK_AFTER:
            looked = now
            if blockers := link.blockers():
                seen = blockers
                yield Waiting(migration, blockers)


def _notices(link: _Link, migration: Migration) -> Iterator[Noticed]:
    while link.notices:
        yield Noticed(migration, database.notice(link.notices.pop(0)))


def _pause(seconds: float) -> Iterator[Event]:
    time.sleep(seconds)
    yield from ()


def _finish_quietly(work: Generator[object, None, object]) -> None:
    """Do the tidying that a lost connection has done already."""
    with suppress(psycopg.Error):
        database.finish(work)


def _take_back(link: _Link, migration: Migration, applied: list[Migration], error: BaseException) -> None:
    """Stop what the server still does for us, and say what became of the file: the table knows."""
    database.cancel(link.connection)
    recorded = None
    with suppress(psycopg.Error, errors.MigrateError):
        database.finish(session.clean(link.connection))
        past = history.read(link.connection, link.request.table, search_path=link.request.target.schema)
        recorded = any(entry.number == migration.number for entry in past.entries)
    if isinstance(error, errors.MigrateError):
        error.state = _state(applied, migration, recorded=recorded)


def _look(link: _Link, lost: _Lost, applied: list[Migration]) -> Generator[Event, None, None]:
    """Find out, on a new connection, whether the file was committed before the old one was lost."""
    began = time.monotonic()
    message = f"lost the connection while {lost.migration} ran: {database.reason(lost.cause)}"
    try:
        yield from link.connect(max(link.request.wait, _RECONNECT))
        locks.end(link.connection, link.token)
        past = history.read(link.connection, link.request.table, search_path=link.request.target.schema)
    except (errors.ConnectionFailed, psycopg.Error) as error:
        state = _state(applied, lost.migration, recorded=None)
        raise errors.ConnectionFailed(message, hint=getattr(error, "hint", None), state=state) from lost.cause
    if not any(entry.number == lost.migration.number for entry in past.entries):
        state = _state(applied, lost.migration, recorded=False)
        raise errors.ConnectionFailed(message, hint="Run up again.", state=state) from lost.cause
    applied.append(lost.migration)
    yield Applied(lost.migration, time.monotonic() - began, ())


def _state(applied: list[Migration], migration: Migration, *, recorded: bool | None) -> str:
    """Say in what state the database is."""
    this = {
        True: f"{migration} was applied, and is recorded.",
        False: "Nothing of this file was applied.",
        None: f"Whether {migration} was applied is not known: ask with status once the server answers.",
    }[recorded]
    if not applied:
        return this
    before = (
        "1 migration before it was, and is recorded."
        if len(applied) == 1
        else (f"{len(applied)} migrations before it were, and are recorded.")
    )
    return f"{this} {before}"
