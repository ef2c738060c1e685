"""The round trips of a command, everything counted: from the first SSLRequest to Terminate."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing

import psycopg
import pytest
from fix_cli import Migrate
from fix_proxy import Proxy
from fix_servers import Connect
from fix_waiting import until

HUNDRED = [f"CREATE TABLE t{number} (id int);" for number in range(100)]


@pytest.fixture
def cost(migrate: Migrate, proxy: Callable[..., Proxy]) -> Callable[..., list[str]]:
    """A function that runs a command and gives the messages it sent."""
    between = proxy()

    def counted(*arguments: str) -> list[str]:
        before = len(between.messages)
        ended = migrate(*arguments, url=between.url)
        assert ended.exit_code == 0, ended
        until(lambda: between.idle)
        return between.messages[before:]

    return counted


def test_a_hundred_files_cost_a_hundred_messages_and_at_most_eight(
    migrate: Migrate, cost: Callable[..., list[str]], connect: Connect
) -> None:
    """A file is one message, whatever is in it; all the rest of a run is at most eight."""
    migrate.write(HUNDRED)
    messages = cost("up")
    assert 100 < len(messages) <= 108
    assert messages[-1] == "X"
    assert connect().execute("SELECT count(*) FROM schema_migrations").fetchone() == (100,)


@pytest.mark.parametrize("command", [["up"], ["up", "--dry-run"], ["status"], ["status", "--check"]])
def test_a_look_costs_at_most_eight_messages(
    migrate: Migrate, command: list[str], cost: Callable[..., list[str]]
) -> None:
    """With nothing to do, however many files there are, a command costs no more than its connection and one query."""
    migrate.write(HUNDRED)
    cost("up")
    assert 2 < len(cost(*command)) <= 8


@pytest.mark.parametrize("command", ["up", "status"])
def test_files_of_code_cost_a_look_one_message(migrate: Migrate, command: str, cost: Callable[..., list[str]]) -> None:
    """With nothing to do, their records are read in one query, however many there are."""
    migrate.write(["CREATE TABLE t (id int);"])
    cost("up")
    without = len(cost(command))
    code = migrate.files / "code"
    code.mkdir()
    for number in range(3):
        (code / f"{number}.sql").write_text(f"CREATE OR REPLACE VIEW v{number} AS SELECT 1 AS a;")
    cost("up")
    assert len(cost(command)) <= without + 1


@pytest.mark.parametrize("command", [["up", "--dry-run"], ["status"]])
def test_a_look_at_an_empty_database_costs_at_most_eight_messages(
    migrate: Migrate, command: list[str], cost: Callable[..., list[str]]
) -> None:
    """Where there is no table yet, a look costs no more than where there is one."""
    migrate.write(HUNDRED)
    assert 2 < len(cost(*command)) <= 8


def test_the_proxy_counts_the_clients_messages(proxy: Callable[..., Proxy]) -> None:
    """The count is right: a connection's own messages, one Q for a query, X for the end."""
    between = proxy(round_trip=0.005)
    with psycopg.connect(between.url, autocommit=True) as connection:
        connection.execute("SELECT 1")
        connection.execute(b"SELECT 2; SELECT 3")
    until(lambda: between.idle)
    assert between.messages[0] == "SSLRequest"
    assert [kind for kind in between.messages if kind not in ("SSLRequest", "GSSENCRequest", "p")] == [
        *("Startup", "Q", "Q", "X")
    ]


@pytest.mark.parametrize(("forwarded", "rows"), [(True, 1), (False, 0)])
def test_the_proxy_cuts_before_or_after_a_message(
    forwarded: bool, rows: int, proxy: Callable[..., Proxy], connect: Connect
) -> None:
    """Of a message that was forwarded the server does all, though nobody hears of it; of another it does nothing."""
    between, watching = proxy(), connect()
    watching.execute("CREATE TABLE t (id int)")
    with closing(psycopg.connect(between.url, autocommit=True)) as client:
        pid = client.info.backend_pid
        between.cut_at(1, forwarded=forwarded)
        with pytest.raises(psycopg.OperationalError):
            client.execute("INSERT INTO t VALUES (1)")
    until(lambda: not watching.execute("SELECT FROM pg_stat_activity WHERE pid = %s", [pid]).fetchall())
    assert watching.execute("SELECT count(*) FROM t").fetchone() == (rows,)
    psycopg.connect(between.url).close()
