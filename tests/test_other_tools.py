"""Files and folders of other tools: their ways down are not run."""

from __future__ import annotations

import pytest
from fix_cli import Migrate, Rows

UP, DOWN = "create table users (id int);\n", "drop table users;\n"
TABLES = "SELECT relname FROM pg_class WHERE relkind = 'r' AND oid >= 16384"

MARKS = [
    ("goose", "-- +goose Up", "-- +goose Down"),
    ("goose", "-- +goose up\n-- +goose StatementBegin", "--+goose DOWN"),
    ("sql-migrate", "-- +migrate Up", "-- +migrate Down"),
    ("sql-migrate", "-- +migrate Up notransaction", "-- +migrate Down notransaction"),
    ("node-pg-migrate", "-- Up Migration", "-- Down Migration"),
    ("node-pg-migrate", "--- up  migration", "  ---- down  migration"),
    ("node-pg-migrate", "-- Up Migration", "-- Down Migration (drops the users)"),
    ("tern", "-- users", "---- create above / drop below ----"),
    ("tern", "-- users\nselect 1; ", "---- create above / drop below ----"),
]


@pytest.mark.parametrize(("tool", "up", "down"), MARKS)
def test_a_way_down_is_refused(migrate: Migrate, rows: Rows, tool: str, up: str, down: str) -> None:
    """Neither `up` nor `check` passes over a mark, which makes the file run its way down right after its way up."""
    text = f"{up}\n{UP}\n{down}\n{DOWN}"
    run = migrate("--json", "up", files={"1_users.sql": text})
    assert run.exit_code == 1
    [problem] = run.json["error"]["problems"]
    assert (problem["path"], problem["line"]) == ("sql/1_users.sql", text[: text.index(down)].count("\n") + 1)
    assert problem["message"].startswith(f"{tool}'s way down begins here: {down[:8].strip()}")
    assert problem["hint"].startswith("Keep the part above this line, and remove the rest")
    copied = f"outreach-migrate --dir NEW import sql --from {tool}" in problem["hint"]
    assert copied == (tool in ("goose", "tern"))
    assert rows(TABLES) == []
    assert f"{tool}'s" in migrate("check").stdout


def test_a_way_down_after_a_missing_semicolon_is_refused(migrate: Migrate) -> None:
    """These tools need no semicolon before their mark; the server would tell of a syntax error."""
    files = {"1_a.sql": "-- +migrate Up\ncreate table a ()\n-- +migrate Down\ndrop table a"}
    assert "sql/1_a.sql:3:1: error: sql-migrate's way down" in migrate("check", files=files).stdout


def test_a_way_down_before_the_way_up_has_its_own_hint(migrate: Migrate) -> None:
    """Where the way up comes last, that is the part to keep."""
    run = migrate("check", files={"1_a.sql": f"-- Down Migration\n{DOWN}-- Up Migration\n{UP}"})
    assert "hint: Keep the part below -- Up Migration, and remove the rest" in run.stdout


def test_dbmates_marks_are_refused(migrate: Migrate) -> None:
    """They look like directives of this program, and the error shows the replacement of each."""
    text = f"-- migrate:up transaction:false\n{UP}\n-- migrate:down\n{DOWN}"
    up, down = migrate("--json", "check", files={"1_a.sql": text}).json["findings"]
    assert (up["line"], up["message"]) == (1, "dbmate's mark: -- migrate:up transaction:false")
    assert up["hint"].startswith("Write instead: -- migrate: no-transaction. To copy a whole folder of such files:")
    assert up["hint"].endswith(" outreach-migrate --dir NEW import sql --from dbmate")
    assert (down["line"], down["message"]) == (4, "dbmate's way down begins here: -- migrate:down")


@pytest.mark.parametrize("mark", [down for _, _, down in MARKS] + ["-- migrate:down"])
@pytest.mark.parametrize(
    "text",
    [
        "{UP}select '\n{}\nx';",
        "{UP}select $a$\n{}\n$a$;",
        "{UP}/*\n{}\n*/ select 1;",
        "create table users (\n{}\nid int)",
    ],
)
def test_what_only_looks_like_a_mark_runs(migrate: Migrate, text: str, mark: str) -> None:
    """A mark is a comment between statements, not within a string, another comment, or parentheses."""
    assert migrate("up", files={"1_a.sql": text.replace("{UP}", UP).replace("{}", mark)}).exit_code == 0


@pytest.mark.parametrize(
    "text",
    [
        f"-- Down migration: {DOWN}{UP}",
        f"{UP}-- down migration: {DOWN}select 1;",
        f"select 1; -- Down Migration\n{UP}",
        f"{UP}-- Down migrations are not for us\nselect 1;",
    ],
)
def test_a_way_down_that_has_no_statement_runs(migrate: Migrate, text: str) -> None:
    """Comments do no harm, and an applied file that has them could not be changed any more."""
    assert migrate("up", files={"1_a.sql": text}).exit_code == 0


@pytest.mark.parametrize(("ending", "tool"), [("down", "golang-migrate"), ("rollback", "yoyo")])
def test_a_file_of_the_way_down_is_refused(migrate: Migrate, rows: Rows, ending: str, tool: str) -> None:
    """It has the version of the way up, or one of its own; the error names it, once."""
    run = migrate("--json", "up", files={"1_a.sql": UP, f"1_a.{ending}.sql": DOWN})
    [problem] = run.json["error"]["problems"]
    assert problem["path"] == f"sql/1_a.{ending}.sql"
    assert problem["message"].startswith(f"{tool}'s")
    assert problem["hint"].startswith("Remove the file")
    assert rows(TABLES) == []
    (migrate.files / f"1_a.{ending}.sql").unlink()
    assert migrate("up").exit_code == 0


@pytest.mark.parametrize(
    ("path", "whose", "folder", "copy"),
    [
        ("20260301_init/migration.sql", "Prisma's", "sql", "sql/20260301_init.sql"),
        ("2026-03-01-000000_init/up.sql", "diesel's or Hasura's", "sql", "sql/20260301000000_init.sql"),
        ("default/1654696186008_init/up.sql", "diesel's or Hasura's", "sql/default", "sql/1654696186008_init.sql"),
    ],
)
def test_a_folder_of_folders_is_named(migrate: Migrate, path: str, whose: str, folder: str, copy: str) -> None:
    """Where there are folders with migrations in them, the error names the command that copies them."""
    file = migrate.files / path
    file.parent.mkdir(parents=True)
    file.write_text(UP)
    run = migrate("up")
    assert run.exit_code == 1
    assert f"sql: error: this is {whose} folder" in run.stderr
    command = f"outreach-migrate import {folder}"
    assert f"hint: Here a migration is a file. To make files of them: {command}\n" in run.stderr
    assert migrate(*command.split()[1:]).exit_code == 0
    assert (migrate.folder / copy).is_file()
    assert migrate("up").exit_code == 0


@pytest.mark.parametrize(
    ("files", "whose", "command"),
    [
        (["V1__a.sql", "V1_2__b.sql"], "Flyway's, refinery's or yandex-pgmigrate's", "--dir NEW import sql"),
        (["inner/V1__a.sql"], "Flyway's, refinery's or yandex-pgmigrate's", "--dir NEW import sql"),
        (["inner/deep/V1__a.sql"], "Flyway's, refinery's or yandex-pgmigrate's", "--dir NEW import sql/inner"),
        (["0001.a.sql"], "yoyo's", "--dir NEW import sql --from yoyo"),
        (["0001.a.b.sql", "0002.c.py"], "yoyo's", "--dir NEW import sql --from yoyo"),
        (["meta/_journal.json", "0000_a.sql"], "drizzle's", "--dir NEW import sql"),
        (["20240101000000_a/migration.sql", "20240101000000_a/snapshot.json"], "drizzle's", "import sql"),
        (["alembic.ini"], "alembic's", "--dir NEW import sql"),
        (["env.py", "versions/a.py"], "alembic's", "import ."),
        (["sqitch.plan"], "sqitch's", "help moving"),
        (["committed/000001.sql"], "graphile-migrate's", "help moving"),
        (["000001.sql"], "graphile-migrate's", "help moving"),
        (["1700000000000_a.js"], "node-pg-migrate's", "help moving"),
        (["changelog.xml"], "Liquibase's", "help moving"),
        (["1_a.up.sql"], "golang-migrate's or sqlx's", "--dir NEW import sql"),
        (["1_a.up.sql", "1_a.down.sql", "2_b.up.sql"], "golang-migrate's or sqlx's", "--dir NEW import sql"),
        (["20240101_initial_up_a.sql", "20240101_a_down_initial.sql"], "asyncpg-trek's", "help moving"),
    ],
)
def test_a_folder_of_another_tools_form_is_refused(
    files: list[str], whose: str, command: str, migrate: Migrate
) -> None:
    """`up`, `status` and `check` name the command that makes files of it, or the page with a recipe."""
    for name in files:
        (migrate.files / name).parent.mkdir(parents=True, exist_ok=True)
        (migrate.files / name).write_text("select 1;\n")
    for one in ("up", "status", "check"):
        run = migrate(one)
        assert (run.exit_code, one) in [(1, "up"), (0, "status"), (1, "check")]
        assert f"sql: error: this is {whose} folder" in run.stdout + run.stderr
        assert f": outreach-migrate {command}\n" in run.stdout + run.stderr


@pytest.mark.parametrize(
    ("name", "text", "further"),
    [
        ("create-a.sql", "-- a\n-- depends: \n", "this is one of yoyo's. To copy a whole folder of such files:"),
        ("20240101a.sql", "-- migrate:up\n", "this is one of dbmate's. To copy a whole folder of such files:"),
        ("a.sql", "-- Deploy app:a to pg\n\nBEGIN;\n", "this is one of sqitch's. It can't be imported"),
        ("a.sql", "-- a\n", "where VERSION is digits.\n"),
    ],
)
def test_a_file_whose_name_is_no_migrations_is_looked_into(
    name: str, text: str, further: str, migrate: Migrate
) -> None:
    """Some tools take any name, but the text has their marks."""
    run = migrate("check", files={"1_a.sql": "select 1;", name: text})
    assert f"sql/{name}: error: not a migration's name\n" in run.stdout
    assert further in run.stdout


def test_a_folder_in_pythons_hands_is_named(migrate: Migrate) -> None:
    """For the revisions of an alembic project the hint names its alembic.ini; yoyo's Python is told apart from them."""
    migrate.files.mkdir()
    (migrate.files / "a1_x.py").write_text("revision = 'a1'\ndown_revision = None\n")
    assert "sql: error: this is alembic's folder" in migrate("check").stdout
    (migrate.folder / "alembic.ini").touch()
    assert migrate("check").stdout.splitlines()[1].endswith(": outreach-migrate import .")
    (migrate.files / "a1_x.py").write_text("from yoyo import step\n")
    assert migrate("check").stdout.splitlines()[1].endswith("import sql --from yoyo")


def test_tern_conf_tells_terns_folder(migrate: Migrate) -> None:
    """Its files may have no mark at all."""
    run = migrate("status", files={"001_a.sql": UP, "tern.conf": "[database]\n"})
    assert "sql: error: this is tern's folder" in run.output
    assert "import sql. If it is no longer tern's, remove tern.conf." in run.output


def test_a_file_among_migrations_that_has_another_tools_name_is_refused(migrate: Migrate) -> None:
    """Its name has no version here."""
    run = migrate("check", files={"1_a.sql": "select 1;", "V2__b.sql": "select 1;"})
    assert "sql/V2__b.sql: error: not a migration's name" in run.stdout
    assert "this is one of Flyway's, refinery's or yandex-pgmigrate's. To copy a whole folder" in run.stdout
    (migrate.files / "V2__b.sql").unlink()
    migrate.write({"2_b.up.sql": "select 1;"})
    stray = migrate("--json", "up").json["error"]["problems"]
    assert [(one["path"], one["message"]) for one in stray] == [
        ("sql/2_b.up.sql", "golang-migrate's or sqlx's name of a way up")
    ]
    assert stray[0]["hint"].startswith("If it is a migration of this folder, name it 2_b.sql.")


@pytest.mark.parametrize(
    ("name", "head", "message", "hint"),
    [
        ("1_a", "-- no-transaction\n", "sqlx's mark", "Write instead: -- migrate: no-transaction."),
        ("1_a", "-- no-transaction, for the index\n", "sqlx's mark", "import sql --from sqlx"),
        ("1_a", "\n--liquibase formatted sql\n\n--changeset ann:1\n", "Liquibase's mark", "help moving"),
        ("1_a", "-- About a\n-- transactional: false\n", "yoyo's mark", "import sql --from yoyo"),
        ("20240101_01_x7Rk2-a", "-- a\n-- depends: \n", "yoyo's mark", "import sql --from yoyo"),
        ("20240101_01_words-a", "-- depends: \n", "yoyo's mark", "import sql --from yoyo"),
        ("20240101_01_x7Rk2-a", "", "a name that yoyo gives", "import sql --from yoyo"),
        ("1_a", "-- +goose Up\n", "goose's mark: -- +goose Up", "import sql --from goose"),
        ("1_a", "-- +goose Up\n-- +goose NO TRANSACTION\n", "goose's mark", "-- migrate: no-transaction"),
        ("1_a", "-- +migrate Up\n", "sql-migrate's mark", "help moving"),
        ("1_a", "-- Up Migration\n", "node-pg-migrate's mark", "help moving"),
        ("1_a", "---- tern: disable-tx ----\n", "tern's mark", "import sql --from tern"),
        ("1_a", "---- create above / drop below ----\n", "tern's way down begins here", "import sql --from tern"),
        ("1_a", "--> statement-breakpoint\n", "drizzle's mark", "meta/_journal.json"),
    ],
)
def test_a_file_with_another_tools_first_lines_is_refused(
    name: str, head: str, message: str, hint: str, migrate: Migrate
) -> None:
    """Its name is that of a migration here, but the tool reads its first lines as orders."""
    migrate.write({f"{name}.sql": f"{head}{UP}"})
    for one in ("up", "status", "check"):
        run = migrate(one)
        line = 1 if "goose" in head else 2 if "ann" in head else head.rstrip().count("\n") + 1
        assert f"sql/{name}.sql:{line}:1:" in run.output
        assert message in run.output
        assert hint in run.output


@pytest.mark.parametrize(
    "head",
    [
        *("\n-- no-transaction\n", "--no-transaction\n", "-- depends: 1_a\n", "-- transactional: yes\n"),
        *("select '\n--> statement-breakpoint\n';", "/*\n---- tern: disable-tx ----\n*/", "-- Up migrations only\n"),
    ],
)
def test_first_lines_that_no_tool_wrote_run(head: str, migrate: Migrate) -> None:
    """A comment is another tool's mark only where there is no doubt."""
    assert migrate("up", files=[head + UP]).exit_code == 0
