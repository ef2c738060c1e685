"""Steps, problems, errors and notices as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outreach_migrate import errors
from outreach_migrate.files import rules
from outreach_migrate.report import pages, sentences

if TYPE_CHECKING:
    from outreach_migrate.errors import Contradiction, Location, MigrateError, Problem, ServerMessage
    from outreach_migrate.history.batches import BatchProgress
    from outreach_migrate.run import events
    from outreach_migrate.run.code_plan import CodeStep
    from outreach_migrate.run.plan import Step


def version(version: str) -> str | None:
    """Give the version of a migration; a file of code has none."""
    return None if version == rules.CODE else version


def step(step: Step) -> dict[str, Any]:
    """Turn a step into JSON."""
    entry, migration = step.entry, step.migration
    return {
        "version": step.version,
        "name": step.name,
        "state": str(step.state),
        "path": migration.path if migration else None,
        "checksum": migration.checksum if migration else None,
        "after_deploy": migration.is_after_deploy if migration else False,
        "entry": {
            **{key: value for key, value in entry._asdict().items() if key not in {"version", "name"}},
            "started_at": entry.started_at.isoformat(),
            "finished_at": entry.finished_at.isoformat() if entry.finished_at else None,
            "timed": entry.is_timed,
        }
        if entry
        else None,
    }


def applied(applied: events.Applied) -> dict[str, Any]:
    """Turn an applied file into JSON."""
    return {
        "version": applied.version,
        "name": applied.name,
        "path": applied.path,
        "milliseconds": milliseconds(applied.seconds),
        "statements": list(applied.statements),
    }


def code(step: CodeStep) -> dict[str, Any]:
    """Turn a file of code into JSON."""
    record = step.record
    return {
        "path": step.path,
        "state": str(step.state),
        "objects": list(record.objects) if record else [],
        "applied_at": record.applied_at.isoformat() if record else None,
        "applied_by": record.applied_by if record else None,
    }


def made(event: events.CodeApplied) -> dict[str, Any]:
    """Turn a file of code that was carried out into JSON."""
    return {
        "path": event.path,
        "milliseconds": milliseconds(event.seconds),
        "objects": list(event.objects),
        "stale": list(event.stale),
        "dropped": list(event.dropped),
        "shared": [{"object": one, "path": path} for one, path in event.shared],
    }


def batched(event: events.Batched) -> dict[str, Any]:
    """Turn the progress of a file in batches into JSON."""
    return {
        "version": event.migration.version,
        "rows": event.rows,
        "total": event.total,
        "changed": event.changed,
        "rows_per_second": round(event.per_second),
        "size": event.size,
    }


def progress(version: str, progress: BatchProgress) -> dict[str, Any]:
    """Turn the recorded progress of an unfinished file in batches into JSON."""
    return {
        "version": version,
        "rows": progress.rows,
        "total": progress.total,
        "seconds": round(progress.seconds, 3),
        "size": progress.size,
    }


def problem(problem: Problem | Contradiction) -> dict[str, Any]:
    """Turn a problem into JSON."""
    problem = sentences.worded(problem)
    return {"message": problem.message, **location(problem.location), "hint": problem.hint}


def error(error: MigrateError) -> dict[str, Any]:
    """Turn an error into JSON; `kind` is its class."""
    value: dict[str, Any] = {
        "kind": type(error).__name__,
        "message": sentences.message(error),
        **location(_place(error)),
        "sqlstate": getattr(error, "sqlstate", None),
        "hint": sentences.hint(error),
        "help": pages.page(error),
        "state": sentences.state(error),
        "outcome": error.outcome and error.outcome._asdict(),
        "version": error.outcome and error.outcome.version,
    }
    if isinstance(error, errors.StatementError):
        value |= {
            "version": version(error.version),
            "statement": error.statement,
            "detail": error.report.detail,
            "context": error.report.context,
        }
    if isinstance(error, errors.Refused):
        value["problems"] = [problem(one) for one in error.problems]
    if isinstance(error, errors.LockTimeout | errors.HistoryLocked):
        value["blockers"] = [{**blocker._asdict(), "advice": sentences.advice(blocker)} for blocker in error.blockers]
    return value


def _place(error: MigrateError) -> Location | None:
    if isinstance(error, errors.StatementError):
        return error.location
    return errors.Location(error.outcome.path) if error.outcome and error.outcome.path else None


def notice(notice: ServerMessage) -> dict[str, Any]:
    """Turn a notice into JSON, with the fields that the server has filled."""
    return {key: value for key, value in notice._asdict().items() if value is not None}


def location(location: Location | None) -> dict[str, Any]:
    """Turn a place into JSON."""
    return {
        "path": location and location.path,
        "line": location and location.line,
        "column": location and location.column,
    }


def milliseconds(seconds: float) -> float:
    """Turn a duration into JSON."""
    return round(seconds * 1000, 3)
