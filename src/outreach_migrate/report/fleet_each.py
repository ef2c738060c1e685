"""The reports of `fleet adopt`, `fleet baseline` and `fleet drift`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outreach_migrate import display, durations
from outreach_migrate.report import adopting, as_json, fleet, schema, sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outreach_migrate.adopt.baseline import Baseline
    from outreach_migrate.adopt.taking_over import Takeover
    from outreach_migrate.errors import MigrateError
    from outreach_migrate.fleet import events


@dataclass(frozen=True, slots=True)
class Worded:
    """The result of a target's work: the kind that is counted, a sentence, JSON, and the lines of its differences."""

    kind: str
    sentence: str
    value: dict[str, Any]
    differences: Sequence[str] = ()


class EachReport(fleet.FleetReport):
    """The output of one piece of work for each target."""

    def __init__(self, command: str, *, as_json: bool, verbosity: int) -> None:
        super().__init__(f"fleet {command}", as_json=as_json, verbosity=verbosity)
        self.counts = Counter[str]()
        self.drifted: list[str] = []

    def event(self, event: events.Event) -> None:
        """Print an event."""
        from outreach_migrate.fleet import events

        match event:
            case events.Succeeded(target, value, seconds):
                self.leave(target)
                self._done(target, seconds, worded(value))
            case events.Failed(target, error, seconds):
                self.leave(target)
                self._failed(target, error, seconds)
            case _:
                super().event(event)

    def _done(self, target: str, seconds: float, done: Worded) -> None:
        """Count a target; print its differences, and the target itself if asked for."""
        name = display.in_line(target)
        self.counts[done.kind] += 1
        self._print(target, seconds, ok=not done.differences, error=None, **done.value)
        if done.differences:
            self.drifted.append(target)
            for line in done.differences:
                self.result(f"{name}  {line}")
        if self.verbosity > 0:
            self.result(f"{name}  {done.sentence}")

    def _failed(self, target: str, error: MigrateError, seconds: float) -> None:
        """Print an error, and the differences that make a baseline untrue."""
        from outreach_migrate.adopt.baseline import Untrue

        compared = {"drift": schema.value(error.drift)} if isinstance(error, Untrue) else {}
        self._print(target, seconds, ok=False, error=as_json.error(self.addresses.error(target, error)), **compared)
        self.target_failed(target, error)
        for line in schema.lines(error.drift) if isinstance(error, Untrue) else ():
            self.aside(f"{display.in_line(target)}  {line}")

    def _print(self, target: str, seconds: float, *, ok: bool, **value: Any) -> None:
        if self.as_json:
            self.print_line({"target": target, "ok": ok, "seconds": round(seconds, 3), **value})

    def counted(self) -> dict[str, int]:
        """Count the targets by kind."""
        return {kind.replace(" ", "_"): count for kind, count in self.counts.items()}

    def ended(self) -> None:
        """Sum up the whole; a target that has drifted is not well, though it has no error."""
        super().ended()
        self.document["ok"] &= not self.drifted

    def sentence(self) -> str:
        """Sum the targets up."""
        parts = [f"{count:,} {what}" for what, count in sorted(self.counts.items()) if what != "drifted"]
        parts += [f"{len(self.drifted):,} drifted ({fleet.names(self.drifted)})"] if self.drifted else []
        parts += self.amiss()
        return f"{fleet.count(self.targets)} in {durations.text(self.seconds())}: {', '.join(parts) or 'nothing'}."


def worded(value: events.Value) -> Worded:
    """Put the result of a target's work into words."""
    from outreach_migrate.adopt.baseline import Baseline
    from outreach_migrate.adopt.taking_over import Nothing, Takeover

    match value:
        case Takeover():
            return _adopted(value)
        case Nothing():
            return Worded("with nothing to adopt", "nothing to adopt", {"written": False, "present": value.present})
        case Baseline():
            return _recorded(value)
    kind = "drifted" if value.comparison.differences else "without drift"
    return Worded(kind, schema.summary(value), schema.value(value), schema.lines(value))


def _adopted(done: Takeover) -> Worded:
    table, count = done.recorded.table, sentences.count(len(done.adopted), "migration", "migrations")
    what = "adopted" if done.written else "that would be adopted" if done.adopted else "with nothing to adopt"
    value = {
        "written": done.written,
        "present": 0,
        "tool": table.tool,
        "table": str(table),
        "migrations": [adopting.value(one) for one in done.matches],
    }
    return Worded(
        what, f"{count} {'adopted' if done.written else 'would be adopted'} from {table.tool} ({table})", value
    )


def _recorded(done: Baseline) -> Worded:
    if not done.recorded:
        return Worded("recorded before", "recorded before", adopting.record(done))
    count = sentences.count(len(done.recorded), "migration", "migrations")
    return Worded("recorded", f"{count} recorded as applied, and not run", adopting.record(done))
