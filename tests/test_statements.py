"""The SQL scanner, held against PostgreSQL's own parser and scanner (postgast)."""

from __future__ import annotations

import re
from functools import partial
from itertools import pairwise

import postgast
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from outreach_migrate.files import commands, control, outline, phrases, scanner, statements
from outreach_migrate.files.migrations import Migration

# The scanner's hard cases, each a text that PostgreSQL accepts.
ACCEPTED = [
    "",
    ";;",
    " ; ; select 1;; -- end",
    "select 1; select 2",
    "select 'a;b'; select 'it''s; me'; select ''",
    r"select 'a\'; select 'b\'",
    r"select E'a\';b'; select e'\\'; select E''''",
    "select E'a'\n'b\\';c'; select 1",
    "select 'a'\n'b\\'; select 'c'",
    'select "a;b"; select "a"";b"; select U&"a;b"; select 1 as "É"',
    "select U&'a;b\\0061'; select B'01'; select X'1F'; select N'a;b'; select b'0'\n'1'",
    "select $$a;b$$; select $a$ $b$; $$ ' $a$; select $é_1$;$é_1$; select $$$x$$",
    "select a$b$c; select 1 as a$b$; select é$x$; select \ufffd$y$ from z",
    "select $1; select 1 from f($$;$$)",
    "/* a /* b; */ ; */ select 1; /* c */; select 2 /* d /* e */ f */ ;",
    "/**/ select 1 /***/; /*/ ; */ select 2 /* **/ ; select 3 /* ' */",
    "-- a; b\nselect 1 -- it's; \r; select 2 --",
    "select 1 -- a comment that ends in a backslash \\\n; select 2 /* another \\*/; select 3",
    "select 2*/*;*/3; select 2+--;\n3; select 2/-1; select 2 - -1; select @-/*;*/1",
    "create rule r as on insert to t do also (select 1; select (2); select ')')",
    "create rule r as on insert to t do also (select 1; select $$)$$; select 3); select 4",
    "create function f() returns int begin atomic select 1; select 2; end; select 3",
    "create or replace function f() returns int language sql begin atomic select case when a then 1 else"
    " case when b then 2 end end; return 3; end; select 4",
    "create procedure p() begin atomic end; create procedure p() begin/**/atomic/* /* */ ; */end; select 1",
    "create procedure p() begin atomic select x.end, 1 as end, 2 as case; select 1 end; select begin; end; end",
    "create function begin() returns begin begin atomic select begin atomic; select 1 atomic; end; select 1",
    "create function f(x int default (1)) returns int as $$ begin; end $$ language plpgsql; select 1",
    "create function f() returns int return case when true then 1 end; select 1",
    "create function f() returns int language sql set x to 1 cost 1 rows 1 stable strict leakproof parallel safe"
    " security definer support a begin atomic select 1; end; select 2",
    "begin; select 1; commit",
    "select 1.5e3, .5, 1., 0x1F, 0b1, 0o7, 1_000, 1e+5; select 1",
    'select a.\n"b".c[1:2]; select a::text',
    "select 1\f;\tselect\v2\r\n;select 3\r",
    "select 'é\ufffd\U0001f600' ; select 'x' /* é */ ;  select 2 ",
    "select 1 as \u212a; select 1 as \xa0\u2028",
    "select '\x01\x7f'; select 1",
]


BINARY = ["t from stdin (format 'binary')", "binary a.t from stdin", "t from stdout with binary"]
DROP = "DROP SUBSCRIPTION with a slot"


def spans(sql: str) -> list[tuple[int, int]]:
    return [(statement.start, statement.end) for statement in statements.split(sql)]


def tokens(sql: str) -> list[tuple[int, int, str]]:
    """PostgreSQL's tokens without comments: offsets in characters, and the text."""
    data = sql.encode()
    found = []
    for token in postgast.scan(sql).tokens:
        text = data[token.start : token.end].decode()
        if not text.startswith(("--", "/*")):
            start = len(data[: token.start].decode())
            found.append((start, start + len(text), text))
    return found


def ours(sql: str) -> list[tuple[int, int, str]]:
    return [(token.start, token.end, token.text) for token in scanner.tokens(sql)]


def marked(found: list[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Tokens, operators that touch and N'…' made one: the scanner has it in two."""
    joined = list[tuple[int, int, str]]()
    for start, end, text in found:
        before = joined[-1] if joined else (-1, -1, "")
        operators = re.fullmatch(r"[-~!@#^&|`?+*/%<>=:]+", before[2] + text)
        if before[1] == start and (operators or (before[2] in ("n", "N") and text[0] == "'")):
            joined[-1] = (before[0], end, before[2] + text)
        else:
            joined.append((start, end, text))
    return joined


def spans_of_postgresql(sql: str) -> list[tuple[int, int]]:
    """The statements of PostgreSQL's parser, from their first to after their last token."""
    data, found = sql.encode(), []
    all_tokens = tokens(sql)
    for raw in postgast.parse(sql).stmts:
        start = len(data[: raw.stmt_location].decode())
        length = len(data[raw.stmt_location :][: raw.stmt_len or None].decode())
        inside = [token for token in all_tokens if start <= token[0] < start + length]
        found.append((inside[0][0], inside[-1][1]))
    return found


def words_of_postgresql(sql: str) -> list[tuple[tuple[int, int], tuple[str, ...]]]:
    """The statements that PostgreSQL's scanner finds in a text without function bodies: spans and bare words."""
    found: list[tuple[tuple[int, int], tuple[str, ...]]] = []
    depth, start, end, words = 0, -1, -1, list[str]()
    for begin, stop, text in [*tokens(sql), (len(sql), len(sql), ";")]:
        depth = max(0, depth + (text == "(") - (text == ")"))
        if text == ";" and (not depth or begin == len(sql)):
            if start >= 0:
                found.append(((start, end), tuple(words[:16])))
            start, words = -1, []
            continue
        start, end = begin if start < 0 else start, stop
        bare = re.match(r"[A-Za-z_\x80-\U0010ffff]", text) and text[-1] not in "'\""
        if bare and not depth and not (text in "nN" and sql[stop : stop + 1] == "'"):
            words.append(re.sub("[A-Z]", lambda upper: upper[0].lower(), text))
    return found


def findings(sql: str) -> list[statements.Forbidden]:
    """The statements that a file with a transaction may not have."""
    made = outline.make(sql)
    controls = control.findings(sql, made, transaction=True, place=partial(statements.place, sql))
    return sorted([*made.findings, *controls], key=lambda found: found.offset)


@pytest.mark.parametrize("sql", ACCEPTED)
def test_tokens_are_those_of_postgresql(sql: str) -> None:
    """Each token stands where PostgreSQL's scanner has it, but operators that touch are one."""
    assert marked(ours(sql)) == marked(tokens(sql))


@pytest.mark.parametrize("sql", ACCEPTED)
def test_statements_are_those_of_postgresql(sql: str) -> None:
    """A text that PostgreSQL accepts is split where PostgreSQL's parser splits it."""
    assert spans(sql) == spans_of_postgresql(sql)
    assert not [finding for finding in findings(sql) if re.match(r"unterminated|\\", finding.message)]


@pytest.mark.parametrize("comment", ["-- it's", "--\n -- isn't\n\t--", " \t-- '\r"])
def test_a_comment_may_stand_in_a_literal(comment: str) -> None:
    """Between the parts of an E'' literal may be comments: PostgreSQL accepts it, postgast's scanner doesn't."""
    sql = f"select E'a' {comment}\n 'b\\';c'; select 1"
    assert [sql[start:end] for start, end in spans(sql)] == [sql[: sql.rindex(";")], "select 1"]


def joined(*parts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*(part for each in parts for part in (each, gaps))).map("".join)


def several(part: st.SearchStrategy[str], mark: str, most: int = 3) -> st.SearchStrategy[str]:
    return st.lists(part, min_size=1, max_size=most).map(mark.join)


characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(st.one_of(st.sampled_from("';\"\\$()/*-\nea\ufffdé"), characters), max_size=8)
gaps = st.sampled_from(
    [" "] * 6 + ["\n", "\t ", "\r\n", " \f", "/* ; */", "/* a /* ;' */ $$ */", " -- ;'\n", " --\\\n", "/***/", " "]
)
names = st.sampled_from(
    ["a", "a$b$c", "é$x$", "\ufffd", '"a;b"', '"a""\';"', 'U&"a;b"', "begin", "atomic", "x.end", "a.begin", "_e", "e"]
)
literals = st.one_of(
    st.sampled_from(
        ["'a;b'", "'it''s'", "'\\'", "E'a\\';b'", "E'a'\n'b\\';c'", "e'a'\n\n'\\''", "U&'a;'", "B'01'", "N';'"]
    ),
    st.sampled_from(["X'1f'", "$$a;b$$", "$é$;$$'$é$", "1", "1.5e3", ".5", "0x1F", "1_000", "$1", "1e5", "'a'\n'b\\'"]),
    texts.map(lambda text: "'" + text.replace("'", "''") + "'"),
    texts.map(lambda text: "E'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"),
    texts.map(lambda text: "$t$" + text.replace("$", "") + "$t$"),
)
operators = st.sampled_from(["+", "*", "/", "-", "@-", "||", "<>", "=", "*/**/", "+--;\n", "::a::", " and "])
expressions = st.recursive(
    st.one_of(names, literals),
    lambda inner: st.one_of(
        joined(inner, operators, inner),
        joined(st.just("("), inner, st.just(")")),
        joined(st.just("f("), several(inner, ","), st.just(")")),
        joined(st.just("case when"), inner, st.just("then"), inner, st.just("end")),
        joined(st.just("case"), inner, st.just("when"), inner, st.just("then"), inner, st.just("else 1 END")),
        joined(st.just("(select"), inner, st.just("as end)")),
    ),
    max_leaves=6,
)
labels = st.sampled_from(["", "", "as end", "as begin", 'as "end"', "end", "case", "atomic", "as atomic"])
selects = joined(st.just("select"), expressions, labels, st.sampled_from(["", "from t", ", 1", "limit 1"]))
bodies = st.lists(st.one_of(selects, joined(st.just("return"), expressions)), max_size=3).map(
    lambda body: "".join(f"{each};" for each in body)
)
routines = joined(
    st.sampled_from(["create function f()", "create or replace function f()", "CREATE FUNCTION begin()"]),
    st.sampled_from(["returns int", "returns begin", "returns table (a int)", "language sql"]),
    st.sampled_from(["", "stable", "set a.b to 'x;'", "language begin", "cost 1"]),
    st.one_of(
        joined(st.just("begin"), st.just("Atomic"), bodies, st.just("end")),
        joined(st.just("as"), literals),
        joined(st.just("return"), expressions),
    ),
)
procedures = joined(st.just("create procedure p() begin"), st.just("atomic"), bodies, st.just("END"))
rules = joined(st.just("create rule r as on insert to t do also ("), several(selects, ";"), st.just(")"))
whole = st.one_of(
    selects,
    routines,
    procedures,
    rules,
    joined(st.just("insert into t values"), joined(st.just("("), several(expressions, ","), st.just(")"))),
    st.sampled_from(["", "begin", "commit", "do $$ begin; end $$", "create table t (a int default 1)", "end"]),
)
files = st.tuples(gaps, several(joined(whole), ";", most=6), st.sampled_from(["", ";", ";;", "; --"])).map("".join)


@settings(max_examples=150, deadline=None)
@given(files)
def test_made_files_are_split_as_postgresql_splits_them(sql: str) -> None:
    """Whatever stands in a statement, its bounds are PostgreSQL's, whenever PostgreSQL accepts the text."""
    try:
        expected = spans_of_postgresql(sql)
    except postgast.PgQueryError:
        assume(False)
    assert spans(sql) == expected


soups = st.lists(
    st.one_of(
        st.sampled_from(
            ["'", "''", '"', "E'", "e'\\'", "U&'", 'u&"', "B'", "n'", "$$", "$a$", "$", "$1", "/*", "*/", "--", "\n"]
        ),
        st.sampled_from(
            [" ", "\r", "\v", ";", "(", ")", "-", "/", "*", "a", "E", "end", "1", "1.", "1e5", "0x1f", "é"]
        ),
        st.sampled_from(
            ["'a\\' ", " 'b'", "\n'", "/*a*/", "(a;'b')", "(;)", "--\n", "select", "\ufffd", "_", ".", "\\"]
        ),
        characters,
    ),
    max_size=25,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(soups)
def test_any_text_falls_into_the_tokens_of_postgresql(sql: str) -> None:
    """The scanner's semicolons, words and ends are those of PostgreSQL's scanner, for valid SQL or not."""
    assume(not re.search("e'.*--", sql, re.DOTALL | re.IGNORECASE))  # see test_a_comment_may_stand_in_a_literal
    found = [*findings(sql)]
    assume(not any(finding.message.startswith("\\") for finding in found))
    try:
        expected = words_of_postgresql(sql)
    except postgast.PgQueryError as error:
        assume(error.message.startswith("unterminated"))
        opened = error.cursorpos - 1  # in characters, whatever postgast's docstring says
        prefix = re.compile(r"(?:[bxn]|u&)?", re.IGNORECASE).match(sql, opened)
        assert prefix
        offset = found[-1].offset
        # PostgreSQL names the first of the strings that a newline joins, the scanner the one that is open.
        assert offset in (opened, prefix.end()) or sql[opened:offset].count("'") % 2 == 0
        assert found[-1].message.startswith("unterminated")
    else:
        assert [((each.start, each.end), each.words) for each in statements.split(sql)] == expected
        if "--" not in sql:  # see test_a_comment_may_stand_in_a_literal
            assert marked(ours(sql)) == marked(tokens(sql))


@pytest.mark.parametrize(
    ("sql", "name"),
    [
        *[("Ab$1", "ab$1"), ('"A""b"', 'A"b'), (r'U&"d\0061t\+000061 ""\\"', 'data "\\'), ("\u212a", "\u212a")],
        *[("'it''s'", "it's"), ("$a$it''s$a$", "it''s"), ("E'a'", "a"), ("e'a", "a"), ('"a', "a"), ("$$a", "a")],
    ],
)
def test_a_token_has_its_name(sql: str, name: str) -> None:
    """A name is folded or out of its quotes, and so is a string's text, also where it is cut off."""
    (token,) = scanner.tokens(sql)
    assert token.name == name


def test_words_are_the_first_sixteen_bare_ones() -> None:
    """Words are unquoted, outside parentheses, in lower case, and as many as a rule can need."""
    sql = 'INSERT /* no */ INTO "T" (a, b) VALUES (now()) ON CONFLICT DO NOTHING'
    assert next(statements.split(sql)).words == ("insert", "into", "values", "on", "conflict", "do", "nothing")
    assert next(statements.split("x " * 20)).words == ("x",) * 16
    assert next(statements.split("\u212a E'x' b'1' u&'y' 1e5 $1 a.b")).words == ("\u212a", "a", "b")


def test_statements_come_one_at_a_time() -> None:
    """The first statement is there before the rest of the text is read."""
    assert next(statements.split("select 1;" * 1_000_000)).end == 8


@pytest.mark.parametrize("sql", ["(" * 99_999, "/* " * 99_999, "'a" * 99_999, "$a$ $b" * 99_999, "a(" * 99_999])
def test_no_text_makes_the_scanner_slow(sql: str) -> None:
    """A text that opens again and again and never closes takes a time in proportion to its length."""
    assert len(spans(sql)) == 1


def test_places_count_characters_from_one() -> None:
    r"""A line ends at \n, a column counts characters: é is one, and so is one beyond Unicode's first plane."""
    sql = "é😀x\r\nselect\n"
    assert [statements.place(sql, offset) for offset in (0, 2, 4, 5, 11, 12)] == [
        *[(1, 1), (1, 3), (1, 5), (2, 1), (2, 7), (3, 1)]
    ]


@pytest.mark.parametrize(
    ("sql", "blank"),
    [
        ("BEGIN;\nselect 1;\nCOMMIT;\n", "      \nselect 1;\n       \n"),
        ("-- x\nbegin work ;select 1;end", "-- x\n            select 1;   "),
        ("start\r\ntransaction; commit transaction -- é;\n ;", "     \r\n                                -- é;\n  "),
        ("BEGIN TRANSACTION; END WORK /* ; */ ; -- end", " " * 28 + "/* ; */   -- end"),
        ("begin /* a */ work; commit;;", " " * 27 + ";"),
        ("begin isolation level serializable, read write; commit", " " * 54),
        (
            "\\restrict a1\nbegin;\nselect 1;\ncommit;\n\\unrestrict a1",
            f"{' ' * 12}\n      \nselect 1;\n       \n{' ' * 14}",
        ),
        ("start transaction isolation /**/ level repeatable\nread not deferrable; end", f"{' ' * 49}\n{' ' * 24}"),
    ],
)
def test_an_outer_transaction_is_blanked_out(sql: str, blank: str) -> None:
    """BEGIN as the first and COMMIT as the last statement become spaces, and psql's lines too; offsets stay."""
    assert Migration("1", "a", "1_a.sql", sql).body == blank
    assert not [*findings(blank)]


@pytest.mark.parametrize(
    "sql",
    [
        *["", "begin", "begin;", "commit;", "begin; select 1", "select 1; commit", "begin; select 1; rollback;"],
        *["begin read only; commit;", "begin; commit and chain", "begin; commit prepared 'x'", "beginwork; commit"],
        *["begin; select 'commit;", 'begin "x"; commit', "select 1; begin; commit", "begin; commit; select 1"],
    ],
)
def test_other_transaction_control_stays(sql: str) -> None:
    """Only the plain pair around the whole file is harmless; every other one is left for `findings`."""
    assert outline.make(sql).outer is None


@pytest.mark.parametrize(
    ("sql", "command"),
    [
        *[("begin", "BEGIN"), ("BEGIN isolation level serializable", "BEGIN"), ("commit work", "COMMIT")],
        *[("start transaction read only", "START TRANSACTION"), ("end", "END"), ("abort", "ABORT")],
        *[("rollback", "ROLLBACK"), ("rollback work and chain", "ROLLBACK"), ("commit and no chain", "COMMIT")],
        *[("prepare transaction 'x'", "PREPARE TRANSACTION"), ("commit prepared 'x'", "COMMIT PREPARED")],
        *[("rollback /* to */ prepared 'x'", "ROLLBACK PREPARED")],
    ],
)
def test_transaction_control_is_found(sql: str, command: str) -> None:
    """Transaction control at the top level is found wherever it stands, by its name."""
    assert len(spans_of_postgresql(sql)) == 1
    (found,) = findings(f"select 1;\n{sql}; select 2")
    assert (found.offset, found.message) == (10, f"{command} cannot be used in a migration")
    assert found.hint
    assert "SAVEPOINT" in found.hint


@pytest.mark.parametrize(
    "sql",
    [
        *["savepoint a", "release a", "rollback to a", "rollback work to savepoint a", "rollback transaction to a"],
        *["prepare transaction as select 1", "prepare transaction (int) as select $1", "set transaction read write"],
        *[
            "set transaction isolation level read committed",
            "set transaction_timeout = 1",
            "set constraints a deferred",
        ],
        *["set local transaction_isolation to 'read committed'", "set default_transaction_isolation = serializable"],
        *["do $$ begin commit; end $$", "select 'commit; begin'", "/* commit; */ select 1 -- ; commit"],
        *["create procedure p() begin atomic end", "create rule r as on insert to t do (select 1; select 2)"],
        *["select 1 as commit", 'select 1 as "commit;"', "copy t to 'f'", "copy t from program 'stdin'"],
        *["copy \"from\" from 'stdin'", r"select '\d', E'\\', $$ \d $$, " + '"\\d" /* \\d */ -- \\d'],
    ],
)
def test_what_a_migration_may_have_is_not_found(sql: str) -> None:
    """Savepoints, and these words in strings, comments, names and bodies, are the file's own business."""
    assert len(spans_of_postgresql(sql)) == 1
    assert not [*findings(sql)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("\\restrict x'y\nselect 1;\n\\unrestrict", [(0, r"\restrict"), (24, r"\unrestrict")]),
        ("\\restrict xY1\nselect 1;\n \\unrestrict xY1 \ncommit;", [(42, "COMMIT")]),
        ("select 1 \\gexec\ncommit;", [(9, r"\gexec"), (16, "COMMIT")]),
        ("select (1 \\; select 2);\ncommit", [(10, r"\;"), (24, "COMMIT")]),
        ("select 'a'\\", [(10, "\\")]),
        ('; copy "T" from STDIN with (format csv);\ncommit', [(41, "COMMIT")]),
        *[(f"copy {text}", [(0, "COPY … FROM STDIN in binary")]) for text in BINARY],
        ("copy (select 1) to stdout; commit", [(27, "COMMIT")]),
    ],
)
def test_what_only_psql_understands_is_found(sql: str, expected: list[tuple[int, str]]) -> None:
    """psql's commands and COPY from the client are found; after COPY … FROM stdin come data, which is not read."""
    assert [(found.offset, found.message) for found in findings(sql)] == [
        (offset, f"{command} cannot be used in a migration") for offset, command in expected
    ]
    assert all(found.hint for found in findings(sql))


@pytest.mark.parametrize(
    ("sql", "offset", "what"),
    [
        *[("select 'a''b;", 7, "quoted string"), ("select E'a\\'; x", 7, "quoted string")],
        *[("select E'a'\n'b\\'; x", 7, "quoted string"), ('select "a""b; x', 7, "quoted identifier")],
        *[("select $a$ $b$ $a; x", 7, "dollar-quoted string"), ("$abc$", 0, "dollar-quoted string")],
        *[("select 1 /* a /* b */ ; x", 9, "/* comment"), ("select ('a", 8, "quoted string")],
    ],
)
def test_what_never_closes_is_found_where_it_opens(sql: str, offset: int, what: str) -> None:
    """An unterminated string, name or comment is an error at its first character, in PostgreSQL's words."""
    (found,) = findings(sql)
    assert (found.offset, found.message) == (offset, f"unterminated {what}")
    with pytest.raises(postgast.PgQueryError, match=re.escape(found.message)) as error:
        postgast.scan(sql)
    assert error.value.cursorpos == offset + 1


@pytest.mark.parametrize(
    ("sql", "command"),
    [
        *[("create index concurrently on t (a)", "CREATE INDEX CONCURRENTLY"), ("vacuum (full) t", "VACUUM FULL")],
        ("create unique index/**/concurrently if not exists i on t (a)", "CREATE INDEX CONCURRENTLY"),
        *[('vacuum (full off, verbose) "full" (a)', "VACUUM"), ("vacuum full t", "VACUUM FULL")],
        *[("reindex (concurrently) database d", "REINDEX CONCURRENTLY"), ("drop subscription if exists s", DROP)],
        *[("drop index concurrently if exists i", "DROP INDEX CONCURRENTLY"), ("vacuum", "VACUUM")],
        *[("reindex index concurrently i", "REINDEX CONCURRENTLY"), ("reindex system d", "REINDEX SYSTEM")],
        *[("reindex (concurrently) table t", "REINDEX CONCURRENTLY")],
        *[("reindex (verbose, concurrently on) table t", "REINDEX CONCURRENTLY")],
        *[("reindex (verbose) table concurrently t", "REINDEX CONCURRENTLY")],
        *[("reindex database d", "REINDEX DATABASE"), ("reindex (verbose) schema s", "REINDEX SCHEMA")],
        *[("alter system set a = 1", "ALTER SYSTEM"), ("create database d", "CREATE DATABASE")],
        *[("drop database if exists d", "DROP DATABASE"), ("drop tablespace s", "DROP TABLESPACE")],
        *[("create tablespace s location '/x'", "CREATE TABLESPACE"), ("discard all", "DISCARD ALL")],
        *[('alter database "d" set tablespace s', "ALTER DATABASE … SET TABLESPACE")],
        ('alter table only a.b detach partition "c" concurrently', "ALTER TABLE … DETACH PARTITION … CONCURRENTLY"),
        *[("cluster", "CLUSTER"), ("cluster verbose", "CLUSTER"), ("cluster (verbose)", "CLUSTER")],
        ("create subscription s connection 'connect=false' publication p", "CREATE SUBSCRIPTION"),
        ("create subscription s connection '' publication p with (connect = true)", "CREATE SUBSCRIPTION"),
        ('alter subscription "a b" refresh publication', "ALTER SUBSCRIPTION … REFRESH PUBLICATION"),
        ("alter subscription s set publication p", "ALTER SUBSCRIPTION … SET PUBLICATION"),
        *[("commit prepared 'x'", "COMMIT PREPARED"), ("rollback prepared 'x'", "ROLLBACK PREPARED")],
    ],
)
def test_what_cannot_run_in_a_transaction_is_named(sql: str, command: str) -> None:
    """A statement that PostgreSQL refuses inside a transaction block has its command's name."""
    assert len(spans_of_postgresql(sql)) == 1
    first, second = statements.split(f"select 1; {sql}")
    assert str(commands.outside(f"select 1; {sql}", second)) == command
    assert commands.outside(f"select 1; {sql}", first) is None


@pytest.mark.parametrize(
    "sql",
    [
        *["create index i on t (a)", 'create index "concurrently" on t (a)', "drop index i", "analyze t"],
        *["reindex table t", "reindex (concurrently false) table t", "reindex (concurrently 'off') index i"],
        *['reindex table "concurrently"', "reindex (verbose) table t", "cluster t", 'cluster "t"', "cluster verbose t"],
        *["cluster (verbose) t using i", "alter database d set x = 1", "alter table t detach partition p"],
        *["alter table t detach partition p finalize", "discard plans", "create table vacuum (a int)"],
        *["create subscription s connection '' publication p with (connect = false)"],
        *["create subscription s connection '' publication p with (enabled=false,create_slot=false,slot_name=none)"],
        *["alter subscription s set publication p with (refresh = false)", "alter subscription s disable"],
        *["alter type e add value 'x'", "create schema s"],
    ],
)
def test_what_can_run_in_a_transaction_is_left_alone(sql: str) -> None:
    """A statement that PostgreSQL runs inside a transaction block has no such command."""
    assert len(spans_of_postgresql(sql)) == 1
    assert commands.outside(sql, next(statements.split(sql))) is None


@pytest.mark.parametrize(
    ("sql", "index", "table"),
    [
        ("create index concurrently i on t (a)", "i", "t"),
        ('CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "I""x" ON ONLY "S" . t USING btree (a)', '"I""x"', '"S".t'),
        ("create index/* /* ; */ on x */concurrently -- y\n É$1 on d.s.t(a)", "É$1", "d.s.t"),
        (r'create index concurrently U&"d\0061ta" on "on" (a)', '"data"', '"on"'),
        ("create index concurrently if on t (a)", "if", "t"),
        ('create index concurrently "on" on "only".t (a)', '"on"', '"only".t'),
        ("create index concurrently on only t (a)", "", "t"),
    ],
)
def test_a_build_has_its_index_and_table(sql: str, index: str, table: str) -> None:
    """Both are there as SQL, without comments and U&, which only a file's own spelling can have."""
    made = commands.build(f"; {sql}", next(statements.split(f"; {sql}")))
    assert made
    assert (made.name, made.on) == (index, table)


@pytest.mark.parametrize(
    "sql", ["create index i on t (a)", "create index concurrently", "create index concurrently i t"]
)
def test_what_builds_no_index_concurrently_is_no_build(sql: str) -> None:
    """An ordinary index, and a statement that breaks off, are left to PostgreSQL."""
    assert commands.build(sql, next(statements.split(sql))) is None


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ('alter table if exists only "S"/**/.T add a int', '"S".T'),
        *[("drop table if exists t, u", "t"), ("create unique index i on only s.t (a)", "s.t")],
        *[("create index concurrently on t (a)", "t"), ('create index /* on u */ "on" on t (a)', "t")],
        *[("comment on table t is 'alter table u'", ""), ("do 'begin drop table t; end'", ""), ("drop table", "")],
    ],
)
def test_a_table_that_is_altered_is_named(sql: str, table: str) -> None:
    """The table must be the role's own; comments and strings name none."""
    name = commands.altered(f"; {sql}", next(statements.split(f"; {sql}")))
    assert ".".join(part.identifier for part in name) == table


@pytest.mark.parametrize(
    ("phrase", "words", "end"),
    [
        ("create [or replace] view|table", "create or replace table t", 4),
        ("create [or replace] view|table", "create or table t", None),
        ("set [session] [local] a", "set local a b", 3),
        ("set [all|some things]", "set some things else", 3),
        ("alter table … detach partition … now", "alter table t detach x detach partition now", 8),
        ("alter table … detach partition", "alter table detach partition", 4),
        ("alter table … detach partition", "alter table t attach partition", None),
        ("rollback unless [work] to", "rollback work to", None),
        ("rollback unless [work] to", "rollback work", 1),
        *(("drop table", words, None) for words in ("drop", "", "table drop table", "drop tables")),
    ],
)
def test_a_phrase_stands_at_the_beginning_of_words(phrase: str, words: str, end: int | None) -> None:
    """The longest one counts, and nothing is a part of a word."""
    found = phrases.Phrases({phrase: "a", "set local": "b", "drop": "c"} if "drop" not in phrase else {phrase: "a"})
    assert found.look_up(words.split()) == (None if end is None else ("a", end))
    assert found.end(["x", *words.split()], 1) == (None if end is None else end + 1)


def test_offsets_rise() -> None:
    """Findings come in the order of the text."""
    sql = "\\a\nbegin; \\b\ncommit; end 'x"
    offsets = [finding.offset for finding in findings(sql)]
    assert len(offsets) == 5
    assert all(first < second for first, second in pairwise(offsets))


@pytest.mark.parametrize(
    ("sql", "name", "is_there"),
    [
        *[("ALTER TABLE Users ADD a int", "users", True), ('ALTER TABLE "Users" ADD a int', "users", False)],
        *[('ALTER TABLE "Users" ADD a int', "Users", True), ("SELECT 1; -- users", "users", False)],
        *[("DO $$ BEGIN DROP TABLE users; END $$", "users", True), ("SELECT 'users'::regclass", "users", True)],
        *[("ALTER TABLE users_old ADD a int", "users", False)],
    ],
)
def test_a_name_is_read_as_postgresql_reads_it(sql: str, name: str, is_there: bool) -> None:
    """Case counts only in double quotes; a string may be SQL, and a comment is none."""
    assert scanner.mentions(sql, name) is is_there
