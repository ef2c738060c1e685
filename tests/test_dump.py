"""The schema as a file: it can be loaded, stays the same, and is checked."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from fix_cli import Migrate

from outreach_migrate import errors
from outreach_migrate.history import table
from outreach_migrate.postgres import dsn
from outreach_migrate.schema import catalog, differences, pg_dump

EVERY_KIND = (Path(__file__).parent / "every_kind.sql").read_text()


def test_a_dump_loads_and_gives_the_same_dump(migrate: Migrate, another: str) -> None:
    """To the byte, and with every object but user mappings, whose passwords are nobody's to commit."""
    assert migrate("up", files=[EVERY_KIND]).exit_code == 0
    first = migrate("dump").stdout
    with psycopg.connect(another, autocommit=True) as loaded, psycopg.connect(migrate.url) as original:
        loaded.execute(first.encode())
        sides = [catalog.read(one, table.read(None), version=18) for one in (loaded, original)]
    assert [one.name for one in differences.find(*sides).differences] == ["FOR PUBLIC SERVER sv"]
    assert migrate("dump", url=another).stdout == first
    for word in ("restrict", "Dumped", "Owner:", "schema_migrations", "sesame", "timeout", "COMMENT ON EXTENSION"):
        assert word not in first.replace("-- Name: no; Type: ENTRY; Schema: of pg_dump; Owner: -", "")
    assert "ALTER DEFAULT PRIVILEGES IN SCHEMA app GRANT SELECT ON TABLES" in first
    assert "-- Name: parent; Type: TABLE; Schema: app\nCREATE TABLE app.parent (\n" in first


def test_no_object_is_taken_for_the_one_before_it(migrate: Migrate) -> None:
    """pg_dump names the schema public, which it does not make, where the schema has another owner."""
    assert migrate("up", files=["ALTER SCHEMA public OWNER TO CURRENT_USER; CREATE TYPE e AS ENUM ()"]).exit_code == 0
    assert "\n-- Name: e; Type: TYPE; Schema: public\nCREATE TYPE public.e AS ENUM (\n" in migrate("dump").stdout
    assert migrate("up", files={"2_b.sql": "DROP TYPE e; CREATE TABLE t ()"}).exit_code == 0
    assert "\nSET default_tablespace = '';\n" in migrate("dump").stdout


def test_a_run_writes_it_and_check_compares(migrate: Migrate, scratch_server: None) -> None:
    """After a run that applied something; the check exits with 1 and a diff until the file is made again."""
    (migrate.folder / "pyproject.toml").write_text('[tool.outreach-migrate]\ndump = "schema.sql"\n')
    assert "schema.sql is written." in migrate("up", files=["create table t (a int)"]).stderr
    text = (migrate.folder / "schema.sql").read_bytes()
    (migrate.folder / "schema.sql").write_bytes(text.replace(b"\n", b"\r\n"))
    assert migrate("dump", "--check").stdout == "schema.sql is up to date.\n"
    migrate.write({"2_b.sql": "alter table t add b int"})
    ended = migrate("--json", "dump", "--check", "--scratch")
    assert ended.exit_code == 1
    assert (ended.json["ok"], ended.json["changed"], ended.json["written"]) == (False, True, False)
    assert "+    b integer" in ended.json["diff"]
    assert migrate("up").exit_code == 0
    assert migrate("dump").stdout == "schema.sql is up to date.\n"


def test_a_run_whose_dump_fails_says_that_it_applied(migrate: Migrate) -> None:
    """The command fails, and the migrations are applied."""
    ended = migrate("up", "--dump", "no/schema.sql", files=["SELECT 1"])
    assert ended.exit_code == 1
    assert "cannot write no/schema.sql: No such file or directory" in ended.stderr
    assert "hint: When that is mended: outreach-migrate dump --out no/schema.sql\n" in ended.stderr
    assert ended.stderr.endswith("This run has applied and recorded 1 migration.\n")


def test_check_wants_a_file(migrate: Migrate) -> None:
    """Without one there is nothing to compare with."""
    assert migrate("dump", "--check").exit_code == 2


def test_an_older_pg_dump_is_none(database: str) -> None:
    """pg_dump refuses a server that is newer than itself; the error names the packages to install."""
    absent = r"version 99 or newer is not installed; .*/pg_dump is of version \d\d$"
    with pytest.raises(errors.MissingTool, match=absent) as missing:
        pg_dump.text(dsn.read(database), 99, table.read(None))
    assert "apt-get install postgresql-client-99" in (missing.value.hint or "")
