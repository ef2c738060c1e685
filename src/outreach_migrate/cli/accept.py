"""The command accept."""

from __future__ import annotations

import sys

import click

from outreach_migrate import errors
from outreach_migrate.cli import options, usage


@click.command(cls=usage.StrictCommand)
@click.argument("versions", type=int, nargs=-1, required=True, metavar="VERSION...")
@click.option("--yes", is_flag=True, help="Don't ask.")
@click.pass_obj
def accept(common: options.Common, /, versions: tuple[int, ...], yes: bool) -> None:
    """Record the present checksum of applied files that were edited.

    For an edit that a database can't notice, such as a formatter's or one in a comment. Shows when and by which role
    each file was applied, both checksums, and the difference if git has the applied text. Then it asks.
    """
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.report import accepting as report

    with report.AcceptReport(as_json=common.as_json, verbosity=common.verbosity) as out, options.told(out):
        found = migrations.read(folders.find(common.folder))
        from outreach_migrate.files import git
        from outreach_migrate.run import accepting, stop

        with options.database(common, out) as target:
            request = options.request(common, target, found)
            edited = accepting.find(request, versions, out.locked)
            texts = {one.migration.version: git.version_with(one.migration, one.entry.checksum) for one in edited}
            out.edited(edited, texts)
            if edited and not yes and not _agreed(len(edited)):
                out.declined()
                sys.exit(1)
            if edited:
                accepting.record(request, edited, lambda _: None, stop.Stop())
            out.accepted(edited)


def _agreed(count: int) -> bool:
    """Ask; raise UsageError if nobody can answer."""
    if not sys.stdin or not sys.stdin.isatty():
        raise errors.UsageError("nobody can be asked here, because stdin is no terminal", hint="To accept: --yes")
    what = "this checksum" if count == 1 else f"these {count} checksums"
    return click.confirm(f"Record {what} of the {'file' if count == 1 else 'files'}?", err=True)
