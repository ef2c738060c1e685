"""The page of the manual that helps with an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate import errors
from outreach_migrate.errors import Ban, Fate
from outreach_migrate.files import rules

if TYPE_CHECKING:
    from outreach_migrate.errors import MigrateError, StatementError

_BY_FATE = {Fate.UNFINISHED: "no-transaction", Fate.UNKNOWN: "when-a-run-stops", Fate.SCRATCH: "schema"}
_BY_BAN = {Ban.TOO_LATE: "files", Ban.NO_SETTING: "moving", Ban.NO_ROLE: "moving"}
_BY_SQLSTATE = {
    "25006": "which-database",  # a read-only session, because the primary is elsewhere
    "40001": "locks",
    "40P01": "locks",
}
_WRONG_FUNCTION = "42P13"
# a view that is there has other columns, a function another return type; an object of this name is there
_IN_THE_WAY = {"42P16", _WRONG_FUNCTION, "42P07", "42723", "42710"}
_BY_CLASS: tuple[tuple[type[MigrateError] | tuple[type[MigrateError], ...], str], ...] = (
    ((errors.LockTimeout, errors.HistoryLocked), "locks"),
    (errors.MigrationFileError, "files"),
    (errors.NotAdopted, "moving"),
    (errors.HistoryError, "when-a-run-stops"),
    (errors.ConnectionFailed, "which-database"),
    (errors.MissingTool, "getting-started"),
    (errors.UsageError, "commands"),
)


def page(error: MigrateError) -> str | None:
    """Give the page; None for an error in a file's SQL, because PostgreSQL's message explains it."""
    if error.page:
        return error.page
    outcome = error.outcome
    if outcome and outcome.rows is not None:
        return "backfills"
    if outcome and outcome.file in _BY_FATE:
        return _BY_FATE[outcome.file]
    if isinstance(error, errors.ConnectionFailed) and (outcome or error.transient):
        return "when-a-run-stops"
    if isinstance(error, errors.StatementError) and error.ban:
        return _BY_BAN.get(error.ban, "no-transaction")
    if "drift" in vars(error):  # the errors of drift, whose classes would load all of schema
        return "schema"
    if found := next((name for kind, name in _BY_CLASS if isinstance(error, kind)), None):
        return found
    if not isinstance(error, errors.StatementError):
        return None
    return "code" if cannot_replace(error) else _BY_SQLSTATE.get(error.sqlstate)


def cannot_replace(error: StatementError) -> bool:
    """Tell whether a file of code failed because an object is there, and can't be replaced in this way.

    A function's definition that is wrong in itself has the same SQLSTATE, but no hint to drop the function.
    """
    if error.version != rules.CODE or (error.sqlstate == _WRONG_FUNCTION and not error.report.hint):
        return False
    return error.sqlstate in _IN_THE_WAY
