"""`status`: every version with its state, all problems, and the exit code for CI; nothing is ever written."""

from __future__ import annotations

import re
import socket
from typing import Any, LiteralString

import pytest
from fix_cli import Migrate, Rows
from fix_servers import Connect
from psycopg import sql

APPLIED = {
    "1_a.sql": "select 1",
    "2_b.sql": "select 2",
    "3_c.sql": "select 3",
    "6_d.sql": "select 6",
    "9_e.sql": "select 9",
}
EVERYTHING: LiteralString = """
    SELECT (SELECT array_agg(oid::regclass::text ORDER BY oid) FROM pg_class WHERE oid >= 16384),
           (SELECT array_agg(nspname::text ORDER BY oid) FROM pg_namespace WHERE oid >= 16384)"""


def states(document: dict[str, Any]) -> dict[str, str]:
    return {one["version"]: one["state"] for one in document["migrations"]}


@pytest.fixture
def every_state(migrate: Migrate, rows: Rows) -> dict[str, str]:
    """Files and a history that differ in every way, and the states this makes; `ahead` needs no newer file."""
    assert migrate("up", files=APPLIED).exit_code == 0
    migrate.write({"2_b.sql": "select 'edited'", "5_late.sql": "select 5"})
    (migrate.files / "3_c.sql").unlink()
    (migrate.files / "9_e.sql").unlink()
    return {"1": "applied", "2": "edited", "3": "missing", "5": "out of order", "6": "applied", "9": "ahead"}


def test_every_version_has_its_state(migrate: Migrate, every_state: dict[str, str]) -> None:
    """All versions of both sides are listed in order, each with its state."""
    document = migrate("--json", "status").json
    assert states(document) == every_state
    assert [one["version"] for one in document["migrations"]] == ["1", "2", "3", "5", "6", "9"]
    assert document["counts"] == {"applied": 2, "edited": 1, "missing": 1, "out of order": 1, "ahead": 1}
    assert [one["message"].split(":")[0] for one in document["problems"]] == ["edited", "missing", "out of order"]


def test_people_read_the_same(migrate: Migrate, every_state: dict[str, str]) -> None:
    """Under a head stands a line for each version, then the counts, then the problems, in words."""
    lines = migrate("status").stdout.splitlines()
    assert re.split("  +", lines[0]) == ["VERSION", "NAME", "STATE", "APPLIED (UTC)", "TOOK", "BY"]
    assert [tuple(re.split("  +", line)[::2][:2]) for line in lines[1:7]] == list(every_state.items())
    assert lines[7] == "2 applied, 1 edited, 1 missing, 1 out of order, 1 ahead"
    assert lines[8].startswith("sql/2_b.sql: error: edited: it was applied ")


def test_an_entry_is_shown_with_its_time_and_author(migrate: Migrate, rows: Rows) -> None:
    """When a version was applied (in UTC), how long it took, and by whom from which machine."""
    migrate("up", files={"1_a.sql": "select pg_sleep(0.02)"})
    rows("UPDATE schema_migrations SET started_at = '2026-02-01 12:30:00+02', finished_at = '2026-02-01 12:31:05+02'")
    [(user,)] = rows("SELECT session_user::text")
    row = re.split("  +", migrate("status").stdout.splitlines()[1])
    assert row == ["1", "a", "applied", "2026-02-01 10:30:00", "1 min 5 s", f"{user}@{socket.gethostname()}"]
    entry = migrate("--json", "status").json["migrations"][0]["entry"]
    assert (entry["started_at"], entry["finished_at"]) == ("2026-02-01T10:30:00+00:00", "2026-02-01T10:31:05+00:00")
    assert (entry["position"], entry["origin"], entry["applied_by"]) == (1, "run", row[-1])


def test_a_run_and_the_status_tell_the_same_time(migrate: Migrate) -> None:
    """`applied in` is the time between an entry's start and end, as TOOK is, also of a file without a transaction."""
    alone = "-- migrate: no-transaction\nselect pg_sleep(0.02)"
    run = migrate("up", files={"1_a.sql": "select 1", "2_b.sql": alone, "3_c.sql": "select pg_sleep(0.01)"})
    took = [re.split("  +", line)[4] for line in migrate("status").stdout.splitlines()[1:4]]
    assert [line.split(" in ")[1] for line in run.stdout.splitlines()[:3]] == took


def test_a_pending_version_has_no_entry(migrate: Migrate) -> None:
    """A migration that is not applied has neither time nor author."""
    document = migrate("--json", "status", files={"1_a.sql": "select 1"}).json
    [one] = document["migrations"]
    assert (one["state"], one["path"], one["entry"]) == ("pending", "sql/1_a.sql", None)
    assert (document["ok"], document["error"], document["problems"]) == (True, None, [])


def test_an_entry_that_was_not_finished_is_unfinished(migrate: Migrate, rows: Rows) -> None:
    """An entry without the time of its end is of a file that is not done."""
    migrate("up", files=APPLIED)
    rows("UPDATE schema_migrations SET finished_at = NULL, statements_done = 0 WHERE version = '9'")
    assert states(migrate("--json", "status").json)["9"] == "unfinished"
    assert migrate("status", "--check").exit_code in (1, 3)


def up_to_date(migrate: Migrate) -> None:
    migrate("up", files=APPLIED)


def pending(migrate: Migrate) -> None:
    migrate("up", files=APPLIED)
    migrate.write({"10_f.sql": "select 10"})


def empty(migrate: Migrate) -> None:
    migrate.write(APPLIED)


def ahead(migrate: Migrate) -> None:
    migrate("up", files=APPLIED)
    (migrate.files / "9_e.sql").unlink()


def edited(migrate: Migrate) -> None:
    migrate("up", files=APPLIED)
    migrate.write({"1_a.sql": "select 'edited'"})


def edited_and_pending(migrate: Migrate) -> None:
    edited(migrate)
    migrate.write({"10_f.sql": "select 10"})


def missing(migrate: Migrate) -> None:
    migrate("up", files=APPLIED)
    (migrate.files / "1_a.sql").unlink()


def out_of_order(migrate: Migrate) -> None:
    migrate("up", files=APPLIED)
    migrate.write({"4_f.sql": "select 4"})


def bad_name(migrate: Migrate) -> None:
    migrate("up", files=APPLIED)
    migrate.write({"bad.sql": ""})


def bad_file(migrate: Migrate) -> None:
    migrate("up", files=APPLIED)
    migrate.write({"10_f.sql": "select 1; commit"})


@pytest.mark.parametrize(
    ("make", "exit_code"),
    [(up_to_date, 0), (ahead, 0), (pending, 3), (empty, 3)]
    + [(trouble, 1) for trouble in (edited, edited_and_pending, missing, out_of_order, bad_name, bad_file)],
)
def test_check_tells_ci_by_its_exit_code(migrate: Migrate, make: Any, exit_code: int) -> None:
    """--check exits with 0 when all is applied, with 3 when something is pending, with 1 when up would refuse."""
    make(migrate)
    run = migrate("--json", "status", "--check")
    assert run.exit_code == exit_code
    assert bool(run.json["problems"]) is (exit_code == 1)
    assert (migrate("up", "--dry-run").exit_code == 1) is (exit_code == 1)


def test_check_and_quiet_go_together(migrate: Migrate) -> None:
    """-q leaves the exit code to speak."""
    run = migrate("-q", "status", "--check", files=APPLIED)
    assert (run.exit_code, run.stdout, run.stderr) == (3, "", "")


@pytest.mark.parametrize("make", [up_to_date, pending, edited])
def test_without_check_it_only_shows(migrate: Migrate, make: Any) -> None:
    """Whatever there is to show, showing it worked."""
    make(migrate)
    assert migrate("status").exit_code == 0


def test_a_folder_that_can_not_be_read_is_an_error(migrate: Migrate) -> None:
    """Nothing is known of its files then, so nothing is shown; an empty folder is only said to be one."""
    assert migrate("up", files=APPLIED).exit_code == 0
    run = migrate("--json", "--dir", "nowhere", "status")
    assert (run.exit_code, run.json["ok"], run.json["error"]["kind"]) == (1, False, "MigrationFileError")
    assert "nowhere: error: cannot read the folder: No such file or directory\n" in run.stderr
    assert "outreach-migrate new NAME" in run.stderr
    assert "outreach-migrate import DIR" in run.stderr
    (migrate.folder / "empty").mkdir()
    assert migrate("--dir", "empty", "status").exit_code == 0


def test_check_fails_where_no_server_is(migrate: Migrate) -> None:
    """A database that cannot be reached is trouble, not something pending."""
    migrate.write(APPLIED)
    run = migrate("--json", "status", "--check", url="postgresql://nobody@127.0.0.1:1/none")
    assert (run.exit_code, run.json["ok"], run.json["error"]["kind"]) == (1, False, "ConnectionFailed")


@pytest.mark.parametrize("table", ["schema_migrations", "other.history"])
def test_it_creates_nothing(migrate: Migrate, rows: Rows, table: str) -> None:
    """On an empty database all is pending, and the database stays empty: no table, no schema."""
    before = rows(EVERYTHING)
    document = migrate("--json", "--table", table, "status", files=APPLIED).json
    assert set(states(document).values()) == {"pending"}
    assert rows(EVERYTHING) == before


def test_it_writes_nothing(migrate: Migrate, rows: Rows, every_state: dict[str, str]) -> None:
    """`status` shows the history's contradictions, and mends none."""
    before = rows("SELECT xmin::text, ctid::text, s::text FROM schema_migrations s ORDER BY position")
    assert migrate("status", "--check").exit_code == 1
    assert rows("SELECT xmin::text, ctid::text, s::text FROM schema_migrations s ORDER BY position") == before


@pytest.mark.parametrize("make", [up_to_date, pending, empty])
def test_a_role_that_may_only_read_sees_all(
    migrate: Migrate, connect: Connect, role: tuple[str, str], make: Any
) -> None:
    """SELECT on the history is all it takes, in read-only transactions; before the first run not even that."""
    make(migrate)
    name, url = role
    connection = connect()
    connection.execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(sql.Identifier(name)))
    if make is not empty:
        connection.execute(sql.SQL("GRANT SELECT ON schema_migrations TO {}").format(sql.Identifier(name)))
    assert migrate("--json", "status", url=url).json == migrate("--json", "status").json


def test_quiet_still_reports_problems(migrate: Migrate) -> None:
    """-q leaves out all but trouble."""
    run = migrate("-q", "status", "--check", files={"1_a.sql": "commit"})
    assert (run.exit_code, run.stdout) == (1, "")
    assert "COMMIT cannot be used" in run.stderr
