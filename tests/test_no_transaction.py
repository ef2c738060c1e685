"""Files without a transaction: statement by statement, each done once, whatever comes between."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from fix_cli import Migrate, Rows
from fix_proxy import Proxy
from fix_servers import Connect
from fix_waiting import GATE, Sessions, at_once, until

HEAD = "-- migrate: no-transaction\n"
BUILD = "CREATE INDEX CONCURRENTLY i ON t (a);"

HISTORY = "SELECT statements_done, statements_begun, finished_at IS NOT NULL FROM schema_migrations WHERE version = '1'"
INDEXES = """
    SELECT c.relname::text, i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
     WHERE c.relnamespace = 'public'::regnamespace AND c.relname !~ '^schema_migrations' ORDER BY 1"""


def trail(*steps: int) -> str:
    return "\n".join(f"INSERT INTO trail VALUES ({step});" for step in steps)


@pytest.fixture
def table(rows: Rows) -> None:
    """Tables for the files to work on."""
    rows("CREATE TABLE t (id int, a int, b int); CREATE TABLE trail (step int)")


@pytest.fixture
def steps(rows: Rows) -> Callable[[], list[int]]:
    """A function that gives the steps on the trail, as often as they were made."""
    return lambda: [step for (step,) in rows("SELECT step FROM trail ORDER BY step")]


@pytest.fixture
def reader(connect: Connect, table: None) -> Iterator[psycopg.Connection]:
    """A connection with a transaction that has written to `t`: concurrent builds wait for its end."""
    connection = connect()
    connection.execute("BEGIN; INSERT INTO t VALUES (0)")
    yield connection
    connection.close()


# --- statements that run, and that don't


def test_the_entry_is_committed_first_and_tells_how_far_the_file_is(
    migrate: Migrate, rows: Rows, table: None, sessions: Sessions, gate: psycopg.Connection
) -> None:
    """Others see the entry from the start: statements_done rises with each statement, finished_at is set at the end."""
    migrate.write([HEAD + GATE + trail(1) + GATE.replace("4711", "4712") + trail(2)])
    run = migrate.start("up", "--lock-timeout", "0")
    until(lambda: sessions.waiting("advisory"))
    assert rows(HISTORY) == [(0, 0, False)]
    gate.execute("SELECT pg_advisory_lock(4712); SELECT pg_advisory_unlock(4711)")
    until(lambda: rows("SELECT 1 FROM trail") and sessions.waiting("advisory"))
    assert rows(HISTORY) == [(2, 2, False)]
    gate.close()
    assert run.end().exit_code == 0
    assert rows(HISTORY) == [(4, 4, True)]


def waits(rows: Rows) -> bool:
    found = rows("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'")
    return bool(found)


@pytest.mark.parametrize(
    ("text", "proof"),
    [
        ("VACUUM (ANALYZE) t; VACUUM t;", "SELECT true"),
        ("CREATE INDEX i ON t (a); REINDEX INDEX CONCURRENTLY i; REINDEX (CONCURRENTLY) TABLE t;", INDEXES),
        (BUILD + "DROP INDEX CONCURRENTLY i; CREATE UNIQUE INDEX CONCURRENTLY i ON t (b);", INDEXES),
        (
            "CREATE TYPE e AS ENUM ('a'); ALTER TYPE e ADD VALUE 'b'; CREATE TABLE m AS SELECT 'b'::e AS m;",
            "SELECT m = 'b' FROM m",
        ),
        (
            "INSERT INTO t SELECT n FROM generate_series(1, 9) n; DELETE FROM t WHERE id > 4;",
            "SELECT count(*) = 4 FROM t",
        ),
        (
            "SET search_path = s, public; CREATE SCHEMA s; CREATE TABLE u (); CREATE TABLE v (); VACUUM u;"
            "SET lock_timeout = '7s'; CREATE TABLE seen AS SELECT current_setting('lock_timeout') AS value;",
            "SELECT value = '7s' AND to_regclass('s.u') IS NOT NULL FROM s.seen",
        ),
        ("SET ROLE pg_monitor; SELECT 1; RESET ROLE; CREATE TABLE u AS SELECT current_user AS u;", "SELECT true"),
    ],
    ids=["vacuum", "reindex", "drop", "enum", "batches", "set", "role"],
)
def test_what_can_not_be_in_a_transaction_runs(
    text: str, proof: str, migrate: Migrate, rows: Rows, table: None, connect: Connect
) -> None:
    """Each statement runs by itself, under the SETs of the file that stand before it."""
    run = migrate("up", files={"1_a.sql": HEAD + text})
    assert run.exit_code == 0, run
    ((done, begun, finished),) = rows(HISTORY)
    assert (done == begun, finished) == (True, True)
    assert connect().execute(proof.encode()).fetchall() == ([("i", True)] if proof == INDEXES else [(True,)])
    assert "Nothing is pending" in migrate("up").stdout


def test_alter_system_runs(migrate: Migrate, rows: Rows) -> None:
    """ALTER SYSTEM, alone in its file, needs no directive."""
    files = {"1_a.sql": "ALTER SYSTEM SET work_mem = '4MB';", "2_a.sql": "ALTER SYSTEM RESET work_mem;"}
    run = migrate("up", files=files)
    assert run.exit_code == 0, run
    assert rows("SELECT statements_done FROM schema_migrations") == [(1,), (1,)]


@pytest.mark.parametrize("text", [BUILD, f"\n-- why\n{BUILD}\n/* so */", "VACUUM t", "REINDEX TABLE CONCURRENTLY t;"])
def test_a_single_statement_needs_no_directive(text: str, migrate: Migrate, rows: Rows, table: None) -> None:
    """A file of one statement that PostgreSQL refuses in a transaction is run without one."""
    assert migrate("up", files={"1_a.sql": text}).exit_code == 0
    assert rows(HISTORY) == [(1, 1, True)]


@pytest.mark.parametrize(
    "statement", ["create index concurrently i on t (a)", "vacuum t", "reindex (concurrently) table t"]
)
def test_more_statements_need_the_directive(statement: str, migrate: Migrate, rows: Rows, table: None) -> None:
    """Without it the file is refused before any file runs, with the line and a hint."""
    run = migrate("up", files={"1_a.sql": trail(1), "2_b.sql": f"select 1;\n\n  {statement};"})
    assert run.exit_code == 1
    assert "2_b.sql:3:3: error: " in run.stderr
    assert "-- migrate: no-transaction" in run.stderr
    assert rows("SELECT to_regclass('schema_migrations')") == [(None,)]


# --- failing, and going on


def test_a_failure_leaves_the_file_unfinished_and_up_goes_on_there(
    migrate: Migrate, rows: Rows, steps: Callable[[], list[int]], table: None
) -> None:
    """Statements that are done stay, and are counted; once the rest is corrected, `up` goes on at the failed one."""
    failed = migrate("up", files={"1_a.sql": f"{HEAD}{trail(1, 2)}\nSELECT 1/0;\n{trail(4)}", "2_b.sql": trail(5)})
    assert failed.exit_code == 1
    assert "1_a.sql:4:1: error: division by zero" in failed.stderr
    assert "1_a is unfinished: 2 of 4 statements done; the next up goes on there." in failed.stderr
    assert rows(HISTORY) == [(2, 2, False)]
    status = migrate("status")
    assert "unfinished: 2 of 4 statements done" in status.stdout
    assert "1_a.sql:4:1:" in status.stdout
    assert "up --from-start 1" in status.stdout
    assert re.search(r"^1 +a +unfinished ", status.stdout, re.MULTILINE), status
    again = migrate("up", files={"1_a.sql": f"{HEAD}{trail(1, 2)}\n{trail(3, 4)}"})
    assert again.exit_code == 0, again
    assert steps() == [1, 2, 3, 4, 5]
    assert rows(HISTORY) == [(4, 4, True)]
    assert "unfinished" not in migrate("status").stdout


@pytest.mark.parametrize(
    "changed",
    [
        f"{HEAD}{trail(1, 7, 3)}",
        f"{HEAD}{trail(1)}",
        f"{HEAD}{trail(0, 1, 2, 3)}",
        f"{trail(1, 2, 3)}",
        f"{HEAD}{trail(1, 2).replace('(2)', '( 2)')}{trail(3)}",
    ],
    ids=["changed", "fewer", "one before", "no directive", "a space"],
)
def test_statements_that_are_done_must_not_change(
    changed: str, migrate: Migrate, steps: Callable[[], list[int]], table: None
) -> None:
    """A file whose done statements were changed is refused, and nothing of it runs."""
    migrate("up", files={"1_a.sql": f"{HEAD}{trail(1, 2)} SELECT 1/0;"})
    refused = migrate("up", files={"1_a.sql": changed})
    assert refused.exit_code == 1
    assert "1_a.sql: error: unfinished" in refused.stderr, refused
    assert steps() == [1, 2]


def test_comments_and_spaces_between_done_statements_may_change(
    migrate: Migrate, steps: Callable[[], list[int]], table: None
) -> None:
    """Only the statements count, and not the text between them."""
    migrate("up", files={"1_a.sql": f"{HEAD}{trail(1, 2)} SELECT 1/0;"})
    again = migrate("up", files={"1_a.sql": f"{HEAD}-- one\n\n{trail(1)}\n\n/* two */ {trail(2, 3)}"})
    assert again.exit_code == 0, again
    assert steps() == [1, 2, 3]


def test_from_start_runs_an_unfinished_file_anew(
    migrate: Migrate, rows: Rows, steps: Callable[[], list[int]], table: None
) -> None:
    """--from-start takes the file as it now is, and runs all of it."""
    migrate("up", files={"1_a.sql": f"{HEAD}{trail(1, 2)} SELECT 1/0;"})
    again = migrate("up", "--from-start", "1", files={"1_a.sql": f"{HEAD}{trail(7, 8)}"})
    assert again.exit_code == 0, again
    assert steps() == [1, 2, 7, 8]
    assert rows(HISTORY) == [(2, 2, True)]


def test_from_start_is_for_unfinished_files(migrate: Migrate, steps: Callable[[], list[int]], table: None) -> None:
    """A file that is applied, or pending, is not run anew."""
    migrate("up", files={"1_a.sql": HEAD + trail(1)})
    for version in "12":
        refused = migrate("up", "--from-start", version, files={"2_b.sql": HEAD + trail(2)})
        assert refused.exit_code == 2
        assert f"no unfinished migration has version {version}" in refused.stderr
    assert steps() == [1]


def test_from_start_does_not_take_another_index_for_a_built_one(migrate: Migrate, rows: Rows, table: None) -> None:
    """A build that was changed is another build: the first one's valid index is neither dropped nor taken for it."""
    migrate("up", files={"1_a.sql": f"{HEAD}{BUILD} SELECT 1/0;"})
    again = migrate("up", "--from-start", "1", files={"1_a.sql": HEAD + BUILD.replace("(a)", "(b)")})
    assert again.exit_code == 1
    assert 'relation "i" already exists' in again.stderr
    assert rows("SELECT pg_get_indexdef('i'::regclass) ~ '[(]a[)]'") == [(True,)]


# --- indexes


FILLED = "INSERT INTO t VALUES (1, 1, 1), (2, 1, 1)"
UNIQUE = "CREATE UNIQUE INDEX CONCURRENTLY {} ON {} (a);"


@pytest.mark.parametrize(
    ("index", "named"),
    [
        ("i", "public.t"),
        ('"My ""Idx"', '"t"'),
        ("I", "ONLY /* this */ Public . T"),
        ("/* a */ -- b\n IF /* c */ NOT EXISTS\n\ti", "t"),
        ("i" * 70, "public.t"),
    ],
    ids=["qualified", "quoted", "folded", "comments", "long"],
)
def test_an_index_that_a_failed_build_left_is_dropped_before_the_next_try(
    index: str, named: str, migrate: Migrate, rows: Rows, table: None
) -> None:
    """The run says that it drops the invalid index, and builds it again: at the end it is valid."""
    rows(FILLED)
    text = UNIQUE.format(index, named)
    failed = migrate("up", files={"1_a.sql": text})
    assert "could not create unique index" in failed.stderr, failed
    ((name, valid),) = rows(INDEXES)
    assert not valid
    rows("DELETE FROM t WHERE id = 2")
    again = migrate("up")
    assert again.exit_code == 0, again
    assert "dropping the invalid index" in again.stderr
    assert rows(INDEXES) == [(name, True)]


def test_an_invalid_index_that_is_not_ours_stays(migrate: Migrate, rows: Rows, table: None, connect: Connect) -> None:
    """An index from before the first try is never dropped, however often the file is tried."""
    rows(FILLED)
    with suppress(psycopg.errors.UniqueViolation):
        connect().execute(UNIQUE.format("i", "t").encode())
    before = rows("SELECT 'i'::regclass::oid")
    for _ in range(2):
        run = migrate("up", files={"1_a.sql": BUILD})
        assert run.exit_code == 1
        assert 'relation "i" already exists' in run.stderr
    assert rows("SELECT 'i'::regclass::oid") == before


def test_if_not_exists_does_not_take_an_invalid_index(
    migrate: Migrate, rows: Rows, table: None, connect: Connect
) -> None:
    """PostgreSQL skips the build where any index has the name; where that one is invalid, the statement has failed."""
    rows(FILLED)
    with suppress(psycopg.errors.UniqueViolation):
        connect().execute(UNIQUE.format("i", "t").encode())
    for _ in range(2):
        run = migrate("up", files={"1_a.sql": BUILD.replace("i ON", "IF NOT EXISTS i ON")})
        assert run.exit_code == 1
        assert "1_a.sql:1:1: error: the index is invalid" in run.stderr
        assert "DROP INDEX CONCURRENTLY IF EXISTS public.i" in run.stderr
    assert rows(HISTORY) == [(0, 0, False)]
    rows("DROP INDEX i")
    assert migrate("up").exit_code == 0


def test_if_not_exists_does_not_take_an_index_of_another_table(migrate: Migrate, rows: Rows, table: None) -> None:
    """Where the name is another table's index, nothing was built; and that one is not to be dropped."""
    rows("CREATE INDEX i ON trail (step)")
    run = migrate("up", files={"1_a.sql": BUILD.replace("i ON", "IF NOT EXISTS i ON")})
    assert run.exit_code == 1
    assert "t has no index i: another relation has this name" in run.stderr
    assert "DROP" not in run.stderr
    assert rows(INDEXES) == [("i", True)]


def test_if_not_exists_takes_a_valid_index(migrate: Migrate, rows: Rows, table: None) -> None:
    """A valid index that an earlier run built is kept as it is."""
    rows("CREATE INDEX i ON t (a)")
    before = rows("SELECT 'i'::regclass::oid")
    assert migrate("up", files={"1_a.sql": BUILD.replace("i ON", "IF NOT EXISTS i ON")}).exit_code == 0
    assert rows("SELECT 'i'::regclass::oid") == before


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE INDEX CONCURRENTLY i ON missing (a);", 'relation "missing" does not exist'),
        ("CREATE INDEX CONCURRENTLY trail ON t (a);", 'relation "trail" already exists'),
        ("CREATE INDEX CONCURRENTLY i ON t (a no_ops);", 'operator class "no_ops" does not exist'),
        ("DROP INDEX CONCURRENTLY missing;", 'index "missing" does not exist'),
        ("VACUUM missing;", 'relation "missing" does not exist'),
        ("REINDEX INDEX CONCURRENTLY missing;", 'relation "missing" does not exist'),
        ("ALTER SYSTEM SET no_such_parameter = 1;", "unrecognized configuration parameter"),
    ],
)
def test_a_statement_that_fails_fails_again(
    statement: str, message: str, migrate: Migrate, rows: Rows, table: None
) -> None:
    """A statement is never taken for done because a second try says the same as the first."""
    for _ in range(3):
        run = migrate("up", files={"1_a.sql": statement})
        assert run.exit_code == 1, run
        assert message in run.stderr
    assert rows("SELECT statements_done, finished_at FROM schema_migrations") == [(0, None)]


# --- interruption


EVERY_KIND = f"{HEAD}{trail(1)} {BUILD} DROP INDEX CONCURRENTLY j; {trail(2)}"
CREATED = "CREATE TABLE t (id int, a int, b int); CREATE INDEX j ON t (b); CREATE TABLE trail (step int)"


@pytest.mark.parametrize("forwarded", [False, True], ids=["before", "after"])
def test_a_connection_lost_at_any_message_costs_and_doubles_nothing(
    forwarded: bool, proxy: Callable[..., Proxy], migrate: Migrate, rows: Rows, steps: Callable[[], list[int]]
) -> None:
    """Wherever the way to the server is cut, on whichever connection, the next run completes it, each step once."""
    between = proxy()
    rows(CREATED)
    assert migrate("up", url=between.url, files={"1_a.sql": EVERY_KIND}).exit_code == 0
    until(lambda: between.idle)
    # of a statement that runs alone, in messages P B D E S, only the last two make a difference
    points = [nth for nth, kind in enumerate(between.messages, 1) if kind not in "PBDE"]
    points += [nth - 1 for nth in points if between.messages[nth - 1] == "S"]
    assert len(points) > 30
    for nth in points:
        rows("DROP TABLE schema_migrations, t, trail")
        rows(CREATED)
        between.cut_at(nth, forwarded=forwarded)
        first = migrate("up", url=between.url)
        until(lambda: between.idle)
        again = migrate("up", url=between.url)
        assert (first.exit_code in (0, 1), again.exit_code) == (True, 0), (nth, first, again)
        assert (steps(), rows(INDEXES)) == ([1, 2], [("i", True)]), (nth, first, again)
        assert rows(HISTORY) == [(4, 4, True)]


def test_a_build_that_was_terminated_is_built_anew(
    migrate: Migrate, rows: Rows, reader: psycopg.Connection, sessions: Sessions
) -> None:
    """A backend that an administrator ends leaves an invalid index, which the next run drops before it builds."""
    migrate.write([HEAD + trail(1) + BUILD])
    lost = migrate.start("up")
    (pid,) = until(lambda: sessions.waiting("virtualxid"))
    rows("SELECT pg_terminate_backend(%s)", pid)
    ended = lost.end()
    assert ended.exit_code == 1, ended
    assert "lost the connection while 1_a ran: terminating connection due to administrator command" in ended.stderr
    assert "1_a is unfinished: 1 of 2 statements done" in ended.stderr
    assert rows(INDEXES) == [("i", False)]
    reader.execute("COMMIT")
    again = migrate("up")
    assert again.exit_code == 0, again
    assert "dropping the invalid index public.i" in again.stderr
    assert rows(INDEXES) == [("i", True)]
    assert rows("SELECT step FROM trail") == [(1,)]


# --- runs at once


@pytest.mark.parametrize("count", [2, 3])
def test_runs_at_once_build_one_index(
    migrate: Migrate, count: int, rows: Rows, reader: psycopg.Connection, sessions: Sessions
) -> None:
    """Beside open transactions of the application one run builds and the rest wait, in no statement: none hangs."""
    migrate.write([BUILD, trail(2)])
    runs = [migrate.start("up") for _ in range(count)]
    until(lambda: sessions.waiting("virtualxid"))
    until(lambda: sum("waiting for another run" in run.stderr for run in runs) == count - 1)
    reader.execute("COMMIT")
    ended = [run.end() for run in runs]
    assert [one.exit_code for one in ended] == [0] * count, ended
    assert rows(INDEXES) == [("i", True)]
    assert rows("SELECT step FROM trail") == [(2,)]
    assert sum("1  a  applied in" in one.stdout for one in ended) == 1


def test_another_run_names_the_one_that_works_on_the_file(
    migrate: Migrate, rows: Rows, reader: psycopg.Connection, sessions: Sessions
) -> None:
    """A run knows a living run from a dead one at once: it names its pid and application, and waits for its end."""
    migrate.write([BUILD])
    first = migrate.start("up", PGAPPNAME="the first one")
    until(lambda: sessions.waiting("virtualxid"))
    second = migrate.start("up")
    line = second.says("waiting for another run")
    pids = [
        pid
        for (pid,) in rows(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'the first one'"
        )
    ]
    named = re.search(r"pid (\d+) \(user \w+, application the first one", line)
    assert named, line
    assert int(named[1]) in pids
    reader.execute("COMMIT")
    assert [first.end().exit_code, second.end().exit_code] == [0, 0]


def test_status_tells_a_file_at_work_from_one_that_was_left(
    migrate: Migrate, rows: Rows, reader: psycopg.Connection, sessions: Sessions
) -> None:
    """While a living run works on a file it is pending and nothing is wrong; once the run is dead, there is a hint."""
    migrate.write([BUILD])
    working = migrate.start("up", PGAPPNAME="the worker")
    until(lambda: sessions.waiting("virtualxid"))
    status = migrate("status", "--check")
    assert status.exit_code == 3
    assert re.search(r"^A run is at work on 1: pid \d+ \(user \w+, application the worker", status.stdout, re.MULTILINE)
    assert "unfinished: " not in status.output
    document = json.loads(migrate("--json", "status").stdout)
    assert (document["ok"], document["at_work"][0]["version"]) == (True, "1")
    working.kill()
    until(lambda: migrate("status", "--check").exit_code == 1)
    assert "unfinished: 0 of 1 statement done" in migrate("status").stdout


def test_a_run_that_has_lost_its_claim_stops_before_the_next_statement(
    migrate: Migrate, rows: Rows, reader: psycopg.Connection, sessions: Sessions
) -> None:
    """A run that loses its claim finishes the statement at work, and begins no other."""
    migrate.write([HEAD + BUILD + trail(2)])
    lost = migrate.start("up")
    until(lambda: sessions.waiting("virtualxid"))
    rows(
        "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE locktype = 'advisory' AND state = 'idle in transaction' AND datname = current_database()"
    )
    reader.execute("COMMIT")
    ended = lost.end()
    assert ended.exit_code == 1, ended
    assert "lost the connection while 1_a ran" in ended.stderr
    assert rows(HISTORY) == [(1, 1, False)]
    assert rows("SELECT step FROM trail") == []
    assert migrate("up").exit_code == 0
    assert rows("SELECT step FROM trail") == [(2,)]
    assert rows(INDEXES) == [("i", True)]


# --- progress, poolers


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 1; SET statement_timeout = '2500ms'; VACUUM t;",
            r"1  a  vacuum: scanning heap \d+ %",
        ),
        (
            "CREATE FUNCTION slow(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1 FROM pg_sleep(0.01)';"
            "SET statement_timeout = '2500ms'; CREATE INDEX CONCURRENTLY i ON t (slow(id));",
            r"1  a  create index concurrently: building index: scanning table \d+ %",
        ),
    ],
    ids=["vacuum", "index"],
)
def test_long_statements_show_how_far_they_are(migrate: Migrate, text: str, line: str, rows: Rows, table: None) -> None:
    """Where stderr is no terminal the phase and the percentage are a line of their own, not one for every look."""
    rows("INSERT INTO t SELECT n FROM generate_series(1, 30000) AS n")
    migrate.write([HEAD + text])
    ended = migrate("up")
    found = [one for one in ended.stderr.splitlines() if re.fullmatch(line, one)]
    assert len(found) == 1, ended


def test_a_file_without_a_transaction_leaves_nothing_in_the_pool(
    migrate: Migrate, pgbouncer: Callable[..., str], connect: Connect, table: None
) -> None:
    """Behind PgBouncer in transaction mode the file's settings hold for its own statements only."""
    pooled = pgbouncer(pool_size=3)
    text = (
        "SET search_path = s; SET lock_timeout = '7s'; SET vacuum_cost_limit = 123; CREATE SCHEMA s;"
        "CREATE TABLE u (id int); CREATE INDEX CONCURRENTLY i ON u (id); VACUUM u;"
        "CREATE TABLE seen AS SELECT current_setting('lock_timeout') || current_setting('vacuum_cost_limit') AS value;"
    )
    migrate.write([HEAD + text])
    ended = migrate("up", url=pooled)
    assert ended.exit_code == 0, ended
    assert connect().execute("SELECT value FROM s.seen").fetchall() == [("7s123",)]
    wanted = "SELECT pg_backend_pid(), current_setting('search_path'), current_setting('lock_timeout'), pg_sleep(0.1)"

    def ask() -> tuple[Any, ...]:
        with psycopg.connect(pooled, prepare_threshold=None) as connection:
            [found] = connection.execute(wanted.encode()).fetchall()
            return found

    found = at_once(3, ask)  # each has another connection of the pool
    assert [one[1:3] for one in found] == [('"$user", public', "0")] * 3


# --- refused files


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        ("CREATE UNIQUE INDEX CONCURRENTLY ON t (a);", True),
        ("create index concurrently -- none\n on only t (a)", True),
        ('CREATE INDEX CONCURRENTLY "on" ON t (a);', False),
        ("CREATE INDEX CONCURRENTLY once ON t (a);", False),
    ],
)
def test_an_index_built_concurrently_has_a_name(migrate: Migrate, table: None, text: str, refused: bool) -> None:
    """A build whose index nobody could find again is refused before anything runs."""
    run = migrate("up", files={"1_a.sql": text})
    assert run.exit_code == refused
    assert ("1_a.sql:1:1: error: an index built concurrently must have a name" in run.stderr) == refused


def test_a_file_can_not_be_both_in_a_transaction_and_without(migrate: Migrate, table: None) -> None:
    """BEGIN and COMMIT around a file that asks for no transaction are a contradiction, refused before anything runs."""
    run = migrate("up", files={"1_a.sql": f"{HEAD}BEGIN;\n{trail(1)}\nCOMMIT;"})
    assert run.exit_code == 1
    assert "1_a.sql:2:1: error:" in run.stderr


# --- files and history that have come apart


UNFINISHED = {
    "1_a.sql": "create table a (b int); insert into a values (1), (1);",
    "2_i.sql": "-- migrate: no-transaction\ncreate unique index concurrently i on a (b);",
}


@pytest.fixture
def unfinished(migrate: Migrate) -> None:
    """Version 2 is unfinished."""
    assert migrate("up", files=UNFINISHED).exit_code == 1


def test_an_unfinished_file_can_not_come_to_want_a_transaction(migrate: Migrate, unfinished: None) -> None:
    """--from-start does not turn it into another kind of file: that is refused, at once."""
    files = {"2_i.sql": "create index i on a (b);"}
    migrate.write(files)
    run = migrate("up", "--from-start", "2")
    assert run.exit_code == 1
    assert "Begin the file with: -- migrate: no-transaction" in run.stderr


def test_an_unfinished_file_that_is_gone_is_reported(migrate: Migrate, unfinished: None) -> None:
    """A file that a newer release has begun is a warning for `up` of an older one, and trouble for `status --check`."""
    (migrate.files / "2_i.sql").unlink()
    run = migrate("up")
    assert (run.exit_code, "2_i is unfinished, and newer than all files" in run.stderr) == (0, True)
    assert migrate("status", "--check").exit_code == 1


def test_a_history_row_deleted_by_hand_bars_no_way(migrate: Migrate, rows: Rows, unfinished: None) -> None:
    """The row before an unfinished file's may be gone: the file is finished all the same."""
    rows("delete from schema_migrations where version = '1'; update a set b = 2 where ctid = (select min(ctid) from a)")
    (migrate.files / "1_a.sql").write_text("select 1")
    run = migrate("up", "--allow-out-of-order")
    assert run.exit_code == 0, run.stderr
    assert rows("select version from schema_migrations where finished_at is not null order by 1") == [("1",), ("2",)]
