"""Files and folders of another tool's form."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from outreach_migrate.errors import Location, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.files.folders import Folder

NO_WAY_DOWN = "there is no way down"
_WAY_UP = ".up.sql"
_GOLANG = "golang-migrate's or sqlx's"
_WAYS_DOWN = {".down.sql": _GOLANG, ".rollback.sql": "yoyo's"}
_CAPITALS = "Flyway's, refinery's or yandex-pgmigrate's"
_NAMES = (
    (re.compile(r"(?:[VUB][0-9]+(?:[._][0-9]+)*|R)__.*\.sql", re.DOTALL), _CAPITALS),
    (re.compile(r"[0-9]+\.[^\W\d].*\.sql", re.DOTALL), "yoyo's"),
    (re.compile(r"[0-9]{6}(?:-.+)?\.sql", re.DOTALL), "graphile-migrate's"),
)
_TREK = "_initial_up_"  # asyncpg-trek needs a file of this name; its other files have names of migrations here
_FOLDERS = {"migration.sql": "Prisma's", "up.sql": "diesel's or Hasura's"}
_FILES = {"alembic.ini": "alembic's", "sqitch.plan": "sqitch's"}
_NOT_SQL = (
    (re.compile(r"[0-9]{13}_.*\.[cm]?[jt]s", re.DOTALL), "node-pg-migrate's"),
    (re.compile(r".*changelog.*\.(?:xml|ya?ml|json)", re.DOTALL | re.IGNORECASE), "Liquibase's"),
)
_PYTHON = (
    (re.compile(rb"^(?:from|import) yoyo\b", re.MULTILINE), "yoyo's"),
    (re.compile(rb"^down_revision\b", re.MULTILINE), "alembic's"),
)
IMPORTING = ".import"  # the folder from which an import moves its files into one that is not empty
_LOOKED_AT = 64_000  # bytes of a file that are searched for a tool's marks
BY_HAND = {"graphile-migrate", "liquibase", "node-pg-migrate", "sqitch", "sql-migrate"}
RECIPE = "It can't be imported, but there is a recipe: outreach-migrate help moving"


def copied(folder: str, tool: str | None = None) -> str:
    """Word the command that copies a folder whose files lie where the new ones would."""
    command = f"outreach-migrate --dir NEW import {_quoted(folder or os.curdir)}"
    return f"To copy a whole folder of such files: {command}{f' --from {tool}' if tool else ''}"


def one_way(path: str) -> Problem | None:
    """Report a file whose name says that it is the way up or down of another tool's migration."""
    for ending, whose in _WAYS_DOWN.items():
        if path.lower().endswith(ending):
            message = f"{whose} way down, which would be run as well"
            hint = f"Remove the file: every .sql file of the folder is run, and {NO_WAY_DOWN}."
            return Problem(message, Location(path), f"{hint} {copied(os.path.dirname(path))}")
    if path.lower().endswith(_WAY_UP):
        own = f"{os.path.basename(path)[: -len(_WAY_UP)]}.sql"
        hint = f"If it is a migration of this folder, name it {own}. {copied(os.path.dirname(path))}"
        return Problem(f"{_GOLANG} name of a way up", Location(path), hint)
    return None


def of_name(path: str) -> Problem | None:
    """Report a file whose name is no migration's here, but another tool's."""
    for pattern, whose in _NAMES:
        if pattern.fullmatch(os.path.basename(path)):
            return misnamed(path, whose)
    return None


def misnamed(path: str, whose: str = "") -> Problem:
    """Report a file whose name is no migration's here; it may be another tool's."""
    hint = "It must be VERSION_name.sql, where VERSION is digits"
    rest = f"; this is one of {whose}. {_further(os.path.dirname(path), whose)}" if whose else "."
    return Problem("not a migration's name", Location(path), hint + rest)


def _further(folder: str, whose: str) -> str:
    tool = whose.removesuffix("'s").lower()
    return RECIPE if tool in BY_HAND else copied(folder, tool if " " not in tool else None)


def of_folder(folder: Folder, names: Iterable[str], *, named: bool) -> Problem | None:
    """Report another tool's folder; if files are `named` as migrations are here, it must be without doubt."""
    if not isinstance(folder, str | os.PathLike):
        return None
    folder, names = os.fspath(folder), set(names)
    if part := cut_short(folder):
        return part
    if "meta" in names and os.path.exists(os.path.join(folder, "meta", "_journal.json")):
        return _problem(folder, "drizzle's", copied(folder))
    if "tern.conf" in names:
        return _problem(folder, "tern's", f"{copied(folder)}. If it is no longer tern's, remove tern.conf.")
    files = {name.lower() for name in names if name.lower().endswith(".sql")}
    if files and all(name.endswith((_WAY_UP, ".down.sql")) for name in files):
        return _problem(folder, _GOLANG, copied(folder))
    if any(_TREK in name for name in names):
        return _problem(folder, "asyncpg-trek's", RECIPE)
    return None if named else _of_names(folder, names) or _of_python(folder, names) or _of_folders(folder)


def cut_short(folder: str) -> Problem | None:
    """Report a folder that has a part of an import's files, because the import was killed."""
    if not os.path.lexists(os.path.join(folder, IMPORTING)):
        return None
    hint = f"Run outreach-migrate import again, which writes the rest. {IMPORTING} in the folder has all of its files."
    return Problem("an import into this folder was cut short", Location(folder), hint)


def _of_names(folder: str, names: set[str]) -> Problem | None:
    for name, whose in _FILES.items():
        if name in names:
            return _problem(folder, whose, RECIPE if name == "sqitch.plan" else _made(folder))
    if {"env.py", "versions"} <= names:
        return _alembics(folder)
    for pattern, whose in (*_NAMES, *_NOT_SQL):
        if any(map(pattern.fullmatch, names)):
            return _problem(folder, whose, _further(folder, whose))
    return _problem(folder, "graphile-migrate's", RECIPE) if "committed" in names else None


def _of_python(folder: str, names: set[str]) -> Problem | None:
    """Report a folder with migrations in Python alone."""
    for name in sorted(name for name in names if name.endswith(".py")):
        try:
            with open(os.path.join(folder, name), "rb") as file:
                text = file.read(_LOOKED_AT)
        except OSError:
            continue
        for pattern, whose in _PYTHON:
            if pattern.search(text):
                return _alembics(folder) if whose == "alembic's" else _problem(folder, whose, _further(folder, whose))
    return None


def _alembics(folder: str) -> Problem:
    """Report a folder of an alembic project, with the folder of its alembic.ini if that is one of those above."""
    above = os.path.abspath(folder)
    for _ in range(3):
        above = os.path.dirname(above)
        if os.path.exists(os.path.join(above, "alembic.ini")):
            break
    else:
        above = os.path.dirname(os.path.abspath(folder))
    hint = "To make files of it, name the folder with alembic.ini: outreach-migrate import"
    return _problem(folder, "alembic's", f"{hint} {_quoted(os.path.relpath(above))}")


def _of_folders(folder: str) -> Problem | None:
    """Report a folder in which each migration is a folder."""
    import glob  # here, because few runs need it

    for name, whose in _FOLDERS.items():
        found = sorted(glob.glob(f"{glob.escape(folder)}/*/{name}") or glob.glob(f"{glob.escape(folder)}/*/*/{name}"))
        if found:
            inner = os.path.dirname(found[0])
            above = os.path.dirname(inner)
            whose = "drizzle's" if os.path.exists(os.path.join(inner, "snapshot.json")) else whose
            message = f"this is {whose} folder, where each migration is a folder with a file {name}"
            hint = f"Here a migration is a file. To make files of them: outreach-migrate import {_quoted(above)}"
            return Problem(message, Location(folder), hint)
    for deep in ("*", "*/*"):
        if found := sorted(glob.glob(f"{glob.escape(folder)}/{deep}/V[0-9]*__*.sql")):
            return _problem(folder, _CAPITALS, copied(os.path.dirname(os.path.dirname(found[0]))))
    return None


def _problem(folder: str, whose: str, hint: str) -> Problem:
    return Problem(f"this is {whose} folder", Location(folder), hint)


def _made(folder: str) -> str:
    return f"To make files of it: outreach-migrate --dir NEW import {_quoted(folder)}"


def _quoted(folder: str) -> str:
    import shlex

    return shlex.quote(folder)
