"""The rules that a migration's text must keep."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from outreach_migrate.errors import Location, Problem
from outreach_migrate.files import commands, control, heads, statements, ways_down
from outreach_migrate.files.commands import Command
from outreach_migrate.files.statements import Forbidden

CODE = "code"  # the folder of files of code, and the version that they have

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from outreach_migrate.files.migrations import Migration


def problems(migration: Migration) -> list[Problem]:
    """List the problems that keep a migration's text from being run as it is."""
    if "\0" in migration.sql:
        nul = Forbidden(migration.sql.index("\0"), "a NUL byte, which PostgreSQL's text can't hold")
        return [_problem(migration, nul)]
    wanted, whole = migration.directives, migration.outline
    controls = control.findings(migration.sql, whole, transaction=wanted.transaction, place=migration.place)
    wrong = [
        *wanted.findings,
        *heads.findings(migration.sql, migration.path),
        *ways_down.findings(migration.sql, os.path.dirname(migration.path)),
        *whole.findings,
        *controls,
        *_copies(migration),
        *_of_code(migration),
    ]
    wrong.sort(key=lambda finding: finding.offset)
    if not wrong:
        wrong += _not_inside(migration) if wanted.transaction else _not_alone(migration)
    return [_problem(migration, finding) for finding in wrong]


def without_value(migration: Migration) -> list[Problem]:
    """List the variables of a migration that have no value, each at its first place."""
    missing = {use.name: use for use in reversed(migration.written.missing)} if migration.written else {}
    return [
        Problem(
            f"the variable {name} has no value",
            Location(migration.path, *statements.place(migration.text, use.start)),
            f"Give it with --set {name}=VALUE, as OUTREACH_MIGRATE_SET_{name.upper()}, or in pyproject.toml.",
        )
        for name, use in sorted(missing.items(), key=lambda pair: pair[1].start)
    ]


def without_code(migration: Migration, known: Collection[str]) -> list[Problem]:
    """List the files of code that a migration names and that are not there."""
    place = migration.location(migration.directives.code_at or 0)
    return [
        Problem(f"there is no file {path} in the folder of code", place, "Write its path below that folder.")
        for path in migration.directives.code
        if path not in known
    ]


def _of_code(migration: Migration) -> Iterator[Forbidden]:
    """Find the directives for files of code in a migration, and `code` in a file without a transaction."""
    wanted = migration.directives
    if wanted.of_code is not None and migration.version != CODE:
        yield Forbidden(
            wanted.of_code, "only a file of code may have this directive", "See outreach-migrate help code."
        )
    if wanted.code_at is not None and not wanted.transaction:
        message = "code needs a transaction, in which the files of code are carried out"
        yield Forbidden(wanted.code_at, message, "Put it into a migration before this one.")


def _copies(migration: Migration) -> Iterator[Forbidden]:
    copying, rows = migration.outline.copies, migration.rows
    for statement, number in copying:
        if migration.directives.has_variables:
            message = "COPY … FROM STDIN cannot be used in a file with variables"
            yield Forbidden(statement.start, message, "Put it into a file of its own.")
        elif not migration.directives.transaction:
            message = "COPY … FROM STDIN cannot be used in a file without a transaction"
            yield Forbidden(statement.start, message, "Put it into a file of its own.")
        elif number not in rows or not rows[number].is_ended:
            hint = "The line \\. must end them. Is the file complete?"
            yield Forbidden(statement.start, "the rows of COPY … FROM STDIN do not end", hint)
    for stray in migration.copied.rows[len(copying) :] if migration.copied else ():
        hint = "A quote or comment must not reach over the rows of COPY … FROM STDIN."
        yield Forbidden(stray.offset - 1, "rows that no statement copies", hint)


def _not_inside(migration: Migration) -> Iterator[Forbidden]:
    for statement, command in migration.outline.outside:
        hint = "Put it into a file of its own, or begin this file with: -- migrate: no-transaction"
        if command is Command.DROP_SUBSCRIPTION:
            hint += ". Or keep the slot: write ALTER SUBSCRIPTION … DISABLE and … SET (slot_name = NONE) before it."
        yield Forbidden(statement.start, f"{command} cannot run in a transaction", hint)


def _not_alone(migration: Migration) -> list[Forbidden]:
    if migration.directives.batches:
        from outreach_migrate.files import batches

        return list(batches.findings(migration.sql))
    from outreach_migrate.files import no_transaction  # here, because few files need it

    found = [*no_transaction.findings(migration.sql), *_unnamed(migration)]
    return sorted(found, key=lambda finding: finding.offset)


def _unnamed(migration: Migration) -> Iterator[Forbidden]:
    hint = "Name it: an index that a failed build leaves invalid could not be found again."
    for statement, command in migration.outline.outside:
        unnamed = command is Command.CREATE_INDEX_CONCURRENTLY and commands.build(migration.sql, statement)
        if unnamed and unnamed.index is None:
            yield Forbidden(statement.start, "an index built concurrently must have a name", hint)


def _problem(migration: Migration, finding: Forbidden) -> Problem:
    place, excerpt = migration.location(finding.offset), migration.excerpt(finding.offset)
    return Problem(finding.message, place, finding.hint, excerpt)
