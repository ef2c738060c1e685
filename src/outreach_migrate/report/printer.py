"""A command's output: lines as it goes, or one JSON document at its end."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Any, Self

import click

from outreach_migrate import display
from outreach_migrate.report import as_json, sentences, terminal

if TYPE_CHECKING:
    from outreach_migrate.errors import MigrateError
    from outreach_migrate.history import read


class Report:
    """The output of one command: text as it goes, or with `as_json` one document at the end.

    Results go to stdout (with JSON, to stderr), everything else to stderr. `verbosity` is -1, 0 or 1.
    """

    every = 10.0  # s between two lines of the same kind, where many would come

    def __init__(self, command: str | None, *, as_json: bool, verbosity: int) -> None:
        self.as_json = as_json
        self.verbosity = verbosity
        self.document: dict[str, Any] = {"command": command, "ok": True, "database": None, "error": None}
        self.live = bool(sys.stderr and sys.stderr.isatty()) and verbosity >= 0 and not terminal.is_dumb()
        self.drawn = False
        self.last: dict[object, float] = {}  # when a line of this kind was last printed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._clear()
        if kind not in (None, SystemExit):  # a bug, after which the document must not say that all is well
            self.document |= {"ok": False, "error": {"kind": kind and kind.__name__}}
        if unwritten := terminal.lost("stderr"):
            self._unwritten(unwritten)
        if self.as_json:
            self.print_document()

    def print_document(self) -> None:
        """Print the document on stdout."""
        _print_json(self.document, indent=2)

    def print_line(self, value: dict[str, Any]) -> None:
        """Print a JSON value in one line on stdout."""
        _print_json(value, indent=None)

    def _unwritten(self, message: str) -> None:
        """Report on stdout that stderr can't be written; in the document only if it has no other error."""
        if not self.as_json:
            terminal.say(f"error: {message}")
        elif self.document["error"] is None:
            self.document |= {"ok": False, "error": {"kind": "OSError", "message": message}}

    def meets(self, database: str) -> None:
        """Say which database the command is about to connect to."""
        self.document["database"] = database
        self.aside(f"database: {display.in_line(database)}")

    def result(self, line: str) -> None:
        """Print a line of the command's result."""
        if self.verbosity >= 0:
            self._clear()
            terminal.say(line, err=self.as_json)

    def aside(self, line: str) -> None:
        """Print a line that is not part of the result."""
        if self.verbosity >= 0:
            self._clear()
            terminal.say(line, err=True)

    def seldom(self, kind: object, line: str, *, since: float = -math.inf) -> None:
        """Print one of many lines of a kind at most every ten seconds, the first one ten seconds after `since`."""
        now = time.monotonic()
        if now - self.last.get(kind, since) >= self.every:
            self.last[kind] = now
            self.aside(line)

    def running(self, line: str) -> None:
        """Draw, on a terminal, a line that the next one will replace."""
        if self.live:
            import shutil

            width = shutil.get_terminal_size().columns - 1  # a line that wraps could not be taken back
            line = display.in_line(line)
            wide = max(0, display.width(line) - len(line))
            click.echo(f"\r\x1b[2K{line[: width - wide]}", nl=False, err=True)
            self.drawn = True

    def _clear(self) -> None:
        if self.drawn:
            click.echo("\r\x1b[2K", nl=False, err=True)
            self.drawn = False

    def locked(self, locked: read.Locked) -> None:
        """Name the sessions that lock the history table."""
        start = f"waiting for the history table {locked.table}:"
        for line in [sentences.blocker(one, start) for one in locked.blockers] or [f"{start} it is locked"]:
            self.aside(line)

    def failed(self, error: MigrateError) -> None:
        """Print an error, at any verbosity, and keep it for the document."""
        self._clear()
        terminal.say(sentences.error(error), err=True)
        self.document |= {"ok": False, "error": as_json.error(error)}


def _print_json(value: dict[str, Any], *, indent: int | None) -> None:
    import json

    encoding = getattr(sys.stdout, "encoding", None) or ""
    plain = not encoding.lower().startswith("utf")  # it may lack a character, but JSON can escape any
    click.echo(display.in_json(json.dumps(value, indent=indent, default=str, ensure_ascii=plain)))
