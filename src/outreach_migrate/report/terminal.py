"""The standard streams, to which any text can be written; a full device ends no run."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import sys
import time
from typing import TYPE_CHECKING

import click

from outreach_migrate import display

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

# A colour of the report begins with this until it is printed. No other text can have it, so other escapes are shown
_MARK = f"\x1b{os.urandom(8).hex()}"
_UNWRITTEN = "outreach_migrate.unwritten"
_LAST = 1.0  # s that a reader has after a signal
_LOOK = 0.1  # s between two looks whether that time is up


def styled(text: str, *, colour: str | None = None, bold: bool | None = None) -> str:
    """Give a text a colour; the text is escaped later, like everything that is printed."""
    return click.style(text, fg=colour, bold=bold).replace("\x1b", _MARK)


def say(line: str, *, err: bool = False, end: str = "\n") -> None:
    """Print lines of text and an end, with control characters escaped, except the report's own colours."""
    text = _shown(line)
    # the stream is named, because click's own choice writes UTF-8 even if Python is set to ASCII; None is a closed one
    click.echo(text + end, nl=False, file=sys.stderr if err else sys.stdout, err=err)


def plain(text: str) -> str:
    """Give a text as it is printed, but without colours."""
    return click.unstyle(_shown(text))


def _shown(text: str) -> str:
    return "\x1b".join(map(display.escaped, text.split(_MARK)))


def is_dumb() -> bool:
    """Tell whether the terminal can neither show colours nor take back a line."""
    return os.environ.get("TERM") == "dumb"


class _Descriptor(io.RawIOBase):
    """A file descriptor; after the first failure all text is lost, and the run goes on.

    No write blocks, because a signal could not end it: it waits for room, and writes no more than fits.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._target = _unblocked(number)
        self.failure: OSError | None = None
        self.deadline: float | None = None

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        view = memoryview(data).cast("B")
        while not self.failure:
            try:
                if select.select([], [self._target], [], _LOOK)[1]:
                    return os.write(self._target, view[: select.PIPE_BUF])
            except BlockingIOError:  # there is room, but not enough
                time.sleep(_LOOK)
            except OSError as error:
                self.failure = error
            if self.deadline and time.monotonic() > self.deadline:
                self.failure = BrokenPipeError(errno.EPIPE, "nobody reads")
        return view.nbytes


def _unblocked(number: int) -> int:
    """Open a terminal anew, because it blocks even if it has some room, and other processes share the descriptor."""
    try:
        return os.open(os.ttyname(number), os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:  # no terminal, or not this user's
        return number


def take_over() -> None:
    """Replace stdout and stderr by streams that never fail; a closed one stays None."""
    codecs.register_error(_UNWRITTEN, _unwritten)
    for name in ("stdout", "stderr"):
        if stream := getattr(sys, name):
            raw = _Descriptor(stream.fileno())
            buffer = io.BufferedWriter(raw)
            text = io.TextIOWrapper(buffer, stream.encoding, _UNWRITTEN, line_buffering=raw.isatty())
            setattr(sys, name, text)


def hurry() -> None:
    """Drop text that nobody has read a second from now, because it would keep the process from ending."""
    for name in ("stdout", "stderr"):
        if raw := _descriptor(name):
            raw.deadline = time.monotonic() + _LAST


def _descriptor(name: str) -> _Descriptor | None:
    raw = getattr(getattr(getattr(sys, name), "buffer", None), "raw", None)
    return raw if isinstance(raw, _Descriptor) else None


def _unwritten(error: UnicodeError) -> tuple[str, int]:
    """Write a ? for each column of a character that an encoding lacks, so that a caret below stays in its place."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "?" * display.width(error.object[error.start : error.end]), error.end


def lost(name: str) -> str | None:
    """Say why text written to stdout or stderr was lost; None if only the reader of a pipe has gone."""
    raw = _descriptor(name)
    if raw is None:
        return None
    getattr(sys, name).flush()
    if raw.failure is None or raw.failure.errno == errno.EPIPE:
        return None
    return f"cannot write to {name}: {os.strerror(raw.failure.errno or 0)}"
