"""The commands that read the migrated schema back."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from outreach_migrate import errors
from outreach_migrate.cli import options, usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from outreach_migrate.errors import Problem
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.report.schema import DumpReport
    from outreach_migrate.run.request import Request

_INSTEAD = "apply the files to a private PostgreSQL: --scratch"


def _of_a_file(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that `dump` and `types` share."""
    shared = [
        click.option(
            "--out", type=click.Path(dir_okay=False), metavar="FILE", help="Write it to FILE.  [default: stdout]"
        ),
        click.option("--check", is_flag=True, help="Write nothing; exit with 1 and a diff when FILE is out of date."),
        click.option(
            "--scratch", is_flag=True, help="Apply the files to a private PostgreSQL, and read that. Needs no database."
        ),
    ]
    for option in reversed(shared):
        command = option(command)
    return command


@click.command(cls=usage.StrictCommand)
@_of_a_file
@click.pass_obj
def dump(common: options.Common, /, out: str | None, check: bool, scratch: bool) -> None:
    """Write the schema as one file, to review and to commit.

    The text is pg_dump's, without owners, versions, the history table, and all else that changes from run to run.
    """
    from outreach_migrate.schema import dump as schema

    def text(request: Request) -> str:
        return schema.schema(request.target, request.table, wait=request.wait)

    _make(common, "dump", "schema", text, out=out, check=check, scratch=scratch)


@click.command(cls=usage.StrictCommand)
@_of_a_file
@click.option(
    "--style",
    type=click.Choice(["dataclass", "pydantic", "msgspec", "typeddict"]),
    default="dataclass",
    show_default=True,
    metavar="STYLE",
    help="The classes: dataclass, pydantic, msgspec or typeddict.",
)
@click.option("--schema", metavar="NAME", help="The schema with the tables.  [default: the URL's, or public]")
@click.option("--inserts", is_flag=True, help="Add a TypedDict for each table, with the columns of an INSERT.")
@click.pass_obj
def types(
    common: options.Common,
    /,
    out: str | None,
    check: bool,
    scratch: bool,
    style: str,
    schema: str | None,
    inserts: bool,
) -> None:
    """Write a Python module with a class for each table and view of the migrated schema.

    psycopg's class_row makes rows of them. A type checker then knows the columns that are there.
    """
    from outreach_migrate.schema import classes, types

    def text(request: Request) -> str:
        name = schema or request.target.schema or "public"
        # a module keeps --scratch in its head, so that a database and the files alone give the same bytes
        named = (scratch and not check) or bool(out and types.names_scratch(out))
        wanted = types.TypesWanted(name, classes.Style(style), inserts=inserts, scratch=named)
        path = os.path.relpath(out, common.project.root) if out else None
        return types.module(request, wanted, path)

    _make(common, "types", "module", text, out=out, check=check, scratch=scratch)


def _make(
    common: options.Common,
    command: str,
    key: str,
    text: Callable[[Request], str],
    *,
    out: str | None,
    check: bool,
    scratch: bool,
) -> None:
    """Make a text from a database, and print it, write it, or compare it with the file."""
    from outreach_migrate.report.schema import DumpReport
    from outreach_migrate.schema import dump as schema

    if check and not out:
        raise click.UsageError("--check compares with a file: name it with --out")
    with DumpReport(command, as_json=common.as_json, verbosity=common.verbosity) as report, options.told(report):
        with ExitStack() as stack:
            if scratch:
                request = stack.enter_context(options.migrated(common))
            else:
                target = stack.enter_context(options.database(common, report, instead=_INSTEAD))
                request = options.request(common, target, _found(common))
                _compare(request, report)
            made = text(request)
        if out is None:
            report.printed(made, key)
        else:
            dumped = schema.compared(out, made)
            if not check:
                schema.write(dumped)
            report.dumped(dumped, written=not check)


def _found(common: options.Common) -> tuple[tuple[Migration, ...], list[Problem]]:
    """Read the files as far as that is possible, because a database without files has a schema, too."""
    from outreach_migrate.files import folders, migrations

    try:
        return migrations.read(folders.find(common.folder))
    except errors.MigrateError:
        return (), []


def _compare(request: Request, report: DumpReport) -> None:
    """Warn of files that the database lacks."""
    from outreach_migrate.run import comparison

    if not (request.files or request.code):
        return
    try:
        report.compared(comparison.lacking(request, report.locked))
    except (errors.HistoryError, errors.HistoryLocked) as error:  # the schema can be read all the same
        report.not_compared(error)


@click.command(cls=usage.StrictCommand)
@options.ignoring("public.tmp_*", "index public.*")
@options.format_of("drift", "github", "The output's format; github is for GitHub Actions.")
@click.pass_obj
def drift(common: options.Common, /, ignore: tuple[str, ...], form: str) -> None:
    """Compare the database with its applied files.

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


@click.command(cls=usage.StrictCommand)
@click.option("--through", type=int, metavar="VERSION", required=True, help="The newest file to replace.")
@click.option("--without-rows", is_flag=True, help="Leave out the rows that the files leave behind.")
@click.pass_obj
def squash(common: options.Common, /, through: int, without_rows: bool) -> None:
    """Replace the files up to VERSION by one, VERSION_squashed.sql.

    The files are applied to a scratch database, and the new one has its schema and rows. The scratch database is beside
    the database if one is named, else on a private PostgreSQL. A database that has all replaced files is up to date; an
    empty one runs the new file.
    """
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.report.schema import SquashReport
    from outreach_migrate.schema import squash as squashing

    with SquashReport(as_json=common.as_json, verbosity=common.verbosity) as out, options.told(out):
        folder = folders.on_disk(common.folder)
        found = migrations.read(folder)
        with ExitStack() as stack:
            request, beside = stack.enter_context(options.perhaps_beside(common, found, out))
            private = options.scratch_folder(common)
            done = squashing.make(request, through, folder, private=private, beside=beside, with_rows=not without_rows)
        squashing.write(done)
        out.squashed(done, with_rows=not without_rows)
