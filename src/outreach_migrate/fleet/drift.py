"""The drift of many targets, which share a scratch database if their files are the same."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from psycopg import Connection, sql

from outreach_migrate.errors import ConnectionFailed, MigrateError
from outreach_migrate.files import reach
from outreach_migrate.files.migrations import Migration
from outreach_migrate.postgres import connections
from outreach_migrate.run import comparison
from outreach_migrate.run.code_plan import CodeStep
from outreach_migrate.run.request import Request
from outreach_migrate.run.stop import Stop
from outreach_migrate.schema import catalog, code, drift, scratch
from outreach_migrate.schema.catalog import Object
from outreach_migrate.schema.drift import Drift, Side
from outreach_migrate.schema.scratch import Scratch

T = TypeVar("T")

_SCHEMA = re.compile(r'("(?:[^"]|"")*"|[^."(]+)\..*', re.DOTALL)  # of a name


class Replay:
    """A scratch database to which files are applied, in a schema whose name is changed to each target's."""

    def __init__(self, made: Scratch, connection: Connection, schema: str | None) -> None:
        self.made = made
        self.connection = connection
        self._schema = schema
        self._lock = threading.Lock()

    @contextmanager
    def named(self, schema: str | None) -> Iterator[Connection]:
        """Give the schema a target's name, until the end of the block, in which no other worker uses the database."""
        with self._lock, connections.translated():
            if schema != self._schema and schema and self._schema:
                old, new = (sql.Identifier(name).as_string() for name in (self._schema, schema))
                self.connection.execute(f"ALTER SCHEMA {old} RENAME TO {new}".encode())
                self._schema = schema
            yield self.connection


class Once(Generic[T]):
    """Values that are made once each, by the worker that is the first to need one; an error is kept, too."""

    def __init__(self) -> None:
        self._locks: dict[object, threading.Lock] = defaultdict(threading.Lock)
        self._lock = threading.Lock()
        self._made: dict[object, T | MigrateError] = {}

    def get(self, key: object, make: Callable[[], T]) -> T:
        """Give the value of a key; raise the MigrateError with which it could not be made."""
        with self._lock:
            lock = self._locks[key]
        with lock:
            if key not in self._made:
                try:
                    self._made[key] = make()
                except ConnectionFailed:  # the next try may have a connection
                    raise
                except MigrateError as error:
                    self._made[key] = error
            value = self._made[key]
        if isinstance(value, MigrateError):
            raise value
        return value


@dataclass(frozen=True, slots=True)
class Comparing:
    """Compares targets; its scratch databases last as long as `stack`."""

    private: Path
    ignore: Collection[str]
    stack: ExitStack
    replays: Once[Replay] = field(default_factory=Once)
    catalogs: Once[dict[str, list[Object]]] = field(default_factory=Once)

    def find(self, request: Request, _: Stop) -> Drift:
        """Compare a target with its applied files; of a schema's drift keep only the objects in it."""
        with comparison.reading(request, lambda _: None) as seen:
            return self.against(seen.connection, request, drift.applied(seen.plan))

    def against(self, connection: Connection, request: Request, files: Sequence[Migration]) -> Drift:
        """Compare a target with a scratch database to which files are applied, and files of code carried out."""
        steps = code.steps(connection, request)
        request, current = code.of_scratch(request, steps), [one.code for one in steps if one.is_current and one.code]
        every, schema = [*files, *(one.migration for one in current)], request.target.schema
        # every database has public, so no other schema's name can change to it
        if schema == "public" or (schema and any(map(reach.learns_its_schema, every))):
            with ExitStack() as stack:
                replay = self._replayed(connection, request, files, stack)
                return self._compared(connection, request, files, replay, steps)
        host = tuple((name, value) for name, value in _key(request) if name != "dbname")
        of_files = (*((file.version, file.checksum) for file in files), *((one.path, one.checksum) for one in current))
        key = (host, scratch.model(connection), schema is None, of_files)
        replay = self.replays.get(key, lambda: self._replayed(connection, request, files, self.stack))
        return self._compared(connection, request, files, replay, steps)

    def _replayed(
        self, connection: Connection, request: Request, files: Sequence[Migration], stack: ExitStack
    ) -> Replay:
        made = stack.enter_context(scratch.migrated(request, files, private=self.private, beside=connection))
        return Replay(made, stack.enter_context(closing(connections.connect(made.target))), request.target.schema)

    def _compared(
        self,
        connection: Connection,
        request: Request,
        files: Sequence[Migration],
        replay: Replay,
        steps: Sequence[CodeStep],
    ) -> Drift:
        schema, version = request.target.schema, Side(replay.connection, ()).version
        here = Side(connection, self._objects(connection, request, version))
        with replay.named(schema) as other:
            expected = catalog.read(other, request.table, version=here.version)
            there = Side(other, tuple(one for one in expected if schema in (None, _schema_of(one))))
            return drift.compared(here, there, request, files, replay.made, steps=steps, ignore=self.ignore)

    def _objects(self, connection: Connection, request: Request, version: int) -> tuple[Object, ...]:
        """Give the objects of a database, or of a schema of one; all of a database's are read at once."""
        table, schema = request.table, request.target.schema
        if schema is None:
            return catalog.read(connection, table, version=version)

        def make() -> dict[str, list[Object]]:
            found: dict[str, list[Object]] = defaultdict(list)
            for one in catalog.read(connection, table, version=version):
                if name := _schema_of(one):
                    found[name].append(one)
            return found

        return tuple(self.catalogs.get((_key(request), version), make).get(schema, ()))


def _key(request: Request) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(request.target.parameters.items()))


def _schema_of(one: Object) -> str | None:
    """Give the name of the schema that an object is in; None if it is in none, as a schema itself."""
    found = _SCHEMA.fullmatch(one.parent or one.name)
    if found is None:
        return None
    return found[1][1:-1].replace('""', '"') if found[1].startswith('"') else found[1]
