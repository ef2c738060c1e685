"""The targets of a fleet, each with its name."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TypeVar

import psycopg

from outreach_migrate import display, errors
from outreach_migrate.history import read
from outreach_migrate.history import table as tables
from outreach_migrate.history.table import Table
from outreach_migrate.postgres import connections, dsn, messages
from outreach_migrate.postgres.dsn import Target

T = TypeVar("T")

_SHOWN = 5  # names in an error

_LINE = re.compile(r'\s*(?:"((?:[^"]|"")+)"|([^\s"]\S*))(?:\s+(\S.*?))?\s*')
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_SCHEMAS = """
    SELECT nspname::text FROM pg_catalog.pg_namespace
     WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema' ORDER BY nspname::text COLLATE "C" """
_DATABASES = """
    SELECT datname::text FROM pg_catalog.pg_database
     WHERE datallowconn AND NOT datistemplate ORDER BY datname::text COLLATE "C" """


@dataclass(frozen=True, slots=True)
class Member:
    """A target of a fleet: its name, the database or the schema of one, and its history table."""

    name: str
    target: Target
    table: Table

    @property
    def server(self) -> tuple[tuple[str, str], ...]:
        """The parameters of its connection; members that share them can use one connection after the other."""
        return tuple(sorted(self.target.parameters.items()))

    @property
    def host(self) -> tuple[tuple[str, str], ...]:
        """The parameters without the database: the server and the login, which have a number of connections."""
        return tuple(one for one in self.server if one[0] != "dbname")


def schemas(database: Target, pattern: str, *, wait: float) -> list[tuple[str, Target]]:
    """Find the schemas of a database whose names match a pattern such as tenant_*, but no system schema."""
    rows = _ask(database, _SCHEMAS, wait)
    return _schemas(database, _matching(rows, pattern, f"schema of {database.name}", r"-c '\dn'"))


def schemas_from(database: Target, query: str, *, wait: float) -> list[tuple[str, Target]]:
    """Take the schemas of a database that a query names."""
    return _schemas(database, _answer(database, query, wait, "--schemas-from"))


def databases(database: Target, pattern: str, *, wait: float) -> list[tuple[str, Target]]:
    """Find the databases of a server whose names match a pattern, but no template."""
    return _databases(database, _matching(_ask(database, _DATABASES, wait), pattern, "database", "-l"))


def databases_from(database: Target, query: str, *, wait: float) -> list[tuple[str, Target]]:
    """Take the databases of a server that a query names."""
    return _databases(database, _answer(database, query, wait, "--databases-from"))


def listed(lines: Iterable[str], variables: Mapping[str, str]) -> list[tuple[str, Target]]:
    """Read NAME URL a line; a NAME with spaces stands in double quotes. Empty lines and # comments are left out.

    `${NAME}` in a URL is replaced by that variable. Raise UsageError, which quotes nothing of a line but a NAME.
    """
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        quoted, plain, url = match.groups() if match else (None, None, None)
        name = quoted.replace('""', '"') if quoted else plain or ""
        if not url or re.search(r"://|=|@", plain or ""):
            hint = 'As: eu-1 postgresql://app@db.example/outreach. A NAME with spaces is written "eu 1".'
            raise _wrong(f"line {number} of the targets is not NAME URL", hint=hint)
        found.append((name, _read(url, variables, f"line {number} of the targets, {display.in_line(name)}")))
    return _present(found, "the list of targets is empty")


def _read(url: str, variables: Mapping[str, str], where: str) -> Target:
    for name in _VARIABLE.findall(url):
        if name not in variables:
            raise _wrong(f"{where}: the variable {display.in_line(name)} is not set")
    try:
        return dsn.read(_VARIABLE.sub(lambda found: variables[found[1]], url))
    except errors.UsageError as error:
        raise _wrong(f"{where}: {error.message}", hint=error.hint) from None


def members(
    found: Sequence[tuple[str, Target]], table: str | None, *, shard: tuple[int, int] | None = None
) -> tuple[Member, ...]:
    """Give the targets their history tables; with a shard (2, 5), only the second fifth of them, by their names.

    Raise UsageError for a name that is given twice, and for two targets with one history.
    """
    if twice := [name for name, count in Counter(name for name, _ in found).items() if count > 1]:
        raise _wrong(f"the target {display.in_line(twice[0])} is given twice")
    chosen = [Member(name, target, tables.read(table, target.schema)) for name, target in found]
    first: dict[object, Member] = {}
    for one in chosen:
        same = first.setdefault((one.server, one.table.schema, one.table.name), one)
        if same is not one:
            names = " and ".join(display.in_line(member.name) for member in (same, one))
            hint = f"With --table NAME, without a schema, each has its own: --table {one.table.name}."
            raise _wrong(f"{names} would have one history, {one.table}", hint=hint)
    if shard is None:
        return tuple(chosen)
    nth, of = shard
    return tuple(one for one in chosen if _number(one.name) % of == nth - 1)


def _number(name: str) -> int:
    """Hash a name, in the same way on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8])


def _answer(database: Target, query: str, wait: float, option: str) -> list[str]:
    """Run the query of an option, and give the names in its answer."""
    return _named(_ask(database, query, wait, f"the query of {option} failed: "), option)


def _ask(database: Target, query: str, wait: float, failure: str = "") -> list[tuple[str | None, ...]]:
    """Run one query in a transaction that can only read; give its rows as texts. `failure` begins its error."""
    with connections.translated(), closing(connections.connect(database, wait=wait)) as connection:
        path = read.set_search_path(database.schema)
        before = ["BEGIN READ ONLY", *([path] if path else [])]
        (results,) = messages.pipeline(connection, [[*before, query, "ROLLBACK"]])
        if failed := messages.failure(results):
            error = psycopg.errors.error_from_result(failed)
            if failure and not connections.was_lost(error):
                # not as of the program's own queries, whose hints are about the history table
                raise errors.MigrateError(f"{failure}{error.diag.message_primary}", hint=error.diag.message_hint)
            raise error
        result = results[len(before)]
        columns = range(result.nfields)
        return [
            tuple(None if (value := result.get_value(row, column)) is None else value.decode() for column in columns)
            for row in range(result.ntuples)
        ]


def _schemas(database: Target, names: Iterable[str]) -> list[tuple[str, Target]]:
    return [(name, replace(database, schema=name)) for name in names]


def _databases(database: Target, names: Iterable[str]) -> list[tuple[str, Target]]:
    return [(name, replace(database, parameters={**database.parameters, "dbname": name})) for name in names]


def _matching(rows: Iterable[tuple[str | None, ...]], pattern: str, what: str, lists: str) -> list[str]:
    """Choose names by a pattern; raise UsageError if none fits, with the psql arguments that list them all."""
    every = [name for (name,) in rows if name]
    if names := [name for name in every if fnmatchcase(name, pattern)]:
        return names
    shown = ", ".join(map(display.in_line, every[:_SHOWN])) + (", …" if len(every) > _SHOWN else "")
    hint = (
        f"There are {len(every)}: {shown}. To list them: outreach-migrate psql {lists}" if every else "There is none."
    )
    raise _wrong(f"no {display.in_line(what)} matches {display.in_line(pattern)}", hint=hint)


def _named(rows: Sequence[tuple[str | None, ...]], option: str) -> list[str]:
    if any(len(row) != 1 for row in rows):
        raise _wrong(f"the query of {option} must have one column, the name")
    names = [name or "" for (name,) in rows]
    if not all(names):
        raise _wrong(f"the query of {option} gives an empty name")
    return _present(names, f"the query of {option} gives no target")


def _present(found: list[T], otherwise: str) -> list[T]:
    if not found:
        raise _wrong(otherwise)
    return found


def _wrong(message: str, *, hint: str | None = None) -> errors.UsageError:
    return errors.UsageError(message, hint=hint, page="fleets")
