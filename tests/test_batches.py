"""Backfills in batches: each range of the key once, in a transaction with its progress."""

from __future__ import annotations

import random
import time
from typing import Any

import fix_servers
from fix_cli import Migrate, Rows, Run
from fix_waiting import Sessions, until

HEAD = '-- migrate: batches of steps by "id"\n'
BACKFILL = f"{HEAD}UPDATE steps SET n = n + 1 WHERE :range;"
KINDS = {  # a type, and values in no order, the first and the last row of the table among them
    "int": "SELECT i FROM generate_series(-1500, 1500) i",
    "uuid": "SELECT md5(i::text)::uuid FROM generate_series(1, 3000) i",
    "text": "SELECT repeat(chr(33 + i % 90), 1 + i / 90) || '''\\é' FROM generate_series(1, 3000) i",
    "char(9)": "SELECT i::text FROM generate_series(1, 3000) i",
    "float8": "SELECT i / 7.0::float8 FROM generate_series(1, 3000) i UNION VALUES ('NaN'::float8), ('-Infinity')",
    "timestamptz": "SELECT 'epoch'::timestamptz + i * interval '9.000001 h' FROM generate_series(-1500, 1500) i",
    "pair": "SELECT (i % 7, chr(40 + i % 60) || i)::pair FROM generate_series(1, 3000) i",
    "short": "SELECT i::text FROM generate_series(1, 3000) i",
    "int[]": "SELECT ARRAY[i % 3, i] FROM generate_series(1, 3000) i",
}


def steps(rows: Rows, count: int) -> None:
    """Make the table with so many rows."""
    rows("CREATE TABLE steps (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)")
    rows("INSERT INTO steps SELECT generate_series(1, %s)", count)


def counted(rows: Rows) -> list[tuple[Any, ...]]:
    """Give how many rows were changed how often."""
    return rows("SELECT n, count(*) FROM steps GROUP BY n ORDER BY n")


def test_each_row_is_in_one_range_whatever_the_key_is(migrate: Migrate, rows: Rows) -> None:
    """Any type with an order is a key, also where the role's settings write and read its values in another way."""
    rows('CREATE TYPE pair AS (a int, b text); CREATE DOMAIN short AS text COLLATE "C"')
    odd = "-c DateStyle=SQL,DMY -c extra_float_digits=-5 -c IntervalStyle=sql_standard"
    files = []
    for number, (kind, values) in enumerate(KINDS.items()):
        rows(f'CREATE TABLE t{number} ("Key" {kind} PRIMARY KEY, n int DEFAULT 0); INSERT INTO t{number} {values}')
        files.append(f'-- migrate: batches of t{number} by "Key"\nUPDATE t{number} SET n = n + 1 WHERE :range;')
    done = migrate("up", files=files, url=fix_servers.url(migrate.url, options=odd))
    assert done.exit_code == 0, done.output
    for number, kind in enumerate(KINDS):
        ((times, count),) = rows(f"SELECT n, count(*) FROM t{number} GROUP BY n")
        assert (times, count >= 3000) == (1, True), kind
    assert rows("SELECT count(*) FROM schema_migrations_batches") == [(0,)]


def killed(run: Run, sessions: Sessions, seconds: float) -> None:
    """Kill a run so long after it has connected."""
    until(lambda: sessions.of_runs() or not run.lives)
    time.sleep(seconds)
    run.kill()


def test_a_killed_backfill_goes_on_where_it_was(migrate: Migrate, rows: Rows, sessions: Sessions, seed: int) -> None:
    """No range is done twice, and none left out, whenever the run is killed."""
    luck = random.Random(seed)
    steps(rows, 20_000)
    migrate.write([f"{HEAD.strip()} each 20ms\nUPDATE steps SET n = n + 1 WHERE :range;"])
    for _ in range(2):
        killed(migrate.start("up"), sessions, luck.uniform(0, 0.5))
    done = migrate.process("up")
    assert done.exit_code == 0, done.output
    assert counted(rows) == [(1, 20_000)]
