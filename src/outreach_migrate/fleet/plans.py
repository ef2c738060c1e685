"""The plans of a fleet, each made once for all histories that are alike."""

from __future__ import annotations

from outreach_migrate.errors import UsageError
from outreach_migrate.history.read import Entry, History
from outreach_migrate.run import planning
from outreach_migrate.run.engine import Prepared
from outreach_migrate.run.plan import Planned
from outreach_migrate.run.request import Request


def check(request: Request) -> None:
    """Raise UsageError if no file has the version to stop after, because that would be the same for all targets."""
    if request.to is not None and request.to not in {one.number for one in request.files}:
        raise UsageError(f"no migration has version {request.to}")


class Plans:
    """The plans made so far, by everything in a history that they depend on: all but times and roles."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._made: dict[object, Planned] = {}

    def of(self, past: History) -> Prepared:
        """Give the plan of a run for a history; raise as planning.to_carry_out does."""
        others = tuple((one.tool, str(one)) for one in past.foreign)
        key = (past.standby, past.read_only, others, past.table.chosen, *map(_relevant, past.entries))
        if key not in self._made:
            self._made[key] = planning.to_carry_out(past, self._request)
        return Prepared(past, self._made[key])


def _relevant(entry: Entry) -> object:
    done = entry.statements_done, entry.done_checksum, entry.statements_begun
    return entry.position, entry.version, entry.name, entry.checksum, entry.finished_at is None, *done
