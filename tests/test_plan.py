"""The plan: files beside entries, without a database."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from outreach_migrate.errors import Conflict
from outreach_migrate.files import pieces
from outreach_migrate.files.migrations import Migration
from outreach_migrate.files.squashed import Replaced
from outreach_migrate.history.read import Entry
from outreach_migrate.run import plan
from outreach_migrate.run.plan import Pending, State

WHEN = datetime(2026, 3, 1, tzinfo=UTC)
THREE = "-- migrate: no-transaction\nSET lock_timeout = '7s';\nSELECT 1;\nSELECT 2;"
CHANGED = THREE.replace("SELECT 1", "SELECT 9")
AFTER = "-- migrate: after-deploy\nSELECT 1;"


def file(version: str, sql: str = "SELECT 1;") -> Migration:
    return Migration(version, "a", f"sql/{version}_a.sql", sql)


def entry(version: str, sql: str = "SELECT 1;", *, done: int | None = None, position: int | None = None) -> Entry:
    """The entry of a file that is applied, or of whose statements so many are done."""
    return Entry(
        position=position or int(version),
        version=version,
        name="a",
        checksum=file(version, sql).checksum,
        started_at=WHEN,
        finished_at=WHEN if done is None else None,
        statements_done=done,
        done_checksum=None if done is None else pieces.checksum_before(sql, done),
        statements_begun=done,
        applied_by="me",
        origin="run",
    )


@pytest.mark.parametrize(
    ("files", "entries", "states"),
    [
        ([], [], []),
        ([file("1")], [], [("1", State.PENDING)]),
        ([], [entry("1")], [("1", State.AHEAD)]),
        ([file("1")], [entry("1")], [("1", State.APPLIED)]),
        ([file("1", "SELECT 2;")], [entry("1")], [("1", State.EDITED)]),
        ([file("2")], [entry("1")], [("1", State.MISSING), ("2", State.PENDING)]),
        ([file("1")], [entry("1"), entry("2")], [("1", State.APPLIED), ("2", State.AHEAD)]),
        ([file("1"), file("2")], [entry("2")], [("1", State.OUT_OF_ORDER), ("2", State.APPLIED)]),
        ([file("1", THREE)], [entry("1", THREE, done=1)], [("1", State.UNFINISHED)]),
        ([file("0001")], [entry("1")], [("0001", State.APPLIED)]),
        ([file("10"), file("9")], [], [("9", State.PENDING), ("10", State.PENDING)]),
    ],
)
def test_a_state_follows_from_the_two_sides(
    files: list[Migration], entries: list[Entry], states: list[tuple[str, State]]
) -> None:
    """Versions are compared as numbers, and spelled as the file spells them."""
    assert [(step.version, step.state) for step in plan.make(files, entries).steps] == states


def test_the_order_of_application_is_of_no_account() -> None:
    """Entries that came out of order are applied all the same."""
    made = plan.make([file("1"), file("2")], [entry("2", position=1), entry("1", position=2)])
    assert made.counts() == {"applied": 2}


@pytest.mark.parametrize(
    ("to", "out_of_order", "versions"),
    [
        (None, False, ["3", "5", "6"]),
        (None, True, ["1", "3", "5", "6"]),
        (5, False, ["3", "5"]),
        (4, True, ["1", "3"]),
        (0, True, []),
    ],
)
def test_a_run_takes_the_pending_files_up_to_its_version(
    to: int | None, out_of_order: bool, versions: list[str]
) -> None:
    """The unfinished file is among them; files out of order only where they are allowed."""
    files = [file("1"), file("2"), file("3", THREE), file("5"), file("6")]
    steps = plan.make(files, [entry("2"), entry("3", THREE, done=1)]).to_run(to=to, out_of_order=out_of_order)
    assert [step.version for step in steps] == versions


def test_the_plan_s_pending_steps_are_those_of_a_plain_run() -> None:
    """Nothing that is out of order, and no limit."""
    made = plan.make([file("1"), file("2"), file("3")], [entry("2")])
    assert [step.version for step in made.pending] == ["3"]


@pytest.mark.parametrize(
    ("files", "entries", "conflicts"),
    [
        ([file("1")], [entry("1")], []),
        ([file("1")], [entry("1"), entry("2")], []),
        ([file("1", "SELECT 2;")], [entry("1")], [Conflict.EDITED]),
        ([file("2")], [entry("1")], [Conflict.MISSING]),
        ([file("1"), file("2")], [entry("2")], [Conflict.OUT_OF_ORDER]),
        ([file("1", THREE)], [entry("1", THREE, done=2)], []),
        ([file("1", THREE + "\nSELECT 3;")], [entry("1", THREE, done=2)], []),
        (
            [file("1", CHANGED)],
            [entry("1", THREE, done=2)],
            [Conflict.UNFINISHED_CHANGED],
        ),
        ([file("1", CHANGED)], [entry("1", THREE, done=1)], []),
        ([file("1", "SELECT 1;")], [entry("1", THREE, done=1)], [Conflict.UNFINISHED_WANTS_TRANSACTION]),
    ],
)
def test_a_contradiction_keeps_a_run_from_starting(
    files: list[Migration], entries: list[Entry], conflicts: list[Conflict]
) -> None:
    """A database that is ahead is none, nor a file whose done statements are as they were."""
    assert [one.conflict for one in plan.make(files, entries).contradictions(out_of_order=False)] == conflicts


def test_an_allowed_state_is_no_contradiction() -> None:
    """--allow-out-of-order, and --from-start for a file whose done statements were changed."""
    made = plan.make([file("1"), file("2", CHANGED)], [entry("2", THREE, done=2)])
    assert len(made.contradictions(out_of_order=False)) == 2
    assert made.contradictions(out_of_order=True, from_start=2) == []


def test_an_unfinished_file_is_reported_at_its_next_statement() -> None:
    """It has the number of done statements, and of all; while a run is at work on it, nothing is reported."""
    made = plan.make([file("1", THREE)], [entry("1", THREE, done=2)])
    (told,) = made.unfinished()
    assert (told.conflict, told.done, told.statements) == (Conflict.UNFINISHED, 2, 3)
    assert (str(told.location)) == "sql/1_a.sql:4:1"
    assert made.unfinished(at_work={"1"}) == []


def test_an_unfinished_file_that_is_gone_is_reported() -> None:
    """Where an older release meets it, there is no statement to point to."""
    (told,) = plan.make([file("1")], [entry("1"), entry("2", THREE, done=1)]).unfinished()
    assert (told.conflict, told.version, told.location) == (Conflict.UNFINISHED_WITHOUT_FILE, "2", None)


@pytest.mark.parametrize(
    ("entries", "states", "conflicts"),
    [
        ([], [("2", State.PENDING), ("3", State.PENDING)], []),
        (["1", "2"], [("1", State.SQUASHED), ("2", State.SQUASHED), ("3", State.PENDING)], []),
        (["2_squashed"], [("2", State.APPLIED), ("3", State.PENDING)], []),
        (["1"], [("1", State.MISSING), ("2", State.PENDING), ("3", State.PENDING)], [Conflict.PARTLY_REPLACED]),
    ],
)
def test_a_squashed_file_stands_for_the_files_that_it_replaces(
    entries: list[str], states: list[tuple[str, State]], conflicts: list[Conflict]
) -> None:
    """A database has all of them, or the squashed file itself, or none; with some of them it is refused."""
    head = Replaced().then((number, file(str(number)).checksum) for number in (1, 2))
    squashed = Migration("2", "squashed", "sql/2_squashed.sql", f"{head}\nSELECT 1;")
    itself = entry("2", squashed.sql)._replace(name="squashed")
    made = plan.make([squashed, file("3")], [itself if one == "2_squashed" else entry(one) for one in entries])
    assert [(step.version, step.state) for step in made.steps] == states
    assert [one.conflict for one in made.contradictions(out_of_order=False)] == conflicts


def test_the_first_file_after_the_deployment_parts_the_steps() -> None:
    """All that follow it wait with it."""
    steps = plan.make([file("1"), file("2", AFTER), file("3")], []).pending
    assert [[step.version for step in part] for part in plan.parted(steps)] == [["1"], ["2", "3"]]


@pytest.mark.parametrize(
    ("done", "from_start", "sent"),
    [
        (0, None, ("sql/1_a.sql", 1, THREE)),
        (2, None, ("sql/1_a.sql", 4, "SET lock_timeout = '7s';\nSELECT 2;")),
        (2, 1, ("sql/1_a.sql", 1, THREE)),
        (3, None, ("sql/1_a.sql", 4, "")),
    ],
)
def test_of_an_unfinished_file_the_rest_is_sent(done: int, from_start: int | None, sent: tuple[str, int, str]) -> None:
    """The settings made before hold for it; from the start, it is sent whole."""
    (step,) = plan.make([file("1", THREE)], [entry("1", THREE, done=done)]).to_run(to=None, out_of_order=False)
    assert isinstance(step, Pending)
    assert plan.to_send(step, from_start) == sent
