"""A file without a transaction, run statement by statement, with its progress in its entry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import psycopg
from psycopg import sql
from psycopg.pq.abc import PGresult

from outreach_migrate.errors import Blocker, MigrateError, ServerMessage, StatementError
from outreach_migrate.files import pieces
from outreach_migrate.files.commands import Build, Command
from outreach_migrate.files.migrations import Migration
from outreach_migrate.files.pieces import Piece
from outreach_migrate.history import progress, write
from outreach_migrate.postgres import activity, connections, messages
from outreach_migrate.run import events, sending, transaction
from outreach_migrate.run.request import Limits
from outreach_migrate.run.sending import Message
from outreach_migrate.run.sessions import BEGIN, READING, RESET, Session
from outreach_migrate.run.transaction import ENDING, Done, Overtaken, Work

_ASK_AGAIN = 0.1  # s between two looks for the end of a killed run's statement
# The SQLSTATE by which a statement fails when it was done before. An index build is looked up in the catalog instead.
_ALREADY_SO = {
    **dict.fromkeys((Command.CREATE_SUBSCRIPTION, Command.CREATE_TABLESPACE), "42710"),
    **dict.fromkeys(
        (Command.DROP_INDEX_CONCURRENTLY, Command.DROP_SUBSCRIPTION, Command.DROP_TABLESPACE),
        "42704",
    ),
    Command.CREATE_DATABASE: "42P04",
    Command.DROP_DATABASE: "3D000",
    Command.DETACH_CONCURRENTLY: "42P01",  # the table is no longer a partition
}


@dataclass(frozen=True, slots=True)
class Busy:
    """Another run works on the file."""

    migration: Migration
    claimants: tuple[Blocker, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """This run's claim on a file: an advisory lock, held by this connection's open transaction."""

    connection: psycopg.Connection

    def check(self) -> None:
        """Raise psycopg.OperationalError when the claim is lost, because another run may have claimed the file."""
        self.connection.execute("SELECT 1")


@contextmanager
def claimed(session: Session, work: Work, *, is_new: bool) -> Iterator[Claim | Busy | Overtaken]:
    """Claim a file until the end of the block.

    A new file's entry is inserted first and committed after the claim, so that no run sees an entry without a claim.
    Yield Busy when a living run holds the claim; a dead run's lock is gone with its connection. Raise StatementError,
    or psycopg.OperationalError when a connection is lost.
    """
    if is_new and (overtaken := _begin(session, work)):
        yield overtaken
        return
    key = progress.claim_key(session.connection, work.place)
    connection = connections.connect(session.target, read_write=True)
    try:
        with session.stop.reaching(connection):
            if progress.claim(connection, key, session.mark(work.migration)):
                if is_new:
                    session.exchange("COMMIT")
                    session.unflushed = False
                yield Claim(connection)
                return
        connection.close()
        yield Busy(work.migration, activity.claimants(session.connection, key))
    finally:
        connection.close()


def _begin(session: Session, work: Work) -> Overtaken | None:
    """Insert the entry, and leave the transaction open.

    The wait for another run's entry is short, because waiting runs can fill a pooler's pool, and the run ahead of them
    then can't get its second connection, the one that claims the file.
    """
    nothing = pieces.checksum_before(work.migration.text, 0) or ""
    insert = write.insert(work.place, work.migration)
    record = progress.record(work.place, work.migration, done=0, begun=0, done_checksum=nothing)
    patience = session.limit(Limits(2, 0))
    before = (BEGIN, *session.opening(), *patience, *work.place.create, insert, record)
    try:
        sending.send(session, work.migration, Message(before))
    except StatementError as error:
        if transaction.is_taken(error):
            return Overtaken(error)
        if error.sqlstate == "55P03":
            return Overtaken()
        raise
    return None


def apply(session: Session, work: Work, claim: Claim, *, from_start: bool) -> Done | Overtaken:
    """Run the statements that are not done yet.

    Return Overtaken when the entry has changed since the plan was made. Raise StatementError, LockTimeout, or
    psycopg.OperationalError when a connection is lost.
    """
    _await_orphan(session, work)
    row = ask(session, work, progress.unfinished(work.place, work.migration))
    if not row.ntuples:
        return Overtaken()
    held, begun = int(row.get_value(0, 0) or 0), int(row.get_value(0, 1) or 0)
    done = 0 if from_start else held
    if done and pieces.checksum_before(work.migration.text, done) != (row.get_value(0, 2) or b"").decode():
        return Overtaken()
    # a statement that was begun but not recorded as done may be half done, or done if the file is the same
    half = begun - 1 if begun > held else None
    same = (row.get_value(0, 3) or b"").decode() == work.migration.checksum
    tags: list[str] = []
    for piece in work.migration.pieces():
        if piece.number < done:
            continue
        claim.check()
        try:
            tags.append(_run(session, work, piece, held=held, resumed=piece.number == half, same=same))
        except StatementError as error:
            if transaction.is_taken(error):
                return Overtaken(error)
            raise
        held = piece.number + 1
    finished = ask(session, work, write.finish(work.place))
    return Done(tuple(tags), write.seconds(finished))


def _await_orphan(session: Session, work: Work) -> None:
    """Wait until a killed run's statement has ended, because it may still build the index, or drop it.

    Ask again and again, because a statement that waited for the lock would hold a snapshot, and the index build waits
    for every older snapshot.
    """
    key, told = progress.at_work_key(work.place), False
    query = f"""
        SELECT pg_catalog.pg_try_advisory_xact_lock({key}),
               (SELECT pg_catalog.min(pid) FROM pg_catalog.pg_locks
                 WHERE locktype = 'advisory' AND objsubid = 1 AND (classid::bigint << 32) | objid::bigint = {key}
                   AND database = (SELECT oid FROM pg_catalog.pg_database
                                    WHERE datname = pg_catalog.current_database()))"""
    while (row := ask(session, work, query)).get_value(0, 0) != b"t":
        if not told:
            pid = row.get_value(0, 1)
            session.tell(events.AwaitingOrphan(work.migration, int(pid) if pid else None))
        told = True
        session.stop.pause(_ASK_AGAIN)


def _run(session: Session, work: Work, piece: Piece, *, held: int, resumed: bool, same: bool) -> str:
    """Run a statement in one transaction with its progress where PostgreSQL allows that, else by itself.

    Of some statements only the server knows that it doesn't, such as REINDEX of a partitioned table: it refuses them,
    and rolls back all that they did. A statement that may commit is never tried in a transaction, because it would do
    its work up to the commit twice. `held` counts the statements that are done according to the entry; with
    --from-start there may be more of them than before this one. `resumed` says whether an earlier run has begun this
    statement, `same` whether the file has stayed the same since.
    """
    if piece.command is None:
        hold = progress.hold(work.place, held)
        before = (BEGIN, *session.opening(), *hold, *session.limit(work.limits), *piece.settings)
        after = (*ENDING, _progress(work, piece, done=piece.number + 1), "COMMIT", *RESET)
        try:
            message = Message(before, piece.text, piece.start, after, piece.number)
            return sending.send(session, work.migration, message)[0]
        except StatementError as error:
            if error.sqlstate != "25001":
                raise
        session.clean()
    tag = _run_alone(session, work, piece, resumed=resumed, same=same)
    ask(session, work, _progress(work, piece, done=piece.number + 1))
    return tag


def _run_alone(session: Session, work: Work, piece: Piece, *, resumed: bool, same: bool) -> str:
    """Record that a statement begins, and run it outside of any transaction.

    A concurrent build or drop waits for locks without a limit, unless its file names one, because it blocks no reads
    and writes meanwhile, and a build that is given up in its last wait starts from nothing.
    """
    build, limits = piece.build, work.limits
    if piece.command and piece.command.is_concurrent:
        limits = replace(limits, lock_timeout=work.patience)
    index, valid = _index(session, work, piece, build) if build else (None, False)
    if resumed and same and index and valid:
        session.tell(events.IndexFound(work.migration, index))
        return "CREATE INDEX"
    if resumed and index and not valid:
        session.tell(events.IndexDropped(work.migration, index))
        # on Citus only some of the shards may have it
        _alone(session, work, piece, f"DROP INDEX CONCURRENTLY IF EXISTS {index}", limits)
        index = None
    if not index:  # an index from before the first attempt is somebody else's, and must not pass for this one's later
        ask(session, work, _progress(work, piece, done=piece.number, begun=piece.number + 1))
    try:
        tag = _alone(session, work, piece, piece.text, limits)
    except StatementError as error:
        if resumed and same and piece.command and _ALREADY_SO.get(piece.command) == error.sqlstate:
            session.tell(events.AlreadyDone(work.migration, error.report))
            return ""
        if not build:
            ask(session, work, _progress(work, piece, done=piece.number))
        raise
    if build:
        _must_be_valid(session, work, piece, build)
    return tag


def _must_be_valid(session: Session, work: Work, piece: Piece, build: Build) -> None:
    """Raise StatementError when a build succeeded and its index is invalid or absent."""
    index, valid = _index(session, work, piece, build)
    if valid:
        return
    if index:
        message, hint = (
            "the index is invalid",
            f"Drop it, then run up again: DROP INDEX CONCURRENTLY IF EXISTS {index};",
        )
    else:
        message, hint = f"{build.on} has no index {build.name}: another relation has this name", "Give it another name."
    raise StatementError(
        ServerMessage("ERROR", "XX002", message, hint=hint),
        version=work.migration.version,
        location=work.migration.location(piece.start),
        excerpt=work.migration.excerpt(piece.start),
        statement=piece.number + 1,
    )


def _alone(session: Session, work: Work, piece: Piece, text: str, limits: Limits) -> str:
    """Run one statement outside of any transaction, in a session set up for it and cleaned after it."""
    schema = session.target.schema
    path = [f"SET search_path = {sql.Identifier(schema).as_string()}"] if schema else []
    before = [
        *(*RESET, f"SELECT pg_catalog.pg_advisory_lock({progress.at_work_key(work.place)})"),
        *(*session.client_check("SESSION"), *path, *limits.sql("SESSION"), *piece.settings, *READING),
    ]
    mark = session.mark(work.migration)
    prepared, answer, _ = session.pipeline([before, [mark + text], RESET])
    if failed := messages.failure(prepared) or messages.failure(answer):
        position = messages.position(session.connection, mark + text, failed)
        message = Message(text=text, start=piece.start, first=piece.number)
        at = None if position is None else position - len(mark)
        raise sending.failure(session, work.migration, message, failed, done=0, at=at)
    return (answer[-1].command_status or b"").decode()


def _index(session: Session, work: Work, piece: Piece, build: Build) -> tuple[str | None, bool]:
    """Find the index that a statement builds; give its quoted name, None if absent, and whether it is valid."""
    name, table = sql.quote(build.name), sql.quote(build.on)
    result = ask(
        session,
        work,
        f"""SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), i.indisvalid FROM pg_catalog.pg_index i
              JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
              JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
             WHERE i.indrelid = pg_catalog.to_regclass({table})
               AND c.relname = (pg_catalog.parse_ident({name}))[1]::pg_catalog.name""",
        settings=piece.settings,
    )
    if not result.ntuples:
        return None, False
    return (result.get_value(0, 0) or b"").decode(), result.get_value(0, 1) == b"t"


def _progress(work: Work, piece: Piece, *, done: int, begun: int | None = None) -> str:
    """Write the statement that records the file's progress, before this piece or after it."""
    checksum = piece.checksum if done > piece.number else piece.checksum_before
    return progress.record(
        work.place, work.migration, done=done, begun=done if begun is None else begun, done_checksum=checksum
    )


def ask(session: Session, work: Work, *queries: str, settings: tuple[str, ...] = ()) -> PGresult:
    """Run some of the program's own statements in a transaction, in one round trip; give the last one's result."""
    before = [BEGIN, *session.opening(), *settings, *queries]
    results = session.ask(work.migration, [*before, "COMMIT", *RESET])
    if failed := messages.failure(results):
        error = psycopg.errors.error_from_result(failed)
        if error.sqlstate == "22012":
            message = f"the entry of {work.migration} is gone from {work.place.table}, or another session finished it"
            raise MigrateError(message) from error
        raise error
    return results[len(before) - 1]
