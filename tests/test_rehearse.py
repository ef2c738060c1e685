"""`rehearse`: its output agrees with the view of other sessions, and nothing of it stays."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

import psycopg
import pytest
from fix_cli import Files, Migrate, Rows
from fix_private_server import PrivateServer
from fix_proxy import Proxy
from fix_servers import Connect
from fix_waiting import until

from outreach_migrate.rehearsal.effects import Mode

SQL = str(Path(__file__).parent.parent / "sql")

SETUP: LiteralString = """
    CREATE TABLE parent (id int PRIMARY KEY, v text);
    INSERT INTO parent SELECT g FROM generate_series(1, 500) g;
    CREATE TABLE t (id serial PRIMARY KEY, n int, s varchar(10), filled int, doc text, spare int);
    INSERT INTO t (n, s, filled) SELECT g, 'a', 1 FROM generate_series(1, 3000) g;
    CREATE INDEX t_n ON t (n);
    CREATE INDEX t_s ON t (s);
    ALTER TABLE t ADD CONSTRAINT t_filled CHECK (filled IS NOT NULL);
    CREATE TABLE child (id int, n int);
    INSERT INTO child SELECT g, g FROM generate_series(1, 500) g;
    ALTER TABLE child ADD CONSTRAINT child_n CHECK (n > 0) NOT VALID,
        ADD CONSTRAINT child_id FOREIGN KEY (id) REFERENCES parent NOT VALID;
    CREATE TABLE wide (n int, doc text);
    INSERT INTO wide SELECT g, 'a' FROM generate_series(1, 500) g;
    CREATE MATERIALIZED VIEW mv AS SELECT id, s FROM t;
    CREATE UNIQUE INDEX mv_id ON mv (id);
    CREATE VIEW seen AS SELECT id FROM t;
    CREATE TABLE part (id int, k int) PARTITION BY RANGE (id);
    CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (10);
    CREATE TABLE part_rest PARTITION OF part DEFAULT;
    INSERT INTO part SELECT g, 1 FROM generate_series(1, 300) g WHERE g < 10 OR g > 20;
    CREATE TABLE part_new (id int, k int);
    INSERT INTO part_new SELECT 15, 1 FROM generate_series(1, 300);
    ANALYZE;
"""


class Kind(NamedTuple):
    """A statement, and the relations that the manual says it rewrites, scans and drops."""

    statement: LiteralString
    rewritten: str = ""
    scanned: str = ""
    dropped: str = ""
    emptied: str = ""


KINDS = [
    Kind("ALTER TABLE t ADD COLUMN a int"),
    Kind("ALTER TABLE t ADD COLUMN a int DEFAULT 5"),
    Kind("ALTER TABLE t ADD COLUMN a float DEFAULT random()", rewritten="t", scanned="t"),
    Kind("ALTER TABLE t ALTER n SET NOT NULL", scanned="t"),
    Kind("ALTER TABLE t ALTER filled SET NOT NULL"),  # a valid CHECK proves it
    Kind("ALTER TABLE t ADD CONSTRAINT x CHECK (n > 0)", scanned="t"),
    Kind("ALTER TABLE t ADD CONSTRAINT x CHECK (n > 0) NOT VALID"),
    Kind("ALTER TABLE child VALIDATE CONSTRAINT child_n", scanned="child"),
    Kind("ALTER TABLE child VALIDATE CONSTRAINT child_id", scanned="child parent"),
    Kind("ALTER TABLE child ADD FOREIGN KEY (id) REFERENCES parent", scanned="child parent"),
    Kind("ALTER TABLE child ADD FOREIGN KEY (id) REFERENCES parent NOT VALID"),
    Kind("ALTER TABLE t ADD UNIQUE (n)", scanned="t"),
    Kind("CREATE INDEX ON t (n)", scanned="t"),
    Kind("CREATE TABLE other (id int REFERENCES parent)"),
    Kind("ALTER TABLE t ALTER n TYPE bigint", rewritten="t", scanned="t"),
    Kind("ALTER TABLE wide ALTER doc TYPE varchar(20)", rewritten="wide", scanned="wide"),
    Kind("ALTER TABLE t ALTER doc TYPE varchar"),
    Kind('ALTER TABLE t ALTER doc TYPE text COLLATE "C"'),
    Kind("ALTER TABLE t RENAME COLUMN n TO m"),
    Kind("ALTER TABLE t RENAME TO u"),
    Kind("ALTER TABLE t DROP COLUMN spare"),
    Kind("ALTER TABLE t SET (fillfactor = 50)"),
    Kind("ALTER TABLE t SET UNLOGGED", rewritten="t", scanned="t"),
    Kind("ALTER TABLE t ALTER n SET STATISTICS 100"),
    Kind("ALTER TABLE child DISABLE TRIGGER USER"),
    Kind("ALTER TABLE t ENABLE ROW LEVEL SECURITY"),
    Kind("CREATE POLICY p ON t"),
    Kind("DROP TABLE child", dropped="child"),
    Kind("DROP INDEX t_n", dropped="t_n"),
    Kind("DROP VIEW seen", dropped="seen"),
    Kind("TRUNCATE child", emptied="child"),
    Kind("TRUNCATE parent CASCADE", emptied="child parent"),
    Kind("ALTER TABLE part ATTACH PARTITION part_new FOR VALUES FROM (10) TO (20)", scanned="part_new part_rest"),
    Kind("ALTER TABLE part DETACH PARTITION part_1"),
    Kind("ALTER TABLE part ADD COLUMN a int"),
    Kind("ALTER TABLE part ALTER k TYPE bigint", rewritten="part_1 part_rest", scanned="part_1 part_rest"),
    Kind("CREATE TRIGGER g BEFORE INSERT ON t EXECUTE FUNCTION suppress_redundant_updates_trigger()"),
    Kind("CREATE VIEW other AS SELECT * FROM t"),
    Kind("CREATE STATISTICS st ON n, filled FROM t"),
    Kind("COMMENT ON TABLE t IS 'x'"),
    Kind("GRANT SELECT ON t TO public"),
    Kind("ALTER INDEX t_n RENAME TO t_m"),
    Kind("REFRESH MATERIALIZED VIEW mv", rewritten="mv", scanned="mv t"),  # mv for its index
    Kind("REFRESH MATERIALIZED VIEW CONCURRENTLY mv", scanned="mv t"),
    Kind("CLUSTER t USING t_n", rewritten="t", scanned="t"),
    Kind("REINDEX TABLE t", rewritten="t_n t_pkey t_s", scanned="t"),
    Kind("REINDEX INDEX t_n", rewritten="t_n", scanned="t"),
    Kind("ANALYZE t"),
    Kind("UPDATE t SET n = 0 WHERE id < 5"),
    Kind("UPDATE t SET n = 0", scanned="t"),
    Kind("INSERT INTO t (filled) VALUES (1)"),
    Kind("SELECT FROM t LIMIT 1"),
    Kind("CREATE TABLE other AS SELECT * FROM t", scanned="t"),
    Kind("LOCK TABLE t IN EXCLUSIVE MODE"),
    Kind("DO $$ BEGIN EXECUTE 'ALTER TABLE child RENAME TO grown'; END $$"),
]


class Rehearse(NamedTuple):
    """Rehearses, and gives the document."""

    migrate: Migrate

    def __call__(self, *texts: str, exit_code: int = 0, files: Files | None = None) -> dict[str, Any]:
        numbered = {f"{number}_a.sql": text for number, text in enumerate(texts, 1)}
        result = self.migrate("--json", "rehearse", files=files or numbered)
        assert result.exit_code == exit_code, result.stderr
        return result.json


@pytest.fixture
def rehearse(migrate: Migrate) -> Rehearse:
    """A function that writes texts as files, rehearses them, and gives the document."""
    return Rehearse(migrate)


@pytest.fixture
def tables(rows: Rows) -> None:
    """Tables of all kinds, filled and analyzed."""
    rows(SETUP)


def statements(document: dict[str, Any]) -> list[dict[str, Any]]:
    return [statement for file in document["files"] for statement in file["statements"]]


def locks(statement: dict[str, Any]) -> set[tuple[str, str]]:
    return {(lock["relation"]["name"], lock["mode"]) for lock in statement["locks"]}


def names(relations: list[dict[str, Any]]) -> str:
    return " ".join(sorted(relation["name"] for relation in relations))


def seen_from_outside(connect: Connect, statement: LiteralString) -> set[tuple[str, str]]:
    """Run a statement in a transaction; read its locks on earlier relations on another connection."""
    inside, outside = connect(), connect()
    there: dict[int, str] = dict(
        outside.execute(
            """SELECT oid, CASE WHEN pg_table_is_visible(oid) THEN '' ELSE relnamespace::regnamespace || '.' END
                           || relname FROM pg_class WHERE oid >= 16384"""
        ).fetchall()
    )
    with inside.transaction(force_rollback=True):
        inside.execute(statement)
        query = "SELECT relation, mode FROM pg_locks WHERE locktype = 'relation' AND pid = %s"
        found = outside.execute(query, [inside.info.backend_pid]).fetchall()
    return {(there[oid], str(Mode.named(mode))) for oid, mode in found if oid in there}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.statement)
def test_its_findings_are_those_of_other_sessions(
    tables: None, connect: Connect, rehearse: Rehearse, kind: Kind
) -> None:
    """The locks are those that pg_locks shows on another connection; rewrites and scans are those of the manual."""
    if "n TYPE bigint" in kind.statement:
        connect().execute("DROP VIEW seen")
    expected = seen_from_outside(connect, kind.statement)
    (statement,) = statements(rehearse(kind.statement))
    assert locks(statement) == expected
    found = (names(statement[word]) for word in ("rewritten", "scanned", "dropped", "emptied"))
    assert Kind(kind.statement, *found) == kind


def test_a_modes_words_follow_the_conflict_table(connect: Connect, rows: Rows) -> None:
    """The commands that the report lists as blocked by a lock mode are those that a server makes wait for it."""
    rows("CREATE TABLE t (n int)")
    holder, other = connect(), connect()
    other.execute("SET lock_timeout = 1")

    def refuses(mode: Mode) -> bool:
        try:
            with other.transaction():
                other.execute(f"LOCK TABLE t IN {mode} MODE".encode())
        except psycopg.errors.LockNotAvailable:
            return True
        return False

    for mode in Mode:
        with holder.transaction():
            holder.execute(f"LOCK TABLE t IN {mode} MODE".encode())
            refused = [wanted for wanted in Mode if refuses(wanted)]
        assert min(refused) is mode.weakest_blocked
        assert mode.blocks_reads == (Mode.ACCESS_SHARE in refused)
        assert mode.blocks_writes == (Mode.ROW_EXCLUSIVE in refused)
        assert mode.blocks_schema_changes == (Mode.SHARE_UPDATE_EXCLUSIVE in refused)


CATALOG: LiteralString = """
    SELECT (SELECT json_agg(c ORDER BY c.oid) FROM (SELECT oid, relname, relfilenode, relnamespace, relkind, relchecks
                                                      FROM pg_class WHERE oid >= 16384) c)::text,
           (SELECT json_agg(a ORDER BY attrelid, attnum) FROM (SELECT attrelid, attnum, attname, atttypid, attnotnull
                                                      FROM pg_attribute WHERE attrelid >= 16384) a)::text,
           (SELECT count(*) FROM t), (SELECT count(*) FROM child), (SELECT sum(n) FROM t),
           to_regclass('schema_migrations')
"""


def test_nothing_stays(tables: None, rehearse: Rehearse, rows: Rows) -> None:
    """No table, no column, no row, no file, and no history are other than before; nothing is left open."""
    before = rows(CATALOG)
    rehearse(
        "CREATE TABLE new (n int); INSERT INTO new VALUES (1);",
        "ALTER TABLE t ADD COLUMN a float DEFAULT random(); UPDATE t SET n = 0; ALTER TABLE t RENAME TO u;",
        "DROP TABLE child; TRUNCATE u; CREATE SCHEMA other; SET search_path = other; CREATE TABLE t ();",
    )
    assert rows(CATALOG) == before
    assert before[0][-1] is None
    until(lambda: rows("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") == [(1,)])


def test_a_failure_is_reported_as_up_would(tables: None, migrate: Migrate, rows: Rows) -> None:
    """It has the same place, words and code, and exit code 1; the document has the files rehearsed before it."""
    files = {"1_a.sql": "ALTER TABLE t ADD a int;", "2_b.sql": "SELECT 1;\nINSERT INTO t (id, nme) VALUES (1, 2);"}
    before = rows(CATALOG)
    rehearsed = migrate("--json", "rehearse", files=files)
    assert rows(CATALOG) == before
    ran = migrate("--json", "up")
    assert (rehearsed.exit_code, ran.exit_code) == (1, 1)
    mine, theirs = rehearsed.json["error"], ran.json["error"]
    state = "Everything that was rehearsed is rolled back."
    assert mine == theirs | {"state": state, "outcome": mine["outcome"]}
    assert mine["outcome"]["file"] == "rolled back"
    assert [statement["line"] for statement in statements(rehearsed.json)] == [1, 1]


def test_a_deferred_constraint_is_checked_at_the_files_end(rehearse: Rehearse, rows: Rows, migrate: Migrate) -> None:
    """A violation that COMMIT would refuse is refused in `up`'s words; the next file's constraints are deferred."""
    rows("CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
    rehearse(
        *["INSERT INTO c VALUES (1); INSERT INTO p VALUES (1);", "INSERT INTO c VALUES (2); INSERT INTO p VALUES (2)"]
    )
    error = rehearse("INSERT INTO c VALUES (1);", exit_code=1)["error"]
    assert error["message"].startswith("at COMMIT, a deferred constraint failed")
    assert migrate("--json", "up").json["error"]["message"] == error["message"]


def test_a_file_starts_from_a_clean_session_and_its_limits(rehearse: Rehearse, migrate: Migrate) -> None:
    """A file's settings hold for all its statements, in spite of the queries between them, and for no other file's."""
    check = "DO $$ BEGIN ASSERT current_setting('{0}') = '{1}', current_setting('{0}'); END $$;"
    rehearse(
        "-- migrate: lock-timeout 7s\nSET search_path = ''; SET statement_timeout = '77s'; CREATE TEMP TABLE x ();"
        + check.format("statement_timeout", "77s")
        + check.format("lock_timeout", "7s")
        + "SET ROLE pg_monitor;",
        check.format("lock_timeout", "5s")
        + check.format("statement_timeout", "0")
        + check.format("search_path", '"$user", public')
        + check.format("role", "none")
        + "CREATE TEMP TABLE x ();",
    )
    files = {"1_a.sql": check.format("statement_timeout", "9s") + check.format("lock_timeout", "8s"), "2_a.sql": ""}
    assert migrate("rehearse", "--lock-timeout", "8s", "--statement-timeout", "9s", files=files).exit_code == 0


def test_what_the_rehearsal_made_hurts_nobody(rehearse: Rehearse, rows: Rows) -> None:
    """Locks, scans and rewrites of new tables are not shown, nor are those of catalogs."""
    document = rehearse("CREATE TABLE n (a int); CREATE INDEX ON n (a);", "ALTER TABLE n ALTER a TYPE bigint;")
    for statement in statements(document):
        assert not any(statement[word] for word in ("locks", "rewritten", "scanned", "dropped", "emptied"))
    assert document["blocked"] == []


def test_a_lock_is_held_to_the_end_of_its_file(tables: None, rehearse: Rehearse) -> None:
    """A lock counts from its statement's start to its file's end; the files' times are added up."""
    document = rehearse(
        "SELECT pg_sleep(0.02); LOCK TABLE t IN SHARE MODE; SELECT pg_sleep(0.05);LOCK TABLE t; SELECT pg_sleep(0.03);",
        "SELECT pg_sleep(0.1);",
        "LOCK TABLE t IN EXCLUSIVE MODE; SELECT pg_sleep(0.05)",
    )
    held = [[(lock["mode"], lock["milliseconds"]) for lock in file["held"]] for file in document["files"]]
    (share, exclusive), nothing, (again,) = held
    assert (share[0], exclusive[0], nothing, again[0]) == ("SHARE", "ACCESS EXCLUSIVE", [], "EXCLUSIVE")
    assert 80 <= share[1] <= document["files"][0]["milliseconds"] - 20
    assert 30 <= exclusive[1] <= share[1] - 50
    (blocked,) = document["blocked"]
    assert blocked["table"] == "t"
    assert blocked["reads_milliseconds"] == exclusive[1]
    assert blocked["writes_milliseconds"] == pytest.approx(share[1] + again[1], abs=0.01)


def test_a_lock_that_an_earlier_file_holds_is_presumed(tables: None, rehearse: Rehearse) -> None:
    """In a run the file before would have let it go: a statement that names the table is presumed to take it anew."""
    document = rehearse(
        "ALTER TABLE t ADD a int;",
        "ALTER TABLE t ADD b int; ALTER TABLE t ADD c int;",
        "CREATE INDEX ON t (n);",
        "CREATE INDEX ON t (n); COMMENT ON TABLE child IS 't';",
    )
    found = [[(lock["mode"], lock["presumed"]) for lock in statement["locks"]] for statement in statements(document)]
    assert found == [
        [("ACCESS EXCLUSIVE", False)],
        [("ACCESS EXCLUSIVE", True)],
        [],
        [("SHARE", False)],
        [("SHARE", True)],
        [("SHARE UPDATE EXCLUSIVE", False)],
    ]
    (again,) = document["files"][1]["held"]
    took = sum(statement["milliseconds"] for statement in statements(document)[1:3])
    assert again["milliseconds"] >= took - 0.002  # each is rounded to a thousandth


def test_a_partitions_lock_is_presumed_with_its_tables(tables: None, rehearse: Rehearse) -> None:
    """A statement that names a partitioned table means its partitions too."""
    document = rehearse("ALTER TABLE part ADD a int;", "ALTER TABLE part ADD b int;")
    first, second = statements(document)
    assert locks(first) == locks(second)
    assert {name for name, _ in locks(second)} == {"part", "part_1", "part_rest"}


def test_an_indexs_lock_counts_for_its_table(tables: None, rehearse: Rehearse) -> None:
    """REINDEX lets a table be read as far as its own lock goes, but no query on it can be planned meanwhile."""
    document = rehearse("REINDEX INDEX t_n;")
    shown = {
        (lock["relation"]["name"], lock["blocks"]) for lock in statements(document)[0]["locks"] if not lock["covered"]
    }
    assert shown == {("t", "writes"), ("t_n", "reads and writes")}
    (blocked,) = document["blocked"]
    assert blocked["table"] == "t"
    assert blocked["reads_milliseconds"] > 0


@pytest.mark.parametrize("statement", ["ALTER TABLE t ALTER n TYPE bigint", "TRUNCATE t", "DROP TABLE t CASCADE"])
def test_a_tables_size_is_that_of_before(tables: None, rehearse: Rehearse, rows: Rows, statement: str) -> None:
    """Rows are reltuples, bytes pg_table_size(), as they were before the statement."""
    rows("DROP VIEW seen")
    size = rows("SELECT pg_table_size('t')")[0][0]
    (document,) = statements(rehearse(statement))
    found = {
        (lock["relation"]["rows"], lock["relation"]["bytes"])
        for lock in document["locks"]
        if lock["relation"]["name"] == "t"
    }
    assert found == {(3000, size)}


def test_a_file_without_a_transaction_is_named_and_left_out(tables: None, rehearse: Rehearse, rows: Rows) -> None:
    """Its statements are shown with the locks that the manual names; the files around it are rehearsed."""
    document = rehearse(
        "ALTER TABLE t ADD a int;",
        "CREATE INDEX CONCURRENTLY t_a ON t (n);",
        "VACUUM FULL t;",
        "-- migrate: no-transaction\nVACUUM t; SET lock_timeout = 1;",
        "CREATE INDEX ON t (a);",
    )
    assert [file["not_rehearsed"] is None for file in document["files"]] == [True, False, False, False, True]
    modes = [[one["mode"] for one in file["statements"]] for file in document["files"][1:4]]
    assert modes == [["SHARE UPDATE EXCLUSIVE"], ["ACCESS EXCLUSIVE"], ["SHARE UPDATE EXCLUSIVE", None]]
    assert rows("SELECT to_regclass('t_a')") == [(None,)]


BUILD = "CREATE INDEX CONCURRENTLY t_a ON t (n);"
ALONE = "-- migrate: no-transaction\n"


class Needy(NamedTuple):
    """A file that can't be rehearsed, and one after it that may need its changes."""

    first: str
    second: str

    def __str__(self) -> str:
        return self.second


@pytest.mark.parametrize(
    "case",
    [
        Needy(BUILD, "DROP INDEX t_a;"),
        Needy(BUILD, "COMMENT ON INDEX public.t_a IS 'x';"),
        Needy('CREATE UNIQUE INDEX CONCURRENTLY "T a" ON t (id);', 'ALTER TABLE t ADD UNIQUE USING INDEX "T a";'),
        Needy("DROP INDEX CONCURRENTLY t_n;", "CREATE INDEX t_n ON t (n, s);"),
        Needy("-- migrate: no-transaction\nALTER TYPE mood ADD VALUE 'glad';", "SELECT 'glad'::mood;"),
        Needy(ALONE + "ALTER TABLE t ADD x int, ADD y int;", "SELECT a.y FROM t AS a;"),
        Needy(ALONE + "ALTER TABLE child ADD y int;", "INSERT INTO child (y) VALUES (1);"),
        Needy(ALONE + "ALTER TABLE child ADD y int;", "SELECT y FROM child;"),
        Needy(ALONE + "ALTER TABLE t RENAME n TO m;", "ALTER TABLE t RENAME m TO k;"),
        Needy(ALONE + "ALTER TABLE child RENAME TO kid;", "DROP TABLE kid;"),
        Needy(ALONE + "ALTER TABLE child DROP n;", "ALTER TABLE child ADD n text;"),
        Needy(ALONE + "CREATE SCHEMA s; CREATE TABLE s.x ();", "CREATE TABLE s.y ();"),
        Needy(ALONE + "CREATE TABLE x (); SELECT 1;", "CREATE VIEW y AS SELECT FROM x;"),
        Needy(ALONE + "CREATE FUNCTION f(int) RETURNS int LANGUAGE sql AS 'SELECT 1';", "SELECT f(1);"),
        Needy(ALONE + "CREATE DOMAIN d AS int;", "CREATE TABLE x (d d);"),
        Needy(ALONE + "ALTER TABLE t ADD CONSTRAINT c CHECK (id > 0);", "ALTER TABLE t DROP CONSTRAINT c;"),
    ],
    ids=str,
)
def test_a_file_that_needs_one_that_is_not_rehearsed_is_not_either(
    tables: None, rehearse: Rehearse, rows: Rows, migrate: Migrate, case: Needy
) -> None:
    """A file that lacks an object only in a rehearsal is reported with the file that makes it; the rest goes on."""
    rows("CREATE TYPE mood AS ENUM ('sad')")
    document = rehearse(case.first, case.second, "SELECT 1;")
    _, second, third = document["files"]
    assert second["needs"] == "sql/1_a.sql"
    assert "sql/2_a.sql:1" in second["not_rehearsed"]
    assert "sql/1_a.sql" in second["not_rehearsed"]
    assert (third["not_rehearsed"], len(third["statements"])) == (None, 1)
    assert (document["ok"], document["complete"]) == (True, False)
    assert migrate("up").exit_code == 0


@pytest.mark.parametrize(
    "case",
    [
        Needy(BUILD, "DROP INDEX IF EXISTS t_a; DROP INDEX t_a;"),
        Needy(BUILD, "DROP INDEX t_ab;"),
        Needy(BUILD, "COMMENT ON INDEX other.t_a IS 'x';"),
        Needy(BUILD, "SET search_path = other; DROP INDEX t_a;"),
        Needy(BUILD, "SELECT t_a FROM t;"),
        Needy(BUILD, "SELECT t_a.n FROM t;"),
        Needy(BUILD, "INSERT INTO child VALUES (1, 0);"),
        Needy("DROP INDEX CONCURRENTLY t_n;", "CREATE INDEX t_s ON t (n, s);"),
        Needy("ALTER TYPE mood ADD VALUE 'glad';", "SELECT 'bad'::mood;"),
        Needy("SELECT 1;", "ALTER TYPE mood ADD VALUE 'glad'; SELECT 'glad'::mood;"),
        Needy("ALTER TYPE mood ADD VALUE 'merry';", "ALTER TYPE mood ADD VALUE 'glad'; SELECT 'glad'::mood;"),
        Needy(ALONE + "ALTER TABLE t ADD y int;", "SELECT c.y FROM child c, t;"),
        Needy(ALONE + "ALTER TABLE t ADD y int;", "INSERT INTO child (y) SELECT 1 FROM t;"),
        Needy(ALONE + "ALTER TABLE t ADD y int; ALTER TABLE t DROP y;", "SELECT y FROM t;"),
        Needy(ALONE + 'ALTER TABLE t ADD "column" int;', "SELECT y FROM t;"),
        Needy(ALONE + "CREATE TABLE x (y int);", "SELECT x.y FROM t;"),
    ],
    ids=str,
)
def test_a_failure_is_not_hidden_behind_a_file_that_is_not_rehearsed(
    tables: None, rehearse: Rehearse, rows: Rows, migrate: Migrate, case: Needy
) -> None:
    """A file that fails in a run fails in a rehearsal too, with the same code."""
    rows("CREATE TYPE mood AS ENUM ('sad', 'new'); CREATE SCHEMA other")
    document = rehearse(case.first, case.second, exit_code=1)
    assert (document["ok"], document["complete"]) == (False, False)
    assert migrate("--json", "up").json["error"]["sqlstate"] == document["error"]["sqlstate"]


def test_a_file_taken_back_leaves_nothing_to_the_next(tables: None, rehearse: Rehearse) -> None:
    """Its statements before the one that stopped it are undone, so a later file may need its objects."""
    document = rehearse(BUILD, "ALTER TABLE child ADD x int; DROP INDEX t_a;", "ALTER TABLE child ADD x int;")
    assert [file["needs"] for file in document["files"]] == [None, "sql/1_a.sql", None]
    document = rehearse(BUILD, "ALTER TABLE child ADD x int; DROP INDEX t_a;", "ALTER TABLE child DROP x;")
    assert [file["needs"] for file in document["files"]] == [None, "sql/1_a.sql", "sql/2_a.sql"]


def test_vacuum_beside_other_statements_is_refused(tables: None, rehearse: Rehearse) -> None:
    """A rehearsal refuses the same files as `up`, before it runs anything."""
    (problem,) = rehearse("SELECT 1; VACUUM FULL t;", exit_code=1)["error"]["problems"]
    assert problem["message"] == "VACUUM FULL cannot run in a transaction"


def test_an_enum_value_of_an_earlier_file_is_needed_from_it(rehearse: Rehearse, rows: Rows) -> None:
    """A new value can be used once it is committed: by a run, not in one transaction. That is no failure."""
    rows("CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (m mood)")
    document = rehearse("ALTER TYPE mood ADD VALUE 'glad';", "INSERT INTO t VALUES ('glad');", "SELECT 1;")
    first, second, third = document["files"]
    assert (first["not_rehearsed"], second["needs"], third["not_rehearsed"]) == (None, "sql/1_a.sql", None)
    assert "sql/2_a.sql:1:23: unsafe use of new value" in second["not_rehearsed"]
    assert (document["ok"], document["complete"]) == (True, False)


def test_an_enum_value_that_a_block_adds_is_known_by_being_there(rehearse: Rehearse, rows: Rows) -> None:
    """The catalog says that an earlier file added it, though no statement of a file does."""
    rows("CREATE TYPE mood AS ENUM ('sad')")
    block = "DO $$ BEGIN EXECUTE 'ALTER TYPE mood ADD VALUE ''glad'' '; END $$;"
    document = rehearse(block, "SELECT 'glad'::mood;")
    assert document["files"][1]["not_rehearsed"].endswith("an earlier file adds it, and must be committed first")


def test_an_enum_value_of_the_same_file_is_a_failure(rehearse: Rehearse, rows: Rows, migrate: Migrate) -> None:
    """A run would fail there as well."""
    rows("CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE t (m mood)")
    error = rehearse("ALTER TYPE mood ADD VALUE 'glad'; INSERT INTO t VALUES ('glad');", exit_code=1)["error"]
    assert error["sqlstate"] == "55P04"
    assert migrate("--json", "up").json["error"]["sqlstate"] == "55P04"


def test_it_gives_way_on_a_live_database(tables: None, migrate: Migrate, connect: Connect) -> None:
    """If it can't get a lock in time, it ends with the name of the session that holds it."""
    with connect().transaction() as open_one:
        open_one.connection.execute("LOCK TABLE t IN ACCESS SHARE MODE")
        result = migrate(
            "--json", "rehearse", "--lock-timeout", "1500ms", files={"1_a.sql": "DROP VIEW seen; DROP TABLE t;"}
        )
        error = result.json["error"]
        assert (result.exit_code, error["kind"], error["line"]) == (1, "LockTimeout", 1)
        assert [blocker["pid"] for blocker in error["blockers"]] == [open_one.connection.info.backend_pid]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_rolls_back(migrate: Migrate, tables: None, rows: Rows, number: int, code: int) -> None:
    """It ends at once, and so do its transaction and its statement on the server."""
    before = rows(CATALOG)
    migrate.write({"1_a.sql": "ALTER TABLE t ADD a int; SELECT pg_sleep(60);"})
    process = migrate.start("rehearse", DATABASE_URL=migrate.url)
    sleeping: LiteralString = """
        SELECT pid FROM pg_stat_activity
         WHERE datname = current_database() AND state = 'active' AND query LIKE '% pg_sleep(60);'"""
    until(lambda: rows(sleeping))
    process.process.send_signal(number)
    ended = process.end()
    assert ended.exit_code == code
    assert "rolled back" in ended.stderr
    assert rows(sleeping) == []
    assert rows(CATALOG) == before


def test_nothing_pending_is_rehearsed_in_no_time(migrate: Migrate, rows: Rows) -> None:
    """It says so, and ends with 0."""
    assert migrate("up", files={"1_a.sql": "SELECT 1"}).exit_code == 0
    assert "Nothing is pending" in migrate("rehearse").stdout
    assert migrate("rehearse", "--format", "markdown").stdout == "There is nothing to rehearse.\n"


def test_to_ends_it_at_a_version(rehearse: Rehearse, migrate: Migrate) -> None:
    """Files after it are not touched."""
    files = {"1_a.sql": "SELECT 1;", "2_b.sql": "not sql;"}
    assert migrate("rehearse", "--to", "1", files=files).exit_code == 0


def test_it_says_that_its_locks_are_real(tables: None, migrate: Migrate) -> None:
    """The note stands in the document, and on stderr only with -v, because it is the same every time."""
    result = migrate("-v", "rehearse", files={"1_a.sql": "DROP VIEW seen;"})
    assert "on a copy, or on staging" in result.stderr
    assert "on a copy" not in result.stdout
    assert migrate("rehearse").stderr == ""
    assert "on a copy, or on staging" in migrate("--json", "rehearse").json["warning"]


def interleaved(migrate: Migrate, text: str) -> list[str]:
    """Rehearse a file; give the lines of stdout and stderr as they came."""
    migrate.write({"1_a.sql": text})
    command = [sys.executable, "-m", "outreach_migrate", "--database", migrate.url, "rehearse"]
    run = subprocess.run(command, cwd=migrate.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return run.stdout.decode().splitlines()


def test_a_notice_stands_after_its_statement(migrate: Migrate) -> None:
    """As it does when the statements are typed; it comes before the error of its own statement."""
    text = "SELECT 1;\nDROP TABLE IF EXISTS gone;\nDO $$ BEGIN RAISE NOTICE 'soon'; RAISE 'now'; END $$;"
    lines = interleaved(migrate, text)
    begin = lines.index("1  a") + 1
    assert [line.strip().partition("  ")[0] for line in lines[begin : begin + 5]] == [
        "sql/1_a.sql:1: SELECT 1",
        "sql/1_a.sql:2: DROP TABLE IF EXISTS gone",
        'sql/1_a.sql: NOTICE: table "gone" does not exist, skipping',
        "sql/1_a.sql: NOTICE: soon",
        "sql/1_a.sql:3:1: error: now",
    ]


def test_inserts_of_a_dump_are_reported_as_one(rehearse: Rehearse, rows: Rows, migrate: Migrate) -> None:
    """Consecutive ones on one table, with their number, lines and rows; the statement that fails has its place."""
    rows('CREATE TABLE "T 1" (n int CHECK (n < 9)); CREATE TABLE u (n int)')
    text = (
        'INSERT INTO "T 1" VALUES (1);\n' * 3 + "insert into\n  u values (1), (2); INSERT INTO u SELECT 1;\nSELECT 1;\n"
    )
    found = statements(rehearse(text))
    told = [(one["line"], one["last_line"], one["count"], one["rows"]) for one in found]
    assert told == [(1, 3, 3, 3), (4, 5, 2, 3), (6, 6, 1, 1)]
    assert locks(found[0]) == {("T 1", "ROW EXCLUSIVE")}
    result = migrate("rehearse").stdout
    assert '  sql/1_a.sql:1-3: INSERT INTO "T 1" VALUES (1)  3 statements, ' in result
    error = rehearse(text + text.replace("(1);\ni", "(9);\ni"), exit_code=1)["error"]
    assert (error["line"], error["statement"]) == (9, 9)
    error = rehearse('INSERT INTO "T 1" VALUES (1);\nINSERT INTO "T 1" VALUE (1);', exit_code=1)["error"]
    assert (error["line"], error["statement"]) == (2, 2)


def test_a_large_group_is_sent_in_several_messages(rehearse: Rehearse, rows: Rows) -> None:
    """Each row is there once, and counted once."""
    rows("CREATE TABLE t (s text)")
    text = f"INSERT INTO t VALUES ('{'x' * 400_000}');\n" * 6
    (one, check) = statements(rehearse(text + "DO $$ BEGIN ASSERT (SELECT count(*) FROM t) = 6; END $$;"))
    assert (one["count"], one["rows"], check["count"]) == (6, 6, 1)


@pytest.mark.parametrize("name", ["a" * 70, f'"{"a" * 70}"', "b" + "é" * 33], ids=["plain", "quoted", "two bytes"])
def test_a_long_word_is_cut_as_names_are(rehearse: Rehearse, connect: Connect, name: str) -> None:
    """It means the table of its first 63 bytes, without half a character; by that name its lock is presumed."""
    connect().execute(f"CREATE TABLE {name} (n int)".encode())
    document = rehearse(f"ALTER TABLE {name} ADD a int;", f"ALTER TABLE {name} ADD b int;")
    assert [len(statement["locks"]) for statement in statements(document)] == [1, 1]


def test_a_transaction_that_may_only_read_fails_as_in_up(rehearse: Rehearse, migrate: Migrate) -> None:
    """The entry could not be finished."""
    mine = rehearse("SELECT 1; SELECT set_config('transaction_read_only', 'on', true);", exit_code=1)["error"]
    theirs = migrate("--json", "up").json["error"]
    assert mine == theirs | {"state": "Everything that was rehearsed is rolled back.", "outcome": mine["outcome"]}


def test_a_constraint_that_a_file_makes_is_deferred_in_it(rehearse: Rehearse, rows: Rows) -> None:
    """The check at an earlier file's end is none for constraints that are yet to be made."""
    rows("CREATE TABLE q (id int PRIMARY KEY); CREATE TABLE d (id int REFERENCES q DEFERRABLE INITIALLY DEFERRED)")
    rehearse(
        "INSERT INTO d VALUES (1); INSERT INTO q VALUES (1);",
        "CREATE TABLE p (id int PRIMARY KEY); CREATE TABLE c (id int REFERENCES p DEFERRABLE INITIALLY DEFERRED);"
        "INSERT INTO c VALUES (1); INSERT INTO p VALUES (1);",
    )


def test_locks_that_no_server_has_room_for_are_no_failure(
    private_server: Callable[..., PrivateServer], migrate: Migrate
) -> None:
    """A run holds the locks of one file, a rehearsal those of all: the files that don't fit are named."""
    server = private_server(max_locks_per_transaction="10", max_connections="10")
    files = {f"{number}_a.sql": f"CREATE TABLE t{number} (id serial PRIMARY KEY, s text);" for number in range(1, 801)}
    result = migrate("--json", "rehearse", files=files, url=server.url)
    assert result.exit_code == 0
    left = [file for file in result.json["files"] if file["not_rehearsed"]]
    assert 0 < len(left) < 800
    assert all("max_locks_per_transaction" in file["not_rehearsed"] for file in left)
    assert len(result.json["files"]) == 800


def test_markdown_is_a_table_for_a_pull_request(tables: None, migrate: Migrate) -> None:
    """A row for each statement, in which a sign that would end a cell is escaped; stdout has only the table."""
    text = "UPDATE t SET s = 'a|b' WHERE id = 1;\nALTER TABLE t ADD a int;"
    lines = migrate("rehearse", "--format", "markdown", files={"1_a.sql": text}).stdout.splitlines()
    assert lines[0] == "### Rehearsal of 1 migration"
    rows = [line for line in lines if line.startswith("|")]
    assert [line.replace("\\|", "").count("|") for line in rows] == [5, 5, 5, 5]
    assert "`UPDATE t SET s = 'a\\|b' WHERE id = 1`" in rows[2]
    assert "| 1 |" in rows[2]
    assert "ACCESS EXCLUSIVE on t (3,000 rows" in rows[3]
    assert lines[-1].startswith("- **t: reads and writes blocked for ")


def test_text_names_place_lock_and_effect(tables: None, migrate: Migrate) -> None:
    """The effects of a statement stand below it; locks on indexes that add nothing to the table's are left out."""
    result = migrate("rehearse", files={"1_a.sql": "-- a\nALTER TABLE t ADD a int,\n  ADD b float DEFAULT random();"})
    title, statement, lock, held, blocked, end = result.stdout.splitlines()
    assert title == "1  a"
    assert statement.startswith("  sql/1_a.sql:2: ALTER TABLE t ADD a int, ADD b float DEFAULT random()  ")
    assert lock.startswith("    ACCESS EXCLUSIVE on t (3,000 rows, ")
    assert lock.endswith("): blocks reads and writes; rewritten and scanned")
    assert held.startswith("  held to the end of the file: ACCESS EXCLUSIVE on t from line 2, ")
    assert blocked.startswith("t: reads and writes blocked for ")
    assert end == "Rolled back: nothing of it stays."


def test_it_works_through_a_pooler(tables: None, migrate: Migrate, pgbouncer: Callable[..., str]) -> None:
    """In transaction mode too: its transaction keeps one server connection, its looks from outside take another."""
    result = migrate("--json", "rehearse", files={"1_a.sql": "ALTER TABLE t ADD a int;"}, url=pgbouncer())
    assert locks(statements(result.json)[0]) == {("t", "ACCESS EXCLUSIVE")}


def test_scans_of_a_poolers_other_client_are_not_reported(
    tables: None, migrate: Migrate, pgbouncer: Callable[..., str]
) -> None:
    """The server connection may have counts from before, which the server has not passed on yet."""
    pooler = pgbouncer()
    with closing(psycopg.connect(pooler, autocommit=True)) as other:
        for _ in range(3):
            other.execute("SELECT count(*) FROM t", prepare=False)
    result = migrate("--json", "rehearse", files={"1_a.sql": "ALTER TABLE t ADD a int;"}, url=pooler)
    assert statements(result.json)[0]["scanned"] == []


STEPS: LiteralString = """
    INSERT INTO "OutreachSequence" ("id", "updatedAt", "name", "status") VALUES ('s', now(), 'first', 'active');
    INSERT INTO "OutreachStep" ("id", "updatedAt", "stepOrder", "status", "sequenceId")
        SELECT g, now(), g, 'planned', 's' FROM generate_series(1, 200000) g;
    ANALYZE;
"""


def test_the_cadence_engines_columns_lock_but_do_not_rewrite(migrate: Migrate, rows: Rows) -> None:
    """With 200,000 steps: ACCESS EXCLUSIVE without a rewrite for the columns, SHARE with a scan for the index."""
    assert migrate("--dir", SQL, "up", "--to", "20260101000000").exit_code == 0
    rows(STEPS)
    document = migrate("--dir", SQL, "--json", "rehearse", "--to", "20260115000000").json
    columns, index = document["files"][0]["statements"]
    assert locks(columns) == {("OutreachStep", "ACCESS EXCLUSIVE")}
    assert (columns["rewritten"], columns["scanned"]) == ([], [])
    assert locks(index) == {("OutreachStep", "SHARE")}
    assert (index["rewritten"], names(index["scanned"])) == ([], "OutreachStep")
    assert index["locks"][0]["relation"]["rows"] == 200_000
    (blocked,) = document["blocked"]
    assert blocked["table"] == "OutreachStep"
    assert blocked["reads_milliseconds"] == blocked["writes_milliseconds"] >= index["milliseconds"] > 0


def test_a_rehearsal_has_the_isolation_level_of_its_first_file(rehearse: Rehearse) -> None:
    """It is one transaction: a file that asks for another level can't be rehearsed with it."""
    shown = "DO $$ BEGIN ASSERT current_setting('transaction_isolation') = 'serializable'; END $$;"
    document = rehearse("-- migrate: isolation serializable\n" + shown, "SELECT 1;")
    first, second = document["files"]
    assert (first["not_rehearsed"], document["complete"]) == (None, False)
    assert "READ COMMITTED" in second["not_rehearsed"]


def test_statements_on_new_tables_are_reported_one_by_one(rehearse: Rehearse, rows: Rows) -> None:
    """They are looked at together, but a statement that touches an earlier table has its own effects."""
    rows("CREATE TABLE there (id int PRIMARY KEY)")
    text = "".join(f"CREATE TABLE new_{number} (n int);\n" for number in range(150))
    text += "CREATE TABLE refers (id int REFERENCES there);\n" + text.replace("new", "other")
    found = statements(rehearse(text))
    assert [(one["line"], one["count"]) for one in found] == [(line, 1) for line in range(1, 302)]
    assert [one["line"] for one in found if one["locks"]] == [151]


def test_what_it_reads_grows_with_the_statements(migrate: Migrate, proxy: Callable[..., Proxy]) -> None:
    """Each look gives new locks, not all that the file's earlier statements have made and locked."""
    read = []
    for count in (60, 120):
        between = proxy()
        text = "\n".join(f"CREATE TABLE t{number} (id serial PRIMARY KEY);" for number in range(count))
        assert migrate("rehearse", files={"1_a.sql": text}, url=between.url).exit_code == 0
        read.append(between.answered)
    assert read[1] < 2.5 * read[0], read


def test_what_a_statement_does_unseen_is_not_lost(rehearse: Rehearse, connect: Connect) -> None:
    """An event trigger locks a table that no statement names: the statements around it are shown as one."""
    connect().execute("""
        CREATE TABLE there (n int);
        CREATE FUNCTION f() RETURNS event_trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF current_query() ~ 'last_' THEN LOCK TABLE there IN SHARE MODE; END IF;
        END $$;
        CREATE EVENT TRIGGER e ON ddl_command_end EXECUTE FUNCTION f()""")
    text = "".join(f"CREATE TABLE new_{number} (n int);\n" for number in range(120))
    found = statements(rehearse(text + "CREATE TABLE last_1 (n int);\n" + text.replace("new", "other")))
    (one,) = [one for one in found if one["locks"]]
    assert one["line"] <= 121 <= one["last_line"] < one["line"] + 4
    assert locks(one) == {("there", "SHARE")}
    assert [after["count"] for after in found[found.index(one) + 1 :]] == [1] * (241 - one["last_line"])


def test_a_failure_after_statements_that_were_not_looked_at_yet(rehearse: Rehearse) -> None:
    """They are shown before it, with their own notices."""
    text = "".join(f"CREATE TABLE IF NOT EXISTS new_{number % 120} (n int);\n" for number in range(121))
    document = rehearse(text + "CREATE TABLE new_1 (n int);", exit_code=1)
    assert [one["line"] for one in statements(document)] == [*range(1, 122)]
    assert document["error"]["line"] == 122


def test_a_lock_that_a_savepoint_took_back_is_reported_anew(tables: None, rehearse: Rehearse) -> None:
    """So are the statements' effects after it."""
    found = statements(
        rehearse("SAVEPOINT a; LOCK TABLE t IN SHARE MODE; ROLLBACK TO a; LOCK TABLE t; ALTER TABLE child ADD a int;")
    )
    assert [locks(one) for one in found] == [
        set(),
        {("t", "SHARE")},
        set(),
        {("t", "ACCESS EXCLUSIVE")},
        {("child", "ACCESS EXCLUSIVE")},
    ]


def test_the_rest_of_a_file_is_read_as_its_beginning(rehearse: Rehearse, rows: Rows) -> None:
    """A run sends it as one text, so a setting for the reading of text comes too late for it."""
    rows('CREATE SCHEMA "ö"; CREATE TABLE "ö".x (s text)')
    insert = "INSERT INTO x VALUES ('ä\\n');"
    check = "DO $$ BEGIN ASSERT (SELECT s FROM x) = U&'\\00E4\\005Cn'; END $$;"
    for setting in ("client_encoding = 'SJIS'", "client_encoding = 'LATIN1'", "standard_conforming_strings = off"):
        document = rehearse(f'SET search_path = "ö"; SET {setting}; {insert} {check}')
        assert document["complete"]
