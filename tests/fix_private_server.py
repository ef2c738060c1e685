"""Servers of a test's own, to restart or to kill, and their standbys."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import fix_servers
import psycopg
import pytest
from fix_waiting import PATIENCE, until

from outreach_migrate.postgres import private_server as programs


class PrivateServer:
    """A server that runs from `start` to `stop` or `kill`; its `url` stays the same."""

    def __init__(self, folder: Path, settings: dict[str, str], initialized: Path) -> None:
        copy(initialized, folder)
        self.folder = folder
        self.settings = settings
        self.url = ""
        self._running = ExitStack()

    def start(self) -> None:
        self.stop()  # the files of a killed one must be gone first
        server = programs.server(self.folder, settings=self.settings, find=fix_servers.find)
        self.url = fix_servers.url(self._running.enter_context(server))

    def stop(self) -> None:
        """Shut down fast: open transactions are rolled back, their connections closed."""
        self._running.close()

    def restart(self) -> None:
        self.stop()
        self.start()

    @property
    def postmaster(self) -> int:
        """Its pid."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split()[0])

    def kill(self, *stopped: int) -> None:
        """Kill the postmaster with -9; wait until its backends notice and are gone too, but those that stand still."""
        os.kill(self.postmaster, signal.SIGKILL)
        for one in stopped:
            os.kill(one, signal.SIGKILL)
        until(lambda: not lives(self.folder))


def lives(folder: Path) -> bool:
    """Say whether any process of the folder's server is there."""
    with (folder / "lock.server").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def copy(initialized: Path, folder: Path) -> None:
    """Make the folder of a private server, with its data."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)  # the server may run as another user
    subprocess.run(["cp", "-a", initialized, folder / "data"], check=True)


@pytest.fixture(scope="session")
def initialized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of a new server, made by the first process that asks: to copy it takes 0.1 s, initdb 0.5."""
    everyones = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        everyones = everyones.parent
    folder = everyones / "initialized"
    with (everyones / "initialized.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            with programs.server(folder, settings={"fsync": "off"}, find=fix_servers.find):
                pass
    return folder / "data"


@pytest.fixture(scope="session")
def scratch_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a private server for scratch databases, which runs until the last test."""
    folder = tmp_path_factory.mktemp("scratch")
    with programs.server(folder, settings={"fsync": "off"}):
        yield folder


@pytest.fixture
def scratch_server(tmp_path: Path, scratch_folder: Path) -> None:
    """Let `migrate` use that server, because each folder's own would need initdb."""
    (tmp_path / ".outreach").mkdir()
    (tmp_path / ".outreach" / "scratch").symlink_to(scratch_folder)


@pytest.fixture
def private_server(initialized: Path) -> Iterator[Callable[..., PrivateServer]]:
    """A function that starts a server with the given settings, and stops it after the test."""
    with fix_servers.server_folder() as folder, ExitStack() as stack:
        count = iter(range(100))

        def started(**settings: str) -> PrivateServer:
            # a killed server leaves its shared memory behind: let that be in its own folder
            tame = {"fsync": "off", "dynamic_shared_memory_type": "mmap"}
            server = PrivateServer(folder / f"server{next(count)}", {**tame, **settings}, initialized)
            stack.callback(server.stop)
            server.start()
            return server

        yield started


@pytest.fixture
def standby(private_server: object) -> Iterator[Callable[..., str]]:
    """A function that starts a standby of a private server, with the given settings, and gives its URL.

    It streams, and ends with the test, before the private servers do.
    """
    with ExitStack() as stack:
        yield lambda primary, **settings: stack.enter_context(_following(primary, settings))


@contextmanager
def _following(primary: PrivateServer, settings: dict[str, str]) -> Iterator[str]:
    user = programs.server_user(primary.folder / "data")
    # the socket is short to name here, and beside the data, since the copy brings along the lock file of the primary's
    with tempfile.TemporaryDirectory(prefix="outreach-standby-") as folder:
        data, output = Path(folder, "data"), Path(folder, "log")
        if user:
            os.chown(folder, *user)
        copy = [str(fix_servers.find("pg_basebackup")), f"--pgdata={data}", f"--dbname={primary.url}"]
        copy += ["--write-recovery-conf", "--checkpoint=fast", "--no-sync"]
        command, privileges = programs.unprivileged(copy, user)
        subprocess.run(command, check=True, **privileges)
        chosen = {"listen_addresses": "", "unix_socket_directories": folder, "fsync": "off", **settings}
        postgres = [str(fix_servers.find("postgres")), f"-D{data}", *(f"--{name}={chosen[name]}" for name in chosen)]
        command, privileges = programs.unprivileged(postgres, user)
        with output.open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **privileges)
        url = fix_servers.url(f"host={folder} user=postgres dbname=postgres")
        try:
            until(lambda: process.poll() is not None or answers(url))
            assert process.poll() is None, output.read_text()
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # a fast shutdown
            process.wait(PATIENCE)


def answers(url: str) -> bool:
    """Say whether a server lets us in."""
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True
