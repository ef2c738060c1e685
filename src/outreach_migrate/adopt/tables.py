"""The migrations that another tool recorded in its table."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import psycopg

from outreach_migrate.errors import NotAdopted, Problem

if TYPE_CHECKING:
    from psycopg import Connection

    from outreach_migrate.files.directives import Origin
    from outreach_migrate.history.forms import Foreign


class Standing(StrEnum):
    """The state in which a tool left a migration."""

    APPLIED = "applied"
    BASELINE = "baseline"  # with all migrations before it
    FAILED = "failed"
    UNFINISHED = "unfinished"
    ROLLED_BACK = "rolled back"
    DIRTY = "dirty"
    UNDONE = "undone"


@dataclass(frozen=True, slots=True)
class Record:
    """A migration as its tool recorded it; `name` is its name or version there, `keys` are those of `keys`.

    A checksum is written `sha256:…`. Times are null if the tool keeps none.
    """

    name: str
    keys: tuple[str, ...]
    standing: Standing
    checksum: str | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A tool's records, in the order of application, or the newest alone if the tool keeps no more (`up_to`).

    `zone` is the time zone in which times without one were read. `newest` is the newest time of drizzle's journal that
    its 0.x has run; it passes over older ones.
    """

    table: Foreign
    records: tuple[Record, ...]
    up_to: bool = False
    zone: str | None = None
    newest: int | None = None


# Each query gives: name, checksum, start and end as UTC, standing; in the order of application. Of several rows with
# one name the last counts. A time without a zone is cast in the database's TimeZone.
_QUERIES = {
    # packages/schema-engine's migration_persistence; a migration that failed and was resolved has a row for each try
    "prisma": """
        SELECT migration_name, 'sha256:' || checksum, started_at AT TIME ZONE 'UTC', finished_at AT TIME ZONE 'UTC',
               CASE WHEN rolled_back_at IS NOT NULL THEN 'rolled back' WHEN finished_at IS NOT NULL THEN 'applied'
                    WHEN logs IS NOT NULL THEN 'failed' ELSE 'unfinished' END
          FROM {table} ORDER BY finished_at IS NOT NULL AND rolled_back_at IS NULL, started_at, finished_at""",
    "dbmate": "SELECT version, null, null, null, 'applied' FROM {table} ORDER BY version",
    "golang-migrate": """
        SELECT version::text, null, null, null, CASE WHEN dirty THEN 'dirty' ELSE 'applied' END
          FROM {table} WHERE version >= 0""",
    "goose": """
        SELECT version_id::text, null, tstamp::timestamptz AT TIME ZONE 'UTC', null,
               CASE WHEN is_applied THEN 'applied' ELSE 'undone' END
          FROM {table} WHERE version_id > 0 ORDER BY id""",
    # the time in nanoseconds, or -1
    "sqlx": """
        SELECT version::text, 'sha384:' || pg_catalog.encode(checksum, 'hex'), installed_on AT TIME ZONE 'UTC',
               (installed_on + pg_catalog.make_interval(secs => greatest(execution_time, 0) / 1e9)) AT TIME ZONE 'UTC',
               CASE WHEN success THEN 'applied' ELSE 'dirty' END
          FROM {table} ORDER BY installed_on, version""",
    "tern": "SELECT version::text, null, null, null, 'applied' FROM {table} WHERE version > 0",
    "flyway": """
        SELECT version, null, installed_on::timestamptz AT TIME ZONE 'UTC',
               (installed_on + pg_catalog.make_interval(secs => execution_time / 1e3))::timestamptz AT TIME ZONE 'UTC',
               CASE WHEN NOT success THEN 'failed' WHEN type LIKE 'UNDO%' OR type = 'DELETE' THEN 'undone'
                    WHEN type LIKE '%BASELINE' THEN 'baseline' ELSE 'applied' END
          FROM {table} WHERE version IS NOT NULL ORDER BY installed_rank""",
    "diesel": """
        SELECT version, null, run_on::timestamptz AT TIME ZONE 'UTC', null, 'applied'
          FROM {table} ORDER BY run_on, version""",
    "supabase": "SELECT version, null, null, null, 'applied' FROM {table} ORDER BY version",
    # 1.x has name and applied_at, which are null in a row of 0.x
    "drizzle": """
        SELECT coalesce(pg_catalog.to_jsonb(t) ->> 'name', 'when:' || created_at || ' sha256:' || hash),
               'sha256:' || hash, (pg_catalog.to_jsonb(t) ->> 'applied_at')::timestamptz AT TIME ZONE 'UTC', null,
               'applied'
          FROM {table} AS t ORDER BY id""",
    "yoyo": """
        SELECT migration_id, null, applied_at_utc, null, 'applied'
          FROM {table} ORDER BY applied_at_utc, migration_id""",
    "alembic": "SELECT version_num, null, null, null, 'applied' FROM {table} ORDER BY version_num",
}
_ZONELESS = {"goose", "flyway", "diesel"}
_UP_TO = {"golang-migrate", "tern", "alembic"}
# The database's TimeZone. The session's own may be the client's, or the role's.
_ZONE = """(SELECT coalesce(
    (SELECT pg_catalog.substr(one, 10) FROM pg_catalog.pg_db_role_setting s
       JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase, pg_catalog.unnest(s.setconfig) AS one
      WHERE d.datname = pg_catalog.current_database() AND s.setrole = 0 AND one ILIKE 'timezone=%'),
    (SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'TimeZone')))"""

_DIGITS = re.compile(r"[0-9]+")
_FLYWAY = re.compile(r"[A-Z]?([0-9][0-9._]*?)(?:__.*)?", re.DOTALL)


def read(connection: Connection, table: Foreign) -> Recorded:
    """Read a tool's table in the transaction that is open."""
    zone = connection.execute(f"SELECT pg_catalog.set_config('TimeZone', {_ZONE}, true)".encode()).fetchall()[0][0]
    try:
        rows = connection.execute(_QUERIES[table.tool].replace("{table}", table.table.quoted).encode()).fetchall()
    except psycopg.DataError as error:
        problem = Problem(f"{table} has a time that Python's datetime can't hold: {error}", hint="Correct the row.")
        raise NotAdopted([problem]) from error
    if any(row[0] is None for row in rows):
        raise NotAdopted([Problem(f"{table} has a row without a version or name", hint="Correct the row.")])
    last = dict[str, Record]()
    for row in rows:
        record = _record(table.tool, *row)
        last.pop(record.name, None)
        last[record.name] = record
    kept = [record for record in last.values() if record.standing is not Standing.UNDONE]
    if table.tool == "prisma":  # which was sorted for the last row of each name
        kept.sort(key=lambda one: one.started_at or datetime.min.replace(tzinfo=UTC))
    newest = None if "name" in table.columns else _newest(last)
    zone = zone if table.tool in _ZONELESS else None
    return Recorded(table, tuple(kept), table.tool in _UP_TO, zone, newest)


def _record(tool: str, name: str, checksum: str | None, started: Any, finished: Any, standing: str) -> Record:
    is_time = tool == "drizzle" and name.startswith("when:")  # 0.x records no name
    keys = _drizzle(name) if is_time else _keys(tool, name)
    times = (started and started.replace(tzinfo=UTC), finished and finished.replace(tzinfo=UTC))
    return Record(name, keys, Standing(standing), checksum, *times)


def _drizzle(name: str) -> tuple[str, ...]:
    """Give the keys of a row without a name; 1.x knows 0.x's times without their milliseconds."""
    when, checksum = name.split()
    return (name, when, f"{when[:-3]}000", checksum)


def _newest(records: dict[str, Record]) -> int | None:
    whens = [int(name.split()[0].removeprefix("when:")) for name in records if name.startswith("when:")]
    return max(whens, default=None)


def keys(origin: Origin) -> tuple[str, ...]:
    """Give the names under which a file's tool may have recorded it, the best first."""
    if origin.tool == "drizzle":  # equal texts have equal checksums, so those count only where the time is not known
        whens = [f"when:{when}" for when in origin.marked("when")]
        both = [f"{when} {checksum}" for when in whens for checksum in origin.checksums]
        return (origin.name, *both, *(whens or origin.checksums))
    return _keys(origin.tool, origin.name)


def _keys(tool: str, name: str) -> tuple[str, ...]:
    digits = _DIGITS.match(name)
    match tool:
        case "dbmate" | "supabase" if digits:
            return (digits[0],)
        case "golang-migrate" | "goose" | "sqlx" | "tern" if digits:
            return (str(int(digits[0])),)
        case "diesel":
            return (name.partition("_")[0].replace("-", ""),)
        case "flyway" if found := _FLYWAY.fullmatch(name.rpartition("/")[2]):
            return (".".join(map(str, flyway(found[1]))),)
    return (name,)


def flyway(version: str) -> tuple[int, ...]:
    """Read a version of flyway's, in which 1_2, 1.2 and 1.2.0 are the same."""
    parts = [int(part) for part in re.split(r"[._]", version) if part]
    while len(parts) > 1 and not parts[-1]:
        parts.pop()
    return tuple(parts)
