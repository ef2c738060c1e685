"""The commands that carry migrations out: up, and rehearse, which takes it back."""

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
    help="How often a file that gave way is tried again.",
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


@click.command(cls=usage.Command)
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
