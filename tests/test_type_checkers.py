"""Type checkers accept code that reads the migrated schema by its generated rows, and refuse columns that are gone."""

from __future__ import annotations

import subprocess
from pathlib import Path

import fix_servers
import fix_tools
import pytest
from fix_cli import Migrate
from test_sql import BASELINE, CADENCE, SQL
from test_types import NASTY, STYLES

DUE = '''\
from datetime import datetime

from psycopg import Connection
from psycopg.rows import class_row

from rows import OutreachStep


def due(connection: Connection) -> list[tuple[str, datetime | None, str | None]]:
    """Give the steps whose time has come."""
    cursor = connection.cursor(row_factory=class_row(OutreachStep))
    cursor.execute('SELECT * FROM "OutreachStep" WHERE "nextStepReadyAt" <= now()')
    return [(step.id, step.{column}, step.triggeredBy) for step in cursor]
'''
CHECKERS = {
    "mypy": ["-m", "mypy", "--strict", "--no-incremental", "--hide-error-context"],
    "pyright": ["-m", "basedpyright", "--level", "error"],
}


def complaints(checker: str, folder: Path) -> list[str]:
    """Run a type checker over a folder; give the lines that report an error."""
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
    python = str(fix_tools.python())
    command = [python, *CHECKERS[checker], *(["--pythonpath", python] if checker == "pyright" else []), "."]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = [line for line in run.stdout.splitlines() if "error:" in line or "- error" in line]
    assert (run.returncode == 0) == (not found), run.stdout + run.stderr
    return found


@pytest.mark.parametrize("checker", CHECKERS)
def test_a_query_of_the_cadence_columns_is_accepted_once_they_are_there(migrate: Migrate, checker: str) -> None:
    """The sample is refused before the migration, accepted after it, and refused for one that isn't there."""
    code, source = migrate.folder / "code", migrate.folder / "code" / "due.py"
    code.mkdir()
    found = []
    for version, column in [(BASELINE, "nextStepReadyAt"), (CADENCE, "nextStepReadyAt"), (CADENCE, "nextStepAt")]:
        migrate("--dir", SQL, "up", "--to", version)
        migrate("types", "--out", "code/rows.py")
        source.write_text(DUE.format(column=column))
        found.append(complaints(checker, code))
    before, after, misspelled = found
    assert before
    assert all("nextStepReadyAt" in line or "triggeredBy" in line for line in before)
    assert after == []
    assert misspelled
    assert all("nextStepAt" in line for line in misspelled)


@pytest.mark.parametrize("checker", CHECKERS)
def test_modules_of_a_nasty_schema_have_no_error(migrate: Migrate, connect: fix_servers.Connect, checker: str) -> None:
    """Each style's module of a schema full of awkward names and types is accepted."""
    connect().execute(NASTY.encode())
    (migrate.folder / "code").mkdir()
    for style in STYLES:
        migrate("types", "--out", f"code/{style}_rows.py", "--style", style, "--inserts")
    assert complaints(checker, migrate.folder / "code") == []
