"""The package's functions, as an application calls them."""

from __future__ import annotations

import inspect
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import psycopg
import pytest
from fix_cli import Migrate, Rows
from fix_proxy import Proxy
from fix_servers import Connect
from fix_waiting import at_once
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row

import outreach_migrate as migrate
from outreach_migrate import State
from outreach_migrate.postgres import dsn

FILES = ["CREATE TABLE t (id int);", "INSERT INTO t VALUES (1), (2);"]
CONTRACT = {
    *("Applied", "Behind", "Blocker", "ConnectionFailed", "Entry", "Fate", "HistoryError", "HistoryLocked", "Location"),
    *("LockTimeout", "MigrateError", "Migration", "MigrationFileError", "Outcome", "Plan", "Problem", "Refused"),
    *("Result", "ServerMessage", "State", "StatementError", "Step", "UsageError", "__version__"),
    *("check_current", "events", "status", "up"),
}
UP = (
    "(database, *, folder='sql', schema=None, table='schema_migrations', to=None, allow_out_of_order=False, "
    "before_deploy=False, lock_timeout='5s', lock_retries=10, statement_timeout=None, max_lag='10s', wait=0, "
    "variables=None, code=None, tell=None)"
)
LOOK = "(database, *, folder='sql', schema=None, table='schema_migrations', wait=0)"


@pytest.fixture
def sql(migrate: Migrate) -> Path:
    """A folder with FILES, of which 1_a.sql makes the table t."""
    migrate.write(FILES)
    return migrate.files


def test_the_names_are_the_contract() -> None:
    """The exported names are the package's contract; each has a docstring."""
    assert set(migrate.__all__) == CONTRACT
    assert all(getattr(migrate, name).__doc__ for name in CONTRACT - {"__version__"})


@pytest.mark.parametrize(("function", "signature"), [("up", UP), ("status", LOOK), ("check_current", LOOK)])
def test_the_signatures_are_the_contract(function: str, signature: str) -> None:
    """Names, order and defaults, without the annotations."""
    found = inspect.signature(getattr(migrate, function))
    bare = [one.replace(annotation=inspect.Parameter.empty) for one in found.parameters.values()]
    assert str(found.replace(parameters=bare, return_annotation=inspect.Signature.empty)) == signature


def test_the_import_brings_no_driver() -> None:
    """The names that need psycopg import it when they are asked for."""
    code = (
        "import sys, outreach_migrate; assert 'psycopg' not in sys.modules;"
        "outreach_migrate.Result; assert 'psycopg' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_up_returns_the_applied_files(database: str, sql: Path, rows: Rows) -> None:
    """The applied files with their tags and times, and the plan that was carried out."""
    result = migrate.up(database, folder=sql)
    assert [(one.version, one.name, one.path) for one in result.applied] == [
        ("1", "a", str(sql / "1_a.sql")),
        ("2", "a", str(sql / "2_a.sql")),
    ]
    assert [one.statements for one in result.applied] == [("CREATE TABLE",), ("INSERT 0 2",)]
    assert 0 < sum(one.seconds for one in result.applied) < result.seconds
    assert migrate.up(database, folder=str(sql)).applied == ()
    assert rows("SELECT count(*) FROM t") == [(2,)]


def test_status_shows_each_version(database: str, sql: Path) -> None:
    """A step has the file and the entry; a plan has its pending steps."""
    migrate.up(database, folder=sql, to="1")
    plan = migrate.status(database, folder=sql)
    assert [(step.version, step.state) for step in plan.steps] == [("1", State.APPLIED), ("2", State.PENDING)]
    assert [step.version for step in plan.pending] == ["2"]
    assert plan.steps[0].entry
    assert plan.steps[0].migration
    assert plan.steps[0].entry.checksum == plan.steps[0].migration.checksum


def test_a_failure_is_raised_with_its_place_and_outcome(database: str, sql: Path) -> None:
    """The error has values: nobody has to parse its text."""
    (sql / "3_c.sql").write_text("SELECT 1;\nSELECT nix;")
    with pytest.raises(migrate.StatementError) as caught:
        migrate.up(database, folder=sql)
    error = caught.value
    assert (error.version, error.statement, error.sqlstate) == ("3", 2, "42703")
    assert error.location == migrate.Location(str(sql / "3_c.sql"), 2, 8)
    assert error.outcome
    assert (error.outcome.file, error.outcome.before) == (migrate.Fate.NOTHING, 2)
    assert isinstance(error.__cause__, psycopg.errors.UndefinedColumn)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lock_timeout": "5 parsecs"}, "lock_timeout"),
        ({"wait": "-1"}, "wait"),
        ({"to": "newest"}, "version"),
        ({"to": 99}, "99"),
        ({"table": "a.b.c"}, "a.b.c"),
    ],
)
def test_what_makes_no_sense_is_wrong_usage(options: dict[str, str], words: str, database: str, sql: Path) -> None:
    """The error names the argument, or its value."""
    with pytest.raises(migrate.UsageError, match=words):
        migrate.up(database, folder=sql, **options)  # type: ignore[arg-type]


def test_a_folder_that_is_not_there_is_an_error(database: str, tmp_path: Path) -> None:
    """As on the command line, before anything is connected to."""
    with pytest.raises(migrate.MigrationFileError, match="cannot read the folder"):
        migrate.up(database, folder=tmp_path / "nix")


def test_current_is_when_nothing_is_pending(database: str, sql: Path) -> None:
    """An application that starts too early gets the missing files as an error; one older than the database goes on."""
    with pytest.raises(migrate.Behind, match="1_a, 2_a") as caught:
        migrate.check_current(database, folder=sql)
    assert [step.version for step in caught.value.pending] == ["1", "2"]
    migrate.up(database, folder=sql)
    (sql / "2_a.sql").unlink()
    migrate.check_current(database, folder=sql)
    (sql / "1_a.sql").write_text("CREATE TABLE u ();")
    with pytest.raises(migrate.HistoryError, match="edited"):
        migrate.check_current(database, folder=sql)


def test_current_is_waited_for(database: str, sql: Path) -> None:
    """Another process migrates meanwhile: between the first question and the third."""
    with Proxy(database) as between:
        between.before("Q", 2, lambda: migrate.up(database, folder=sql))
        migrate.check_current(between.url, folder=sql, wait=30)
        assert between.messages.count("Q") >= 2
    assert migrate.status(database, folder=sql).pending == ()


def test_a_connection_is_used_and_left_open(database: str, sql: Path) -> None:
    """Its rows may be of any kind; its session is as DISCARD ALL leaves it, and no handler of a run's stays on it."""
    with psycopg.connect(database, autocommit=True, row_factory=dict_row) as connection:
        connection.execute("SET application_name = 'mine'; CREATE TEMP TABLE mine (); LISTEN mine")
        assert len(migrate.up(connection, folder=sql).applied) == 2
        assert [step.state for step in migrate.status(connection, folder=sql).steps] == [State.APPLIED] * 2
        migrate.check_current(connection, folder=sql)
        left = "SELECT to_regclass('mine') AS mine, (SELECT count(*) FROM pg_listening_channels()) AS listening"
        assert connection.execute(left).fetchone() == {"mine": None, "listening": 0}
        assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_transaction_of_the_callers_own_is_refused(autocommit: bool, database: str, sql: Path, rows: Rows) -> None:
    """`up` commits each file; nothing of the caller's is committed with it."""
    with psycopg.connect(database, autocommit=autocommit) as connection:
        connection.execute("BEGIN; CREATE TABLE callers ()" if autocommit else "CREATE TABLE callers ()")
        with pytest.raises(migrate.UsageError, match="autocommit"):
            migrate.up(connection, folder=sql)
        connection.rollback()
    assert rows("SELECT count(*) FROM pg_class WHERE relname IN ('t', 'callers')") == [(0,)]


def test_another_kind_of_connection_is_refused(sql: Path) -> None:
    """For an asynchronous one the error names asyncio.to_thread."""
    with pytest.raises(migrate.UsageError, match="object"):
        migrate.up(object(), folder=sql)  # type: ignore[arg-type]


def test_an_empty_url_is_no_database(monkeypatch: pytest.MonkeyPatch, sql: Path, database: str) -> None:
    """A variable that is unset must not lead to libpq's default server; libpq's variables name one."""
    for name in dsn.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(migrate.UsageError, match="no database is named"):
        migrate.up(" ", folder=sql)
    for key, value in conninfo_to_dict(database).items():
        monkeypatch.setenv({"dbname": "PGDATABASE"}.get(key, f"PG{key.upper()}"), str(value))
    assert len(migrate.up("", folder=sql).applied) == 2


def test_threads_migrate_at_once(database: str, sql: Path, rows: Rows) -> None:
    """They are runs like any others: each file is applied once, and each run ends well."""
    results = at_once(4, lambda: migrate.up(database, folder=sql))
    assert sum(len(result.applied) for result in results) == 2
    assert rows("SELECT count(*) FROM t") == [(2,)]


def test_events_are_reported_one_at_a_time(database: str, sql: Path) -> None:
    """They are values, in their order."""
    told: list[migrate.events.Event] = []
    (sql / "3_c.sql").write_text("DO $$ BEGIN RAISE NOTICE 'hello'; END $$")
    migrate.up(database, folder=sql, tell=told.append)
    kinds = [type(one).__name__ for one in told]
    assert kinds == ["Planned", *["Started", "Applied"] * 2, "Started", "Noticed", "Applied"]


def test_a_table_and_a_schema_can_be_named(database: str, sql: Path, rows: Rows) -> None:
    """As --table and ?schema= do."""
    migrate.up(database, folder=sql, schema="app")
    migrate.up(database, folder=sql, schema="other", table="ops.history")
    found = (
        "SELECT relnamespace::regnamespace::text || '.' || relname FROM pg_class WHERE relkind = 'r' AND oid > 16384"
    )
    assert {name for (name,) in rows(found)} >= {"app.schema_migrations", "app.t", "other.t", "ops.history"}


def test_migrations_travel_in_a_package(
    database: str, sql: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connect: Connect
) -> None:
    """A package's resources, on disk or in an archive, are a folder; paths say where they are."""
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("zipped_app/__init__.py", "")
        for file in sorted(sql.iterdir()):
            archive.write(file, f"zipped_app/sql/{file.name}")
    monkeypatch.syspath_prepend(str(tmp_path / "app.zip"))
    result = migrate.up(database, folder=resources.files("zipped_app") / "sql")
    assert [one.path.endswith(f"zipped_app/sql/{one.version}_a.sql") for one in result.applied] == [True, True]
    assert connect().execute("SELECT count(*) FROM t").fetchone() == (2,)


def test_the_command_line_takes_a_package_too(database: str, sql: Path, tmp_path: Path) -> None:
    """--dir PACKAGE:PATH; a package that is not there is wrong usage."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "__init__.py").touch()
    sql.rename(tmp_path / "app" / "sql")
    command = [sys.executable, "-m", "outreach_migrate", "--database", database, "--dir"]
    ended = subprocess.run([*command, "app:sql", "up"], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, "2 migrations applied" in ended.stdout) == (0, True), ended
    ended = subprocess.run([*command, "nix:sql", "up"], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, "there is no package nix" in ended.stderr) == (2, True), ended
