"""What the commands share: their options, where these come from, and how a command ends."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from outreach_migrate import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import FrameType

    from outreach_migrate.errors import Problem
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.history import Table
    from outreach_migrate.postgres.dsn import Target
    from outreach_migrate.report.report import Report
    from outreach_migrate.run.survey import Request

T = TypeVar("T")

EMBEDDED = ".outreach"


@dataclass(frozen=True, slots=True)
class Common:
    """The options that stand before the command."""

    database: str | None
    folder: str
    table: str
    embedded: bool
    wait: float
    as_json: bool
    verbosity: int


class NoDatabase(errors.MigrateError):
    """No database is named: wrong usage."""

    exit_code = 2


class Duration(click.ParamType[float]):
    """A duration: 30s, 500ms, 2min, 1h, or seconds; 0 is no limit. Given in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a duration."""
        from outreach_migrate import durations

        seconds = durations.seconds(str(value))
        if seconds is None:
            self.fail(f"{value!r} is not a duration: 30s, 500ms, 2min, 1h, or a number of seconds", param, ctx)
        return seconds


DURATION = Duration()


class Configured(click.Group):
    """A group whose options take their defaults from [tool.outreach-migrate] of ./pyproject.toml."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the defaults before the arguments."""
        if os.path.isfile("pyproject.toml"):
            ctx.default_map = _defaults(self)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; one that a signal ends before it can tell so itself ends here."""
        with signals():
            try:
                return super().invoke(ctx)
            except errors.Interrupted as error:
                click.echo(error.message, err=True)
                sys.exit(error.exit_code)


_SPELLED = {"dir": "folder", "json": "as_json"}  # options whose names Python has taken


def _defaults(group: click.Group) -> dict[str, Any]:
    """Read [tool.outreach-migrate], with a table for each command's own options; raise UsageError."""
    import tomllib

    try:
        with open("pyproject.toml", "rb") as file:
            document = tomllib.load(file)
    except ValueError as error:
        raise click.UsageError(f"cannot read pyproject.toml: {error}") from None
    tools = document.get("tool", {})
    table = tools.get("outreach-migrate", {}) if isinstance(tools, dict) else {}
    found = _values(table, "", [*group.params, *group.commands.values()])
    return found | {
        name: _values(found[name], f".{name}", command.params)
        for name, command in group.commands.items()
        if name in found
    }


def _values(table: Any, scope: str, known: list[Any]) -> dict[str, Any]:
    where = f"pyproject.toml: [tool.outreach-migrate{scope}]"
    if not isinstance(table, dict):
        raise click.UsageError(f"{where} must be a table")
    kinds = {one.name: one for one in known}
    values = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        name = name if scope else _SPELLED.get(name, name)
        if name not in kinds:
            raise click.UsageError(f"{where} has an unknown key: {key}")
        if isinstance(kinds[name], click.Parameter) and not isinstance(value, str | int | float):
            raise click.UsageError(f"{where} has a {type(value).__name__} as {key}")
        values[name] = value if isinstance(value, bool | dict) else str(value)
    return values


def distance(ctx: click.Context, name: str) -> int:
    """Tell how far away a parameter was set: 0 for the command line."""
    sources = click.core.ParameterSource
    order = [sources.COMMANDLINE, sources.ENVIRONMENT, sources.DEFAULT_MAP]
    source = ctx.get_parameter_source(name)
    return order.index(source) if source in order else len(order)


def of_a_run(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `up` and `rehearse` share."""
    shared = [
        click.option("--to", type=int, metavar="VERSION", help="Stop after this version."),
        click.option("--allow-out-of-order", is_flag=True, help="Also run files older than the newest applied one."),
        click.option(
            "--lock-timeout",
            type=DURATION,
            default="5s",
            show_default=True,
            help="How long a statement waits for a lock before its file gives way; 0 for ever.",
        ),
        click.option(
            "--statement-timeout", type=DURATION, help="How long a statement may take.  [default: the server's]"
        ),
    ]
    for option in reversed(shared):
        command = option(command)
    return command


@contextmanager
def database(common: Common) -> Iterator[Target]:
    """Give the database that the options name."""
    from outreach_migrate.postgres import dsn

    if common.embedded:
        from pathlib import Path

        from outreach_migrate.postgres import embedded

        with embedded.server(Path(EMBEDDED)) as conninfo:
            yield dsn.read(conninfo)
        return
    if not common.database and not any(os.environ.get(name) for name in dsn.VARIABLES):
        raise NoDatabase(
            "no database is named",
            hint="Give --database URL, or set OUTREACH_MIGRATE_DATABASE, DATABASE_URL, or libpq's variables "
            f"({', '.join(dsn.VARIABLES)}), or database in pyproject.toml; or take a private one: --embedded",
        )
    yield dsn.read(common.database or "")


def request(
    common: Common, target: Target, files: tuple[Migration, ...], problems: list[Problem], **given: Any
) -> Request:
    """Put together what a run is asked to do."""
    from outreach_migrate.run import session, survey

    limits = session.Limits(given["lock_timeout"], given["statement_timeout"])
    return survey.Request(
        target=target,
        table=table(common, target),
        files=files,
        file_problems=tuple(problems),
        to=given["to"],
        out_of_order=given["allow_out_of_order"],
        wait=common.wait,
        limits=limits,
        lock_retries=given["lock_retries"],
        from_start=given["from_start"],
    )


def table(common: Common, target: Target) -> Table:
    """Read [SCHEMA.]NAME as PostgreSQL would, but without folding case: quotes are for dots and quotes only."""
    from outreach_migrate.history import history

    return history.table(common.table, target.schema)


@contextmanager
def told(out: Report) -> Iterator[None]:
    """Turn an error into what is printed, and the exit code."""
    try:
        yield
    except errors.MigrateError as error:
        out.failed(error)
        sys.exit(error.exit_code)


@contextmanager
def signals() -> Iterator[None]:
    """Raise Interrupted at the first SIGINT or SIGTERM; the second one ends the process at once."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        if _in_a_notice(frame):  # which is read to its end first: psycopg lets no exception out of there
            signal.signal(signal.SIGALRM, lambda _, frame: interrupt(number, frame))
            signal.setitimer(signal.ITIMER_REAL, 0.002)
            return
        raise errors.Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_a_notice(frame: FrameType | None) -> bool:
    while frame and frame.f_code.co_name != "_notice_handler":
        frame = frame.f_back
    return frame is not None


def carry_out(events: Generator[T, None, None], show: Callable[[T], None]) -> None:
    """Show the events of a run as they come."""
    try:
        for event in events:
            show(event)
    except errors.Interrupted as error:
        if error.state is None:  # it came while we printed: the engine is to stop what it does
            events.throw(error)
        raise
