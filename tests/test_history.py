"""The history's table: where it is looked for, and which relation is none."""

from __future__ import annotations

import re
from typing import Any, LiteralString

import pytest
from fix_cli import TABLES, THREE, Migrate, Recorded, Result, Rows
from fix_servers import Connect, each_way
from psycopg import sql

ONE = {"1_a.sql": "create table a ()"}
LOOKS = [["up"], ["up", "--dry-run"], ["status"], ["rehearse"]]
HISTORIES: LiteralString = """
    SELECT attrelid::regclass::text FROM pg_attribute WHERE attname = 'statements_begun' AND attnum > 0 ORDER BY 1"""


def problems(run: Result) -> list[dict[str, Any]]:
    """The reason why a command could not do its work."""
    assert run.exit_code == 1, run
    found: list[dict[str, Any]] = run.json["error"]["problems"]
    return found


def problem(run: Result) -> str:
    """The one thing that kept a command from its work, with its hint."""
    [one] = problems(run)
    return f"{one['message']}\n{one['hint']}"


def mend(rows: Rows, told: str) -> None:
    """Run the command of a hint."""
    for statement in re.findall(r"(?:ALTER|BEGIN|GRANT|UPDATE)\b.*?;(?= [a-z]|$)", told.splitlines()[-1])[:1]:
        rows(statement)


class TestSearchPath:
    def test_a_new_search_path_of_the_database_changes_nothing(
        self, migrate: Migrate, rows: Rows, connect: Connect
    ) -> None:
        """A file that sets the database's search path has the next run find the same history."""
        name = sql.Identifier(connect().info.dbname).as_string()
        change = f"create schema app; alter database {name} set search_path = app"
        assert migrate("up", files={**ONE, "2_b.sql": change}).exit_code == 0
        assert migrate("up").stdout == "Nothing is pending: 2 migrations are applied.\n"
        assert migrate("status", "--check").exit_code == 0
        assert rows(HISTORIES) == [("schema_migrations",)]

    @pytest.mark.parametrize("change", ["CREATE SCHEMA {0} AUTHORIZATION {0}", "ALTER ROLE {0} SET search_path = app"])
    def test_a_role_s_own_search_path_changes_nothing(
        self, migrate: Migrate, rows: Rows, connect: Connect, role: tuple[str, str], change: LiteralString
    ) -> None:
        """A schema of the role's name, or a setting of the role's, leads to no other history, nor away from it."""
        one = {"1_a.sql": "SELECT 1;"}
        rows("GRANT CREATE ON SCHEMA public TO PUBLIC")
        connect().execute(sql.SQL(change).format(sql.Identifier(role[0])))
        assert migrate("up", files=one, url=role[1]).exit_code == 0
        assert migrate("up").stdout == "Nothing is pending: 1 migration is applied.\n"
        assert migrate("up", files={"2_b.sql": "SELECT 1;"}, url=role[1]).exit_code == 0
        assert rows("SELECT version FROM public.schema_migrations ORDER BY 1") == [("1",), ("2",)]

    @pytest.mark.parametrize("path", ["", "nowhere", "app"])
    def test_a_first_run_makes_it_in_public(
        self, migrate: Migrate, recorded: Recorded, rows: Rows, connect: Connect, path: LiteralString
    ) -> None:
        """Wherever the search path leads, the table is made in public; --table NAME is there as well."""
        name = sql.Identifier(connect().info.dbname)
        connect().execute(sql.SQL("ALTER DATABASE {} SET search_path = {}").format(name, sql.Literal(path)))
        assert migrate("up", files={"1_a.sql": "select 1"}).exit_code == 0
        assert recorded() == ["a"]
        assert migrate("--table", "other", "up").exit_code == 0
        assert rows("SELECT version FROM public.other") == [("1",)]

    def test_without_public_the_option_is_named(self, migrate: Migrate, rows: Rows) -> None:
        """Where there is no schema public a run makes none, and says how to choose another place."""
        rows("DROP SCHEMA public; CREATE SCHEMA app")
        for command in (*LOOKS, ["--table", "history", "up"]):
            told = problem(migrate("--json", *command, files=ONE))
            assert "no schema public" in told
            assert "--table SCHEMA." in told
        assert migrate("--table", "app.history", "up", files={"1_a.sql": "select 1"}).exit_code == 0
        assert rows("SELECT nspname FROM pg_namespace WHERE nspname = 'public'") == []


@pytest.fixture
def elsewhere(migrate: Migrate, rows: Rows) -> None:
    """Two histories in other schemas."""
    migrate.write(ONE)
    for table in ("app.schema_migrations", "ops.history"):
        assert migrate("--table", table, "up").exit_code == 0
        rows("DROP TABLE a")


@pytest.mark.usefixtures("elsewhere")
class TestElsewhere:
    @pytest.mark.parametrize("command", [*LOOKS, ["status", "--check"]])
    def test_it_is_refused_while_another_may_be_meant(self, migrate: Migrate, rows: Rows, command: list[str]) -> None:
        """Where public has no history and another schema has one, nothing is run; both ways to choose are named."""
        before = rows(HISTORIES)
        told = problem(migrate("--json", *command))
        for words in ("2 ", "app.schema_migrations", "ops.history", "--table", "?schema="):
            assert words in told
        assert rows(HISTORIES) == before
        assert rows("SELECT to_regclass('a')") == [(None,)]

    def test_check_has_it_as_a_finding(self, migrate: Migrate) -> None:
        """With a database, check reports the errors of up."""
        run = migrate("--json", "--database", migrate.url, "check")
        assert run.exit_code == 1
        assert "app.schema_migrations" in run.json["findings"][0]["message"]

    def test_three_are_named(self, migrate: Migrate, rows: Rows) -> None:
        """Of many, three are named, those of the table's own name first, and their number."""
        rows("CREATE TABLE app.b AS TABLE ops.history; CREATE TABLE app.c AS TABLE ops.history")
        told = problem(migrate("--json", "up"))
        assert "4 " in told
        assert re.findall(r"(?:app|ops)\.\w+", told.splitlines()[0]) == ["app.schema_migrations", "app.b", "app.c"]

    def test_the_url_is_offered_where_it_can_choose(self, migrate: Migrate, rows: Rows) -> None:
        """?schema= chooses a table of the usual name only: for another one the hint has --table alone."""
        rows("DROP TABLE app.schema_migrations")
        [found] = migrate("--json", "up").json["error"]["problems"]
        assert "--table ops.history." in found["hint"]
        assert "?schema=" not in found["hint"]

    def test_a_hidden_one_counts(self, migrate: Migrate, role: tuple[str, str]) -> None:
        """The error names the history there also to a role without any right to the other schema."""
        told = problem(migrate("--json", "up", url=role[1]))
        assert "app.schema_migrations" in told

    @pytest.mark.parametrize("way", ["flag", "variable", "pyproject", "schema"])
    def test_a_choice_is_taken(self, migrate: Migrate, rows: Rows, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
        """--table and ?schema= count wherever they stand, also where they name the default."""
        table = "public.schema_migrations"
        if way == "pyproject":
            (migrate.folder / "pyproject.toml").write_text(f"[tool.outreach-migrate]\ntable = '{table}'\n")
        if way == "variable":
            monkeypatch.setenv("OUTREACH_MIGRATE_TABLE", table)
        url = f"{migrate.url}{'&' if '?' in migrate.url else '?'}schema=public"
        run = migrate(*(["--table", table] if way == "flag" else []), "up", url=url if way == "schema" else None)
        assert run.exit_code == 0, run
        assert rows("SELECT version FROM public.schema_migrations") == [("1",)]

    def test_one_in_its_place_is_enough(self, migrate: Migrate) -> None:
        """Other histories are nobody's business where public has one."""
        migrate("--table", "public.schema_migrations", "up")
        assert migrate("status", "--check").exit_code == 0


def test_another_history_is_named_as_the_option_takes_it(migrate: Migrate) -> None:
    """A history that is found under an odd name can be named as the hint does."""
    migrate("--table", '"My ""app"".x".hist', "up", files=ONE)
    named = re.search(r"--table '(.*)'", problem(migrate("--json", "up")))
    assert named
    assert migrate("--table", named[1], "up").stdout.startswith("Nothing is pending: 1")


class TestHidden:
    @pytest.mark.parametrize("command", [*LOOKS, ["status", "--check"]])
    @pytest.mark.parametrize("lacks", ["USAGE", "SELECT"])
    def test_what_the_role_may_not_see_is_not_absent(
        self, migrate: Migrate, rows: Rows, role: tuple[str, str], command: list[str], lacks: str
    ) -> None:
        """A history that the role has no right to is an error with the GRANT that it needs."""
        migrate("up", files=ONE)
        if lacks == "USAGE":
            rows("REVOKE USAGE ON SCHEMA public FROM PUBLIC; GRANT SELECT ON schema_migrations TO PUBLIC")
        told = problem(migrate("--json", *command, url=role[1]))
        assert role[0] in told
        assert f"GRANT {lacks}" in told
        mend(rows, told)
        assert migrate("status", "--check", url=role[1]).exit_code == 0

    def test_another_one_is_named_as_well(self, migrate: Migrate, rows: Rows, role: tuple[str, str]) -> None:
        """Where the history is hidden and another stands elsewhere, that may be the one."""
        migrate("--table", "app.history", "up", files=ONE)
        rows("DROP TABLE a")
        migrate("--table", "public.schema_migrations", "up")
        hidden, other = problems(migrate("--json", "up", url=role[1]))
        assert "may not read" in hidden["message"]
        assert "app.history" in other["message"]

    @pytest.mark.parametrize("forced", [False, True])
    def test_row_security_that_applies_is_refused(
        self, migrate: Migrate, rows: Rows, role: tuple[str, str], forced: bool
    ) -> None:
        """Row security hides entries from the role that it applies to: the owner only where it is forced."""
        migrate("up", files=ONE)
        rows("GRANT ALL ON schema_migrations TO PUBLIC; ALTER TABLE schema_migrations ENABLE ROW LEVEL SECURITY")
        assert migrate("status", "--check").exit_code == 0
        if forced:
            rows("ALTER TABLE schema_migrations FORCE ROW LEVEL SECURITY")
            rows(sql.SQL("ALTER TABLE schema_migrations OWNER TO {}").format(sql.Identifier(role[0])).as_string())
        for command in LOOKS:
            told = problem(migrate("--json", *command, url=role[1]))
            assert "row security" in told
        mend(rows, told)
        assert migrate("up", url=role[1]).stdout.startswith("Nothing is pending: 1")

    def test_row_security_off_for_the_role_is_refused_as_well(
        self, migrate: Migrate, rows: Rows, connect: Connect, role: tuple[str, str]
    ) -> None:
        """Where the role has row_security off, reading fails; the error gives the same reason."""
        migrate("up", files=ONE)
        rows("GRANT ALL ON schema_migrations TO PUBLIC; ALTER TABLE schema_migrations ENABLE ROW LEVEL SECURITY")
        connect().execute(sql.SQL("ALTER ROLE {} SET row_security = off").format(sql.Identifier(role[0])))
        assert "row security" in problem(migrate("--json", "up", url=role[1]))


KEYLESS: dict[str, tuple[LiteralString, str]] = {
    "no primary key": ("ALTER TABLE schema_migrations DROP CONSTRAINT schema_migrations_pkey", "primary key"),
    "no unique version": ("ALTER TABLE schema_migrations DROP CONSTRAINT schema_migrations_version_key", "unique"),
    "another primary key": (
        "ALTER TABLE schema_migrations DROP CONSTRAINT schema_migrations_pkey, ADD CONSTRAINT k PRIMARY KEY (name)",
        "primary key",
    ),
    "a wider key": (
        """ALTER TABLE schema_migrations DROP CONSTRAINT schema_migrations_version_key, ADD UNIQUE (version, name)""",
        "unique",
    ),
    "a partial key": (
        """ALTER TABLE schema_migrations DROP CONSTRAINT schema_migrations_version_key;
           CREATE UNIQUE INDEX ON schema_migrations (version) WHERE origin = 'run'""",
        "unique",
    ),
    "a deferred key": (
        """ALTER TABLE schema_migrations DROP CONSTRAINT schema_migrations_pkey,
           ADD CONSTRAINT k PRIMARY KEY (position) DEFERRABLE INITIALLY DEFERRED""",
        "primary key",
    ),
    "a copy": (
        "ALTER TABLE schema_migrations RENAME TO kept; CREATE TABLE schema_migrations AS TABLE kept",
        "primary key on position and no unique key on version",
    ),
    "a view": ("ALTER TABLE schema_migrations RENAME TO kept; CREATE VIEW schema_migrations AS TABLE kept", "a view"),
    "a materialized view": (
        "ALTER TABLE schema_migrations RENAME TO kept; CREATE MATERIALIZED VIEW schema_migrations AS TABLE kept",
        "a materialized view",
    ),
    "a partitioned table": (
        """ALTER TABLE schema_migrations RENAME TO kept;
           CREATE TABLE schema_migrations (LIKE kept) PARTITION BY HASH (position);
           CREATE TABLE part PARTITION OF schema_migrations FOR VALUES WITH (MODULUS 1, REMAINDER 0);
           INSERT INTO schema_migrations TABLE kept""",
        "a partitioned table",
    ),
    "a foreign table": (
        """ALTER TABLE schema_migrations RENAME TO kept;
           CREATE FOREIGN DATA WRAPPER none; CREATE SERVER nowhere FOREIGN DATA WRAPPER none;
           CREATE FOREIGN TABLE schema_migrations (position int, version text, name text, checksum text,
               started_at timestamptz, finished_at timestamptz, statements_done int, done_checksum text,
               statements_begun int, applied_by text, origin text) SERVER nowhere""",
        "a foreign table",
    ),
    "an unlogged table": ("ALTER TABLE schema_migrations SET UNLOGGED", "unlogged"),
}


@pytest.mark.parametrize("what", KEYLESS)
def test_what_lets_two_runs_apply_one_file_is_refused(migrate: Migrate, rows: Rows, what: str) -> None:
    """A relation of our columns that is no table with both keys is refused, and the hint's SQL mends it."""
    assert migrate("up", files=ONE).exit_code == 0
    change, words = KEYLESS[what]
    rows(change)
    for command in LOOKS:
        told = problem(migrate("--json", *command, files={"2_b.sql": "create table b ()"}))
        assert words in told
        assert "--table" in told or "ALTER" in told
    assert rows("SELECT to_regclass('b')") == [(None,)]
    if what == "a foreign table":  # which has no data to read
        return
    mend(rows, told)
    run = migrate("up")
    assert run.exit_code == 0, run
    assert rows("SELECT position, version FROM schema_migrations ORDER BY 1") == [(1, "1"), (2, "2")]


IN_THE_WAY: dict[str, LiteralString] = {
    "an index": "CREATE TABLE x (a int); CREATE INDEX schema_migrations ON x (a)",
    "a sequence": "CREATE SEQUENCE schema_migrations",
    "a composite type": "CREATE TYPE schema_migrations AS (a int)",
    "an enum": "CREATE TYPE schema_migrations AS ENUM ()",
    "a domain": "CREATE DOMAIN schema_migrations AS int",
}


@pytest.mark.parametrize("what", IN_THE_WAY)
def test_another_relation_of_the_tables_name_is_refused(migrate: Migrate, rows: Rows, what: str) -> None:
    """An index, a sequence or a type of the table's name is named as that; the hint leads to another name."""
    rows(IN_THE_WAY[what])
    for command in LOOKS:
        told = problem(migrate("--json", *command, files=ONE))
        assert f"public.schema_migrations is {what}" in told
    table = re.search(r"--table (\S+)", told)
    assert table
    assert migrate("--table", table[1], "up").exit_code == 0


@pytest.mark.parametrize("column", ["started_at", "finished_at"])
@pytest.mark.parametrize("moment", ["infinity", "-infinity", "0044-03-15 BC", "20260-01-01"])
def test_a_time_that_python_can_not_hold_is_reported(
    migrate: Migrate, rows: Rows, column: LiteralString, moment: str
) -> None:
    """An entry whose time is out of any calendar is named, with the statement that puts it right."""
    migrate("up", files={**ONE, "2_b.sql": "select 1"})
    rows(f"UPDATE schema_migrations SET {column} = %s::text::timestamptz WHERE position = 2", moment)
    for command in LOOKS:
        told = problem(migrate("--json", *command))
        assert f"the entry at position 2 (version 2) has {column} " in told
    mend(rows, told)
    assert migrate("status", "--check").exit_code == 0


@pytest.mark.parametrize("column", ["version", "checksum", "started_at"])
def test_an_entry_that_lacks_a_value_is_refused(migrate: Migrate, rows: Rows, column: LiteralString) -> None:
    """A null where the table has none, as a copy may hold, is an error that names the entry and the column."""
    migrate("up", files=ONE)
    rows(f"ALTER TABLE schema_migrations ALTER {column} DROP NOT NULL; UPDATE schema_migrations SET {column} = NULL")
    assert f"the entry at position 1 has no {column}" in problem(migrate("--json", "status"))


class TestLocked:
    def test_a_wait_for_it_says_so(self, migrate: Migrate, connect: Connect) -> None:
        """While a session holds the history against readers, every command names it; then it goes on."""
        migrate("up", files=ONE)
        blocker = connect(application_name="dba")
        with blocker.transaction():
            blocker.execute("LOCK TABLE schema_migrations IN ACCESS EXCLUSIVE MODE")
            runs = [migrate.start("--database", migrate.url, *command) for command in (*LOOKS, ["check"])]
            for run in runs:
                line = run.says("waiting for the history table public.schema_migrations: ")
                assert f"pid {blocker.info.backend_pid} (user" in line
                assert "application dba" in line
        assert [run.end().exit_code for run in runs] == [0] * len(runs)

    def test_a_wait_that_does_not_end_is_an_error(self, migrate: Migrate, connect: Connect) -> None:
        """After half a minute the error names the session that holds the table, and a way out."""
        migrate("up", files=ONE)
        blocker = connect()
        with blocker.transaction():
            blocker.execute("LOCK TABLE schema_migrations IN ACCESS EXCLUSIVE MODE")
            run = migrate("--json", "status")
        assert (run.exit_code, run.json["error"]["kind"]) == (1, "HistoryLocked")
        [one] = run.json["error"]["blockers"]
        assert one["pid"] == blocker.info.backend_pid
        assert f"pg_terminate_backend({one['pid']})" in run.stderr


@pytest.mark.parametrize(
    ("table", "schema", "name"),
    [
        ("hist", "public", "hist"),
        ("ops.hist", "ops", "hist"),
        ("Ops.Hist", "Ops", "Hist"),
        ('"My Schema".hist', "My Schema", "hist"),
        ('"My Schema"."A ""b"" c.d"', "My Schema", 'A "b" c.d'),
        ("größe.é%s", "größe", "é%s"),
    ],
)
def test_the_history_may_have_any_name(migrate: Migrate, connect: Connect, table: str, schema: str, name: str) -> None:
    """--table is made where it is absent, with its schema, as it is spelled; and found there by the next run."""
    if schema != "public":  # a table of that name elsewhere is nobody's business
        connect().execute(sql.SQL("CREATE TABLE public.{} (version text)").format(sql.Identifier(name)))
    first = migrate("--table", table, "--json", "up", files=THREE)
    assert (first.exit_code, first.applied) == (0, ["1", "2", "10"])
    assert migrate("--table", table, "up").stdout == "Nothing is pending: 3 migrations are applied.\n"
    assert migrate("--table", table, "status", "--check").exit_code == 0
    found = connect().execute(sql.SQL("SELECT name FROM {}").format(sql.Identifier(schema, name)))
    assert found.fetchall() == [("first",), ("second",), ("third",)]


def test_the_history_goes_into_a_schema_that_is_there(migrate: Migrate, rows: Rows) -> None:
    """A schema that exists is used as it is, with all its objects."""
    rows('CREATE SCHEMA "Ops"')
    rows('CREATE TABLE "Ops".other ()')
    assert migrate("--table", "Ops.hist", "up", files=THREE).exit_code == 0
    assert rows("SELECT tablename::text FROM pg_tables WHERE schemaname = 'Ops' ORDER BY 1") == [("hist",), ("other",)]


@pytest.mark.parametrize("table", ["", ".", "a.b.c", "a.", '"a', 'a"b', '""', "a..b"])
def test_what_is_no_name_is_refused(migrate: Migrate, rows: Rows, table: str) -> None:
    """--table that cannot be read is an error, and nothing is made."""
    run = migrate("--table", table, "up", files=THREE)
    assert run.exit_code in (1, 2)
    assert "table" in run.stderr
    assert rows(TABLES) == []


STRANGERS: dict[str, tuple[LiteralString, LiteralString]] = {
    "Rails": ("CREATE TABLE schema_migrations (version varchar PRIMARY KEY)", "VALUES ('20250101000000')"),
    "dbmate": ("CREATE TABLE schema_migrations (version varchar(128) PRIMARY KEY)", "VALUES ('1')"),
    "Ecto": (
        "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, inserted_at timestamp(0))",
        "VALUES (1, now())",
    ),
    "golang-migrate": (
        "CREATE TABLE schema_migrations (version bigint PRIMARY KEY, dirty boolean NOT NULL)",
        "VALUES (1, false)",
    ),
    "another tool": ("CREATE TABLE schema_migrations (id int, version text, name text, checksum text)", "VALUES (1)"),
}


@pytest.mark.parametrize("tool", STRANGERS)
def test_a_strangers_table_is_never_touched(migrate: Migrate, rows: Rows, tool: str) -> None:
    """A table of our name with other columns is an error that says whose it looks like; its hint leads on."""
    create, values = STRANGERS[tool]
    rows(create)
    rows("INSERT INTO schema_migrations " + values)
    before = rows("SELECT xmin::text, ctid::text, s::text FROM schema_migrations s")
    for command in (["up"], ["up", "--dry-run"], ["status"], ["status", "--check"]):
        run = migrate("--json", *command, files=THREE)
        assert run.exit_code == 1
        assert run.json["error"]["kind"] == "HistoryError"
        assert tool in run.stderr
    assert rows(TABLES) == [("schema_migrations",)]
    hint = re.search(r"--table (\S+)", run.stderr)
    assert hint
    assert migrate("--table", hint[1], "up").exit_code == 0
    assert rows("SELECT xmin::text, ctid::text, s::text FROM schema_migrations s") == before


@pytest.mark.parametrize(
    "change",
    [
        "truncate schema_migrations",
        "delete from schema_migrations",
        "delete from schema_migrations where position = 2",
        "delete from schema_migrations where position = 1",
        "drop table schema_migrations",
        "drop schema public cascade; create schema public",
        "alter table schema_migrations rename column position to place",
        "alter table schema_migrations rename to gone",
        "create schema other; alter table schema_migrations set schema other",
        "alter table schema_migrations drop column finished_at",
        "update schema_migrations set position = position + 10",
        "select set_config('transaction_read_only', 'on', true)",
    ],
)
@each_way
def test_a_file_cannot_undo_its_own_record(migrate: Migrate, recorded: Recorded, change: str) -> None:
    """A file after which its entry could not be found again fails, and leaves the history as it was."""
    run = migrate("--json", "up", files={"1_a.sql": "create table t ()", "2_b.sql": change, "3_c.sql": "select 1"})
    assert run.exit_code == 1
    assert (run.json["error"]["version"], run.json["error"]["path"]) == ("2", "sql/2_b.sql")
    assert recorded() == ["a"]


@pytest.mark.parametrize(
    "change",
    [
        "lock table schema_migrations in access exclusive mode",
        "alter table schema_migrations add column note text",
        "alter table schema_migrations add column note text not null default 'none'",
        "create index on schema_migrations (name)",
        "comment on table schema_migrations is 'ours'",
        "analyze schema_migrations",
        "alter table schema_migrations alter column name type varchar(100)",
    ],
)
@each_way
def test_a_file_may_do_what_leaves_its_record_intact(migrate: Migrate, recorded: Recorded, change: str) -> None:
    """The history is a table like any other: a file may lock it, index it, and add columns to it."""
    files = {"1_a.sql": "select 1", "2_b.sql": change, "3_c.sql": "select 1"}
    assert migrate("up", files=files).exit_code == 0
    assert migrate("up", files={"4_d.sql": "select 1"}).exit_code == 0
    assert recorded() == ["a", "b", "c", "d"]
    assert migrate("status", "--check").exit_code == 0


class TestHistoryChangedByHand:
    @pytest.mark.parametrize("version", ["first", "", "1.5", "-1", "\u0661", "1 "])
    def test_a_version_that_no_file_can_have(self, migrate: Migrate, rows: Rows, version: str) -> None:
        """An entry whose version is no number is an error that names it."""
        migrate("up", files=THREE)
        rows("UPDATE schema_migrations SET version = %s WHERE position = 2", version)
        for command in ("up", "status"):
            run = migrate(command)
            assert run.exit_code == 1
            assert f"the entry at position 2 has version {version!r}" in run.stderr

    def test_a_version_spelled_otherwise_is_the_same(self, migrate: Migrate, rows: Rows) -> None:
        """0002 in the history is the file's 2."""
        migrate("up", files=THREE)
        rows("UPDATE schema_migrations SET version = '0002' WHERE position = 2")
        assert migrate("status", "--check").exit_code == 0

    def test_positions_go_on_after_a_gap(self, migrate: Migrate, rows: Rows) -> None:
        """After an entry was moved, the next file takes the place after the newest."""
        migrate("up", files=THREE)
        rows("UPDATE schema_migrations SET position = 7 WHERE position = 3")
        assert migrate("up", files={"11_a.sql": "select 1", "12_b.sql": "select 1"}).exit_code == 0
        assert rows("SELECT position FROM schema_migrations ORDER BY 1") == [(1,), (2,), (7,), (8,), (9,)]

    def test_a_newest_entry_that_was_deleted_is_pending(self, migrate: Migrate, rows: Rows) -> None:
        """The table is the truth: a file whose entry is taken out runs again."""
        migrate("up", files={"1_a.sql": "select 1", "2_b.sql": "create table if not exists t ()"})
        rows("DELETE FROM schema_migrations WHERE position = 2")
        assert migrate("--json", "up").applied == ["2"]
