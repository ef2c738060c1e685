"""Wrong usage: exit code 2, as JSON too, and nothing of a URL in the wrong place is ever quoted."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from fix_cli import COMMANDS, Migrate, Result, called

from outreach_migrate import cli
from outreach_migrate.cli import project

SECRET = "Zk9Qx7Wv"
URL = f"postgresql://app:{SECRET}@127.0.0.1:1/db"
URLS = [
    URL,
    URL.removeprefix("postgresql://"),
    URL.replace("://", ":/"),
    f"postgres://127.0.0.1/db?password={SECRET}",
    f"postgresql+psycopg://app:{SECRET}%@[::1]/db",
    f"jdbc:{URL}",
    f'"{URL}"',
    f"host=127.0.0.1 port=1 user=app password={SECRET}",
    f"user=app PASSWORD = '{SECRET}'",
]
GROUP = cli.main
SCOPES: list[tuple[list[str], click.Command]] = [([], GROUP), *((name.split(), one) for name, one in COMMANDS.items())]


def name(param: click.Parameter) -> str:
    return max(param.opts, key=len)


def lines() -> Iterator[tuple[str, ...]]:
    """Give a command line for every option and argument of every command, with {} where the URL goes."""
    for words, command in SCOPES:
        rest = ["up"] if isinstance(command, click.Group) else []
        for param in command.params:
            if not isinstance(param, click.Option):
                yield (*words, "{}")
            elif param.name != "database":
                # of a flag the URL is an argument too many
                yield from ((*words, option, "{}", *rest) for option in param.opts)
                yield (*words, f"{name(param)}={{}}", *rest)
        if not any(isinstance(param, click.Argument) for param in command.params):
            yield (*words, "{}", *rest)
        yield (*words, "--{}", *rest)
        yield (*words, "--nonsense={}", *rest)


def settings() -> Iterator[tuple[str, str]]:
    """Give every table of pyproject.toml with each of its keys."""
    for words, command in SCOPES:
        for param in command.params:
            if isinstance(param, click.Option) and param.name not in {"database", "version"}:
                yield ".".join(["tool.outreach-migrate", *words]), name(param).lstrip("-")


def pieces(secret: str) -> list[str]:
    return [secret[start : start + 4] for start in range(len(secret) - 3)]


def leaks(folder: Path, ended: Result) -> list[str]:
    """Look for pieces of the secret in a command's output, and in the names and texts of the folder's new files."""
    files = [path for path in folder.rglob("*") if path.name != "pyproject.toml"]
    everything = [
        ended.output,
        ended.database or "",
        *map(str, files),
        *(path.read_text() for path in files if path.is_file()),
    ]
    return [piece for piece in pieces(SECRET) if any(piece.lower() in one.lower() for one in everything)]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """A function that runs the command line in an empty folder, where no database is named."""
    monkeypatch.chdir(tmp_path)
    return called


@pytest.mark.parametrize("arguments", list(lines()), ids=" ".join)
def test_a_url_in_the_wrong_place_is_never_quoted(
    arguments: tuple[str, ...], run: Callable[..., Result], tmp_path: Path
) -> None:
    """No option or argument that gets a database's URL prints its login, in any output or file."""
    (tmp_path / "sql").mkdir()
    (tmp_path / "sql" / "1_a.sql").write_text("SELECT 1;")
    for url in URLS:
        for more in ([], ["--json"], ["-v"]):
            ended = run(*more, *(word.replace("{}", url) for word in arguments))
            helps = {"-h", "--help", "-V", "--version"} & set(arguments)
            assert ended.exit_code == 2 or (helps and ended.exit_code == 0), (ended, url)
            assert leaks(tmp_path, ended) == [], url
            assert [path.name for path in (tmp_path / "sql").iterdir()] == ["1_a.sql"]


@pytest.mark.parametrize(
    "arguments",
    [
        *(["up", URL], [URL, "up"], ["--wait", URL, "up"], ["up", "--to", URL], ["up", "--lock-timeout", URL]),
        *(["check", URL], ["status", "--check", URL], ["new", URL], ["--dir", URL, "up"], ["psql", URL]),
        *(["check", "--base", URL], ["new", "add", f"password={SECRET}"]),
    ],
)
def test_the_place_for_a_url_is_named(arguments: list[str], run: Callable[..., Result]) -> None:
    """A URL where none belongs is refused with the option that takes it."""
    ended = run(*arguments)
    assert ended.exit_code == 2
    assert "give it as --database" in ended.stderr


@pytest.mark.parametrize(
    "arguments", [["new", "add password to users"], ["new", "https", "and", "a: b"], ["check", "--base", "HEAD@{1}"]]
)
def test_what_is_no_url_is_taken(arguments: list[str], run: Callable[..., Result], tmp_path: Path) -> None:
    """Words that only remind of one pass."""
    (tmp_path / "sql").mkdir()
    assert "--database" not in run(*arguments).stderr


def test_psql_may_be_given_any_query(migrate: Migrate) -> None:
    """A URL within a query, or in a variable of psql's, is the query's own."""
    ended = migrate.process("psql", "-XAt", "-v", "at=https://a:b@c", "-c", "SELECT 'postgresql://a:b@c/d'")
    assert (ended.exit_code, ended.stdout) == (0, "postgresql://a:b@c/d\n")


@pytest.mark.parametrize(("table", "key"), list(settings()))
def test_a_url_in_pyproject_is_never_quoted(table: str, key: str, run: Callable[..., Result], tmp_path: Path) -> None:
    """As the value of a key that takes none, or as a key, it is not printed."""
    words = table.split(".")[2:] or ["up"]
    if words == ["new"]:
        words.append("name")
    for url in map(json.dumps, URLS):
        for line in (
            f"{key} = {url}",
            f"{url} = 1",
            f"{key} = [{url}]",
            f"{key} = {{{url} = 1}}",
            f"{key} = {url} {url}",
        ):
            (tmp_path / "pyproject.toml").write_text(f"[{table}]\n{line}\n")
            ended = run(*words)
            assert ended.exit_code == 2, (line, ended)
            assert leaks(tmp_path, ended) == [], line
    (tmp_path / "pyproject.toml").write_text(f"[{table}.{json.dumps(URL)}]\na = 1\n")
    assert leaks(tmp_path, run(*words)) == []


@pytest.mark.parametrize(
    "variable", [*project.variables(GROUP), "PGHOST", "PGDATABASE", "PGPORT", "PGUSER", "PGSERVICE"]
)
def test_a_url_in_a_variable_is_never_quoted(variable: str, run: Callable[..., Result], tmp_path: Path) -> None:
    """Nor is one in any variable of the program's, or of libpq's, that takes none."""
    if variable == "OUTREACH_MIGRATE_DATABASE":
        return
    scope = variable.removeprefix("OUTREACH_MIGRATE_").lower().replace("_", " ")
    words = max((name for name in COMMANDS if scope.startswith(f"{name} ")), key=len, default="up").split()
    words += {"new": ["name"], "fleet": ["status"]}.get(words[-1], [])
    (tmp_path / "sql").mkdir()
    for url in URLS:
        ended = run(*words, **{variable: url})
        assert ended.exit_code == 2, (url, ended)
        assert leaks(tmp_path, ended) == [], url


@pytest.mark.parametrize("conninfo", [f"dbname={URL}", f"host={URL}", f"user={URL} dbname=x"])
def test_a_url_within_key_value_pairs_is_never_quoted(conninfo: str, migrate: Migrate) -> None:
    """A URL as the value of one of libpq's own keywords is printed neither by the program nor by the server."""
    ended = migrate("status", files={"1_a.sql": "SELECT 1;"}, url=conninfo)
    assert ended.exit_code == 2
    assert leaks(migrate.folder, ended) == []


# One document


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["--json", "up", "--nonsense"], "up"),
        (["up", "--json"], "up"),
        (["--json", "--nonsense", "up"], "up"),
        (["--json", "--wait", "soon", "status"], "status"),
        (["--json", "nonsense"], None),
        (["--json"], None),
        (["--json", "--table", "a.b.c", "status"], "status"),
        (["--json", "--database", "nonsense", "up"], "up"),
        (["--json", "--database", "x", "--embedded", "up"], "up"),
        (["--json", "up", "--to", "99"], "up"),
        (["--json", "up", "--from-start", "1"], "up"),
        (["--json", "rehearse", "--to", "99"], "rehearse"),
        (["check", "--format", "json", "--nonsense"], "check"),
        (["--json", "check", "elsewhere.sql"], "check"),
    ],
)
def test_wrong_usage_is_one_document(arguments: list[str], command: str | None, migrate: Migrate) -> None:
    """With JSON asked for, every wrong usage gives a document on stdout, its kind UsageError, and exit code 2."""
    (migrate.folder / "elsewhere.sql").touch()
    ended = migrate(*arguments, files={"1_a.sql": "SELECT 1;"})
    assert ended.exit_code == 2
    assert (ended.json["command"], ended.json["ok"], ended.json["error"]["kind"]) == (command, False, "UsageError")
    assert ended.json["error"]["message"].rstrip(".") in ended.stderr


@pytest.mark.parametrize(
    ("toml", "env"),
    [
        ("[tool.outreach-migrate]\ntabel = 'x'\n", {"OUTREACH_MIGRATE_JSON": "1"}),
        ("[tool.outreach-migrate\n", {"OUTREACH_MIGRATE_JSON": "true"}),
        ("[tool.outreach-migrate]\njson = true\nwait = 'soon'\n", {}),
        ("", {"OUTREACH_MIGRATE_JSON": "1", "OUTREACH_MIGRATE_TABEL": "x"}),
    ],
)
def test_a_wrong_configuration_is_one_document(
    toml: str, env: dict[str, str], run: Callable[..., Result], tmp_path: Path
) -> None:
    """So do pyproject.toml and variables, which may ask for JSON as well."""
    (tmp_path / "pyproject.toml").write_text(toml)
    ended = run("up", **env)
    assert (ended.exit_code, ended.json["error"]["kind"]) == (2, "UsageError")


# Options


@pytest.mark.parametrize(("command", "argument"), [("new", "NAME..."), ("import", "DIR"), ("accept", "VERSION...")])
def test_an_argument_that_is_missing_is_named(command: str, argument: str, run: Callable[..., Result]) -> None:
    """click words that error itself, without a message of its own, as one for a URL has none."""
    done = run(command)
    assert (done.exit_code, f"Missing argument '{argument}'" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("up --database x", "--database stands before the command: main --database …"),
        ("fleet up --set a=b", "--set stands before the command: main --set …"),
        ("fleet --table x up", "--table stands before the command: main --table …"),
        ("fleet up --schemas x", "--schemas stands before the command: main fleet --schemas …"),
        ("fleet --canary 1 up", "--canary stands after the command: main fleet up --canary …"),
        ("fleet -j 8 up", "-j stands after the command: main fleet COMMAND -j …"),
        ("--lock-retries 5 up", "--lock-retries stands after the command: main up --lock-retries …"),
    ],
)
def test_an_option_on_the_wrong_side_of_the_command_is_put_right(
    words: str, place: str, run: Callable[..., Result]
) -> None:
    """An option of a group that stands after the command, or the other way round: the error says where it belongs."""
    ended = run(*words.split())
    assert ended.exit_code == 2
    assert place in ended.stderr


def test_a_variable_that_sets_nothing_is_reported(run: Callable[..., Result]) -> None:
    """A misspelt variable is an error with the one that was meant, and keeps nobody from the help."""
    ended = run("status", OUTREACH_MIGRATE_TABEL="ops.history")
    assert ended.exit_code == 2
    assert "OUTREACH_MIGRATE_TABEL sets no option; did you mean OUTREACH_MIGRATE_TABLE?" in ended.stderr
    assert run("status", "--help", OUTREACH_MIGRATE_TABEL="x").exit_code == 0


@pytest.mark.parametrize("name", ["outreach_migrate", "Outreach-Migrate", "outreachmigrate"])
def test_a_misspelt_table_of_pyproject_is_reported(name: str, run: Callable[..., Result], tmp_path: Path) -> None:
    """[tool.outreach_migrate] would set nothing: an error with the right name."""
    (tmp_path / "pyproject.toml").write_text(f"[tool.{name}]\ndir = 'db'\n")
    ended = run("status")
    assert ended.exit_code == 2
    assert f"pyproject.toml: [tool.{name}] must be written [tool.outreach-migrate]" in ended.stderr


@pytest.mark.parametrize("words", [words for words, _ in SCOPES], ids=" ".join)
def test_help_fits_a_terminal(words: list[str], run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    """No line is longer than 80 columns, at any width of the terminal that has as many, and none is cut."""
    for columns in ("80", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        shown = run(*words, "--help").stdout
        assert max(map(len, shown.splitlines())) <= 80
        assert "..." not in shown.replace("]...", "").replace("ARGS]...", "").replace("NAME...", "").replace(
            "VERSION...", ""
        )


def test_every_option_of_a_command_is_a_variable(run: Callable[..., Result]) -> None:
    """The names of the variables are the options' own: --format is …_FORMAT."""
    assert run("check", OUTREACH_MIGRATE_CHECK_FORMAT="nonsense").exit_code == 2
    assert "'nonsense' is none of" in run("adopt", OUTREACH_MIGRATE_ADOPT_FROM="nonsense").stderr
    assert {"OUTREACH_MIGRATE_DIR", "OUTREACH_MIGRATE_UP_LOCK_TIMEOUT", "OUTREACH_MIGRATE_CHECK_FORMAT"} <= set(
        project.variables(GROUP)
    )
    assert not any(name in os.environ for name in project.variables(GROUP))
