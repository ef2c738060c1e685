"""The reports of `fleet adopt`, `fleet baseline` and `fleet drift`: what was done, counted, and what is wrong."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from outreach_migrate import display, durations
from outreach_migrate.report import adopting, as_json, fleet, schema, sentences

if TYPE_CHECKING:
    from outreach_migrate.adopt.baseline import Baseline
    from outreach_migrate.adopt.taking_over import Takeover
    from outreach_migrate.fleet import events


class EachReport(fleet.FleetReport):
    """The output of one piece of work for each target."""

    def __init__(self, command: str, *, as_json: bool, verbosity: int) -> None:
        super().__init__(f"fleet {command}", as_json=as_json, verbosity=verbosity)
        self.counts = Counter[str]()
        self.drifted: list[str] = []

    def one(self, event: events.Ended | events.Seen | events.Done) -> None:
        """Print a target if asked for, a failure and a drift always, and count what was done."""
        from outreach_migrate.fleet import events

        assert isinstance(event, events.Done)  # noqa: S101 - nothing else is done here
        name = display.in_line(event.target)
        what, detail, value = ("", "", {}) if event.error else worded(event.value)
        is_wrong = bool(event.error) or what == "drifted"
        if self.as_json:
            error = event.error and as_json.error(event.error)
            ended = {"seconds": round(event.seconds, 3), "error": error}
            self.print_line({"target": event.target, "ok": not is_wrong} | ended | value)
        if event.error:
            self.target_failed(event.target, event.error)
            return
        self.counts[what] += 1
        if is_wrong:
            self.drifted.append(event.target)
            for line in schema.lines(event.value):  # type: ignore[arg-type]
                self.result(f"{name}  {line}")
        if self.verbosity > 0:
            self.result(f"{name}  {detail}")

    def summary(self) -> dict[str, Any]:
        """Count the targets."""
        return {
            "targets": self.targets,
            **{what.replace(" ", "_"): count for what, count in self.counts.items()},
            "failed": len(self.wrong),
            "not_started": self.targets - self.done,
            "seconds": self.seconds(),
        }

    def sentence(self) -> str:
        """Sum the targets up."""
        parts = [f"{count:,} {what}" for what, count in sorted(self.counts.items()) if what != "drifted"]
        parts += [f"{len(self.drifted):,} drifted ({fleet.names(self.drifted)})"] if self.drifted else []
        parts += [f"{len(self.wrong):,} failed ({fleet.names(self.wrong)})"] if self.wrong else []
        parts += [f"{self.targets - self.done:,} not started"] if self.targets > self.done else []
        return f"{fleet.count(self.targets)} in {durations.text(self.seconds())}: {', '.join(parts) or 'nothing'}."


def worded(value: object) -> tuple[str, str, dict[str, Any]]:
    """Give what was done in a word to count, in a sentence, and as JSON."""
    from outreach_migrate.adopt.baseline import Baseline
    from outreach_migrate.adopt.taking_over import Nothing, Takeover
    from outreach_migrate.schema.drift import Drift

    match value:
        case Takeover():
            return _adopted(value)
        case Nothing():
            return "with nothing to adopt", "nothing to adopt", {"written": False, "present": value.present}
        case Baseline():
            return _recorded(value)
        case Drift():
            found = bool(value.comparison.differences)
            return "drifted" if found else "without drift", schema.summary(value), schema.value(value)
        case _:
            raise TypeError(value)


def _adopted(done: Takeover) -> tuple[str, str, dict[str, Any]]:
    table, count = done.recorded.table, sentences.count(len(done.adopted), "migration", "migrations")
    what = "adopted" if done.written else "that would be adopted" if done.adopted else "with nothing to adopt"
    value = {
        "written": done.written,
        "present": 0,
        "tool": table.tool,
        "table": str(table),
        "migrations": [adopting.value(one) for one in done.matches],
    }
    return what, f"{count} {'adopted' if done.written else 'would be adopted'} from {table.tool} ({table})", value


def _recorded(done: Baseline) -> tuple[str, str, dict[str, Any]]:
    count = sentences.count(len(done.recorded), "migration", "migrations")
    what = "recorded" if done.recorded else "recorded before"
    return (
        what,
        f"{count} recorded as applied, and not run" if done.recorded else "recorded before",
        adopting.record(done),
    )
