"""The kinds of values that options take."""

from __future__ import annotations

from typing import Any

import click

from outreach_migrate.cli import usage


class Duration(click.ParamType[float]):
    """A duration such as 30s, 500ms, 5m, 1h, or a number of seconds; the value is in seconds, 0 for no limit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read a duration."""
        from outreach_migrate import durations

        seconds = durations.seconds(str(value))
        if seconds is None:
            self.fail(f"{value!r} is not a duration: 30s, 500ms, 5m, 1h, or a number of seconds", param, ctx)
        return seconds


DURATION = Duration()


class Assignment(click.ParamType[tuple[str, str]]):
    """A variable's name and its value, as NAME=VALUE; no message quotes the value, because it may be secret."""

    name = "assignment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Part the name from the value."""
        from outreach_migrate.files import variables

        if isinstance(value, tuple):
            return value
        name, sign, text = str(value).partition("=")
        if not sign or not variables.NAME.fullmatch(name):
            self.fail("give NAME=VALUE, where the name is letters, digits and underscores", param, ctx)
        return name, text


ASSIGNMENT = Assignment()


class Pattern(click.ParamType[str]):
    """A pattern of `--ignore`; a variable of the environment has one a line, because a pattern may have blanks."""

    name = "pattern"

    def split_envvar_value(self, rv: str) -> list[str]:
        """Part the lines; empty ones count for nothing."""
        return [line.strip() for line in rv.splitlines() if line.strip()]


PATTERN = Pattern()


class Shard(click.ParamType[tuple[int, int]]):
    """A part of all targets, such as 2/5."""

    name = "shard"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Read the part's number, and the number of parts."""
        if isinstance(value, tuple):
            return value
        nth, _, of = str(value).partition("/")
        if not (nth.isdecimal() and of.isdecimal() and 1 <= int(nth) <= int(of)):
            self.fail(f"{value!r} is not a part: 2/5 is the second of five", param, ctx)
        return int(nth), int(of)


SHARD = Shard()


class Revision(click.ParamType[str]):
    """A git revision; refuses an empty text, and one that git would take for an option."""

    name = "ref"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the revision as it is."""
        if not value.strip():
            self.fail("it is empty: is the variable that names the revision set?", param, ctx)
        if value.startswith("-"):
            self.fail(f"{value} begins with -, but no revision does", param, ctx)
        return str(value)


REVISION = Revision()


class Tool(click.ParamType[str]):
    """The name of a migration tool."""

    name = "tool"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it in lower case."""
        from outreach_migrate.adopt import folders

        known = (*folders.TOOLS, *folders.RECOGNISED)
        if value.lower() not in known:
            self.fail(f"{value!r} is none of {', '.join(folders.TOOLS)}{usage.meant(value.lower(), known)}", param, ctx)
        return str(value.lower())


TOOL = Tool()
