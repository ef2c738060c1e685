"""Variables in files: quoted as libpq quotes, placed as in the file, and shown nowhere."""

from __future__ import annotations

import psycopg
import pytest
from fix_cli import Migrate, Rows
from psycopg import pq, sql

import outreach_migrate
from outreach_migrate.files import variables

MARK = "-- migrate: variables\n"
AWKWARD = ["plain", "it's", 'a "b"', "back\\slash", "\\'; drop table t; --", "new\nline", "größe", "", ":'x'", "$1"]


@pytest.mark.parametrize("value", AWKWARD)
def test_values_are_quoted_as_libpq_quotes(migrate: Migrate, rows: Rows, value: str) -> None:
    """A literal and an identifier hold the value as it is, whatever characters it has."""
    name = value or "x"
    text = f"{MARK}create table :\"name\" (v text default :'value'); insert into :\"name\" values (:'value');"
    outreach_migrate.up(migrate.url, folder=_one(migrate, text), variables={"name": name, "value": value})
    assert rows("SELECT v FROM " + sql.Identifier(name).as_string()) == [(value,)]


def _one(migrate: Migrate, text: str) -> str:
    migrate.write({"1_a.sql": text})
    return str(migrate.files)


def test_only_the_two_quoted_forms_outside_of_strings_and_comments_are_variables() -> None:
    """A bare :name, a cast, an array's slice by a bare name, strings, dollar quotes and comments stay as they are."""
    text = """
        select :'a', :"b", x::"c", ':''d''', $$ :'e' $$, E':\\'f\\'', /* :'g' */ ":'h'", a[1 : 2], :bare, : 'i' -- :'j'
        , a[1::'k'], 'it''s':'l'"""
    assert [(use.name, use.quote) for use in variables.uses(text)] == [("a", "'"), ("b", '"'), ("l", "'")]


def test_without_the_directive_nothing_changes(migrate: Migrate) -> None:
    """The forms are PostgreSQL's syntax errors, as before."""
    run = migrate("--set", "a=1", "up", files=["select :'a'"])
    assert run.exit_code == 1
    assert 'syntax error at or near ":"' in run.stderr


def test_the_nearest_source_wins(migrate: Migrate, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """--set beats the environment, which beats pyproject.toml; a variable's name in the environment is in capitals."""
    (migrate.folder / "pyproject.toml").write_text("[tool.outreach-migrate.set]\na = 'file'\nb = 'file'\nc_d = 5\n")
    monkeypatch.setenv("OUTREACH_MIGRATE_SET_A", "environment")
    monkeypatch.setenv("OUTREACH_MIGRATE_SET_B", "environment")
    text = f"{MARK}create table t as select :'a'::text a, :'b'::text b, :'c_d'::int c"
    assert migrate("--set", "a=flag=1", "up", files=[text]).exit_code == 0
    assert rows("SELECT * FROM t") == [("flag=1", "environment", 5)]


def test_a_variable_without_a_value_is_an_error_before_anything_runs(migrate: Migrate, rows: Rows) -> None:
    """Each is named once with its place, also in a later file; reading the state needs none."""
    files = ["create table t ()", f"{MARK}select 1;\n  select :'who', :'who', :\"what\"; -- :'no'"]
    run = migrate("--set", "other=1", "up", files=files)
    assert run.exit_code == 1
    assert "sql/2_a.sql:3:10: error: the variable who has no value" in run.stderr
    assert "sql/2_a.sql:3:26: error: the variable what has no value" in run.stderr
    assert "--set who=VALUE, as OUTREACH_MIGRATE_SET_WHO" in run.stderr
    assert rows("SELECT to_regclass('t')::text") == [(None,)]
    assert migrate("status").exit_code == 0
    assert migrate("check").exit_code == 0


def test_an_error_is_placed_in_the_file_and_shows_no_value(migrate: Migrate) -> None:
    """Places count in the file as it is written; its line and the server's message have the variable's name."""
    text = f"{MARK}select :'secret';\nselect 1, :'secret', :'secret'::int;"
    run = migrate("--set", "secret=hunter2 and more", "up", files=[text])
    assert "sql/1_a.sql:3:22: error: invalid input syntax for type integer: \":'secret'\"" in run.stderr
    assert "3 | select 1, :'secret', :'secret'::int;\n  |                      ^" in run.stderr
    assert "hunter2" not in run.output
    later = migrate("--set", "secret=hunter2 and more", "--json", "up", files=[f"{MARK}select :'secret'; selec 1"])
    assert later.json["error"]["column"] == 19
    assert "hunter2" not in later.output


def test_a_value_is_shown_and_recorded_nowhere(migrate: Migrate, rows: Rows, role: tuple[str, str]) -> None:
    """Neither a dry run, a notice, a rehearsal, -v, the exception, nor the history has it."""
    text = f"{MARK}do $$ begin raise notice 'hello'; end $$;\ncreate table t (n text default :'secret');"
    text += "insert into t values (:'secret');\nselect :'secret' from t;"
    given = ("--set", "secret=hunter2")
    for command in (["up", "--dry-run"], ["rehearse"], ["-v", "rehearse"], ["--json", "rehearse"], ["-v", "up"]):
        run = migrate(*given, *command, files=[text])
        assert run.exit_code == 0
        assert "hunter2" not in run.output
    assert rows("SELECT n FROM t") == [("hunter2",)]
    assert "hunter2" not in repr(rows("SELECT * FROM schema_migrations"))
    assert migrate("status").stdout.splitlines()[-1] == "1 applied"
    migrate.write({"2_b.sql": f"{MARK}select :'secret'::int"})
    with pytest.raises(outreach_migrate.StatementError) as failed:
        outreach_migrate.up(migrate.url, folder=migrate.files, variables={"secret": "hunter2"})
    assert failed.value.__cause__ is None
    assert "hunter2" not in str(failed.value) + repr(failed.value.report) + repr(failed.value.__context__)


LONG = "Tr0ub4dor&3-" + "correct-horse-battery-staple-" * 5  # the server cuts it off


@pytest.mark.parametrize(
    ("text", "value", "said"),
    [
        (
            "create table t (v text, check (v = '')); insert into t values (:'s');",
            LONG,
            "Failing row contains (:'s'...)",
        ),
        ('create table :"s" ();', LONG, "identifier \":'s'\" will be truncated to \":'s'\""),
        ("select :'s'::json;", '{"user": hunter2secret}', "Token \":'s'\" is invalid"),
        ("select :'s'::int[];", "{1,hunter2secret}", "for type integer: \":'s'\""),
        ("select 1 :'s';", "it's\\hunter2secret", "at or near \"E':'s''\""),
        ("create table tenant_2 (); create table tenant_2 (); select :'s'", "tenant_1", 'relation "tenant_2" already'),
    ],
)
def test_a_part_of_a_value_is_shown_nowhere(migrate: Migrate, text: str, value: str, said: str) -> None:
    """The server cuts values off, quotes them, and shows tokens of them; a name that only resembles one stays."""
    run = migrate("--set", f"s={value}", "up", files=[MARK + text])
    assert said in run.output
    assert not [part for part in ("hunter2", "horse", "Tr0ub") if part in run.output]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("a\0b", "has a NUL"),
        ("a\udcff", "is not UTF-8"),
        (5, "is no text, but of the type int"),
        (True, "is no text, but of the type bool"),
    ],
)
def test_a_value_must_be_text(migrate: Migrate, value: str, message: str) -> None:
    """It is refused before anything runs, and the error does not show it."""
    with pytest.raises(outreach_migrate.UsageError, match=f"the value of the variable s {message}"):
        outreach_migrate.up(migrate.url, folder=_one(migrate, f"{MARK}select :'s'"), variables={"s": value})


def test_the_last_set_of_a_name_wins(migrate: Migrate, rows: Rows) -> None:
    """As it does with psql's -v, so a script can add to a command's options."""
    run = migrate("--set", "s=1", "--set", "s=2", "up", files=[f"{MARK}create table t as select :'s'::int as s"])
    assert run.exit_code == 0
    assert rows("SELECT s FROM t") == [(2,)]


def test_a_file_with_variables_is_linted(migrate: Migrate) -> None:
    """squawk gets names in their place, also where a database is named, and its places count in the file."""
    migrate.write([f"{MARK}create role :\"r\" password :'p'; create table t (v varchar(10) default :'p');"])
    for command in (["check", "--lint"], ["--database", migrate.url, "check", "--lint"]):
        run = migrate("--set", "p=hunter2", *command)
        assert "syntax" not in run.output
        assert "sql/1_a.sql:2:51: warning:" in run.output
        assert "hunter2" not in run.output


def test_a_file_without_a_transaction_has_them_too(migrate: Migrate, rows: Rows) -> None:
    """It goes on after a failure with another value, because the checksums are of the file as it is written."""
    text = f'{MARK}-- migrate: no-transaction\ncreate table :"t" (n int);\nselect :\'n\'::int;\nvacuum :"t";'
    first = migrate("--set", "t=x", "--set", "n=secret", "up", files=[text])
    assert "sql/1_a.sql:4:8" in first.stderr
    assert "secret" not in first.output
    second = migrate("--set", "t=x", "--set", "n=1", "up")
    assert second.exit_code == 0, second.stderr
    assert migrate("status").stdout.splitlines()[-1] == "1 applied"


def test_a_file_of_code_has_them_too(migrate: Migrate, rows: Rows) -> None:
    """Its value is needed before anything runs; another value alone does not carry it out again."""
    (migrate.files / "code").mkdir(parents=True)
    (migrate.files / "code" / "v.sql").write_text(f"{MARK}create or replace view v as select :'s'::text as s;")
    migrate.write(["create table t ()"])
    run = migrate("up")
    assert "sql/code/v.sql:2:36: error: the variable s has no value" in run.stderr
    assert rows("SELECT to_regclass('t')::text") == [(None,)]
    assert migrate("status").exit_code == 0
    assert migrate("--set", "s=hunter2", "up").exit_code == 0
    assert rows("SELECT s FROM v") == [("hunter2",)]
    assert "hunter2" not in repr(rows("SELECT * FROM schema_migrations_code"))
    for command in (["up"], ["up", "--dry-run"], ["rehearse"]):
        again = migrate("--set", "s=another", *command)
        assert again.exit_code == 0, again.output
        assert "another" not in again.output


def test_rows_that_are_copied_have_no_variables(migrate: Migrate) -> None:
    """A file with the rows of a COPY is refused with its line."""
    run = migrate("--set", "a=1", "up", files=[f"{MARK}create table t (n int);\ncopy t from stdin;\n1\n\\.\n"])
    assert "sql/1_a.sql:3:1: error: COPY … FROM STDIN cannot be used in a file with variables" in run.stderr


@pytest.mark.parametrize("given", ["secret", "=secret", "a b=secret", "postgresql://u:secret@h/d"])
def test_a_wrong_assignment_shows_nothing_of_it(migrate: Migrate, given: str) -> None:
    """It may be a secret whose name was forgotten."""
    run = migrate("--set", given, "status")
    assert run.exit_code == 2
    assert "NAME=VALUE" in run.stderr
    assert "secret" not in run.output


def test_scratch_databases_take_the_same_values(migrate: Migrate) -> None:
    """drift and dump --scratch apply the files with them, and name one that is missing."""
    migrate.write([f"{MARK}create table t (n text default :'v')"])
    given = ("--set", "v=hunter2")
    assert migrate(*given, "up").exit_code == 0
    assert migrate(*given, "drift").exit_code == 0
    assert "the variable v has no value" in migrate("drift").stderr
    assert "DEFAULT 'hunter2'" in migrate(*given, "dump", "--scratch").stdout


@pytest.mark.parametrize("value", AWKWARD)
def test_quoting_is_libpq_s(database: str, value: str) -> None:
    """Literals and identifiers are those that libpq writes."""
    with psycopg.connect(database) as connection:
        escaping = pq.Escaping(connection.pgconn)
        literal, _ = variables.bound(":'v'", {"v": value}.get)
        identifier, _ = variables.bound(':"v"', {"v": value}.get)
        assert literal == escaping.escape_literal(value.encode()).decode()
        assert identifier == escaping.escape_identifier(value.encode()).decode()
