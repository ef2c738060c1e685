"""A project as the manual shows it: tests with a migrated database, typed rows, and a committed schema."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import fix_tools
import pytest
from fix_cli import Migrate
from fix_plugin import Project
from test_manual import TEXTS, blocks
from test_sql import SQL

import outreach_migrate

SEED = """INSERT INTO "OutreachSequence" VALUES ('sequence', now(), now(), 'first', 'active');"""


@pytest.fixture
def sample(project: Project, migrate: Migrate, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The manual's ten lines and tests, outside of this repository, with the files that `up` and `types` make."""
    [settings] = blocks("toml", TEXTS["testing"])
    first, second = blocks("python", TEXTS["testing"])
    shutil.rmtree(project.folder / "sql")
    shutil.copytree(SQL, project.folder / "sql")
    project.write({
        "pyproject.toml": settings,
        "src/app/__init__.py": "",
        "tests/seed.sql": SEED,
        "tests/test_step.py": first,
        "tests/test_migration.py": second,
    })  # fmt: skip
    monkeypatch.chdir(project.folder)
    assert migrate("up").exit_code == 0
    assert migrate("types").exit_code == 0
    return project


def test_the_pages_show_the_same_ten_lines() -> None:
    """One configuration is explained on three pages."""
    [lines] = blocks("toml", TEXTS["testing"])
    assert len(lines.splitlines()) == 10
    assert all(lines in blocks("toml", TEXTS[page]) for page in ("types", "schema"))


def test_the_sample_project_passes_and_notices_a_new_migration(sample: Project, migrate: Migrate) -> None:
    """It passes pytest, mypy and both checks; a new migration fails the checks until both files are made again."""
    ended = sample.end(sample.start())
    assert ended.counts == {"passed": 2}, ended.output
    python = str(fix_tools.python())
    command = [python, "-m", "mypy", "--strict", "--no-incremental", "--explicit-package-bases", "src", "tests"]
    environment = {"MYPYPATH": f"src:{Path(SQL).parent / 'src'}"}
    checked = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert (migrate("types", "--check").exit_code, migrate("dump", "--check").exit_code) == (0, 0)

    sample.write({"sql/20260201000000_note.sql": 'ALTER TABLE "OutreachStep" ADD note text;'})
    in_ci = [migrate(command, "--scratch", "--check") for command in ("types", "dump")]  # with nothing but the files
    assert [(one.exit_code, "is out of date" in one.stderr) for one in in_ci] == [(1, True)] * 2
    outreach_migrate.up(migrate.url)
    assert (migrate("types", "--check").exit_code, migrate("dump", "--check").exit_code) == (1, 1)
    assert (migrate("types").exit_code, migrate("dump").exit_code) == (0, 0)
    assert (migrate("types", "--check").exit_code, migrate("dump", "--check").exit_code) == (0, 0)
    assert "    note: str | None" in (sample.folder / "src" / "app" / "rows.py").read_text()
    assert "note text" in (sample.folder / "schema.sql").read_text()
