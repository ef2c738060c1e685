"""What can go wrong."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.postgres.locks import Blocker
    from outreach_migrate.run.plan import Step


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file; line and column count from 1, in characters."""

    path: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, before anything ran."""

    message: str
    location: Location | None = None
    hint: str | None = None
    excerpt: str | None = None


class MigrateError(Exception):
    """Whatever keeps a command from doing its work.

    `hint` says what to do next, `state` what state the database is in, one sentence each; `migration` is the file
    that was running.
    """

    exit_code = 1
    migration: Migration | None = None

    def __init__(self, message: str, *, hint: str | None = None, state: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.state = state


class UsageError(MigrateError):
    """What was asked for can't be: an option, a variable or a key that makes no sense, or none where one is needed."""

    exit_code = 2


class Refused(MigrateError):
    """Something is wrong before anything ran; carries all of it."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(problem.message for problem in problems))
        self.problems = problems


class MigrationFileError(Refused):
    """Files that can't be migrations: bad names, a version twice, transaction control, not UTF-8 …"""


class HistoryError(Refused):
    """Files and history contradict each other, or the table is a stranger's; carries the steps."""

    def __init__(self, problems: list[Problem], steps: tuple[Step, ...] = ()) -> None:
        super().__init__(problems)
        self.steps = steps


class HistoryLocked(MigrateError):
    """The history table could not be read in time, because `blockers` lock it."""

    def __init__(self, message: str, blockers: tuple[Blocker, ...]) -> None:
        super().__init__(message)
        self.blockers = blockers


@dataclass(frozen=True, slots=True)
class ServerMessage:
    """An error or notice in PostgreSQL's own fields.

    https://www.postgresql.org/docs/current/protocol-error-fields.html
    """

    severity: str
    sqlstate: str
    message: str
    detail: str | None = None
    hint: str | None = None
    context: str | None = None
    position: int | None = None
    constraint: str | None = None


class StatementError(MigrateError):
    """The server refused a statement of a file.

    `location` is the place PostgreSQL points at, else where the statement starts; `statement` is its number in
    the file, from 1, where that is known. `__cause__` is psycopg's error.
    """

    def __init__(
        self,
        report: ServerMessage,
        *,
        migration: Migration,
        location: Location,
        excerpt: str | None = None,
        statement: int | None = None,
        message: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message or report.message, hint=hint or report.hint)
        self.report = report
        self.migration = migration
        self.location = location
        self.excerpt = excerpt
        self.statement = statement

    @property
    def sqlstate(self) -> str:
        """The error's SQLSTATE, five characters."""
        return self.report.sqlstate


class LockTimeout(StatementError):
    """A lock was not to be had in time; `blockers` are those last seen holding it."""

    blockers: tuple[Blocker, ...] = ()


class ConnectionFailed(MigrateError):
    """The server can't be reached, or was lost; `transient` says whether trying again may help."""

    def __init__(
        self, message: str, *, hint: str | None = None, state: str | None = None, transient: bool = False
    ) -> None:
        super().__init__(message, hint=hint, state=state)
        self.transient = transient


class MissingTool(MigrateError):
    """An optional extra is not installed; the message says the install command."""


class Interrupted(MigrateError):
    """A signal asked the run to end."""

    def __init__(self, number: int) -> None:
        super().__init__(f"interrupted by {signal.Signals(number).name}")
        self.exit_code = 128 + number
