"""Snapshots of the session's locks, before and after each statement."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq

from outreach_migrate.rehearsal.effects import Mode, Moment

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from outreach_migrate.rehearsal.effects import Changes, Indexes
    from outreach_migrate.run.sessions import Session

OWN_OIDS = 16384  # the catalogs' oids are less: FirstNormalObjectId of PostgreSQL's access/transam.h
_MODES = [f"{mode.name.title().replace('_', '')}Lock" for mode in Mode]  # as pg_locks has them
_STRIDE = 50


class Looks:
    """Looks at the session's locks; each gives the relations that differ from the look before.

    Looks skip relations with an oid above `newest`, because the rehearsal makes these, and each look would take longer.
    (If oids have wrapped around, some of them are looked at, and then found to be unknown.) A look leaves only ACCESS
    SHARE locks on catalogs. These are not reported, nor are locks on the tables that an extension such as Citus keeps
    in pg_catalog.
    """

    def __init__(self, session: Session, *, newest: int) -> None:
        self.locked: dict[int, Moment] = {}
        self.path: tuple[str, ...] = ()  # the schemas of the search path, at the last look
        self._session = session
        self._newest = newest
        # the server reports scans late, and behind a pooler the session was another client's
        self._earlier = {oid: Moment(frozenset(), None, *counts) for oid, *counts in _earlier_scans(session)}
        self._at_first: dict[int, Moment] = {}
        self._hashes: dict[int, str] = {}
        self._path_at_first: tuple[str, ...] | None = None
        self._statements = 0
        self._is_single = False

    @property
    def stride(self) -> int:
        """The number of statements that may share a look, which grows with the number of locks to list."""
        return 1 if self._is_single else 1 + self._statements // _STRIDE

    def singly(self) -> None:
        """From now on look after each statement."""
        self._is_single = True

    def begin_file(self) -> None:
        """Note that a file begins, in a clean session."""
        self._at_first = {}
        if self._path_at_first is None:
            self.look(0)
            self._at_first, self._path_at_first = {}, self.path
        self.path = self._path_at_first

    def end_file(self, *, is_plain: bool) -> None:
        """Note that a file has ended; unless it is plain, the next file's search path is read anew."""
        if not is_plain:
            self._path_at_first = None

    def at_first(self, oid: int) -> frozenset[Mode]:
        """Give the modes in which a relation was locked when the file began."""
        return self._at_first.get(oid, self.locked.get(oid, Moment())).modes

    def look(self, statements: int) -> Changes:
        """Look at the locks, after this number of statements."""
        self._statements += statements
        number, found, hashes = self._ask(self._hashes.values())
        if number != len(self.locked.keys() | found.keys()):  # a rollback to a savepoint released locks
            for oid in self.locked:
                self._at_first.setdefault(oid, self.locked[oid])
            number, found, hashes = self._ask(())
            self.locked = {oid: seen for oid, seen in self.locked.items() if oid in found}
            self._hashes = {}
        changed = {oid: (self._before(oid), seen) for oid, seen in found.items() if seen != self._before(oid)}
        for oid, (before, _) in changed.items():
            self._at_first.setdefault(oid, before)
        self.locked |= found
        self._hashes |= hashes
        return changed

    def _before(self, oid: int) -> Moment:
        return self.locked.get(oid) or self._earlier.get(oid) or Moment()

    def _ask(self, known: Iterable[str]) -> tuple[int, dict[int, Moment], dict[int, str]]:
        """Give the number of locked relations, and those whose hash is not known, with the hash."""
        ((found,),) = ask(self._session, _locked(self._newest, known))
        path, number, rows = json.loads(found)
        self.path = tuple(path)
        seen = {
            oid: Moment(frozenset(mode for mode in Mode if modes >> mode & 1), file, scans, read)
            for oid, modes, file, scans, read, _ in rows or ()
        }
        return number, seen, {row[0]: row[-1] for row in rows or ()}


def _locked(newest: int, known: Iterable[str]) -> str:
    """Ask for the locked relations, except those whose locks, file and scans have a known hash."""
    return f"""
        SELECT pg_catalog.json_build_array(pg_catalog.current_schemas(false), pg_catalog.count(f.hash),
                   pg_catalog.json_agg(pg_catalog.json_build_array(f.relation::bigint, f.modes, f.file::bigint, f.scans,
                                                                   f.read, f.hash::text)) FILTER (WHERE k.hash IS NULL))
          FROM (SELECT d.*, pg_catalog.hash_record_extended(ROW(d.*), 0) AS hash
                  FROM (SELECT l.relation, l.modes, c.relfilenode AS file,
                               coalesce(pg_catalog.pg_stat_get_xact_numscans(l.relation), 0) AS scans,
                               coalesce(pg_catalog.pg_stat_get_xact_tuples_returned(l.relation), 0) AS read
                          FROM ({_locks(newest)}) l
                          LEFT JOIN pg_catalog.pg_class c ON c.oid = l.relation
                         WHERE l.relation < {OWN_OIDS}
                            OR c.relnamespace IS DISTINCT FROM 'pg_catalog'::pg_catalog.regnamespace) d) f
          LEFT JOIN pg_catalog.unnest('{{{",".join(known)}}}'::bigint[]) k(hash) ON k.hash = f.hash"""


def _locks(newest: int) -> str:
    return f"""
        SELECT relation,
               pg_catalog.bit_or(1 << pg_catalog.array_position('{{{",".join(_MODES)}}}'::text[], mode)) AS modes
          FROM pg_catalog.pg_locks
         WHERE pid = pg_catalog.pg_backend_pid() AND locktype = 'relation' AND granted
           AND relation <= '{newest}'::pg_catalog.oid AND database <> 0
           AND (relation >= {OWN_OIDS} OR mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock'))
         GROUP BY relation"""


def indexes(session: Session, tables: Iterable[int]) -> Indexes:
    """Read the indexes that tables have now, with their files."""
    rows = ask(
        session,
        f"""SELECT i.indrelid, c.relname, c.relfilenode FROM pg_catalog.pg_index i
              JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = {oids(tables)}""",
    )
    return {(int(table), name): int(file) for table, name, file in rows}


def _earlier_scans(session: Session) -> list[tuple[int, int, int]]:
    """Read the session's counts that the server has not reported yet: relations, scans, and rows read."""
    rows = ask(
        session,
        """SELECT oid, pg_catalog.pg_stat_get_xact_numscans(oid), pg_catalog.pg_stat_get_xact_tuples_returned(oid)
             FROM pg_catalog.pg_class WHERE pg_catalog.pg_stat_get_xact_numscans(oid) > 0""",
    )
    return [(int(oid), int(scans), int(read)) for oid, scans, read in rows]


def ask(session: Session, query: str, *, before: Sequence[str] = ()) -> list[list[str]]:
    """Run a query between a file's statements, without their time limit; give its rows as text."""
    unlimited = ("SELECT pg_catalog.current_setting('statement_timeout')", "SET LOCAL statement_timeout = 0")
    results = session.exchange("; ".join((*before, *unlimited, query)))
    if results[-1].status == pq.ExecStatus.FATAL_ERROR:
        raise psycopg.errors.error_from_result(results[-1])
    limit = (results[len(before)].get_value(0, 0) or b"").decode()
    if limit != "0":
        session.exchange(f"SET LOCAL statement_timeout = '{limit}'")
    found = results[-1]
    return [
        [(found.get_value(row, column) or b"").decode(errors="replace") for column in range(found.nfields)]
        for row in range(found.ntuples)
    ]


def oids(numbers: Iterable[int]) -> str:
    """Write an array of oids to compare with."""
    return f"ANY ('{{{','.join(map(str, numbers))}}}'::pg_catalog.oid[])"
