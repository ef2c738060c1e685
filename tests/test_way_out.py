"""No state of files and history that can be got into leaves a run without a way out, or without a word."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fix_cli import Migrate, Rows

UNFINISHED = {
    "1_a.sql": "create table a (b int); insert into a values (1), (1);",
    "2_i.sql": "-- migrate: no-transaction\ncreate unique index concurrently i on a (b);",
}


@pytest.fixture
def unfinished(migrate: Migrate) -> None:
    """Version 2 is unfinished."""
    assert migrate("up", files=UNFINISHED).exit_code == 1


def test_an_unfinished_file_can_not_come_to_want_a_transaction(migrate: Migrate, unfinished: None) -> None:
    """--from-start does not turn it into another kind of file: that is refused, at once."""
    files = {"2_i.sql": "create index i on a (b);"}
    migrate.write(files)
    run = migrate.process("up", "--from-start", "2")
    assert run.exit_code == 1
    assert "Begin the file with: -- migrate: no-transaction" in run.stderr


def test_an_unfinished_file_that_is_gone_is_told_of(migrate: Migrate, unfinished: None) -> None:
    """An older release meets what a newer one has begun: a warning for `up`, trouble for `status --check`."""
    (migrate.files / "2_i.sql").unlink()
    run = migrate("up")
    assert (run.exit_code, "2_i is unfinished, and newer than all files" in run.stderr) == (0, True)
    assert migrate("status", "--check").exit_code == 1


def test_a_history_row_deleted_by_hand_bars_no_way(migrate: Migrate, rows: Rows, unfinished: None) -> None:
    """The row before an unfinished file's may be gone: the file is finished all the same."""
    rows("delete from schema_migrations where version = '1'; update a set b = 2 where ctid = (select min(ctid) from a)")
    (migrate.files / "1_a.sql").write_text("select 1")
    run = migrate("up", "--allow-out-of-order")
    assert run.exit_code == 0, run.stderr
    assert rows("select version from schema_migrations where finished_at is not null order by 1") == [("1",), ("2",)]


def test_a_reader_that_goes_away_stops_no_run(migrate: Migrate, rows: Rows) -> None:
    """`up | head -1` applies all files."""
    migrate.write({f"{number}_a.sql": "select pg_sleep(0.05)" for number in range(1, 9)})
    command = f"{sys.executable} -m outreach_migrate --database '{migrate.url}' up | head -n 1"
    subprocess.run(["bash", "-c", command], cwd=migrate.folder, check=True, capture_output=True)
    assert rows("select count(*) from schema_migrations") == [(8,)]


def test_two_databases_are_wrong_usage(migrate: Migrate) -> None:
    """--database and --embedded together name two."""
    assert migrate("--database", migrate.url, "--embedded", "status").exit_code == 2


def test_a_tiny_lock_timeout_is_one(migrate: Migrate) -> None:
    """What is less than a millisecond is not taken for no limit, and what PostgreSQL can't hold is wrong usage."""
    files = {"1_a.sql": "do $$ begin raise notice 'limit %', current_setting('lock_timeout'); end $$;"}
    assert "limit 1ms" in migrate("up", "--lock-timeout", "0.4ms", files=files).stderr
    assert migrate("up", "--lock-timeout", "1000h").exit_code == 2


def test_quiet_still_tells_what_is_wrong(migrate: Migrate) -> None:
    """-q leaves out all but trouble."""
    run = migrate("-q", "status", "--check", files={"1_a.sql": "commit"})
    assert (run.exit_code, run.stdout) == (1, "")
    assert "COMMIT cannot be used" in run.stderr
