"""The forms of the tables in which other tools record their migrations, known by their columns."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from outreach_migrate.history import foreign
from outreach_migrate.history.table import Table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Form:
    """The form of a tool's table.

    `columns` have the categories of their types (pg_type.typcategory); with `exact` there are no more of them. `counts`
    is the condition for a row that stands for an applied migration. A tool that keeps its table in a schema of its own
    has `schema`. `timed` says whether the tool keeps the time at which it applied a migration.
    """

    tool: str
    name: str
    columns: Mapping[str, str]
    counts: str = "true"
    exact: bool = False
    schema: str | None = None
    timed: bool = True

    @property
    def renamed(self) -> str:
        """The name that `adopt --rename` gives the table."""
        return f"{self.name}_{self.tool.replace('-', '_')}"

    def fits(self, columns: Mapping[str, str]) -> bool:
        """Tell whether a table with these columns has this form."""
        return columns.items() >= self.columns.items() and (not self.exact or len(columns) == len(self.columns))


# S is a string, N a number, B a boolean, D a time, U bytea
FORMS = {
    form.tool: form
    for form in (
        Form(
            "prisma",
            "_prisma_migrations",
            {
                **{"migration_name": "S", "checksum": "S", "logs": "S"},
                **{"started_at": "D", "finished_at": "D", "rolled_back_at": "D"},
            },
            counts="rolled_back_at IS NULL",
        ),
        Form("dbmate", "schema_migrations", {"version": "S"}, exact=True, timed=False),
        Form(
            "golang-migrate",
            "schema_migrations",
            {"version": "N", "dirty": "B"},
            counts="version >= 0",
            exact=True,
            timed=False,
        ),
        Form(
            "goose",
            "goose_db_version",
            {"id": "N", "version_id": "N", "is_applied": "B", "tstamp": "D"},
            counts="version_id > 0 AND is_applied",
        ),
        Form(
            "sqlx",
            "_sqlx_migrations",
            {"version": "N", "installed_on": "D", "success": "B", "checksum": "U", "execution_time": "N"},
        ),
        Form("tern", "schema_version", {"version": "N"}, counts="version > 0", exact=True, timed=False),
        Form(
            "flyway",
            "flyway_schema_history",
            {
                **{"installed_rank": "N", "version": "S", "type": "S", "script": "S"},
                **{"installed_on": "D", "execution_time": "N", "success": "B"},
            },
            counts="version IS NOT NULL",
        ),
        Form("diesel", "__diesel_schema_migrations", {"version": "S", "run_on": "D"}),
        Form("supabase", "schema_migrations", {"version": "S"}, schema="supabase_migrations", timed=False),
        # its created_at is the time at which the migration was written; 1.x has applied_at as well
        Form(
            "drizzle",
            "__drizzle_migrations",
            {"id": "N", "hash": "S", "created_at": "N"},
            schema="drizzle",
            timed=False,
        ),
        Form("yoyo", "_yoyo_migration", {"migration_hash": "S", "migration_id": "S", "applied_at_utc": "D"}),
        Form("alembic", "alembic_version", {"version_num": "S"}, exact=True, timed=False),
    )
}
UNTIMED = frozenset(form.tool for form in FORMS.values() if not form.timed)
PARTLY_TIMED = frozenset({"drizzle"})  # of those, the tools that keep the time of some migrations


@dataclass(frozen=True, slots=True)
class Foreign:
    """Another tool's table; `readable` says whether the role may read it. `columns` are the names of its columns."""

    form: Form
    schema: str
    oid: int
    readable: bool = True
    columns: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def tool(self) -> str:
        """The tool's name."""
        return self.form.tool

    @property
    def table(self) -> Table:
        """The table's place."""
        return Table(self.schema, self.form.name)

    def __str__(self) -> str:
        return str(self.table)


def known(facts: Collection[dict[str, Any]]) -> tuple[Foreign, ...]:
    """Find the tables that have a tool's form, from the result of `query`."""
    return tuple(
        Foreign(form, one["schema"], one["oid"], one["readable"], frozenset(one["columns"] or ()))
        for form in FORMS.values()
        for one in sorted(facts, key=lambda one: str(one["schema"]))
        if form.name == one["name"]
        and (form.schema == one["schema"] if form.schema else one["schema"] not in foreign.OWN)
        and form.fits(one["columns"] or {})
    )


def in_use(found: Iterable[Foreign]) -> str:
    """Write the query that finds out for each table whether it records an applied migration."""
    return "SELECT " + ", ".join(
        f"EXISTS (SELECT FROM {one.table.quoted} WHERE {one.form.counts})" if one.readable else "true" for one in found
    )
