"""The only place that prints: people's text and JSON, from the same values."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Self

import click

from outreach_migrate import durations, errors

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate import apply
    from outreach_migrate.errors import Location, MigrateError, Problem, ServerMessage
    from outreach_migrate.locks import Blocker, Progress
    from outreach_migrate.migrations import Migration
    from outreach_migrate.plan import Plan, Step

_COLOURS = {
    "applied": "green",
    "pending": "cyan",
    "ahead": "yellow",
    "warning": "yellow",
}  # of states; the others are red
_REPEAT = 10.0  # s after which a wait that goes on is told again


def say(line: str, *, err: bool = False) -> None:
    """Print a line. Where nobody reads any more, as after `| head`, what is printed is lost, and the run goes on."""
    try:
        click.echo(line, err=err)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2 if err else 1)
        os.close(nowhere)


class Report:
    """What one command says: text as it goes, or with `as_json` one document at the end.

    Results go to stdout (with JSON, to stderr), everything else to stderr. `verbosity` is -1, 0 or 1.
    """

    def __init__(self, command: str, *, as_json: bool, verbosity: int) -> None:
        self.as_json = as_json
        self.verbosity = verbosity
        self.document: dict[str, Any] = {"command": command, "ok": True, "error": None}
        self.live = sys.stderr.isatty() and verbosity >= 0
        self.drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._clear()
        if kind not in (None, SystemExit):  # what nobody foresaw: a document that says all is well would be wrong
            self.document |= {"ok": False, "error": {"kind": kind and kind.__name__}}
        if self.as_json:
            import json

            click.echo(json.dumps(self.document, indent=2, default=str, ensure_ascii=False))

    def result(self, line: str) -> None:
        """Print a line of what the command was asked for."""
        if self.verbosity >= 0:
            self._clear()
            say(line, err=self.as_json)

    def aside(self, line: str) -> None:
        """Print a line that stands beside the result."""
        if self.verbosity >= 0:
            self._clear()
            say(line, err=True)

    def running(self, line: str) -> None:
        """Draw, on a terminal, the line that the next one will replace."""
        if self.live:
            import shutil

            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be taken back
            click.echo(f"\r\x1b[2K{line[:width]}", nl=False, err=True)
            self.drawn = True

    def _clear(self) -> None:
        if self.drawn:
            click.echo("\r\x1b[2K", nl=False, err=True)
            self.drawn = False

    def failed(self, error: MigrateError) -> None:
        """Print an error, at any verbosity, and keep it for the document."""
        self._clear()
        say(error_text(error), err=True)
        self.document |= {"ok": False, "error": error_value(error)}


class RunReport(Report):
    """What `up` says while it goes, from the engine's events."""

    def __init__(self, command: str, *, as_json: bool, verbosity: int) -> None:
        super().__init__(command, as_json=as_json, verbosity=verbosity)
        self.document |= {"applied": [], "pending": [], "ahead": [], "notices": []}
        self.pending: dict[str, Step] = {}
        self.began = time.monotonic()
        self.told: tuple[object, float] = (None, 0.0)
        self.progress = ""  # of the statement that runs, for the live line

    def event(self, event: apply.Event) -> None:
        """Print one thing that has come to pass."""
        from outreach_migrate import apply, database, watch

        match event:
            case apply.Planned(plan, steps):
                self._planned(plan, steps)
            case watch.Running(migration, seconds):
                self.progress = self.progress if seconds else ""
                self.running(f"{self.progress}{_title(migration)}  {durations.text(seconds)} …")
            case watch.Noticed(migration, notice):
                self._noticed(migration, notice)
            case watch.Waiting(_, blockers):
                self._once(tuple(blocker.pid for blocker in blockers), map(blocker_text, blockers))
            case watch.Told(migration, message):
                self.aside(f"{migration.path}: {message}")
            case watch.Progressing(migration, progress):
                self._progressing(migration, progress)
            case apply.Retrying(migration, error, seconds, left):
                self.aside(
                    f"{_title(migration)}  gave way ({error.message}), rolled back; "
                    f"tried again in {durations.text(seconds)}, {count(left, 'try', 'tries')} left"
                )
            case apply.Applied(migration, seconds, tags):
                self._applied(migration, seconds, tags)
            case database.Unreachable(why, _):
                self._once(why, [f"waiting for the server: {why}"])

    def _planned(self, plan: Plan, steps: tuple[Step, ...]) -> None:
        self.began = time.monotonic()  # the server's own start, and ours, are no part of it
        ahead = [step for step in plan.steps if step.state == "ahead"]
        for step in ahead:
            self.aside(
                f"warning: the database is ahead: {step.version}_{step.name}, which is newer than all files, is "
                f"{'applied' if step.entry and step.entry.finished_at else 'unfinished'}"
                " (an older release meets a newer database)"
            )
        self.document["ahead"] = [step_value(step) for step in ahead]
        self.pending = {step.version: step for step in steps}
        if not steps:
            done = sum(step.state == "applied" for step in plan.steps)
            self.result(f"Nothing is pending: {count(done, 'migration is', 'migrations are')} applied.")

    def _noticed(self, migration: Migration, notice: ServerMessage) -> None:
        self.aside(f"{migration.path}: {notice.severity}: {notice.message}")
        self.document["notices"].append({"version": migration.version, **_without_nulls(asdict(notice))})

    def _progressing(self, migration: Migration, progress: Progress) -> None:
        percent = "" if progress.percent is None else f" {progress.percent:.0f} %"
        text = f"{_title(migration)}  {progress.command.lower()}: {progress.phase}{percent}"
        if self.live:
            filled = round((progress.percent or 0) / 10)
            self.progress = f"[{'#' * filled}{'.' * (10 - filled)}]{percent} {progress.phase}  "
        else:
            self._once("progress", [text])

    def _applied(self, migration: Migration, seconds: float, tags: tuple[str, ...]) -> None:
        self.result(f"{_title(migration)}  {click.style('applied', fg='green')} in {durations.text(seconds)}")
        if self.verbosity > 0:
            for tag in tags:
                self.result(f"    {tag}")
        self.pending.pop(migration.version, None)
        self.document["applied"].append(
            {
                "version": migration.version,
                "name": migration.name,
                "path": migration.path,
                "milliseconds": round(seconds * 1000, 3),
                "statements": list(tags),
            }
        )

    def _once(self, what: object, lines: Iterable[str]) -> None:
        """Say what goes on for longer when it begins, and every ten seconds."""
        now = time.monotonic()
        if self.told[0] != what or now - self.told[1] >= _REPEAT:
            self.told = (what, now)
            for line in lines:
                self.aside(line)

    def would_run(self, planned: apply.Planned) -> None:
        """Print what a run would do."""
        self.event(planned)
        for step in planned.steps:
            self.result(f"{step.version}  {step.name}  would be applied")
        if planned.steps:
            self.result("Nothing was run (--dry-run).")

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.document["pending"] = [step_value(step) for step in self.pending.values()]
        super().__exit__(kind, *rest)

    def ended(self) -> None:
        """Sum up a run that applied what it was to apply."""
        if applied := len(self.document["applied"]):
            took = durations.text(time.monotonic() - self.began)
            self.result(f"{count(applied, 'migration', 'migrations')} applied in {took}.")
        elif self.pending:  # another run was faster
            self.pending.clear()
            self.result("Nothing is left to do: another run has applied what was pending.")


def status(report: Report, plan: Plan, problems: list[Problem]) -> None:
    """Print every version with its state, a count line, and what is wrong."""
    if report.as_json:
        report.document |= {
            "ok": not problems,
            "migrations": [step_value(step) for step in plan.steps],
            "counts": plan.counts(),
            "problems": [problem_value(problem) for problem in problems],
        }
        return
    rows = [_row(step) for step in plan.steps]
    if rows:
        head = ("VERSION", "NAME", "STATE", "APPLIED (UTC)", "TOOK", "BY")
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        lines = []
        for row in [head, *rows]:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            if row is not head:
                cells[2] = click.style(cells[2], fg=_COLOURS.get(row[2], "red"))
            lines.append("  ".join(cells).rstrip())
        report.result("\n".join(lines))
    report.result(", ".join(f"{number} {state}" for state, number in plan.counts().items()) or "no migrations")
    for problem in problems:
        say(problem_text(problem), err=report.verbosity < 0)


def _row(step: Step) -> tuple[str, ...]:
    entry = step.entry
    if entry is None:
        return (step.version, step.name, step.state, "", "", "")
    took = durations.text((entry.finished_at - entry.started_at).total_seconds()) if entry.finished_at else ""
    by = entry.applied_by if entry.origin == "run" else f"{entry.applied_by} ({entry.origin})"
    return (step.version, step.name, step.state, f"{entry.started_at:%Y-%m-%d %H:%M:%S}", took, by)


def step_value(step: Step) -> dict[str, Any]:
    """Give a step as JSON has it."""
    entry, migration = step.entry, step.migration
    return {
        "version": step.version,
        "name": step.name,
        "state": str(step.state),
        "path": migration.path if migration else None,
        "checksum": migration.checksum if migration else None,
        "entry": {
            **{key: value for key, value in asdict(entry).items() if key not in {"version", "name"}},
            "started_at": entry.started_at.isoformat(),
            "finished_at": entry.finished_at.isoformat() if entry.finished_at else None,
        }
        if entry
        else None,
    }


def problem_value(problem: Problem) -> dict[str, Any]:
    """Give a problem as JSON has it."""
    return {"message": problem.message, **_location(problem.location), "hint": problem.hint}


def error_value(error: MigrateError) -> dict[str, Any]:
    """Give an error as JSON has it; `kind` is its class."""
    value: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": error.message,
        **_location(getattr(error, "location", None)),
        "sqlstate": getattr(error, "sqlstate", None),
        "hint": error.hint,
        "state": error.state or ("Nothing was run." if isinstance(error, errors.Refused) else None),
    }
    if isinstance(error, errors.StatementError):
        value |= {
            "version": error.migration.version,
            "statement": error.statement,
            "detail": error.report.detail,
            "context": error.report.context,
        }
    if isinstance(error, errors.Refused):
        value["problems"] = [problem_value(problem) for problem in error.problems]
    if isinstance(error, errors.LockTimeout):
        value["blockers"] = [{**asdict(blocker), "advice": blocker.advice} for blocker in error.blockers]
    return value


def error_text(error: MigrateError) -> str:
    """Write an error for people: place, message, excerpt, what the server adds, what to do, the state."""
    if isinstance(error, errors.Refused):
        lines = [problem_text(problem) for problem in error.problems]
        return "\n".join([*lines, error.state or "Nothing was run."])
    place = f"{error.location}: " if isinstance(error, errors.StatementError) else ""
    lines = [f"{place}{_error_word()} {error.message}"]
    if isinstance(error, errors.StatementError):
        lines += [error.excerpt] if error.excerpt else []
        lines += [f"detail: {error.report.detail}"] if error.report.detail else []
        lines += [f"context: {error.report.context}"] if error.report.context else []
    if isinstance(error, errors.LockTimeout):
        lines += [blocker_text(blocker, "in the way:") for blocker in error.blockers]
        lines += [blocker.advice for blocker in error.blockers]
    lines += [f"hint: {error.hint}"] if error.hint else []
    return "\n".join([*lines, *([error.state] if error.state else [])])


def problem_text(problem: Problem, severity: str = "error") -> str:
    """Write a problem as compilers write errors."""
    place = f"{problem.location}: " if problem.location else ""
    word = click.style(f"{severity}:", fg=_COLOURS.get(severity, "red"), bold=True)
    lines = [f"{place}{word} {problem.message}"]
    lines += [problem.excerpt] if problem.excerpt else []
    lines += [f"hint: {problem.hint}"] if problem.hint else []
    return "\n".join(lines)


def blocker_text(blocker: Blocker, verb: str = "waiting for a lock:") -> str:
    """Write who is in the way, and since when."""
    who = ", ".join(
        part
        for part in (
            blocker.user and f"user {blocker.user}",
            blocker.application and f"application {blocker.application}",
            blocker.client,
        )
        if part
    )
    who = f"pid {blocker.pid} ({who})" if blocker.pid else "a prepared transaction"
    age = blocker.transaction_seconds
    since = f", its transaction open for {durations.text(age)} (since {blocker.since} UTC)" if age is not None else ""
    if blocker.is_run:
        return f"waiting for another run: {who}{since}"
    state = f", {blocker.state}" if blocker.state else ""
    does = f"holds {blocker.held} on" if blocker.held else "waits before us for"
    lock = f", {does} {blocker.relation}" if blocker.relation else ""
    wanted = f"; {blocker.wanted} is wanted" if blocker.wanted else ""
    query = f"\n    its query: {blocker.query}" if blocker.query else ""
    return f"{verb} {who}{state}{since}{lock}{wanted}{query}"


def _title(migration: Migration) -> str:
    return f"{migration.version}  {migration.name}"


def count(number: int, one: str, many: str) -> str:
    """Write a number with its noun."""
    return f"{number} {one if number == 1 else many}"


def _error_word() -> str:
    return click.style("error:", fg="red", bold=True)


def _location(location: Location | None) -> dict[str, Any]:
    return {
        "path": location and location.path,
        "line": location and location.line,
        "column": location and location.column,
    }


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if item is not None}
