"""Which database: the sources of its name, the forms of a URL, and the parts of it that are never printed."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import fix_servers
import psycopg
import pytest
from fix_cli import Migrate, Rows
from fix_private_server import PrivateServer
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from outreach_migrate import errors
from outreach_migrate.postgres import dsn

NOWHERE = "postgresql://app@127.0.0.1:1/nowhere"  # nobody listens there
WHO = "CREATE TABLE who AS SELECT current_setting('application_name') AS application, current_schema() AS schema;"

WORD = "Zk9Q{}x7Wv"  # a password; none of its pieces stands in any message for another reason


def pieces(password: str) -> list[str]:
    """All there is of a password in four characters."""
    return [password[start : start + 4] for start in range(len(password) - 3)]


def libpq(url: str) -> dict[str, str]:
    """A URL as libpq's variables."""
    names = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    return {names[name]: str(value) for name, value in conninfo_to_dict(url).items() if name in names}


# Precedence


def test_the_nearest_name_of_a_database_counts(migrate: Migrate, tmp_path: Path) -> None:
    """A flag beats OUTREACH_MIGRATE_DATABASE, which beats DATABASE_URL, then pyproject.toml, then libpq's own."""
    files = ["SELECT 1;"]
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(f"[tool.outreach-migrate]\ndatabase = '{NOWHERE}'\n")
    nowhere = {"OUTREACH_MIGRATE_DATABASE": NOWHERE, "DATABASE_URL": NOWHERE}
    assert migrate("--database", migrate.url, "status", files=files, **nowhere).exit_code == 0
    assert migrate("status", OUTREACH_MIGRATE_DATABASE=migrate.url, DATABASE_URL=NOWHERE).exit_code == 0
    assert migrate("status", DATABASE_URL=migrate.url, PGDATABASE="nowhere").exit_code == 0
    assert migrate("status", url="", files=files, **libpq(migrate.url)).exit_code == 1
    pyproject.write_text(f"[tool.outreach-migrate]\ndatabase = '{migrate.url}'\n")
    assert migrate("status", url="", PGDATABASE="nowhere").exit_code == 0
    pyproject.write_text("")
    empty = {"OUTREACH_MIGRATE_DATABASE": "", "DATABASE_URL": ""}
    assert migrate("status", files=files, **empty, **libpq(migrate.url)).exit_code == 0


def test_a_service_names_a_database(migrate: Migrate, tmp_path: Path) -> None:
    """PGSERVICE alone is enough; a service that the file doesn't have is an error at once."""
    migrate.write(["SELECT 1;"])
    service = tmp_path / "services.conf"
    known = conninfo_to_dict(migrate.url).items()
    service.write_text("[mine]\n" + "".join(f"{name}={value}\n" for name, value in known))
    assert migrate("status", url="", PGSERVICE="mine", PGSERVICEFILE=str(service)).exit_code == 0
    missing = migrate("--wait", "60", "status", url="", PGSERVICE="other", PGSERVICEFILE=str(service))
    assert missing.exit_code == 1
    assert 'definition of service "other" not found' in missing.stderr


@pytest.mark.parametrize("command", ["up", "status", "psql"])
def test_without_a_name_all_the_ways_to_give_one_are_reported(migrate: Migrate, command: str, tmp_path: Path) -> None:
    """There is no silent default: neither libpq's nor a private server."""
    migrate.write({"1_a.sql": "SELECT 1;"})
    ended = migrate(command, url="", PGPASSWORD="alone", PGSSLMODE="prefer")
    assert ended.exit_code == 2
    for way in ("--database", "OUTREACH_MIGRATE_DATABASE", "DATABASE_URL", "PGHOST", "PGSERVICE", "--embedded"):
        assert way in ended.stderr
    assert not (tmp_path / ".outreach").exists()


def test_without_a_name_the_document_has_the_error(migrate: Migrate) -> None:
    """With --json, wrong usage that a command finds is no success."""
    migrate.write({"1_a.sql": "SELECT 1;"})
    ended = migrate("--json", "up", url="")
    assert ended.exit_code == 2
    assert '"ok": false' in ended.stdout


def test_a_nearer_database_beats_embedded(migrate: Migrate, tmp_path: Path, rows: Rows) -> None:
    """`embedded = true` in pyproject.toml counts only if nothing else names a database, such as DATABASE_URL."""
    migrate.write(["CREATE TABLE t (id int);"])
    (tmp_path / "pyproject.toml").write_text("[tool.outreach-migrate]\nembedded = true\n")
    assert migrate("up", DATABASE_URL=migrate.url).exit_code == 0
    assert rows("SELECT to_regclass('t')::text") == [("t",)]
    assert not (tmp_path / ".outreach").exists()


# Options


@pytest.mark.parametrize(
    ("toml", "env", "flags", "used"),
    [
        ("", {}, [], "public.schema_migrations"),
        ("table = 'file'", {}, [], "public.file"),
        ("table = 'file'", {"OUTREACH_MIGRATE_TABLE": "env"}, [], "public.env"),
        ("table = 'file'", {"OUTREACH_MIGRATE_TABLE": "env"}, ["--table", "flag"], "public.flag"),
    ],
)
def test_a_flag_beats_the_environment_which_beats_the_file(
    migrate: Migrate, toml: str, env: dict[str, str], flags: list[str], used: str, rows: Rows
) -> None:
    """An option is taken from the nearest place that has it."""
    (migrate.folder / "pyproject.toml").write_text(f"[tool.outreach-migrate]\n{toml}\n")
    assert migrate(*flags, "up", files=["SELECT 1;"], **env).exit_code == 0
    assert rows("SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname = 'public'") == [(used,)]


@pytest.mark.parametrize(
    ("name", "value", "command", "shows"),
    [
        ("DIR", "elsewhere", "status", "elsewhere"),
        ("JSON", "1", "status", '"command": "status"'),
        ("WAIT", "soon", "status", "'soon' is not a duration"),
        ("TABLE", "a.b.c", "status", "not a table's name: a.b.c"),
        ("UP_TO", "7", "up", "no migration has version 7"),
        ("UP_DRY_RUN", "1", "up", "Nothing was run"),
        ("UP_LOCK_TIMEOUT", "soon", "up", "'soon' is not a duration"),
        ("STATUS_CHECK", "maybe", "status", "'maybe' is not a valid boolean"),
    ],
)
def test_every_option_is_a_variable(migrate: Migrate, name: str, value: str, command: str, shows: str) -> None:
    """OUTREACH_MIGRATE_<OPTION> sets an option, OUTREACH_MIGRATE_<COMMAND>_<OPTION> one of a command."""
    assert shows in migrate(command, files=["SELECT 1;"], **{f"OUTREACH_MIGRATE_{name}": value}).output


@pytest.mark.parametrize(
    ("toml", "shows"),
    [
        ("[tool.outreach-migrate]\ndir = 'elsewhere'", "elsewhere"),
        ("[tool.outreach-migrate]\njson = true", '"command": "up"'),
        ("[tool.outreach-migrate]\nwait = 0.5\n[tool.outreach-migrate.up]\ndry-run = true", "Nothing was run"),
        ("[tool.outreach-migrate.up]\nto = 7", "no migration has version 7"),
        ("[tool.outreach-migrate]\ntabel = 'x'", "[tool.outreach-migrate] has an unknown key: tabel"),
        ("[tool.outreach-migrate.up]\nlock = 1", "[tool.outreach-migrate.up] has an unknown key: lock"),
        ("[tool.outreach-migrate]\nup = 1", "[tool.outreach-migrate.up] must be a table"),
        ("[tool.outreach-migrate]\ntable = ['x']", "[tool.outreach-migrate] has a list as table"),
        ("[tool]\noutreach-migrate = 1", "[tool.outreach-migrate] must be a table"),
        ("[tool.outreach-migrate", "cannot read pyproject.toml"),
    ],
)
def test_pyproject_sets_options(toml: str, shows: str, migrate: Migrate) -> None:
    """Options and commands' options stand in pyproject.toml by their names; any other key is an error."""
    (migrate.folder / "pyproject.toml").write_text(toml)
    migrate.write({"1_a.sql": "SELECT 1;"})
    ended = migrate("up")
    assert shows in ended.stdout + ended.stderr
    assert ended.exit_code == (2 if re.search("pyproject", ended.stderr) else ended.exit_code)
    assert "Traceback" not in ended.stderr


# Forms


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg", "postgresql+asyncpg"])
def test_schemes_of_urls_work(scheme: str, database: str, migrate: Migrate) -> None:
    """libpq's schemes and SQLAlchemy's name the same database."""
    url = database.replace("postgresql", scheme, 1)
    assert migrate("up", files={"1_a.sql": "SELECT 1;"}, url=url).exit_code == 0
    assert migrate("up").stdout.startswith("Nothing is pending")


def test_key_value_pairs_work(database: str, migrate: Migrate) -> None:
    """A URL's other form names the same database, with a line's end behind it too, as a secret's file has."""
    assert migrate("up", files={"1_a.sql": "SELECT 1;"}, url=make_conninfo(database)).exit_code == 0
    assert migrate("up", url=database + "\n").stdout.startswith("Nothing is pending")


PRISMA = "connection_limit=5&pool_timeout=2&pgbouncer=true&socket_timeout=3&statement_cache_size=0&sslaccept=strict"


@pytest.mark.parametrize("schema", ["app", "Sales & Co", 'a"b\\c'])
@pytest.mark.parametrize("table", [(), ("--table", "hist"), ("--table", "ops.hist")])
def test_prismas_schema_is_where_everything_goes(
    schema: str, table: tuple[str, ...], database: str, migrate: Migrate, rows: Rows
) -> None:
    """`schema=x` is the search path and the table's schema, made where it is absent; other parameters are dropped."""
    url = f"{database}{'&' if '?' in database else '?'}schema={quote(schema, safe='')}&{PRISMA}"
    files = {"1_a.sql": "CREATE TABLE first (id int);", "2_b.sql": "CREATE TABLE second (id int);"}
    done = migrate(*table, "up", files=files, url=url)
    assert done.exit_code == 0, done
    found = rows("SELECT schemaname, tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information)' ORDER BY 2")
    history = {"--table": table[-1].split(".")[-1]}.get(table[0], "") if table else "schema_migrations"
    place = "ops" if "ops.hist" in table else schema
    assert sorted(found) == sorted([(schema, "first"), (schema, "second"), (place, history)])
    assert migrate(*table, "up", url=url).stdout.startswith("Nothing is pending: 2")
    assert migrate(*table, "status", "--check", url=url).exit_code == 0


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("postgresql://app:secret@localhost/db?hots=1&x=2", "hots"),
        ("postgresql://localhost/db?sslmode=disable&Schema=x", "Schema"),
        ("hots=localhost dbname=x", "hots"),
    ],
)
def test_an_unknown_parameter_is_named(url: str, named: str, migrate: Migrate) -> None:
    """A parameter that nobody knows is an error, and not dropped: it may be a misspelt sslmode."""
    ended = migrate("status", files={"1_a.sql": "SELECT 1;"}, url=url)
    assert ended.exit_code == 2
    assert f"libpq does not know: {named}\n" in ended.stderr


@pytest.mark.parametrize(("given", "shown"), [("", "outreach-migrate"), ("application_name=deploy", "deploy")])
@pytest.mark.parametrize("variable", [None, "nightly"])
def test_application_name(migrate: Migrate, given: str, shown: str, variable: str | None, rows: Rows) -> None:
    """The application's name is outreach-migrate unless the URL or PGAPPNAME gives one."""
    url = f"{migrate.url}{'&' if '?' in migrate.url else '?'}{given}"
    ended = migrate("up", files=["SELECT 1;", WHO], url=url, **{"PGAPPNAME": variable} if variable else {})
    assert ended.exit_code == 0, ended
    assert rows("SELECT application FROM who") == [(shown if given else variable or shown,)]


@pytest.mark.parametrize(
    "given", ["-csearch_path%3Dapp", "-c%20search_path%3Dapp", "-c search_path=app", "-csearch_path=app"]
)
def test_options_of_the_session_work(given: str, database: str, migrate: Migrate, rows: Rows) -> None:
    """`?options=` reaches the files' sessions, its = encoded or not."""
    rows("CREATE SCHEMA app")
    url = f"{database}{'&' if '?' in database else '?'}options={given}"
    assert migrate("--table", "public.h", "up", files={"1_a.sql": "CREATE TABLE t ();"}, url=url).exit_code == 0
    assert rows("SELECT to_regclass('app.t')::text") == [("app.t",)]


def test_an_error_of_the_sessions_options_is_the_servers_own(database: str, migrate: Migrate) -> None:
    """A setting that the server does not know is an error in its words."""
    url = f"{database}{'&' if '?' in database else '?'}options=-c%20nonsense%3D1"
    ended = migrate("status", files={"1_a.sql": "SELECT 1;"}, url=url)
    assert ended.exit_code == 1
    assert 'unrecognized configuration parameter "nonsense"' in ended.stderr


# The database is named

NAMES = [
    ("postgresql://app:secret@db.example/outreach", "db.example/outreach"),
    ("postgresql://app:secret@db.example:5433/outreach", "db.example:5433/outreach"),
    ("postgresql://app@a.example,b.example:5433/outreach", "a.example,b.example:5433/outreach"),
    ("postgresql://app@a.example,b.example:5433", "a.example,b.example:5433/app"),
    ("host=/run/postgresql dbname=outreach user=app", "/run/postgresql/outreach"),
    ("hostaddr=192.0.2.1 dbname=outreach", "192.0.2.1/outreach"),
    ("postgresql:///?service=mine", "service mine"),
]


@pytest.mark.parametrize(("url", "name"), NAMES)
def test_a_database_has_a_name(url: str, name: str) -> None:
    """Servers and database, the port where it is not 5432, a socket as its folder, never the login."""
    assert dsn.read(url).name == name


def test_a_name_may_be_libpqs_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Parameters that the URL leaves out come from libpq's variables, its service file, or its own defaults."""
    assert re.fullmatch("/.*/outreach", dsn.read("dbname=outreach").name)
    service = tmp_path / "services.conf"
    service.write_text("[mine]\nhost=c.example\ndbname=of_service\n")
    monkeypatch.setenv("PGDATABASE", "of_variable")
    assert dsn.read("host=b.example").name == "b.example/of_variable"
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    monkeypatch.setenv("PGSERVICE", "mine")
    assert dsn.read("").name == "c.example/of_service"


@pytest.mark.parametrize(
    "arguments",
    [["up", "--dry-run"], ["up"], ["status"], ["rehearse"], ["check"], ["psql", "-XAtc", "SELECT 1"]],
    ids=" ".join,
)
def test_every_command_names_its_database(arguments: list[str], role: tuple[str, str], migrate: Migrate) -> None:
    """Once, on stderr, without its login; in the document as well; -q leaves it out."""
    _, url = role
    migrate.write({"1_a.sql": "SELECT 1;"})
    name = dsn.read(url).name
    run = migrate.process if arguments[0] == "psql" else migrate  # psql takes the place of the process
    ended = run("--database", url, *arguments)
    assert (ended.database, ended.stdout.count(name), ended.stderr.count(name)) == (name, 0, 0)
    assert run("-q", "--database", url, *arguments).database is None
    if arguments[0] != "psql":
        assert migrate("--json", "--database", url, *arguments).json["database"] == name
    assert migrate("--json", "check").json["database"] is None


# Passwords

SPECIAL = ["@", ":", "/", "%", "?", "#", '"', "'", " ", "\\", "&", "=", "+", "é", "@:/%?#\"' \\"]


@pytest.mark.parametrize("sign", SPECIAL)
def test_a_password_may_have_any_sign(sign: str) -> None:
    """A password may be percent-encoded in a URL, or quoted after password=."""
    password = WORD.format(sign)
    encoded = dsn.read(f"postgresql+psycopg://app:{quote(password, safe='')}@localhost:1/x?schema=y&hostaddr=::1")
    assert encoded.parameters["password"] == password
    assert encoded.parameters["host"] == "localhost"
    assert dsn.read(make_conninfo(host="localhost", password=password)).parameters["password"] == password
    assert password not in repr(encoded)


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory, initialized: Path) -> Iterator[str]:
    """The URL of a superuser on a server that wants passwords of other roles, and is read-only by default."""
    folder = tmp_path_factory.mktemp("strict")
    server = PrivateServer(folder, {"fsync": "off", "default_transaction_read_only": "on"}, initialized)
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        (folder / "data" / "pg_hba.conf").write_text("local all postgres trust\nlocal all all scram-sha-256\n")
        with closing(psycopg.connect(server.url, autocommit=True)) as connection:
            connection.execute("SELECT pg_reload_conf()")
            connection.execute("SET default_transaction_read_only = off")
            connection.execute("CREATE ROLE app LOGIN")
        yield server.url


def with_password(strict: str, password: str) -> str:
    """Give the strict server's role a password, and give its URL with it."""
    with closing(psycopg.connect(strict, autocommit=True)) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(sql.SQL("ALTER ROLE app PASSWORD {}").format(password))
    return fix_servers.url(strict, user="app", password=password)


@pytest.mark.parametrize("sign", SPECIAL)
def test_a_password_with_any_sign_logs_in_and_is_not_printed(sign: str, strict: str, migrate: Migrate) -> None:
    """The right password is taken whatever signs it has, a wrong one is refused, and neither is ever printed."""
    password = WORD.format(sign)
    url = with_password(strict, password)
    migrate.write({"1_a.sql": "SELECT 1;"})
    assert migrate("status", url=url).exit_code == 0
    said = ""
    for arguments in (["-v", "up"], ["--json", "--wait", "60", "status"]):
        ended = migrate(*arguments, url=url)  # the server is read-only: up fails
        wrong = migrate(*arguments, url=fix_servers.url(url, password=password + "!"))
        assert wrong.exit_code == 1
        assert "password authentication failed" in wrong.stderr
        said += ended.stdout + ended.stderr + wrong.stdout + wrong.stderr
    assert [piece for piece in pieces(password) if piece in said] == []


MALFORMED = [
    "postgresql://app:Zk9Q@x7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Q/x7Wv@127.0.0.1:1/db",
    "postgresql://app:8642/0975@127.0.0.1:1/db",
    "postgresql://app:86420975/x7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Q?x7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Q?x7Wv=1@127.0.0.1:1/db",
    "postgresql://app:Zk9Q/a?x7Wv=1@127.0.0.1:1/db",
    "postgresql://app:Zk9Q?schema=x7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Q&x7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Q#x7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Q%x7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Q%00x7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Q%ffx7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Q x7Wv@127.0.0.1:1/db",
    'postgresql://app:Zk9Q"x7Wv@127.0.0.1:1/db',
    "postgresql://app:Zk9Q'x7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Q\\x7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Q:x7Wv@127.0.0.1:1/db",
    "postgresql://app:[Zk9Qx7Wv]@127.0.0.1:1/db",
    "postgresql://app:Zk9Q,x7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Qx7Wv@127.0.0.1:port/db",
    "postgresql://app:Zk9Qx7Wv@127.0.0.1:99999/db",
    "postgresql://app:Zk9Qx7Wv@127.0.0.1:-1/db",
    "postgresql://app:Zk9Qx7Wv@127.0.0.1:1,2,3,4,5/db",
    "postgresql://app:Zk9Qx7Wv",
    "postgresql://app:Zk9Qx7Wv/db",
    "postgresql://app:86420975/db",
    "postgresql://app@Zk9Qx7Wv:127.0.0.1:1/db",
    "postgresql://app:Zk9Qx7Wv:@:127.0.0.1/db",
    "postgresql:///app:Zk9Qx7Wv@127.0.0.1:1/db",
    "postgresql:/app:Zk9Qx7Wv@127.0.0.1:1/db",
    "postgresql//app:Zk9Qx7Wv@127.0.0.1:1/db",
    "postgresql:app:Zk9Qx7Wv@127.0.0.1:1/db",
    "postgresql:/app:Zk9Q=x7Wv@127.0.0.1:1/db",
    "app:Zk9Qx7Wv@127.0.0.1:1/db",
    "jdbc:postgresql://app:Zk9Qx7Wv@127.0.0.1:1/db",
    "mysql://app:Zk9Qx7Wv@127.0.0.1:1/db",
    '"postgresql://app:Zk9Qx7Wv@127.0.0.1:1/db"',
    "postgresql://app:Zk9Qx7Wv@[::1/db",
    "postgresql://app:Zk9Qx7Wv@::1]/db",
    "postgresql://app:Zk9Qx7Wv@[]/db",
    "postgresql://app:Zk9Qx7Wv@[::1]x/db",
    "postgresql://app:Zk9Qx7Wv@[::1]:1/db",
    "postgresql://app:Zk9Qx7Wv@nosuchhost.invalid:1/db",
    "postgresql://app:Zk9Qx7Wv@127.0.0.1:1/db",
    "postgresql://app:Zk9Qx7Wv@127.0.0.1:1/db?sslmode=wrong",
    "postgresql://app:Zk9Qx7Wv@127.0.0.1:1/db?connect_timeout=wrong",
    "postgresql://app:Zk9Qx7Wv@127.0.0.1:1/db?service=wrong",
    "postgresql://app@127.0.0.1:1/db?password=Zk9Q&x7Wv=1",
    "postgresql://app@127.0.0.1:1/db?password=Zk9Q&x7Wv",
    "postgresql://app@127.0.0.1:1/db?password=Zk9Q=x7Wv",
    "host=127.0.0.1 port=1 user=app password='Zk9Qx7Wv",
    "host=127.0.0.1 port=1 user=app password=Zk9Q x7Wv",
    "host=127.0.0.1 port=1 user=app password=Zk9Q x7Wv=1",
    "host=127.0.0.1 port=1 user=app password='Zk9Q'x7Wv'",
    "host=127.0.0.1 port=1 user=app password=Zk9Qx7Wv port",
    "host=127.0.0.1 port=1 user=app password=Zk9Qx7Wv passwd=1",
    "host=127.0.0.1 port=1 user=app password=Zk9Q://x7Wv",
    "host=127.0.0.1 port=1 user=app password:Zk9Qx7Wv",
    "host=127.0.0.1 port=one user=app password=Zk9Qx7Wv",
]


@pytest.mark.parametrize("url", MALFORMED)
def test_nothing_of_a_password_is_printed(url: str, migrate: Migrate) -> None:
    """However a URL is broken, and whatever fails, no four characters of the password come out, and no traceback."""
    migrate.write({"1_a.sql": "SELECT 1;"})
    for arguments in (["-v", "up"], ["--json", "up", "--dry-run"], ["status"]):
        ended = migrate(*arguments, url=url)
        assert ended.exit_code == (2 if "cannot read the database URL" in ended.stderr else 1)
        assert "error: " in ended.stderr
        said = f"{ended.stdout}{ended.stderr}{ended.database}"
        told = [piece for piece in (*pieces("Zk9Qx7Wv"), *pieces("86420975")) if piece in said]
        assert told == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://app:Zk9Qx7Wv@127.0.0.1:1/db",
        "postgresql://app:Zk9Q:x7Wv@nosuchhost.invalid/db",
        "postgresql://app:Zk9Q@x7Wv@127.0.0.1:1/db",
        "host=127.0.0.1 port=1 user=app password='Zk9Q x7Wv'",
    ],
)
def test_psql_tells_nothing_of_a_password(url: str, migrate: Migrate) -> None:
    """psql gets the password where nobody sees it, and prints nothing of it."""
    ended = migrate.process("psql", "-c", "SELECT 1", DATABASE_URL=url)
    assert ended.exit_code != 0
    said = ended.stdout + ended.stderr
    assert [piece for piece in (*pieces("Zk9Qx7Wv"), *pieces("86420975")) if piece in said] == []


# psql


def test_psql_opens_the_database_that_up_uses(database: str, strict: str, migrate: Migrate, tmp_path: Path) -> None:
    """Whatever libpq's variables say beside the URL, and with its schema first in the search path."""
    service = tmp_path / "services.conf"
    service.write_text(f"[mine]\nhost={conninfo_to_dict(strict)['host']}\ndbname=postgres\n")
    url = f"{database}{'&' if '?' in database else '?'}schema=Sales%20%26%20Co"
    query = "SELECT current_database() || ' ' || current_setting('search_path')"
    ended = migrate.process(
        *("psql", "-X", "-A", "-t", "-c", query), DATABASE_URL=url, PGSERVICE="mine", PGSERVICEFILE=str(service)
    )
    assert ended.stdout.strip() == f'{conninfo_to_dict(database)["dbname"]} "Sales & Co"', ended


def test_psql_logs_in_with_the_urls_password(strict: str, migrate: Migrate) -> None:
    """A password in the URL reaches psql; psql's exit code is the command's."""
    url = with_password(strict, WORD.format("@:/ \\'"))
    ended = migrate.process("psql", "-X", "-A", "-t", "-c", "SELECT current_user", DATABASE_URL=url)
    assert (ended.exit_code, ended.stdout) == (0, "app\n")
    assert migrate.process("psql", "-X", "-c", "SELECT 1/0", DATABASE_URL=url).exit_code == 1


# libpq's messages


@pytest.mark.parametrize(
    ("hosts", "ports"),
    [(["127.0.0.1"], ["1"]), (["127.0.0.1", "127.0.0.2"], ["1", "2"]), (["127.0.0.1"] * 2, ["1"] * 2)],
    ids=["one host", "two hosts", "one host twice"],
)
def test_a_server_that_is_not_there_is_reported_once(hosts: list[str], ports: list[str], migrate: Migrate) -> None:
    """Each of libpq's sentences has a line of its own, and none comes twice, however many hosts were tried."""
    url = f"host={','.join(hosts)} port={','.join(ports)} user=app"
    lines = migrate("status", files={"1_a.sql": "select 1"}, url=url).stderr.splitlines()
    tried = dict.fromkeys(zip(hosts, ports, strict=True))
    refused = [f'connection to server at "{host}", port {port} failed: Connection refused' for host, port in tried]
    question = "Is the server running on that host and accepting TCP/IP connections?"
    assert lines[:-2] == [f"error: {refused[0]}", question, *refused[1:]]
    assert lines[-2].startswith("hint: ")


# Waiting


def test_waiting_for_a_server_that_comes_up_later(
    migrate: Migrate, private_server: Callable[..., PrivateServer]
) -> None:
    """With --wait a run gives the reason for waiting once, and goes on when the server is there."""
    migrate.write(["CREATE TABLE t (id int);"])
    server = private_server()
    server.stop()
    waiting = migrate.start("--database", server.url, "--wait", "60", "up")
    waiting.says("waiting for the server: ")
    server.start()
    ended = waiting.end()
    assert ended.exit_code == 0, ended
    assert "1  a  applied in" in ended.stdout


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"user": "app", "password": "wrong"}, "password authentication failed"),
        ({"user": "app"}, "no password supplied"),
        ({"dbname": "missing"}, 'database "missing" does not exist'),
        ({"user": "missing", "password": "x"}, "password authentication failed"),
    ],
)
def test_what_waiting_cannot_mend_fails_at_once(
    migrate: Migrate, change: dict[str, str], told: str, strict: str
) -> None:
    """After a wrong password, or for a missing database or role, --wait tries once, and gives the reason."""
    migrate.write(["SELECT 1;"])
    ended = migrate("--database", fix_servers.url(strict, **change), "--wait", "1h", "up")
    assert ended.exit_code == 1
    assert told in ended.stderr
    assert "waiting" not in ended.stderr


def test_a_missing_role_fails_at_once(migrate: Migrate) -> None:
    """Where no password is asked for, the error names a missing role; otherwise it speaks of a wrong password."""
    migrate.write(["SELECT 1;"])
    url = fix_servers.url(migrate.url, user="missing", password="x")
    ended = migrate("--database", url, "--wait", "1h", "up")
    assert ended.exit_code == 1
    assert re.search('role "missing" does not exist|password authentication failed for user "missing"', ended.stderr)


def test_without_wait_an_absent_server_fails_at_once(migrate: Migrate) -> None:
    """Without --wait the first failure is the last; the hint names --wait."""
    ended = migrate("up", files={"1_a.sql": "SELECT 1;"}, url=NOWHERE)
    assert ended.exit_code == 1
    assert "Connection refused" in ended.stderr
    assert "--wait 60" in ended.stderr


@pytest.mark.parametrize("others", [[], ["itself"], ["127.0.0.1:1"]], ids=["alone", "twice", "and one that refuses"])
def test_waiting_for_a_server_that_hangs_ends(migrate: Migrate, others: list[str]) -> None:
    """One that takes the connection and never answers is not waited for any longer than --wait; each is named."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        hangs = f"127.0.0.1:{server.getsockname()[1]}"
        hosts = ",".join(hangs if one == "itself" else one for one in [*others, hangs])
        began = time.monotonic()
        # libpq's own limit is two seconds for each server at least
        url = f"postgresql://{hosts}/db?connect_timeout=600"
        ended = migrate("--wait", "1", "up", files={"1_a.sql": "SELECT 1;"}, url=url)
        took = time.monotonic() - began
    assert (ended.exit_code, took < 2) == (1, True), (took, ended)
    assert f'"127.0.0.1", port {hangs[10:]} failed: timeout expired\n' in ended.stderr
    assert ("port 1 failed: Connection refused" in ended.stderr) == ("127.0.0.1:1" in hosts.split(","))
    assert "hint: Check the address.\n" in ended.stderr


def test_a_name_with_a_newline_stays_in_its_line(migrate: Migrate) -> None:
    """The database's and the role's name are shown escaped, also in the server's message."""
    migrate.write(["SELECT 1;"])
    url = fix_servers.url(migrate.url, dbname="a\nhint: b")
    ended = migrate("status", url=url)
    assert ended.database is not None
    assert ended.database.endswith("/a\\nhint: b")
    assert 'database "a\\nhint: b" does not exist' in ended.stderr.splitlines()[0]


# Servers and roles that can only be read


def several(*urls: str) -> dict[str, Any]:
    """Several servers as one target, each asked in turn."""
    each = [conninfo_to_dict(url) for url in urls]
    hosts, ports = (",".join(str(one.get(name) or "") for one in each) for name in ("host", "port"))
    return {**each[-1], "host": hosts, "port": ports}


@pytest.mark.parametrize("way", ["url", "variables"])
def test_of_several_hosts_the_writable_one_is_used(migrate: Migrate, way: str, strict: str, rows: Rows) -> None:
    """Of several hosts a run takes the one that accepts writes, wherever it stands in the list."""
    files = ["CREATE TABLE t (id int);"]
    conninfo = make_conninfo("", **several(strict, migrate.url))
    with closing(psycopg.connect(strict, autocommit=True)) as connection:
        connection.execute("SET default_transaction_read_only = off")
        name = sql.Identifier(str(conninfo_to_dict(migrate.url)["dbname"]))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))  # or it would not be connected to at all
    variables = {} if way == "url" else libpq(conninfo)
    ended = migrate("up", files=files, url=conninfo if way == "url" else "", **variables)
    assert ended.exit_code == 0, ended
    assert rows("SELECT to_regclass('t')::text") == [("t",)]


def test_a_read_only_server_says_so(strict: str, migrate: Migrate) -> None:
    """A server on which nothing can be written is an error of one line with a hint; `status` works."""
    url = with_password(strict, "secret")
    ended = migrate("up", files={"1_a.sql": "SELECT 1;"}, url=url)
    assert ended.exit_code == 1
    assert ended.stderr.splitlines()[0] == "error: nothing can be written, because default_transaction_read_only is on"
    assert len(ended.stderr.splitlines()) == 2
    assert migrate("status", url=url).exit_code == 0
    assert migrate("up", "--dry-run", url=url).exit_code == 0


def test_a_read_only_role_says_so(role: tuple[str, str], migrate: Migrate, rows: Rows) -> None:
    """The error names the privileges that a role lacks which may only read; with nothing pending there is none."""
    _, url = role
    migrate("up", files={"1_a.sql": "SELECT 1;"})
    rows("GRANT SELECT ON schema_migrations TO PUBLIC")
    assert migrate("up", url=url).stdout == "Nothing is pending: 1 migration is applied.\n"
    ended = migrate("up", files={"2_b.sql": "SELECT 2;"}, url=url)
    assert ended.exit_code == 1
    assert "permission denied for table schema_migrations" in ended.stderr.splitlines()[0]


def test_a_standby_says_so(
    private_server: Callable[..., PrivateServer], standby: Callable[..., str], migrate: Migrate
) -> None:
    """On a standby status works, and up with nothing to do; up with something to do gives the reason why it can't."""
    primary = private_server()
    migrate("up", files={"1_a.sql": "SELECT 1;"}, url=primary.url)
    url = standby(primary)
    assert migrate("status", "--check", url=url).exit_code == 0
    assert migrate("up", url=url).stdout.startswith("Nothing is pending")
    ended = migrate("up", files={"2_b.sql": "SELECT 2;"}, url=url)
    assert ended.exit_code == 1
    assert ended.stderr.splitlines()[0] == "error: the server is a standby and can only be read"
    assert migrate("up", "--dry-run", url=url).stdout == "-- sql/2_b.sql\nSELECT 2;\n"


@pytest.mark.parametrize("url", [MALFORMED[0], MALFORMED[10], "postgresql://app:Zk9Qx7Wv", "password='Zk9Qx7Wv"])
def test_an_error_of_a_url_brings_no_url_along(url: str) -> None:
    """Nothing that caused it, which a traceback would show, has anything of the password."""
    with pytest.raises(errors.MigrateError) as caught:
        dsn.read(url)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_two_databases_are_wrong_usage(migrate: Migrate) -> None:
    """--database and --embedded together name two."""
    assert migrate("--database", migrate.url, "--embedded", "status").exit_code == 2
