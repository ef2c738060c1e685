"""The new files for another tool's folder, planned."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outreach_migrate.adopt import convert, folders, versions
from outreach_migrate.adopt.source import Left, Reason
from outreach_migrate.errors import MigrationFileError, Problem, UsageError
from outreach_migrate.files import copies, foreign, migrations, rules, statements
from outreach_migrate.files.folders import Text
from outreach_migrate.files.migrations import Migration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outreach_migrate.adopt.source import Part, Source


@dataclass(frozen=True, slots=True)
class TextChange:
    """Something that the new file lacks: its line in the old one, and the first line of its text."""

    part: Part
    line: int
    text: str


@dataclass(frozen=True, slots=True)
class New:
    """A new file: its source, its text, and the changes.

    `renumbered` says that it could not keep its version. `check` reports the `problems` until somebody mends them.
    """

    source: Source
    version: str
    path: str
    text: str
    changes: tuple[TextChange, ...]
    problems: tuple[Problem, ...]

    @property
    def renumbered(self) -> bool:
        """Whether it has another version than the old one."""
        return self.version != self.source.version


@dataclass(frozen=True, slots=True)
class Import:
    """The new files of an import, in order, and everything not carried over; `present` files were there before."""

    tool: str
    folder: str
    target: str
    files: tuple[New, ...]
    left: tuple[Left, ...]
    present: int


def plan(folder: str, target: str, tool: str | None = None, *, python: str | None = None) -> Import:
    """Read a folder, and plan the new files of its migrations in `target`; write nothing.

    Raise UsageError if the tool is not known, or the target has other migrations; MigrationFileError if a file can't be
    read as its tool reads it, or the target has a part of another import.
    """
    if cut_short := foreign.cut_short(target):
        raise MigrationFileError([cut_short])
    tool = folders.tool(folder, tool)
    read = folders.read(folder, tool, python)
    if not read.sources:
        raise UsageError(f"{folder} has no {tool} migrations", hint=folders.shape(tool))
    _check_target(folder, target, read.sources)
    there = _there(target)
    present = {one.directives.origin.name for one in there if _is_from(one, tool) and one.directives.origin}
    if there and not present:
        message = f"{target} has migrations already that were not imported from {tool}, such as {there[0].path}"
        raise UsageError(message, hint="Name another folder: outreach-migrate --dir NEW import …")
    sources = [source for source in read.sources if source.name not in present]
    newest = max(there, key=lambda one: one.number).version if there else None
    given = versions.assign([source.version for source in sources], after=newest)
    files = [_new(source, version, target, tool) for source, version in zip(sources, given, strict=True)]
    unwritten = [Left(one.path, Reason.UNWRITTEN, one.unwritten) for one in sources if one.unwritten]
    return Import(tool, folder, target, tuple(files), (*read.left, *unwritten), len(read.sources) - len(sources))


def _check_target(folder: str, target: str, sources: Sequence[Source]) -> None:
    """Refuse to write beside the old files, where each run would meet both."""
    if any(os.path.realpath(os.path.dirname(one.path)) == os.path.realpath(target) for one in sources):
        message = f"{folder} is the folder that would be written to"
        raise UsageError(message, hint=f"Name another: outreach-migrate --dir NEW import {folder}")


def _there(target: str) -> tuple[Migration, ...]:
    """Read the migrations of the target; the problems of other files there don't matter here."""
    return migrations.read(target)[0] if os.path.lexists(target) else ()


def _is_from(migration: Migration, tool: str) -> bool:
    origin = migration.directives.origin
    return origin is not None and origin.tool == tool


def _new(source: Source, version: str, target: str, tool: str) -> New:
    text, cuts = convert.text(source, tool)
    path = os.path.join(target, f"{version}_{source.title}.sql")
    changes = [
        TextChange(
            cut.part, statements.place(source.text, cut.start)[0], _first_line(source.text[cut.start : cut.stop])
        )
        for cut in cuts
    ]
    migration = Migration(version, source.title, path, *copies.read(Text(path, text.encode())))
    problems = [] if source.unwritten else rules.problems(migration)
    return New(source, version, path, text, tuple(changes), tuple(problems))


def _first_line(text: str) -> str:
    return text.strip("\ufeff").strip().partition("\n")[0].rstrip()
