"""A program for the Python that has alembic: it prints a project's revisions, in order, each with its SQL, as JSON.

It runs in the folder of alembic.ini, as text of `python -c`, and may meet any version of Python from 3.8.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback

if sys.path[0] == "":
    del sys.path[0]  # a folder named alembic, with the revisions in it, must not hide the package

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy.sql.compiler import Compiled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Asked(Exception):
    """A revision needs the database."""


class Enough(BaseException):
    """A revision has written its SQL; env.py need not go on."""


class Tabbed(str):
    """A statement's text that keeps its tabs where alembic's DefaultImpl writes four spaces in their place."""

    def replace(self, old: str, new: str, *count: Any) -> str:
        """Replace a part of it, but for that."""
        return self if (old, new) == ("\t", "    ") else super().replace(old, new, *count)


class Answer:
    """The answer of a database that isn't there: any look at it is an error."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getattr__(self, name: str) -> NoReturn:
        self._run.fails(Asked("it reads rows of the database"))

    def __iter__(self) -> NoReturn:
        self._run.fails(Asked("it reads rows of the database"))

    __bool__ = __len__ = __iter__


class Run:
    """One revision, run as `alembic upgrade parent:revision --sql` does, up to the end of its own SQL."""

    def __init__(self, config: Any, script: Any, revision: Any, parents: tuple[str, ...]) -> None:
        config.output_buffer = self.buffer = io.StringIO()
        self.environment = EnvironmentContext(
            config, script, fn=self._steps, as_sql=True, starting_rev=parents, destination_rev=revision.revision
        )
        self._configure = self.environment.configure
        self.environment.configure = self.configure  # env.py's alembic.context calls it by this name
        self.environment.is_offline_mode = self.is_offline_mode
        self.revision = revision
        self.short_log = revision.revision
        self.sql = self.error = ""
        self.running = False

    def _steps(self, _: Any, context: Any) -> list[Run]:
        if context.dialect.name != "postgresql":
            raise Asked(f"env.py names a database of {context.dialect.name}, not of PostgreSQL")
        return [self]

    def configure(self, *given: Any, **options: Any) -> None:
        """Take env.py's options, but write values into the SQL, and no % twice."""
        if options.get("output_buffer") is not None:
            raise Asked("it writes SQL to files of its own, as for several databases")
        options["literal_binds"] = True
        options["dialect_opts"] = {**(options.get("dialect_opts") or {}), "paramstyle": "named"}
        self._configure(*given, **options)

    def is_offline_mode(self) -> bool:
        """Tell env.py that no database is there; a revision that asks would do something else with one."""
        if self.running:
            self.fails(Asked("it does something else without a database"))
        return True

    def fails(self, error: Exception) -> NoReturn:
        """Keep the first error, because the revision may catch it."""
        self.error = self.error or shown(error)
        raise error

    def migration_fn(self, **given: Any) -> NoReturn:
        """Run the revision, as one step of alembic's."""
        connection = self.environment.get_context().connection
        execute, begin = connection.execute, self.buffer.tell()

        def executed(statement: Any, *parameters: Any, **options: Any) -> Answer:
            if any(parameters) or options.get("parameters"):
                self.fails(Asked("it gives the database a statement with parameters"))
            execute(statement)
            return Answer(self)

        connection.execute, self.running = executed, True
        try:
            with open(self.revision.path, encoding="utf-8", errors="replace") as file:
                if ".as_sql" in file.read():
                    self.fails(Asked("it does something else without a database"))
            self.revision.module.upgrade(**given)
        except Exception as error:
            self.error = self.error or shown(error)
        self.sql = self.buffer.getvalue()[begin:]
        raise Enough


def shown(error: BaseException) -> str:
    """Give an error with the place in the project where it was met."""
    said = " ".join(str(error).split())
    text = said if isinstance(error, Asked) else f"{type(error).__name__}: {said}"
    here = os.getcwd() + os.sep
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(here)]
    frames = [one for one in frames if "site-packages" not in one.filename]
    return f"{os.path.relpath(frames[-1].filename)}:{frames[-1].lineno}: {text}" if frames else text


def described(config: Any, script: Any, revision: Any) -> dict[str, Any]:
    """Describe a revision, with its SQL or the error that kept alembic from writing all of it."""
    down = revision.down_revision or ()
    parents = (down,) if isinstance(down, str) else tuple(down)
    needed = revision.dependencies or ()
    depends = script.get_revisions([needed] if isinstance(needed, str) else needed) if needed else ()
    run = Run(config, script, revision, parents)
    try:
        with run.environment:
            script.run_env()
    except Enough:
        pass
    else:
        raise Asked("env.py runs no migration in alembic's offline mode")
    return {
        "revision": revision.revision,
        "after": [*parents, *(one.revision for one in depends)],
        "path": os.path.relpath(revision.path),
        "doc": revision.module.__doc__ or "",
        "sql": run.sql,
        "error": run.error,
    }


def keep_tabs() -> None:
    """Make alembic write statements as they are, because a tab in a value, or in a function's text, is a part of it."""
    compiled = Compiled.__str__
    Compiled.__str__ = lambda self: Tabbed(compiled(self))


def main() -> None:
    """Print one JSON document on the first stdout; prints of the project itself go to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.path.append(os.getcwd())
    document: dict[str, Any] = {}
    try:
        keep_tabs()
        config = Config("alembic.ini")
        script = ScriptDirectory.from_config(config)
        document["revisions"] = [described(config, script, one) for one in reversed(list(script.walk_revisions()))]
    except Exception as error:
        document["error"] = shown(error)
    with out:
        json.dump(document, out)


main()
