"""Backfills: a table of steps changed at once, by a shell loop of psql, and in batches, with and without other work."""

from __future__ import annotations

import os
import random
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from benchmarks.measure import Server
from outreach_migrate.postgres import private_server

SINGLE, LOOP, BATCHES, NOTHING = "one UPDATE", "a shell loop of psql", "up, in batches", "nothing else"
_ALONE = 5.0  # s that the other session is measured by itself
_PAUSE = 0.001  # s between two updates of the other session
_LOOP_ROWS = 5000
_TABLE = """
    CREATE TABLE "OutreachStep" (
        id text PRIMARY KEY, "triggeredBy" text, touched int NOT NULL DEFAULT 0, notes text NOT NULL);
    INSERT INTO "OutreachStep" (id, notes)
    SELECT 'c' || left(md5(n::text), 24), repeat('note ', 12) FROM generate_series(1, {rows}) AS n;
    VACUUM ANALYZE "OutreachStep"; CHECKPOINT"""
_UPDATE = """UPDATE "OutreachStep" SET "triggeredBy" = 'manual' WHERE "triggeredBy" IS NULL"""
_SHELL = f"""
run() {{ "$PSQL" -qAtX -d "$URL" -c "$1"; }}
last=''
while next=$(run "SELECT max(id) FROM (SELECT id FROM \\"OutreachStep\\" WHERE id > '$last' ORDER BY id
        LIMIT {_LOOP_ROWS}) AS part") && [ -n "$next" ]; do
    run "UPDATE \\"OutreachStep\\" SET \\"triggeredBy\\" = 'manual'
        WHERE \\"triggeredBy\\" IS NULL AND id > '$last' AND id <= '$next'"
    last=$next
done"""


@dataclass(slots=True)
class Result:
    """The seconds of the backfill by itself, and with the other session; that one's latencies, in seconds."""

    quiet: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    worst: list[float] = field(default_factory=list)


def measured(server: Server, folder: Path, rounds: int, rows: int) -> dict[str, Any]:
    """Measure all ways in turn, round after round, each on a copy of the table."""
    results = {name: Result() for name in (NOTHING, SINGLE, LOOP, BATCHES)}
    with _database(server, "") as base:
        with psycopg.connect(make_conninfo(server.conninfo, dbname=base), autocommit=True) as connection:
            for statement in _TABLE.replace("{rows}", str(rows)).split(";"):
                connection.execute(statement.encode())
            ids = [one for (one,) in connection.execute('SELECT id FROM "OutreachStep" TABLESAMPLE SYSTEM (5)')]
        for _ in range(rounds):
            for name, result in results.items():
                for other in (False, True) if name != NOTHING else (True,):
                    with _database(server, f"TEMPLATE {base}") as copy:
                        url = make_conninfo(server.conninfo, dbname=copy)
                        seconds, latencies = _carried_out(name, url, folder, ids if other else [])
                    (result.busy if other else result.quiet).append(seconds)
                    if other:
                        result.p99.append(quantiles(latencies, n=100, method="inclusive")[-1])
                        result.worst.append(max(latencies))
    return {"rows": rows, "ways": {name: vars_of(one) for name, one in results.items()}}


def vars_of(one: Result) -> dict[str, list[float]]:
    return {"quiet": one.quiet, "busy": one.busy, "p99": one.p99, "worst": one.worst}


@contextmanager
def _database(server: Server, template: str) -> Iterator[str]:
    name = f"bench_{secrets.token_hex(4)}"
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {template}".encode())
        try:
            yield name
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def _carried_out(name: str, url: str, folder: Path, ids: Sequence[str]) -> tuple[float, list[float]]:
    """Carry a backfill out one way; give its seconds, and the latencies of the other session."""
    latencies, ended = list[float](), threading.Event()
    other = threading.Thread(target=_touch, args=(url, ids, latencies, ended))
    if ids:
        other.start()
    began = time.monotonic()
    try:
        _WAYS[name](url, folder)
        seconds = time.monotonic() - began
    finally:
        ended.set()
        if ids:
            other.join()
    with psycopg.connect(url) as connection:
        left = connection.execute('SELECT count(*) FROM "OutreachStep" WHERE "triggeredBy" IS NULL').fetchall()[0][0]
    if left and name != NOTHING:
        raise RuntimeError(f"{name} has left out {left} rows")
    return seconds, latencies


def _touch(url: str, ids: Sequence[str], latencies: list[float], ended: threading.Event) -> None:
    """Update single rows, one after another."""
    with psycopg.connect(url, autocommit=True) as connection:
        while not ended.wait(_PAUSE):
            began = time.monotonic()
            connection.execute('UPDATE "OutreachStep" SET touched = touched + 1 WHERE id = %s', [random.choice(ids)])
            latencies.append(time.monotonic() - began)


def _nothing(_: str, __: Path) -> None:
    time.sleep(_ALONE)


def _single(url: str, _: Path) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_UPDATE.encode())


def _loop(url: str, _: Path) -> None:
    given = {"PSQL": str(private_server.program("psql")), "URL": url}
    subprocess.run(["sh", "-ec", _SHELL], env={**os.environ, **given}, check=True)


def _batches(url: str, folder: Path) -> None:
    files = folder / "backfill"
    files.mkdir(exist_ok=True)
    head = '-- migrate: batches of "OutreachStep" by id\n'
    (files / "1_backfill.sql").write_text(f"{head}{_UPDATE} AND :range;\n")
    command = [sys.executable, "-m", "outreach_migrate", "-q", "--dir", str(files), "up"]
    subprocess.run(command, env={**os.environ, "DATABASE_URL": url}, check=True)


_WAYS = {NOTHING: _nothing, SINGLE: _single, LOOP: _loop, BATCHES: _batches}


def text(document: dict[str, Any]) -> Iterator[str]:
    """Write the medians as lines for a terminal."""
    if not document:
        return
    yield ""
    yield f"A backfill of {document['rows']:,} rows  [backfill]   by itself, with another session; that one's updates"
    yield f"  {'':24}{'alone':>10}{'rate':>7}{'with':>10}{'99th':>11}{'worst':>11}"
    for name, one in document["ways"].items():
        alone = f"{median(one['quiet']):8.2f} s{_rate(document, name):7.2f}" if one["quiet"] else " " * 17
        p99, worst = median(one["p99"]) * 1000, max(one["worst"]) * 1000
        yield f"  {name:24}{alone}{median(one['busy']):8.2f} s{p99:8.1f} ms{worst:8.1f} ms"


def _rate(document: dict[str, Any], name: str) -> float:
    """Give the rate against the single UPDATE's, round by round."""
    pairs = zip(document["ways"][SINGLE]["quiet"], document["ways"][name]["quiet"], strict=True)
    return float(median(single / one for single, one in pairs))


def markdown(document: dict[str, Any]) -> Iterator[str]:
    """Write the manual's table."""
    if not document:
        return
    head = f"a backfill of {document['rows']:,} rows"
    yield from ("", f"| {head} | time | rate | the other session: 99th percentile | worst |")
    yield "| --- | ---: | ---: | ---: | ---: |"
    for name, one in document["ways"].items():
        alone = f"{median(one['quiet']):.1f} s | {_rate(document, name):.2f}" if one["quiet"] else " | "
        yield f"| {name} | {alone} | {median(one['p99']) * 1000:.1f} ms | {max(one['worst']) * 1000:.0f} ms |"


def targets(document: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Hold the figures against the issue's targets."""
    if not document:
        return
    rate, ways = _rate(document, BATCHES), document["ways"]
    yield "backfill: at least 0.8 of the rate of one UPDATE", f"{rate:.2f}", rate >= 0.8
    times = median(one / other for one, other in zip(ways[BATCHES]["p99"], ways[NOTHING]["p99"], strict=True))
    told = "backfill: the other session's 99th percentile at most 4 times that without"
    yield told, f"{times:.1f} times", times <= 4
    worst = max(ways[BATCHES]["worst"])
    yield "backfill: its worst under 100 ms", f"{worst * 1000:.0f} ms", worst < 0.1
