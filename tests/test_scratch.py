"""Scratch databases: on the same server or a private one, like the other database, and dropped at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path
from typing import Any, LiteralString

import pytest
from fix_cli import Files, Migrate, Rows

from outreach_migrate import errors
from outreach_migrate.files import migrations, reach
from outreach_migrate.files.migrations import Migration
from outreach_migrate.postgres import connections, dsn
from outreach_migrate.run import request
from outreach_migrate.schema import places, scratch
from outreach_migrate.schema.scratch import Scratch

SCRATCHES: LiteralString = "SELECT datname FROM pg_database WHERE datname LIKE 'outreach_scratch_%' ORDER BY 1"
Open = Callable[..., AbstractContextManager[Scratch]]


def ask(target: dsn.Target, query: LiteralString) -> list[tuple[Any, ...]]:
    with connections.connect(target) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def opened(migrate: Migrate, scratch_folder: Path) -> Iterator[Open]:
    """A function that writes files, and gives a scratch database beside the test's database, or on its own."""
    with ExitStack() as stack:

        def made(files: Files, *, url: str | None = None, alone: bool = False) -> AbstractContextManager[Scratch]:
            migrate.write(files)
            asked = request.of(url or migrate.url, migrations.read("sql"))
            connection = None if alone else stack.enter_context(closing(connections.connect(asked.target)))
            return scratch.migrated(asked, asked.files, private=scratch_folder, beside=connection)

        yield made


def test_it_is_on_the_same_server_and_gone_afterwards(opened: Open, rows: Rows) -> None:
    """It is like the other database in encoding, settings and extensions; leftovers of a crash go, living ones stay."""
    rows("CREATE EXTENSION citext")
    rows("CREATE SCHEMA app")
    database = rows("SELECT current_database()")[0][0]
    rows(f"ALTER DATABASE {database} SET search_path = app, public")
    left = "outreach_scratch_0123456789abcdef"
    rows(f"CREATE DATABASE {left} TEMPLATE template0")
    rows(f"COMMENT ON DATABASE {left} IS '{places._MARK}'")
    files = [
        "-- without: create extension citext\nCREATE SCHEMA app; CREATE TABLE t (c public.citext)",
        "INSERT INTO t VALUES ('A')",
    ]
    with opened(files) as first, opened(files) as second:
        assert first.reason is None
        assert first.preset == ("citext",)
        for one in (first, second):
            assert ask(one.target, "SELECT count(*) FROM app.t WHERE c = 'a'") == [(1,)]
        names = [(one.target.parameters["dbname"],) for one in (first, second)]
        assert set(names) <= set(rows(SCRATCHES))
        assert (left,) not in rows(SCRATCHES)
        (alike,) = rows(
            "SELECT count(DISTINCT (encoding, datcollate, datctype)) FROM pg_database WHERE datname = ANY (%s)",
            [*(name for (name,) in names), database],
        )
        assert alike == (1,)
    assert set(names).isdisjoint(rows(SCRATCHES))


def test_a_failing_file_leaves_nothing(opened: Open, rows: Rows, role: tuple[str, str]) -> None:
    """Its error has its place, and says that a scratch database had it; a role with CREATEDB is enough."""
    rows(f"ALTER ROLE {role[0]} CREATEDB")
    with pytest.raises(errors.StatementError) as failed, opened(["CREATE TABLE t ()", "SELECT nix"], url=role[1]):
        pass
    assert str(failed.value).startswith("sql/2_a.sql:1:8: column")
    assert failed.value.outcome
    assert failed.value.outcome.file == errors.Fate.SCRATCH
    assert rows("SELECT datname FROM pg_database WHERE pg_get_userbyid(datdba) = %s", role[0]) == []


def test_without_the_right_it_is_on_the_private_server(opened: Open, role: tuple[str, str]) -> None:
    """There the files may name roles that are not there, and make some that are, as often as they like."""
    files = [
        "CREATE ROLE mine; CREATE TABLE t (); ALTER TABLE t OWNER TO mine",
        'GRANT SELECT ON t TO a, "B c" WITH GRANT OPTION; CREATE POLICY p ON t TO d USING (true)',
        "DO $$ BEGIN EXECUTE 'GRANT e TO mine'; END $$; CREATE SCHEMA s AUTHORIZATION f; SET ROLE mine",
    ]
    for _ in range(2):
        with opened(files, url=role[1]) as made:
            assert made.reason == f"the role {role[0]} may not create a database"
            assert ask(made.target, "SELECT tableowner FROM pg_tables WHERE tablename = 't'") == [("mine",)]
            assert ask(made.target, SCRATCHES) == [(made.target.parameters["dbname"],)]
    with opened(dict.fromkeys(("1_a.sql", "2_a.sql", "3_a.sql"), "SELECT 1"), alone=True) as made:
        assert ask(made.target, "SELECT count(*) FROM pg_roles WHERE rolname = 'mine'") == [(0,)]


def test_an_extension_that_it_lacks_is_named(opened: Open) -> None:
    """Before any file runs, with all that are lacking."""
    files = ['CREATE EXTENSION IF NOT EXISTS "nix" CASCADE', "CREATE EXTENSION citext; CREATE EXTENSION neither"]
    lacking = pytest.raises(errors.MigrateError, match="lacks the extensions nix, neither, which the files make")
    with lacking, opened(files, alone=True):
        pass


def test_a_role_that_only_the_other_server_has_is_explained(opened: Open) -> None:
    """Its name is computed, so nobody could make it before."""
    with (
        pytest.raises(errors.StatementError) as failed,
        opened(["DO $$ BEGIN EXECUTE 'GRANT USAGE ON SCHEMA public TO a' || 'b'; END $$"], alone=True),
    ):
        pass
    assert "has only the extensions that the files make, and the roles that their statements" in (
        failed.value.hint or ""
    )


def test_no_file_connects_to_another_server(opened: Open) -> None:
    """A replay that subscribed would take the publisher's changes."""
    files = ["CREATE SUBSCRIPTION s CONNECTION 'host=db' PUBLICATION p"]
    with pytest.raises(errors.Refused, match=r"sql/1_a.sql:1:1: CREATE SUBSCRIPTION would connect"), opened(files):
        pass


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("SELECT 1; CREATE ROLE x", "CREATE ROLE"),
        ("GRANT a TO b", "GRANT TO"),
        ("GRANT CONNECT ON DATABASE d TO a", "GRANT ON DATABASE"),
        ("DO $$ BEGIN EXECUTE 'ALTER DATABASE d SET x = 1'; END $$", "ALTER DATABASE"),
        ("DROP OWNED BY x", "DROP OWNED"),
        ("CREATE USER MAPPING FOR x SERVER y", None),
        ("GRANT SELECT ON t TO b; SELECT FROM a JOIN role ON role.id = 1", None),
    ],
)
def test_a_file_that_changes_the_whole_server_is_found(text: str, found: str | None) -> None:
    """Its replay on the same server would change roles and databases that are in use."""
    reached = [words for _, words in reach.shared(Migration("1", "a", "1_a.sql", text))]
    assert reached == ([found] if found else [])
