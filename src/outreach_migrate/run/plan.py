"""Files beside entries: pure, no I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from outreach_migrate import display
from outreach_migrate.errors import Location, Problem
from outreach_migrate.files import pieces
from outreach_migrate.files.migrations import Migration
from outreach_migrate.history.read import Entry


class State(StrEnum):
    """What the two sides of a version say of each other."""

    APPLIED = "applied"
    PENDING = "pending"
    UNFINISHED = "unfinished"
    EDITED = "edited"
    MISSING = "missing"
    AHEAD = "ahead"
    OUT_OF_ORDER = "out of order"


@dataclass(frozen=True, slots=True)
class Step:
    """One version seen from both sides; at least one of them is there.

    Version and name are as the file spells them, else as the entry does.
    """

    state: State
    version: str
    name: str
    migration: Migration | None
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Pending(Step):
    """A step that can be run: its file is there."""

    migration: Migration


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps, in order of their versions."""

    steps: tuple[Step, ...]

    @property
    def pending(self) -> tuple[Pending, ...]:
        """The steps that `up` carries out next."""
        return self.to_run(to=None, out_of_order=False)

    def having(self, *states: State) -> tuple[Step, ...]:
        """Choose the steps in one of these states."""
        return tuple(step for step in self.steps if step.state in states)

    def counts(self) -> dict[str, int]:
        """Count the steps of each state there is."""
        return dict(Counter(str(step.state) for step in self.steps))

    def to_run(self, *, to: int | None, out_of_order: bool) -> tuple[Pending, ...]:
        """Choose what a run carries out: up to and with version `to`, the unfinished file among it."""
        states = {State.PENDING, State.UNFINISHED, *([State.OUT_OF_ORDER] if out_of_order else [])}
        return tuple(
            step
            for step in self.steps
            if isinstance(step, Pending) and step.state in states and (to is None or int(step.version) <= to)
        )

    def problems(self, *, out_of_order: bool, from_start: int | None = None) -> list[Problem]:
        """Tell in words what keeps a run from starting."""
        allowed = {State.OUT_OF_ORDER} if out_of_order else set()
        newest = max((step.entry.number for step in self.steps if step.entry), default=0)
        return [
            problem
            for step in self.steps
            if step.state not in allowed and (problem := _problem(step, newest, from_start)) is not None
        ]

    def unfinished(self, *, at_work: Collection[str] = ()) -> list[Problem]:
        """Tell how far the file is that was begun and not finished, and what to do: nothing while a run is at work."""
        return [
            _unfinished(step.migration, step.entry)
            for step in self.steps
            if step.state in (State.UNFINISHED, State.AHEAD)
            and step.entry
            and not step.entry.finished_at
            and step.entry.version not in at_work
        ]


def to_send(step: Pending, from_start: int | None) -> tuple[str, int, str]:
    """Give the SQL that a run would send for a step, with its file's path and the line where it begins.

    Of an unfinished file that is what is not done yet, after the settings that the file has made before.
    """
    migration, entry = step.migration, step.entry
    done = (entry and entry.statements_done) or 0
    if not done or migration.number == from_start:
        return migration.path, 1, migration.sql
    rest = next((piece for piece in pieces.cut(migration.sql) if piece.number == done), None)
    start = rest.start if rest else len(migration.sql)  # when it was stopped after its last statement
    settings = "".join(f"{setting};\n" for setting in rest.settings) if rest else ""
    return migration.path, migration.location(start).line or 1, settings + migration.sql[start:]


def make(migrations: Iterable[Migration], entries: Iterable[Entry]) -> Plan:
    """Compare files and entries, version by version."""
    files = {migration.number: migration for migration in migrations}
    done = {entry.number: entry for entry in entries}
    newest_file, newest_entry = max(files, default=-1), max(done, default=-1)
    return Plan(tuple(_steps(files, done, newest_file, newest_entry)))


def _steps(files: dict[int, Migration], done: dict[int, Entry], newest_file: int, newest_entry: int) -> Iterator[Step]:
    for number in sorted(files.keys() | done.keys()):
        if number in files:
            migration, entry = files[number], done.get(number)
            state = _state(migration, entry, newest_entry)
            kind = Step if state in (State.APPLIED, State.EDITED) else Pending
            yield kind(state, migration.version, migration.name, migration, entry)
        else:
            entry = done[number]
            state = State.AHEAD if number > newest_file else State.MISSING
            yield Step(state, entry.version, entry.name, None, entry)


def _state(migration: Migration, entry: Entry | None, newest_entry: int) -> State:
    if entry is None:
        return State.OUT_OF_ORDER if migration.number < newest_entry else State.PENDING
    if entry.finished_at is None:
        return State.UNFINISHED
    return State.APPLIED if entry.checksum == migration.checksum else State.EDITED


def _problem(step: Step, newest: int, from_start: int | None) -> Problem | None:
    migration, entry = step.migration, step.entry
    if step.state is State.EDITED and migration and entry:
        return Problem(
            f"edited: applied {entry.finished_at:%Y-%m-%d %H:%M:%S} with checksum {entry.checksum[:12]}, "
            f"the file now has {migration.checksum[:12]}",
            Location(migration.path),
            "Restore the file as it was applied, and put the change into a new migration.",
        )
    if step.state is State.MISSING and entry:
        return Problem(
            f"missing: {entry.version}_{entry.name} was {'applied' if entry.finished_at else 'begun'} "
            f"{entry.started_at:%Y-%m-%d %H:%M:%S}, and has no file",
            hint="Restore the file; a deployment must carry all of them.",
        )
    if step.state is State.OUT_OF_ORDER and migration:
        return Problem(
            f"out of order: version {newest}, which is newer, has been applied already",
            Location(migration.path),
            "Give it a new version, later than that one; or run it as it is with --allow-out-of-order.",
        )
    if step.state is State.UNFINISHED and migration and entry:
        return _changed(migration, entry, from_start)
    return None


def _changed(migration: Migration, entry: Entry, from_start: int | None) -> Problem | None:
    done = entry.statements_done or 0
    again = f"Or run it anew, from its first statement: up --from-start {migration.version}"
    if migration.directives.transaction:
        message = "unfinished: it began without a transaction, and now asks for one"
        return Problem(message, Location(migration.path), "Begin the file with: -- migrate: no-transaction")
    if migration.number != from_start and pieces.checksum_before(migration.sql, done) != entry.done_checksum:
        if done == 1:
            message, restore = "unfinished: its first statement is done, and has been changed since", "Restore it."
        else:
            message = f"unfinished: its first {done} statements are done, and have been changed since"
            restore = "Restore them."
        return Problem(message, Location(migration.path), f"{restore} {again}")
    return None


def _unfinished(migration: Migration | None, entry: Entry) -> Problem:
    if migration is None:
        message = f"unfinished: {entry.version}_{entry.name} has no file here"
        return Problem(message, hint="A newer release has begun it: finish it with that release's files.")
    whole = list(pieces.cut(migration.sql))
    done = entry.statements_done or 0
    place = migration.location(whole[done].start) if done < len(whole) else Location(migration.path)
    if done == len(whole):
        return Problem("unfinished: all its statements are done, and not recorded as such", place, "Run up again.")
    return Problem(
        f"unfinished: {done} of {display.count(len(whole), 'statement', 'statements')} done; the next one is here",
        place,
        "Correct what is left of the file if it failed there, then run up: it goes on here. "
        f"To run the file anew: up --from-start {migration.version}",
    )
