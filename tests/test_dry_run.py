"""`up --dry-run`: it prints the SQL of a run, and touches nothing."""

from __future__ import annotations

import pytest
from fix_cli import TABLES, THREE, Migrate, Rows
from fix_servers import Connect
from psycopg import sql

ONE = {"1_a.sql": "create table a ()"}


@pytest.mark.parametrize("before", [[], ["up", "--to", "2"]])
def test_a_dry_run_touches_nothing(migrate: Migrate, rows: Rows, before: list[str]) -> None:
    """--dry-run prints the files in order, and writes nothing, not even the history's table."""
    migrate.write(THREE)
    if before:
        migrate(*before)
    tables = rows(TABLES)
    run = migrate("--json", "up", "--dry-run")
    assert run.exit_code == 0
    assert rows(TABLES) == tables
    assert [one["version"] for one in run.json["pending"]] == (["10"] if before else ["1", "2", "10"])
    assert run.json["applied"] == []
    assert "sql/10_third.sql  would be applied" in run.stderr


def test_a_dry_run_stops_after_the_version(migrate: Migrate) -> None:
    """--dry-run chooses the files that a run with the same options would."""
    run = migrate("up", "--dry-run", "--to", "1", files=THREE)
    assert run.stdout == f"-- sql/1_first.sql\n{THREE['1_first.sql']}\n"


def test_a_dry_run_refuses_the_files_that_a_run_refuses(migrate: Migrate) -> None:
    """--dry-run fails where the run would have failed before its first file."""
    run = migrate("up", "--dry-run", files={**THREE, "11_bad.sql": "commit"})
    assert (run.exit_code, run.stdout) == (1, "")
    assert run.stderr.startswith("sql/11_bad.sql:1:1: error: COMMIT")


class TestDryRun:
    def test_it_prints_what_would_run(self, migrate: Migrate) -> None:
        """On stdout stands only each pending file's text under its path, as SQL."""
        migrate("up", files=ONE)
        run = migrate("up", "--dry-run", files={"2_b.sql": "create table b ();\n-- é\n", "3_c.sql": "select\n  3"})
        assert run.stdout == "-- sql/2_b.sql\ncreate table b ();\n-- é\n\n-- sql/3_c.sql\nselect\n  3;\n"
        assert run.stderr == "Nothing was run (--dry-run): 2 migrations are pending.\n"

    def test_each_file_ends_with_a_semicolon(self, migrate: Migrate) -> None:
        """The output can be given to psql: no statement runs into the next file."""
        ends = {"1_a.sql": "create table a () -- no newline", "2_b.sql": "select 1 /* ; */ ;-- ;", "3_c.sql": "-- none"}
        assert migrate("up", "--dry-run", files=ends).stdout == (
            "-- sql/1_a.sql\ncreate table a (); -- no newline\n"
            "\n-- sql/2_b.sql\nselect 1 /* ; */ ;-- ;\n\n-- sql/3_c.sql\n-- none\n"
        )

    def test_quiet_prints_the_names(self, migrate: Migrate) -> None:
        """-q leaves the paths, for other programs."""
        run = migrate("-q", "up", "--dry-run", files={**ONE, "2_b.sql": "select 1"})
        assert (run.stdout, run.stderr) == ("sql/1_a.sql\nsql/2_b.sql\n", "")

    def test_the_document_has_the_sql(self, migrate: Migrate) -> None:
        """With --json each pending step brings its SQL along."""
        run = migrate("--json", "up", "--dry-run", files=ONE)
        assert [(one["path"], one["sql"]) for one in run.json["pending"]] == [("sql/1_a.sql", ONE["1_a.sql"])]

    def test_of_an_unfinished_file_the_rest_is_printed(self, migrate: Migrate) -> None:
        """Statements that are done are not printed; the SETs before them are, because they hold for the rest."""
        text = "-- migrate: no-transaction\nset lock_timeout = '7s';\ncreate table a ();\n{};\nselect 1;\n"
        assert migrate("up", files={"1_a.sql": text.format("vacuum nothing")}).exit_code == 1
        migrate.write({"1_a.sql": text.format("vacuum a")})
        rest = "vacuum a;\nselect 1;\n"
        assert migrate("up", "--dry-run").stdout == f"-- sql/1_a.sql, from line 4 on\nset lock_timeout = '7s';\n{rest}"
        assert migrate("up", "--dry-run", "--from-start", "1").stdout.endswith(text.format("vacuum a"))

    def test_a_role_that_may_only_read_is_enough(
        self, migrate: Migrate, rows: Rows, connect: Connect, role: tuple[str, str]
    ) -> None:
        """A dry run takes no more than SELECT, and before the first run not even that."""
        name = sql.Identifier(role[0])
        connect().execute(sql.SQL("ALTER ROLE {} SET default_transaction_read_only = on").format(name))
        assert migrate("up", "--dry-run", files=ONE, url=role[1]).stdout == f"-- sql/1_a.sql\n{ONE['1_a.sql']};\n"
        migrate("up")
        rows("GRANT SELECT ON schema_migrations TO PUBLIC")
        run = migrate("up", "--dry-run", files={"2_b.sql": "select 2"}, url=role[1])
        assert (run.exit_code, run.stdout) == (0, "-- sql/2_b.sql\nselect 2;\n")
