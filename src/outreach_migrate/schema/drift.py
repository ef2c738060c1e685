"""Drift: the database compared with its own applied files."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from outreach_migrate import display, errors
from outreach_migrate.errors import Conflict, Contradiction
from outreach_migrate.history import records
from outreach_migrate.postgres import connections
from outreach_migrate.run import comparison
from outreach_migrate.run.plan import State
from outreach_migrate.schema import catalog, code, differences, reprinting, scratch

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from psycopg import Connection

    from outreach_migrate.errors import Problem
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.run.code_plan import CodeStep
    from outreach_migrate.run.plan import Plan
    from outreach_migrate.run.request import Request
    from outreach_migrate.schema.catalog import Object
    from outreach_migrate.schema.differences import SchemaComparison
    from outreach_migrate.schema.scratch import Scratch

_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Drift:
    """A database compared with a scratch database that has the same files.

    `servers` are the major versions of the database's server and of the scratch database's. `code` are the steps of
    the files of code.
    """

    comparison: SchemaComparison
    files: tuple[Migration, ...]
    scratch: Scratch
    servers: tuple[int, int]
    code: tuple[CodeStep, ...] = ()


class Drifted(errors.MigrateError):
    """The database differs from its applied files."""

    def __init__(self, drift: Drift) -> None:
        objects = display.count(len(drift.comparison.differences), "object differs", "objects differ")
        super().__init__(
            f"the database has drifted: {objects} from its applied files",
            hint="Mend the database, or let a migration make the difference. drift --ignore, and ignore = […] in"
            " [tool.outreach-migrate.drift], leave objects out.",
        )
        self.drift = drift


def find(request: Request, *, private: Path, ignore: Collection[str] = ()) -> Drift:
    """Compare the request's database with a scratch database to which its applied files are applied.

    Raise HistoryError when a file is not as it was applied, or not there, and the errors of scratch.migrated.
    """
    with comparison.reading(request, lambda _: None) as seen:
        return against(seen.connection, request, applied(seen.plan), private=private, ignore=ignore)


class Side(NamedTuple):
    """A database with its connection, and its objects."""

    connection: Connection
    objects: tuple[Object, ...]

    @property
    def version(self) -> int:
        """The server's major version."""
        return self.connection.info.server_version // 10000


def against(
    connection: Connection,
    request: Request,
    files: Sequence[Migration],
    *,
    private: Path,
    ignore: Collection[str] = (),
) -> Drift:
    """Compare the database of a connection, the request's, with a scratch database to which files are applied.

    Of the files of code it gets those that are as they were carried out; the objects of changed ones are left out.
    """
    steps = code.steps(connection, request)
    request = code.of_scratch(request, steps)
    with scratch.migrated(request, files, private=private, beside=connection) as made:
        return beside(connection, request, files, made, steps=steps, ignore=ignore)


def beside(
    connection: Connection,
    request: Request,
    files: Sequence[Migration],
    made: Scratch,
    *,
    steps: Sequence[CodeStep] = (),
    ignore: Collection[str] = (),
) -> Drift:
    """Compare the database of a connection, the request's, with the scratch database `made` that has the files.

    `steps` are those of the files of code.
    """
    with connections.translated(), closing(connections.connect(made.target)) as other:
        here, there = Side(connection, ()), Side(other, ())
        with ThreadPoolExecutor(1) as thread:  # both at once, because each waits for its server
            read = thread.submit(catalog.read, other, request.table, version=here.version)
            here = here._replace(objects=catalog.read(connection, request.table, version=there.version))
        there = there._replace(objects=read.result())
        return compared(here, there, request, files, made, steps=steps, ignore=ignore)


def compared(
    here: Side,
    there: Side,
    request: Request,
    files: Sequence[Migration],
    made: Scratch,
    *,
    steps: Sequence[CodeStep] = (),
    ignore: Collection[str] = (),
) -> Drift:
    """Compare the request's database, `here`, with the scratch database `made` that has the files, `there`.

    `steps` are those of the files of code.
    """
    actual, expected = here.objects, there.objects
    if here.version != there.version:
        actual = reprinting.alike(actual, here.connection, expected, there.connection)
    theirs, made_by_tools = records.tables(here.connection, request.table, search_path=request.target.schema)
    names = {_name(one.schema, one.name) for one in (*theirs, *request.table.all)} | {
        _name(one) for one in made_by_tools
    }
    names -= {one.name for one in expected}  # unless a file makes it
    actual = tuple(one for one in actual if one.name not in names and one.parent not in names)
    is_there = any(_is_schema(one, request.table.schema) for one in actual)  # a run makes the history's
    kept = [one for one in expected if is_there or not _is_schema(one, request.table.schema)]
    kept = [one for one in kept if one.kind != "extension" or one.name not in made.preset]
    of_code = code.compared(here.connection, there.connection, request, steps)
    found = differences.find(of_code.kept(actual), of_code.kept(kept), ignore=ignore)
    named = of_code.named(found.differences)
    whole = replace(found, differences=tuple(named))
    return Drift(whole, tuple(files), made, (here.version, there.version), of_code.states(named))


def _is_schema(one: Object, name: str) -> bool:
    return one.kind == "schema" and one.name in (name, '"' + name.replace('"', '""') + '"')


def _name(*parts: str) -> str:
    """Write a name as the catalog's queries do, with quotes where they are needed."""
    return ".".join(part if _PLAIN.fullmatch(part) else '"' + part.replace('"', '""') + '"' for part in parts)


def applied(plan: Plan) -> list[Migration]:
    """Give the files that are applied; each must be as it was applied."""
    wrong: list[Problem | Contradiction] = [*plan.contradictions(out_of_order=True), *plan.unfinished()]
    wrong += [
        Contradiction(
            Conflict.MISSING,
            step.version,
            step.name,
            started_at=step.entry.started_at,
            finished_at=step.entry.finished_at,
        )
        for step in plan.having(State.AHEAD)
        if step.entry and step.entry.finished_at
    ]
    if wrong:
        raise errors.HistoryError(wrong)
    return [step.migration for step in plan.having(State.APPLIED, State.SQUASHED) if step.migration]
