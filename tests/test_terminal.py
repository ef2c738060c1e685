"""The terminal: a live line, colours, and streams that nobody reads."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
from fix_cli import THREE, Migrate, Recorded, Rows
from fix_terminal import in_a_terminal


def test_a_terminal_shows_the_running_file(migrate: Migrate) -> None:
    """A terminal is shown the file that runs and for how long, on a line that is taken back."""
    migrate.write({"1_slow.sql": "select pg_sleep(0.4)"})
    written = in_a_terminal(migrate, "up")
    assert re.search(r"\r\x1b\[2K1  slow  [1-9]\d\d ms …", written)
    assert "\x1b[32mapplied" in written
    assert written.rindex("…") < written.rindex("\x1b[2K") < written.index("applied in")


def test_a_terminal_shows_a_fleet_in_one_line(migrate: Migrate, rows: Rows) -> None:
    """A terminal is shown how many targets have ended, and which run, on a line that is taken back."""
    rows("CREATE SCHEMA tenant_1; CREATE SCHEMA tenant_2")
    migrate.write({"1_slow.sql": "select pg_sleep(0.2)"})
    written = in_a_terminal(migrate, "fleet", "--schemas", "tenant_*", "up", "-j", "1")
    assert re.search(r"\r\x1b\[2K0 of 2  1 running  tenant_1\r\x1b\[2K", written)
    assert re.search(r"1 of 2  1 running  (\d:\d\d left  )?tenant_2", written)
    assert written.rindex("\x1b[2K") < written.index("2 targets in ")


def test_no_color_is_honoured(migrate: Migrate) -> None:
    """NO_COLOR leaves a terminal without colours."""
    migrate.write(THREE)
    assert "\x1b[3" not in in_a_terminal(migrate, "up", NO_COLOR="1")


def test_a_dumb_terminal_gets_plain_lines(migrate: Migrate) -> None:
    """TERM=dumb knows neither colours nor how to take back a line."""
    migrate.write({"1_slow.sql": "select pg_sleep(0.2)"})
    assert "\x1b" not in in_a_terminal(migrate, "up", TERM="dumb")


def test_a_process_and_a_call_say_the_same(migrate: Migrate) -> None:
    """`python -m outreach_migrate` does the same: no colours and no live line where there is no terminal."""
    migrate.write(THREE)
    run = migrate.process("up")
    assert (run.exit_code, run.stderr, "\x1b" in run.stdout) == (0, "", False)
    assert run.stdout.startswith("1  first  applied in ")


@pytest.mark.parametrize("closed", ["1", "2"])
def test_a_closed_stream_is_no_trouble(closed: str, migrate: Migrate, recorded: Recorded) -> None:
    """A run does its work also where nobody could read its output."""
    migrate.write({"1_a.sql": "select 1"})
    command = ["sh", "-c", f'exec "$@" {closed}>&-', "sh", sys.executable, "-m", "outreach_migrate", "up"]
    env = {**os.environ, "DATABASE_URL": migrate.url}
    assert subprocess.run(command, cwd=migrate.folder, env=env, timeout=20).returncode == 0
    assert recorded() == ["a"]


def test_a_reader_that_goes_away_stops_no_run(migrate: Migrate, rows: Rows) -> None:
    """`up | head -1` applies all files."""
    migrate.write({f"{number}_a.sql": "select pg_sleep(0.05)" for number in range(1, 9)})
    command = f"{sys.executable} -m outreach_migrate --database '{migrate.url}' up | head -n 1"
    subprocess.run(["bash", "-c", command], cwd=migrate.folder, check=True, capture_output=True)
    assert rows("select count(*) from schema_migrations") == [(8,)]
