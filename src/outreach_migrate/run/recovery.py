"""The outcome of a run that an error stopped, read from the history."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psycopg

from outreach_migrate import errors
from outreach_migrate.errors import Fate, Outcome
from outreach_migrate.files.migrations import Migration
from outreach_migrate.history.read import Entry
from outreach_migrate.postgres import connections
from outreach_migrate.run import events
from outreach_migrate.run.sessions import Session

if TYPE_CHECKING:
    from outreach_migrate.history.batches import BatchProgress

_RECONNECT = 10.0  # s: the least time to reconnect in
_AGAIN = 0.1  # s between two attempts on a server that is crashing


def take_back(session: Session, migration: Migration, applied: Sequence[events.Applied]) -> Outcome:
    """Roll back the open transaction, flush the commits before it, and read the outcome from the history.

    Raise Interrupted when a signal arrives meanwhile; a second call is not interrupted.
    """
    try:
        session.clean()
        if session.connection.closed:
            session.reopen_briefly()
        return _outcome(session, migration, applied, _entries(session))
    except errors.Interrupted:
        raise
    except (psycopg.Error, errors.MigrateError):
        session.close()
    return unknown(migration, applied, durable=not session.unflushed)


def after_loss(
    session: Session, migration: Migration, applied: Sequence[events.Applied], lost: psycopg.Error, *, wait: float
) -> float:
    """Find out, on a new connection, whether a file was committed before the old one was lost.

    Give the seconds that the file took. Raise ConnectionFailed when it was not committed, or when the server stays
    unreachable for `wait` seconds.
    """
    why = connections.reason(lost)
    message = f"lost the connection while {migration} ran: {why}"
    try:
        entries = reopen(session, wait=wait)
    except errors.Interrupted as error:
        raise error.after(unknown(migration, applied, durable=not session.unflushed)) from None
    except (errors.MigrateError, psycopg.Error) as error:
        outcome = unknown(migration, applied, durable=not session.unflushed)
        raise errors.ConnectionFailed(message, hint=getattr(error, "hint", None), outcome=outcome) from lost
    committed = next((one for one in entries if one.number == migration.number), None)
    if committed and committed.seconds is not None:
        session.tell(events.Recovered(migration, why))
        return committed.seconds
    hint = "Run up again."
    if lost.diag.sqlstate == "25P04":
        hint = "transaction_timeout ended it: lift that for the role that migrates, then run up again."
    outcome = _outcome(session, migration, applied, entries)
    raise errors.ConnectionFailed(message, hint=hint, outcome=outcome) from lost


def reopen(session: Session, *, wait: float) -> tuple[Entry, ...]:
    """Open the connection anew, end the lost one's work, and read the entries.

    Raise ConnectionFailed or psycopg.OperationalError when the server stays unreachable for `wait` seconds.
    """
    deadline = time.monotonic() + max(wait, _RECONNECT)
    while True:
        session.reopen(wait=max(0.0, deadline - time.monotonic()))
        try:
            return _entries(session)
        except psycopg.OperationalError:  # a crashing server accepts connections for a moment
            if time.monotonic() > deadline:
                raise
            session.stop.pause(_AGAIN)


def unknown(migration: Migration | None, applied: Sequence[events.Applied], *, durable: bool) -> Outcome:
    """Give the outcome of a run whose database can't be asked."""
    before = sum(one.migration is not migration for one in applied)
    if migration is None:
        return Outcome(None, before=before, durable=durable)
    return Outcome(Fate.UNKNOWN, str(migration), migration.version, migration.path, before=before, durable=durable)


def _entries(session: Session) -> tuple[Entry, ...]:
    """End the lost connections' work, flush the commits, and read the entries; no other can follow."""
    if not session.ended():
        raise psycopg.OperationalError("the lost connection's work does not end")
    session.flush()
    return session.history().entries


def _outcome(
    session: Session, migration: Migration, applied: Sequence[events.Applied], entries: tuple[Entry, ...]
) -> Outcome:
    by_number = {entry.number: entry for entry in entries}
    entry = by_number.get(migration.number)
    before = [one for one in applied if one.migration.number != migration.number]
    kept = sum(one.migration.number in by_number for one in before)
    fate, done, statements, batched = Fate.NOTHING, None, None, None
    if entry and entry.finished_at:
        fate = Fate.APPLIED
    elif entry:
        fate, done, statements = Fate.UNFINISHED, entry.statements_done, sum(1 for _ in migration.pieces())
        batched = _batched(session, migration, entry)
    return Outcome(
        fate,
        str(migration),
        migration.version,
        migration.path,
        done=done,
        statements=statements,
        before=kept,
        taken_back=len(before) - kept,
        durable=not session.unflushed,
        rows=batched and batched.rows,
        total=batched and batched.total,
    )


def _batched(session: Session, migration: Migration, entry: Entry) -> BatchProgress | None:
    """Read the progress of a file in batches."""
    if not migration.directives.batches:
        return None
    from outreach_migrate.history import batches  # here, because few files need it

    return batches.read(session.connection, session.table, [entry.position]).get(entry.position)
