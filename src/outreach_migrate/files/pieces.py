"""A file that runs without a transaction, in statements, each with the checksum of what comes up to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from outreach_migrate.files import statements

if TYPE_CHECKING:
    from collections.abc import Iterator

_GAP = r"(?:\s|--[^\n]*\n|/\*.*?\*/)+"
_PART = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
BUILD = re.compile(  # of an index, concurrently: its name and its table, as they stand in SQL
    rf"create{_GAP}(?:unique{_GAP})?index{_GAP}concurrently{_GAP}(?:if{_GAP}not{_GAP}exists{_GAP})?"
    rf"(?!on\b)({_PART})(?:{_GAP})on{_GAP}(?:only{_GAP})?({_PART}(?:\s*\.\s*{_PART}){{0,2}})",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One statement of a file: its number from 0, its place, and the SETs of the file that come before it.

    `checksum` is the SHA-256 of the statements up to and with this one, `checksum_before` without it.
    """

    number: int
    start: int
    text: str
    settings: tuple[str, ...]
    checksum_before: str
    checksum: str


def cut(sql: str) -> Iterator[Piece]:
    """Cut a text into its statements.

    SET and RESET hold for the statements after them, which are given them anew: a pooler may have moved to another
    server connection meanwhile.
    """
    import hashlib  # it brings OpenSSL along

    digest, settings = hashlib.sha256(), list[str]()
    for number, statement in enumerate(statements.split(sql)):
        before = digest.hexdigest()
        text = sql[statement.start : statement.end]
        digest.update(text.encode() + b"\0")
        yield Piece(number, statement.start, text, tuple(settings), before, digest.hexdigest())
        if statement.words[:1] in (("set",), ("reset",)):
            settings.append(text)


def checksum_before(sql: str, number: int) -> str | None:
    """Give the checksum of the first `number` statements, None when there are fewer."""
    if number == 0:
        import hashlib

        return hashlib.sha256().hexdigest()
    last = next(islice(cut(sql), number - 1, None), None)
    return last.checksum if last else None
