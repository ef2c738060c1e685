"""The name of the history table."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from psycopg import sql

from outreach_migrate.errors import UsageError

NAME = "schema_migrations"
_BESIDE = ("_batches", "_code")
_LONGEST = 63 - max(map(len, _BESIDE))  # bytes: PostgreSQL cuts a longer name off


class Table(NamedTuple):
    """A table's schema and name; the search path plays no part.

    `chosen` says whether an option or the URL names it. The default is refused when another table may be meant.
    """

    schema: str
    name: str
    chosen: bool = True

    def __str__(self) -> str:
        """Write the name as --table takes it."""
        parts = (self.schema, self.name)
        return ".".join(f'"{part.replace(chr(34), chr(34) * 2)}"' if set(part) & {".", '"'} else part for part in parts)

    def beside(self, ending: str) -> Table:
        """Name a table beside the history."""
        return Table(self.schema, self.name.encode()[:_LONGEST].decode(errors="ignore") + ending)

    @property
    def all(self) -> tuple[Table, ...]:
        """The history and the tables that may be beside it."""
        return (self, *map(self.beside, _BESIDE))

    @property
    def quoted(self) -> str:
        """The name as it stands in SQL."""
        return _quoted(self.schema, self.name)


@cache
def _quoted(schema: str, name: str) -> str:
    return sql.Identifier(schema, name).as_string()


def read(name: str | None, schema: str | None = None) -> Table:
    """Read [SCHEMA.]NAME, each part as it is or in double quotes; case is kept.

    The name defaults to schema_migrations, the schema to `schema`, which the URL names, or public. Raise UsageError.
    """
    if name is None:
        return Table(schema or "public", NAME, chosen=schema is not None)
    parts = re.findall(r'"((?:[^"]|"")+)"|([^".]+)', name)
    written = ".".join(f'"{quoted}"' if quoted else plain for quoted, plain in parts)
    if written != name or not 1 <= len(parts) <= 2:
        raise UsageError(f"not a table's name: {name}", hint='Give NAME or SCHEMA.NAME, as ops."my table".')
    *first, last = [quoted.replace('""', '"') or plain for quoted, plain in parts]
    return Table(first[0] if first else schema or "public", last)
