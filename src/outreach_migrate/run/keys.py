"""The key of a backfill in batches: found in the catalog, and asked for the next range."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from psycopg import sql

from outreach_migrate.errors import MigrationFileError, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outreach_migrate.files.batches import Batches
    from outreach_migrate.files.migrations import Migration

    Ask = Callable[[str], str]  # gives the first value of a query's result, as text

NONE = "NULL"  # stands for no key
# The settings by which a key is written, so that any session reads the same value
SETTINGS = ("SET LOCAL DateStyle = 'ISO'", "SET LOCAL IntervalStyle = 'iso_8601'", "SET LOCAL extra_float_digits = 1")
_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table", "S": "a sequence", "c": "a type"}
_LACKS = {  # of an index that begins with the key, the most frequent first
    "alone": "is not on it alone",
    "unique": "is not unique",
    "whole": "is partial",
    "valid": "is not valid",
    "btree": "is no btree",
    "usual": "has another operator class or collation than the column's own",
}


@dataclass(frozen=True, slots=True)
class Key:
    """A key as SQL: its table and column, the column as the file's statement names it, its type and its operators."""

    table: str
    column: str
    named: str
    type: str
    above: str
    until: str

    def after(self, last: str, until: str, *, column: str | None = None) -> str:
        """Write the condition for the rows after one key, up to another; both are literals, NULL for no lower end."""
        column = column or self.named
        lower = "" if last == NONE else f"{column} {self.above} {last}::{self.type} AND "
        return f"{lower}{column} {self.until} {until}::{self.type}"


def find(ask: Ask, migration: Migration, wanted: Batches) -> Key:
    """Find the key; raise MigrationFileError if there is none that will do."""
    facts: dict[str, Any] = json.loads(ask(_query(wanted)))
    problems = [
        Problem(message, migration.location(wanted.offset), hint, migration.excerpt(wanted.offset))
        for message, hint in _lacks(facts, wanted)
    ]
    if problems:
        raise MigrationFileError(problems[:1], page="backfills")
    index = next(filter(_is_fit, facts["indexes"]))
    return Key(facts["table"], facts["quoted"], wanted.key, facts["type"], index["above"], index["until"])


def _query(wanted: Batches) -> str:
    """Write the query for the facts of the table, the column, and the indexes that begin with it, one JSON object.

    A domain's values are compared as its base type's, because its checks may not hold for old rows. The operators are
    those by which the index is ordered, because an extension's may not be in the search path: then citext's values
    would be compared as text.
    """
    operator = """(
        SELECT CASE WHEN p.oprnamespace = 'pg_catalog'::pg_catalog.regnamespace THEN p.oprname::text
                    ELSE pg_catalog.format('OPERATOR(%I.%s)', s.nspname, p.oprname) END
          FROM pg_catalog.pg_amop f JOIN pg_catalog.pg_operator p ON p.oid = f.amopopr
          JOIN pg_catalog.pg_namespace s ON s.oid = p.oprnamespace
         WHERE f.amopfamily = o.opcfamily AND f.amopstrategy = {} AND f.amoppurpose = 's'
           AND f.amoplefttype = o.opcintype AND f.amoprighttype = o.opcintype)"""
    return f"""
        SELECT pg_catalog.json_build_object(
            'kind', c.relkind, 'table', c.oid::pg_catalog.regclass::text, 'column', a.attname,
            'quoted', pg_catalog.quote_ident(a.attname), 'not_null', a.attnotnull AND NOT EXISTS (
                SELECT FROM pg_catalog.pg_constraint n
                 WHERE n.conrelid = c.oid AND n.contype = 'n' AND a.attnum = ANY (n.conkey) AND NOT n.convalidated),
            'type', (WITH RECURSIVE base AS (
                         SELECT a.atttypid AS oid, a.atttypmod AS modifier
                          UNION ALL
                         SELECT t.typbasetype, t.typtypmod FROM base JOIN pg_catalog.pg_type t USING (oid)
                          WHERE t.typtype = 'd')
                     SELECT pg_catalog.format_type(base.oid, base.modifier)
                       FROM base JOIN pg_catalog.pg_type t USING (oid) WHERE t.typtype <> 'd'),
            'indexes', (SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
                            'name', i.indexrelid::pg_catalog.regclass::text, 'alone', i.indnkeyatts = 1,
                            'unique', i.indisunique, 'whole', i.indpred IS NULL, 'valid', i.indisvalid,
                            'btree', m.amname = 'btree', 'until', {operator.format(2)}, 'above', {operator.format(5)},
                            'usual', o.opcdefault AND i.indcollation[0] = a.attcollation))
                          FROM pg_catalog.pg_index i
                          JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
                          JOIN pg_catalog.pg_am m ON m.oid = x.relam
                          JOIN pg_catalog.pg_opclass o ON o.oid = i.indclass[0]
                         WHERE i.indrelid = c.oid AND i.indkey[0] = a.attnum))::text
          FROM (SELECT pg_catalog.to_regclass({sql.quote(wanted.table)})) AS w(oid)
          LEFT JOIN pg_catalog.pg_class c ON c.oid = w.oid
          LEFT JOIN pg_catalog.pg_attribute a
            ON a.attrelid = c.oid AND a.attname = {sql.quote(wanted.column)} AND a.attnum > 0 AND NOT a.attisdropped"""


def _is_fit(index: dict[str, Any]) -> bool:
    return all(index[name] for name in _LACKS)


def _lacks(facts: dict[str, Any], wanted: Batches) -> Iterator[tuple[str, str | None]]:
    kind, column = facts["kind"], f"the key {wanted.key}"
    if kind is None:
        yield f"there is no table {wanted.table}", None
    elif kind not in ("r", "p"):
        yield f"{wanted.table} is {_KINDS.get(kind, 'an index')}, and only a table has ranges of a key", None
    elif facts["column"] is None:
        yield f"the table {facts['table']} has no column {wanted.column}", None
    else:
        if not facts["not_null"]:
            hint = f"Rows without a key would be in no range: ALTER TABLE {facts['table']} ALTER {facts['quoted']}"
            yield f"{column} is not NOT NULL", f"{hint} SET NOT NULL;"
        indexes = facts["indexes"] or []
        if not any(map(_is_fit, indexes)):
            why = "no index begins with it"
            if indexes:
                nearest = max(indexes, key=lambda index: sum(index[name] for name in _LACKS))
                lacks = " and ".join(text for name, text in _LACKS.items() if not nearest[name])
                why = f"the index {nearest['name']} {lacks}"
            hint = f"Make one first: CREATE UNIQUE INDEX CONCURRENTLY … ON {facts['table']} ({facts['quoted']});"
            yield f"{column} has no valid unique btree index on it alone: {why}", hint


def upper(key: Key) -> str:
    """Write the query for the greatest key, as a literal of text; NULL if the table is empty."""
    greatest = f"SELECT {key.column} AS key FROM {key.table} ORDER BY 1 DESC LIMIT 1"
    return f"SELECT coalesce((SELECT {_literal('key')} FROM ({greatest}) AS greatest), '{NONE}')"


def next_end(key: Key, last: str, until: str, size: int) -> str:
    """Write the query for the last key of the next range, NULL if fewer rows than `size` are left."""
    rest = key.after(last, until, column=key.column)
    return (
        f"(SELECT {_literal('key')} FROM (SELECT {key.column} AS key FROM {key.table} WHERE {rest}"
        f" ORDER BY 1 OFFSET {size - 1} LIMIT 1) AS next)"
    )


def count(key: Key, last: str, until: str) -> str:
    """Write the query for the number of the rows that are left."""
    return f"SELECT pg_catalog.count(*) FROM {key.table} WHERE {key.after(last, until, column=key.column)}"


def _literal(key: str) -> str:
    return f"pg_catalog.quote_literal(pg_catalog.format('%s', {key}))"


def estimate(ask: Ask, key: Key) -> int:
    """Ask how many rows the table has, about, with those of its partitions and children.

    The planner goes by the table's size, and by the rows on a page when it was analyzed. It can only guess these if it
    never was, or had no full page. Then the changes are nearer that the server has counted; but it counts those of a
    session some time later, so they may come on top of an ANALYZE that has seen them.
    """
    (top,) = json.loads(ask(f"EXPLAIN (FORMAT JSON) SELECT FROM {key.table}"))
    counted, is_known = json.loads(
        ask(f"""
        WITH RECURSIVE part(oid) AS (
            SELECT {sql.quote(key.table)}::pg_catalog.regclass::oid
             UNION SELECT i.inhrelid FROM part JOIN pg_catalog.pg_inherits i ON i.inhparent = part.oid),
        measured AS (
            SELECT c.*, pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::int AS pages
              FROM part JOIN pg_catalog.pg_class c USING (oid) WHERE c.relkind = 'r')
        SELECT pg_catalog.json_build_array(
                   coalesce(sum(pg_catalog.pg_stat_get_live_tuples(oid)
                                + pg_catalog.pg_stat_get_xact_tuples_inserted(oid)
                                - pg_catalog.pg_stat_get_xact_tuples_deleted(oid)), 0),
                   coalesce(bool_and(pages = 0 OR reltuples > 0 AND (relpages > 1 OR pages = 1)), false))::text
          FROM measured""")
    )
    return int(top["Plan"]["Plan Rows"] if is_known or counted <= 0 else counted)
