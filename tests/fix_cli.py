"""The command line, run in a folder of its own on the test's database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import fix_servers
import psycopg
import pytest
from click.testing import CliRunner
from fix_runs import parted
from psycopg import sql

from outreach_migrate import cli

Files = Mapping[str, str | bytes]
Rows = Callable[..., list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Result:
    """What a command left behind; `stderr` without its line that names the `database`."""

    exit_code: int
    stdout: str
    stderr: str
    database: str | None = None

    @property
    def json(self) -> dict[str, Any]:
        """The document on stdout, which must hold nothing else."""
        document: dict[str, Any] = json.loads(self.stdout)
        return document


class Migrate:
    """Calls the command line with arguments, in a folder whose `sql` holds the files written so far."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.files = folder / "sql"
        self.url = url

    def __call__(self, *arguments: str, files: Files | None = None, url: str | None = None) -> Result:
        """Run it in this process, after writing `files`."""
        self.write(files or {})
        run = CliRunner().invoke(cli.main, arguments, env={"DATABASE_URL": url or self.url}, catch_exceptions=False)
        return Result(run.exit_code, run.stdout, *parted(run.stderr))

    def write(self, files: Files) -> None:
        """Write files below `sql`: text with the line ends it has, as UTF-8."""
        if files:
            self.files.mkdir(exist_ok=True)
        for name, content in files.items():
            (self.files / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def process(self, *arguments: str, within: float = 20, encoding: str = "utf-8", **environment: str) -> Result:
        """Run it as a process of its own, that must end within so many seconds and writes in this encoding."""
        command = [sys.executable, "-m", "outreach_migrate", *arguments]
        env = {**os.environ, "DATABASE_URL": self.url, **environment}
        run = subprocess.run(
            command, cwd=self.folder, env=env, capture_output=True, encoding=encoding, timeout=within, check=False
        )
        return Result(run.returncode, run.stdout, *parted(run.stderr))


@pytest.fixture
def migrate(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Migrate:
    """A function that runs the command line in an empty folder, on the test's database."""
    monkeypatch.chdir(tmp_path)
    return Migrate(tmp_path, database)


@pytest.fixture
def rows(connect: fix_servers.Connect) -> Rows:
    """A function that runs SQL on the test's database and gives the rows, if there are any."""
    connection = connect()

    def asked(query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
        cursor = connection.execute(query, values or None)
        return cursor.fetchall() if cursor.description else []

    return asked


@pytest.fixture
def recorded(rows: Rows) -> Callable[[], list[str]]:
    """A function that gives the names in the history, in the order of their application."""
    return lambda: [name for (name,) in rows("SELECT name FROM public.schema_migrations ORDER BY position")]


@pytest.fixture
def role(database: str, connect: fix_servers.Connect) -> Iterator[tuple[str, str]]:
    """A role that may log in and nothing else: its name, and the URL of the test's database as it."""
    name = f"outreach_{uuid.uuid4().hex[:12]}"
    quoted = sql.Identifier(name)
    connect().execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'secret'").format(quoted))
    yield name, fix_servers.url(database, user=name, password="secret")
    with psycopg.connect(database, autocommit=True) as connection:
        us = sql.Identifier(connection.info.user)  # Citus 15 (development) crashes on CURRENT_USER
        connection.execute(sql.SQL("REASSIGN OWNED BY {} TO {}").format(quoted, us))
        connection.execute(sql.SQL("DROP OWNED BY {}").format(quoted))
        connection.execute(sql.SQL("DROP ROLE {}").format(quoted))
