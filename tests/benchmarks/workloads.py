"""What is measured: the workloads, each with its floor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import tools
from benchmarks.measure import Command
from benchmarks.tools import File, Start, Tool
from outreach_migrate.postgres import private_server

SLOW_FLUSH = ("commit_delay = 5000", "commit_siblings = 0")  # each flush waits 5 ms more
UP, REHEARSE = "up", "rehearse"
EIGHT, ONE, PSQL = "eight runs at once", "one run", "psql"
FEW = replace(tools.US, name="few", write=lambda folder, files: tools.plain(folder, files[:10]))
IMPORTS = "import click, psycopg"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the workloads are; the targets are those of FULL."""

    files: tuple[int, ...] = (1, 100, 1000, 5000)
    many: int = 100  # of the round trips, the slow flush, and the eight runs
    applied: tuple[int, ...] = (100, 1000)
    megabytes: float = 20.0
    rehearsed: tuple[int, int, int] = (1000, 287, 30_000)  # tables, grown files, INSERTs
    tested: tuple[int, ...] = (20, 100, 300)  # tables of a database for a test, a file each
    tested_project: int = 20  # tables of one, with five files each
    backfilled: int = 10_000_000  # rows
    drifted: int = 500  # tables


FULL = Sizes()
QUICK = Sizes((1, 10, 20, 50), 10, (10, 20), 1.0, (20, 10, 100), (5,), 2, 1_000_000, 20)


@dataclass(frozen=True, slots=True)
class Case:
    """One tool in a workload. After `first`, run once and unmeasured, its database is kept for all rounds."""

    name: str
    tool: Tool
    start: Start
    first: Start | None = None
    times: int = 1
    leaves_tables: bool = True


@dataclass(frozen=True, slots=True)
class Workload:
    """The task of the cases; the first is the floor, `floor` in words.

    `tables` are to be there in the end; without any there is no database. `share` scales the number of rounds, and
    round trips are counted where `is_counted`.
    """

    name: str
    title: str
    floor: str
    cases: tuple[Case, ...]
    files: Callable[[], Iterator[File]]
    tables: int
    share: float = 1.0
    settings: tuple[str, ...] = ()
    round_trip: float = 0.0
    is_counted: bool = True


def everything(sizes: Sizes, peers: Sequence[Tool]) -> list[Workload]:
    """Make the issue's table of workloads."""
    loop = "bare psycopg loop, one message a file: BEGIN; file; INSERT; COMMIT"
    ups = tuple(Case(tool.name, tool, tool.up) for tool in (tools.BARE, tools.US, *peers))
    found = []
    for count in sizes.files:
        title, share = (
            f"Fresh apply, {count:,} file{'s'[: count - 1]}",
            0.6 if count >= 5000 else 2 if count == 1 else 1,
        )
        found.append(
            Workload(f"apply-{count}", title, loop, ups, _tables(count), count, share, is_counted=count < 5000)
        )
    apply = replace(found[0], files=_tables(sizes.many), tables=sizes.many, share=1.0)
    title = f"Fresh apply, {sizes.many} files"
    found += [
        replace(apply, name="far", title=f"{title}, 5 ms round trips", round_trip=0.005),
        replace(apply, name="slow-flush", title=f"{title}, flush takes 5 ms more", settings=SLOW_FLUSH),
        *_nothing_to_do(sizes, peers),
        _grown(sizes),
        *_offline(),
        *_large(sizes, peers),
        *_rehearsed(sizes),
    ]
    cases = (
        Case(ONE, tools.US, tools.US.up),
        Case(EIGHT, tools.US, tools.US.up, times=8),
        # what of it is the interpreter's and the libraries' start
        Case("eight imports at once", tools.BARE, tools.python(IMPORTS), first=tools.US.up, times=8),
    )
    title += ", eight runs at once"
    return [*found, replace(apply, name="eight", title=title, floor=ONE, cases=cases, is_counted=False)]


def _tables(count: int) -> Callable[[], Iterator[File]]:
    return lambda: tools.tables(count)


def _nothing_to_do(sizes: Sizes, peers: Sequence[Tool]) -> Iterator[Workload]:
    bare = tools.BARE.status or tools.BARE.up
    floor = Case(tools.FLOOR, tools.BARE, bare, first=tools.BARE.up)
    for count in sizes.applied:
        for name, title in (("nothing", "Nothing to do"), ("status", "Status")):
            cases = [floor]
            for tool in (tools.US, *peers):
                start = tool.up if name == "nothing" else tool.status
                if start:
                    cases.append(Case(tool.name, tool, start, first=tool.up))
            yield Workload(
                f"{name}-{count}",
                f"{title}, {count:,} applied",
                f'python -c "{IMPORTS}", connect, one SELECT',
                tuple(cases),
                _tables(count),
                count,
                share=2,
            )


def _grown(sizes: Sizes) -> Workload:
    """Make the workload that compares few applied files with many, in turn: no machine is the same for long."""
    count = sizes.applied[-1]
    cases = tuple(
        Case(f"{word}, {many} applied", tool, start, first=tool.up)
        for word in ("up", "status")
        for many, tool in (("10", FEW), (f"{count:,}", tools.US))
        if (start := tool.up if word == "up" else tool.status)
    )
    title = f"Nothing to do and status, 10 and {count:,} applied"
    return Workload("grown", title, "up, 10 applied", cases, _tables(count), count, share=4, is_counted=False)


def _offline() -> Iterator[Workload]:
    floor = Case(tools.FLOOR, tools.BARE, tools.python("import click"))
    for words in (["--version"], ["--help"], ["check"], ["new", "name"]):
        yield Workload(
            f"offline-{words[0].strip('-')}",
            f"outreach-migrate {' '.join(words)}",
            'python -c "import click"',
            (floor, Case(tools.OURS, tools.US, tools.ours(*words))),
            _tables(10),
            0,
            share=4,
            is_counted=False,
        )


def _large(sizes: Sizes, peers: Sequence[Tool]) -> Iterator[Workload]:
    def psql(home: Path, folder: Path, url: str) -> Command:
        quiet = ["-X", "-q", "-1", "-v", "ON_ERROR_STOP=1"]
        return Command([str(private_server.program(PSQL)), *quiet, "-f", str(next(folder.glob("*.sql"))), url])

    ups = (Case(tool.name, tool, tool.up) for tool in (tools.US, *peers))
    cases = (Case(PSQL, tools.BARE, psql), *ups)
    for rows in (1, 100):
        title = f"One file of {sizes.megabytes:g} MB of INSERTs, {rows} {'row' if rows == 1 else 'rows'} each"

        def files(rows: int = rows) -> Iterator[File]:
            return tools.inserts(sizes.megabytes, rows)

        yield Workload(f"large-{rows}", title, "psql -1 -f", cases, files, 1, is_counted=False)


def _rehearsed(sizes: Sizes) -> Iterator[Workload]:
    tables, files, inserts = sizes.rehearsed
    up, rehearse = Case(UP, tools.US, tools.US.up), Case(REHEARSE, tools.US, tools.ours("rehearse"))
    cases = (up, replace(rehearse, leaves_tables=False))
    found: list[tuple[str, str, Callable[[], Iterator[File]], int]] = [
        ("one", f"{tables:,} CREATE TABLE in one file", lambda: tools.bare_tables(tables, files=1), tables),
        ("each", f"{tables:,} CREATE TABLE in as many", lambda: tools.bare_tables(tables, files=tables), tables),
        ("grown", f"{files} files of a grown project", lambda: tools.grown(files), files),
        ("inserts", f"{inserts:,} INSERTs in one file", lambda: tools.single_inserts(inserts), 1),
    ]
    for name, title, written, count in found:
        yield Workload(f"rehearse-{name}", f"Rehearse, {title}", UP, cases, written, count, is_counted=False)
