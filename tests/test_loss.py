"""Loss: runs lose the connection, the server, room or permission; the state they tell is the one that is."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from typing import Any

import fix_faults
import fix_servers
import psycopg
import pytest
from fix_cli import Migrate, Result, Rows
from fix_private_server import PrivateServer
from fix_proxy import Proxy
from fix_servers import Connect
from fix_waiting import GATE, Sessions, until
from psycopg import sql

FIRST = "CREATE TABLE t (id int); INSERT INTO t VALUES (1);"
FEW = {
    "1_a.sql": FIRST,
    "2_b.sql": "-- migrate: no-transaction\nUPDATE t SET id = id + 10;\nCREATE INDEX CONCURRENTLY t_id ON t (id);",
    "3_c.sql": "INSERT INTO t VALUES (3);",
}


def history_of(connection: psycopg.Connection) -> list[tuple[str, bool]]:
    """Give the versions in the history, and whether each is finished."""
    if connection.execute("SELECT to_regclass('schema_migrations')").fetchone() == (None,):
        return []
    return connection.execute(
        "SELECT version, finished_at IS NOT NULL FROM schema_migrations ORDER BY position"
    ).fetchall()


def tells_the_truth(run: Result, connection: psycopg.Connection) -> None:
    """Compare the state that a run reports with the table, once nothing runs any more."""
    until(lambda: not Sessions(connection).of_runs())
    document, history = run.json, history_of(connection)
    assert [one["version"] for one in document["applied"]] == [version for version, finished in history if finished]
    if run.exit_code == 0:
        assert len(history) == len(FEW)
        return
    error = document["error"]
    assert error["kind"] == "ConnectionFailed"
    sentences = error["message"].splitlines()
    assert len(set(sentences)) == len(sentences)
    if "is unfinished" in (error["state"] or ""):
        assert history[-1][1] is False
    else:
        assert all(finished for _, finished in history)
        assert error["state"] is None or "not known" not in error["state"]
    before = re.search(r"(\d+) migrations? before it|applied and recorded (\d+)", error["state"] or "")
    assert (int(before[1] or before[2]) if before else 0) == len(document["applied"])


@pytest.mark.parametrize("forwarded", [False, True], ids=["before", "after"])
def test_a_connection_that_is_cut_at_any_message(forwarded: bool, server_url: str, migrate: Migrate) -> None:
    """Whichever message is lost, or its answer: a run reports the true state, and the next one does the rest, once."""
    migrate.write(FEW)
    went_on = 0
    for nth in _cuts(server_url, migrate):
        with (
            fix_servers.fresh_database(server_url) as url,
            closing(psycopg.connect(url, autocommit=True)) as connection,
        ):
            with Proxy(url) as between:
                between.cut_at(nth, forwarded=forwarded)
                run = migrate("--json", "up", url=between.url)
            tells_the_truth(run, connection)
            went_on += "it was committed before the connection was lost" in run.stderr
            again = migrate("up", url=url)
            assert again.exit_code == 0, (nth, run, again)
            assert history_of(connection) == [("1", True), ("2", True), ("3", True)]
            assert connection.execute("SELECT id FROM t ORDER BY id").fetchall() == [(3,), (11,)], (nth, run)
            valid = "SELECT indisvalid FROM pg_index WHERE indrelid = 't'::regclass"
            assert connection.execute(valid).fetchall() == [(True,)]
    assert (went_on > 0) is forwarded


def test_a_message_that_is_still_under_way_is_not_carried_out(server_url: str, migrate: Migrate) -> None:
    """A message that reaches the server only after a run has read the history is not committed any more."""
    migrate.write({"1_a.sql": FIRST})
    with fix_servers.fresh_database(server_url) as url, Proxy(url) as between:
        assert migrate("up", url=between.url).exit_code == 0
        nth = len(between.messages) - between.messages[::-1].index("Q")
    with fix_servers.fresh_database(server_url) as url, closing(psycopg.connect(url, autocommit=True)) as connection:
        with Proxy(url) as between:
            between.cut_at(nth, forwarded=True, late=0.5)
            run = migrate("--json", "up", url=between.url)
            until(lambda: between.idle)
        tells_the_truth(run, connection)
        assert run.json["error"]["state"] == "Nothing of this file was applied."


def _cuts(server_url: str, migrate: Migrate) -> list[int]:
    """Count the messages of an undisturbed run; of a pipeline's, unless there is time, only a group's last two."""
    with fix_servers.fresh_database(server_url) as url, Proxy(url) as between:
        assert migrate("up", url=between.url).exit_code == 0
        kinds = between.messages
    ends = [kind not in "PBDE" or following == "S" for kind, following in zip(kinds, [*kinds[1:], ""], strict=True)]
    return [nth for nth, chosen in enumerate(ends, 1) if chosen or fix_faults.LONG]


@pytest.mark.parametrize(
    "text",
    [
        f"INSERT INTO t VALUES (2); {GATE}",
        "-- migrate: no-transaction\nINSERT INTO t SELECT 2 FROM pg_advisory_xact_lock(4711);",
        "INSERT INTO t VALUES (2);" + "SELECT 1 WHERE 'in parts' = '';\n" * 3 + "-- long\n" * 500_000 + GATE,
    ],
    ids=["whole", "statement by statement", "in parts"],
)
def test_what_still_runs_when_the_connection_is_lost_is_ended(
    text: str, proxy: Callable[..., Proxy], migrate: Migrate, rows: Rows, sessions: Sessions, gate: psycopg.Connection
) -> None:
    """A run ends the statement that the server is still doing before it looks at the history."""
    between = proxy()
    migrate("up", files={"1_a.sql": FIRST})

    def cut() -> None:
        until(lambda: sessions.waiting("advisory"))
        between.cut()

    cutting = threading.Thread(target=cut)
    cutting.start()
    run = migrate("--json", "up", "--lock-timeout", "0", files={"2_b.sql": text}, url=between.url)
    cutting.join()
    assert run.exit_code == 1
    assert re.search(r"Nothing of this file|2_b is unfinished: 0 of 1", run.json["error"]["state"])
    assert not sessions.waiting("advisory")
    gate.close()
    until(lambda: not sessions.of_runs())  # by then it would have been committed
    assert rows("SELECT id FROM t") == [(1,)]


@pytest.mark.parametrize("directive", ["", "-- migrate: no-transaction\n"])
def test_a_session_that_is_terminated(directive: str, migrate: Migrate, rows: Rows) -> None:
    """The error has the server's reason, the file and the state; the files before it stay."""
    end = "SELECT pg_terminate_backend(pg_backend_pid());"
    text = f"{directive}INSERT INTO t VALUES (2);\n{end}"
    run = migrate("--json", "up", files={"1_a.sql": FIRST, "2_b.sql": text})
    assert run.exit_code == 1
    error = run.json["error"]
    assert error["kind"] == "ConnectionFailed"
    assert error["message"].startswith("lost the connection while 2_b ran: ")
    assert "terminating connection due to administrator command" in error["message"]
    assert (error["path"], error["version"]) == ("sql/2_b.sql", "2")
    unfinished = "2_b is unfinished: 1 of 2 statements done; the next up goes on there."
    kept = unfinished if directive else "Nothing of this file was applied."
    assert error["state"] == f"{kept} 1 migration before it was applied and recorded."
    assert error["hint"] == "Run up again."
    assert rows("SELECT id FROM t ORDER BY id") == [(1,), (2,)][: 2 if directive else 1]


def restart(server: PrivateServer, _: int) -> None:
    server.restart()


def kill(server: PrivateServer, _: int) -> None:
    server.kill()
    server.start()


def crash(_: PrivateServer, backend: int) -> None:
    os.kill(backend, signal.SIGKILL)  # whereupon the postmaster ends all the others, and recovers


@pytest.mark.parametrize(
    ("disturb", "directive"),
    [(restart, ""), (kill, ""), (kill, "-- migrate: no-transaction\n"), (crash, "-- migrate: no-transaction\n")],
)
def test_a_server_that_comes_back(
    migrate: Migrate,
    disturb: Callable[[PrivateServer, int], None],
    directive: str,
    private_server: Callable[..., PrivateServer],
) -> None:
    """A restart, kill -9 of the server, a crash of one session, in the middle of a file: the run reports the state."""
    server = private_server()
    migrate.write(
        [*[FIRST, "INSERT INTO t VALUES (2);"][: 1 + (disturb is restart)], f"{directive}SELECT pg_sleep(60);"]
    )
    run = migrate.start("--json", "up", url=server.url)
    with closing(psycopg.connect(server.url, autocommit=True)) as connection:
        (pid,) = until(lambda: Sessions(connection).waiting("PgSleep"))
    disturb(server, pid)
    ended = run.end()
    assert ended.exit_code == 1, ended
    assert "Traceback" not in ended.stderr
    error = ended.json["error"]
    assert error["kind"] == "ConnectionFailed"
    assert "lost the connection while" in error["message"]
    assert "not known" not in error["state"]
    (history,) = until(lambda: _looked(server.url))
    kept = sum(finished for _, finished in history)
    assert ("is unfinished: 0 of 1 statement done" in error["state"]) is (len(history) > kept)
    assert ("Nothing of this file was applied" in error["state"]) is (len(history) == kept)
    before = re.search(r"(\d+) migrations? before it (?:was|were) applied", error["state"])
    assert (int(before[1]) if before else 0) == kept


def _looked(url: str) -> tuple[list[tuple[str, bool]], ...]:
    """Give the history, alone; nothing while the server is to recover, even if its postmaster has not noticed yet."""
    with suppress(psycopg.OperationalError), closing(psycopg.connect(url, autocommit=True)) as connection:
        return (history_of(connection),)
    return ()


def test_a_server_that_is_gone_for_good(private_server: Callable[..., PrivateServer], migrate: Migrate) -> None:
    """Where nobody can be asked any more, a run says that it is not known, and not that nothing was applied."""
    server = private_server()
    halt = "COPY (SELECT) TO PROGRAM 'kill -9 $(head -1 postmaster.pid)'; SELECT pg_sleep(60);"
    run = migrate("--json", "up", files={"1_a.sql": FIRST, "2_b.sql": halt}, url=server.url)
    assert run.exit_code == 1
    error = run.json["error"]
    assert "lost the connection while 2_b ran" in error["message"]
    assert error["state"].startswith("It is not known whether 2_b was applied: run status once the server answers.")


@pytest.fixture
def crowded(private_server: Callable[..., PrivateServer]) -> Iterator[tuple[str, list[psycopg.Connection]]]:
    """The URL of a server that has room for three, and connections that leave room for nobody."""
    server = private_server(max_connections="3", superuser_reserved_connections="0", max_worker_processes="1")
    with ExitStack() as stack:
        yield server.url, [stack.enter_context(closing(psycopg.connect(server.url))) for _ in range(3)]


def test_a_server_without_room(migrate: Migrate, crowded: tuple[str, list[psycopg.Connection]]) -> None:
    """Too many connections are an error with the hint to wait; a run that waits gets its turn."""
    url, taken = crowded
    run = migrate("up", files={"1_a.sql": FIRST, "2_b.sql": "CREATE INDEX CONCURRENTLY i ON t (id);"}, url=url)
    assert (run.exit_code, run.stdout) == (1, "")
    lines = run.stderr.splitlines()
    assert "too many clients" in lines[0]
    assert lines[1] == "hint: The server is out of connections: try again with --wait 60."
    waits = migrate.start("--wait", "30", "up", "--to", "1", url=url)
    waits.says("too many clients")
    taken.pop().close()
    assert waits.end().exit_code == 0
    second = migrate("--json", "up", url=url)  # a file without a transaction takes two
    assert second.exit_code == 1
    assert "too many clients" in second.json["error"]["message"]
    assert second.json["error"]["state"] == "Nothing of this file was applied."
    taken.pop().close()
    assert migrate("up", url=url).exit_code == 0


def test_a_role_without_room(role: tuple[str, str], rows: Rows, connect: Connect, migrate: Migrate) -> None:
    """A role's own limit is the same error."""
    name, url = role
    connect().execute(sql.SQL("ALTER ROLE {} CONNECTION LIMIT 1").format(sql.Identifier(name)))
    with closing(psycopg.connect(url)):
        run = migrate("up", files={"1_a.sql": FIRST}, url=url)
    assert run.exit_code == 1
    assert "too many connections for role" in run.stderr.splitlines()[0]
    assert run.stderr.splitlines()[1] == "hint: The server is out of connections: try again with --wait 60."


def test_a_server_that_shuts_down_and_starts(migrate: Migrate, private_server: Callable[..., PrivateServer]) -> None:
    """A server that lets nobody in any more says why; with --wait a run outlasts that, and the restart after it."""
    server = private_server()
    migrate.write({"1_a.sql": FIRST})
    with closing(psycopg.connect(server.url)):
        os.kill(server.postmaster, signal.SIGTERM)  # a smart shutdown, which waits for us
        run = until(lambda: _refused(migrate("up", url=server.url)))
        assert run.exit_code == 1
        assert run.stderr.splitlines()[1] == "hint: Try again in a moment, or let it try: --wait 60."
        waits = migrate.start("--wait", "30", "up", url=server.url)
        waits.says("shutting down")
    server.restart()
    assert waits.end().exit_code == 0


def _refused(run: Result) -> Result | None:
    return run if "the database system is shutting down" in run.stderr.splitlines()[0] else None


def test_a_full_disk(private_server: Callable[..., PrivateServer], migrate: Migrate) -> None:
    """If the disk is full, the error names the statement and the next thing to do; nothing of the file stays."""
    server = private_server()
    assert migrate("up", files={"1_a.sql": FIRST + "CREATE TABLE full_disk (id int);"}, url=server.url).exit_code == 0
    with closing(psycopg.connect(server.url, autocommit=True)) as connection:
        row = connection.execute("SELECT pg_relation_filepath('full_disk')").fetchone()
    assert row
    path = server.folder / "data" / row[0]
    path.unlink()
    path.symlink_to("/dev/full")
    text = "INSERT INTO t VALUES (2);\n  INSERT INTO full_disk VALUES (1);"
    run = migrate("--json", "up", files={"2_b.sql": text}, url=server.url)
    error = run.json["error"]
    assert (run.exit_code, error["sqlstate"], error["line"], error["column"]) == (1, "53100", 2, 3)
    assert "No space left on device" in error["message"]
    assert "space" in error["hint"].lower()
    assert error["state"] == "Nothing of this file was applied."
    path.unlink()
    path.touch()
    os.chown(path, path.parent.stat().st_uid, path.parent.stat().st_gid)
    assert migrate("up", url=server.url).exit_code == 0


def test_a_limit_of_temporary_space(migrate: Migrate) -> None:
    """A limit that the server sets is an error in the server's words, at the statement that met it."""
    text = "SET temp_file_limit = '100kB'; SET work_mem = '64kB';\nCREATE TABLE t AS SELECT n FROM\n"
    text += "generate_series(1, 100000) AS n ORDER BY md5(n::text);"
    run = migrate("--json", "up", files={"1_a.sql": text})
    error = run.json["error"]
    assert (run.exit_code, error["sqlstate"], error["line"]) == (1, "53400", 2)
    assert "temp_file_limit" in error["message"]


def test_what_a_role_may_not_do(role: tuple[str, str], migrate: Migrate, connect: Connect) -> None:
    """Each permission that a migrating role lacks is one line, with the role that should have it or run it."""
    name, url = (sql.Identifier(role[0]), role[1])
    admin = connect()

    def told(files: dict[str, str]) -> tuple[str, Any]:
        run = migrate("--json", "up", files=files, url=url)
        assert run.exit_code == 1
        error = run.json["error"]
        assert error["hint"]
        assert error["state"] == "Nothing of this file was applied."
        return run.stderr.splitlines()[0], error["sqlstate"]

    admin.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    line = "sql/1_a.sql: error: cannot begin the file: permission denied for schema public"
    assert told({"1_a.sql": FIRST}) == (line, "42501")
    assert migrate("up").exit_code == 0
    admin.execute(sql.SQL("GRANT SELECT ON schema_migrations TO {}").format(name))
    line = "sql/2_b.sql: error: cannot begin the file: permission denied for table schema_migrations"
    assert told({"2_b.sql": "ALTER TABLE t ADD c int;"}) == (line, "42501")
    assert told({"2_b.sql": "-- migrate: no-transaction\nALTER TABLE t ADD c int;"}) == (line, "42501")
    admin.execute(sql.SQL("GRANT INSERT ON schema_migrations TO {}").format(name))
    line = "sql/2_b.sql: error: cannot finish the file's entry: permission denied for table schema_migrations"
    assert told({"2_b.sql": "SELECT 1;"}) == (line, "42501")
    admin.execute(sql.SQL("GRANT UPDATE ON schema_migrations TO {}").format(name))
    assert told({"2_b.sql": "\n ALTER TABLE t ADD c int;"}) == (
        "sql/2_b.sql:2:2: error: must be owner of table t",
        "42501",
    )
