"""Files recorded as applied without running them, for a database that was made by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import errors as pg

from outreach_migrate import display
from outreach_migrate.errors import (
    HistoryError,
    Location,
    MigrateError,
    MigrationFileError,
    NotAdopted,
    Outcome,
    Problem,
    UsageError,
)
from outreach_migrate.history import recording, write
from outreach_migrate.history.recording import Known
from outreach_migrate.history.write import Place
from outreach_migrate.postgres import connections
from outreach_migrate.run import comparison, plan, planning, sessions
from outreach_migrate.schema import drift

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.read import Entry, History
    from outreach_migrate.run import events
    from outreach_migrate.run.request import Request
    from outreach_migrate.run.sessions import Session
    from outreach_migrate.run.stop import Stop
    from outreach_migrate.schema.drift import Drift

ORIGIN = "baseline"
_TRIES = 20  # each fails because another run has written an entry meanwhile
_OVERTAKEN = (pg.UniqueViolation, pg.DuplicateTable, pg.DuplicateObject, pg.DuplicateSchema)


class Untrue(MigrateError):
    """The database differs from the files, so they were not recorded."""

    def __init__(self, drift: Drift) -> None:
        objects = display.count(len(drift.comparison.differences), "object differs", "objects differ")
        super().__init__(
            f"the baseline would not be true: {objects} from the files",
            hint="Mend the database or the files, or record them all the same: --accept-differences",
            outcome=Outcome(None),
        )
        self.drift = drift


@dataclass(frozen=True, slots=True)
class Baseline:
    """The migrations that were recorded, and how many were so before."""

    recorded: tuple[Migration, ...]
    present: int


def compare(request: Request, version: int, *, private: Path, ignore: Collection[str] = ()) -> Drift:
    """Compare the database with the files up to a version, applied to a scratch database.

    Raise UsageError if no file has the version, HistoryError if the database has some of the files that a squashed one
    replaces, and the errors of scratch.migrated.
    """
    files = chosen(request, version)
    with comparison.reading(request, lambda _: None) as seen:
        planning.must_not_be_partly_replaced(seen.plan)
        return drift.against(seen.connection, request, files, private=private, ignore=ignore)


def run(request: Request, version: int, tell: events.Tell, stop: Stop) -> Baseline:
    """Record the files up to a version, in one transaction; run again, it changes nothing.

    Raise UsageError if no file has the version, HistoryError if one is recorded otherwise, also by the tool that it
    names, or replaces only some of the recorded ones, and the errors of `up`; then nothing was written.
    """
    files = chosen(request, version)
    with connections.translated(), sessions.of(request, tell, stop) as session:
        for _ in range(_TRIES):
            past = session.history()
            _must_not_be_another_tools(past, files)
            wanted = _unrecorded(files, past.entries)
            planning.must_not_be_partly_replaced(plan.make(files, past.entries))
            if not wanted:
                return Baseline((), len(files))
            planning.must_be_writable(past)
            if _recorded(session, past, wanted):
                return Baseline(tuple(wanted), len(files) - len(wanted))
            session.clean()
    raise MigrateError("other sessions keep changing the history table, so nothing was recorded", hint="Try again.")


def chosen(request: Request, version: int) -> list[Migration]:
    """Give the files up to a version; raise UsageError if no file has it, MigrationFileError for a wrong file."""
    if request.file_problems:
        raise MigrationFileError(request.file_problems)
    files = [one for one in request.files if one.number <= version]
    if version not in {one.number for one in files}:
        raise UsageError(f"no migration has version {version}")
    return files


def _must_not_be_another_tools(past: History, files: Sequence[Migration]) -> None:
    """Raise NotAdopted if the table of the tool that the files' first lines name is there: it knows what is applied."""
    named = tuple(one for one in files if one.directives.origin)
    if named and (foreign := planning.unadopted(past, named)):
        raise NotAdopted(foreign)


def _unrecorded(files: Sequence[Migration], entries: Iterable[Entry]) -> list[Migration]:
    """Choose the files without an entry; raise HistoryError if one has an entry that is no baseline's."""
    known = {entry.number: entry for entry in entries}
    hint = "A baseline is for a database without a history. outreach-migrate status shows the one that is there."
    if problems := [
        Problem(f"recorded already: {_how(entry)} {entry.started_at:%Y-%m-%d %H:%M:%S}", Location(one.path), hint)
        for one in files
        if (entry := known.get(one.number)) and entry.origin != ORIGIN
    ]:
        raise HistoryError(problems)
    return [one for one in files if one.number not in known]


def _how(entry: Entry) -> str:
    """Word the event whose time an entry has: of tools that keep none it is the adoption."""
    if entry.origin == "run":
        return "applied"
    return f"adopted from {entry.origin}, applied" if entry.is_timed else f"adopted from {entry.origin}"


def _recorded(session: Session, past: History, wanted: Sequence[Migration]) -> bool:
    """Write the entries; return False if another run was faster."""
    place = Place(past.table, past.newest + 1)
    entries = recording.record(place, [Known(one) for one in wanted], ORIGIN)
    try:
        session.begin()
        for statement in (*write.create(past), entries, "COMMIT"):
            session.connection.execute(statement.encode())
    except _OVERTAKEN:
        return False
    return True
