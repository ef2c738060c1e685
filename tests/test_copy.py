"""COPY … FROM stdin with its rows in the file."""

from __future__ import annotations

import signal
import subprocess
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import fix_servers
import psycopg
import pytest
from fix_cli import TABLES, Migrate, Rows
from fix_servers import Connect, each_way, find

from outreach_migrate import errors
from outreach_migrate.files import copies, migrations, statements
from outreach_migrate.run import engine, events, request
from outreach_migrate.run.stop import Stop

TABLE = "create table TBL (n int, s text);\n"
TEXTS = [  # the last ends without a newline, which psql 18 refuses
    "copy TBL from stdin;\n1\tcommit;\n2\t\\\\restrict x\n3\tcopy t from stdin;\n4\t'\"$$/*\n\\.\n"
    "insert into TBL values (5);",
    "copy TBL from stdin;\n\\.\ncopy TBL from stdin;\n1\ta\n\\.\n",
    "copy TBL (s) from stdin;\n\n\\N\n\\.\n",
    "copy TBL from stdin; copy TBL (n) from stdin; insert into TBL values (3);\n1\ta\n\\.\n2\n\\.\n",
    "copy TBL from stdin; insert into TBL\n1\t\\\\.a\n\\.\nvalues (2, 'b');",
    'copy TBL from stdin (format csv, header);\nn,s\n1,"a\n\n;b"\n2,\\.c\n\\.\ninsert into TBL values (3);',
    "copy TBL (s, n) FROM STDIN csv null 'x' delimiter ';';\na;1\nx;2\n\\.\n",
    "/* copy TBL from stdin; */ insert into TBL values (1, $$\ncopy t from stdin;\n\\.\n$$);\n-- from stdin;\n",
    "copy TBL from stdin;\r\n1\ta\r\n2\t\r\n\\.\r\ninsert into TBL values (3, 'b');\r\n",
    "copy/* from */TBL\nfrom -- x;\nstdout;-- 'y\n1\té\n\\.\n",
    "select pg_catalog.set_config('search_path', '', false); copy public.TBL from stdin where n > 1;\n1\ta\n2\tb\n\\.\n"
    "set search_path = public;",
    "copy TBL from stdin;\n1\t\\N\n\\.",
]
FILE = "".join(f"{TABLE}{text}".replace("TBL", f"t{number}") for number, text in enumerate(TEXTS))


@each_way
def test_rows_are_copied_as_by_psql(migrate: Migrate, server_url: str, connect: Connect) -> None:
    """A file leaves the rows that it leaves in psql, and nothing in the rows is taken for SQL."""

    def tables(connection: psycopg.Connection) -> list[object]:
        return [connection.execute(f"TABLE t{n}".encode()).fetchall() for n in range(len(TEXTS))]

    with fix_servers.fresh_database(server_url) as url:
        command = [str(find("psql")), "-qXAt", "-v", "ON_ERROR_STOP=1", "-1f", "-", "-d", url]
        done = subprocess.run(command, input=f"{FILE}\n".encode(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        with psycopg.connect(url) as other:
            expected = tables(other)
    assert all(expected)
    assert migrate("check", files=[FILE]).exit_code == 0
    rehearsed = migrate("rehearse")
    assert rehearsed.exit_code == 0, rehearsed
    applied = migrate("up")
    assert applied.exit_code == 0, applied
    assert tables(connect()) == expected


def test_a_dry_run_prints_the_rows(migrate: Migrate) -> None:
    """`up --dry-run` prints the file, so that psql can run it; in the document the rows are left out."""
    assert migrate("up", "--dry-run", files=[FILE]).stdout == f"-- sql/1_a.sql\n{FILE}\n".replace("\r\n", "\n")
    [pending] = migrate("--json", "up", "--dry-run").json["pending"]
    assert pending["sql"].startswith(
        "create table t0 (n int, s text);\ncopy t0 from stdin;\ninsert into t0 values (5);"
    )


@pytest.mark.parametrize(
    ("text", "place", "excerpt"),
    [
        ("copy t from stdin;\n1\ta\nx\tb\n\\.\n", (4, 1), "3 | 1\ta\n4 | x\tb\n  | ^\n"),
        ("copy t (s, n)\n from stdin;\nä\tx\n2\t3\n\\.\n", (4, 3), "3 |  from stdin;\n4 | ä\tx\n  |  \t^\n"),
        ('copy t from stdin csv;\n0,\n1,"\n\n"\n2,b\n3\n\\.\n', (8, 1), "7 | 2,b\n8 | 3\n  | ^\n"),
        ("copy t from stdin;\n1\ta\n\\.\ncopy t from stdin;\n1\tb\n2\n\\.\n", (7, 1), "6 | 1\tb\n7 | 2\n  | ^\n"),
        ("copy t from stdin;\n1\ta\n2\tb\n\\.\n\nselect 1/0;", (7, 1), "6 | \n7 | select 1/0;\n  | ^\n"),
        ("copy t from stdin;\n1\ta\n\\.\nselect 1;\nselect no;", (6, 8), "5 | select 1;\n6 | select no;\n"),
        ("copy t from stdin;\n1\ta\n\\.\nsyntax;", (5, 1), "4 | \\.\n5 | syntax;\n  | ^\n"),
        ('copy "line 9, t" from stdin;\n1\n\\N\n\\.\n', (4, 1), "3 | 1\n4 | \\N\n  | ^\n"),
        ("copy no from stdin;\n1\ta\n\\.\n", (2, 1), "2 | copy no from stdin;\n"),
        ("copy t from stdin;\n1\ta\n1\tb\n\\.\nalter table t add unique (n);", (6, 1), "6 | alter table t"),
    ],
    ids=["row", "value", "csv", "second copy", "later", "position", "syntax", "name", "copy", "after"],
)
def test_an_error_is_reported_at_its_line_in_the_file(
    migrate: Migrate, text: str, place: tuple[int, int], excerpt: str, rows: Rows
) -> None:
    """`line n` of a COPY is a line of the file, in a run and in a rehearsal; nothing of the file stays."""
    migrate.write([f'create table t (n int, s text); create table "line 9, t" (n int not null);\n{text}'])
    for command in ("rehearse", "up"):
        run = migrate("--json", command)
        error = run.json["error"]
        assert (run.exit_code, error["path"], error["line"], error["column"]) == (1, "sql/1_a.sql", *place), error
        assert excerpt in run.stderr
    assert rows(TABLES) == []


# the rows, the line of the file that the error is in, and the one that psql's number gives
LINES = [
    ("copy t from stdin;\n1\ta\\\nb\\\nc\n2\tq\\\\\nx\tb\n\\.\n", 7, 5),
    ("copy t from stdin;\r\n1\ta\r\n2\tc\r\nx\td\r\n\\.\r\n", 5, 5),
    ('copy t from stdin csv;\n1,"a\n\nb"\n2,c\nx,d\n\\.\n', 7, 5),
    ('copy t from stdin csv;\n1,"a\rb\n\nc"\n2,c\nx,d\n\\.\n', 7, 6),
    ('copy t from stdin csv;\r\n1,"a\r\n\r\nb"\r\n2,c\r\nx,d\r\n\\.\r\n', 7, 7),
    ('copy t from stdin csv;\n1,a\n2,"b\n""c"\nx,"d\ne"\n\\.\n', 7, 7),
    ('copy t from stdin (format csv, header);\n"n",s\n1,"a\nb"\nx,d\n\\.\n', 6, 6),
    ('copy t from stdin (format csv, header true);\n"n","s\nt"\n1,"a\nb"\nx,d\n\\.\n', 7, 6),
    ("copy t from stdin (format 'csv', quote '''', escape '\\');\n1,'a\n\\'b\n'\n2,c\nx,d\n\\.\n", 7, 5),
    ("copy t from stdin with csv quote as '|' escape as E'\\\\';\n1,|a\n\\|b\n|\n2,c\nx,d\n\\.\n", 7, 5),
    ('copy t from stdin csv;\n1,"a\nb"\n2,"c\nd"\n2,d\n\\.\n', 7, 6),
    ("copy t from stdin where s <> 'csv';\n1\t\"a\n2\tb\"\nx\tb\n\\.\n", 5, 5),
]


def test_rows_that_the_server_counts_otherwise_are_placed_at_their_lines(migrate: Migrate, server_url: str) -> None:
    """It leaves out line ends in values of text format, and those in the first record of CSV; psql shows its number."""
    table = "create table t (n int unique, s text);\n"
    with fix_servers.fresh_database(server_url) as url:
        command = [str(find("psql")), "-qXAt", "-v", "ON_ERROR_STOP=1", "-1f", "-", "-d", url]
        for text, line, told in LINES:
            done = subprocess.run(command, input=f"{table}{text}".encode(), capture_output=True, check=False)
            assert f"COPY t, line {told - 2}".encode() in done.stderr, text
            run = migrate("--json", "up", files=[f"{table}{text}"])
            assert (run.exit_code, run.json["error"]["line"]) == (1, line), text


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("select 1;\ncopy t from stdin;\n1\tcommit;\n", 2, "the rows of COPY … FROM STDIN do not end"),
        ("copy t from stdin;", 1, "the rows of COPY … FROM STDIN do not end"),
        ("copy t from stdin", 1, "the rows of COPY … FROM STDIN do not end"),
        ("copy t from stdin;\n\\.\n\\.\n", 3, "\\. cannot be used in a migration"),
        ("copy t from stdin (format binary);\n\\.\n", 1, "COPY … FROM STDIN in binary cannot be used in a migration"),
        (
            "-- migrate: no-transaction\ncopy t from stdin;\n1\n\\.\n",
            2,
            "COPY … FROM STDIN cannot be used in a file without a transaction",
        ),
        ("copy t from stdin; select '\n1\n\\.\ncopy t from stdin;\n1\n\\.\n'", 4, "rows that no statement copies"),
        ("copy t from stdin;\n1\n2\n\\.\n\\connect other\n", 5, "\\connect cannot be used in a migration"),
        (
            "copy t from stdin;\n1\n\\.\n\nbegin;\nselect 1;\ncommit;\nselect 1;",
            5,
            "BEGIN, with COMMIT on line 7, cannot be used in a migration",
        ),
    ],
)
def test_a_copy_that_can_not_run_is_refused(migrate: Migrate, rows: Rows, text: str, line: int, message: str) -> None:
    """`check` finds it without a database, and `up` before anything runs, at its line in the file."""
    for command in ("check", "up"):
        run = migrate("--json", command, files={"1_good.sql": "create table t (n int)", "2_bad.sql": text})
        found = run.json["findings"] if command == "check" else run.json["error"]["problems"]
        assert [(one["path"], one["line"], one["message"]) for one in found] == [("sql/2_bad.sql", line, message)]
    assert rows(TABLES) == []


def test_a_byte_in_the_rows_that_is_not_utf_8_is_placed(migrate: Migrate) -> None:
    """The whole file is UTF-8, with the rows: the error has a wrong byte's place, far in the file or at its end."""
    many = b"copy t from stdin;\n" + "1\té\n".encode() * 400_000
    for number, text in enumerate((many + b"\xff\n\\.\n", many + b"\\.\nselect '\xc3"), 1):
        run = migrate("check", files={f"{number}_a.sql": text})
        line = "400002" if number == 1 else "400003"
        assert f"sql/{number}_a.sql:{line}: error: not UTF-8: byte 0x" in run.stdout
        assert f"at offset {text.index(bytes([0xFF if number == 1 else 0xC3]), len(many))}\n" in run.stdout


@pytest.mark.parametrize("change", ["1\tb\n", "", None], ids=["edited", "shortened", "removed"])
def test_a_file_that_changes_before_its_rows_are_read_again_is_not_applied(
    migrate: Migrate, rows: Rows, change: str | None
) -> None:
    """The rows that are sent are those of the recorded checksum, or nothing of the file stays."""
    path = migrate.files / "1_a.sql"
    migrate.write(["create table t (n int, s text);\ncopy t from stdin;\n1\ta\n\\.\n"])
    asked = request.of(migrate.url, migrations.read("sql"))

    def tell(event: events.Event) -> None:
        if isinstance(event, events.Started) and change is None:
            path.unlink()
        elif isinstance(event, events.Started):
            path.write_text(path.read_text(encoding="utf-8").replace("1\ta\n", change or ""), encoding="utf-8")

    with pytest.raises(errors.MigrateError, match=r"sql/1_a.sql (was changed while|cannot be read)") as error:
        engine.run(asked, tell, Stop())
    assert error.value.outcome
    assert error.value.outcome.file is errors.Fate.NOTHING
    assert rows(TABLES) == []


def test_rows_take_no_memory(tmp_path: Path) -> None:
    """Of ten megabytes of rows a few are in memory at a time, while they are read and while they are sent."""
    path = tmp_path / "1_a.sql"
    text = "copy t from stdin;\n" + "1\tsome text\n" * 900_000 + "\\.\nselect 1;"
    path.write_text(text, encoding="utf-8")
    tracemalloc.start()
    try:
        ((migration,), problems) = migrations.read(tmp_path)
        [rows] = migration.rows.values()
        assert sum(map(len, rows.chunks())) == 12 * 900_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (problems, migration.sql, migration.location(19).line) == ([], "copy t from stdin;\nselect 1;", 900_003)
    assert peak < 6_000_000
    path.write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig")
    assert migrations.read(tmp_path)[0][0].checksum == migration.checksum


def test_rows_in_a_package_are_copied(
    migrate: Migrate, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package may be an archive, which is no file to seek in."""
    with zipfile.ZipFile(tmp_path / "app.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("copied_app/__init__.py", "")
        archive.writestr("copied_app/sql/1_a.sql", FILE)
    monkeypatch.syspath_prepend(str(tmp_path / "app.zip"))
    assert migrate("--dir", "copied_app:sql", "up").exit_code == 0
    assert rows("SELECT s FROM t11") == [(None,)]


def test_rows_are_copied_through_a_pooler(migrate: Migrate, rows: Rows, pgbouncer: Callable[..., str]) -> None:
    """All messages of the file are one transaction, so a pooler keeps its server connection."""
    assert migrate("up", files=[FILE], url=pgbouncer()).exit_code == 0
    assert rows("SELECT s FROM t11") == [(None,)]


TRIGGER = """create table t (n int);
    create function slow() returns trigger language plpgsql as 'begin perform %s; return new; end';
    create trigger slow before insert on t for each row execute function slow();"""


def flowing(at_each_row: str) -> str:
    """Write a file with rows for many seconds, or until the server has had enough."""
    return TRIGGER % at_each_row + "\ncopy t from stdin;\n" + "1\n" * 3_000_000 + "\\.\n"


def test_a_server_that_ends_the_session_while_rows_flow_is_quoted(migrate: Migrate, rows: Rows) -> None:
    """The error has the server's reason, though rows were under way to it."""
    ended = migrate("up", files=[flowing("pg_terminate_backend(pg_backend_pid())")])
    assert ended.exit_code == 1
    assert "terminating connection due to administrator command" in ended.stderr
    assert "Nothing of this file was applied." in ended.stderr
    assert rows(TABLES) == []


def test_a_signal_ends_a_run_that_sends_rows(migrate: Migrate, rows: Rows) -> None:
    """Rows that still flow don't keep the run from ending, and nothing of them stays."""
    migrate.write([flowing("pg_sleep(0.001)")])
    run = migrate.start("up")
    run.says("copy from: ")
    run.process.send_signal(signal.SIGINT)
    began = time.monotonic()
    ended = run.end()
    assert ended.exit_code == 130, ended
    assert time.monotonic() - began < 2
    assert " rows\n" in ended.stderr
    assert "Nothing of this file was applied." in ended.stderr
    assert rows(TABLES) == []


def test_the_context_of_another_table_is_no_place() -> None:
    """Citus' workers tell the line of what they were sent, with a shard's name; the table's is told in any language."""
    sql = 'copy app.ref from stdin; copy "line 9" from stdin;'
    named, quoted = (copies.of(sql, one) for one in statements.split(sql))
    assert named
    assert quoted
    assert named.told("COPY ref_102072, line 2") is None
    assert named.told("SQL statement\nCOPY ref, Zeile 3, Spalte id: »x«") == (3, "id")
    assert named.told("COPY refの2行") == (2, None)
    assert quoted.told("COPY line 9, line 4") == (4, None)
