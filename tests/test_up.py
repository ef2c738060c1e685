"""`up`: what it applies, in which order, what it records, and what it says."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, LiteralString

import pytest
from fix_cli import Migrate, Rows
from fix_servers import Connect, each_way
from psycopg import sql

Recorded = Callable[[], list[str]]

THREE = {
    "1_first.sql": "create table t (n int);",
    "2_second.sql": "insert into t select generate_series(1, 3);",
    "10_third.sql": "update t set n = 0 where n < 3; delete from t where n = 3;",
}
TABLES: LiteralString = (
    "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'v') AND oid >= 16384"
    " AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e') ORDER BY 1"
)


def applied(document: dict[str, Any]) -> list[str]:
    return [one["version"] for one in document["applied"]]


@each_way
def test_files_are_applied_in_the_order_of_their_numbers(migrate: Migrate, rows: Rows, recorded: Recorded) -> None:
    """Version 2 comes before 10, however the names sort; each file is run once."""
    assert migrate("up", files=THREE).exit_code == 0
    assert recorded() == ["first", "second", "third"]
    assert rows("SELECT n FROM t") == [(0,), (0,)]


@each_way
def test_an_entry_says_what_was_applied_when_and_by_whom(migrate: Migrate, rows: Rows) -> None:
    """Positions count from 1, the checksum is the text's SHA-256, times are the database's."""
    assert migrate("up", files=THREE).exit_code == 0
    found = rows(
        """SELECT position, version, name, checksum, origin, applied_by = session_user || '@' || %s,
                  started_at <= finished_at AND finished_at <= clock_timestamp() FROM schema_migrations ORDER BY 1""",
        socket.gethostname(),
    )
    sums = [hashlib.sha256(text.encode()).hexdigest() for text in THREE.values()]
    assert found == [
        (1, "1", "first", sums[0], "run", True, True),
        (2, "2", "second", sums[1], "run", True, True),
        (3, "10", "third", sums[2], "run", True, True),
    ]


@each_way
def test_each_file_is_a_transaction_of_its_own(migrate: Migrate, rows: Rows) -> None:
    """A file and its entry have one transaction, and no two files share one."""
    assert (
        migrate("up", files={"1_t.sql": "create table t (n int);", "2_u.sql": "insert into t values (1)"}).exit_code
        == 0
    )
    entries = rows("SELECT xmin::text FROM schema_migrations ORDER BY position")
    assert entries[0] != entries[1]
    assert rows("SELECT xmin::text FROM t") == [entries[1]]
    assert rows("SELECT xmin::text FROM pg_class WHERE relname = 't'") == [entries[0]]


def test_it_tells_version_name_and_time_of_each_file(migrate: Migrate) -> None:
    """On stdout stands a line a file and a sum; on stderr nothing when there is nothing to say."""
    run = migrate("up", files=THREE)
    took = r"\d+(\.\d)? m?s"
    assert re.fullmatch(
        rf"1  first  applied in {took}\n2  second  applied in {took}\n10  third  applied in {took}\n"
        rf"3 migrations applied in {took}\.\n",
        run.stdout,
    )
    assert run.stderr == ""


@each_way
def test_verbose_tells_what_each_statement_did(migrate: Migrate) -> None:
    """-v adds each statement's command tag, with its count of rows, and none of our own."""
    lines = migrate("-v", "up", files=THREE).stdout.splitlines()
    assert [line.strip() for line in lines if line.startswith("    ")] == [
        "CREATE TABLE",
        "INSERT 0 3",
        "UPDATE 2",
        "DELETE 1",
    ]


def test_quiet_tells_nothing(migrate: Migrate) -> None:
    """-q leaves stdout and stderr empty when all goes well, notices included."""
    run = migrate("-q", "up", files={**THREE, "11_loud.sql": "do $$ begin raise warning 'loud'; end $$"})
    assert (run.exit_code, run.stdout, run.stderr) == (0, "", "")


def test_the_document_of_a_run(migrate: Migrate) -> None:
    """--json gives one document on stdout, and what people read on stderr."""
    run = migrate("--json", "up", files=THREE)
    document = run.json
    for one in document["applied"]:
        assert one.pop("milliseconds") > 0
    assert document == {
        "command": "up",
        "ok": True,
        "error": None,
        "database": run.database,
        "applied": [
            {"version": "1", "name": "first", "path": "sql/1_first.sql", "statements": ["CREATE TABLE"]},
            {"version": "2", "name": "second", "path": "sql/2_second.sql", "statements": ["INSERT 0 3"]},
            {"version": "10", "name": "third", "path": "sql/10_third.sql", "statements": ["UPDATE 2", "DELETE 1"]},
        ],
        "pending": [],
        "ahead": [],
        "notices": [],
    }
    assert "3 migrations applied" in run.stderr


def test_nothing_to_do_is_one_line(migrate: Migrate, recorded: Recorded) -> None:
    """A second run says that nothing is pending, and exits 0."""
    migrate("up", files=THREE)
    run = migrate("up")
    assert (run.exit_code, run.stdout, run.stderr) == (0, "Nothing is pending: 3 migrations are applied.\n", "")
    assert recorded() == ["first", "second", "third"]


@pytest.mark.parametrize("command", [["up"], ["up", "--dry-run"], ["status"]])
def test_nothing_to_do_takes_no_lock(migrate: Migrate, connect: Connect, command: list[str]) -> None:
    """A run with nothing to do passes one that holds the history's lock against all writers."""
    migrate("up", files=THREE)
    with connect().transaction() as transaction:
        transaction.connection.execute("LOCK TABLE schema_migrations IN EXCLUSIVE MODE")
        run = migrate.process(*command)
    assert run.exit_code == 0


@pytest.mark.parametrize("command", [["up"], ["up", "--dry-run"], ["status"], ["status", "--check"]])
def test_a_role_that_may_only_read_finds_nothing_to_do(
    migrate: Migrate, rows: Rows, connect: Connect, role: tuple[str, str], command: list[str]
) -> None:
    """With nothing pending, SELECT on the history is all that is needed, in read-only transactions."""
    migrate("up", files=THREE)
    name, url = role
    connect().execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(sql.Identifier(name)))
    connect().execute(sql.SQL("GRANT SELECT ON schema_migrations TO {}").format(sql.Identifier(name)))
    run = migrate(*command, url=url)
    assert (run.exit_code, run.stderr) == (0, "")


def test_what_cannot_be_written_is_refused_before_anything_runs(migrate: Migrate, connect: Connect) -> None:
    """A database whose settings keep the first file from being recorded is an error with a hint."""
    set_for_all(connect, "default_transaction_read_only = on")
    run = migrate("--json", "up", files=THREE)
    assert run.exit_code == 1
    assert run.json["error"]["hint"]
    assert connect().execute(TABLES).fetchall() == []


def test_a_read_only_default_can_be_overridden_in_the_url(
    migrate: Migrate, connect: Connect, recorded: Recorded
) -> None:
    """What the hint says helps: options in the URL beat the database's default."""
    set_for_all(connect, "default_transaction_read_only = on")
    url = migrate.url + ("&" if "?" in migrate.url else "?") + "options=-c%20default_transaction_read_only%3Doff"
    assert migrate("up", files=THREE, url=url).exit_code == 0
    assert recorded() == ["first", "second", "third"]


def set_for_all(connect: Connect, setting: LiteralString) -> None:
    """Make a setting the database's default."""
    connection = connect()
    name = sql.Identifier(connection.info.dbname)
    connection.execute(sql.SQL("ALTER DATABASE {} SET {}").format(name, sql.SQL(setting)))


@pytest.mark.parametrize(
    "setting",
    [
        "default_transaction_isolation = 'serializable'",
        "default_transaction_isolation = 'repeatable read'",
        "default_transaction_deferrable = on",
        "datestyle = 'German, DMY'",
        "timezone = 'Pacific/Chatham'",
        "intervalstyle = 'sql_standard'",
        "client_encoding = 'LATIN1'",
        "lock_timeout = '1ms'",
        "client_min_messages = 'error'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
        "quote_all_identifiers = on",
        "row_security = off",
        "check_function_bodies = off",
    ],
)
@each_way
def test_a_databases_own_settings_do_not_matter(
    migrate: Migrate, connect: Connect, recorded: Recorded, setting: LiteralString
) -> None:
    """Whatever a database sets for all its sessions, files are applied at read committed, and status reads them."""
    set_for_all(connect, setting)
    files = {**THREE, "11_last.sql": "create table u as select 'é' as e, current_setting('transaction_isolation') as i"}
    assert migrate("up", files=files).exit_code == 0
    assert recorded() == ["first", "second", "third", "last"]
    assert connect().execute("SELECT * FROM u").fetchall() == [("é", "read committed")]
    status = migrate("--json", "status", "--check")
    assert (status.exit_code, status.json["counts"]) == (0, {"applied": 4})
    started = connect().execute("SELECT extract(epoch FROM started_at)::text FROM schema_migrations").fetchall()
    told = [datetime.fromisoformat(one["entry"]["started_at"]).timestamp() for one in status.json["migrations"]]
    assert told == [pytest.approx(float(epoch), abs=1e-3) for (epoch,) in started]


class TestTo:
    def test_it_stops_after_the_version(self, migrate: Migrate, recorded: Recorded) -> None:
        """--to applies what is pending up to and with its version; the rest stays pending."""
        run = migrate("--json", "up", "--to", "2", files=THREE)
        assert (run.exit_code, applied(run.json)) == (0, ["1", "2"])
        assert recorded() == ["first", "second"]
        assert applied(migrate("--json", "up").json) == ["10"]

    def test_versions_are_numbers(self, migrate: Migrate) -> None:
        """--to 0002 is the file whose version is 2."""
        assert applied(migrate("--json", "up", "--to", "0002", files=THREE).json) == ["1", "2"]

    @pytest.mark.parametrize("version", ["1", "10"])
    def test_what_is_applied_stays(self, migrate: Migrate, recorded: Recorded, version: str) -> None:
        """--to a version that is applied already does nothing, and takes nothing back."""
        migrate("up", files=THREE)
        assert migrate("up", "--to", version).exit_code == 0
        assert recorded() == ["first", "second", "third"]

    def test_what_comes_after_is_told(self, migrate: Migrate) -> None:
        """Nothing to do up to a version does not mean that nothing is pending."""
        migrate("up", files=THREE)
        run = migrate("up", "--to", "2", files={"11_fourth.sql": "select 4"})
        assert (
            run.stdout == "Nothing is pending up to this version: 3 migrations are applied, 1 later one is pending.\n"
        )

    @pytest.mark.parametrize("version", ["3", "0", "11"])
    def test_a_version_that_does_not_exist_is_an_error(self, migrate: Migrate, rows: Rows, version: str) -> None:
        """--to must name a version there is; nothing runs."""
        run = migrate("up", "--to", version, files=THREE)
        assert (run.exit_code, rows(TABLES)) == (2, [])
        assert f"no migration has version {version}\nhint: The newest version is 10." in run.stderr

    def test_what_is_no_number_is_wrong_usage(self, migrate: Migrate) -> None:
        """--to takes digits, else the exit code is that of wrong usage."""
        assert migrate("up", "--to", "first", files=THREE).exit_code == 2


@pytest.mark.parametrize("before", [[], ["up", "--to", "2"]])
def test_a_dry_run_touches_nothing(migrate: Migrate, rows: Rows, before: list[str]) -> None:
    """--dry-run says what would run, in order, and writes nothing, not even the history's table."""
    migrate.write(THREE)
    if before:
        migrate(*before)
    tables = rows(TABLES)
    run = migrate("--json", "up", "--dry-run")
    assert run.exit_code == 0
    assert rows(TABLES) == tables
    assert [one["version"] for one in run.json["pending"]] == (["10"] if before else ["1", "2", "10"])
    assert run.json["applied"] == []
    assert "sql/10_third.sql  would be applied" in run.stderr


def test_a_dry_run_stops_after_the_version(migrate: Migrate) -> None:
    """--dry-run tells what a run with the same options would do."""
    run = migrate("up", "--dry-run", "--to", "1", files=THREE)
    assert run.stdout == f"-- sql/1_first.sql\n{THREE['1_first.sql']}\n"


def test_a_dry_run_refuses_what_a_run_refuses(migrate: Migrate) -> None:
    """--dry-run fails where the run would have failed before its first file."""
    run = migrate("up", "--dry-run", files={**THREE, "11_bad.sql": "commit"})
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("sql/11_bad.sql:1:1: error: COMMIT")


@each_way
def test_notices_have_their_files_name(migrate: Migrate) -> None:
    """RAISE NOTICE, INFO and WARNING, and the server's own notices, are shown in order, each with its file."""
    files = {
        "1_a.sql": "do $$ begin raise notice 'one'; raise info 'é'; raise warning 'two' using hint = 'h'; end $$;",
        "2_b.sql": "do $$ begin raise debug 'not this'; raise log 'nor this'; end $$; drop table if exists nothing;",
    }
    run = migrate("--json", "up", files=files)
    assert run.stderr.splitlines()[:3] == [
        "sql/1_a.sql: NOTICE: one",
        "sql/1_a.sql: INFO: é",
        "sql/1_a.sql: WARNING: two",
    ]
    assert 'sql/2_b.sql: NOTICE: table "nothing" does not exist, skipping' in run.stderr
    found = [(one["version"], one["severity"], one["message"]) for one in run.json["notices"]]
    assert found[:3] == [("1", "NOTICE", "one"), ("1", "INFO", "é"), ("1", "WARNING", "two")]
    assert [one[0] for one in found[3:]] == ["2"]


def test_a_database_ahead_is_a_warning(migrate: Migrate, recorded: Recorded) -> None:
    """Entries newer than the newest file are an older release's: the run warns, and does not fail."""
    migrate("up", files=THREE)
    (migrate.files / "10_third.sql").unlink()
    (migrate.files / "2_second.sql").unlink()
    run = migrate("--json", "up")
    assert (run.exit_code, run.json["ok"]) == (0, True)
    assert [one["version"] for one in run.json["ahead"]] == ["2", "10"]
    assert "warning: the database is ahead: 2_second" in run.stderr
    assert "warning: the database is ahead: 10_third" in run.stderr
    assert recorded() == ["first", "second", "third"]


@pytest.mark.parametrize(
    "text", ["", "\ufeff", "\n \t\r\n", ";", ";;\n;", "-- only this", "/* only\n-- this */", "-- é\r\n"]
)
@each_way
def test_a_file_without_statements_is_applied(migrate: Migrate, recorded: Recorded, text: str) -> None:
    """An empty file is recorded as any other, and never pending again."""
    run = migrate("--json", "up", files={"1_empty.sql": text, "2_next.sql": "select 1"})
    assert run.exit_code == 0
    assert [one["statements"] for one in run.json["applied"]] == [[], ["SELECT 1"]]
    assert recorded() == ["empty", "next"]


@pytest.mark.parametrize(
    "name",
    [
        "two words",
        "it's",
        'say "hi"',
        "100%",
        "%s %(a)s {} {0}",
        "$$ $1 $a$",
        "größe 中 \U0001f600",
        "a\\b",
        "a.sql",
        "-- a",
        "* a ?",
        "; drop table t; --",
        "_",
        "e\u0301",
    ],
)
def test_names_may_hold_anything(migrate: Migrate, rows: Rows, recorded: Recorded, name: str) -> None:
    """A name is recorded as it is, whatever SQL, Python or a shell would make of it; so is an error's path."""
    run = migrate("up", files={f"1_{name}.sql": "create table t ()"})
    assert (run.exit_code, recorded()) == (0, [name])
    assert migrate("--json", "status").json["migrations"][0]["name"] == name
    assert re.search(rf"^1 +{re.escape(name)} +applied ", migrate("status").stdout, re.MULTILINE)
    failed = migrate("--json", "up", files={f"2_{name}.sql": "select nme"})
    assert failed.json["error"]["path"] == f"sql/2_{name}.sql"


@pytest.mark.parametrize("version", ["0", "00000", "1" * 200, "20260101000000"])
def test_versions_may_have_any_number_of_digits(migrate: Migrate, rows: Rows, version: str) -> None:
    """A version is recorded as the file spells it."""
    assert migrate("up", files={f"{version}_a.sql": "select 1"}).exit_code == 0
    assert rows("SELECT version FROM schema_migrations") == [(version,)]
    assert migrate("status", "--check").exit_code == 0


@pytest.mark.parametrize(
    "text", ["%s %(a)s %", "{} {0}", "$1 $$ $a$", "a\\b\\n", "é \u2028 \ufffd \U0001f600", "\x01\x7f", "a;b -- c /*"]
)
@each_way
def test_a_files_text_arrives_as_it_is(migrate: Migrate, rows: Rows, text: str) -> None:
    """Nothing between the file and the server takes a sign for its own."""
    assert migrate("up", files={"1_a.sql": f"create table t as select '{text}' as text"}).exit_code == 0
    assert rows("SELECT text FROM t") == [(text,)]


@each_way
def test_line_ends_are_the_same_from_every_checkout(migrate: Migrate, rows: Rows) -> None:
    """A text with CRLF makes the database that the same text with LF makes."""
    assert migrate("up", files={"1_a.sql": "create table t as select 'a\r\nb' as text;\r\n"}).exit_code == 0
    assert rows("SELECT text FROM t") == [("a\nb",)]


@each_way
def test_a_large_file_is_one_transaction(migrate: Migrate, rows: Rows) -> None:
    """A file of more than 4 MB is applied whole, in one transaction with its entry."""
    lines = "\n".join(f"insert into t values ('{n}{'é;' * 250_000}');" for n in range(10))
    assert migrate("up", files={"1_a.sql": f"create table t (text text);\n{lines}"}).exit_code == 0
    assert rows("SELECT count(*), sum(length(text)), count(DISTINCT xmin::text) FROM t") == [(10, 5_000_010, 1)]
    assert rows("SELECT xmin::text FROM schema_migrations") == rows("SELECT DISTINCT xmin::text FROM t")


@pytest.mark.parametrize(
    ("table", "schema", "name"),
    [
        ("hist", "public", "hist"),
        ("ops.hist", "ops", "hist"),
        ("Ops.Hist", "Ops", "Hist"),
        ('"My Schema".hist', "My Schema", "hist"),
        ('"My Schema"."A ""b"" c.d"', "My Schema", 'A "b" c.d'),
        ("größe.é%s", "größe", "é%s"),
    ],
)
def test_the_history_may_have_any_name(migrate: Migrate, connect: Connect, table: str, schema: str, name: str) -> None:
    """--table is made where it is absent, with its schema, as it is spelled; and found there by the next run."""
    if schema != "public":  # a table of that name elsewhere is nobody's business
        connect().execute(sql.SQL("CREATE TABLE public.{} (version text)").format(sql.Identifier(name)))
    first = migrate("--table", table, "--json", "up", files=THREE)
    assert (first.exit_code, applied(first.json)) == (0, ["1", "2", "10"])
    assert migrate("--table", table, "up").stdout == "Nothing is pending: 3 migrations are applied.\n"
    assert migrate("--table", table, "status", "--check").exit_code == 0
    found = connect().execute(sql.SQL("SELECT name FROM {}").format(sql.Identifier(schema, name)))
    assert found.fetchall() == [("first",), ("second",), ("third",)]


def test_the_history_goes_into_a_schema_that_is_there(migrate: Migrate, rows: Rows) -> None:
    """A schema that exists is used as it is, together with what is in it."""
    rows('CREATE SCHEMA "Ops"')
    rows('CREATE TABLE "Ops".other ()')
    assert migrate("--table", "Ops.hist", "up", files=THREE).exit_code == 0
    assert rows("SELECT tablename::text FROM pg_tables WHERE schemaname = 'Ops' ORDER BY 1") == [("hist",), ("other",)]


@pytest.mark.parametrize("table", ["", ".", "a.b.c", "a.", '"a', 'a"b', '""', "a..b"])
def test_what_is_no_name_is_refused(migrate: Migrate, rows: Rows, table: str) -> None:
    """--table that cannot be read is an error, and nothing is made."""
    run = migrate("--table", table, "up", files=THREE)
    assert run.exit_code in (1, 2)
    assert "table" in run.stderr
    assert rows(TABLES) == []


STRANGERS: dict[str, tuple[LiteralString, LiteralString]] = {
    "Rails": ("CREATE TABLE schema_migrations (version varchar PRIMARY KEY)", "VALUES ('20250101000000')"),
    "dbmate": ("CREATE TABLE schema_migrations (version varchar(128) PRIMARY KEY)", "VALUES ('1')"),
    "Ecto": (
        "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, inserted_at timestamp(0))",
        "VALUES (1, now())",
    ),
    "golang-migrate": (
        "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL)",
        "VALUES (1, false)",
    ),
    "another tool": ("CREATE TABLE schema_migrations (id int, version text, name text, checksum text)", "VALUES (1)"),
}


@pytest.mark.parametrize("tool", STRANGERS)
def test_a_strangers_table_is_never_touched(migrate: Migrate, rows: Rows, tool: str) -> None:
    """A table of our name with other columns is an error that says whose it looks like; its hint leads on."""
    create, values = STRANGERS[tool]
    rows(create)
    rows("INSERT INTO schema_migrations " + values)
    before = rows("SELECT xmin::text, ctid::text, s::text FROM schema_migrations s")
    for command in (["up"], ["up", "--dry-run"], ["status"], ["status", "--check"]):
        run = migrate("--json", *command, files=THREE)
        assert run.exit_code == 1
        assert run.json["error"]["kind"] == "HistoryError"
        assert tool in run.stderr
    assert rows(TABLES) == [("schema_migrations",)]
    hint = re.search(r"--table (\S+)", run.stderr)
    assert hint
    assert migrate("--table", hint[1], "up").exit_code == 0
    assert rows("SELECT xmin::text, ctid::text, s::text FROM schema_migrations s") == before


@pytest.mark.parametrize(
    "change",
    [
        "truncate schema_migrations",
        "delete from schema_migrations",
        "delete from schema_migrations where position = 2",
        "delete from schema_migrations where position = 1",
        "drop table schema_migrations",
        "drop schema public cascade; create schema public",
        "alter table schema_migrations rename column position to place",
        "alter table schema_migrations rename to gone",
        "create schema other; alter table schema_migrations set schema other",
        "alter table schema_migrations drop column finished_at",
        "update schema_migrations set position = position + 10",
        "select set_config('transaction_read_only', 'on', true)",
    ],
)
@each_way
def test_a_file_cannot_undo_its_own_record(migrate: Migrate, recorded: Recorded, change: str) -> None:
    """A file after which its entry could not be found again fails, and leaves the history as it was."""
    run = migrate("--json", "up", files={"1_a.sql": "create table t ()", "2_b.sql": change, "3_c.sql": "select 1"})
    assert run.exit_code == 1
    assert (run.json["error"]["version"], run.json["error"]["path"]) == ("2", "sql/2_b.sql")
    assert recorded() == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        "lock table schema_migrations in access exclusive mode",
        "alter table schema_migrations add column note text",
        "alter table schema_migrations add column note text not null default 'none'",
        "create index on schema_migrations (name)",
        "comment on table schema_migrations is 'ours'",
        "analyze schema_migrations",
        "alter table schema_migrations alter column name type varchar(100)",
    ],
)
@each_way
def test_a_file_may_do_what_leaves_its_record_intact(migrate: Migrate, recorded: Recorded, change: str) -> None:
    """The history is a table like any other: a file may lock it, index it, and add columns to it."""
    files = {"1_a.sql": "select 1", "2_b.sql": change, "3_c.sql": "select 1"}
    assert migrate("up", files=files).exit_code == 0
    assert migrate("up", files={"4_d.sql": "select 1"}).exit_code == 0
    assert recorded() == ["a", "b", "c", "d"]
    assert migrate("status", "--check").exit_code == 0


LEFT_BEHIND = {
    "lock_timeout": ("set lock_timeout = '1ms'", "current_setting('lock_timeout')"),
    "statement_timeout": ("set statement_timeout = '20s'", "current_setting('statement_timeout')"),
    "search_path": ("set search_path = ''", "current_setting('search_path')"),
    "set_config": ("select pg_catalog.set_config('search_path', '', false)", "current_setting('search_path')"),
    "role": ("set role pg_monitor; set role none; set role {role}", "current_user::text"),
    "session authorization": ("set session authorization {role}", "session_user::text"),
    "client_encoding": ("set client_encoding = latin1", "current_setting('client_encoding') || 'é'"),
    "strings": ("set standard_conforming_strings = off", "current_setting('standard_conforming_strings')"),
    "read only": ("set default_transaction_read_only = on", "current_setting('default_transaction_read_only')"),
    "isolation": (
        "set default_transaction_isolation = 'serializable'",
        "current_setting('default_transaction_isolation')",
    ),
    "triggers": ("set session_replication_role = replica", "current_setting('session_replication_role')"),
    "messages": ("set client_min_messages = error", "current_setting('client_min_messages')"),
    "time zone": ("set time zone 'Asia/Tokyo'", "current_setting('timezone')"),
    "a setting of its own": ("set my.own = 'x'", "coalesce(current_setting('my.own', true), '')"),
    "temporary table": ("create temp table left_behind ()", "coalesce(to_regclass('left_behind')::text, '')"),
    "prepared statement": ("prepare p as select 1", "(select count(*) from pg_prepared_statements)"),
    "cursor": ("declare c cursor with hold for select 1", "(select count(*) from pg_cursors)"),
    "channel": ("listen c", "(select count(*) from pg_listening_channels())"),
    "advisory lock": (
        "select pg_advisory_lock(1), pg_advisory_lock_shared(2)",
        "(select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())",
    ),
}


@pytest.mark.parametrize("what", LEFT_BEHIND)
@each_way
def test_a_file_finds_a_clean_session(migrate: Migrate, rows: Rows, role: tuple[str, str], what: str) -> None:
    """What a file sets, opens or takes for its session is gone when the next one starts, in the same run."""
    change, probe = LEFT_BEHIND[what]
    rows("GRANT CREATE ON SCHEMA public TO public")
    files = {
        "1_before.sql": f"create table public.before as select {probe} as found",
        "2_during.sql": f"{change.format(role=role[0])};\ncreate table public.during as select {probe} as found",
        "3_after.sql": f"create table public.after as select {probe} as found",
    }
    run = migrate("up", files=files)
    assert (run.exit_code, run.stderr) == (0, "")
    before = rows("SELECT found FROM public.before")
    assert rows("SELECT found FROM public.after") == before
    # a channel is heard only from COMMIT on; the encoding is put back before é where statements go one by one
    if what not in ("channel", "client_encoding"):
        assert rows("SELECT found FROM public.during") != before


@each_way
def test_a_files_last_settings_do_not_reach_its_entry(
    migrate: Migrate, recorded: Recorded, role: tuple[str, str]
) -> None:
    """An entry is finished as the role and within the limits that it was begun with."""
    slow = """
        create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.4); return new; end $$;
        create trigger slow before update on schema_migrations for each row execute function public.slow();
    """
    text = f"set statement_timeout = '200ms'; set search_path = ''; set role {role[0]}"
    run = migrate("up", files={"1_a.sql": slow, "2_b.sql": text, "3_c.sql": "drop trigger slow on schema_migrations"})
    assert (run.exit_code, run.stderr) == (0, "")
    assert recorded() == ["a", "b", "c"]


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_stream_is_no_trouble(closed: str, migrate: Migrate, recorded: Recorded) -> None:
    """A run does its work also where nobody could read what it says."""
    migrate.write({"1_a.sql": "select 1"})
    command = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", sys.executable, "-m", "outreach_migrate", "up"]
    env = {**os.environ, "DATABASE_URL": migrate.url}
    assert subprocess.run(command, cwd=migrate.folder, env=env, timeout=20).returncode == 0
    assert recorded() == ["a"]


@each_way
def test_copy_to_stdout_is_thrown_away(migrate: Migrate, rows: Rows) -> None:
    """A file may copy to its client, which has no use for the data; what follows is run."""
    text = "copy (select n, 'copied' from generate_series(1, 100000) n) to stdout;\ncreate table t ();"
    run = migrate("-v", "up", files={"1_a.sql": text, "2_b.sql": "copy (select 'copied') to stdout"})
    assert run.exit_code == 0
    assert "copied" not in run.stdout + run.stderr
    assert rows("SELECT to_regclass('t')::text") == [("t",)]


@each_way
def test_a_notification_is_sent_at_commit(migrate: Migrate, connect: Connect) -> None:
    """NOTIFY in a file reaches those who listen, and LISTEN in a file does no harm."""
    listener = connect()
    listener.execute("LISTEN news")
    assert (
        migrate(
            "up", files={"1_a.sql": "listen news; notify news, 'first'", "2_b.sql": "notify news, 'second'"}
        ).exit_code
        == 0
    )
    heard = [notification.payload for notification in listener.notifies(timeout=5, stop_after=2)]
    assert heard == ["first", "second"]


@each_way
def test_a_new_enum_value_is_there_for_the_next_file(migrate: Migrate, rows: Rows) -> None:
    """ALTER TYPE ADD VALUE works, since each file commits before the next one starts."""
    files = {
        "1_a.sql": "create type mood as enum ('sad'); create table t (m mood)",
        "2_b.sql": "alter type mood add value 'glad'",
        "3_c.sql": "insert into t values ('glad')",
    }
    assert migrate("up", files=files).exit_code == 0
    assert rows("SELECT m::text FROM t") == [("glad",)]


@each_way
def test_a_lock_timeout_can_be_set_for_one_file(migrate: Migrate, rows: Rows) -> None:
    """The directive holds for its file alone, whatever comments stand around it."""
    look = "create table {} as select current_setting('lock_timeout') as t"
    files = {
        "1_a.sql": look.format("a"),
        "2_b.sql": f"-- first\n/* second */\n  --migrate: lock-timeout 90s \r\n-- third\n{look.format('b')}",
        "3_c.sql": look.format("c"),
    }
    assert migrate("up", "--lock-timeout", "1500ms", files=files).exit_code == 0
    assert rows("SELECT a.t, b.t, c.t FROM a, b, c") == [("1500ms", "90s", "1500ms")]


class TestHistoryChangedByHand:
    @pytest.mark.parametrize("version", ["first", "", "1.5", "-1", "\u0661", "1 "])
    def test_a_version_that_no_file_can_have(self, migrate: Migrate, rows: Rows, version: str) -> None:
        """An entry whose version is no number is an error that names it."""
        migrate("up", files=THREE)
        rows("UPDATE schema_migrations SET version = %s WHERE position = 2", version)
        for command in ("up", "status"):
            run = migrate(command)
            assert run.exit_code == 1
            assert f"the entry at position 2 has version {version!r}" in run.stderr

    def test_a_version_spelled_otherwise_is_the_same(self, migrate: Migrate, rows: Rows) -> None:
        """0002 in the history is the file's 2."""
        migrate("up", files=THREE)
        rows("UPDATE schema_migrations SET version = '0002' WHERE position = 2")
        assert migrate("status", "--check").exit_code == 0

    def test_positions_go_on_after_a_gap(self, migrate: Migrate, rows: Rows) -> None:
        """After an entry was moved, the next file takes the place after the newest."""
        migrate("up", files=THREE)
        rows("UPDATE schema_migrations SET position = 7 WHERE position = 3")
        assert migrate("up", files={"11_a.sql": "select 1", "12_b.sql": "select 1"}).exit_code == 0
        assert rows("SELECT position FROM schema_migrations ORDER BY 1") == [(1,), (2,), (7,), (8,), (9,)]

    def test_a_newest_entry_that_was_deleted_is_pending(self, migrate: Migrate, rows: Rows) -> None:
        """The table is the truth: who takes the last entry out has the file run again."""
        migrate("up", files={"1_a.sql": "select 1", "2_b.sql": "create table if not exists t ()"})
        rows("DELETE FROM schema_migrations WHERE position = 2")
        assert applied(migrate("--json", "up").json) == ["2"]


def in_a_terminal(migrate: Migrate, *arguments: str, **environment: str) -> str:
    """Run the command line as a process whose output is a terminal, and give what it wrote there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "outreach_migrate", *arguments]
    env = {**os.environ, "DATABASE_URL": migrate.url, "TERM": "xterm", **environment}
    with subprocess.Popen(command, cwd=migrate.folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        with suppress(OSError):  # EIO: nobody has it open any more
            while True:
                written += os.read(ours, 10_000)
        os.close(ours)
    assert process.returncode == 0
    return written.decode()


def test_a_terminal_shows_the_running_file(migrate: Migrate) -> None:
    """A terminal is shown the file that runs and for how long, on a line that is taken back."""
    migrate.write({"1_slow.sql": "select pg_sleep(0.4)"})
    written = in_a_terminal(migrate, "up")
    assert re.search(r"\r\x1b\[2K1  slow  [1-9]\d\d ms …", written)
    assert "\x1b[32mapplied" in written
    assert written.rindex("…") < written.rindex("\x1b[2K") < written.index("applied in")


def test_no_color_is_honoured(migrate: Migrate) -> None:
    """NO_COLOR leaves a terminal without colours."""
    migrate.write(THREE)
    assert "\x1b[3" not in in_a_terminal(migrate, "up", NO_COLOR="1")


def test_a_dumb_terminal_gets_plain_lines(migrate: Migrate) -> None:
    """TERM=dumb knows neither colours nor how to take back a line."""
    migrate.write({"1_slow.sql": "select pg_sleep(0.2)"})
    assert "\x1b" not in in_a_terminal(migrate, "up", TERM="dumb")


def test_a_process_and_a_call_say_the_same(migrate: Migrate) -> None:
    """`python -m outreach_migrate` does the same: no colours and no live line where there is no terminal."""
    migrate.write(THREE)
    run = migrate.process("up")
    assert (run.exit_code, run.stderr, "\x1b" in run.stdout) == (0, "", False)
    assert run.stdout.startswith("1  first  applied in ")
