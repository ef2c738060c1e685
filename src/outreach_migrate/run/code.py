"""Files of code carried out: those that changed, all in one transaction with their records."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from outreach_migrate import errors
from outreach_migrate.errors import Fate, Outcome, StatementError
from outreach_migrate.history import code as history
from outreach_migrate.postgres import connections
from outreach_migrate.run import code_plan, events, sending
from outreach_migrate.run import request as planning
from outreach_migrate.run.sending import Message
from outreach_migrate.run.transaction import ENDING

if TYPE_CHECKING:
    from outreach_migrate.files.code import Code
    from outreach_migrate.history.code import Record
    from outreach_migrate.history.read import History
    from outreach_migrate.run.request import Request
    from outreach_migrate.run.sessions import Session

# a lock timeout, a deadlock, or another run that makes the table, or replaces the same object, at the same moment
_RETRIED = {"55P03", "40P01", "23505", "42P07", "XX000"}

Key = tuple[int, int]


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
            found = code_plan.steps(session.connection, request.code or (), request.table)
            for step in found:
                if step.state is code_plan.State.GONE:
                    session.tell(events.CodeGone(step.path, step.record.objects if step.record else ()))
            if not any(step.is_changed for step in found):
                return ()
            planning.must_be_writable(past)
            return _retried(session, request)
    except errors.MigrateError as error:
        if error.outcome:
            raise
        raise error.after(Outcome(Fate.CODE, before=before, durable=not session.unflushed)) from error.__cause__


def _retried(session: Session, request: Request) -> tuple[events.CodeApplied, ...]:
    left = request.lock_retries
    while True:
        try:
            session.begin()
            done = within(session, request, request.code or ())
            session.connection.execute("COMMIT")
            break
        except (StatementError, psycopg.Error) as error:
            if isinstance(error, psycopg.Error) and connections.was_lost(error):
                raise
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


def within(session: Session, request: Request, codes: Sequence[Code]) -> tuple[events.CodeApplied, ...]:
    """Carry out the changed ones of these files in the open transaction, and record them."""
    run = session.connection.execute
    for command in history.lock(request.table):
        run(command.encode())
    records = history.read(session.connection, request.table)
    changed = [step for step in code_plan.compare(codes, records) if step.is_changed and step.code]
    dropped = [step for step in changed if step.code and (step.code.drops or step.code.drops_first)]
    remade = (
        _drop(session, request, [step.record for step in dropped if step.record], records) if dropped else set[str]()
    )
    wanted = {step.path for step in changed} | remade
    applied = []
    for code in (request.code or ()) if remade else codes:
        if code.path in wanted:
            applied.append(_carry_out(session, request, code, records.get(code.path)))
    return tuple(applied)


def _carry_out(session: Session, request: Request, code: Code, record: Record | None) -> events.CodeApplied:
    began, run = time.monotonic(), session.connection.execute
    if code.drops:
        run(history.forget(request.table, code.path).encode())
        return events.CodeApplied(code.path, time.monotonic() - began, (), dropped=record.objects if record else ())
    for command in [*session.opening(), *session.limit(request.limits)]:
        run(command.encode())
    before = _objects(session, code)
    with session.at_work(code.migration):
        sending.send(session, code.migration, Message(text=code.migration.body))
    for command in [*ENDING, *session.opening()]:
        run(command.encode())
    after = _objects(session, code)
    made = _names(session, [key for key, version in after.items() if before.get(key) != version])
    left = _still_there(session, record.objects) if record else ()
    objects = tuple(dict.fromkeys([*left, *made]))
    run(history.record(request.table, code.path, code.checksum, objects).encode())
    for command in history.take_over(request.table, code.path, made, [one.path for one in request.code or ()]):
        run(command.encode())
    stale = tuple(one for one in left if one not in made)
    return events.CodeApplied(code.path, time.monotonic() - began, objects, stale=stale)


def _objects(session: Session, code: Code) -> dict[Key, str]:
    """Find the objects of the names that a file makes, which this transaction has made or replaced; by their versions.

    Other transactions may make objects of these names meanwhile, in the schemas of other tenants.
    """
    query = """
        WITH ours AS (SELECT pg_catalog.pg_current_xact_id()::xid AS xid)
        SELECT 'pg_catalog.pg_proc'::regclass::oid::bigint, oid::bigint, p.ctid::text
          FROM ours, pg_catalog.pg_proc p WHERE p.xmin = xid AND proname = ANY(%(names)s)
        UNION ALL
        SELECT 'pg_catalog.pg_class'::regclass::oid::bigint, c.oid::bigint, c.ctid::text || coalesce(r.ctid::text, '')
          FROM ours, pg_catalog.pg_class c
          LEFT JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid AND r.rulename = '_RETURN'
         WHERE xid IN (c.xmin, r.xmin) AND relname = ANY(%(names)s) AND relkind IN ('v', 'm')
        UNION ALL
        SELECT 'pg_catalog.pg_trigger'::regclass::oid::bigint, oid::bigint, t.ctid::text
          FROM ours, pg_catalog.pg_trigger t WHERE t.xmin = xid AND tgname = ANY(%(names)s) AND NOT tgisinternal
        UNION ALL
        SELECT 'pg_catalog.pg_policy'::regclass::oid::bigint, oid::bigint, p.ctid::text
          FROM ours, pg_catalog.pg_policy p WHERE p.xmin = xid AND polname = ANY(%(names)s)
        UNION ALL
        SELECT 'pg_catalog.pg_rewrite'::regclass::oid::bigint, oid::bigint, r.ctid::text
          FROM ours, pg_catalog.pg_rewrite r
         WHERE r.xmin = xid AND rulename = ANY(%(names)s) AND rulename <> '_RETURN'
        UNION ALL
        SELECT 'pg_catalog.pg_event_trigger'::regclass::oid::bigint, oid::bigint, e.ctid::text
          FROM ours, pg_catalog.pg_event_trigger e WHERE e.xmin = xid AND evtname = ANY(%(names)s)
        UNION ALL
        SELECT 'pg_catalog.pg_type'::regclass::oid::bigint, t.oid::bigint, t.ctid::text
          FROM ours, pg_catalog.pg_type t LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
         WHERE t.xmin = xid AND typname = ANY(%(names)s) AND typtype IN ('c', 'd', 'e', 'r')
           AND coalesce(c.relkind, 'c') = 'c'"""
    rows = session.connection.execute(query, {"names": list(code.makes)}).fetchall()
    return {(row[0], row[1]): row[2] for row in rows}


def _names(session: Session, keys: Sequence[Key]) -> list[str]:
    """Write objects as DROP takes them, in the order of their making."""
    query = """
        SELECT pg_catalog.upper(o.type) || ' ' || o.identity
          FROM ROWS FROM (pg_catalog.unnest(%s::bigint[]), pg_catalog.unnest(%s::bigint[])) AS k(class, object),
               pg_catalog.pg_identify_object(k.class::oid, k.object::oid, 0) o
         ORDER BY k.object"""
    rows = session.connection.execute(query, ([one for one, _ in keys], [one for _, one in keys])).fetchall()
    return [name for (name,) in rows]


def _still_there(session: Session, objects: Sequence[str]) -> tuple[str, ...]:
    """Choose the recorded objects that are still there."""
    return tuple(one for one in objects if _key(session, one))


def _key(session: Session, recorded: str) -> Key | None:
    """Find a recorded object in the catalog; None if it is gone."""
    kind, _, identity = recorded.partition(" ")
    if kind in ("MATERIALIZED", "EVENT"):
        more, _, identity = identity.partition(" ")
        kind += f" {more}"
    query = """
        SELECT k.class::bigint, k.object::bigint
          FROM ({}) k(class, object), pg_catalog.pg_identify_object(k.class, k.object, 0) o
         WHERE pg_catalog.upper(o.type) = {} AND o.identity = {}"""
    found = session.connection.execute(
        sql.SQL(query).format(sql.SQL(_CANDIDATES[kind]), sql.Literal(kind), sql.Literal(identity))
    ).fetchall()
    return (found[0][0], found[0][1]) if found else None


_OF = "SELECT '{0}'::pg_catalog.regclass::oid, oid FROM {0}"
_CANDIDATES = {
    **dict.fromkeys(("FUNCTION", "PROCEDURE", "AGGREGATE", "WINDOW"), _OF.format("pg_catalog.pg_proc")),
    **dict.fromkeys(("VIEW", "MATERIALIZED VIEW"), _OF.format("pg_catalog.pg_class") + " WHERE relkind IN ('v', 'm')"),
    "TRIGGER": _OF.format("pg_catalog.pg_trigger") + " WHERE NOT tgisinternal",
    "POLICY": _OF.format("pg_catalog.pg_policy"),
    "RULE": _OF.format("pg_catalog.pg_rewrite") + " WHERE rulename <> '_RETURN'",
    "EVENT TRIGGER": _OF.format("pg_catalog.pg_event_trigger"),
    "TYPE": _OF.format("pg_catalog.pg_type"),
    "DOMAIN": _OF.format("pg_catalog.pg_type"),
}


def _drop(session: Session, request: Request, going: Sequence[Record], records: dict[str, Record]) -> set[str]:
    """Drop the objects of these records, and those of other files that rest on them; give these files' paths.

    Raise MigrateError, and drop nothing, when an object that no file of code makes rests on them.
    """
    order = {code.path: number for number, code in enumerate(request.code or ())}
    owners = {
        key: (order[record.path], number, one, record.path)
        for record in records.values()
        if record.path in order
        for number, one in enumerate(record.objects)
        if (key := _key(session, one))
    }
    first = [key for key, (_, _, _, path) in owners.items() if path in {record.path for record in going}]
    found = _resting(session, first)
    strangers = [name for key, name in found if key not in owners]
    if strangers:
        message = (
            f"{', '.join(sorted(strangers))} rests on an object that is to be dropped, and no file of code makes it"
        )
        paths = ", ".join(record.path for record in going)
        hint = "Drop it in a migration first, or make it a file of code."
        raise errors.MigrateError(f"{paths}: {message}", hint=hint)
    for _, _, name, _ in sorted((owners[key] for key in {*first, *(key for key, _ in found)}), reverse=True):
        session.connection.execute(f"DROP {_if_exists(name)}".encode())
    return {owners[key][3] for key, _ in found} - {record.path for record in going}


def _if_exists(name: str) -> str:
    kind, _, identity = name.partition(" ")
    if kind in ("MATERIALIZED", "EVENT"):
        more, _, identity = identity.partition(" ")
        kind += f" {more}"
    return f"{kind} IF EXISTS {identity}"


def _resting(session: Session, keys: Sequence[Key]) -> list[tuple[Key, str]]:
    """Find the objects that rest on these, and those that rest on them in turn; a view's rule stands for the view."""
    query = """
        WITH RECURSIVE resting(class, object, internal) AS (
            SELECT c, o, false FROM ROWS FROM (pg_catalog.unnest(%s::oid[]), pg_catalog.unnest(%s::oid[])) AS k(c, o)
            UNION
            SELECT CASE WHEN r.oid IS NULL THEN d.classid ELSE 'pg_catalog.pg_class'::regclass END,
                   coalesce(r.ev_class, d.objid), d.deptype = 'i'
              FROM resting
              JOIN pg_catalog.pg_depend d ON d.refclassid = class AND d.refobjid = object
              LEFT JOIN pg_catalog.pg_rewrite r ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND r.oid = d.objid
                                                AND r.rulename = '_RETURN'
             WHERE d.deptype IN ('n', 'a', 'i'))
        SELECT class::bigint, object::bigint, pg_catalog.pg_describe_object(class, object, 0)
          FROM resting GROUP BY class, object HAVING NOT pg_catalog.bool_and(internal)"""
    rows = session.connection.execute(query, ([one for one, _ in keys], [one for _, one in keys])).fetchall()
    return [((row[0], row[1]), row[2]) for row in rows if (row[0], row[1]) not in keys]
