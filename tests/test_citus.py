"""Migrations of a Citus cluster; those that need one run where OUTREACH_TEST_CITUS_URL names its coordinator."""

from __future__ import annotations

from contextlib import closing

import psycopg
import pytest
from fix_cli import Migrate, Rows
from fix_servers import Connect

from outreach_migrate.history import read, table

TENANT = {
    "1_table.sql": "CREATE TABLE t (id int);",
    "2_index.sql": "-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY t_id ON t (id);\nINSERT INTO t VALUES (1);",
    "3_more.sql": "INSERT INTO t VALUES (2);",
}


DURABLE = """
    CREATE TABLE seen (version int, synchronous_commit text);
    CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.synchronous_commit IS NULL THEN
            INSERT INTO seen VALUES (NEW.version, current_setting('synchronous_commit'));
        END IF;
        RETURN NEW;
    END $$;
    CREATE CONSTRAINT TRIGGER see AFTER INSERT ON seen DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION see();"""


def test_the_history_tells_whether_the_database_has_citus(connect: Connect, request: pytest.FixtureRequest) -> None:
    """It is a fact of the one message that reads the history: the row of the extension."""
    assert not read.history(connect(), table.read(None)).citus
    request.getfixturevalue("seemingly_citus")
    assert read.history(connect(), table.read(None)).citus


@pytest.mark.parametrize(("extension", "waits"), [(False, ["off", "on"]), (True, ["on", "on"])])
def test_on_citus_every_commit_waits_for_the_disk(
    extension: bool, waits: list[str], migrate: Migrate, rows: Rows, request: pytest.FixtureRequest
) -> None:
    """A coordinator that forgot a commit in a crash would contradict its workers, whose part is durable at once."""
    if extension:
        request.getfixturevalue("seemingly_citus")
    files = {"1_a.sql": DURABLE, **{f"{n}_b.sql": f"INSERT INTO seen VALUES ({n})" for n in (2, 3)}}
    assert migrate("up", files=files).exit_code == 0
    seen = rows("SELECT synchronous_commit FROM seen WHERE synchronous_commit IS NOT NULL ORDER BY version")
    assert [setting for (setting,) in seen] == waits


def test_what_contradicts_parallel_work_is_hinted_at(migrate: Migrate) -> None:
    """Citus tells to run "the transaction" anew with its setting: of a migration that is in the file."""
    hint = "Try re-running the transaction with \"SET LOCAL citus.multi_shard_modify_mode TO ''sequential'';\""
    run = migrate("up", files={"1_a.sql": f"DO $$ BEGIN RAISE EXCEPTION 'no' USING HINT = '{hint}'; END $$;"})
    assert "\nhint: Begin the file with: SET LOCAL citus.multi_shard_modify_mode TO 'sequential';\n" in run.stderr


def test_locks_on_an_extensions_catalogs_are_not_told_of(migrate: Migrate, connect: Connect) -> None:
    """Citus keeps its tables in pg_catalog, and every DDL locks some of them; they concern nobody."""
    connection = connect()
    connection.execute("SET allow_system_table_mods = on")
    connection.execute("CREATE TABLE pg_catalog.pg_dist_thing (id int)")
    connection.execute("CREATE TABLE t (id int)")
    text = "LOCK TABLE pg_dist_thing IN EXCLUSIVE MODE; INSERT INTO pg_dist_thing VALUES (1); LOCK TABLE t;"
    document = migrate("--json", "rehearse", files={"1_a.sql": text}).json
    locks = [
        lock["relation"]["name"] for statement in document["files"][0]["statements"] for lock in statement["locks"]
    ]
    assert locks == ["t"]


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
