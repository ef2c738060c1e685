"""The tables of other tools that migrated a database before: no part of the schema that the files give."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate.history import forms, read
from outreach_migrate.history.table import Table

if TYPE_CHECKING:
    from psycopg import Connection

# yoyo/internalmigrations; supabase's cli, pkg/migration/history.go
_BESIDE = {"yoyo": ("_yoyo_log", "_yoyo_version", "yoyo_lock"), "supabase": ("seed_files",)}


def tables(connection: Connection, history: Table, *, search_path: str | None) -> tuple[tuple[Table, ...], set[str]]:
    """Find the tables that have a tool's form or the name that `adopt` gave one, and the schemas that tools made."""
    found = read.foreign_tables(connection, history, search_path=search_path, reset=False)
    named = {
        Table(one.schema, name)
        for one in found
        # pg_dump takes the sequence of a column `id serial` for an object of its own
        for name in (one.form.name, f"{one.form.name}_id_seq", *_BESIDE.get(one.tool, ()))
    }
    named |= {Table(history.schema, form.renamed) for form in forms.FORMS.values() if form.name == history.name}
    histories = {(one.schema, one.name) for one in history.all}
    own = {one.schema for one in found if one.form.schema}
    return tuple(sorted(one for one in named if (one.schema, one.name) not in histories)), own
