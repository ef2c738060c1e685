"""Commands in a pipeline: one round trip, a result for each."""

from __future__ import annotations

import psycopg
import pytest
from fix_servers import Connect
from psycopg import pq

from outreach_migrate.postgres import messages


def tags(connection: psycopg.Connection, *groups: list[str]) -> list[list[str]]:
    """Send the groups; give each result's command tag, or an error's SQLSTATE."""
    answers = messages.pipeline(connection, groups)
    assert connection.pgconn.pipeline_status == pq.PipelineStatus.OFF
    state = pq.DiagnosticField.SQLSTATE
    return [
        [(result.command_status or result.error_field(state) or b"").decode() for result in results]
        for results in answers
    ]


def test_each_command_has_a_result(connect: Connect) -> None:
    """One for one, in their order; COPY TO STDOUT's rows are thrown away, and a rule's statements have none."""
    commands = ["CREATE TEMP TABLE t (id int)", "INSERT INTO t VALUES (1), (2)", "COPY t TO STDOUT", "TABLE t"]
    assert tags(connect(), commands) == [["CREATE TABLE", "INSERT 0 2", "COPY 2", "SELECT 2"]]


def test_a_failure_ends_its_group_and_no_other(connect: Connect) -> None:
    """The failing command's result is the last one of its group, and no other of the group stays done."""
    connection = connect()
    groups = [["CREATE TABLE t (id int)"], ["INSERT INTO t VALUES (1)", "SELECT 1/0", "TABLE t"], ["TABLE t"]]
    assert tags(connection, *groups) == [["CREATE TABLE"], ["INSERT 0 1", "22012"], ["SELECT 0"]]


def test_a_transaction_may_begin_in_a_group_and_go_on_in_the_next(connect: Connect) -> None:
    """After a failure inside of one, the session waits for its ROLLBACK."""
    groups = [["BEGIN", "SELECT 1"], ["SELECT 1/0", "COMMIT"], ["SELECT 2"], ["ROLLBACK"]]
    assert tags(connect(), *groups) == [["BEGIN", "SELECT 1"], ["22012"], ["25P02"], ["ROLLBACK"]]


def test_a_pipeline_of_any_size_goes_through(connect: Connect) -> None:
    """The server writes its answers while it still reads: a client that only writes would wait for ever."""
    commands = [f"SELECT '{'long' * 10_000}'"] * 500
    assert tags(connect(), commands) == [["SELECT 1"] * 500]


def test_a_connection_that_is_ended_in_a_pipeline_says_why(connect: Connect) -> None:
    """The server's last word is the error, rather than that the connection is gone."""
    with pytest.raises(psycopg.OperationalError, match="due to administrator command"):
        tags(connect(), ["SELECT 1", "SELECT pg_terminate_backend(pg_backend_pid())", "SELECT 2"])
