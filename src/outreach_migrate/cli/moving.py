"""The commands by which a project moves from another tool: import, adopt, baseline."""

from __future__ import annotations

from typing import Any

import click

from outreach_migrate.cli import kinds, options, project, usage


@click.command("import", cls=usage.StrictCommand)
@click.argument("folder", type=click.Path(exists=True, file_okay=False), metavar="DIR")
@click.option("--from", "tool", type=kinds.TOOL, metavar="TOOL", help="The tool that made it.  [default: by its shape]")
@click.option(
    "--python",
    metavar="PYTHON",
    help="The Python that has alembic.  [default: that of .venv or venv in DIR, else of this program]",
)
@click.option("--dry-run", is_flag=True, help="Show the files that would be written, and write nothing.")
@click.pass_context
def import_(ctx: click.Context, /, folder: str, tool: str | None, python: str | None, dry_run: bool) -> None:
    """Copy another tool's folder of migrations into files of this program.

    DIR stays as it is. No file is overwritten, and a second import adds only the new ones. Folders of prisma, dbmate,
    goose, golang-migrate, sqlx, tern, flyway, diesel, hasura, supabase, drizzle, yoyo and alembic are known by their
    shape. alembic itself writes its revisions' SQL, and runs the project's env.py.
    """
    from outreach_migrate.adopt import copy, writing
    from outreach_migrate.files import folders
    from outreach_migrate.report import importing

    common: options.Common = ctx.obj
    with importing.ImportReport(as_json=common.as_json, verbosity=common.verbosity) as out, options.told(out):
        target = folders.on_disk(common.folder)
        if not dry_run and (finished := writing.finish(target)):
            out.finished(target, finished)
        planned = copy.plan(folder, target, tool, python=python)
        if not dry_run:
            writing.write(planned)
        commands = ctx.find_root().command
        known = commands.commands if isinstance(commands, click.Group) else {}
        out.imported(planned, written=not dry_run, can_adopt="adopt" in known)


@click.command(cls=usage.StrictCommand)
@options.of_a_takeover
@click.pass_obj
def adopt(common: options.Common, /, **given: Any) -> None:
    """Take over the history of a database that another tool has migrated.

    Writes an entry for each migration that the tool has applied, with its original time. The tool's table stays as it
    is. A database that has a history already is left alone, and so is one that no tool has migrated: the command can
    stand in a deployment, before up.
    """
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.report import adopting

    with adopting.AdoptReport("adopt", as_json=common.as_json, verbosity=common.verbosity) as out, options.told(out):
        found = migrations.read(folders.find(common.folder))
        from outreach_migrate.adopt import taking_over
        from outreach_migrate.run import stop

        with options.database(common, out) as target:
            wanted = taking_over.Wanted(**given)
            done = taking_over.run(options.request(common, target, found), wanted, out.event, stop.Stop())
            if isinstance(done, taking_over.Nothing):
                out.nothing(done)
            else:
                out.taken_over(done)


@click.command(cls=usage.StrictCommand)
@click.argument("version", type=int)
@options.verifying
@click.pass_context
def baseline(ctx: click.Context, /, version: int, verify: bool, accept_differences: bool) -> None:
    """Record the files up to VERSION as applied, and run none of them.

    For a database that was made by hand, and has everything that these files would make. --verify checks that.
    """
    from outreach_migrate.files import folders, migrations
    from outreach_migrate.report import adopting

    common: options.Common = ctx.obj
    options.check_verifying({"verify": verify, "accept_differences": accept_differences})
    out = adopting.AdoptReport("baseline", as_json=common.as_json, verbosity=common.verbosity)
    with out, options.told(out):
        found = migrations.read(folders.find(common.folder))
        from outreach_migrate.adopt import baseline as recording
        from outreach_migrate.run import stop

        with options.database(common, out) as target:
            request = options.request(common, target, found)
            if verify:
                ignore = project.default(ctx, "drift", "ignore") or ()
                private = options.scratch_folder(common)
                drift = recording.compare(request, version, private=private, ignore=ignore)
                out.compared(drift)
                if drift.comparison.differences and not accept_differences:
                    raise recording.Untrue(drift)
            out.recorded(recording.run(request, version, out.event, stop.Stop()))
