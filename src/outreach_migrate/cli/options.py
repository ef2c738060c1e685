"""The commands' common options, their sources, and the end of a command after an error."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from outreach_migrate import errors
from outreach_migrate.cli import kinds, project, usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from psycopg import Connection

    from outreach_migrate.cli.project import Project
    from outreach_migrate.errors import Problem
    from outreach_migrate.files.code import Code
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.postgres.dsn import Target
    from outreach_migrate.report.printer import Report
    from outreach_migrate.run.request import Request

EMBEDDED = ".outreach"
_SCRATCH = ".outreach/scratch"  # a private server of its own, because files may make roles


@dataclass(frozen=True, slots=True)
class Common:
    """The options before the command, and the project that they are for."""

    database: str | None
    folder: str
    table: str | None
    embedded: bool
    wait: float
    as_json: bool
    verbosity: int
    project: Project
    values: Mapping[str, str] = field(repr=False)  # of --set
    code: str | None = None

    def codes(self) -> tuple[tuple[Code, ...], list[Problem]] | None:
        """Read the files of code, if the project has any."""
        from outreach_migrate.files import folders

        where = self.code or folders.below(folders.find(self.folder), "code")
        if where is None:
            return None
        from outreach_migrate.files import code

        return code.read(where)


def distance(ctx: click.Context, name: str) -> int:
    """Rank the source of a parameter: 0 is the command line, then the environment, pyproject.toml, the default."""
    sources = click.core.ParameterSource
    order = [sources.COMMANDLINE, sources.ENVIRONMENT, sources.DEFAULT_MAP]
    source = ctx.get_parameter_source(name)
    return order.index(source) if source in order else len(order)


def of_a_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `up` and `rehearse` share."""
    shared = [
        click.option("--to", type=int, metavar="VERSION", help="Stop after this version."),
        click.option("--allow-out-of-order", is_flag=True, help="Also run files older than the newest applied one."),
        click.option("--before-deploy", is_flag=True, help="Stop before the first file that is marked after-deploy."),
        click.option(
            "--lock-timeout",
            type=kinds.DURATION,
            default="5s",
            show_default=True,
            help="How long a statement may wait for a lock before its file is rolled back; 0 for no limit.",
        ),
        click.option(
            "--statement-timeout", type=kinds.DURATION, help="How long a statement may take.  [default: the server's]"
        ),
    ]
    return _added(shared, command)


def of_a_takeover(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `adopt`, for one database or for many."""
    shared = [
        click.option(
            "--from",
            "tool",
            type=kinds.TOOL,
            metavar="TOOL",
            help="The tool that migrated the database.  [default: by the files and its table]",
        ),
        click.option("--rename", is_flag=True, help="Rename the tool's table if it has the name of the history."),
        click.option("--to", type=int, metavar="VERSION", help="Take over this version and older ones only."),
        click.option("--accept-edited", is_flag=True, help="Take over files whose checksum differs, too."),
        click.option("--dry-run", is_flag=True, help="Show the migrations that would be adopted, and write nothing."),
    ]
    return _added(shared, command)


def _added(options: list[Callable[..., Any]], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


lock_retries = click.option(
    "--lock-retries",
    type=click.IntRange(min=0),
    metavar="N",
    default=10,
    show_default=True,
    help="How often to retry a file after a lock timeout or a deadlock.",
)


max_lag = click.option(
    "--max-lag",
    type=kinds.DURATION,
    default="10s",
    show_default=True,
    help="Pause a file in batches while a replica is further behind than this; 0 for no limit.",
)


def verifying(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of `baseline` that compare the database first, for one or for many."""
    shared = [
        click.option("--verify", is_flag=True, help="First compare the database with these files, as drift does."),
        click.option("--accept-differences", is_flag=True, help="Record them even if --verify finds differences."),
    ]
    return _added(shared, command)


def check_verifying(given: Mapping[str, Any]) -> None:
    """Raise click.UsageError if differences are accepted that nothing looks for."""
    if given["accept_differences"] and not given["verify"]:
        raise click.UsageError("--accept-differences goes with --verify")


def ignoring(first: str, second: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the option --ignore of a comparison; its help shows two patterns."""
    about = f"Leave out objects, as {first}, or '{second}'; may be repeated."
    return click.option("--ignore", type=kinds.PATTERN, multiple=True, metavar="PATTERN", help=about)


def format_of(command: str, third: str, about: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make the option --format of a command: text, json, or a third one."""
    choice = click.Choice(["text", "json", third])
    variable = f"{project.PREFIX}_{command}_FORMAT".upper()
    return click.option("--format", "form", type=choice, default="text", show_default=True, envvar=variable, help=about)


@contextmanager
def database(common: Common, out: Report, *, instead: str = "take a private one: --embedded") -> Iterator[Target]:
    """Give the database that the options name, and report its name; the hint that none is named ends with `instead`."""
    from outreach_migrate.postgres import dsn

    with ExitStack() as stack:
        if common.embedded:
            from pathlib import Path

            from outreach_migrate.postgres import private_server

            stack.enter_context(private_server.without_libpqs_variables())
            folder = Path(common.project.path(EMBEDDED))
            target = dsn.read(stack.enter_context(private_server.server(folder)))
        else:
            _must_be_named(common, instead)
            target = dsn.read(common.database or "")
        out.meets(target.name)
        yield target


def _must_be_named(common: Common, instead: str) -> None:
    from outreach_migrate.postgres import dsn

    for name in (*dsn.VARIABLES, "PGSERVICEFILE"):
        if usage.has_login(os.environ.get(name, "")):
            raise errors.UsageError(f"the variable {name} has a URL: {usage.WAY_OUT}, or in DATABASE_URL")
    if not common.database and not any(os.environ.get(name) for name in dsn.VARIABLES):
        raise errors.UsageError(
            "no database is named",
            hint="Give --database URL, or set OUTREACH_MIGRATE_DATABASE, DATABASE_URL, or libpq's variables "
            f"({', '.join(dsn.VARIABLES)}), or database in pyproject.toml; or {instead}",
        )


def request(
    common: Common, target: Target, found: tuple[tuple[Migration, ...], list[Problem]], **given: Any
) -> Request:
    """Make a command's request from the common options and from `given`, its own."""
    from outreach_migrate.files import variables
    from outreach_migrate.run import request as asked

    given["out_of_order"] = given.pop("allow_out_of_order", False)
    values = variables.lookup(common.values, os.environ, common.project.values)
    given["code"] = common.codes()
    return asked.of(target, found, table=common.table, wait=common.wait, values=values, **given)


def scratch_folder(common: Common) -> Path:
    """Give the folder of the private server for scratch databases."""
    from pathlib import Path

    return Path(common.project.path(_SCRATCH))


@contextmanager
def migrated(common: Common) -> Iterator[Request]:
    """Give a request for a scratch database on the private server, to which all files are applied."""
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.postgres import dsn
    from outreach_migrate.schema import scratch

    found, problems = migrations.read(folders.find(common.folder))
    if problems:
        raise errors.MigrationFileError(problems)
    schema = dsn.read(common.database or "").schema  # the database itself is left alone
    asked = request(common, dsn.Target({}, schema), (found, []))
    with scratch.migrated(asked, asked.files, private=scratch_folder(common)) as made:
        yield replace(asked, target=made.target)


@contextmanager
def perhaps_beside(
    common: Common, found: tuple[tuple[Migration, ...], list[Problem]], out: Report
) -> Iterator[tuple[Request, Connection | None]]:
    """Give a request for a scratch database, and a connection to the database that it may be beside; None without."""
    from outreach_migrate.postgres import connections, dsn

    if not (common.database or common.embedded):
        yield request(common, dsn.Target({}), found), None
        return
    with database(common, out) as target:
        asked = request(common, target, found)
        with connections.translated(), connections.of(None, target, wait=asked.wait) as connection:
            yield asked, connection


@contextmanager
def told(out: Report) -> Iterator[None]:
    """Print an error, and exit with its code."""
    try:
        yield
    except errors.MigrateError as error:
        out.failed(error)
        sys.exit(error.exit_code)
