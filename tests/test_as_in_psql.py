"""A file without a transaction does the same as in psql, or is refused before anything runs."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator

import fix_servers
import pytest
from fix_cli import Migrate, Rows
from fix_servers import find, fresh_database

HEAD = "-- migrate: no-transaction\n"
SUBSCRIPTIONS = (
    "SELECT subname FROM pg_subscription JOIN pg_database d ON d.oid = subdbid AND datname = current_database()"
)

REFUSED = [
    ("create temp table x (a int)", "CREATE TEMP TABLE"),
    ("create local temporary table x as select 1", "CREATE LOCAL TEMPORARY TABLE"),
    ("create or replace temp recursive view v (a) as select 1", "CREATE OR REPLACE TEMP RECURSIVE VIEW"),
    ("create temp sequence if not exists s", "CREATE TEMP SEQUENCE"),
    ("create table if not exists pg_temp.x ()", "CREATE TABLE IF NOT EXISTS PG_TEMP"),
    ("create or replace function pg_temp.f() returns int language sql as ''", "CREATE OR REPLACE FUNCTION PG_TEMP"),
    ("select 1 as a, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 as b, 12 as c into temp x", "INTO TEMP"),
    ("with w as (select 1 as a) select a into local temporary table x from w", "INTO LOCAL TEMPORARY"),
    ("select 1 as a into pg_temp.x", "INTO PG_TEMP"),
    ("prepare p as select 1", "PREPARE"),
    ("declare c cursor for select 1", "DECLARE"),
    ("declare c cursor with hold for select 1", "DECLARE"),
    ("listen c", "LISTEN"),
    ("savepoint s", "SAVEPOINT"),
    ("release s", "RELEASE"),
    ("rollback to s", "ROLLBACK"),
    ("lock table t in share mode", "LOCK"),
    ("set local lock_timeout = '1s'", "SET LOCAL"),
    ("set constraints all deferred", "SET CONSTRAINTS"),
    ("set transaction isolation level serializable", "SET TRANSACTION"),
    ("set session characteristics as transaction read only", "SET SESSION CHARACTERISTICS"),
    ("set default_transaction_isolation = 'serializable'", "SET DEFAULT_TRANSACTION_ISOLATION"),
    ("set session transaction_read_only to on", "SET SESSION TRANSACTION_READ_ONLY"),
    ("set seed to 0.5", "SET SEED"),
    ("set standard_conforming_strings = off", "SET STANDARD_CONFORMING_STRINGS"),
    ("select set_config('work_mem', '1MB', false)", "set_config()"),
    ("SELECT pg_catalog.Set_Config('search_path', (select current_schema()), is_local => false), 1", "set_config()"),
    ("update t set a = 1 where set_config('a.b', 'true', 1 > 2) = 'x'", "set_config()"),
    ("select pg_advisory_lock(1)", "pg_advisory_lock()"),
    ("select pg_try_advisory_lock_shared(1, 2)", "pg_try_advisory_lock_shared()"),
    ("insert into t select lastval()", "lastval()"),
    ("create table c as select currval('s')", "currval()"),
    ("(select setseed(0.1))", "setseed()"),
    ("update pg_catalog.pg_settings as s set setting = '1MB' where name = 'work_mem'", "UPDATE pg_settings"),
    ("do $$ begin perform set_config('work_mem', '1MB', false); end $$", "DO with set_config()"),
    ("do $$ begin if true then set search_path = app; end if; end $$", "DO with SET"),
    ("do 'begin set session role pg_monitor; end' language plpgsql", "DO with SET"),
    ("do $$ begin execute format('set a.b to %L', 1); end $$", "DO with SET"),
    ("do $$ begin reset role; end $$", "DO with RESET"),
    (
        "do $$ begin update pg_settings set setting = '1MB' where name = 'work_mem'; end $$",
        "DO with UPDATE pg_settings",
    ),
    ("do $$ begin create temporary table y (); end $$", "DO with CREATE TEMPORARY TABLE"),
    ("do $$ begin perform pg_advisory_lock(1); end $$; select 1", "DO with pg_advisory_lock()"),
]


def test_what_needs_more_than_its_own_statement_is_refused(migrate: Migrate, rows: Rows) -> None:
    """Statements run in sessions of their own: `check` and `up` name each that needs another one's, with a hint."""
    text = HEAD + ";\n".join(statement for statement, _ in REFUSED)
    for command in ("check", "up"):
        run = migrate("--json", command, files={"1_a.sql": text})
        assert run.exit_code == 1
        found = run.json.get("findings") or run.json["error"]["problems"]
        assert [(problem["line"], problem["message"]) for problem in found] == [
            (line, f"{named} does not work in a file without a transaction")
            for line, (_, named) in enumerate(REFUSED, 2)
        ]
        assert all(problem["hint"] for problem in found)
    assert rows("SELECT to_regclass('schema_migrations')") == [(None,)]


@pytest.mark.parametrize(
    "text",
    [
        "set work_mem = '1MB'; discard all; create table seen as select current_setting('work_mem') as a",
        "set work_mem = '1MB'; set role pg_monitor; reset all; reset role;"
        "create table seen as select current_setting('work_mem') as a",
        "set role pg_database_owner; reset all; create table seen as select current_user::text as a",
        "create schema role; set search_path = role, public; reset all;"
        "create table public.seen as select current_schema()::text as a",
        "set time zone 'Asia/Tokyo'; set datestyle = 'German';"
        "create table seen as select '2026-01-01 00:00+00'::timestamptz::text as a",
        "create schema s; set search_path = s, public; create table public.seen as select current_schema()::text as a",
        "create sequence q; create table seen as select nextval('q') as n, currval('q') as a",
        "create table seen (id serial, a text); insert into seen (a) values ('x') returning lastval()",
        "create table seen as select set_config('work_mem', (select '1MB'), true) as a, 'set_config (' as b",
        "create table seen as select random() as a from (select setseed(0.5)) as seed; set temp_buffers = '1MB'",
        "create table temp (a int); insert into temp values (1); with w as (select 2) insert into temp select * from w;"
        "select a into seen from temp; create table x as table seen",
        "create function f() returns bigint language sql security definer set search_path = public, pg_temp"
        " begin atomic select lastval(); end; create view v as select lastval(); create table seen as select 1 as a",
        "create function set_config(text) returns text language sql as $$ select 'set local x; create temp table y' $$;"
        "create table seen as select public.set_config('x') as a; deallocate all; close all; unlisten *; discard temp",
        "do $$ begin create temp table y () on commit drop; perform 'commit'; /* commit */ end $$;"
        "create table seen as select to_regclass('y') as a",
        "do $$ declare n int; begin set local work_mem = '1MB'; set constraints all immediate;"
        " perform pg_advisory_lock(1), pg_advisory_unlock(1), set_config('a.b', 'x', true);"
        " perform case when true then 'set' else 'load' end; raise 'set a to b';"
        " exception when raise_exception then create function f() returns void language plpgsql set work_mem = '1MB' as"
        " 'begin set work_mem = 1024; end'; update pg_class set relname = 'x' where false; end $$;"
        "create table seen as select current_setting('work_mem') as a",
        "load 'plpgsql'; create table seen as select 1 as a; do $$ begin set work_mem = '1MB'; end $$",
        "create table p (a int primary key) partition by range (a); create table p1 partition of p default;"
        "reindex table p; reindex index p_pkey; create table seen as select 1 as a",
    ],
)
def test_what_runs_does_the_same_as_in_psql(migrate: Migrate, rows: Rows, server_url: str, text: str) -> None:
    """The file's SETs hold as long as in psql, and a text that only looks like a refused statement runs."""
    run = migrate("up", files={"1_a.sql": HEAD + text})
    assert run.exit_code == 0, run
    with fresh_database(server_url) as other:
        command = [str(find("psql")), "-qX", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d", other]
        subprocess.run(command, input=text, encoding="utf-8", check=True, capture_output=True)
        asked = [*command[:2], "-At", "-d", other, "-c", "SELECT a::text FROM seen"]
        told = subprocess.run(asked, encoding="utf-8", check=True, capture_output=True).stdout.splitlines()
    assert [a or "" for (a,) in rows("SELECT a::text FROM public.seen")] == told


def test_a_library_is_loaded_again_where_a_run_goes_on(migrate: Migrate) -> None:
    """A run that goes on with a file has another session: LOAD holds there as SET does."""
    shown = "SELECT current_setting('auto_explain.log_analyze')"
    assert migrate("up", files={"1_a.sql": f"{HEAD}LOAD 'auto_explain'; SELECT 1/0; {shown}"}).exit_code == 1
    run = migrate("up", files={"1_a.sql": f"{HEAD}LOAD 'auto_explain'; SELECT 1/1; {shown}"})
    assert run.exit_code == 0, run


# --- statements that commit by themselves

BATCHES = """
    CREATE TABLE t (n int); CREATE SEQUENCE tries;
    CREATE PROCEDURE batches(last int) LANGUAGE plpgsql AS $$ BEGIN
        PERFORM nextval('tries');
        FOR n IN 1..last LOOP INSERT INTO t VALUES (1 / (3 - n)); COMMIT; END LOOP; END $$;"""


@pytest.mark.parametrize(
    ("text", "column", "named"),
    [
        ("select 1; call p()", 11, "CALL"),
        ("do $$ begin delete from t; commit; end $$; select 1", 1, "DO with COMMIT"),
        ("select 1; do language plpgsql $a$ begin rollback; end $a$", 11, "DO with ROLLBACK"),
        ("select 1; do 'begin call p(); end' language 'plpgsql'", 11, "DO with CALL"),
        ("select 1; do language plpython3u $$ plpy.commit() $$", 11, "DO with COMMIT"),
    ],
)
def test_what_may_commit_by_itself_is_alone_in_its_file(
    migrate: Migrate, rows: Rows, text: str, column: int, named: str
) -> None:
    """Its commits stay when it fails later, and it is run again: it is refused beside other statements."""
    run = migrate("up", files={"1_a.sql": HEAD + text})
    assert run.exit_code == 1
    assert f"1_a.sql:2:{column}: error: {named} must be a file's only statement besides SET" in run.stderr
    assert rows("SELECT to_regclass('schema_migrations')") == [(None,)]


@pytest.mark.parametrize(
    "text", ["CALL batches(2)", "SET work_mem = '1MB'; CALL batches(2);", "DO $$ BEGIN CALL batches(2); COMMIT; END $$"]
)
def test_what_commits_by_itself_is_run_once(migrate: Migrate, rows: Rows, text: str) -> None:
    """It is not tried in a transaction first, where it would fail at its first COMMIT."""
    run = migrate("up", files={"1_a.sql": BATCHES, "2_b.sql": HEAD + text})
    assert run.exit_code == 0, run
    assert rows("SELECT count(*), (SELECT last_value FROM tries) FROM t") == [(2, 1)]


def test_a_procedure_that_fails_after_a_commit_is_run_again(migrate: Migrate, rows: Rows) -> None:
    """Its commits stay, its file is unfinished, and the next run calls it anew."""
    failed = migrate("up", files={"1_a.sql": BATCHES, "2_b.sql": f"{HEAD}CALL batches(3)"})
    assert "division by zero" in failed.stderr
    assert "2_b is unfinished: 0 of 1 statement done" in failed.stderr
    again = migrate("up", files={"2_b.sql": f"{HEAD}CALL batches(2)"})
    assert again.exit_code == 0, again
    assert rows("SELECT count(*) FROM t") == [(4,)]


# --- errors that only the server finds


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("REINDEX INDEX p_pkey", "Put it into a file of its own that begins with: -- migrate: no-transaction"),
        ("SELECT 1; REINDEX TABLE p", "Put it into a file of its own that begins with: -- migrate: no-transaction"),
        ("DO $$ BEGIN EXECUTE 'VACUUM'; END $$", "outside of functions, procedures and DO blocks"),
        (
            f"{HEAD}DO $$ BEGIN EXECUTE 'VACUUM'; END $$",
            "PostgreSQL can't run this in a function, procedure or DO block",
        ),
        ("DO $$ BEGIN COMMIT; END $$", "needs a file of its own that begins with: -- migrate: no-transaction"),
        (f"{HEAD}SELECT f()", "No function can commit"),
        ("SELECT set_config('transaction_isolation', 'serializable', true)", "SET TRANSACTION"),
    ],
)
def test_the_hint_is_true_where_the_server_refuses_a_statement(migrate: Migrate, text: str, hint: str) -> None:
    """One SQLSTATE stands for several reasons: the hint goes by the statement and by the file."""
    before = """
        CREATE TABLE p (a int PRIMARY KEY) PARTITION BY RANGE (a); CREATE TABLE p1 PARTITION OF p DEFAULT;
        CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS 'BEGIN COMMIT; END'"""
    run = migrate("up", files={"1_a.sql": before, "2_b.sql": text})
    assert run.exit_code == 1
    assert hint in run.stderr.partition("\nhint: ")[2], run


@pytest.fixture
def slot(database: str, rows: Rows) -> Iterator[str]:
    """The name of a replication slot that belongs to a subscription `s`."""
    if rows("SHOW wal_level") != [("logical",)]:
        pytest.skip("wal_level is not logical")
    name = f"outreach_{uuid.uuid4().hex[:12]}"
    rows("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", name)
    rows("CREATE PUBLICATION p")
    options = f"create_slot = false, enabled = false, slot_name = {name}"
    [(folders, port)] = rows("SELECT current_setting('unix_socket_directories'), current_setting('port')")
    # the server's own way to itself: a container does not know the port that it has outside
    itself = fix_servers.url(database, host=folders.split(",")[0].strip('"'), port=port)
    rows(f"CREATE SUBSCRIPTION s CONNECTION '{itself}' PUBLICATION p WITH ({options})")
    yield name
    if rows(SUBSCRIPTIONS):
        rows("ALTER SUBSCRIPTION s SET (slot_name = NONE)")
        rows("DROP SUBSCRIPTION s")
    rows("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", name)


@pytest.mark.parametrize(
    ("text", "slots"),
    [
        ("DROP SUBSCRIPTION s", 0),
        ("DROP SUBSCRIPTION IF EXISTS s CASCADE;", 0),
        (f"{HEAD}SELECT 1; DROP SUBSCRIPTION s; SELECT 2;", 0),
        ("ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s;", 1),
        (f"{HEAD}ALTER SUBSCRIPTION s SET (slot_name = NONE); DROP SUBSCRIPTION s;", 1),
    ],
)
def test_a_subscription_is_dropped_with_its_slot_or_without(
    migrate: Migrate, rows: Rows, slot: str, text: str, slots: int
) -> None:
    """One that has a slot can't be dropped in a transaction: alone in a file it runs without one."""
    run = migrate("up", files={"1_a.sql": text})
    assert run.exit_code == 0, run
    assert rows(SUBSCRIPTIONS) == []
    assert rows("SELECT count(*) FROM pg_replication_slots WHERE slot_name = %s", slot) == [(slots,)]


def test_a_subscription_that_is_not_there_can_be_left_out(migrate: Migrate) -> None:
    """The file, of which nothing is done, may become any other without a transaction."""
    failed = migrate("up", files={"1_a.sql": "DROP SUBSCRIPTION s"})
    assert 'subscription "s" does not exist' in failed.stderr
    assert failed.stderr.endswith("1_a is unfinished: 0 of 1 statement done; the next up goes on there.\n")
    assert migrate("up", files={"1_a.sql": "DROP SUBSCRIPTION IF EXISTS s"}).exit_code == 0


@pytest.mark.parametrize("before", ["SELECT 1;", "ALTER SUBSCRIPTION other SET (slot_name = NONE);"])
def test_dropping_a_subscription_beside_others_is_refused(migrate: Migrate, before: str) -> None:
    """Whether it has a slot is not in the text, unless the file has taken it away before."""
    run = migrate("check", files={"1_a.sql": f"{before}\nDROP SUBSCRIPTION s;"})
    assert run.exit_code == 1
    assert "1_a.sql:2:1: error: DROP SUBSCRIPTION with a slot cannot run in a transaction" in run.stderr + run.stdout
    assert "slot_name = NONE" in run.stderr + run.stdout
