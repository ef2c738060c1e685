"""Files of code compared with their records."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from outreach_migrate.history import code as history

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

    from outreach_migrate.files.code import Code
    from outreach_migrate.history.code import CodeRecord
    from outreach_migrate.history.table import Table


class CodeState(StrEnum):
    """The state of a file of code, seen from the file and its record."""

    CURRENT = "current"
    CHANGED = "changed"
    GONE = "gone"
    DRIFTED = "drifted"  # current, but an object of it is not as the file gives it


@dataclass(frozen=True, slots=True)
class CodeStep:
    """A file of code, or the record of one that is gone."""

    path: str
    state: CodeState
    code: Code | None
    record: CodeRecord | None

    @property
    def is_current(self) -> bool:
        """Whether the file is as it was carried out."""
        return self.state is CodeState.CURRENT

    @property
    def is_gone(self) -> bool:
        """Whether there is a record without a file."""
        return self.state is CodeState.GONE

    @property
    def drops(self) -> bool:
        """Whether a run that carries the file out drops objects."""
        if self.code is None or self.record is None:
            return False
        return self.code.drops or (self.code.drops_first and bool(self.record.objects))

    @property
    def is_changed(self) -> bool:
        """Whether the next run carries the file out."""
        return self.state is CodeState.CHANGED


def compare(codes: Iterable[Code], records: dict[str, CodeRecord]) -> tuple[CodeStep, ...]:
    """Compare files and records, in the order in which files are carried out; the records of gone files come last."""
    steps = []
    for code in codes:
        record = records.get(code.path)
        same = record is not None and record.checksum == code.checksum and not record.missing
        # a file that drops its objects has nothing to do where it has no record
        current = same or (code.drops and record is None)
        steps.append(CodeStep(code.path, CodeState.CURRENT if current else CodeState.CHANGED, code, record))
    known = {step.path for step in steps}
    return (*steps, *(CodeStep(path, CodeState.GONE, None, records[path]) for path in sorted(records.keys() - known)))


def steps(connection: Connection, codes: Iterable[Code], table: Table) -> tuple[CodeStep, ...]:
    """Read the records, and compare files of code with them; write nothing."""
    return compare(codes, history.read(connection, table))
