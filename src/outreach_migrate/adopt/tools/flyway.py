"""Flyway's folders, whose versions have several numbers."""

from __future__ import annotations

import os
import re
from datetime import datetime
from typing import TYPE_CHECKING

from outreach_migrate.adopt import source
from outreach_migrate.adopt.source import Folder, Left, Reason, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_NAME = re.compile(r"V([0-9]+(?:[._][0-9]+)*)(?:__(.*))?\.(sql|java|kt)", re.DOTALL)
_OTHERS = (
    (re.compile(r"R__.*\.sql", re.DOTALL), Reason.REPEATABLE),
    (re.compile(r"U[0-9].*\.sql", re.DOTALL), Reason.WAY_DOWN),
    (re.compile(r"B[0-9].*\.sql", re.DOTALL), Reason.BASELINE),
    (re.compile(r"(?:before|after|create)[A-Z]\w*(?:__.*)?\.sql", re.DOTALL), Reason.REPEATED),
    (re.compile(r".*\.(?:conf|toml)", re.DOTALL), Reason.SETTINGS),
)
_PLACEHOLDER = re.compile(r"\$\{[^}\n]*\}")
_SETTING = re.compile(r"^[ \t]*(?i:--[ \t]*flyway:[ \t]*)?(\w+)[ \t]*[=:][ \t]*(.*?)[ \t]*$", re.MULTILINE)
_OF_A_TEXT = re.compile(r"^[ \t]*--[ \t]*flyway:.*$", re.MULTILINE | re.IGNORECASE)


def flyway(folder: str) -> Folder:
    """Read Flyway's files in a folder and the folders in it, sorted by version; see ResourceNameParser.java."""
    found, left = dict[tuple[int, ...], Source](), list[Left]()
    for path in _files(folder):
        name = os.path.basename(path)
        match = _NAME.fullmatch(name)
        if not match:
            left += [Left(path, reason) for pattern, reason in _OTHERS if pattern.fullmatch(name)][:1] or (
                [Left(path, Reason.SKIPPED)] if name.endswith(".sql") else []
            )
            continue
        key = _key(match[1])
        if first := found.get(key):
            raise source.malformed(path, None, f"{os.path.basename(first.path)} has the same version")
        found[key] = _source(folder, path, match)
    ordered = [found[key] for key in sorted(found)]
    return Folder(tuple(_versioned(ordered)), tuple(left))


def _files(folder: str) -> Iterator[str]:
    for entry in source.listed(folder):
        if entry.is_dir():
            yield from _files(entry.path)
        else:
            yield entry.path


def _key(version: str) -> tuple[int, ...]:
    """Give the numbers of a version without zeros at its end, because 1.0 is 1 for Flyway."""
    numbers = [int(part) for part in re.split(r"[._]", version)]
    while numbers and not numbers[-1]:
        numbers.pop()
    return tuple(numbers)


def _source(folder: str, path: str, match: re.Match[str]) -> Source:
    name, _ = os.path.splitext(os.path.relpath(path, folder))
    title = source.title(match[2] or "")
    if match[3] != "sql":
        return Source(name, match[1], title, path, unwritten="Flyway runs Java code here")
    text = source.read(path)
    settings = _settings(text, f"{path}.conf")
    placeholder = _PLACEHOLDER.search(text) if settings.get("placeholderreplacement", "").lower() != "false" else None
    unwritten = f"Flyway writes a value in the place of {placeholder[0]}" if placeholder else ""
    if condition := settings.get("shouldexecute"):
        unwritten = f"Flyway runs it only on a condition: {condition}"
    alone = settings.get("executeintransaction", "").lower() == "false"
    return Source(name, match[1], title, path, text, transaction=not alone, unwritten=unwritten)


def _settings(text: str, path: str) -> dict[str, str]:
    """Read one file's settings, of its .conf and of its comments `-- flyway: …`; their names are in lower case."""
    lines = "\n".join([*_OF_A_TEXT.findall(text), source.read(path) if os.path.isfile(path) else ""])
    return {key.lower(): value for key, value in _SETTING.findall(lines)}


def _versioned(sources: list[Source]) -> Iterable[Source]:
    """Keep the versions if each is one number; else take the dates in them, if they are in order."""
    if all(one.version.isdecimal() for one in sources):
        return sources
    return source.dated(sources, [_date(one.version) for one in sources])


def _date(version: str) -> str:
    """Read a version such as 2024.01.31 or 20240131_2 as a date with a time, 14 digits; empty if it is none."""
    first, *rest = re.split(r"[._]", version)
    digits = "".join([first, *(part.zfill(2) for part in rest)])
    if len(first) not in (4, 8, 12, 14) or any(len(part) > 2 for part in rest) or len(digits) not in range(8, 15, 2):
        return ""
    try:
        datetime.strptime(digits[:8], "%Y%m%d")  # is there such a day?
    except ValueError:
        return ""
    return digits.ljust(14, "0")
