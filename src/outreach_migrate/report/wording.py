"""How errors, problems and what stands in the way are written for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate import display, durations, errors
from outreach_migrate.report import terminal

if TYPE_CHECKING:
    from outreach_migrate.errors import MigrateError, Problem
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.postgres.locks import Blocker


def error(error: MigrateError) -> str:
    """Write an error for people: place, message, excerpt, what the server adds, what to do, the state."""
    if isinstance(error, errors.Refused):
        lines = [problem(one) for one in error.problems]
        return "\n".join([*lines, error.state or "Nothing was run."])
    place = f"{error.location}: " if isinstance(error, errors.StatementError) else ""
    lines = [f"{place}{_severity('error')} {error.message}"]
    if isinstance(error, errors.StatementError):
        lines += [error.excerpt] if error.excerpt else []
        lines += [f"detail: {error.report.detail}"] if error.report.detail else []
        lines += [f"context: {error.report.context}"] if error.report.context else []
    if isinstance(error, errors.LockTimeout | errors.HistoryLocked):
        lines += [blocker(one, "in the way:") for one in error.blockers]
        lines += [one.advice for one in error.blockers]
    lines += [f"hint: {error.hint}"] if error.hint else []
    return "\n".join([*lines, *([error.state] if error.state else [])])


def problem(problem: Problem, severity: str = "error") -> str:
    """Write a problem as compilers write errors."""
    place = f"{problem.location}: " if problem.location else ""
    lines = [f"{place}{_severity(severity)} {display.in_line(problem.message)}"]
    lines += [problem.excerpt] if problem.excerpt else []
    lines += [f"hint: {problem.hint}"] if problem.hint else []
    return "\n".join(lines)


def _severity(word: str) -> str:
    return terminal.styled(f"{word}:", colour="yellow" if word == "warning" else "red", bold=True)


def run(blocker: Blocker) -> str:
    """Write which session a run works in, and since when."""
    return f"{_who(blocker)}{_since(blocker)}"


def blocker(blocker: Blocker, verb: str = "waiting for a lock:") -> str:
    """Write who is in the way, and since when."""
    if blocker.is_run:
        return f"waiting for another run: {run(blocker)}"
    state = f", {blocker.state}" if blocker.state else ""
    does = f"holds {blocker.held} on" if blocker.held else "waits before us for"
    lock = f", {does} {blocker.relation}" if blocker.relation else ""
    wanted = f"; {blocker.wanted} is wanted" if blocker.wanted else ""
    query = f"\n    its query: {blocker.query}" if blocker.query else ""
    return f"{verb} {_who(blocker)}{state}{_since(blocker)}{lock}{wanted}{query}"


def _who(blocker: Blocker) -> str:
    if not blocker.pid:
        return "a prepared transaction"
    user = blocker.user and f"user {display.in_line(blocker.user)}"
    application = blocker.application and f"application {display.in_line(blocker.application)}"
    return f"pid {blocker.pid} ({', '.join(filter(None, (user, application, blocker.client)))})"


def _since(blocker: Blocker) -> str:
    age = blocker.transaction_seconds
    return "" if age is None else f", its transaction open for {durations.text(age)} (since {blocker.since} UTC)"


def title(migration: Migration) -> str:
    """Name a migration at the head of a line."""
    return f"{migration.version}  {migration.name}"


def took(seconds: float) -> str:
    """Write how long something took; most files take some milliseconds."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else durations.text(seconds)


def count(number: int, one: str, many: str) -> str:
    """Write a number with its noun."""
    return f"{number} {one if number == 1 else many}"
