"""The commands that run migrations: up, and rehearse, which rolls them back."""

from __future__ import annotations

from functools import partial
from typing import Any

import click

from outreach_migrate.cli import options, signals, usage


@click.command(cls=usage.Command)
@options.of_a_run
@click.option("--dry-run", is_flag=True, help="Print the SQL that would run, and run nothing.")
@click.option(
    "--lock-retries",
    type=click.IntRange(min=0),
    metavar="N",
    default=10,
    show_default=True,
    help="How often to retry a file after a lock timeout or a deadlock.",
)
@click.option(
    "--from-start", type=int, metavar="VERSION", help="Run an unfinished file anew, from its first statement."
)
@click.pass_obj
def up(common: options.Common, /, dry_run: bool, **given: Any) -> None:
    """Apply the pending migrations, in order."""
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.report import run

    out = run.RunReport("up", as_json=common.as_json, verbosity=common.verbosity)
    with out, options.told(out):
        found = migrations.read(
            folders.find(common.folder)
        )  # before psycopg comes: a large file's bytes are freed first
        from outreach_migrate.run import engine
        from outreach_migrate.run import request as asked

        with options.database(common, out) as target:
            request = options.request(common, target, found, **given)
            if dry_run:
                with asked.reading(request, out.event) as seen:
                    planned = asked.plan_of(seen.past, request)
                out.would_run(planned, from_start=request.from_start)
                return
            signals.carry_out(partial(engine.run, request), out.event, tick=out.tick, unknown=out.unknown)
            out.ended()


@click.command(cls=usage.Command)
@options.of_a_run
@options.format_of("rehearse", "markdown", help="The output's format.")
@click.pass_obj
def rehearse(common: options.Common, /, form: str, **given: Any) -> None:
    """Run the pending migrations, roll them back, and show their locks.

    For each statement it prints the time that it took, the locks on tables that were there before, the commands that
    these locks block, and whether a table was rewritten or scanned; at the end, how long each table was unavailable.
    The locks and the work are real, so rehearse on a copy or on staging. No table and no row stays, but numbers drawn
    from a sequence are not given back. Files without a transaction are left out, and so are the files that need them.
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
