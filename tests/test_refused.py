"""Files that a run refuses before it runs anything: all problems at once, each with its place and a hint."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, LiteralString

import pytest
from fix_cli import Migrate, Result, Rows

Recorded = Callable[[], list[str]]

GOOD = {"1_good.sql": "create table good ();"}
APPLIED = {"1_a.sql": "create table a ();", "2_b.sql": "create table b ();", "5_c.sql": "create table c ();"}
TABLES: LiteralString = "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND oid >= 16384 ORDER BY 1"


def problems(run: Result) -> list[dict[str, Any]]:
    """The problems of a run, which must have been refused."""
    document = run.json
    assert (run.exit_code, document["ok"], document["applied"]) == (1, False, [])
    found: list[dict[str, Any]] = document["error"]["problems"]
    for problem in found:
        assert problem["message"] in run.stderr
        assert (problem["hint"] or "") in run.stderr
    return found


def refused(migrate: Migrate, rows: Rows, files: Mapping[str, str | bytes]) -> dict[str, Any]:
    """The one thing that is wrong with these files, after a look that nothing was run, not even the good one."""
    [problem] = problems(migrate("--json", "up", files={**GOOD, **files}))
    assert rows(TABLES) == []
    return problem


TRANSACTION_CONTROL = [
    ("begin", "BEGIN"),
    ("BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE", "BEGIN"),
    ("start transaction", "START TRANSACTION"),
    ("commit", "COMMIT"),
    ("Commit And Chain", "COMMIT"),
    ("end", "END"),
    ("rollback", "ROLLBACK"),
    ("rollback work", "ROLLBACK"),
    ("rollback and chain", "ROLLBACK"),
    ("abort", "ABORT"),
    ("prepare transaction 'x'", "PREPARE TRANSACTION"),
    ("commit prepared 'x'", "COMMIT PREPARED"),
    ("rollback prepared 'x'", "ROLLBACK PREPARED"),
    ("/* a */ commit -- b\n", "COMMIT"),
]


@pytest.mark.parametrize(("statement", "named"), TRANSACTION_CONTROL)
def test_transaction_control_is_refused(migrate: Migrate, rows: Rows, statement: str, named: str) -> None:
    """A statement that begins or ends a transaction is named with its place."""
    problem = refused(migrate, rows, {"2_bad.sql": f"select 'é; commit;';\n  select 1; {statement};\nselect 2"})
    column = 13 + statement.startswith("/*") * len("/* a */ ")
    assert (problem["path"], problem["line"], problem["column"]) == ("sql/2_bad.sql", 2, column)
    assert problem["message"] == f"{named} cannot be used in a migration"
    assert "transaction" in problem["hint"]


@pytest.mark.parametrize(
    "text",
    [
        "savepoint a; select 1; rollback to a; rollback to savepoint a; rollback work to a; release a",
        "do $$ begin perform 1; end $$",
        "create function f() returns int language sql begin atomic select 1; select case when true then 1 end; end",
        "create function f() returns text language plpgsql as 'begin return ''commit;''; end'",
        "select 'x; commit; y', $$; rollback;$$, $a$; $$ end; $a$ as \"; begin;\"",
        "-- commit;\n/* ; rollback; /* ; end; */ ; abort; */ select 1",
        'create table commit (begin int, "end" int); insert into commit (begin) values (1)',
        "prepare transaction as select 1",
        "set transaction read write",
    ],
)
def test_what_only_looks_like_transaction_control_runs(migrate: Migrate, recorded: Recorded, text: str) -> None:
    """The same words in bodies, strings, names and comments, and savepoints, are the file's own business."""
    run = migrate("up", files={"1_a.sql": text})
    assert (run.exit_code, recorded()) == (0, ["a"])


@pytest.mark.parametrize(
    "text",
    [
        "BEGIN;\ncreate table t ();\nCOMMIT;",
        "begin; create table t (); commit",
        "-- é\nbegin work; create table t (); commit work; -- done",
        "start transaction; create table t (); end",
        "\ufeffbegin transaction;\r\ncreate table t ();\r\nend transaction;\r\n",
        "begin /* it */ transaction; create table t (); /* is */ commit /* so */ ; /* done */",
    ],
)
def test_begin_and_commit_around_a_whole_file_are_harmless(migrate: Migrate, rows: Rows, text: str) -> None:
    """One pair is common, and changes nothing: the file and its entry still have one transaction."""
    assert migrate("up", files={"1_a.sql": text}).exit_code == 0
    assert rows("SELECT xmin::text FROM pg_class WHERE relname = 't'") == rows(
        "SELECT xmin::text FROM schema_migrations"
    )


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("begin;\nselect 1;", [(1, 1)]),
        ("select 1;\ncommit;", [(2, 1)]),
        ("begin;\nselect 1;\nrollback;", [(1, 1), (3, 1)]),
        ("begin;\nselect 1;\ncommit and chain;", [(1, 1), (3, 1)]),
    ],
)
def test_any_other_transaction_control_is_refused(
    migrate: Migrate, rows: Rows, text: str, places: list[tuple[int, int]]
) -> None:
    """Where BEGIN and COMMIT make no pair, each is refused with its place."""
    found = problems(migrate("--json", "up", files={**GOOD, "2_bad.sql": text}))
    assert [(one["line"], one["column"]) for one in found] == places
    assert rows(TABLES) == []


@pytest.mark.parametrize(
    ("text", "place", "named"),
    [
        ("begin;\nselect 1;\ncommit;\nselect 2;", (1, 1), "BEGIN, with COMMIT on line 3,"),
        ("select 1; start transaction;\nselect 1;\nend work;", (1, 11), "START TRANSACTION, with END on line 3,"),
        ("begin;\nselect 1;\ncommit;\nbegin;\nselect 2;\ncommit;", (3, 1), "COMMIT, with BEGIN on line 4,"),
        ("commit;\nselect 1;\nbegin;", (1, 1), "COMMIT, with BEGIN on line 3,"),
    ],
)
def test_a_pair_within_a_file_is_one_problem(
    migrate: Migrate, rows: Rows, text: str, place: tuple[int, int], named: str
) -> None:
    """BEGIN and COMMIT in the middle of a file are one error, because both are to be removed."""
    problem = refused(migrate, rows, {"2_bad.sql": text})
    assert (problem["line"], problem["column"]) == place
    assert problem["message"] == f"{named} cannot be used in a migration"
    assert problem["hint"] == "Remove both lines: the whole file is one transaction."


@pytest.mark.parametrize("text", ["begin;\nselect 1;\ncommit;", "begin;\nselect 1;\ncommit;\nselect 2;"])
def test_a_pair_in_a_file_without_a_transaction_has_its_own_hint(migrate: Migrate, rows: Rows, text: str) -> None:
    """There no transaction is around the statements: removed, the lines leave each of them alone."""
    problem = refused(migrate, rows, {"2_bad.sql": f"-- migrate: no-transaction\n{text}"})
    assert problem["hint"].startswith("Remove both lines: without a transaction each statement commits by itself.")


def test_commit_in_a_file_without_a_transaction_has_its_own_hint(migrate: Migrate, rows: Rows) -> None:
    """For a file without a transaction the hint speaks of none."""
    problem = refused(migrate, rows, {"2_bad.sql": "-- migrate: no-transaction\nselect 1; commit"})
    assert problem["hint"].startswith("In a file without a transaction each statement commits by itself:")


@pytest.mark.parametrize(
    "statement",
    [
        "vacuum",
        "VACUUM (analyze) good",
        "create index concurrently i on good (a)",
        "create unique index concurrently on good (a)",
        "drop index concurrently i",
        "reindex table concurrently good",
        "reindex (concurrently) table good",
        "reindex database x",
        "create database x",
        "drop database x",
        "create tablespace x location '/x'",
        "drop tablespace x",
        "alter system set work_mem = '1MB'",
        "alter table good detach partition p concurrently",
        "cluster",
        "alter database x set tablespace y",
        "create subscription s connection 'x' publication p",
        "discard all",
    ],
)
def test_what_cannot_run_in_a_transaction_is_refused_beside_others(
    migrate: Migrate, rows: Rows, statement: str
) -> None:
    """A statement that PostgreSQL refuses in a transaction needs a file of its own; the hint names the directive."""
    problem = refused(migrate, rows, {"2_bad.sql": f"select 1;\n -- here\n {statement};\n"})
    assert (problem["path"], problem["line"], problem["column"]) == ("sql/2_bad.sql", 3, 2)
    assert problem["message"].endswith(" cannot run in a transaction")
    assert statement.split()[0].upper() in problem["message"]
    assert "-- migrate: no-transaction" in problem["hint"]


@pytest.mark.parametrize(
    "text",
    [
        "create index i on good (a); select 'vacuum; drop database x'",
        "create function vacuum() returns int language sql as 'select 1'; select vacuum()",
        "-- vacuum;\n/* create index concurrently */ analyze good; reindex table good",
    ],
)
def test_what_only_looks_as_if_it_could_not_run_in_a_transaction_runs(migrate: Migrate, text: str) -> None:
    """The harmless kin of such statements are run."""
    assert migrate("up", files={"1_good.sql": "create table good (a int)", "2_b.sql": text}).exit_code == 0


@pytest.mark.parametrize(
    ("text", "line", "column", "named"),
    [
        ("select 1;\n\\i other.sql\n", 2, 1, r"\i"),
        ("\\set ON_ERROR_STOP on\nselect 1;", 1, 1, r"\set"),
        ("\\set ON_ERROR_STOP on\nbegin;\nselect 1;\ncommit;", 1, 1, r"\set"),
        ("select 1\n\\restrict abc\n;\n", 2, 1, r"\restrict"),
        ("select 1; \\unrestrict abc\n", 1, 11, r"\unrestrict"),
        ("select 'é';\n  \\echo done", 2, 3, r"\echo"),
        ("select 1 \\gexec\n", 1, 10, r"\gexec"),
        ("select 1;\n\\.\n", 2, 1, "\\."),
    ],
)
def test_psqls_commands_are_refused(
    migrate: Migrate, rows: Rows, text: str, line: int, column: int, named: str
) -> None:
    """A backslash command is psql's own; no server knows it."""
    problem = refused(migrate, rows, {"2_bad.sql": text})
    assert (problem["path"], problem["line"], problem["column"]) == ("sql/2_bad.sql", line, column)
    assert problem["message"] == f"{named} cannot be used in a migration"
    assert "psql" in problem["hint"]


@pytest.mark.parametrize(
    ("text", "line", "column", "named"),
    [
        ("select 1;\nselect 'it;", 2, 8, "quoted string"),
        ('select 1 as "x;', 1, 13, "quoted identifier"),
        ("do $a$ begin $$; end $$", 1, 4, "dollar-quoted string"),
        ("select 1; /* /* */", 1, 11, "/* comment"),
    ],
)
def test_what_is_never_closed_is_refused(
    migrate: Migrate, rows: Rows, text: str, line: int, column: int, named: str
) -> None:
    """A quote or comment without its end is found where it begins."""
    problem = refused(migrate, rows, {"2_bad.sql": text})
    assert (problem["line"], problem["column"], problem["message"]) == (line, column, f"unterminated {named}")


@pytest.mark.parametrize(
    ("data", "line", "offset", "byte"),
    [
        (b"select 1;\nselect '\xe9'", 2, 18, "0xe9"),
        ("select 1".encode("utf-16"), 1, 0, "0xff"),
        ("select 'é'\r\n".encode() + b"\n\x80", 3, 14, "0x80"),
        (b"\xef\xbb\xbfselect '\xc3'", 1, 11, "0xc3"),
        (b"select '\xed\xa0\x80'", 1, 8, "0xed"),
    ],
)
def test_a_text_that_is_not_utf8_is_refused(
    migrate: Migrate, rows: Rows, data: bytes, line: int, offset: int, byte: str
) -> None:
    """The first byte that is no UTF-8 is an error with its offset in the file, from 0, and its line."""
    problem = refused(migrate, rows, {"2_bad.sql": data})
    assert (problem["path"], problem["line"]) == ("sql/2_bad.sql", line)
    assert problem["message"] == f"not UTF-8: byte {byte} at offset {offset}"


def test_a_nul_byte_is_refused(migrate: Migrate, rows: Rows) -> None:
    """PostgreSQL's text ends at a NUL, so the rest of the file would be dropped."""
    problem = refused(migrate, rows, {"2_bad.sql": "select 1;\nselect 'é\0'; drop table good"})
    assert (problem["path"], problem["line"], problem["column"]) == ("sql/2_bad.sql", 2, 10)
    assert "NUL" in problem["message"]


@pytest.mark.parametrize(
    "name",
    [
        "create_users.sql",
        "2.sql",
        "2_.sql",
        "_a.sql",
        "2-a.sql",
        "V2__a.sql",
        "2 _a.sql",
        " 2_a.sql",
        "-2_a.sql",
        "2.1_a.sql",
        "\u0662_a.sql",
        "2_a.SQL",
        "2_a.Sql",
        "0x2_a.sql",
    ],
)
def test_a_name_that_is_none_is_refused(migrate: Migrate, rows: Rows, name: str) -> None:
    """A .sql file whose name is not VERSION_name.sql is not passed over in silence."""
    problem = refused(migrate, rows, {name: "select 1"})
    assert (problem["path"], problem["message"]) == (f"sql/{name}", "not a migration's name")
    assert "VERSION_name.sql" in problem["hint"]


def test_a_name_that_is_no_text_is_refused(migrate: Migrate, rows: Rows) -> None:
    """A name in another encoding than UTF-8 is shown as far as it can be."""
    migrate.write(GOOD)
    with open(os.fsencode(migrate.files) + b"/2_gr\xf6\xdfe.sql", "wb") as file:
        file.write(b"select 1")
    problem = refused(migrate, rows, {})
    assert problem["path"].startswith("sql/2_gr")
    assert problem["message"] == "not a migration's name"


@pytest.mark.parametrize(
    "name", ["README.md", "2_a.txt", "2_a.sql~", "2_a.sql.bak", ".2_a.sql", ".2_a.sql.swp", "sql", "Makefile"]
)
def test_other_files_are_ignored(migrate: Migrate, recorded: Recorded, name: str) -> None:
    """Files that don't end in .sql, or begin with a dot, are not read."""
    assert migrate("up", files={**GOOD, name: b"\xff\0 commit;"}).exit_code == 0
    assert recorded() == ["good"]


def test_subfolders_are_ignored(migrate: Migrate, recorded: Recorded) -> None:
    """A file in a subfolder is no migration, whatever its name."""
    migrate.write(GOOD)
    for name in ("seeds", "2_folder.sql"):
        (migrate.files / name).mkdir()
        (migrate.files / name / "3_a.sql").write_text("commit")
    assert migrate("up").exit_code == 0
    assert recorded() == ["good"]


@pytest.mark.parametrize(
    ("names", "told"),
    [(["2_a.sql", "2_b.sql"], 1), (["2_a.sql", "002_b.sql"], 1), (["2_a.sql", "02_a.sql", "002_a.sql"], 2)],
)
def test_a_version_that_stands_twice_is_refused(migrate: Migrate, rows: Rows, names: list[str], told: int) -> None:
    """Versions are numbers: 2 and 002 are the same one; both files are named."""
    run = migrate("--json", "up", files={**GOOD, **dict.fromkeys(names, "select 1")})
    found = problems(run)
    assert len(found) == told
    assert all(name in run.stderr for name in names)
    assert all("is used twice" in one["message"] for one in found)
    assert rows(TABLES) == []


@pytest.mark.parametrize(
    ("directive", "column"),
    [
        ("-- migrate: no-transactions", 12),
        ("-- migrate: No-Transaction", 12),
        ("-- migrate: lock-timeout", 12),
        ("-- migrate: lock-timeout soon", 12),
        ("-- migrate: lock-timeout -1s", 12),
        ("-- migrate: statement-timeout 5s", 12),
        ("-- migrate:", 12),
        ("--migrate:é", 11),
    ],
)
def test_an_unknown_directive_is_refused(migrate: Migrate, rows: Rows, directive: str, column: int) -> None:
    """A directive with a typing error must not be taken for a comment."""
    problem = refused(migrate, rows, {"2_bad.sql": f"-- A comment.\n{directive}\nselect 1"})
    assert (problem["path"], problem["line"]) == ("sql/2_bad.sql", 2)
    assert problem["column"] in (column, column + 1)
    assert problem["message"].startswith("unknown directive:")
    assert "no-transaction" in problem["hint"]
    assert "lock-timeout" in problem["hint"]


@pytest.mark.parametrize("directive", ["lock-timeout 3s", "no-transaction", "isolation serializable"])
def test_a_directive_given_twice_is_refused(migrate: Migrate, rows: Rows, directive: str) -> None:
    """Of two directives of one kind only one could hold; the error has the places of both."""
    other = directive.replace("3s", "5s")
    problem = refused(migrate, rows, {"2_bad.sql": f"-- migrate: {directive}\n\n--migrate: {other}\nselect 1"})
    assert (problem["path"], problem["line"]) == ("sql/2_bad.sql", 3)
    assert problem["message"] == f"{directive.split()[0]} was given on line 1 already"


def test_a_directive_after_a_statement_is_refused(migrate: Migrate, rows: Rows) -> None:
    """Directives stand at the head of the file: one further down would be overlooked by people."""
    problem = refused(migrate, rows, {"2_bad.sql": "select 1;\n-- migrate: lock-timeout 1s\nselect 2"})
    assert (problem["path"], problem["line"]) == ("sql/2_bad.sql", 2)
    assert "before the first statement" in problem["message"]


@pytest.mark.parametrize(
    "text",
    [
        "select '\n-- migrate: nonsense\n'",
        "do $$ begin\n-- migrate: nonsense\nend $$",
        "-- to migrate: nonsense\nselect 1",
        "-- migrated: nonsense\nselect 1",
        "/*\n-- migrate: nonsense\n*/ select 1",
        "select 1; /* a /* b */\n-- migrate: nonsense\n*/ -- end",
        "select 1 -- migrate: nonsense",
    ],
)
def test_what_only_looks_like_a_directive_is_none(migrate: Migrate, recorded: Recorded, text: str) -> None:
    """A directive is a comment with a line of its own, not in a string, a body or another comment."""
    assert migrate("up", files={"1_a.sql": text}).exit_code == 0
    assert recorded() == ["a"]


class TestHistory:
    @pytest.fixture(autouse=True)
    def applied(self, migrate: Migrate) -> None:
        assert migrate("up", files=APPLIED).exit_code == 0

    def test_an_edited_file_is_refused(self, migrate: Migrate, rows: Rows, recorded: Recorded) -> None:
        """The error has both checksums' first 12 digits and the application's time; the files after it don't run."""
        text = "create table b (id int);"
        [problem] = problems(migrate("--json", "up", files={"2_b.sql": text, "6_d.sql": "create table d ()"}))
        assert problem["path"] == "sql/2_b.sql"
        [(moment,)] = rows(
            """SELECT to_char(finished_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') FROM schema_migrations
                WHERE version = '2'"""
        )
        before, now = (hashlib.sha256(one.encode()).hexdigest()[:12] for one in (APPLIED["2_b.sql"], text))
        assert re.fullmatch(f"edited: .*{moment}.*{before}.*{now}", problem["message"])
        assert recorded() == ["a", "b", "c"]

    @pytest.mark.parametrize("change", [" ", "\n", "-- é", "; "])
    def test_every_change_of_the_text_counts(self, migrate: Migrate, change: str) -> None:
        """A comment or a space more is an edit."""
        [problem] = problems(migrate("--json", "up", files={"1_a.sql": APPLIED["1_a.sql"] + change}))
        assert problem["message"].startswith("edited: ")

    def test_the_name_is_not_the_text(self, migrate: Migrate) -> None:
        """A file that was renamed, or moved to a longer spelling of its version, is the same file."""
        (migrate.files / "2_b.sql").rename(migrate.files / "0002_better.sql")
        assert migrate("up").exit_code == 0

    def test_line_ends_and_bom_are_not_the_text(self, migrate: Migrate) -> None:
        """A checkout on Windows has not edited anything."""
        migrate("up", files={"6_d.sql": "select 1;\nselect 2;\n"})
        run = migrate("up", files={"6_d.sql": "\ufeffselect 1;\r\nselect 2;\r\n"})
        assert (run.exit_code, run.stderr) == (0, "")

    @pytest.mark.parametrize("name", ["1_a.sql", "2_b.sql"])
    def test_a_gap_in_the_files_is_refused(self, migrate: Migrate, recorded: Recorded, name: str) -> None:
        """An entry without its file, with newer files there, is a deployment that lost one."""
        (migrate.files / name).unlink()
        [problem] = problems(migrate("--json", "up", files={"6_d.sql": "select 1"}))
        assert problem["message"].startswith(f"missing: {name.removesuffix('.sql')} was applied ")
        assert problem["hint"]
        assert recorded() == ["a", "b", "c"]

    def test_out_of_order_is_refused(self, migrate: Migrate, recorded: Recorded) -> None:
        """A file older than the newest applied one is named with that one's version, and the option that allows it."""
        [problem] = problems(migrate("--json", "up", files={"3_late.sql": "select 1", "6_d.sql": "select 1"}))
        assert (problem["path"], problem["message"]) == (
            "sql/3_late.sql",
            "out of order: version 5, which is newer, has been applied already",
        )
        assert "--allow-out-of-order" in problem["hint"]
        assert recorded() == ["a", "b", "c"]

    def test_out_of_order_can_be_allowed(self, migrate: Migrate, recorded: Recorded) -> None:
        """--allow-out-of-order runs late files with the rest, in order, once; later runs need it no more."""
        files = {"3_late.sql": "select 1", "4_later.sql": "select 1", "6_d.sql": "select 1"}
        assert migrate("up", "--allow-out-of-order", files=files).exit_code == 0
        assert recorded() == ["a", "b", "c", "late", "later", "d"]
        assert migrate("up").exit_code == 0
        assert migrate("status", "--check").exit_code == 0

    def test_allowing_one_thing_allows_no_other(self, migrate: Migrate) -> None:
        """--allow-out-of-order lets neither an edited nor a missing file pass."""
        (migrate.files / "1_a.sql").unlink()
        run = migrate("--json", "up", "--allow-out-of-order", files={"2_b.sql": "select 2", "3_late.sql": "select 1"})
        assert sorted(one["message"].split(":")[0] for one in problems(run)) == ["edited", "missing"]

    def test_all_problems_are_reported_at_once(self, migrate: Migrate, rows: Rows, recorded: Recorded) -> None:
        """Files and history are looked through to the end: one error has every problem, and nothing was run."""
        tables = rows(TABLES)
        (migrate.files / "2_b.sql").unlink()
        files: dict[str, str | bytes] = {
            "1_a.sql": "create table edited ();",
            "3_late.sql": "create table late ();",
            "6_good.sql": "create table good ();",
            "7_commit.sql": "select 1;\ncommit;\nrollback;",
            "8_vacuum.sql": "select 1;\nvacuum;",
            "9_psql.sql": "\\i x\nselect 1;",
            "10_copy.sql": "copy t from stdin;\n1\n",
            "11_latin.sql": b"\xe9",
            "12_nul.sql": "\0",
            "13_directive.sql": "-- migrate: fast\n",
            "14_twice.sql": "",
            "014_again.sql": "",
            "bad_name.sql": "",
        }
        run = migrate("--json", "up", files=files)
        found = problems(run)
        told = {(one["path"] or one["message"].split()[1], one["line"]) for one in found}
        assert told == {
            ("sql/1_a.sql", None),
            ("2_b", None),
            ("sql/3_late.sql", None),
            ("sql/7_commit.sql", 2),
            ("sql/7_commit.sql", 3),
            ("sql/8_vacuum.sql", 2),
            ("sql/9_psql.sql", 1),
            ("sql/10_copy.sql", 1),
            ("sql/11_latin.sql", 1),
            ("sql/12_nul.sql", 1),
            ("sql/13_directive.sql", 1),
            ("sql/14_twice.sql", None),
            ("sql/bad_name.sql", None),
        }
        assert len(found) == len(told)
        assert run.stderr.endswith("Nothing was run.\n")
        assert (rows(TABLES), recorded()) == (tables, ["a", "b", "c"])


class TestFolder:
    def test_a_folder_that_is_absent_is_refused(self, migrate: Migrate) -> None:
        """The folder is named, and the option for another one."""
        [problem] = problems(migrate("--json", "up"))
        assert problem["path"] == "sql"
        assert "No such file" in problem["message"]
        assert "--dir" in problem["hint"]

    @pytest.mark.parametrize("files", [{}, {"README.md": "none yet"}])
    def test_a_folder_without_migrations_is_refused(self, migrate: Migrate, files: dict[str, str]) -> None:
        """No migrations at all are a wrong folder rather than nothing to do."""
        for arguments in (["up"], ["up", "--to", "5"]):
            [problem] = problems(migrate("--json", *arguments, files=files or {".keep": ""}))
            assert problem["path"] == "sql"
            assert "no migrations" in problem["message"]

    def test_a_folder_that_is_a_file_is_refused(self, migrate: Migrate) -> None:
        """A file's name is none for --dir."""
        [problem] = problems(migrate("--json", "--dir", "sql/1_good.sql", "up", files=GOOD))
        assert problem["path"] == "sql/1_good.sql"

    def test_a_dangling_link_is_refused(self, migrate: Migrate, rows: Rows) -> None:
        """A link that leads nowhere is a migration that is missing."""
        migrate.write(GOOD)
        (migrate.files / "2_link.sql").symlink_to("nowhere.sql")
        problem = refused(migrate, rows, {})
        assert problem["path"] == "sql/2_link.sql"
        assert "No such file" in problem["message"]

    def test_a_link_in_a_circle_is_refused(self, migrate: Migrate, rows: Rows) -> None:
        """The error says that it is a link to itself."""
        migrate.write(GOOD)
        (migrate.files / "2_link.sql").symlink_to("2_link.sql")
        assert refused(migrate, rows, {})["path"] == "sql/2_link.sql"

    def test_a_link_to_a_file_is_the_file(self, migrate: Migrate, recorded: Recorded) -> None:
        """A link's own name counts, and the text it leads to."""
        migrate.write(GOOD)
        (migrate.folder / "elsewhere").write_text("create table elsewhere ()")
        (migrate.files / "2_link.sql").symlink_to("../elsewhere")
        assert migrate("up").exit_code == 0
        assert recorded() == ["good", "link"]

    def test_a_pipe_is_refused(self, migrate: Migrate) -> None:
        """A FIFO, at which reading would wait for ever, is refused at once."""
        migrate.write(GOOD)
        os.mkfifo(migrate.files / "2_pipe.sql")
        [problem] = problems(migrate.process("--json", "up"))
        assert (problem["path"], problem["message"]) == ("sql/2_pipe.sql", "not a regular file")

    @pytest.mark.parametrize("folder", ["my migrations", "größe", "it's 100% {x} $a$"])
    def test_a_folder_may_have_any_name(self, migrate: Migrate, recorded: Recorded, folder: str) -> None:
        """--dir takes any name that the file system takes; paths in errors begin with it."""
        migrate.write({"1_a.sql": "select 1", "2_b.sql": "select nme"})
        migrate.files.rename(migrate.folder / folder)
        run = migrate("--json", "--dir", folder, "up")
        assert run.json["error"]["path"] == f"{folder}/2_b.sql"
        assert recorded() == ["a"]
