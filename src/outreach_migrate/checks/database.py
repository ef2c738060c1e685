"""A read-only check of a database for the trouble that a run would meet there."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from psycopg import errors as pg
from psycopg import sql

from outreach_migrate.checks.files import Finding
from outreach_migrate.errors import Contradiction, Location, MigrationFileError, Problem, Refused
from outreach_migrate.files import commands, scanner, statements
from outreach_migrate.history import read
from outreach_migrate.run import comparison

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from psycopg import Connection

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.read import History
    from outreach_migrate.run.request import Request


def look(
    request: Request, tell: Callable[[read.Locked], None], *, long: float = 60, catching_up: float = 1
) -> tuple[tuple[Migration, ...], list[Finding]]:
    """Compare files and history, and check the database; give the pending files and the findings.

    A transaction that has been open for `long` seconds is in a run's way; a standby lags if it takes longer than
    `catching_up` seconds to replay the WAL that it has received.
    """
    try:
        with comparison.reading(request, tell) as seen:
            connection = seen.connection
            problems: list[Problem | Contradiction] = [*seen.unadopted]
            problems += [*seen.plan.contradictions(out_of_order=False), *seen.plan.unfinished()]
            pending = tuple(step.migration for step in seen.plan.to_run(to=None, out_of_order=True))
            connection.execute(f"BEGIN READ ONLY; {read.set_search_path(request.target.schema)}".encode())
            met = [*_invalid_indexes(connection), *_lag(connection, catching_up)]
            met += [*_open_transactions(connection, pending, long), *_privileges(connection, seen.past, pending)]
            met += _keys(connection, pending)
            connection.execute("ROLLBACK")
    except Refused as error:
        return (), [Finding(problem) for problem in error.problems]
    return pending, [Finding(problem) for problem in problems] + met


def _invalid_indexes(connection: Connection) -> Iterator[Finding]:
    rows = connection.execute("""
        SELECT i.indexrelid::regclass::text, i.indrelid::regclass::text FROM pg_catalog.pg_index i
         WHERE NOT i.indisvalid AND NOT EXISTS (  -- one being built just now is not yet valid
               SELECT FROM pg_catalog.pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
         ORDER BY 1""").fetchall()
    for index, table in rows:
        hint = f"Its build failed: drop it, and build it again: DROP INDEX CONCURRENTLY IF EXISTS {index};"
        yield Finding(Problem(f"the index {index} on {table} is invalid", hint=hint), is_error=False)


def _lag(connection: Connection, catching_up: float) -> Iterator[Finding]:
    """Report a standby that lags, or that doesn't say whether it does, because its history may be out of date."""
    try:
        with connection.transaction():
            row = _replay(connection, catching_up)
    except (pg.FeatureNotSupported, pg.InsufficientPrivilege):  # Aurora, for example, has no such functions
        row = (0, None, None)
    if row is None:
        return
    behind, streams, age = row
    last = "it has replayed no transaction yet" if age is None else f"its last transaction is {age:.0f} s old"
    if behind:
        noun = "byte" if behind == 1 else "bytes"
        message = f"the standby lags: it has not replayed {behind:,} {noun} that it has received, and {last}"
    elif streams is None:
        message = "the standby does not say how far it lags"
    elif not streams:
        message = f"the standby has no connection to its primary, {last}"
    else:
        return
    yield Finding(Problem(f"{message}, so the history may have more on the primary"), is_error=False)


def _replay(connection: Connection, catching_up: float) -> tuple[int, bool | None, float | None] | None:
    """Give the bytes that a standby has not replayed in time, whether it streams, and its last transaction's age.

    The age alone proves nothing, because on an idle primary it grows though nothing lags. Only WAL that was received
    before the first look counts.
    """
    query = b"""
        SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_receive_lsn(), '0/0')::int8,
               pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_last_wal_replay_lsn(), '0/0')::int8,
               EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver),
               extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8
         WHERE pg_catalog.pg_is_in_recovery()"""
    deadline, received = time.monotonic() + catching_up, None
    while row := connection.execute(query).fetchone():
        received = row[0] if received is None else received
        behind = max(0, (received or 0) - row[1])  # of the WAL received before the first look
        if not behind or time.monotonic() > deadline:
            return behind, row[2], row[3]
        time.sleep(0.05)
    return None


def _open_transactions(connection: Connection, pending: Iterable[Migration], long: float) -> Iterator[Finding]:
    rows = connection.execute(
        """
        SELECT a.pid, a.usename, a.application_name, a.state, c.relname, c.oid::regclass::text,
               extract(epoch FROM pg_catalog.clock_timestamp() - a.xact_start)::int
          FROM pg_catalog.pg_stat_activity a JOIN pg_catalog.pg_locks l USING (pid)
          JOIN pg_catalog.pg_class c ON c.oid = l.relation
         WHERE a.xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %s)
           AND a.datname = pg_catalog.current_database() AND c.relkind IN ('r', 'p', 'm', 'v') AND l.granted
         GROUP BY a.pid, a.usename, a.application_name, a.state, a.xact_start, c.relname, c.oid
         ORDER BY a.xact_start""",
        (long,),
    ).fetchall()
    for pid, user, application, state, name, table, age in rows:
        for migration in pending:
            if scanner.mentions(migration.sql, name):
                message = (
                    f"pid {pid} ({user}, {application}, {state}) has had a transaction open on {table} for {age} s"
                )
                hint = f"The file would wait for this transaction. End it, or SELECT pg_terminate_backend({pid});"
                yield Finding(Problem(message, Location(migration.path), hint), is_error=False)


def _privileges(connection: Connection, past: History, pending: tuple[Migration, ...]) -> Iterator[Finding]:
    """Report the privileges that the role lacks to record a run, and the tables that it can't alter."""
    if not pending:
        return
    schema, table = sql.Identifier(past.table.schema).as_string(), past.table.quoted
    if past.table_exists:
        asked = "pg_catalog.has_table_privilege(%s, 'INSERT') AND pg_catalog.has_table_privilege(%s, 'UPDATE')"
        row = connection.execute(f"SELECT {asked}, current_user".encode(), (table, table)).fetchone()
        lacks = f"INSERT and UPDATE on {past.table}"
    elif past.schema_exists:
        asked = "pg_catalog.has_schema_privilege(pg_catalog.to_regnamespace(%s)::oid, 'CREATE')"
        row = connection.execute(f"SELECT {asked}, current_user".encode(), (schema,)).fetchone()
        lacks = f"CREATE on the schema {past.table.schema}"
    else:
        asked = "pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE')"
        row = connection.execute(f"SELECT {asked}, current_user".encode()).fetchone()
        lacks = "CREATE on the database"
    if row and not row[0]:
        yield Finding(Problem(f"the role {row[1]} lacks {lacks}, so a run could not record its migrations"))
    for migration in pending:
        yield from _strange_tables(connection, migration)


def _keys(connection: Connection, pending: tuple[Migration, ...]) -> Iterator[Finding]:
    """Report the keys by which no file can run in batches, unless an earlier pending file may still mend them."""
    for number, migration in enumerate(pending):
        if not (wanted := migration.directives.batches):
            continue
        from outreach_migrate.run import keys  # here, because few files need it

        *_, table = scanner.tokens(wanted.table)
        if any(scanner.mentions(earlier.sql, table.name) for earlier in pending[:number]):
            continue
        try:
            with connection.transaction():
                keys.find(lambda query: str(connection.execute(query.encode()).fetchall()[0][0]), migration, wanted)
        except MigrationFileError as error:
            yield from map(Finding, error.problems)
        except pg.InsufficientPrivilege as error:
            yield Finding(Problem(str(error.diag.message_primary), migration.location(wanted.offset)))


def _strange_tables(connection: Connection, migration: Migration) -> Iterator[Finding]:
    names = (commands.altered(migration.sql, statement) for statement in statements.split(migration.sql))
    named = {".".join(part.identifier for part in name): name[0].start for name in names if name}
    rows = connection.execute(
        """
        SELECT named, pg_catalog.pg_get_userbyid(c.relowner) FROM pg_catalog.unnest(%s::text[]) AS named
          JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(named)
         WHERE NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')""",
        (list(named),),
    ).fetchall()
    for name, owner in rows:
        hint = "Run migrations as that role, or as a member of it."
        message = f"the table {name} belongs to {owner}, so this role can't alter it"
        yield Finding(Problem(message, migration.location(named[name]), hint))
