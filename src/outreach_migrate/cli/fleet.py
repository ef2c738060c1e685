"""The commands fleet up and fleet status, for many targets at once."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from outreach_migrate import errors
from outreach_migrate.cli import kinds, options, signals, usage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outreach_migrate.errors import Problem
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.fleet.targets import Member
    from outreach_migrate.report.fleet import FleetReport

_SOURCES = ("schemas", "schemas_from", "databases", "databases_from", "targets")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The common options, and the options of `fleet`, by which the targets are found."""

    common: options.Common
    ctx: click.Context
    shard: tuple[int, int] | None

    def source(self) -> tuple[str, str]:
        """Give the option that names the targets, with its value; the command line beats settings."""
        given = [name for name in _SOURCES if self.ctx.params[name] is not None]
        if not given:
            hint = f"Give one of {_options(_SOURCES)}, after fleet."
            raise errors.UsageError("no targets are named", hint=hint, page="fleets")
        nearest = min(options.distance(self.ctx, name) for name in given)
        given = [name for name in given if options.distance(self.ctx, name) == nearest]
        if len(given) > 1:
            message = f"the targets are named in {len(given)} ways: {_options(given)}"
            raise errors.UsageError(message, hint="Give one.", page="fleets")
        return given[0], self.ctx.params[given[0]]


def _options(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


@click.group(cls=usage.StrictGroup)
@click.option("--schemas", metavar="PATTERN", help="The schemas of the database whose names match, as 'tenant_*'.")
@click.option(
    "--schemas-from", metavar="QUERY", type=click.UNPROCESSED, help="The schemas of the database that a query names."
)
@click.option("--databases", metavar="PATTERN", help="The databases of the server whose names match.")
@click.option(
    "--databases-from", metavar="QUERY", type=click.UNPROCESSED, help="The databases of the server that a query names."
)
@click.option(
    "--targets",
    type=click.Path(dir_okay=False, allow_dash=True),
    metavar="FILE",
    help="A file with NAME URL a line, where ${VARIABLES} are filled in; - is stdin.",
)
@click.option("--shard", type=kinds.SHARD, metavar="N/M", help="Only a part of them, by a hash of the name.")
@click.pass_context
def fleet(ctx: click.Context, /, shard: tuple[int, int] | None, **_: str | None) -> None:
    """Migrate many schemas or databases at once, or look at them.

    Each target has its own history. The options here name the targets, and stand before the command; --database names
    the database or the server.
    """
    ctx.obj = Chosen(ctx.obj, ctx, shard)


jobs = click.option(
    "-j",
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    default=4,
    show_default=True,
    help="How many targets run at once, each on a connection of its own.",
)


def failures(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for the number of failures that end a fleet."""
    keep_going = click.option("--keep-going", is_flag=True, help="Try all targets, even after failures.")
    most = click.option(
        "--max-failures",
        type=click.IntRange(min=1),
        metavar="N",
        default=1,
        show_default=True,
        help="Start no more targets after this many failures.",
    )
    return keep_going(most(command))


@fleet.command
@jobs
@click.option(
    "--canary",
    type=click.IntRange(min=0),
    metavar="N",
    default=0,
    show_default=True,
    help="Migrate the first N alone, and the rest only if these succeed.",
)
@failures
@options.of_a_run
@click.option("--dry-run", is_flag=True, help="Print the SQL that would run in which targets, and run nothing.")
@options.lock_retries
@options.max_lag
@click.pass_obj
def up(
    chosen: Chosen, /, jobs: int, canary: int, keep_going: bool, max_failures: int, dry_run: bool, **given: Any
) -> None:
    """Apply the pending migrations of each target, in order."""
    common = chosen.common
    out = _report(common, dry_run=dry_run)
    with out, options.told(out):
        found = files(chosen)
        from outreach_migrate.fleet import dry_run as planning
        from outreach_migrate.fleet import up as many
        from outreach_migrate.postgres.dsn import Target

        with members(chosen, out) as targets:
            request = options.request(common, Target({}), found, **given)
            asked = many.Fleet(targets, request, jobs, canary, None if keep_going else max_failures)
            work: Callable[..., object] = partial(planning.run if dry_run else many.run, asked)
            signals.carry_out(work, out.event, tick=out.tick, unknown=out.unknown)
            out.ended()
        sys.exit(1 if out.wrong else 0)


def _report(common: options.Common, *, dry_run: bool) -> FleetReport:
    if dry_run:
        from outreach_migrate.report import fleet_dry_run

        return fleet_dry_run.DryReport(as_json=common.as_json, verbosity=common.verbosity)
    from outreach_migrate.report import fleet_up as report

    return report.UpReport(as_json=common.as_json, verbosity=common.verbosity)


@fleet.command
@jobs
@click.option("--check", is_flag=True, help="Exit with 3 when something is pending, with 1 when something is wrong.")
@click.pass_obj
def status(chosen: Chosen, /, jobs: int, check: bool) -> None:
    """Show targets that are up to date, behind, or in trouble. Writes nothing."""
    from outreach_migrate.report import fleet_status as report

    common = chosen.common
    out = report.FleetStatusReport(as_json=common.as_json, verbosity=common.verbosity)
    with out, options.told(out):
        found = files(chosen)
        from outreach_migrate.fleet import status as many
        from outreach_migrate.postgres.dsn import Target

        with members(chosen, out) as targets:
            request = options.request(common, Target({}), found)
            work = partial(many.run, targets, request, jobs)
            signals.carry_out(work, out.event, tick=out.tick, unknown=out.unknown)
            out.ended()
        sys.exit(1 if out.unreadable or (check and out.wrong) else 3 if check and out.behind else 0)


def files(chosen: Chosen) -> tuple[tuple[Migration, ...], list[Problem]]:
    """Read the files once for all targets; raise UsageError if none are named, MigrationFileError for a wrong file."""
    from outreach_migrate.files import folders, migrations

    chosen.source()
    found = migrations.read(folders.find(chosen.common.folder))
    if found[1]:
        raise errors.MigrationFileError(found[1])
    return found


@contextmanager
def members(chosen: Chosen, out: FleetReport) -> Iterator[tuple[Member, ...]]:
    """Give the targets that the options name."""
    from outreach_migrate.fleet import targets
    from outreach_migrate.report import addresses

    common, (source, value) = chosen.common, chosen.source()
    out.addresses = addresses.Addresses(source, common.embedded, common.table)
    with ExitStack() as stack:
        if source == "targets":
            found = targets.listed(_lines(value), os.environ)
        else:
            database = stack.enter_context(options.database(common, out))
            find = {
                "schemas": targets.schemas,
                "schemas_from": targets.schemas_from,
                "databases": targets.databases,
                "databases_from": targets.databases_from,
            }[source]
            found = find(database, value, wait=common.wait)
        yield targets.members(found, common.table, shard=chosen.shard)


def _lines(path: str) -> list[str]:
    if path == "-" and sys.stdin is None:
        raise errors.UsageError("cannot read the targets in -: stdin is closed", page="fleets")
    try:
        with click.open_file(path, encoding="utf-8-sig") as file:
            return list(file)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise errors.UsageError(f"cannot read the targets in {path}: {reason}", page="fleets") from None
