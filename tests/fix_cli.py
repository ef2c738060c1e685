"""The command line, run in a folder of its own on the test's database: in this process, or as a process of its own."""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import click
import fix_servers
import psycopg
import pytest
from click.testing import CliRunner
from fix_waiting import PATIENCE, until
from psycopg import sql

from outreach_migrate import cli

Files = Mapping[str, str | bytes] | list[str]
Rows = Callable[..., list[tuple[Any, ...]]]
Recorded = Callable[[], list[str]]

THREE = {
    "1_first.sql": "create table t (n int);",
    "2_second.sql": "insert into t select generate_series(1, 3);",
    "10_third.sql": "update t set n = 0 where n < 3; delete from t where n = 3;",
}


def _commands(group: click.Group, before: str = "") -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        yield f"{before}{name}", command
        if isinstance(command, click.Group):
            yield from _commands(command, f"{before}{name} ")


COMMANDS = dict(_commands(cli.main))  # all of them, also "fleet up"
# the names of all tables and views but the server's and its extensions'
TABLES: LiteralString = (
    "SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'v') AND oid >= 16384"
    " AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e') ORDER BY 1"
)


@dataclass(frozen=True)
class Result:
    """A command's exit code and output; `stderr` without its line that names the `database`."""

    exit_code: int
    stdout: str
    stderr: str
    database: str | None = None

    @property
    def json(self) -> dict[str, Any]:
        """The document on stdout, which must be alone there."""
        document: dict[str, Any] = json.loads(self.stdout)
        return document

    @property
    def applied(self) -> list[str]:
        """The versions that the document has as applied."""
        return [one["version"] for one in self.json["applied"]]

    @property
    def output(self) -> str:
        """Both streams, stdout first."""
        return self.stdout + self.stderr


def result(exit_code: int, stdout: str, stderr: str) -> Result:
    """Take the line that names the database out of stderr."""
    if found := re.search("^database: (.*)\n", stderr, re.MULTILINE):
        return Result(exit_code, stdout, stderr[: found.start()] + stderr[found.end() :], found[1])
    return Result(exit_code, stdout, stderr)


def called(*arguments: str, stdin: str | None = None, **environment: str) -> Result:
    """Run the command line in this process, with these variables added."""
    run = CliRunner().invoke(cli.main, arguments, input=stdin, env=environment, catch_exceptions=False)
    return result(run.exit_code, run.stdout, run.stderr)


class Run:
    """A command that runs as a process of its own, in `folder`, and writes to files beside `output`."""

    def __init__(
        self, arguments: Sequence[object], folder: Path, output: Path, *, encoding: str = "utf-8", **env: str
    ) -> None:
        self.output = output
        self.encoding = encoding
        with output.with_suffix(".out").open("wb") as out, output.with_suffix(".err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "outreach_migrate", *map(str, arguments)],
                cwd=folder,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def stdout(self) -> str:
        """All that it has said there so far."""
        return self.output.with_suffix(".out").read_bytes().decode(self.encoding)

    @property
    def stderr(self) -> str:
        """All that it has said there so far."""
        return self.output.with_suffix(".err").read_bytes().decode(self.encoding)

    @property
    def lives(self) -> bool:
        """Whether it has not ended yet."""
        return self.process.poll() is None

    def says(self, words: str) -> str:
        """Wait for a line on stderr that has these words."""
        until(lambda: words in self.stderr or not self.lives)
        found = [line for line in self.stderr.splitlines() if words in line]
        assert found, f"it never said {words!r}, but: {self.stderr}"
        return found[0]

    def end(self) -> Result:
        """Wait for the end."""
        exit_code = self.process.wait(PATIENCE)
        return result(exit_code, self.stdout, self.stderr)

    def kill(self) -> None:
        """End it as SIGKILL does."""
        self.process.kill()
        self.process.wait()


class Migrate:
    """Calls the command line with arguments, in a folder whose `sql` holds the files written so far.

    A call is made in this process, unless the test is about processes: `start` and `process` are for those.
    """

    def __init__(self, folder: Path, url: str, outputs: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.files = folder / "sql"
        self.url = url
        self._outputs = outputs
        self._stack = stack
        self._count = itertools.count()

    def __call__(
        self,
        *arguments: str,
        files: Files | None = None,
        url: str | None = None,
        stdin: str | None = None,
        **environment: str,
    ) -> Result:
        """Run it in this process, after writing `files`; no database is named by url=""."""
        self.write(files or [])
        return called(*arguments, stdin=stdin, **(self._named(url) | environment))

    def write(self, files: Files) -> None:
        """Write files below `sql`, by their names, or texts as 1_a.sql, 2_a.sql, …; with the line ends they have."""
        if isinstance(files, list):
            files = {f"{number}_a.sql": text for number, text in enumerate(files, 1)}
        if files:
            self.files.mkdir(exist_ok=True)
        for name, content in files.items():
            (self.files / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def start(self, *arguments: object, url: str | None = None, encoding: str = "utf-8", **environment: str) -> Run:
        """Start it as a process, killed after the test, with these variables added; no database is named by url=""."""
        output = self._outputs / str(next(self._count))
        run = Run(arguments, self.folder, output, encoding=encoding, **(self._named(url) | environment))
        self._stack.callback(run.kill)
        return run

    def process(
        self, *arguments: object, url: str | None = None, encoding: str = "utf-8", **environment: str
    ) -> Result:
        """Run it as a process, to its end."""
        return self.start(*arguments, url=url, encoding=encoding, **environment).end()

    def _named(self, url: str | None) -> dict[str, str]:
        named = self.url if url is None else url
        return {"DATABASE_URL": named} if named else {}


@pytest.fixture
def migrate(
    database: str, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Migrate]:
    """A function that runs the command line in an empty folder, on the test's database."""
    monkeypatch.chdir(tmp_path)
    with ExitStack() as stack:
        yield Migrate(tmp_path, database, tmp_path_factory.mktemp("outputs"), stack)


def asking(connection: psycopg.Connection) -> Rows:
    """Make a function that runs SQL by a connection and gives the rows, if there are any."""

    def asked(query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        cursor = connection.execute(query, values or None)
        return cursor.fetchall() if cursor.description else []

    return asked


@pytest.fixture
def rows(connect: fix_servers.Connect) -> Rows:
    """A function that runs SQL on the test's database and gives the rows, if there are any."""
    return asking(connect())


@pytest.fixture
def recorded(rows: Rows) -> Recorded:
    """A function that gives the names in the history, in the order of their application."""
    return lambda: [name for (name,) in rows("SELECT name FROM public.schema_migrations ORDER BY position")]


@pytest.fixture
def role(database: str, connect: fix_servers.Connect) -> Iterator[tuple[str, str]]:
    """A role that may only log in: its name, and the URL of the test's database as it."""
    name = f"outreach_{uuid.uuid4().hex[:12]}"
    quoted = sql.Identifier(name)
    connect().execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(quoted))
    yield name, fix_servers.url(database, user=name, password="secret")
    with psycopg.connect(database, autocommit=True) as connection:
        us = sql.Identifier(connection.info.user)  # Citus 15 (development) crashes on CURRENT_USER
        connection.execute(sql.SQL("REASSIGN OWNED BY {} TO {}").format(quoted, us))
        connection.execute(sql.SQL("DROP OWNED BY {}").format(quoted))
        connection.execute(sql.SQL("DROP ROLE {}").format(quoted))
