"""Tools with a folder for each migration: Prisma, diesel, Hasura."""

from __future__ import annotations

import hashlib
import os
import tomllib
from typing import TYPE_CHECKING

from outreach_migrate.adopt import source
from outreach_migrate.adopt.source import Folder, Left, Reason, Source
from outreach_migrate.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOCK = "migration_lock.toml"


def prisma(folder: str) -> Folder:
    """Read Prisma's, sorted as packages/migrate/src/utils/listMigrations.ts does, which was seen in 6.19."""
    _check_provider(os.path.join(folder, _LOCK))
    sources, left = list[Source](), list[Left]()
    for path, name, files in sorted(_folders(folder), key=lambda found: source.collated(found[1])):
        if "migration.sql" not in files:
            left.append(Left(path, Reason.NO_FILE))
            continue
        version, rest = _parted(name)
        file = os.path.join(path, "migration.sql")
        text = source.read(file)
        sources.append(Source(name, version, source.title(rest), file, text, _checksums(text)))
        left += _beside(path, files - {"migration.sql"})
    return Folder(tuple(sources), tuple(left))


def diesel(folder: str) -> Folder:
    """Read diesel's; see diesel_migrations/src/file_based_migrations.rs and migrations_internals/src/lib.rs."""
    sources, left = list[Source](), list[Left]()
    for path, name, files in sorted(_folders(folder), key=lambda found: (_dieseled(found[1]), found[1])):
        if "up.sql" not in files:
            left.append(Left(path, Reason.NO_FILE))
            continue
        _, _, rest = name.partition("_")
        file = os.path.join(path, "up.sql")
        transaction = "metadata.toml" not in files or _runs_in_transaction(os.path.join(path, "metadata.toml"))
        version = _dieseled(name)
        text = source.read(file)
        digits = version if version.isdecimal() and version.isascii() else ""
        sources.append(Source(name, digits, source.title(rest or name), file, text, transaction=transaction))
        left += _beside(path, files - {"up.sql", "metadata.toml"})
    return Folder(tuple(sources), tuple(left))


def hasura(folder: str) -> Folder:
    """Read Hasura's, of one database; see cli/migrate/source/file/file.go."""
    sources, left = list[tuple[int, Source]](), list[Left]()
    for path, name, files in _folders(folder):
        version, rest = _parted(name)
        if "up.sql" not in files or not version:
            left.append(Left(path, Reason.NO_VERSION if "up.sql" in files else Reason.NO_FILE))
            continue
        file = os.path.join(path, "up.sql")
        found = Source(name, version, source.title(rest), file, source.read(file))
        sources.append((int(version), found))
        left += _beside(path, files - {"up.sql"})
    return Folder(tuple(one for _, one in sorted(sources, key=lambda pair: pair[0])), tuple(left))


def _folders(folder: str) -> Iterable[tuple[str, str, set[str]]]:
    """Yield the folders that are not empty: path, name, and the names in it."""
    for entry in source.listed(folder):
        if entry.is_dir() and (files := {file.name for file in source.listed(entry.path)}):
            yield entry.path, entry.name, files


def _beside(path: str, files: set[str]) -> Iterable[Left]:
    for name in sorted(files):
        yield Left(os.path.join(path, name), Reason.WAY_DOWN if name.startswith("down.") else Reason.NO_SQL)


def _parted(name: str) -> tuple[str, str]:
    """Part a name into its leading digits, none if no _ follows them, and the rest."""
    version, _, rest = name.partition("_")
    return (version, rest) if version.isdecimal() and version.isascii() else ("", name)


def _dieseled(name: str) -> str:
    return name.partition("_")[0].replace("-", "")


def _check_provider(path: str) -> None:
    try:
        with open(path, encoding="utf-8") as file:
            provider = tomllib.loads(file.read()).get("provider", "postgresql")
    except (OSError, ValueError):
        return
    if provider not in ("postgresql", "postgres"):
        raise UsageError(f"{path}: these migrations are for {provider}, not for PostgreSQL")


def _checksums(text: str) -> tuple[str, ...]:
    """Give the SHA-256 of the text, and of its LF and CRLF forms, all of which Prisma accepts; see its checksum.rs."""
    forms = (text, text.replace("\r\n", "\n"), text.replace("\n", "\r\n"))
    return tuple(dict.fromkeys(f"sha256:{hashlib.sha256(form.encode()).hexdigest()}" for form in forms))


def _runs_in_transaction(path: str) -> bool:
    """Read diesel's metadata.toml; a key that it lacks is false there, and a file that can't be read says nothing."""
    try:
        with open(path, "rb") as file:
            return bool(tomllib.load(file).get("run_in_transaction", False))
    except (OSError, ValueError):
        return True
