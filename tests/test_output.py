"""Output: no foreign text steers the terminal, any locale can show it, and a full device is an error."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fix_cli import Migrate, Rows

STEERING = "\x1b]0;title\x07\r\x7f\x9b2J\u202e"
SHOWN = r"\x1b]0;title\x07\r\x7f\x9b2J\u202e"


def steers(text: str) -> set[str]:
    return {sign for sign in text if not sign.isprintable()} - {"\n"}


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(f"do $$ begin raise notice '{STEERING}'; end $$; select 1/0", id="a notice"),
        pytest.param(f"do $$ begin raise exception '{STEERING}'; end $$", id="a message"),
        pytest.param(f"do $$ begin raise 'no' using detail = '{STEERING}'; end $$", id="a detail"),
        pytest.param(f"do $$ begin raise 'no' using hint = '{STEERING}'; end $$", id="a hint"),
        pytest.param(f"select '{STEERING}'\n, nme, '{STEERING}'", id="an excerpt"),
        pytest.param(f"-- migrate: {STEERING}\nselect 1", id="a directive"),
    ],
)
def test_what_would_steer_a_terminal_is_shown_escaped(migrate: Migrate, text: str) -> None:
    """Control characters, and marks that turn the direction of writing, are written as in a Python string."""
    run = migrate("up", files={"1_a.sql": text})
    assert run.exit_code == 1
    assert SHOWN in run.stderr
    assert steers(run.stderr) == set()


def test_what_the_table_holds_is_shown_escaped(migrate: Migrate, rows: Rows) -> None:
    """A row's name and author stay in their line of the table, whatever they are; JSON has them as they are."""
    migrate("up", files={"1_a.sql": "select 1", "2_b.sql": "select 2"})
    (migrate.files / "1_a.sql").unlink()
    rows("UPDATE schema_migrations SET name = name || %s, applied_by = %s", f"{STEERING}\n", STEERING)
    run = migrate("status")
    assert [SHOWN + r"\n" in line for line in run.stdout.splitlines()] == [False, True, False, False, True, False]
    assert steers(run.stdout) == set()
    document = migrate("--json", "status")
    assert steers(document.stdout) == set()
    assert document.json["migrations"][0]["name"] == f"a{STEERING}\n"


@pytest.mark.parametrize(
    ("before", "as_wide"),
    [
        pytest.param("'中文', ", "'1234', ", id="wide characters"),
        pytest.param("'ｆｕ', ", "'1234', ", id="fullwidth characters"),
        pytest.param("'e\u0301', ", "'1', ", id="combining characters"),
        pytest.param("'\x1b', ", "'1234', ", id="what is escaped"),
    ],
)
def test_the_caret_is_below_the_character(migrate: Migrate, before: str, as_wide: str) -> None:
    """It counts the columns of a terminal: two for a wide character, none for one that combines."""
    run = migrate("up", files={"1_a.sql": f"select {before}nme"})
    [caret] = [line for line in run.stderr.splitlines() if line.endswith("^")]
    assert caret.index("^") == f"1 | select {as_wide}nme".index("nme")


LOCALES = {"de_DE.ISO-8859-1": ("größe", "??"), "C": ("größe", "中"), "ascii": ("gr??e", "??")}


@pytest.fixture
def encoding(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The encoding of a locale's output; processes run in that locale, which is made where it is absent."""
    monkeypatch.setenv("LC_ALL", "C" if request.param == "ascii" else request.param)
    if request.param == "C":
        return "utf-8"
    if request.param == "ascii":
        monkeypatch.setenv("PYTHONIOENCODING", "ascii")
        return "ascii"
    if shutil.which("localedef") is None:
        pytest.skip("no localedef")
    folder = tmp_path / "locales" / request.param
    folder.parent.mkdir()
    made = subprocess.run(["localedef", "-i", "de_DE", "-f", "ISO-8859-1", folder], capture_output=True, check=False)
    if not folder.exists():
        pytest.skip(f"no locale: {made.stderr!r}")
    monkeypatch.setenv("LOCPATH", str(folder.parent))
    return "latin-1"


@pytest.mark.parametrize(("encoding", "shown"), LOCALES.items(), indirect=["encoding"], ids=LOCALES)
def test_a_locale_that_lacks_a_character_shows_a_question_mark(
    migrate: Migrate, rows: Rows, encoding: str, shown: tuple[str, str]
) -> None:
    """A character takes as many ? as columns, no command fails, and a name is recorded as it is."""
    migrate.write({"1_größe中Ä.sql": "do $$ begin raise notice '中 …'; end $$"})
    run = migrate.process("up", encoding=encoding)
    assert run.exit_code == 0, run
    assert run.stdout.startswith(f"1  {''.join(shown)}{'?' if encoding == 'ascii' else 'Ä'}  applied in ")
    assert run.stderr.endswith(f"NOTICE: {shown[1]} {'…' if encoding == 'utf-8' else '?'}\n")
    assert rows("SELECT name FROM schema_migrations") == [("größe中Ä",)]
    status = migrate.process("--json", "status", encoding=encoding)
    assert status.json["migrations"][0]["path"] == "sql/1_größe中Ä.sql"
    assert migrate.process("--help", encoding="latin-1").exit_code == 0
    made = migrate.process("new", "Größe")  # its path is written as the file system has it
    assert (made.exit_code, migrate.process("check", encoding=encoding).exit_code) == (0, 0), made


FULL = Path("/dev/full")


def written_to(migrate: Migrate, *arguments: str, full: str) -> subprocess.CompletedProcess[str]:
    """Run the command line with one of its streams on a full device."""
    with FULL.open("w") as device:
        command = [sys.executable, "-m", "outreach_migrate", "--database", migrate.url, *arguments]
        stdout = device if full == "stdout" else subprocess.PIPE
        stderr = device if full == "stderr" else subprocess.PIPE
        return subprocess.run(command, cwd=migrate.folder, stdout=stdout, stderr=stderr, encoding="utf-8", check=False)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
@pytest.mark.parametrize("command", [["up"], ["--json", "up"], ["--help"], ["new", "x"]])
def test_a_full_device_is_reported(migrate: Migrate, command: list[str]) -> None:
    """A full stdout is one line on stderr, and the exit code is 1; the run itself is done to its end."""
    migrate.write({"1_a.sql": "select 1", "2_b.sql": "create table b ()"})
    run = written_to(migrate, *command, full="stdout")
    assert run.returncode == 1
    assert run.stderr.splitlines()[-1] == "error: cannot write to stdout: No space left on device"
    assert "Traceback" not in run.stderr
    if "up" in command:
        assert migrate("status", "--check").exit_code == 0


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full")
def test_a_full_stderr_is_reported_on_stdout(migrate: Migrate) -> None:
    """If stderr can't be written, the last line of stdout says so, or the document."""
    notice = "do $$ begin raise notice 'lost'; end $$"
    migrate.write({"1_a.sql": notice})
    run = written_to(migrate, "up", full="stderr")
    message = "cannot write to stderr: No space left on device"
    assert (run.returncode, run.stdout.splitlines()[-1]) == (1, f"error: {message}")
    migrate.write({"2_b.sql": notice})
    run = written_to(migrate, "--json", "up", full="stderr")
    assert run.returncode == 1
    assert f'"message": "{message}"' in run.stdout


def test_a_run_goes_on_where_nobody_reads(migrate: Migrate) -> None:
    """After `| head` the output is lost, and every file is applied."""
    migrate.write({f"{number}_a.sql": "select 1" for number in range(1, 4)})
    command = [sys.executable, "-m", "outreach_migrate", "--database", migrate.url, "-v", "up"]
    with subprocess.Popen(command, cwd=migrate.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert (len(process.stderr.read().splitlines()), process.wait(20)) == (1, 0)  # the database's name
    assert migrate("status", "--check").exit_code == 0
