"""Test runs of another project, which use the plug-in on the server that all tests share."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import fix_servers
import psycopg
import pytest
from psycopg import sql

PLUGIN = ["-p", "no:outreach-migrate", "-p", "outreach_migrate.testing.plugin"]
THREE = {
    "1_users.sql": "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL);",
    "2_nick.sql": "ALTER TABLE users ADD nick text; UPDATE users SET nick = lower(name);",
    "3_index.sql": "CREATE INDEX users_nick ON users (nick);",
}


@dataclass(frozen=True)
class Ended:
    """A test run's exit code, its output and its counts, such as {"passed": 2}."""

    exit_code: int
    output: str

    @property
    def counts(self) -> dict[str, int]:
        """The numbers of the last line."""
        return {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", self.output.splitlines()[-1])}


class Project:
    """A project in a folder of its own; called, it writes a test module and runs pytest on it."""

    def __init__(self, folder: Path, role: str, server: str) -> None:
        self.folder = folder
        self.role = role
        self.server = server  # its URL as the role, given as --migrate-database unless it is empty
        self._url = server

    def write(self, files: Mapping[str, str]) -> None:
        """Write files, by their paths."""
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start pytest as a process."""
        server = [f"--migrate-database={self.server}"] if self.server else []
        command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider"]
        return subprocess.Popen(
            [*command, *PLUGIN, *server, *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTEST_ADDOPTS": "", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def __call__(self, tests: str, *arguments: str, **environment: str) -> Ended:
        """Run these tests."""
        self.write({"test_it.py": tests})
        return self.end(self.start(*arguments, **environment))

    def end(self, process: subprocess.Popen[str]) -> Ended:
        """Wait for the end of a run."""
        output, _ = process.communicate()
        return Ended(process.returncode, output)

    def databases(self, like: str = "%") -> dict[str, int]:
        """Give the databases of the project's role, by their names, with their oids."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            query = (
                "SELECT datname, oid FROM pg_database WHERE pg_get_userbyid(datdba) = CURRENT_USER AND datname LIKE %s"
            )
            return dict(connection.execute(query, [like]).fetchall())


@pytest.fixture
def project(tmp_path: Path, server_url: str) -> Iterator[Project]:
    """A project with three migrations, and with a role of its own, whose databases are dropped after the test."""
    role = f"outreach_{uuid.uuid4().hex[:12]}"
    quoted = sql.Identifier(role)
    project = Project(tmp_path / "project", role, fix_servers.url(server_url, user=role, password="secret"))
    project.write(
        {"pyproject.toml": "[tool.outreach-migrate]\n", **{f"sql/{name}": text for name, text in THREE.items()}}
    )
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD 'secret'").format(quoted))
        yield project
        for name in project.databases():
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}, {}").format(quoted, sql.Identifier(f"{role}_once")))
