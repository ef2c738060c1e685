"""Settings from outside the command line: pyproject.toml and the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from outreach_migrate import errors
from outreach_migrate.cli import usage
from outreach_migrate.files import folders, pyproject

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "OUTREACH_MIGRATE"


@dataclass(frozen=True, slots=True)
class Project:
    """The folder that relative paths start from; the group's defaults, by their names in Python; variables."""

    root: str = "."
    defaults: dict[str, Any] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict, repr=False)  # of the files' variables

    def path(self, name: str) -> str:
        """Give a path of the project, relative to the current folder."""
        return name if self.root == "." else os.path.join(self.root, name)


def find(group: click.Group) -> Project:
    """Find the nearest folder, from here upwards, with [tool.outreach-migrate] in its pyproject.toml, and read that.

    Without one the project is the current folder. Raise click.UsageError for a file that can't be read, or an unknown
    key.
    """
    try:
        found = pyproject.find(".")
    except errors.UsageError as error:
        raise click.UsageError(error.message) from None
    if found is None:
        return Project()
    root, table = found
    path = os.path.normpath(os.path.join(root, "pyproject.toml"))
    values = dict[str, str]()
    if isinstance(table, dict) and "set" in table:
        from outreach_migrate.files import variables

        table = {**table}
        try:
            values = variables.of_project(table.pop("set"), f"{path}: [tool.{pyproject.KEY}.set]")
        except errors.UsageError as error:
            raise click.UsageError(error.message) from None
    return Project(root, _defaults(Project(root), table, group, path), values)


def _defaults(project: Project, table: Any, group: click.Group, path: str) -> dict[str, Any]:
    if isinstance(table, dict) and isinstance(file := table.get("dump"), str):  # the option of two commands
        run = table.get("up", {})
        table = {**table, "dump": {"out": file}, "up": {"dump": file, **run} if isinstance(run, dict) else run}
    found = _values(project, table, group, path, f"tool.{pyproject.KEY}")
    if "folder" not in found and project.root != ".":
        default = next(param.default for param in group.params if param.name == "folder")
        found["folder"] = project.path(str(default))
    return found


def _values(project: Project, table: Any, command: click.Command, path: str, name: str) -> dict[str, Any]:
    where, commands = f"{path}: [{name}]", _commands(command)
    known: dict[str, click.Option | click.Command] = {**_by_key(command.params), **commands}
    if not isinstance(table, dict):
        raise click.UsageError(f"{where} must be a table")
    values: dict[str, Any] = {}
    for key, value in table.items():
        one = known.get(key.replace("_", "-"))
        if usage.has_login(key):
            raise click.UsageError(f'{where} has a URL as a key: {usage.WAY_OUT}, or write database = "…"')
        if one is None:
            raise click.UsageError(f"{where} has an unknown key: {key}{usage.meant(key, known)}")
        is_list = isinstance(value, list) and all(isinstance(part, str) for part in value)
        if isinstance(one, click.Command):
            values[str(one.name)] = _values(project, value, one, path, f"{name}.{one.name}")
        elif one.multiple and is_list:
            values[str(one.name)] = value
        elif one.multiple or not isinstance(value, str | int | float):
            raise click.UsageError(f"{where} has a {type(value).__name__} as {key}")
        elif isinstance(one.type, click.Path) and value != "-" and not folders.is_package(str(value)):
            values[str(one.name)] = project.path(str(value))
        else:
            values[str(one.name)] = value if isinstance(value, bool) else str(value)
    return values


def default(ctx: click.Context, command: str, name: str) -> Any:
    """Give the default that pyproject.toml has for a parameter of another command; None if it has none."""
    return (ctx.find_root().default_map or {}).get(command, {}).get(name)


def _by_key(params: Iterable[click.Parameter]) -> dict[str, click.Option]:
    """Give the options that settings can name, by their names on the command line."""
    options = (param for param in params if isinstance(param, click.Option) and param.expose_value)
    return {max(option.opts, key=len).lstrip("-"): option for option in options}


def _commands(command: click.Command) -> dict[str, click.Command]:
    return {**command.commands} if isinstance(command, click.Group) else {}


def variables(command: click.Command, scope: str = PREFIX) -> list[str]:
    """Name the variables that set an option of a command, or of one of its own commands."""
    found = [f"{scope}_{key}".upper().replace("-", "_") for key in _by_key(command.params)]
    return found + [one for name, below in _commands(command).items() for one in variables(below, f"{scope}_{name}")]


def check_variables(group: click.Group) -> None:
    """Refuse a variable that sets no option, because it may be misspelt, and the run would go on without it."""
    known = variables(group)
    for name in sorted(os.environ):
        if name.startswith(f"{PREFIX}_") and not name.startswith(f"{PREFIX}_SET_") and name not in known:
            raise click.UsageError(f"the variable {name} sets no option{usage.meant(name, known)}")
