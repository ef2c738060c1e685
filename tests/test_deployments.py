"""Before and after a deployment: files marked after-deploy wait for the new release, with all that follow them."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from fix_cli import Migrate, Recorded, Rows
from test_check import git as git  # a fixture

import outreach_migrate

FILES = {
    "1_add.sql": "create table t (old int, new int);",
    "2_backfill.sql": "-- migrate: after-deploy\nupdate t set new = old;",
    "3_require.sql": "alter table t alter new set not null;",
    "4_drop.sql": "-- migrate: after-deploy\nalter table t drop old;",
}
LEFT = "Left for after the deployment: 2_backfill, 3_require, 4_drop. Apply with: outreach-migrate up\n"


def test_before_the_deployment_up_ends_at_the_first_marked_file(migrate: Migrate, recorded: Recorded) -> None:
    """`up --before-deploy` applies the files before it and names the rest; `up` applies all, in the one order."""
    first = migrate("up", "--before-deploy", files=FILES)
    assert (first.exit_code, first.stderr, recorded()) == (0, LEFT, ["add"])
    again = migrate("up", "--before-deploy")
    assert (
        again.stdout == "Nothing is pending before the deployment: 1 migration is applied, 3 later ones are pending.\n"
    )
    assert again.stderr == LEFT
    document = migrate("--json", "up", "--before-deploy").json
    assert [step["version"] for step in document["later"]] == ["2", "3", "4"]
    assert document["pending"] == []
    assert LEFT in migrate("up", "--before-deploy", "--dry-run").stderr
    after = migrate("up")
    assert (after.exit_code, "Left" in after.stderr, recorded()) == (0, False, ["add", "backfill", "require", "drop"])


def test_all_pending_files_are_checked_before_the_deployment(migrate: Migrate) -> None:
    """A mistake in a file that waits is found before the deployment, and nothing runs."""
    run = migrate("up", "--before-deploy", files={**FILES, "4_drop.sql": "-- migrate: after-deploy\ncommit;"})
    assert run.exit_code == 1
    assert "sql/4_drop.sql:2:1" in run.stderr


def test_status_marks_the_files(migrate: Migrate) -> None:
    """The state says which files wait for the deployment."""
    migrate("up", "--before-deploy", files=FILES)
    lines = [line.split() for line in migrate("status").stdout.splitlines()[1:-1]]
    assert [" ".join(line[2:4]) for line in lines][1:] == ["pending, after-deploy", "pending", "pending, after-deploy"]
    steps = migrate("--json", "status").json["migrations"]
    assert [step["after_deploy"] for step in steps] == [False, True, False, True]


def test_a_rehearsal_can_end_there_too(migrate: Migrate) -> None:
    """`rehearse --before-deploy` carries out the files of that step."""
    run = migrate("--json", "rehearse", "--before-deploy", files=FILES)
    assert [one["version"] for one in run.json["files"]] == ["1"]


def test_a_fleet_names_the_files_that_wait(migrate: Migrate, rows: Rows) -> None:
    """`fleet up --before-deploy` says once which files it leaves in which targets, in a dry run as well."""
    rows("CREATE SCHEMA tenant_1; CREATE SCHEMA tenant_2")
    migrate.write(
        {
            "1_a.sql": "create table a (id int);",
            "2_b.sql": "-- migrate: after-deploy\ndrop table a;",
            "3_c.sql": "select 1;",
        }
    )
    fleet = ("fleet", "--schemas", "tenant_*", "up", "--before-deploy")
    names = "2 targets: tenant_1, tenant_2"
    left = f"Left for after the deployment: 2_b, 3_c. Apply with: outreach-migrate fleet … up ({names})"
    assert left in migrate(*fleet, "--dry-run").stderr
    assert left in migrate(*fleet, "-j", "1").stderr
    run = migrate("--json", *fleet)
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [[step["version"] for step in line["later"]] for line in lines[:-1]] == [["2", "3"]] * 2
    assert migrate(*fleet[:-1]).exit_code == 0


def test_an_application_starts_when_its_own_files_are_applied(migrate: Migrate) -> None:
    """`check_current` does not wait for files that are to run after the deployment."""
    migrate.write(FILES)
    with pytest.raises(outreach_migrate.Behind) as behind:
        outreach_migrate.check_current(migrate.url, folder=migrate.files)
    assert [step.version for step in behind.value.pending] == ["1"]
    outreach_migrate.up(migrate.url, folder=migrate.files, before_deploy=True)
    outreach_migrate.check_current(migrate.url, folder=migrate.files)


def test_a_file_that_would_wait_with_another_is_a_warning(migrate: Migrate, git: Callable[..., str]) -> None:
    """`check --base` names the new files without the mark that come after one with it."""
    for name in ("2_backfill.sql", "3_require.sql", "4_drop.sql"):
        migrate.write({f"200{name}": FILES[name]})
    run = migrate("check", "--base", "main")
    assert run.exit_code == 0
    assert [line for line in run.stdout.splitlines() if " warning: " in line] == [
        "sql/2003_require.sql: warning: it is applied after the deployment only, because it comes after "
        "2002_backfill.sql"
    ]
    assert migrate("check", "--base", "main", "--strict").exit_code == 1
