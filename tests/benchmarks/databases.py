"""Databases for tests: the time until a test has one, by the plug-in and by others, each in a run of pytest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import tools
from benchmarks.measure import Server
from benchmarks.tools import File, Tool
from outreach_migrate.postgres import private_server
from outreach_migrate.testing import servers

MODULE = Path(__file__).with_name("one_case.py")
EMPTY, BARE = "CREATE DATABASE, empty", "CREATE DATABASE … TEMPLATE"
FILES = f"{BARE} … STRATEGY file_copy"
ANEW, COMMAND = "outreach_migrate.up(), anew", "outreach-migrate up, anew"
DATABASE, CONNECTION = "migrated_database", "migrated_connection"
POSTGRESQL, PGLITE = "pytest-postgresql, template", "py-pglite, anew"
_PATIENCE = 300  # s for one run of pytest


@dataclass(frozen=True, slots=True)
class Case:
    """A fixture of the module that is measured; so many tests a round, because some take seconds."""

    name: str
    fixture: str
    tests: int
    peer: Tool | None = None


def _peer(name: str, *packages: str) -> Tool:
    return Tool(name, packages, tools.plain, tools.BARE.up)


CASES = (
    Case(EMPTY, "empty", 20),
    Case(BARE, "bare", 20),
    Case(FILES, "files", 20),
    Case(DATABASE, DATABASE, 20),
    Case(CONNECTION, CONNECTION, 50),
    Case(ANEW, "anew", 4),
    Case(COMMAND, "command", 3),
    Case(POSTGRESQL, "postgresql", 20, _peer("pytest-postgresql", "pytest-postgresql", "psycopg[binary]")),
    Case(PGLITE, "pglite", 2, _peer("py-pglite", "py-pglite", "pytest", "psycopg[binary]")),
)


@dataclass(slots=True)
class Result:
    """The seconds until a test had its database, and those of a test with all that belongs to it."""

    waits: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    left_out: str | None = None


def folders(counts: Sequence[int], project: int) -> dict[str, list[File]]:
    """Give the folders that databases are made from, by their titles."""
    found = {f"{count} tables": list(tools.tables(count)) for count in counts}
    return {**found, f"{5 * project} files, {project} tables": list(tools.project(project))}


def measured(cache: Path, work: Path, rounds: int, folders: Mapping[str, list[File]]) -> dict[str, Any]:
    """Measure all cases in turn, round after round, on a server like the plug-in's own, in memory without fsync."""
    with tempfile.TemporaryDirectory(dir=servers.memory()) as place:
        Path(place).chmod(0o755)  # the server may run as another user
        with private_server.server(Path(place, "server"), settings=servers.SETTINGS) as conninfo:
            return _measured(Server(conninfo), cache, work, rounds, folders)


def _measured(
    server: Server, cache: Path, work: Path, rounds: int, folders: Mapping[str, list[File]]
) -> dict[str, Any]:
    homes = dict(_installed(cache))
    document: dict[str, Any] = {}
    for title, files in folders.items():
        results = {case.name: Result() for case in CASES}
        with tempfile.TemporaryDirectory(dir=work) as place:
            folder = Path(place)
            (folder / "sql").mkdir()
            tools.plain(folder / "sql", files)
            (folder / "pyproject.toml").write_text("[tool.outreach-migrate]\n[tool.pytest.ini_options]\n")
            (folder / "test_one.py").write_text(MODULE.read_text())  # away from this project's conftest.py
            for _ in range(rounds):
                for case in CASES:
                    if results[case.name].left_out is None:
                        _measure(case, homes.get(case.name), server, folder, results[case.name])
        document[title] = {
            name: {"waits": one.waits, "whole": one.whole, "left_out": one.left_out} for name, one in results.items()
        }
    return document


def _installed(cache: Path) -> Iterator[tuple[str, str]]:
    for case in CASES:
        if case.peer is None:
            yield case.name, sys.executable
            continue
        try:
            home, _ = case.peer.install(cache)
            yield case.name, str(home / "bin" / "python")
        except (OSError, subprocess.SubprocessError):
            continue


def _measure(case: Case, python: str | None, server: Server, folder: Path, result: Result) -> None:
    if python is None:
        result.left_out = "it can't be installed"
        return
    output = folder / "result.json"
    output.unlink(missing_ok=True)
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--rootdir={folder}", "test_one.py"]
    if case.peer is None:
        command += ["-p", "no:outreach-migrate", "-p", "outreach_migrate.testing.plugin"]
        command += [f"--migrate-database={server.conninfo}"]
    told = {"BENCH_CASE": case.fixture, "BENCH_TESTS": str(case.tests), "BENCH_RESULT": str(output)}
    environment = {**os.environ, **told, "BENCH_URL": server.conninfo, "BENCH_FOLDER": str(folder / "sql")}
    try:
        subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, timeout=_PATIENCE)
    except subprocess.SubprocessError as error:
        said = (getattr(error, "stdout", None) or b"").decode(errors="replace").strip().splitlines()
        result.left_out = next((line for line in said if line.startswith("E ")), str(error))[:160]
        return
    found = json.loads(output.read_text())
    result.waits += found["waits"]
    result.whole.append(found["whole"])


def text(document: dict[str, Any]) -> Iterator[str]:
    """Write the medians, and the ratios to the bare copy, as lines for a terminal."""
    for title, results in document.items():
        yield ""
        yield f"A database for a test, {title}  [testing]   until the test has it, and with its end"
        bare = median(results[BARE]["waits"] or [0])
        for name, one in results.items():
            if one["left_out"] or not one["waits"]:
                yield f"  {name:48} left out: {one['left_out']}"
                continue
            wait, whole = median(one["waits"]), median(one["whole"])
            ratio = f"{wait / bare:9.2f}" if bare else ""
            yield f"  {name:48}{wait * 1000:9.2f} ms{ratio}{whole * 1000:9.1f} ms a test"


def markdown(document: dict[str, Any]) -> Iterator[str]:
    """Write the manual's table: a line a way, a column a number of tables; until the test has it, and the whole."""
    if not document:
        return
    yield from (
        "",
        "| until a test has a database, and with its end | " + " | ".join(document) + " |",
    )
    yield "| --- |" + " ---: |" * len(document)
    for case in CASES:
        found = [results[case.name] for results in document.values()]
        cells = [
            f"{median(one['waits']) * 1000:.1f} ms, {median(one['whole']) * 1000:.1f} ms"
            if one["waits"]
            else "left out"
            for one in found
        ]
        yield f"| {case.name} | {' | '.join(cells)} |"


def targets(document: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """Hold the figures against the issue's targets."""
    for title, results in document.items():
        if not all(results[name]["waits"] for name in (BARE, DATABASE, CONNECTION, ANEW)):
            continue
        bare, ours, connection = (median(results[name]["waits"]) for name in (BARE, DATABASE, CONNECTION))
        times = ours / bare
        yield (
            f"testing, {title}: at most 1.2 times CREATE DATABASE … TEMPLATE",
            f"{times:.2f} times",
            times <= 1.2,
        )
        shown = f"{connection * 1000:.2f} ms"
        yield f"testing, {title}: migrated_connection under 1 ms", shown, connection < 0.001
        if title.startswith("100 "):
            for way in (ANEW, COMMAND):
                if results[way]["whole"]:
                    faster = median(results[way]["whole"]) / median(results[DATABASE]["whole"])
                    yield f"testing, {title}: a test 10 times faster than {way}", f"{faster:.1f} times", faster >= 10
