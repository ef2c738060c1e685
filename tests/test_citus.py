"""Migrations of a Citus cluster; those that need one run where OUTREACH_TEST_CITUS_URL names its coordinator."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from fix_cli import Migrate
from fix_servers import Connect

from outreach_migrate.history import read, table

TENANT = {
    "1_table.sql": "CREATE TABLE t (id int);",
    "2_index.sql": "-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY t_id ON t (id);\nINSERT INTO t VALUES (1);",
    "3_more.sql": "INSERT INTO t VALUES (2);",
}


@pytest.mark.parametrize("extension", [False, True])
def test_the_history_tells_whether_the_database_has_citus(extension: bool, connect: Connect) -> None:
    """It is a fact of the one message that reads the history: the row of the extension."""
    connection = connect()
    if extension:
        connection.execute("UPDATE pg_extension SET extname = 'citus' WHERE extname = 'plpgsql'")
    assert read.history(connection, table.read(None)).citus is extension


def test_a_tenants_history_may_be_distributed(citus: str, migrate: Migrate) -> None:
    """Of a schema that is a tenant all tables are on one of the workers, the history's too."""
    with closing(psycopg.connect(citus, autocommit=True)) as connection:
        connection.execute("SET citus.enable_schema_based_sharding = on")
        connection.execute("CREATE SCHEMA tenant_9")
        run = migrate("up", files=TENANT, url=f"{citus}{'&' if '?' in citus else '?'}schema=tenant_9")
        assert run.exit_code == 0, run
        tables = "SELECT table_name::text, citus_table_type FROM citus_tables ORDER BY 1"
        assert connection.execute(tables).fetchall() == [
            ("tenant_9.schema_migrations", "schema"),
            ("tenant_9.t", "schema"),
        ]
        times = """
            SELECT version, started_at <= finished_at AND finished_at <= clock_timestamp()
              FROM tenant_9.schema_migrations ORDER BY position"""
        assert connection.execute(times).fetchall() == [("1", True), ("2", True), ("3", True)]
