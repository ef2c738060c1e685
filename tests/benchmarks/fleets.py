"""Many schemas and databases at once, beside loops of single runs and a bare psycopg loop.

Each case has a database, or databases, of its own, which get a new file in every round.
"""

from __future__ import annotations

import json
import random
import secrets
import shlex
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import fix_proxy
import psycopg
from psycopg import sql

from benchmarks import measure, tools
from benchmarks.measure import Command, Sample, Server
from benchmarks.rounds import Result

WORKLOADS = ("fleet-file", "fleet-nothing", "fleet-databases", "fleet-far")
FLEET, LOOP, DBMATE = "fleet up -j 8", "loop of up", "loop of dbmate"
ONE, STATUS, BARE, FAR = "up of one", "status of one", "floor", "fleet up -j 1"
LEAST = "bare minimum"  # the file and its entry, without what keeps either safe
TABLES = """CREATE TABLE a (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, email text);
CREATE TABLE b (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a_id bigint REFERENCES a, at timestamptz);
CREATE TABLE c (id integer PRIMARY KEY, note text);
"""
_LIMIT = 900.0  # s


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many there are; a loop of `up` goes over every `sample`th only, and its time is multiplied."""

    schemas: int = 1000
    far: int = 1000
    databases: int = 200
    sample: int = 25


FULL, QUICK = Sizes(), Sizes(20, 10, 6, 5)


class Recorder(fix_proxy.Proxy):
    """A way to the server that keeps the queries."""

    queries: list[str]

    def _is_cut(self, message: bytes, client: socket.socket, server: socket.socket) -> bool:
        if message[:1] == b"Q":
            self.queries.append(message[5:-1].decode())
        return super()._is_cut(message, client, server)


@dataclass(frozen=True, slots=True)
class Ground:
    """The folders, the server, and the number of the newest file."""

    folder: Path
    server: Server
    homes: Mapping[str, Path]
    newest: list[int] = field(default_factory=lambda: [0])

    def add_file(self) -> None:
        """Write the next file, in our form and in dbmate's: three tables, then a column and an index each."""
        number = self.newest[0] = self.newest[0] + 1
        file = tools.File(number, TABLES if number == 1 else _text(number))
        for name, tool in {"ours": tools.US, "dbmate": tools.PEERS[0]}.items():
            (self.folder / name).mkdir(exist_ok=True)
            tool.write(self.folder / name, [file])

    def least(self, schema: str) -> str:
        """Write the newest file with an entry of its own in one transaction."""
        number = self.newest[0]
        entry = f"{number}, '{number}', '', '', now(), now(), null, null, null, '', 'run'"
        ends = f"INSERT INTO schema_migrations VALUES ({entry}); COMMIT"
        return f"BEGIN; SET LOCAL search_path = {schema}; {_text(number)} {ends}"

    def ours(self, url: str, *words: str) -> Command:
        return tools.ours(*words)(Path(), self.folder / "ours", url)

    def up_of(self, url: str) -> Callable[[str], Command]:
        """Give the command for one schema of a database."""
        return lambda name: self.ours(f"{url}&schema={name}", "up")

    def launch(self, command: Command) -> Sample:
        return measure.launch(command, self.folder, limit=_LIMIT)

    def loop(self, each: Callable[[str], Command], names: list[str]) -> Command:
        """Write a shell's loop of single commands."""
        commands = (shlex.join(each(name).arguments) for name in names)
        script = self.folder / "loop.sh"
        script.write_text("set -e\n" + "\n".join(f"{command} >/dev/null" for command in commands))
        return Command(["sh", str(script)])

    def launch_floor(self, targets: list[tuple[str, list[str]]]) -> Sample:
        """Run the bare loop over targets, each with its messages."""
        return self.launch(self.floor(targets))

    def floor(self, targets: list[tuple[str, list[str]]]) -> Command:
        """Write what the bare loop sends."""
        (self.folder / "floor.json").write_text(json.dumps(targets))
        program = Path(__file__).with_name("fleet_floor.py")
        return Command([sys.executable, str(program), str(self.folder / "floor.json")])

    def recorded(self, url: str, schema: str | None) -> list[str]:
        """Let `up` migrate one target, and give the messages that it sent: the history's reading, then the file."""
        with Recorder(url) as proxy:
            proxy.queries = []
            way = f"{proxy.url}?schema={schema}" if schema else proxy.url
            self.launch(self.ours(way, "up"))
            return [text for text in proxy.queries if "schema_migrations" in text]


def _text(number: int) -> str:
    return f"ALTER TABLE a ADD COLUMN c{number} text;\nCREATE INDEX a_c{number} ON a (c{number});\n"


def measured(
    wanted: Callable[[str], bool], server: Server, homes: Mapping[str, Path], work: Path, rounds: int, sizes: Sizes
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Measure the workloads that are wanted; give each with its document."""
    for name, title, floor, measure_all in (
        ("fleet-file", f"{sizes.schemas:,} schemas, one new file", f"{BARE}: 8 threads of psycopg", _file),
        ("fleet-nothing", f"{sizes.schemas:,} schemas, nothing pending", STATUS, _nothing),
        (
            "fleet-databases",
            f"{sizes.databases:,} databases, one new file",
            f"{BARE}: 8 threads of psycopg",
            _databases,
        ),
        ("fleet-far", f"{sizes.far:,} schemas, one new file, 10 ms away", FAR, _far),
    ):
        if wanted(name):
            folder = work / name
            folder.mkdir()
            ground = Ground(folder, server, homes)
            ground.add_file()
            results: dict[str, Result] = {}
            for one in measure_all(ground, sizes, rounds):
                for case, sample in one.items():
                    results.setdefault(case, Result()).samples.append(sample)
            tools_ = {case: asdict(result) for case, result in results.items()}
            yield name, {"title": title, "floor": floor, "tools": tools_}


def _schemas(ground: Ground, names: list[str]) -> str:
    """Make a database with these schemas, and apply the first file; give its URL."""
    url = ground.server.database()
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for name in names:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
    ground.launch(ground.ours(url, "fleet", "--schemas", "tenant_*", "up", "-j", "8"))
    return url


def _names(count: int) -> list[str]:
    return [f"tenant_{n:04}" for n in range(count)]


def _in_turn(cases: dict[str, Callable[[], Sample]], order: random.Random) -> dict[str, Sample]:
    names = list(cases)
    order.shuffle(names)
    found = {name: cases[name]() for name in names}
    return {name: found[name] for name in cases}


def _file(ground: Ground, sizes: Sizes, rounds: int) -> Iterator[dict[str, Sample]]:
    names, order = _names(sizes.schemas), random.Random(0)
    every = names[:: sizes.sample]
    databases = {name: _schemas(ground, [*names, "tenant_probe"]) for name in (BARE, LEAST, FLEET)}
    databases[LOOP] = _schemas(ground, [*every, "tenant_probe"])
    dbmate = _dbmate(ground, names)
    for _ in range(rounds):
        ground.add_file()
        messages = ground.recorded(databases[BARE], "tenant_probe")
        floor = [(databases[BARE], [text.replace("tenant_probe", name) for text in messages]) for name in names]
        least = [(databases[LEAST], [ground.least(name)]) for name in names]
        cases: dict[str, Callable[[], Sample]] = {
            BARE: partial(ground.launch_floor, floor),
            LEAST: partial(ground.launch_floor, least),
            FLEET: lambda: ground.launch(
                ground.ours(databases[FLEET], "fleet", "--schemas", "tenant_[0-9]*", "up", "-j", "8")
            ),
            ONE: lambda: ground.launch(ground.ours(f"{databases[FLEET]}&schema=tenant_probe", "up")),
            LOOP: lambda: _scaled(
                ground.launch(ground.loop(ground.up_of(databases[LOOP]), every)),
                len(names) / len(every),
            ),
        }
        if dbmate:
            cases[DBMATE] = lambda: ground.launch(ground.loop(dbmate, names))
        yield _in_turn(cases, order)


def _dbmate(ground: Ground, names: list[str]) -> Callable[[str], Command] | None:
    """Give the command for one schema; nothing where dbmate is not installed."""
    tool = tools.PEERS[0]
    if tool.name not in ground.homes:
        return None
    url = ground.server.database()
    with closing(psycopg.connect(url, autocommit=True)) as connection:
        for name in names:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))

    def each(name: str) -> Command:
        return tool.up(ground.homes[tool.name], ground.folder / "dbmate", f"{url}&search_path={name}")

    ground.launch(ground.loop(each, names))
    return each


def _scaled(sample: Sample, factor: float) -> Sample:
    return replace(sample, wall=sample.wall * factor, cpu=sample.cpu * factor)


def _nothing(ground: Ground, sizes: Sizes, rounds: int) -> Iterator[dict[str, Sample]]:
    names, order = _names(sizes.schemas), random.Random(0)
    every = names[:: sizes.sample]
    url, dbmate = _schemas(ground, names), _dbmate(ground, names)
    one = f"{url}&schema={names[0]}"
    fleet = ("fleet", "--schemas", "tenant_*")
    for _ in range(rounds):
        cases = {
            STATUS: lambda: ground.launch(ground.ours(one, "status")),
            FLEET: lambda: ground.launch(ground.ours(url, *fleet, "up", "-j", "8")),
            "fleet status": lambda: ground.launch(ground.ours(url, *fleet, "status")),
            LOOP: lambda: _scaled(
                ground.launch(ground.loop(ground.up_of(url), every)),
                len(names) / len(every),
            ),
        }
        if dbmate:
            cases[DBMATE] = lambda: ground.launch(ground.loop(dbmate, names))
        yield _in_turn(cases, order)


def _databases(ground: Ground, sizes: Sizes, rounds: int) -> Iterator[dict[str, Sample]]:
    order = random.Random(0)
    groups = {name: f"bench_{secrets.token_hex(4)}" for name in (BARE, FLEET)}
    template = ground.server.database()
    ground.launch(ground.ours(template, "up"))
    urls = {
        name: [ground.server.copy(template, f"{group}_{n}") for n in range(sizes.databases)]
        for name, group in groups.items()
    }
    probe = ground.server.copy(template, f"{groups[BARE]}_probe")
    for _ in range(rounds):
        ground.add_file()
        messages = ground.recorded(probe, None)
        floor = [(url, messages) for url in urls[BARE]]
        yield _in_turn(
            {
                BARE: partial(ground.launch_floor, floor),
                FLEET: lambda: ground.launch(
                    ground.ours(template, "fleet", "--databases", f"{groups[FLEET]}_*", "up", "-j", "8")
                ),
            },
            order,
        )


def _far(ground: Ground, sizes: Sizes, rounds: int) -> Iterator[dict[str, Sample]]:
    names, order = _names(sizes.far), random.Random(0)
    databases = {jobs: _schemas(ground, names) for jobs in ("1", "8")}

    def fleet(jobs: str) -> Sample:
        with measure.distance(databases[jobs], 0.01) as way:
            return ground.launch(ground.ours(way, "fleet", "--schemas", "tenant_*", "up", "-j", jobs))

    for _ in range(rounds):
        ground.add_file()
        yield _in_turn({FAR: lambda: fleet("1"), FLEET: lambda: fleet("8")}, order)
