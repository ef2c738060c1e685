"""Errors, problems and blocking sessions in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate import display, durations, errors
from outreach_migrate.errors import Ban, Fate, Phase, Problem
from outreach_migrate.report import batches, contradictions, pages, terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.errors import Blocker, Contradiction, MigrateError, Outcome
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.run.events import Beside
    from outreach_migrate.run.plan import Pending

count = display.count


def error(error: MigrateError) -> str:
    """Write an error: place, message, excerpt, the server's details, hints, and the state of the database."""
    if isinstance(error, errors.Refused):
        lines = [problem(one) for one in error.problems]
        return "\n".join([*lines, *_see(error), state(error) or ""])
    place = f"{error.location}: " if isinstance(error, errors.StatementError) else ""
    lines = [f"{place}{_severity('error')} {message(error)}"]
    if isinstance(error, errors.StatementError):
        lines += [error.excerpt] if error.excerpt else []
        lines += [f"detail: {error.report.detail}"] if error.report.detail else []
        lines += [f"context: {error.report.context}"] if error.report.context else []
    if isinstance(error, errors.LockTimeout | errors.HistoryLocked):
        lines += [blocker(one, "in the way:") for one in error.blockers]
        lines += [advice(one) for one in error.blockers]
    lines += [f"hint: {told}"] if (told := hint(error)) else []
    return "\n".join([*lines, *_see(error), *([told] if (told := state(error)) else [])])


def left(later: Iterable[Pending], command: str) -> str:
    """Name the files that --before-deploy leaves, and the command that applies them."""
    names = ", ".join(str(step.migration) for step in later)
    return f"Left for after the deployment: {names}. Apply with: outreach-migrate {command}"


def _see(error: MigrateError) -> list[str]:
    """Name the page of the manual that helps."""
    return [f"see: outreach-migrate help {page}"] if (page := pages.page(error)) else []


def message(error: MigrateError) -> str:
    """Give the reason of an error, in one sentence."""
    if not isinstance(error, errors.StatementError):
        return error.message
    report = error.report
    match error.phase:
        case Phase.BEGIN:
            return f"cannot begin the file: {report.message}"
        case Phase.END:
            return "syntax error at the end of the file"
        case Phase.COMMIT if report.sqlstate == "40001":
            return f"at COMMIT: {report.message}"
        case Phase.COMMIT:
            kind = "constraint" if report.constraint else "trigger"
            return f"at COMMIT, a deferred {kind} failed: {report.message}"
        case Phase.FINISH if report.sqlstate == "22012":  # the entry was gone
            return "the file, or a trigger or rule, removed entries from the history table"
        case Phase.FINISH:
            return f"cannot finish the file's entry: {report.message}"
        case Phase.TEXT:
            return report.message


_HINTS = {
    "42501": "Run migrations as the role that owns these objects, or have it grant the privileges.",
    "25006": "The session may only read: is this a standby, or is default_transaction_read_only on?",
    "53100": "Free space on the server's disk, then run up again.",
    "53200": "The server is out of memory: free some, or split the file, then run up again.",
    "55P03": "Another session holds the lock: try again, or wait longer with --lock-timeout, or in the file with "
    "-- migrate: lock-timeout 30s",
    "40001": "Other transactions changed data that the file had read: run up again, at a quieter time.",
    "57014": "Either statement_timeout ended it, which --statement-timeout 0 lifts, or somebody cancelled it.",
    "42P06": "Write CREATE SCHEMA IF NOT EXISTS, or remove the line: every new database has the schema public.",
    "22P05": "The database's encoding can't hold one of the file's characters.",
}
_BANS = {
    Ban.TOO_LATE: "SET TRANSACTION comes too late. Begin the file with: -- migrate: isolation serializable",
    Ban.INSIDE: "Put it into a file of its own that begins with: -- migrate: no-transaction",
    Ban.PERHAPS_BELOW: "Put it into a file that begins with: -- migrate: no-transaction."
    " A command such as VACUUM must also be a statement of its own, outside of functions, procedures and DO blocks.",
    Ban.BELOW: "PostgreSQL can't run this in a function, procedure or DO block: make it a statement of the file.",
    Ban.COMMITS: "A procedure or DO block that commits needs a file of its own that begins with: "
    "-- migrate: no-transaction",
    Ban.COMMITS_BELOW: "No function can commit, nor can a procedure that is SECURITY DEFINER or has a SET clause,"
    " or is called from a function or from a block with EXCEPTION.",
    Ban.NO_SETTING: "A newer pg_dump writes settings that an older server lacks: remove the line.",
    Ban.NO_ROLE: "Roles belong to the server: create them before the run, or dump with --no-owner --no-privileges.",
}

_MAKE_ANEW = (
    "To have the object made anew, begin the file with: -- migrate: drop-first. "
    "If this file has not made it, drop it in a migration."
)
_REPLACE = (
    "Write CREATE OR REPLACE, or begin the file with: -- migrate: drop-first. "
    "If this file has not made the object, drop it in a migration."
)
_OF_CODE = {"42P16": _MAKE_ANEW, "42P13": _MAKE_ANEW, "42P07": _REPLACE, "42723": _REPLACE, "42710": _REPLACE}

# Citus' hint for a statement that can't follow parallel work in one transaction; it has no SQLSTATE of its own
_SEQUENTIAL = "citus.multi_shard_modify_mode TO 'sequential'"


def hint(error: MigrateError) -> str | None:
    """Suggest the next thing to do, if there is one."""
    if _SEQUENTIAL in (error.hint or ""):
        return f"Begin the file with: SET LOCAL {_SEQUENTIAL};"
    if not isinstance(error, errors.StatementError):
        return error.hint
    if pages.cannot_replace(error) and error.hint == error.report.hint:
        return _OF_CODE[error.sqlstate]
    if error.hint:
        return error.hint
    if error.phase is Phase.BEGIN and error.sqlstate == "42501":
        return (
            "The role needs INSERT and UPDATE on the history table, or CREATE on its schema to make it; "
            "--table SCHEMA.NAME names another place."
        )
    return _BANS[error.ban] if error.ban else _HINTS.get(error.sqlstate)


def state(error: MigrateError) -> str | None:
    """Say in one sentence which state the error left the database in."""
    if outcome := error.outcome:
        return _outcome(outcome)
    return "Nothing was run." if isinstance(error, errors.Refused) else None


_FATES = {
    Fate.NOTHING: "Nothing of this file was applied.",
    Fate.ROLLED_BACK: "Everything that was rehearsed is rolled back.",
    Fate.CODE: "No file of code was carried out, because they share one transaction.",
    Fate.SCRATCH: "It failed in a scratch database, which is dropped: no other database was changed.",
}


def _outcome(outcome: Outcome) -> str:
    if outcome.file is None:
        done = count(outcome.before, "migration", "migrations") if outcome.before else "nothing"
        return f"This run has applied and recorded {done}."
    match outcome.file:
        case Fate.UNKNOWN:
            text = f"It is not known whether {outcome.migration} was applied: run status once the server answers."
        case Fate.APPLIED:
            text = f"{outcome.migration} was applied and recorded."
        case Fate.UNFINISHED:
            text = f"{outcome.migration} is unfinished: {_part(outcome)} done; the next up goes on there."
        case _:
            text = _FATES[outcome.file]
    if outcome.before:
        were = count(outcome.before, "migration before it was", "migrations before it were")
        unless = "" if outcome.durable else ", unless the server has crashed since"
        text += f" {were} applied and recorded{unless}."
    if outcome.taken_back:
        are = count(outcome.taken_back, "migration before it, which is", "migrations before it, which are")
        text += f" The server's crash took back {are} pending again."
    return text


def _part(outcome: Outcome) -> str:
    if outcome.rows is not None:
        return batches.rows(outcome.rows, outcome.total)
    return f"{outcome.done} of {count(outcome.statements or 0, 'statement', 'statements')}"


def beside(event: Beside) -> str:
    """Word an event that is none of the file's own statements."""
    from outreach_migrate.run import events

    match event:
        case events.Recovered(_, reason):
            return f"it was committed before the connection was lost: {reason}"
        case events.AwaitingOrphan(_, pid):
            return f"waiting for a statement of an earlier run to end (pid {pid or 'unknown'})"
        case events.IndexFound(_, index):
            return f"the index {index} was built by an earlier run, which was stopped before it could record that"
        case events.IndexDropped(_, index):
            return f"dropping the invalid index {index}, which an earlier attempt of this statement left"
        case events.AlreadyDone(_, report):
            return f"{report.message}: an earlier run did this, and was stopped before it could record that"


def advice(blocker: Blocker) -> str:
    """Suggest a way to deal with a blocking session."""
    if blocker.pid == 0:
        return (
            "A prepared transaction holds the lock: find it in pg_prepared_xacts, then run COMMIT PREPARED "
            "or ROLLBACK PREPARED."
        )
    if blocker.kind == "autovacuum worker" and "wraparound" in (blocker.query or ""):
        return f"Autovacuum (pid {blocker.pid}) prevents wraparound and won't give way: let it finish, then try again."
    if (blocker.state or "").startswith("idle in transaction"):
        return f"Pid {blocker.pid} is idle in a transaction: end it, or run SELECT pg_terminate_backend({blocker.pid})."
    if blocker.state is None:
        return f"Pid {blocker.pid} belongs to another role: a role with pg_read_all_stats can see its state and query."
    return f"Pid {blocker.pid} is running a query: let it finish, or run SELECT pg_cancel_backend({blocker.pid})."


def worded(problem: Problem | Contradiction) -> Problem:
    """Put a contradiction between a file and the history into words."""
    return problem if isinstance(problem, Problem) else contradictions.worded(problem)


def problem(problem: Problem | Contradiction, severity: str = "error") -> str:
    """Write a problem as compilers write errors."""
    problem = worded(problem)
    place = f"{problem.location}: " if problem.location else ""
    lines = [f"{place}{_severity(severity)} {display.in_line(problem.message)}"]
    lines += [problem.excerpt] if problem.excerpt else []
    lines += [f"hint: {problem.hint}"] if problem.hint else []
    return "\n".join(lines)


def _severity(word: str) -> str:
    return terminal.styled(f"{word}:", colour="yellow" if word == "warning" else "red", bold=True)


def run(blocker: Blocker) -> str:
    """Name the session of a run, and the age of its transaction."""
    return f"{_who(blocker)}{_since(blocker)}"


def blocker(blocker: Blocker, verb: str = "waiting for a lock:") -> str:
    """Name a blocking session, its locks, and the age of its transaction."""
    if blocker.is_run:
        return f"waiting for another run: {run(blocker)}"
    state = f", {blocker.state}" if blocker.state else ""
    does = f"holds {blocker.held} on" if blocker.held else "is ahead in the queue for"
    lock = f", {does} {blocker.relation}" if blocker.relation else ""
    wanted = f"; the file needs {blocker.wanted}" if blocker.wanted else ""
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
    return "" if age is None else f", in a transaction for {durations.text(age)} (since {blocker.since} UTC)"


def title(migration: Migration) -> str:
    """Name a migration at the head of a line."""
    return f"{migration.version}  {migration.name}"


def took(seconds: float) -> str:
    """Write a duration, with decimals because most files take a few milliseconds."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else durations.text(seconds)
