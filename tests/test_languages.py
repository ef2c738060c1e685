"""A server that speaks another language than English: a run goes by SQLSTATE, and by the catalog."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from fix_cli import Migrate
from fix_servers import Connect
from psycopg import sql

LOCALES = ("de_DE.UTF-8", "fr_FR.UTF-8", "es_ES.UTF-8", "ru_RU.UTF-8", "ja_JP.UTF-8", "C.UTF-8")  # C with LANGUAGE
Rows = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(autouse=True)
def foreign(connect: Connect, database: str) -> None:
    """Let the test's database speak another language, where the server has one."""
    connection = connect()
    for locale in LOCALES:
        try:
            connection.execute(sql.SQL("SET lc_messages = {}").format(locale))
            connection.execute("SELECT 1 / 0")
        except psycopg.errors.DivisionByZero as error:
            if error.diag.message_primary != "division by zero":
                name = sql.Identifier(connection.info.dbname)
                connection.execute(sql.SQL("ALTER DATABASE {} SET lc_messages = {}").format(name, locale))
                return
        except psycopg.Error:
            continue
    pytest.skip("the server has messages in English only")


def test_a_statement_that_needs_no_transaction_gets_none(migrate: Migrate, rows: Rows) -> None:
    """Only the server knows that it refuses REINDEX of a partitioned table: the run then sends it by itself."""
    rows("CREATE TABLE p (a int) PARTITION BY RANGE (a); CREATE INDEX i ON p (a)")
    text = "-- migrate: no-transaction\nSELECT 1;\nREINDEX TABLE p;"
    assert migrate("up", files={"1_a.sql": text}).exit_code == 0
    refused = migrate("--json", "up", files={"2_b.sql": "REINDEX TABLE p;"})
    assert "no-transaction" in refused.json["error"]["hint"]


def test_a_limit_is_named(migrate: Migrate) -> None:
    """A statement that takes too long has the hint that names the limit."""
    run = migrate("--json", "up", "--statement-timeout", "50ms", files={"1_a.sql": "SELECT pg_sleep(9);"})
    assert (run.json["error"]["sqlstate"], "--statement-timeout" in run.json["error"]["hint"]) == ("57014", True)


def test_a_lock_is_waited_for_again(migrate: Migrate, connect: Connect, rows: Rows) -> None:
    """A lock timeout is one in any language: the file is tried again."""
    rows("CREATE TABLE t (a int)")
    connect().execute("BEGIN; LOCK TABLE t")
    run = migrate("up", "--lock-timeout", "100ms", "--lock-retries", "1", files={"1_a.sql": "DROP TABLE t;"})
    assert run.exit_code == 1
    assert "retrying in" in run.stderr


def test_entries_that_a_file_removes_are_missed(migrate: Migrate) -> None:
    """The entry's update finds none, and the message says so in words of its own."""
    run = migrate("--json", "up", files={"1_a.sql": "DELETE FROM schema_migrations;"})
    assert run.json["error"]["message"].startswith("the file, or a trigger or rule, removed entries")
