"""Errors of wrong usage, which never quote a URL in the wrong place."""

from __future__ import annotations

import os
import re
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

WAY_OUT = "give it as --database"

# The look of a database's URL, even of a misspelt one: in the value of an option, in an argument for psql (whose -c may
# have any text in it), and in a message that quotes a part of it.
_VALUE = re.compile(r"://|\S:\S*@|\bpassword\s*=", re.IGNORECASE)
_WHOLE = re.compile(r"""["']?[\w+:]+:/|\w+:\S+@\S*$|(\w+\s*=\s*\S+\s+)+password\s*=""", re.IGNORECASE)
_QUOTED = re.compile(r"://|@|passw|pwd", re.IGNORECASE)


def has_login(text: str) -> bool:
    """Tell whether a text may be a database's URL, or key=value pairs with a password."""
    return _VALUE.search(text) is not None


def meant(name: str, known: Iterable[str]) -> str:
    """Suggest a known name, if one is close."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


class StrictCommand(click.Command):
    """A command that refuses a URL as the value of any option or argument, and whose summary is never cut."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the arguments, and check the values from all sources."""
        for param in self.params:  # click would name the variable after the parameter in Python
            if isinstance(param, click.Option) and param.envvar is None and param.expose_value:
                key = max(param.opts, key=len).lstrip("-")
                param.envvar = f"{ctx.auto_envvar_prefix}_{key}".upper().replace("-", "_")
        rest = super().parse_args(ctx, args)
        check(ctx)
        return rest

    def get_short_help_str(self, limit: int = 45) -> str:
        """Give the summary whole, because click wraps a long one."""
        return super().get_short_help_str(max(limit, 1000))


class StrictGroup(StrictCommand, click.Group):
    """A command with commands of its own, which are as strict."""

    command_class = StrictCommand


def check(ctx: click.Context) -> None:
    """Raise click.BadParameter for a value that looks like a URL where none belongs."""
    for param in ctx.command.params:
        value = ctx.params.get(param.name or "")
        pattern = _WHOLE.match if param.type is click.UNPROCESSED else _VALUE.search
        if param.name != "database" and any(map(pattern, _texts(value))):
            raise click.BadParameter("", ctx, param)


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, tuple) else (value,)
    return [one for one in values if isinstance(one, str)]


@contextmanager
def told(group: click.Group, words: Sequence[str], ctx: click.Context | None = None) -> Iterator[None]:
    """Print an error of wrong usage, with --json as one document, and exit with its code.

    `words` are the whole command line; `ctx` is absent if click could not read it.
    """
    try:
        yield
    except click.ClickException as error:
        from outreach_migrate import errors
        from outreach_migrate.report import as_json, printer

        safe = _safe(error)
        is_json = _wants_json(words, ctx or getattr(error, "ctx", None))
        command = next((word for word in words if word in group.commands), None)
        with printer.Report(command, as_json=is_json, verbosity=0) as out:
            safe.show()
            message = safe.message if isinstance(safe, click.UsageError) else safe.format_message()
            out.document |= {"ok": False, "error": as_json.error(errors.UsageError(message))}
        sys.exit(safe.exit_code)


def _safe(error: click.ClickException) -> click.ClickException:
    """Give an error that is safe to show: one that quotes a URL, or a part of it, is worded anew."""
    help_error = getattr(click.exceptions, "NoArgsIsHelpError", ())
    if isinstance(error, help_error) or not isinstance(error, click.UsageError):
        return error
    ctx, message = error.ctx, error.format_message()
    param = error.param if isinstance(error, click.BadParameter) else None
    if _QUOTED.search(message) or (param and not error.message and not isinstance(error, click.MissingParameter)):
        where = f"{_place(param, ctx)} has a URL, or a part of one," if param and ctx else "There is a URL"
        message = f"{where} in the wrong place: {WAY_OUT}, before the command."
    elif isinstance(error, click.NoSuchOption) and ctx:
        message = _elsewhere(error.option_name, ctx) or message
    return click.UsageError(message, ctx)


def _elsewhere(option: str, ctx: click.Context) -> str | None:
    """Say where on the command line an option belongs that stands in the wrong place; None if no command has it."""
    above = ctx.parent
    while above:
        if option in _options(above.command):
            return f"{option} stands before the command: {above.command_path} {option} …"
        above = above.parent
    below = ctx.command.commands if isinstance(ctx.command, click.Group) else {}
    names = [name for name, command in below.items() if option in _options(command)]
    command = names[0] if len(names) == 1 else "COMMAND"
    return f"{option} stands after the command: {ctx.command_path} {command} {option} …" if names else None


def _options(command: click.Command) -> list[str]:
    return [name for param in command.params for name in param.opts]


def _place(param: click.Parameter, ctx: click.Context) -> str:
    """Name a parameter as its source does: the command line, the environment or pyproject.toml."""
    source = ctx.get_parameter_source(param.name or "")
    if source == click.core.ParameterSource.DEFAULT_MAP:
        return f"{max(param.opts, key=len).lstrip('-')} in pyproject.toml"
    if source == click.core.ParameterSource.ENVIRONMENT:
        return f"The variable for {max(param.opts, key=len)}"
    return " or ".join(param.opts) if isinstance(param, click.Option) else param.human_readable_name.strip("[].")


def _wants_json(words: Sequence[str], ctx: click.Context | None) -> bool:
    """Tell whether JSON is asked for, even by a command line that click can't read."""
    while ctx and ctx.parent:
        ctx = ctx.parent
    known = {**(ctx.default_map or {}), **ctx.params} if ctx else {}
    variable = os.environ.get("OUTREACH_MIGRATE_JSON", "").lower() in {"1", "true", "t", "yes", "y", "on"}
    option = "--json" in words or re.search(r"--format[ =]json\b", " ".join(words))
    return bool(known.get("as_json") or option or variable)
