"""A server in a container, by testcontainers; the processes of all runs of a project share it."""

from __future__ import annotations

import fcntl
import gc
import importlib.util
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

IMAGE = "postgres:18-alpine"
_SETTINGS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"


def is_available() -> bool:
    """Tell whether testcontainers is installed, and Docker answers."""
    if not importlib.util.find_spec("testcontainers"):
        return False
    with leaving_sockets():
        import docker
        from docker.errors import DockerException

        try:
            client = docker.from_env(timeout=3)
            try:
                return bool(client.ping())
            finally:
                client.close()
        except DockerException:
            return False


@contextmanager
def server(folder: Path, *, stays: Callable[[], bool]) -> Iterator[str]:
    """Run the container, started by its first user and removed by the last, unless `stays` is true then."""
    folder.mkdir(exist_ok=True)
    started = folder / "container.json"
    with (folder / "users").open("ab") as users:
        with _turn(folder):
            fcntl.flock(users, fcntl.LOCK_SH)
            if not started.exists():
                started.write_text(json.dumps(_start()))
            known = json.loads(started.read_text())
        try:
            yield str(known["url"])
        finally:
            with _turn(folder), suppress(BlockingIOError):  # another run uses it
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not stays():
                    started.unlink()
                    _remove(known["id"])


def _start() -> dict[str, Any]:
    with leaving_sockets():
        from testcontainers.core.config import testcontainers_config as config

        try:
            from testcontainers.community.postgres import PostgresContainer
        except ImportError:  # before 4.15
            from testcontainers.postgres import PostgresContainer

        before = config.ryuk_disabled
        config.ryuk_disabled = True  # its reaper would remove the container with this process, though others use it
        try:
            made = PostgresContainer(IMAGE, driver=None).with_command(_SETTINGS)
            made.with_tmpfs_mount("/var/lib/postgresql").start()
            return {"id": made.get_wrapped_container().id, "url": made.get_connection_url()}
        finally:
            config.ryuk_disabled = before


def _remove(identity: str) -> None:
    with leaving_sockets():
        import docker
        from docker.errors import NotFound

        client = docker.from_env()
        try:
            with suppress(NotFound):
                client.containers.get(identity).remove(force=True, v=True)
        finally:
            client.close()


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    with (folder / "turn").open("ab") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


@contextmanager
def leaving_sockets() -> Iterator[None]:
    """Collect here the sockets that docker's client leaves open, because their warnings could fail a test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            gc.collect()
