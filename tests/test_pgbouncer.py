"""Behind PgBouncer in transaction mode: a server connection goes back to the pool as soon as a message ends."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import fix_servers
import psycopg
import pytest
from fix_cli import Migrate
from psycopg.conninfo import conninfo_to_dict

TRAIL = "CREATE TABLE trail (step serial PRIMARY KEY, version int);"
FILES = [TRAIL, *(f"INSERT INTO trail (version) VALUES ({version});" for version in range(2, 7))]

# The traces that the next client of a pool of one could notice.
LEFT = """
    SELECT current_setting('search_path'), session_user = current_user, current_setting('lock_timeout'),
           current_setting('statement_timeout'), current_setting('application_name') = 'spoilt',
           (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'),
           (SELECT count(*) FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'),
           (SELECT count(*) FROM pg_cursors), (SELECT count(*) FROM pg_prepared_statements),
           (SELECT count(*) FROM pg_listening_channels())"""
NOTHING = ('"$user", public', True, "0", "0", False, 0, 0, 0, 0, 0)


def ask(url: str, query: str) -> tuple[Any, ...]:
    with closing(psycopg.connect(url, autocommit=True, prepare_threshold=None)) as connection:
        return connection.execute(query.encode()).fetchall()[0]


@pytest.mark.parametrize(("count", "pool_size"), [(8, 20), (3, 1)])
def test_runs_at_once_share_the_work(
    migrate: Migrate, count: int, pool_size: int, pgbouncer: Callable[..., str], connect: fix_servers.Connect
) -> None:
    """Runs at once, with a connection for each or one for all: each file is applied once, and nobody fails."""
    migrate.write([*FILES, "SELECT pg_sleep(1.5);"])  # long enough for a look at the session in the way
    pooled = pgbouncer(pool_size=pool_size)
    ended = [run.end() for run in [migrate.start("up", url=pooled) for _ in range(count)]]
    assert [one.exit_code for one in ended] == [0] * count, ended
    trail = connect().execute("SELECT version FROM trail ORDER BY step").fetchall()
    assert trail == [(2,), (3,), (4,), (5,), (6,)]
    assert connect().execute("SELECT position FROM schema_migrations ORDER BY 1").fetchall() == [
        (position,) for position in range(1, 8)
    ]


@pytest.mark.parametrize("ending", ["", "SELECT 1/0;"], ids=["succeeds", "fails"])
@pytest.mark.parametrize(
    "spoiling",
    [
        "SELECT pg_catalog.set_config('search_path', '', false);",
        "SET SESSION AUTHORIZATION pg_monitor; SET ROLE pg_monitor;",
        "SELECT pg_advisory_lock(4711);",
        "CREATE TEMP TABLE left_over (id int); CREATE TEMP SEQUENCE s;",
        "SET lock_timeout = '1s'; SET statement_timeout = '1h'; SET application_name = 'spoilt';"
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1; PREPARE p AS SELECT 1; LISTEN l;",
    ],
)
def test_a_file_leaves_nothing_in_the_pool(
    migrate: Migrate, spoiling: str, ending: str, pgbouncer: Callable[..., str]
) -> None:
    """Whatever a file does to its session, and however it ends, the pool's next client finds a clean one."""
    pooled = pgbouncer(pool_size=1)
    (pid,) = ask(pooled, "SELECT pg_backend_pid()")
    assert ask(pooled, LEFT) == NOTHING
    migrate.write([f"{spoiling} {ending}", "SELECT 2;"])
    ended = migrate("up", url=pooled)
    assert ended.exit_code == (1 if ending else 0), ended
    assert ask(pooled, "SELECT pg_backend_pid()") == (pid,)
    assert ask(pooled, LEFT) == NOTHING


def test_a_file_meets_nothing_that_another_client_left(
    migrate: Migrate, pgbouncer: Callable[..., str], connect: fix_servers.Connect
) -> None:
    """A pool's connection that another client has spoilt does not spoil a file, nor the search for the table."""
    pooled = pgbouncer(pool_size=1)
    spoilt = "SELECT set_config('search_path', 'pg_catalog', false), set_config('role', 'pg_monitor', false)"
    ask(pooled, spoilt)
    migrate.write(["CREATE TABLE t (id int);"])
    ended = migrate("up", url=pooled)
    assert ended.exit_code == 0, ended
    ask(pooled, spoilt)
    assert "Nothing is pending" in migrate("up", url=pooled).stdout
    assert connect().execute("SELECT 't'::regclass, 'schema_migrations'::regclass").fetchone() == (
        *("t", "schema_migrations"),
    )


@pytest.fixture
def latin1(server_url: str) -> Iterator[str]:
    """The URL of a database whose encoding is LATIN1."""
    name = f"outreach_{uuid.uuid4().hex[:12]}"
    with closing(psycopg.connect(server_url, autocommit=True)) as connection:
        provider = "LOCALE_PROVIDER libc" if connection.info.server_version >= 150000 else ""
        options = f"TEMPLATE template0 ENCODING 'LATIN1' {provider} LC_COLLATE 'C' LC_CTYPE 'C'"
        connection.execute(f"CREATE DATABASE {name} {options}".encode())
        yield fix_servers.url(server_url, dbname=name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.parametrize("way", ["direct", "pooled"])
def test_text_survives_in_a_database_of_another_encoding(
    migrate: Migrate, way: str, latin1: str, pgbouncer: Callable[..., str]
) -> None:
    """Files are UTF-8 to the last one, though a reset takes the pool's connection back to the database's encoding."""
    dbname = str(conninfo_to_dict(latin1)["dbname"])
    url = latin1 if way == "direct" else fix_servers.url(pgbouncer(pool_size=1), dbname=dbname)
    migrate.write(["CREATE TABLE t (word text);", "INSERT INTO t VALUES ('Füße');", "INSERT INTO t VALUES ('été');"])
    ended = migrate("up", url=url)
    assert ended.exit_code == 0, ended
    with closing(psycopg.connect(latin1, autocommit=True, client_encoding="UTF8")) as connection:
        assert connection.execute("SELECT word, length(word) FROM t").fetchall() == [("Füße", 4), ("été", 3)]


def test_a_run_that_waits_says_for_whom(
    migrate: Migrate, pgbouncer: Callable[..., str], connect: fix_servers.Connect
) -> None:
    """Through a pool too, a run finds the session of the server that is in its way."""
    pooled, gate, watching = pgbouncer(), connect(), connect()
    gate.execute("CREATE TABLE t (id int)")
    gate.execute("BEGIN; LOCK TABLE t")
    migrate.write(["ALTER TABLE t ADD COLUMN name text;"])
    waiting = migrate.start("up", "--lock-timeout", "0", url=pooled)
    line = waiting.says("waiting for a lock")
    assert f"pid {gate.info.backend_pid} " in line
    other = migrate.start("up", url=pooled)
    waits = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'relation' AND datname = current_database()"
    (pid,) = watching.execute(waits).fetchall()[0]
    line = other.says("waiting for another run")
    assert f"pid {pid} " in line
    assert "application outreach-migrate" in line
    gate.execute("COMMIT")
    assert [waiting.end().exit_code, other.end().exit_code] == [0, 0]


@pytest.mark.parametrize("ending", ["", "SELECT 1/0;"], ids=["succeeds", "fails"])
def test_the_look_for_a_session_in_the_way_needs_no_connection_of_a_full_pool(
    migrate: Migrate, ending: str, pgbouncer: Callable[..., str]
) -> None:
    """A run in a pool of one ends when its file ends, though the watcher never got a connection."""
    migrate.write([f"SELECT pg_sleep(1.5); {ending}"])
    ended = migrate("up", url=pgbouncer(pool_size=1))
    assert ended.exit_code == (1 if ending else 0), ended
