"""The isolation level that a file's transaction asks for."""

from __future__ import annotations

import psycopg
import pytest
from fix_cli import Migrate, Rows
from fix_servers import Connect
from fix_waiting import GATE, Sessions, until

SEEN = "create table seen as select current_setting('transaction_isolation') as level"
SERIALIZABLE = "-- migrate: isolation serializable\n"
TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND oid >= 16384"


@pytest.mark.parametrize(
    ("text", "level"),
    [
        (f"{SERIALIZABLE}{SEEN}", "serializable"),
        (f"-- migrate: isolation  Repeatable read\n{SEEN}", "repeatable read"),
        (f"-- migrate: isolation read committed\n{SEEN}", "read committed"),
        (f"begin isolation level serializable;\n{SEEN};\ncommit;", "serializable"),
        (f"start transaction isolation level repeatable read, read write; {SEEN}; end", "repeatable read"),
        (f"begin transaction isolation level read committed; {SEEN}; commit", "read committed"),
        (f"{SERIALIZABLE}begin isolation level serializable; {SEEN}; commit", "serializable"),
        (f"{SERIALIZABLE}begin; {SEEN}; commit", "serializable"),
        (f"set transaction isolation level read committed; {SEEN}", "read committed"),
        (SEEN, "read committed"),
    ],
)
def test_a_file_has_the_level_it_asks_for(migrate: Migrate, rows: Rows, text: str, level: str) -> None:
    """The directive, or BEGIN around the whole file, names it; the file and its entry have one transaction."""
    run = migrate("up", files={"1_a.sql": text, "2_b.sql": SEEN.replace("seen", "after")})
    assert (run.exit_code, run.stderr) == (0, "")
    assert rows("SELECT seen.level, after.level FROM seen, after") == [(level, "read committed")]
    assert rows("SELECT xmin::text FROM pg_class WHERE relname = 'seen'") == rows(
        "SELECT xmin::text FROM schema_migrations WHERE version = '1'"
    )


@pytest.mark.parametrize(
    ("statement", "named", "hint"),
    [
        ("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE", "SET TRANSACTION", "isolation serializable"),
        ("set local transaction isolation level repeatable read", "SET LOCAL TRANSACTION", "isolation repeatable read"),
        ("set transaction_isolation = 'repeatable read'", "SET TRANSACTION_ISOLATION", "isolation repeatable read"),
        (
            "set session characteristics as transaction isolation level serializable",
            "SET SESSION CHARACTERISTICS AS TRANSACTION",
            "isolation serializable",
        ),
        ("set transaction isolation level read uncommitted", "SET TRANSACTION", "READ UNCOMMITTED"),
        ("set transaction_isolation to default", "SET TRANSACTION_ISOLATION", "PostgreSQL can't reset it"),
        ("set local transaction_read_only = default", "SET LOCAL TRANSACTION_READ_ONLY", "PostgreSQL can't reset it"),
        ("reset transaction_isolation", "RESET TRANSACTION_ISOLATION", "PostgreSQL can't reset it"),
        ("set transaction read only", "SET TRANSACTION", "can't be READ ONLY"),
        ("set transaction not deferrable", "SET TRANSACTION", "DEFERRABLE is for"),
        ("set transaction snapshot '1-1'", "SET TRANSACTION", "snapshot of its own"),
        (
            "begin isolation level serializable; select 1; commit",
            "BEGIN, with COMMIT on line 2,",
            "isolation serializable",
        ),
    ],
)
def test_a_level_set_within_a_file_is_refused(
    migrate: Migrate, rows: Rows, statement: str, named: str, hint: str
) -> None:
    """The transaction has begun before the file: the statement is refused before anything runs, with a replacement."""
    run = migrate("--json", "up", files={"1_good.sql": SEEN, "2_bad.sql": f"select 1;\n{statement};select 2"})
    [problem] = run.json["error"]["problems"]
    assert (problem["path"], problem["line"], problem["column"]) == ("sql/2_bad.sql", 2, 1)
    assert problem["message"] == f"{named} cannot be used in a migration"
    assert hint in problem["hint"]
    assert rows(TABLES) == []


@pytest.mark.parametrize("modes", ["read only", "isolation level serializable, read only, deferrable", "deferrable"])
def test_a_transaction_that_cannot_write_is_refused(migrate: Migrate, rows: Rows, modes: str) -> None:
    """A file's entry is written in its transaction, so such a BEGIN is refused, together with its COMMIT."""
    run = migrate("--json", "up", files={"1_a.sql": f"begin {modes};\nselect 1;\ncommit;"})
    [problem] = run.json["error"]["problems"]
    assert (problem["line"], problem["message"]) == (1, "BEGIN, with COMMIT on line 3, cannot be used in a migration")
    assert modes.rpartition(" ")[2].upper() in problem["hint"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"-- migrate: no-transaction\n{SERIALIZABLE}select 1", "a file without a transaction has no isolation level"),
        (f"{SERIALIZABLE}vacuum", "a file without a transaction has no isolation level"),
        (f"{SERIALIZABLE}begin isolation level repeatable read; commit", "BEGIN asks for another isolation level"),
        ("-- migrate: isolation\nselect 1", "unknown directive: isolation"),
        ("-- migrate: isolation snapshot\nselect 1", "unknown directive: isolation snapshot"),
    ],
)
def test_a_level_that_cannot_be_had_is_refused(migrate: Migrate, text: str, message: str) -> None:
    """A level that would be passed over is refused, because the file's author counts on it."""
    [problem] = migrate("--json", "up", files={"1_a.sql": text}).json["error"]["problems"]
    assert problem["message"] == message
    assert problem["hint"]


@pytest.mark.parametrize(
    ("level", "first"), [("serializable", ""), ("serializable", "SELECT 0;"), ("repeatable read", "SELECT 0;")]
)
def test_runs_at_once_apply_such_a_file_once(
    migrate: Migrate, level: str, first: str, rows: Rows, sessions: Sessions, gate: psycopg.Connection
) -> None:
    """Runs that lose the race for the entry, which may be a serialization failure now, go on with the next file."""
    body = f"-- migrate: isolation {level}\n{GATE} CREATE TABLE once (); SELECT count(*) FROM schema_migrations;"
    migrate.write([*([first] if first else []), body, "SELECT 1;"])
    if first:
        assert migrate("up", "--to", "1").exit_code == 0
    runs = [migrate.start("up", "--lock-timeout", "0") for _ in range(4)]
    until(lambda: len(sessions.waiting("Lock")) == 4)
    gate.close()
    ended = [run.end() for run in runs]
    assert [one.exit_code for one in ended] == [0] * 4, ended
    assert rows("SELECT count(*), count(DISTINCT version) FROM schema_migrations") == [(2 + bool(first),) * 2]


REFUSES = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.version = '2' AND current_setting('application_name') = 'loser' THEN
            PERFORM pg_advisory_xact_lock(4711);
            RAISE 'could not serialize' USING ERRCODE = '40001';
        END IF;
        RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON schema_migrations FOR EACH ROW EXECUTE FUNCTION refuse();"""


def test_a_serialization_failure_of_the_entry_is_a_lost_race(
    migrate: Migrate, rows: Rows, sessions: Sessions, gate: psycopg.Connection
) -> None:
    """If the loser gets that error instead of a unique violation, it makes a new plan and says nothing."""
    migrate.write([REFUSES])
    assert migrate("up").exit_code == 0
    migrate.write([REFUSES, "SELECT 2;", "SELECT 3;"])
    loser = migrate.start("up", PGAPPNAME="loser")
    until(lambda: len(sessions.waiting("Lock")) == 1)
    assert migrate("up", "--to", "2").exit_code == 0
    gate.close()
    ended = loser.end()
    assert (ended.exit_code, "could not serialize" in ended.stderr) == (0, False), ended
    assert "3  a  applied in" in ended.stdout


def test_a_serialization_failure_of_the_entry_is_tried_again(migrate: Migrate) -> None:
    """Where no other run was first, some other transaction was: the file is tried again, but not for ever."""
    migrate.write([REFUSES])
    assert migrate("up").exit_code == 0
    migrate.write([REFUSES, "SELECT 2;"])
    ended = migrate("up", "--lock-retries", "1", PGAPPNAME="loser")
    assert ended.exit_code == 1
    assert "sql/2_a.sql: error: cannot begin the file: could not serialize" in ended.stderr


def test_a_serialization_failure_is_tried_again(
    migrate: Migrate, rows: Rows, connect: Connect, sessions: Sessions
) -> None:
    """A file whose row another transaction changed meanwhile is tried again, as after a lock timeout."""
    rows("CREATE TABLE counter (n int)")
    rows("INSERT INTO counter VALUES (0)")
    migrate.write([f"{SERIALIZABLE}SELECT n FROM counter; UPDATE counter SET n = n + 10;"])
    other: psycopg.Connection = connect()
    other.execute("BEGIN")
    other.execute("UPDATE counter SET n = n + 1")
    run = migrate.start("up", "--lock-timeout", "0")
    until(lambda: len(sessions.waiting("Lock")) == 1)
    other.execute("COMMIT")
    ended = run.end()
    assert ended.exit_code == 0, ended
    assert "could not serialize access" in ended.stderr
    assert rows("SELECT n FROM counter") == [(11,)]


def test_a_serialization_failure_at_commit_is_reported(migrate: Migrate, rows: Rows) -> None:
    """One that only COMMIT meets is no failure of a deferred constraint, and has the place of its file."""
    raises = "RAISE 'could not serialize' USING ERRCODE = '40001'"
    rows(f"CREATE FUNCTION fails() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {raises}; END $$")
    text = (
        "create table t (); create constraint trigger t after insert on t deferrable initially deferred"
        " for each row execute function fails(); insert into t default values;"
    )
    run = migrate("up", "--lock-retries", "0", files={"1_a.sql": SERIALIZABLE + text})
    assert run.exit_code == 1
    assert "sql/1_a.sql: error: at COMMIT: could not serialize" in run.stderr
    assert "run up again" in run.stderr
