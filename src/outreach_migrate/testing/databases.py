"""Databases that tests get."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any

import psycopg

import outreach_migrate
from outreach_migrate import Result
from outreach_migrate.postgres import dsn
from outreach_migrate.testing.recipe import Recipe


class Url(str):
    """A URL whose password is not shown when pytest prints the values of a failed test."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(dsn.url(dsn.read(self), password=False))


@dataclass(frozen=True, slots=True)
class Database:
    """A database for a test; `url` has the login."""

    name: str
    url: Url
    _opened: ExitStack = field(repr=False)

    def connect(self, **options: Any) -> psycopg.Connection[Any]:
        """Open a connection, with psycopg.connect's options; it is closed after the test at the latest."""
        __tracebackhide__ = True
        try:
            connection = psycopg.connect(self.url, **options)
        except psycopg.Error as error:  # the report shows the test's line, without psycopg's
            raise error.with_traceback(None) from None
        return self._opened.enter_context(closing(connection))


@dataclass(frozen=True, slots=True)
class DatabaseBefore(Database):
    """A database just before a migration."""

    version: str
    _recipe: Recipe = field(repr=False)
    _schema: str | None = None

    def apply(self) -> Result:
        """Apply the migration that the database is just before; raise MigrateError as `outreach_migrate.up` does."""
        recipe = self._recipe
        return outreach_migrate.up(
            self.url,
            folder=recipe.folder,
            schema=self._schema,
            table=recipe.table,
            to=self.version,
            variables=recipe.values,
        )
