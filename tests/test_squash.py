"""`squash`: many files replaced by one, and the databases that have the many, some, others, or none of them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import fix_servers
import psycopg
import pytest
from fix_cli import Migrate, Rows

EVERY_KIND = (Path(__file__).parent / "every_kind.sql").read_text()
FOUR = {
    "1_a.sql": "create table t (n int generated always as identity, m text); insert into t (m) values ('x'), (E'\\n')",
    "2_b.sql": "create role {role}; grant select on t to {role}",
    "3_c.sql": "create materialized view v as select count(*) from t",
    "4_d.sql": "alter table t add k int default 1",
}


@pytest.fixture
def another(server_url: str) -> Iterator[str]:
    """The URL of a second database."""
    with fix_servers.fresh_database(server_url) as url:
        yield url


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
    assert [migrate("drift", url=url).exit_code for url in (migrate.url, another)] == [0, 0]


def test_a_second_squash_knows_the_files_of_the_first(four: None, migrate: Migrate, another: str) -> None:
    """Databases with all files, with the first squashed one, and empty ones are up to date, or get there."""
    assert migrate("squash", "--through", "2").exit_code == 0
    assert migrate("up", url=another).exit_code == 0
    assert migrate("squash", "--through", "4").exit_code == 0
    assert names(migrate) == ["4_squashed.sql"]
    assert states(migrate) == dict.fromkeys("1234", "squashed")
    assert states(migrate, another) == dict.fromkeys("234", "squashed")


def test_a_database_that_has_some_or_others_is_refused(four: None, migrate: Migrate, rows: Rows) -> None:
    """With the way out, and nothing but one line; new files are not applied either."""
    migrate("squash", "--through", "3")
    migrate.write({"5_e.sql": "create table no ()"})
    rows("UPDATE schema_migrations SET checksum = '' WHERE version = '2'")
    ended = migrate("up")
    assert ended.exit_code == 1
    assert ended.stderr.startswith(
        "sql/3_squashed.sql: error: it replaces 3 files, but 3 are applied, not all of them the same\n"
        "hint: Deploy the release before the squash first"
    )
    rows("DELETE FROM schema_migrations WHERE version = '2'")
    assert "error: 2 of the 3 files that it replaces are applied\n" in migrate("up", "--allow-out-of-order").stderr
    assert migrate("status", "--check").exit_code == 1
    assert rows("SELECT to_regclass('no') IS NULL") == [(True,)]


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
    head, comma, text = (migrate.files / "3_squashed.sql").read_text().partition(", ")
    (migrate.files / "3_squashed.sql").write_text(head + comma + ("1" if text[0] == "0" else "0") + text[1:])
    wrong = migrate("check", "--base", "HEAD")
    assert "4 errors" in wrong.stdout
    assert "sql/1_a.sql: error: renamed or deleted: it is in HEAD" in wrong.stdout
