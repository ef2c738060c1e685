"""The statements of SQL text, and places in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import NamedTuple

from outreach_migrate.files.phrases import any_of

# The rules of PostgreSQL's src/backend/parser/scan.l, with standard_conforming_strings on. Every long repeat is
# possessive, so no text makes a pattern backtrack or use memory. The `(?!)` at the end of a repeated alternation
# looks idle, but Python before 3.11.5 (Debian 12 has 3.11.2) counts a half-matched last round in (gh-106052).
_SPACES = r"[ \t\n\r\f\v]++"
_REMARK = r"--[^\n\r]*+"
_COMMENT = r"/\*[^*/]*+(?:(?:\*(?!/)|/(?!\*)|(?!))[^*/]*+)*+\*/"  # without a comment inside; else see comment_end
GAP = rf"(?:{_SPACES}|{_REMARK}|{_COMMENT}|(?!))*+"

# Two strings with a newline between them are one, so after E'a' backslashes count in 'b' too.
JOINT = r"(?:[ \t\f\v]++|--[^\n\r]*+)*+[\n\r](?:[ \t\n\r\f\v]++|--[^\n\r]*+[\n\r]|(?!))*+'"
ESCAPED = r"[^'\\]*+(?:(?:''|\\.)[^'\\]*+|(?!))*+'"
# Letters, digits and non-ASCII characters, as negated classes, because Python takes ten times as long to compile a
# class with all of Unicode in it.
_LETTER = r"[^\x00-@\[-^`{-\x7f]"
_IN_TAG = r"[^\x00-/:-@\[-^`{-\x7f]"
_WITHIN = r"[^\x00-#%-/:-@\[-^`{-\x7f]"
WORD = rf"(?![eE]'){_LETTER}{_WITHIN}*+"
_DIGITS, _POWER = r"[0-9][0-9_]*+", r"(?:[eE][+-]?[0-9][0-9_]*+)?"
_UNSIGNED = r"0[xX][0-9a-fA-F_]++|0[oO][0-7_]++|0[bB][01_]++|\$[0-9]++"
NUMBER = rf"{_UNSIGNED}|{_DIGITS}(?:\.(?!\.)[0-9_]*+)?{_POWER}|\.{_DIGITS}{_POWER}"  # or a parameter
PLAIN = r"[^']*+(?:''[^']*+)*+'"
QUOTED = r'"[^"]*+(?:""[^"]*+)*+"'
_TOKEN = "|".join(
    (
        r"[!#%&*+,:<=>?@\[\]^`{|}~\x00-\x08\x0e-\x1f\x7f]++",
        rf"'{PLAIN}",
        QUOTED,
        rf"{NUMBER}|\.\.?|-(?!-)|/(?!\*)",
        rf"[eE]'{ESCAPED}(?:{JOINT}{ESCAPED}|(?!))*+(?!{JOINT})",
    )
)
_PREFIX = r"[bBnNxX](?=')|[uU]&(?=['\"])"
_LIST = rf"\((?:{_SPACES}|{_TOKEN}|{WORD}|{_REMARK}|{_COMMENT}|;|(?!))*+\)"

# Each eats anything but bare words (group 1), then, outside of parentheses, one bare word (group 2).
_OUTSIDE = rf"(?s)((?:{GAP}(?:{_TOKEN}|{_PREFIX}|{_LIST})|(?!))*+){GAP}({WORD})?"
_INSIDE = rf"(?s)((?:{GAP}(?:{_TOKEN}|{WORD}|{_LIST}|;)|(?!))*+){GAP}"
_LEADING = re.compile(GAP)
DOLLARS = re.compile(rf"\$(?:{_LETTER}{_IN_TAG}*+)?\$")
_COMMENT_MARK = re.compile(r"/\*|\*/")
_ROUTINE = any_of("create [or replace] function|procedure")
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a text.

    `start` is the offset of its first token, `end` the offset after its last, in characters, without the semicolon;
    `words` are its first bare words (16 at most): unquoted, outside of parentheses, in lower case.
    """

    start: int
    end: int
    words: tuple[str, ...]


class Forbidden(NamedTuple):
    """Something in a text that a migration may not have, and its offset in characters."""

    offset: int
    message: str
    hint: str | None = None


def split(sql: str) -> Iterator[Statement]:
    """Yield the statements of a text, one at a time, as PostgreSQL's parser sees them; empty ones are dropped.

    A text that PostgreSQL would refuse is split too; a quote or comment that never closes lasts to the text's end.
    """
    return (found for found in walk(sql) if isinstance(found, Statement))


def walk(sql: str) -> Iterator[Statement | range]:
    """Yield the statements of a text, and the offsets of psql's commands and of quotes that never close.

    The statement with such a quote comes before the quote's offset.
    """
    marks = _marks(sql)
    for kind, begin, stop in marks:
        if kind not in (";", "\\"):
            statement, kind, begin, stop = _statement(sql, begin, chain([(kind, begin, stop)], marks))
            yield statement
        if kind in ("\\", "open"):
            yield range(begin, stop)


def place(sql: str, offset: int) -> tuple[int, int]:
    r"""Return the line and the column of an offset, both from 1, in characters; lines end at \n."""
    return sql.count("\n", 0, offset) + 1, offset - sql.rfind("\n", 0, offset)


def blanked(sql: str, statement: Statement) -> str:
    """Write spaces over a statement and its semicolon; no offset changes."""
    after = end(sql, statement)
    return without(without(sql, range(statement.start, statement.end)), range(after - (after > statement.end), after))


def without(sql: str, offsets: range) -> str:
    """Write spaces over a part of a text; no offset changes."""
    blank = re.sub(r"[^\r\n]", " ", sql[offsets.start : offsets.stop])
    return sql[: offsets.start] + blank + sql[offsets.stop :]


def closed(sql: str) -> str:
    """Write a semicolon after the last statement where it has none, so that other text can follow."""
    last = max((statement.end for statement in split(sql)), default=0)
    return f"{sql[:last]};{sql[last:]}" if last and not sql.startswith(";", _after_gap(sql, last)) else sql


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """Compile a pattern on first use, because a run with nothing to do needs none of them."""
    return re.compile(pattern)


def end(sql: str, statement: Statement) -> int:
    """Find the offset after a statement's semicolon, or after the statement if it has none."""
    semicolon = _after_gap(sql, statement.end)
    return semicolon + 1 if sql.startswith(";", semicolon) else statement.end


def folded(word: str) -> str:
    """Fold a word's case as PostgreSQL does, because lower() would take the Kelvin sign for a K."""
    return word.lower() if word.isascii() else word.translate(_ASCII_LOWER)


def _statement(sql: str, start: int, marks: Iterator[tuple[str, int, int]]) -> tuple[Statement, str, int, int]:
    """Read marks up to the end of one statement, and return that last mark as well.

    BEGIN ATOMIC … END has semicolons of its own. In the grammar its END follows one (or ATOMIC, when it is empty);
    the END of a CASE and of "SELECT x AS end" never does.
    """
    words, previous, in_body, end = list[str](), "", False, start
    for kind, begin, stop in marks:
        if kind == "\\" or (kind == ";" and not in_body):
            break
        end, previous, before = stop, kind, previous
        if kind == "word":
            previous = word = folded(sql[begin:stop])
            if len(words) < 16:
                words.append(word)
            if word == "end" and before == ";":
                in_body = False
            elif word == "atomic" and before == "begin" and not in_body and _ROUTINE.end(words):
                in_body, previous = True, ";"
    return Statement(start, end, tuple(words)), kind, begin, stop


def _marks(sql: str) -> Iterator[tuple[str, int, int]]:
    """Yield the outermost parts of a text: kind, start and end offset of each."""
    pos, depth = _after_gap(sql, 0), 0
    outside, inside = _compiled(_OUTSIDE), _compiled(_INSIDE)
    while found := (inside if depth else outside).match(sql, pos):
        if found.end(1) > pos:
            yield "other", pos, found.end(1)
        pos = found.end()
        if found.lastindex == 2:
            yield "word", found.start(2), pos
            continue
        if pos == len(sql):
            return
        kind, stop = _special(sql, pos)
        depth = max(0, depth + (kind == "(") - (kind == ")")) if kind != "\\" else 0
        if kind:
            yield kind, pos, stop
        pos = _after_gap(sql, stop)


def _special(sql: str, pos: int) -> tuple[str, int]:
    """Give the kind and the end of a part that the patterns don't cover."""
    sign = sql[pos]
    if sign in ";()":
        return sign, pos + 1
    if sign == "\\":
        line_end = sql.find("\n", pos)
        return sign, line_end if line_end >= 0 else len(sql)
    if sign == "$":
        quote = DOLLARS.match(sql, pos)
        if not quote:
            return "other", pos + 1
        close = sql.find(quote[0], quote.end())
        return ("other", close + len(quote[0])) if close >= 0 else ("open", len(sql))
    stop = comment_end(sql, pos) if sign == "/" else -1
    return ("", stop) if stop >= 0 else ("open", len(sql))


def comment_end(sql: str, pos: int) -> int:
    """Find the end of the comment that starts at an offset, with the comments inside; -1 if it never ends."""
    depth = 0
    for mark in _COMMENT_MARK.finditer(sql, pos):
        depth += 1 if mark[0] == "/*" else -1
        if not depth:
            return mark.end()
    return -1


def _after_gap(sql: str, pos: int) -> int:
    while found := _LEADING.match(sql, pos):
        pos = found.end()
        stop = comment_end(sql, pos) if sql.startswith("/*", pos) else -1
        if stop < 0:
            break
        pos = stop
    return pos
