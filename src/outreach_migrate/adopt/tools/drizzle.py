"""drizzle's folders: with a journal (0.x), or with a folder for each migration (1.x)."""

from __future__ import annotations

import hashlib
import json
import os
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from outreach_migrate.adopt import source
from outreach_migrate.adopt.source import Cut, Folder, Left, Part, Reason, Source
from outreach_migrate.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

JOURNAL = os.path.join("meta", "_journal.json")
_BREAKPOINT = re.compile("--> statement-breakpoint")


def drizzle(folder: str) -> Folder:
    """Read the migrations in the journal's order, or in that of their folders; see drizzle-orm/src/migrator.ts."""
    path = os.path.join(folder, JOURNAL)
    if not os.path.exists(path):
        return _folders(folder)
    sources = [_source(os.path.join(folder, f"{tag}.sql"), tag, when) for tag, when in _entries(path)]
    known = {one.path for one in sources}
    beside = [
        entry.path
        for entry in source.listed(folder)
        if (entry.name.endswith(".sql") and entry.path not in known) or os.path.exists(_in(entry))
    ]
    return Folder(tuple(sources), tuple(Left(one, Reason.SKIPPED) for one in beside))


def _folders(folder: str) -> Folder:
    """Read the migrations of 1.x, which records the date in a folder's name as its `when`."""
    sources, left = list[Source](), list[Left]()
    for entry in sorted(source.listed(folder), key=lambda entry: source.collated(entry.name)):
        if not os.path.exists(_in(entry)):
            left += [Left(entry.path, Reason.NO_FILE)] if entry.is_dir() and entry.name != "meta" else []
            continue
        sources.append(_source(_in(entry), entry.name, _when(entry.name[:14])))
        others = {one.name for one in source.listed(entry.path)} - {"migration.sql", "snapshot.json"}
        left += [Left(os.path.join(entry.path, name), Reason.SKIPPED) for name in sorted(others)]
    return Folder(tuple(sources), tuple(left))


def _in(entry: os.DirEntry[str]) -> str:
    return os.path.join(entry.path, "migration.sql")


def _when(digits: str) -> int | None:
    try:
        return int(datetime.strptime(f"{digits}+0000", "%Y%m%d%H%M%S%z").timestamp()) * 1000
    except ValueError:
        return None


def _entries(path: str) -> list[tuple[str, int | None]]:
    """Read the names of the migrations, and their `when`, which drizzle records."""
    try:
        journal: dict[str, Any] = json.loads(source.read(path))
        dialect = journal.get("dialect", "postgresql")
        entries = [(str(one["tag"]), int(one["when"]) if "when" in one else None) for one in journal["entries"]]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise source.malformed(path, 1, "not a drizzle journal") from error
    if dialect not in ("postgresql", "pg"):
        raise UsageError(f"{path}: these migrations are for {dialect}, not for PostgreSQL")
    return entries


def _source(path: str, name: str, when: int | None) -> Source:
    version, _, rest = name.partition("_")
    digits = version if version.isdecimal() and version.isascii() else ""
    text = source.read(path)
    marks = (f"sha256:{hashlib.sha256(text.encode()).hexdigest()}", *([f"when:{when}"] if when is not None else []))
    return Source(name, digits, source.title(rest if digits else name), path, text, marks, cuts=tuple(_cuts(text)))


def _cuts(text: str) -> Iterator[Cut]:
    """Yield the marks at which drizzle parts its statements; a semicolon takes the place of one, if it is missing."""
    last = 0
    for mark in _BREAKPOINT.finditer(text):
        yield Cut(mark.start(), mark.end(), Part.MARK, ";" if source.is_open(text[last : mark.start()]) else "")
        last = mark.end()
