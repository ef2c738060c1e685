"""A file without a transaction, cut into statements, each with the checksum of the text up to it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from outreach_migrate.files import commands, statements
from outreach_migrate.files.phrases import any_of
from outreach_migrate.files.statements import Statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.files.commands import Build, Command

_LOADS, _RESETS, _DISCARDS = any_of("load"), any_of("reset all"), any_of("discard all")
_SETTING = any_of("set|reset|load", "discard all")
_CHOOSES_ROLE = any_of(
    "set|reset [local|session] role|session_authorization", "set|reset [local|session] session authorization"
)


@dataclass(frozen=True, slots=True)
class Piece:
    """One statement of a file: its number from 0, its place, and the SETs of the file that come before it.

    `command` is set if it can't share a transaction, `build` if it builds an index concurrently. `checksum` is the
    SHA-256 of the statements up to and including this one, `checksum_before` of those before it.
    """

    number: int
    start: int
    text: str
    settings: tuple[str, ...]
    checksum_before: str
    checksum: str
    command: Command | None
    build: Build | None


def cut(sql: str, written: str | None = None) -> Iterator[Piece]:
    """Cut a text into its statements; their checksums are of the text as it is `written`, with its variables.

    SET, RESET and LOAD are repeated before each later statement, because a pooler may have moved to another server
    connection by then, and a run that resumes the file has a new one.
    """
    import hashlib  # it brings OpenSSL along

    digest, kept, settings = hashlib.sha256(), list[Statement](), tuple[str, ...]()
    slotless = set[str]()
    as_written = None if written is None else statements.split(written)
    for number, statement in enumerate(statements.split(sql)):
        before = digest.hexdigest()
        text = sql[statement.start : statement.end]
        same = next(as_written) if as_written else None
        digest.update((written[same.start : same.end] if written and same else text).encode() + b"\0")
        command = commands.outside(sql, statement, slotless) or commands.committing(sql, statement)
        build = commands.build(sql, statement)
        yield Piece(number, statement.start, text, settings, before, digest.hexdigest(), command, build)
        if _SETTING.end(statement.words):
            kept = _kept(kept, statement)
            settings = tuple(sql[one.start : one.end] for one in kept)


def _kept(kept: list[Statement], new: Statement) -> list[Statement]:
    """Give the settings that hold after a statement. RESET ALL keeps the role, and nothing unloads a library."""
    if _RESETS.end(new.words):
        return [one for one in kept if _LOADS.end(one.words) or _CHOOSES_ROLE.end(one.words)]
    if _DISCARDS.end(new.words):
        return [one for one in kept if _LOADS.end(one.words)]
    return [*kept, new]


def checksum_before(sql: str, number: int) -> str | None:
    """Give the checksum of the first `number` statements, None if there are fewer."""
    if number == 0:
        import hashlib

        return hashlib.sha256().hexdigest()
    last = next(islice(cut(sql), number - 1, None), None)
    return last.checksum if last else None
