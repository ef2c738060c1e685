"""Projects that other tools made, and databases that they migrated: run by `make test-long`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import fix_tools
import pytest
from fix_cli import Migrate, Rows
from fix_servers import fresh_database
from fix_tools import Dump, Project

IMPORTED = ["prisma", "dbmate", "drizzle", "drizzle 1.x", "yoyo", "alembic"]


@pytest.mark.parametrize("tools_project", IMPORTED, indirect=True)
def test_an_empty_database_becomes_like_the_tools_own(
    tools_project: Project, migrate: Migrate, dump: Dump, server_url: str
) -> None:
    """The folder is known by its shape, and `up` gives schema and rows as the tool did, in the tool's order."""
    imported = migrate("--json", "import", tools_project.folder, *tools_project.arguments)
    assert imported.exit_code == 0
    assert imported.json["tool"] == tools_project.tool
    assert migrate("check", "--strict").exit_code == 0
    with fresh_database(server_url) as empty:
        assert migrate("up", url=empty).exit_code == 0
        assert dump(empty) == dump(migrate.url)


@pytest.mark.parametrize("tools_project", IMPORTED, indirect=True)
def test_the_tools_own_database_is_taken_over(tools_project: Project, migrate: Migrate, dump: Dump, rows: Rows) -> None:
    """`status` has all as applied, at the tool's own times if it keeps any, and `up` has nothing to do."""
    before = dump(migrate.url)
    assert migrate("import", tools_project.folder, *tools_project.arguments).exit_code == 0
    in_place = ["--from", "dbmate", "--rename"] if tools_project.tool == "dbmate" else []
    assert f"outreach-migrate {' '.join(['adopt', *in_place])}" in migrate("up").stderr
    adopted = migrate("--json", "adopt", *in_place)
    assert [one["verdict"] for one in adopted.json["migrations"]] == ["adopted"] * 3
    steps = migrate("--json", "status").json["migrations"]
    assert [step["state"] for step in steps] == ["applied"] * 3
    is_1 = rows("SELECT count(*) FROM pg_attribute WHERE attname = 'applied_at'") == [(1,)]  # drizzle's
    assert {step["entry"]["timed"] for step in steps} == {is_1 or tools_project.tool in ("prisma", "yoyo")}
    if is_1:
        starts = rows("SELECT applied_at FROM drizzle.__drizzle_migrations ORDER BY id")
        assert rows("SELECT started_at FROM schema_migrations ORDER BY position") == starts
    if tools_project.tool == "prisma":
        starts = rows("SELECT started_at, finished_at FROM _prisma_migrations ORDER BY started_at")
        assert rows("SELECT started_at, finished_at FROM schema_migrations ORDER BY position") == starts
    if tools_project.tool == "yoyo":
        starts = rows("SELECT applied_at_utc AT TIME ZONE 'UTC' FROM _yoyo_migration ORDER BY 1")
        assert rows("SELECT started_at FROM schema_migrations ORDER BY position") == starts
    assert migrate("up").stdout == "Nothing is pending: 3 migrations are applied.\n"
    assert dump(migrate.url) == before


# alembic's own

ENV = """
from alembic import context
context.configure(url="postgresql+psycopg://ann:s3cret@nowhere/x")
with context.begin_transaction():
    context.run_migrations()
"""
RevisionsOf = Mapping[str, tuple[str, str]]  # by their names: the text below the imports, and the body of upgrade()


def alembic(migrate: Migrate, revisions: RevisionsOf, *, env: str = ENV, folder: str = "alembic") -> tuple[str, ...]:
    """Write a project whose revisions stand in a package that is named as alembic itself; give import's arguments."""
    versions = migrate.folder / folder / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    (migrate.folder / "alembic.ini").write_text(f"[alembic]\nscript_location = %(here)s/{folder}\n")
    (versions.parent / "env.py").write_text(env)
    (versions.parent / "__init__.py").touch()
    for name, (head, body) in revisions.items():
        lines = [f'"""{name} it\n\nRevises: x\n"""', "import sqlalchemy as sa", "from alembic import context, op"]
        lines += [f"revision = {name!r}", head if "down_revision" in head else f"down_revision = None\n{head}"]
        (versions / f"{name}.py").write_text("\n".join([*lines, "def upgrade():", f"    {body}", ""]))
    return "--json", "import", ".", "--python", str(fix_tools.python())


def made(table: str) -> str:
    return f"op.execute('create table {table} ()')"


def test_alembics_graph_becomes_its_own_order(migrate: Migrate) -> None:
    """Branches, merges, dependencies and several heads are in; each file names the revisions that it follows."""
    revisions = {
        "a": ("", made("a")),
        "b": ("down_revision = 'a'", made("b")),
        "c": ("down_revision = 'a'", made("c")),
        "d": ("down_revision = ('b', 'c')", "pass"),
        "y": ("branch_labels = ('other',)", made("y")),
        "z": ("down_revision = 'y'\ndepends_on = ('d',)", made("z")),
        "lonely": ("", made("lonely")),
    }
    document = migrate(*alembic(migrate, revisions)).json
    assert not document["left"]
    heads = {path.stem.partition("_")[2]: path.read_text().splitlines()[0] for path in migrate.files.iterdir()}
    assert heads == {
        "a_it": "-- migrate: from alembic/a",
        "b_it": "-- migrate: from alembic/b after:a",
        "c_it": "-- migrate: from alembic/c after:a",
        "d_it": "-- migrate: from alembic/d after:b after:c",
        "y_it": "-- migrate: from alembic/y",
        "z_it": "-- migrate: from alembic/z after:y after:d",
        "lonely_it": "-- migrate: from alembic/lonely",
    }
    order = [path.stem[5] for path in sorted(migrate.files.iterdir())]
    assert [*map(order.index, "abd")] == sorted(map(order.index, "abd"))
    assert max(order.index("d"), order.index("y")) < order.index("z")
    assert migrate("check", "--strict").exit_code == 0
    assert migrate("up").exit_code == 0
    assert not [*migrate.folder.glob("alembic/**/__pycache__")]


def test_alembics_dates_are_the_versions_if_they_are_in_order(migrate: Migrate) -> None:
    """A later revision with an earlier date still comes after the rest, and numbers nothing anew."""
    body = "pass\n\n\n__doc__ = 'x\\n\\nCreate Date: 2024-01-{} 12:00:00.123456'"
    revisions = {"a": ("", body.format("01")), "b": ("down_revision = 'a'", body.format("02"))}
    arguments = alembic(migrate, revisions)
    migrate(*arguments)
    assert sorted(path.name for path in migrate.files.iterdir()) == ["20240101120000_x.sql", "20240102120000_x.sql"]
    alembic(migrate, {"c": ("down_revision = 'b'", body.format("01"))})
    assert [one["path"] for one in migrate(*arguments).json["files"]] == ["sql/20240102120001_x.sql"]


ASKING = {
    "rows": ("[print(r) for r in op.get_bind().execute(sa.text('select 1'))]", "it reads rows of the database"),
    "caught": ("try: op.get_bind().execute(sa.text('select 1')).scalar()\n    except Exception: pass", "it reads rows"),
    "truth": ("if op.get_bind().execute(sa.text('select 1')): pass", "it reads rows of the database"),
    "parameters": ("op.get_bind().execute(sa.text('select :x'), {'x': 1})", "a statement with parameters"),
    "inspects": ("sa.inspect(op.get_bind())", "NoInspectionAvailable"),
    "offline": (
        "if not context.is_offline_mode(): op.execute('select 1')",
        "it does something else without a database",
    ),
    "as_sql": ("if not op.get_context().as_sql: op.execute('select 1')", "it does something else without a database"),
    "secret": ("raise ValueError('postgresql://ann:s3cret@h/x')", "ValueError: postgresql://ann:…"),
}


def test_a_revision_that_asks_the_database_is_unwritten(migrate: Migrate) -> None:
    """`check` refuses its file, which has the statements that alembic could write, until somebody writes the rest."""
    revisions = {name: ("", f"{made(f'{name}_t')}\n    {body}") for name, (body, _) in ASKING.items()}
    document = migrate(*alembic(migrate, revisions | {"written": ("", made("t"))})).json
    assert len(document["left"]) == len(ASKING)
    details = {left["path"].rpartition("/")[2].removesuffix(".py"): left["detail"] for left in document["left"]}
    for name, (_, said) in ASKING.items():
        assert said in details[name]
        [file] = migrate.files.glob(f"*_{name}_it.sql")
        text = file.read_text()
        assert text.splitlines()[1] == f"-- migrate: unwritten {details[name]}"
        assert (f"create table {name}_t ()" in text) == (name != "as_sql")
        assert "s3cret" not in f"{document}{text}"
    assert migrate("check").stdout.count("this migration has no SQL yet") == len(ASKING)


AUTOCOMMIT = {
    "index": ("op.execute('create index concurrently i on t (x)')", "pass", ["no-transaction"]),
    "unused": ("op.execute(\"alter type e add value 'unused'\")", "pass", []),
    "used": ("op.execute(\"alter type e add value 'v'\")", "op.execute(\"select 'v'::e\")", ["no-transaction"]),
    "within": ("op.execute(\"alter type e add value 'w'\"); op.execute(\"select 'w'::e\")", "pass", ["no-transaction"]),
}


def test_an_autocommit_block_is_left_out_where_it_changes_nothing(migrate: Migrate) -> None:
    """If it can't be removed, the file has no transaction, so its statements commit one by one."""
    start = "op.execute('create table t (x int)')\n    op.execute(\"create type e as enum ('x')\")"
    revisions = {"a": ("", start)}
    for name, (block, after, _) in AUTOCOMMIT.items():
        body = f"with op.get_context().autocommit_block(): {block}\n    {after}"
        revisions[name] = ("down_revision = 'a'", body)
    migrate(*alembic(migrate, revisions))
    for name, (_, _, directives) in AUTOCOMMIT.items():
        [file] = migrate.files.glob(f"*_{name}_it.sql")
        lines = file.read_text().splitlines()
        assert [line for line in lines[1:] if "migrate:" in line] == [f"-- migrate: {one}" for one in directives]
        assert not {"BEGIN;", "COMMIT;"} & {*lines}
    assert migrate("check", "--strict").exit_code == 0
    assert migrate("up").exit_code == 0


def test_values_and_signs_stand_in_the_sql_as_the_database_gets_them(migrate: Migrate) -> None:
    """Old env.py files lack options without which alembic writes names for values, and each % twice.

    For a tab alembic writes four spaces, which would change a value.
    """
    body = "op.execute(sa.text('select :x').bindparams(x='%'))\n    op.execute(\"select 'a%\\tb'\")\n    "
    body += "t = op.create_table('t', sa.Column('x', sa.Text, server_default='\\td', comment='\\tc'))\n    "
    body += "op.bulk_insert(t, [{'x': 'y\\tz'}])"
    migrate(*alembic(migrate, {"a": ("", body)}))
    text = (migrate.files / "0001_a_it.sql").read_text()
    assert "select '%';\n\nselect 'a%\tb';\n" in text
    assert {"'\td'", "'\tc'", "'y\tz'"} <= {*re.findall(r"'[^']*\t[^']*'", text)}
    assert migrate("up").exit_code == 0


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ("import os\nos.environ['NO_SUCH']", "alembic/env.py:2: KeyError: 'NO_SUCH'"),
        (
            'raise ValueError(\'postgresql://ann:s3cret@h/x and {"password": "s3cret"}\')',
            "alembic/env.py:1: ValueError",
        ),
        (
            ENV.replace("postgresql+psycopg://ann:s3cret@nowhere", "sqlite://"),
            "names a database of sqlite, not",
        ),
        ("pass", "env.py runs no migration in alembic's offline mode"),
        ("raise SystemExit('no: password=s3cret')", "does not run alembic: no: password=…"),
    ],
)
def test_an_error_of_env_py_is_shown(env: str, said: str, migrate: Migrate) -> None:
    """With its place, without passwords; nothing is written."""
    arguments = alembic(migrate, {"a": ("", made("a"))}, env=env)
    run = migrate(*arguments[1:])
    assert run.exit_code == 1
    assert said in run.stderr
    assert "s3cret" not in run.stderr
    assert not migrate.files.exists()


def test_the_python_beside_alembic_ini_is_found(migrate: Migrate) -> None:
    """A virtual environment stands there, as .venv or venv; without alembic in it the error names --python."""
    *arguments, _, _ = alembic(migrate, {"a": ("", made("a"))})
    assert "No module named 'alembic'" in migrate(*arguments).json["error"]["message"]
    beside = migrate.folder / "venv" / "bin" / "python"
    beside.parent.mkdir(parents=True)
    beside.write_text(f'#!/bin/sh\nexec {fix_tools.python()} "$@"\n')
    beside.chmod(0o755)
    assert migrate(*arguments).json["files"]
