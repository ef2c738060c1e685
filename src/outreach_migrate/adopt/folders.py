"""The tool that made a folder, by the folder's shape."""

from __future__ import annotations

import os
import re
import shlex
from typing import TYPE_CHECKING

from outreach_migrate.adopt import source
from outreach_migrate.adopt.tools import alembic, drizzle, flat, flyway, marked, nested, yoyo
from outreach_migrate.errors import MigrateError, UsageError
from outreach_migrate.files import heads, ways_down

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outreach_migrate.adopt.source import Folder

TOOLS: dict[str, Callable[[str], Folder]] = {
    "prisma": nested.prisma,
    "dbmate": marked.dbmate,
    "goose": marked.goose,
    "golang-migrate": flat.golang_migrate,
    "sqlx": flat.sqlx,
    "tern": marked.tern,
    "flyway": flyway.flyway,
    "diesel": nested.diesel,
    "hasura": nested.hasura,
    "supabase": flat.supabase,
    "drizzle": drizzle.drizzle,
    "yoyo": yoyo.yoyo,
    "alembic": alembic.alembic,
}
ELSEWHERE = frozenset({"hasura"})  # the tools whose history is not in the database that they migrate
_SHAPES = {
    "prisma": "VERSION_name/migration.sql",
    "dbmate": "VERSION_name.sql with -- migrate:up",
    "goose": "VERSION_name.sql with -- +goose Up",
    "golang-migrate": "VERSION_name.up.sql",
    "sqlx": "VERSION_name.sql, or VERSION_name.up.sql",
    "tern": "001_name.sql",
    "flyway": "V1_2__name.sql",
    "diesel": "VERSION_name/up.sql",
    "hasura": "VERSION_name/up.sql, in the folder of one database",
    "supabase": "VERSION_name.sql",
    "drizzle": "the files of meta/_journal.json, or VERSION_name/migration.sql",
    "yoyo": "0001.name.sql",
    "alembic": "revisions of the project whose alembic.ini is in it",
}
RECOGNISED = (
    *("refinery", "yandex-pgmigrate", "node-pg-migrate"),
    *("graphile-migrate", "sqitch", "sql-migrate", "liquibase", "asyncpg-trek"),
)
_BY_HAND = "The manual has a recipe that works by hand: outreach-migrate help moving"
_BY_NAME = {
    "asyncpg-trek": re.compile(r"[0-9]{8}_initial_up_\w+\.(?:sql|py)"),
    "node-pg-migrate": re.compile(r"[0-9]{13}_.*\.[cm]?[jt]s", re.DOTALL),
    "liquibase": re.compile(r".*changelog.*\.(?:xml|ya?ml|json)", re.DOTALL | re.IGNORECASE),
}

_NOT_ENTERED = {"node_modules", "target", "vendor", "venv"}
_PLAIN = re.compile(r"[0-9]+_.*\.sql", re.DOTALL)
_CAPITAL = re.compile(r"(?:[VUB][0-9]|R__).*\.sql", re.DOTALL)
_FLYWAYS = re.compile(r"R__|B[0-9]|[VU][0-9]+(?:_[0-9]|\.[0-9]+[._][0-9])|.*\.sql\.conf$", re.DOTALL)
_OF_FLYWAY = ("flyway.conf", "flyway.toml", "pom.xml", "build.gradle", "build.gradle.kts")
_YOYO = re.compile(r"[0-9]+\.[^\W\d].*(?<!\.up)(?<!\.down)\.sql", re.DOTALL)
_MILLISECONDS = re.compile(r"[0-9]{13}")


def tool(folder: str, given: str | None) -> str:
    """Tell which tool made a folder; raise UsageError if that is doubtful, or the tool's files can't be imported."""
    if given is None:
        found = _candidates(folder)
        if not found:
            hint = f"The known tools are {', '.join(TOOLS)}.{_perhaps(folder)}"
            raise UsageError(f"{folder} has no migrations of a known tool", hint=hint)
        if len(found) > 1:
            message = f"{folder} may be a folder of {', '.join(found[:-1])} or {found[-1]}"
            raise UsageError(message, hint=f"Say which: --from {found[0]}, …")
        [given] = found
    if given not in TOOLS:
        raise UsageError(f"{folder} is of {given}, which is not imported", hint=_BY_HAND)
    return given


def read(folder: str, tool: str, python: str | None) -> Folder:
    """Read a tool's folder; `python` is alembic's. Raise MigrateError."""
    if tool == "alembic":
        return alembic.alembic(folder, python)
    if python is not None:
        raise UsageError(f"--python is for alembic, but {folder} is of {tool}")
    return TOOLS[tool](folder)


def shape(tool: str) -> str:
    """Describe the files that a tool's folder has."""
    return f"Its migrations are {_SHAPES[tool]}."


def _candidates(folder: str) -> list[str]:
    entries = source.listed(folder)
    names = {entry.name for entry in entries if entry.is_file()}
    inner = {entry.name: {one.name for one in source.listed(entry.path)} for entry in entries if entry.is_dir()}
    return list(dict.fromkeys(_by_whole(folder, names, inner) or _by_files(folder, names)))


def _perhaps(folder: str) -> str:
    """Name a folder further down that has a tool's migrations, if there is one."""
    try:
        below = next(filter(_candidates, _below(folder)), None)
    except MigrateError:
        return ""
    return f" Perhaps: outreach-migrate import {shlex.quote(below)}" if below else ""


def _below(folder: str) -> Iterator[str]:
    """Yield the folders in a folder, and those in them."""
    for entry in source.listed(folder):
        if entry.is_dir() and entry.name not in _NOT_ENTERED:
            yield entry.path
            yield from (inner.path for inner in source.listed(entry.path) if inner.is_dir())


def _by_whole(folder: str, names: set[str], inner: dict[str, set[str]]) -> list[str]:
    """Name the tools of a folder that has a file of theirs beside the migrations, or a folder for each of them."""
    files = {file for inside in inner.values() for file in inside}
    if "sqitch.plan" in names:
        return ["sqitch"]
    if alembic.INI in names:
        return ["alembic"]
    if os.path.exists(os.path.join(folder, drizzle.JOURNAL)) or {"migration.sql", "snapshot.json"} <= files:
        return ["drizzle"]
    for tool, pattern in _BY_NAME.items():
        if any(map(pattern.fullmatch, names)):
            return [tool]
    if "committed" in inner:
        return ["graphile-migrate"]
    if "migration.sql" in files:
        return ["prisma"]
    if "up.sql" in files:
        return _of_up(folder, inner)
    return _of_capitals(folder, files | names) if any(map(_CAPITAL.fullmatch, files)) else []


def _of_up(folder: str, inner: dict[str, set[str]]) -> list[str]:
    """Tell diesel from Hasura, whose versions are milliseconds."""
    found = [name for name, files in inner.items() if "up.sql" in files]
    if any("metadata.toml" in inner[name] or "-" in name.partition("_")[0] for name in found):
        return ["diesel"]
    if "00000000000000_diesel_initial_setup" in inner or _above(folder, "diesel.toml"):
        return ["diesel"]
    versions = [name.partition("_")[0] for name in found]
    return ["hasura"] if all(map(_MILLISECONDS.fullmatch, versions)) else ["diesel", "hasura"]


def _by_files(folder: str, names: set[str]) -> list[str]:
    texts = [source.read(os.path.join(folder, name)) for name in sorted(names) if name.endswith(".sql")]
    if marks := {tool for text in texts for tool in (*ways_down.tools(text), *heads.tools(text))}:
        return sorted(marks)
    if any(name.endswith(".rollback.sql") or _YOYO.fullmatch(name) for name in names):
        return ["yoyo"]
    if any(map(_CAPITAL.fullmatch, names)):
        return _of_capitals(folder, names)
    if any(name.endswith(".up.sql") for name in names):
        return _of_directions(folder, names, texts)
    if any(map(_PLAIN.fullmatch, names)):
        return _of_plain(folder, texts)
    return []


def _of_capitals(folder: str, names: set[str]) -> list[str]:
    """Tell Flyway, whose versions have several numbers, from tools with the same form of names."""
    if any(map(_FLYWAYS.match, names)) or any(_above(folder, name) for name in _OF_FLYWAY):
        return ["flyway"]
    if os.path.realpath(folder).endswith(os.path.join("db", "migration")):  # its default
        return ["flyway"]
    if _above(folder, "migrations.yml") or any("NONTRANSACTIONAL" in name for name in names):
        return ["yandex-pgmigrate"]
    return ["refinery"] if _above(folder, "Cargo.toml") else ["flyway", "refinery", "yandex-pgmigrate"]


def _of_directions(folder: str, names: set[str], texts: list[str]) -> list[str]:
    plain = [name for name in names if _PLAIN.fullmatch(name) and not name.endswith((".up.sql", ".down.sql"))]
    if plain or _is_sqlx(folder, texts):
        return ["sqlx"]
    return ["golang-migrate"] if _above(folder, "go.mod") else ["golang-migrate", "sqlx"]


def _of_plain(folder: str, texts: list[str]) -> list[str]:
    if os.path.realpath(folder).endswith(os.path.join("supabase", "migrations")):
        return ["supabase"]
    if os.path.exists(os.path.join(folder, "tern.conf")):
        return ["tern"]
    return ["sqlx"] if _is_sqlx(folder, texts) else ["sqlx", "supabase", "tern"]


def _is_sqlx(folder: str, texts: list[str]) -> bool:
    heads = ("-- Add migration script here", "-- Add up migration script here", "-- no-transaction")
    return _above(folder, "Cargo.toml") or any(text.startswith(heads) for text in texts)


def _above(folder: str, name: str) -> bool:
    """Tell whether a file is in the folder, or in one of the two above it."""
    path = os.path.realpath(folder)
    return any(os.path.exists(os.path.join(path, up, name)) for up in ("", "..", os.path.join("..", "..")))
