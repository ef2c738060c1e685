"""What a command costs: time, CPU, memory, round trips; and the server it costs it on."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import fix_proxy
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

LAUNCH = Path(__file__).with_name("launch.py")
# What a client waits an answer for; what it only sends along (Parse, Bind, Terminate, …) costs no round trip.
_ANSWERED = {"SSLRequest", "GSSENCRequest", "Startup", "p", "Q", "S", "H", "F"}


@dataclass(frozen=True, slots=True)
class Command:
    """A program with its arguments, and what it finds in its environment beside PATH and HOME."""

    arguments: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    times: int = 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One run's cost: wall and CPU seconds, the peak memory in bytes."""

    wall: float
    cpu: float
    memory: int


class Failed(Exception):
    """A command failed, or took longer than it may."""


def launch(command: Command, folder: Path, *, limit: float) -> Sample:
    """Run a command in a folder, as often at once as it asks for; raise Failed with its last words."""
    result, output = folder / "result.json", folder / "output"
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    subprocess.run(
        [
            *(sys.executable, "-I", "-S", str(LAUNCH), str(result), str(output), str(round(limit))),
            *(str(command.times), *command.arguments),
        ],
        env={**kept, "LC_ALL": "C.UTF-8", **command.environment},
        cwd=folder,
        check=True,
    )
    cost = json.loads(result.read_text())
    if -9 in cost["codes"]:
        raise Failed(f"took more than {limit:.0f} s")
    if any(cost["codes"]):
        words = output.read_text(errors="replace").strip().splitlines() or [f"exit codes {cost['codes']}"]
        raise Failed(next((line for line in reversed(words) if "error" in line.lower()), words[-1]).strip()[:160])
    return Sample(cost["wall"], cost["cpu"], cost["memory"])


@dataclass(frozen=True, slots=True)
class Server:
    """The server that all are measured on."""

    conninfo: str

    @property
    def version(self) -> str:
        """PostgreSQL's version."""
        with self._connect() as connection:
            return str(connection.execute("SHOW server_version").fetchall()[0][0])

    def database(self, settings: Sequence[str] = ()) -> str:
        """Make a new database and give its URL; begin with nothing left to be written to the disk.

        It stays until the server is removed: after a DROP DATABASE some file systems (ext4 without a journal) make
        files more slowly for minutes, and the next tool would pay for it.
        """
        name = sql.Identifier(dbname := f"bench_{secrets.token_hex(4)}")
        with self._connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(name))
            for setting in settings:
                connection.execute(sql.SQL("ALTER DATABASE {} SET ").format(name) + sql.SQL(setting))
            connection.execute("CHECKPOINT")
        os.sync()
        return self._url(dbname)

    def copy(self, url: str, dbname: str) -> str:
        """Copy a database; give the copy's URL."""
        template = sql.Identifier(str(conninfo_to_dict(url)["dbname"]))
        with self._connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(dbname), template))
        return self._url(dbname)

    def _url(self, dbname: str) -> str:
        return f"postgresql://postgres@/{dbname}?host={quote(str(conninfo_to_dict(self.conninfo)['host']), safe='')}"

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(self.conninfo, autocommit=True)


def tables(url: str) -> int:
    """Count the tables that the generated migrations have made."""
    with psycopg.connect(url) as connection:
        query = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'bench\\_%'"
        return int(connection.execute(query).fetchall()[0][0])


@contextmanager
def distance(url: str, round_trip: float) -> Iterator[str]:
    """Put the server so many seconds away."""
    if not round_trip:
        yield url
        return
    with fix_proxy.Proxy(url, round_trip=round_trip) as proxy:
        yield proxy.url


@contextmanager
def counted(url: str) -> Iterator[tuple[str, list[int]]]:
    """Give a way to the server that counts round trips; the count is there when it ends."""
    count: list[int] = []
    with fix_proxy.Proxy(url) as proxy:
        yield proxy.url, count
        deadline = time.monotonic() + 10
        while not proxy.idle and time.monotonic() < deadline:
            time.sleep(0.01)
        count.append(sum(kind in _ANSWERED for kind in proxy.messages))
