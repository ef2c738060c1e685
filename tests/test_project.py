"""The project: the nearest folder upwards with [tool.outreach-migrate] in its pyproject.toml."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fix_cli import Migrate


@pytest.fixture
def below(migrate: Migrate, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """A function that writes the project's table, and goes two folders down."""

    def written(toml: str) -> Path:
        (migrate.folder / "pyproject.toml").write_text(toml)
        (folder := migrate.folder / "src" / "app").mkdir(parents=True)
        monkeypatch.chdir(folder)
        return folder

    return written


def test_from_a_subfolder_the_projects_files_are_run(migrate: Migrate, below: Callable[[str], Path]) -> None:
    """`sql` is the project's; paths are shown as seen from here, and stderr names the pyproject.toml."""
    below("[tool.outreach-migrate]\n")
    run = migrate("--json", "up", files={"1_a.sql": "SELECT 1;"})
    assert [one["path"] for one in run.json["applied"]] == ["../../sql/1_a.sql"]
    assert run.stderr.startswith("Using ../../pyproject.toml.\n")
    assert migrate("-q", "status").stderr == ""
    assert migrate("new", "b").stdout.startswith("../../sql/2")


def test_paths_of_the_file_count_from_it(migrate: Migrate, below: Callable[[str], Path]) -> None:
    """A relative `dir` in pyproject.toml is beside it; on the command line and in a variable it is here."""
    folder = below("[tool.outreach-migrate]\ndir = 'sql'\n[tool.outreach-migrate.up]\ndry-run = true\n")
    migrate.write({"1_a.sql": "SELECT 1;"})
    assert "-- ../../sql/1_a.sql\n" in migrate("up").stdout
    (folder / "here").mkdir()
    (folder / "here" / "7_h.sql").write_text("SELECT 7;")
    assert "-- here/7_h.sql\n" in migrate("--dir", "here", "up").stdout
    absolute = migrate.folder / "sql"
    (migrate.folder / "pyproject.toml").write_text(f"[tool.outreach-migrate]\ndir = '{absolute}'\n")
    assert migrate("--json", "up").json["applied"][0]["path"] == f"{absolute}/1_a.sql"


def test_the_private_server_is_the_projects(migrate: Migrate, below: Callable[[str], Path]) -> None:
    """`.outreach` is made beside pyproject.toml."""
    folder = below("[tool.outreach-migrate]\n")
    migrate.write({"1_a.sql": "SELECT 1;"})
    assert migrate("--embedded", "status").exit_code == 0
    assert (migrate.folder / ".outreach" / "data").is_dir()
    assert list(folder.iterdir()) == []


def test_the_nearest_table_counts(migrate: Migrate, below: Callable[[str], Path]) -> None:
    """A pyproject.toml without our table is passed over, even one that is no TOML; without any the project is here."""
    folder = below("[tool.outreach-migrate]\ntable = 'far'\n")
    (folder.parent / "pyproject.toml").write_text("[tool.outreach-migrate]\ndir = '.'\n")
    (folder / "pyproject.toml").write_text("[tool.other]\n= broken")
    (folder.parent / "3_c.sql").write_text("SELECT 3;")
    run = migrate("up")
    assert "3  c  applied" in run.stdout
    assert run.stderr == "Using ../pyproject.toml.\n"
    (folder.parent / "pyproject.toml").unlink()
    (migrate.folder / "pyproject.toml").write_text("")
    assert "sql: error: cannot read the folder" in migrate("up").stderr


def test_a_mistake_above_is_reported_with_its_path(below: Callable[[str], Path], migrate: Migrate) -> None:
    """An unknown key of a pyproject.toml above is an error that leads there."""
    below("[tool.outreach-migrate]\ntabel = 'x'\n")
    run = migrate("status")
    assert run.exit_code == 2
    assert "../../pyproject.toml: [tool.outreach-migrate] has an unknown key: tabel; did you mean table?" in run.stderr
