"""Runs that a signal ends: their statements on the server end too, and the error names the applied files."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import fix_servers
import psycopg
import pytest
from fix_cli import Migrate, Result, Rows, Run
from fix_private_server import PrivateServer, lives
from fix_proxy import Proxy
from fix_servers import Connect
from fix_waiting import PATIENCE, Sessions, until
from psycopg import sql

SIGNALS = pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name
)
PROMPT = 2.5  # s: two are promised, and other tests share the machine
FIRST = "CREATE TABLE t (id int); INSERT INTO t VALUES (1);"
NOTHING = "Nothing of this file was applied."
LARGE = "INSERT INTO t SELECT 1 WHERE 'it goes to the server in parts' = '';\n" * 35_000
# it takes no notice of the cancel request that a signal sends
STUBBORN = """DO $$ BEGIN
    INSERT INTO t VALUES (3);
    PERFORM pg_sleep(60);
EXCEPTION WHEN query_canceled THEN
    INSERT INTO t VALUES (2);
    PERFORM pg_sleep(3);
END $$;"""


@pytest.fixture
def first(migrate: Migrate) -> Callable[..., None]:
    """A function that applies FIRST, and writes the second file."""

    def applied(*texts: str) -> None:
        migrate.write([FIRST])
        assert migrate("up").exit_code == 0
        migrate.write([FIRST, *texts])

    return applied


@pytest.fixture
def lock(connect: Connect) -> psycopg.Connection:
    """A connection that holds a lock on the table t, once it is asked to."""
    return connect(application_name="the lock")


def interrupt(run: Run, number: signal.Signals) -> tuple[Result, dict[str, Any]]:
    """Send the signal; check the promises for every interruption; give the run's result, and its error as JSON."""
    run.process.send_signal(number)
    began = time.monotonic()
    ended = run.end()
    took = time.monotonic() - began
    assert ended.exit_code == 128 + number, ended
    assert took < PROMPT
    assert "Traceback" not in ended.stderr
    assert f"interrupted by {number.name}" in ended.stderr
    document = ended.json
    assert (document["ok"], document["error"]["kind"]) == (False, "Interrupted")
    return ended, document["error"]


SLOW = "INSERT INTO t VALUES (2); SELECT pg_sleep(60);"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        *((number, SLOW) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)),
        (signal.SIGTERM, LARGE + "SELECT pg_sleep(60);" + LARGE),
    ],
    ids=["SIGINT", "SIGTERM", "SIGHUP", "a large file"],
)
def test_a_signal_cancels_a_slow_statement(
    migrate: Migrate, number: signal.Signals, text: str, first: Callable[..., None], rows: Rows, sessions: Sessions
) -> None:
    """Of a file that is one message or many, nothing stays: neither on disk nor at work on the server."""
    first(text)
    run = migrate.start("--json", "up")
    until(lambda: sessions.waiting("PgSleep"))
    _, error = interrupt(run, number)
    assert error["state"] == NOTHING
    until(lambda: not sessions.of_runs())
    assert rows("SELECT id FROM t") == [(1,)]
    assert rows("SELECT version FROM schema_migrations") == [("1",)]


def test_a_signal_ends_the_wait_for_a_lock(
    migrate: Migrate, first: Callable[..., None], lock: psycopg.Connection, sessions: Sessions
) -> None:
    """Nobody queues for the lock any more once the run has ended."""
    first("ALTER TABLE t ADD c int;")
    lock.execute("BEGIN; LOCK TABLE t")
    run = migrate.start("--json", "up", "--lock-timeout", "0")
    until(lambda: sessions.waiting("relation"))
    assert interrupt(run, signal.SIGTERM)[1]["state"] == NOTHING
    until(lambda: not sessions.of_runs())


def test_a_signal_ends_the_pause_before_a_retry(
    migrate: Migrate, first: Callable[..., None], lock: psycopg.Connection, sessions: Sessions
) -> None:
    """The pause, which can be 30 s, is not waited out."""
    first("ALTER TABLE t ADD c int;")
    lock.execute("BEGIN; LOCK TABLE t")
    run = migrate.start("--json", "up", "--lock-timeout", "20ms")
    run.says("(7 left)")  # now it pauses for 3 s at the least
    assert interrupt(run, signal.SIGTERM)[1]["state"] == NOTHING
    until(lambda: not sessions.of_runs())


@pytest.mark.parametrize("text", ["SELECT pg_sleep(60);", "-- migrate: no-transaction\nSELECT pg_sleep(60);"])
def test_a_signal_ends_the_wait_for_another_run(
    migrate: Migrate, text: str, first: Callable[..., None], rows: Rows, sessions: Sessions
) -> None:
    """The run that waits ends, and says that it has applied nothing; the other one goes on."""
    first(text)
    other = migrate.start("up", PGAPPNAME="the other")
    until(lambda: sessions.waiting("PgSleep"))
    run = migrate.start("--json", "up")
    run.says("waiting for another run")
    _, error = interrupt(run, signal.SIGINT)
    assert error["state"]
    assert "was applied and recorded" not in error["state"]
    assert other.process.poll() is None
    assert sessions.waiting("PgSleep")


def test_a_signal_ends_a_concurrent_build(
    migrate: Migrate, first: Callable[..., None], lock: psycopg.Connection, rows: Rows, sessions: Sessions
) -> None:
    """An unfinished entry and an invalid index stay; the message says so, and the next run makes both good."""
    first("CREATE INDEX CONCURRENTLY t_id ON t (id);")
    lock.execute("BEGIN; INSERT INTO t VALUES (2)")
    run = migrate.start("--json", "up")
    until(lambda: sessions.waiting("virtualxid"))
    _, error = interrupt(run, signal.SIGTERM)
    assert "2_a is unfinished: 0 of 1 statement done" in error["state"]
    until(lambda: not sessions.of_runs())
    assert rows("SELECT indisvalid FROM pg_index WHERE indrelid = 't'::regclass") == [(False,)]
    lock.execute("COMMIT")
    assert migrate("up").exit_code == 0
    assert rows("SELECT indisvalid FROM pg_index WHERE indrelid = 't'::regclass") == [(True,)]


@pytest.mark.parametrize("command", ["up", "status"])
def test_a_signal_ends_the_wait_for_a_server(migrate: Migrate, command: str) -> None:
    """--wait is not waited out: not where nobody listens, and not where nobody answers."""
    migrate.write([FIRST])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://nobody@127.0.0.1:{silent.getsockname()[1]}/x"
        run = migrate.start("--wait", "60", "--json", command, url=url)
        silent.accept()[0].close()
        with silent.accept()[0]:  # the next try, which gets no answer
            interrupt(run, signal.SIGTERM)


def test_what_was_applied_before_the_signal_stays(migrate: Migrate, rows: Rows, sessions: Sessions) -> None:
    """The files before the one that was struck are applied and reported, and the document counts them."""
    migrate.write([FIRST, "INSERT INTO t VALUES (2);", "SELECT pg_sleep(60);", "INSERT INTO t VALUES (4);"])
    run = migrate.start("--json", "up")
    until(lambda: sessions.waiting("PgSleep"))
    ended, error = interrupt(run, signal.SIGINT)
    assert error["state"] == "Nothing of this file was applied. 2 migrations before it were applied and recorded."
    document = ended.json
    assert [one["version"] for one in document["applied"]] == ["1", "2"]
    assert [one["version"] for one in document["pending"]] == ["3", "4"]
    assert rows("SELECT version FROM schema_migrations ORDER BY position") == [("1",), ("2",)]


def test_a_statement_that_takes_no_notice_is_ended(
    migrate: Migrate, first: Callable[..., None], rows: Rows, sessions: Sessions
) -> None:
    """A run that says that nothing was applied has seen to it that nothing can be any more."""
    first(STUBBORN)
    run = migrate.start("--json", "up")
    until(lambda: sessions.waiting("PgSleep"))
    run.process.send_signal(signal.SIGTERM)
    ended = run.end()
    assert ended.exit_code == 128 + signal.SIGTERM, ended
    assert ended.json["error"]["state"] == NOTHING
    until(lambda: not sessions.of_runs())
    assert rows("SELECT id FROM t") == [(1,)]
    assert rows("SELECT version FROM schema_migrations") == [("1",)]


@pytest.fixture
def stopped(private_server: Callable[..., PrivateServer]) -> Iterator[tuple[str, Callable[[str], None]]]:
    """The URL of a server, and a function that makes it, or its backend only, stand still in the midst of a pg_sleep.

    It does so to the test's end.
    """
    server = private_server()
    still: list[int] = []

    def stop(what: str) -> None:
        sleeping = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        with closing(psycopg.connect(server.url, autocommit=True)) as connection:
            still.extend(row[0] for row in until(lambda: connection.execute(sleeping).fetchall()))
        still.extend([server.postmaster] if what == "server" else [])
        for one in still:
            os.kill(one, signal.SIGSTOP)

    yield server.url, stop
    for one in still:
        os.kill(one, signal.SIGCONT)


def test_a_signal_is_not_lost_in_a_flood_of_notices(
    migrate: Migrate, first: Callable[..., None], rows: Rows, sessions: Sessions
) -> None:
    """The run has less time for the signal then, and as many events to pass on as there are notices."""
    first("DO $$ BEGIN FOR i IN 1..2000000 LOOP RAISE NOTICE 'notice %', i; END LOOP; END $$;")
    run = migrate.start("--json", "-q", "up")
    ours = "datname = current_database() AND query LIKE '/* outreach-migrate %' AND state = 'active'"
    until(lambda: rows(f"SELECT 1 FROM pg_stat_activity WHERE {ours}"))
    ended, error = interrupt(run, signal.SIGINT)
    assert error["state"].startswith(NOTHING)
    assert ended.stderr.count("\n") == 2, ended.stderr[:500]
    until(lambda: not sessions.of_runs())


@pytest.mark.parametrize("full", ["stdout", "stderr", "terminal"])
def test_a_signal_does_not_wait_for_a_reader_that_never_reads(
    migrate: Migrate, full: str, rows: Rows, sessions: Sessions
) -> None:
    """A pipe or terminal that is full and read by nobody keeps no run from its end; the text for it is lost."""
    flood = "DO $$ BEGIN FOR i IN 1..700 LOOP RAISE NOTICE '%', repeat('x', 200); END LOOP; END $$;"
    quick = {f"{number}_{'x' * 200}.sql": "SELECT 1;" for number in range(1, 400)}
    migrate.write({**(quick if full == "stdout" else {"1_a.sql": flood}), "9000_a.sql": "SELECT pg_sleep(60);"})
    command = [sys.executable, "-m", "outreach_migrate", "--database", migrate.url, "up"]
    ours, theirs = pty.openpty() if full == "terminal" else os.pipe()
    stdout, stderr = (theirs if full in (name, "terminal") else subprocess.DEVNULL for name in ("stdout", "stderr"))
    with subprocess.Popen(command, cwd=migrate.folder, stdout=stdout, stderr=stderr) as run:
        until(lambda: sessions.waiting("PgSleep"))
        run.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert run.wait(PATIENCE) == 128 + signal.SIGINT
        assert time.monotonic() - began < PROMPT
        until(lambda: not sessions.of_runs())
    os.close(ours)
    os.close(theirs)
    assert rows("SELECT count(*) FROM schema_migrations WHERE version = '9000'") == [(0,)]


def test_a_signal_that_comes_while_a_failed_file_is_rolled_back_is_reported(
    migrate: Migrate, first: Callable[..., None]
) -> None:
    """It decides the exit code, and the state is found out nevertheless."""
    first("SELECT nix;")
    with Proxy(migrate.url) as between:
        # the look, the file, its ROLLBACK, which is on its way until the run has seen the signal
        between.before("Q", 3, lambda: until(lambda: "CancelRequest" in between.messages))
        run = migrate.start("--json", "up", url=between.url)
        until(lambda: between.messages.count("Q") == 3)
        assert interrupt(run, signal.SIGTERM)[1]["state"] == NOTHING


def test_a_private_server_that_answers_no_more_is_not_waited_for(migrate: Migrate, tmp_path: Path) -> None:
    """It has been asked to end, and does so once it can."""
    migrate.write(["SELECT pg_sleep(60);"])
    run = migrate.start("--embedded", "--json", "up", url="")
    note = tmp_path / ".outreach" / "data" / "postmaster.pid"
    until(lambda: note.exists() and "ready" in note.read_text())
    pid, _, _, port, host, *_ = note.read_text().splitlines()
    server = fix_servers.url("", host=host, port=port, user="postgres", dbname="postgres")
    with closing(psycopg.connect(server, autocommit=True)) as connection:
        until(lambda: Sessions(connection).waiting("PgSleep"))
    os.kill(int(pid), signal.SIGSTOP)
    try:
        interrupt(run, signal.SIGTERM)
    finally:
        os.kill(int(pid), signal.SIGCONT)
    until(lambda: not lives(tmp_path / ".outreach"))


@SIGNALS
@pytest.mark.parametrize("what", ["server", "backend"])
@pytest.mark.parametrize("directive", ["", "-- migrate: no-transaction\n"])
def test_a_signal_does_not_wait_for_a_server_that_answers_no_more(
    migrate: Migrate, number: signal.Signals, what: str, directive: str, stopped: tuple[str, Callable[[str], None]]
) -> None:
    """If the state can't be found out in time, the run ends, and calls the state unknown."""
    url, stop = stopped
    migrate.write([FIRST, f"{directive}SELECT pg_sleep(60);"])
    run = migrate.start("--json", "up", url=url)
    stop(what)
    _, error = interrupt(run, number)
    assert error["state"].startswith("It is not known whether 2_a was applied")
    assert "1 migration before it was" in error["state"]


@pytest.mark.parametrize(
    ("number", "second"),
    [(signal.SIGINT, signal.SIGINT), (signal.SIGINT, signal.SIGTERM)],
    ids=lambda number: number.name,
)
def test_a_second_signal_ends_at_once(
    migrate: Migrate, number: signal.Signals, second: signal.Signals, stopped: tuple[str, Callable[[str], None]]
) -> None:
    """Where the server does not answer any more, a run that is still tidying up can be ended."""
    url, stop = stopped
    migrate.write([FIRST, "SELECT pg_sleep(60);"])
    with Proxy(url) as between:
        run = migrate.start("--json", "up", url=between.url)
        stop("server")
        run.process.send_signal(number)
        until(lambda: "CancelRequest" in between.messages)  # which nobody answers, so now it waits
        run.process.send_signal(second)
        ended = run.end()
    assert ended.exit_code in (-second, 128 + second)
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""  # it did not come to its own end, where it reports the state


def test_a_killed_run_leaves_no_statement_at_work(
    migrate: Migrate, first: Callable[..., None], rows: Rows, sessions: Sessions
) -> None:
    """The server notices that a run was killed, ends its statement, and keeps nothing of the file."""
    first("INSERT INTO t VALUES (2); SELECT pg_sleep(60);")
    run = migrate.start("up")
    until(lambda: sessions.waiting("PgSleep"))
    run.kill()
    until(lambda: not sessions.of_runs())
    assert rows("SELECT id FROM t") == [(1,)]
    assert rows("SELECT version FROM schema_migrations") == [("1",)]


def test_a_killed_run_s_batch_is_done_once(
    migrate: Migrate, first: Callable[..., None], rows: Rows, sessions: Sessions
) -> None:
    """A batch that goes on after its run was killed, and is done, is not done again by the next run."""
    first("-- migrate: no-transaction\nUPDATE t SET id = id + 1 FROM pg_sleep(1.5);\nINSERT INTO t VALUES (7);")
    killed = migrate.start("up")
    until(lambda: sessions.waiting("PgSleep"))
    killed.kill()
    ended = migrate("up")
    assert ended.exit_code == 0, ended
    assert rows("SELECT id FROM t ORDER BY id") == [(2,), (7,)]


def test_a_killed_run_s_build_is_waited_for(
    migrate: Migrate, first: Callable[..., None], lock: psycopg.Connection, rows: Rows, sessions: Sessions
) -> None:
    """The next run leaves an index alone, and says so, as long as a killed run's session still builds it."""
    first("CREATE INDEX CONCURRENTLY t_id ON t (id);")
    # as good as never, but not the test's to change
    database_name = sql.Identifier(lock.info.dbname)
    lock.execute(sql.SQL("ALTER DATABASE {} SET client_connection_check_interval = '1h'").format(database_name))
    lock.execute("BEGIN; INSERT INTO t VALUES (2)")
    killed = migrate.start("up")
    until(lambda: sessions.waiting("virtualxid"))
    killed.kill()
    run = migrate.start("up")
    run.says("waiting for a statement of an earlier run to end")
    lock.execute("COMMIT")
    ended = run.end()
    assert ended.exit_code == 0, ended
    assert "was built by an earlier run" in ended.stderr
    assert "dropping" not in ended.stderr
    assert rows("SELECT indisvalid FROM pg_index WHERE indrelid = 't'::regclass") == [(True,)]


def test_a_run_under_nohup_outlives_its_terminal(migrate: Migrate, sessions: Sessions) -> None:
    """A SIGHUP that is ignored already stays ignored."""
    migrate.write(["SELECT pg_sleep(0.5)"])
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        started = migrate.start("up")
    finally:
        signal.signal(signal.SIGHUP, before)
    until(lambda: sessions.waiting("PgSleep"))
    started.process.send_signal(signal.SIGHUP)
    assert started.end().exit_code == 0


@pytest.mark.parametrize("after", [0.0, 0.1, 0.3, 0.6])
def test_a_signal_at_any_instant_is_reported(migrate: Migrate, after: float, rows: Rows) -> None:
    """From the first file on, a signal ends in 130 and a document, or comes too late."""
    migrate.write([FIRST, *["INSERT INTO t SELECT 1 FROM pg_sleep(0.02);"] * 30])
    run = migrate.start("--json", "up")
    until(lambda: "applied" in run.stderr)
    time.sleep(after)
    run.process.send_signal(signal.SIGINT)
    ended = run.end()
    document = ended.json
    assert ended.exit_code == 130 or document["ok"], ended
    assert "Traceback" not in ended.stderr
    assert document["ok"] is (ended.exit_code != 130)
    recorded = [version for (version,) in rows("SELECT version FROM schema_migrations ORDER BY position")]
    applied = [one["version"] for one in document["applied"]]
    if len(recorded) > len(applied):  # it came between a file's COMMIT and our next step
        applied.append(recorded[-1])
        assert f"{recorded[-1]}_a was applied and recorded" in document["error"]["state"]
    assert applied == recorded
