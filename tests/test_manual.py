"""README and manual agree with the program: options, commands with their output, code, links."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import fix_outreach
import psycopg
import pytest
from fix_cli import COMMANDS, Migrate
from fix_servers import Connect
from psycopg import sql

from outreach_migrate import cli, errors
from outreach_migrate.adopt.baseline import Untrue
from outreach_migrate.cli import manual
from outreach_migrate.run import comparison
from outreach_migrate.schema.drift import Drifted

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "outreach_migrate"
PAGES = {name: (PACKAGE / "manual" / f"{name}.md") for name in manual.SUBJECTS} | {"README": ROOT / "README.md"}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}

FENCED = re.MULTILINE | re.DOTALL


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, FENCED)


# The command


def test_each_page_is_a_subject() -> None:
    """The folder has the pages that `help` knows, each with its title and a line that sums it up."""
    assert {path.stem for path in (PACKAGE / "manual").iterdir()} == set(manual.SUBJECTS)
    for name in manual.SUBJECTS:
        title, blank, summary, after = TEXTS[name].splitlines()[:4]
        assert title.startswith("# ")
        assert (blank, after) == ("", "")
        assert len(summary) < 75
        assert summary in manual.contents()
        assert f"({PAGES[name].relative_to(ROOT)}) | {summary} |" in TEXTS["README"]


@pytest.mark.parametrize("subject", manual.SUBJECTS)
def test_help_prints_a_page(subject: str, migrate: Migrate) -> None:
    """It prints the page as it stands in the package."""
    assert migrate("help", subject).stdout.rstrip("\n") == TEXTS[subject].rstrip("\n")


def test_an_unknown_subject_is_wrong_usage(migrate: Migrate) -> None:
    """The error names all pages, and the one that was meant."""
    ended = migrate("help", "lock")
    assert ended.exit_code == 2
    assert "did you mean locks?" in ended.stderr
    assert all(name in ended.stderr for name in manual.SUBJECTS)
    assert "up --help" in migrate("help", "up").stderr


def test_help_needs_no_driver_and_no_good_pyproject(migrate: Migrate) -> None:
    """The manual can be read even if a mistake in the settings keeps the other commands from running."""
    (migrate.folder / "pyproject.toml").write_text("[tool.outreach-migrate]\nnonsense = 1\n")
    code = "import sys; from outreach_migrate import cli; cli.main(['help', 'locks'], standalone_mode=False)"
    ended = subprocess.run(
        [sys.executable, "-c", f"{code}; assert 'psycopg' not in sys.modules"],
        capture_output=True,
        text=True,
        cwd=migrate.folder,
    )
    assert (ended.returncode, ended.stdout.startswith("# Locks\n")) == (0, True), ended


@pytest.mark.parametrize(
    ("text", "arguments", "page"),
    [
        ("COMMIT;", [], "files"),
        ("SELECT nix;", [], None),
        ("DO $$ BEGIN EXECUTE 'VACUUM'; END $$;", [], "no-transaction"),
        ("-- migrate: no-transaction\nSELECT 1;\nSELECT nix;", [], "no-transaction"),
        ("LOCK t;", ["--lock-timeout", "1ms", "--lock-retries", "0"], "locks"),
        ("SELECT 1;", ["--to", "9"], "commands"),
    ],
    ids=["a file", "its SQL", "a ban", "unfinished", "a lock", "usage"],
)
def test_an_error_names_the_page_that_helps(
    text: str, arguments: list[str], page: str | None, migrate: Migrate, connect: Connect
) -> None:
    """The text and the JSON name it; PostgreSQL's own errors in a file's SQL need none. The state stays last."""
    blocker = connect()
    blocker.execute("CREATE TABLE t ()")
    blocker.execute("BEGIN; LOCK t")
    ended = migrate("--json", "up", *arguments, files={"1_a.sql": text})
    assert ended.json["error"]["help"] == page
    see = [line for line in ended.stderr.splitlines() if line.startswith("see: ")]
    assert see == ([f"see: outreach-migrate help {page}"] if page else [])
    assert ended.stderr.splitlines()[-1] == (ended.json["error"]["state"] or see[0])


def test_a_page_is_read_in_five_minutes() -> None:
    """At 250 words a minute, without code and tables, which are looked up; the README has under 200 lines."""
    looked_up = r"^```.*?^```|^\|[^\n]*"
    words = {name: len(re.sub(looked_up, "", text, flags=FENCED).split()) for name, text in TEXTS.items()}
    assert {name: count for name, count in words.items() if count > 5 * 250} == {}
    assert len(TEXTS["README"].splitlines()) < 200


# Options


def tables() -> Iterator[tuple[str, str]]:
    """Give the rows of the tables of options, each with the command whose section it stands in; "" for the first."""
    for part in re.split(r"^## ", f"\n{TEXTS['commands']}", flags=re.MULTILINE):
        name = "" if part.startswith("\n") else part.partition("\n")[0]
        for table in re.findall(r"^\| option \| \|\n\| --- \| --- \|\n((?:\|.*\n)+)", part, re.MULTILINE):
            yield from ((name, row.replace("\\|", "¦")) for row in table.splitlines())


def written(row: str) -> list[str]:
    """Give the options of a row as they are written, without those in its second cell."""
    return [option.replace("¦", "|") for option in re.findall(r"`(-[^`]*)`", row.split("|")[1])]


def options(command: click.Command) -> Iterator[tuple[str, click.Option]]:
    """Give the options as --help shows them: each spelling with its value."""
    ctx = click.Context(command, info_name="x")
    for param in command.params:
        if isinstance(param, click.Option):
            taken = "" if param.is_flag else f" {param.make_metavar(ctx)}"
            choice = isinstance(param.type, click.Choice)
            yield from (
                (f"{one}{taken.replace(' [', ' ').rstrip(']') if choice else taken}", param) for one in param.opts
            )


@pytest.mark.parametrize("name", ["", *(name for name in COMMANDS if name != "psql")])
def test_the_options_of_the_manual_are_those_of_the_help(name: str) -> None:
    """Each command's table has every option of its --help, with its value and default, and no other."""
    command = COMMANDS[name] if name else cli.main
    rows = {option: row for where, row in tables() if where == name for option in written(row)}
    helps = set() if name else {"-h", "--help"}
    assert rows.keys() == {option for option, _ in options(command)} | helps
    for option, param in options(command):
        if param.show_default and "those of `up`" not in rows[option]:
            assert f"`{param.default}`" in rows[option].split("|")[2]


# Commands


def plain(text: str) -> list[str]:
    """Put figures, names and moments alike that differ from run to run; of lines that become alike, one remains."""
    for pattern, instead in (
        (r"^database: .*", "database: D"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "MOMENT"),
        (r"\d{14}(?=(_|  )add_phone_to_step)", "NOW"),
        (r"\d[\d.,]* ?(ms|s|min|kB|MB|bytes)\b", "SIZE"),
        (r"pid \d+", "pid P"),
        (r"[\d,]+ rows", "ROWS"),
        (r"\d+ (tries )?left", "LEFT"),
        (r"\w+@[\w.-]+", "USER"),
        (r"application [\w.-]+(, [\da-f.:]+)?", "application A"),  # and the client's address, of a server elsewhere
        (r"user \w+", "user U"),
        (r"  +", "  "),
    ):
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    lines = [line.rstrip() for line in text.splitlines()]
    return [line for before, line in zip([None, *lines], lines, strict=False) if line != before]


class Shell:
    """Runs commands as they are typed, with the test's database in the place of the one that is shown."""

    def __init__(self, migrate: Migrate, programs: Path) -> None:
        self.folder = migrate.folder
        self.url = migrate.url
        programs.mkdir()
        for name in ("outreach-migrate", "make"):  # the Makefile's targets are commands with --embedded
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" -m outreach_migrate "$@"\n')
            (programs / name).chmod(0o755)
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.env = {**os.environ, "PATH": path, "DATABASE_URL": self.url, "PYTHONUNBUFFERED": "1", "EDITOR": "true"}

    def typed(self, line: str) -> str:
        """Write a command as it is run here."""
        for shown in ("postgresql://app:secret@db.example/outreach", "host=db.example dbname=outreach user=app"):
            more = f"{self.url}{'&' if '?' in self.url else '?'}"
            line = line.replace(f"{shown}?", more).replace(shown, self.url)
        return line.replace("outreach-migrate --embedded ", "outreach-migrate ")

    def said(self, lines: list[str], *, at: int = 0, then: Callable[[], object] = int) -> list[str]:
        """Run them in one shell; give the output of each, on both streams. Call `then` after `at` lines of output."""
        script = "".join(f"status=$?; printf '\\1'; (exit $status)\n{self.typed(line)}\n" for line in lines)
        said = list[str]()
        with self._started(["bash", "-c", script]) as process:
            for line in process.stdout or ():
                said.append(line)
                if len(said) == at:
                    then()
        return "".join(said).split("\1")[1:]

    def succeeds(self, lines: list[str]) -> None:
        """Run them in one shell; each must end with 0."""
        with self._started(["bash", "-ec", "\n".join(map(self.typed, lines))]) as process:
            said, _ = process.communicate()
        assert process.returncode == 0, said

    def _started(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )


@pytest.fixture
def shell(migrate: Migrate, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A shell in the test's folder, on the test's database."""
    return Shell(migrate, tmp_path_factory.mktemp("shell") / "bin")


def project(migrate: Migrate) -> None:
    """Copy the project's own migrations."""
    shutil.copytree(ROOT / "sql", migrate.files)


def baseline(migrate: Migrate) -> None:
    """Copy them, and apply the first."""
    project(migrate)
    assert migrate("up", "--to", "20260101000000").exit_code == 0


def filled(migrate: Migrate) -> None:
    """Apply the first, and fill the table that the second alters, so that PostgreSQL knows of its rows."""
    baseline(migrate)
    with psycopg.connect(migrate.url, autocommit=True) as connection:
        connection.execute("""INSERT INTO "OutreachSequence" VALUES ('a', now(), now(), 'a', 'a')""")
        connection.execute("""
            INSERT INTO "OutreachStep" (id, "updatedAt", "stepOrder", status, "sequenceId")
            SELECT n::text, now(), n, 'a', 'a' FROM generate_series(1, 20000) AS n""")
        connection.execute('VACUUM ANALYZE "OutreachStep"')


def failing(migrate: Migrate) -> None:
    """Apply them all, and add one that fails."""
    project(migrate)
    assert migrate("up").exit_code == 0
    text = '\nalter table "OutreachStep" add column "phone" text;\n'
    text += 'create index "OutreachStep_phone_idx" on "OutreachStep" (phon);\n'
    migrate.write({"20260301120000_add_phone.sql": text})


def unfinished(migrate: Migrate) -> None:
    """Fail in the middle of a file without a transaction."""
    (migrate.folder / "1_a.sql").write_text("select 1;")
    (migrate.folder / "2_idx.sql").write_text("-- migrate: no-transaction\nselect 1;\nselect 2;\nselect 1/0;\n")
    assert migrate("--dir", ".", "up").exit_code == 1


def half_done(migrate: Migrate) -> None:
    """Have a backfill fail after its first range, because of a constraint that is dropped then."""
    folder = migrate.folder / "backfill"
    folder.mkdir()
    (folder / "1_steps.sql").write_text(
        "create table steps (id int primary key, done boolean, constraint early check (id < 1500 or done is null));"
        "insert into steps select generate_series(1, 6000); analyze steps;"
    )
    (folder / "2_done.sql").write_text(
        '-- migrate: batches of steps by "id"\nupdate steps set done = true where :range;\n'
    )
    assert migrate("--dir", "backfill", "up").exit_code == 1
    with psycopg.connect(migrate.url, autocommit=True) as connection:
        connection.execute("ALTER TABLE steps DROP CONSTRAINT early")


def repository(migrate: Migrate) -> None:
    """Have them on a branch of a git repository, where origin/main has the first only."""
    project(migrate)
    git = ("git", "-c", "user.name=a", "-c", "user.email=a")
    for command in (
        ("git", "init", "--quiet"),
        ("git", "add", "sql/20260101000000_outreach_baseline.sql"),
        (*git, "commit", "--quiet", "--message", "one"),
        ("git", "update-ref", "refs/remotes/origin/main", "HEAD"),
        ("git", "add", "."),
        (*git, "commit", "--quiet", "--message", "two"),
    ):
        subprocess.run(command, cwd=migrate.folder, check=True)


def coming(migrate: Migrate) -> None:
    """Have another tool's folder, and none of this program's."""
    for name in ("20240101000000_a", "20240102000000_b"):
        file = migrate.folder / "prisma" / "migrations" / name / "migration.sql"
        file.parent.mkdir(parents=True)
        file.write_text("select 1;\n")


def applied(migrate: Migrate) -> None:
    """Apply them all."""
    project(migrate)
    assert migrate("up").exit_code == 0


def tenants(migrate: Migrate) -> None:
    """Have them, and a schema for each of three tenants, with a table that names these."""
    project(migrate)
    with psycopg.connect(migrate.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE tenant (schema_name text, active bool DEFAULT true, size int)")
        for name in ("tenant_1", "tenant_2", "tenant_3"):
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
            connection.execute("INSERT INTO tenant VALUES (%s)", [name])


SCENES: dict[str, Callable[[Migrate], None]] = {  # by the first command of a block
    "outreach-migrate --embedded up": failing,
    'psql "$DATABASE_URL"': applied,
    "outreach-migrate types": applied,
    "outreach-migrate --dir . status": unfinished,
    "outreach-migrate --dir backfill status": half_done,
    "outreach-migrate import prisma/migrations": fix_outreach.prisma,
    "outreach-migrate rehearse": filled,
    "outreach-migrate fleet --schemas 'tenant_*' status": tenants,
    "outreach-migrate up --lock-timeout 2s": baseline,
}


def parts(block: str) -> tuple[list[str], list[str]]:
    """Cut a block into its command lines and their output."""
    found = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return found[::2], found[1::2]


TRANSCRIPTS = [(name, block) for name, text in TEXTS.items() for block in blocks("console", text)]


@pytest.mark.parametrize(("page", "block"), TRANSCRIPTS, ids=lambda text: parts(text)[0][0] if "\n" in text else text)
def test_a_transcript_is_as_it_stands(page: str, block: str, migrate: Migrate, shell: Shell, connect: Connect) -> None:
    """Run as they are written, the commands print the lines that are shown, but for figures, moments and paths."""
    lines, shown = parts(block)
    scene = next((scene for start, scene in SCENES.items() if lines[0].startswith(start)), project)
    scene(migrate)
    blocker = connect(application_name="psql")
    if "--lock-timeout" in lines[0]:
        blocker.execute("BEGIN")
        blocker.execute("""select count(*) from "OutreachStep" where status = 'x';""")
    waits = next((number for number, line in enumerate(shown[0].splitlines()) if " applied in " in line), 0)
    assert [plain(said) for said in shell.said(lines, at=waits, then=blocker.close)] == [plain(one) for one in shown]


def typed() -> Iterator[tuple[str, list[str]]]:
    """Give the commands that are shown without their output, by page: in blocks of the shell, and in CI's files."""
    for name, text in TEXTS.items():
        yield from ((name, block.splitlines()) for block in blocks("sh", text))
        workflow = "\n".join(blocks("yaml", text))
        if found := re.findall(r"(?:run|entry): (outreach-migrate .*)", workflow):
            yield name, found


@pytest.mark.parametrize(("page", "lines"), list(typed()), ids=lambda value: "" if isinstance(value, str) else value[0])
def test_a_command_works_as_typed(page: str, lines: list[str], migrate: Migrate, shell: Shell) -> None:
    """Each ends with 0, in a git repository where origin/main has the first of the project's migrations."""
    (coming if " import " in lines[0] else tenants if "tenant" in lines[0] else repository)(migrate)
    shell.succeeds(lines)


def test_commands_for_make_and_pip_are_those_of_the_project() -> None:
    """Commands that can't be run within the tests: targets of the Makefile, and extras of the package."""
    makefile, pyproject = ((ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "pyproject.toml"))
    everything = "\n".join(TEXTS.values())
    targets = set(re.findall(r"(?:\$ |^    |`)make ([a-z-]+)", everything, re.MULTILINE))
    assert {"up", "test", "status", "bench"} <= targets <= set(re.findall(r"^([a-z-]+):.*##", makefile, re.MULTILINE))
    assert "$(RUN) up" in makefile
    assert "$(RUN) status" in makefile
    assert "RUN := $(BIN)/outreach-migrate --embedded" in makefile
    extras = set(re.findall(r"pip install '\.\[(\w+)\]'", everything))
    assert extras == set(re.findall(r"^(\w+) = \[", pyproject.partition("optional-dependencies]")[2], re.MULTILINE)[:2])


OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")


def test_options_in_the_texts_exist() -> None:
    """An option that is named in code is one of the command line's, or the plug-in's."""
    known = {option for one in (cli.main, *COMMANDS.values()) for param in one.params for option in param.opts}
    text = "\n".join(text for name, text in TEXTS.items() if name != "benchmarks")
    code = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=FENCED))
    named = {option for one in code for option in OPTION.findall(one)}
    known |= {*OPTION.findall((PACKAGE / "testing" / "plugin.py").read_text(encoding="utf-8"))}  # pytest's
    assert named - known - {"--help"} == set()


# Python


class App:
    """As much of FastAPI as the manual's examples use: it holds the lifespan."""

    def __init__(self, *, lifespan: Callable[[App], AbstractAsyncContextManager[None]]) -> None:
        self.lifespan = lifespan

    async def starts(self) -> None:
        async with self.lifespan(self):
            pass


@pytest.fixture
def python(migrate: Migrate, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], dict[str, Any]]:
    """A function that runs a block of Python after those before it, with a stand-in for FastAPI, which needs none."""
    project(migrate)
    monkeypatch.setenv("DATABASE_URL", migrate.url)
    fastapi = ModuleType("fastapi")
    fastapi.FastAPI = App  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fastapi", fastapi)
    names: dict[str, Any] = {}

    def run(block: str) -> dict[str, Any]:
        exec(compile(block, "python.md", "exec"), names)
        return names

    return run


def test_the_functions_work_as_shown(
    python: Callable[[str], dict[str, Any]], migrate: Migrate, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first example applies the pending files; the second prints the place where a file failed, and the outcome."""
    first, second, *_ = blocks("python", TEXTS["python"])
    python(first)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:2]] == ["20260101000000", "20260115000000"]
    assert lines[2:] == ["[]"]
    migrate.write({"20260301120000_add_phone.sql": "SELECT nix"})
    with pytest.raises(errors.StatementError):
        python(second)
    assert "20260301120000_add_phone.sql:1:8 42703 None\nnothing 0\n" in capsys.readouterr().out


def test_the_readmes_example_migrates(python: Callable[[str], dict[str, Any]], migrate: Migrate) -> None:
    """As an application calls it."""
    python(blocks("python", TEXTS["README"])[0])
    assert migrate("status", "--check").exit_code == 0


def test_an_application_starts_as_shown(
    python: Callable[[str], dict[str, Any]], migrate: Migrate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refusing and waiting end the start while nobody has migrated; afterwards all three start."""
    at_start, waiting, refusing = blocks("python", TEXTS["python"])[2:]
    migrates = python(at_start)["app"]
    refuses = python(refusing)["app"]
    waits = python(waiting.replace("wait=60", "wait=0.1"))["app"]
    for app in (refuses, waits):
        with pytest.raises(comparison.Behind):
            asyncio.run(app.starts())
    asyncio.run(migrates.starts())
    assert migrate("status", "--check").exit_code == 0
    for app in (refuses, waits, migrates):
        asyncio.run(app.starts())


# Links


def anchors(text: str) -> set[str]:
    """Give the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS)
def test_no_link_is_dead(page: str) -> None:
    """Links lead to files and headings that are there; every page that is named can be printed."""
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            file = PAGES[page].parent / path if path else PAGES[page]
            assert file.is_file(), target
            assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target
    assert set(re.findall(r"outreach-migrate help ([a-z-]+)", TEXTS[page])) <= {*manual.SUBJECTS}


def test_pages_named_in_the_program_exist() -> None:
    """Errors and docstrings name pages that can be printed."""
    sources = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    named = {name for text in sources for name in re.findall(r"outreach-migrate help ([a-z-]+)", text)}
    assert named <= {*manual.SUBJECTS}
    assert set(re.findall(r'(?:return|[:,]) "([a-z-]+)"', (PACKAGE / "report" / "pages.py").read_text())) <= {
        *manual.SUBJECTS
    }


@pytest.mark.parametrize("page", TEXTS)
def test_tests_and_files_named_exist(page: str) -> None:
    """A guarantee's test is there, by its module and name; so is each module, folder and variable of the tests."""
    text = re.sub(r"^```python\n.*?^```", "", TEXTS[page], flags=FENCED)
    for module, names in re.findall(r"(test_\w+)((?:(?::|,) `\w+…?`)*)", text):
        text = (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8")
        for name in re.findall(r"`(\w+)…?`", names):
            assert f"def test_{name}" in text, (module, name)
    for path in re.findall(r"`((?:src|tests|\.github|\.ci)/[\w./-]+|\w+/\w+)`", TEXTS[page]):
        places = (ROOT / path, PACKAGE / path, PACKAGE / f"{path}.py")
        assert any(place.exists() for place in places), path
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("fix_*.py"))
    assert all(name in tests for name in re.findall(r"`(OUTREACH_TEST_\w+)", TEXTS[page]))


# Rooms, and JSON


def test_the_rooms_are_those_of_the_import_contract() -> None:
    """The README has them in the contract's order, from above."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    table = TEXTS["README"].partition("| room | is for |\n| --- | --- |\n")[2].partition("\n\n")[0]
    rooms = [" | ".join(re.findall(r"`(\w+)`", row.split("|")[1])) for row in table.splitlines()]
    assert rooms == contracts[0]["layers"]


def kinds(parent: type[errors.MigrateError]) -> Iterator[str]:
    """Name a class of errors, and those below it that are defined by now."""
    yield parent.__name__
    for child in parent.__subclasses__():
        yield from kinds(child)


def test_the_kinds_of_errors_are_those_of_the_program() -> None:
    """The page has every class of errors that a command can end with, those of the rooms as well."""
    [listed] = re.findall(r"^- `kind` is (.*?)^- ", TEXTS["json"], FENCED)
    inside = {"Refused", "Behind", "Hidden"}  # a parent, the front door's, and one that a scratch database handles
    known = {*kinds(errors.MigrateError), Drifted.__name__, Untrue.__name__}
    assert {*re.findall(r"`([A-Z]\w+)`", listed)} == known - inside | {"OSError"}


def test_the_document_of_the_manual_has_the_real_ones_keys(migrate: Migrate) -> None:
    """The JSON of a run that failed has the keys that stand there, in their order, and the same values where it can."""
    example = json.loads(blocks("json", TEXTS["json"])[0])
    text = "create table step ();\n\ncreate index i on step (phon);\n"
    document = migrate("--json", "up", files={"20260301120000_add_phone.sql": text}).json
    assert list(document) == list(example)
    assert list(document["error"]) == list(example["error"])
    assert list(document["error"]["outcome"]) == list(example["error"]["outcome"])
    assert list(document["pending"][0]) == list(example["pending"][0])
    same = ("kind", "message", "path", "line", "column", "sqlstate", "state", "version")
    assert [document["error"][key] for key in same] == [example["error"][key] for key in same]
