"""Fleets: many schemas or databases migrated by one command, each as `up` would, and looked at."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import fix_servers
import psycopg
import pytest
from fix_cli import Migrate, Result, Rows
from fix_private_server import PrivateServer
from fix_proxy import Proxy
from fix_servers import Connect
from fix_waiting import Sessions, until
from psycopg import sql

from outreach_migrate import errors
from outreach_migrate.errors import Problem
from outreach_migrate.fleet import events, seats
from outreach_migrate.report import fleet_up as report
from outreach_migrate.report.addresses import Addresses
from outreach_migrate.run.request import Request
from outreach_migrate.schema import scratch

PROMPT = 2.0  # s
FIRST = "CREATE TABLE note (id int);"
SECOND = "ALTER TABLE note ADD text text; CREATE INDEX ON note (text);"
ALL = ["fleet", "--schemas", "tenant_*"]
STRANGE = ["tenant_it's", "tenant_100% %s", 'tenant_"a.b" c', "tenant_ä\\n"]


def in_schema(url: str, name: str, like: str = "") -> str:
    """Add a schema to a URL, or to a text that stands for a URL such as `like`."""
    return f"{url}{'&' if '?' in (like or url) else '?'}schema={name}"


@pytest.fixture
def tenants(connect: Connect) -> Callable[..., list[str]]:
    """A function that makes schemas: so many, tenant_1, tenant_2, …, or those of these names."""

    def made(names: int | list[str]) -> list[str]:
        found = [f"tenant_{n}" for n in range(1, names + 1)] if isinstance(names, int) else names
        for name in found:
            connect().execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        return found

    return made


@pytest.fixture
def history(connect: Connect) -> Callable[[str], list[str]]:
    """A function that gives the versions in a schema's history, in order; none without a table."""

    def of(schema: str) -> list[str]:
        table = sql.Identifier(schema, "schema_migrations")
        with closing(connect()) as connection:
            if connection.execute("SELECT to_regclass(%s)", [table.as_string()]).fetchone() == (None,):
                return []
            query = sql.SQL("SELECT version FROM {} ORDER BY position").format(table)
            return [version for (version,) in connection.execute(query)]

    return of


History = Callable[[str], list[str]]
Tenants = Callable[..., list[str]]


def lines(ended: Result) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Give the line of each target, by its name, and the last one."""
    *each, last = map(json.loads, ended.stdout.splitlines())
    named = {one["target"]: one for one in each}
    assert len(named) == len(each)
    return named, last


# Targets


def test_each_schema_is_migrated_as_up_would(migrate: Migrate, tenants: Tenants, rows: Rows, history: History) -> None:
    """Whatever its name, a schema gets the tables and a history of its own; a second run has nothing left to do."""
    names = tenants(["tenant_1", "tenant_2", *STRANGE])
    tenants(["other"])
    ended = migrate("--json", *ALL, "up", "-j", "3", files=[FIRST, SECOND])
    each, last = lines(ended)
    assert ended.exit_code == 0, ended
    assert each.keys() == set(names)
    assert all(one["ok"] and [file["version"] for file in one["applied"]] == ["1", "2"] for one in each.values())
    summary = last["summary"]
    assert {**summary, "seconds": 0} == {
        **{"targets": 6, "applied": 6, "failed": 0, "not_started": 0, "seconds": 0, "migrations": 12},
    }
    assert [history(name) for name in (*names, "other", "public")] == [["1", "2"]] * 6 + [[], []]
    found = rows("SELECT table_schema::text FROM information_schema.columns WHERE column_name = 'text'")
    assert {name for (name,) in found} == set(names)
    again = migrate("-v", *ALL, "up")
    assert again.stdout.splitlines()[:-1] == [f"{name}  up to date" for name in sorted(names)]
    assert re.fullmatch(r"6 targets in .*: 6 up to date\.", again.stdout.splitlines()[-1])


def test_a_fleet_does_the_rest(migrate: Migrate, tenants: Tenants, history: History) -> None:
    """Targets with different histories get the files that each lacks, also one that an `up` has migrated alone."""
    tenants(3)
    migrate.write([FIRST])
    assert migrate("up", url=in_schema(migrate.url, "tenant_2")).exit_code == 0
    assert migrate(*ALL, "up", "--to", "2", files=[FIRST, SECOND, "SELECT 3;"]).exit_code == 0
    assert [history(f"tenant_{n}") for n in (1, 2, 3)] == [["1", "2"]] * 3


def test_a_query_names_the_targets(
    migrate: Migrate, tenants: Tenants, rows: Rows, history: History, role: tuple[str, str]
) -> None:
    """The schemas of --schemas-from are those of a query, which can't write."""
    tenants(3)
    rows("CREATE TABLE tenant AS SELECT 'tenant_' || n AS name, n <> 2 AS active FROM generate_series(1, 3) AS n")
    query = "SELECT name FROM tenant WHERE active"
    assert migrate("fleet", "--schemas-from", query, "up", files=[FIRST]).exit_code == 0
    assert [history(f"tenant_{n}") for n in (1, 2, 3)] == [["1"], [], ["1"]]
    ended = migrate("fleet", "--schemas-from", "DELETE FROM tenant RETURNING name", "up")
    assert (ended.exit_code, "read-only transaction" in ended.stderr) == (1, True)
    assert "error: the query of --schemas-from failed: cannot execute DELETE" in ended.stderr
    assert migrate("fleet", "--schemas-from", "SELECT 1; DROP TABLE tenant", "up").exit_code == 1
    assert rows("SELECT count(*) FROM tenant") == [(3,)]
    ended = migrate("fleet", "--schemas-from", query, "up", url=role[1])
    assert ended.stderr == "error: the query of --schemas-from failed: permission denied for table tenant\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--schemas", "nix_*"],
            "matches nix_*\nhint: There are 2: public, tenant_1. To list them: outreach-migrate psql",
        ),
        (["--databases", "nix_*"], "no database matches nix_*\nhint: There are "),
        (["--schemas-from", "SELECT 'a' WHERE false"], "the query of --schemas-from gives no target"),
        (["--databases-from", "SELECT 'a' UNION ALL SELECT 'a'"], "the target a is given twice"),
        (["--schemas-from", "SELECT 'a', 'b'"], "must have one column"),
        (["--schemas-from", "SELECT null"], "gives an empty name"),
        (["--targets", "absent"], "cannot read the targets in absent"),
        ([], "no targets are named"),
        (["--schemas", "a", "--databases", "b"], "the targets are named in 2 ways: --schemas, --databases"),
        (["--schemas", "tenant_*", "--shard", "3/2"], "'3/2' is not a part"),
    ],
)
def test_targets_that_make_no_sense_are_refused(
    arguments: list[str], words: str, migrate: Migrate, tenants: Tenants
) -> None:
    """No target, one named twice, and two ways to name them are wrong usage, in text and in JSON."""
    tenants(1)
    ended = migrate("--json", "fleet", *arguments, "up", files=[FIRST])
    assert ended.exit_code == 2
    assert words in ended.stderr
    assert ended.json["error"]["kind"] == "UsageError"
    assert ended.json["error"]["help"] == ("commands" if "3/2" in words else "fleets")


def test_a_table_of_one_schema_is_no_history_for_many(migrate: Migrate, tenants: Tenants, rows: Rows) -> None:
    """--table with a schema would give all targets one history, and is refused; a name alone is in each schema."""
    tenants(2)
    ended = migrate("--table", "public.h", *ALL, "up", files=[FIRST])
    assert (ended.exit_code, "tenant_1 and tenant_2 would have one history, public.h" in ended.stderr) == (2, True)
    assert migrate("--table", "h", *ALL, "up").exit_code == 0
    assert rows("SELECT (SELECT count(*) FROM tenant_1.h), (SELECT count(*) FROM tenant_2.h)") == [(1, 1)]


@pytest.mark.parametrize("words", [["up", "--to", "9"], ["baseline", "9"]])
def test_a_version_that_no_file_has_is_wrong_usage(words: list[str], migrate: Migrate, tenants: Tenants) -> None:
    """It is one error, and not a failure of each target."""
    tenants(2)
    ended = migrate("--json", *ALL, *words, files=[FIRST])
    assert (ended.exit_code, ended.json["error"]["message"]) == (2, "no migration has version 9")


def test_shards_are_parts_of_the_whole(migrate: Migrate, tenants: Tenants, history: History) -> None:
    """Every target is in one of them, and one that has none is done at once."""
    names = tenants(9)
    migrate.write([FIRST])
    counts = []
    for nth in (1, 2, 3):
        assert migrate("fleet", "--schemas", "tenant_*", "--shard", f"{nth}/3", "up").exit_code == 0
        counts.append(sum(map(len, map(history, names))))
    assert counts[2] == 9
    assert 0 < counts[0] < counts[1] < 9
    assert "no targets" in migrate("fleet", "--schemas", "tenant_1", "--shard", "1/99999", "status").stdout


def test_settings_name_the_targets(migrate: Migrate, tenants: Tenants) -> None:
    """[tool.outreach-migrate.fleet] and its up, and variables; the command line beats them."""
    tenants(3)
    toml = "[tool.outreach-migrate.fleet]\nschemas = 'tenant_*'\n[tool.outreach-migrate.fleet.up]\njobs = 2\nto = 1\n"
    (migrate.folder / "pyproject.toml").write_text(toml)
    migrate.write([FIRST, SECOND])
    assert "3 migrated" in migrate("fleet", "up").stdout
    assert "1 behind: tenant_2 (1 pending)" in migrate("fleet", "--schemas-from", "SELECT 'tenant_2'", "status").stdout
    run = migrate("fleet", "up", OUTREACH_MIGRATE_FLEET_UP_TO="2")
    assert (run.exit_code, "3 migrated" in run.stdout) == (0, True)
    (migrate.folder / "pyproject.toml").write_text("[tool.outreach-migrate.fleet.up]\nnix = 2\n")
    assert "[tool.outreach-migrate.fleet.up] has an unknown key: nix" in migrate("fleet", "up").stderr


# Databases, and servers


@pytest.fixture
def another_server(private_server: Callable[..., PrivateServer]) -> PrivateServer:
    """Another server."""
    return private_server()


def made(url: str, name: str) -> str:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    return fix_servers.url(url, dbname=name)


def test_databases_of_two_servers(
    migrate: Migrate, another_server: PrivateServer, tenants: Tenants, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--targets takes databases and schemas of any server; --databases those of one. A name is shown, no login."""
    tenants(1)
    urls = [made(another_server.url, name) for name in ("app_1", "app 2", "it's 100%")]
    made(another_server.url, "other")
    monkeypatch.setenv("HERE", migrate.url)
    lines_ = [
        "# regions",
        "",
        in_schema("here  ${HERE}", "tenant_1", like=migrate.url),
        *(f'"eu {n}" {url}' for n, url in enumerate(urls[:2])),
    ]
    (migrate.folder / "targets.txt").write_text("\n".join(lines_))
    ended = migrate("-v", "fleet", "--targets", "targets.txt", "up", files=[FIRST], url="postgresql://nobody@/nix")
    assert ended.exit_code == 0, ended
    assert {line.partition("  ")[0] for line in ended.stdout.splitlines()[:-1]} == {"here", "eu 0", "eu 1"}
    assert history("tenant_1") == ["1"]
    ended = migrate("fleet", "--databases", "app*", "status", url=another_server.url)
    assert ended.stdout == "2 at 1 (up to date)\n"
    ended = migrate("fleet", "--databases-from", """SELECT 'it''s 100%'""", "up", url=another_server.url)
    assert "1 target in" in ended.stdout
    assert "1 migrated" in ended.stdout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a postgresql://u:hunter2@h/${NIX}", "line 1 of the targets, a: the variable NIX is not set"),
        ("postgresql://u:hunter2@h/d", "line 1 of the targets is not NAME URL"),
        ("u:hunter2@h/d a", "line 1 of the targets is not NAME URL"),
        ("a host=h password=hunter2 nix", "line 1 of the targets, a: cannot read the database URL"),
        ("a dbname=a\nb postgresql://u:hunter2@h:hunter2/d", "line 2 of the targets, b: cannot read the database URL"),
        ("a dbname=a password=hunter2\na dbname=b", "the target a is given twice"),
        ("\n# none", "the list of targets is empty"),
    ],
)
def test_a_line_that_names_no_target_is_not_quoted(text: str, words: str, migrate: Migrate) -> None:
    """The error has the line's number and the target's name, and nothing of a password."""
    migrate.write([FIRST])
    run = migrate("fleet", "--targets", "-", "up", stdin=text)
    assert run.exit_code == 2
    assert words in run.stderr
    assert "hunter2" not in run.output


def test_a_list_of_targets_may_begin_with_a_bom(migrate: Migrate) -> None:
    """Editors on Windows write one, and it is no part of the first name."""
    migrate.write([FIRST])
    (migrate.folder / "targets.txt").write_text(f"one {migrate.url}", encoding="utf-8-sig")
    assert migrate("-v", "fleet", "--targets", "targets.txt", "status").stdout.startswith("one  behind")
    (migrate.folder / "targets.txt").write_text(f"# all\none {migrate.url}", encoding="utf-8-sig")
    assert "1 behind: one" in migrate("fleet", "--targets", "targets.txt", "status").stdout


def test_targets_from_a_closed_stdin_are_wrong_usage(migrate: Migrate) -> None:
    """There is no list to read, and the error says so."""
    migrate.write([FIRST])
    command = 'exec "$0" -m outreach_migrate fleet --targets - status <&-'
    ended = subprocess.run(["sh", "-c", command, sys.executable], cwd=migrate.folder, capture_output=True, check=False)
    assert (ended.returncode, b"stdin is closed" in ended.stderr) == (2, True), ended


# Failures


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ([], (1, 1, 4)),
        (["--keep-going"], (4, 2, 0)),
        (["--max-failures", "2"], (2, 2, 2)),
        (["--canary", "1"], (1, 1, 4)),
        (["--canary", "2", "--keep-going"], (1, 1, 4)),
    ],
)
def test_failures_end_the_fleet_as_wanted(
    options: list[str], counts: tuple[int, int, int], migrate: Migrate, tenants: Tenants, history: History
) -> None:
    """After the first failure no target is started, unless more are allowed; a canary's failure always ends it."""
    tenants(6)
    fails = "DO $$ BEGIN IF current_schema() IN ('tenant_2', 'tenant_4') THEN RAISE 'no'; END IF; END $$;"
    ended = migrate("--json", *ALL, "up", "-j", "1", *options, files=[FIRST, fails])
    assert ended.exit_code == 1
    each, last = lines(ended)
    # the first file of a target that fails was applied, but the target counts as failed only
    assert tuple(last["summary"][key] for key in ("applied", "failed", "not_started")) == counts
    assert last["summary"]["migrations"] == counts[0] * 2 + counts[1]
    failed = each["tenant_2"]
    assert (failed["ok"], failed["error"]["kind"], failed["error"]["line"]) == (False, "StatementError", 1)
    assert [one["version"] for one in failed["applied"]] == ["1"]
    assert [one["version"] for one in failed["pending"]] == ["2"]
    assert history("tenant_2") == ["1"]
    assert last["ok"] is False


def test_an_error_is_printed_once(migrate: Migrate, tenants: Tenants) -> None:
    """The first target's error is whole, with its place; later ones take a line each; all names stand at the end."""
    tenants(3)
    ended = migrate(*ALL, "up", "--keep-going", "-j", "1", files=["SELECT nix;"])
    assert ended.stderr.startswith('tenant_1 failed:\nsql/1_a.sql:1:8: error: column "nix" does not exist\n')
    assert ended.stderr.count('tenant_3 failed as tenant_1: column "nix" does not exist\n') == 1
    again = "Correct the cause, then run it again: it does only the rest."
    assert f"3 failed (tenant_1, tenant_2, tenant_3). {again}\n" in ended.stdout


def test_refused_targets_are_reported_before_any_runs(
    migrate: Migrate, tenants: Tenants, rows: Rows, history: History
) -> None:
    """A target with an edited, missing or out-of-order file fails by name; by default no target runs then."""
    tenants(4)
    assert migrate(*ALL, "up", files=[FIRST, "SELECT 2;"]).exit_code == 0
    rows("UPDATE tenant_2.schema_migrations SET checksum = 'x' WHERE position = 1")
    rows("UPDATE tenant_3.schema_migrations SET version = '7' WHERE position = 2")
    rows("UPDATE tenant_3.schema_migrations SET started_at = '2001-02-03 04:05:06Z' WHERE position = 2")
    migrate.write({"8_c.sql": "SELECT 8;"})
    ended = migrate(*ALL, "up")
    assert (ended.exit_code, "1 failed (tenant_2), 3 not started." in ended.stdout) == (1, True), ended
    accept = 'outreach-migrate --database "…?schema=tenant_2" accept 1'
    assert f"If it still does the same: {accept}\n" in ended.stderr
    assert [history(f"tenant_{n}")[-1] for n in (1, 4)] == ["2", "2"]
    ended = migrate("--json", *ALL, "up", "--keep-going")
    each, last = lines(ended)
    assert each["tenant_2"]["error"]["problems"][0]["message"].startswith("edited")
    assert each["tenant_2"]["error"]["problems"][0]["hint"].endswith(accept)
    messages = [one["message"] for one in each["tenant_3"]["error"]["problems"]]
    assert "missing: 7_a was applied 2001-02-03 04:05:06, and has no file" in messages
    assert any(one.startswith("out of order") for one in messages)
    assert last["summary"]["applied"] == 2
    assert [history(f"tenant_{n}")[-1] for n in (1, 4)] == ["8", "8"]
    shown = migrate(*ALL, "status", "--check")
    assert shown.exit_code == 1
    assert "2 at 8 (up to date) · 1 edited: tenant_2 · 1 missing and out of order: tenant_3" in shown.stdout
    assert "tenant_2: sql/1_a.sql: error: edited: " in shown.stdout
    assert accept in shown.stdout
    several = "4 schemas have a history: tenant_1, tenant_2, tenant_3, …\nhint: Name one in the URL: ?schema=tenant_1;"
    assert several in migrate("status").stderr


@pytest.mark.parametrize(
    ("addresses", "command", "addressed"),
    [
        (Addresses("schemas_from"), "up --from-start 1", '--database "…?schema=a%22%20b" up --from-start 1'),
        (Addresses("databases", table="h"), "adopt --rename", '--database "…/a%22%20b" --table h adopt --rename'),
        (Addresses("targets"), "accept 1", "--database 'URL of a\" b' accept 1"),
        (Addresses("schemas", embedded=True), "accept 1", '--embedded --table \'"a"" b".schema_migrations\' accept 1'),
        (Addresses("schemas"), "help code", "help code"),
    ],
)
def test_a_hint_names_the_target_of_its_command(addresses: Addresses, command: str, addressed: str) -> None:
    """It is named as the fleet names it, by what can be known of its URL without a password."""
    problem = addresses.problem('a" b', Problem("wrong", hint=f"Try: outreach-migrate {command}"))
    assert problem.hint == f"Try: outreach-migrate {addressed}"


def test_status_groups_targets(migrate: Migrate, tenants: Tenants, history: History) -> None:
    """It groups them by state, in text and in JSON; its exit code is that of `status`, and it makes nothing."""
    tenants(4)
    migrate.write([FIRST, SECOND])
    assert migrate("fleet", "--schemas", "tenant_[12]", "up").exit_code == 0
    assert migrate("fleet", "--schemas", "tenant_3", "up", "--to", "1").exit_code == 0
    shown = migrate(*ALL, "status")
    assert (shown.exit_code, shown.stderr) == (0, "")
    assert shown.stdout == "2 at 2 (up to date) · 1 behind: tenant_3 (1 pending) · 1 behind: tenant_4 (2 pending)\n"
    assert "tenant_4  behind 2 pending" in migrate("-v", *ALL, "status").stdout
    assert migrate(*ALL, "status", "--check").exit_code == 3
    assert migrate("fleet", "--schemas", "tenant_1", "status", "--check").exit_code == 0
    each, last = lines(migrate("--json", *ALL, "status"))
    assert {name: [step["version"] for step in one["pending"]] for name, one in each.items()} == {
        **{"tenant_1": [], "tenant_2": [], "tenant_3": ["2"], "tenant_4": ["1", "2"]},
    }
    assert last["summary"]["pending"] == 2
    assert history("tenant_4") == []


def test_a_dry_run_shows_the_sql_for_each_group_of_targets(
    migrate: Migrate, tenants: Tenants, rows: Rows, history: History
) -> None:
    """Targets that would get the same files share their SQL, a refused one is named, and nothing is written."""
    tenants(5)
    migrate.write([FIRST, SECOND])
    assert migrate("fleet", "--schemas", "tenant_[12]", "up", "--to", "1").exit_code == 0
    assert migrate("fleet", "--schemas", "tenant_[34]", "up").exit_code == 0
    rows("UPDATE tenant_4.schema_migrations SET checksum = 'x' WHERE position = 1")
    ended = migrate(*ALL, "up", "--dry-run")
    assert ended.exit_code == 1
    assert ended.stdout.splitlines()[:-1] == [
        *("-- 2 targets: tenant_1, tenant_2", "-- sql/2_a.sql", SECOND, ""),
        *("-- 1 target: tenant_5", "-- sql/1_a.sql", FIRST, "-- sql/2_a.sql", SECOND),
    ]
    assert re.fullmatch(
        r"Nothing was run \(--dry-run\): 5 targets in .*: 1 up to date, 1 failed \(tenant_4\), 3 would not be started\."
        r" With --keep-going or --max-failures 2 they would\.",
        ended.stdout.splitlines()[-1],
    )
    assert "tenant_4 failed:\nsql/1_a.sql: error: edited: " in ended.stderr
    each, last = lines(migrate("--json", *ALL, "up", "--dry-run", "--to", "1"))
    assert [one["sql"] for one in each["tenant_5"]["pending"]] == [FIRST]
    assert (each["tenant_1"]["pending"], each["tenant_4"]["error"]["kind"]) == ([], "HistoryError")
    assert [last["summary"][key] for key in ("pending", "failed", "not_started")] == [1, 1, 1]
    assert [history(f"tenant_{n}") for n in (1, 5)] == [["1"], []]
    assert migrate(*ALL, "up", "--dry-run", "--to", "9").exit_code == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--keep-going"], "3 would be migrated, 1 failed (tenant_3)."),
        (["--max-failures", "2"], "3 would be migrated, 1 failed (tenant_3)."),
        (["--canary", "2"], "2 would be migrated, 1 failed (tenant_3), 1 would not be started. With --keep-going or"),
        (["--canary", "3", "--keep-going"], "1 failed (tenant_3), 3 would not be started. The canary would fail, "),
    ],
)
def test_a_dry_run_counts_as_the_run_does(
    options: list[str], said: str, migrate: Migrate, tenants: Tenants, rows: Rows
) -> None:
    """It names the canary, and the targets that it says would not be started are those that a run does not start."""
    tenants(4)
    assert migrate(*ALL, "up", files=[FIRST]).exit_code == 0
    migrate.write([FIRST, SECOND])
    rows("UPDATE tenant_3.schema_migrations SET checksum = 'x'")
    ended = migrate(*ALL, "up", "--dry-run", *options)
    assert (ended.exit_code, said in ended.stdout) == (1, True), ended
    canary = int(options[1]) if options[0] == "--canary" else 0
    names = [f"tenant_{n}" for n in range(1, canary + 1)]
    assert (f"-- canary, alone and before the rest: {', '.join(names)}\n" in ended.stdout) is bool(names)
    each, dry = lines(migrate("--json", *ALL, "up", "--dry-run", *options))
    assert [name for name in sorted(each) if each[name]["canary"]] == names
    ended = migrate("--json", *ALL, "up", *options)
    each, last = lines(ended)
    assert dry["summary"]["not_started"] == last["summary"]["not_started"]
    assert dry["summary"]["pending"] - dry["summary"]["not_started"] == last["summary"]["applied"]
    assert ("not started, because the canary failed. Correct" in ended.stderr) is ("tenant_3" in names)


def test_files_of_code_count_in_each_target(migrate: Migrate, tenants: Tenants) -> None:
    """A fleet shows which it would carry out, tells which it has, and its status is behind while one has changed."""
    tenants(2)
    (migrate.files / "code").mkdir(parents=True)
    migrate.write({"1_a.sql": FIRST, "code/notes.sql": "CREATE OR REPLACE VIEW notes AS SELECT id FROM note;"})
    assert "-- sql/code/notes.sql\nCREATE OR REPLACE VIEW notes" in migrate(*ALL, "up", "--dry-run").stdout
    each, _ = lines(migrate("--json", *ALL, "up"))
    assert [one["path"] for one in each["tenant_2"]["code"]] == ["notes.sql"]
    migrate.write({"code/notes.sql": "CREATE OR REPLACE VIEW notes AS SELECT id, 1 AS one FROM note;"})
    shown = migrate(*ALL, "status", "--check")
    assert (shown.exit_code, "2 behind: tenant_1, tenant_2 (1 file of code)" in shown.stdout) == (3, True)
    assert "tenant_1  1 file of code carried out in " in migrate("-v", *ALL, "up").stdout
    assert migrate(*ALL, "status", "--check").exit_code == 0


def test_another_tools_table_keeps_a_target_from_being_migrated(
    migrate: Migrate, tenants: Tenants, rows: Rows, history: History
) -> None:
    """It counts in the schema that has it, while the history there is empty; the other targets are migrated."""
    tenants(3)
    rows("CREATE TABLE tenant_2.schema_version (version int); INSERT INTO tenant_2.schema_version VALUES (4)")
    migrate.write({"1_a.sql": "-- migrate: from tern/1_a.sql\nSELECT 1;"})
    ended = migrate("--json", *ALL, "up", "--keep-going")
    each, _ = lines(ended)
    assert (ended.exit_code, each["tenant_2"]["error"]["kind"]) == (1, "NotAdopted")
    assert [history(f"tenant_{n}") for n in (1, 2, 3)] == [["1"], [], ["1"]]


def test_one_schema_that_the_role_may_not_use(
    migrate: Migrate, tenants: Tenants, rows: Rows, role: tuple[str, str]
) -> None:
    """It fails with the grant that is missing, and --keep-going migrates the other targets."""
    tenants(3)
    name, url = role
    rows(f"GRANT ALL ON SCHEMA tenant_1, tenant_2, tenant_3 TO {name}")
    assert migrate(*ALL, "up", files=[FIRST], url=url).exit_code == 0
    rows(f"REVOKE ALL ON SCHEMA tenant_2 FROM {name}")
    ended = migrate(*ALL, "up", "--keep-going", files=[FIRST, SECOND], url=url)
    assert ended.exit_code == 1
    assert "tenant_2 failed:\nerror: the role" in ended.stderr
    assert f"GRANT USAGE ON SCHEMA tenant_2 TO {name};" in ended.stderr
    assert "2 migrated, 1 failed (tenant_2)." in ended.stdout
    shown = migrate(*ALL, "status", url=url)
    assert (shown.exit_code, "2 at 2 (up to date) · 1 unreadable: tenant_2" in shown.stdout) == (1, True)


@pytest.mark.parametrize("applied", [[], [FIRST]], ids=["new", "with a history"])
def test_a_schema_that_is_dropped_meanwhile_is_not_made_again(
    applied: list[str], migrate: Migrate, tenants: Tenants, rows: Rows
) -> None:
    """The target fails with its name, and the rest go on; a schema that a query still names is not made."""
    tenants(3)
    if applied:
        assert migrate(*ALL, "up", files=applied).exit_code == 0
    drops = "DO $$ BEGIN DROP SCHEMA IF EXISTS tenant_2 CASCADE; END $$;"
    ended = migrate(*ALL, "up", "-j", "1", "--keep-going", files=[*applied, drops])
    assert ended.exit_code == 1
    assert "tenant_2 failed:\nsql/" in ended.stderr
    assert "does not exist" in ended.stderr
    assert "2 migrated, 1 failed (tenant_2)." in ended.stdout
    ended = migrate("fleet", "--schemas-from", "SELECT 'tenant_1' UNION SELECT 'tenant_2'", "up", "--keep-going")
    assert "tenant_2 failed:\nerror: the database has no schema tenant_2" in ended.stderr
    assert rows("SELECT to_regnamespace('tenant_2')") == [(None,)]


# Locks, signals, connections


def test_a_locked_target_keeps_no_other_waiting(
    migrate: Migrate, tenants: Tenants, connect: Connect, history: History
) -> None:
    """After a lock timeout it goes to the back, with the session in the way; so does one with a locked history."""
    tenants(6)
    assert migrate(*ALL, "up", files=[FIRST]).exit_code == 0
    blocker = connect(application_name="the lock")
    blocker.execute("BEGIN; LOCK TABLE tenant_1.note; LOCK TABLE tenant_2.schema_migrations")
    migrate.write([FIRST, SECOND])
    run = migrate.start(*ALL, "up", "-j", "1", "--lock-timeout", "1200ms")
    run.says("goes to the back")
    until(lambda: history("tenant_6") == ["1", "2"])
    run.says("the history table tenant_2.schema_migrations has been locked")
    blocker.execute("COMMIT")
    ended = run.end()
    assert ended.exit_code == 0, ended
    assert re.search(r"tenant_1  sql/2_a.sql  lock timeout: goes to the back, .*\n    in the way: pid", ended.stderr)
    assert "application the lock" in ended.stderr
    assert "6 migrated" in ended.stdout


def test_a_target_that_stays_locked_fails(migrate: Migrate, tenants: Tenants, connect: Connect) -> None:
    """After the last retry, or once another failure ends the fleet, its error is the lock timeout, with the place.

    It names the session in the way, though no try waits long enough for the first look of one.
    """
    tenants(2)
    assert migrate(*ALL, "up", files=[FIRST]).exit_code == 0
    connect(application_name="the lock").execute("BEGIN; LOCK TABLE tenant_1.note")
    options = ["-j", "1", "--lock-timeout", "900ms", "--lock-retries", "1"]
    ended = migrate("--json", *ALL, "up", *options, files=[FIRST, SECOND])
    each, last = lines(ended)
    assert (ended.exit_code, last["summary"]["failed"], each["tenant_2"]["ok"]) == (1, 1, True)
    assert (each["tenant_1"]["error"]["kind"], each["tenant_1"]["error"]["line"]) == ("LockTimeout", 1)
    assert [one["application"] for one in each["tenant_1"]["error"]["blockers"]] == ["the lock"]
    assert ended.stderr.count("goes to the back") == 1
    assert ended.stderr.endswith("1 failed (tenant_1). Run it again: it does only the rest.\n")


def test_a_signal_ends_all_that_run(migrate: Migrate, tenants: Tenants, sessions: Sessions, history: History) -> None:
    """Eight statements are cancelled, each target is reported, and none is started: 143, within two seconds."""
    names = tenants(12)
    migrate.write([FIRST, "SELECT pg_sleep(60);"])
    run = migrate.start("--json", *ALL, "up", "-j", "8")
    until(lambda: len(sessions.waiting("PgSleep")) == 8)
    began = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    ended = run.end()
    assert time.monotonic() - began < PROMPT
    assert ended.exit_code == 143
    each, last = lines(ended)
    assert {one["error"]["kind"] for one in each.values()} == {"Interrupted"}
    assert {one["error"]["outcome"]["file"] for one in each.values()} == {"nothing"}
    assert last["error"]["message"] == "interrupted by SIGTERM"
    assert [last["summary"][key] for key in ("targets", "failed", "not_started")] == [12, 8, 4]
    assert sessions.waiting("PgSleep") == []
    assert sorted(map(len, map(history, names))) == [0] * 4 + [1] * 8


def test_a_server_that_refuses_connections_gets_fewer(
    migrate: Migrate, tenants: Tenants, rows: Rows, role: tuple[str, str]
) -> None:
    """More than the server allows are not tried again and again; the fleet goes on with as many as it has."""
    tenants(8)
    name, url = role
    rows(f"GRANT ALL ON SCHEMA {', '.join(f'tenant_{n}' for n in range(1, 9))} TO {name}")
    rows(f"ALTER ROLE {name} CONNECTION LIMIT 3")
    ended = migrate(
        *ALL, "up", "-j", "6", files=["SELECT pg_sleep(0.1);", "-- migrate: no-transaction\nSELECT 2;"], url=url
    )
    assert ended.exit_code == 0, ended
    assert "the server refuses more connections, so 3 targets at once" in ended.stderr
    assert "8 migrated" in ended.stdout


def test_a_full_server_keeps_no_worker_from_another(
    migrate: Migrate, another_server: PrivateServer, tenants: Tenants, connect: Connect, sessions: Sessions
) -> None:
    """Three of four workers are refused by a server that allows one connection, and all three work at the other."""
    tenants(3)
    with psycopg.connect(another_server.url, autocommit=True) as connection:
        connection.execute("CREATE ROLE one LOGIN CONNECTION LIMIT 1")
    databases = [made(another_server.url, f"full_{n}") for n in range(4)]
    lines_ = [f"full_{n} {in_schema(fix_servers.url(url, user='one'), 'one')}" for n, url in enumerate(databases)]
    lines_ += [f"tenant_{n} {in_schema(migrate.url, f'tenant_{n}')}" for n in (1, 2, 3)]
    (migrate.folder / "targets.txt").write_text("\n".join(lines_))
    migrate.write(["SELECT pg_advisory_xact_lock_shared(7);"])
    with ExitStack() as locks:
        for url in databases:
            there = locks.enter_context(closing(psycopg.connect(url, autocommit=True)))
            there.execute("CREATE SCHEMA one AUTHORIZATION one; SELECT pg_advisory_lock(7)")
        here = locks.enter_context(closing(connect()))
        here.execute("SELECT pg_advisory_lock(7)")
        run = migrate.start("fleet", "--targets", "targets.txt", "up", "-j", "4", "--lock-timeout", "0")
        run.says("the server refuses more connections, so 1 target at once")
        until(lambda: len(sessions.waiting("advisory")) == 3)
    ended = run.end()
    assert (ended.exit_code, "7 migrated" in ended.stdout) == (0, True), ended


@pytest.mark.parametrize(("again", "is_tried"), [(60.0, False), (0.0, True)])
def test_a_full_server_is_tried_with_more_connections_later(again: float, is_tried: bool) -> None:
    """A refusal limits that server to the connections that it gave, and one more is tried after some seconds."""
    found = seats.Seats(again=again)
    for _ in range(3):
        found.move(None, "a")
    assert found.refused("a") == 2
    assert (found.is_free("a"), found.is_free("b")) == (is_tried, True)
    found.move("a", "b")
    assert found.is_free("a")


@pytest.mark.parametrize("kind", ["", "-- migrate: no-transaction\n"], ids=["in a transaction", "without"])
def test_a_pool_smaller_than_the_fleet(
    kind: str, migrate: Migrate, tenants: Tenants, pgbouncer: Callable[..., str], history: History
) -> None:
    """Behind PgBouncer in transaction mode all targets are migrated, though they have fewer connections than asked."""
    names = tenants(12)
    migrate.write([FIRST, f"{kind}CREATE INDEX CONCURRENTLY note_id ON note (id);" if kind else SECOND])
    ended = migrate(*ALL, "up", "-j", "8", url=pgbouncer(pool_size=2))
    assert ended.exit_code == 0, ended
    assert [history(name) for name in names] == [["1", "2"]] * 12


def test_fleets_at_once_apply_each_file_once(migrate: Migrate, tenants: Tenants, rows: Rows, history: History) -> None:
    """Two fleets, and an `up` of one target beside them, all end well, and each file is applied once in each target."""
    names = tenants(10)
    migrate.write(["CREATE TABLE trail (file int);", *(f"INSERT INTO trail VALUES ({n});" for n in (2, 3, 4))])
    alone = in_schema(migrate.url, "tenant_5")
    runs = [migrate.start(*ALL, "up", "-j", "3"), migrate.start(*ALL, "up"), migrate.start("up", url=alone)]
    ended = [run.end() for run in runs]
    assert [one.exit_code for one in ended] == [0] * 3, ended
    assert [history(name) for name in names] == [["1", "2", "3", "4"]] * 10
    for name in names:
        trail = sql.SQL("SELECT array_agg(file ORDER BY file) FROM {}").format(sql.Identifier(name, "trail"))
        assert rows(trail.as_string()) == [([2, 3, 4],)]


# Other work


def test_adopt_baseline_and_drift_by_the_same_loop(
    migrate: Migrate, tenants: Tenants, rows: Rows, history: History
) -> None:
    """Each target's history is taken over, recorded or compared, and a target that fails has its name."""
    tenants(4)
    migrate.write([FIRST, SECOND])
    for n in (1, 2):
        rows(
            f"CREATE TABLE tenant_{n}._sqlx_migrations (version bigint, description text, installed_on timestamptz,"
            " success bool, checksum bytea, execution_time bigint)"
        )
        rows(f"INSERT INTO tenant_{n}._sqlx_migrations VALUES (1, 'a', now(), true, sha384(%s), 5)", FIRST.encode())
        rows(f"CREATE TABLE tenant_{n}.note (id int)")
    ended = migrate(*ALL, "adopt", "--from", "sqlx")
    assert (ended.exit_code, ended.stderr) == (0, "")
    assert "2 adopted, 2 with nothing to adopt." in ended.stdout
    rows("CREATE TABLE tenant_3.note (id int)")
    rows("CREATE TABLE tenant_4.schema_migrations (version text)")
    ended = migrate("--json", "fleet", "--schemas", "tenant_[34]", "baseline", "1", "--keep-going")
    each, last = lines(ended)
    assert (ended.exit_code, each["tenant_3"]["recorded"][0]["version"], each["tenant_4"]["ok"]) == (1, "1", False)
    assert [last["summary"][key] for key in ("recorded", "failed")] == [1, 1]
    three = ("fleet", "--schemas", "tenant_[123]")
    assert migrate(*three, "up").exit_code == 0
    ignoring = ("drift", "--ignore", "*._sqlx_migrations")
    assert "3 without drift" in migrate(*three, *ignoring).stdout
    rows("ALTER TABLE tenant_2.note ADD extra int")
    ended = migrate("-v", *three, *ignoring)
    assert (ended.exit_code, "2 without drift, 1 drifted (tenant_2)." in ended.stdout) == (1, True)
    assert "tenant_2  changed  table tenant_2.note" in ended.stdout
    assert [history(f"tenant_{n}") for n in (1, 2, 3)] == [["1", "2"]] * 3


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """The schemas for which scratch databases were made so far."""
    found: list[str | None] = []
    made = scratch.migrated

    def spied(request: Request, *given: Any, **named: Any) -> Any:
        found.append(request.target.schema)
        return made(request, *given, **named)

    monkeypatch.setattr(scratch, "migrated", spied)
    return found


def test_targets_with_the_same_files_share_a_replay(
    migrate: Migrate, tenants: Tenants, rows: Rows, replays: list[str | None]
) -> None:
    """A scratch database is made for each set of files, whatever the names are; files that ask for theirs get each."""
    names = tenants(["tenant_1", "tenant_2", *STRANGE])
    files = [
        f"{FIRST} CREATE VIEW notes AS SELECT id FROM note; COMMENT ON TABLE note IS 'a note';",
        "CREATE TYPE kind AS ENUM ('a'); ALTER TABLE note ADD kind kind; CREATE INDEX ON note ((id + 1));",
        "CREATE FUNCTION f(note) RETURNS int LANGUAGE sql RETURN 1; ALTER TABLE note ADD CHECK (f(note) > 0);",
    ]
    assert migrate(*ALL, "up", files=files).exit_code == 0
    behind = tenants(["tenant_3"])
    assert migrate(*ALL, "up", "--to", "1").exit_code == 0
    ended = migrate(*ALL, "drift")
    assert (ended.exit_code, f"{len(names) + 1} without drift" in ended.stdout) == (0, True), ended
    assert len(replays) == 2
    assert migrate("fleet", "--schemas", "public", "up").exit_code == 0
    ended = migrate("fleet", "--schemas-from", "SELECT 'tenant_1' UNION ALL SELECT 'public'", "drift")
    assert "2 without drift" in ended.stdout, ended
    rows("GRANT SELECT ON tenant_2.note TO PUBLIC; DROP VIEW tenant_3.notes")
    ended = migrate("--json", *ALL, "drift")
    each, last = lines(ended)
    assert last["ok"] is False
    differing = {name: one["differences"] for name, one in each.items() if one["differences"]}
    assert ended.exit_code == 1
    assert {name: [one["name"] for one in found] for name, found in differing.items()} == {
        **{"tenant_2": ["on table tenant_2.note"], "tenant_3": ["tenant_3.notes"]},
    }
    del replays[:]
    own = "DO $$ BEGIN EXECUTE format('COMMENT ON TABLE note IS %L', current_schema()); END $$;"
    assert migrate(*ALL, "up", files=[*files, own]).exit_code == 0
    assert migrate("fleet", "--schemas", "tenant_[13]", "drift").exit_code == 1
    assert sorted(filter(None, replays)) == ["tenant_1", *behind]


def test_a_baseline_of_many_is_verified(
    migrate: Migrate, tenants: Tenants, rows: Rows, history: History, replays: list[str | None]
) -> None:
    """With --verify each target is compared first, and one that differs fails with its differences, unless accepted."""
    tenants(3)
    rows("CREATE TABLE tenant_1.note (id int); CREATE TABLE tenant_2.note (id int, extra int)")
    rows("CREATE TABLE tenant_3.note (id int)")
    command = [*ALL, "baseline", "1", "--verify", "--keep-going"]
    ended = migrate("--json", *command, files=[FIRST, SECOND])
    each, last = lines(ended)
    assert (ended.exit_code, last["summary"]["recorded"], last["summary"]["failed"]) == (1, 2, 1)
    assert each["tenant_2"]["error"]["kind"] == "Untrue"
    assert [one["name"] for one in each["tenant_2"]["drift"]["differences"]] == ["tenant_2.note"]
    assert "tenant_2  changed  table tenant_2.note" in ended.stderr
    assert [history(f"tenant_{n}") for n in (1, 2, 3)] == [["1"], [], ["1"]]
    assert len(replays) == 1
    assert migrate(*command, "--accept-differences").exit_code == 0
    assert history("tenant_2") == ["1"]
    assert migrate(*ALL, "baseline", "1", "--accept-differences").exit_code == 2


# Cost, and progress


def test_one_message_a_target(migrate: Migrate, tenants: Tenants, proxy: Callable[..., Proxy]) -> None:
    """All histories take a few messages, whatever their number, a file one, and a worker one connection."""
    tenants(30)
    between = proxy()
    for files, most in (([FIRST], 30 + 10), ([FIRST], 10), ([FIRST, SECOND, "SELECT 3;"], 60 + 10)):
        before = len(between.messages)
        assert migrate(*ALL, "up", "-j", "2", files=files, url=between.url).exit_code == 0
        until(lambda: between.idle)
        kinds = between.messages[before:]
        assert kinds.count("Startup") == (3 if most > 10 else 2), kinds
        assert sum(kind in ("Q", "S") for kind in kinds) <= most


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    """The line counts the targets that have ended, run and failed, and names those that run."""

    class Frequent(report.UpReport):
        every = 0.0

    out = Frequent(as_json=False, verbosity=0)
    out.event(events.Found(2))
    out.event(events.Begun("tenant_1"))
    out.tick()
    out.event(events.Ended("tenant_1", (), (), 0.2, errors.MigrateError("no")))
    out.event(events.Begun("tenant_2"))
    out.tick()
    told = capsys.readouterr().err
    assert "0 of 2  1 running  tenant_1\n" in told
    assert "1 of 2  1 running  1 failed  tenant_2\n" in told


def test_a_backfill_shows_how_far_each_target_is(
    migrate: Migrate, tenants: Tenants, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the line of progress, with -v in a line of its own, and in JSON; and each range has all the retries."""
    monkeypatch.setattr(report.UpReport, "every", 0.0)
    tenants(2)
    rows(
        """CREATE FUNCTION fails_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_sleep(0.2);
            IF nextval('tenant_2.tries_' || new.id) = 1 THEN RAISE lock_not_available; END IF;
            RETURN new; END $$"""
    )
    for n in (1, 2):
        rows(f"CREATE TABLE tenant_{n}.steps (id int PRIMARY KEY, n int DEFAULT 0)")
        rows(f"INSERT INTO tenant_{n}.steps SELECT generate_series(1, 2500)")
        rows(f"ANALYZE tenant_{n}.steps")
    rows("CREATE SEQUENCE tenant_2.tries_500; CREATE SEQUENCE tenant_2.tries_2400")
    rows(
        "CREATE TRIGGER fails BEFORE UPDATE ON tenant_2.steps FOR EACH ROW WHEN (new.id IN (500, 2400))"
        " EXECUTE FUNCTION fails_once()"
    )
    backfill = "-- migrate: batches of steps by id\nUPDATE steps SET n = n + 1 WHERE :range;"
    ended = migrate("-v", "--json", *ALL, "up", "-j", "1", "--lock-retries", "1", files=[backfill])
    each, _ = lines(ended)
    assert ended.exit_code == 0, ended
    assert {(one["rows"], one["total"]) for target in each.values() for one in target["batches"]} == {(2500, 2500)}
    assert "tenant_1  sql/1_a.sql  1,000 of about 2,500 rows (40 %)" in ended.stderr
    assert ended.stderr.count("lock_not_available: goes to the back") == 2
    assert re.search(r"^1 of 2  1 running  .*tenant_2 \d\d %$", ended.stderr, re.MULTILINE)
    assert rows("SELECT n, count(*) FROM tenant_2.steps GROUP BY n") == [(1, 2500)]
