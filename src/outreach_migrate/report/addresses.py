"""The commands in hints, with the target of a fleet that they are for."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from outreach_migrate import display, errors
from outreach_migrate.report import sentences

if TYPE_CHECKING:
    from outreach_migrate.errors import Contradiction, MigrateError, Problem

_COMMAND = re.compile(r"outreach-migrate (?=(accept|adopt|baseline|status|up)\b)")


@dataclass(frozen=True, slots=True)
class Addresses:
    """The way to name a target alone: by the option that names the fleet's, and the options of the command."""

    source: str
    embedded: bool = False
    table: str | None = None

    def error(self, target: str, error: MigrateError) -> MigrateError:
        """Give an error whose hints name the target in their commands."""
        if isinstance(error, errors.Refused):
            problems = [self.problem(target, one) for one in error.problems]
            return type(error)(problems, page=error.page).after(error.outcome, hint=error.hint)
        return error.after(error.outcome, hint=self._hint(target, error.hint)) if error.hint else error

    def problem(self, target: str, problem: Problem | Contradiction) -> Problem:
        """Word a problem, with the target in the commands of its hint."""
        worded = sentences.worded(problem)
        return worded._replace(hint=self._hint(target, worded.hint))

    def _hint(self, target: str, hint: str | None) -> str | None:
        return hint and _COMMAND.sub(lambda found: f"{found[0]}{self._options(target, found[1])} ", hint)

    def _options(self, target: str, command: str) -> str:
        """Write the options that name a target; the rest of its URL, which may have a password, is left out."""
        if self.embedded and command == "accept" and self.source.startswith("schemas"):
            # the private server has no URL; this command alone runs no file, so the search path does not matter
            from outreach_migrate.history import table

            place = table.Table(target, table.read(self.table, target).name)
            return f"--embedded --table {shlex.quote(str(place))}"
        if self.source == "targets":
            url = shlex.quote(f"URL of {display.in_line(target)}")
        else:
            url = f'"…{"?schema=" if self.source.startswith("schemas") else "/"}{quote(target, safe="")}"'
        return f"--database {url}" + (f" --table {shlex.quote(self.table)}" if self.table else "")
