"""Recipes for the folders that `import` refuses."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from fix_cli import TABLES, Migrate, Rows

from outreach_migrate.cli import manual

A, N = "create table a ();\n", "create table n (x int);\n"
INDEX = "create index concurrently i on n (x);\n"
DOWN = "drop table a;\n"
LIQUIBASE = """#!/bin/sh
cat <<END
-- Change Log: changelog.xml

-- Changeset changelog.xml::a/1::ann
create table a ();

-- Changeset more.sql::2::ann
create table n (x int);

-- Changeset more.sql::three::bob
create index concurrently i on n (x);

END
"""
BY_HAND: dict[str, tuple[dict[str, str], list[str]]] = {  # by the first word above each recipe
    "refinery": (
        {
            "migrations/V1__one.sql": A,
            "migrations/in/U10__three.sql": INDEX,
            "migrations/V2__two.sql": N,
        },
        ["10_three.sql", "1_one.sql", "2_two.sql"],
    ),
    "yandex-pgmigrate": (
        {
            "migrations.yml": "",
            "migrations/V0001__One_two.sql": f"{A}create table n (x int);",
            "migrations/V0002__NONTRANSACTIONAL_three.sql": f"{INDEX}select 1;\n",
        },
        ["0001_One_two.sql", "0002_NONTRANSACTIONAL_three.sql"],
    ),
    "asyncpg-trek": (
        {
            "revisions/20240101_initial_up_rev1.sql": A,
            "revisions/20240101_rev1_down_initial.sql": DOWN,
            "revisions/20240101_rev1_up_b_2.sql": N,
            "revisions/20240102_b_2_up_a3.sql": INDEX,
        },
        ["0001_rev1.sql", "0002_b_2.sql", "0003_a3.sql"],
    ),
    "node-pg-migrate": (
        {
            "migrations/1700000000000_one.sql": f"-- Up Migration\n{A}\n-- Down Migration\n{DOWN}",
            "migrations/1700000000001_two.sql": N,
        },
        ["1700000000000_one.sql", "1700000000001_two.sql"],
    ),
    "sql-migrate": (
        {
            "migrations/1_one.sql": f"-- +migrate Up\n-- +migrate StatementBegin\n{A}-- +migrate StatementEnd\n"
            f"-- +migrate Down\n{DOWN}",
            "migrations/2_two.sql": f"-- +migrate Up notransaction\ncreate table n (x int);\n{INDEX}",
        },
        ["1_one.sql", "2_two.sql"],
    ),
    "graphile-migrate": (
        {
            "migrations/committed/000001.sql": f"--! Previous: -\n--! Hash: sha1:00\n\n{A}{N}",
            "migrations/committed/000002-add-it.sql": f"--! Previous: sha1:00\n--! Hash: sha1:11\n--! Message: add it\n"
            f"--! no-transaction\n\n{INDEX}",
        },
        ["000001_committed.sql", "000002_add-it.sql"],
    ),
    "sqitch": (
        {
            "sqitch.plan": "%syntax-version=1.0.0\n%project=x\n\nusers 2024-01-01T00:00:00Z A <a@b> # one\n@v1 2024 A\n"
            "in/names [users] 2024-01-02T00:00:00Z Ann <a@b.c> # two\n",
            "deploy/users.sql": f"-- Deploy x:users to pg\n\nBEGIN;\n\n{A}create table n (x int);\n\nCOMMIT;\n",
            "deploy/in/names.sql": f"-- Deploy x:names to pg\n-- requires: users\n\n{INDEX}",
        },
        ["0001_users.sql", "0002_in_names.sql"],
    ),
    "Liquibase": ({"liquibase": LIQUIBASE}, ["0001_a_1.sql", "0002_2.sql", "0003_three.sql"]),
}


@pytest.mark.parametrize("tool", BY_HAND)
def test_each_recipe_for_bash_works(tool: str, migrate: Migrate, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """Typed in a project of the tool, it makes files that `check` passes, and `up` runs in the tool's order."""
    scripts = dict(
        re.findall(r"^([\w-]+)[^\n]*:\n\n```bash\n(.*?)^```", manual.page("moving"), re.MULTILINE | re.DOTALL)
    )
    assert scripts.keys() == BY_HAND.keys()
    files, names = BY_HAND[tool]
    for name, text in files.items():
        (migrate.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (migrate.folder / name).write_text(text)
    if tool == "Liquibase":
        (migrate.folder / "liquibase").chmod(0o755)
        monkeypatch.setenv("PATH", f"{migrate.folder}:{os.environ['PATH']}")
    subprocess.run(["bash", "-euc", scripts[tool]], cwd=migrate.folder, check=True)
    assert sorted(path.name for path in migrate.files.iterdir()) == names
    assert migrate("check", "--strict").exit_code == 0
    assert migrate("up").exit_code == 0
    assert [name for (name,) in rows(TABLES)] == ["a", "n", "schema_migrations"]
