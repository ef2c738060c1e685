"""A migration of another tool, as its reader gives it."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from outreach_migrate import display
from outreach_migrate.errors import Location, MigrationFileError, Problem
from outreach_migrate.files import foreign, statements

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_SIGNS = " _-,;:!?.'\"()[]{}@*/\\&#%`^+<=>|~$"  # in the order of Unicode's root collation


class Part(StrEnum):
    """A part of a file that is left out, or replaced."""

    BOM = "the byte-order mark"
    MARK = "the tool's mark"
    TRANSACTION = "transaction control, which changes nothing in a file of one transaction"
    AUTOCOMMIT = "transaction control, which a file without a transaction does not need"
    ISOLATION = "the isolation level, which becomes a directive"
    WAY_DOWN = "the way down"
    ROWS = "rows, which stay"


class Reason(StrEnum):
    """The reasons why something in a folder is not carried over."""

    WAY_DOWN = "a way down: there is none here"
    NO_SQL = "not SQL"
    NO_FILE = "no SQL file in it"
    NO_VERSION = "its name has no version, and its tool skips it"
    SKIPPED = "its tool skips it"
    REPEATABLE = "its tool runs it again after each change of its text"
    BASELINE = "its tool runs it instead of other files, which are carried over"
    SETTINGS = "settings of its tool"
    REPEATED = "its tool runs it after each of its runs, not once"
    UNWRITTEN = "its SQL must be written by hand; until then check refuses the new file"


@dataclass(frozen=True, slots=True)
class Cut:
    """A part of a text that is left out, by its offsets in characters; `instead` is written in its place."""

    start: int
    stop: int
    part: Part
    instead: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """A file or folder that is not carried over."""

    path: str
    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A migration: its name as its tool knows it, its version's digits, and the name that its new file has.

    `marks` are those of files.directives.Origin. `text` is decoded, and otherwise as it stands in the file; `cuts` are
    the tool's own marks and the way down. `unwritten` says why a person must write the SQL.
    """

    name: str
    version: str
    title: str
    path: str
    text: str = ""
    marks: tuple[str, ...] = ()
    transaction: bool = True
    cuts: tuple[Cut, ...] = ()
    unwritten: str = ""


@dataclass(frozen=True, slots=True)
class Folder:
    """All migrations of a folder, in its tool's order, and everything that is not carried over."""

    sources: tuple[Source, ...]
    left: tuple[Left, ...] = ()


def listed(folder: str) -> list[os.DirEntry[str]]:
    """List a folder, sorted by name, without names that start with a dot; raise MigrationFileError."""
    try:
        with os.scandir(folder) as listing:
            found = [entry for entry in listing if not entry.name.startswith(".")]
    except OSError as error:
        raise _refused(folder, f"cannot be read: {error.strerror}") from error
    for entry in found:
        if entry.name.endswith(".sql") and not entry.is_file() and not entry.is_dir():  # its tool would miss it, too
            raise _refused(display.in_line(entry.path), "not a regular file, but perhaps a link to nothing")
    return sorted(found, key=lambda entry: entry.name)


def of_files(
    folder: str,
    one: Callable[[os.DirEntry[str]], Source | Left | None],
    *,
    key: Callable[[Source], int | str] = lambda found: int(found.version),
) -> Folder:
    """Read a folder whose migrations are files, each by the function `one`, and sort them by `key`."""
    read = [one(entry) for entry in listed(folder) if entry.is_file()]
    sources = [found for found in read if isinstance(found, Source)]
    return Folder(tuple(sorted(sources, key=key)), tuple(found for found in read if isinstance(found, Left)))


def read(path: str) -> str:
    """Read a file's text, as it stands; raise MigrationFileError."""
    if display.in_line(path) != path:
        raise _refused(display.in_line(path), "a name with characters that can't be shown")
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().decode()
    except OSError as error:
        raise _refused(path, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}"
        raise _refused(path, message, "Save the file as UTF-8.") from error


def title(rest: str) -> str:
    """Give the name of a new file, from the part of the old file's name after the version."""
    name = rest.strip("_. -") or "migration"
    if foreign.one_way(f"{name}.sql"):  # a file of that name would be refused
        stem, _, way = name.rpartition(".")
        return f"{stem}_{way}"
    return name


def collated(name: str) -> tuple[str, str, str]:
    """Give a key that sorts as JavaScript's localeCompare() does: signs, digits, letters; then accents; then case."""
    parts = unicodedata.normalize("NFD", name)
    base = "".join(sign for sign in parts.lower() if not unicodedata.combining(sign))
    ranked = "".join(chr(_SIGNS.index(sign) + 1) if sign in _SIGNS else sign for sign in base)
    return ranked, parts.lower(), name.swapcase()


def dated(sources: Sequence[Source], dates: Sequence[str]) -> list[Source]:
    """Give each migration its date as the version, if each has one and they are in order; else give none any."""
    in_order = all(dates) and all(int(first) < int(second) for first, second in pairwise(dates))
    return [replace(one, version=date if in_order else "") for one, date in zip(sources, dates, strict=True)]


def malformed(path: str, line: int | None, message: str) -> MigrationFileError:
    """Make the error for a file that its own tool refuses."""
    return _refused(path, message, "Its own tool refuses the file, too: correct it there.", line)


def _refused(path: str, message: str, hint: str | None = None, line: int | None = None) -> MigrationFileError:
    return MigrationFileError([Problem(message, Location(path, line), hint)])


def is_open(text: str) -> bool:
    """Tell whether a text's last statement has no semicolon."""
    found = list(statements.split(text))
    return bool(found) and statements.end(text, found[-1]) == found[-1].end


def lines(text: str) -> Iterator[tuple[int, str]]:
    r"""Yield each line's offset, and its text without its end, which is \n or \r\n."""
    start = 0
    for line in text.split("\n"):
        yield start, line.removesuffix("\r")
        start += len(line) + 1
