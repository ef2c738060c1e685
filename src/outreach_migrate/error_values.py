"""The values that errors carry."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


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
