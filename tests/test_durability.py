"""Durability: a run waits for the disk once, in its last commit; a crash takes back only earlier commits."""

from __future__ import annotations

import os
import random
import re
import signal
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psycopg
from fix_cli import Migrate
from fix_private_server import PrivateServer
from fix_proxy import Proxy
from fix_waiting import until

COUNT = 40
FILES = [
    "CREATE TABLE trail (version int PRIMARY KEY); INSERT INTO trail VALUES (1);",
    *(f"CREATE TABLE t{n} (a int); INSERT INTO trail VALUES ({n});" for n in range(2, COUNT + 1)),
]
# a commit without waiting stays in the server's memory for as long as can be, so a crash really takes it back
LAZY = {"wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}


def asked(server: PrivateServer, query: str) -> list[tuple[Any, ...]]:
    with closing(psycopg.connect(server.url, autocommit=True)) as connection:
        return connection.execute(query.encode()).fetchall()


def applied(server: PrivateServer) -> list[int]:
    """Give the versions that are recorded, after a look that the schema agrees with them."""
    (table,) = asked(server, "SELECT to_regclass('schema_migrations')")
    if table[0] is None:
        assert asked(server, "SELECT to_regclass('trail')") == [(None,)]
        return []
    versions = [int(row[0]) for row in asked(server, "SELECT version FROM schema_migrations ORDER BY position")]
    assert versions == [row[0] for row in asked(server, "SELECT version FROM trail ORDER BY version")]
    tables = asked(server, "SELECT relname FROM pg_class WHERE relname ~ '^t[0-9]+$'")
    assert sorted(int(name[1:]) for (name,) in tables) == versions[1:]
    return versions


def test_a_crash_takes_back_a_suffix_of_whole_files(
    migrate: Migrate, seed: int, private_server: Callable[..., PrivateServer]
) -> None:
    """After kill -9 of the postmaster the history is a prefix of the files, the schema agrees, and `up` goes on."""
    server = private_server(**LAZY)
    migrate.write(FILES)
    run = migrate.start("up", url=server.url)
    reached = random.Random(seed).randrange(1, COUNT)
    until(lambda: re.search(rf"^{reached}  a  applied", run.stdout, re.MULTILINE) or run.process.poll() is not None)
    server.kill()
    server.start()
    ended = run.end()
    assert "Traceback" not in ended.stderr
    versions = applied(server)
    assert versions == list(range(1, len(versions) + 1))
    if ended.exit_code == 0:
        assert len(versions) == COUNT
    again = migrate.process("up", url=server.url)
    assert again.exit_code == 0, again.stderr
    assert applied(server) == list(range(1, COUNT + 1))


def test_a_run_that_has_ended_well_survives_a_crash(
    migrate: Migrate, private_server: Callable[..., PrivateServer]
) -> None:
    """Once `up` has exited with 0, a crash takes nothing back."""
    server = private_server(**LAZY)
    migrate.write(FILES)
    assert migrate.process("up", url=server.url).exit_code == 0
    server.kill()
    server.start()
    assert applied(server) == list(range(1, COUNT + 1))


def test_what_a_failing_run_reports_survives_a_crash(
    migrate: Migrate, private_server: Callable[..., PrivateServer]
) -> None:
    """The files that a run reports as recorded when one fails are on the disk by then."""
    server = private_server(**LAZY)
    migrate.write([*FILES[:5], "SELECT 1/0;"])
    assert "5 migrations before it were applied and recorded" in migrate.process("up", url=server.url).stderr
    server.kill()
    server.start()
    assert applied(server) == [1, 2, 3, 4, 5]


def test_what_an_interrupted_run_reports_survives_a_crash(
    migrate: Migrate, private_server: Callable[..., PrivateServer]
) -> None:
    """The files that a run reports as recorded when a signal ends it are on the disk by then."""
    server = private_server(**LAZY)
    migrate.write([*FILES[:5], "SELECT pg_sleep(60);"])
    run = migrate.start("up", url=server.url)
    until(lambda: asked(server, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
    run.process.send_signal(signal.SIGTERM)
    assert "5 migrations before it were applied and recorded" in run.end().stderr
    server.kill()
    server.start()
    assert applied(server) == [1, 2, 3, 4, 5]


def test_what_was_committed_when_the_connection_was_lost_survives_a_crash(
    migrate: Migrate, private_server: Callable[..., PrivateServer]
) -> None:
    """A file whose COMMIT was sent, and its answer lost, is on the disk before `up` reports it as recorded."""
    server = private_server(**LAZY)
    migrate.write([FILES[0], "SELECT 1/0;"])
    with Proxy(server.url) as between:
        assert migrate.process("up", "--to", "1", "--dry-run", url=between.url).exit_code == 0
        looks = len(between.messages) - 1  # all but the Terminate

    def cut() -> str:
        with Proxy(server.url) as between:
            between.cut_at(looks + 1, forwarded=True)
            return migrate.process("up", url=between.url).stderr

    # a fast run ends the session before that has committed: nothing is applied then, and it is tried again
    ended = until(lambda: (said := cut()) and "it was committed before the connection was lost" in said and said)
    assert "1 migration before it was applied and recorded." in ended
    server.kill()
    server.start()
    assert applied(server) == [1]


def test_a_crash_does_take_back_what_nobody_waited_for(
    migrate: Migrate, private_server: Callable[..., PrivateServer]
) -> None:
    """The other tests would see it if the last commit did not wait: without one, applied files are lost."""
    server = private_server(**LAZY)
    [(writer,)] = until(lambda: asked(server, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'"))
    os.kill(writer, signal.SIGSTOP)  # it would write after ten seconds
    migrate.write([*FILES[:5], "SELECT pg_sleep(60);"])
    run = migrate.start("up", url=server.url)
    until(lambda: asked(server, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
    server.kill(writer)
    server.start()
    ended = run.end()
    left = len(applied(server))
    assert left < 5
    assert re.search(
        rf"The server's crash took back {5 - left} migrations? before it, which (is|are) pending", ended.stderr
    )
