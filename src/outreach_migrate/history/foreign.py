"""The tables of other tools, looked for in the catalog; each run looks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from outreach_migrate.history.table import Table

NAMES = (
    *("__diesel_schema_migrations", "__drizzle_migrations", "_prisma_migrations", "_sqlx_migrations"),
    *("_yoyo_migration", "alembic_version", "flyway_schema_history", "goose_db_version"),
    *("schema_migrations", "schema_version"),
)
OWN = ("drizzle", "supabase_migrations")  # the schemas of tools that have one of their own


def schemas(table: Table, search_path: str | None) -> list[str]:
    """Name the schemas in which another tool's table counts: the history's own, and the URL's or public."""
    return sorted({table.schema, search_path or "public"})


def query(table: Table, search_path: str | None) -> str:
    """Write an expression for the tables of these names, as JSON; for any role, as history.catalog's."""
    names, places = (", ".join(map(sql.quote, some)) for some in (NAMES, (*schemas(table, search_path), *OWN)))
    return f"""(
        SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
                   'schema', n.nspname, 'name', c.relname, 'oid', c.oid::bigint,
                   'readable', pg_catalog.has_schema_privilege(n.oid, 'USAGE')
                       AND pg_catalog.has_table_privilege(c.oid, 'SELECT'),
                   'columns', (SELECT pg_catalog.json_object_agg(a.attname, t.typcategory)
                                 FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
                                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))), '[]')
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND c.relname = ANY (ARRAY[{names}]::pg_catalog.name[])
           AND n.nspname = ANY (ARRAY[{places}]::pg_catalog.name[]))"""


def query_of_many() -> str:
    """Write a query for the schemas in which relations have the name of a tool's table: their oids, and how many.

    A relation in a schema of a tool's own counts in all schemas, as one with the oid 0.
    """
    names, own = (", ".join(map(sql.quote, some)) for some in (NAMES, OWN))
    return f"""
        SELECT CASE WHEN n.nspname = ANY (ARRAY[{own}]::pg_catalog.name[]) THEN 0 ELSE n.oid END AS schema,
               pg_catalog.count(*) AS count
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relname = ANY (ARRAY[{names}]::pg_catalog.name[]) AND c.relkind IN ('r', 'p') GROUP BY 1"""
