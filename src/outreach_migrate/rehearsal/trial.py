"""The rehearsal: a plan carried out and rolled back, with the effects of each statement."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from outreach_migrate import errors
from outreach_migrate.files import commands
from outreach_migrate.files.commands import Command
from outreach_migrate.files.control import Isolation
from outreach_migrate.postgres import connections, messages
from outreach_migrate.rehearsal import groups, needs, one_file, relations, snapshots
from outreach_migrate.rehearsal.effects import Mode
from outreach_migrate.rehearsal.events import Estimated, Skipped, Stopped, Unrehearsed, Why
from outreach_migrate.rehearsal.one_file import SAVEPOINT, File, Holding, Share, Stage
from outreach_migrate.run import comparison, half_done, planning, sessions
from outreach_migrate.run.plan import Pending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.batches import BatchProgress
    from outreach_migrate.rehearsal.events import Estimated, Event
    from outreach_migrate.rehearsal.one_file import FailedStatement
    from outreach_migrate.run.code_plan import CodeStep
    from outreach_migrate.run.request import Request
    from outreach_migrate.run.sessions import Session
    from outreach_migrate.run.stop import Stop

ROLLED_BACK = errors.Outcome(errors.Fate.ROLLED_BACK)
_UNSAFE_ENUM = "55P04"  # an enum value is used before the transaction that added it has committed
_NO_ROOM = "53200"  # also in the lock table
_PARALLEL = "citus.multi_shard_modify_mode"  # in Citus' hint; the error has no SQLSTATE of its own


def run(request: Request, tell: Callable[[Event], None], stop: Stop) -> None:
    """Carry out the steps of a run in one transaction, and roll it back. Nothing is recorded.

    Raise errors.MigrateError, as a run would.
    """
    told = Holding(tell)
    with connections.translated(), sessions.of(request, told, stop) as session:
        past = session.history()
        planned = planning.to_carry_out(past, request)
        told(planned)
        codes = comparison.code_steps(session.connection, request)
        batched = half_done.of(session.connection, past, planned.plan)
        files = list(_to_rehearse(comparison.in_order(planned, codes, request), batched))
        if not files:
            return
        with relations.Before(request.target) as before, connections.translated():
            before.look_up(group.whole for file in files for group in file.groups)
            try:
                session.exchange(f"BEGIN ISOLATION LEVEL {_level(files)}")
                looks = snapshots.Looks(session, newest=before.newest)
                _files(Stage(session, told, request, before, looks), files)
            except errors.Interrupted as error:
                raise error.after(ROLLED_BACK) from None
            except errors.MigrateError as error:
                raise error.after(ROLLED_BACK) from error.__cause__
            finally:
                told.notices()
                session.clean()


def _to_rehearse(steps: Iterator[Pending | CodeStep], batched: dict[str, BatchProgress]) -> Iterator[File]:
    """Cut the files into groups of statements; leave out those that drop objects, and those that rest on them."""
    dropping: dict[str, Migration] = {}
    for step in steps:
        if isinstance(step, Pending):
            migration, drops, uses = step.migration, False, step.migration.directives.code
        elif step.code:
            migration, drops, uses = step.code.migration, step.drops, step.code.rests_on
        else:
            continue
        needed = next((dropping[path] for path in uses if path in dropping), None)
        stopped = Stopped(migration, Why.DROPS, None if drops else needed) if drops or needed else None
        if stopped and not isinstance(step, Pending):
            dropping[step.path] = migration
        yield File(migration, groups.cut(migration), batched.get(migration.version), stopped)


def _level(files: list[File]) -> Isolation:
    """Give the isolation level of the first file with a transaction, because all of them share one transaction."""
    levels = (file.migration.directives.isolation for file in files if file.migration.directives.transaction)
    return next(levels, Isolation.READ_COMMITTED)


def _files(stage: Stage, files: list[File]) -> None:
    """Carry the files out in order; go on after a file that can't be carried out.

    Only a file that may fail in this way begins with a savepoint, because each costs a transaction id, and servers
    before 17 treat an enum type as new only in the subtransaction that made it.
    """
    left: list[Migration] = []
    is_marked = False
    for number, file in enumerate(files):
        migration = file.migration
        with stage.session.at_work(migration):
            part = _part(stage, file, files, left)
            if not isinstance(part, Share):
                left.append(migration)
                is_marked = True
                stage.told(part)
                continue
            failed = one_file.carry_out(stage, part.file, savepoint=is_marked)
            if part.left is not None and not failed:
                stage.told(Estimated(migration, part.rows, part.left, file.progress.rows if file.progress else 0))
        if failed:
            stopped = _stopped(stage, failed, files[: number + 1], left, is_marked=is_marked)
            if stopped is None:
                raise failed.error.after(ROLLED_BACK, hint=_hint(failed.error, left)) from failed.error.__cause__
            stage.told(stopped)
            left.append(migration)
            if stopped.why in (Why.NO_ROOM, Why.PARALLEL):  # so the transaction can't go on
                for later in files[number + 1 :]:
                    stage.told(Stopped(later.migration, stopped.why, None, failed.error))
                return
        is_marked = is_marked or file.adds_values


def _part(stage: Stage, file: File, files: list[File], left: list[Migration]) -> Share | Skipped | Stopped:
    """Choose the part of a file that is carried out, or give the reason why none is."""
    migration = file.migration
    wanted = migration.directives.batches
    if file.left_out:
        return file.left_out
    if not (migration.directives.transaction or wanted):
        return Skipped(migration, tuple(_unrehearsed(migration)))
    if migration.directives.isolation != _level(files):
        return Stopped(migration, Why.ISOLATION)
    if not wanted:
        return Share(file)
    from outreach_migrate.rehearsal import in_batches  # here, because few files need it

    try:
        return in_batches.next_range(stage, file, wanted)
    except errors.MigrationFileError:
        if not left:
            raise
        return Stopped(migration, Why.KEY, left[-1])


def _hint(error: errors.StatementError, left: list[Migration]) -> str | None:
    if not left:
        return error.hint
    names = ", ".join(map(str, left))
    return f"It may depend on {names}, which can't be rehearsed. {error.hint or ''}".strip()


def _stopped(
    stage: Stage, failed: FailedStatement, files: list[File], left: list[Migration], *, is_marked: bool
) -> Stopped | None:
    """Tell whether a run would go on where only the rehearsal fails; if so, roll the last of these files back."""
    error, migration = failed.error, files[-1].migration
    if error.sqlstate == _NO_ROOM and len(files) > 1 and "max_locks_per_transaction" in (error.report.hint or ""):
        return Stopped(migration, Why.NO_ROOM, None, error)
    if _PARALLEL in (error.report.hint or "") and len(files) - 1 > len(left):
        return Stopped(migration, Why.PARALLEL, None, error)
    if not is_marked:
        return None
    _take_back(stage)
    earlier = [needs.Earlier(file.migration, file.changes, file.migration not in left) for file in files[:-1]]
    if error.sqlstate == _UNSAFE_ENUM:
        is_there = _has_value(stage.session, error.report.message)
        needed = needs.adding_value(error.report, earlier)
        return Stopped(migration, Why.ENUM_VALUE, needed, error) if is_there else None
    own = needs.Earlier(migration, files[-1].before(failed.group).changes, rehearsed=True)
    failure = needs.Failure(error.report, failed.group.text, failed.path)
    needed = needs.found(failure, [*earlier, own], stage.looks.path[0] if stage.looks.path else None)
    return Stopped(migration, Why.NAME, needed, error) if needed else None


def _take_back(stage: Stage) -> None:
    if failed := messages.failure(stage.session.exchange(f"ROLLBACK TO {SAVEPOINT}; RELEASE {SAVEPOINT}")):
        raise psycopg.errors.error_from_result(failed)
    stage.looks.look(0)


def _has_value(session: Session, message: str) -> bool:
    """Tell whether an enum value that a message names is there, because an earlier file has just added it."""
    labels = ", ".join(map(sql.quote, needs.names(message)))
    query = f"""
        SELECT FROM pg_catalog.pg_enum e JOIN pg_catalog.pg_type t ON t.oid = e.enumtypid
         WHERE e.enumlabel = ANY (ARRAY[{labels}]::text[])
           AND pg_catalog.strpos({sql.quote(message)}, t.typname) > 0"""
    return bool(snapshots.ask(session, query))


def _unrehearsed(migration: Migration) -> Iterator[Unrehearsed]:
    for placed in groups.placed(migration, migration.sql):
        statement = placed.statement
        text = migration.shown(statement.start, statement.end)
        command, mode = commands.outside(migration.sql, statement), None
        if command is Command.VACUUM_FULL:
            mode = Mode.ACCESS_EXCLUSIVE
        elif command is Command.VACUUM or (command and command.is_concurrent):
            mode = Mode.SHARE_UPDATE_EXCLUSIVE
        yield Unrehearsed(placed.location, text, mode)
