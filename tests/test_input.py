"""Input that is large, or hostile: its cost, and the places where nothing of it may stay."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import fix_faults
import psycopg
import pytest
from fix_cli import Migrate, Rows
from fix_servers import Connect
from fix_waiting import Sessions, until
from psycopg import sql

MEGABYTE = 1_000_000
ROWS = 400_000 if fix_faults.LONG else 160_000
LINE = "INSERT INTO t (id, text) VALUES ({n:6}, '{text}');\n"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """A file of 50 MB and 400,000 INSERTs (20 MB where time is short), of which the last one fails."""
    (tmp_path / "sql").mkdir()
    path = tmp_path / "sql" / "1_large.sql"
    with path.open("w") as file:
        file.write("CREATE TABLE t (id int PRIMARY KEY, text text);\n")
        file.writelines(LINE.format(n=n, text="x" * 80) for n in range(ROWS - 1))
        file.write("INSERT INTO t (id, text) VALUES (0, 'once more');\n")
    assert path.stat().st_size > 125 * ROWS
    return path


class Memory(threading.Thread):
    """Watches the memory that a process has for itself, in bytes, until it ends."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.path = Path(f"/proc/{pid}/status")
        self.peak = 0
        self.start()

    def run(self) -> None:
        with suppress(OSError):
            while found := re.search(r"RssAnon:\s+(\d+) kB", self.path.read_text()):
                self.peak = max(self.peak, int(found[1]) * 1024)
                time.sleep(0.01)


def processes(database: str) -> set[int]:
    """Give the pids, as this machine counts, of the server's processes for a database."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            title = path.read_bytes()
            if title.startswith(b"postgres:") and database.encode() in title:
                found.add(int(path.parent.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_file_of_many_megabytes(migrate: Migrate, large: Path, connect: Connect, sessions: Sessions) -> None:
    """The client takes at most four times the file, the server 150 MB; an error on the last line is placed there."""
    watching = connect()
    name = watching.info.dbname
    before = processes(name)
    run = migrate.start("--json", "up")
    until(lambda: sessions.of_runs() or not run.lives)
    # by its title: in a container it has another pid than it knows of itself
    backend = min(processes(name) - before)
    server = Memory(backend)
    client = Memory(run.process.pid)
    run.process.wait(60)
    document = run.end()
    assert document.exit_code == 1
    assert f"sql/1_large.sql:{ROWS + 1}:1: error: duplicate key value" in document.stderr
    assert f'"statement": {ROWS + 1},' in document.stdout
    assert watching.execute("SELECT to_regclass('t'), to_regclass('schema_migrations')").fetchone() == (None, None)
    assert large.stat().st_size < client.peak < 4 * large.stat().st_size
    assert MEGABYTE < server.peak < 150 * MEGABYTE


def test_thousands_of_files(migrate: Migrate, rows: Rows) -> None:
    """Five thousand (or fewer, where time is short) take seconds of the processor; a later run takes hardly any."""
    count = 5000 if fix_faults.LONG else 1500
    migrate.write({f"{n:05}_a.sql": f"CREATE TYPE t{n} AS ();" for n in range(1, count + 1)})
    began = time.process_time()
    run = migrate("--json", "up")
    assert time.process_time() - began < 30
    assert (run.exit_code, len(run.json["applied"]), run.json["pending"]) == (0, count, [])
    assert rows("SELECT count(*), max(position) FROM schema_migrations") == [(count, count)]
    began = time.process_time()
    assert migrate("up").stdout == f"Nothing is pending: {count} migrations are applied.\n"
    assert time.process_time() - began < 3


@pytest.mark.parametrize("text", ["SELECT 1/0;", "CREATE INDEX CONCURRENTLY ON nowhere (a);"])
@pytest.mark.parametrize("directive", ["", "-- migrate: no-transaction\n"])
def test_a_session_lock_of_a_file_that_fails(
    directive: str, text: str, migrate: Migrate, pgbouncer: Callable[..., str]
) -> None:
    """Nothing stays locked in the pool: the one server connection that there is has no lock of the file's any more."""
    url = pgbouncer(pool_size=2)
    if "CONCURRENTLY" in text and not directive:
        text = "DO $$ BEGIN EXECUTE 'CREATE INDEX CONCURRENTLY ON nowhere (a)'; END $$"
    lock = "SELECT pg_advisory_lock(4711);\nSELECT pg_advisory_lock_shared(1, 2);\n"
    run = migrate("up", files={"1_a.sql": f"{directive}{lock}{text}"}, url=url)
    assert run.exit_code == 1
    with psycopg.connect(migrate.url) as connection:
        held = """
            SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database
             WHERE locktype = 'advisory' AND datname = current_database()"""
        assert connection.execute(held).fetchall() == []
        pooled = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        assert connection.execute(pooled).fetchall()


def test_a_role_with_a_short_statement_timeout(role: tuple[str, str], connect: Connect, migrate: Migrate) -> None:
    """Its files have 50 ms, our own statements, however long the history, have all the time they need."""
    name, url = role
    admin = connect()
    admin.execute("GRANT CREATE ON SCHEMA public TO PUBLIC")
    admin.execute(sql.SQL("ALTER ROLE {} SET statement_timeout = '50ms'").format(sql.Identifier(name)))
    files = {"1_a.sql": "CREATE TABLE a ();", "2_b.sql": "CREATE TABLE b (); SELECT pg_sleep(1);"}
    run = migrate("--json", "up", files=files, url=url)
    assert (run.exit_code, run.json["error"]["sqlstate"], run.json["error"]["statement"]) == (1, "57014", 2)
    assert "--statement-timeout 0" in run.json["error"]["hint"]
    assert [one["version"] for one in run.json["applied"]] == ["1"]
    admin.execute("BEGIN; LOCK TABLE schema_migrations")
    threading.Timer(0.3, admin.rollback).start()
    status = migrate("--json", "status", url=url)
    assert (status.exit_code, status.json["counts"]) == (0, {"applied": 1, "pending": 1})
    assert migrate("--statement-timeout", "0", "up", url=url).exit_code == 2  # it is up's own option
    assert migrate("up", "--statement-timeout", "0", url=url).exit_code == 0


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE t (a int); CREATE TABLE u (a int); CREATE RULE r AS ON INSERT TO t DO ALSO SELECT 1, 2;\n"
        "CREATE RULE s AS ON INSERT TO t DO ALSO INSERT INTO u VALUES (1);\nINSERT INTO t VALUES (1);\nSELECT 1/0;",
        "LISTEN a; NOTIFY a; SELECT pg_notify('a', n::text) FROM generate_series(1, 1000) AS n;\n\n\nSELECT 1/0;",
        "COPY (SELECT n FROM generate_series(1, 100000) AS n) TO STDOUT;\n\n\nSELECT 1/0;",
        "SELECT n FROM generate_series(1, 100000) AS n;;;\n;\n\nSELECT 1/0;",
    ],
    ids=["rules", "notifications", "copy", "rows"],
)
def test_results_nobody_asked_for_do_not_move_the_place(text: str, migrate: Migrate) -> None:
    """Rules add results, and COPY ends them otherwise: the error still names the statement that failed."""
    run = migrate("--json", "up", files={"1_a.sql": text})
    error = run.json["error"]
    assert (run.exit_code, error["sqlstate"], error["line"]) == (1, "22012", 4)
