"""A run's request: files, database and options."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg import pq

from outreach_migrate import durations, errors
from outreach_migrate.errors import Problem
from outreach_migrate.files import migrations
from outreach_migrate.files.migrations import Migration
from outreach_migrate.history import table as tables
from outreach_migrate.history.table import Table
from outreach_migrate.postgres import dsn
from outreach_migrate.postgres.dsn import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outreach_migrate.files.code import Code
    from outreach_migrate.files.variables import Lookup
    from outreach_migrate.run.plan import Plan


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
    migrations, None for all. `waited` is whether the last try of the run has met a lock, so that this one is looked at
    from its beginning.
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
    waited: bool = False

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
        if not database.strip() and not any(map(os.environ.get, dsn.VARIABLES)):  # an unset variable, most likely
            raise errors.UsageError(
                "no database is named", hint="Give a URL, or set libpq's variables, such as PGHOST."
            )
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
