"""The objects that files of code make, in the catalog, named as DROP takes them: FUNCTION public.f(integer)."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, NamedTuple

from outreach_migrate.files import scanner

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from psycopg import Connection

Key = tuple[int, int]  # the catalog's OID, and the object's

# Each kind's catalog, the column of the name, and the condition. Tables, sequences and schemas are not among them,
# because dropping one drops rows, or objects that somebody else made in it. A cast has no name, so each is looked at.
_KINDS = (
    ("pg_proc", "proname", "true"),
    ("pg_class", "relname", "relkind IN ('v', 'm') AND relpersistence <> 't'"),
    ("pg_trigger", "tgname", "NOT tgisinternal AND tgparentid = 0"),
    ("pg_policy", "polname", "true"),
    ("pg_rewrite", "rulename", "rulename <> '_RETURN'"),
    ("pg_event_trigger", "evtname", "true"),
    ("pg_operator", "oprname", "true"),
    ("pg_publication", "pubname", "true"),
    ("pg_cast", None, "true"),
    (
        "pg_type",
        "typname",
        "typtype IN ('b', 'c', 'd', 'e', 'r') AND typelem = 0 AND NOT EXISTS ("
        "SELECT FROM pg_catalog.pg_class c WHERE c.oid = typrelid AND c.relkind <> 'c')",
    ),
)
_OF_TABLE = "(SELECT c.relnamespace FROM pg_catalog.pg_class c WHERE c.oid = {})"
_SCHEMAS = {  # of an object of each catalog
    "pg_proc": "pronamespace",
    "pg_class": "relnamespace",
    "pg_trigger": _OF_TABLE.format("tgrelid"),
    "pg_policy": _OF_TABLE.format("polrelid"),
    "pg_rewrite": _OF_TABLE.format("ev_class"),
    "pg_operator": "oprnamespace",
    "pg_type": "typnamespace",
}
_INDEXES = """
    SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, i.indexrelid, i.ctid::text, i.xmin, v.relnamespace
      FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class v ON v.oid = i.indrelid WHERE v.relkind = 'm'"""
_KIND = re.compile(r"(?:[A-Z]+ )+")  # a name in capitals has quotes
_OF_NO_EXTENSION = """NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = k.class AND e.objid = k.object
                                                              AND e.deptype = 'e')"""
_NAME = "pg_catalog.upper(o.type) || ' ' || o.identity"
# catalogs of the parts of one object: a default of a view, a check of a domain, a table of a publication
_PARTS = [f"pg_catalog.pg_{one}" for one in ("attrdef", "constraint", "publication_rel", "publication_namespace")]
_FIRST = 16384  # the lowest OID of an object that is not the server's own


class Made(NamedTuple):
    """An object with its name, and a mark that changes whenever the object does."""

    key: Key
    name: str
    mark: str


class Resting(NamedTuple):
    """An object that rests on another, described; an `internal` one goes with its owner, and has no name to drop."""

    key: Key
    description: str
    internal: bool


def there(*, named: str = "", schemas: str = "") -> str:
    """Write the query for the database's objects of these kinds.

    `named` is an array of names without schemas, `schemas` a query for the OIDs of schemas; other objects are left out.
    A database may have the same objects in thousands of schemas, and each costs time to name.
    """
    inside = f"WHERE k.schema IS NULL OR k.schema IN ({schemas})" if schemas else ""
    rows = " UNION ALL ".join(f"{_rows(*kind, named=named)} AND oid >= {_FIRST}" for kind in _KINDS)
    return f"""
        SELECT {_NAME} AS name, k.class::bigint AS class, k.object::bigint AS object
          FROM ({rows} UNION ALL {_INDEXES}) AS k(class, object, mark, xmin, schema),
               LATERAL pg_catalog.pg_identify_object(k.class, k.object, 0) AS o {inside}"""


def _rows(catalog: str, name: str | None, condition: str, *, named: str) -> str:
    """Write the query for a kind's objects; `named` is an array of their names, or nothing."""
    return (
        f"SELECT 'pg_catalog.{catalog}'::pg_catalog.regclass::oid, oid, ctid::text, xmin,"
        f" {_SCHEMAS.get(catalog, 'NULL::oid')} FROM pg_catalog.{catalog} WHERE {condition}"
    ) + (f" AND {name} = ANY ({named})" if named and name else "")


def keys(connection: Connection, names: Collection[str]) -> dict[str, Key]:
    """Find objects by their names; those that are gone are left out."""
    if not names:
        return {}
    query = f"SELECT name, class, object FROM ({there(named='%(bare)s')}) AS known WHERE name = ANY (%(names)s)"
    values = {"names": list(names), "bare": [bare(parts(name)[1]) for name in names]}
    rows = connection.execute(query.encode(), values).fetchall()
    return {name: (catalog, oid) for name, catalog, oid in rows}


def parts(name: str) -> tuple[str, str]:
    """Part an object's kind from its name: FUNCTION and public.f(integer)."""
    found = _KIND.match(name)
    return (found[0].rstrip(), name[found.end() :]) if found else ("", name)


def bare(name: str) -> str:
    """Give a name without its schema, and without the arguments, table and the like that follow it."""
    read = list(scanner.tokens(name))
    while len(read) > 2 and read[1].text == ".":
        read = read[2:]
    return read[0].name


def made(connection: Connection, names: Sequence[str]) -> list[Made]:
    """Find the objects of these names, without their schemas, that this transaction has made or changed, oldest first.

    A row that is visible while the transaction that wrote it goes on is this one's, or its subtransaction's. Others
    may make objects of the same names meanwhile, in the schemas of other tenants. A view's mark is that of its query.
    """
    rows = [_rows(*kind, named="%(names)s") for kind in _KINDS]
    rules = """
        SELECT 'pg_catalog.pg_class'::pg_catalog.regclass::oid, r.ev_class, r.ctid::text, r.xmin, NULL::oid
          FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
         WHERE r.rulename = '_RETURN' AND c.relname = ANY(%(names)s) AND c.relpersistence <> 't'"""
    query = f"""
        WITH ours AS MATERIALIZED (SELECT pg_catalog.pg_current_xact_id()::text::bigint AS xid)
        SELECT k.class::bigint, k.object::bigint, {_NAME}, pg_catalog.string_agg(k.mark, ' ' ORDER BY k.mark)
          FROM ours, ({" UNION ALL ".join([*rows, rules, _INDEXES])}) AS k(class, object, mark, xmin, schema),
               LATERAL pg_catalog.pg_identify_object(k.class, k.object, 0) AS o
         WHERE CASE WHEN pg_catalog.age(k.xmin) <= 0 THEN
               pg_catalog.pg_xact_status((ours.xid - pg_catalog.age(k.xmin))::text::pg_catalog.xid8) = 'in progress' END
           AND {_OF_NO_EXTENSION}
         GROUP BY 1, 2, 3 ORDER BY 2"""
    found = connection.execute(query.encode(), {"names": list(names)}).fetchall()
    return [Made((catalog, oid), name, mark) for catalog, oid, name, mark in found]


def resting(connection: Connection, first: Collection[Key]) -> list[Resting]:
    """Find the objects that rest on these, to the end, each after those that rest on it; these objects are among them.

    A view's query stands for the view. A partition's trigger goes with its table's, a view's default and a domain's
    check with the view and the domain.
    """
    query = """
        WITH RECURSIVE edges(class, object, onclass, onobject, internal) AS (
            SELECT c, o, 0::oid, 0::oid, false
              FROM ROWS FROM (pg_catalog.unnest(%s::oid[]), pg_catalog.unnest(%s::oid[])) AS k(c, o)
            UNION
            SELECT CASE WHEN r.oid IS NULL THEN d.classid ELSE 'pg_catalog.pg_class'::pg_catalog.regclass END,
                   coalesce(r.ev_class, d.objid), e.class, e.object,
                   d.deptype = 'i' OR d.deptype = 'a' AND d.classid IN (
                       SELECT pg_catalog.to_regclass(part) FROM pg_catalog.unnest(%s::text[]) AS part)
              FROM edges e
              JOIN pg_catalog.pg_depend d ON d.refclassid = e.class AND d.refobjid = e.object
              LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass
                                                AND r.oid = d.objid AND r.rulename = '_RETURN'
             WHERE d.deptype IN ('n', 'a', 'i'))
        SELECT e.class::bigint, e.object::bigint, e.onclass::bigint, e.onobject::bigint,
               pg_catalog.pg_describe_object(e.class, e.object, 0),
               e.internal OR t.tgparentid <> 0
          FROM edges e
          LEFT JOIN pg_catalog.pg_trigger t ON e.class = 'pg_catalog.pg_trigger'::pg_catalog.regclass
                                            AND t.oid = e.object"""
    given = [[one for one, _ in first], [one for _, one in first], _PARTS]
    above: dict[Key, set[Key]] = {}
    texts, internal = dict[Key, str](), dict[Key, bool]()
    for catalog, oid, on_catalog, on_oid, text, is_internal in connection.execute(query, given).fetchall():
        key, on = (catalog, oid), (on_catalog, on_oid)
        above.setdefault(key, set())
        if on[1] and on != key:
            above.setdefault(on, set()).add(key)
        texts[key] = text
        internal[key] = internal.get(key, True) and bool(is_internal)
    try:
        order = list(TopologicalSorter(above).static_order())
    except CycleError:  # as between a base type and its functions
        order = sorted(above, key=lambda key: key[1], reverse=True)
    return [Resting(key, texts[key], internal[key]) for key in order]
