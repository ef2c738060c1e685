"""A run's request, and the checks before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import pq

from outreach_migrate import durations, errors
from outreach_migrate.errors import Problem
from outreach_migrate.files import migrations
from outreach_migrate.files.migrations import Migration
from outreach_migrate.history import catalog
from outreach_migrate.history import table as tables
from outreach_migrate.history.read import History
from outreach_migrate.history.table import Table
from outreach_migrate.postgres import dsn
from outreach_migrate.postgres.dsn import Target
from outreach_migrate.run import plan
from outreach_migrate.run.plan import Pending, Plan, Planned

if TYPE_CHECKING:
    from outreach_migrate.files.code import Code
    from outreach_migrate.files.variables import Lookup


@dataclass(frozen=True, slots=True)
class Limits:
    """A statement's lock timeout and statement timeout, in seconds; 0 is no limit, None the server's setting."""

    lock_timeout: float | None = 5.0
    statement_timeout: float | None = None

    def of_file(self, lock_timeout: float | None) -> Limits:
        """Give the limits for a file, which may name its own lock timeout."""
        return self if lock_timeout is None else replace(self, lock_timeout=lock_timeout)

    def sql(self, scope: Literal["LOCAL", "SESSION"] = "LOCAL") -> list[str]:
        """Write the statements that set them."""
        both = {"lock_timeout": self.lock_timeout, "statement_timeout": self.statement_timeout}
        return [
            f"SET {scope} {name} = {'DEFAULT' if value is None else max(round(value * 1000), int(value > 0))}"
            for name, value in both.items()
        ]


@dataclass(frozen=True, slots=True)
class Request:
    """A run's files, database and options; `wait`, and `max_lag` of a replica, are in seconds.

    `code` is None without a folder of code; `code_only` are the paths of the files that are carried out after the
    migrations, None for all.
    """

    target: Target
    table: Table
    files: tuple[Migration, ...]
    file_problems: tuple[Problem, ...] = ()
    to: int | None = None
    out_of_order: bool = False
    before_deploy: bool = False
    wait: float = 0.0
    limits: Limits = field(default_factory=Limits)
    lock_retries: int = 10
    max_lag: float = 10.0
    from_start: int | None = None
    connection: psycopg.Connection | None = None
    code: tuple[Code, ...] | None = None
    code_only: frozenset[str] | None = None

    def reaches(self, whole: Plan) -> bool:
        """Tell whether the run leaves no file for --to, because code may need all of them."""
        return self.to is None or all(step.migration.number <= self.to for step in whole.pending)


def of(
    database: str | psycopg.Connection[Any] | Target,
    found: tuple[tuple[Migration, ...], list[Problem]],
    *,
    schema: str | None = None,
    table: str | None = None,
    to: int | str | None = None,
    out_of_order: bool = False,
    before_deploy: bool = False,
    lock_timeout: float | str = "5s",
    lock_retries: int = 10,
    statement_timeout: float | str | None = None,
    max_lag: float | str = "10s",
    wait: float | str = 0,
    from_start: int | None = None,
    values: Lookup | None = None,
    code: tuple[tuple[Code, ...], list[Problem]] | None = None,
) -> Request:
    """Make a request from values as people write them; `found` is the result of migrations.read.

    `values` gives the value of a variable, `code` is the result of code.read.

    Raise UsageError for a value that makes no sense.
    """
    target = _target(database, schema)
    named = None if table == tables.NAME else table
    limit = None if statement_timeout is None else _seconds("statement_timeout", statement_timeout)
    return Request(
        target=target,
        table=tables.read(named, target.schema),
        files=tuple(migrations.bound(one, values or (lambda _: None)) for one in found[0]),
        file_problems=(*found[1], *(code[1] if code else ())),
        to=_version(to),
        out_of_order=out_of_order,
        before_deploy=before_deploy,
        wait=_seconds("wait", wait),
        limits=Limits(_seconds("lock_timeout", lock_timeout), limit),
        lock_retries=lock_retries,
        max_lag=_seconds("max_lag", max_lag),
        from_start=from_start,
        connection=database if isinstance(database, psycopg.Connection) else None,
        code=_bound(code[0], values) if code else None,
    )


def _bound(code: Sequence[Code], values: Lookup | None) -> tuple[Code, ...]:
    lookup = values or (lambda _: None)
    return tuple(replace(one, migration=migrations.bound(one.migration, lookup)) for one in code)


def _target(database: str | psycopg.Connection[Any] | Target, schema: str | None) -> Target:
    if isinstance(database, psycopg.Connection):
        if not database.autocommit or database.info.transaction_status != pq.TransactionStatus.IDLE:
            raise errors.UsageError(
                "the connection must be in autocommit mode and idle, because each migration has its own transaction",
                hint="Open it with psycopg.connect(…, autocommit=True), or give the URL.",
            )
        login = {"password": database.info.password} if database.info.password else {}
        return Target({**database.info.get_parameters(), **login}, schema)
    if isinstance(database, str):
        database = dsn.read(database)
    if not isinstance(database, Target):
        kind = type(database).__name__
        hint = "From asynchronous code: await asyncio.to_thread(outreach_migrate.up, url)."
        raise errors.UsageError(f"the database must be a URL or a psycopg.Connection, not {kind}", hint=hint)
    return replace(database, schema=schema) if schema else database


def _seconds(name: str, given: float | str) -> float:
    seconds = durations.seconds(str(given))
    if seconds is None:
        raise errors.UsageError(f"{name} is not a duration: {given!r}", hint="Give seconds, or text such as 500ms, 5m.")
    return seconds


def _version(to: int | str | None) -> int | None:
    if to is None or str(to).isdecimal():
        return None if to is None else int(to)
    raise errors.UsageError(f"not a version: {to!r}", hint="A version is digits.")


def plan_of(past: History, request: Request) -> Planned:
    """Make the plan, and choose the steps to run.

    Raise errors.UsageError when the requested version does not exist, else errors.Refused with every problem of files
    and history.
    """
    whole = plan.make(request.files, past.entries)
    steps = whole.to_run(to=request.to, out_of_order=request.out_of_order)
    if whole.steps:
        _check_versions(whole, steps, request)
    if foreign := unadopted(past, request.files):
        raise errors.NotAdopted(foreign)
    wrong = [*request.file_problems]
    wrong += [*of_texts(steps), *_unmet(steps, request.code or ())]
    contradictions = whole.contradictions(out_of_order=request.out_of_order, from_start=request.from_start)
    if contradictions:
        raise errors.HistoryError([*wrong, *contradictions])
    if wrong:
        raise errors.MigrationFileError(wrong)
    return Planned(whole, *plan.parted(steps)) if request.before_deploy else Planned(whole, steps)


def unadopted(past: History, files: tuple[Migration, ...]) -> tuple[Problem, ...]:
    """Find the history of another tool that must be adopted first, because its files would run a second time.

    It counts if the files' first lines name the tool. Without such lines the files may be copies made by hand, unless
    --table or ?schema= says that this history is to be a new one.
    """
    tools = (
        {migration.directives.origin.tool for migration in files if migration.directives.origin} if past.foreign else ()
    )
    doubtful = not tools and not past.table.chosen
    found = tuple(one for one in past.foreign if one.tool in tools or doubtful)
    return (catalog.unadopted(past.table, found, doubtful=doubtful),) if found else ()


def of_texts(steps: Sequence[Pending]) -> list[Problem]:
    """List the problems of the files' texts."""
    if not steps:
        return []
    from outreach_migrate.files import rules  # here, because no text is read if nothing is pending

    return [problem for step in steps for problem in rules.problems(step.migration)]


def _unmet(steps: Sequence[Pending], code: Sequence[Code]) -> list[Problem]:
    """List the variables without a value, and the files of code that are named and not there.

    A file of code needs its values in each run, because only the records tell whether it is carried out.
    """
    if not steps and not any(one.migration.written for one in code):
        return []
    from outreach_migrate.files import rules

    known = {one.path for one in code}
    every = [*(step.migration for step in steps), *(one.migration for one in code)]
    missing = [problem for migration in every for problem in rules.without_value(migration)]
    return missing + [problem for step in steps for problem in rules.without_code(step.migration, known)]


def to_carry_out(past: History, request: Request) -> Planned:
    """Make the plan of a run; raise as `plan_of` does, and MigrateError when steps are to run on a read-only server."""
    planned = plan_of(past, request)
    if planned.steps:
        must_be_writable(past)
    return planned


def _check_versions(whole: Plan, steps: tuple[Pending, ...], request: Request) -> None:
    if request.to is not None and request.to not in {int(step.version) for step in whole.steps}:
        newest = f"The newest version is {whole.steps[-1].version}."
        raise errors.UsageError(f"no migration has version {request.to}", hint=newest)
    unfinished = {int(step.version) for step in steps if step.state is plan.State.UNFINISHED}
    if request.from_start is not None and request.from_start not in unfinished:
        hint = "--from-start runs an unfinished file anew: status shows which files are unfinished."
        raise errors.UsageError(f"no unfinished migration has version {request.from_start}", hint=hint)


def must_be_writable(past: History) -> None:
    """Raise MigrateError if the server is a standby, or writes nothing by default."""
    if past.standby:
        hint = "Connect to the primary; the program finds it when the URL names several hosts."
        raise errors.MigrateError("the server is a standby and can only be read", hint=hint)
    if past.read_only:
        hint = "Turn it off for the role that migrates: ALTER ROLE … SET default_transaction_read_only = off"
        raise errors.MigrateError("nothing can be written, because default_transaction_read_only is on", hint=hint)
