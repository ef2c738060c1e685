"""The report of `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate import display
from outreach_migrate.report import as_json, batches, printer, sentences, terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outreach_migrate.errors import Blocker, Contradiction, Problem
    from outreach_migrate.history.batches import BatchProgress
    from outreach_migrate.run.code_plan import CodeStep
    from outreach_migrate.run.plan import Plan, Step
    from outreach_migrate.schema.drift import Drift

_HEAD = ("VERSION", "NAME", "STATE", "APPLIED (UTC)", "TOOK", "BY")
_COLOURS = {
    "applied": "green",
    "squashed": "green",
    "pending": "cyan",
    "ahead": "yellow",
}  # of states; any other is red


class StatusReport(printer.Report):
    """The output of `status`."""

    def __init__(self, *, as_json: bool, verbosity: int) -> None:
        super().__init__("status", as_json=as_json, verbosity=verbosity)

    def plan(
        self,
        plan: Plan,
        problems: Sequence[Problem | Contradiction],
        at_work: dict[str, Blocker],
        batched: dict[str, BatchProgress],
    ) -> None:
        """Print every version with its state, a line of counts, the runs at work, and the problems."""
        if self.as_json:
            self.document |= {
                "ok": not problems,
                "migrations": [as_json.step(step) for step in plan.steps],
                "counts": plan.counts(),
                "at_work": [{"version": version, **run._asdict()} for version, run in at_work.items()],
                "batches": [as_json.progress(version, progress) for version, progress in batched.items()],
                "problems": [as_json.problem(problem) for problem in problems],
            }
            return
        if plan.steps:
            self.result(_table([_row(step) for step in plan.steps]))
        self.result(", ".join(f"{number} {state}" for state, number in plan.counts().items()) or "no migrations")
        for version, run in at_work.items():
            far = f"; {batches.rows(batched[version].rows, batched[version].total)}" if version in batched else ""
            self.result(f"A run is at work on {version}: {sentences.run(run)}{far}.")
        for problem in problems:
            terminal.say(sentences.problem(problem), err=self.verbosity < 0)

    def code(self, steps: Sequence[CodeStep]) -> None:
        """Print the files of code with their states."""
        if self.as_json:
            self.document["code"] = [as_json.code(step) for step in steps]
        elif steps:
            width = max(display.width(step.path) for step in steps)
            for step in steps:
                colour = {"current": "green", "changed": "cyan"}.get(step.state, "yellow")
                objects = ", ".join(step.record.objects) if step.state == "gone" and step.record else ""
                stay = f"  its objects stay: {objects}" if objects else ""
                state = terminal.styled(step.state, colour=colour)
                self.result(f"code  {display.padded(display.in_line(step.path), width)}  {state}{stay}")

    def differences(self, drift: Drift) -> None:
        """Name the objects that differ from the files."""
        from outreach_migrate.report import schema  # here, because few ask for it

        self.document["drift"] = schema.value(drift)
        for one in drift.comparison.differences:
            self.result(f"drift  {schema.title(one)}")
        for line in schema.notes(drift):
            self.aside(line)
        if not drift.comparison.differences:
            self.aside(schema.summary(drift))


def _table(rows: list[tuple[str, ...]]) -> str:
    rows = [_HEAD, *(tuple(map(display.in_line, row)) for row in rows)]
    widths = [max(map(display.width, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = list(map(display.padded, row, widths))
        if row is not _HEAD:
            cells[2] = terminal.styled(cells[2], colour=_COLOURS.get(row[2].partition(",")[0], "red"))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _row(step: Step) -> tuple[str, ...]:
    entry, state = step.entry, str(step.state)
    if step.migration and step.migration.is_after_deploy:
        state += ", after-deploy"
    if entry is None:
        return (step.version, step.name, state, "", "", "")
    took = "" if entry.seconds is None else sentences.took(entry.seconds)
    by = entry.applied_by if entry.origin == "run" else f"{entry.applied_by} ({entry.origin})"
    when = f"{entry.started_at:%Y-%m-%d %H:%M:%S}" if entry.is_timed else "adopted"
    return (step.version, step.name, state, when, took, by)
