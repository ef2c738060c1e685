"""Tools with plain SQL in files: golang-migrate, sqlx, the Supabase CLI."""

from __future__ import annotations

import hashlib
import os
import re

from outreach_migrate.adopt import source
from outreach_migrate.adopt.source import Cut, Folder, Left, Part, Reason, Source

_DIRECTED = re.compile(r"([0-9]+)_(.*)\.(down|up)\.(.*)", re.DOTALL)
_PLAIN = re.compile(r"([0-9]+)_(.*)\.sql", re.DOTALL)
_NO_TRANSACTION = "-- no-transaction"
_DEPRECATED_INIT = re.compile(r"([0-9]{14})_init\.sql")


def golang_migrate(folder: str) -> Folder:
    """Read golang-migrate's; see source/parse.go. It has no mark, because each file is one message to the server."""

    def one(entry: os.DirEntry[str]) -> Source | Left:
        found = _DIRECTED.fullmatch(entry.name)
        if not found:
            return Left(entry.path, Reason.SKIPPED)
        if found[3] == "down":
            return Left(entry.path, Reason.WAY_DOWN)
        if found[4] != "sql":
            return Left(entry.path, Reason.NO_SQL)
        return _source(entry, found[1], found[2], entry.name.removesuffix(".up.sql"))

    return source.of_files(folder, one)


def sqlx(folder: str) -> Folder:
    """Read sqlx's; see sqlx-core/src/migrate/source.rs."""

    def one(entry: os.DirEntry[str]) -> Source | Left:
        found = _PLAIN.fullmatch(entry.name)
        if not found:
            return Left(entry.path, Reason.SKIPPED)
        if entry.name.endswith(".down.sql"):
            return Left(entry.path, Reason.WAY_DOWN)
        name = entry.name.removesuffix(".sql").removesuffix(".up")
        text = source.read(entry.path)
        first = text.partition("\n")[0].rstrip()
        alone = (Cut(0, len(first), Part.MARK),) if first == _NO_TRANSACTION else ()
        return Source(
            name,
            found[1],
            source.title(found[2].removesuffix(".up")),
            entry.path,
            text,
            (f"sha384:{hashlib.sha384(text.encode()).hexdigest()}",),
            not text.startswith(_NO_TRANSACTION),
            alone,
        )

    return source.of_files(folder, one)


def supabase(folder: str) -> Folder:
    """Read the Supabase CLI's, sorted by name; see pkg/migration/list.go."""
    files = [entry.name for entry in source.listed(folder) if entry.is_file()]
    first = _DEPRECATED_INIT.fullmatch(files[0]) if files else None
    skipped = files[0] if first and int(first[1]) < 20211209000000 else None

    def one(entry: os.DirEntry[str]) -> Source | Left:
        found = _PLAIN.fullmatch(entry.name)
        if not found or entry.name == skipped:
            return Left(entry.path, Reason.SKIPPED)
        return _source(entry, found[1], found[2], entry.name.removesuffix(".sql"))

    return source.of_files(folder, one, key=lambda found: found.path)


def _source(entry: os.DirEntry[str], version: str, rest: str, name: str) -> Source:
    return Source(name, version, source.title(rest), entry.path, source.read(entry.path))
