"""The reports of `dump`, `drift` and `squash`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from outreach_migrate import display
from outreach_migrate.errors import HistoryError, Problem
from outreach_migrate.report import as_json, findings, printer, sentences, terminal

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from outreach_migrate.errors import HistoryLocked
    from outreach_migrate.schema.differences import Difference
    from outreach_migrate.schema.drift import Drift
    from outreach_migrate.schema.dump import Dumped
    from outreach_migrate.schema.squash import Squash

_SHOWN = 10  # tables with rows that are named without --verbose
_COLOURS = {"+": "green", "-": "red", "@": "cyan"}  # of the lines of a diff


class DumpReport(printer.Report):
    """The output of `dump` and of `types`, whose text is the document's `schema` or `module`."""

    def __init__(self, command: str, *, as_json: bool, verbosity: int) -> None:
        super().__init__(command, as_json=as_json, verbosity=verbosity)
        self.document["pending"] = []

    def compared(self, pending: Sequence[str]) -> None:
        """Warn of the files that the database lacks."""
        self.document["pending"] = list(pending)
        if pending:
            more = f", and {len(pending) - _SHOWN} more" if len(pending) > _SHOWN else ""
            names = ", ".join(map(display.in_line, pending[:_SHOWN]))
            hint = "Migrate first: outreach-migrate up. Or apply the files to a private PostgreSQL: --scratch"
            message = f"the database is behind, pending: {names}{more}"
            self.aside(sentences.problem(Problem(message, hint=hint), "warning"))

    def not_compared(self, error: HistoryError | HistoryLocked) -> None:
        """Warn that nothing is known of pending files."""
        problem = error.problems[0] if isinstance(error, HistoryError) else None
        hint = problem.hint if isinstance(problem, Problem) else error.hint
        message = f"{error.message}, so the pending files are not known"
        self.aside(sentences.problem(Problem(message, hint=hint), "warning"))

    def printed(self, text: str, key: str) -> None:
        """Print the text, at any verbosity, because it was asked for."""
        self.document[key] = text
        if not self.as_json:
            terminal.say(text.rstrip("\n"))

    def dumped(self, dumped: Dumped, *, written: bool) -> None:
        """Say that the file was written; or that it was compared, and exit with 1 if it differs."""
        wrong = dumped.changed and not written
        self.document |= {"ok": not wrong, "path": dumped.path, "changed": dumped.changed, "written": written}
        if not dumped.changed:
            self.result(f"{dumped.path} is up to date.")
        elif written:
            self.result(f"{dumped.path} is written.")
        else:
            self.document["diff"] = dumped.diff
            for line in dumped.diff:
                self.result(_coloured(line))
            was = "is out of date" if dumped.before is not None else "is not there"
            way = "the same command without --check makes it again"
            if self.document["pending"]:
                was, way = "is not as this database, which is behind", "check it after up, or with --scratch"
            self.aside(f"{dumped.path} {was}: {way}.")
            sys.exit(1)


class DriftReport(printer.Report):
    """The output of `drift`, in one of its formats."""

    def __init__(self, form: str, verbosity: int) -> None:
        super().__init__("drift", as_json=form == "json", verbosity=verbosity)
        self.form = form

    def found(self, drift: Drift) -> None:
        """Print the differences, and exit with 1 if there are any."""
        found = drift.comparison.differences
        self.document |= {"ok": not found, **value(drift)}
        for line in notes(drift):
            self.aside(line)
        if self.form == "github":
            for one in found:
                terminal.say(findings.workflow_command("\n".join([title(one), *one.diff]), None, "drift"))
        elif found:
            for line in lines(drift):
                self.result(line)
        self.aside(summary(drift))
        if found:
            sys.exit(1)


class SquashReport(printer.Report):
    """The output of `squash`."""

    def __init__(self, *, as_json: bool, verbosity: int) -> None:
        super().__init__("squash", as_json=as_json, verbosity=verbosity)

    def squashed(self, done: Squash, *, with_rows: bool) -> None:
        """Name the new file, the files that it replaces, and the tables whose rows it has."""
        self.document |= {"path": done.file.path, "replaced": [one.path for one in done.replaced], "rows": done.rows}
        count = sentences.count(len(done.replaced), "file", "files")
        self.result(f"{done.file.path} replaces {count}, from {done.replaced[0]} to {done.replaced[-1]}.")
        if with_rows and done.rows:
            shown = [f"{display.in_line(name)} ({count})" for name, count in done.rows.items()]
            if len(shown) > _SHOWN and self.verbosity <= 0:
                shown = [*shown[:_SHOWN], f"and {len(shown) - _SHOWN} more tables, with --verbose"]
            self.result(f"It has the rows that they leave behind: {', '.join(shown)}.")
        self.aside("Deploy the release before this one everywhere first: a database with only some of them is refused.")


def value(drift: Drift) -> dict[str, Any]:
    """Turn drift into JSON."""
    comparison = drift.comparison
    return {
        "version": drift.files[-1].version if drift.files else None,
        "files": len(drift.files),
        "objects": comparison.objects,
        "ignored": comparison.ignored,
        "private": drift.scratch.reason,
        "lacks": list(drift.scratch.lacks),
        "code": [as_json.code(one) for one in drift.code],
        "differences": [
            {
                "change": str(one.change),
                "kind": one.kind,
                "name": one.name,
                "code": one.code,
                "actual": one.actual,
                "expected": one.expected,
                "diff": one.diff,
            }
            for one in comparison.differences
        ],
    }


def notes(drift: Drift) -> list[str]:
    """Say where the files were applied, if that was not beside the database."""
    made, (here, there) = drift.scratch, drift.servers
    found = [f"compared on the private PostgreSQL, because {made.reason}"] if made.reason else []
    if here != there:
        found.append(f"warning: it is of version {there}, the server of {here}: expressions may be printed differently")
    if made.lacks:
        found.append(f"warning: no file makes {', '.join(made.lacks)}, and the scratch database can't have it")
    if changed := [one.path for one in drift.code if one.is_changed]:
        are = "is changed, so its objects are" if len(changed) == 1 else "are changed, so their objects are"
        found.append(f"code  {', '.join(map(display.in_line, changed))} {are} not compared")
    found += [f"code  {display.in_line(one.path)} is gone, but its objects stay" for one in drift.code if one.is_gone]
    return found


def lines(drift: Drift) -> list[str]:
    """Write each object that differs, with a diff: - is as the files give it, + as the database has it."""
    found = list[str]()
    for one in drift.comparison.differences:
        found += [terminal.styled(title(one), bold=True), *(f"  {_coloured(line)}" for line in one.diff)]
    return found


def title(one: Difference) -> str:
    """Name an object and its change, and the file of code that made it."""
    file = f"  code {display.in_line(one.code)}" if one.code else ""
    return f"{one.change}  {one.kind} {display.in_line(one.name)}{file}"


def summary(drift: Drift) -> str:
    """Sum up a comparison."""
    comparison, files = drift.comparison, len(drift.files)
    ignored = f", {comparison.ignored} ignored" if comparison.ignored else ""
    count = len(comparison.differences)
    if not count:
        objects = sentences.count(comparison.objects, "object is", "objects are")
        return f"No drift: {objects} as {sentences.count(files, 'file gives', 'files give')} them{ignored}."
    differ = sentences.count(count, "object differs", "objects differ")
    schema = f"the schema of {sentences.count(files, 'file', 'files')}"
    return f"{differ} from {schema}{ignored}: - is as the files give it, + as the database has it."


def _coloured(line: str) -> str:
    return terminal.styled(line, colour=_COLOURS.get(line[:1]))
