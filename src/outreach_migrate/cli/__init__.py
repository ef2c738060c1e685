"""The commands: parse, call one function, print."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from typing import Any

import click

from outreach_migrate import __version__
from outreach_migrate.cli import group, options, project, signals

EPILOG = """\
`outreach-migrate help` lists the pages of the manual, `outreach-migrate help SUBJECT` prints one.

The database is, in this order: --database, OUTREACH_MIGRATE_DATABASE, DATABASE_URL, database in pyproject.toml, libpq's
own variables (PGHOST, PGSERVICE, …).

Every option can be set as OUTREACH_MIGRATE_<OPTION>, a command's own as OUTREACH_MIGRATE_<COMMAND>_<OPTION>, or in
[tool.outreach-migrate] of pyproject.toml, here or in the nearest folder above that has one.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 `status --check` with something pending, 129, 130 and 143 after SIGHUP,
SIGINT and SIGTERM."""


@click.group(
    cls=group.Group,
    context_settings={
        "auto_envvar_prefix": project.PREFIX,
        "help_option_names": ["-h", "--help"],
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
    type=click.Path(),
    metavar="DIR",
    default="sql",
    show_default=True,
    envvar="OUTREACH_MIGRATE_DIR",
    help="The folder with the migrations, or PACKAGE:PATH.",
)
@click.option("--table", metavar="[SCHEMA.]NAME", help="The history table.  [default: public.schema_migrations]")
@click.option("--embedded", is_flag=True, help="Use a private PostgreSQL, kept in .outreach.")
@click.option(
    "--wait",
    type=options.DURATION,
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
@click.version_option(__version__, "-V", "--version", allow_from_autoenv=False)
@click.pass_context
def main(ctx: click.Context, /, quiet: bool, verbose: bool, **common: Any) -> None:
    """Apply plain, versioned .sql files to PostgreSQL, each in one transaction with its row."""
    from outreach_migrate.report import terminal

    if os.environ.get("NO_COLOR") or terminal.is_dumb():
        ctx.color = False
    url, embedded = (options.distance(ctx, name) for name in ("database", "embedded"))
    if url == embedded == 0:
        raise click.UsageError("--database and --embedded name two databases: give one of them")
    if url < embedded:  # as DATABASE_URL and pyproject's embedded = true
        common["embedded"] = False
    found = ctx.meta[project.__name__]
    if found.root != "." and not quiet:
        click.echo(f"Using {found.path('pyproject.toml')}.", err=True)
    ctx.obj = options.Common(**common, verbosity=verbose - quiet, project=found)


@main.command()
@options.of_a_run
@click.option("--dry-run", is_flag=True, help="Print the SQL that would run, and run nothing.")
@click.option(
    "--lock-retries",
    type=click.IntRange(min=0),
    metavar="N",
    default=10,
    show_default=True,
    help="How often a file that gave way is tried again.",
)
@click.option(
    "--from-start", type=int, metavar="VERSION", help="Run an unfinished file anew, from its first statement."
)
@click.pass_obj
def up(common: options.Common, /, dry_run: bool, **given: Any) -> None:
    """Apply the pending migrations, in order."""
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.report import report_run

    out = report_run.RunReport("up", as_json=common.as_json, verbosity=common.verbosity)
    with out, options.told(out):
        found = migrations.read(
            folders.find(common.folder)
        )  # of a large one the bytes are gone before the driver comes
        from outreach_migrate.run import apply, events
        from outreach_migrate.run import request as asked

        with options.database(common, out) as target:
            request = options.request(common, target, found, **given)
            if dry_run:
                with asked.reading(request, out.event) as seen:
                    planned = events.Planned(*asked.plan_of(seen.past, request))
                out.would_run(planned, from_start=request.from_start)
                return
            signals.carry_out(partial(apply.run, request), out.event, tick=out.tick, unknown=out.unknown)
            out.ended()


@main.command()
@click.option("--check", is_flag=True, help="Exit with 3 when something is pending, with 1 when something is wrong.")
@click.pass_obj
def status(common: options.Common, /, check: bool) -> None:
    """Show what is applied, what is pending, and what is wrong. Writes nothing."""
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.report import report_status
    from outreach_migrate.run import request as asked
    from outreach_migrate.run.plan import State

    with report_status.StatusReport(as_json=common.as_json, verbosity=common.verbosity) as out, options.told(out):
        found = migrations.read(folders.find(common.folder))
        with (
            options.database(common, out) as target,
            asked.reading(options.request(common, target, found), out.locked) as seen,
        ):
            problems = found[1] + seen.problems()
        out.plan(seen.plan, problems, seen.at_work)
        if check:
            pending = seen.plan.having(State.PENDING, State.UNFINISHED)
            sys.exit(1 if problems else 3 if pending else 0)


@main.command()
@click.argument("name", nargs=-1, required=True)
@click.option("--no-transaction", is_flag=True, help="For what can't run in a transaction.")
@click.option("--edit", is_flag=True, help="Open it in $VISUAL or $EDITOR.")
@click.pass_obj
def new(common: options.Common, /, name: tuple[str, ...], no_transaction: bool, edit: bool) -> None:
    """Make a migration's file, the newest, and print its path."""
    from outreach_migrate.files import folders
    from outreach_migrate.files import new as files

    try:
        path = files.make(folders.on_disk(common.folder), " ".join(name), transaction=not no_transaction)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    click.echo(path)
    if edit:
        click.edit(filename=path)


@main.command()
@options.of_a_run
@options.format_of("rehearse", "markdown", help="How to print it.")
@click.pass_obj
def rehearse(common: options.Common, /, form: str, **given: Any) -> None:
    """Carry the pending migrations out, roll back, and show their locks.

    For each statement: how long it took, which locks it took on what was there before and whom they block, whether
    a table was rewritten or scanned; in the end, for how long each table was not available. It takes the real locks
    and does the real work, so it belongs on a copy or on staging. No table and no row stays; what was drawn from a
    sequence is not given back. Files without a transaction, and those that need them, are named and left out.
    """
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.rehearsal import trial
    from outreach_migrate.report import report_rehearsal

    out = report_rehearsal.RehearsalReport("json" if common.as_json else form, common.verbosity)
    with out, options.told(out):
        found = migrations.read(folders.find(common.folder))
        with options.database(common, out) as target:
            request = options.request(common, target, found, lock_retries=0, **given)
            signals.carry_out(
                partial(trial.run, request),
                out.rehearsed,
                tick=out.tick,
                unknown=lambda: trial.ROLLED_BACK,
            )
            out.ended()


@main.command()
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False), metavar="[FILE]...")
@click.option("--lint", is_flag=True, help="Run squawk over the pending files too.")
@click.option(
    "--base", type=options.REVISION, metavar="REF", help="A git revision whose files must be older, and unchanged."
)
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@options.format_of("check", "github", help="How to print it; github stands for its workflow commands.")
@click.pass_context
def check(ctx: click.Context, /, files: tuple[str, ...], lint: bool, base: str | None, strict: bool, form: str) -> None:
    """Look for trouble in the files, or in FILE…, and change nothing.

    Needs no database. With --database or --embedded on the command line, it also compares with the history, and
    looks for what a run would meet there. With --lint, these are linted: the pending ones, where a database says
    which; else FILE…; else those that are new or changed against --base; else all.
    """
    from outreach_migrate.checks import check as looking
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.report import report_check

    common: options.Common = ctx.obj
    with report_check.CheckReport("json" if common.as_json else form, common.verbosity) as out, options.told(out):
        found, problems = migrations.read(folders.find(common.folder))
        chosen, problems = looking.chosen(found, problems, files)
        findings = looking.files(chosen, problems)
        linted = chosen if files or not base else looking.changed(folders.on_disk(common.folder), chosen, base)
        if base:
            findings += looking.against(folders.on_disk(common.folder), found, base)
        if common.embedded or options.distance(ctx.find_root(), "database") == 0:
            from outreach_migrate.checks import check_database

            with options.database(common, out) as target:
                pending, met = check_database.look(options.request(common, target, (found, [])), out.locked)
            findings += met
            linted = [migration for migration in chosen if migration in pending]
        if lint:
            findings += looking.lint(linted)
        out.findings(findings, strict=strict)


@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT]...")
@click.pass_obj
def psql(common: options.Common, /, arguments: tuple[str, ...]) -> None:
    """Open psql on the database."""
    import shutil
    import subprocess

    from outreach_migrate.postgres import dsn, embedded
    from outreach_migrate.report import report

    out = report.Report("psql", as_json=False, verbosity=common.verbosity)
    with out, options.told(out), options.database(common, out) as target:
        program = shutil.which("psql") or str(embedded.program("psql"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # psql's own
        named, variables = dsn.for_psql(target)
        sys.exit(subprocess.call([program, *named, *arguments], env={**os.environ, **variables}))


@main.command()
@click.argument("subject", required=False)
def help(subject: str | None) -> None:  # noqa: A001
    """List the pages of the manual, or print one."""
    from outreach_migrate.cli import manual

    if subject is None:
        click.echo(manual.contents())
    elif subject in manual.SUBJECTS:
        click.echo_via_pager(manual.page(subject))
    else:
        raise click.UsageError(manual.absent(subject, main.commands))
