"""The README agrees with the program: its tables of options, and its examples of output."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import psycopg
import pytest
from fix_cli import Migrate
from fix_servers import Connect

from outreach_migrate import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


# Options


def tables() -> Iterator[tuple[str, str]]:
    """Give the rows of the tables of options, each with the command whose section it stands in; "" for the first."""
    section = README.partition("\n## Commands\n")[2].partition("\n## ")[0]
    for part in re.split(r"^### ", f"\n{section}", flags=re.MULTILINE):
        name = "" if part.startswith("\n") else part.partition("\n")[0]
        for table in re.findall(r"^\| option \| \|\n\| --- \| --- \|\n((?:\|.*\n)+)", part, re.MULTILINE):
            yield from ((name, row.replace("\\|", "¦")) for row in table.splitlines())


def written(row: str) -> list[str]:
    """Give the options of a row as they are written, without what stands in its second cell."""
    return [option.replace("¦", "|") for option in re.findall(r"`(-[^`]*)`", row.split("|")[1])]


def options(command: click.Command) -> Iterator[tuple[str, click.Option]]:
    """Give the options as --help shows them: each spelling with what it takes."""
    ctx = click.Context(command, info_name="x")
    for param in command.params:
        if isinstance(param, click.Option):
            taken = "" if param.is_flag else f" {param.make_metavar(ctx)}"
            choice = isinstance(param.type, click.Choice)
            yield from (
                (f"{one}{taken.replace(' [', ' ').rstrip(']') if choice else taken}", param) for one in param.opts
            )


@pytest.mark.parametrize("name", ["", *(name for name in cli.main.commands if name != "psql")])
def test_the_options_of_the_readme_are_those_of_the_help(name: str) -> None:
    """Each command's table has every option of its --help, with what it takes and its default, and no other."""
    command = cli.main.commands[name] if name else cli.main
    rows = {option: row for where, row in tables() if where == name for option in written(row)}
    helps = set() if name else {"-h", "--help"}
    assert rows.keys() == {option for option, _ in options(command)} | helps
    for option, param in options(command):
        if param.show_default and "those of `up`" not in rows[option]:
            assert f"`{param.default}`" in rows[option].split("|")[2]


# Examples


def plain(text: str) -> list[str]:
    """Put figures, names and moments alike that differ from run to run; of lines that become alike, one remains."""
    for pattern, instead in (
        (r"^database: .*", "database: D"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "MOMENT"),
        (r"\d[\d.,]* ?(ms|s|min|kB|MB|bytes)\b", "SIZE"),
        (r"pid \d+", "pid P"),
        (r"[\d,]+ rows", "ROWS"),
        (r"\d+ (tries )?left", "LEFT"),
        (r"\w+@[\w.-]+", "USER"),
        (r"application [\w.-]+", "application A"),
        (r"user \w+", "user U"),
        (r"  +", "  "),
    ):
        text = re.sub(pattern, instead, text, flags=re.MULTILINE)
    lines = [line.rstrip() for line in text.splitlines()]
    return [line for before, line in zip([None, *lines], lines, strict=False) if line != before]


def commands(example: str) -> list[tuple[list[str], str]]:
    """Cut an example into its command lines, as arguments, each with its output."""
    parts = re.split(r"^\$ (.*)\n", example, flags=re.MULTILINE)[1:]
    return [
        (line.removeprefix("outreach-migrate").split(), out) for line, out in zip(parts[::2], parts[1::2], strict=True)
    ]


def said(migrate: Migrate, arguments: list[str], *, at: int, then: Callable[[], object]) -> list[str]:
    """Run a command, give the lines that it says, on both streams, and do something `then`, when it has said some."""
    words = [word for word in arguments if word not in {"make", "--embedded"}]  # on the test's server
    command = [sys.executable, "-m", "outreach_migrate", *words]
    env = {**os.environ, "DATABASE_URL": migrate.url, "PYTHONUNBUFFERED": "1"}
    lines: list[str] = []
    with subprocess.Popen(
        command, cwd=migrate.folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    ) as process:
        for line in process.stdout or ():
            lines.append(line)
            if len(lines) == at:
                then()
    return plain("".join(lines))


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


def applied(migrate: Migrate) -> None:
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


SCENES: dict[str, Callable[[Migrate], None]] = {
    "make up": project,
    "outreach-migrate --embedded up": applied,
    "outreach-migrate --dir . status": unfinished,
    "outreach-migrate rehearse": filled,
    "outreach-migrate up --lock-timeout 2s": baseline,
}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.partition("\n")[0].removeprefix("$ "))
def test_an_example_is_as_it_stands(example: str, migrate: Migrate, connect: Connect) -> None:
    """Run as they are written, the commands say what the README says they do, but for figures and moments."""
    first = example.partition("\n")[0].removeprefix("$ ")
    SCENES[first](migrate)
    blocker = connect(application_name="psql")
    if "--lock-timeout" in first:
        blocker.execute("BEGIN")
        blocker.execute("""select count(*) from "OutreachStep" where status = 'x';""")
    for arguments, out in commands(example):
        waits = next((number for number, line in enumerate(out.splitlines()) if " applied in " in line), 0)
        assert said(migrate, arguments, at=waits, then=blocker.close) == plain(out)


def test_the_document_of_the_readme_has_the_real_ones_keys(migrate: Migrate) -> None:
    """The JSON of a run that failed has the keys that stand there, in their order, and the same values where it can."""
    example = json.loads(re.findall(r"^```json\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[0])
    text = "create table step ();\n\ncreate index i on step (phon);\n"
    document = migrate("--json", "up", files={"20260301120000_add_phone.sql": text}).json
    assert list(document) == list(example)
    assert list(document["error"]) == list(example["error"])
    assert list(document["error"]["outcome"]) == list(example["error"]["outcome"])
    assert list(document["pending"][0]) == list(example["pending"][0])
    same = ("kind", "message", "path", "line", "column", "sqlstate", "state", "version")
    assert [document["error"][key] for key in same] == [example["error"][key] for key in same]
