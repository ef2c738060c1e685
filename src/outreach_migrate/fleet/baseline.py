"""Files recorded as applied in a target of many, perhaps after a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from outreach_migrate.adopt import baseline
from outreach_migrate.adopt.baseline import Baseline
from outreach_migrate.fleet.drift import Comparing
from outreach_migrate.run import comparison, planning
from outreach_migrate.run.request import Request
from outreach_migrate.run.stop import Stop


@dataclass(frozen=True, slots=True)
class Verified:
    """A baseline up to a version, of targets that have all that the files would make; differences may be accepted."""

    version: int
    comparing: Comparing
    accepts: bool

    def record(self, request: Request, stop: Stop) -> Baseline:
        """Record the files in a target that was compared with them; raise Untrue for a difference, or as `run` does."""
        files = baseline.chosen(request, self.version)
        with comparison.reading(request, lambda _: None) as seen:
            planning.must_not_be_partly_replaced(seen.plan)
            found = self.comparing.against(seen.connection, request, files)
        if found.comparison.differences and not self.accepts:
            raise baseline.Untrue(found)
        return baseline.run(request, self.version, lambda _: None, stop)
