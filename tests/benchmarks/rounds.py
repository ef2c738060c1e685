"""How a workload is measured: all tools in turn, round after round."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import measure, tools
from benchmarks.measure import Command, Failed, Sample, Server
from benchmarks.workloads import Case, Workload
from outreach_migrate.files import migrations
from outreach_migrate.history import read
from outreach_migrate.run import plan

PATIENCE, OUR_PATIENCE = 60.0, 600.0  # s: a peer that takes longer is left out of the workload


@dataclass(slots=True)
class Result:
    """The cost of a case, sample by sample; `left_out` is the reason why there are no more."""

    samples: list[Sample] = field(default_factory=list)
    round_trips: int | None = None
    left_out: str | None = None


@dataclass(frozen=True, slots=True)
class Ground:
    """A workload with its files written, each tool's in `folders`, and the databases that are kept."""

    workload: Workload
    server: Server
    homes: Mapping[str, Path]
    folders: Mapping[str, Path]
    kept: dict[str, str] = field(default_factory=dict)

    def keep(self, case: Case) -> None:
        """Make the database that a case's rounds share, and apply the files to it."""
        if case.first:
            url = self.kept[case.name] = self.server.database()
            self._launch(case, case.first(*self._place(case), url))

    def count(self, case: Case) -> int | None:
        """Count the case's round trips, in a run that is not measured."""
        if not self.workload.is_counted:
            return None
        with measure.counted(self._database(case)) as (way, count):
            self._launch(case, case.start(*self._place(case), way))
        return count[0]

    def sample(self, case: Case) -> Sample:
        """Run the case once; raise Failed, also when it left the database without the tables."""
        url = self._database(case)
        with measure.distance(url, self.workload.round_trip) as way:
            sample = self._launch(case, case.start(*self._place(case), way))
            wanted = self.workload.tables if case.leaves_tables else 0
            if url and case.name not in self.kept and (found := measure.tables(url)) != wanted:
                raise Failed(f"made {found} tables, not {wanted}")
        return sample

    def _database(self, case: Case) -> str:
        """Give the URL of the case's database, a new one where none is kept; empty where none is needed."""
        if self.workload.tables and case.name not in self.kept:
            return self.server.database(self.workload.settings)
        return self.kept.get(case.name, "")

    def _place(self, case: Case) -> tuple[Path, Path]:
        return self.homes.get(case.tool.name, Path()), self.folders[case.tool.name]

    def _launch(self, case: Case, command: Command) -> Sample:
        limit = OUR_PATIENCE if case.tool in (tools.BARE, tools.US) else PATIENCE
        folder = self.folders[case.tool.name].parent
        return measure.launch(Command(command.arguments, command.environment, case.times), folder, limit=limit)


def measured(
    workload: Workload, server: Server, homes: Mapping[str, Path], work: Path, rounds: int
) -> dict[str, Result]:
    """Count round trips, which warms up and finds out who can't; then run all in turn, each round in a new order.

    The order is random, but the same in every run: nobody always comes after the same other.
    """
    order = random.Random(0)
    results = {case.name: Result() for case in workload.cases}
    cases = list(workload.cases)
    with tempfile.TemporaryDirectory(dir=work) as folder:
        ground = Ground(workload, server, homes, _written(workload, Path(folder)))
        for case in cases:
            with _leaving_out(case, results[case.name]):
                ground.keep(case)
                results[case.name].round_trips = ground.count(case)
        for _ in range(max(1, round(rounds * workload.share))):
            order.shuffle(cases)
            for case in cases:
                if results[case.name].left_out is None:
                    with _leaving_out(case, results[case.name]):
                        results[case.name].samples.append(ground.sample(case))
    return results


def _written(workload: Workload, folder: Path) -> dict[str, Path]:
    files, folders = list(workload.files()), dict[str, Path]()
    for tool in {case.tool.name: case.tool for case in workload.cases}.values():
        folders[tool.name] = folder / tool.name
        folders[tool.name].mkdir()
        tool.write(folders[tool.name], files)
    return folders


@contextmanager
def _leaving_out(case: Case, result: Result) -> Iterator[None]:
    try:
        yield
    except Failed as failed:
        result.left_out = str(failed)
        print(f"  {case.name} is left out: {failed}", file=sys.stderr)  # noqa: T201


def planning(count: int, work: Path, rounds: int) -> list[float]:
    """Measure the CPU seconds of planning so many files against as many entries, in this process."""
    with tempfile.TemporaryDirectory(dir=work) as folder:
        tools.plain(Path(folder), list(tools.tables(count)))
        files, _ = migrations.read(folder)
    now = datetime.now(UTC)
    entries = [
        read.Entry(place, file.version, file.name, file.checksum, now, now, None, None, None, "me@here", "run")
        for place, file in enumerate(files, 1)
    ]
    found = []
    for _ in range(rounds):
        began = time.process_time()
        whole = plan.make(files, entries)
        whole.contradictions(out_of_order=False)
        found.append(time.process_time() - began)
    return found
