"""The command import, which copies another tool's migrations."""

from __future__ import annotations

import click

from outreach_migrate.cli import options, usage


@click.command("import", cls=usage.Command)
@click.argument("folder", type=click.Path(exists=True, file_okay=False), metavar="DIR")
@click.option(
    "--from", "tool", type=options.TOOL, metavar="TOOL", help="The tool that made it.  [default: by its shape]"
)
@click.option("--dry-run", is_flag=True, help="Show the files that would be written, and write nothing.")
@click.pass_context
def import_(ctx: click.Context, /, folder: str, tool: str | None, dry_run: bool) -> None:
    """Copy another tool's folder of migrations into files of this program.

    DIR stays as it is. No file is overwritten, and a second import adds only the new ones. Folders of prisma, dbmate,
    goose, golang-migrate, sqlx, tern, flyway, diesel, hasura, supabase, drizzle and yoyo are known by their shape.
    """
    from outreach_migrate.adopt import copy
    from outreach_migrate.files import folders
    from outreach_migrate.report import importing

    common: options.Common = ctx.obj
    with importing.ImportReport(as_json=common.as_json, verbosity=common.verbosity) as out, options.told(out):
        planned = copy.plan(folder, folders.on_disk(common.folder), tool)
        if not dry_run:
            copy.write(planned)
        commands = ctx.find_root().command
        known = commands.commands if isinstance(commands, click.Group) else {}
        out.imported(planned, written=not dry_run, can_adopt="adopt" in known)
