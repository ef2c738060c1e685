"""Drift of a large schema beside one pg_dump: the time of each, and how long it keeps locks on the tables."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from benchmarks import measure, tools
from benchmarks.measure import Command, Server
from outreach_migrate.files import migrations
from outreach_migrate.postgres import connections, dsn
from outreach_migrate.run import request
from outreach_migrate.schema import drift, pg_dump
from outreach_migrate.schema.scratch import Scratch

DUMP, COMPARE, DRIFT, REPLAY = "pg_dump --schema-only", "drift, without the replay", "drift", "up of the same files"
_LIMIT = 600.0  # s
_PAUSE = 0.002  # s between two looks at the locks
_LOCKS = """
    SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'relation' AND relation >= 16384
                      AND database = (SELECT oid FROM pg_database WHERE datname = %s))"""


def measured(server: Server, work: Path, rounds: int, count: int) -> dict[str, Any]:
    """Measure all in turn, round after round, on a database with so many tables, each made by a file of its own.

    Locks are measured in rounds of their own, because to look at them takes the server's time.
    """
    folder = work / "drift"
    folder.mkdir()
    tools.plain(folder, list(tools.grown(count)))
    url, other = server.database(), server.database()
    for one in (url, other):
        measure.launch(tools.ours("up")(work, folder, one), work, limit=_LIMIT)
    asked, made = request.of(url, migrations.read(str(folder))), Scratch(dsn.read(other))
    dump = Command([pg_dump._program(int(server.version.partition(".")[0])), "--schema-only", url])
    with closing(connections.connect(asked.target)) as connection:

        def compare() -> drift.Drift:
            return drift.beside(connection, asked, asked.files, made)

        found = compare().comparison
        if found.differences:
            raise RuntimeError(f"{len(found.differences)} objects differ")
        ways: dict[str, Callable[[], object]] = {
            DUMP: lambda: measure.launch(dump, work, limit=_LIMIT),
            COMPARE: compare,
            DRIFT: lambda: measure.launch(tools.ours("drift")(work, folder, url), work, limit=_LIMIT),
            REPLAY: lambda: measure.launch(tools.ours("up")(work, folder, server.database()), work, limit=_LIMIT),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        locked: dict[str, list[float]] = {DUMP: [], COMPARE: []}
        for _ in range(rounds):
            for name, way in ways.items():
                began = time.monotonic()
                sample = way()
                wall = sample.wall if isinstance(sample, measure.Sample) else time.monotonic() - began
                seconds[name].append(wall)
            for name, durations in locked.items():
                durations.append(_locked(server.conninfo, url, ways[name]))
    return {"tables": count, "objects": found.objects, "seconds": seconds, "locked": locked}


def _locked(conninfo: str, url: str, way: Callable[[], object]) -> float:
    """Give the time from the first to the last lock on a table of a database, seen every few milliseconds."""
    seen, ended = list[float](), threading.Event()

    def look() -> None:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            while not ended.wait(_PAUSE):
                if connection.execute(_LOCKS, [conninfo_to_dict(url)["dbname"]]).fetchall()[0][0]:
                    seen.append(time.monotonic())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        way()
    finally:
        ended.set()
        thread.join()
    return seen[-1] - seen[0] if seen else 0.0


def _rate(document: dict[str, Any], kind: str) -> float:
    """Give the ratio of drift to pg_dump, the median of all rounds."""
    pairs = zip(document[kind][COMPARE], document[kind][DUMP], strict=True)
    return float(median(one / other for one, other in pairs))


def text(document: dict[str, Any]) -> Iterator[str]:
    """Write the medians as lines for a terminal."""
    if not document:
        return
    yield ""
    yield f"Drift, {document['tables']} tables, {document['objects']:,} objects  [drift]   and its locks on tables"
    for name, walls in document["seconds"].items():
        locks = document["locked"].get(name)
        kept = f"{median(locks) * 1000:9.0f} ms" if locks else ""
        yield f"  {name:28}{median(walls) * 1000:9.0f} ms{kept}"


def markdown(document: dict[str, Any]) -> Iterator[str]:
    """Write the manual's table."""
    if not document:
        return
    yield from (
        "",
        f"| {document['tables']} tables, {document['objects']:,} objects | time (rounds) | locks on tables |",
    )
    yield "| --- | ---: | ---: |"
    for name, walls in document["seconds"].items():
        low, middle, high = (f"{one * 1000:.0f}" for one in (min(walls), median(walls), max(walls)))
        locks = document["locked"].get(name)
        kept = f"{median(locks) * 1000:.0f} ms" if locks else ""
        yield f"| {name} | {middle} ms ({low} to {high}) | {kept} |"


def targets(document: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Hold the figures against the issue's targets."""
    if not document:
        return
    rate, locks = _rate(document, "seconds"), _rate(document, "locked")
    yield "drift, without the replay: under 2 times pg_dump", f"{rate:.2f} times", rate < 2
    yield "drift: locks tables no longer than pg_dump", f"{locks:.2f} times", locks <= 1
