"""The standard streams, to which any text can be written; a full device ends no run."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from typing import TYPE_CHECKING

import click

from outreach_migrate import display

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# A colour of the report begins with this until it is printed. No other text can have it, so other escapes are shown
_MARK = f"\x1b{os.urandom(8).hex()}"
_UNWRITTEN = "outreach_migrate.unwritten"


def styled(text: str, *, colour: str | None = None, bold: bool | None = None) -> str:
    """Give a text a colour; the text is escaped later, like everything that is printed."""
    return click.style(text, fg=colour, bold=bold).replace("\x1b", _MARK)


def say(line: str, *, err: bool = False) -> None:
    """Print lines of text, with control characters escaped, except the report's own colours."""
    text = "\x1b".join(map(display.escaped, line.split(_MARK)))
    # the stream is named, because click's own choice writes UTF-8 even if Python is set to ASCII; None is a closed one
    click.echo(text, file=sys.stderr if err else sys.stdout, err=err)


def is_dumb() -> bool:
    """Tell whether the terminal can neither show colours nor take back a line."""
    return os.environ.get("TERM") == "dumb"


class _Descriptor(io.RawIOBase):
    """A file descriptor; after the first failure all text is lost, and the run goes on."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.failure: OSError | None = None

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        size = memoryview(data).nbytes
        if self.failure:
            return size
        try:
            return os.write(self._number, data)
        except BlockingIOError:  # the parent process made it non-blocking, so wait
            import select

            select.select([], [self._number], [])
            return self.write(data)
        except OSError as error:
            self.failure = error
            return size


def take_over() -> None:
    """Replace stdout and stderr by streams that never fail; a closed one stays None."""
    codecs.register_error(_UNWRITTEN, _unwritten)
    for name in ("stdout", "stderr"):
        if stream := getattr(sys, name):
            raw = _Descriptor(stream.fileno())
            buffer = io.BufferedWriter(raw)
            text = io.TextIOWrapper(buffer, stream.encoding, _UNWRITTEN, line_buffering=raw.isatty())
            setattr(sys, name, text)


def _unwritten(error: UnicodeError) -> tuple[str, int]:
    """Write a ? for each column of a character that an encoding lacks, so that a caret below stays in its place."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "?" * display.width(error.object[error.start : error.end]), error.end


def lost(name: str) -> str | None:
    """Say why text written to stdout or stderr was lost; None if only the reader of a pipe has gone."""
    stream = getattr(sys, name)
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    if not isinstance(raw, _Descriptor):
        return None
    stream.flush()
    if raw.failure is None or raw.failure.errno == errno.EPIPE:
        return None
    return f"cannot write to {name}: {os.strerror(raw.failure.errno or 0)}"
