"""The outreach database as Prisma made it: its migrations as Prisma's folders, its tables, and Prisma's rows."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import LiteralString

import psycopg
from fix_cli import Migrate

SQL = Path(__file__).parents[1] / "sql"
APPLIED = {
    "20260101000000_outreach_baseline": ("2026-01-02 08:30:11.204+00", "2026-01-02 08:30:11.257+00"),
    "20260115000000_cadence_engine_columns": ("2026-01-16 17:04:52.881+00", "2026-01-16 17:04:52.894+00"),
}
TABLE: LiteralString = """
    CREATE TABLE _prisma_migrations (
        id varchar(36) PRIMARY KEY, checksum varchar(64) NOT NULL, finished_at timestamptz,
        migration_name varchar(255) NOT NULL, logs text, rolled_back_at timestamptz,
        started_at timestamptz NOT NULL DEFAULT now(), applied_steps_count int NOT NULL DEFAULT 0);"""
SCHEMA: LiteralString = """
    SELECT c.relname::text, c.relkind::text, a.attname::text, format_type(a.atttypid, a.atttypmod),
           pg_get_expr(d.adbin, d.adrelid), pg_get_indexdef(c.oid),
           (SELECT array_agg(pg_get_constraintdef(o.oid) ORDER BY 1) FROM pg_constraint o WHERE conrelid = c.oid)
      FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
      LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
     WHERE c.relname LIKE 'Outreach%' ORDER BY 1, a.attnum"""


def prisma(migrate: Migrate) -> None:
    """Write the folder, and make the database, as `prisma migrate deploy` did."""
    folder = migrate.folder / "prisma" / "migrations"
    folder.mkdir(parents=True)
    (folder / "migration_lock.toml").write_text('provider = "postgresql"\n')
    with psycopg.connect(migrate.url, autocommit=True) as connection:
        connection.execute(TABLE)
        for name, times in APPLIED.items():
            text = (SQL / f"{name}.sql").read_bytes()
            (folder / name).mkdir()
            (folder / name / "migration.sql").write_bytes(text)
            connection.execute(text)
            connection.execute(
                "INSERT INTO _prisma_migrations (id, checksum, migration_name, started_at, finished_at,"
                " applied_steps_count) VALUES (gen_random_uuid(), %s, %s, %s, %s, 1)",
                (hashlib.sha256(text).hexdigest(), name, *times),
            )
