"""Backfills in batches: each range of the key once, in a transaction with its progress."""

from __future__ import annotations

import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fix_servers
import psycopg
import pytest
from fix_cli import Migrate, Rows, Run
from fix_private_server import PrivateServer
from fix_servers import Connect
from fix_terminal import in_a_terminal
from fix_waiting import GATE, Sessions, until

import outreach_migrate
from outreach_migrate import events
from outreach_migrate.files import batches
from outreach_migrate.report import printer
from outreach_migrate.run.pace import Pace

HEAD = '-- migrate: batches of steps by "id"\n'
BACKFILL = f"{HEAD}UPDATE steps SET n = n + 1 WHERE :range;"
KINDS = {  # a type, and values in no order, the first and the last row of the table among them
    "int": "SELECT i FROM generate_series(-1500, 1500) i",
    "uuid": "SELECT md5(i::text)::uuid FROM generate_series(1, 3000) i",
    "text": "SELECT repeat(chr(33 + i % 90), 1 + i / 90) || '''\\é' FROM generate_series(1, 3000) i",
    "char(9)": "SELECT i::text FROM generate_series(1, 3000) i",
    "float8": "SELECT i / 7.0::float8 FROM generate_series(1, 3000) i UNION VALUES ('NaN'::float8), ('-Infinity')",
    "timestamptz": "SELECT 'epoch'::timestamptz + i * interval '9.000001 h' FROM generate_series(-1500, 1500) i",
    "pair": "SELECT (i % 7, chr(40 + i % 60) || i)::pair FROM generate_series(1, 3000) i",
    "short": "SELECT i::text FROM generate_series(1, 3000) i",
    "int[]": "SELECT ARRAY[i % 3, i] FROM generate_series(1, 3000) i",
    "ext.citext": "SELECT CASE i % 2 WHEN 0 THEN 'a' ELSE 'A' END || i FROM generate_series(1, 3000) i",
    "ext.hstore": "SELECT ext.hstore('a', i::text) FROM generate_series(1, 3000) i",
}


def steps(rows: Rows, count: int) -> None:
    """Make the table with so many rows."""
    rows("CREATE TABLE steps (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)")
    rows("INSERT INTO steps SELECT generate_series(1, %s)", count)
    rows("ANALYZE steps")


def counted(rows: Rows) -> list[tuple[Any, ...]]:
    """Give how many rows were changed how often."""
    return rows("SELECT n, count(*) FROM steps GROUP BY n ORDER BY n")


def test_each_row_is_in_one_range_whatever_the_key_is(migrate: Migrate, rows: Rows) -> None:
    """Any type with an order is a key, also where the role's settings write and read its values in another way."""
    rows('CREATE TYPE pair AS (a int, b text); CREATE DOMAIN short AS text COLLATE "C"; CREATE SCHEMA ext')
    rows("CREATE EXTENSION citext SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext")  # their operators are in no path
    odd = "-c DateStyle=SQL,DMY -c extra_float_digits=-5 -c IntervalStyle=sql_standard"
    files = []
    for number, (kind, values) in enumerate(KINDS.items()):
        rows(f'CREATE TABLE t{number} ("Key" {kind} PRIMARY KEY, n int DEFAULT 0); INSERT INTO t{number} {values}')
        files.append(f'-- migrate: batches of t{number} by "Key"\nUPDATE t{number} SET n = n + 1 WHERE :range;')
    done = migrate("up", files=files, url=fix_servers.url(migrate.url, options=odd))
    assert done.exit_code == 0, done.output
    for number, kind in enumerate(KINDS):
        ((times, count),) = rows(f"SELECT n, count(*) FROM t{number} GROUP BY n")
        assert (times, count >= 3000) == (1, True), kind
    assert rows("SELECT count(*) FROM schema_migrations_batches") == [(0,)]


def killed(run: Run, rows: Rows, *, after: int, seconds: float) -> int:
    """Kill a run, so long after more than so many rows are done; give the number of rows that are done then."""
    done = "SELECT coalesce(max(rows), 0) FROM schema_migrations_batches"

    def is_on() -> bool:
        begun = rows("SELECT to_regclass('schema_migrations_batches') IS NOT NULL")[0][0]
        return bool(begun) and rows(done)[0][0] > after

    until(lambda: not run.lives or is_on())
    time.sleep(seconds)
    run.kill()
    return int(rows(done)[0][0])


def test_a_killed_backfill_goes_on_where_it_was(migrate: Migrate, rows: Rows, seed: int) -> None:
    """No range is done twice, and none left out, whenever the run is killed."""
    luck = random.Random(seed)
    steps(rows, 40_000)
    migrate.write([f"{HEAD.strip()} each 5ms\nUPDATE steps SET n = n + 1 WHERE :range;"])
    done = 0
    for _ in range(2):
        done = killed(migrate.start("up"), rows, after=done, seconds=luck.uniform(0, 0.05))
    assert migrate.process("up").exit_code == 0
    assert counted(rows) == [(1, 40_000)]


def test_after_a_crash_of_the_server_a_backfill_goes_on(
    private_server: Callable[..., PrivateServer], migrate: Migrate, seed: int
) -> None:
    """A range and its progress are there together, or not at all; the run says that the connection was lost."""
    server = private_server()
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE steps (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)")
        connection.execute("INSERT INTO steps SELECT generate_series(1, 40000)")
        migrate.write([f"{HEAD.strip()} each 5ms\nUPDATE steps SET n = n + 1 WHERE :range;"])
        run, enough = migrate.start("up", url=server.url), random.Random(seed).randrange(20_000)
        there = "SELECT to_regclass('schema_migrations_batches')::text"
        until(lambda: connection.execute(there).fetchall()[0][0])
        done = "SELECT FROM schema_migrations_batches WHERE rows > %s"
        until(lambda: connection.execute(done, [enough]).fetchall())
        of_the_run = "SELECT pid FROM pg_stat_activity WHERE application_name = 'outreach-migrate' ORDER BY pid"
        os.kill(connection.execute(of_the_run).fetchall()[0][0], signal.SIGKILL)  # the server ends all sessions then
    ended = run.end()
    assert (ended.exit_code, "lost the connection while 1_a ran" in ended.stderr) == (1, True), ended.stderr
    assert migrate.process("--wait", "30s", "up", url=server.url).exit_code == 0
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT n, count(*) FROM steps GROUP BY n").fetchall() == [(1, 40_000)]


# --- the text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("UPDATE steps SET n = 1;", "the statement has no :range outside of strings and comments"),
        (
            "UPDATE steps SET n = ':range'::range + b[1:range] + c[f(1):range] -- :range\n WHERE $$:range$$ = 1",
            "the statement has no :range outside of strings and comments",
        ),
        ("UPDATE steps SET n = 1 WHERE :range OR :range;", "the statement has :range a second time"),
        ("UPDATE steps SET n = 1 WHERE :range; SELECT 1;", "a file in batches has one statement"),
        ("-- nothing", "a file in batches needs a statement"),
        ("VACUUM steps;", "VACUUM cannot run in batches"),
    ],
    ids=["none", "none that counts", "twice", "two statements", "no statement", "no transaction"],
)
def test_a_text_that_has_no_ranges_is_refused(migrate: Migrate, text: str, message: str) -> None:
    """`check` reports it without a database, and `up` before anything runs."""
    found = migrate("check", files=[HEAD + text])
    assert (found.exit_code, message in found.output) == (1, True), found.output
    assert message in migrate("up").stderr


def test_a_range_in_brackets_counts_if_parentheses_are_between() -> None:
    """Of [1:range] it is the slice's end, of [(…)] an operand."""
    text = "SELECT a[1:range], ARRAY[(SELECT 1 WHERE :range)]"
    assert [text[one.start : one.stop] for one in batches.uses(text)] == [":range"]
    assert next(batches.uses(text)).start == text.rindex(":range")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("id int", 'the key "id" is not NOT NULL'),
        ("id int NOT NULL", "no index begins with it"),
        ("id int NOT NULL, n int, UNIQUE (id, n)", "the index steps_id_n_key is not on it alone"),
        ("id int NOT NULL); CREATE INDEX i ON steps (id", "the index i is not unique"),
        ("id int NOT NULL); CREATE UNIQUE INDEX i ON steps (id) WHERE (id > 0", "the index i is partial"),
        ("n int PRIMARY KEY", "the table steps has no column id"),
        (
            "id int NOT NULL); ALTER TABLE steps RENAME TO other; CREATE VIEW steps AS (SELECT 1 AS id",
            "steps is a view",
        ),
        ("id int); ALTER TABLE steps RENAME TO other; SELECT (1", "there is no table steps"),
    ],
)
def test_a_column_that_is_no_key_is_refused(migrate: Migrate, rows: Rows, columns: str, message: str) -> None:
    """`up` names the unmet condition, at the directive, and makes no entry; `check --database` finds it as well."""
    rows(f"CREATE TABLE steps ({columns})")
    found = migrate("--database", migrate.url, "check", files=[f"{HEAD}UPDATE steps SET id = id WHERE :range;"])
    assert (found.exit_code, message in found.output) == (1, True), found.output
    done = migrate("up")
    assert done.exit_code == 1
    assert re.match("sql/1_a.sql:1:12: error: .*" + re.escape(message), done.stderr), done.stderr
    assert "\nsee: outreach-migrate help backfills\n" in done.stderr
    assert done.stderr.endswith("Nothing of this file was applied.\n")
    assert rows("SELECT to_regclass('schema_migrations')") == [(None,)]


# --- going on


def test_a_backfill_that_fails_goes_on_behind_the_ranges_that_are_done(migrate: Migrate, rows: Rows) -> None:
    """Its error, `status` and the JSON say how far it is; a changed file is refused, unless it runs anew."""
    steps(rows, 1500)
    rows("CREATE FUNCTION fails(int) RETURNS int LANGUAGE sql AS 'SELECT 1 / (1200 - $1)'")
    text = f"{HEAD}UPDATE steps\nSET n = n + 1 WHERE fails(id) < 2 AND :range AND id < (9);"
    failing = text.replace(" AND id < (9)", "")
    done = migrate("up", files=[text.replace("(9)", "(nix)")])
    assert done.stderr.startswith('sql/1_a.sql:3:56: error: column "nix" does not exist'), done.stderr
    done = migrate("up", files=[failing])
    assert "error: division by zero" in done.stderr
    assert "see: outreach-migrate help backfills" in done.stderr
    assert re.search(
        r"1_a is unfinished: 1,000 of about 1,500 rows \(66 %\) done; the next up goes on there.$", done.stderr
    )
    assert counted(rows) == [(0, 500), (1, 1000)]
    assert "unfinished: 1,000 of about" in migrate("status").stdout
    found = migrate("--json", "rehearse", files=[failing.replace("fails(id) < 2", "true")])
    assert "the file has been changed since" in found.stderr
    rows("CREATE OR REPLACE FUNCTION fails(int) RETURNS int LANGUAGE sql AS 'SELECT 1'")
    found = migrate("rehearse", files=[failing])
    assert "one range of 500 rows was carried out; the rest, about 500 rows, would take about " in found.stdout
    ((one,), error) = (lambda document: (document["batches"], document["error"]))(migrate("--json", "status").json)
    assert (one["version"], one["rows"], error) == ("1", 1000, None)
    changed = migrate("up", files=[BACKFILL])
    assert "some of its ranges are done, and the file has been changed since" in changed.stderr
    (told,) = migrate("--json", "status").json["problems"]  # without the hint to run up, which would refuse it
    assert told["hint"] == "Restore it. Or run it anew, over all ranges: outreach-migrate up --from-start 1"
    assert migrate("up", files=[failing]).exit_code == 0
    assert counted(rows) == [(1, 1500)]


def test_a_changed_backfill_can_run_anew(migrate: Migrate, rows: Rows) -> None:
    """--from-start runs all ranges of the file as it is now; without its progress a file is not run a second time."""
    steps(rows, 1500)
    migrate("up", files=[f"{HEAD}UPDATE steps SET n = n + 1 + 0 / (1200 - id) WHERE :range;"])
    rows("DELETE FROM schema_migrations_batches")
    gone = migrate("up")
    assert "the progress of 1_a is gone from public.schema_migrations_batches" in gone.stderr
    done = migrate("up", "--from-start", "1", files=[BACKFILL])
    assert done.exit_code == 0, done.output
    assert counted(rows) == [(1, 500), (2, 1000)]


def test_an_empty_table_is_done_at_once(migrate: Migrate, rows: Rows) -> None:
    """No range is run; the entry is that of a finished file."""
    steps(rows, 0)
    assert migrate("up", files=[BACKFILL]).exit_code == 0
    query = "SELECT statements_done, finished_at IS NOT NULL FROM schema_migrations"
    assert rows(query) == [(1, True)]


def test_rows_above_the_upper_end_are_new(migrate: Migrate, rows: Rows) -> None:
    """A backfill ends, even if its own statement adds rows behind the greatest key."""
    steps(rows, 1500)
    migrate("up", files=[f"{HEAD}INSERT INTO steps SELECT id + 1500, 7 FROM steps WHERE :range;"])
    assert counted(rows) == [(0, 1500), (7, 1500)]


def test_two_runs_at_once_change_each_row_once(
    migrate: Migrate, rows: Rows, sessions: Sessions, gate: psycopg.Connection
) -> None:
    """The second waits with a pause, says for whom, and finds the file done."""
    steps(rows, 3000)
    migrate.write([f"{HEAD}WITH gate AS ({GATE.strip(';')}) UPDATE steps SET n = n + 1 FROM gate WHERE :range;"])
    first = migrate.start("up")
    until(lambda: sessions.waiting("advisory"))
    second = migrate.start("up")
    second.says("waiting for another run: pid")
    gate.close()
    assert (first.end().exit_code, second.end().exit_code) == (0, 0), first.stderr + second.stderr
    assert counted(rows) == [(1, 3000)]


def test_a_pooler_may_give_each_range_another_connection(
    migrate: Migrate, rows: Rows, pgbouncer: Callable[..., str]
) -> None:
    """Two runs behind PgBouncer in transaction mode, with two connections for both: each row is changed once."""
    steps(rows, 3000)
    migrate.write([BACKFILL])
    pooled = pgbouncer(pool_size=2)
    ended = [run.end() for run in [migrate.start("up", url=pooled) for _ in range(2)]]
    assert [one.exit_code for one in ended] == [0, 0], ended
    assert counted(rows) == [(1, 3000)]


# --- making way


def test_ranges_follow_the_time_that_they_take() -> None:
    """Towards the wanted time, between 100 and 100,000 rows; slowly, once another session has waited."""
    pace = Pace(1000)
    assert pace.after(0.001, 0.5, waited=False).size == 2000
    assert pace.after(0.1, 0.5, waited=False).size == 1100
    assert pace.after(1.0, 0.5, waited=False).size == 500
    assert pace.after(0.48, 0.5, waited=False).size == 1042
    assert Pace(150).after(9.0, 0.5, waited=False).size == 100
    assert Pace(90_000).after(0.001, 0.5, waited=False).size == 100_000
    calm = pace.after(0.001, 0.5, waited=True)
    assert (calm.size, calm.after(0.001, 0.5, waited=False).size) == (500, 505)


def test_a_range_for_which_a_session_waits_is_given_up(
    database: str, tmp_path: Path, rows: Rows, connect: Connect, sessions: Sessions, gate: psycopg.Connection
) -> None:
    """It is taken again with half the rows, down to 100, which are carried through; each row is changed once.

    The events have the sessions that waited, and the rate, the rows and the size of the ranges.
    """
    steps(rows, 3000)
    rows(f"CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM {GATE[7:]} RETURN NULL; END $$")
    rows("CREATE TRIGGER held AFTER UPDATE OF n ON steps EXECUTE FUNCTION held(); ALTER TABLE steps ADD other int")
    (tmp_path / "1_a.sql").write_text(BACKFILL)
    told: list[events.Event] = []
    run = threading.Thread(
        target=outreach_migrate.up, args=[database], kwargs={"folder": tmp_path, "tell": told.append}
    )
    run.start()
    other = connect(application_name="other")

    def update() -> None:
        while run.is_alive():
            other.execute("UPDATE steps SET other = 1 WHERE id = 1")

    def given_up() -> list[events.GivingWay]:
        return [one for one in told if isinstance(one, events.GivingWay)]

    updates = threading.Thread(target=update)
    updates.start()
    until(lambda: given_up() and given_up()[-1].size == 100)
    until(lambda: other.info.backend_pid in sessions.waiting("Lock"))
    gate.close()
    for one in (run, updates):
        one.join()
    assert [one.size for one in given_up()[:5]] == [500, 250, 125, 100, 100]
    assert {(waiter.pid, waiter.application) for one in given_up() for waiter in one.waiting} == {
        (other.info.backend_pid, "other")
    }
    ranges = [one for one in told if isinstance(one, events.Batched)]
    assert (ranges[0].size, ranges[-1].rows, ranges[-1].changed, ranges[-1].seconds_left) == (100, 3000, 3000, 0)
    assert counted(rows) == [(1, 3000)]


def test_a_lock_timeout_halves_the_range(database: str, tmp_path: Path, rows: Rows, connect: Connect) -> None:
    """A range is tried again with half the rows."""
    steps(rows, 1500)
    blocker = connect()
    blocker.execute("BEGIN; SELECT FROM steps WHERE id = 900 FOR UPDATE")
    (tmp_path / "1_a.sql").write_text(BACKFILL)
    sizes: list[int] = []

    def tell(event: events.Event) -> None:
        if isinstance(event, events.Retrying):
            blocker.close()
        elif isinstance(event, events.Batched):
            sizes.append(event.size)

    outreach_migrate.up(database, folder=tmp_path, lock_timeout="50ms", tell=tell)
    assert (sizes[0], sum(sizes)) == (500, 1500)
    assert counted(rows) == [(1, 1500)]


def test_a_replica_that_is_behind_is_waited_for(
    private_server: Callable[..., PrivateServer], standby: Callable[..., str], migrate: Migrate
) -> None:
    """While its replay lag is over --max-lag no range runs, and the run says why; or which grant it needs to see it."""
    primary = private_server()
    url = standby(primary, wal_receiver_status_interval="1s")
    with psycopg.connect(primary.url, autocommit=True) as connection, psycopg.connect(url, autocommit=True) as other:
        connection.execute("CREATE TABLE steps (id int PRIMARY KEY, n int DEFAULT 0)")
        connection.execute("INSERT INTO steps SELECT generate_series(1, 3000)")
        lag = "SELECT count(*) FROM pg_stat_replication WHERE replay_lag > '50 ms'"
        other.execute("SELECT pg_wal_replay_pause()")
        until(
            lambda: (
                connection.execute("INSERT INTO steps VALUES (0) ON CONFLICT (id) DO UPDATE SET n = 0")
                and connection.execute(lag).fetchall()[0][0]
            )
        )
        migrate.write([BACKFILL])
        run = migrate.start("up", "--max-lag", "50ms", url=primary.url)
        run.says("s behind, more than --max-lag 0.05s")
        assert connection.execute("SELECT count(*) FROM steps WHERE n > 0").fetchall() == [(0,)]
        other.execute("SELECT pg_wal_replay_resume()")
        assert run.end().exit_code == 0
        connection.execute("CREATE ROLE app LOGIN; CREATE SCHEMA app AUTHORIZATION app; GRANT ALL ON steps TO app")
        app = fix_servers.url(primary.url, user="app")
        until(lambda: connection.execute("SELECT FROM pg_stat_replication WHERE state = 'streaming'").fetchall())
        warning = "1  a  warning: the role app can't see how far 1 replica is behind, so the file does not wait:"
        assert f"{warning} GRANT pg_read_all_stats TO app;\n" in migrate("--table", "app.one", "up", url=app).stderr
        connection.execute("GRANT pg_read_all_stats TO app")
        assert migrate("--table", "app.two", "up", url=app).stderr == ""


# --- telling


def test_progress_is_shown(migrate: Migrate, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar on a terminal, elsewhere a line now and then; the JSON has the last state of each file."""
    steps(rows, 1500)
    migrate.write([BACKFILL])
    written = in_a_terminal(migrate, "up")
    bar = r"\[#{6}\.{4}\] 1,000 of about 1,500 rows \(66 %\), [\d,]+/s, .* left  1  a"
    assert re.search(bar, written), written
    monkeypatch.setattr(printer.Report, "every", 0.0)
    line = r"2  b  1,000 of about [\d,]+ rows \(\d+ %\), [\d,]+/s, .* left\n2  b  1,500 of about 1,500 rows \(100 %\)"
    plain = migrate("up", files={"2_b.sql": BACKFILL})
    assert re.match(line, plain.stderr), plain.stderr
    document = migrate("--json", "up", files={"3_c.sql": BACKFILL}).json
    assert [(one["version"], one["rows"], one["changed"]) for one in document["batches"]] == [("3", 1500, 1500)]
    assert document["applied"][0]["statements"] == ["UPDATE 1500"]


def test_a_rehearsal_carries_out_one_range(migrate: Migrate, rows: Rows) -> None:
    """It estimates the time of all ranges by one; a key that a left-out file makes is no error."""
    steps(rows, 3000)
    found = migrate("rehearse", files=[BACKFILL])
    assert re.search(
        r"one range of 1,000 rows was carried out; all of about 3,000 rows would take about ", found.stdout
    )
    assert counted(rows) == [(0, 3000)]
    rows("ALTER TABLE steps DROP CONSTRAINT steps_pkey")
    index = "CREATE UNIQUE INDEX CONCURRENTLY i ON steps (id);"
    found = migrate("--json", "rehearse", files={"1_a.sql": index, "2_b.sql": BACKFILL})
    assert [(one["version"], one["needs"]) for one in found.json["files"]] == [("1", None), ("2", "sql/1_a.sql")]
    assert migrate("--database", migrate.url, "check").exit_code == 0  # an earlier file makes it one


def test_the_rows_of_a_table_without_statistics_are_counted_by_its_changes(migrate: Migrate, rows: Rows) -> None:
    """The planner guesses them by the width of the columns; a table in parts has those of all its parts."""
    made = """
        CREATE TABLE steps (id int PRIMARY KEY, n int NOT NULL DEFAULT 0, note text) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF steps FOR VALUES FROM (0) TO (2000);
        CREATE TABLE high PARTITION OF steps FOR VALUES FROM (2000) TO (9000);
        INSERT INTO steps SELECT n FROM generate_series(0, 4499) n;
        DELETE FROM steps WHERE id < 500;"""
    migrate.write({"1_t.sql": made, "2_b.sql": f"{HEAD}UPDATE steps SET n = n + 1 WHERE :range;"})
    assert "all of about 4,000 rows would take about " in migrate("rehearse").stdout
    document = migrate("--json", "up").json
    assert [(one["rows"], one["total"]) for one in document["batches"]] == [(4000, 4000)]


def test_the_rows_of_a_table_that_grew_since_it_was_analyzed_are_counted(migrate: Migrate, rows: Rows) -> None:
    """The planner thinks of the few rows that the first page had then."""
    steps(rows, 10)
    more = "INSERT INTO steps SELECT n FROM generate_series(11, 3000) n;"
    found = migrate("rehearse", files=[more, BACKFILL])
    assert re.search("all of about 3,0[01]0 rows would", found.stdout)  # the server may count the first ten late


def test_a_range_is_linted_as_a_condition(migrate: Migrate) -> None:
    """squawk finds no wrong syntax in :range."""
    found = migrate("check", "--lint", "--format", "json", files=[f"{HEAD}DELETE FROM steps WHERE :range;"])
    assert found.json["findings"] == []


def test_a_role_that_may_read_the_history_alone_sees_the_state(
    migrate: Migrate, rows: Rows, role: tuple[str, str]
) -> None:
    """Without a right on the table with the progress, `status` shows that the file is unfinished, and how to go on."""
    steps(rows, 10)
    assert migrate("up", files=[f"{HEAD}UPDATE steps SET n = 1 / (n - n) WHERE :range;"]).exit_code == 1
    rows(f"GRANT SELECT ON schema_migrations TO {role[0]}")
    run = migrate("status", url=role[1])
    assert run.exit_code == 0
    assert "sql/1_a.sql:2:1: error: unfinished\nhint: Run up, which goes on there" in run.stdout
