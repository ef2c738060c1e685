"""The errors, and the values that they carry."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Self


class Location(NamedTuple):
    """A place in a file; line and column count from 1, in characters."""

    path: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return ":".join(str(part) for part in (self.path, self.line, self.column) if part is not None)


class Problem(NamedTuple):
    """A mistake in a file or in the history, found before anything ran."""

    message: str
    location: Location | None = None
    hint: str | None = None
    excerpt: str | None = None

    def __str__(self) -> str:
        return f"{self.location}: {self.message}" if self.location else self.message


class Conflict(StrEnum):
    """The ways in which a file and the history can contradict each other."""

    EDITED = "edited"
    MISSING = "missing"
    OUT_OF_ORDER = "out of order"
    PARTLY_REPLACED = "applied in part by files that it replaces"
    UNFINISHED = "unfinished"
    UNFINISHED_WITHOUT_FILE = "unfinished, and has no file"
    UNFINISHED_WANTS_TRANSACTION = "unfinished, and wants a transaction now"
    UNFINISHED_CHANGED = "unfinished, and changed where it is done"


class Contradiction(NamedTuple):
    """A file and the history that contradict each other; times and checksum are the entry's.

    `location` is the file's or its next statement's, `newest` the newest applied version. Of an unfinished file `done`
    of `statements` are done, in batches `rows` of about `total`. Of `replaced` files `entries` are there, one `begun`.
    """

    conflict: Conflict
    version: str
    name: str
    location: Location | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    checksum: str | None = None
    file_checksum: str | None = None
    newest: int | None = None
    done: int = 0
    statements: int = 0
    entries: int = 0
    replaced: int = 0
    begun: str | None = None
    in_batches: bool = False
    rows: int | None = None
    total: int | None = None

    def __str__(self) -> str:
        return f"{self.version}_{self.name} is {self.conflict}"


class Fate(StrEnum):
    """The state that a run left its last file in."""

    NOTHING = "nothing"
    APPLIED = "applied"
    UNFINISHED = "unfinished"
    UNKNOWN = "unknown"
    ROLLED_BACK = "rolled back"
    CODE = "code"  # the files of code were being carried out
    SCRATCH = "scratch"  # it ran in a scratch database, which is dropped


class Outcome(NamedTuple):
    """The state that a run left the database in.

    `file` is null when no file was running. Of an unfinished file `done` of `statements` are done, or `rows` of about
    `total` of one in batches. `before` counts the files that the run applied before it; if they are not `durable`, a
    server that crashes at once may lose them. `taken_back` counts the files that a crash of the server took back.
    """

    file: Fate | None
    migration: str | None = None
    version: str | None = None
    path: str | None = None
    done: int | None = None
    statements: int | None = None
    before: int = 0
    taken_back: int = 0
    durable: bool = True
    rows: int | None = None
    total: int | None = None


class Blocker(NamedTuple):
    """A session that the run waits for; pid 0 is a prepared transaction.

    `wanted` and `held` are lock modes; `held` is null for a session that is only ahead in the queue, `relation` if the
    wait is for the end of a transaction (another run's entry, a unique value), and all that the role may not see.
    """

    pid: int
    user: str | None
    application: str | None
    client: str | None
    kind: str | None
    state: str | None
    transaction_seconds: float | None
    since: str | None
    query: str | None
    relation: str | None
    wanted: str | None
    held: str | None
    is_run: bool


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


class ServerMessage(NamedTuple):
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


class Phase(StrEnum):
    """The part of a file's message that the server refused; `END` is the end of a text that breaks off."""

    BEGIN = "begin"
    TEXT = "text"
    END = "end"
    FINISH = "finish"
    COMMIT = "commit"


class Ban(StrEnum):
    """Why the server refuses a statement where it stands, if its SQLSTATE alone does not tell."""

    TOO_LATE = "the transaction has begun already"
    INSIDE = "it can't run in a transaction"
    PERHAPS_BELOW = "it can't run in a transaction, perhaps also in no function"
    BELOW = "it can't run in a function, procedure or DO block"
    COMMITS = "it commits in a transaction"
    COMMITS_BELOW = "it commits where nothing can"
    NO_SETTING = "the server lacks the setting"
    NO_ROLE = "a role may be missing"


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
