"""The commands fleet adopt, fleet baseline and fleet drift."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from outreach_migrate.cli import fleet, options, project, signals, usage
from outreach_migrate.cli.fleet import Chosen

if TYPE_CHECKING:
    from collections.abc import Callable

    from outreach_migrate.fleet.drift import Comparing
    from outreach_migrate.fleet.each import Work


@click.command(cls=usage.StrictCommand)
@fleet.jobs
@fleet.failures
@options.of_a_takeover
@click.pass_obj
def adopt(chosen: Chosen, /, jobs: int, keep_going: bool, max_failures: int, **given: Any) -> None:
    """Take over the history of each target that another tool has migrated."""
    from outreach_migrate.adopt import taking_over

    wanted = taking_over.Wanted(**given)
    most = None if keep_going else max_failures
    _done("adopt", chosen, lambda _: lambda request, stop: taking_over.run(request, wanted, _ignore, stop), jobs, most)


@click.command(cls=usage.StrictCommand)
@click.argument("version", type=int)
@fleet.jobs
@fleet.failures
@options.verifying
@click.pass_context
def baseline(ctx: click.Context, /, version: int, keep_going: bool, max_failures: int, **given: Any) -> None:
    """Record the files up to VERSION as applied in each target, and run none."""
    from outreach_migrate.adopt import baseline as recording

    options.check_verifying(given)

    def work(stack: ExitStack) -> Work:
        if not given["verify"]:
            return lambda request, stop: recording.run(request, version, _ignore, stop)
        from outreach_migrate.fleet import baseline as verified

        return verified.Verified(version, _comparing(ctx, (), stack), given["accept_differences"]).record

    _done("baseline", ctx.obj, work, given["jobs"], None if keep_going else max_failures)


@click.command(cls=usage.StrictCommand)
@fleet.jobs
@options.ignoring("*.tmp_*", "index *.tmp_*")
@click.pass_context
def drift(ctx: click.Context, /, jobs: int, ignore: tuple[str, ...]) -> None:
    """Compare each target with its applied files."""
    _done("drift", ctx.obj, lambda stack: _comparing(ctx, ignore, stack).find, jobs, None)


def _comparing(ctx: click.Context, ignore: tuple[str, ...], stack: ExitStack) -> Comparing:
    from outreach_migrate.fleet import drift as comparing

    patterns = ignore or project.default(ctx, "drift", "ignore") or ()
    return comparing.Comparing(options.scratch_folder(ctx.obj.common), patterns, stack)


def _done(command: str, chosen: Chosen, work: Callable[[ExitStack], Work], jobs: int, most: int | None) -> None:
    """Do the work for all targets, report it, and exit with 1 if something failed or has drifted."""
    from outreach_migrate.report import fleet_each as report

    common = chosen.common
    out = report.EachReport(command, as_json=common.as_json, verbosity=common.verbosity)
    with out, options.told(out):
        found = fleet.files(chosen)
        from outreach_migrate.fleet import each as many
        from outreach_migrate.postgres.dsn import Target

        with fleet.members(chosen, out) as targets, ExitStack() as stack:
            request = options.request(common, Target({}), found)
            each = many.Each(work(stack), targets, request, jobs, most)
            failed = signals.carry_out(partial(many.run, each), out.event, tick=out.tick, unknown=out.unknown)
            out.ended()
        sys.exit(1 if failed or out.drifted else 0)


def _ignore(_: object) -> None:
    """Ignore an event."""
