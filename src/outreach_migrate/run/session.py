"""One migration on one connection: the message sent, the result read, the error placed."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Literal

import psycopg
from psycopg import pq, sql

from outreach_migrate.errors import Location, LockTimeout, ServerMessage, StatementError
from outreach_migrate.files import outline, statements
from outreach_migrate.history import history, record
from outreach_migrate.postgres import wire

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from psycopg.pq.abc import PGresult

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.record import Place

# What DISCARD ALL does, as commands that may stand inside a transaction.
# https://www.postgresql.org/docs/current/sql-discard.html
RESET = (
    *("CLOSE ALL", "SET SESSION AUTHORIZATION DEFAULT", "RESET ROLE", "RESET ALL", "DEALLOCATE ALL", "UNLISTEN *"),
    "SET client_encoding = 'UTF8'",  # a pooler's connection was not opened with it, as ours are
    # statements are cut and placed by the standard's rule for strings, whatever the role's own setting is
    "SET standard_conforming_strings = on",
    *("SELECT pg_catalog.pg_advisory_unlock_all()", "DISCARD PLANS", "DISCARD TEMP", "DISCARD SEQUENCES"),
)
_TAKEN = {"23505", "42P06", "42P07", "42710"}  # by a run that inserted this position, or made the table, first
ENDING = ("SET LOCAL statement_timeout = 0", "SET SESSION AUTHORIZATION DEFAULT", "RESET ROLE")
_WHOLE = 4_000_000  # characters: a larger file goes to the server in parts


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a statement may wait for a lock, and run: seconds, 0 for ever, None for the server's own setting."""

    lock_timeout: float | None = 5.0
    statement_timeout: float | None = None

    def of_file(self, lock_timeout: float | None) -> Limits:
        """Give the limits of a file, which may ask for a lock timeout of its own."""
        return self if lock_timeout is None else replace(self, lock_timeout=lock_timeout)

    def sql(self, scope: Literal["LOCAL", "SESSION"] = "LOCAL") -> list[str]:
        """Write the statements that set them."""
        both = {"lock_timeout": self.lock_timeout, "statement_timeout": self.statement_timeout}
        return [
            f"SET {scope} {name} = {'DEFAULT' if value is None else max(round(value * 1000), int(value > 0))}"
            for name, value in both.items()
        ]


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a file's text that goes to the server in one message, with what is put around it."""

    before: list[str]
    text: str
    start: int
    after: list[str]
    first: int = 0  # the number of its first statement in the file, from 0


class Overtaken(Exception):
    """Another run applied, or began, the file at this position first; `error` is what said so."""

    def __init__(self, error: StatementError | None = None) -> None:
        self.error = error


@dataclass(frozen=True, slots=True)
class Setting:
    """What a file's statements run under. `mark` is the comment that messages begin with, by which others find us."""

    mark: str
    limits: Limits
    search_path: str | None
    patience: float = 0.0  # the lock timeout of what is built concurrently
    application: str = "outreach-migrate"
    durable: bool = True  # whether COMMIT waits for the disk, or leaves that to a later file's
    checks_client: bool = False  # whether the server is to look every second if we are still there

    def client_check(self, scope: Literal["LOCAL", "SESSION"] = "LOCAL") -> list[str]:
        """Write the statement that lets the server end what it does for a client that is gone, where it can.

        https://www.postgresql.org/docs/current/runtime-config-connection.html#GUC-CLIENT-CONNECTION-CHECK-INTERVAL
        """
        return [f"SET {scope} client_connection_check_interval = '1s'"] if self.checks_client else []

    def begin(self) -> list[str]:
        """Write the statements that begin a transaction in a clean session, without limits yet."""
        path = [history.set_search_path(self.search_path).rstrip(";")] if self.search_path else []
        # RESET ALL has taken it away where a pooler's connection was opened with another
        name = f"SET LOCAL application_name = {sql.quote(self.application)}"
        clean = ["BEGIN ISOLATION LEVEL READ COMMITTED", *RESET, *self.client_check()]
        return [*clean, name, *path, *Limits(0, 0).sql()]


def apply(
    connection: psycopg.Connection, migration: Migration, place: Place, setting: Setting
) -> Generator[float, None, tuple[list[str], float]]:
    """Run a file in one transaction with its entry; give its statements' command tags, and how many seconds it took.

    Yield while waiting. Raise Overtaken, StatementError, LockTimeout, or psycopg.OperationalError when the connection
    is lost.
    """
    # the claim comes before the limits: it waits for another run as long as that takes
    claim = [*place.create, record.insert(place, migration)]
    before = [*setting.begin(), *claim, *setting.limits.sql()]
    flush = [] if setting.durable else ["SET LOCAL synchronous_commit = off"]
    after = [record.finish(place), *flush, "COMMIT", *RESET]
    tags: list[str] = []
    for part in _parts(migration, before, [*ENDING, *after]):
        results = yield from _exchange(connection, migration, part, setting.mark)
        tags += _tags(part, results)
    return tags, record.seconds(results[-len(after)])


def send(
    connection: psycopg.Connection, migration: Migration, part: Part, mark: str
) -> Generator[float, None, list[str]]:
    """Send a piece of a file in one message, and give its statements' tags; raise what it met, at its place."""
    return _tags(part, (yield from _exchange(connection, migration, part, mark)))


def _tags(part: Part, results: list[PGresult]) -> list[str]:
    own = results[len(part.before) : len(results) - len(part.after)]
    return [sys.intern((result.command_status or b"").decode()) for result in own]


def _exchange(
    connection: psycopg.Connection, migration: Migration, part: Part, mark: str
) -> Generator[float, None, list[PGresult]]:
    """Send a piece of a file, and give a result a statement."""
    head = f"{mark}{'; '.join(part.before)};\n" if part.before else mark
    tail = f"\n; {'; '.join(part.after)}" if part.after else ""
    message = head + part.text + tail
    results = yield from wire.exchange(connection, message.encode())
    tagged = [result for result in results if result.command_status]  # one a statement; results of rules have none
    if results and results[-1].status == pq.ExecStatus.FATAL_ERROR:
        raise failure(connection, migration, part, results[-1], done=len(tagged), head=head, message=message)
    return tagged


def _parts(migration: Migration, before: list[str], after: list[str]) -> Iterator[Part]:
    """Cut a large file between statements: PostgreSQL parses all of a message before it runs any of it."""
    text = statements.without_outer_transaction(migration.sql)
    cuts = [(0, 0), *(migration.outline.cuts if len(text) > _WHOLE else ()), (len(text), 0)]
    for (start, first), (end, _) in pairwise(cuts):
        yield Part(before if start == 0 else [], text[start:end], start, after if end == len(text) else [], first)


def failure(
    connection: psycopg.Connection,
    migration: Migration,
    part: Part,
    failed: PGresult,
    *,
    done: int,
    head: str,
    message: str,
) -> Exception:
    """Say what failed and where: the server's position counts over the message, the results tell the statement."""
    if connection.pgconn.status != pq.ConnStatus.OK:
        return psycopg.OperationalError(failed.get_error_message().strip())
    report = wire.server_message(failed, connection.info.encoding)
    cause = psycopg.errors.error_from_result(failed)
    nth = done - len(part.before)  # of the part's statements, from 0
    at = -1 if report.position is None else _characters(connection, message, report.position - 1) - len(head)
    if at >= len(part.text) and done == 0:  # the file ends too early: nothing of the message could be parsed
        end = part.start + len(part.text.rstrip()) - 1
        return placed(migration, report, end, None, cause, message="syntax error at the end of the file")
    if 0 <= at < len(part.text):
        return placed(migration, report, part.start + at, part.first + nth + 1 if done else None, cause)
    if nth >= 0 and (statement := next(islice(statements.split(part.text), nth, None), None)):
        return placed(migration, report, part.start + statement.start, part.first + nth + 1, cause)
    if nth < 0 < done and report.sqlstate in _TAKEN:
        return Overtaken(_unplaced(migration, report, "BEGIN", cause))
    count = sum(1 for _ in statements.split(part.text))
    return _unplaced(migration, report, "BEGIN" if nth < 0 else part.after[nth - count], cause)


def _characters(connection: psycopg.Connection, message: str, position: int) -> int:
    """Count characters, as the server does unless its encoding knows none."""
    if connection.pgconn.parameter_status(b"server_encoding") == b"SQL_ASCII":
        return len(message.encode()[:position].decode(errors="ignore"))
    return position


def placed(
    migration: Migration,
    report: ServerMessage,
    offset: int,
    statement: int | None,
    cause: psycopg.Error | None = None,
    *,
    message: str | None = None,
) -> StatementError:
    """Make the error that points at an offset of a file."""
    error = (LockTimeout if report.sqlstate == "55P03" else StatementError)(
        report,
        migration=migration,
        location=migration.location(offset),
        excerpt=migration.excerpt(offset),
        statement=statement,
        message=message,
        hint=_hint(report, migration, offset),
    )
    error.__cause__ = cause
    return error


def _unplaced(migration: Migration, report: ServerMessage, command: str, cause: psycopg.Error) -> StatementError:
    """Say what failed outside of the file's own text: before it, at COMMIT, or between the two."""
    hint = _hint(report, migration)
    if command == "BEGIN":
        message = f"cannot begin the file: {report.message}"
        if report.sqlstate == "42501":
            hint = (
                "The role needs INSERT and UPDATE on the history table, or CREATE on its schema to make it; "
                "--table SCHEMA.NAME names another place."
            )
    elif command == "COMMIT":
        message = f"at COMMIT, a deferred {'constraint' if report.constraint else 'trigger'} failed: {report.message}"
    elif report.sqlstate == "22012":
        message = "the file, or a trigger or rule, removed entries from the history table"
    else:
        message = f"cannot finish the file's entry: {report.message}"
    error = StatementError(report, migration=migration, location=Location(migration.path), message=message, hint=hint)
    error.__cause__ = cause
    return error


_HINTS = {
    "42501": "Run migrations as the role that owns these objects, or have it grant what is missing.",
    "25006": "The session may only read: is this a standby, or is default_transaction_read_only on?",
    "53100": "Free space on the server's disk, then run up again.",
    "53200": "The server is out of memory: free some, or split the file, then run up again.",
    "55P03": "Somebody else holds the lock. Try again, or wait longer: --lock-timeout, or in the file: "
    "-- migrate: lock-timeout 30s",
    "22P05": "The database's encoding can't hold one of the file's characters.",
}


def _hint(report: ServerMessage, migration: Migration, offset: int | None = None) -> str | None:
    if report.hint:
        return report.hint
    if report.sqlstate == "57014" and "statement timeout" in report.message:
        return "The statement took longer than statement_timeout allows: --statement-timeout 0 lifts it."
    if report.sqlstate in ("25001", "2D000") and offset is not None:
        return _transaction_hint(report, migration, offset)
    return _HINTS.get(report.sqlstate)


def _transaction_hint(report: ServerMessage, migration: Migration, offset: int) -> str:
    """Say where a statement can run that the server refuses in this transaction, or anywhere but at the top."""
    statement = next(one for one in statements.split(migration.sql) if offset < one.end)
    inside = migration.directives.transaction
    if report.sqlstate == "2D000" and inside:
        return (
            "A procedure or DO block that commits needs a file of its own that begins with: -- migrate: no-transaction"
        )
    if report.sqlstate == "2D000":
        return (
            "No function can commit, nor can a procedure that is SECURITY DEFINER or has a SET clause,"
            " or is called from a function or from a block with EXCEPTION."
        )
    tokens = outline.flattened(migration.sql[statement.start : statement.end])
    if any(word.startswith("transaction") for word in statement.words[1:3]) or "set_config ( transaction_" in tokens:
        return "The file's transaction has begun already, with its entry: SET TRANSACTION comes too late."
    if not inside:
        return "PostgreSQL runs this in no function, procedure or DO block: make it a statement of the file."
    if statement.words[:1] in (("cluster",), ("reindex",), ("alter",), ("create",), ("drop",)):
        return "Put it into a file of its own that begins with: -- migrate: no-transaction"
    return (
        "Put it into a file that begins with: -- migrate: no-transaction."
        " A command such as VACUUM must also stand there by itself, in no function, procedure or DO block."
    )


def clean(connection: psycopg.Connection) -> Generator[float, None, None]:
    """Roll back what is open and leave a clean session: behind a pooler somebody else has it next."""
    rollback = ["ROLLBACK"] if connection.pgconn.transaction_status != pq.TransactionStatus.IDLE else []
    yield from wire.exchange(connection, "; ".join([*rollback, *RESET]).encode())
