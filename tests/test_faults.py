"""Faults: runs killed, or their sessions ended, at a random instant; the next ends where an undisturbed one does."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import fix_servers
import psycopg
import pytest
from fix_cli import Migrate, Result, Rows, Run
from fix_servers import Connect
from fix_waiting import Sessions, until
from psycopg import sql

Dump = dict[str, list[tuple[Any, ...]]]

# Forty files of every kind that a kill may hit: in a transaction, builds and drops beside any, VACUUM, batches of data
# that must not be counted twice, a procedure that commits on its way.
FIRST = """
    CREATE TABLE account (id int PRIMARY KEY, name text, balance int NOT NULL DEFAULT 0, note text);
    CREATE TABLE trail (file int NOT NULL, step int NOT NULL);
    INSERT INTO account (id, name) SELECT n, 'name ' || n FROM generate_series(1, 2000) AS n;
    CREATE TYPE mood AS ENUM ('sad');
    CREATE PROCEDURE counted(number int) LANGUAGE plpgsql AS $$ BEGIN
        FOR i IN 1..3 LOOP
            DELETE FROM trail WHERE file = number AND step = i;
            INSERT INTO trail VALUES (number, i);
            COMMIT;
        END LOOP;
    END $$;"""
ROWS = "1\ta row\n" * 5000
KINDS = [
    "INSERT INTO trail VALUES ({n}, 1); SELECT pg_sleep(0.01); ALTER TABLE account ADD c{n} int DEFAULT {n};",
    "CREATE INDEX CONCURRENTLY account_i{n} ON account (name, id, (balance + {n}));",
    """-- migrate: no-transaction
    UPDATE account SET balance = balance + {n} FROM pg_sleep(0.05) WHERE id <= 1000;
    INSERT INTO trail VALUES ({n}, 1);
    UPDATE account SET balance = balance + {n} WHERE id > 1000;
    INSERT INTO trail SELECT {n}, 2 FROM pg_sleep(0.02);""",
    "CREATE TABLE t{n} AS SELECT n, md5(n::text) AS text FROM generate_series(1, 3000) AS n; CREATE INDEX ON t{n} (n);",
    """-- migrate: no-transaction
    CREATE INDEX CONCURRENTLY passing_i{n} ON account (note);
    CREATE UNIQUE INDEX CONCURRENTLY account_u{n} ON account (id, name);
    DROP INDEX CONCURRENTLY passing_i{n};""",
    "INSERT INTO trail VALUES ({n}, 1); UPDATE account SET note = coalesce(note, '') || '{n} ';",
    """-- migrate: no-transaction
    VACUUM account;
    ANALYZE account;""",
    """-- migrate: no-transaction
    CALL counted({n});""",
    """-- migrate: no-transaction
    ALTER TYPE mood ADD VALUE 'mood {n}';
    ALTER TABLE account ADD m{n} mood DEFAULT 'mood {n}';""",
    f"""
    CREATE TABLE r{{n}} (n int, text text);
    COPY r{{n}} FROM stdin;
{ROWS}\\.
    INSERT INTO trail VALUES ({{n}}, 1);
    COPY trail FROM stdin;
{{n}}\t2
\\.""",
]
FILES = [FIRST, *(KINDS[number % len(KINDS)].replace("{n}", str(number)) for number in range(2, 41))]

CATALOG: dict[str, Any] = {
    "relations": "SELECT relname::text, relkind::text FROM pg_class WHERE relnamespace = 'public'::regnamespace",
    "columns": """
        SELECT table_name, column_name, ordinal_position, data_type, udt_name, column_default, is_nullable
          FROM information_schema.columns WHERE table_schema = 'public'""",
    "indexes": """
        SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid, indisready
          FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relnamespace = 'public'::regnamespace""",
    "constraints": """
        SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
         WHERE connamespace = 'public'::regnamespace""",
    "routines": "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "labels": "SELECT enumlabel, enumsortorder FROM pg_enum",
    "history": """
        SELECT position, version, name, checksum, statements_done, done_checksum, origin, finished_at IS NOT NULL
          FROM schema_migrations""",
}


def dump(connection: psycopg.Connection) -> Dump:
    """Give the schema and all data, without the parts that differ from run to run."""
    found = {name: sorted(connection.execute(query).fetchall()) for name, query in CATALOG.items()}
    for name, kind in found["relations"]:
        if kind == "r" and name != "schema_migrations":
            rows = sql.SQL("SELECT t::text FROM {} AS t ORDER BY 1").format(sql.Identifier(name))
            found[name] = connection.execute(rows).fetchall()
    return found


@pytest.fixture(scope="module")
def undisturbed(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Dump, float]]:
    """The result of a run without a fault, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write(folder)
    with fix_servers.fresh_database(server_url) as url:
        began = time.monotonic()
        ended = Run(["up"], folder, folder / "run", DATABASE_URL=url).end()
        took = time.monotonic() - began
        assert ended.exit_code == 0, ended
        with closing(psycopg.connect(url, autocommit=True)) as connection:
            yield dump(connection), took


def write(folder: Path) -> None:
    (folder / "sql").mkdir()
    for number, text in enumerate(FILES, 1):
        (folder / "sql" / f"{number}_a.sql").write_text(text, encoding="utf-8")


def ends_as_undisturbed(ended: Result, connection: psycopg.Connection, undisturbed: tuple[Dump, float]) -> None:
    assert ended.exit_code == 0, ended
    found = dump(connection)
    for name, rows in undisturbed[0].items():
        assert found[name] == rows, name
    assert found.keys() == undisturbed[0].keys()


def test_a_run_killed_at_any_instant_is_made_good_by_the_next(
    migrate: Migrate, seed: int, tmp_path: Path, connect: Connect, undisturbed: tuple[Dump, float]
) -> None:
    """After SIGKILL, of one run or several, `up` ends where an undisturbed run does, with each file recorded once."""
    chance = random.Random(seed)
    write(tmp_path)
    for _ in range(chance.choice([1, 1, 1, 3])):
        killed = migrate.start("up")
        time.sleep(chance.uniform(0.1, undisturbed[1]))
        killed.kill()
    ends_as_undisturbed(migrate.process("up"), connect(), undisturbed)


def test_a_run_whose_backend_is_terminated_is_made_good_by_the_next(
    migrate: Migrate, seed: int, tmp_path: Path, connect: Connect, undisturbed: tuple[Dump, float]
) -> None:
    """A run whose sessions are terminated goes on, or reports the state of its file, and the next makes it good."""
    chance = random.Random(seed)
    write(tmp_path)
    watching = connect(application_name="the test")
    run = migrate.start("up")
    for _ in range(chance.choice([1, 2, 4])):
        time.sleep(chance.uniform(0.1, undisturbed[1]) / 2)
        watching.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'outreach-migrate' AND datname = current_database() AND random() < %s",
            [chance.choice([0.5, 1.0])],
        )
    ended = run.end()
    assert ended.exit_code in (0, 1), ended
    assert "Traceback" not in ended.output
    if ended.exit_code == 1:
        tells_the_state(ended, watching)
    ends_as_undisturbed(migrate.process("up"), watching, undisturbed)


CODE = "create or replace function f{n}() returns int language sql as 'select {n}'; insert into trail select {n}, 1"
CODE += " from pg_sleep(0.01);"


def written_code(migrate: Migrate) -> int:
    """Write a migration and thirty files of code, each of which leaves a row whenever it is carried out."""
    (migrate.files / "code").mkdir(parents=True)
    for number in range(30):
        (migrate.files / "code" / f"f{number}.sql").write_text(CODE.replace("{n}", str(number)))
    migrate.write(["CREATE TABLE trail (file int NOT NULL, step int NOT NULL);"])
    return 30


def carried_out(rows: Rows) -> tuple[int, int, int]:
    """Count the functions, the rows, and the records."""
    [(functions, left)] = rows(
        "SELECT (SELECT count(*)::int FROM pg_proc WHERE proname ~ '^f[0-9]+$'), (SELECT count(*)::int FROM trail)"
    )
    [(there,)] = rows("SELECT to_regclass('schema_migrations_code') IS NOT NULL")
    return functions, left, rows("SELECT count(*)::int FROM schema_migrations_code")[0][0] if there else 0


@pytest.mark.parametrize("how", ["killed", "terminated"])
def test_files_of_code_are_carried_out_all_or_none(migrate: Migrate, seed: int, rows: Rows, how: str) -> None:
    """A run that is killed, or whose session is ended, leaves all of them with their records, or nothing."""
    chance, count = random.Random(seed), written_code(migrate)
    run = migrate.start("up")
    until(lambda: rows("SELECT to_regclass('trail') IS NOT NULL") == [(True,)] or not run.lives)
    time.sleep(chance.uniform(0, 0.8))
    if how == "killed":
        run.kill()
    else:
        rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'outreach-migrate' AND datname = current_database()"
        )
        ended = run.end()
        assert "Traceback" not in ended.output
        all_or_none = (count, count, count) if ended.exit_code == 0 else (0, 0, 0)
        assert "No file of code was carried out" in ended.stderr or ended.exit_code == 0, ended
        assert carried_out(rows) == all_or_none
    assert migrate("up").exit_code == 0
    assert carried_out(rows) == (count, count, count)


def test_sixteen_runs_at_once_through_a_pooler(migrate: Migrate, pgbouncer: Callable[..., str], rows: Rows) -> None:
    """Forty files, four of which build an index concurrently: every run ends well, and each file is applied once."""
    texts = [f"INSERT INTO trail VALUES ({number});" for number in range(1, 41)]
    texts[0] = "CREATE TABLE trail (file int); INSERT INTO trail VALUES (1);"
    for number in (5, 6, 20, 40):
        texts[number - 1] = f"CREATE INDEX CONCURRENTLY trail_i{number} ON trail (file);"
    migrate.write(texts)
    url = pgbouncer(pool_size=20)
    ended = [run.end() for run in [migrate.start("up", url=url) for _ in range(16)]]
    assert [one.exit_code for one in ended] == [0] * 16, ended
    assert rows("SELECT file FROM trail ORDER BY file") == [(n,) for n in range(1, 41) if n not in (5, 6, 20, 40)]
    valid = (
        "SELECT relname::text FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indisvalid AND relname ~ '^trail_i'"
    )
    assert {name for (name,) in rows(valid)} == {"trail_i5", "trail_i6", "trail_i20", "trail_i40"}
    assert rows("SELECT position, version, finished_at IS NOT NULL FROM schema_migrations ORDER BY position") == [
        (number, str(number), True) for number in range(1, 41)
    ]


def test_more_runs_at_once_than_a_pool_has_room_for(
    migrate: Migrate, pgbouncer: Callable[..., str], rows: Rows, connect: Connect, sessions: Sessions
) -> None:
    """A run that needs a second connection gets it, though waiting runs fill the pool."""
    texts = ["CREATE TABLE t (id int);", "CREATE INDEX CONCURRENTLY t_id ON t (id);"]
    migrate.write([texts[0]])
    assert migrate.process("up").exit_code == 0
    migrate.write(texts)
    with connect() as barrier:
        barrier.execute("BEGIN")
        barrier.execute("""
            INSERT INTO schema_migrations (position, version, name, checksum, started_at, applied_by, origin)
            SELECT 2, '2', name, checksum, started_at, applied_by, origin FROM schema_migrations""")
        url = pgbouncer(pool_size=2)
        runs = [migrate.start("up", url=url) for _ in range(4)]
        until(lambda: len(sessions.waiting("Lock")) == 2)
        barrier.execute("ROLLBACK")
    ended = [run.end() for run in runs]
    assert [one.exit_code for one in ended] == [0] * 4, ended
    assert rows("SELECT version, finished_at IS NOT NULL FROM schema_migrations ORDER BY position") == [
        ("1", True),
        ("2", True),
    ]


def tells_the_state(ended: Result, connection: psycopg.Connection) -> None:
    """Compare the last sentence that a run says with the history."""
    exists = connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL").fetchone()
    finished = "SELECT name || version FROM schema_migrations WHERE finished_at IS NOT NULL"
    recorded = len(connection.execute(finished).fetchall()) if exists == (True,) else 0
    counted = r"(\d+) migrations? before it (?:was|were) applied|This run has applied and recorded (\d+) migration"
    before = re.search(counted, ended.stderr)
    assert recorded == (int(before[1] or before[2]) if before else 0), ended
    unfinished = r"\d+_a is unfinished: \d of \d statements? done"
    known = rf"Nothing of this file was applied|{unfinished}|This run has applied|^error: lost"
    assert re.search(known, ended.stderr), ended
