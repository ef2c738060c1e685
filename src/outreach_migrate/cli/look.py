"""The commands that only read: status and check."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from outreach_migrate import errors
from outreach_migrate.cli import kinds, options, project, usage

if TYPE_CHECKING:
    from outreach_migrate.run import code_plan
    from outreach_migrate.run.request import Request
    from outreach_migrate.schema.drift import Drift


@click.command(cls=usage.StrictCommand)
@click.option("--check", is_flag=True, help="Exit with 3 when something is pending, with 1 when something is wrong.")
@click.option(
    "--drift", is_flag=True, help="Compare the database with its applied files, as drift does, for the state drifted."
)
@click.pass_context
def status(ctx: click.Context, /, check: bool, drift: bool) -> None:
    """Show applied and pending migrations, and problems. Writes nothing."""
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.report import status
    from outreach_migrate.run import comparison
    from outreach_migrate.run.plan import State

    common: options.Common = ctx.obj
    with status.StatusReport(as_json=common.as_json, verbosity=common.verbosity) as out, options.told(out):
        found = migrations.read(folders.find(common.folder))
        with (
            options.database(common, out) as target,
            comparison.reading(request := options.request(common, target, found), out.locked) as seen,
        ):
            problems = [*request.file_problems, *seen.problems()]
            steps: tuple[code_plan.CodeStep, ...] = ()
            try:
                steps = comparison.code_steps(seen.connection, request)
            except errors.HistoryError as error:  # the migrations' states are known all the same
                problems += error.problems
            out.plan(seen.plan, problems, seen.at_work, seen.batched)
            differ = _drift(ctx, request) if drift else None
        out.code(differ.code if differ else steps)
        if differ:
            out.differences(differ)
        if check:
            pending = [*seen.plan.having(State.PENDING, State.UNFINISHED), *(one for one in steps if one.is_changed)]
            is_wrong = problems or (differ and differ.comparison.differences)
            sys.exit(1 if is_wrong else 3 if pending else 0)


def _drift(ctx: click.Context, request: Request) -> Drift:
    from outreach_migrate.schema import drift

    ignore = project.default(ctx, "drift", "ignore")
    return drift.find(request, private=options.scratch_folder(ctx.obj), ignore=ignore or ())


@click.command(cls=usage.StrictCommand)
@click.argument("files", nargs=-1, type=click.Path(exists=True, dir_okay=False), metavar="[FILE]...")
@click.option("--lint", is_flag=True, help="Run squawk over the pending files too.")
@click.option(
    "--base", type=kinds.REVISION, metavar="REF", help="A git revision whose files must be older, and unchanged."
)
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings too.")
@options.format_of("check", "github", "The output's format; github is for GitHub Actions.")
@click.pass_context
def check(ctx: click.Context, /, files: tuple[str, ...], lint: bool, base: str | None, strict: bool, form: str) -> None:
    """Look for trouble in the files, or in FILE…, and change nothing.

    Needs no database. With --database or --embedded on the command line it also compares the files with the history,
    and looks for obstacles to a run in the database. --lint covers the pending files if a database is named, else
    FILE…, else the files that are new or changed since --base, else all files.
    """
    from outreach_migrate.checks import files as looking
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.report.findings import CheckReport

    common: options.Common = ctx.obj
    with CheckReport("json" if common.as_json else form, common.verbosity) as out, options.told(out):
        found, problems = migrations.read(folders.find(common.folder))
        codes = common.codes()
        problems += codes[1] if codes else []
        chosen, problems = looking.chosen(found, problems, files)
        findings = looking.files(chosen, problems, {one.path for one in codes[0]} if codes else ())
        findings += looking.of_code(codes[0], files) if codes else []
        linted = chosen if files or not base else looking.changed(folders.on_disk(common.folder), chosen, base)
        if base:
            findings += looking.against(folders.on_disk(common.folder), found, base)
        if common.embedded or options.distance(ctx.find_root(), "database") == 0:
            from outreach_migrate.checks import database

            with options.database(common, out) as target:
                pending, met = database.look(options.request(common, target, (found, [])), out.locked)
            findings += met
            numbers = {migration.number for migration in pending}
            linted = [migration for migration in chosen if migration.number in numbers]
        if lint:
            from outreach_migrate.checks import lint as squawk

            findings += squawk.findings(linted)
        out.findings(findings, strict=strict)
