"""`accept`: an applied file that was edited gets its present checksum recorded."""

from __future__ import annotations

import hashlib
import os
import pty
import subprocess
import sys

import pytest
from fix_cli import Migrate, Result, Rows

BEFORE, AFTER = "create table a ();\n-- the first\n", "CREATE TABLE a ();\n-- the first\n"
CHECKSUMS = [hashlib.sha256(text.encode()).hexdigest() for text in (BEFORE, AFTER)]
RECORDED = "SELECT checksum FROM schema_migrations"


def git(migrate: Migrate, *arguments: str) -> None:
    command = ["git", "-c", "user.name=a", "-c", "user.email=a", *arguments]
    subprocess.run(command, cwd=migrate.folder, check=True, capture_output=True)


@pytest.fixture
def edited(migrate: Migrate) -> Migrate:
    """A repository with an applied file that was edited since, under another name before, on a branch that is gone."""
    migrate.write({"1_old.sql": BEFORE.replace("\n", "\r\n")})
    git(migrate, "init", "--quiet", "--initial-branch=main")
    for message in ("one", "two", "three"):
        if message == "two":
            git(migrate, "mv", "sql/1_old.sql", "sql/1_a.sql")
            assert migrate("up").exit_code == 0
        if message == "three":
            migrate.write({"1_a.sql": AFTER})
        git(migrate, "add", ".")
        git(migrate, "commit", "--quiet", "--message", message)
    return migrate


def test_the_present_checksum_is_recorded(edited: Migrate, rows: Rows) -> None:
    """Both checksums, the application's role and time, and the difference to git's text are shown; then all is well."""
    assert "outreach-migrate accept 1\n" in edited("up").stderr
    run = edited("accept", "1", "--yes")
    assert run.exit_code == 0
    [(by, when)] = rows(
        "SELECT applied_by, to_char(started_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM schema_migrations"
    )
    assert run.stdout.splitlines() == [
        f"1  a  applied {when} by {by}",
        f"  recorded: {CHECKSUMS[0]}",
        f"  the file: {CHECKSUMS[1]}",
        "--- sql/1_a.sql as it was applied",
        "+++ sql/1_a.sql as it is",
        "@@ -1,2 +1,2 @@",
        "-create table a ();",
        "+CREATE TABLE a ();",
        " -- the first",
        "1 checksum recorded.",
    ]
    assert rows(RECORDED) == [(CHECKSUMS[1],)]
    assert edited("status", "--check").exit_code == 0
    assert edited("accept", "1").stdout == "Nothing to accept: the files are those that were applied.\n"


def test_nothing_is_recorded_without_an_answer(edited: Migrate, rows: Rows) -> None:
    """Where nobody can be asked, --yes is missing: wrong usage."""
    run = edited("--json", "accept", "1")
    assert (run.exit_code, run.json["error"]["kind"], run.json["written"]) == (2, "UsageError", False)
    assert "--yes" in run.stderr
    assert run.json["edited"][0]["diff"].endswith("-create table a ();\n+CREATE TABLE a ();\n -- the first")
    assert rows(RECORDED) == [(CHECKSUMS[0],)]


@pytest.mark.parametrize(("answer", "exit_code", "checksum"), [("y", 0, CHECKSUMS[1]), ("n", 1, CHECKSUMS[0])])
def test_on_a_terminal_it_asks(answer: str, exit_code: int, checksum: str, edited: Migrate, rows: Rows) -> None:
    """Only a yes is a yes."""
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    command = [sys.executable, "-m", "outreach_migrate", "accept", "1"]
    env = {**os.environ, "DATABASE_URL": edited.url}
    ended = subprocess.run(command, cwd=edited.folder, env=env, stdin=theirs, capture_output=True, encoding="utf-8")
    os.close(ours)
    os.close(theirs)
    assert ended.returncode == exit_code, ended
    assert "Record this checksum of the file? [y/N]" in ended.stderr
    assert rows(RECORDED) == [(checksum,)]


def test_a_text_that_git_does_not_have_is_reported(migrate: Migrate, rows: Rows) -> None:
    """Outside of a repository the checksums alone are shown."""
    assert migrate("up", files=[BEFORE, "select 2;"]).exit_code == 0
    migrate.write([AFTER, "select  2;"])
    run = migrate("--json", "accept", "1", "2", "--yes")
    assert [one["diff"] for one in run.json["edited"]] == [None, None]
    assert run.stderr.count("git has no version of ") == 2
    assert migrate("status", "--check").exit_code == 0


@pytest.mark.parametrize(("version", "words"), [("2", "is not applied"), ("9", "no migration has version 9")])
def test_only_an_applied_file_can_be_accepted(version: str, words: str, migrate: Migrate) -> None:
    """Anything else is wrong usage, and nothing is recorded."""
    assert migrate("up", files=[BEFORE]).exit_code == 0
    run: Result = migrate("accept", "1", version, "--yes", files=[AFTER, "select 2;"])
    assert (run.exit_code, words in run.stderr) == (2, True)
    assert "edited" in migrate("status").stdout
