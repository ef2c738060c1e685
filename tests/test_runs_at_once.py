"""Runs at once: each file is applied exactly once, in order, and each run ends well."""

from __future__ import annotations

import re

import psycopg
import pytest
from fix_cli import Migrate, Rows
from fix_proxy import Proxy
from fix_servers import Connect, each_way
from fix_waiting import GATE, Sessions, until
from psycopg import sql

TRAIL = "CREATE TABLE trail (step serial PRIMARY KEY, version int);"
FILES = [TRAIL, *(f"INSERT INTO trail (version) VALUES ({version});" for version in range(2, 7))]


@pytest.mark.parametrize(
    ("count", "table", "first"),
    [
        (2, "schema_migrations", "CREATE TABLE schema_migrations (version text)"),
        (2, "newschema.hist", "CREATE SCHEMA newschema"),
        (20, "newschema.hist", "CREATE SCHEMA newschema"),
    ],
)
def test_runs_on_an_empty_database_all_succeed(
    migrate: Migrate, count: int, table: str, first: str, rows: Rows, connect: Connect, sessions: Sessions
) -> None:
    """Two runs or twenty that make the table and its schema at the same instant: one does, and nobody fails."""
    migrate.write(FILES)
    with connect() as barrier:
        barrier.execute("BEGIN")
        barrier.execute(first.encode())  # a run that makes the same waits for this one's end, so all go on at once
        runs = [migrate.start("--table", table, "up") for _ in range(count)]
        until(lambda: len(sessions.waiting("Lock")) == count)
        barrier.execute("ROLLBACK")
    ended = [run.end() for run in runs]
    assert [one.exit_code for one in ended] == [0] * count, ended
    assert rows("SELECT version FROM trail ORDER BY step") == [(2,), (3,), (4,), (5,), (6,)]
    history = sql.SQL("SELECT position, version FROM {}").format(sql.Identifier(*table.split(".")))
    assert connect().execute(history).fetchall() == [(version, str(version)) for version in range(1, 7)]
    assert sum(len(re.findall(r"  a  applied in", one.stdout)) for one in ended) == 6
    assert "error" not in "".join(one.output for one in ended)


def test_runs_on_a_database_with_a_history_all_succeed(migrate: Migrate, rows: Rows) -> None:
    """Runs that start at about the same time, as an application's containers do, share the work and all succeed."""
    migrate.write([TRAIL])
    assert migrate("up").exit_code == 0
    migrate.write(FILES)
    ended = [run.end() for run in [migrate.start("up") for _ in range(5)]]
    assert [one.exit_code for one in ended] == [0] * 5, ended
    assert rows("SELECT version FROM trail ORDER BY step") == [(2,), (3,), (4,), (5,), (6,)]


@each_way
def test_a_run_that_waits_for_another_says_for_whom(
    migrate: Migrate, rows: Rows, gate: psycopg.Connection, sessions: Sessions
) -> None:
    """A run that waits names the other one on stderr: its pid, its application, since when; and then goes on."""
    migrate.write([TRAIL, f"{GATE} INSERT INTO trail (version) VALUES (2);", "INSERT INTO trail (version) VALUES (3);"])
    first = migrate.start("up", "--lock-timeout", "0", PGAPPNAME="the first one")
    until(lambda: sessions.waiting("Lock"))
    second = migrate.start("up")
    line = second.says("waiting for another run")
    ((pid, since),) = rows(
        "SELECT pid, to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM pg_stat_activity"
        " WHERE application_name = 'the first one' AND wait_event_type = 'Lock' AND datname = current_database()"
    )
    assert re.search(rf"pid {pid}\b.*application the first one.*{since}", line), line
    gate.close()
    ended = [first.end(), second.end()]
    assert [one.exit_code for one in ended] == [0, 0], ended
    assert rows("SELECT version FROM trail ORDER BY step") == [(2,), (3,)]


def test_runs_meet_the_same_failing_file(migrate: Migrate, rows: Rows) -> None:
    """Every run fails with the file's own place; the files before it are applied once, those after it never."""
    migrate.write([*FILES[:3], "SELECT 1/0;", FILES[3]])
    ended = [run.end() for run in [migrate.start("up") for _ in range(4)]]
    assert [one.exit_code for one in ended] == [1] * 4, ended
    assert all("4_a.sql:1:1: error: division by zero" in one.stderr for one in ended), ended
    assert rows("SELECT version FROM trail ORDER BY step") == [(2,), (3,)]
    assert rows("SELECT version FROM schema_migrations ORDER BY position") == [("1",), ("2",), ("3",)]


@pytest.mark.parametrize("applied", [0, 1])
def test_runs_go_on_after_one_that_fails(
    migrate: Migrate, applied: int, rows: Rows, gate: psycopg.Connection, sessions: Sessions
) -> None:
    """A run that fails in a file takes its entry, and the table it made, back: a waiting one applies the file."""
    fails = "DO $$ BEGIN IF current_setting('application_name') = 'loser' THEN RAISE 'lost'; END IF; END $$;"
    texts = [TRAIL, *FILES[1:3]]
    texts[applied] = f"{GATE} {fails} {texts[applied]}"
    migrate.write(texts)
    loser = migrate.start("up", "--lock-timeout", "0", PGAPPNAME="loser")
    until(lambda: sessions.waiting("Lock"))
    others = [migrate.start("up") for _ in range(4)]
    until(lambda: len(sessions.waiting("Lock")) == 5)
    gate.close()
    lost, ended = loser.end(), [other.end() for other in others]
    assert (lost.exit_code, "lost" in lost.stderr) == (1, True), lost
    assert [one.exit_code for one in ended] == [0] * 4, ended
    assert rows("SELECT version FROM trail ORDER BY step") == [(2,), (3,)]


@each_way
def test_a_run_that_is_killed_lets_the_next_one_go_on(
    migrate: Migrate, rows: Rows, gate: psycopg.Connection, sessions: Sessions
) -> None:
    """Kill -9 in the middle of a file leaves neither the file nor its entry, and no lock to remove by hand."""
    migrate.write([TRAIL, f"INSERT INTO trail (version) VALUES (2); {GATE}"])
    killed = migrate.start("up", "--lock-timeout", "0")
    until(lambda: sessions.waiting("Lock"))
    killed.kill()
    other = migrate.start("up", PGAPPNAME="other")
    until(lambda: rows("SELECT 1 FROM pg_stat_activity WHERE application_name = 'other' AND wait_event_type = 'Lock'"))
    gate.close()
    assert other.end().exit_code == 0
    assert rows("SELECT version FROM trail ORDER BY step") == [(2,)]


def test_a_role_with_a_short_statement_timeout_may_wait(
    migrate: Migrate, role: tuple[str, str], rows: Rows, gate: psycopg.Connection, sessions: Sessions
) -> None:
    """The wait for another run's row is not cut by the role's statement_timeout, though its files still are."""
    name, url = role
    rows("ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC")
    gate.execute(sql.SQL("ALTER ROLE {} SET statement_timeout = '50ms'").format(sql.Identifier(name)))
    migrate.write([TRAIL])
    assert migrate("up").exit_code == 0
    migrate.write([TRAIL, f"{GATE} INSERT INTO trail (version) VALUES (2);", "SELECT pg_sleep(60);"])
    first = migrate.start("up", "--to", "2", "--lock-timeout", "0")
    until(lambda: sessions.waiting("Lock"))
    second = migrate.start("up", url=url)
    second.says("waiting for")  # which it says after a second
    gate.close()
    assert first.end().exit_code == 0
    ended = second.end()
    assert ended.exit_code == 1
    assert "3_a.sql:1:1: error: canceling statement due to statement timeout" in ended.stderr
    assert rows("SELECT version FROM trail ORDER BY step") == [(2,)]


def test_a_table_made_while_it_is_looked_for_is_ours(migrate: Migrate, rows: Rows) -> None:
    """A run that meets no table, and then one that another run has just made, goes on with that."""
    migrate.write(["CREATE TABLE a (b int)"])
    with Proxy(migrate.url) as between:
        between.before("Q", 2, lambda: migrate.process("up"))
        ended = migrate.process("up", url=between.url)
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert rows("SELECT name FROM schema_migrations") == [("a",)]
