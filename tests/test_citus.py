"""Migrations of a Citus cluster; those that need one run where OUTREACH_TEST_CITUS_URL names its coordinator."""

from __future__ import annotations

import re
from contextlib import closing

import fix_servers
import psycopg
import pytest
from fix_cli import Migrate, Rows
from fix_servers import Connect
from fix_waiting import GATE, until

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


def tenant(citus: str) -> str:
    return f"{citus}{'&' if '?' in citus else '?'}schema=tenant_9"


def test_the_history_tells_whether_the_database_has_citus(database: str, connect: Connect) -> None:
    """It is a fact of the one message that reads the history: the row of the extension."""
    assert not read.history(connect(), table.read(None)).citus
    fix_servers.seem_citus(database)
    assert read.history(connect(), table.read(None)).citus


@pytest.mark.parametrize(("extension", "waits"), [(False, ["off", "on"]), (True, ["on", "on"])])
def test_on_citus_every_commit_waits_for_the_disk(
    extension: bool, waits: list[str], database: str, migrate: Migrate, rows: Rows
) -> None:
    """A coordinator that forgot a commit in a crash would contradict its workers, whose part is durable at once."""
    if extension:
        fix_servers.seem_citus(database)
    files = {"1_a.sql": DURABLE, **{f"{n}_b.sql": f"INSERT INTO seen VALUES ({n})" for n in (2, 3)}}
    assert migrate("up", files=files).exit_code == 0
    seen = rows("SELECT synchronous_commit FROM seen WHERE synchronous_commit IS NOT NULL ORDER BY version")
    assert [setting for (setting,) in seen] == waits


def test_what_contradicts_parallel_work_is_hinted_at(migrate: Migrate) -> None:
    """Citus tells to run "the transaction" anew with its setting: of a migration that is in the file."""
    hint = "Try re-running the transaction with \"SET LOCAL citus.multi_shard_modify_mode TO ''sequential'';\""
    run = migrate("up", files={"1_a.sql": f"DO $$ BEGIN RAISE EXCEPTION 'no' USING HINT = '{hint}'; END $$;"})
    assert "\nhint: Begin the file with: SET LOCAL citus.multi_shard_modify_mode TO 'sequential';\n" in run.stderr


def test_what_contradicts_an_earlier_files_parallel_work_may_pass_in_a_run(migrate: Migrate) -> None:
    """A rehearsal is one transaction, where each file of a run has its own: it stops, and is no failure."""
    hint = "Try re-running the transaction with \"SET LOCAL citus.multi_shard_modify_mode TO ''sequential'';\""
    refused = f"DO $$ BEGIN RAISE EXCEPTION 'no' USING HINT = '{hint}'; END $$;"
    run = migrate("--json", "rehearse", files=["SELECT 1;", refused, "SELECT 3;"])
    assert run.exit_code == 0
    reasons = [file["not_rehearsed"] for file in run.json["files"]]
    why = "Citus refuses it after an earlier file's work; in a run each has a transaction of its own"
    assert reasons == [None, f"sql/2_a.sql:1:1: no: {why}", why]
    assert migrate("rehearse", files={"1_a.sql": refused}).exit_code == 1


def test_locks_on_an_extensions_catalogs_are_not_reported(migrate: Migrate, connect: Connect) -> None:
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


def test_a_rehearsal_keeps_the_mode_that_citus_sets(citus: str, migrate: Migrate) -> None:
    """A schema of an earlier file is seen by one connection to each worker alone until the transaction ends."""
    distributed = "CREATE TABLE app.t (id int); SELECT create_distributed_table('app.t', 'id');"
    run = migrate("rehearse", files=["CREATE SCHEMA app;", distributed, "COPY app.t FROM stdin;\n1\n\\.\n"], url=citus)
    assert run.exit_code == 0, run


def test_a_tenants_history_may_be_distributed(citus: str, migrate: Migrate) -> None:
    """Of a schema that is a tenant all tables are on one of the workers, the history's too."""
    with closing(psycopg.connect(citus, autocommit=True)) as connection:
        connection.execute("SET citus.enable_schema_based_sharding = on")
        connection.execute("CREATE SCHEMA tenant_9")
        run = migrate("up", files=TENANT, url=tenant(citus))
        assert run.exit_code == 0, run
        assert "WARNING" not in run.stderr
        tables = "SELECT table_name::text, citus_table_type FROM citus_tables ORDER BY 1"
        assert connection.execute(tables).fetchall() == [
            ("tenant_9.schema_migrations", "schema"),
            ("tenant_9.t", "schema"),
        ]
        times = """
            SELECT version, started_at <= finished_at AND finished_at <= clock_timestamp()
              FROM tenant_9.schema_migrations ORDER BY position"""
        assert connection.execute(times).fetchall() == [("1", True), ("2", True), ("3", True)]


def test_distributed_tables_are_altered_and_indexed_among_other_statements(citus: str, migrate: Migrate) -> None:
    """Citus sends a statement's text on to its workers: in a message of several it would be the text of all."""
    files = {
        "1_tables.sql": """
            CREATE TABLE country (id int PRIMARY KEY);
            SELECT create_reference_table('country');
            CREATE TABLE person (tenant int, id int, country int REFERENCES country, PRIMARY KEY (tenant, id));
            SELECT create_distributed_table('person', 'tenant');
            ALTER TABLE person ADD COLUMN email text; -- a comment; with a semicolon
            CREATE INDEX person_email ON person (email);
            INSERT INTO country VALUES (1);
            INSERT INTO person VALUES (1, 1, 1, 'é')""",
        "2_index.sql": "-- migrate: no-transaction\nCREATE INDEX CONCURRENTLY person_id ON person (id);",
        "3_fails.sql": "ALTER TABLE person ADD COLUMN phone text;\nALTER TABLE person ADD CHECK (id > 1);",
    }
    run = migrate("--json", "up", files=files, url=citus)
    error = run.json["error"]
    assert (error["sqlstate"], error["line"], error["column"], error["statement"]) == ("23514", 2, 1, 2)
    with closing(psycopg.connect(citus, autocommit=True)) as connection:
        shards = "SELECT DISTINCT result FROM run_command_on_shards('person', {})"
        indexes = "$$SELECT count(*) FROM pg_index WHERE indrelid = '%s'::regclass AND indisvalid$$"
        columns = "$$SELECT count(*) FROM pg_attribute WHERE attrelid = '%s'::regclass AND attnum > 0$$"
        assert connection.execute(shards.format(indexes).encode()).fetchall() == [("3",)]
        assert connection.execute(shards.format(columns).encode()).fetchall() == [("4",)]
        assert connection.execute("SELECT email FROM person").fetchall() == [("é",)]


def test_an_index_that_only_some_shards_have_is_built_anew(citus: str, migrate: Migrate) -> None:
    """A build that fails on one shard leaves an invalid index on the coordinator, and none on most other shards."""
    files = {
        "1_table.sql": """
            CREATE TABLE t (id int);
            SELECT create_distributed_table('t', 'id');
            INSERT INTO t VALUES (1), (1);""",
        "2_index.sql": "-- migrate: no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY t_id ON t (id);",
    }
    assert "0 of 1 statement done" in migrate("up", files=files, url=citus).stderr
    with closing(psycopg.connect(citus, autocommit=True)) as connection:
        connection.execute("DELETE FROM t")
        run = migrate("up", url=citus)
        assert run.exit_code == 0, run
        shards = """
            SELECT result, count(*) FROM run_command_on_shards('t',
                $$SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = '%s'::regclass$$) GROUP BY 1"""
        assert connection.execute(shards).fetchall() == [("t", 32)]


def test_what_must_not_run_after_parallel_work_runs_with_the_setting_of_the_hint(citus: str, migrate: Migrate) -> None:
    """The file begins with the hint's line, and passes."""
    files = {
        "1_table.sql": "CREATE TABLE t (id int);\nSELECT create_distributed_table('t', 'id');",
        "2_type.sql": "ALTER TABLE t ADD COLUMN n int;\nCREATE TYPE mood AS ENUM ('good');",
    }
    refused = migrate("up", files=files, url=citus)
    first = re.search(r"^hint: Begin the file with: (.*;)$", refused.stderr, re.MULTILINE)
    assert first, refused
    files["2_type.sql"] = f"{first[1]}\n{files['2_type.sql']}"
    assert migrate("up", files=files, url=citus).exit_code == 0


def test_a_lock_on_a_shard_is_waited_for_as_any_other(citus: str, migrate: Migrate) -> None:
    """A session of a worker may lock a shard, and the coordinator doesn't know of it: it is named, by a pid to end."""
    table = {"1_table.sql": "CREATE TABLE t (id int);\nSELECT create_distributed_table('t', 'id');"}
    assert migrate("up", files=table, url=citus).exit_code == 0
    with closing(psycopg.connect(citus, autocommit=True)) as coordinator:
        host, port = coordinator.execute("SELECT * FROM citus_get_active_worker_nodes()").fetchall()[0]
        with closing(psycopg.connect(fix_servers.url(citus, host=host, port=str(port)))) as holder:
            holder.execute("SELECT FROM t")
            run = migrate(
                *("--json", "up", "--lock-timeout", "3s", "--lock-retries", "0", "--statement-timeout", "9s"),
                files={"2_add.sql": "ALTER TABLE t ADD COLUMN n int;"},
                url=citus,
            )
            error = run.json["error"]
            assert error["sqlstate"] == "55P03"
            (blocker,) = error["blockers"]
            assert (blocker["query"], blocker["state"]) == ("SELECT FROM t", "idle in transaction")
            assert coordinator.execute("SELECT pg_terminate_backend(%s)", [blocker["pid"]]).fetchall() == [(True,)]


def test_a_run_that_waits_on_a_worker_says_for_whom(citus: str, migrate: Migrate) -> None:
    """Of a tenant the history is on a worker, and so is the wait for another run's entry."""
    migrate.write(["CREATE TABLE t (id int);", GATE])
    with closing(psycopg.connect(citus, autocommit=True)) as gate:
        gate.execute("SET citus.enable_schema_based_sharding = on")
        gate.execute("CREATE SCHEMA tenant_9")
        gate.execute("SELECT pg_advisory_lock(4711)")
        first = migrate.start("up", "--lock-timeout", "0", url=tenant(citus), PGAPPNAME="the first one")
        until(lambda: "1  a  applied" in first.stdout)
        second = migrate.start("up", url=tenant(citus))
        assert "application the first one" in second.says("waiting for another run")
    ended = [first.end(), second.end()]
    assert [one.exit_code for one in ended] == [0, 0], ended


@fix_servers.each_way
def test_a_file_is_read_as_it_was_written(migrate: Migrate, rows: Rows) -> None:
    """Whatever a file sets, its text is UTF-8, and a backslash in a plain string is one."""
    text = r"""
        SET client_encoding = latin1;
        CREATE TABLE t AS SELECT 'é' AS text;
        SELECT set_config('client_encoding', 'LATIN1', true);
        SET standard_conforming_strings = off;
        INSERT INTO t VALUES ('é\n');
        RESET ALL;
        INSERT INTO t VALUES ('é\'), ('');"""
    assert migrate("up", files={"1_a.sql": text}).exit_code == 0
    assert rows("SELECT text FROM t ORDER BY length(text)") == [("",), ("é",), ("é\\",), ("é\\n",)]
