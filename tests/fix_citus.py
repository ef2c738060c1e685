"""A Citus cluster, where OUTREACH_TEST_CITUS_URL names its coordinator, as a superuser of all its nodes."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import fix_servers
import psycopg
import pytest
from psycopg import sql


@pytest.fixture
def citus() -> Iterator[str]:
    """The URL of an empty database of the cluster, dropped after the test."""
    if not (given := os.environ.get("OUTREACH_TEST_CITUS_URL")):
        pytest.skip("OUTREACH_TEST_CITUS_URL names no coordinator")
    with psycopg.connect(given, autocommit=True) as connection:
        workers = connection.execute("SELECT node_name, node_port FROM citus_get_active_worker_nodes()").fetchall()
        here = (connection.info.host, connection.info.port)
    nodes = [fix_servers.url(given, host=host, port=str(port)) for host, port in (here, *workers)]
    name = f"outreach_{uuid.uuid4().hex[:12]}"
    for node in nodes:
        _on(node, sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        _on(fix_servers.url(node, dbname=name), sql.SQL("CREATE EXTENSION citus"))
    database = fix_servers.url(nodes[0], dbname=name)
    _on(database, sql.SQL("SELECT citus_set_coordinator_host({}, {})").format(*here))
    for worker in workers:
        _on(database, sql.SQL("SELECT citus_add_node({}, {})").format(*worker))
    yield database
    for node in nodes:
        _on(node, sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _on(node: str, statement: sql.Composed | sql.SQL) -> None:
    with psycopg.connect(node, autocommit=True) as connection:
        connection.execute(statement)
