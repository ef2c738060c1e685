"""The commands new and psql."""

from __future__ import annotations

import os
import signal
import sys

import click

from outreach_migrate.cli import options, usage


@click.command(cls=usage.StrictCommand)
@click.argument("name", nargs=-1, required=True)
@click.option("--no-transaction", is_flag=True, help="For statements that can't run in a transaction.")
@click.option("--edit", is_flag=True, help="Open the file in $VISUAL or $EDITOR.")
@click.pass_obj
def new(common: options.Common, /, name: tuple[str, ...], no_transaction: bool, edit: bool) -> None:
    """Create a migration file with the newest version, and print its path."""
    from outreach_migrate.files import folders
    from outreach_migrate.files import new as files

    try:
        path = files.make(folders.on_disk(common.folder), " ".join(name), transaction=not no_transaction)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None
    click.echo(path)
    if edit:
        click.edit(filename=path)


@click.command(
    cls=usage.StrictCommand, context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENT]...")
@click.pass_obj
def psql(common: options.Common, /, arguments: tuple[str, ...]) -> None:
    """Open psql on the database."""
    import shutil
    import subprocess

    from outreach_migrate.postgres import dsn, private_server
    from outreach_migrate.report import printer

    out = printer.Report("psql", as_json=False, verbosity=common.verbosity)
    with out, options.told(out), options.database(common, out) as target:
        program = shutil.which("psql") or str(private_server.program("psql"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # psql handles it
        named, variables = dsn.for_psql(target)
        sys.exit(subprocess.call([program, *named, *arguments], env={**os.environ, **variables}))
