"""Other tools' marks in a file's first lines, which look like comments here."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from outreach_migrate.files import foreign
from outreach_migrate.files.statements import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.files.migrations import Migration

# As the tools read them: sqlx-core/src/migrate/migration.rs, which wants the first bytes; liquibase's
# SqlChangeLogParser; yoyo/migrations.py, in the comments before the first statement.
_SQLX = re.compile(r"-- no-transaction[ \t]*(?:\n|\Z)")
_LIQUIBASE = re.compile(r"\s*(?P<mark>--[ \t]*liquibase[ \t]+formatted[ \t]+sql\b.*)", re.IGNORECASE)
_COMMENTS = r"(?:[ \t]*(?:--.*)?\n)*?[ \t]*"
_TRANSACTIONAL = re.compile(
    rf"{_COMMENTS}(?P<mark>--[ \t]*transactional[ \t]*:[ \t]*(?:true|false)[ \t]*$)", re.MULTILINE
)
_DEPENDS = re.compile(rf"{_COMMENTS}(?P<mark>--[ \t]*depends[ \t]*:.*)")
_DATED = re.compile(r"[0-9]{8}_[0-9]{2}_[A-Za-z0-9]{5}(?:-.*)?\.sql", re.DOTALL)  # as `yoyo new` names a file


def findings(migration: Migration) -> Iterator[Finding]:
    """Yield the mark of a tool that would run the file otherwise, if it is one without doubt."""
    sql, folder = migration.sql, os.path.dirname(migration.path)
    if _SQLX.match(sql):
        hint = f"Write instead: -- migrate: no-transaction. {foreign.copied(folder, 'sqlx')}"
        yield Finding(0, "sqlx's mark: -- no-transaction", hint)
    elif found := _LIQUIBASE.match(sql):
        yield Finding(found.start("mark"), f"Liquibase's mark: {found['mark'].strip()}", foreign.RECIPE)
    elif found := _yoyos(migration):
        hint = f"Remove the line. {foreign.copied(folder, 'yoyo')}"
        yield Finding(found.start("mark"), f"yoyo's mark: {found['mark'].strip()}", hint)


def _yoyos(migration: Migration) -> re.Match[str] | None:
    """Find yoyo's mark; a comment about dependencies is one only in a file that has a name of yoyo's."""
    if found := _TRANSACTIONAL.match(migration.sql):
        return found
    return _DEPENDS.match(migration.sql) if _DATED.fullmatch(os.path.basename(migration.path)) else None
