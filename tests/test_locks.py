"""Locks: a file gives way to the application, is tried again, and names the session in its way."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import psycopg
import pytest
from fix_cli import Migrate, Result, Rows
from fix_private_server import PrivateServer
from fix_proxy import Proxy
from fix_servers import Connect
from fix_waiting import GATE, Sessions, until
from psycopg import sql

from outreach_migrate.postgres import activity

Counted = Callable[[], int]

USERS = "CREATE TABLE users (id int PRIMARY KEY, name text)"
ALTER = "ALTER TABLE users ADD COLUMN phone text;"
COUNTED = "CREATE SEQUENCE tries; CREATE TABLE trail (id int)"
COUNT = "INSERT INTO trail VALUES (1); SELECT nextval('tries');"  # a sequence is not rolled back
LONG = "SELECT " + ", ".join(f"c{number}" for number in range(100))
ONCE = """DO $$ BEGIN IF currval('tries') = 1 THEN RAISE 'no luck' USING ERRCODE = '{}'; END IF; END $$;"""


@pytest.fixture
def holder(connect: Connect) -> Iterator[psycopg.Connection]:
    """A connection of the application, idle in a transaction that has read `users`."""
    connection = connect(application_name="the application")
    connection.execute(USERS.encode())
    connection.execute("BEGIN")
    connection.execute("SELECT name FROM users WHERE name = 'Alice' AND id > 4711")
    yield connection
    connection.close()  # before a role's objects are dropped


@pytest.fixture
def tries(rows: Rows) -> Counted:
    """A function that gives the number of times that a file has counted, and makes its counter ready."""
    rows(COUNTED)
    return lambda: rows("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM tries")[0][0]


@pytest.fixture
def busy(connect: Connect) -> Iterator[Callable[..., None]]:
    """A function that keeps a connection busy with a query, in a thread, to the end of the test."""
    with ExitStack() as stack:

        def made(connection: psycopg.Connection, query: str) -> None:
            def work() -> None:
                with suppress(psycopg.Error):
                    connection.execute(query.encode())

            thread = threading.Thread(target=work)
            thread.start()
            stack.callback(thread.join)
            stack.callback(connection.cancel_safe)

        yield made


def error(ended: Result) -> dict[str, Any]:
    """Give the error of a run's document."""
    found: dict[str, Any] = ended.json["error"]
    return found


# --- the limits


@pytest.mark.parametrize(
    ("directive", "options", "limit"),
    [
        ("", [], "5s"),
        ("", ["--lock-timeout", "700ms"], "700ms"),
        ("", ["--lock-timeout", "5m"], "5min"),
        ("", ["--lock-timeout", "0"], "0"),
        ("-- migrate: lock-timeout 30s\n", [], "30s"),
        ("-- migrate: lock-timeout 2min\n", ["--lock-timeout", "1s"], "2min"),
        ("-- migrate: lock-timeout 0\n", ["--lock-timeout", "1s"], "0"),
    ],
)
@pytest.mark.parametrize("kind", ["", "-- migrate: no-transaction\n"], ids=["transaction", "no transaction"])
def test_the_lock_timeout_is_the_option_s_unless_the_file_names_one(
    kind: str, directive: str, options: list[str], limit: str, migrate: Migrate, rows: Rows
) -> None:
    """A file's statements run under --lock-timeout, 5 s by default, or under the file's own; 0 is no limit."""
    text = f"{kind}{directive}CREATE TABLE seen AS SELECT current_setting('lock_timeout') AS value;"
    assert migrate("up", *options, files={"1_a.sql": text}).exit_code == 0
    assert rows("SELECT * FROM seen") == [(limit,)]


@pytest.mark.parametrize(("options", "limit"), [([], "7s"), (["--statement-timeout", "90s"], "90s")])
@pytest.mark.parametrize("kind", ["", "-- migrate: no-transaction\n"], ids=["transaction", "no transaction"])
def test_the_statement_timeout_is_the_server_s_unless_an_option_names_one(
    kind: str, options: list[str], limit: str, migrate: Migrate, rows: Rows
) -> None:
    """--statement-timeout holds for a file's statements; without it the server's or the role's setting does."""
    rows("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = 7000', current_database()); END $$")
    text = f"{kind}CREATE TABLE seen AS SELECT current_setting('statement_timeout')::interval AS value;"
    assert migrate("up", *options, files={"1_a.sql": text}).exit_code == 0
    assert rows("SELECT value = %s::interval FROM seen", limit) == [(True,)]


def test_a_statement_that_takes_too_long_fails_with_the_way_out(migrate: Migrate) -> None:
    """--statement-timeout ends the file, which is not tried again, and names the option."""
    run = migrate("up", "--statement-timeout", "50ms", files={"1_a.sql": "SELECT pg_sleep(60);"})
    assert run.exit_code == 1
    assert "1_a.sql:1:1: error: canceling statement due to statement timeout" in run.stderr
    assert "--statement-timeout 0" in run.stderr
    assert "retrying in" not in run.stderr


# --- trying again


@pytest.mark.parametrize("sqlstate", ["55P03", "40P01", "40001"])
def test_a_file_that_gave_way_is_tried_again_as_a_whole(
    sqlstate: str, migrate: Migrate, rows: Rows, tries: Counted
) -> None:
    """After a lock timeout, a deadlock, a serialization failure the file is rolled back and run anew."""
    run = migrate("up", files={"1_a.sql": COUNT + ONCE.format(sqlstate)})
    assert run.exit_code == 0, run
    assert tries() == 2
    assert rows("SELECT count(*) FROM trail") == [(1,)]
    assert rows("SELECT position, version FROM schema_migrations") == [(1, "1")]
    assert re.search(r"1  a  no luck; retrying in .* s \(10 left\)", run.stderr), run


@pytest.mark.parametrize("sqlstate", ["23505", "57014", "40002", "55006", "XX000", "P0001"])
def test_whatever_else_fails_is_not_tried_again(sqlstate: str, migrate: Migrate, tries: Counted) -> None:
    """An error that is no lock's fails the run at once: the file has run once."""
    run = migrate("up", files={"1_a.sql": COUNT + ONCE.format(sqlstate)})
    assert run.exit_code == 1
    assert tries() == 1
    assert "retrying in" not in run.stderr


@pytest.mark.parametrize("retries", [0, 2])
def test_a_file_is_tried_again_as_often_as_allowed(
    retries: int, migrate: Migrate, rows: Rows, tries: Counted, holder: psycopg.Connection
) -> None:
    """--lock-retries N makes N + 1 tries, pausing longer each time; then the run fails, and nothing stays."""
    options = ["--lock-timeout", "50ms", "--lock-retries", str(retries)]
    began = time.monotonic()
    run = migrate("up", *options, files={"1_a.sql": COUNT + ALTER})
    assert run.exit_code == 1
    assert tries() == 1 + retries
    assert rows("SELECT count(*) FROM trail") == [(0,)]
    assert "error: canceling statement due to lock timeout" in run.stderr
    assert "Nothing of this file was applied." in run.stderr
    assert [f" s ({left} left)" in run.stderr for left in range(retries, 0, -1)] == [True] * retries
    assert time.monotonic() - began > sum(0.75 * 0.5 * 2**nth for nth in range(retries))


def test_a_file_succeeds_once_the_lock_is_free(
    migrate: Migrate, rows: Rows, holder: psycopg.Connection, tries: Counted
) -> None:
    """A run that gave way goes on to success when the application's transaction ends, with no one's help."""
    migrate.write([COUNT + ALTER])
    run = migrate.start("up", "--lock-timeout", "100ms")
    run.says("lock timeout; retrying in ")
    holder.execute("COMMIT")
    ended = run.end()
    assert ended.exit_code == 0, ended
    assert tries() >= 2
    assert rows("SELECT count(*) FROM trail") == [(1,)]
    assert rows("SELECT phone FROM users") == []


def test_a_file_survives_a_deadlock(
    migrate: Migrate, rows: Rows, connect: Connect, busy: Callable[..., None], tries: Counted, gate: psycopg.Connection
) -> None:
    """A file that PostgreSQL chose as a deadlock's victim is tried again, and succeeds."""
    rows("CREATE TABLE a (); CREATE TABLE b ()")
    other = connect()
    other.execute("SET deadlock_timeout = '10min'")  # so it's the file that finds the deadlock, and gives way
    other.execute("BEGIN; LOCK TABLE b")
    victim = "SET LOCAL deadlock_timeout = '10ms'; LOCK TABLE a; " + GATE + " LOCK TABLE b;"
    migrate.write([COUNT + victim])
    run = migrate.start("up", "--lock-timeout", "0")
    until(lambda: rows("SELECT 1 FROM pg_locks WHERE relation = 'a'::regclass AND granted"))
    busy(other, "LOCK TABLE a; COMMIT")
    until(lambda: rows("SELECT 1 FROM pg_locks WHERE relation = 'a'::regclass AND NOT granted"))
    gate.close()
    ended = run.end()
    assert ended.exit_code == 0, ended
    assert "deadlock detected; retrying in " in ended.stderr
    assert (tries(), rows("SELECT count(*) FROM trail")) == (2, [(1,)])


def test_a_directive_s_timeout_makes_a_file_without_a_transaction_give_way(
    migrate: Migrate, rows: Rows, holder: psycopg.Connection
) -> None:
    """Before its first statement is done, a file without a transaction is tried again just so."""
    migrate.write(["-- migrate: no-transaction\nALTER TABLE users ADD COLUMN phone text; VACUUM users;"])
    run = migrate.start("up", "--lock-timeout", "100ms")
    run.says("retrying in")
    holder.execute("COMMIT")
    ended = run.end()
    assert ended.exit_code == 0, ended
    assert rows("SELECT phone FROM users") == []


def test_a_file_without_a_transaction_is_not_tried_again_past_its_first_statement(
    migrate: Migrate, rows: Rows, holder: psycopg.Connection, tries: Counted
) -> None:
    """After a statement that is done, a later one that gives way fails the run, and the error counts the done ones."""
    text = "-- migrate: no-transaction\nSELECT nextval('tries'); ALTER TABLE users ADD COLUMN phone text;"
    run = migrate("up", "--lock-timeout", "50ms", files={"1_a.sql": text})
    assert run.exit_code == 1
    assert "retrying in" not in run.stderr
    assert "1_a is unfinished: 1 of 2 statements done" in run.stderr
    assert tries() == 1


def test_a_wait_for_another_run_is_not_cut_short(
    migrate: Migrate, rows: Rows, sessions: Sessions, gate: psycopg.Connection
) -> None:
    """The lock timeout is for the file's statements: a run waits for another's row as long as that takes."""
    migrate.write([GATE])
    first = migrate.start("up", "--lock-timeout", "0")
    until(lambda: sessions.waiting("advisory"))
    options = ["--lock-timeout", "100ms", "--lock-retries", "0", "--statement-timeout", "100ms"]
    second = migrate.start("up", *options)
    second.says("waiting for another run")  # which it says after a second
    gate.close()
    ended = [first.end(), second.end()]
    assert [one.exit_code for one in ended] == [0, 0], ended
    assert rows("SELECT count(*) FROM schema_migrations") == [(1,)]


# --- the session in the way


def test_the_session_in_the_way_is_named_while_the_file_waits(
    migrate: Migrate, rows: Rows, holder: psycopg.Connection
) -> None:
    """Pid, user, application, address, state, age, query without its literals, table and modes: all live."""
    migrate.write([ALTER])
    run = migrate.start("up", "--lock-timeout", "0")
    line = run.says("waiting for a lock")
    ((pid, user, address, since),) = rows(
        "SELECT pid, usename, host(client_addr), to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS')"
        " FROM pg_stat_activity WHERE application_name = 'the application' AND datname = current_database()"
    )
    client = f", {address}" if address else ""
    assert re.fullmatch(
        rf"waiting for a lock: pid {pid} \(user {user}, application the application{re.escape(client)}\), idle in"
        rf" transaction, in a transaction for [\d.]+ m?s \(since {since} UTC\), holds AccessShareLock on users;"
        r" the file needs AccessExclusiveLock\s*",
        line,
    ), line
    assert run.says("its query:").strip() == "its query: SELECT name FROM users WHERE name = ? AND id > ?"
    holder.execute("COMMIT")
    ended = run.end()
    assert ended.exit_code == 0
    assert "Alice" not in ended.output


def test_the_error_carries_the_session_in_the_way(migrate: Migrate, holder: psycopg.Connection) -> None:
    """The final error has the blockers last seen, as text and in JSON, each with a way out."""
    migrate.write([ALTER])
    options = ["up", "--lock-timeout", "1500ms", "--lock-retries", "0"]
    ended = migrate("--json", *options)
    assert ended.exit_code == 1
    (blocker,) = error(ended)["blockers"]
    pid = holder.info.backend_pid
    advice = f"Pid {pid} is idle in a transaction: end it, or run SELECT pg_terminate_backend({pid})."
    told = {
        key: blocker[key] for key in ("pid", "user", "application", "state", "relation", "wanted", "held", "advice")
    }
    assert told == {
        "pid": pid,
        "user": holder.info.user,
        "application": "the application",
        "state": "idle in transaction",
        "relation": "users",
        "wanted": "AccessExclusiveLock",
        "held": "AccessShareLock",
        "advice": advice,
    }
    assert blocker["query"] == "SELECT name FROM users WHERE name = ? AND id > ?"
    assert blocker["transaction_seconds"] > 1
    _, message, rest = ended.stderr.partition("1_a.sql:1:1: error: canceling statement due to lock timeout")
    assert message, ended
    assert f"in the way: pid {pid}" in rest
    assert advice in rest
    assert "Nothing of this file was applied." in rest
    assert "Alice" not in ended.output


def test_short_timeouts_too_find_the_session_in_the_way(migrate: Migrate, holder: psycopg.Connection) -> None:
    """A file that gave way before a second had passed is looked after when it is tried again."""
    run = migrate("up", "--lock-timeout", "500ms", "--lock-retries", "1", files={"1_a.sql": ALTER})
    assert run.exit_code == 1
    assert f"in the way: pid {holder.info.backend_pid} " in run.stderr.partition("error:")[2]


def test_a_long_query_may_be_cancelled(migrate: Migrate, connect: Connect, busy: Callable[..., None]) -> None:
    """For a blocker that is at work the advice is to let it end, or to cancel its query."""
    connection = connect()
    connection.execute(USERS.encode())
    busy(connection, "SELECT pg_sleep(60), name FROM users UNION ALL SELECT pg_sleep(60), 'x'")
    migrate.write([ALTER])
    ended = migrate("--json", "up", "--lock-timeout", "2500ms", "--lock-retries", "0")
    (blocker,) = error(ended)["blockers"]
    assert (blocker["pid"], blocker["state"]) == (connection.info.backend_pid, "active")
    assert f"pg_cancel_backend({blocker['pid']})" in blocker["advice"]


def test_a_session_ahead_in_the_queue_is_told_from_one_that_holds(
    migrate: Migrate, holder: psycopg.Connection, connect: Connect, busy: Callable[..., None], rows: Rows
) -> None:
    """A session that is only ahead in the queue holds nothing, and the message doesn't say so."""
    first = connect()
    busy(first, "BEGIN; LOCK TABLE users")
    until(lambda: rows("SELECT 1 FROM pg_locks WHERE relation = 'users'::regclass AND NOT granted"))
    migrate.write([ALTER])
    ended = migrate("--json", "up", "--lock-timeout", "2500ms", "--lock-retries", "0")
    held = {blocker["pid"]: blocker["held"] for blocker in error(ended)["blockers"]}
    assert held[holder.info.backend_pid] == "AccessShareLock"
    assert held[first.info.backend_pid] is None
    assert re.search(rf"pid {first.info.backend_pid} .* is ahead in the queue for users", ended.stderr), ended
    assert "None" not in ended.stderr


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("SELECT 'secret', N'secret', 'se''cret', b", "SELECT ?, ?, ?, b"),
        (r"SELECT E'it\'s secret', e'\\', b", "SELECT ?, ?, b"),
        (r"SELECT 'C:\', 'secret'", "SELECT ?"),  # which of the two it is depends on standard_conforming_strings
        ("SELECT E'a'\n'secret\\'', 'secret'", "SELECT ?, ?"),
        (r"SELECT U&'\0041', U&'secret'", "SELECT ?, ?"),
        ("SELECT $$it's secret$$, $a$ $$ secret $b$ $a$, b", "SELECT ?, ?, b"),
        ("SELECT 4711, 0.5, 1e10, -3, 0xff, $1, t1.c2", "SELECT ?, ?, ?, -?, ?, $1, t1.c2"),
        ("SELECT b'1010', X'ff', c", "SELECT ?, ?, c"),
        ("""SELECT "it's", 'secret', "a""'b", 'secret'""", """SELECT "it's", ?, "a""'b", ?"""),
        ("SELECT a$x$, 'x $x$ secret'", "SELECT a$x$, ?"),
        ("/* secret */ SELECT -- secret's\n a/**/b, 'secret'", "SELECT a b, ?"),
        ("SELECT 1 /* /* a */ it's */, 'secret'", "SELECT ? , ?"),
        ("INSERT INTO t(a)\n\tVALUES('secret',4711)", "INSERT INTO t(a) VALUES(?,?)"),
        ("SELECT '" + "secret " * 200 + "'", "SELECT ?"),
        (LONG, LONG[:120]),
    ],
)
def test_a_blocker_s_query_is_shown_without_its_literals(
    query: str, shown: str, connect: Connect, busy: Callable[..., None]
) -> None:
    """A value in any spelling is shown as ?, and the query is cut at 120 characters."""
    holding, waiting = connect(), connect()
    holding.execute("CREATE TABLE users ()")
    holding.execute("BEGIN; LOCK TABLE users")
    with suppress(psycopg.Error):  # the query's result matters to nobody
        holding.execute(b"SAVEPOINT s")
        holding.execute(query.encode())
    with connect() as looking:
        busy(waiting, activity.mark("token", "1_a") + "BEGIN; LOCK TABLE users")
        (blocker,) = until(lambda: activity.blockers(looking, "token"))
        assert blocker.query == shown
        holding.execute("ROLLBACK")


def test_a_prepared_transaction_is_named_as_one(migrate: Migrate, private_server: Callable[..., PrivateServer]) -> None:
    """A prepared transaction holds a lock without a session, so the advice names COMMIT PREPARED and not a pid."""
    server = private_server(max_prepared_transactions="2")
    with closing(psycopg.connect(server.url, autocommit=True)) as connection:
        connection.execute(USERS.encode())
        connection.execute("BEGIN; LOCK TABLE users IN SHARE MODE; PREPARE TRANSACTION 'forgotten'")
        migrate.write([ALTER])
        ended = migrate("--json", "up", "--lock-timeout", "2500ms", "--lock-retries", "0", url=server.url)
        (blocker,) = error(ended)["blockers"]
        assert (blocker["pid"], blocker["held"]) == (0, "ShareLock")
        assert "ROLLBACK PREPARED" in blocker["advice"]
        assert "waiting for a lock: a prepared transaction, holds ShareLock on users; " in ended.stderr
        connection.execute("ROLLBACK PREPARED 'forgotten'")


def test_autovacuum_against_wraparound_is_named_as_one(
    migrate: Migrate, private_server: Callable[..., PrivateServer]
) -> None:
    """An autovacuum that prevents wraparound does not give way to us: the advice is to let it end."""
    server = private_server(
        autovacuum_freeze_max_age="100000",
        autovacuum_naptime="1s",
        autovacuum_max_workers="3",
        autovacuum_vacuum_cost_delay="0",
    )
    with closing(psycopg.connect(server.url, autocommit=True)) as connection:
        slow = "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1"
        connection.execute(f"CREATE TABLE users WITH (fillfactor = 10, {slow}) AS SELECT 1 AS id".encode())
        connection.execute("INSERT INTO users SELECT n FROM generate_series(1, 10000) AS n")
        spent = "FOR n IN 1..100000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP;"
        connection.execute(f"DO $$ BEGIN {spent} END $$".encode())
        vacuum = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND query ~ 'users .to'"
        until(lambda: connection.execute(vacuum.encode()).fetchall())
        migrate.write([ALTER])
        ended = migrate("--json", "up", "--lock-timeout", "2500ms", "--lock-retries", "0", url=server.url)
        (blocker,) = error(ended)["blockers"]
        assert (blocker["kind"], blocker["held"]) == ("autovacuum worker", "ShareUpdateExclusiveLock")
        assert "prevents wraparound and won't give way" in blocker["advice"]


# --- the second connection


@pytest.mark.parametrize(
    ("texts", "connections"),
    [
        (["SELECT pg_sleep(0);"] * 5, 1),
        (["SELECT pg_sleep(1.4);"], 2),
        (["-- migrate: no-transaction\n" + "SELECT pg_sleep(0.4);\n" * 4], 2),  # the second one claims the file
    ],
    ids=["short files", "a long statement", "short statements"],
)
def test_a_second_connection_is_for_long_waits_only(
    migrate: Migrate, texts: list[str], connections: int, proxy: Callable[..., Proxy]
) -> None:
    """Nobody looks where the server answers within a second, however long that goes on."""
    between = proxy()
    migrate.write(texts)
    assert migrate("up", url=between.url).exit_code == 0
    assert between.messages.count("Startup") == connections


def test_a_role_that_may_not_see_other_sessions_sees_less(
    migrate: Migrate, role: tuple[str, str], rows: Rows, holder: psycopg.Connection
) -> None:
    """Without pg_read_all_stats a run names the session and its lock, but not its query, and goes on."""
    name, url = role
    rows("GRANT ALL ON SCHEMA public TO PUBLIC")
    holder.execute("COMMIT")
    holder.execute(sql.SQL("ALTER TABLE users OWNER TO {}").format(sql.Identifier(name)))
    holder.execute("BEGIN; LOCK TABLE users IN ACCESS SHARE MODE")
    migrate.write([ALTER])
    ended = migrate("--json", "up", "--lock-timeout", "2500ms", "--lock-retries", "0", url=url)
    (blocker,) = error(ended)["blockers"]
    assert (blocker["pid"], blocker["user"]) == (holder.info.backend_pid, holder.info.user)
    assert (blocker["relation"], blocker["held"]) == ("users", "AccessShareLock")
    assert [blocker[key] for key in ("query", "state", "transaction_seconds", "is_run")] == [None, None, None, False]
    assert "pg_read_all_stats" in blocker["advice"]
    assert "insufficient privilege" not in ended.output


# --- settings of the role


@pytest.mark.parametrize("setting", ["lock_timeout", "statement_timeout", "idle_session_timeout"])
def test_a_role_s_own_timeouts_do_not_end_a_run_that_waits(
    migrate: Migrate, setting: str, role: tuple[str, str], rows: Rows, holder: psycopg.Connection
) -> None:
    """Whatever limits a role has, the run's own hold for locks, and its claim is not ended for being idle."""
    name, url = role
    rows("GRANT ALL ON SCHEMA public TO PUBLIC")
    rows("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC")
    limit = sql.SQL("ALTER ROLE {} SET {} = '300ms'").format(sql.Identifier(name), sql.SQL(setting))
    holder.execute("COMMIT")
    holder.execute(limit)
    holder.execute(sql.SQL("ALTER TABLE users OWNER TO {}").format(sql.Identifier(name)))
    holder.execute("BEGIN; LOCK TABLE users IN ROW EXCLUSIVE MODE")
    migrate.write(["CREATE INDEX CONCURRENTLY users_name ON users (name);", ALTER])
    run = migrate.start("up", "--lock-timeout", "30s", "--statement-timeout", "30s", url=url)
    run.says("waiting for a lock")
    holder.execute("COMMIT")
    ended = run.end()
    assert ended.exit_code == 0, ended
    assert "retrying in" not in ended.stderr


@pytest.mark.parametrize("setting", ["idle_in_transaction_session_timeout", "transaction_timeout"])
def test_a_claim_outlives_its_role_s_timeouts(
    migrate: Migrate, setting: str, role: tuple[str, str], rows: Rows, connect: Connect
) -> None:
    """The transaction that claims a file stays open as long as the file's statements take, whatever its role has."""
    name, url = role
    if setting not in [one for (one,) in rows("SELECT name FROM pg_settings")]:
        pytest.skip(f"the server does not know {setting}")
    rows("GRANT ALL ON SCHEMA public TO PUBLIC")
    connect().execute(sql.SQL("ALTER ROLE {} SET {} = '300ms'").format(sql.Identifier(name), sql.SQL(setting)))
    migrate.write(["-- migrate: no-transaction\n" + "SELECT pg_sleep(0.2);" * 3])
    ended = migrate("up", url=url)
    assert ended.exit_code == 0, ended


def test_a_tiny_lock_timeout_is_one(migrate: Migrate) -> None:
    """A limit below a millisecond is not taken for no limit, and one that PostgreSQL can't hold is wrong usage."""
    files = {"1_a.sql": "do $$ begin raise notice 'limit %', current_setting('lock_timeout'); end $$;"}
    assert "limit 1ms" in migrate("up", "--lock-timeout", "0.4ms", files=files).stderr
    assert migrate("up", "--lock-timeout", "1000h").exit_code == 2
