"""Another tool's history taken over: in one transaction with everything that is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import errors as pg
from psycopg import sql

from outreach_migrate.adopt import matching, refusals, tables
from outreach_migrate.adopt.matching import Match, Verdict
from outreach_migrate.errors import HistoryLocked, MigrateError, MigrationFileError, NotAdopted, Problem, UsageError
from outreach_migrate.history import catalog, foreign, forms, read, recording, write
from outreach_migrate.history.forms import Foreign
from outreach_migrate.history.table import Table
from outreach_migrate.history.write import Place
from outreach_migrate.postgres import activity, connections
from outreach_migrate.run import planning, sessions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outreach_migrate.adopt.tables import Recorded
    from outreach_migrate.run.request import Request
    from outreach_migrate.run.sessions import Session
    from outreach_migrate.run.stop import Stop

_OWNER = "because --rename needs that."
_SOON, _PATIENCE = 1, 29  # s until a wait for the table's lock is reported, and then until it is an error
_TRIES = 20  # each fails because another session has changed the tables meanwhile
# Another run made the table, or inserted an entry, first; or the other tool's table was renamed.
_OVERTAKEN = (pg.UniqueViolation, pg.DuplicateTable, pg.DuplicateObject, pg.DuplicateSchema, pg.UndefinedTable)


Tell = Callable[[Any], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options of a takeover; without a `tool` the files' first lines and the tables show it."""

    tool: str | None = None
    to: int | None = None
    rename: bool = False
    accept_edited: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is nothing to take over: no table of the tool's, or one without applied migrations.

    `present` counts the entries of a history that is there already. `tools` are those that the options or the files
    name, `schemas` those that were searched, `others` the tables of other tools in them.
    """

    present: int = 0
    tools: tuple[str, ...] = ()
    schemas: tuple[str, ...] = ()
    others: tuple[Foreign, ...] = ()
    empty: Foreign | None = None


@dataclass(frozen=True, slots=True)
class Takeover:
    """The result of a takeover, or of its dry run: each migration with its verdict, and the problems in the way.

    `renamed` is the new name of a table that had the history's; `undo` the SQL that takes the whole back.
    """

    recorded: Recorded
    matches: tuple[Match, ...]
    problems: tuple[Problem, ...]
    written: bool = False
    renamed: str | None = None
    undo: str | None = None

    @property
    def adopted(self) -> tuple[Match, ...]:
        """The matches that become entries."""
        return tuple(one for one in self.matches if one.verdict is Verdict.ADOPTED)


@dataclass(frozen=True, slots=True)
class Compared:
    """Event: the tool's records are compared with the files."""

    takeover: Takeover


def run(request: Request, wanted: Wanted, tell: Tell, stop: Stop) -> Takeover | Nothing:
    """Write an entry for each migration that another tool has applied; a history with entries is left alone.

    Of two runs at once the second finds the entries of the first. `tell` is called with Compared and with the events of
    waiting. Raise NotAdopted with every problem, UsageError, MigrationFileError, HistoryError, HistoryLocked or
    ConnectionFailed; then nothing was written.
    """
    _check(request, wanted)
    with connections.translated(), sessions.of(request, tell, stop) as session:
        for _ in range(_TRIES):
            if done := _attempt(session, request, wanted, tell):
                return done
            session.clean()
    raise MigrateError("other sessions keep changing the history table, so nothing was adopted", hint="Try again.")


def _attempt(session: Session, request: Request, wanted: Wanted, tell: Tell) -> Takeover | Nothing | None:
    """Take the history over; None if another session changed the tables meanwhile."""
    found = read.foreign_tables(session.connection, request.table, search_path=request.target.schema)
    chosen = _chosen(request, wanted, found)
    if isinstance(chosen, Foreign) and _is_in_place(request.table, chosen):
        if not wanted.rename:
            raise NotAdopted([catalog.stranger(request.table, sorted(chosen.columns), [chosen])])
        create: tuple[str, ...] = (write.create_table(request.table),)
    else:
        past = session.history()
        if past.entries:
            return Nothing(present=len(past.entries))
        if isinstance(chosen, Nothing):
            return chosen
        if not wanted.dry_run:
            planning.must_be_writable(past)
        create = write.create(past)
    try:
        return _take(session, request, wanted, chosen, create, tell)
    except _OVERTAKEN:
        return None


def _is_in_place(table: Table, chosen: Foreign) -> bool:
    """Tell whether another tool's table has the history's name and schema."""
    return (chosen.schema, chosen.form.name) == (table.schema, table.name)


def _check(request: Request, wanted: Wanted) -> None:
    if request.file_problems:
        raise MigrationFileError(request.file_problems)
    if wanted.tool is not None and wanted.tool not in forms.FORMS:
        known = ", ".join(forms.FORMS)
        hint = f"The known tools are {known}. For any other: outreach-migrate baseline VERSION."
        raise UsageError(f"the histories of {wanted.tool} can't be adopted", hint=hint)
    if wanted.to is not None and wanted.to not in {one.number for one in request.files}:
        raise UsageError(f"no migration has version {wanted.to}")


def _chosen(request: Request, wanted: Wanted, found: Sequence[Foreign]) -> Foreign | Nothing:
    """Choose the table: of the tool that is named, else of the one that the files name, else the only one."""
    named = {one.directives.origin.tool for one in request.files if one.directives.origin}
    tools = {wanted.tool} if wanted.tool else named
    fit = [one for one in found if one.tool in tools] if tools else list(found)
    if not fit:
        looked = foreign.schemas(request.table, request.target.schema)
        return Nothing(tools=tuple(sorted(tools)), schemas=tuple(looked), others=tuple(found))
    if len({one.tool for one in fit}) > 1:
        both = " and ".join(f"{one.tool}'s table {one}" for one in fit)
        raise NotAdopted([Problem(f"the database has {both}", hint=f"Say which: --from {fit[0].tool}, …")])
    if len(fit) > 1:
        hint = f"Name the schema in the URL: ?schema={fit[0].schema}"
        raise NotAdopted([Problem(f"the database has {' and '.join(map(str, fit))}, both {fit[0].tool}'s", hint=hint)])
    if not tools and fit[0].tool == "dbmate":
        hint = "If it is dbmate's: --from dbmate. No file's first line says so."
        raise NotAdopted([Problem(f"the table {fit[0]} is Rails' or dbmate's, by its columns", hint=hint)])
    return fit[0]


def _take(
    session: Session, request: Request, wanted: Wanted, chosen: Foreign, create: tuple[str, ...], tell: Tell
) -> Takeover | Nothing | None:
    connection = session.connection
    renamed = chosen.form.renamed if _is_in_place(request.table, chosen) else None
    if wanted.dry_run:  # a role that may only read can do that, also on a standby
        _must_be_readable(connection, chosen)
        session.begin()
    else:
        _lock(session, chosen, "ACCESS EXCLUSIVE" if renamed else "SHARE")
    now = read.foreign_tables(connection, request.table, search_path=request.target.schema, reset=False)
    if chosen not in now:
        return None
    recorded = tables.read(connection, chosen)
    if not recorded.records and not renamed:
        return Nothing(empty=chosen)
    if heads := refusals.heads(recorded):
        raise NotAdopted([heads])
    matches = matching.match(recorded, request.files, to=wanted.to, accept_edited=wanted.accept_edited)
    takeover = Takeover(recorded, matches, tuple(refusals.problems(recorded, matches, wanted.to)))
    tell(Compared(takeover))
    if takeover.problems:
        raise NotAdopted(takeover.problems)
    if wanted.dry_run or (recorded.records and not takeover.adopted):
        return takeover
    return _written(connection, request.table, replace(takeover, renamed=renamed), create)


def _must_be_readable(connection: psycopg.Connection, chosen: Foreign) -> None:
    if not chosen.readable:
        role, quoted = sql.Identifier(connection.info.user).as_string(), chosen.table.quoted
        raise MigrateError(f"the role {role} may not read {chosen}", hint=f"GRANT SELECT ON {quoted} TO {role};")


def _lock(session: Session, chosen: Foreign, mode: str) -> None:
    """Begin a transaction, and lock the other tool's table; raise HistoryLocked if that takes too long."""
    connection, table = session.connection, chosen.table
    for patience in (_SOON, _PATIENCE):
        session.begin()
        connection.execute(f"SET LOCAL lock_timeout = '{patience}s'".encode())
        try:
            connection.execute(f"LOCK TABLE {table.quoted} IN {mode} MODE".encode())
            return
        except pg.InsufficientPrivilege as error:
            role = sql.Identifier(connection.info.user).as_string()
            grant = f"or: GRANT SELECT, UPDATE ON {table.quoted} TO {role};"
            hint = f"Adopt as the role that owns it, {grant if mode == 'SHARE' else _OWNER}"
            raise MigrateError(f"the role {role} may not lock {table} against writes", hint=hint) from error
        except pg.LockNotAvailable:
            connection.execute("ROLLBACK")
            blockers = activity.holders(connection, table.schema, table.name, activity.SHARING)
            session.tell(read.Locked(table, blockers))
    raise HistoryLocked(f"{table} has been locked for {_SOON + _PATIENCE} s, so nothing was adopted", blockers)


def _written(connection: psycopg.Connection, table: Table, takeover: Takeover, create: tuple[str, ...]) -> Takeover:
    """Write the entries, after renaming the other tool's table if it has the history's name, and commit."""
    theirs = takeover.recorded.table
    known = [
        recording.Known(one.migration, one.record.started_at, one.record.finished_at)
        for one in takeover.adopted
        if one.migration and one.record
    ]
    undo = _renamed(connection, theirs, takeover.renamed) if takeover.renamed else None
    # so that a reader can tell an adoption's time from a single moment of the tool's
    ended: LiteralString = "statement_timestamp" if theirs.tool in forms.PARTLY_TIMED else "now"
    entries = (*create, recording.record(Place(table, 1), known, theirs.tool, ended=ended)) if known else ()
    for statement in (*entries, "COMMIT"):
        connection.execute(statement.encode())
    if undo and known:
        undo = f"BEGIN; DROP TABLE {table.quoted}; {undo} COMMIT;"
    return replace(takeover, written=True, undo=undo)


def _renamed(connection: psycopg.Connection, theirs: Foreign, name: str) -> str:
    """Rename the other tool's table, and give the statement that undoes it."""
    new = sql.Identifier(theirs.schema, name).as_string()
    if connection.execute("SELECT pg_catalog.to_regclass(%s)", [new]).fetchall() != [(None,)]:
        hint = f"Rename it: ALTER TABLE {new} RENAME TO …;"
        raise NotAdopted([Problem(f"{theirs} would be renamed to {name}, which is there already", hint=hint)])
    old, short = (sql.Identifier(one).as_string() for one in (theirs.form.name, name))
    try:
        connection.execute(f"ALTER TABLE {theirs.table.quoted} RENAME TO {short}".encode())
    except pg.InsufficientPrivilege as error:
        role = sql.Identifier(connection.info.user).as_string()
        hint = f"Adopt as the role that owns it, {_OWNER}"
        raise MigrateError(f"the role {role} may not rename {theirs}", hint=hint) from error
    return f"ALTER TABLE {new} RENAME TO {old};"
