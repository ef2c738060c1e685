"""The files that a template database is made of."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import outreach_migrate
from outreach_migrate import errors
from outreach_migrate.files import code, folders, migrations, pyproject, variables
from outreach_migrate.history import table as tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outreach_migrate.files.code import Code
    from outreach_migrate.files.folders import Folder
    from outreach_migrate.files.migrations import Migration

_PREFIX = "OUTREACH_MIGRATE_"


@dataclass(frozen=True, slots=True)
class Recipe:
    """The migrations of a folder, the seeds that follow them, the history's table, and the files' variables.

    `code` are the checksums of the files of code, which are in the folder `code_folder`.
    """

    folder: Folder
    migrations: tuple[Migration, ...]
    seeds: tuple[tuple[str, str], ...] = ()
    table: str = tables.NAME
    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    code: tuple[str, ...] = ()
    code_folder: Folder | None = None

    def before(self, version: str) -> tuple[Recipe, Migration]:
        """Give the recipe of the migrations before a version, without seeds, and the version's migration.

        Raise UsageError where no migration has this version.
        """
        for place, migration in enumerate(self.migrations):
            if version.isdecimal() and migration.number == int(version):
                return replace(self, migrations=self.migrations[:place], seeds=()), migration
        newest = self.migrations[-1].version if self.migrations else "none"
        raise errors.UsageError(f"no migration has version {version}", hint=f"The newest version is {newest}.")

    def digest(self, *circumstances: object) -> str:
        """Hash the files and all else that a template depends on, such as the server's version, as hex digits."""
        files = [(one.version, one.name, one.checksum) for one in self.migrations]
        parts = [
            files,
            self.seeds,
            self.table,
            [sorted(self.values.items()), self.code],
            outreach_migrate.__version__,
            [str(one) for one in circumstances],
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def read(start: Path, seeds: Sequence[Path]) -> Recipe:
    """Read the migrations and settings of the project that `start` lies in, and the seeds.

    Raise UsageError or MigrationFileError.
    """
    root, settings = pyproject.find(str(start)) or (str(start), {})
    if not isinstance(settings, dict):
        raise errors.UsageError(f"{root}/pyproject.toml: [tool.{pyproject.KEY}] must be a table")
    folder = folders.find(_place(root, settings, "dir") or _folder(root, "sql"))
    found, problems = migrations.read(folder)
    if problems:
        raise errors.MigrationFileError(problems)
    texts = tuple((str(seed), _text(seed)) for seed in seeds)
    given = variables.of_project(settings.get("set", {}), f"{root}/pyproject.toml: [tool.{pyproject.KEY}.set]")
    where = _place(root, settings, "code") or folders.below(folder, code.FOLDER)
    codes = _code(where) if where else ()
    values = migrations.values([*found, *(one.migration for one in codes)], variables.lookup({}, os.environ, given))
    table = os.environ.get(f"{_PREFIX}TABLE") or str(settings.get("table", tables.NAME))
    return Recipe(folder, found, texts, table, values, tuple(one.checksum for one in codes), where)


def _code(where: Folder) -> tuple[Code, ...]:
    """Read the files of code; raise MigrationFileError."""
    found, problems = code.read(where)
    if problems:
        raise errors.MigrationFileError(problems)
    return found


def _place(root: str, settings: Mapping[str, object], key: str) -> str | None:
    """Give the folder that the environment names, from the current one on, else pyproject.toml, as for a command."""
    if given := os.environ.get(_PREFIX + key.upper()):
        return _folder(os.curdir, given)
    return _folder(root, str(settings[key])) if key in settings else None


def _folder(root: str, given: str) -> str:
    return given if folders.is_package(given) else os.path.normpath(os.path.join(root, given))


def _text(seed: Path) -> str:
    try:
        return seed.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise errors.UsageError(f"cannot read the seed {seed}: {reason}") from None
