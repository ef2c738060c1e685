"""A file without a transaction: statement by statement, its progress kept in its entry."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg
from psycopg import pq, sql

from outreach_migrate.errors import MigrateError, ServerMessage, StatementError
from outreach_migrate.files import no_transaction, outline, pieces, statements
from outreach_migrate.history import record
from outreach_migrate.postgres import wire
from outreach_migrate.run import session

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from psycopg.pq.abc import PGresult

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.files.pieces import Piece
    from outreach_migrate.history.record import Place
    from outreach_migrate.run.session import Setting

# What a statement that was done before meets, by its first word. An index that is built is looked for instead.
_ALREADY_SO = {
    *(("create", "42710"), ("create", "42P04"), ("drop", "42704"), ("drop", "3D000")),
    ("alter", "42P01"),  # DETACH PARTITION: it is none any more
}


@dataclass(frozen=True, slots=True)
class Work:
    """A file on a connection: the entry's place, and what the statements run under."""

    connection: psycopg.Connection
    migration: Migration
    place: Place
    setting: Setting


def begin(work: Work) -> Generator[float, None, None]:
    """Insert the entry, and leave the transaction open: the file is to be claimed before others can see it.

    Raise Overtaken when another run has done so, or does not end: where runs fill a pooler's pool, those that wait
    would keep the one that has inserted the entry from the second connection, by which it is to claim the file.
    """
    nothing = pieces.checksum_before(work.migration.sql, 0) or ""
    insert = record.insert(work.place, work.migration)
    progress = record.progress(work.place, work.migration, done=0, begun=0, done_checksum=nothing)
    before = [*work.setting.begin(), "SET LOCAL lock_timeout = '2s'", *work.place.create, insert, progress]
    try:
        yield from session.send(work.connection, work.migration, session.Part(before, "", 0, []), work.setting.mark)
    except StatementError as error:
        if error.sqlstate == "55P03":
            raise session.Overtaken from None
        raise


def proceed(
    work: Work, *, from_start: bool, still_ours: Callable[[], None]
) -> Generator[str | float, None, tuple[list[str], float]]:
    """Run the statements that are not done yet; give their command tags, and how many seconds the file took.

    Yield while waiting, and what is to be told.

    `still_ours` raises when the claim is lost. Raise Overtaken when the entry is another than the plan was made
    with, StatementError, LockTimeout, or psycopg.OperationalError when a connection is lost.
    """
    yield from _orphan_ended(work)
    row = yield from _ask(work, (), record.unfinished(work.place, work.migration))
    if not row.ntuples:
        raise session.Overtaken
    held, begun = int(row.get_value(0, 0) or 0), int(row.get_value(0, 1) or 0)
    done = 0 if from_start else held
    if done and pieces.checksum_before(work.migration.sql, done) != (row.get_value(0, 2) or b"").decode():
        raise session.Overtaken
    # a statement that has begun and is not done may have been left half done; or done, if it still is the same
    half = begun - 1 if begun > held else None
    same = (row.get_value(0, 3) or b"").decode() == work.migration.checksum
    tags: list[str] = []
    for piece in pieces.cut(work.migration.sql):
        if piece.number < done:
            continue
        still_ours()
        try:
            tags.append((yield from _run(work, piece, held=held, resumed=piece.number == half, same=same)))
            held = piece.number + 1
        except StatementError as error:
            error.statement = piece.number + 1
            raise
    finished = yield from _ask(work, (), record.finish(work.place))
    return tags, record.seconds(finished)


def _orphan_ended(work: Work) -> Generator[str | float, None, None]:
    """Wait for the end of a statement that a killed run has left at work: it may yet build the index, or drop it.

    Ask between pauses, and wait in no statement: an index may be building.
    """
    key, told = record.at_work_key(work.place), False
    query = f"""
        SELECT pg_catalog.pg_try_advisory_xact_lock({key}),
               (SELECT pg_catalog.min(pid) FROM pg_catalog.pg_locks
                 WHERE locktype = 'advisory' AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = {key}
                   AND database = (SELECT oid FROM pg_catalog.pg_database
                                    WHERE datname = pg_catalog.current_database()))"""
    while (row := (yield from _ask(work, (), query))).get_value(0, 0) != b"t":
        pid = (row.get_value(0, 1) or b"").decode()
        yield 0.0 if told else f"waiting for a statement that an earlier run has left at work, pid {pid}"
        told = True
        time.sleep(wire.TICK)


def _run(work: Work, piece: Piece, *, held: int, resumed: bool, same: bool) -> Generator[str | float, None, str]:
    """Run a statement in one transaction with its progress where PostgreSQL allows that, else by itself.

    For some only the server knows, such as REINDEX of a partitioned table; nothing of them stays in the transaction
    that it refused. A statement that may commit is not tried in one: it would do all up to there twice.
    `held` is how many statements are done according to the entry: with --from-start more than come before this one.
    `resumed` says whether an earlier run has begun this one, `same` whether the file is as it was then.
    """
    statement = next(statements.split(piece.text))
    if not (outline.outside_transaction(piece.text, statement) or no_transaction.commits(piece.text, statement)):
        hold = record.hold(work.place, held)
        before = [*work.setting.begin(), *hold, *work.setting.limits.sql(), *piece.settings]
        after = [*session.ENDING, _progress(work, piece, done=piece.number + 1), "COMMIT", *session.RESET]
        part = session.Part(before, piece.text, piece.start, after)
        try:
            return (yield from session.send(work.connection, work.migration, part, work.setting.mark))[0]
        except StatementError as error:
            if error.sqlstate != "25001":
                raise
        yield from session.clean(work.connection)
    tag = yield from _run_alone(work, piece, resumed=resumed, same=same)
    yield from _ask(work, (), _progress(work, piece, done=piece.number + 1))
    return tag


def _run_alone(work: Work, piece: Piece, *, resumed: bool, same: bool) -> Generator[str | float, None, str]:
    """Run a statement that can't be in a transaction, after its entry says that it has begun."""
    build = pieces.BUILD.match(piece.text)
    index, valid = (yield from _index(work, piece, build)) if build else (None, False)
    if resumed and same and valid:
        yield f"the index {index} was built by an earlier run, which was stopped before it could record that"
        return "CREATE INDEX"
    if resumed and index and not valid:
        yield f"dropping the invalid index {index}, which an earlier try of this statement left"
        yield from _alone(work, piece, f"DROP INDEX CONCURRENTLY {index}")
        index = None
    if not index:  # one that stands there before the first try is not ours, and must not look so later
        yield from _ask(work, (), _progress(work, piece, done=piece.number, begun=piece.number + 1))
    try:
        tag = yield from _alone(work, piece, piece.text)
    except StatementError as error:
        word = piece.text.split(maxsplit=1)[0].lower()
        if resumed and same and not build and (word, error.sqlstate) in _ALREADY_SO:
            yield f"{error.message}: so an earlier run, which was stopped before it could record that, has left it"
            return ""
        if not build:
            yield from _ask(work, (), _progress(work, piece, done=piece.number))
        raise
    if build:
        yield from _must_be_valid(work, piece, build)
    return tag


def _must_be_valid(work: Work, piece: Piece, build: re.Match[str]) -> Generator[float, None, None]:
    """Raise StatementError when the index is not there, or invalid, after a build that has not failed."""
    index, valid = yield from _index(work, piece, build)
    if valid:
        return
    if index:
        message, hint = "the index is invalid", f"Drop it, then run up again: DROP INDEX CONCURRENTLY {index};"
    else:
        message, hint = f"{build[2]} has no index {build[1]}: another relation has this name", "Give it another name."
    raise session.placed(
        work.migration, ServerMessage("ERROR", "XX002", message, hint=hint), piece.start, piece.number + 1
    )


def _alone(work: Work, piece: Piece, text: str) -> Generator[float, None, str]:
    """Run one statement outside of any transaction, in a session set up for it and cleaned after it.

    What is built or dropped concurrently waits without a limit, unless its file names one: it keeps nobody from
    reading and writing meanwhile, and a build given up in its last wait would have to start from nothing.
    """
    setting = work.setting
    limits = (
        setting.limits if "concurrently" not in text.lower() else replace(setting.limits, lock_timeout=setting.patience)
    )
    path = sql.Identifier(setting.search_path).as_string() if setting.search_path else None
    before = [
        *(*session.RESET, f"SELECT pg_catalog.pg_advisory_lock({record.at_work_key(work.place)})"),
        *(*setting.client_check("SESSION"), *([f"SET search_path = {path}"] if path else [])),
        *(*limits.sql("SESSION"), *piece.settings),
    ]
    message = setting.mark + text
    groups = [before, [message], session.RESET]
    prepared, answer, _ = yield from wire.exchange_apart(work.connection, groups)
    for result in [*prepared, *answer]:
        if result.status == pq.ExecStatus.FATAL_ERROR:
            part = session.Part([], text, piece.start, [], piece.number)
            raise session.failure(
                work.connection, work.migration, part, result, done=0, head=setting.mark, message=message
            )
    return (answer[-1].command_status or b"").decode()


def _index(work: Work, piece: Piece, build: re.Match[str]) -> Generator[float, None, tuple[str | None, bool]]:
    """Look for the index that a statement builds: its name for SQL, null without one, and whether it is valid."""
    name, table = sql.quote(build[1]), sql.quote(build[2])
    result = yield from _ask(
        work,
        piece.settings,
        f"""SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), i.indisvalid FROM pg_catalog.pg_index i
              JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE i.indrelid = pg_catalog.to_regclass({table})
               AND c.relname = (pg_catalog.parse_ident({name}))[1]::pg_catalog.name""",
    )
    if not result.ntuples:
        return None, False
    return (result.get_value(0, 0) or b"").decode(), result.get_value(0, 1) == b"t"


def _progress(work: Work, piece: Piece, *, done: int, begun: int | None = None) -> str:
    """Write how far the file is: with this statement, or up to it."""
    checksum = piece.checksum if done > piece.number else piece.checksum_before
    return record.progress(
        work.place, work.migration, done=done, begun=done if begun is None else begun, done_checksum=checksum
    )


def _ask(work: Work, settings: tuple[str, ...], query: str) -> Generator[float, None, PGresult]:
    """Run a statement of our own in a transaction of its own, in one message; give its result."""
    before = [*work.setting.begin(), *settings]
    message = f"{work.setting.mark}{'; '.join([*before, query, 'COMMIT', *session.RESET])}"
    results = yield from wire.exchange(work.connection, message.encode())
    if results[-1].status == pq.ExecStatus.FATAL_ERROR:
        error = psycopg.errors.error_from_result(results[-1])
        if error.sqlstate == "22012":
            message = f"the entry of {work.migration} is gone from {work.place.table}, or finished by another hand"
            raise MigrateError(message) from error
        raise error
    return results[len(before)]
