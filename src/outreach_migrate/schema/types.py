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


@dataclass(frozen=True, slots=True)
class TypesWanted:
    """The rows that a module is for, and the kind of its classes."""

    schema: str
    style: Style
    inserts: bool


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


def _command(wanted: TypesWanted, path: str | None) -> str:
    """Write the command; it names no database, because another one with the same schema gives the same module."""
    words = ["outreach-migrate", "types"]
    if path is not None:
        words += ["--out", os.path.normpath(path).replace(os.sep, "/")]
    if wanted.style is not Style.DATACLASS:
        words += ["--style", wanted.style]
    if wanted.schema != "public":
        words += ["--schema", wanted.schema]
    return shlex.join(words + ["--inserts"] * wanted.inserts)
