"""Backfills in batches: the directive, and the one :range of the file's statement."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from outreach_migrate import durations
from outreach_migrate.files import commands, scanner, statements
from outreach_migrate.files.scanner import Kind
from outreach_migrate.files.statements import Forbidden
from outreach_migrate.files.variables import Written

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 0.5  # that a range takes, unless the file says otherwise
_ONE = "Put each statement into a file of its own: a range is one transaction, of one statement with its progress."
_WHERE = "Write it once, as a condition: UPDATE … WHERE … AND :range"


@dataclass(frozen=True, slots=True)
class Batches:
    """The table and the key of a backfill, as they stand in SQL, and how long a range should take, in seconds.

    The key may name its table, `key` is all of it; `column` is its last part. `offset` is the directive's.
    """

    table: str
    key: str
    column: str
    seconds: float
    offset: int


def read(value: str, offset: int) -> Batches | None:
    """Read the directive after its first word; None if it is wrong."""
    tokens = list(scanner.tokens(value))
    words = [token.word for token in tokens]
    if words[:1] != ["of"] or "by" not in words:
        return None
    by = words.index("by")
    each = words.index("each", by) if "each" in words[by:] else len(tokens)
    table, key = _name(tokens[1:by]), _name(tokens[by + 1 : each])
    limit = durations.seconds(value[tokens[each].end :]) if each < len(tokens) else SECONDS
    if not (table and key and limit):
        return None
    return Batches(table, key, tokens[each - 1].name, limit, offset)


def _name(tokens: list[scanner.Token]) -> str | None:
    """Give a name of one or two parts as it stands in SQL."""
    parts, dots = tokens[::2], tokens[1::2]
    named = all(token.kind in (Kind.WORD, Kind.QUOTED) for token in parts)
    if len(tokens) not in (1, 3) or not named or any(token.text != "." for token in dots):
        return None
    return ".".join(token.identifier for token in parts)


def uses(sql: str) -> Iterator[range]:
    """Yield the offsets of each :range outside of strings and comments; a cast and an array's slice are none."""
    before: scanner.Token | None = None
    colon: scanner.Token | None = None
    opened = list[str]()
    for token in scanner.tokens(sql):
        if token.text in ("(", "["):
            opened.append(token.text)
        elif token.text in (")", "]") and opened:
            opened.pop()
        is_cast = before is not None and before.text == ":" and colon is not None and before.end == colon.start
        if token.text == "range" and colon and colon.end == token.start and not is_cast and opened[-1:] != ["["]:
            yield range(colon.start, token.end)
        before, colon = colon, token if token.text == ":" else None


def findings(sql: str) -> Iterator[Forbidden]:
    """Find why a text can't be run in batches: it must be one statement, with :range once."""
    first, *others = [*statements.split(sql), None]
    if first is None:
        yield Forbidden(max(0, len(sql.rstrip()) - 1), "a file in batches needs a statement", _WHERE)
        return
    if others[0]:
        yield Forbidden(others[0].start, "a file in batches has one statement", _ONE)
        return
    if command := commands.outside(sql, first, set()) or commands.committing(sql, first):
        yield Forbidden(first.start, f"{command} cannot run in batches", "Each range is a transaction.")
        return
    found = list(uses(sql))
    if not found:
        yield Forbidden(first.start, "the statement has no :range outside of strings and comments", _WHERE)
    for again in found[1:]:
        yield Forbidden(again.start, "the statement has :range a second time", _WHERE)


def within(sql: str, written: Written | None, condition: str) -> tuple[str, Written]:
    """Put a condition in place of a text's :range; give it with the text as it is `written`, in which places count."""
    at, new = next(uses(sql)), f"({condition})"
    already = written or Written(sql, (), (), {})
    shift = len(new) - len(at)
    before = [(end, text) for end, text in already.ends if end <= at.start]
    after = [(end + shift, text) for end, text in already.ends if end > at.start]
    ends = (*before, (at.start + len(new), already.offset(at.stop)), *after)
    return sql[: at.start] + new + sql[at.stop :], replace(already, ends=ends)
