"""The relations that were there before the rehearsal, as other sessions see them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import sql

from outreach_migrate.files import scanner
from outreach_migrate.files.scanner import Kind
from outreach_migrate.history import read
from outreach_migrate.postgres import connections
from outreach_migrate.rehearsal import snapshots
from outreach_migrate.rehearsal.effects import Relation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.postgres.dsn import Target

_KINDS = {
    **{"r": "table", "p": "partitioned table", "m": "materialized view", "f": "foreign table", "v": "view"},
    **{"i": "index", "I": "partitioned index", "S": "sequence", "t": "TOAST table", "ti": "TOAST index"},
    "c": "composite type",
}
_HEAD = 10_000  # characters of a statement that are searched for the names of tables


class Before:
    """The relations as they were before the rehearsal, read on a second connection, which sees none of its changes.

    `newest` is the greatest of their oids. A relation that this connection doesn't see was made by the rehearsal. One
    that the rehearsal has locked can't have changed since.
    """

    def __init__(self, target: Target) -> None:
        self.known: dict[int, Relation] = {}
        self._target = target
        self._asked: set[int] = set()
        self._sizes: dict[int, int] = {}
        self._named: dict[str, set[int]] = {}
        self._names: set[str] = set()

    def __enter__(self) -> Self:
        self._connection = connections.connect(self._target, read_write=True)
        ((self.newest,),) = self._rows("SELECT coalesce(max(oid), 0)::bigint FROM pg_catalog.pg_class")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def learn(self, oids: Iterable[int]) -> None:
        """Read those of these relations that other sessions see."""
        new = set(oids) - self._asked
        if not new:
            return
        self._asked |= new
        self._measure(new)
        for row in self._rows(_relations(new)):
            oid, name, plain, kind, file, table_oid, table, rows, size = row
            size = self._sizes.get(oid, size)
            self.known[oid] = Relation(oid, name, _KINDS.get(kind, kind), table_oid, table, rows, size, file, plain)

    def look_up(self, texts: Iterable[str]) -> None:
        """Find the tables that statements name, before anything is locked, and measure them."""
        words = {word for text in texts for word in _words(text)}
        with suppress(psycopg.errors.UntranslatableCharacter):  # the statement itself will fail, at its place
            for word, oid in self._rows(_tables_named(words)) if words else ():
                self._named.setdefault(word, set()).add(oid)
            self._names = {word for (word,) in self._rows(_relations_named(words))} if words else set()
        self._measure({oid for oids in self._named.values() for oid in oids})

    def named(self, text: str) -> set[int]:
        """Give the tables that a statement names, with their partitions."""
        return {oid for word in _words(text) for oid in self._named.get(word, ())}

    def may_be_named(self, text: str) -> bool:
        """Tell whether a statement has the name of a relation of any kind, or is too long to tell."""
        return len(text) > _HEAD or not self._names.isdisjoint(_words(text))

    def _measure(self, oids: set[int]) -> None:
        """Ask for sizes, without waiting for a table that somebody has locked against reading."""
        wanted = oids - self._sizes.keys()
        if wanted:
            with suppress(psycopg.errors.LockNotAvailable):
                self._sizes.update(self._rows(_sizes(wanted)))

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query in a transaction of its own, so that no index build waits for this session."""
        limits = f"SET LOCAL lock_timeout = 100;{read.set_search_path(self._target.schema)}"
        cursor = self._connection.execute(f"{limits}{query}".encode())
        while cursor.nextset():
            pass
        return cursor.fetchall()


def _words(text: str) -> set[str]:
    """Give a text's words as names; with a single-byte encoding the server folds more letters than ASCII's."""
    found = [one for one in scanner.with_strings(text[:_HEAD]) if one.kind in (Kind.WORD, Kind.QUOTED)]
    return {*(one.name for one in found), *(one.name.lower() for one in found if not one.text.isascii())}


def _name(relation: str) -> str:
    return f"""
        CASE WHEN pg_catalog.pg_table_is_visible({relation}.oid) THEN {relation}.relname
             ELSE {relation}.relnamespace::pg_catalog.regnamespace || '.' || {relation}.relname END::text"""


def _relations(oids: Iterable[int]) -> str:
    """Write the query for relations by oid; a TOAST table's index belongs to the table, as a column's sequence does."""
    return f"""
        SELECT c.oid::bigint, {_name("c")}, c.relname::text,
               CASE WHEN o.relkind = 't' AND c.relkind = 'i' THEN 'ti' ELSE c.relkind::text END, c.relfilenode::bigint,
               t.oid::bigint, CASE WHEN t.oid IS NOT NULL THEN {_name("t")} END,
               CASE WHEN c.reltuples >= 0 THEN c.reltuples
                    ELSE nullif(pg_catalog.pg_stat_get_live_tuples(c.oid), 0) END::bigint,
               c.relpages::bigint * pg_catalog.current_setting('block_size')::bigint
          FROM pg_catalog.pg_class c
          LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
          LEFT JOIN pg_catalog.pg_class o ON o.oid = coalesce(i.indrelid, c.oid)
          LEFT JOIN pg_catalog.pg_depend d
            ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = o.oid AND o.relkind IN ('t', 'S')
           AND d.refclassid = d.classid AND d.deptype IN ('a', 'i')
          LEFT JOIN pg_catalog.pg_class t ON t.oid = coalesce(d.refobjid, i.indrelid)
         WHERE c.oid = {snapshots.oids(oids)}"""


def _tables_named(words: Iterable[str]) -> str:
    """Write the query for tables by name; an index's name stands for its table, and the server cuts a long word."""
    return f"""
        WITH RECURSIVE named(word, oid) AS (
            SELECT w.word, coalesce(i.indrelid, c.oid)
              FROM pg_catalog.unnest(ARRAY[{", ".join(map(sql.quote, words))}]::text[]) AS w(word)
              JOIN pg_catalog.pg_class c ON c.relname = w.word::pg_catalog.name
              LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
             WHERE c.relkind IN ('r', 'p', 'm', 'i', 'I') AND c.oid >= {snapshots.OWN_OIDS}
            UNION SELECT named.word, h.inhrelid FROM named JOIN pg_catalog.pg_inherits h ON h.inhparent = named.oid)
        SELECT word, oid::bigint FROM named"""


def _relations_named(words: Iterable[str]) -> str:
    return f"""
        SELECT w.word FROM pg_catalog.unnest(ARRAY[{", ".join(map(sql.quote, words))}]::text[]) AS w(word)
         WHERE EXISTS (SELECT FROM pg_catalog.pg_class c
                        WHERE c.relname = w.word::pg_catalog.name AND c.oid >= {snapshots.OWN_OIDS})"""


def _sizes(oids: Iterable[int]) -> str:
    return f"""
        SELECT c.oid::bigint, pg_catalog.pg_table_size(c.oid) FROM pg_catalog.pg_class c
         WHERE c.oid = {snapshots.oids(oids)} AND c.relkind IN ('r', 'm', 'i', 't', 'S')
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks l
                            WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock'
                              AND l.database = (SELECT oid FROM pg_catalog.pg_database
                                                 WHERE datname = pg_catalog.current_database()))"""
