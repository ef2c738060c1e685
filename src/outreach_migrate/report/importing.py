"""The report of `import`."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING, Any

from outreach_migrate import display
from outreach_migrate.adopt import folders
from outreach_migrate.report import as_json, printer, sentences, terminal

if TYPE_CHECKING:
    from outreach_migrate.adopt.copy import Import, New
    from outreach_migrate.adopt.source import Left

_SHOWN = 3  # files of one kind that are named without --verbose


class ImportReport(printer.Report):
    """The output of `import`."""

    def __init__(self, *, as_json: bool, verbosity: int) -> None:
        super().__init__("import", as_json=as_json, verbosity=verbosity)
        self.document["finished"] = 0

    def finished(self, target: str, files: int) -> None:
        """Say that an earlier import is whole now."""
        self.document["finished"] = files
        count = sentences.count(files, "file is", "files are")
        self.aside(f"An import into {target} had been cut short: all of its {count} written now.")

    def imported(self, planned: Import, *, written: bool, can_adopt: bool) -> None:
        """Print each new file with its changes, everything that is not carried over, and the next commands."""
        following = _next(planned, can_adopt=can_adopt)
        self.document |= {
            "tool": planned.tool,
            "folder": planned.folder,
            "target": planned.target,
            "written": written,
            "present": planned.present,
            "files": [_value(new) for new in planned.files],
            "left": [{"path": one.path, "reason": str(one.reason), "detail": one.detail} for one in planned.left],
            "next": following,
        }
        for new in planned.files:
            self._file(new)
        for line in _left_lines(planned.left, every=self.verbosity > 0):
            self.result(line)
        self._sum(planned, written=written)
        if planned.files:
            self.aside("\n".join(["Next:", *(f"  {command}" for command in following)]))

    def _file(self, new: New) -> None:
        was = f"version {new.source.version} before" if new.source.version else "numbered anew"
        renumbered = f"  ({was})" if new.renumbered else ""
        if new.changes or new.problems or new.renumbered or self.verbosity > 0:
            self.result(f"{new.path}  from {new.source.path}{renumbered}")
        for change in new.changes:
            text = display.in_line(change.text)
            self.result(f"  line {change.line}: without {change.part}{f': {text}' if text else ''}")
        for problem in new.problems:
            terminal.say(sentences.problem(problem, "warning"), err=True)

    def _sum(self, planned: Import, *, written: bool) -> None:
        count = sentences.count(len(planned.files), "file", "files")
        did = f"written to {planned.target}" if written else f"would be written to {planned.target}"
        present = f"; {planned.present} of its migrations were there already" if planned.present else ""
        self.result(f"{count} {did}, from {planned.tool}{present}.")
        wrong = sum(bool(new.problems or new.source.unwritten) for new in planned.files)
        if wrong:
            one, many = (
                "of them must be completed by hand before it can run",
                "of them must be completed by hand before they can run",
            )
            self.aside(f"{sentences.count(wrong, one, many)}: check says where.")


def _next(planned: Import, *, can_adopt: bool) -> list[str]:
    program = "outreach-migrate" if planned.target == "sql" else f"outreach-migrate --dir {shlex.quote(planned.target)}"
    there = [f"{program} adopt     # a database that {planned.tool} has migrated"] if can_adopt else []
    if planned.tool in folders.ELSEWHERE:
        there = [f"{program} baseline VERSION     # a database that {planned.tool} has migrated up to VERSION"]
    check = f"{program} check     # the files alone, without a database"
    return [check, *there, f"{program} up        # an empty database"]


def _left_lines(left: tuple[Left, ...], *, every: bool) -> list[str]:
    lines, counts = list[str](), Counter[str]()
    for one in left:
        counts[one.reason] += 1
        if every or one.detail or counts[one.reason] <= _SHOWN:
            detail = f" ({one.detail})" if one.detail else ""
            lines.append(f"not carried over: {one.path}{detail}: {one.reason}")
    for reason, count in counts.items():
        if not every and count > _SHOWN and any(not one.detail for one in left if one.reason == reason):
            lines.append(f"not carried over: {count - _SHOWN} more like these, with --verbose: {reason}")
    return lines


def _value(new: New) -> dict[str, Any]:
    return {
        "path": new.path,
        "from": new.source.path,
        "version": new.version,
        "old_version": new.source.version or None,
        "changes": [{"line": one.line, "what": str(one.part), "text": one.text} for one in new.changes],
        "problems": [as_json.problem(problem) for problem in new.problems],
        "unwritten": new.source.unwritten or None,
    }
