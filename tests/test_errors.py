"""A file that fails: its place and reason, in words and as JSON, and the state that it leaves."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import fix_servers
import psycopg
import pytest
from fix_cli import Migrate, Rows
from psycopg import sql

pytestmark = fix_servers.each_way

PATH = "sql/1_failing.sql"
TABLE = "create table t (id int primary key);\n"
RULE = "create table t (id int); create rule r as on insert to t do {};\n"
BODY = "create function f() returns int language plpgsql as $$\nbegin\n  {}\nend $$;\n"
LARGE = f"select length('{'é' * 1_000_000}');\n" * 5


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        pytest.param("select nme", 1, 8, id="the first line"),
        pytest.param("select 1;\n\nselect nme", 3, 8, id="the last line without newline"),
        pytest.param("select nme;\nselect 'many', 'more';\n" * 3, 1, 8, id="the first of several"),
        pytest.param("select 'é', 'ſ', '中', nme", 1, 23, id="after é"),
        pytest.param("select '\U0001f600\U00010348', nme", 1, 14, id="after astral characters"),
        pytest.param("select 'e\u0301\u200b', nme", 1, 15, id="after combining characters"),
        pytest.param("-- é\n/* é\n */ select\n  'é',\n  nme", 5, 3, id="after comments"),
        pytest.param("select 1;\r\nselect 'é',\r\n   nme;\r\n", 3, 4, id="CRLF"),
        pytest.param("select 1,\r\n 2;\nselect 'é',\r\n   nme;\r\n", 4, 4, id="CRLF and LF"),
        pytest.param("\ufeffselect nme", 1, 8, id="BOM"),
        pytest.param("\ufeffselect 1;\r\nselect nme", 2, 8, id="BOM and CRLF"),
        pytest.param("select 1; select 2; select nme; select 3", 1, 28, id="one line"),
        pytest.param("\tselect\t1,\n\t\tnme", 2, 3, id="tabs"),
        pytest.param("select " + "1, " * 5000 + "nme", 1, 15008, id="a very long line"),
        pytest.param("begin;\nselect nme;\ncommit;", 2, 8, id="in a BEGIN and COMMIT of its own"),
        pytest.param("set client_encoding = latin1;\nselect 'é', nme", 2, 13, id="after another encoding was set"),
        pytest.param("select 1;\ninsert into nowhere values (1)", 2, 13, id="a table that is not there"),
        pytest.param("select 1;\nselekt 2;\nselect 3", 2, 1, id="no SQL"),
        pytest.param("select 1;\nselect 2 from;\nselect 3", 2, 14, id="a statement that ends too early"),
        pytest.param(TABLE + BODY.format("retrun 1;"), 4, 3, id="in a function's body"),
        pytest.param(LARGE + "select 'é', nme", 6, 13, id="a large file"),
    ],
)
def test_a_failure_is_placed_where_postgresql_points(migrate: Migrate, text: str, line: int, column: int) -> None:
    """Line and column count from 1, in characters of the file as an editor shows it."""
    run = migrate("--json", "up", files={"1_failing.sql": text})
    assert run.exit_code == 1
    error = run.json["error"]
    assert (error["path"], error["line"], error["column"]) == (PATH, line, column)
    assert f"{PATH}:{line}:{column}: error: {error['message']}" in run.stderr.splitlines()


@pytest.mark.parametrize(
    ("text", "sqlstate", "line", "column", "statement"),
    [
        pytest.param(
            TABLE + "insert into t values (1);\n\n  insert into t\n  values (1);",
            "23505",
            4,
            3,
            3,
            id="unique violation",
        ),
        pytest.param("select 1;\nselect\n  1/0;\nselect 2", "22012", 2, 1, 2, id="division by zero"),
        pytest.param("select 1/0", "22012", 1, 1, 1, id="the only statement"),
        pytest.param("select 1; select 2; select 1/0; select 3", "22012", 1, 21, 3, id="one line"),
        pytest.param("select 'é😀'; select 1/0", "22012", 1, 14, 2, id="after é and an astral character"),
        pytest.param("\ufeffselect 1;\r\n\r\nselect\r\n 1/0", "22012", 3, 1, 2, id="BOM and CRLF"),
        pytest.param("select 1;\n-- a comment\n/* another */\n select 1/0", "22012", 4, 2, 2, id="after comments"),
        pytest.param(";; select 1;;\n;;select 1/0;;", "22012", 2, 3, 2, id="empty statements"),
        pytest.param(
            "select 1;\n\ndo $$\nbegin\n  raise exception 'no';\nend $$;\nselect 2", "P0001", 3, 1, 2, id="a DO block"
        ),
        pytest.param("select 1;\ndo $$ begin perform nme; end $$", "42703", 2, 1, 2, id="a statement in a DO block"),
        pytest.param(
            RULE.format("also select 'seen'") + "insert into t values (1);\nselect 1/0", "22012", 3, 1, 4, id="a rule"
        ),
        pytest.param(
            RULE.format("also (select 1; select 2; insert into t2 select 3)")
            .replace("create", "create table t2(); create", 1)
            .replace("t2()", "t2 (n int)")
            + "insert into t values (1);\nselect 1/0",
            "22012",
            3,
            1,
            5,
            id="a rule of three",
        ),
        pytest.param(
            RULE.format("instead select 'seen'") + "insert into t values (1);\nselect 1/0",
            "22012",
            3,
            1,
            4,
            id="a rule that selects instead",
        ),
        pytest.param(
            RULE.format("instead nothing") + "insert into t values (1);\nselect 1/0",
            "22012",
            3,
            1,
            4,
            id="a rule that does nothing instead",
        ),
        pytest.param("copy (select 1) to stdout;\nselect 1/0", "22012", 2, 1, 2, id="after COPY TO STDOUT"),
        pytest.param("savepoint a;\nselect 1;\nrollback to a;\nselect 1/0", "22012", 4, 1, 4, id="savepoints"),
        pytest.param(
            "begin;\nselect 1;\nselect 1/0;\ncommit;", "22012", 3, 1, 2, id="in a BEGIN and COMMIT of its own"
        ),
        pytest.param(LARGE + "select 1/0", "22012", 6, 1, 6, id="a large file"),
        pytest.param("select 1;\nselect pg_terminate_backend(0);select 1/0", "22012", 2, 32, 3, id="after a warning"),
    ],
)
def test_a_failure_without_a_position_names_its_statement(
    migrate: Migrate, text: str, sqlstate: str, line: int, column: int, statement: int
) -> None:
    """Where PostgreSQL points nowhere, the place is the one where the failing statement starts."""
    run = migrate("--json", "up", files={"1_failing.sql": text})
    assert run.exit_code == 1
    error = run.json["error"]
    assert error["sqlstate"] == sqlstate
    assert (error["path"], error["line"], error["column"], error["statement"]) == (PATH, line, column, statement)
    assert f"{PATH}:{line}:{column}: error: {error['message']}" in run.stderr.splitlines()


@pytest.mark.parametrize(
    "text",
    [
        "create table t (id int",
        "create table t (\n  id int,\n\n-- the rest is missing\n",
        "select 1;\nselect (",
        "select 1 union all",
        "select 1 +\n  ",
        "create table t (id int);\ncreate rule r as on insert to t do also (select 1",
        "create function f() returns int begin atomic select 1;",
        "insert into",
        "explain",
    ],
)
def test_an_unfinished_statement_is_placed_at_the_files_end(migrate: Migrate, rows: Rows, text: str) -> None:
    """A quote or comment left open ends with the file: nothing of the file runs, and the place is inside of it."""
    run = migrate("--json", "up", files={"1_failing.sql": text})
    assert run.exit_code == 1
    error = run.json["error"]
    assert error["sqlstate"] == "42601"
    assert (error["line"], error["column"]) == (len(text.rstrip().split("\n")), len(text.rstrip().split("\n")[-1]))
    assert rows("SELECT to_regclass('schema_migrations'), to_regclass('t')") == [(None, None)]


def test_the_error_as_people_read_it(migrate: Migrate) -> None:
    """Place and message, the line before and the line with a caret, the server's hint, and the database's state."""
    files = {
        "1_users.sql": "create table users (id int, name text);",
        "2_more.sql": "select 1;",
        "20260301_phone.sql": "alter table users add phone text;\n\nselect id,\n       naem from users;\n",
    }
    run = migrate("up", files=files)
    assert run.stderr == (
        'sql/20260301_phone.sql:4:8: error: column "naem" does not exist\n'
        "3 | select id,\n"
        "4 |        naem from users;\n"
        "  |        ^\n"
        'hint: Perhaps you meant to reference the column "users.name".\n'
        "Nothing of this file was applied. 2 migrations before it were applied and recorded.\n"
    )


def test_the_servers_hint_and_detail_are_shown(migrate: Migrate) -> None:
    """PostgreSQL's detail, hint and context are printed, each under its name."""
    text = "do $$ begin raise exception 'no' using detail = 'since it is late', hint = 'Sleep.'; end $$"
    run = migrate("--json", "up", files={"1_failing.sql": text})
    assert "\ndetail: since it is late\n" in run.stderr
    assert "\nhint: Sleep.\n" in run.stderr
    error = run.json["error"]
    assert (error["message"], error["detail"], error["hint"]) == ("no", "since it is late", "Sleep.")


def test_the_error_as_json(migrate: Migrate) -> None:
    """The document of a run that failed has the whole error, the files applied before it, and those still pending."""
    files = {"1_one.sql": "select 1", "2_two.sql": "select 1;\nselect nme", "3_three.sql": "select 3"}
    run = migrate("--json", "up", files=files)
    document = run.json
    assert run.exit_code == 1
    assert document["ok"] is False
    assert document["error"] == {
        "kind": "StatementError",
        "message": 'column "nme" does not exist',
        "path": "sql/2_two.sql",
        "line": 2,
        "column": 8,
        "sqlstate": "42703",
        "version": "2",
        "statement": 2,
        "detail": None,
        "hint": None,
        "help": None,
        "context": None,
        "state": "Nothing of this file was applied. 1 migration before it was applied and recorded.",
        "outcome": {
            "file": "nothing",
            "migration": "2_two",
            **{"version": "2", "path": "sql/2_two.sql"},
            **{"done": None, "statements": None},
            **{"before": 1, "taken_back": 0, "durable": True, "rows": None, "total": None},
        },
    }
    assert [one["version"] for one in document["applied"]] == ["1"]
    assert [one["version"] for one in document["pending"]] == ["2", "3"]


@pytest.mark.parametrize("text", ["\t\tselect\tnme", "select 'é', nme", "select " + "1, " * 5000 + "nme"])
def test_the_caret_stands_below_the_place(migrate: Migrate, text: str) -> None:
    """The excerpt is short however long the line is, and its caret is below the character it means."""
    run = migrate("up", files={"1_failing.sql": f"select 1;\n{text} -- {'x' * 1000}"})
    above, line, caret = run.stderr.split("\n")[1:4]
    assert above == "1 | select 1;"
    assert len(line) < 200
    at = caret.index("^")
    assert line[at : at + 3] == "nme"
    assert [sign == "\t" for sign in caret[4:at]] == [sign == "\t" for sign in line[4:at]]


def test_a_functions_context_is_shown(migrate: Migrate) -> None:
    """A failure inside of PL/pgSQL is placed at the call, and PostgreSQL's context leads into the function."""
    files = {
        "1_f.sql": BODY.format("return 1/0;") + BODY.replace("f()", "g()").format("return f();"),
        "2_call.sql": "select 1;\nselect g()",
    }
    run = migrate("--json", "up", files=files)
    error = run.json["error"]
    assert (error["path"], error["line"], error["column"]) == ("sql/2_call.sql", 2, 1)
    for line in ("PL/pgSQL function f() line 3 at RETURN", "PL/pgSQL function g() line 3 at RETURN"):
        assert line in error["context"]
        assert line in run.stderr


@pytest.mark.parametrize(
    "text",
    [
        "create table t (id int unique deferrable initially deferred);\ninsert into t values (1), (1);",
        "create table t (id int primary key, up int references t deferrable initially deferred);\n"
        "insert into t values (1, 2);",
    ],
)
def test_a_deferred_constraint_fails_at_commit(migrate: Migrate, rows: Rows, text: str) -> None:
    """An error after the last statement is reported at COMMIT, with the file's path and no line."""
    run = migrate("--json", "up", files={"1_failing.sql": text})
    error = run.json["error"]
    assert run.exit_code == 1
    assert error["message"].startswith("at COMMIT, a deferred constraint failed: ")
    assert (error["path"], error["line"], error["column"], error["sqlstate"][:2]) == (PATH, None, None, "23")
    assert "detail: Key (" in run.stderr
    assert "Nothing of this file was applied." in run.stderr
    assert rows("SELECT to_regclass('schema_migrations'), to_regclass('t')") == [(None, None)]


def test_a_deferred_trigger_fails_at_commit(migrate: Migrate, rows: Rows) -> None:
    """A constraint trigger's own exception at COMMIT is shown as it is, with its context."""
    text = """
        create table t (id int);
        create function refuse() returns trigger language plpgsql as $$ begin raise exception 'not this one'; end $$;
        create constraint trigger late after insert on t deferrable initially deferred
            for each row execute function refuse();
        insert into t values (1);"""
    run = migrate("--json", "up", files={"1_failing.sql": text})
    error = run.json["error"]
    assert error["message"].startswith("at COMMIT")
    assert "not this one" in error["message"]
    assert "PL/pgSQL function refuse() line 1 at RAISE" in error["context"]
    assert rows("SELECT to_regclass('t')") == [(None,)]


def test_a_constraint_set_immediate_fails_at_its_statement(migrate: Migrate) -> None:
    """A deferred constraint that the file itself checks fails there."""
    text = (
        "create table t (id int unique deferrable initially deferred);\n"
        "insert into t values (1), (1);\nset constraints all immediate;"
    )
    error = migrate("--json", "up", files={"1_failing.sql": text}).json["error"]
    assert (error["line"], error["column"], error["statement"]) == (3, 1, 3)


FAILING = {
    "1_first.sql": "create table first (id int);",
    "2_second.sql": "create table second (id int);",
    "3_third.sql": "create table third (id int);\nselect 1/0;",
    "4_fourth.sql": "create table fourth (id int);",
}


def test_a_failing_file_leaves_nothing(migrate: Migrate, rows: Rows, recorded: Callable[[], list[str]]) -> None:
    """The files before it stay and are recorded, it leaves neither table nor entry, and those after it don't run."""
    assert migrate("up", files=FAILING).exit_code == 1
    assert recorded() == ["first", "second"]
    made = rows("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' ORDER BY 1")
    assert made == [("first",), ("schema_migrations",), ("second",)]


def test_a_failing_first_file_leaves_no_history_either(migrate: Migrate, rows: Rows) -> None:
    """The history's table is made in the first file's transaction, and goes with it."""
    run = migrate("up", files={"1_failing.sql": TABLE + "select 1/0"})
    assert run.stderr.endswith("\nNothing of this file was applied.\n")
    assert rows("SELECT to_regclass('t'), to_regclass('schema_migrations')") == [(None, None)]


def test_a_run_goes_on_where_the_last_one_failed(migrate: Migrate, recorded: Callable[[], list[str]]) -> None:
    """The failing file may be put right; the next run begins with it."""
    assert migrate("up", files=FAILING).exit_code == 1
    run = migrate("--json", "up", files={"3_third.sql": "create table third (id int);"})
    assert run.exit_code == 0
    assert [one["version"] for one in run.json["applied"]] == ["3", "4"]
    assert recorded() == ["first", "second", "third", "fourth"]


def test_quiet_still_tells_the_error(migrate: Migrate) -> None:
    """-q silences everything but the error."""
    run = migrate("-q", "up", files=FAILING)
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("sql/3_third.sql:2:1: error: division by zero\n")


def test_no_error_shows_the_password(migrate: Migrate, rows: Rows, role: tuple[str, str]) -> None:
    """The URL's password stands in no output, whatever fails, at any verbosity."""
    _, url = role
    rows("revoke create on schema public from public")  # as it is from PostgreSQL 15 on
    run = migrate("-v", "--json", "up", files={"1_failing.sql": "create table t (id int)"}, url=url)
    assert run.exit_code == 1
    assert run.json["error"]["sqlstate"] == "42501"
    assert "secret" not in run.stdout + run.stderr


def test_the_notices_before_a_failure_are_shown(migrate: Migrate) -> None:
    """Notices that a file raised before it failed are printed with its path."""
    text = "do $$ begin raise notice 'so far so good'; end $$;\nselect 1/0"
    run = migrate("--json", "up", files={"1_failing.sql": text})
    assert [(one["version"], one["message"]) for one in run.json["notices"]] == [("1", "so far so good")]
    assert run.stderr.startswith(f"{PATH}: NOTICE: so far so good\n")


def test_a_large_file_that_fails_leaves_nothing(migrate: Migrate, rows: Rows) -> None:
    """A file that goes to the server in parts is still one transaction."""
    assert migrate("up", files={"1_failing.sql": TABLE + LARGE + "select 1/0"}).exit_code == 1
    assert rows("SELECT to_regclass('t'), to_regclass('schema_migrations')") == [(None, None)]


@pytest.mark.parametrize("text", ["call p()", "do $$ begin commit; end $$", "do $$ begin rollback; end $$"])
def test_code_that_commits_fails(migrate: Migrate, rows: Rows, text: str) -> None:
    """A procedure or DO block cannot end the file's transaction: it is refused by PostgreSQL, and nothing stays."""
    procedure = "create procedure p() language plpgsql as $$ begin create table early (); commit; end $$;\n"
    run = migrate("--json", "up", files={"1_failing.sql": procedure + text})
    assert (run.json["error"]["sqlstate"], run.json["error"]["line"]) == ("2D000", 2)
    assert rows("SELECT to_regclass('early'), to_regclass('schema_migrations')") == [(None, None)]


@pytest.fixture(params=["SQL_ASCII", "LATIN1"])
def encoded(request: pytest.FixtureRequest, server_url: str) -> Iterator[str]:
    """The URL of a database in another encoding."""
    name = f"outreach_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        create = "CREATE DATABASE {} TEMPLATE template0 ENCODING {} LOCALE 'C'"
        connection.execute(sql.SQL(create).format(sql.Identifier(name), request.param))
    yield fix_servers.url(server_url, dbname=name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.mark.parametrize(
    ("text", "place"),
    [("select 'éé', nme", (1, 14)), ("select 'éé';\nselect 'é'; select 1/0", (2, 13))],
)
def test_places_are_right_in_other_encodings(migrate: Migrate, encoded: str, text: str, place: tuple[int, int]) -> None:
    """A place counts the file's characters also where the server knows bytes only, or another encoding."""
    error = migrate("--json", "up", files={"1_failing.sql": text}, url=encoded).json["error"]
    assert (error["line"], error["column"]) == place


def test_a_message_in_another_encoding_is_reported(migrate: Migrate) -> None:
    """A file that switches client_encoding gets its messages in that encoding; their readable part is shown."""
    text = "set client_encoding = latin1;\ndo $$ begin raise notice 'Größe'; raise exception 'Maß und Ziel'; end $$"
    run = migrate("--json", "up", files={"1_failing.sql": text})
    assert (run.json["error"]["sqlstate"], run.json["error"]["line"]) == ("P0001", 2)
    assert "und Ziel" in run.json["error"]["message"]
    assert [one["message"][:2] for one in run.json["notices"]] == ["Gr"]
