"""The text of a new file: another tool's, byte for byte, without the parts that a file may not have."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from outreach_migrate.adopt.source import Cut, Part
from outreach_migrate.files import control, copies, folders, outline, statements
from outreach_migrate.files.directives import Origin

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from outreach_migrate.adopt.source import Source
    from outreach_migrate.files.control import Isolation

_BOM = "\ufeff"
# left out with the whole line, if it has nothing else
_WHOLE_LINES = {Part.MARK, Part.TRANSACTION, Part.AUTOCOMMIT, Part.ISOLATION}


def text(source: Source, tool: str) -> tuple[str, tuple[Cut, ...]]:
    """Make the new file's text; give it with the parts of the old one that are left out."""
    cuts = [Cut(0, 1, Part.BOM)] if source.text.startswith(_BOM) else []
    cuts += source.cuts
    kept = _blanked(source.text, cuts)  # offsets stay as in the source
    seen = _blanked(kept, _rows(kept))
    whole = outline.make(seen)
    alone = not source.transaction or bool(whole.outside)
    level: Isolation | None = None
    if not alone and not source.unwritten:
        found, level = control.superfluous(seen, whole)
        for statement in found:
            part = Part.ISOLATION if statement.words[0] == "set" else Part.TRANSACTION
            cuts.append(Cut(statement.start, statements.end(seen, statement), part))
    cuts.sort(key=lambda cut: cut.start)
    head = [f"from {Origin(tool, source.name, source.marks)}"]
    head += ["no-transaction"] if alone else []
    head += [f"isolation {level.lower()}"] if level else []
    head += [f"unwritten {source.unwritten}"] if source.unwritten else []
    newline = "\r\n" if re.match(r"[^\n]*\r\n", source.text) else "\n"
    lines = "".join(f"-- migrate: {directive}{newline}" for directive in head)
    return lines + _without(source.text, cuts), tuple(cuts)


def _rows(text: str) -> Iterator[Cut]:
    """Yield the rows that a COPY of the text takes; they stay in the new file, but are not read as SQL."""
    data = text.encode()
    _, copied = copies.read(folders.Text("", data))
    for rows in copied.rows if copied else ():
        start, stop = (len(data[:offset].decode()) for offset in (rows.begin, rows.end))
        newline = text.find("\n", stop)
        yield Cut(start, newline if newline >= 0 else len(text), Part.ROWS)


def _blanked(sql: str, cuts: Iterable[Cut]) -> str:
    """Write spaces over the parts that are left out; no offset changes."""
    parts, last = [], 0
    for cut in sorted(cuts, key=lambda cut: cut.start):
        blank = re.sub(r"[^\r\n]", " ", sql[cut.start : cut.stop])
        parts += [sql[last : cut.start], cut.instead, blank[len(cut.instead) :]]
        last = cut.stop
    return "".join([*parts, sql[last:]])


def _without(sql: str, cuts: Iterable[Cut]) -> str:
    parts, last = [], 0
    for cut in cuts:
        start, stop = cut.start, cut.stop
        if cut.part in _WHOLE_LINES and not cut.instead:
            start, stop = _lines(sql, start, stop)
        parts += [sql[last : max(start, last)], cut.instead]
        last = max(stop, last)
    return "".join([*parts, sql[last:]])


def _lines(sql: str, start: int, stop: int) -> tuple[int, int]:
    """Widen a part to its lines, if they have nothing else."""
    begin = sql.rfind("\n", 0, start) + 1
    newline = sql.find("\n", stop)
    end = newline + 1 if newline >= 0 else len(sql)
    if sql[begin:start].strip(f" \t{_BOM}") or sql[stop:end].strip():
        return start, stop
    return begin, end
