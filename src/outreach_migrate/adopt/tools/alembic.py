"""alembic's projects, whose revisions are Python code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import resources
from typing import TYPE_CHECKING, Any

from outreach_migrate.adopt import source
from outreach_migrate.adopt.source import Cut, Folder, Part, Source
from outreach_migrate.errors import MigrateError, MissingTool, UsageError
from outreach_migrate.files import control, outline, statements

if TYPE_CHECKING:
    from collections.abc import Iterable

INI = "alembic.ini"
_BESIDE = (os.path.join(".venv", "bin", "python"), os.path.join("venv", "bin", "python"))
_DATE = re.compile(r"^\s*Create Date:\s*([0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2})", re.MULTILINE)
_SECRETS = (
    (re.compile(r"(://[^\s:/@]*):\S+"), r"\1:…"),
    (re.compile(r"""(passw(?:or)?d\w*["']?\s*[:=]\s*["']?)[^\s"',)]+""", re.IGNORECASE), r"\1…"),
)
_LONGEST = 300  # characters of an error that are shown


def alembic(folder: str, python: str | None = None) -> Folder:
    """Ask alembic, in a process of `python`, for the SQL of each revision, in the order of `alembic upgrade heads`.

    Without `python` it is that of .venv or venv beside alembic.ini, else the one that runs this program. Raise
    MigrateError with the error of the project's env.py.
    """
    if not os.path.isfile(os.path.join(folder, INI)):
        raise UsageError(f"{folder} has no {INI}", hint="DIR must be the folder with alembic.ini.")
    revisions = _asked(folder, _program(folder, python))
    sources = [_source(folder, one) for one in revisions]
    dates = [re.sub(r"\D", "", found[1]) if (found := _DATE.search(one["doc"])) else "" for one in revisions]
    return Folder(tuple(source.dated(sources, dates)))


def _program(folder: str, given: str | None) -> str:
    if given is None:
        beside = (os.path.join(os.path.abspath(folder), path) for path in _BESIDE)
        return next(filter(os.path.exists, beside), sys.executable)
    found = shutil.which(given)
    if found is None:
        raise UsageError(f"--python {given}: there is no such program")
    return os.path.abspath(found)


def _asked(folder: str, python: str) -> list[dict[str, Any]]:
    """Run alembic; its revisions must leave no compiled files in the folder."""
    code = resources.files(__package__).joinpath("alembic_program.py").read_text(encoding="utf-8")
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONIOENCODING": "utf-8"}
    command = [python, "-c", code]
    try:
        done = subprocess.run(
            command, cwd=folder, env=variables, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
    except OSError as error:
        raise MissingTool(f"cannot run {python}: {error.strerror}") from error
    try:
        document: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = (done.stderr.decode(errors="replace").strip() or "no reason given").splitlines()[-1]
        hint = "Name the Python that has alembic and the project's packages: --python .venv/bin/python"
        raise MigrateError(f"{python} does not run alembic: {_safe(said)}", hint=hint) from None
    if "error" in document:
        hint = "alembic upgrade head --sql says more. Set what env.py needs, or name another Python with --python."
        raise MigrateError(f"alembic does not write the SQL of {folder}: {_safe(document['error'])}", hint=hint)
    revisions: list[dict[str, Any]] = document["revisions"]
    return revisions


def _source(folder: str, one: dict[str, Any]) -> Source:
    sql, error = one["sql"].strip(), _safe(one["error"])
    sql = f"{sql}\n" if sql else ""
    name, _ = os.path.splitext(os.path.basename(one["path"]))
    message = one["doc"].strip().partition("\n")[0] or name.removeprefix(one["revision"])
    title = "_".join(re.findall(r"\w+", message.lower()))[:40].strip("_") or one["revision"]
    cuts = tuple(_cuts(sql))
    return Source(
        one["revision"],
        "",
        title,
        os.path.normpath(os.path.join(folder, one["path"])),
        sql,
        tuple(f"after:{name}" for name in one["after"]),
        transaction=not cuts,
        cuts=cuts,
        unwritten=f"alembic can't write all of its SQL: {error}" if error else "",
    )


def _cuts(sql: str) -> Iterable[Cut]:
    """Yield COMMIT and BEGIN around an autocommit_block(), if the file can't do in one transaction."""
    whole = outline.make(sql)
    if not whole.control or (not whole.outside and len(control.superfluous(sql, whole)[0]) == len(whole.control)):
        return
    for statement in control.pauses(whole):
        yield Cut(statement.start, statements.end(sql, statement), Part.AUTOCOMMIT)


def _safe(error: str) -> str:
    """Give an error of the project's without passwords, in one line."""
    for pattern, instead in _SECRETS:
        error = pattern.sub(instead, error)
    return error if len(error) <= _LONGEST else f"{error[:_LONGEST]}…"
