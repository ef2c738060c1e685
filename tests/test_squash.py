"""`squash`: many files replaced by one, and the databases that have all, some or none of them, or other files."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import LiteralString

import psycopg
import pytest
from fix_cli import Migrate, Rows

EVERY_KIND = (Path(__file__).parent / "every_kind.sql").read_text()
FOUR = {
    "1_a.sql": "create table t (n int generated always as identity, m text); insert into t (m) values ('x'), (E'\\n')",
    "2_b.sql": "create role {role}; grant select on t to {role}; create domain d int; alter domain d owner to {role}",
    "3_c.sql": "create materialized view v as select count(*) from t",
    "4_d.sql": "alter table t add k int default 1",
}
OWNERS: LiteralString = """
    SELECT typname, typowner FROM pg_type WHERE typnamespace = 'public'::regnamespace AND typelem = 0 ORDER BY 1"""


@pytest.fixture
def four(migrate: Migrate, role: tuple[str, str]) -> None:
    """Four files, of which the test's database has all."""
    migrate.write({name: text.replace("create role {role};", "").format(role=role[0]) for name, text in FOUR.items()})
    assert migrate("up").exit_code == 0


def states(migrate: Migrate, url: str | None = None) -> dict[str, str]:
    return {one["version"]: one["state"] for one in migrate("--json", "status", url=url).json["migrations"]}


def names(migrate: Migrate) -> list[str]:
    return sorted(path.name for path in migrate.files.iterdir())


def test_a_database_that_has_all_is_up_to_date(four: None, migrate: Migrate, rows: Rows, another: str) -> None:
    """No row is written there; an empty one runs the new file, and both have the same schema and rows."""
    before = rows("SELECT * FROM schema_migrations ORDER BY 1")
    ended = migrate("squash", "--through", "3")
    assert ended.stdout == (
        "sql/3_squashed.sql replaces 3 files, from 1_a to 3_c.\nIt has the rows that they leave behind: t (2), v (1).\n"
    )
    assert names(migrate) == ["3_squashed.sql", "4_d.sql"]
    assert (migrate.files / "3_squashed.sql").read_text().startswith("-- migrate: replaces 3 files, ")
    assert states(migrate) == {"1": "squashed", "2": "squashed", "3": "squashed", "4": "applied"}
    assert migrate("up").stdout == "Nothing is pending: 4 migrations are applied.\n"
    assert rows("SELECT * FROM schema_migrations ORDER BY 1") == before
    assert migrate("--json", "up", url=another).applied == ["3", "4"]
    assert states(migrate, another) == {"3": "applied", "4": "applied"}
    with psycopg.connect(another) as connection:
        assert connection.execute("SELECT * FROM t, v").fetchall() == rows("SELECT * FROM t, v")
        assert connection.execute(OWNERS).fetchall() == rows(OWNERS)
    assert [migrate("drift", url=url).exit_code for url in (migrate.url, another)] == [0, 0]


def test_a_second_squash_knows_the_files_of_the_first(four: None, migrate: Migrate, another: str) -> None:
    """Databases with all files, with the first squashed one, and empty ones are up to date, or get there."""
    assert migrate("squash", "--through", "2").exit_code == 0
    assert migrate("up", url=another).exit_code == 0
    assert migrate("squash", "--through", "4").exit_code == 0
    assert names(migrate) == ["4_squashed.sql"]
    assert states(migrate) == dict.fromkeys("1234", "squashed")
    assert states(migrate, another) == dict.fromkeys("234", "squashed")


REFUSED: dict[LiteralString, tuple[str, str]] = {  # by the change of the history
    "DELETE FROM schema_migrations WHERE version = '2'": (
        "2 of the 3 files that it replaces are applied",
        "its files apply the rest.",
    ),
    "INSERT INTO schema_migrations SELECT 0, '0', name, checksum, started_at, finished_at, statements_done,"
    " done_checksum, statements_begun, applied_by, origin FROM schema_migrations WHERE version = '1'": (
        "4 are applied up to its version, but not exactly the 3 that it replaces",
        "its status shows files that are edited, missing, or not applied.",
    ),
    "UPDATE schema_migrations SET checksum = '' WHERE version = '2'": (
        "3 are applied up to its version, but not exactly the 3 that it replaces",
        "its status shows files that are edited, missing, or not applied.",
    ),
    "UPDATE schema_migrations SET finished_at = NULL, statements_done = 0, done_checksum = '', statements_begun = 0"
    " WHERE version = '3'": ("3_c, which it replaces, is unfinished", "its up finishes the file."),
}


def test_a_database_that_has_some_or_others_is_refused(four: None, migrate: Migrate, rows: Rows) -> None:
    """By every command, with the way out, and nothing but one line; new files are not applied either."""
    migrate("squash", "--through", "3")
    migrate.write({"5_e.sql": "create table no ()"})
    rows("CREATE TABLE kept AS TABLE schema_migrations")
    for change, (message, way) in REFUSED.items():
        rows(change)
        told = f"sql/3_squashed.sql: error: {message}\nhint: Deploy the release before the squash first: {way}\n"
        for command in ("up --allow-out-of-order", "up --dry-run", "rehearse", "check", "drift"):
            ended = migrate("--database", migrate.url, *command.split())
            assert (ended.exit_code, ended.output.count("error: ")) == (1, 1), command
            assert told in ended.output, command
        ended = migrate("status", "--check")
        assert ended.exit_code == 1
        assert ended.output.count("error: ") == 1
        assert told in ended.output
        fleet = ("fleet", "--databases", rows("SELECT current_database()")[0][0])
        assert [migrate(*fleet, *words).exit_code for words in (["status", "--check"], ["up"])] == [1, 1]
        rows("TRUNCATE schema_migrations; INSERT INTO schema_migrations TABLE kept")
    assert rows("SELECT to_regclass('no') IS NULL") == [(True,)]
    assert migrate("up").exit_code == 0


def test_neither_baseline_nor_accept_spoils_a_history_that_a_squash_covers(
    four: None, migrate: Migrate, rows: Rows
) -> None:
    """A record of the squashed file beside replaced ones would be refused for ever, also by the release before it."""
    migrate("squash", "--through", "3")
    before = rows("SELECT * FROM schema_migrations ORDER BY 1")
    ended = migrate("--database", migrate.url, "accept", "--yes", "3")
    assert (ended.exit_code, rows("SELECT * FROM schema_migrations ORDER BY 1")) == (0, before), ended.output
    rows("UPDATE schema_migrations SET checksum = '' WHERE version = '2'")
    refused = {"accept --yes 3": "3 are applied up to its version, but not exactly the 3 that it replaces"}
    of_some = "2 of the 3 files that it replaces are applied"
    refused |= dict.fromkeys(("baseline 3", "baseline 3 --verify", "baseline 3 --verify --accept-differences"), of_some)
    for command, message in refused.items():
        if message == of_some:
            rows("DELETE FROM schema_migrations WHERE version IN ('3', '4')")
        before = rows("SELECT * FROM schema_migrations ORDER BY 1")
        ended = migrate("--database", migrate.url, *command.split())
        assert (ended.exit_code, ended.output.count("error: ")) == (1, 1), ended.output
        assert f"sql/3_squashed.sql: error: {message}\nhint: Deploy the release before the squash first" in ended.output
        assert rows("SELECT * FROM schema_migrations ORDER BY 1") == before
    fleet = ("fleet", "--databases", rows("SELECT current_database()")[0][0], "baseline", "3", "--verify")
    assert message in migrate(*fleet).output
    assert rows("SELECT * FROM schema_migrations ORDER BY 1") == before


def test_files_with_variables_take_their_values(migrate: Migrate) -> None:
    """A value that only steers the files is none of the new file's; a variable without a value is named."""
    files = {"1_a.sql": "create table t (n int)", "2_b.sql": "-- migrate: variables\nSELECT :'where'"}
    ended = migrate("squash", "--through", "2", files=files)
    assert ended.exit_code == 1
    assert ended.stderr.startswith("sql/2_b.sql:2:8: error: the variable where has no value\n")
    assert migrate("--set", "where=Atlantis", "squash", "--through", "2").exit_code == 0
    assert names(migrate) == ["2_squashed.sql"]


@pytest.mark.parametrize(
    "statement", ["CREATE ROLE r PASSWORD :'pw'", "CREATE TABLE t (c text DEFAULT :'pw')", 'CREATE SCHEMA :"pw"']
)
def test_a_squashed_file_has_no_values_of_variables(migrate: Migrate, statement: str) -> None:
    """They are one environment's, and may be secret, and the file goes into the repository."""
    files = {"1_a.sql": "SELECT 1", "2_b.sql": f"-- migrate: variables\n{statement}"}
    ended = migrate("--set", "pw=it's sesame", "squash", "--through", "2", files=files)
    assert ended.stderr.startswith("sql/2_b.sql: error: the squashed file would have the value of its variable pw\n")
    assert "sesame" not in ended.output
    assert names(migrate) == ["1_a.sql", "2_b.sql"]


def test_no_file_comes_before_a_squashed_one(migrate: Migrate) -> None:
    """An empty database would run it early, any other late; an interrupted squash leaves such files, too."""
    head = f"-- migrate: replaces 2 files, {'0' * 64}\n"
    ended = migrate("up", files={"2_late.sql": "SELECT 1", "3_squashed.sql": f"{head}SELECT 1"})
    assert ended.exit_code == 1
    assert ended.stderr.startswith(
        "sql/2_late.sql: error: 3_squashed.sql replaces all files up to version 3\n"
        "hint: Remove this file if it is one of them; else give it a later version.\n"
    )


def test_every_kind_of_object_is_squashed(migrate: Migrate, role: tuple[str, str], scratch_server: None) -> None:
    """Also passwords and roles, which no dump of a schema has."""
    made = f"create role {role[0]}; grant usage on schema app to {role[0]}; insert into app.parent (m) values ('sad')"
    migrate.write([EVERY_KIND, made])
    ended = migrate("--json", "squash", "--through", "2", "--without-rows")
    assert ended.exit_code == 0, ended
    assert (ended.json["replaced"], ended.json["rows"]) == (["sql/1_a.sql", "sql/2_a.sql"], {"app.mv": 1})
    text = (migrate.files / "2_squashed.sql").read_text()
    assert "sesame" in text
    assert f"\ncreate role {role[0]};\n" in text


def test_large_objects_are_squashed(migrate: Migrate, another: str) -> None:
    """pg_dump writes a transaction around them, which no file may have."""
    migrate("up", files=["create table t as select lo_from_bytea(0, 'abc') as lo"])
    assert migrate("squash", "--through", "1").exit_code == 0
    assert migrate("up", url=another).exit_code == 0
    with psycopg.connect(another) as connection:
        assert connection.execute("SELECT lo_get(lo) FROM t").fetchall() == [(b"abc",)]


def test_a_squash_that_would_not_be_true_changes_nothing(migrate: Migrate, scratch_server: None) -> None:
    """Here a block makes a role, so it is copied, and a table, which the dump has as well."""
    migrate.write({"1_a.sql": "DO $$ BEGIN CREATE ROLE r; CREATE TABLE twice (); END $$"})
    ended = migrate("squash", "--through", "1")
    assert 'error: relation "twice" already exists' in ended.stderr
    assert "no other database was changed" in ended.stderr
    assert names(migrate) == ["1_a.sql"]


def test_check_accepts_exactly_the_deletion_of_a_squash(four: None, migrate: Migrate) -> None:
    """Compared with a revision that has the files; if one of them is another, they are missed."""
    git = ("git", "-c", "user.name=a", "-c", "user.email=a")
    for command in (("git", "init", "-q"), ("git", "add", "."), (*git, "commit", "-qm", "one")):
        subprocess.run(command, cwd=migrate.folder, check=True)
    assert migrate("squash", "--through", "3").exit_code == 0
    assert migrate("check", "--base", "HEAD").stdout == "0 errors, 0 warnings.\n"
    more = (migrate.files / "4_d.sql").rename(migrate.folder / "4_d.sql")
    assert "sql/4_d.sql: error: renamed or deleted: it is in HEAD" in migrate("check", "--base", "HEAD").stdout
    more.rename(migrate.files / "4_d.sql")
    subprocess.run(("git", "checkout", "-q", "sql/2_b.sql"), cwd=migrate.folder, check=True)
    assert "sql/2_b.sql: error: 3_squashed.sql replaces all" in migrate("check", "--base", "HEAD").stdout
    (migrate.files / "2_b.sql").unlink()
    head, comma, text = (migrate.files / "3_squashed.sql").read_text().partition(", ")
    (migrate.files / "3_squashed.sql").write_text(head + comma + ("1" if text[0] == "0" else "0") + text[1:])
    wrong = migrate("check", "--base", "HEAD")
    assert "4 errors" in wrong.stdout
    assert "sql/1_a.sql: error: renamed or deleted: it is in HEAD" in wrong.stdout
