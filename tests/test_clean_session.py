"""Clean sessions: a file finds nothing that a database, a role or another file has set, and leaves nothing behind."""

from __future__ import annotations

from datetime import datetime
from typing import LiteralString

import pytest
from fix_cli import THREE, Migrate, Recorded, Rows
from fix_servers import Connect, each_way, set_for_all


@pytest.mark.parametrize(
    "setting",
    [
        "default_transaction_isolation = 'serializable'",
        "default_transaction_isolation = 'repeatable read'",
        "default_transaction_deferrable = on",
        "datestyle = 'German, DMY'",
        "timezone = 'Pacific/Chatham'",
        "intervalstyle = 'sql_standard'",
        "client_encoding = 'LATIN1'",
        "lock_timeout = '1ms'",
        "client_min_messages = 'error'",
        "extra_float_digits = -15",
        "bytea_output = 'escape'",
        "quote_all_identifiers = on",
        "row_security = off",
        "check_function_bodies = off",
    ],
)
@each_way
def test_a_databases_own_settings_do_not_matter(
    migrate: Migrate, connect: Connect, recorded: Recorded, setting: LiteralString
) -> None:
    """Whatever a database sets for all its sessions, files are applied at read committed, and status reads them."""
    set_for_all(connect, setting)
    files = {**THREE, "11_last.sql": "create table u as select 'é' as e, current_setting('transaction_isolation') as i"}
    assert migrate("up", files=files).exit_code == 0
    assert recorded() == ["first", "second", "third", "last"]
    assert connect().execute("SELECT * FROM u").fetchall() == [("é", "read committed")]
    status = migrate("--json", "status", "--check")
    assert (status.exit_code, status.json["counts"]) == (0, {"applied": 4})
    started = connect().execute("SELECT extract(epoch FROM started_at)::text FROM schema_migrations").fetchall()
    told = [datetime.fromisoformat(one["entry"]["started_at"]).timestamp() for one in status.json["migrations"]]
    assert told == [pytest.approx(float(epoch), abs=1e-3) for (epoch,) in started]


LEFT_BEHIND = {
    "lock_timeout": ("set lock_timeout = '1ms'", "current_setting('lock_timeout')"),
    "statement_timeout": ("set statement_timeout = '20s'", "current_setting('statement_timeout')"),
    "search_path": ("set search_path = ''", "current_setting('search_path')"),
    "set_config": ("select pg_catalog.set_config('search_path', '', false)", "current_setting('search_path')"),
    "role": ("set role pg_monitor; set role none; set role {role}", "current_user::text"),
    "session authorization": ("set session authorization {role}", "session_user::text"),
    "client_encoding": ("set client_encoding = latin1", "current_setting('client_encoding') || 'é'"),
    "strings": ("set standard_conforming_strings = off", "current_setting('standard_conforming_strings')"),
    "read only": ("set default_transaction_read_only = on", "current_setting('default_transaction_read_only')"),
    "isolation": (
        "set default_transaction_isolation = 'serializable'",
        "current_setting('default_transaction_isolation')",
    ),
    "triggers": ("set session_replication_role = replica", "current_setting('session_replication_role')"),
    "messages": ("set client_min_messages = error", "current_setting('client_min_messages')"),
    "time zone": ("set time zone 'Asia/Tokyo'", "current_setting('timezone')"),
    "a setting of its own": ("set my.own = 'x'", "coalesce(current_setting('my.own', true), '')"),
    "temporary table": ("create temp table left_behind ()", "coalesce(to_regclass('left_behind')::text, '')"),
    "prepared statement": ("prepare p as select 1", "(select count(*) from pg_prepared_statements)"),
    "cursor": ("declare c cursor with hold for select 1", "(select count(*) from pg_cursors)"),
    "channel": ("listen c", "(select count(*) from pg_listening_channels())"),
    "advisory lock": (
        "select pg_advisory_lock(1), pg_advisory_lock_shared(2)",
        "(select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid())",
    ),
}


@pytest.mark.parametrize("what", LEFT_BEHIND)
@each_way
def test_a_file_finds_a_clean_session(migrate: Migrate, rows: Rows, role: tuple[str, str], what: str) -> None:
    """A file's settings, cursors and locks are gone when the next file of the run starts."""
    change, probe = LEFT_BEHIND[what]
    rows("GRANT CREATE ON SCHEMA public TO public")
    files = {
        "1_before.sql": f"create table public.before as select {probe} as found",
        "2_during.sql": f"{change.format(role=role[0])};\ncreate table public.during as select {probe} as found",
        "3_after.sql": f"create table public.after as select {probe} as found",
    }
    run = migrate("up", files=files)
    assert (run.exit_code, run.stderr) == (0, "")
    before = rows("SELECT found FROM public.before")
    assert rows("SELECT found FROM public.after") == before
    # a channel is heard only from COMMIT on; the encoding is put back before é where statements go one by one
    if what not in ("channel", "client_encoding"):
        assert rows("SELECT found FROM public.during") != before


@each_way
def test_a_files_last_settings_do_not_reach_its_entry(
    migrate: Migrate, recorded: Recorded, role: tuple[str, str]
) -> None:
    """An entry is finished as the role and within the limits that it was begun with."""
    slow = """
        create function slow() returns trigger language plpgsql as $$ begin perform pg_sleep(0.4); return new; end $$;
        create trigger slow before update on schema_migrations for each row execute function public.slow();
    """
    text = f"set statement_timeout = '200ms'; set search_path = ''; set role {role[0]}"
    run = migrate("up", files={"1_a.sql": slow, "2_b.sql": text, "3_c.sql": "drop trigger slow on schema_migrations"})
    assert (run.exit_code, run.stderr) == (0, "")
    assert recorded() == ["a", "b", "c"]
