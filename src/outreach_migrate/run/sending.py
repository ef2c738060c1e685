"""A message with SQL of a file: sent as one text or as a pipeline, its results, and the place of its error."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import islice, pairwise

import psycopg
from psycopg import pq
from psycopg.pq.abc import PGresult

from outreach_migrate.errors import Ban, Location, LockTimeout, Phase, StatementError
from outreach_migrate.files import control, statements, variables
from outreach_migrate.files.copies import Rows
from outreach_migrate.files.migrations import Migration
from outreach_migrate.files.statements import Statement
from outreach_migrate.postgres import messages
from outreach_migrate.run.sessions import READING, Session


@dataclass(frozen=True, slots=True)
class Message:
    """A piece of a file's text, which begins at the offset `start`, with the commands put around it.

    `first` is the number of its first statement in the file, from 0. A statement that copies `rows` stands alone.
    """

    before: tuple[str, ...] = ()
    text: str = ""
    start: int = 0
    after: tuple[str, ...] = ()
    first: int = 0
    rows: Rows | None = None


def send(session: Session, migration: Migration, message: Message) -> list[str]:
    """Send a message, and give the command tags of the file's own statements.

    Raise StatementError or LockTimeout, placed in the file, or psycopg.OperationalError when the connection is lost.
    """
    return tags(message, exchange(session, migration, message))


def tags(message: Message, results: list[PGresult]) -> list[str]:
    """Give the command tags of the file's own statements from a message's results."""
    own = results[len(message.before) : len(results) - len(message.after)]
    return [sys.intern((result.command_status or b"").decode()) for result in own]


def exchange(session: Session, migration: Migration, message: Message) -> list[PGresult]:
    """Send a message, and give a result for each of its commands; raise as `send` does."""
    apart = session.one_by_one and not message.rows  # a pipeline can't copy
    results, at = (_apart if apart else _joined)(session, migration, message)
    tagged = [result for result in results if result.command_status]  # one a command; a rule's results have no tag
    if failed := messages.failure(results):
        raise failure(session, migration, message, failed, done=len(tagged), at=at)
    return tagged


def _joined(session: Session, migration: Migration, message: Message) -> tuple[list[PGresult], int | None]:
    """Send all as one text; give the results, and the offset in the file's text that an error points at, if any."""
    mark = session.mark(migration)
    head = f"{mark}{'; '.join(message.before)};\n" if message.before else mark
    tail = f"\n; {'; '.join(message.after)}" if message.after else ""
    whole = head + message.text + tail
    if message.start:
        session.read_as_written()
    results = session.exchange(whole, rows=message.rows.chunks() if message.rows else None)
    failed = messages.failure(results)
    position = messages.position(session.connection, whole, failed) if failed else None
    at = None if position is None else position - len(head)
    is_after = at is not None and at >= len(message.text) and any(result.command_status for result in results)
    return results, None if is_after else at  # a text that breaks off is parsed to its end before any of it is done


def _apart(session: Session, migration: Migration, message: Message) -> tuple[list[PGresult], int | None]:
    """Send the commands one by one, in a pipeline; give the results and the offset as _joined does.

    Citus sends the text of a statement on to its workers, and takes that of the whole message for it. Each command has
    the mark, because the server shows only the one at work.
    """
    mark, own = session.mark(migration), list(statements.split(message.text))
    commands, added, as_written = [*message.before], set[int](), not message.before
    for one, (start, end) in zip(own, pairwise([*(one.start for one in own), len(message.text)]), strict=True):
        text = message.text[start:end]  # with its semicolon, which an error may point at
        if not as_written and ("\\" in text or not text.isascii()):
            added.update(range(len(commands), len(commands) + len(READING)))
            commands += READING
            as_written = True
        commands.append(text)
        as_written = as_written and not _sets_reading(one, text)
    (answers,) = session.pipeline([[mark + command for command in [*commands, *message.after]]])
    results = [answer for number, answer in enumerate(answers) if number not in added]
    nth = len(results) - 1 - len(message.before)
    if (failed := messages.failure(results)) and 0 <= nth < len(own):
        position = messages.position(session.connection, mark + commands[len(answers) - 1], failed)
        return results, None if position is None else own[nth].start + position - len(mark)
    return results, None


def _sets_reading(statement: Statement, text: str) -> bool:
    """Tell whether a statement may change the way in which the server reads the texts after it."""
    names = ("client_encoding", "standard_conforming_strings")
    return statement.words[:1] in (("set",), ("reset",)) or any(name in text.lower() for name in names)


def failure(
    session: Session, migration: Migration, message: Message, failed: PGresult, *, done: int, at: int | None
) -> psycopg.OperationalError | StatementError:
    """Make the error of a message: `done` commands of it succeeded, `at` is the offset in its text, if known.

    An offset behind the text's end says that the text breaks off.
    """
    if session.connection.pgconn.status != pq.ConnStatus.OK:
        return psycopg.OperationalError(failed.get_error_message().strip(), info=failed)
    cause = psycopg.errors.error_from_result(failed, encoding=session.connection.info.encoding)
    nth = done - len(message.before)  # of the file's statements in this message, from 0
    if at is not None and at >= len(message.text):  # the last statement breaks off
        end = message.start + len(message.text.rstrip()) - 1
        return placed(session, migration, cause, offset=end, phase=Phase.END)
    if at is not None and 0 <= at < len(message.text):
        number = message.first + sum(one.start <= at for one in statements.split(message.text))
        return placed(session, migration, cause, offset=message.start + at, statement=number)
    if nth >= 0 and (statement := next(islice(statements.split(message.text), nth, None), None)):
        number = message.first + nth
        place = migration.in_rows(number, cause.diag.context or "") if message.rows else None
        offset = message.start + statement.start
        return placed(session, migration, cause, offset=offset, statement=number + 1, place=place)
    if nth < 0:
        return placed(session, migration, cause, phase=Phase.BEGIN)
    command = message.after[nth - sum(1 for _ in statements.split(message.text))]
    return placed(session, migration, cause, phase=Phase.COMMIT if command == "COMMIT" else Phase.FINISH)


def placed(
    session: Session,
    migration: Migration,
    cause: psycopg.Error,
    *,
    offset: int | None = None,
    statement: int | None = None,
    phase: Phase = Phase.TEXT,
    place: tuple[Location, str] | None = None,
) -> StatementError:
    """Make the error that points at an offset of a file, or at none where its text isn't to blame.

    `place` is a better one, with its excerpt.
    """
    report = variables.hidden(migration.written, messages.server_message(cause.diag))
    if offset is not None and place is None:
        place = migration.location(offset), migration.excerpt(offset)
    location, excerpt = place or (Location(migration.path), None)
    error = (LockTimeout if report.sqlstate == "55P03" else StatementError)(
        report,
        version=migration.version,
        location=location,
        excerpt=excerpt,
        statement=statement,
        phase=phase,
        blockers=session.watcher.blockers if report.sqlstate == "55P03" else (),
        ban=None if offset is None else _ban(report.sqlstate, migration, offset),
    )
    error.__cause__ = None if migration.written else cause  # its text has the values of variables
    return error


def _ban(sqlstate: str, migration: Migration, offset: int) -> Ban | None:
    """Tell why the server refuses a statement where it stands."""
    inside = migration.directives.transaction
    if sqlstate == "2D000":
        return Ban.COMMITS if inside else Ban.COMMITS_BELOW
    if sqlstate not in ("25001", "42704"):
        return None
    statement = next(one for one in statements.split(migration.sql) if offset < one.end)
    if sqlstate == "42704":
        names_role = not {"grant", "revoke", "owner", "policy", "authorization"}.isdisjoint(statement.words)
        return Ban.NO_SETTING if statement.words[:1] == ("set",) else Ban.NO_ROLE if names_role else None
    if control.sets_modes(migration.sql, statement):
        return Ban.TOO_LATE
    if not inside:
        return Ban.BELOW
    by_itself = statement.words[:1] in (("cluster",), ("reindex",), ("alter",), ("create",), ("drop",))
    return Ban.INSIDE if by_itself else Ban.PERHAPS_BELOW
