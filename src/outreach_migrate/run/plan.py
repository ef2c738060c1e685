"""The plan: files compared with entries, without any I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from outreach_migrate.errors import Conflict, Contradiction, Location
from outreach_migrate.files.migrations import Migration
from outreach_migrate.files.squashed import Replaced
from outreach_migrate.history.read import Entry


class State(StrEnum):
    """The state of a version, seen from its file and its entry."""

    APPLIED = "applied"
    PENDING = "pending"
    UNFINISHED = "unfinished"
    EDITED = "edited"
    MISSING = "missing"
    AHEAD = "ahead"
    OUT_OF_ORDER = "out of order"
    SQUASHED = "squashed"


@dataclass(frozen=True, slots=True)
class Step:
    """One version seen from both sides, its file and its entry; one of them may be absent.

    `version` and `name` are spelled as in the file, or as in the entry of a version without a file.
    """

    state: State
    version: str
    name: str
    migration: Migration | None
    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Pending(Step):
    """A step that can be run, because its file is there."""

    migration: Migration


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps, in version order; `partly` is a squashed file that replaces other files than the applied ones."""

    steps: tuple[Step, ...]
    partly: Contradiction | None = None

    @property
    def pending(self) -> tuple[Pending, ...]:
        """The steps that `up` carries out next."""
        return self.to_run(to=None, out_of_order=False)

    def having(self, *states: State) -> tuple[Step, ...]:
        """Choose the steps in one of these states."""
        return tuple(step for step in self.steps if step.state in states)

    def counts(self) -> dict[str, int]:
        """Count the steps by state, without the states that no step has."""
        return dict(Counter(str(step.state) for step in self.steps))

    def to_run(self, *, to: int | None, out_of_order: bool) -> tuple[Pending, ...]:
        """Choose the steps that a run carries out, up to and including version `to`."""
        states = {State.PENDING, State.UNFINISHED, *([State.OUT_OF_ORDER] if out_of_order else [])}
        return tuple(
            step
            for step in self.steps
            if isinstance(step, Pending) and step.state in states and (to is None or int(step.version) <= to)
        )

    def contradictions(self, *, out_of_order: bool, from_start: int | None = None) -> list[Contradiction]:
        """List the contradictions that keep a run from starting."""
        allowed = {State.OUT_OF_ORDER} if out_of_order else set()
        newest = max((step.entry.number for step in self.steps if step.entry), default=0)
        found = [_conflict(step, newest, from_start) for step in self._compared() if step.state not in allowed]
        return [*filter(None, [self.partly, *found])]

    def unfinished(self, *, at_work: Collection[str] = ()) -> list[Contradiction]:
        """List the unfinished versions with their progress, without those that a living run works on.

        Those that can't go on are left out as well: their contradictions say so.
        """
        return [
            _unfinished(step)
            for step in self._compared()
            if step.state in (State.UNFINISHED, State.AHEAD)
            and step.entry
            and not step.entry.finished_at
            and step.entry.version not in at_work
            and not _conflict(step, 0, None)
        ]

    def _compared(self) -> Iterator[Step]:
        """Yield the steps whose files and entries can be compared one by one: not those of the squashed file."""
        below = int(self.partly.version) if self.partly else -1
        return (step for step in self.steps if int(step.version) > below)


class Planned(NamedTuple):
    """A plan without contradictions; `steps` are to run, `later` are left for after the deployment."""

    plan: Plan
    steps: tuple[Pending, ...]
    later: tuple[Pending, ...] = ()


def parted(steps: tuple[Pending, ...]) -> tuple[tuple[Pending, ...], tuple[Pending, ...]]:
    """Part steps at the first one that is for after the deployment; all that follow it wait with it."""
    until = next((n for n, step in enumerate(steps) if step.migration.is_after_deploy), len(steps))
    return steps[:until], steps[until:]


def to_send(step: Pending, from_start: int | None) -> tuple[str, int, str]:
    """Give the SQL that a run would send for a step, after its file's path and the line where that SQL begins.

    Of an unfinished file these are the statements that are not done yet, after the settings made by earlier ones.
    """
    migration, entry = step.migration, step.entry
    done = (entry and entry.statements_done) or 0
    if not done or migration.number == from_start:
        return migration.path, 1, migration.text
    from outreach_migrate.files import pieces, statements  # here and below, because most plans have no unfinished file

    rest = next((piece for piece in pieces.cut(migration.text) if piece.number == done), None)
    start = rest.start if rest else len(migration.text)  # all statements are done
    settings = "".join(f"{setting};\n" for setting in rest.settings) if rest else ""
    return migration.path, statements.place(migration.text, start)[0], settings + migration.text[start:]


def make(migrations: Iterable[Migration], entries: Iterable[Entry]) -> Plan:
    """Compare files and entries, version by version."""
    files = {migration.number: migration for migration in migrations}
    done = {entry.number: entry for entry in entries}
    squashed = [migration for migration in files.values() if migration.replaces]
    covered, partly = _covered(squashed[-1], done.values()) if squashed else (frozenset[int](), None)
    return Plan(tuple(_steps(files, done, covered)), partly)


def _covered(squashed: Migration, entries: Iterable[Entry]) -> tuple[frozenset[int], Contradiction | None]:
    """Give the versions that a squashed file covers, or a contradiction if the entries are not those that it replaces.

    A database that ran the squashed file itself has no other entry up to its version.
    """
    replaced = [entry for entry in entries if entry.number <= squashed.number]
    if not replaced or [(entry.number, entry.name) for entry in replaced] == [(squashed.number, squashed.name)]:
        return frozenset(), None
    found = Replaced().then((entry.number, entry.checksum) for entry in replaced)
    if found in squashed.replaces and all(entry.finished_at for entry in replaced):
        return frozenset(entry.number for entry in replaced), None
    return frozenset(), Contradiction(
        Conflict.PARTLY_REPLACED,
        squashed.version,
        squashed.name,
        location=Location(squashed.path),
        entries=len(replaced),
        replaced=squashed.replaces[0].files,
        begun=next((f"{entry.version}_{entry.name}" for entry in replaced if not entry.finished_at), None),
    )


def _steps(files: dict[int, Migration], done: dict[int, Entry], covered: frozenset[int]) -> Iterator[Step]:
    newest_file, newest_entry = max(files, default=-1), max(done, default=-1)
    for number in sorted(files.keys() | done.keys()):
        if number in covered:
            yield Step(State.SQUASHED, done[number].version, done[number].name, files.get(number), done[number])
        elif number in files:
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


def _conflict(step: Step, newest: int, from_start: int | None) -> Contradiction | None:
    migration, entry = step.migration, step.entry
    match step.state:
        case State.EDITED:
            return _contradiction(step, Conflict.EDITED)
        case State.MISSING:
            return _contradiction(step, Conflict.MISSING)
        case State.OUT_OF_ORDER:
            return _contradiction(step, Conflict.OUT_OF_ORDER)._replace(newest=newest)
        case State.UNFINISHED if migration and entry:
            if migration.directives.transaction:
                return _contradiction(step, Conflict.UNFINISHED_WANTS_TRANSACTION)
            same = entry.done_checksum == _done_checksum(migration, entry)
            return None if same or migration.number == from_start else _contradiction(step, Conflict.UNFINISHED_CHANGED)
    return None


def _done_checksum(migration: Migration, entry: Entry) -> str | None:
    """Give the checksum of the part of a file that must not change now.

    Of a file in batches that is all of it, once a range is done.
    """
    from outreach_migrate.files import pieces

    if migration.directives.batches and entry.statements_begun:
        return migration.checksum
    return pieces.checksum_before(migration.text, entry.statements_done or 0)


def _unfinished(step: Step) -> Contradiction:
    migration = step.migration
    if migration is None:
        return _contradiction(step, Conflict.UNFINISHED_WITHOUT_FILE)
    found, whole = _contradiction(step, Conflict.UNFINISHED), list(migration.pieces())
    place = migration.location(whole[found.done].start) if found.done < len(whole) else found.location
    return found._replace(location=place, statements=len(whole))


def _contradiction(step: Step, conflict: Conflict) -> Contradiction:
    migration, entry = step.migration, step.entry
    return Contradiction(
        conflict,
        step.version,
        step.name,
        location=Location(migration.path) if migration else None,
        started_at=entry.started_at if entry else None,
        finished_at=entry.finished_at if entry else None,
        checksum=entry.checksum if entry else None,
        file_checksum=migration.checksum if migration else None,
        done=(entry and entry.statements_done) or 0,
        in_batches=bool(migration and migration.directives.batches),
    )
