"""What became of a file whose run was interrupted, failed, or lost its connection: the table knows."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

import psycopg

from outreach_migrate import errors
from outreach_migrate.files import pieces
from outreach_migrate.postgres import database, wire
from outreach_migrate.run import session

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Sequence

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.history import Entry
    from outreach_migrate.run.watch import Link

_PROMPT = 1.5  # s: an interrupted run ends within two, also where the server answers no more
_RECONNECT = 10.0  # s: how long a lost server is looked for, at the least


class _TooLong(Exception):
    """The server does not do in time what was asked of it."""


def tidy(link: Link) -> None:
    """Roll back and leave a clean session; a lost connection has done so already."""
    try:
        wire.finish(session.clean(link.connection))
    except psycopg.Error:
        link.connection.close()


def take_back(link: Link, migration: Migration, applied: Sequence[Migration], error: BaseException) -> None:
    """Stop what the server still does for us, make durable what stays, and say what that is in the error's `state`.

    Raise Interrupted when a signal comes meanwhile.
    """
    limit: AbstractContextManager[None] = nullcontext()
    if isinstance(error, errors.Interrupted):
        error.message = f"{error.message} while {migration} ran"
        limit = _limit(_PROMPT)
    entries = None
    try:
        with limit:
            wire.cancel(link.connection)
            tidy(link)
            link.release()
            if link.connection.closed:
                link.connect_briefly()
            entries = _entries(link)
    except errors.Interrupted as late:  # the only one: a second signal ends the process
        take_back(link, migration, applied, late)
        raise late from error
    except (psycopg.Error, errors.MigrateError, _TooLong):
        link.connection.close()
    if isinstance(error, errors.MigrateError):
        error.migration = migration
        error.state = _state(link, applied, migration, entries)


def _entries(link: Link) -> tuple[Entry, ...]:
    """Read the entries, once nothing that is not among them can be committed any more, and they are durable."""
    if not link.ended():
        raise _TooLong
    link.flush()
    return link.history().entries


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raise _TooLong when this takes longer, whatever it waits for then; only the main thread can be told so."""

    def ring(*_: object) -> None:
        raise _TooLong

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def look(
    link: Link, migration: Migration, applied: Sequence[Migration], lost: psycopg.Error, *, wait: float
) -> Generator[database.Unreachable, None, tuple[str, float]]:
    """Find out, on a new connection, whether a file was committed before the old one was lost.

    Give what to tell of that, and how long the file took, in seconds. Raise ConnectionFailed when it was not, or when
    the server stays away for longer than `wait`, in seconds.
    """
    reason = database.reason(lost)
    message = f"lost the connection while {migration} ran: {reason}"
    deadline, entries = time.monotonic() + max(wait, _RECONNECT), None
    try:
        while entries is None:
            yield from link.connect(max(0.0, deadline - time.monotonic()))
            try:
                entries = _entries(link)
            except psycopg.OperationalError:  # a server that crashes lets some in before it notices
                if time.monotonic() > deadline:
                    raise
                time.sleep(wire.TICK)
    except errors.Interrupted as error:
        error.migration, error.state = migration, _state(link, applied, migration, None)
        raise
    except (errors.MigrateError, psycopg.Error, _TooLong) as error:
        failed = errors.ConnectionFailed(message, hint=getattr(error, "hint", None))
    else:
        committed = next((one for one in entries if one.number == migration.number), None)
        if committed and committed.seconds is not None:
            return f"it was committed before the connection was lost: {reason}", committed.seconds
        failed = errors.ConnectionFailed(message, hint="Run up again.")
        if "transaction timeout" in reason:
            failed.hint = "transaction_timeout ended it: lift that for the role that migrates, then run up again."
    failed.migration, failed.state = migration, _state(link, applied, migration, entries)
    raise failed from lost


def _state(link: Link, applied: Sequence[Migration], migration: Migration, entries: tuple[Entry, ...] | None) -> str:
    """Say in what state the database is; `entries` is null when it could not be asked."""
    entry = next((one for one in entries or () if one.number == migration.number), None)
    known = applied if entries is None else [one for one in applied if any(one.number == e.number for e in entries)]
    before = sum(one.number != migration.number for one in known)
    were = "1 migration before it was, and is" if before == 1 else f"{before} migrations before it were, and are"
    if entries is None:
        state = f"Whether {migration} was applied is not known: ask with status once the server answers."
    elif entry is None:
        state = "Nothing of this file was applied."
    elif entry.finished_at:
        state = f"{migration} was applied, and is recorded."
    else:
        count = sum(1 for _ in pieces.cut(migration.sql))
        state = f"{migration} is unfinished: {entry.statements_done} of {count} statements are done, and stay."
    if before:
        state += f" {were} recorded{', unless the server has crashed since' if link.unflushed else ''}."
    if gone := len(applied) - len(known):
        state += f" The server's crash took back the {gone} before it: they are pending again."
    return state
