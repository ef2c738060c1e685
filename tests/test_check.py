"""`check`: it reports trouble, and changes nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, LiteralString

import fix_servers
import psycopg
import pytest
from fix_cli import Migrate, Rows
from fix_private_server import PrivateServer
from fix_proxy import Proxy
from fix_servers import Connect
from fix_waiting import PATIENCE, until

from outreach_migrate.checks import database
from outreach_migrate.files import migrations
from outreach_migrate.run import request

CONCURRENTLY = "-- migrate: no-transaction\ncreate index concurrently if not exists a_b on a (b);"
READER = "create role reader login; grant select on schema_migrations to reader;"


@pytest.fixture
def git(migrate: Migrate) -> Callable[..., str]:
    """A function that runs git in the test's folder, which is a repository on its branch main."""

    def run(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *arguments], cwd=migrate.folder, check=True, capture_output=True, text=True
        ).stdout

    run("init", "-q", "-b", "main")
    migrate.write({"1_a.sql": "create table a (b int);", "3_c.sql": "create table c (d int);"})
    run("add", ".")
    run("commit", "-qm", "x")
    run("checkout", "-qb", "feature")
    return run


def findings(migrate: Migrate, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = migrate("--json", *arguments).json["findings"]
    return found


def ask(url: str, query: LiteralString, *values: object) -> Any:
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        row = connection.execute(query, values or None).fetchone()
        return row and row[0]


def has_received(standby: str, primary: PrivateServer) -> bool:
    """Whether a standby has all that its primary has made durable by now."""
    end = ask(primary.url, "SELECT pg_current_wal_flush_lsn()::text")
    return bool(ask(standby, "SELECT pg_last_wal_receive_lsn() >= %s::pg_lsn", end))


def has_replayed(standby: str, primary: PrivateServer) -> bool:
    """Whether a standby has carried out all that its primary has made durable by now."""
    end = ask(primary.url, "SELECT pg_current_wal_flush_lsn()::text")
    return bool(ask(standby, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", end))


def test_good_files_pass(migrate: Migrate) -> None:
    """No file that `up` would run is reported, and the exit code is 0."""
    run = migrate("check", files={"1_a.sql": "create table a (b int);", "2_b.sql": CONCURRENTLY})
    assert (run.exit_code, run.stdout) == (0, "0 errors, 0 warnings.\n")


def test_all_problems_are_reported_at_once(migrate: Migrate) -> None:
    """Each kind of trouble has its finding with its place, and the exit code is 1."""
    run = migrate(
        "check",
        files={
            "1_a.sql": "select 1;\n  commit;",
            "01_b.sql": "select 1",
            "2_c.sql": "-- migrate: sideways\nselect 1",
            "3_d.sql": b"\xff",
            "4_e.sql": "select 1;\nvacuum;",
            "nonsense.sql": "",
        },
    )
    assert run.exit_code == 1
    for place in ["1_a.sql:2:3: ", "1_a.sql: ", "2_c.sql:1:", "3_d.sql:1: ", "4_e.sql:2:1: ", "nonsense.sql: "]:
        assert f"sql/{place}" in run.stdout, place


def test_an_empty_file_is_a_warning(migrate: Migrate) -> None:
    """A file without a statement is warned of, and an error with --strict."""
    migrate.write({"1_a.sql": "-- nothing\n"})
    assert (migrate("check").exit_code, migrate("check", "--strict").exit_code) == (0, 1)
    assert [one["severity"] for one in findings(migrate, "check")] == ["warning"]


def test_files_can_be_chosen(migrate: Migrate) -> None:
    """With FILE only these are looked at; one of another folder is refused."""
    migrate.write({"1_a.sql": "commit", "2_b.sql": "select 1"})
    (migrate.folder / "3_c.sql").write_text("select 1")
    assert migrate("check", "sql/2_b.sql").exit_code == 0
    assert migrate("check", "sql/1_a.sql", "sql/2_b.sql").exit_code == 1
    assert "not a migration of the folder: 3_c.sql" in migrate("check", "3_c.sql").stderr


def test_no_driver_is_imported(migrate: Migrate) -> None:
    """--help, --version, new and check without a database import no psycopg."""
    migrate.write({"1_a.sql": "select 1"})
    script = (
        "import sys; from outreach_migrate import cli\n"
        "try: cli.main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('psycopg' in sys.modules, file=sys.stderr)"
    )
    for arguments in (["--help"], ["--version"], ["up", "--help"], ["new", "x"], ["check"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            cwd=migrate.folder,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == "False\n", arguments


def test_findings_are_workflow_commands_on_github(migrate: Migrate) -> None:
    """--format github writes one command a finding, its line ends, colons and commas escaped."""
    run = migrate("check", "--format", "github", files={"1_a,b.sql": "select 1;\n commit;"})
    assert run.stdout.startswith(
        "::error file=sql/1_a%2Cb.sql,line=2,col=2,title=outreach-migrate::COMMIT cannot be used in a migration%0A"
    )
    assert run.stdout.count("\n") == 1


def test_a_new_file_must_be_newer_than_the_base(migrate: Migrate, git: Callable[..., str]) -> None:
    """A file that --base doesn't have must sort after all that it has, whether or not it is committed."""
    assert findings(migrate, "check", "--base", "main") == []
    migrate.write({"2_b.sql": "select 1", "4_d.sql": "select 1"})
    (found,) = findings(migrate, "check", "--base", "main")
    assert (found["path"], "version 3 is in main" in found["message"]) == ("sql/2_b.sql", True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sql: (sql / "3_c.sql").write_text("create table c (e int);"), "changed"),
        (lambda sql: (sql / "3_c.sql").unlink(), "renamed or deleted"),
        (lambda sql: (sql / "3_c.sql").rename(sql / "4_c.sql"), "renamed or deleted"),
    ],
)
def test_a_file_of_the_base_must_stay(
    migrate: Migrate, git: Callable[..., str], change: Callable[[Path], object], message: str
) -> None:
    """A file that --base has must not be changed, renamed or deleted."""
    change(migrate.files)
    found = findings(migrate, "check", "--base", "main")
    assert [(one["path"], one["message"].partition(":")[0]) for one in found] == [("sql/3_c.sql", message)]


def test_files_that_the_base_has_gained_are_not_missed(migrate: Migrate, git: Callable[..., str]) -> None:
    """A file that came to --base after the branches parted is not deleted here; our new one must be newer still."""
    git("checkout", "-q", "main")
    migrate.write({"5_e.sql": "select 1"})
    git("add", ".")
    git("commit", "-qm", "y")
    git("checkout", "-q", "feature")
    assert findings(migrate, "check", "--base", "main") == []
    migrate.write({"4_d.sql": "select 1"})
    assert [one["path"] for one in findings(migrate, "check", "--base", "main")] == ["sql/4_d.sql"]


@pytest.mark.parametrize(("base", "said"), [("", "it is empty"), (" ", "it is empty"), ("--all", "begins with -")])
def test_a_base_that_names_no_revision_is_wrong_usage(
    migrate: Migrate, git: Callable[..., str], base: str, said: str
) -> None:
    """A variable that CI leaves empty must not pass for a comparison, nor reach git as an option."""
    run = migrate("check", f"--base={base}")
    assert (run.exit_code, said in run.stderr) == (2, True)


def test_a_base_without_the_folder_is_reported(migrate: Migrate, git: Callable[..., str]) -> None:
    """A revision that has no such folder, as after --dir was misspelt, has nothing to compare with."""
    migrate.files.rename(migrate.folder / "other")
    run = migrate("--dir", "other", "check", "--base", "main")
    assert (run.exit_code, "main has no folder other: there is nothing to compare with" in run.stderr) == (1, True)


def test_an_unknown_revision_is_reported(migrate: Migrate, git: Callable[..., str]) -> None:
    """A --base that isn't there is an error with git's message."""
    run = migrate("check", "--base", "nowhere")
    assert run.exit_code == 1
    assert "git ls-tree: " in run.stderr


def test_squawk_knows_each_files_transaction(migrate: Migrate) -> None:
    """--lint warns of an index that blocks writes, not of one built concurrently, nor of missing timeouts."""
    migrate.write({"1_a.sql": "alter table a add column b text;\ncreate index é on a (b);", "2_b.sql": CONCURRENTLY})
    found = findings(migrate, "check", "--lint")
    assert [(one["rule"], one["path"], one["line"], one["column"], one["severity"]) for one in found] == [
        ("require-concurrent-index-creation", "sql/1_a.sql", 2, 1, "warning")
    ]
    assert migrate("check", "--lint", "--strict").exit_code == 1


def test_squawks_columns_count_characters(migrate: Migrate) -> None:
    """The place of a finding of squawk's is in characters, also after one of several bytes."""
    migrate.write({"1_a.sql": "/* é😀 */ create index a_b on a (b);"})
    assert [one["column"] for one in findings(migrate, "check", "--lint")] == [10]


def test_rows_are_not_linted(migrate: Migrate) -> None:
    """Squawk reads the SQL around the rows of a COPY, and its findings have their lines in the file."""
    migrate.write({"1_a.sql": "copy a from stdin;\n1\tit's\n\\.\nalter table a add b int not null;"})
    found = findings(migrate, "check", "--lint")
    assert {(one["path"], one["line"]) for one in found} == {("sql/1_a.sql", 4)}
    assert "syntax-error" not in {one["rule"] for one in found}


def test_rules_that_are_false_here_are_left_out(migrate: Migrate) -> None:
    """No warning of an index built concurrently without IF NOT EXISTS, nor of BEGIN and COMMIT around a file."""
    text = "-- migrate: no-transaction\ncreate index concurrently a_b on a (b);\ndrop index concurrently a_b;"
    migrate.write({"1_a.sql": "BEGIN;\nselect 1;\nCOMMIT;", "2_b.sql": text, "3_c.sql": CONCURRENTLY})
    assert findings(migrate, "check", "--lint") == []


def test_the_linters_sentence_is_said_once(migrate: Migrate) -> None:
    """The files follow each other in order, and below the first place stand the other places of the same sentence."""
    text = "create index {0} on a (b);\ncreate index {0}_2 on a (b);"
    alone = "-- migrate: no-transaction\ncreate index a_i on a (b);"
    migrate.write({"10_c.sql": text.format("c"), "9_b.sql": alone, "1_a.sql": text.format("a")})
    lines = migrate("check", "--lint").stdout.splitlines()
    assert lines[0].startswith("sql/1_a.sql:1:1: warning: ")
    places = ["sql/1_a.sql:2:1", "sql/9_b.sql:2:1", "sql/10_c.sql:1:1", "sql/10_c.sql:2:1"]
    assert lines[-5:] == [*(f"also at {place}" for place in places), "0 errors, 5 warnings."]
    assert [one["path"] for one in findings(migrate, "check", "--lint")] == [
        *["sql/1_a.sql"] * 2,
        "sql/9_b.sql",
        *["sql/10_c.sql"] * 2,
    ]


def test_squawks_own_comments_are_heard(migrate: Migrate) -> None:
    """A finding that a comment tells squawk to ignore is not reported."""
    migrate.write({"1_a.sql": "-- squawk-ignore require-concurrent-index-creation\ncreate index a_b on a (b);"})
    assert findings(migrate, "check", "--lint") == []


def test_only_pending_files_are_linted(migrate: Migrate, git: Callable[..., str]) -> None:
    """The files that are new against --base are linted, or those that a database hasn't yet."""
    migrate("up")
    migrate.write({"4_d.sql": "create index c_d on c (d);"})
    for arguments in (["check", "--lint", "--base", "main"], ["--database", migrate.url, "check", "--lint"]):
        assert [one["path"] for one in findings(migrate, *arguments)] == ["sql/4_d.sql"]


def test_the_linter_knows_the_cadence_engines_index(migrate: Migrate) -> None:
    """check --lint warns that the index of cadence_engine_columns blocks writes."""
    sql = Path(__file__).parents[1] / "sql"
    found = findings(migrate, "--dir", str(sql), "check", "--lint")
    assert [Path(one["path"]).name for one in found if one["rule"] == "require-concurrent-index-creation"] == [
        "20260115000000_cadence_engine_columns.sql"
    ]


def test_the_history_is_compared(migrate: Migrate) -> None:
    """With --database, files that contradict the history are reported, and nothing is made."""
    migrate.write({"1_a.sql": "create table a (b int);", "2_b.sql": "create table b (c int);"})
    migrate("up")
    migrate.write({"1_a.sql": "create table a (c int);"})
    (migrate.files / "2_b.sql").rename(migrate.files / "3_b.sql")
    found = findings(migrate, "--database", migrate.url, "check")
    assert sorted(one["message"].partition(":")[0] for one in found) == ["edited", "missing"]


def test_nothing_is_made_in_the_database(migrate: Migrate, rows: Rows) -> None:
    """check --database on an empty database leaves it empty."""
    run = migrate("--database", migrate.url, "check", files={"1_a.sql": "create table a (b int);"})
    assert run.exit_code == 0
    assert rows("select count(*) from pg_class where relnamespace = 'public'::regnamespace") == [(0,)]


def test_an_invalid_index_is_reported(migrate: Migrate, rows: Rows) -> None:
    """An index that a failed build has left is a warning that names it."""
    rows("create table a as select 1 as b from generate_series(1, 2)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        rows("create unique index concurrently a_b on a (b)")
    migrate.write({"1_x.sql": "select 1"})
    (found,) = findings(migrate, "--database", migrate.url, "check")
    assert (found["severity"], found["message"]) == ("warning", "the index a_b on a is invalid")


def test_a_long_transaction_in_the_way_is_reported(migrate: Migrate, connect: Connect, rows: Rows) -> None:
    """A transaction that has long been open on a table that a pending file names is a warning at that file."""
    rows('create table "Other" (a int); create table "Step" (a int)')
    other = connect()
    other.execute('begin; select * from "Step"')
    migrate.write(
        {"1_x.sql": 'alter table "Step" add column b int;', "2_y.sql": 'alter table "Other" add column b int;'}
    )
    assert findings(migrate, "--database", migrate.url, "check") == []
    age = "select extract(epoch from clock_timestamp() - xact_start)::float8 from pg_stat_activity where pid = %s"
    ((seconds,),) = rows(age, other.info.backend_pid)
    assert seconds < 60
    _, (found,) = database.look(request.of(migrate.url, migrations.read(migrate.files)), lambda _: None, long=seconds)
    assert not found.is_error
    assert str(found.problem).startswith(f"{migrate.files}/1_x.sql: ")
    assert f"pid {other.info.backend_pid} " in str(found.problem)


@pytest.fixture
def behind(
    private_server: Callable[..., PrivateServer], standby: Callable[..., str], migrate: Migrate
) -> tuple[str, PrivateServer]:
    """A standby that has received a migration and does not replay it, and its primary."""
    primary = private_server()
    url = standby(primary)
    ask(url, "SELECT pg_wal_replay_pause()")
    migrate("up", files={"1_a.sql": "create table a (b int);"}, url=primary.url)
    until(lambda: has_received(url, primary))
    return url, primary


def test_a_lagging_standby_is_reported(behind: tuple[str, PrivateServer], migrate: Migrate) -> None:
    """A standby is a warning as long as it has not replayed all WAL that it has received."""
    url, primary = behind
    (found,) = findings(migrate, "--database", url, "check")
    assert (found["severity"], found["path"]) == ("warning", None)
    assert re.match(r"the standby lags: it has not replayed [\d,]+ bytes that it has received, and ", found["message"])
    ask(url, "SELECT pg_wal_replay_resume()")
    until(lambda: has_replayed(url, primary))
    assert findings(migrate, "--database", url, "check") == []


def test_a_standby_of_an_idle_primary_does_not_lag(
    private_server: Callable[..., PrivateServer], standby: Callable[..., str], migrate: Migrate
) -> None:
    """A standby that has replayed everything does not lag, however old the last transaction is. Any role may look."""
    primary = private_server()
    url = standby(primary)
    migrate("up", files={"1_a.sql": READER}, url=primary.url)
    age = "SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())"
    until(lambda: has_replayed(url, primary) and ask(url, age) > 1)
    assert findings(migrate, "--database", fix_servers.url(url, user="reader"), "check") == []


def test_a_standby_that_is_about_to_catch_up_does_not_lag(behind: tuple[str, PrivateServer], migrate: Migrate) -> None:
    """A standby may replay new WAL a moment later, so only a delay that lasts is reported."""
    url, primary = behind
    assert not has_replayed(url, primary)
    with Proxy(url) as between:
        asked = request.of(between.url, migrations.read(migrate.files))
        # by the fifteenth query it was seen to be behind, more than once
        between.before("Q", 15, lambda: ask(url, "SELECT pg_wal_replay_resume()"))
        _, found = database.look(asked, lambda _: None, catching_up=PATIENCE)
    assert found == []
    assert ask(url, "SELECT pg_is_wal_replay_paused()") is False


def test_a_standby_without_its_primary_is_reported(
    private_server: Callable[..., PrivateServer], standby: Callable[..., str], migrate: Migrate
) -> None:
    """A standby that nobody streams to is a warning: it has replayed all it has, but may not have all."""
    primary = private_server()
    url = standby(primary)
    migrate("up", files={"1_a.sql": "create table a (b int);"}, url=primary.url)
    until(lambda: has_replayed(url, primary))
    primary.stop()
    (found,) = until(lambda: findings(migrate, "--database", url, "check"))
    assert found["severity"] == "warning"
    assert found["message"].startswith("the standby has no connection to its primary, its last transaction is ")


def test_a_standby_that_does_not_say_how_far_it_lags_is_reported(
    private_server: Callable[..., PrivateServer], standby: Callable[..., str], migrate: Migrate
) -> None:
    """Where the role may not ask for the lag, that is a warning and not a failure."""
    primary = private_server()
    revoke = "revoke execute on function pg_last_wal_receive_lsn from public;"
    migrate("up", files={"1_a.sql": READER + revoke}, url=primary.url)
    (found,) = findings(migrate, "--database", fix_servers.url(standby(primary), user="reader"), "check")
    assert found["severity"] == "warning"
    assert found["message"].startswith("the standby does not say how far it lags, ")


def test_missing_privileges_are_reported(migrate: Migrate, rows: Rows, role: tuple[str, str]) -> None:
    """A role that can't record a run, or doesn't own a table that is altered, is warned before it tries."""
    rows("create table mine (a int); revoke create on schema public from public")
    migrate.write({"1_a.sql": "select 1;\nalter table mine add column b int;"})
    found = findings(migrate, "--database", role[1], "check")
    assert [(one["line"], one["severity"]) for one in found] == [(None, "error"), (2, "error")]
    assert "lacks CREATE on the schema public" in found[0]["message"]
    assert "the table mine belongs to" in found[1]["message"]


def test_a_strangers_table_is_a_finding(migrate: Migrate, rows: Rows) -> None:
    """Where the history is another tool's, check says so instead of failing."""
    rows("create table schema_migrations (version text)")
    migrate.write({"1_a.sql": "select 1"})
    (found,) = findings(migrate, "--database", migrate.url, "check")
    assert "Rails' or dbmate's" in found["message"]


def test_the_document_says_whether_it_is_ok(migrate: Migrate) -> None:
    """In JSON `ok` agrees with the exit code."""
    migrate.write({"1_a.sql": "-- nothing"})
    for arguments in (["check"], ["check", "--strict"]):
        run = migrate("--json", *arguments)
        assert json.loads(run.stdout)["ok"] == (run.exit_code == 0)
