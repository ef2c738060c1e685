"""Other sessions: those that block a run, its statement's progress, and leftovers of a lost connection."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg import Connection, sql

from outreach_migrate.errors import Blocker

if TYPE_CHECKING:
    from psycopg.pq.abc import PGresult

_IN_FLIGHT = 1.0  # s: the longest that a message may take through a pooler
_MARK = "/* outreach-migrate "  # the start of a run's messages
_UNFIT = re.compile("[^0-9A-Za-z]")  # in a mark


def mark(token: str, name: str) -> str:
    """Write the comment that a run's messages begin with; `token` identifies the run."""
    return f"{_MARK}{token} {_UNFIT.sub('_', name[:80])} */ "


def blockers(connection: Connection, token: str) -> tuple[Blocker, ...]:
    """Read the sessions that block the run `token`, which is found by its mark, because a pooler hides its pid.

    Only a wait that goes on can be seen, because pg_blocking_pids is empty after a timeout.
    https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SESSION
    """
    query = f"""
        WITH ours AS MATERIALIZED (
            SELECT pid FROM pg_catalog.pg_stat_activity
             WHERE query LIKE {sql.quote(_MARK + token + " %")} AND state = 'active'
               AND pid <> pg_catalog.pg_backend_pid() AND wait_event_type = 'Lock')
        SELECT holder.pid, b.usename::text, b.application_name, pg_catalog.host(b.client_addr), b.backend_type, b.state,
               extract(epoch FROM pg_catalog.clock_timestamp() - b.xact_start)::float8,
               pg_catalog.to_char(b.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
               nullif(pg_catalog.left(b.query, 500), '<insufficient privilege>'),
               w.relation::pg_catalog.regclass::text, w.mode,
               (SELECT pg_catalog.string_agg(DISTINCT h.mode, ', ') FROM pg_catalog.pg_locks h
                 WHERE h.pid IS NOT DISTINCT FROM nullif(holder.pid, 0) AND h.granted
                   AND h.relation = w.relation AND h.database = w.database),
               -- another role's query is hidden, but not its lock for writing to a table with a history's column
               coalesce(b.query LIKE {sql.quote(_MARK + "%")}, false) OR EXISTS (
                   SELECT FROM pg_catalog.pg_locks h JOIN pg_catalog.pg_attribute a ON a.attrelid = h.relation
                    WHERE h.pid = holder.pid AND h.granted AND h.mode = 'RowExclusiveLock'
                      AND h.database = (SELECT oid FROM pg_catalog.pg_database
                                         WHERE datname = pg_catalog.current_database())
                      AND a.attname = 'statements_begun')
          FROM ours
         CROSS JOIN LATERAL (SELECT DISTINCT pg_catalog.unnest(pg_catalog.pg_blocking_pids(ours.pid))) AS holder(pid)
          LEFT JOIN pg_catalog.pg_stat_activity b ON b.pid = holder.pid
          LEFT JOIN pg_catalog.pg_locks w ON w.pid = ours.pid AND NOT w.granted
         ORDER BY b.xact_start"""
    found = (Blocker(*row) for row in _rows(connection, query))
    return _shown(found)


def blockers_in_cluster(connection: Connection, token: str) -> tuple[Blocker, ...]:
    """Read the sessions that block the run `token` on the workers of a Citus cluster.

    A session on another node has its global pid here, which pg_terminate_backend() takes on each node.
    https://docs.citusdata.com/en/stable/develop/api_metadata.html
    """
    query = f"""
        SELECT CASE WHEN b.nodeid = pg_catalog.citus_nodeid_for_gpid(pg_catalog.citus_backend_gpid()) THEN b.pid
                    ELSE b.global_pid END,
               b.usename::text, b.application_name, pg_catalog.host(b.client_addr), b.backend_type, b.state,
               extract(epoch FROM pg_catalog.clock_timestamp() - b.xact_start)::float8,
               pg_catalog.to_char(b.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
               nullif(pg_catalog.left(b.query, 500), '<insufficient privilege>'), null, null, null,
               coalesce(b.query LIKE {sql.quote(_MARK + "%")}, false)
          FROM pg_catalog.citus_lock_waits w
          JOIN pg_catalog.citus_dist_stat_activity b ON b.global_pid = w.blocking_gpid
         WHERE w.blocked_statement LIKE {sql.quote(_MARK + token + " %")}
           AND b.global_pid <> pg_catalog.citus_backend_gpid()  -- an index build waits for this look's snapshot
         ORDER BY b.xact_start"""
    return _shown(Blocker(*row) for row in _rows(connection, query))


READING = ("AccessExclusiveLock",)  # modes that keep other sessions from reading a table, or from a SHARE lock
SHARING = (*READING, "ExclusiveLock", "ShareRowExclusiveLock", "ShareUpdateExclusiveLock", "RowExclusiveLock")


def holders(connection: Connection, schema: str, name: str, modes: tuple[str, ...] = READING) -> tuple[Blocker, ...]:
    """Read the sessions that hold or await a lock on a table in one of these modes.

    A reader also waits for such a lock on the table's indexes, which REINDEX takes.
    """
    query = f"""
        SET LOCAL lock_timeout = '1s';
        WITH wanted AS MATERIALIZED (
            SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = {sql.quote(schema)} AND c.relname = {sql.quote(name)})
        SELECT DISTINCT ON (coalesce(l.pid, 0))
               coalesce(l.pid, 0), b.usename::text, b.application_name, pg_catalog.host(b.client_addr), b.backend_type,
               b.state, extract(epoch FROM pg_catalog.clock_timestamp() - b.xact_start)::float8,
               pg_catalog.to_char(b.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
               nullif(pg_catalog.left(b.query, 500), '<insufficient privilege>'),
               l.relation::pg_catalog.regclass::text, null, CASE WHEN l.granted THEN l.mode END,
               coalesce(b.query LIKE {sql.quote(_MARK + "%")}, false)
          FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity b USING (pid)
         WHERE l.mode IN ({", ".join(map(sql.quote, modes))}) AND l.pid <> pg_catalog.pg_backend_pid()
           AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
           AND (l.relation IN (SELECT oid FROM wanted)
                OR l.relation IN (SELECT indexrelid FROM pg_catalog.pg_index JOIN wanted ON oid = indrelid))
         ORDER BY coalesce(l.pid, 0), l.granted DESC"""
    cursor = connection.execute(query.encode())
    cursor.nextset()
    return _shown(Blocker(*row) for row in cursor.fetchall())


def _shown(found: Iterable[Blocker]) -> tuple[Blocker, ...]:
    """Leave out the literals of the sessions' queries."""
    from outreach_migrate.files import scanner  # a run that nobody blocks needs none of its patterns

    return tuple(one._replace(query=one.query and scanner.redacted(one.query)[:120]) for one in found)


class Progress(NamedTuple):
    """A long statement's progress; `percent` is of its phase, null if the phase has no measure."""

    command: str
    phase: str
    percent: float | None


def progress(connection: Connection, token: str) -> Progress | None:
    """Read the progress of the run's statement, if PostgreSQL reports one for its kind.

    https://www.postgresql.org/docs/current/progress-reporting.html
    """
    query = f"""
        WITH ours AS MATERIALIZED (
            SELECT pid FROM pg_catalog.pg_stat_activity
             WHERE query LIKE {sql.quote(_MARK + token + " %")} AND pid <> pg_catalog.pg_backend_pid()),
        seen AS (
            SELECT pid, command, phase, CASE WHEN blocks_total > 0 THEN blocks_done ELSE tuples_done END AS done,
                   CASE WHEN blocks_total > 0 THEN blocks_total ELSE tuples_total END AS total
              FROM pg_catalog.pg_stat_progress_create_index
             UNION ALL
            SELECT pid, 'VACUUM', phase, heap_blks_scanned, heap_blks_total FROM pg_catalog.pg_stat_progress_vacuum
             UNION ALL
            SELECT pid, command, phase, heap_blks_scanned, heap_blks_total FROM pg_catalog.pg_stat_progress_cluster
             UNION ALL
            SELECT pid, command, tuples_processed || ' rows', bytes_processed, bytes_total
              FROM pg_catalog.pg_stat_progress_copy)
        SELECT command, phase, (100.0 * done / nullif(total, 0))::float8 FROM seen JOIN ours USING (pid)"""
    seen = _rows(connection, query)
    return Progress(*seen[0]) if seen else None


class Waiter(NamedTuple):
    """A session that waits for the run; a role that may not see more sees its pid."""

    pid: int
    user: str | None
    application: str | None


# The sessions that wait for this one, asked by itself; pg_locks shows those of other roles, too.
WAITERS = """
    SELECT w.pid, b.usename, b.application_name
      FROM (SELECT DISTINCT pid FROM pg_catalog.pg_locks WHERE NOT granted AND pid IS NOT NULL) AS w
      LEFT JOIN pg_catalog.pg_stat_activity b USING (pid)
     WHERE pg_catalog.pg_backend_pid() = ANY (pg_catalog.pg_blocking_pids(w.pid))
     ORDER BY 1"""
# The replica that is furthest behind, and by how many seconds. Only a role with pg_read_all_stats sees that of other
# roles; pg_monitor has it.
LAG = """
    SELECT coalesce(nullif(application_name, ''), pg_catalog.host(client_addr), 'pid ' || pid),
           extract(epoch FROM replay_lag)::pg_catalog.float8
      FROM pg_catalog.pg_stat_replication WHERE replay_lag IS NOT NULL ORDER BY replay_lag DESC LIMIT 1"""
# How many replicas there are whose lag the role may not see, and the role; no row if there are none
UNSEEN = """
    SELECT pg_catalog.count(*), pg_catalog.quote_ident(current_user)
      FROM pg_catalog.pg_stat_replication WHERE state IS NULL HAVING pg_catalog.count(*) > 0"""


def make_way(connection: Connection, token: str) -> tuple[Waiter, ...]:
    """Cancel the statement of the run `token` if sessions wait for it; give them.

    The run must leave its transaction open until the answer is there, because a pooler could give its server
    connection to another client, whose statement would be cancelled.
    """
    query = f"""
        WITH ours AS MATERIALIZED (
            SELECT pid FROM pg_catalog.pg_stat_activity
             WHERE query LIKE {sql.quote(_MARK + token + " %")} AND state = 'active'
               AND pid <> pg_catalog.pg_backend_pid()),
        waiting AS MATERIALIZED (
            SELECT DISTINCT w.pid FROM pg_catalog.pg_locks w CROSS JOIN ours
             WHERE NOT w.granted AND w.pid IS NOT NULL AND ours.pid = ANY (pg_catalog.pg_blocking_pids(w.pid)))
        SELECT waiting.pid, b.usename::text, nullif(b.application_name, ''),
               (SELECT pg_catalog.bool_or(pg_catalog.pg_cancel_backend(ours.pid)) FROM ours)
          FROM waiting LEFT JOIN pg_catalog.pg_stat_activity b USING (pid) ORDER BY 1"""
    return tuple(Waiter(*row[:3]) for row in _rows(connection, query))


def waiters(result: PGresult) -> tuple[Waiter, ...]:
    """Read the sessions from the result of WAITERS."""
    rows = [[(result.get_value(row, column) or b"").decode() for column in range(3)] for row in range(result.ntuples)]
    return tuple(Waiter(int(pid), user or None, application or None) for pid, user, application in rows)


def end(connection: Connection, token: str, *, lost: int, opened: float, within: float = 5.0) -> bool:
    """End the sessions that a lost connection of the run `token` left at work; return whether they ended in time.

    `lost` is the connection's pid, and it was opened `opened` seconds ago. Its session is ended even if it seems idle,
    because it may not have read the last message yet; after this it can no longer commit.
    """
    at_work = f"query LIKE {sql.quote(_MARK + token + ' %')} AND (state <> 'idle' OR state IS NULL)"
    row = connection.execute(b"SELECT pg_catalog.pg_backend_pid()").fetchone()
    if row and row[0] == connection.info.backend_pid:  # else a pooler's, and an idle session any client's
        # after a failover another server may use the pid for a session of somebody else
        at_work += f"""
            OR pid = {lost} AND backend_start <= pg_catalog.clock_timestamp() - interval '{opened:.3f} s'
               AND usename = session_user AND datname = pg_catalog.current_database()
               AND application_name = pg_catalog.current_setting('application_name')"""
    else:
        time.sleep(_IN_FLIGHT)
    orphans = f"""
        SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
         WHERE pid <> pg_catalog.pg_backend_pid() AND ({at_work})"""
    deadline = time.monotonic() + within
    while connection.execute(orphans.encode()).fetchall():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def claimants(connection: Connection, key: str) -> tuple[Blocker, ...]:
    """Read the session that has claimed a file."""
    query = f"""
        SELECT b.pid, b.usename::text, b.application_name, pg_catalog.host(b.client_addr), b.backend_type, b.state,
               extract(epoch FROM pg_catalog.clock_timestamp() - b.xact_start)::float8,
               pg_catalog.to_char(b.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS'),
               null, null, null, null, true
          FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity b USING (pid)
         WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
           AND (l.classid::bigint << 32) | l.objid::bigint = {key}
           AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())"""
    return tuple(Blocker(*row) for row in _rows(connection, query))


def _rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode()).fetchall()
