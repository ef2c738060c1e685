"""A real PgBouncer, in transaction mode, before the server of the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import fix_servers
import pytest
from fix_waiting import until
from psycopg.conninfo import conninfo_to_dict

from outreach_migrate.postgres import private_server


@pytest.fixture
def pgbouncer(server_url: str, database: str, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A function that starts PgBouncer, `pool_size` 20 unless given, and gives the URL of the test's database."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        reason = "pgbouncer is not installed (Debian: apt-get install pgbouncer)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    with ExitStack() as stack:

        def started(*, pool_size: int = 20) -> str:
            port = _free_port()
            config = tmp_path / f"pgbouncer-{port}.ini"
            config.write_text(_config(server_url, port, pool_size))
            _start(stack, program, config, server_url)
            _wait(port, config.with_suffix(".log"))
            return fix_servers.url(database, host="127.0.0.1", port=str(port))

        yield started


def _config(server_url: str, port: int, pool_size: int) -> str:
    server = conninfo_to_dict(server_url)
    wanted = {name: str(server[name]) for name in ("host", "port", "user", "password") if server.get(name)}
    target = " ".join("{}='{}'".format(name, value.replace("'", "''")) for name, value in wanted.items())
    # auth_type any: every client is logged in as the user of `target`
    return f"""
        [databases]
        * = {target}
        [pgbouncer]
        pool_mode = transaction
        default_pool_size = {pool_size}
        max_client_conn = 500
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        ignore_startup_parameters = extra_float_digits
    """


def _start(stack: ExitStack, program: str, config: Path, server_url: str) -> None:
    # PgBouncer refuses root too, and as the server's user it reaches the server's socket
    host = str(conninfo_to_dict(server_url).get("host", ""))
    user = private_server.server_user(Path(host) if host.startswith("/") else config.with_name("no data"))
    command, privileges = private_server.unprivileged([program, str(config)], user)
    with config.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **privileges)
    stack.callback(process.wait)
    stack.callback(process.kill)


def _wait(port: int, log: Path) -> None:
    def listens() -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", port)) == 0

    try:
        until(listens)
    except AssertionError:
        pytest.fail(f"PgBouncer did not start:\n{log.read_text()}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port
