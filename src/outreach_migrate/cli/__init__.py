"""The command line. Each command parses its options, calls one function, and reports the result."""

from __future__ import annotations

import os
from typing import Any

import click

from outreach_migrate import __version__
from outreach_migrate.cli import (
    accept,
    apply,
    beside,
    fleet,
    fleet_each,
    group,
    kinds,
    look,
    manual,
    moving,
    options,
    project,
    schema,
)

EPILOG = """\
`outreach-migrate help` lists the pages of the manual, `outreach-migrate help SUBJECT` prints one.

The database is the first of these that is set: --database, OUTREACH_MIGRATE_DATABASE, DATABASE_URL, database in
pyproject.toml, libpq's own variables (PGHOST, PGSERVICE, …).

Every option can be set as OUTREACH_MIGRATE_<OPTION>, a command's own as OUTREACH_MIGRATE_<COMMAND>_<OPTION>, or in
[tool.outreach-migrate] of pyproject.toml, in this folder or in the nearest one above that has it.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 `status --check` with something pending, 129, 130 and 143 after SIGHUP,
SIGINT and SIGTERM."""


@click.group(
    cls=group.MainGroup,
    context_settings={
        "auto_envvar_prefix": project.PREFIX,
        "help_option_names": ["-h", "--help"],
    },
    epilog=EPILOG,
)
@click.option(
    "--database",
    metavar="URL",
    envvar=["OUTREACH_MIGRATE_DATABASE", "DATABASE_URL"],
    help="A postgresql:// URL or a libpq key=value string.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(),
    metavar="DIR",
    default="sql",
    show_default=True,
    envvar="OUTREACH_MIGRATE_DIR",
    help="The folder with the migrations, or PACKAGE:PATH.",
)
@click.option(
    "--code",
    type=click.Path(exists=True, file_okay=False),
    metavar="DIR",
    help="The folder with views, functions and the like.  [default: code, below the migrations]",
)
@click.option("--table", metavar="[SCHEMA.]NAME", help="The history table.  [default: public.schema_migrations]")
@click.option("--embedded", is_flag=True, help="Use a private PostgreSQL, kept in .outreach.")
@click.option(
    "--wait",
    type=kinds.DURATION,
    default="0",
    show_default=True,
    metavar="SECONDS",
    help="Keep trying while the server starts or can't be reached.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="OUTREACH_MIGRATE_JSON",
    help="Print one JSON document on stdout at the end.",
)
@click.option(
    "--set",
    "values",
    type=kinds.ASSIGNMENT,
    multiple=True,
    metavar="NAME=VALUE",
    allow_from_autoenv=False,
    help="The value of a variable in the files; may be repeated.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Print each statement's command tag.")
@click.version_option(__version__, "-V", "--version", allow_from_autoenv=False)
@click.pass_context
def main(ctx: click.Context, /, quiet: bool, verbose: bool, values: tuple[tuple[str, str], ...], **common: Any) -> None:
    """Apply plain, versioned .sql files to PostgreSQL, each in one transaction with its row."""
    from outreach_migrate.report import terminal

    if os.environ.get("NO_COLOR") or terminal.is_dumb():
        ctx.color = False
    url, embedded = (options.distance(ctx, name) for name in ("database", "embedded"))
    if url == embedded == 0:
        raise click.UsageError("--database and --embedded name two databases: give only one")
    if url < embedded:  # such as DATABASE_URL, and embedded = true in pyproject.toml
        common["embedded"] = False
    found = ctx.meta[project.__name__]
    if found.root != "." and not quiet:
        click.echo(f"Using {found.path('pyproject.toml')}.", err=True)
    ctx.obj = options.Common(**common, verbosity=verbose - quiet, project=found, values=dict(values))


for command in (
    apply.up,
    look.status,
    beside.new,
    fleet.fleet,
    moving.import_,
    moving.adopt,
    moving.baseline,
    accept.accept,
    look.check,
    apply.rehearse,
    schema.dump,
    schema.types,
    schema.drift,
    schema.squash,
    beside.psql,
    manual.help_,
):
    main.add_command(command)

for command in (fleet_each.adopt, fleet_each.baseline, fleet_each.drift):
    fleet.fleet.add_command(command)
