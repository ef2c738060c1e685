"""The group of all commands: its options' sources, and its end after wrong usage or a signal."""

from __future__ import annotations

import sys
from typing import Any

import click

from outreach_migrate import errors
from outreach_migrate.cli import project, signals, usage

_WORDS = f"{__name__}.words"  # the key of the whole command line in click's meta
_HELP = {"-h", "--help", "-V", "--version"}


class MainGroup(click.Group):
    """A group whose options take their defaults from [tool.outreach-migrate] of the project's pyproject.toml."""

    command_class = usage.StrictCommand

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """Read the options before the command."""
        words = tuple(args)
        with usage.told(self, words):
            ctx = super().make_context(info_name, args, *rest, **extra)
        ctx.meta[_WORDS] = words
        return ctx

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the defaults before the arguments; --help and help work even if the defaults are wrong."""
        found = project.Project()
        try:
            project.check_variables(self)
            found = project.find(self)
        except click.UsageError:
            if _HELP.isdisjoint(args) and args[:1] != ["help"]:
                raise
        ctx.default_map = found.defaults
        ctx.meta[project.__name__] = found
        rest = super().parse_args(ctx, args)
        usage.check(ctx)
        return rest

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; report a signal here if the command was interrupted before it could do so itself."""
        with signals.raised(), usage.told(self, ctx.meta[_WORDS], ctx):
            try:
                return super().invoke(ctx)
            except errors.Interrupted as error:
                click.echo(error.message, err=True)
                sys.exit(error.exit_code)
