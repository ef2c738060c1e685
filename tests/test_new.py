"""`new`: the file of a migration."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fix_cli import Migrate, Result, Rows, called


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def new(*arguments: str, **env: str) -> Result:
    return called("new", *arguments, **env)


def test_its_path_and_nothing_else_is_printed() -> None:
    """stdout has the path of the file that was made, in the folder that was absent, and stderr has nothing."""
    before = datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    made = new("add", "phone", "to", "step")
    path = Path(made.stdout.rstrip("\n"))
    assert path.is_file()
    assert path.name.endswith("_add_phone_to_step.sql")
    assert before <= path.name.partition("_")[0] <= datetime.now(UTC).strftime("%Y%m%d%H%M%S")
    assert made.stderr == ""


@pytest.mark.parametrize(
    ("name", "plain"),
    [("Add Phone!", "add_phone"), ("  a -- b/../c ", "a_b_c"), ("naïve Größe", "naïve_größe"), ("x_1", "x_1")],
)
def test_a_name_becomes_a_plain_one(name: str, plain: str) -> None:
    """Signs other than letters, digits and underscores become one underscore; letters become lower case."""
    assert Path(new(name).stdout.strip()).name.partition("_")[2] == f"{plain}.sql"


def test_a_name_of_signs_only_is_wrong_usage() -> None:
    """A name that leaves nothing is refused, and no file is made."""
    assert new("!!!").exit_code == 2
    assert not Path("sql").exists()


def test_the_newest_file_stays_the_newest() -> None:
    """Of files made in one second each sorts after the one before, and none is overwritten."""
    made = [new("same").stdout for _ in range(5)]
    assert len(set(made)) == 5
    assert sorted(made) == made


@pytest.mark.parametrize(
    ("newest", "version"),
    [
        ("29991231235959", "30000101000000"),  # in the future: one second later
        ("99999999999999", "100000000000000"),  # no time at all: the next number
    ],
)
def test_a_file_of_the_future_is_followed(newest: str, version: str) -> None:
    """A version that lies in the future is followed by the one a second later."""
    Path("sql").mkdir()
    Path(f"sql/{newest}_x.sql").write_text("select 1")
    assert new("y").stdout == f"sql/{version}_y.sql\n"


def test_small_versions_are_followed_by_the_time() -> None:
    """After 0001 comes the time, not 0002."""
    Path("sql").mkdir()
    Path("sql/0001_x.sql").write_text("select 1")
    latest = (datetime.now(UTC) + timedelta(minutes=1)).strftime("%Y%m%d%H%M%S")
    assert "20260101000000" < Path(new("y").stdout).name < latest


@pytest.mark.parametrize("option", [(), ("--no-transaction",)])
def test_a_new_file_says_how_it_will_run(option: tuple[str, ...], migrate: Migrate, rows: Rows) -> None:
    """Its head has the name, the directive where `up` finds it, and a note on failures; SQL goes below."""
    path = Path(migrate(*("new", *option, "add", "t")).stdout.strip())
    head = path.read_text()
    assert head.startswith("-- add t\n")
    assert ("-- migrate: no-transaction\n" in head) == bool(option)
    assert max(map(len, head.splitlines())) <= 110
    path.write_text(f"{head}CREATE TABLE t ();\nSELECT 1/0;\n")
    assert migrate("up").exit_code == 1
    stays = "those before it stay" in head
    assert ("nothing of this file stays" in head, rows("SELECT to_regclass('t') IS NOT NULL")) == (
        not stays,
        [(stays,)],
    )


def test_the_editor_is_opened_with_the_file(tmp_path: Path) -> None:
    """--edit opens $VISUAL with the new file's path."""
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\necho "select 1;" >> "$1"\n')
    editor.chmod(0o700)
    path = new("--edit", "x", VISUAL=str(editor)).stdout.strip()
    assert Path(path).read_text().endswith("select 1;\n")
