"""The commands that read the migrated schema back."""

from __future__ import annotations

from contextlib import ExitStack

import click

from outreach_migrate.cli import options, usage


@click.command(cls=usage.Command)
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write it to FILE.  [default: stdout]")
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 and a diff when FILE is out of date.")
@click.option("--scratch", is_flag=True, help="Dump what the files give, on a private PostgreSQL. Needs no database.")
@click.pass_obj
def dump(common: options.Common, /, out: str | None, check: bool, scratch: bool) -> None:
    """Write the schema as one file, to review and to commit.

    The text is pg_dump's, without owners, versions, the history table, and all else that would change from run to run.
    """
    from outreach_migrate.report.schema import DumpReport
    from outreach_migrate.schema import dump as schema

    if check and not out:
        raise click.UsageError("--check compares with a file: name it with --out")
    with DumpReport(as_json=common.as_json, verbosity=common.verbosity) as report, options.told(report):
        with ExitStack() as stack:
            if scratch:
                request = stack.enter_context(options.migrated(common))
            else:
                target = stack.enter_context(options.database(common, report))
                request = options.request(common, target, ((), []))
            text = schema.schema(request.target, request.table, wait=request.wait)
        if out is None:
            report.printed(text)
        else:
            dumped = schema.compared(out, text)
            if not check:
                schema.write(dumped)
            report.dumped(dumped, written=not check)


@click.command(cls=usage.Command)
@click.option(
    "--ignore",
    multiple=True,
    metavar="PATTERN",
    help="Leave out objects, as public.tmp_*, or 'index public.*'; may be repeated.",
)
@options.format_of("drift", "github", help="The output's format; github is for GitHub Actions.")
@click.pass_obj
def drift(common: options.Common, /, ignore: tuple[str, ...], form: str) -> None:
    """Compare the database with what its applied files give.

    They are applied to a scratch database, which is dropped again: a new one on the same server if the role may create
    databases, else one on a private PostgreSQL. The database itself is only read.
    """
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.report.schema import DriftReport
    from outreach_migrate.schema import drift as comparing

    with DriftReport("json" if common.as_json else form, common.verbosity) as out, options.told(out):
        found = migrations.read(folders.find(common.folder))
        with options.database(common, out) as target:
            request = options.request(common, target, found)
            out.found(comparing.find(request, private=options.scratch_folder(common), ignore=ignore))
