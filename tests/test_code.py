"""Views, functions, triggers, policies and grants as files: carried out when they change, in one transaction."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable

import pytest
from fix_cli import Migrate, Recorded, Rows
from fix_servers import Connect
from fix_waiting import at_once
from test_sql import SQL

import outreach_migrate

TABLE = "create table t (id int primary key, n int);"
VIEW = "create or replace view v as select id, twice(n) as n from t;"
TWICE = "create or replace function twice(n int) returns int language sql immutable as 'select 2 * n';"

Code = Callable[..., None]


@pytest.fixture
def code(migrate: Migrate) -> Code:
    """A function that writes files below sql/code, and removes those whose text is None."""

    def write(files: dict[str, str | None]) -> None:
        for name, text in files.items():
            path = migrate.files / "code" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text) if text is not None else path.unlink()

    migrate.write({"1_t.sql": TABLE})
    return write


def done(migrate: Migrate, *options: str) -> list[str]:
    """Run `up`, and give the paths of the files of code that it carried out."""
    run = migrate("--json", "up", *options)
    assert run.exit_code == 0, run.stderr
    return [one["path"] for one in run.json["code"]]


def states(migrate: Migrate) -> dict[str, str]:
    return {one["path"]: one["state"] for one in migrate("--json", "status").json["code"]}


def test_files_run_after_the_migrations_in_the_order_of_their_use(migrate: Migrate, code: Code, rows: Rows) -> None:
    """A view that uses a function comes after it, whatever their names; a second run does nothing."""
    code({"a_view.sql": VIEW, "functions/z_twice.sql": TWICE})
    assert migrate("status", "--check").exit_code == 3
    assert done(migrate) == ["functions/z_twice.sql", "a_view.sql"]
    assert done(migrate) == []
    assert states(migrate) == {"functions/z_twice.sql": "current", "a_view.sql": "current"}
    assert migrate("status", "--check").exit_code == 0
    assert rows("SELECT path, objects FROM schema_migrations_code ORDER BY 1") == [
        ("a_view.sql", ["VIEW public.v"]),
        ("functions/z_twice.sql", ["FUNCTION public.twice(integer)"]),
    ]


def test_a_file_runs_again_when_one_that_it_rests_on_has_changed(migrate: Migrate, code: Code) -> None:
    """A change of a function's text makes its views anew, too; an unrelated file stays as it is."""
    code({"v.sql": VIEW, "twice.sql": TWICE, "other.sql": "grant select on t to public;"})
    assert done(migrate) == ["other.sql", "twice.sql", "v.sql"]
    code({"twice.sql": TWICE.replace("2 *", "4 / 2 *")})
    assert states(migrate) == {"other.sql": "current", "twice.sql": "changed", "v.sql": "changed"}
    assert done(migrate) == ["twice.sql", "v.sql"]


def test_after_adds_an_order_that_no_name_shows(migrate: Migrate, code: Code) -> None:
    """A function named in no readable way is put first by a directive; one of no file is an error."""
    dynamic = (
        "-- migrate: after z.sql\ndo $$ begin execute 'create or replace view d as select tw' || 'ice(1)'; end $$;"
    )
    code({"a.sql": dynamic, "z.sql": TWICE})
    assert done(migrate) == ["z.sql", "a.sql"]
    code({"a.sql": "-- migrate: after nowhere.sql\nselect 1;"})
    assert "there is no file nowhere.sql in the folder of code" in migrate("check").stdout


def test_a_circle_is_named(migrate: Migrate, code: Code, recorded: Recorded, rows: Rows) -> None:
    """Files that rest on each other are refused before anything runs."""
    code({"a.sql": "create view a as select * from b;", "b.sql": "create view b as select * from a;"})
    run = migrate("up")
    assert run.exit_code == 1
    assert "files of code rest on each other: a.sql → b.sql → a.sql" in run.stderr
    assert rows("SELECT to_regclass('t')::text") == [(None,)]


def test_all_or_none(migrate: Migrate, code: Code, rows: Rows, recorded: Recorded) -> None:
    """A mistake in one file takes back all files of code, but not the migrations; the error has its place."""
    code({"a.sql": TWICE, "b.sql": "create or replace view v as\n  select nothing from t;"})
    run = migrate("up")
    assert run.exit_code == 1
    assert "sql/code/b.sql:2:10: error: column" in run.stderr
    assert "No file of code was carried out" in run.stderr
    assert "1 migration before it was applied and recorded" in run.stderr
    assert recorded() == ["t"]
    assert rows("SELECT to_regproc('twice')::text, to_regclass('schema_migrations_code')::text") == [(None, None)]


def test_statements_that_a_migration_may_not_have_are_refused(migrate: Migrate, code: Code) -> None:
    """Transaction control, and statements that can't run in a transaction, are found before a run."""
    code({"a.sql": "commit;", "b.sql": "-- migrate: no-transaction\nselect 1;"})
    run = migrate("check")
    assert "sql/code/a.sql:1:1" in run.stdout
    assert "sql/code/b.sql" in run.stdout
    assert migrate("up").exit_code == 1


def test_a_statement_that_needs_its_own_transaction_is_refused_with_its_place(migrate: Migrate, code: Code) -> None:
    """All files of code share one transaction, so such a statement belongs into a migration."""
    code(
        {
            "a.sql": "create index concurrently i on t (n);",
            "b.sql": "select 1;\nvacuum t;",
            "c.sql": "-- of steps\n-- migrate: after-deploy\nselect 1;",
            "d.sql": "copy t from stdin;\n1\t2\n\\.\n",
            "e.sql": "-- migrate: no-transaction\nselect 1;",
        }
    )
    run = migrate("up")
    share = "cannot run in a transaction, and all files of code share one"
    assert [line for line in run.stderr.splitlines() if ": error:" in line] == [
        f"sql/code/a.sql:1:1: error: CREATE INDEX CONCURRENTLY {share}",
        f"sql/code/b.sql:2:1: error: VACUUM {share}",
        "sql/code/c.sql:2:13: error: after-deploy cannot be used in a file of code",
        "sql/code/d.sql:1:1: error: COPY … FROM STDIN cannot be used in a file of code",
        "sql/code/e.sql:1:13: error: no-transaction cannot be used in a file of code",
    ]
    assert run.stderr.count("hint: Make it a migration: outreach-migrate new NAME") == 5
    assert run.stderr.endswith("Nothing was run.\n")


def test_directives_stand_where_they_mean_something(migrate: Migrate, code: Code) -> None:
    """One that would be ignored is an error with its line: of code in a migration, of a migration in code."""
    migrate.write(
        {
            "2_a.sql": "-- migrate: drop-first\nselect 1;",
            "3_a.sql": "-- migrate: no-transaction\n-- migrate: code a.sql\nselect 1;",
        }
    )
    code(
        {
            "a.sql": "-- migrate: drop\nselect 1;",
            "b.sql": "-- migrate: code a.sql\nselect 1;",
            "c.sql": "-- migrate: drop\n/* twice is no longer used */",
        }
    )
    (migrate.files / "code" / "up").symlink_to(migrate.files / "code")
    assert "sql/code/up: error: the folder cannot be read: it is a link to a folder" in migrate("check").stdout
    (migrate.files / "code" / "up").unlink()
    (migrate.files / "code" / "two\nlines.sql").write_text("select 1;")
    assert "two\\nlines.sql: error: the name has characters that can't be printed" in migrate("check").stdout
    (migrate.files / "code" / "two\nlines.sql").unlink()
    run = migrate("up")
    assert [line for line in run.stderr.splitlines() if ": error:" in line] == [
        "sql/code/a.sql:1:12: error: drop must be all that a file of code has, and it has statements",
        "sql/code/b.sql:1:12: error: code is for migrations; a file of code has after",
        "sql/2_a.sql:1:12: error: only a file of code may have this directive",
        "sql/3_a.sql:2:12: error: code needs a transaction, in which the files of code are carried out",
    ]


def test_drop_first_makes_objects_anew_that_can_not_be_replaced(migrate: Migrate, code: Code, rows: Rows) -> None:
    """A function's new return type needs it dropped, with the views on it; all are made anew, with their grants."""
    code(
        {
            "twice.sql": TWICE,
            "v.sql": VIEW + " grant select on v to public;",
            "w.sql": "create or replace view w as select * from v;",
        }
    )
    done(migrate)
    code({"twice.sql": TWICE.replace("returns int", "returns numeric")})
    failed = migrate("--json", "up")
    assert "cannot change return type" in failed.json["error"]["message"]
    assert (failed.json["error"]["version"], failed.json["error"]["help"]) == (None, "code")
    code({"twice.sql": "-- migrate: drop-first\n" + TWICE.replace("returns int", "returns numeric")})
    assert done(migrate) == ["twice.sql", "v.sql", "w.sql"]
    assert (
        rows("SELECT pg_typeof(n)::text, has_table_privilege('public', 'v', 'select') FROM w, generate_series(1, 0)")
        == []
    )
    assert rows("SELECT data_type FROM information_schema.columns WHERE table_name = 'w' AND column_name = 'n'") == [
        ("numeric",)
    ]
    assert rows("SELECT has_table_privilege('pg_monitor', 'v', 'select')") == [(True,)]


def test_an_object_of_no_file_is_never_dropped(migrate: Migrate, code: Code, rows: Rows) -> None:
    """An object that somebody made by hand on a function is an error that names it, and nothing is dropped."""
    code({"twice.sql": TWICE})
    done(migrate)
    rows("CREATE VIEW by_hand AS SELECT twice(1)")
    code({"twice.sql": "-- migrate: drop-first\n" + TWICE.replace("returns int", "returns numeric")})
    run = migrate("up")
    assert run.exit_code == 1
    assert "view by_hand rests on an object that is to be dropped" in run.stderr
    assert rows("SELECT * FROM by_hand") == [(2,)]
    assert states(migrate) == {"twice.sql": "changed"}


def test_a_file_that_is_gone_leaves_its_objects(migrate: Migrate, code: Code, rows: Rows) -> None:
    """`status` and `up` say so; a file that only says drop drops them, once."""
    code({"twice.sql": TWICE})
    done(migrate)
    code({"twice.sql": None})
    assert states(migrate) == {"twice.sql": "gone"}
    assert (
        "warning: code  twice.sql is gone, but its objects stay: FUNCTION public.twice(integer)" in migrate("up").stderr
    )
    code({"twice.sql": "-- migrate: drop\n"})
    assert done(migrate) == ["twice.sql"]
    assert rows("SELECT to_regproc('twice')::text") == [(None,)]
    assert done(migrate) == []
    code({"twice.sql": None})
    assert states(migrate) == {}


def test_an_object_belongs_to_the_file_that_made_it_last(migrate: Migrate, code: Code, rows: Rows) -> None:
    """A file with another name takes the objects over; the old name's record goes, and can't drop them any more."""
    code({"a.sql": TWICE})
    done(migrate)
    code({"a.sql": None, "z.sql": TWICE})
    assert done(migrate) == ["z.sql"]
    assert states(migrate) == {"z.sql": "current"}
    code({"b.sql": TWICE + VIEW})
    assert done(migrate) == ["b.sql"]
    code({"z.sql": "-- migrate: drop"})
    assert done(migrate) == ["z.sql"]
    assert rows("SELECT path, objects FROM schema_migrations_code") == [
        ("b.sql", ["FUNCTION public.twice(integer)", "VIEW public.v"])
    ]
    assert rows("SELECT to_regproc('twice') IS NULL") == [(False,)]


def test_an_object_that_a_file_no_longer_makes_is_named(migrate: Migrate, code: Code) -> None:
    """A function with other arguments is another function: `up` names the old one until the file is drop-first."""
    code({"twice.sql": TWICE})
    done(migrate)
    code({"twice.sql": TWICE.replace("(n int)", "(n bigint)").replace("returns int", "returns bigint")})
    told = "no longer makes FUNCTION public.twice(integer), which stays; a migration can drop it: "
    assert f"{told}DROP FUNCTION public.twice(integer);\n" in migrate("up").stderr


def test_an_object_that_can_not_be_replaced_has_the_way_out_in_its_error(migrate: Migrate, code: Code) -> None:
    """PostgreSQL's own hints rename columns, or are absent; those for another mistake in a file stay as they are."""
    code({"v.sql": "create view v as select id from t;", "w.sql": "create or replace view w as select id, n from t;"})
    warned = migrate("check")
    assert "code/v.sql:1:1: warning: CREATE VIEW fails when the file runs again" in warned.stdout
    assert "hint: Write CREATE OR REPLACE VIEW, or begin the file with: -- migrate: drop-first" in warned.stdout
    assert (warned.exit_code, migrate("check", "--strict").exit_code) == (0, 1)
    done(migrate)
    code({"v.sql": "create view v as select id as two from t;", "w.sql": None})
    made_twice = migrate("up").stderr
    assert 'relation "v" already exists' in made_twice
    assert "\nhint: Write CREATE OR REPLACE, or begin the file with: -- migrate: drop-first" in made_twice
    code({"v.sql": "create or replace view v as select id as two from t;"})
    for renamed in (migrate("up").stderr, migrate("rehearse").stderr):
        assert "cannot change name of view column" in renamed
        assert "\nhint: To have the object made anew, begin the file with: -- migrate: drop-first" in renamed
        assert "\nsee: outreach-migrate help code\n" in renamed
        assert "ALTER VIEW" not in renamed
    code({"v.sql": "create function f() returns int language sql as 'select true';"})
    assert "drop-first" not in migrate("up").stderr


def test_check_warns_of_a_create_that_can_not_run_again(migrate: Migrate, code: Code) -> None:
    """Only where PostgreSQL has OR REPLACE, and the file neither drops the object first nor makes a temporary one."""
    code(
        {
            "fine.sql": "create type mood as enum ('a'); create temp view x as select 1; create materialized view m as"
            " select 1; drop view if exists s.v; create view s.v as select 1; create or replace view w as select 1;",
            "first.sql": "-- migrate: drop-first\ncreate function f() returns int language sql as 'select 1';",
            "once.sql": "select 1;\ncreate function g() returns int language sql as 'select 1';\n"
            "create recursive view r (n) as select 1; create trigger tr before insert on t execute function f();",
        }
    )
    found = migrate("--json", "check").json["findings"]
    assert [(one["path"].rpartition("/")[2], one["line"], one["column"], one["severity"]) for one in found] == [
        ("once.sql", 2, 1, "warning"),
        ("once.sql", 3, 1, "warning"),
        ("once.sql", 3, 42, "warning"),
    ]


def test_nothing_is_pending_only_if_no_code_is(migrate: Migrate, code: Code) -> None:
    """A run, a dry run and a rehearsal that carry files of code out don't say that nothing is pending."""
    migrate("up")
    code({"twice.sql": TWICE})
    markdown = migrate("rehearse", "--format", "markdown").stdout
    assert markdown.startswith("### Rehearsal of files of code\n\n| Statement |")
    for command in (("up", "--dry-run"), ("rehearse",), ("up",)):
        run = migrate(*command)
        assert run.exit_code == 0
        assert "Nothing is pending" not in run.stdout
        assert "twice" in run.stdout
    for command in (("up", "--dry-run"), ("rehearse",), ("up",)):
        assert migrate(*command).stdout == "Nothing is pending: 1 migration is applied.\n"


def test_triggers_policies_and_types_are_objects_too(migrate: Migrate, code: Code, rows: Rows) -> None:
    """The record has the objects that a file made, by the catalog, quoted as DROP takes them."""
    code(
        {
            "all.sql": """
                create or replace function "F x"() returns trigger language plpgsql as 'begin return new; end';
                create or replace trigger "T" before insert on t for each row execute function "F x"();
                drop policy if exists p on t; create policy p on t using (true);
                create or replace aggregate total(int) (sfunc = int4pl, stype = int);
                create or replace procedure pr() language sql as 'select 1';"""
        }
    )
    done(migrate)
    [(objects,)] = rows("SELECT objects FROM schema_migrations_code")
    assert sorted(objects) == [
        "AGGREGATE public.total(integer)",
        'FUNCTION public."F x"()',
        "POLICY p on public.t",
        "PROCEDURE public.pr()",
        'TRIGGER "T" on public.t',
    ]
    code({"all.sql": "-- migrate: drop"})
    assert done(migrate) == ["all.sql"]
    assert rows("SELECT count(*)::int FROM pg_trigger WHERE tgrelid = 't'::regclass") == [(0,)]


def test_an_object_of_each_kind_is_recorded_and_made_anew(migrate: Migrate, code: Code, rows: Rows) -> None:
    """Overloads, a view's index and rule, an operator, a cast: `objects` names them as DROP does; no table."""
    text = """-- migrate: drop-first
        create extension if not exists citext;
        create table if not exists helper (id int, at date) partition by range (at);
        create table if not exists helper_1 partition of helper for values from ('2026-01-01') to ('2027-01-01');
        create type "A mood" as enum ('a'); create type pair as (a int, b text);
        create domain pos as int check (value > 0);
        create function f(a int, b "A mood", variadic c text[]) returns int language sql immutable as 'select 1';
        create function f(a int) returns int language sql immutable as 'select 1';
        create operator === (function = int4eq, leftarg = int, rightarg = int);
        create cast (pair as text) with inout;
        create materialized view mv as select f(id) as n, id from t; create unique index on mv (id);
        create view v as select * from mv; alter view v alter n set default 3;
        create rule r as on insert to v do instead nothing;
        create function tg() returns trigger language plpgsql as 'begin return new; end';
        create trigger tg before insert on helper for each row execute function tg();
        create publication pub for table t;
        create function ev() returns event_trigger language plpgsql as 'begin end';
        create event trigger et on sql_drop execute function ev();
        do $$ begin grant execute on function f(int) to public; exception when undefined_object then null; end $$;
        create temp view passing as select 1;"""
    code({"all.sql": text})
    done(migrate)
    recorded = rows("SELECT unnest(objects) FROM schema_migrations_code")
    assert {one for (one,) in recorded} == {
        *('TYPE public."A mood"', "TYPE public.pair", "TYPE public.pos", "CAST (public.pair AS pg_catalog.text)"),
        *('FUNCTION public.f(integer,public."A mood",pg_catalog.text[])', "FUNCTION public.f(integer)"),
        *("OPERATOR public.===(integer,integer)", "MATERIALIZED VIEW public.mv", "INDEX public.mv_id_idx"),
        *("VIEW public.v", "RULE r on public.v", "FUNCTION public.tg()", "TRIGGER tg on public.helper"),
        *("PUBLICATION pub", "FUNCTION public.ev()", "EVENT TRIGGER et"),
    }
    code({"all.sql": text + " -- changed"})
    assert done(migrate) == ["all.sql"]
    assert rows("SELECT unnest(objects) FROM schema_migrations_code") == recorded
    assert done(migrate) == []


def test_an_object_that_a_migration_has_dropped_is_made_anew(migrate: Migrate, code: Code, rows: Rows) -> None:
    """A column's type changes only without the views on it; the run that drops them makes them anew, and says so."""
    code(
        {
            "v.sql": "create or replace view v as select n from t;",
            "w.sql": "create or replace view w as select * from v;",
        }
    )
    done(migrate)
    migrate.write({"2_wide.sql": "drop view v cascade; alter table t alter n type bigint;"})
    assert done(migrate) == ["v.sql", "w.sql"]
    assert rows("SELECT pg_typeof(n)::text FROM w RIGHT JOIN (SELECT 1) AS one ON true") == [("bigint",)]
    rows("DROP VIEW w")
    assert states(migrate) == {"v.sql": "current", "w.sql": "changed"}


def test_two_files_that_make_the_same_object_are_named(migrate: Migrate, code: Code) -> None:
    """The last one wins, so `up` names the object and the other file, each time that one of them changes."""
    code({"a.sql": TWICE, "b.sql": TWICE.replace("2 *", "1 + 1 *")})
    told = (
        "warning: code  b.sql has made FUNCTION public.twice(integer) anew, which a.sql makes too: remove it from one"
    )
    assert told in migrate("up").stderr
    code({"a.sql": TWICE + " "})
    assert "a.sql has made FUNCTION public.twice(integer) anew, which b.sql makes too" in migrate("up").stderr


def test_a_name_is_a_use_only_where_the_object_can_stand(migrate: Migrate, code: Code) -> None:
    """A column with a function's name makes no circle; a trigger with its function's name comes after it."""
    code(
        {
            "a.sql": "create or replace trigger touch before update on t for each row execute function touch();",
            "b.sql": "create or replace view v as select sum(n) as total, max(n) as mood from t;",
            "total.sql": "create or replace function total() returns bigint language sql as 'select total from v';",
            "touch.sql": "create or replace function touch() returns trigger language plpgsql as 'begin end';",
        }
    )
    assert done(migrate) == ["b.sql", "total.sql", "touch.sql", "a.sql"]


def test_a_migration_can_have_code_carried_out_first(migrate: Migrate, code: Code, rows: Rows) -> None:
    """The file that it names, and those that this rests on, run in its transaction, and not again after it."""
    code({"twice.sql": TWICE, "four.sql": TWICE.replace("twice", "four").replace("2 * n", "twice(twice(n))")})
    migrate.write({"2_fill.sql": "-- migrate: code four.sql\ninsert into t values (1, four(1));"})
    run = migrate("--json", "up")
    assert run.exit_code == 0, run.stderr
    assert [one["path"] for one in run.json["code"]] == ["twice.sql", "four.sql"]
    assert rows("SELECT n FROM t") == [(4,)]
    assert states(migrate) == {"twice.sql": "current", "four.sql": "current"}
    migrate.write(
        {"3_bad.sql": "-- migrate: code nowhere.sql\nselect 1;", "4_no.sql": "-- migrate: code four.sql\nselect no;"}
    )
    assert "sql/3_bad.sql:1:12: error: there is no file nowhere.sql" in migrate("check").stdout
    assert "sql/3_bad.sql:1:12: error: there is no file nowhere.sql" in migrate("up").stderr
    (migrate.files / "3_bad.sql").unlink()
    failed = migrate("up")
    assert failed.stderr.startswith("sql/4_no.sql:2:8: error: column")


def test_code_comes_in_a_wheel_and_goes_through_a_pooler(
    migrate: Migrate, rows: Rows, pgbouncer: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its folder is below the package's migrations, in an archive as well; four runs at once do each change once."""
    wheel = migrate.folder / "app.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("coded_app/__init__.py", "")
        archive.writestr("coded_app/sql/1_t.sql", TABLE + "create table ran (n int);")
        archive.writestr("coded_app/sql/code/a/twice.sql", TWICE)
        archive.writestr("coded_app/sql/code/größe.sql", VIEW + "insert into ran values (1);")
    monkeypatch.syspath_prepend(str(wheel))
    url, from_wheel = pgbouncer(pool_size=2), ("--dir", "coded_app:sql")
    path = os.pathsep.join([str(wheel), os.environ.get("PYTHONPATH", "")])
    runs = [migrate.start(*from_wheel, "up", url=url, PYTHONPATH=path) for _ in range(4)]
    assert [run.end().exit_code for run in runs] == [0] * 4
    assert rows("SELECT n FROM ran") == [(1,)]
    assert migrate(*from_wheel, "status", "--check", url=url).exit_code == 0


def test_before_a_deployment_changed_code_is_carried_out(migrate: Migrate, code: Code) -> None:
    """The new release may need it, though a migration waits for the step after the deployment."""
    migrate.write({"2_b.sql": "-- migrate: after-deploy\nalter table t drop n;"})
    code({"v.sql": "create or replace view v as select id from t;"})
    assert done(migrate, "--before-deploy") == ["v.sql"]
    assert done(migrate) == []


def test_to_leaves_code_that_may_need_later_files(migrate: Migrate, code: Code) -> None:
    """`up --to` leaves files of code alone while a later migration is pending."""
    code({"v.sql": "create or replace view v as select m from t;"})
    migrate.write({"2_m.sql": "alter table t add m int;"})
    assert done(migrate, "--to", "1") == []
    assert done(migrate, "--to", "2") == ["v.sql"]


def test_two_runs_at_once_carry_out_each_change_once(migrate: Migrate, code: Code, rows: Rows) -> None:
    """The second run waits for the first, and finds nothing left to do."""
    code({"a.sql": "select nextval('s'), pg_sleep(0.2); create or replace view v as select 1 as x;"})
    migrate.write({"1_t.sql": TABLE + "create sequence s;"})
    results = at_once(4, lambda: outreach_migrate.up(migrate.url, folder=migrate.files))
    assert sorted(len(result.code) for result in results) == [0, 0, 0, 1]
    assert rows("SELECT last_value FROM s") == [(1,)]


def test_a_dry_run_shows_the_changed_files(migrate: Migrate, code: Code) -> None:
    """Its SQL stands in the order of a run, before the migration that names a file, and nothing runs."""
    code({"twice.sql": TWICE})
    migrate.write({"2_fill.sql": "-- migrate: code twice.sql\ninsert into t values (1, twice(1));"})
    assert [line.rpartition("/")[2] for line in migrate("-q", "up", "--dry-run").stdout.split()] == [
        *("1_t.sql", "twice.sql", "2_fill.sql"),
    ]
    run = migrate("up", "--dry-run")
    assert f"-- {migrate.files.name}/code/twice.sql\n{TWICE}" in run.stdout
    assert states(migrate) == {"twice.sql": "changed"}


def test_a_role_that_may_only_read_sees_the_state(
    migrate: Migrate, code: Code, role: tuple[str, str], rows: Rows
) -> None:
    """`status` and an `up` with nothing to do read the records; without the right, they name the GRANT that lacks."""
    code({"twice.sql": TWICE})
    done(migrate)
    rows(f"GRANT SELECT ON schema_migrations TO {role[0]}")
    for command in (["status", "--check"], ["up"], ["up", "--dry-run"], ["rehearse"]):
        run = migrate(*command, url=role[1])
        assert run.exit_code == 1
        assert f"the role {role[0]} may not read the records of the files of code" in run.output
        assert f'hint: GRANT SELECT ON "public"."schema_migrations_code" TO {role[0]};' in run.output
    assert "1 applied" in migrate("status", url=role[1]).stdout
    rows(f"GRANT SELECT ON schema_migrations_code TO {role[0]}")
    for command in (["status", "--check"], ["up"]):
        assert migrate(*command, url=role[1]).exit_code == 0


def test_the_due_steps_come_by_the_index(migrate: Migrate, rows: Rows) -> None:
    """The cron's function gives the steps whose time has come, oldest first, by an index scan."""
    assert migrate("--dir", SQL, "up").exit_code == 0
    rows("""INSERT INTO "OutreachSequence" ("id", "updatedAt", "name", "status") VALUES ('s', now(), 'a', 'b')""")
    rows(
        """INSERT INTO "OutreachStep" ("id", "updatedAt", "stepOrder", "status", "sequenceId", "nextStepReadyAt")
           SELECT n, now(), n, 'sent', 's', (now() AT TIME ZONE 'UTC') + (n - 3) * interval '1 hour'
             FROM generate_series(1, 2000) n"""
    )
    rows('ANALYZE "OutreachStep"')
    assert rows("SELECT id FROM due_steps()") == [("1",), ("2",), ("3",)]
    plan = "\n".join(line for (line,) in rows("EXPLAIN SELECT * FROM due_steps()"))
    assert 'Index Scan using "OutreachStep_nextStepReadyAt_idx"' in plan
    assert "Sort" not in plan


def test_a_rehearsal_carries_the_changed_files_out(migrate: Migrate, code: Code, rows: Rows) -> None:
    """They come in the order of a run, before the migration that names them, or after all; nothing of them stays."""
    code({"twice.sql": TWICE, "v.sql": "-- migrate: drop-first\n" + VIEW})
    migrate.write({"2_fill.sql": "-- migrate: code twice.sql\ninsert into t values (1, twice(1));"})
    run = migrate("--json", "rehearse")
    assert run.exit_code == 0, run.stderr
    assert [one["path"].rpartition("/")[2] for one in run.json["files"]] == [
        "1_t.sql",
        "twice.sql",
        "2_fill.sql",
        "v.sql",
    ]
    assert [one["not_rehearsed"] for one in run.json["files"]] == [None] * 4
    assert [one["version"] for one in run.json["files"]] == ["1", None, "2", None]
    assert rows("SELECT to_regproc('twice')::text") == [(None,)]


def test_a_rehearsal_leaves_out_what_would_be_dropped(migrate: Migrate, code: Code, rows: Rows) -> None:
    """A file that drops objects, and one that rests on it, are left out with their reasons, and nothing fails."""
    code({"twice.sql": TWICE, "v.sql": VIEW, "x.sql": "create or replace view x as select 1 as one;"})
    done(migrate)
    code({"twice.sql": "-- migrate: drop-first\n" + TWICE.replace("returns int", "returns numeric")})
    code({"v.sql": VIEW.replace("id,", "n as m,"), "x.sql": "create or replace view x as select 2 as one;"})
    run = migrate("--json", "rehearse")
    assert run.exit_code == 0, run.stderr
    reasons = {one["path"].rpartition("/")[2]: one["not_rehearsed"] for one in run.json["files"]}
    assert reasons["twice.sql"].startswith("it drops objects")
    assert reasons["v.sql"] == f"it rests on {migrate.files.name}/code/twice.sql, which is not rehearsed"
    assert reasons["x.sql"] is None
    assert migrate("rehearse", "--format", "markdown").stdout.startswith(
        "### Rehearsal of files of code\n\n| Statement"
    )
    assert done(migrate) == ["twice.sql", "v.sql", "x.sql"]


def test_a_fleet_puts_a_target_back_whose_code_meets_a_lock(
    migrate: Migrate, code: Code, rows: Rows, connect: Connect
) -> None:
    """Its files of code are carried out once the lock is gone."""
    rows("CREATE SCHEMA tenant_1; CREATE SCHEMA tenant_2")
    fleet = ("fleet", "--schemas", "tenant_*", "up")
    assert migrate(*fleet).exit_code == 0
    code({"t.sql": "alter table t enable row level security;"})
    with connect() as locking:
        locking.execute("BEGIN; LOCK tenant_1.t")
        run = migrate.start(*fleet, "--lock-timeout", "50ms")
        run.says("goes to the back")
        locking.execute("COMMIT")
    ended = run.end()
    assert ended.exit_code == 0, ended
    assert rows("SELECT relrowsecurity FROM pg_class WHERE relname = 't'") == [(True,), (True,)]


def test_a_fleet_carries_them_out_in_each_schema(migrate: Migrate, code: Code, rows: Rows) -> None:
    """Each tenant has its own records, and gets the code that changed; the end names files that are gone."""
    for tenant in ("tenant_1", "tenant_2", "tenant_3"):
        rows(f"CREATE SCHEMA {tenant}")
    code({"twice.sql": TWICE})
    fleet = ("fleet", "--schemas", "tenant_*", "up", "-j", "3")
    assert migrate(*fleet).exit_code == 0
    code({"twice.sql": TWICE.replace("2 *", "3 *")})
    assert migrate(*fleet).exit_code == 0
    assert rows("SELECT tenant_1.twice(1), tenant_2.twice(1), tenant_3.twice(1)") == [(3, 3, 3)]
    for tenant in ("tenant_1", "tenant_2", "tenant_3"):
        assert rows(f"SELECT objects FROM {tenant}.schema_migrations_code") == [
            ([f"FUNCTION {tenant}.twice(integer)"],)
        ]
    code({"twice.sql": None})
    gone = "code  twice.sql is gone, but its objects stay (3 targets: tenant_1, tenant_2, tenant_3)"
    assert gone in migrate(*fleet, "-j", "1").stderr
