"""`up`: the files that it applies, their order, the entries, and the output."""

from __future__ import annotations

import hashlib
import re
import socket

import pytest
from fix_cli import TABLES, THREE, Migrate, Recorded, Rows
from fix_servers import Connect, each_way, set_for_all
from psycopg import sql

from outreach_migrate import durations


@each_way
def test_files_are_applied_in_the_order_of_their_numbers(migrate: Migrate, rows: Rows, recorded: Recorded) -> None:
    """Version 2 comes before 10, however the names sort; each file is run once."""
    assert migrate("up", files=THREE).exit_code == 0
    assert recorded() == ["first", "second", "third"]
    assert rows("SELECT n FROM t") == [(0,), (0,)]


@each_way
def test_an_entry_has_the_file_the_times_and_the_role(migrate: Migrate, rows: Rows) -> None:
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


def test_the_sum_is_at_least_the_files_times(migrate: Migrate) -> None:
    """The last line's time is the run's, so it is no shorter than that of the files together."""
    run = migrate("up", files={"1_a.sql": "SELECT pg_sleep(0.03)", "2_b.sql": "SELECT pg_sleep(0.03)"})
    took = re.search(r"2 migrations applied in ([\d.]+ m?s)\.", run.stdout)
    assert took
    assert (durations.seconds(took[1]) or 0) >= 0.06


@each_way
def test_verbose_prints_each_statements_tag(migrate: Migrate) -> None:
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
    """--json gives one document on stdout, and the text for people on stderr."""
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
        "later": [],
        "batches": [],
        "code": [],
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
    """The hint helps: options in the URL beat the database's default."""
    set_for_all(connect, "default_transaction_read_only = on")
    url = migrate.url + ("&" if "?" in migrate.url else "?") + "options=-c%20default_transaction_read_only%3Doff"
    assert migrate("up", files=THREE, url=url).exit_code == 0
    assert recorded() == ["first", "second", "third"]


class TestTo:
    def test_it_stops_after_the_version(self, migrate: Migrate, recorded: Recorded) -> None:
        """--to applies the pending files up to and with its version; the rest stays pending."""
        run = migrate("--json", "up", "--to", "2", files=THREE)
        assert (run.exit_code, run.applied) == (0, ["1", "2"])
        assert recorded() == ["first", "second"]
        assert migrate("--json", "up").applied == ["10"]

    def test_versions_are_numbers(self, migrate: Migrate) -> None:
        """--to 0002 is the file whose version is 2."""
        assert migrate("--json", "up", "--to", "0002", files=THREE).applied == ["1", "2"]

    @pytest.mark.parametrize("version", ["1", "10"])
    def test_what_is_applied_stays(self, migrate: Migrate, recorded: Recorded, version: str) -> None:
        """--to a version that is applied already does nothing, and takes nothing back."""
        migrate("up", files=THREE)
        assert migrate("up", "--to", version).exit_code == 0
        assert recorded() == ["first", "second", "third"]

    def test_the_later_files_are_counted(self, migrate: Migrate) -> None:
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
        """--to takes digits; anything else is wrong usage."""
        assert migrate("up", "--to", "first", files=THREE).exit_code == 2


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


@each_way
def test_copy_to_stdout_is_thrown_away(migrate: Migrate, rows: Rows) -> None:
    """A file may copy to its client, which has no use for the data; the statements after it run."""
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
