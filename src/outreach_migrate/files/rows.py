"""The line of a row in a file, by the number that the server gives it in an error."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from outreach_migrate.files import folders

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from outreach_migrate.files.copies import Copy, Rows

# The server counts the lines of its input (cur_lineno in copyfromparse.c), but not all of them. In text format it does
# not count a line end after a backslash. In CSV it does not count those within quotes of the first record, because it
# does not know yet how lines end; later records have the number of their last line.


def find(copy: Copy, rows: Rows, number: int) -> tuple[int, str, str]:
    """Give the line of a row, from 1, with the line before it, empty for the first, and its text; raise OSError."""
    with folders.opened(rows.file, rows.begin) as stream:
        if not copy.quoting:
            nth, previous, line = _in_text(_lines(stream, rows), number)
            return nth, previous.decode(errors="replace"), line.decode(errors="replace")
        nth = min(number + _uncounted(_lines(stream, rows), *copy.quoting), rows.lines)
    with folders.opened(rows.file, rows.begin) as stream:
        lines = [line.decode(errors="replace") for line in islice(_lines(stream, rows), max(nth - 2, 0), nth)]
    return nth, ("", "", *lines)[-2], ("", *lines)[-1]


def _lines(stream: BinaryIO, rows: Rows) -> Iterator[bytes]:
    return (line.rstrip(b"\r\n") for line in islice(stream, rows.lines))


def _in_text(lines: Iterator[bytes], number: int) -> tuple[int, bytes, bytes]:
    """Find the first line of a row in text format, where a backslash takes a line's end into the value."""
    row, nth, previous, line, goes_on = 0, 0, b"", b"", False
    for text in lines:
        nth, previous, line = nth + 1, line, text
        row += not goes_on
        if row == number:
            break
        goes_on = text.endswith(b"\\") and (len(text) - len(text.rstrip(b"\\"))) % 2 == 1
    return nth, previous, line


def _uncounted(lines: Iterator[bytes], quote: str, escape: str) -> int:
    """Count the line ends within quotes of the first record of CSV; a carriage return there is counted too much."""
    sign, escaping, quoted, count = quote.encode(), escape.encode(), False, 0
    for line in lines:
        text = line if sign == escaping else line.replace(escaping + escaping, b"").replace(escaping + sign, b"")
        quoted ^= text.count(sign) % 2 == 1
        count -= line.count(b"\r")
        if not quoted:
            return count
        count += 1
    return max(count - 1, 0)  # the quotes are never closed
