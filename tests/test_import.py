"""`import`: a folder that another tool made becomes one of this program's."""

from __future__ import annotations

import hashlib
import os
import random
import re
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from fix_cli import Migrate, Rows
from fix_waiting import until

from outreach_migrate.adopt import copy, versions, writing
from outreach_migrate.cli import manual
from outreach_migrate.files import migrations

TABLES = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 1"
LOCK = 'provider = "postgresql"\n'


def old(migrate: Migrate, files: Mapping[str, str | bytes], folder: str = "old") -> None:
    """Write another tool's folder."""
    for name, content in files.items():
        path = migrate.folder / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def new(migrate: Migrate) -> dict[str, str]:
    """Read the new files, each without its first line."""
    return {path.name: path.read_bytes().decode().partition("\n")[2] for path in sorted(migrate.files.iterdir())}


def first_line(migrate: Migrate, name: str) -> str:
    return (migrate.files / name).read_text().partition("\n")[0]


# Each tool: its files, and the files made of them. The tables are a, b, …; a way down would drop them, or fail.
A, B = "create table a ();\n", "create table b ();\n"
INDEX = "create index concurrently i on n (x);\n"
ALONE = "-- migrate: no-transaction\n"
DOWN = "drop table a;\n"
TOOLS: dict[str, tuple[dict[str, str], dict[str, str]]] = {
    "prisma": (
        {
            "migration_lock.toml": LOCK,
            "20240101000000_one/migration.sql": A,
            "20240101000000_one/down.sql": DOWN,
            "20240102000000_two/migration.sql": "create table n (x int);",
            "20240103000000_three/migration.sql": INDEX,
        },
        {
            "20240101000000_one.sql": A,
            "20240102000000_two.sql": "create table n (x int);",
            "20240103000000_three.sql": ALONE + INDEX,
        },
    ),
    "dbmate": (
        {
            "20240101000000_one.sql": f"-- a\n-- migrate:up\n{A}\n-- migrate:down\n{DOWN}",
            "20240102000000_two.sql": "-- migrate:up\ncreate table n (x int);\n-- migrate:down\ndrop table n;",
            "20240103000000_three.sql": f"--  migrate:up transaction:false\n{INDEX}-- migrate:down\ndrop index i;",
        },
        {
            "20240101000000_one.sql": f"-- a\n{A}\n",
            "20240102000000_two.sql": "create table n (x int);\n",
            "20240103000000_three.sql": ALONE + INDEX,
        },
    ),
    "goose": (
        {
            "00001_one.sql": f"-- +goose Up\n{A}\n-- +goose Down\n{DOWN}",
            "00002_two.sql": "-- +goose up\n-- +goose StatementBegin\ncreate function f() returns int language sql as\n"
            "'select 1'\n-- +goose StatementEnd\ncreate table n (x int);\n",
            "00003_three.sql": f"-- +goose NO TRANSACTION\n-- +goose Up\n{INDEX}create table o ();\n",
        },
        {
            "00001_one.sql": f"{A}\n",
            "00002_two.sql": "create function f() returns int language sql as\n'select 1'\n;\n"
            "create table n (x int);\n",
            "00003_three.sql": f"{ALONE}{INDEX}create table o ();\n",
        },
    ),
    "golang-migrate": (
        {"go.mod": "", "1_one.up.sql": A, "1_one.down.sql": DOWN, "2_two.up.sql": B, "10_three.up.sql": "select 1;"},
        {"1_one.sql": A, "2_two.sql": B, "10_three.sql": "select 1;"},
    ),
    "sqlx": (
        {
            "Cargo.toml": "",
            "1_one.up.sql": A,
            "1_one.down.sql": DOWN,
            "2_two.sql": "create table n (x int);\n-- no-transaction\n",
            "3_three.sql": f"-- no-transaction\n{INDEX}",
        },
        {
            "1_one.sql": A,
            "2_two.sql": "create table n (x int);\n-- no-transaction\n",
            "3_three.sql": ALONE + INDEX,
        },
    ),
    "tern": (
        {
            "tern.conf": "",
            "001_one.sql": f"{A}\n---- create above / drop below ----\n\n{DOWN}",
            "002_two.sql": "create table n (x int);",
            "003_three.sql": f"---- tern: disable-tx ----\n{INDEX}---- create above / drop below ----\ndrop index i;",
        },
        {"001_one.sql": f"{A}\n", "002_two.sql": "create table n (x int);", "003_three.sql": ALONE + INDEX},
    ),
    "flyway": (
        {
            "pom.xml": "",
            "V1_10__three.sql": INDEX,
            "V1.2__two.sql": "create table n (x int);",
            "sub/V1.0__one.sql": A,
            "R__view.sql": "create view v as select 1;",
            "U1_10__three.sql": "drop index i;",
            "V1_10__three.sql.conf": "executeInTransaction=false\n",
        },
        {"0001_one.sql": A, "0002_two.sql": "create table n (x int);", "0003_three.sql": ALONE + INDEX},
    ),
    "diesel": (
        {
            "00000000000000_diesel_initial_setup/up.sql": "select 1;",
            "2024-01-01-000000_one/up.sql": A,
            "2024-01-01-000000_one/down.sql": DOWN,
            "2024-01-02-000000_two/up.sql": "create table n (x int);",
            "2024-01-03-000000_three/up.sql": INDEX,
            "2024-01-03-000000_three/metadata.toml": "run_in_transaction = false\n",
        },
        {
            "00000000000000_diesel_initial_setup.sql": "select 1;",
            "20240101000000_one.sql": A,
            "20240102000000_two.sql": "create table n (x int);",
            "20240103000000_three.sql": ALONE + INDEX,
        },
    ),
    "hasura": (
        {"1654696186008_one/up.sql": A, "1654696186008_one/down.sql": DOWN, "1654696186009_two/up.sql": B},
        {"1654696186008_one.sql": A, "1654696186009_two.sql": B},
    ),
    "supabase": (
        {"20240101000000_one.sql": A, "20240102000000_two.sql": B, "notes.md": ""},
        {"20240101000000_one.sql": A, "20240102000000_two.sql": B},
    ),
    "drizzle": (
        {
            "meta/_journal.json": '{"dialect": "postgresql", "entries": [{"tag": "0000_one"}, {"tag": "0001_two"}]}',
            "meta/0000_snapshot.json": "{}",
            "0000_one.sql": 'create table "a" ();\n--> statement-breakpoint\ncreate table n ();'
            "--> statement-breakpoint\n",
            "0001_two.sql": "create table b ()\n--> statement-breakpoint\nselect '--> x';",
            "0002_three.sql": "nonsense",
        },
        {"0000_one.sql": 'create table "a" ();\ncreate table n ();\n', "0001_two.sql": f"{B[:-2]}\n;\nselect '--> x';"},
    ),
    "yoyo": (
        {
            "0001.one.sql": A,
            "0001.one.rollback.sql": DOWN,
            "0002.two.sql": "-- Two\n-- depends: 0001.one\ncreate table n (x int);",
            "0003.three.sql": f"-- transactional: false\n-- depends: 0002.two\n{INDEX}",
            "post-apply.sql": "select 1;",
        },
        {"0001_one.sql": A, "0002_two.sql": "-- Two\ncreate table n (x int);", "0003_three.sql": ALONE + INDEX},
    ),
}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_folder_is_copied_and_runs(tool: str, migrate: Migrate, rows: Rows) -> None:
    """The tool is known by the folder's shape; the SQL stays, marks and ways down go, and `check` and `up` pass."""
    files, texts = TOOLS[tool]
    folder = "supabase/migrations" if tool == "supabase" else "old"
    old(migrate, files, folder)
    document = migrate("--json", "import", folder).json
    assert (document["ok"], document["tool"], document["written"]) == (True, tool, True)
    assert new(migrate) == texts
    assert [file["path"] for file in document["files"]] == [f"sql/{name}" for name in texts]
    assert migrate("check", "--strict").exit_code == 0
    assert migrate("up").exit_code == 0
    created = {
        text.split()[text.split().index("table") + 1].strip('"') for text in texts.values() if "create table" in text
    }
    assert created <= {name for (name,) in rows(TABLES)}


@pytest.mark.parametrize("tool", TOOLS)
def test_a_second_import_changes_nothing(tool: str, migrate: Migrate) -> None:
    """It finds by their first lines that all are there; no file is written again."""
    old(migrate, TOOLS[tool][0])
    assert migrate("import", "old", "--from", tool).exit_code == 0
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in migrate.files.iterdir()}
    document = migrate("--json", "import", "old", "--from", tool).json
    assert (document["files"], document["present"]) == ([], len(before))
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in migrate.files.iterdir()} == before


def test_each_recipe_of_the_manual_works(migrate: Migrate) -> None:
    """The page has one for each tool."""
    row = re.compile(r"^\| (\S+) \| `outreach-migrate import (\S+)( --from \S+)?`", re.MULTILINE)
    recipes = row.findall(manual.page("moving"))
    assert [tool.lower() for tool, _, _ in recipes] == [*TOOLS, "alembic"]  # which test_moving_from_tools has
    for tool, folder, given in recipes[:-1]:
        old(migrate, TOOLS[tool.lower()][0], f"{tool}/{folder}")
        command = ("--json", "--dir", f"{tool}/sql", "import", f"{tool}/{folder}", *given.split())
        assert migrate(*command).json["tool"] == tool.lower()


def prisma(migrate: Migrate, *migrations: tuple[str, str]) -> None:
    old(migrate, {"migration_lock.toml": LOCK, **{f"{name}/migration.sql": text for name, text in migrations}})


# The first line


@pytest.mark.parametrize("text", ["select 1;\nselect 2;\n", "select 1;\r\nselect 2;\r\n", "select 1;"])
def test_the_first_line_has_the_checksums_that_the_tool_may_have_recorded(text: str, migrate: Migrate) -> None:
    """Prisma's is of the bytes as they are; it also accepts those of the LF and the CRLF form."""
    prisma(migrate, ("20240101_one two", text))
    assert migrate("import", "old").exit_code == 0
    [migration], _ = migrations.read(migrate.files)
    origin = migration.directives.origin
    assert origin is not None
    assert (origin.tool, origin.name) == ("prisma", "20240101_one two")
    forms = [text, text.replace("\r\n", "\n"), text.replace("\n", "\r\n")]
    sums = [f"sha256:{hashlib.sha256(form.encode()).hexdigest()}" for form in forms]
    assert origin.checksums == tuple(dict.fromkeys(sums))
    assert (migrate.files / "20240101_one two.sql").read_bytes().decode().endswith(text)


def test_sqlx_has_its_own_checksum(migrate: Migrate) -> None:
    """It records the SHA-384 of the bytes."""
    old(migrate, {"1_a.up.sql": A})
    assert migrate("import", "old", "--from", "sqlx").exit_code == 0
    assert (
        first_line(migrate, "1_a.sql") == f"-- migrate: from sqlx/1_a sha384:{hashlib.sha384(A.encode()).hexdigest()}"
    )


def test_drizzles_first_line_has_the_time_of_its_journal(migrate: Migrate) -> None:
    """drizzle records an entry's `when`, and goes by that alone."""
    journal = '{"entries": [{"tag": "0000_one", "when": 1700000000123}]}'
    old(migrate, {"meta/_journal.json": journal, "0000_one.sql": A})
    assert migrate("import", "old").exit_code == 0
    checksum = hashlib.sha256(A.encode()).hexdigest()
    assert (
        first_line(migrate, "0000_one.sql") == f"-- migrate: from drizzle/0000_one sha256:{checksum} when:1700000000123"
    )


def test_a_tool_without_checksums_is_named_without_any(migrate: Migrate) -> None:
    """goose records none."""
    old(migrate, TOOLS["goose"][0])
    assert migrate("import", "old").exit_code == 0
    assert first_line(migrate, "00001_one.sql") == "-- migrate: from goose/00001_one"


@pytest.mark.parametrize("line", ["from", "from x", "from prisma/", "from /a sha256:zz"])
def test_a_first_line_that_is_none_is_refused(line: str, migrate: Migrate) -> None:
    """It is an unknown directive then."""
    assert "unknown directive: from" in migrate("check", files=[f"-- migrate: {line}\nselect 1;"]).stdout


# Versions


def test_a_version_that_stands_twice_gets_the_next_free_number(migrate: Migrate, rows: Rows) -> None:
    """The order stays the other tool's, and `import` reports each change."""
    a, b = ("20240101000000_b", "create table a ();"), ("20240101000000_c", "alter table a add x int;")
    short = ("20240101_d", "alter table a add y int;")
    prisma(migrate, a, b, short, ("20240102000000_a", "alter table a drop y;"))
    run = migrate("import", "old")
    # the short one stands before those of its day for Prisma, as _ sorts before digits there
    assert list(new(migrate)) == [
        "20240101000000_b.sql",
        "20240101000001_c.sql",
        "20240101_d.sql",
        "20240102000000_a.sql",
    ]
    assert "sql/20240101000001_c.sql  from old/20240101000000_c/migration.sql  (version 20240101000000 before)" in (
        run.stdout
    )


@pytest.mark.parametrize(
    ("wanted", "given"),
    [
        ("20240101000000 20240102 20240103000000", "20240101000000 20240101000001 20240103000000"),
        ("20240102 20240103000000", "20240102 20240103000000"),
        ("20240101000000 20240101000000123 20240102000000", "20240101000000 20240101000001 20240102000000"),
        ("1 1 2 3", "1 2 3 4"),
        ("001 002 002 010", "001 002 003 010"),
        ("8 9 10 11", "8 9 10 11"),
        ("x x", "0001 0002"),
    ],
)
def test_versions_stay_where_they_are_in_order(wanted: str, given: str) -> None:
    """The other files get the next number after their predecessor's."""
    assert versions.assign(wanted.replace("x", "-").replace("-", "").split(" ")) == given.split()


def test_a_migration_added_later_comes_after_the_last(migrate: Migrate) -> None:
    """Also where its version is older, and the folder has new files of its own; nothing is renumbered."""
    prisma(migrate, ("20240101000000_a", A), ("20240103000000_c", B))
    assert migrate("import", "old").exit_code == 0
    migrate.write({"20240104000000_own.sql": "select 1;"})
    prisma(migrate, ("20240102000000_b", "select 2;"), ("20240105000000_d", "select 3;"))
    document = migrate("--json", "import", "old").json
    assert [file["path"] for file in document["files"]] == ["sql/20240104000001_b.sql", "sql/20240105000000_d.sql"]
    assert len(new(migrate)) == 5


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (["20240101_01_abc-a", "20240101_02_abc-b"], ["20240101000001_abc-a", "20240101000002_abc-b"]),
        (["20240102_01_abc-a", "20240101_01_abc-b"], ["0001_abc-a", "0002_abc-b"]),
        (["b", "a"], ["0001_b", "0002_a"]),
    ],
)
def test_yoyos_order_is_that_of_its_dependencies(names: list[str], given: list[str], migrate: Migrate) -> None:
    """Its dates stay if they are in that order; otherwise the files are numbered anew."""
    first, second = names
    old(migrate, {f"{first}.sql": "select 1;", f"{second}.sql": f"-- depends: {first}\nselect 2;"})
    assert migrate("import", "old").exit_code == 0
    assert list(new(migrate)) == [f"{name}.sql" for name in given]


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (["V1__a", "V2__b", "V10__c"], ["1_a", "2_b", "10_c"]),
        (["V1_2__a", "V1.10__b", "V2__c"], ["0001_a", "0002_b", "0003_c"]),
        (["V2024.01.31__a", "V2024_02_01_3__b"], ["20240131000000_a", "20240201030000_b"]),
        (["V20240131.1__a", "V20240131.2__b"], ["20240131010000_a", "20240131020000_b"]),
        (["V1", "V2__"], ["1_migration", "2_migration"]),
    ],
)
def test_flyways_order_is_that_of_its_numbers(names: list[str], given: list[str], migrate: Migrate) -> None:
    """1_2 and 1.2 are two numbers each; versions with several of them give way to dates, or to new numbers."""
    old(migrate, {f"{name}.sql": "select 1;" for name in reversed(names)})
    assert migrate("import", "old", "--from", "flyway").exit_code == 0
    found = [path.name for path in sorted(migrate.files.iterdir(), key=lambda path: int(path.name.partition("_")[0]))]
    assert found == [f"{name}.sql" for name in given]


def test_two_files_of_one_flyway_version_are_refused(migrate: Migrate) -> None:
    """Flyway refuses them, too: 1.0 is 1."""
    old(migrate, {"V1__a.sql": A, "V1.0__b.sql": B})
    run = migrate("import", "old", "--from", "flyway")
    assert run.exit_code == 1
    assert "V1.0__b.sql has the same version" in run.stderr


def test_flyways_settings_of_a_file_count(migrate: Migrate) -> None:
    """They stand in a file beside it, or in a comment; a condition can't be decided here."""
    files = {
        "V1__a.sql": "select 1;",
        "V1__a.sql.conf": "executeInTransaction=false\n",
        "V2__b.sql": "-- Flyway: executeInTransaction=false\nselect 2;",
        "V3__c.sql": "select '${x}';",
        "V3__c.sql.conf": "placeholderReplacement=false\n",
        "V4__d.sql": "select 4;",
        "V4__d.sql.conf": "shouldExecute=${env}==prod\n",
    }
    old(migrate, files)
    left = migrate("--json", "import", "old").json["left"]
    assert [one["path"] for one in left] == [
        *(f"old/{name}" for name in files if name.endswith(".conf")),
        "old/V4__d.sql",
    ]
    assert new(migrate) == {
        "1_a.sql": f"{ALONE}select 1;",
        "2_b.sql": f"{ALONE}{files['V2__b.sql']}",
        "3_c.sql": files["V3__c.sql"],
        "4_d.sql": "-- migrate: unwritten Flyway runs it only on a condition: ${env}==prod\nselect 4;",
    }


# Transactions

ROWS = "create table c (a text);\ncopy c from stdin;\nit's é $$ /*\nROLLBACK;\n\\.\n"


@pytest.mark.parametrize(
    ("text", "became"),
    [
        ("select 1;\nBEGIN;\nselect 2;\nCOMMIT;\nselect 3;\n", "select 1;\nselect 2;\nselect 3;\n"),
        ("select 1; COMMIT; BEGIN; select 2;", "select 1;   select 2;"),
        ("BEGIN;\nselect 1;\nCOMMIT;\n", "BEGIN;\nselect 1;\nCOMMIT;\n"),
        (
            "set transaction isolation level serializable;\r\nselect 1;\r\n",
            "-- migrate: isolation serializable\r\nselect 1;\r\n",
        ),
        (
            "BEGIN;\nset transaction isolation level repeatable read;\nselect 1;\nCOMMIT;",
            "-- migrate: isolation repeatable read\nBEGIN;\nselect 1;\nCOMMIT;",
        ),
        ("\ufeffselect 1;\n", "select 1;\n"),
        ("select '\nBEGIN;\n'; -- COMMIT;\n", "select '\nBEGIN;\n'; -- COMMIT;\n"),
        (f"{ROWS}BEGIN;\nselect 1;\nCOMMIT;\nselect 2;\n", f"{ROWS}select 1;\nselect 2;\n"),
    ],
)
def test_transaction_control_goes(text: str, became: str, migrate: Migrate) -> None:
    """Statements that change nothing in a file of one transaction are left out, and each is reported with its line."""
    prisma(migrate, ("1_a", text))
    changes = migrate("--json", "import", "old").json["files"][0]["changes"]
    assert new(migrate) == {"1_a.sql": became}
    gone = [text.count("\n", 0, text.index(change["text"])) + 1 for change in changes if change["text"]]
    assert gone == [change["line"] for change in changes if change["text"]]
    assert bool(changes) == (text != became)
    assert migrate("up").exit_code == 0


@pytest.mark.parametrize(
    "text",
    [
        "alter type e add value 'y';\nCOMMIT;\nBEGIN;\ncreate table f (e e default 'y');",
        "BEGIN;\nset local statement_timeout = 1;\nCOMMIT;\nselect 1;",
        "BEGIN;\nselect 1;\nROLLBACK;\nselect 2;",
        "select 1;\nCOMMIT;\nselect 2;",
        "BEGIN;\nselect 1;\nCOMMIT;\nvacuum;",
        "BEGIN ISOLATION LEVEL SERIALIZABLE;\nselect 1;\nCOMMIT;\nselect 2;",
    ],
)
def test_transaction_control_that_changes_something_stays_and_check_refuses_it(text: str, migrate: Migrate) -> None:
    """Nothing is guessed: `import` names the place, and `check` and `up` refuse the file until it is mended."""
    prisma(migrate, ("1_a", text))
    run = migrate("import", "old")
    assert run.exit_code == 0
    assert "1 of them must be completed by hand before it can run" in run.stderr
    assert "sql/1_a.sql:" in run.stderr
    assert text in (migrate.files / "1_a.sql").read_text()
    assert migrate("check").exit_code == 1


# Not carried over


@pytest.mark.parametrize(
    ("tool", "name", "text", "said"),
    [
        ("goose", "00002_b.go", "package main", "goose runs Go code here"),
        ("goose", "00002_b.sql", "-- +goose Up\n-- +goose ENVSUB ON\nselect '$X';\n", "environment variables"),
        ("tern", "002_b.sql", "select '{{.name}}';", "a tern template"),
        ("flyway", "V2__b.sql", "create table ${schema}.b ();", "Flyway writes a value in the place of ${schema}"),
        ("flyway", "V2__b.java", "class V2__b {}", "Flyway runs Java code here"),
        ("yoyo", "002_b.py", "from yoyo import step\n__depends__ = {'001_a'}\n", "yoyo runs Python code here"),
    ],
)
def test_a_migration_without_sql_is_a_file_that_check_refuses(
    tool: str, name: str, text: str, said: str, migrate: Migrate
) -> None:
    """Its place in the order is kept, until somebody has written its SQL."""
    marks = "-- +goose Up\n" if tool == "goose" else ""
    first = {"goose": "00001_a.sql", "flyway": "V1__a.sql"}.get(tool, "001_a.sql")
    old(migrate, {first: f"{marks}{A}", name: text})
    run = migrate("import", "old", "--from", tool)
    assert f"not carried over: old/{name}" in run.stdout
    assert said in run.stdout
    refused = migrate("check")
    assert refused.exit_code == 1
    assert "this migration has no SQL yet" in refused.stdout
    path = max(migrate.files.iterdir())
    path.write_text(f"{path.read_text().partition(chr(10))[0]}\nselect 1;\n")
    assert migrate("check").exit_code == 0


def test_goose_substitutes_only_between_its_marks(migrate: Migrate) -> None:
    """A $ elsewhere is one."""
    text = (
        "-- +goose Up\n-- +goose ENVSUB ON\nselect 1;\n-- +goose ENVSUB OFF\nselect '$X';\n-- +goose Down\nselect $1;"
    )
    old(migrate, {"1_a.sql": text})
    assert migrate("import", "old").exit_code == 0
    assert new(migrate) == {"1_a.sql": "select 1;\nselect '$X';\n"}


def test_ways_down_are_counted(migrate: Migrate) -> None:
    """The first ones are named, with --verbose and in JSON all."""
    old(migrate, {f"{n}_a.{way}.sql": "select 1;" for n in range(1, 9) for way in ("up", "down")})
    run = migrate("import", "old", "--from", "golang-migrate", "--dry-run")
    assert run.stdout.count(".down.sql") == 3
    assert "not carried over: 5 more like these" in run.stdout
    assert migrate("-v", "import", "old", "--from", "golang-migrate", "--dry-run").stdout.count(".down.sql") == 8


# Recognising


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"1_a.up.sql": A}, "golang-migrate or sqlx"),
        ({"1_a.sql": A}, "sqlx, supabase or tern"),
        ({"20240101000000_a/up.sql": A}, "diesel or hasura"),
        ({"1_a.sql": "-- +goose Up\n", "2_a.sql": "-- migrate:up\n"}, "dbmate or goose"),
        ({"V1__a.sql": A}, "flyway, refinery or yandex-pgmigrate"),
    ],
)
def test_an_unsure_shape_is_an_error(files: dict[str, str], said: str, migrate: Migrate) -> None:
    """It lists the candidates, and --from."""
    old(migrate, files)
    run = migrate("import", "old")
    assert run.exit_code == 2
    assert f"old may be a folder of {said}" in run.stderr
    assert "--from" in run.stderr
    assert not migrate.files.exists()


@pytest.mark.parametrize(
    ("tool", "files"),
    [
        ("refinery", {"V1__a.sql": A, "Cargo.toml": ""}),
        ("refinery", {"in/V1__a.sql": A, "Cargo.toml": ""}),
        ("sqitch", {"sqitch.plan": ""}),
        ("sql-migrate", {"1_a.sql": f"-- +migrate Up\n{A}"}),
        ("node-pg-migrate", {"1_a.sql": f"-- Up Migration\n{A}"}),
        ("node-pg-migrate", {"1700000000000_a.js": "exports.up = pgm => {}"}),
        ("liquibase", {"db.changelog-master.yaml": "databaseChangeLog:"}),
        ("graphile-migrate", {"committed/000001.sql": "--! Previous: -\n"}),
        ("liquibase", {"a.sql": "--liquibase formatted sql\n"}),
        ("asyncpg-trek", {"20240101_initial_up_a.sql": A}),
    ],
)
def test_a_tool_that_is_not_imported_is_named(tool: str, files: dict[str, str], migrate: Migrate) -> None:
    """Nothing of its folder is half converted: the error has a recipe that works by hand."""
    old(migrate, files)
    run = migrate("import", "old")
    assert run.exit_code == 2
    assert f"old is of {tool}, which is not imported" in run.stderr
    assert "help moving" in run.stderr
    assert not migrate.files.exists()


def test_a_folder_of_drizzles_1_x_has_a_folder_for_each_migration(migrate: Migrate) -> None:
    """A snapshot stands in each; the date in a folder's name is the time that drizzle records."""
    files = {
        "20240101000000_b/migration.sql": "create table b ()\n--> statement-breakpoint\ncreate table c ();",
        "20240101000000_a/migration.sql": A,
        "20240102000000_empty/snapshot.json": "{}",
    }
    old(migrate, files | {name.replace("migration.sql", "snapshot.json"): "{}" for name in files})
    document = migrate("--json", "import", "old").json
    assert document["tool"] == "drizzle"
    assert new(migrate) == {
        "20240101000000_a.sql": A,
        "20240101000001_b.sql": "create table b ()\n;\ncreate table c ();",
    }
    assert document["left"] == [{"path": "old/20240102000000_empty", "reason": "no SQL file in it", "detail": ""}]
    checksum = hashlib.sha256(A.encode()).hexdigest()
    line = f"-- migrate: from drizzle/20240101000000_a sha256:{checksum} when:1704067200000"
    assert first_line(migrate, "20240101000000_a.sql") == line
    assert migrate("up").exit_code == 0


def test_one_file_of_yoyos_tells_the_tool(migrate: Migrate) -> None:
    """Its name has a dot after the number."""
    old(migrate, {"0001.name.sql": A})
    assert migrate("--json", "import", "old").json["tool"] == "yoyo"


def test_a_python_without_alembic_is_named(migrate: Migrate) -> None:
    """The error gives alembic's reason; for another tool's folder the option is wrong usage."""
    old(migrate, {"alembic.ini": "", "goose/1_a.sql": "-- +goose Up\n"})
    (migrate.folder / "python").symlink_to("/bin/false")
    assert "no such program" in migrate("import", "old", "--python", "./nowhere").stderr
    assert "/python does not run alembic" in migrate("import", "old", "--python", "./python").stderr
    assert "--python is for alembic" in migrate("import", "old/goose", "--python", "python").stderr


def test_a_folder_of_nobody_is_an_error(migrate: Migrate) -> None:
    """It names the tools that are known; an unknown name says which was meant."""
    old(migrate, {"notes.txt": "x"})
    assert "old has no migrations of a known tool" in migrate("import", "old").stderr
    old(migrate, TOOLS["prisma"][0], "project/prisma/migrations")
    assert "Perhaps: outreach-migrate import project/prisma/migrations\n" in migrate("import", "project").stderr
    assert "did you mean goose?" in migrate("import", "old", "--from", "gose").stderr
    assert "old has no goose migrations" in migrate("import", "old", "--from", "goose").stderr


def test_another_databases_migrations_are_refused(migrate: Migrate) -> None:
    """Prisma's folder says which database it is for."""
    old(migrate, {"migration_lock.toml": 'provider = "mysql"', "1_a/migration.sql": A})
    assert "these migrations are for mysql" in migrate("import", "old").stderr


@pytest.mark.parametrize(
    "text", ["-- +goose Down\n", "-- +goose Up\n-- +goose Sideways\n", "-- +goose Up\n-- +goose Up\n"]
)
def test_a_file_that_its_own_tool_refuses_is_refused(text: str, migrate: Migrate) -> None:
    """Nothing is written then, of the other files neither."""
    old(migrate, {"1_a.sql": f"-- +goose Up\n{A}", "2_b.sql": text})
    run = migrate("import", "old", "--from", "goose")
    assert run.exit_code == 1
    assert "old/2_b.sql:" in run.stderr
    assert not migrate.files.exists()


# Writing


def test_a_dry_run_writes_nothing(migrate: Migrate) -> None:
    """It lists the files that would be written."""
    old(migrate, TOOLS["goose"][0])
    run = migrate("import", "old", "--dry-run")
    assert "3 files would be written to sql, from goose." in run.stdout
    assert not migrate.files.exists()


def test_a_new_folder_appears_whole_when_the_import_is_killed(migrate: Migrate, seed: int) -> None:
    """If it is killed before, nothing is there, and the next import writes the folder."""
    old(migrate, {f"{number}_a.up.sql": f"select {number};\n" * 50 for number in range(1, 201)})
    run = migrate.start("import", "old", "--from", "golang-migrate", url="")
    until(lambda: [*migrate.folder.glob(".outreach-migrate-import-*/files/*")] or not run.lives)
    time.sleep(random.Random(seed).uniform(0, 0.15))
    run.kill()
    assert not migrate.files.exists() or len(os.listdir(migrate.files)) == 200
    document = migrate("--json", "import", "old", "--from", "golang-migrate").json
    assert len(document["files"]) + document["present"] == 200
    assert len(os.listdir(migrate.files)) == 200


ALL = (["check"], ["status"], ["up"], ["import", "old", "--from", "golang-migrate", "--dry-run"])
CUT = """
import os
real, left = os.{call}, [{after}]
def cut(*given, **options):
    if not left[0]:
        os.kill(os.getpid(), 9)
    left[0] -= 1
    return real(*given, **options)
os.{call} = cut
"""


@pytest.mark.parametrize(
    ("call", "after", "is_begun"),
    [("fsync", 1, False), ("rename", 0, False), ("link", 0, True), ("link", 1, True), ("rename", 1, True)],
)
def test_an_import_that_adds_files_and_is_killed_is_whole_or_refused(
    call: str, after: int, is_begun: bool, migrate: Migrate
) -> None:
    """Before its first file appears, nothing has changed; after that the folder is refused until the next import."""
    files = {f"{number}_a.up.sql": f"select {number};\n" for number in range(1, 5)}
    old(migrate, dict([*files.items()][:1]))
    assert migrate("import", "old", "--from", "golang-migrate").exit_code == 0
    old(migrate, files)
    (migrate.folder / "sitecustomize.py").write_text(CUT.format(call=call, after=after))
    path = f"{migrate.folder}:{Path(copy.__file__).parents[2]}"
    assert migrate.process("import", "old", "--from", "golang-migrate", url="", PYTHONPATH=path).exit_code == -9
    assert [*migrate.files.glob(".*")]
    refused = "sql: error: an import into this folder was cut short"
    assert [refused in migrate(*command).output for command in ALL] == [is_begun] * len(ALL)
    assert is_begun or [path.name for path in migrate.files.glob("*.sql")] == ["1_a.sql"]
    document = migrate("--json", "import", "old", "--from", "golang-migrate").json
    assert (document["finished"], len(document["files"])) == ((3, 0) if is_begun else (0, 3))
    assert sorted(os.listdir(migrate.files)) == [f"{number}_a.sql" for number in range(1, 5)]
    assert migrate("up").exit_code == 0


def test_no_file_is_overwritten_and_all_are_written_or_none(migrate: Migrate) -> None:
    """A file that appears meanwhile stays as it is, and those written before it are taken back."""
    old(migrate, TOOLS["goose"][0])
    planned = copy.plan("old", "sql")
    migrate.write({"00003_three.sql": "mine"})
    with pytest.raises(Exception, match=r"cannot write sql/00003_three.sql: File exists"):
        writing.write(planned)
    assert [path.name for path in migrate.files.iterdir()] == ["00003_three.sql"]
    assert (migrate.files / "00003_three.sql").read_text() == "mine"
    assert sorted(path.name for path in migrate.folder.iterdir()) == ["old", "sql"]


def test_a_folder_with_migrations_of_its_own_is_refused(migrate: Migrate) -> None:
    """Their order among the imported ones is not known."""
    old(migrate, TOOLS["goose"][0])
    run = migrate("import", "old", files=["select 1;"])
    assert run.exit_code == 2
    assert "sql has migrations already that were not imported from goose, such as sql/1_a.sql" in run.stderr


def test_the_folder_itself_is_refused_as_target(migrate: Migrate) -> None:
    """Each run would meet the old files and the new ones."""
    old(migrate, TOOLS["goose"][0], "sql")
    run = migrate("import", "sql")
    assert run.exit_code == 2
    assert "sql is the folder that would be written to" in run.stderr


def test_folders_in_the_target_become_files_beside_them(migrate: Migrate) -> None:
    """As `up` names the command for a folder of folders, it works there."""
    old(migrate, TOOLS["prisma"][0], "sql")
    hint = migrate("up").stderr.partition("outreach-migrate ")[2].split("\n")[0]
    assert hint == "import sql"
    assert migrate(*hint.split()).exit_code == 0
    assert migrate("up").exit_code == 0


def test_it_ends_with_the_commands_that_come_next(migrate: Migrate) -> None:
    """They name the folder where it is not the default."""
    old(migrate, TOOLS["goose"][0])
    run = migrate("--dir", "new place", "import", "old")
    program = "  outreach-migrate --dir 'new place'"
    assert run.stderr.splitlines() == [
        "Next:",
        f"{program} check     # the files alone, without a database",
        f"{program} adopt     # a database that goose has migrated",
        f"{program} up        # an empty database",
    ]
    assert os.listdir("new place")


def test_a_tool_with_its_history_elsewhere_is_followed_by_a_baseline(migrate: Migrate) -> None:
    """Hasura keeps it in a database of its own, so `adopt` has nothing to read there, and names the command, too."""
    old(migrate, TOOLS["hasura"][0])
    following = migrate("--json", "import", "old").json["next"]
    assert [one.split()[1] for one in following] == ["check", "baseline", "up"]
    run = migrate("adopt")
    assert (run.exit_code, following[1].partition("#")[0].strip() in run.stderr) == (0, True)


def test_a_text_that_is_not_utf8_is_refused(migrate: Migrate) -> None:
    """With the byte and its place."""
    old(migrate, {"1_a/migration.sql": b"select '\xff';", "migration_lock.toml": LOCK})
    assert "old/1_a/migration.sql: error: not UTF-8: byte 0xff at offset 8" in migrate("import", "old").stderr


def test_a_name_that_ends_as_another_tools_way_is_changed(migrate: Migrate) -> None:
    """goose takes 1_a.up.sql, but a file of that name is refused here, and a second import would not find it."""
    names = ("1_a.up.sql", "2_b.DOWN.sql", "3_c.rollback.sql", "4_d.up.down.sql")
    old(migrate, dict.fromkeys(names, f"-- +goose Up\n{A}"))
    assert migrate("import", "old").exit_code == 0
    assert {*new(migrate)} == {"1_a_up.sql", "2_b_DOWN.sql", "3_c_rollback.sql", "4_d.up_down.sql"}
    assert migrate("check").exit_code == 0
    assert migrate("--json", "import", "old", "--from", "goose").json["present"] == 4


def test_a_migration_that_is_no_file_is_refused(migrate: Migrate) -> None:
    """A link to nothing would be missing from the new folder, and nobody would see it."""
    old(migrate, {"1_a.up.sql": A})
    (migrate.folder / "old" / "2_b.up.sql").symlink_to("nowhere")
    run = migrate("import", "old", "--from", "sqlx")
    assert run.exit_code == 1
    assert "old/2_b.up.sql: error: not a regular file, but perhaps a link to nothing" in run.stderr
    assert not migrate.files.exists()


def test_psycopg_is_not_imported(migrate: Migrate) -> None:
    """It works where no driver is, and needs no database."""
    old(migrate, TOOLS["goose"][0])
    (migrate.folder / "psycopg.py").write_text("raise ImportError('no driver')")
    assert (
        migrate.process(
            "import", "old", url="", PYTHONPATH=f"{migrate.folder}:{Path(copy.__file__).parents[2]}"
        ).exit_code
        == 0
    )
