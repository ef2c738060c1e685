"""The command: make bench."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import backfills, databases, drifts, fleets, report, rounds, tools, workloads
from benchmarks.measure import Server
from benchmarks.tools import Tool
from outreach_migrate.postgres import private_server

CACHE = Path(".cache/bench")
# fsync stays on: a commit that waits for the disk is what there is to measure
SETTINGS = {"autovacuum": "off", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "shared_buffers": "512MB"}


def main() -> None:
    """Measure, or read what was measured; then print."""
    options = _options()
    document: dict[str, Any] = {}
    for document in [json.loads(options.read.read_text())] if options.read else measured(options):
        if options.json:
            options.json.write_text(json.dumps(document, indent=1))
    for line in (report.markdown if options.markdown else report.text)(document):
        print(line)  # noqa: T201


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works, not for figures")
    parser.add_argument("--rounds", type=int, metavar="N", help="how often each tool is measured (5; with --quick 1)")
    parser.add_argument(
        "--only", action="append", metavar="WORKLOAD", help="a workload, as apply-100, or all of its kind, as apply"
    )
    parser.add_argument("--tool", action="append", metavar="PEER", help="only this peer, or these; none: no peer")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing, print what --json wrote")
    parser.add_argument("--markdown", action="store_true", help="print the manual's part")
    options = parser.parse_args()
    names = [
        workload.name for workload in workloads.everything(workloads.QUICK if options.quick else workloads.FULL, ())
    ]
    _check(parser, "workloads", options.only, [*names, *fleets.WORKLOADS, "planning", "testing", "backfill", "drift"])
    _check(parser, "peers", options.tool, [*(tool.name for tool in tools.PEERS), "none"])
    return options


def _check(parser: argparse.ArgumentParser, what: str, chosen: list[str] | None, names: list[str]) -> None:
    for one in chosen or ():
        if not any(_wanted(name, [one]) for name in names):
            parser.error(f"there is no {one} among the {what}: {', '.join(names)}")


def measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Install the peers, start the server, run the workloads; give what is known after each of them."""
    cache = CACHE.resolve()
    cache.mkdir(parents=True, exist_ok=True)
    homes, document = _installed(cache / "peers", options.tool), _document()
    document["tools"] = {tool.name: {"version": version, "remark": tool.remark} for tool, _, version in homes}
    peers = [tool for tool, _, _ in homes if tool in tools.PEERS]
    places = {tool.name: home for tool, home, _ in homes}
    count = options.rounds or (1 if options.quick else 5)
    sizes = workloads.QUICK if options.quick else workloads.FULL
    document["has_targets"] = sizes is workloads.FULL
    with _server(cache / "server") as server, tempfile.TemporaryDirectory(dir=cache) as folder:
        document["postgresql"] = server.version
        for workload in workloads.everything(sizes, peers):
            if not _wanted(workload.name, options.only):
                continue
            _tell(f"{workload.name}: {workload.title} …")
            results = rounds.measured(workload, server, places, Path(folder), count)
            document["workloads"][workload.name] = {
                "title": workload.title,
                "floor": workload.floor,
                "tools": {name: asdict(result) for name, result in results.items()},
            }
            document["load"][1] = _load()
            yield document
        many = fleets.QUICK if options.quick else fleets.FULL
        wanted = partial(_wanted, only=options.only)
        for name, result in fleets.measured(wanted, server, places, Path(folder), count, many):
            document["workloads"][name] = result
            document["load"][1] = _load()
            yield document
        if _wanted("planning", options.only):
            document["planning"] = rounds.planning(5000, Path(folder), count)
            yield document
        if _wanted("testing", options.only):
            _tell("testing: a database for a test …")
            folders = databases.folders(sizes.tested, sizes.tested_project)
            document["testing"] = databases.measured(cache / "peers", Path(folder), count, folders)
            yield document
        if _wanted("backfill", options.only):
            _tell(f"backfill: {sizes.backfilled:,} rows …")
            document["backfill"] = backfills.measured(server, Path(folder), count, sizes.backfilled)
            yield document
        if _wanted("drift", options.only):
            _tell(f"drift: {sizes.drifted} tables …")
            document["drift"] = drifts.measured(server, Path(folder), count, sizes.drifted)
            yield document


@contextmanager
def _server(folder: Path) -> Iterator[Server]:
    """Start a new server; when something goes wrong it is left as it is, with its log."""
    private_server.stop(folder)
    shutil.rmtree(folder, ignore_errors=True)
    with private_server.server(folder, settings=SETTINGS) as conninfo:
        yield Server(conninfo)
    shutil.rmtree(folder)


def _wanted(name: str, only: list[str] | None) -> bool:
    return only is None or any(name == one or name.startswith(f"{one}-") for one in only)


def _installed(cache: Path, chosen: list[str] | None) -> list[tuple[Tool, Path, str]]:
    wanted = [tool for tool in tools.PEERS if chosen is None or tool.name in chosen]
    found = []
    for tool in (tools.BARE, tools.US, *wanted):
        try:
            home, version = tool.install(cache)
            found.append((tool, home, version))
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error).encode()
            _tell(f"{tool.name} is left out: it can't be installed: {said.decode().strip().splitlines()[-1:]}")
    return found


def _document() -> dict[str, Any]:
    words = " ".join(sys.argv[1:])
    processor = next(_processors(), platform.processor() or platform.machine())
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": f"{processor}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
        "load": [_load(), _load()],
        "command": f"make bench OPTIONS='{words}'" if words else "make bench",
        "workloads": {},
        "planning": [],
        "testing": {},
        "backfill": {},
    }


def _processors() -> Iterator[str]:
    if (known := Path("/proc/cpuinfo")).exists():
        for line in known.read_text().splitlines():
            if line.startswith("model name"):
                yield line.partition(": ")[2]


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
