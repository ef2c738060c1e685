"""Fleets whose process, sessions or server are killed: one more `fleet up` makes it good."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import fix_servers
import psycopg
import pytest
from fix_cli import Migrate, Run
from fix_faults import LONG, ROUNDS
from fix_private_server import PrivateServer
from psycopg import sql

TARGETS = 40
FILES = [
    "CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0); INSERT INTO t SELECT generate_series(1, 20);"
    " CREATE TABLE trail (file int NOT NULL, step int NOT NULL);",
    "INSERT INTO trail VALUES (2, 1); UPDATE t SET n = n + 2; ALTER TABLE t ADD c2 int DEFAULT 2;",
    """-- migrate: no-transaction
    INSERT INTO trail VALUES (3, 1);
    CREATE INDEX CONCURRENTLY t_n ON t (n);
    UPDATE t SET n = n + 3;""",
    "INSERT INTO trail VALUES (4, 1); UPDATE t SET n = n * 2; CREATE INDEX ON t (c2);",
]
FACTS = """
    SELECT pg_catalog.json_build_object(
        'history', (SELECT json_agg(ROW(position, version, checksum, statements_done, finished_at IS NOT NULL)
                                    ORDER BY position) FROM schema_migrations),
        't', (SELECT json_agg(t ORDER BY id) FROM t),
        'trail', (SELECT json_agg(trail ORDER BY file, step) FROM trail),
        'indexes', (SELECT json_agg(ROW(c.relname, i.indisvalid, i.indisready) ORDER BY c.relname)
                      FROM pg_index i JOIN pg_class c ON c.oid = indexrelid
                     WHERE c.relnamespace = current_schema()::regnamespace))"""
ALL = ["fleet", "--schemas", "tenant_*"]
AGAIN = [*ALL, "up", "-j", "8", "--keep-going"]


def make(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for n in range(1, TARGETS + 1):
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(f"tenant_{n}")))


def facts(url: str) -> list[Any]:
    """Give the contents of each schema, without the parts that differ from run to run."""
    found = []
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for n in range(1, TARGETS + 1):
            connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(f"tenant_{n}")))
            found.append(connection.execute(FACTS).fetchall())
    return found


@pytest.fixture(scope="module")
def undisturbed(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[Any], float]]:
    """The result of a fleet without a fault, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "sql").mkdir()
    for number, text in enumerate(FILES, 1):
        (folder / "sql" / f"{number}_a.sql").write_text(text, encoding="utf-8")
    with fix_servers.fresh_database(server_url) as url:
        make(url)
        began = time.monotonic()
        ended = Run(AGAIN, folder, folder / "run", DATABASE_URL=url).end()
        took = time.monotonic() - began
        assert ended.exit_code == 0, ended
        found = facts(url)
        assert found == found[:1] * TARGETS
        yield found, took


def terminated(url: str, chance: random.Random) -> None:
    with closing(psycopg.connect(url, autocommit=True, application_name="the test")) as watching:
        watching.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'outreach-migrate' AND datname = current_database() AND random() < %s",
            [chance.choice([0.3, 1.0])],
        )


@pytest.mark.parametrize("way", ["SIGKILL", "backends"])
def test_a_fleet_that_is_killed_is_made_good_by_the_next(
    way: str, migrate: Migrate, seed: int, undisturbed: tuple[list[Any], float]
) -> None:
    """Killed some times over, at any instant, one more fleet leaves each target as an undisturbed one does."""
    chance = random.Random(f"{seed} {way}")
    make(migrate.url)
    migrate.write(FILES)
    for _ in range(chance.choice([1, 2])):
        run = migrate.start(*AGAIN)
        time.sleep(chance.uniform(0.2, undisturbed[1]))
        if way == "SIGKILL":
            run.kill()
        else:
            terminated(migrate.url, chance)
            ended = run.end()
            assert ended.exit_code in (0, 1), ended
            assert "Traceback" not in ended.output
    ended = migrate.process(*AGAIN)
    assert ended.exit_code == 0, ended
    assert facts(migrate.url) == undisturbed[0]


@pytest.mark.skipif(not LONG, reason="make test-faults runs it")
def test_a_fleet_whose_server_crashes_is_made_good_by_the_next(
    migrate: Migrate, undisturbed: tuple[list[Any], float], private_server: Callable[..., PrivateServer]
) -> None:
    """The fleet ends with an error for each target that ran; after the restart one more makes all good."""
    chance = random.Random()
    server = private_server()
    migrate.write(FILES)
    for number in range(max(2, ROUNDS // 3)):
        name = f"round_{number}"
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
        make(fix_servers.url(server.url, dbname=name))
        run = migrate.start(*AGAIN, url=fix_servers.url(server.url, dbname=name))
        time.sleep(chance.uniform(0.2, undisturbed[1]))
        server.kill()
        ended = run.end()
        assert ended.exit_code in (0, 1), ended
        assert "Traceback" not in ended.output
        server.start()
        url = fix_servers.url(server.url, dbname=name)
        ended = migrate.process(*AGAIN, url=url)
        assert ended.exit_code == 0, ended
        assert facts(url) == undisturbed[0]
