"""The report of `fleet up`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outreach_migrate import display, durations
from outreach_migrate.report import as_json, fleet, sentences

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.fleet import events
    from outreach_migrate.run import events as of_run


class UpReport(fleet.FleetReport):
    """The output of `fleet up`."""

    def __init__(self, *, as_json: bool, verbosity: int) -> None:
        super().__init__("fleet up", as_json=as_json, verbosity=verbosity)
        self.migrated = 0  # targets with an applied file, and without an error
        self.up_to_date = 0

    def event(self, event: events.Event) -> None:
        """Print an event."""
        from outreach_migrate.fleet import events

        if isinstance(event, events.Ended):
            self.leave(event.target)
            self._ended(event)
        else:
            super().event(event)

    def _ended(self, event: events.Ended) -> None:
        """Print a failure; of the other targets one only if asked for."""
        name, count, code = display.in_line(event.target), len(event.applied), len(event.code)
        batched = self.batched.pop(event.target, {})
        for one in event.code:
            if one.stale:
                self.note(event.target, f"warning: code  {one.path} no longer makes all of its objects, and they stay")
            for path in dict.fromkeys(other for _, other in one.shared):
                self.note(event.target, f"warning: code  {one.path} makes objects that {path} makes too")
        if event.later:
            self.note(event.target, sentences.left(event.later, "fleet … up"))
        self.applied += count
        self.migrated += bool(count or code) and not event.error
        self.up_to_date += not (count or code or event.error)
        if self.as_json:
            error = as_json.error(self.addresses.error(event.target, event.error)) if event.error else None
            self.print_line(_as_line(event, error, batched.values()) | {"canary": event.target in self.canary})
        if event.error:
            self.target_failed(event.target, event.error)
        elif self.verbosity > 0:
            done = [f"{sentences.count(count, 'migration', 'migrations')} applied"] if count else []
            done += [f"{sentences.count(code, 'file of code', 'files of code')} carried out"] if code else []
            took = f" in {sentences.took(event.seconds)}"
            self.result(f"{name}  {', '.join(done) + took if done else 'up to date'}")

    def summary(self) -> dict[str, Any]:
        """Count the targets, and the files that were applied to them."""
        return super().summary() | {"migrations": self.applied}

    def counted(self) -> dict[str, int]:
        """Count the targets to which files were applied, and that did not fail."""
        return {"applied": self.migrated}

    def sentence(self) -> str:
        """Sum the targets up."""
        parts = [f"{self.migrated:,} migrated"] if self.migrated else []
        parts += [f"{self.up_to_date:,} up to date"] if self.up_to_date else []
        parts += self.amiss()
        parts += ["because the canary failed"] if self.canary_failed and self.targets > self.done else []
        did = ", ".join(parts) or "nothing to do"
        return f"{fleet.count(self.targets)} in {durations.text(self.seconds())}: {did}.{self._again()}"

    def _again(self) -> str:
        """Say that the next run does the rest, and whether something must be corrected before it."""
        if not self.wrong and self.targets <= self.done:
            return ""
        return f" {'Correct the cause, then run' if self.lasting else 'Run'} it again: it does only the rest."


def _as_line(event: events.Ended, error: dict[str, Any] | None, batched: Iterable[of_run.Batched]) -> dict[str, Any]:
    return {
        "target": event.target,
        "ok": event.error is None,
        "applied": [as_json.applied(one) for one in event.applied],
        "pending": [as_json.step(step) for step in event.pending],
        "seconds": round(event.seconds, 3),
        "error": error,
        "batches": [as_json.batched(one) for one in batched],
        "code": [as_json.made(one) for one in event.code],
        "later": [as_json.step(step) for step in event.later],
    }
