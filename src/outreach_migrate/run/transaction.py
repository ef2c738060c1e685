"""A file in one transaction with its entry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from outreach_migrate.errors import Phase, StatementError
from outreach_migrate.files import statements
from outreach_migrate.files.migrations import Migration
from outreach_migrate.history import write
from outreach_migrate.history.write import Place
from outreach_migrate.run import sending
from outreach_migrate.run.events import CodeApplied
from outreach_migrate.run.request import Limits
from outreach_migrate.run.sending import Message
from outreach_migrate.run.sessions import RESET, Session

# Another run inserted this position, or made the table, first; 40001 says so when the file is SERIALIZABLE.
_TAKEN = {"23505", "42P06", "42P07", "42710", "40001"}
ENDING = ("SET LOCAL statement_timeout = 0", "SET SESSION AUTHORIZATION DEFAULT", "RESET ROLE")
_WHOLE = 4_000_000  # characters: a larger file goes to the server in parts


@dataclass(frozen=True, slots=True)
class Work:
    """A file to apply, the place of its entry, and the limits of its statements.

    `patience` is the lock timeout of concurrent index builds, in seconds. A file that is not `durable` commits without
    waiting for the disk; a later commit waits for both. `code` carries out the files of code that this one needs.
    """

    migration: Migration
    place: Place
    limits: Limits
    patience: float = 0.0
    durable: bool = True
    code: Callable[[Session], tuple[CodeApplied, ...]] | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The file is applied; `tags` are its statements' command tags, `seconds` its time by the database's clock.

    `code` are the files of code that were carried out in its transaction.
    """

    tags: tuple[str, ...]
    seconds: float
    code: tuple[CodeApplied, ...] = ()


@dataclass(frozen=True, slots=True)
class Overtaken:
    """Another run applied, or began, the file at this position first; `error` is the server's proof."""

    error: StatementError | None = None


def apply(session: Session, work: Work) -> Done | Overtaken:
    """Run a file in one transaction with its entry.

    Raise StatementError, LockTimeout, or psycopg.OperationalError when the connection is lost.
    """
    # the claim comes before the limits, because it waits for another run as long as that takes
    claim = [*work.place.create, write.insert(work.place, work.migration)]
    begin = f"BEGIN ISOLATION LEVEL {work.migration.directives.isolation}"
    before = [begin, *session.opening(), *claim, *session.limit(work.limits)]
    flush = [] if work.durable else ["SET LOCAL synchronous_commit = off"]
    after = [write.finish(work.place), *flush, "COMMIT", *RESET]
    tags: list[str] = []
    code: tuple[CodeApplied, ...] = ()
    try:
        if work.code:
            sending.send(session, work.migration, Message(tuple(before)))
            code = work.code(session)
            before = [*session.opening(), *session.limit(work.limits)]
        for message in _messages(work.migration, tuple(before), (*ENDING, *after)):
            results = sending.exchange(session, work.migration, message)
            tags += sending.tags(message, results)
    except StatementError as error:
        if is_taken(error):
            return Overtaken(error)
        raise
    session.is_clean = True  # the message ends with RESET
    return Done(tuple(tags), write.seconds(results[-len(after)]), code)


def is_taken(error: StatementError) -> bool:
    """Tell whether an error says that another run has inserted the entry first."""
    return error.phase is Phase.BEGIN and error.sqlstate in _TAKEN


def _messages(migration: Migration, before: tuple[str, ...], after: tuple[str, ...]) -> Iterator[Message]:
    """Cut a large file between statements, because PostgreSQL parses a whole message before it runs any of it.

    A file that copies rows is cut around each of these statements, and stands between messages with the rest.
    """
    text, whole = migration.body, migration.outline
    cuts = whole.cuts if len(text) > _WHOLE else ()
    if not migration.rows:
        for (start, first), (end, _) in pairwise([(0, 0), *cuts, (len(text), whole.count)]):
            last = after if end == len(text) else ()
            yield Message(before if start == 0 else (), text[start:end], start, last, first)
        return
    around = [
        cut for copy, number in whole.copies for cut in ((copy.start, number), (statements.end(text, copy), number + 1))
    ]
    yield Message(before)
    for (start, first), (end, following) in pairwise([*sorted({(0, 0), *cuts, *around}), (len(text), whole.count)]):
        if first < following:
            yield Message(text=text[start:end], start=start, first=first, rows=migration.rows.get(first))
    yield Message(start=len(text), after=after)
