"""The report of `fleet status`: the targets, grouped by state."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from outreach_migrate import display
from outreach_migrate.errors import Contradiction
from outreach_migrate.report import addresses, as_json, fleet, sentences, terminal

if TYPE_CHECKING:
    from outreach_migrate.fleet import events
    from outreach_migrate.run.plan import Step

_SHOWN = 5  # targets whose problems are shown, unless all are asked for


@dataclass(frozen=True, slots=True)
class StateGroup:
    """The words for the state of targets, and a remark; `is_current` if they have all files."""

    words: str
    remark: str = ""
    is_current: bool = False


class FleetStatusReport(fleet.FleetReport):
    """The output of `fleet status`."""

    def __init__(self, *, as_json: bool, verbosity: int) -> None:
        super().__init__("fleet status", as_json=as_json, verbosity=verbosity)
        self.groups: dict[StateGroup, list[str]] = {}  # targets by their state, but not the names of current ones
        self.counts = Counter[StateGroup]()
        self.behind = 0
        self.unreadable = 0

    def event(self, event: events.Event) -> None:
        """Print an event."""
        from outreach_migrate.fleet import events

        if isinstance(event, events.Seen):
            self.leave(event.target)
            self._seen(event)
        else:
            super().event(event)

    def _seen(self, event: events.Seen) -> None:
        """Print a target if asked for, and keep its group."""
        pending = [step for step in event.plan.steps if step.state in ("pending", "unfinished")] if event.plan else []
        group = _group(event, pending)
        self.counts[group] += 1
        if not group.is_current:
            self.groups.setdefault(group, []).append(event.target)
        self.behind += bool(pending or event.code)
        if self.as_json:
            self.print_line(_as_line(event, pending, self.addresses))
        if self.verbosity > 0:
            self.result(f"{display.in_line(event.target)}  {' '.join(filter(None, (group.words, group.remark)))}")
        if event.error:
            self.unreadable += 1
            self.target_failed(event.target, event.error)
        elif event.problems:
            self.wrong.append(event.target)
            if len(self.wrong) <= _SHOWN or self.verbosity > 0:
                for one in event.problems:
                    text = sentences.problem(self.addresses.problem(event.target, one))
                    terminal.say(f"{display.in_line(event.target)}: {text}", err=self.as_json or self.verbosity < 0)

    def counted(self) -> dict[str, int]:
        """Count the targets that have all files, and those that are behind."""
        applied = sum(count for group, count in self.counts.items() if group.is_current)
        return {"applied": applied, "pending": self.behind}

    def sentence(self) -> str:
        """Group the targets: those that are up to date first, then the rest."""
        parts = []
        for group, count in sorted(self.counts.items(), key=lambda one: (not one[0].is_current, -one[1])):
            listed = f": {fleet.names(self.groups[group])}" if group in self.groups else ""
            parts.append(f"{count:,} {group.words}{listed}{f' ({group.remark})' if group.remark else ''}")
        return " · ".join(parts) or "no targets"


def _group(event: events.Seen, pending: list[Step]) -> StateGroup:
    """Word the state of a target, and add a remark."""
    if event.plan is None:
        return StateGroup("unreadable")
    if event.problems:
        states = {str(one.conflict).partition(",")[0] for one in event.problems if isinstance(one, Contradiction)}
        return StateGroup(" and ".join(sorted(states)) or "with a file that can't run")
    left = [f"{len(pending)} pending"] if pending else []
    left += [sentences.count(len(event.code), "file of code", "files of code")] if event.code else []
    if left:
        return StateGroup("behind", ", ".join(left))
    newest = max((step for step in event.plan.steps if step.entry), key=lambda step: int(step.version), default=None)
    is_ahead = event.plan.counts().get("ahead")
    at = f"at {newest.version if newest else 'nothing'}"
    return StateGroup(at, "ahead" if is_ahead else "up to date", is_current=True)


def _as_line(event: events.Seen, pending: list[Step], to: addresses.Addresses) -> dict[str, Any]:
    steps = event.plan.steps if event.plan else ()
    return {
        "target": event.target,
        "ok": not (event.error or event.problems),
        "applied": [{"version": step.version, "name": step.name} for step in steps if step.state == "applied"],
        "pending": [as_json.step(step) for step in pending],
        "seconds": round(event.seconds, 3),
        "error": event.error and as_json.error(to.error(event.target, event.error)),
        "problems": [as_json.problem(to.problem(event.target, one)) for one in event.problems],
        "code": [as_json.code(one) for one in event.code],
    }
