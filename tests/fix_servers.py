"""The server that all tests share, and a database of its own for each.

OUTREACH_TEST_DATABASE_URL, a superuser's, names the server; else OUTREACH_TEST_PG_BIN the programs of one to start;
else it is testcontainers' where a Docker engine answers, and the private server of outreach_migrate where none does.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import quote, urlencode

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from outreach_migrate.postgres import private_server
from outreach_migrate.testing import container

Connect = Callable[..., psycopg.Connection]

IMAGE = "postgres:18-alpine"
SETTINGS = {"fsync": "off", "wal_level": "logical"}  # for subscriptions
PG_BIN = os.environ.get("OUTREACH_TEST_PG_BIN")
find = Path(PG_BIN).joinpath if PG_BIN else private_server.program


@dataclass(frozen=True)
class Server:
    url: str
    origin: str

    def __str__(self) -> str:
        with closing(psycopg.connect(self.url)) as connection:
            version = connection.info.server_version
        return f"{version // 10000}.{version % 10000}, {self.origin}"


_server = pytest.StashKey[Server]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the developer's own settings out of the tests."""
    patch = pytest.MonkeyPatch()
    for name in list(os.environ):
        # without bytecode each of some hundred processes would compile the program anew
        if name.startswith(("PG", "OUTREACH_MIGRATE_")) or name in {"DATABASE_URL", "PYTHONDONTWRITEBYTECODE"}:
            patch.delenv(name)
    config.add_cleanup(patch.undo)
    if hasattr(config, "workerinput"):
        _started(config)


def pytest_report_header(config: pytest.Config) -> list[str]:
    return [] if config.option.collectonly else [f"postgresql: {_started(config)}"]


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process of pytest-xdist's of the server that all of them share."""
    server = _started(node.config)
    node.workerinput["server"] = (server.url, server.origin)


def _started(config: pytest.Config) -> Server:
    if _server not in config.stash:
        stack = ExitStack()
        config.add_cleanup(stack.close)
        inherited = getattr(config, "workerinput", {}).get("server")
        config.stash[_server] = Server(*inherited) if inherited else _start(stack)
        config.option.migrate_database = config.stash[_server].url  # the plug-in's databases are made there, too
    return config.stash[_server]


def _start(stack: ExitStack) -> Server:
    """Start the server, in memory if possible: there CREATE DATABASE takes 10 ms, on a disk up to 200."""
    if given := os.environ.get("OUTREACH_TEST_DATABASE_URL"):
        return Server(url(given), "OUTREACH_TEST_DATABASE_URL")
    if not PG_BIN and container.is_available():
        return Server(stack.enter_context(_container()), f"testcontainers {IMAGE}")
    path = stack.enter_context(server_folder())
    conninfo = stack.enter_context(private_server.server(path, settings=SETTINGS, find=find))
    return Server(url(conninfo), PG_BIN or "embedded")


@contextmanager
def server_folder() -> Iterator[Path]:
    """Make a folder for a server's data, in memory if there is room, and remove it."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4e9  # a container has 64 MB
    with tempfile.TemporaryDirectory(prefix="outreach-tests-", dir=memory if roomy else None) as folder:
        yield Path(folder)


@contextmanager
def _container() -> Iterator[str]:
    from testcontainers.community.postgres import PostgresContainer

    with container.leaving_sockets():
        made = PostgresContainer(IMAGE, username="postgres", driver=None).with_command(
            " ".join(f"-c {name}={value}" for name, value in SETTINGS.items())
        )
        made.with_tmpfs_mount("/var/lib/postgresql").start()
    yield url(made.get_connection_url())
    with container.leaving_sockets():
        made.stop()
        made.get_docker_client().client.close()
        del made


def url(conninfo: str, **changes: str) -> str:
    """Write a conninfo as a postgresql:// URL, with a socket's folder as ?host=."""
    parts = {name: str(value) for name, value in (conninfo_to_dict(conninfo) | changes).items() if value}
    login = ":".join(quote(parts.pop(name), safe="") for name in ("user", "password") if name in parts)
    dbname, port = parts.pop("dbname", ""), parts.pop("port", "5432")
    place = ""
    if not parts.get("host", "/").startswith("/"):
        place = f"{parts.pop('host')}:{port}"
    elif port != "5432":
        parts["port"] = port
    query = f"?{urlencode(parts, quote_via=quote, safe='')}" if parts else ""
    return f"postgresql://{login}@{place}/{quote(dbname, safe='')}{query}"


@pytest.fixture(scope="session")
def server_url(pytestconfig: pytest.Config) -> str:
    """The URL of a superuser on the server, and of its maintenance database."""
    return _started(pytestconfig).url


@pytest.fixture(scope="session")
def maintenance(server_url: str) -> Iterator[psycopg.Connection]:
    """A connection to the maintenance database; to open two for each test would cost a quarter of its database."""
    with closing(psycopg.connect(server_url, autocommit=True)) as connection:
        yield connection


@pytest.fixture
def database(server_url: str, maintenance: psycopg.Connection, request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an empty database, dropped after the test; for a test that is marked each_way, in each of them."""
    if getattr(request, "param", None) == "citus":
        yield request.getfixturevalue("citus")
        return
    with _empty(maintenance, server_url) as found:
        if getattr(request, "param", None) == "one by one":
            seem_citus(found)
        yield found


# Files go to the server as one text, or, to Citus, statement by statement.
WAYS = ["joined", "one by one", *(["citus"] if "OUTREACH_TEST_CITUS_URL" in os.environ else [])]
each_way = pytest.mark.parametrize("database", WAYS, indirect=True)


def seem_citus(database: str) -> None:
    """Let a database's catalog say that it has Citus: all that we do differently there can be tried without it."""
    columns = "oid, extname, extowner, extnamespace, extrelocatable, extversion"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f"INSERT INTO pg_extension ({columns}) VALUES (1, 'citus', 10, 11, false, '')".encode())


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """Make an empty database, to be dropped; give its URL."""
    with closing(psycopg.connect(server_url, autocommit=True)) as connection, _empty(connection, server_url) as found:
        yield found


@contextmanager
def _empty(maintenance: psycopg.Connection, server_url: str) -> Iterator[str]:
    name = sql.Identifier(dbname := f"outreach_{uuid.uuid4().hex[:12]}")
    # in memory, to copy the files takes half of the CPU that a copy through the WAL does: 9 ms instead of 17
    strategy = sql.SQL(" STRATEGY file_copy" if maintenance.info.server_version >= 150000 else "")
    maintenance.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0{}").format(name, strategy))
    yield url(server_url, dbname=dbname)
    maintenance.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(name))


@pytest.fixture
def another(server_url: str) -> Iterator[str]:
    """The URL of a second, empty database."""
    with fresh_database(server_url) as found:
        yield found


@pytest.fixture
def connect(database: str) -> Iterator[Connect]:
    """A function that opens an autocommit connection to the test's database, closed after the test."""
    with ExitStack() as stack:

        def opened(**options: Any) -> psycopg.Connection:
            return stack.enter_context(closing(psycopg.connect(database, autocommit=True, **options)))

        yield opened


def set_for_all(connect: Connect, setting: LiteralString) -> None:
    """Make a setting the database's default."""
    connection = connect()
    name = sql.Identifier(connection.info.dbname)
    connection.execute(sql.SQL("ALTER DATABASE {} SET {}").format(name, sql.SQL(setting)))
