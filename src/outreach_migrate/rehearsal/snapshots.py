"""What our session sees of itself between two statements, and what others see meanwhile."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import pq, sql

from outreach_migrate.files import scanner
from outreach_migrate.files.scanner import Kind
from outreach_migrate.history import read
from outreach_migrate.postgres import connections
from outreach_migrate.rehearsal.effects import Mode, Relation, Seen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.postgres.dsn import Target
    from outreach_migrate.rehearsal.effects import Indexes
    from outreach_migrate.run.sessions import Session

_KINDS = {
    **{"r": "table", "p": "partitioned table", "m": "materialized view", "f": "foreign table", "v": "view"},
    **{"i": "index", "I": "partitioned index", "S": "sequence", "t": "TOAST table", "ti": "TOAST index"},
    "c": "composite type",
}
_OWN_OIDS = 16384  # below are the catalogs: FirstNormalObjectId of PostgreSQL's access/transam.h
_MODES = {f"{mode.name.title().replace('_', '')}Lock": mode for mode in Mode}  # as pg_locks has them
Scans = dict[int, tuple[int, int]]  # sequential scans begun, and rows they read
_HEAD = 10_000  # characters of a statement in which the names of tables are looked for


def look(session: Session, *, newest: int, scans: Scans) -> Seen:
    """Look at the locks of the transaction that is open, and at what it has done so far.

    Only relations up to the oid `newest` are looked at, those of before: the ones that the rehearsal makes get greater
    oids, and would make every look longer. (Where oids have wrapped around they are looked at, and known to nobody.)
    The look leaves ACCESS SHARE locks on catalogs, which are not told of, and nothing else. Nor are locks on the tables
    that an extension keeps in pg_catalog, as Citus does. `scans` are the counts of before the transaction: the server
    passes them on late, and behind a pooler the session was another's.
    """
    ((found,),) = ask(
        session,
        f"""
        SELECT pg_catalog.json_build_array(pg_catalog.current_schemas(false), (
            SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
                       h.relation::bigint, h.modes, c.relfilenode::bigint,
                       pg_catalog.pg_stat_get_xact_numscans(h.relation),
                       pg_catalog.pg_stat_get_xact_tuples_returned(h.relation)))
              FROM (SELECT l.relation, pg_catalog.array_agg(l.mode) AS modes FROM pg_catalog.pg_locks l
                     WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted
                       AND l.relation <= '{newest}'::pg_catalog.oid AND l.database <> 0
                       AND (l.relation >= {_OWN_OIDS}
                            OR l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
                     GROUP BY l.relation) h
              LEFT JOIN pg_catalog.pg_class c ON c.oid = h.relation
             WHERE h.relation < {_OWN_OIDS}
                OR c.relnamespace IS DISTINCT FROM 'pg_catalog'::pg_catalog.regnamespace))""",
    )
    path, rows = json.loads(found)
    rows = rows or []
    return Seen(
        locks=frozenset((row[0], _MODES[mode]) for row in rows for mode in row[1]),
        files={row[0]: row[2] for row in rows if row[2] is not None},
        scans=scans | {row[0]: (row[3] or 0, row[4] or 0) for row in rows},
        path=tuple(path),
    )


def indexes(session: Session, tables: Iterable[int]) -> Indexes:
    """Read the indexes that tables have now, with their files."""
    rows = ask(
        session,
        f"""SELECT i.indrelid, c.relname, c.relfilenode FROM pg_catalog.pg_index i
              JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = {_oids(tables)}""",
    )
    return {(int(table), name): int(file) for table, name, file in rows}


def earlier_scans(session: Session) -> Scans:
    """Read the session's counts that the server has not passed on yet."""
    rows = ask(
        session,
        """SELECT oid, pg_catalog.pg_stat_get_xact_numscans(oid), pg_catalog.pg_stat_get_xact_tuples_returned(oid)
             FROM pg_catalog.pg_class WHERE pg_catalog.pg_stat_get_xact_numscans(oid) > 0""",
    )
    return {int(oid): (int(scans), int(read)) for oid, scans, read in rows}


def ask(session: Session, query: str) -> list[list[str]]:
    """Run a query of our own between a file's statements, without their time limit; give its rows as text."""
    unlimited = "SELECT pg_catalog.current_setting('statement_timeout'); SET LOCAL statement_timeout = 0"
    results = session.exchange(f"{unlimited};{query}")
    if results[-1].status == pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(results[-1])
    limit = (results[0].get_value(0, 0) or b"").decode()
    if limit != "0":
        session.exchange(f"SET LOCAL statement_timeout = '{limit}'")
    found = results[-1]
    return [
        [(found.get_value(row, column) or b"").decode(errors="replace") for column in range(found.nfields)]
        for row in range(found.ntuples)
    ]


class Before:
    """The relations as they were before the rehearsal: as others see them, on a connection of its own.

    `newest` is the greatest of their oids.
    What is not there for others was made by the rehearsal. Whatever holds a lock that our files took can't have
    changed for others since.
    """

    def __init__(self, target: Target) -> None:
        self.known: dict[int, Relation] = {}
        self._target = target
        self._asked: set[int] = set()
        self._sizes: dict[int, int] = {}
        self._named: dict[str, set[int]] = {}

    def __enter__(self) -> Self:
        self._connection = connections.connect(self._target, read_write=True)
        ((self.newest,),) = self._rows("SELECT coalesce(max(oid), 0)::bigint FROM pg_catalog.pg_class")
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def learn(self, oids: Iterable[int]) -> None:
        """Get to know those of these relations that others see."""
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
        """Look for the tables that statements name, all of them before anything is locked, and measure them."""
        words = {word for text in texts for word in _words(text)}
        with suppress(psycopg.errors.UntranslatableCharacter):  # the statement itself will say so, at its place
            for word, oid in self._rows(_tables_named(words)) if words else ():
                self._named.setdefault(word, set()).add(oid)
        self._measure({oid for oids in self._named.values() for oid in oids})

    def named(self, text: str) -> set[int]:
        """Give the tables that a statement names, with their partitions."""
        return {oid for word in _words(text) for oid in self._named.get(word, ())}

    def _measure(self, oids: set[int]) -> None:
        """Ask for sizes; what somebody has locked against reading is left out, and not waited for."""
        wanted = oids - self._sizes.keys()
        if wanted:
            with suppress(psycopg.errors.LockNotAvailable):
                self._sizes.update(self._rows(_sizes(wanted)))

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query in a transaction of its own, which ends with it: no index build shall wait for us."""
        limits = f"SET LOCAL lock_timeout = 100;{read.set_search_path(self._target.schema)}"
        cursor = self._connection.execute(f"{limits}{query}".encode())
        while cursor.nextset():
            pass
        return cursor.fetchall()


def _words(text: str) -> set[str]:
    """Give a text's words as names; a server whose encoding has one byte a letter folds more letters than ASCII's."""
    found = [one for one in scanner.with_strings(text[:_HEAD]) if one.kind in (Kind.WORD, Kind.QUOTED)]
    return {*(one.name for one in found), *(one.name.lower() for one in found if not one.text.isascii())}


def _oids(oids: Iterable[int]) -> str:
    return f"ANY ('{{{','.join(map(str, oids))}}}'::pg_catalog.oid[])"


def _name(relation: str) -> str:
    return f"""
        CASE WHEN pg_catalog.pg_table_is_visible({relation}.oid) THEN {relation}.relname
             ELSE {relation}.relnamespace::pg_catalog.regnamespace || '.' || {relation}.relname END::text"""


def _relations(oids: Iterable[int]) -> str:
    """An index of a TOAST table counts to the table, as a column's sequence does."""
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
         WHERE c.oid = {_oids(oids)}"""


def _tables_named(words: Iterable[str]) -> str:
    """An index's name stands for its table. The server cuts a word that is too long for a name, as it cuts names."""
    return f"""
        WITH RECURSIVE named(word, oid) AS (
            SELECT w.word, coalesce(i.indrelid, c.oid)
              FROM pg_catalog.unnest(ARRAY[{", ".join(map(sql.quote, words))}]::text[]) AS w(word)
              JOIN pg_catalog.pg_class c ON c.relname = w.word::pg_catalog.name
              LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
             WHERE c.relkind IN ('r', 'p', 'm', 'i', 'I') AND c.oid >= {_OWN_OIDS}
            UNION SELECT named.word, h.inhrelid FROM named JOIN pg_catalog.pg_inherits h ON h.inhparent = named.oid)
        SELECT word, oid::bigint FROM named"""


def _sizes(oids: Iterable[int]) -> str:
    return f"""
        SELECT c.oid::bigint, pg_catalog.pg_table_size(c.oid) FROM pg_catalog.pg_class c
         WHERE c.oid = {_oids(oids)} AND c.relkind IN ('r', 'm', 'i', 't', 'S')
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_locks l
                            WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock'
                              AND l.database = (SELECT oid FROM pg_catalog.pg_database
                                                 WHERE datname = pg_catalog.current_database()))"""
