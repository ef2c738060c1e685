"""The errors, and under their names the values that they carry."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Self

from outreach_migrate.error_values import Ban as Ban
from outreach_migrate.error_values import Blocker as Blocker
from outreach_migrate.error_values import Conflict as Conflict
from outreach_migrate.error_values import Contradiction as Contradiction
from outreach_migrate.error_values import Fate as Fate
from outreach_migrate.error_values import Location as Location
from outreach_migrate.error_values import Outcome as Outcome
from outreach_migrate.error_values import Phase as Phase
from outreach_migrate.error_values import Problem as Problem
from outreach_migrate.error_values import ServerMessage as ServerMessage


class MigrateError(Exception):
    """The base of all errors that a command can end with.

    `hint` names the next thing to do, in one sentence; `outcome` is the state of the database, if the run had begun;
    `page` is the page of the manual, where another than that of the error's class helps.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, hint: str | None = None, outcome: Outcome | None = None, page: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.outcome = outcome
        self.page = page

    def after(self, outcome: Outcome | None, *, hint: str | None = None) -> Self:
        """Give the same error with the state that the run left the database in, or another hint; its cause stays."""
        error = type(self).__new__(type(self), *self.args)
        vars(error).update(vars(self), outcome=outcome, hint=hint or self.hint)
        error.__cause__ = self.__cause__
        return error


class UsageError(MigrateError):
    """An argument, a variable or a key is wrong, or a required one is missing."""

    exit_code = 2


class Refused(MigrateError):
    """The run can't start; `problems` has every reason."""

    def __init__(self, problems: Sequence[Problem | Contradiction], *, page: str | None = None) -> None:
        super().__init__("; ".join(map(str, problems)), page=page)
        self.problems = tuple(problems)


class MigrationFileError(Refused):
    """Files that can't be migrations: bad names, a version twice, transaction control, not UTF-8 …"""


class HistoryError(Refused):
    """Files and history contradict each other, or the table is another tool's."""


class NotAdopted(HistoryError):
    """The database has the history of another tool, which must be taken over first, or can't be taken over as it is."""


class HistoryLocked(MigrateError):
    """The history table could not be read in time, because `blockers` lock it."""

    def __init__(self, message: str, blockers: tuple[Blocker, ...]) -> None:
        super().__init__(message)
        self.blockers = blockers


class StatementError(MigrateError):
    """The server refused a statement of a file, or one of the commands around the file; `phase` is its place.

    `location` is the place that PostgreSQL points at, else the statement's start; `statement` is its number, from 1.
    `report` has PostgreSQL's own fields, `ban` the reason why it can't run there; `__cause__` is psycopg's error.
    """

    def __init__(
        self,
        report: ServerMessage,
        *,
        version: str,
        location: Location,
        excerpt: str | None = None,
        statement: int | None = None,
        phase: Phase = Phase.TEXT,
        blockers: tuple[Blocker, ...] = (),
        ban: Ban | None = None,
    ) -> None:
        super().__init__(report.message, hint=report.hint)
        self.ban = ban
        self.report = report
        self.version = version
        self.location = location
        self.excerpt = excerpt
        self.statement = statement
        self.phase = phase
        self.blockers = blockers

    def __str__(self) -> str:
        return f"{self.location}: {self.message}"

    @property
    def sqlstate(self) -> str:
        """The error's SQLSTATE, five characters."""
        return self.report.sqlstate


class LockTimeout(StatementError):
    """The server gave up waiting for a lock; `blockers` are the sessions last seen in its way."""


class ConnectionFailed(MigrateError):
    """The server can't be reached, or the connection was lost.

    `transient` says whether another try may help, `full` whether the server has no connection left.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        outcome: Outcome | None = None,
        transient: bool = False,
        full: bool = False,
    ) -> None:
        super().__init__(message, hint=hint, outcome=outcome)
        self.transient = transient
        self.full = full


class MissingTool(MigrateError):
    """An optional extra is not installed; the message has the command that installs it."""


class Interrupted(MigrateError):
    """A signal asked the run to end."""

    def __init__(self, number: int, *, during: str | None = None, outcome: Outcome | None = None) -> None:
        running = f" while {during} ran" if during else ""
        super().__init__(f"interrupted by {signal.Signals(number).name}{running}", outcome=outcome)
        self.number = number
        self.exit_code = 128 + number
