"""The commands that run migrations: up, and rehearse, which rolls them back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import click

from outreach_migrate import errors
from outreach_migrate.cli import options, project, signals, usage

if TYPE_CHECKING:
    from outreach_migrate.report.run import RunReport
    from outreach_migrate.run.request import Request


@click.command(cls=usage.StrictCommand)
@options.of_a_run
@click.option("--dry-run", is_flag=True, help="Print the SQL that would run, and run nothing.")
@options.lock_retries
@options.max_lag
@click.option(
    "--from-start", type=int, metavar="VERSION", help="Run an unfinished file anew, from its first statement."
)
@click.option("--check-drift", is_flag=True, help="First compare the database with its applied files, as drift does.")
@click.option(
    "--dump",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="Write the schema to FILE, as dump does, after a run that applied something.",
)
@click.pass_context
def up(ctx: click.Context, /, dry_run: bool, check_drift: bool, dump: str | None, **given: Any) -> None:
    """Apply the pending migrations, in order."""
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.report import run

    common: options.Common = ctx.obj
    out = run.RunReport("up", as_json=common.as_json, verbosity=common.verbosity)
    with out, options.told(out):
        # read before psycopg is imported, so that a large file's bytes are freed first
        found = migrations.read(folders.find(common.folder))
        from outreach_migrate.run import comparison, engine, planning

        with options.database(common, out) as target:
            request = options.request(common, target, found, **given)
            if check_drift:
                _check_drift(ctx, request, out)
            if dry_run:
                with comparison.reading(request, out.event) as seen:
                    planned = planning.plan_of(seen.past, request)
                    codes = comparison.code_steps(seen.connection, request)
                out.would_run(planned, comparison.in_order(planned, codes, request), from_start=request.from_start)
                return
            work = partial(engine.run, request)
            out.succeeded(signals.carry_out(work, out.event, tick=out.tick, unknown=out.unknown))
            if dump and out.applied:
                _dump(request, dump, out)


def _check_drift(ctx: click.Context, request: Request, out: RunReport) -> None:
    from outreach_migrate.report import schema as report
    from outreach_migrate.schema import drift

    ignore = project.default(ctx, "drift", "ignore")
    found = drift.find(request, private=options.scratch_folder(ctx.obj), ignore=ignore or ())
    out.document["drift"] = report.value(found)
    for line in (*report.notes(found), *report.lines(found)):
        out.aside(line)
    if found.comparison.differences:
        raise drift.Drifted(found).after(errors.Outcome(None))


def _dump(request: Request, path: str, out: RunReport) -> None:
    """Write the schema; an error says that the run itself succeeded."""
    import shlex

    from outreach_migrate.schema import dump

    try:
        dumped = dump.compared(path, dump.schema(request.target, request.table))
        dump.write(dumped)
    except errors.MigrateError as error:
        again = f"outreach-migrate dump --out {shlex.quote(path)}"
        hint = f"{error.hint}. Then: {again}" if error.hint else f"When that is mended: {again}"
        raise error.after(errors.Outcome(None, before=len(out.applied)), hint=hint) from error.__cause__
    out.document["dump"] = path
    out.aside(f"{path} {'is written' if dumped.changed else 'is up to date'}.")


@click.command(cls=usage.StrictCommand)
@options.of_a_run
@options.format_of("rehearse", "markdown", "The output's format.")
@click.pass_obj
def rehearse(common: options.Common, /, form: str, **given: Any) -> None:
    """Run the pending migrations, roll them back, and show their locks.

    For each statement it prints the time that it took, the locks on tables that were there before, the commands that
    these locks block, and whether a table was rewritten or scanned; at the end, how long each table was unavailable.
    The locks and the work are real, so rehearse on a copy or on staging. No table and no row stays, but numbers drawn
    from a sequence are not given back. Files without a transaction are left out, and so are the files that need them;
    of one in batches, a range is run. A file of code that drops objects is left out, with those that rest on it.
    """
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.rehearsal import trial
    from outreach_migrate.report import rehearsal

    out = rehearsal.RehearsalReport("json" if common.as_json else form, common.verbosity)
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
