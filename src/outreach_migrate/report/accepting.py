"""The report of `accept`."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from outreach_migrate.report import printer, sentences, terminal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.run.accepting import Edited

_LARGEST = 1_000_000  # characters of a text that is compared line by line


class AcceptReport(printer.Report):
    """The output of `accept`."""

    def __init__(self, *, as_json: bool, verbosity: int) -> None:
        super().__init__("accept", as_json=as_json, verbosity=verbosity)
        self.document |= {"edited": [], "written": False}

    def edited(self, found: Sequence[Edited], before: Mapping[str, str | None]) -> None:
        """Show each edited file with both checksums, and the difference to the text from before, by version."""
        for one in found:
            migration, entry = one.migration, one.entry
            diff = _diff(migration, before[migration.version])
            how = "applied" if entry.is_timed else "adopted"
            origin = "" if entry.origin == "run" else f" ({entry.origin})"
            when = f"{entry.started_at:%Y-%m-%d %H:%M:%S}"
            self.result(f"{sentences.title(migration)}  {how} {when} by {entry.applied_by}{origin}")
            self.result(f"  recorded: {entry.checksum}\n  the file: {migration.checksum}")
            if diff is not None:
                for line in diff:
                    self.result(_coloured(line))
            elif before[migration.version] is None:
                self.aside(f"git has no version of {migration.path} with the recorded checksum.")
            else:
                self.aside(f"{migration.path} is too large to be compared line by line, or has rows that it copies.")
            self.document["edited"].append(
                {
                    "version": migration.version,
                    "name": migration.name,
                    "path": migration.path,
                    "recorded": entry.checksum,
                    "checksum": migration.checksum,
                    "applied_at": entry.started_at.isoformat(),
                    "applied_by": entry.applied_by,
                    "origin": entry.origin,
                    "diff": None if diff is None else "\n".join(diff),
                }
            )

    def accepted(self, found: Sequence[Edited]) -> None:
        """Sum up."""
        self.document["written"] = bool(found)
        if found:
            self.result(f"{sentences.count(len(found), 'checksum', 'checksums')} recorded.")
        else:
            self.result("Nothing to accept: the files are those that were applied.")

    def declined(self) -> None:
        """Say that nothing was written."""
        self.document["ok"] = False
        self.aside("Nothing was recorded.")


def _diff(migration: Migration, before: str | None) -> list[str] | None:
    now = migration.sql
    if before is None or migration.copied or max(len(before), len(now)) > _LARGEST:
        return None
    names = (f"{migration.path} as it was applied", f"{migration.path} as it is")
    return list(difflib.unified_diff(before.splitlines(), now.splitlines(), *names, lineterm=""))


def _coloured(line: str) -> str:
    colour = {"-": "red", "+": "green"}.get(line[:1])
    return terminal.styled(line, colour=colour) if colour else line
