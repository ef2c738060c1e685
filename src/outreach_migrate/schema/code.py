"""The files of code in a comparison: those that a scratch database gets, and the objects of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from outreach_migrate.history import code as history
from outreach_migrate.postgres import objects
from outreach_migrate.run import code_plan
from outreach_migrate.run.code_plan import CodeState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from psycopg import Connection

    from outreach_migrate.run.code_plan import CodeStep
    from outreach_migrate.run.request import Request
    from outreach_migrate.schema.catalog import Object
    from outreach_migrate.schema.differences import Difference


@dataclass(frozen=True, slots=True)
class CodeCompared:
    """The steps of files of code, and `files` with the path of each object's file; an object is its kind and name.

    `pending` are the kinds and the names, without schemas, of the objects of changed files. A database can't have them
    as the file does, so they are left out.
    """

    steps: tuple[CodeStep, ...]
    files: dict[str, str]
    pending: frozenset[tuple[str, str]]

    def kept(self, found: Iterable[Object]) -> list[Object]:
        """Leave out the objects of changed files."""
        changed = {step.path for step in self.steps if step.is_changed}
        return [one for one in found if self.files.get(_key(one)) not in changed and not self._is_pending(one)]

    def _is_pending(self, one: Object) -> bool:
        kind, _, name = _key(one).rpartition(" ") if one.kind == "privileges" else (one.kind, "", one.name)
        return bool(self.pending) and (kind.split(" ")[-1], objects.bare(name)) in self.pending

    def named(self, found: Iterable[Difference]) -> list[Difference]:
        """Add the paths of their files to differences."""
        return [replace(one, code=self.files.get(_key(one))) for one in found]

    def states(self, found: Iterable[Difference]) -> tuple[CodeStep, ...]:
        """Give the steps; a file is drifted if one of its objects differs."""
        differ = {one.code for one in found}
        drifted = {step.path for step in self.steps if step.is_current} & differ
        return tuple(replace(one, state=CodeState.DRIFTED) if one.path in drifted else one for one in self.steps)


def _key(one: Object | Difference) -> str:
    return one.name.removeprefix("on ") if one.kind == "privileges" else f"{one.kind} {one.name}"


def steps(connection: Connection, request: Request) -> tuple[CodeStep, ...]:
    """Compare the files of code with the records of a database; an object that is gone is drift, not a change."""
    if request.code is None:
        return ()
    records = history.read(connection, request.table)
    return code_plan.compare(request.code, {path: one._replace(missing=()) for path, one in records.items()})


def of_scratch(request: Request, found: Sequence[CodeStep]) -> Request:
    """Give the request for a scratch database: it carries out the files of code that are as they were carried out.

    A migration that needs another one carries it out all the same.
    """
    return replace(request, code_only=frozenset(step.path for step in found if step.is_current))


def compared(connection: Connection, other: Connection, request: Request, found: Sequence[CodeStep]) -> CodeCompared:
    """Find the objects of the files in the database and in the scratch database."""
    if not found:
        return CodeCompared((), {}, frozenset())
    made = {path: record.objects for path, record in history.read(other, request.table).items()}
    files = dict[str, str]()
    for step in found:
        every = [*(step.record.objects if step.record else ()), *made.get(step.path, ())]
        titles = {**_titles(other, every), **_titles(connection, every)}
        files |= dict.fromkeys([*titles.values(), *map(_title, every)], step.path)
    pending = {(kind, name) for step in found if step.is_changed and step.code for kind, name in step.code.named}
    return CodeCompared(tuple(found), files, frozenset(pending))


def _title(recorded: str) -> str:
    """Write a recorded object as the catalog's queries do, except for the kinds that `_titles` finds."""
    kind, name = objects.parts(recorded)
    return f"{kind.lower()} {name}"


def _titles(connection: Connection, recorded: Sequence[str]) -> dict[str, str]:
    """Write recorded objects as the catalog's queries do, which have the names of arguments as well."""
    query = f"""
        SELECT k.name, CASE k.class::oid
               WHEN 'pg_catalog.pg_proc'::pg_catalog.regclass THEN (
                   SELECT pg_catalog.format('%%I.%%I(%%s)', n.nspname, p.proname,
                                            pg_catalog.pg_get_function_identity_arguments(p.oid))
                     FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
                    WHERE p.oid = k.object)
               WHEN 'pg_catalog.pg_operator'::pg_catalog.regclass THEN k.object::oid::pg_catalog.regoperator::text
               WHEN 'pg_catalog.pg_cast'::pg_catalog.regclass THEN (
                   SELECT pg_catalog.format('(%%s AS %%s)', pg_catalog.format_type(castsource, NULL),
                                            pg_catalog.format_type(casttarget, NULL))
                     FROM pg_catalog.pg_cast c WHERE c.oid = k.object) END,
               EXISTS (SELECT FROM pg_catalog.pg_type t WHERE t.oid = k.object AND t.typtype = 'd')
          FROM ({objects.there()}) AS k WHERE k.name = ANY (%s)"""
    with connection.transaction():
        connection.execute("SET LOCAL search_path = ''")
        rows = connection.execute(query.encode(), [list(recorded)]).fetchall() if recorded else []
    titles = dict[str, str]()
    for recorded_as, written, is_domain in rows:
        kind, plain = objects.parts(recorded_as)
        titles[recorded_as] = f"{'domain' if is_domain else kind.lower()} {written or plain}"
    return titles
