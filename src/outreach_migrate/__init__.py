"""Applies plain, versioned .sql files to PostgreSQL, each in one transaction with its row.

Applications, test suites and scripts call these functions, as the command line does. They block, so asynchronous code
runs them in a thread: `await asyncio.to_thread(outreach_migrate.up, …)`. They set up no logging and no signal handlers,
share no state, and may be called from several threads at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from importlib.resources.abc import Traversable
    from os import PathLike

    import psycopg

    from outreach_migrate.errors import (
        Blocker,
        ConnectionFailed,
        Fate,
        HistoryError,
        HistoryLocked,
        Location,
        LockTimeout,
        MigrateError,
        MigrationFileError,
        Outcome,
        Problem,
        Refused,
        ServerMessage,
        StatementError,
        UsageError,
    )
    from outreach_migrate.files.migrations import Migration as Migration
    from outreach_migrate.history.read import Entry as Entry
    from outreach_migrate.run import events
    from outreach_migrate.run.comparison import Behind as Behind
    from outreach_migrate.run.engine import Result as Result
    from outreach_migrate.run.events import Applied as Applied
    from outreach_migrate.run.plan import Plan as Plan
    from outreach_migrate.run.plan import State as State
    from outreach_migrate.run.plan import Step as Step

    Database = str | psycopg.Connection[Any]
    Folder = str | PathLike[str] | Traversable
    Duration = float | str

__version__ = "0.1.0"

__all__ = [
    "Applied",
    "Behind",
    "Blocker",
    "ConnectionFailed",
    "Entry",
    "Fate",
    "HistoryError",
    "HistoryLocked",
    "Location",
    "LockTimeout",
    "MigrateError",
    "Migration",
    "MigrationFileError",
    "Outcome",
    "Plan",
    "Problem",
    "Refused",
    "Result",
    "ServerMessage",
    "State",
    "StatementError",
    "Step",
    "UsageError",
    "__version__",
    "check_current",
    "events",
    "status",
    "up",
]

# All names are imported on first use, because psycopg takes longer than all the rest, and pytest imports this module
# in every run for the plug-in's entry point, which is below it. Names that are not listed here are those of errors.
_LATER = {
    "Applied": "run.events",
    "Behind": "run.comparison",
    "Entry": "history.read",
    "Migration": "files.migrations",
    "Plan": "run.plan",
    "Result": "run.engine",
    "State": "run.plan",
    "Step": "run.plan",
}
_MODULES = {"errors": "outreach_migrate.errors", "events": "outreach_migrate.run.events"}


def up(
    database: Database,
    *,
    folder: Folder = "sql",
    schema: str | None = None,
    table: str = "schema_migrations",
    to: int | str | None = None,
    allow_out_of_order: bool = False,
    before_deploy: bool = False,
    lock_timeout: Duration = "5s",
    lock_retries: int = 10,
    statement_timeout: Duration | None = None,
    max_lag: Duration = "10s",
    wait: Duration = 0,
    variables: Mapping[str, str] | None = None,
    code: Folder | None = None,
    tell: Callable[[events.Event], None] | None = None,
) -> Result:
    """Apply the pending migrations of a folder, in order, each in one transaction with its row.

    `database` is a postgresql:// URL, a libpq key=value string, or an open psycopg connection, in autocommit mode and
    idle. A connection is not closed, but it is left as DISCARD ALL leaves it: its settings, temporary tables, prepared
    statements and LISTENs are gone. `folder` is a path, or a package's resources, such as
    importlib.resources.files("app") / "sql". `schema` goes to the front of the search path and holds the history
    table; `table` is [SCHEMA.]NAME. With `before_deploy` the run ends before the first file that is marked
    after-deploy. Durations are in seconds, or text such as "500ms", "5m". A file in batches
    pauses while a replica is more than `max_lag` behind. `wait` is the time to keep trying while the server can't be
    reached. `variables` are the values of the variables in the files. `code` is the folder of the files of code, by
    default the one of that name in `folder`.

    `tell` is called with each event of the run, a value of outreach_migrate.events; never by two threads at once, but
    not always by the caller's thread. It should return soon, because the run waits for it.

    Return the applied migrations, the plan and the duration. Raise MigrateError: UsageError, MigrationFileError and
    HistoryError before anything ran; StatementError, LockTimeout and ConnectionFailed with an `outcome`, the state that
    the run left the database in.
    """
    from outreach_migrate.files import migrations

    found = migrations.read(folder)  # before psycopg, so that a large file's bytes are freed first
    from outreach_migrate.run import engine, request, stop

    asked = request.of(
        database,
        found,
        schema=schema,
        table=table,
        to=to,
        out_of_order=allow_out_of_order,
        before_deploy=before_deploy,
        lock_timeout=lock_timeout,
        lock_retries=lock_retries,
        statement_timeout=statement_timeout,
        max_lag=max_lag,
        wait=wait,
        values=variables.get if variables else None,
        code=_code(folder, code),
    )
    return engine.run(asked, tell or _ignore, stop.Stop())


def _code(folder: Folder, given: Folder | None) -> Any:
    """Read the files of code, if there are any."""
    from outreach_migrate.files import folders

    if (where := given or folders.below(folder, "code")) is None:
        return None
    from outreach_migrate.files import code

    return code.read(where)


def status(
    database: Database,
    *,
    folder: Folder = "sql",
    schema: str | None = None,
    table: str = "schema_migrations",
    wait: Duration = 0,
) -> Plan:
    """Compare the files with the history, and write nothing; a read-only role on a standby can do that.

    The arguments are those of `up`. Return every version with its state. Raise MigrateError: MigrationFileError when
    files can't be migrations, HistoryError when the table is not a history, ConnectionFailed.
    """
    from outreach_migrate import errors
    from outreach_migrate.files import migrations
    from outreach_migrate.run import comparison, request

    found = migrations.read(folder)
    if found[1]:
        raise errors.MigrationFileError(found[1])
    asked = request.of(database, found, schema=schema, table=table, wait=wait)
    with comparison.reading(asked, _ignore) as seen:
        return seen.plan


def check_current(
    database: Database,
    *,
    folder: Folder = "sql",
    schema: str | None = None,
    table: str = "schema_migrations",
    wait: Duration = 0,
) -> None:
    """Return if the database has all migrations that the new release needs; an application calls this at its start.

    These are the files before the first pending one that is marked after-deploy.

    The arguments are those of `up`; with `wait` it asks again until that time has passed, while another process
    migrates. A database that is ahead of the files is current, because an older release meets it during a deployment.
    Raise Behind with the pending steps, HistoryError when files and history contradict each other, and the errors of
    `status`.
    """
    from outreach_migrate.files import migrations
    from outreach_migrate.run import comparison, request

    asked = request.of(database, migrations.read(folder), schema=schema, table=table, wait=wait)
    comparison.await_current(asked, _ignore)


def _ignore(_: object) -> None:
    """Ignore an event."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in __all__:
        return getattr(import_module(f"outreach_migrate.{_LATER.get(name, 'errors')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
