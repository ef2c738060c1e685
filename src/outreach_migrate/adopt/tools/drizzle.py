"""drizzle's folders of 0.x, with a journal."""

from __future__ import annotations

import hashlib
import json
import os
import re
from typing import TYPE_CHECKING, Any

from outreach_migrate.adopt import source
from outreach_migrate.adopt.source import Cut, Folder, Left, Part, Reason, Source
from outreach_migrate.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

JOURNAL = os.path.join("meta", "_journal.json")
_BREAKPOINT = re.compile("--> statement-breakpoint")


def drizzle(folder: str) -> Folder:
    """Read the migrations in the journal's order; see drizzle-orm/src/migrator.ts."""
    path = os.path.join(folder, JOURNAL)
    if not os.path.exists(path):
        hint = "drizzle 1.x has a folder for each migration: see outreach-migrate help moving"
        raise UsageError(f"{folder} has no {JOURNAL}", hint=hint)
    sources = [_source(folder, tag, when) for tag, when in _entries(path)]
    known = {one.path for one in sources}
    files = [entry for entry in source.listed(folder) if entry.is_file() and entry.name.endswith(".sql")]
    return Folder(tuple(sources), tuple(Left(one.path, Reason.SKIPPED) for one in files if one.path not in known))


def _entries(path: str) -> list[tuple[str, int | None]]:
    """Read the names of the migrations, and their `when`, which drizzle records."""
    try:
        journal: dict[str, Any] = json.loads(source.read(path))
        dialect = journal.get("dialect", "postgresql")
        entries = [(str(one["tag"]), int(one["when"]) if "when" in one else None) for one in journal["entries"]]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise source.malformed(path, 1, "not a journal of drizzle's") from error
    if dialect not in ("postgresql", "pg"):
        raise UsageError(f"{path}: these migrations are for {dialect}, not for PostgreSQL")
    return entries


def _source(folder: str, tag: str, when: int | None) -> Source:
    version, _, rest = tag.partition("_")
    digits = version if version.isdecimal() and version.isascii() else ""
    path = os.path.join(folder, f"{tag}.sql")
    text = source.read(path)
    marks = (f"sha256:{hashlib.sha256(text.encode()).hexdigest()}", *([f"when:{when}"] if when is not None else []))
    return Source(tag, digits, source.title(rest if digits else tag), path, text, marks, cuts=tuple(_cuts(text)))


def _cuts(text: str) -> Iterator[Cut]:
    """Yield the marks at which drizzle parts its statements; a semicolon takes the place of one, if it is missing."""
    last = 0
    for mark in _BREAKPOINT.finditer(text):
        yield Cut(mark.start(), mark.end(), Part.MARK, ";" if source.is_open(text[last : mark.start()]) else "")
        last = mark.end()
