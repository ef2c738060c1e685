"""The report of `fleet up --dry-run`: the SQL for each group of targets that would get the same."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from outreach_migrate import display, durations
from outreach_migrate.report import as_json, fleet, run, sentences, terminal

if TYPE_CHECKING:
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.fleet import events


@dataclass(slots=True)
class SameFiles:
    """Targets that would get the same files: path, first line, SQL, and the file itself."""

    files: list[tuple[str, int, str, Migration]]
    targets: list[str] = field(default_factory=list)


class DryReport(fleet.FleetReport):
    """The output of a dry run."""

    def __init__(self, *, as_json: bool, verbosity: int) -> None:
        super().__init__("fleet up", as_json=as_json, verbosity=verbosity)
        self.groups: dict[object, SameFiles] = {}
        self.up_to_date = 0
        self.halted: events.Halted | None = None

    def event(self, event: events.Event) -> None:
        """Print an event."""
        from outreach_migrate.fleet import events

        match event:
            case events.Would():
                self.leave(event.target)
                self._would(event)
            case events.Failed(target, error, seconds):
                self.leave(target)
                if self.as_json:
                    value = {"target": target, "ok": False, "applied": [], "pending": [], "later": [], "code": []}
                    ended = {"seconds": round(seconds, 3), "error": as_json.error(self.addresses.error(target, error))}
                    self.print_line(value | ended | {"canary": target in self.canary})
                self.target_failed(target, error)
            case events.Halted():
                self.halted = event
            case _:
                super().event(event)

    def _would(self, event: events.Would) -> None:
        """Put a target into its group; print it if asked for."""
        files = _files(event)
        if event.planned.later:
            self.note(event.target, sentences.left(event.planned.later, "fleet … up"))
        if self.as_json:
            self.print_line(_as_line(event, files) | {"canary": event.target in self.canary})
        if self.verbosity > 0:
            count = sentences.count(len(files), "file", "files")
            self.result(f"{display.in_line(event.target)}  {f'{count} would run' if files else 'up to date'}")
        if files:
            key = tuple((path, line) for path, line, *_ in files)
            self.groups.setdefault(key, SameFiles(files)).targets.append(event.target)
        else:
            self.up_to_date += 1

    def ended(self) -> None:
        """Print the canary, the SQL, and sum up the whole."""
        if self.canary and not self.as_json:
            self.result(f"-- canary, alone and before the rest: {fleet.names(self.canary)}\n")
        for number, group in enumerate(self.groups.values() if not self.as_json else ()):
            targets = f"{fleet.count(len(group.targets))}: {fleet.names(group.targets)}"
            terminal.say("\n".join([*([""] if number else []), f"-- {targets}"]))
            for path, line, text, migration in group.files:
                terminal.say(f"-- {path}{f', from line {line} on' if line > 1 else ''}")
                if self.verbosity >= 0:
                    run.say_sql(migration, text)
        super().ended()

    def counted(self) -> dict[str, int]:
        """Count the targets that lack something."""
        return {"applied": 0, "pending": sum(len(group.targets) for group in self.groups.values())}

    def summary(self) -> dict[str, Any]:
        """Count the targets, also those that a run would not start."""
        return super().summary() | {"not_started": self.targets - self.done + self._kept()}

    def _kept(self) -> int:
        """Count the targets that lack something, and that a run would not start."""
        kept = self.halted.kept if self.halted else ()
        return sum(target in kept for group in self.groups.values() for target in group.targets)

    def sentence(self) -> str:
        """Sum the targets up."""
        kept = self._kept()
        would = self.counted()["pending"] - kept
        parts = [f"{would:,} would be migrated"] if would else []
        parts += [f"{self.up_to_date:,} up to date"] if self.up_to_date else []
        parts += self.amiss()
        parts += [f"{kept:,} would not be started"] if kept else []
        took = durations.text(self.seconds())
        said = ", ".join(parts) or "nothing to do"
        return f"Nothing was run (--dry-run): {fleet.count(self.targets)} in {took}: {said}.{self._halt(would, kept)}"

    def _halt(self, would: int, kept: int) -> str:
        """Say why a run would not start all targets, and how it would."""
        if not self.halted or not (would or kept):
            return ""
        if self.halted.by_canary:
            return " The canary would fail, which ends the fleet."
        options = f"--keep-going or --max-failures {len(self.wrong) + 1}"
        if kept:
            return f" With {options} they would."
        return f" A failure ends the fleet, but for targets that are at work by then: {options} starts all."


def _files(event: events.Would) -> list[tuple[str, int, str, Migration]]:
    from outreach_migrate.run import plan

    found = [(*plan.to_send(step, None), step.migration) for step in event.planned.steps]
    of_code = [one.code.migration for one in event.code if one.code]
    return [*found, *((one.path, 1, one.text, one) for one in of_code)]


def _as_line(event: events.Would, files: list[tuple[str, int, str, Migration]]) -> dict[str, Any]:
    steps = event.planned.steps
    return {
        "target": event.target,
        "ok": True,
        "applied": [],
        "pending": [
            as_json.step(step) | {"sql": text} for step, (_, _, text, _) in zip(steps, files[: len(steps)], strict=True)
        ],
        "later": [as_json.step(step) for step in event.planned.later],
        "code": [{"path": path, "sql": text} for path, _, text, _ in files[len(steps) :]],
        "seconds": round(event.seconds, 3),
        "error": None,
    }
