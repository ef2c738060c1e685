"""What a run is asked to do, and what keeps it from starting."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Literal

import psycopg

from outreach_migrate import errors
from outreach_migrate.errors import Blocker, Problem
from outreach_migrate.files import migrations
from outreach_migrate.files.migrations import Migration
from outreach_migrate.history import history, record
from outreach_migrate.history.history import History
from outreach_migrate.history.table import Table
from outreach_migrate.postgres import activity, connections
from outreach_migrate.postgres.dsn import Target
from outreach_migrate.run import plan
from outreach_migrate.run.plan import Pending, Plan


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a statement may wait for a lock, and run: seconds, 0 for ever, None for the server's own setting."""

    lock_timeout: float | None = 5.0
    statement_timeout: float | None = None

    def of_file(self, lock_timeout: float | None) -> Limits:
        """Give the limits of a file, which may ask for a lock timeout of its own."""
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
    """What a run is asked to do; `wait` and the limits in seconds."""

    target: Target
    table: Table
    files: tuple[Migration, ...]
    file_problems: tuple[Problem, ...] = ()
    to: int | None = None
    out_of_order: bool = False
    wait: float = 0.0
    limits: Limits = field(default_factory=Limits)
    lock_retries: int = 10
    from_start: int | None = None
    connection: psycopg.Connection | None = None


def look(request: Request, tell: Callable[[history.Locked], None]) -> tuple[Plan, tuple[Pending, ...]]:
    """Make the plan, as a run would, also where nothing can be written; raise what is wrong in files and history."""
    connection = connections.connect(request.target, wait=request.wait)
    with closing(connection), connections.translated():
        past = history.read(connection, request.table, search_path=request.target.schema, tell=tell)
        return plan_of(past, request)


def plan_of(past: History, request: Request) -> tuple[Plan, tuple[Pending, ...]]:
    """Make the plan; give it with the steps to run.

    Raise errors.UsageError for a version that was asked for and is not there, else errors.Refused with all that is
    wrong in files and history, before anything runs.
    """
    whole = plan.make(request.files, past.entries)
    steps = whole.to_run(to=request.to, out_of_order=request.out_of_order)
    _check_versions(whole, steps, request)
    wrong = [*request.file_problems]
    wrong += [problem for step in steps for problem in migrations.problems(step.migration)]
    contradictions = whole.problems(out_of_order=request.out_of_order, from_start=request.from_start)
    if contradictions:
        raise errors.HistoryError(wrong + contradictions)
    if wrong:
        raise errors.MigrationFileError(wrong)
    return whole, steps


def to_carry_out(past: History, request: Request) -> tuple[Plan, tuple[Pending, ...]]:
    """Make the plan of a run; raise as `plan_of` does, and where there is something to run and nothing to write to."""
    whole, steps = plan_of(past, request)
    if steps:
        _must_be_writable(past)
    return whole, steps


def _check_versions(whole: Plan, steps: tuple[Pending, ...], request: Request) -> None:
    if request.to is not None and request.to not in {int(step.version) for step in whole.steps}:
        newest = whole.steps[-1].version if whole.steps else "none"
        raise errors.UsageError(f"no migration has version {request.to}", hint=f"The newest version is {newest}.")
    unfinished = {int(step.version) for step in steps if step.state is plan.State.UNFINISHED}
    if request.from_start is not None and request.from_start not in unfinished:
        raise errors.UsageError(
            f"version {request.from_start} is not unfinished", hint="--from-start is for a file that is unfinished."
        )


def _must_be_writable(past: History) -> None:
    if past.standby:
        hint = "Name the primary; with several hosts in the URL it is found by itself."
        raise errors.MigrateError("the server is a standby: it can only be read", hint=hint)
    if past.read_only:
        hint = "Lift it for the role that migrates: ALTER ROLE … SET default_transaction_read_only = off"
        raise errors.MigrateError("default_transaction_read_only is on: nothing can be written", hint=hint)


def at_work(connection: psycopg.Connection, past: History) -> dict[str, Blocker]:
    """Read which living runs work on files that are not finished, by version."""
    unfinished = [entry for entry in past.entries if entry.finished_at is None]
    keys = [record.claim_key(connection, record.Place(past.table, entry.position)) for entry in unfinished]
    found = [activity.claimants(connection, key) for key in keys]
    return {entry.version: runs[0] for entry, runs in zip(unfinished, found, strict=True) if runs}
