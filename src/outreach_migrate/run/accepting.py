"""Edited files accepted: their present checksums become those of their entries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from outreach_migrate.errors import HistoryError, Location, MigrationFileError, Problem, UsageError
from outreach_migrate.history import recording
from outreach_migrate.postgres import connections
from outreach_migrate.run import comparison, planning, sessions
from outreach_migrate.run.plan import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.read import Entry, Locked
    from outreach_migrate.run import events
    from outreach_migrate.run.plan import Step
    from outreach_migrate.run.request import Request
    from outreach_migrate.run.stop import Stop


@dataclass(frozen=True, slots=True)
class Edited:
    """A file that is not the one that was applied, and the entry of the one that was."""

    migration: Migration
    entry: Entry


def find(request: Request, versions: Sequence[int], tell: Callable[[Locked], None]) -> tuple[Edited, ...]:
    """Give those of these versions that were edited since they were applied.

    An entry that a squashed file covers is none of these: the checksum of that file would spoil it.
    Raise UsageError for a version that is not applied or has no file, HistoryError if the database has only some of the
    replaced files, and the errors of `status`.
    """
    if request.file_problems:
        raise MigrationFileError(request.file_problems)
    with comparison.reading(request, tell) as seen:
        steps = {int(step.version): step for step in seen.plan.steps}
    found = [_checked(steps.get(version), version) for version in dict.fromkeys(versions)]
    if seen.plan.partly and any(one.migration.number <= int(seen.plan.partly.version) for one in found):
        planning.must_not_be_partly_replaced(seen.plan)
    return tuple(one for one in found if steps[one.migration.number].state is State.EDITED)


def _checked(step: Step | None, version: int) -> Edited:
    if step is None:
        raise UsageError(f"no migration has version {version}")
    if step.migration is None:
        raise UsageError(f"{step.version}_{step.name} has no file here")
    if step.entry is None or step.entry.finished_at is None:
        raise UsageError(f"{step.migration} is not applied", hint="Only an applied file can have been edited.")
    return Edited(step.migration, step.entry)


def record(request: Request, accepted: Sequence[Edited], tell: events.Tell, stop: Stop) -> None:
    """Record the present checksums, all or none; raise HistoryError if an entry has changed meanwhile."""
    with connections.translated(), sessions.of(request, tell, stop) as session:
        connection = session.connection
        planning.must_be_writable(session.history())
        session.begin()
        for one in accepted:
            statement = recording.accept(request.table, one.migration, one.entry.checksum)
            if len(connection.execute(statement.encode()).fetchall()) != 1:
                problem = Problem("its entry has changed meanwhile", Location(one.migration.path), "Try again.")
                raise HistoryError([problem])
        connection.execute("COMMIT")
