"""What our session sees of itself between two statements, and what others see meanwhile."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg import pq, sql

from outreach_migrate.history import history
from outreach_migrate.postgres import connections
from outreach_migrate.rehearsal.effects import Mode, Relation, Seen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.postgres.dsn import Target
    from outreach_migrate.run.sessions import Session

_KINDS = {
    **{"r": "table", "p": "partitioned table", "m": "materialized view", "f": "foreign table", "v": "view"},
    **{"i": "index", "I": "partitioned index", "S": "sequence", "t": "TOAST table", "ti": "TOAST index"},
    "c": "composite type",
}
_OWN_OIDS = 16384  # below are the catalogs: FirstNormalObjectId of PostgreSQL's access/transam.h
_WORD = re.compile(r'"((?:[^"]|"")+)"|([^\W\d][\w$]*)')
_HEAD = 10_000  # characters of a statement in which the names of tables are looked for


def look(session: Session, *, scans: dict[int, tuple[int, int]]) -> Seen:
    """Look at the locks of the transaction that is open, and at what it has done so far.

    The look leaves ACCESS SHARE locks on catalogs, which are not told of, and nothing else. `scans` are the counts of
    before the transaction: the server passes them on late, and behind a pooler the session was another's.
    """
    rows = ask(
        session,
        f"""
        SELECT l.relation, l.mode, c.relfilenode, i.indrelid, c.relname,
               pg_catalog.pg_stat_get_xact_numscans(l.relation), pg_catalog.pg_stat_get_xact_tuples_returned(l.relation)
          FROM pg_catalog.pg_locks l
          LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation
          LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = l.relation
         WHERE l.pid = pg_catalog.pg_backend_pid() AND l.locktype = 'relation' AND l.granted
           AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
           AND (l.relation >= {_OWN_OIDS} OR l.mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))""",
    )
    return Seen(
        locks=frozenset((int(row[0]), Mode.named(row[1])) for row in rows),
        files={int(row[0]): int(row[2]) for row in rows if row[2]},
        scans=scans | {int(row[0]): (int(row[5] or 0), int(row[6] or 0)) for row in rows},
        indexes={(int(row[3]), row[4]): int(row[2]) for row in rows if row[3]},
    )


def earlier_scans(session: Session) -> dict[int, tuple[int, int]]:
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

    def named(self, text: str) -> set[int]:
        """Find the tables that a statement names, with their partitions; before they are locked, measure them."""
        words = {quoted.replace('""', '"') or plain.lower() for quoted, plain in _WORD.findall(text[:_HEAD])}
        new = words - self._named.keys()
        if new:
            self._named |= {word: set[int]() for word in new}
            for word, oid in self._rows(_tables_named(new)):
                self._named[word].add(oid)
            self._measure({oid for word in new for oid in self._named[word]})
        return {oid for word in words for oid in self._named[word]}

    def _measure(self, oids: set[int]) -> None:
        """Ask for sizes; what somebody has locked against reading is left out, and not waited for."""
        wanted = oids - self._sizes.keys()
        if wanted:
            with suppress(psycopg.errors.LockNotAvailable):
                self._sizes.update(self._rows(_sizes(wanted)))

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        """Run a query in a transaction of its own, which ends with it: no index build shall wait for us."""
        limits = f"SET LOCAL lock_timeout = 100;{history.set_search_path(self._target.schema)}"
        cursor = self._connection.execute(f"{limits}{query}".encode())
        while cursor.nextset():
            pass
        return cursor.fetchall()


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
    """An index's name stands for its table."""
    return f"""
        WITH RECURSIVE named(word, oid) AS (
            SELECT c.relname::text, coalesce(i.indrelid, c.oid) FROM pg_catalog.pg_class c
              LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
             WHERE c.relname = ANY (ARRAY[{", ".join(map(sql.quote, words))}]::pg_catalog.name[])
               AND c.relkind IN ('r', 'p', 'm', 'i', 'I') AND c.oid >= {_OWN_OIDS}
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
