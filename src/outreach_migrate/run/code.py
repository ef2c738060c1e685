"""Files of code carried out: those that changed, all in one transaction with their records."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psycopg

from outreach_migrate import errors
from outreach_migrate.errors import Fate, Outcome, StatementError
from outreach_migrate.history import code as history
from outreach_migrate.postgres import connections, objects
from outreach_migrate.run import code_plan, events, planning, recovery, sending
from outreach_migrate.run.sending import Message
from outreach_migrate.run.transaction import ENDING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.files.code import Code
    from outreach_migrate.history.code import CodeRecord
    from outreach_migrate.history.read import History
    from outreach_migrate.run.request import Request
    from outreach_migrate.run.sessions import Session

# a lock timeout, a deadlock, or another run that makes the table, or replaces the same object, at the same moment
_RETRIED = {"55P03", "40P01", "23505", "42P07", "XX000"}


def carry_out(session: Session, request: Request, past: History, *, before: int) -> tuple[events.CodeApplied, ...]:
    """Carry out the changed files in one transaction, with retries; `before` counts the migrations of this run.

    1. If nothing has changed, nothing is written or locked.
    2. Else the records are locked against other runs, and compared again.
    3. The objects of files that are to be dropped first go, and those of other files that rest on them.
    4. Each file runs in a clean session; the catalog shows the objects that it made, and its record is written.

    Raise errors.MigrateError, after which none of them is carried out.
    """
    try:
        with connections.translated():
            found = code_plan.steps(session.connection, _codes(request), request.table)
            for step in found:
                if step.is_gone and request.code_only is None:
                    session.tell(events.CodeGone(step.path, step.record.objects if step.record else ()))
            if not any(step.is_changed for step in found):
                return ()
            planning.must_be_writable(past)
            return _retried(session, request)
    except errors.MigrateError as error:
        if error.outcome:
            raise
        raise error.after(Outcome(Fate.CODE, before=before, durable=not session.unflushed)) from error.__cause__


def _codes(request: Request) -> tuple[Code, ...]:
    only = request.code_only
    return tuple(code for code in request.code or () if only is None or code.path in only)


def _retried(session: Session, request: Request) -> tuple[events.CodeApplied, ...]:
    left = request.lock_retries
    while True:
        done: tuple[events.CodeApplied, ...] = ()
        try:
            session.begin()
            done = within(session, request, _codes(request))
            session.connection.execute("COMMIT")
            break
        except (StatementError, psycopg.Error) as error:
            if isinstance(error, psycopg.Error) and connections.was_lost(error):
                _must_be_committed(session, request, error, is_sent=bool(done))
                break
            session.clean()
            if error.sqlstate not in _RETRIED or not left:
                raise
            left -= 1
            session.stop.pause(random.uniform(0.1, 0.5))
        except errors.MigrateError:
            session.clean()
            raise
    session.clean()
    for event in done:
        session.tell(event)
    return done


def _must_be_committed(session: Session, request: Request, lost: psycopg.Error, *, is_sent: bool) -> None:
    """Return if a commit `is_sent` and was done before the connection was lost, as the records tell on a new one.

    Raise ConnectionFailed if none is, or the server can't be asked.
    """
    message = f"lost the connection while files of code were carried out: {connections.reason(lost)}"
    outcome = Outcome(Fate.UNKNOWN, "the code") if is_sent else Outcome(Fate.CODE)
    try:
        recovery.reopen(session, wait=request.wait)
        left = [one for one in code_plan.steps(session.connection, _codes(request), request.table) if one.is_changed]
    except (psycopg.Error, errors.MigrateError) as error:
        if isinstance(error, errors.Interrupted):
            raise error.after(outcome) from None
        raise errors.ConnectionFailed(message, hint=getattr(error, "hint", None), outcome=outcome) from lost
    if left or not is_sent:
        raise errors.ConnectionFailed(message, hint="Run up again.", outcome=Outcome(Fate.CODE)) from lost


def within(session: Session, request: Request, codes: Sequence[Code]) -> tuple[events.CodeApplied, ...]:
    """Carry out the changed ones of these files in the open transaction, and record them."""
    _run(session, history.lock(request.table))
    records = history.read(session.connection, request.table)
    changed = [step for step in code_plan.compare(codes, records) if step.is_changed and step.code]
    dropped = [step for step in changed if step.code and (step.code.drops or step.code.drops_first)]
    remade = (
        _drop(session, request, [step.record for step in dropped if step.record], records) if dropped else set[str]()
    )
    work = _CodeWork(session, request, records, {step.path for step in changed} | remade)
    return tuple(work.carry_out(code) for code in ((request.code or ()) if remade else codes) if code.path in work.left)


def _run(session: Session, commands: Sequence[str]) -> None:
    for message in commands if session.one_by_one else ["; ".join(commands)]:
        session.connection.execute(message.encode())


class _CodeWork:
    """Files of code that one transaction carries out.

    `left` are the paths of those that it still has to, `marks` those of the objects that it has made, and `owners` the
    files that made objects last.
    """

    def __init__(self, session: Session, request: Request, records: dict[str, CodeRecord], left: set[str]) -> None:
        self.left = left
        self._session = session
        self._request = request
        self._records = records
        self._paths = [code.path for code in request.code or ()]
        self._marks = dict[objects.Key, str]()
        self._owners = {one: path for path in self._paths if path in records for one in records[path].objects}

    def carry_out(self, code: Code) -> events.CodeApplied:
        """Carry out one of them, and record it."""
        began, record = time.monotonic(), self._records.get(code.path)
        self.left.discard(code.path)
        table = self._request.table
        if code.drops:
            _run(self._session, [history.forget(table, code.path)])
            gone = record.objects if record else ()
            return events.CodeApplied(code.path, time.monotonic() - began, (), dropped=gone)
        made = self._made(code)
        before = objects.keys(self._session.connection, record.objects) if record else {}
        left = [one for one in record.objects if one in before] if record else []
        now = tuple(dict.fromkeys([*left, *made]))
        written = [history.record(table, code.path, code.checksum, now)]
        _run(self._session, [*written, *history.take_over(table, code.path, made, self._paths)])
        return events.CodeApplied(
            code.path,
            time.monotonic() - began,
            now,
            stale=tuple(one for one in left if one not in made),
            shared=tuple(self._taken(code, made)),
        )

    def _made(self, code: Code) -> list[str]:
        """Run a file, and give the names of the objects that it has made or replaced."""
        session = self._session
        before = [*session.opening(), *session.limit(self._request.limits)]
        with session.at_work(code.migration):
            message = Message(tuple(before), code.migration.body, after=(*ENDING, *session.opening()))
            sending.send(session, code.migration, message)
        found = objects.made(session.connection, code.makes)
        made = [one.name for one in found if self._marks.get(one.key) != one.mark]
        self._marks.update((one.key, one.mark) for one in found)
        return made

    def _taken(self, code: Code, made: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Give the objects that another file makes as well, with its path."""
        for one in made:
            owner = self._owners.get(one, code.path)
            if owner != code.path and owner not in self.left:
                yield one, owner
            self._owners[one] = code.path


def _drop(session: Session, request: Request, going: Sequence[CodeRecord], records: dict[str, CodeRecord]) -> set[str]:
    """Drop the objects of these records, and those of other files that rest on them; give these files' paths.

    Raise MigrateError, and drop nothing, when an object that no file of code makes rests on them.
    """
    paths = {code.path for code in request.code or ()}
    makers = {one: record.path for record in records.values() if record.path in paths for one in record.objects}
    names = {key: one for one, key in objects.keys(session.connection, makers).items()}
    own = {record.path for record in going}
    first = [key for key, one in names.items() if makers[one] in own]
    found = objects.resting(session.connection, first)
    if strangers := [one.description for one in found if not one.internal and one.key not in names]:
        rest = "rests" if len(strangers) == 1 else "rest"
        message = (
            f"{', '.join(sorted(strangers))} {rest} on an object that is to be dropped, and no file of code makes it"
        )
        hint = "Drop it in a migration first, or make it a file of code."
        raise errors.MigrateError(f"{', '.join(sorted(own))}: {message}", hint=hint)
    going_too = [names[one.key] for one in found if one.key in names]
    _run(session, ["DROP {} IF EXISTS {}".format(*objects.parts(one)) for one in going_too])
    return {makers[one] for one in going_too} - own
