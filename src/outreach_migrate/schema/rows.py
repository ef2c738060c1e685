"""The tables and views of a schema, and the types of their columns, as the catalog has them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from outreach_migrate import errors
from outreach_migrate.history import records
from outreach_migrate.schema import views

if TYPE_CHECKING:
    from psycopg import Connection

    from outreach_migrate.history.table import Table


class TypeKind(Enum):
    """The kinds of types, as pg_type.typtype has them; an array is known by its element."""

    BASE = "b"
    ARRAY = "a"
    DOMAIN = "d"
    ENUM = "e"
    COMPOSITE = "c"
    RANGE = "r"
    MULTIRANGE = "m"


@dataclass(frozen=True, slots=True)
class Type:
    """A type. `of` is the OID of an array's element, a domain's base, a range's subtype, or a multirange's range.

    `labels` are an enum's, `fields` a composite's names and types.
    """

    schema: str
    name: str
    kind: TypeKind
    of: int
    labels: tuple[str, ...]
    fields: tuple[tuple[str, int], ...]
    comment: str | None


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `may_be_null` is about a SELECT; an INSERT may leave out one that `is_optional`."""

    name: str
    type: int
    may_be_null: bool
    is_optional: bool
    is_insertable: bool
    comment: str | None


@dataclass(frozen=True, slots=True)
class RowRelation:
    """A table, a foreign table, a view, or a materialised view, with its columns in their order."""

    name: str
    is_table: bool
    columns: tuple[Column, ...]
    comment: str | None


@dataclass(frozen=True, slots=True)
class Catalog:
    """The relations of a schema in the order of their names, and all types that their columns need, by OID."""

    relations: tuple[RowRelation, ...]
    types: dict[int, Type]


# Left out: partitions, whose rows are read through their table, and the relations of extensions.
_RELATIONS = """
    SELECT c.oid::bigint, c.relname::text, c.relkind::text, pg_catalog.obj_description(c.oid, 'pg_class')
      FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'f', 'v', 'm') AND NOT c.relispartition
       AND NOT EXISTS (
           SELECT FROM pg_catalog.pg_depend d
            WHERE d.classid = 'pg_catalog.pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
     ORDER BY c.relname COLLATE "C"
"""
# Nothing keeps nulls out of foreign tables, which may be partitions, nor out of a materialised view that is older than
# the constraint, out of rows that are older than a constraint which is not valid (PostgreSQL 18), and out of children
# that have not inherited it. A domain has the constraints of the domains that it is based on.
_COLUMNS = """
    SELECT a.attrelid::bigint, a.attnum::int, a.attname::text, a.atttypid::bigint,
           c.relkind IN ('r', 'p') AND (a.attnotnull OR d.is_full) AND NOT EXISTS (
               WITH RECURSIVE family(oid) AS (
                   SELECT c.oid
                   UNION
                   SELECT i.inhrelid FROM family JOIN pg_catalog.pg_inherits i ON i.inhparent = family.oid
                    WHERE c.relhassubclass)
               SELECT FROM family JOIN pg_catalog.pg_class m USING (oid)
                 JOIN pg_catalog.pg_attribute x ON x.attrelid = m.oid AND x.attname = a.attname
                WHERE m.relkind = 'f'
                   OR NOT d.is_full AND (NOT x.attnotnull OR EXISTS (
                          SELECT FROM pg_catalog.pg_constraint o
                           WHERE o.conrelid = m.oid AND o.contype = 'n' AND NOT o.convalidated
                             AND o.conkey = ARRAY[x.attnum]))),
           a.atthasdef OR a.attidentity <> '' OR d.has_default OR NOT (a.attnotnull OR d.is_full),
           a.attgenerated = '' AND a.attidentity <> 'a',
           pg_catalog.col_description(a.attrelid, a.attnum)
      FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid,
           LATERAL (
               WITH RECURSIVE bases(oid) AS (
                   SELECT a.atttypid
                   UNION
                   SELECT t.typbasetype FROM bases JOIN pg_catalog.pg_type t USING (oid) WHERE t.typtype = 'd')
               SELECT pg_catalog.bool_or(t.typnotnull) AS is_full,
                      pg_catalog.bool_or(t.typtype = 'd' AND t.typdefault IS NOT NULL) AS has_default
                 FROM bases JOIN pg_catalog.pg_type t USING (oid)) d
     WHERE a.attrelid = ANY(%s::bigint[]) AND a.attnum > 0 AND NOT a.attisdropped
     ORDER BY a.attrelid, a.attnum
"""
_TYPES = """
    SELECT t.oid::bigint, n.nspname::text, t.typname::text,
           CASE WHEN e.typarray = t.oid THEN 'a' ELSE t.typtype::text END,
           CASE t.typtype WHEN 'd' THEN t.typbasetype
                          WHEN 'r' THEN (SELECT rngsubtype FROM pg_catalog.pg_range WHERE rngtypid = t.oid)
                          WHEN 'm' THEN (SELECT rngtypid FROM pg_catalog.pg_range WHERE rngmultitypid = t.oid)
                          ELSE CASE WHEN e.typarray = t.oid THEN e.oid ELSE 0 END END::bigint,
           (SELECT pg_catalog.array_agg(l.enumlabel::text ORDER BY l.enumsortorder)
              FROM pg_catalog.pg_enum l WHERE l.enumtypid = t.oid),
           (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(a.attname, a.atttypid::bigint) ORDER BY a.attnum)
              FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped),
           pg_catalog.obj_description(t.oid, 'pg_type')
      FROM pg_catalog.pg_type t
      JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
      LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem
     WHERE t.oid = ANY(%s::bigint[])
"""


def read(connection: Connection, schema: str, history: Table) -> Catalog:
    """Read the relations of a schema, without the tables of histories, and the types that they need.

    The role needs no privilege on the relations. Raise UsageError when there is no such schema.
    """
    if not connection.execute("SELECT FROM pg_catalog.pg_namespace WHERE nspname = %s", (schema,)).rowcount:
        raise errors.UsageError(f"there is no schema {schema}")
    others, _ = records.tables(connection, history, search_path=schema)
    histories = {table.name for table in (*history.all, *others) if table.schema == schema}
    found = [row for row in connection.execute(_RELATIONS, (schema,)).fetchall() if row[1] not in histories]
    relations = {oid for oid, *_ in found}
    origins = views.origins(connection, [oid for oid, _, kind, _ in found if kind == "v"])
    tables = relations | {table for table, _ in origins.values()}
    rows = connection.execute(_COLUMNS, (list(tables),)).fetchall()
    full = {(oid, number) for oid, number, _, _, is_full, *_ in rows if is_full}
    columns: dict[int, list[Column]] = {oid: [] for oid in tables}
    for oid, number, name, kind, _, is_optional, is_insertable, comment in rows:
        may_be_null = origins.get((oid, number), (oid, number)) not in full
        columns[oid].append(Column(name, kind, may_be_null, is_optional, is_insertable, comment))
    return Catalog(
        tuple(RowRelation(name, kind in "rpf", tuple(columns[oid]), comment) for oid, name, kind, comment in found),
        _types(connection, {column.type for oid in relations for column in columns[oid]}),
    )


def _types(connection: Connection, wanted: set[int]) -> dict[int, Type]:
    """Read types, and the types that they are made of."""
    types: dict[int, Type] = {}
    while wanted:
        for oid, schema, name, kind, of, labels, fields, comment in connection.execute(
            _TYPES, (list(wanted),)
        ).fetchall():
            made_of = tuple((field, type_) for field, type_ in fields or ())
            types[oid] = Type(schema, name, TypeKind(kind), of, tuple(labels or ()), made_of, comment)
        parts = {part for oid in wanted for part in (types[oid].of, *(type_ for _, type_ in types[oid].fields))}
        wanted = parts - types.keys() - {0}
    return types
