"""The Python module of a database's rows."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outreach_migrate.postgres import connections
from outreach_migrate.schema import python, rows
from outreach_migrate.schema.classes import Style

if TYPE_CHECKING:
    from outreach_migrate.run.request import Request

_COMMAND = "outreach-migrate types"
_SCRATCH = f"{_COMMAND} --scratch"
_HEAD = 1000  # characters, which have the command


@dataclass(frozen=True, slots=True)
class TypesWanted:
    """The rows that a module is for, and the kind of its classes; `scratch` is for the command in its head."""

    schema: str
    style: Style
    inserts: bool
    scratch: bool = False


def module(request: Request, wanted: TypesWanted, path: str | None) -> str:
    """Write the module for the request's database; its head has the command that makes the file of `path` again.

    Raise UsageError for a schema that is not there, ConnectionFailed, MigrateError.
    """
    with (
        connections.translated(),
        connections.of(request.connection, request.target, wait=request.wait) as connection,
    ):
        found = rows.read(connection, wanted.schema, request.table)
    title = f"Rows of the tables and views of the schema {wanted.schema}."
    return python.module(found, wanted.style, inserts=wanted.inserts, title=title, command=_command(wanted, path))


def names_scratch(path: str) -> bool:
    """Tell whether the command in the head of a module has --scratch; False for a file that can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return f"\n{_SCRATCH} " in file.read(_HEAD)
    except OSError:
        return False


def _command(wanted: TypesWanted, path: str | None) -> str:
    """Write the command; it names no database, because another one with the same schema gives the same module."""
    words = (_SCRATCH if wanted.scratch else _COMMAND).split()
    if path is not None:
        words += ["--out", os.path.normpath(path).replace(os.sep, "/")]
    if wanted.style is not Style.DATACLASS:
        words += ["--style", wanted.style]
    if wanted.schema != "public":
        words += ["--schema", wanted.schema]
    return shlex.join(words + ["--inserts"] * wanted.inserts)
