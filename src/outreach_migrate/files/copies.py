r"""COPY … FROM stdin: its statement, and its rows, which stay in the file while the SQL around them is read.

As in psql, the rows begin with the line after the one in which the statement ends, and a line `\.` ends them.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from outreach_migrate.errors import MigrateError
from outreach_migrate.files import folders, statements

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from outreach_migrate.files.folders import File, Text
    from outreach_migrate.files.scanner import Token
    from outreach_migrate.files.statements import Statement

_CHUNK = 1_000_000  # bytes
_WINDOW = 64_000  # bytes of SQL that are searched for a COPY at first, because a dump has one every few lines
_SENT = 256_000  # bytes of rows that are sent at a time
_CLIENT = {("from", "stdin"), ("from", "stdout")}  # PostgreSQL takes the two for the same
_EMPTY = re.compile(rb"(\\\.\r?(?:\n|\Z))")
_END = re.compile(rb"\n(\\\.\r?\n)")
_LAST = re.compile(rb"\n(\\\.\r?(?:\n|\Z))")
_TOLD = re.compile(r"(\d+)(?:, \w+ (.+?): )?")  # as in "COPY t, line 2, column c: …"
_KEPT = 4  # bytes that may be the beginning of an end


class NotUtf8(Exception):
    """A file's byte is not UTF-8, at this offset and line."""

    def __init__(self, byte: int, offset: int, line: int) -> None:
        super().__init__(f"not UTF-8: byte 0x{byte:02x} at offset {offset}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Copy:
    """A COPY from the client; `columns` are those that it lists, `has_options` is true if it has any option."""

    table: str
    columns: tuple[str, ...]
    is_binary: bool
    has_options: bool
    quoting: tuple[str, str] | None = None

    def told(self, context: str) -> tuple[int, str | None] | None:
        """Find the number of a row, from 1, and the name of a column in an error's context, in any language."""
        named = re.compile(rf"COPY\b.*?(?<![\w$]){re.escape(self.table)}(?![A-Za-z0-9_$])")  # not a shard of Citus
        for line in context.splitlines():
            if (at := named.search(line)) and (found := _TOLD.search(line, at.end())):
                return int(found[1]), found[2]
        return None

    def column(self, row: str, name: str | None) -> int:
        """Find the column, in characters from 1, in which a value begins; 1 where the row's format does not show it."""
        if self.has_options or name not in self.columns:
            return 1
        return 1 + sum(len(value) + 1 for value in row.split("\t")[: self.columns.index(name)])


@dataclass(frozen=True, slots=True)
class Rows:
    r"""The rows of a COPY.

    They were left out of the SQL at `offset`, in characters; in the file they begin at `line`, and are `lines`, with
    the `\.` that ends them. `begin` and `end` are their offsets in the file, in bytes, `crc` is their CRC-32.
    """

    file: File | Text = field(compare=False)
    offset: int
    line: int
    lines: int
    begin: int
    end: int
    crc: int
    is_ended: bool

    def chunks(self) -> Iterator[bytes]:
        """Read the rows anew, with LF for CRLF; raise MigrateError when they are not as they were at first."""
        import zlib

        crc, left, held = 0, self.end - self.begin, b""
        try:
            with folders.opened(self.file, self.begin) as stream:
                while left and (raw := stream.read(min(left, _SENT))):
                    crc, left = zlib.crc32(raw, crc), left - len(raw)
                    text, held = _lf(held + raw)
                    yield text
        except OSError as error:
            raise MigrateError(f"{self.file.path} cannot be read: {error.strerror}") from error
        if left or crc != self.crc:
            raise MigrateError(f"{self.file.path} was changed while the run read it", hint="Run up again.")

    def text(self) -> Iterator[str]:
        """Read the rows as `chunks` does, decoded."""
        return codecs.iterdecode(self.chunks(), "utf-8")


@dataclass(frozen=True, slots=True)
class Copied:
    """The rows that a file holds, and the checksum of its whole text."""

    rows: tuple[Rows, ...]
    checksum: str


def of(sql: str, statement: Statement) -> Copy | None:
    """Read a statement that copies from the client; None for any other."""
    if statement.words[:1] != ("copy",) or not any(pair in _CLIENT for pair in pairwise(statement.words)):
        return None
    from outreach_migrate.files import scanner  # here, because few files need it, and its pattern compiles slowly

    read = list(scanner.tokens(sql, statement.start, statement.end))
    words, names = [token.word for token in read], [token.name.lower() for token in read]
    at = next(at for at, pair in enumerate(pairwise(words)) if pair in _CLIENT)
    table = words.index("(") if "(" in words[:at] else at
    columns = tuple(token.name for token in read[table:at] if token.word not in ("(", ",", ")"))
    is_binary = "binary" in (words[1], *words[at + 2 : at + 4]) or ("format", "binary") in pairwise(names[at:])
    return Copy(read[table - 1].name, columns, is_binary, len(read) > at + 2, _quoting(read[at + 2 :]))


def _quoting(options: list[Token]) -> tuple[str, str] | None:
    """Read the signs for quote and escape of CSV, from both forms of options: (FORMAT csv, …) and CSV …."""
    words, names = [token.word for token in options], [token.name for token in options]
    end = words.index("where") if "where" in words else len(words)
    if "csv" not in words[:end] and ("format", "csv") not in pairwise(name.lower() for name in names[:end]):
        return None
    given = {}
    for at, word in enumerate(words[:end]):
        if word in ("quote", "escape"):
            given[word] = "".join(names[at + 1 : at + 3][words[at + 1 : at + 2] == ["as"]])[-1:]
    quote = given.get("quote", '"')
    return quote, given.get("escape", quote)


def read(file: File | Text) -> tuple[str, Copied | None]:
    """Read a file's SQL, without BOM and with LF for CRLF, and find the rows in it; raise OSError or NotUtf8."""
    with folders.opened(file) as stream:
        head = stream.read(_WINDOW)
        if len(head) == _WINDOW:  # most files are small, and room for a chunk takes longer to get than they to read
            head += stream.read(_CHUNK - _WINDOW)
        if len(head) < _CHUNK and not _is_mentioned(head):
            return _decoded(head), None
        source, parts, found, offset = _Source(file, stream, head), list[str](), list[Rows](), 0
        for sql, count in iter(source.sql, ("", 0)):
            parts.append(sql)
            offset += len(sql)
            found += [source.rows(offset) for _ in range(count)]
    return "".join(parts), Copied(tuple(found), source.checksum())


def _is_mentioned(raw: bytes) -> bool:
    """Tell whether a text may have a COPY from the client; a pattern would take ten times as long."""
    lower = raw.lower()
    return b"stdin" in lower or b"stdout" in lower


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode().removeprefix("\ufeff").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise NotUtf8(raw[error.start], error.start, raw.count(b"\n", 0, error.start) + 1) from None


def _lf(raw: bytes) -> tuple[bytes, bytes]:
    """Write LF for CRLF; hold back a CR at the end, because an LF may follow."""
    if b"\r" not in raw:
        return raw, b""
    held = raw[-1:] if raw.endswith(b"\r") else b""
    return raw.removesuffix(held).replace(b"\r\n", b"\n"), held


class _Source:
    """A file that is read once, in order; on the way its text is hashed, and checked to be UTF-8."""

    def __init__(self, file: File | Text, stream: BinaryIO, head: bytes) -> None:
        import hashlib  # here, because it loads OpenSSL

        self._file, self._stream, self._digest = file, stream, hashlib.sha256()
        self._held = self._undecoded = self._buffer = b""
        self._base = len(codecs.BOM_UTF8) if head.startswith(codecs.BOM_UTF8) else 0  # the buffer's place in the file
        self._at, self._line = 0, 1  # how far the buffer is used, and the file's line there
        self._take(head[self._base :])

    def checksum(self) -> str:
        """Give the checksum of the text, all of which has been read."""
        self._digest.update(self._held)
        return self._digest.hexdigest()

    def sql(self) -> tuple[str, int]:
        """Read on to the end of the line in which a COPY ends, or to the file's end, and count the COPYs of that line.

        The window grows, because a scan of every byte for every COPY would take too long.
        """
        size, looked, is_mentioned = _WINDOW, 0, False
        while True:
            self._fill(size)
            is_mentioned = is_mentioned or _is_mentioned(self._buffer[self._at + looked : self._at + size])
            is_last = len(self._buffer) - self._at < size
            if is_mentioned or is_last:
                window = self._buffer[self._at : self._at + size]
                text, used = codecs.utf_8_decode(window, "strict", is_last)
                end, count = _copies(text, is_last=is_last) if is_mentioned else (len(text), 0)
                if count or is_last:
                    text = text[:end]
                    self._use(len(text.encode()) if count else used)
                    return text.replace("\r\n", "\n"), count
            size, looked = size * 2, size - len(b"stdout")  # a word may lie across the window's end

    def rows(self, offset: int) -> Rows:
        """Read on to the line that ends rows, or to the file's end."""
        import zlib

        line, begin, crc = self._line, self._base + self._at, 0
        found, is_last = None, False
        while not (found or is_last):
            self._fill(_CHUNK)
            buffer, at = self._buffer, self._at
            is_last = len(buffer) - at < _CHUNK
            found = None
            if buffer.find(b"\\", at) >= 0:  # many rows have none, and a pattern takes ten times as long
                found = (_LAST if is_last else _END).search(buffer, at)
            if self._base + at == begin:
                found = _EMPTY.match(buffer, at) or found
            stop = found.start(1) if found else len(buffer) if is_last else len(buffer) - _KEPT
            crc = zlib.crc32(memoryview(buffer)[at:stop], crc)
            self._use(stop - at)
        end = self._base + self._at
        self._use(found.end() - found.start(1) if found else 0)
        return Rows(self._file, offset, line, self._line - line, begin, end, crc, found is not None)

    def _use(self, size: int) -> None:
        self._line += self._buffer.count(b"\n", self._at, self._at + size)
        self._at += size

    def _fill(self, size: int) -> None:
        """Read on until the buffer has this many unused bytes, or the file ends."""
        while (lacks := size - len(self._buffer) + self._at) > 0:
            raw = self._stream.read(max(lacks, _CHUNK))
            self._take(raw)
            if not raw:
                return

    def _take(self, raw: bytes) -> None:
        if self._undecoded or not raw.isascii():
            try:
                _, size = codecs.utf_8_decode(text := self._undecoded + raw, "strict", not raw)
            except UnicodeDecodeError as error:
                lines = self._buffer.count(b"\n", self._at) + text.count(b"\n", 0, error.start)
                offset = self._base + len(self._buffer) - len(self._undecoded) + error.start
                raise NotUtf8(text[error.start], offset, self._line + lines) from None
            self._undecoded = text[size:]
        text, self._held = _lf(self._held + raw)
        self._digest.update(text)
        self._buffer, self._base, self._at = self._buffer[self._at :] + raw, self._base + self._at, 0


def _copies(sql: str, *, is_last: bool) -> tuple[int, int]:
    """Find the end of the first line in which a COPY from the client ends, and count those in it; 0 if none does.

    Where more text may follow, a line that breaks off has none.
    """
    for statement in statements.split(sql):
        semicolon = statements.end(sql, statement)
        if semicolon > statement.end and of(sql, statement):
            newline = sql.find("\n", semicolon)
            if newline < 0 and not is_last:
                break
            end = newline + 1 if newline >= 0 else len(sql)
            rest = sql[semicolon:end]
            others = (one for one in statements.split(rest) if statements.end(rest, one) > one.end and of(rest, one))
            return end, 1 + sum(1 for _ in others)
    return len(sql), 0
