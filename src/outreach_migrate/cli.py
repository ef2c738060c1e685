"""The commands: parse, call one function, print."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from outreach_migrate import __version__, errors

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from outreach_migrate.apply import Request
    from outreach_migrate.database import Target
    from outreach_migrate.history import Table
    from outreach_migrate.report import Report

EMBEDDED = Path(".outreach")


@dataclass(frozen=True, slots=True)
class Common:
    """The options that stand before the command."""

    database: str | None
    folder: Path
    table: str
    embedded: bool
    wait: float
    as_json: bool
    verbosity: int


class NoDatabase(errors.MigrateError):
    """No database is named: wrong usage."""

    exit_code = 2


class Duration(click.ParamType[float]):
    """A duration: 30s, 500ms, 2min, or seconds; 0 is no limit. Given in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a duration."""
        from outreach_migrate import migrations

        seconds = migrations.seconds(str(value))
        if seconds is None:
            self.fail(f"{value!r} is not a duration: 30s, 500ms, 2min, or a number of seconds", param, ctx)
        return seconds


DURATION = Duration()


class _Configured(click.Group):
    """A group whose options take their defaults from [tool.outreach-migrate] of ./pyproject.toml."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the defaults before the arguments."""
        if Path("pyproject.toml").is_file():
            ctx.default_map = _defaults(self)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; one that a signal ends before it can tell so itself ends here."""
        with _signals():
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
        table = tomllib.loads(Path("pyproject.toml").read_text("utf-8")).get("tool", {}).get("outreach-migrate", {})
    except ValueError as error:
        raise click.UsageError(f"cannot read pyproject.toml: {error}") from None
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


def _distance(ctx: click.Context, name: str) -> int:
    """Tell how far away a parameter was set: 0 for the command line."""
    sources = click.core.ParameterSource
    order = [sources.COMMANDLINE, sources.ENVIRONMENT, sources.DEFAULT_MAP]
    source = ctx.get_parameter_source(name)
    return order.index(source) if source in order else len(order)


EPILOG = """\b
The database is, in this order: --database, OUTREACH_MIGRATE_DATABASE, DATABASE_URL, libpq's own variables
(PGHOST, PGSERVICE, …). Every option can be set as OUTREACH_MIGRATE_<OPTION>, a command's own as
OUTREACH_MIGRATE_<COMMAND>_<OPTION>, or in [tool.outreach-migrate] of pyproject.toml.
Exit codes: 0 done, 1 failed, 2 wrong usage, 3 `status --check` with something pending."""


@click.group(
    cls=_Configured,
    context_settings={
        "auto_envvar_prefix": "OUTREACH_MIGRATE",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 110,
    },
    epilog=EPILOG,
)
@click.option(
    "--database",
    metavar="URL",
    envvar=["OUTREACH_MIGRATE_DATABASE", "DATABASE_URL"],
    help="A postgresql:// URL or a libpq key=value string.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    default="sql",
    show_default=True,
    envvar="OUTREACH_MIGRATE_DIR",
    help="The folder with the migrations.",
)
@click.option(
    "--table", metavar="[SCHEMA.]NAME", default="schema_migrations", show_default=True, help="The history table."
)
@click.option("--embedded", is_flag=True, help="Use a private PostgreSQL, kept in ./.outreach.")
@click.option(
    "--wait",
    type=DURATION,
    default="0",
    show_default=True,
    metavar="SECONDS",
    help="Keep trying while the server starts or can't be reached.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="OUTREACH_MIGRATE_JSON",
    help="Print one JSON document on stdout at the end.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Print what each statement did.")
@click.version_option(__version__, "-V", "--version")
@click.pass_context
def main(ctx: click.Context, /, quiet: bool, verbose: bool, **common: Any) -> None:
    """Apply plain, versioned .sql files to PostgreSQL, each in one transaction with its row."""
    if os.environ.get("NO_COLOR"):
        ctx.color = False
    if _distance(ctx, "database") < _distance(ctx, "embedded"):  # as DATABASE_URL and pyproject's embedded = true
        common["embedded"] = False
    ctx.obj = Common(**common, verbosity=verbose - quiet)


@main.command()
@click.option("--to", type=int, metavar="VERSION", help="Stop after this version.")
@click.option("--dry-run", is_flag=True, help="Print what would run, and run nothing.")
@click.option("--allow-out-of-order", is_flag=True, help="Also run files older than the newest applied one.")
@click.option(
    "--lock-timeout",
    type=DURATION,
    default="5s",
    show_default=True,
    help="How long a statement waits for a lock before the file gives way; 0 for ever.",
)
@click.option(
    "--lock-retries",
    type=click.IntRange(min=0),
    default=10,
    show_default=True,
    help="How often a file that gave way is tried again.",
)
@click.option("--statement-timeout", type=DURATION, help="How long a statement may take.  [default: the server's]")
@click.option(
    "--from-start", type=int, metavar="VERSION", help="Run an unfinished file anew, from its first statement."
)
@click.pass_obj
def up(common: Common, /, dry_run: bool, **options: Any) -> None:
    """Apply the pending migrations, in order."""
    from outreach_migrate import apply, report

    out = report.RunReport("up", as_json=common.as_json, verbosity=common.verbosity)
    with out, _told(out), _database(common) as target:
        request = _request(common, target, **options)
        if dry_run:
            out.would_run(apply.look(request))
            return
        events = apply.run(request)
        try:
            for event in events:
                out.event(event)
        except errors.Interrupted as error:
            if error.state is None:  # it came while we printed: the engine is to stop what it does
                events.throw(error)
            raise
        out.ended()


@main.command()
@click.option("--check", is_flag=True, help="Exit with 3 when something is pending, with 1 when something is wrong.")
@click.pass_obj
def status(common: Common, /, check: bool) -> None:
    """Show what is applied, what is pending, and what is wrong. Writes nothing."""
    from outreach_migrate import database, history, migrations, plan, report

    with report.Report("status", as_json=common.as_json, verbosity=common.verbosity) as out, _told(out):
        files, problems = migrations.read(common.folder)
        with _database(common) as target, database.translated():
            connection = database.finish(database.connect(target, wait=common.wait))
            with connection:
                past = history.read(connection, _table(common, target), search_path=target.schema)
        whole = plan.make(files, past.entries)
        to_run = whole.to_run(to=None, out_of_order=True)
        problems += [problem for step in to_run if step.migration for problem in migrations.problems(step.migration)]
        problems += whole.problems(out_of_order=False) + whole.unfinished()
        report.status(out, whole, problems)
        if check:
            pending = whole.having(plan.State.PENDING, plan.State.UNFINISHED)
            sys.exit(1 if problems else 3 if pending else 0)


@main.command()
@click.argument("name", nargs=-1, required=True)
@click.option("--no-transaction", is_flag=True, help="For what can't run in a transaction.")
@click.option("--edit", is_flag=True, help="Open it in $VISUAL or $EDITOR.")
@click.pass_obj
def new(common: Common, /, name: tuple[str, ...], no_transaction: bool, edit: bool) -> None:
    """Make the file of a migration, newer than all there are, and print its path."""
    from outreach_migrate import new as files

    try:
        path = files.make(common.folder, " ".join(name), transaction=not no_transaction)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    click.echo(path)
    if edit:
        click.edit(filename=str(path))


@main.command()
@click.option("--to", type=int, metavar="VERSION", help="Stop after this version.")
@click.option("--allow-out-of-order", is_flag=True, help="Also run files older than the newest applied one.")
@click.option(
    "--lock-timeout",
    type=DURATION,
    default="5s",
    show_default=True,
    help="How long a statement waits for a lock before the rehearsal gives way; 0 for ever.",
)
@click.option("--statement-timeout", type=DURATION, help="How long a statement may take.  [default: the server's]")
@click.option("--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text", show_default=True)
@click.pass_obj
def rehearse(common: Common, /, form: str, **options: Any) -> None:
    """Carry the pending migrations out, roll back, and tell what each statement would do to others.

    For each statement: how long it took, which locks it took on what was there before and whom they block, whether
    a table was rewritten or scanned; in the end, for how long each table was not available. It takes the real locks
    and does the real work, so it belongs on a copy or on staging. No table and no row stays; what was drawn from a
    sequence is not given back. Files without a transaction are named, and left out.
    """
    from outreach_migrate import rehearse as rehearsing
    from outreach_migrate import report_rehearsal

    out = report_rehearsal.RehearsalReport("json" if common.as_json else form, common.verbosity)
    with out, _told(out), _database(common) as target:
        request = _request(common, target, lock_retries=0, from_start=None, **options)
        events = rehearsing.run(request)
        try:
            for event in events:
                out.rehearsed(event)
        except errors.Interrupted as error:
            if error.state is None:  # it came while we printed: the engine is to stop what it does
                events.throw(error)
            raise
        out.ended()


@main.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--lint", is_flag=True, help="Run squawk over the pending files too.")
@click.option("--base", metavar="REF", help="A git revision whose files must be older, and unchanged.")
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@click.option("--format", "form", type=click.Choice(["text", "json", "github"]), default="text", show_default=True)
@click.pass_context
def check(
    ctx: click.Context, /, files: tuple[Path, ...], lint: bool, base: str | None, strict: bool, form: str
) -> None:
    """Look for trouble in the files, or in FILES of them, and change nothing.

    Needs no database. With --database or --embedded on the command line, it also compares with the history, and
    looks for what a run would meet there. With --lint, these are linted: the pending ones, where a database says
    which; else FILES; else those that are new or changed against --base; else all.
    """
    from outreach_migrate import check as looking
    from outreach_migrate import migrations, report_check

    common: Common = ctx.obj
    with report_check.CheckReport("json" if common.as_json else form, common.verbosity) as out, _told(out):
        found, problems = migrations.read(common.folder)
        chosen = looking.chosen(found, files)
        findings = looking.files(chosen, problems)
        linted = chosen if files or not base else looking.changed(common.folder, chosen, base)
        if base:
            findings += looking.against(common.folder, found, base)
        if common.embedded or _distance(ctx.find_root(), "database") == 0:
            from outreach_migrate import check_database

            with _database(common) as target:
                pending, met = check_database.look(target, _table(common, target), found, wait=common.wait)
            findings += met
            linted = [migration for migration in chosen if migration in pending]
        if lint:
            findings += looking.lint(linted)
        out.findings(findings, strict=strict)


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def psql(common: Common, /, arguments: tuple[str, ...]) -> None:
    """Open psql on the database."""
    import shutil
    import subprocess

    from outreach_migrate import database, embedded, report

    out = report.Report("psql", as_json=False, verbosity=common.verbosity)
    with out, _told(out), _database(common) as target:
        program = shutil.which("psql") or str(embedded.program("psql"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # psql's own
        named, variables = database.for_psql(target)
        sys.exit(subprocess.call([program, *named, *arguments], env={**os.environ, **variables}))


@contextmanager
def _database(common: Common) -> Iterator[Target]:
    """Give the database that the options name."""
    from outreach_migrate import database

    if common.embedded:
        from outreach_migrate import embedded

        with embedded.server(EMBEDDED) as conninfo:
            yield database.target(conninfo)
        return
    if not common.database and not any(os.environ.get(name) for name in database.VARIABLES):
        raise NoDatabase(
            "no database is named",
            hint="Give --database URL, or set OUTREACH_MIGRATE_DATABASE, DATABASE_URL, or libpq's variables "
            f"({', '.join(database.VARIABLES)}); or take a private one: --embedded",
        )
    yield database.target(common.database or "")


def _request(common: Common, target: Target, **options: Any) -> Request:
    from outreach_migrate import apply, migrations, session

    files, problems = migrations.read(common.folder)
    limits = session.Limits(options["lock_timeout"], options["statement_timeout"])
    return apply.Request(
        target=target,
        table=_table(common, target),
        files=files,
        file_problems=tuple(problems),
        to=options["to"],
        out_of_order=options["allow_out_of_order"],
        wait=common.wait,
        limits=limits,
        lock_retries=options["lock_retries"],
        from_start=options["from_start"],
    )


def _table(common: Common, target: Target) -> Table:
    """Read [SCHEMA.]NAME as PostgreSQL would, but without folding case: quotes are for dots and quotes only."""
    from outreach_migrate import history

    return history.table(common.table, target.schema)


@contextmanager
def _told(out: Report) -> Iterator[None]:
    """Turn an error into what is printed, and the exit code."""
    try:
        yield
    except errors.MigrateError as error:
        out.failed(error)
        sys.exit(error.exit_code)


@contextmanager
def _signals() -> Iterator[None]:
    """Raise Interrupted at the first SIGINT or SIGTERM; the second one ends the process at once."""

    def interrupt(number: int, _: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        raise errors.Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
