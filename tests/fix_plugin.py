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

import fix_servers
import psycopg
import pytest
from psycopg import sql

PLUGIN = ("-p", "outreach_migrate.testing.plugin")
XDIST = ("-p", "xdist", "-n", "2")
ENVIRONMENT = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}  # other plug-ins take longer than the tests
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

    def __init__(self, pytester: pytest.Pytester, role: str, server: str) -> None:
        self._pytester = pytester
        self.folder = pytester.path
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
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *self._options(), *arguments],
            cwd=self.folder,
            env={**os.environ, **ENVIRONMENT, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def _options(self) -> list[str]:
        server = [f"--migrate-database={self.server}"] if self.server else []
        return ["-q", "-W", "error", "-p", "no:cacheprovider", *PLUGIN, *server]

    def __call__(self, tests: str, *arguments: str, **environment: str) -> Ended:
        """Run these tests in this process, which takes half of the time."""
        self.write({"test_it.py": tests})
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**ENVIRONMENT, **environment}.items():
                patch.setenv(name, value)
            ended = self._pytester.runpytest_inprocess(*self._options(), *arguments)
        return Ended(ended.ret, ended.stdout.str())

    def process(self, tests: str, *arguments: str, **environment: str) -> Ended:
        """Run these tests in a process of their own."""
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
def project(pytester: pytest.Pytester, server_url: str) -> Iterator[Project]:
    """A project with three migrations, and with a role of its own, whose databases are dropped after the test."""
    role = f"outreach_{uuid.uuid4().hex[:12]}"
    quoted = sql.Identifier(role)
    project = Project(pytester, role, fix_servers.url(server_url, user=role, password="secret"))
    project.write(
        {"pyproject.toml": "[tool.outreach-migrate]\n", **{f"sql/{name}": text for name, text in THREE.items()}}
    )
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD 'secret'").format(quoted))
        yield project
        for name in project.databases():
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("DROP ROLE IF EXISTS {}, {}").format(quoted, sql.Identifier(f"{role}_once")))
