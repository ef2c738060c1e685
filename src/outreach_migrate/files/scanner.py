"""The tokens of SQL text, as PostgreSQL's scanner reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from outreach_migrate.files import statements
from outreach_migrate.files.statements import ESCAPED, GAP, JOINT, NUMBER, PLAIN, QUOTED, WORD

if TYPE_CHECKING:
    from collections.abc import Iterator

_STRINGS = (
    rf"[eE]'{ESCAPED}(?:{JOINT}{ESCAPED}|(?!))*+(?!{JOINT})"
    rf"|[bBxX]'[^']*+'(?:{JOINT}[^']*+'|(?!))*+(?!{JOINT})"
    rf"|(?:[nN]|[uU]&)?'{PLAIN}(?:{JOINT}{PLAIN}|(?!))*+(?!{JOINT})"
)
_SIGNS = r"[,:;()\[\]]|\.\.?|(?:(?!--|/\*)[-~!@#^&|`?+*/%<>=])++"
_TOKEN = re.compile(
    rf"{GAP}(?:(?P<STRING>{_STRINGS})|(?P<QUOTED>(?:[uU]&)?{QUOTED})|(?P<WORD>{WORD})|(?P<NUMBER>{NUMBER})"
    rf"|(?P<SIGN>{_SIGNS}))?",
    re.DOTALL,
)
_UNICODE = re.compile(r"\\(?:([0-9a-fA-F]{4})|\+([0-9a-fA-F]{6})|\\)")
_OPENING = re.compile(r"\$[^$]*\$|(?:[bBeEnNxX]|[uU]&)?'")


class Kind(Enum):
    """The kinds of tokens. A sign is one of , ; : . .. ( ) [ ], or operators with nothing between them."""

    WORD = "a bare word"
    QUOTED = "a name in double quotes"
    STRING = "a string"
    NUMBER = "a number, or a parameter"
    SIGN = "a sign"


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it stands in a text, and its offset there."""

    kind: Kind
    text: str
    start: int

    @property
    def end(self) -> int:
        """The offset after the token."""
        return self.start + len(self.text)

    @property
    def word(self) -> str:
        """The keyword or sign in lower case; empty for a quoted token, which is neither."""
        return "" if self.kind in (Kind.QUOTED, Kind.STRING) else statements.folded(self.text)

    @property
    def name(self) -> str:
        """The name that the token stands for, or a string's text, in which only doubled quotes are decoded."""
        if self.kind is Kind.STRING:
            return self._inside(*self._ends())
        if self.kind is not Kind.QUOTED:
            return statements.folded(self.text)
        name = self._inside(self.text.index('"') + 1, '"')
        return name if self.text.startswith('"') else _UNICODE.sub(_character, name)

    @property
    def identifier(self) -> str:
        """The name as written without U&; a bare word keeps its case, because some encodings fold more than ASCII."""
        if self.kind is not Kind.QUOTED or self.text.startswith('"'):
            return self.text
        return '"' + self.name.replace('"', '""') + '"'

    def _ends(self) -> tuple[int, str]:
        opening = _OPENING.match(self.text)
        return (opening.end(), opening[0] if opening[0][0] == "$" else "'") if opening else (0, "")

    def _inside(self, begin: int, closing: str) -> str:
        inside = self.text[begin:].removesuffix(closing)
        return inside if closing[:1] == "$" else inside.replace(closing * 2, closing)


def tokens(sql: str, start: int = 0, end: int | None = None) -> Iterator[Token]:
    """Yield the tokens between two offsets of a text; a quote or comment that never closes is a token to the end."""
    end = len(sql) if end is None else end
    pos = start
    while found := _TOKEN.match(sql, pos, end):
        pos = found.end()
        if found.lastgroup:
            yield Token(Kind[found.lastgroup], found[found.lastgroup], found.start(found.lastgroup))
        elif pos == end:
            return
        elif sql.startswith("/*", pos):  # with another comment inside
            stop = statements.comment_end(sql, pos)
            pos = stop if 0 <= stop < end else end
        else:
            token = _special(sql, pos, end)
            yield token
            pos = token.end


def words(sql: str, start: int = 0, end: int | None = None) -> list[str]:
    """Give a word for each token: keywords and signs in lower case, names without quotes, and strings in quotes."""
    return [
        token.word or (f"'{token.name}'" if token.kind is Kind.STRING else token.name)
        for token in tokens(sql, start, end)
    ]


def with_strings(sql: str) -> Iterator[Token]:
    """Yield the tokens of a text and of its strings, because a string may be SQL, such as the body of a function."""
    left = [sql]
    while left:
        for token in tokens(left.pop()):
            yield token
            if token.kind is Kind.STRING:
                left.append(token.name)


def mentions(sql: str, name: str) -> bool:
    """Tell whether a name stands in a text, or in one of its strings, which may be SQL; comments don't count."""
    return name.lower() in sql.lower() and any(token.name == name for token in with_strings(sql))


def _special(sql: str, pos: int, end: int) -> Token:
    sign = sql[pos]
    if sign == "$" and (quote := statements.DOLLARS.match(sql, pos, end)):
        close = sql.find(quote[0], quote.end(), end)
        return Token(Kind.STRING, sql[pos : close + len(quote[0]) if close >= 0 else end], pos)
    if sign in "'\"eE":
        return Token(Kind.QUOTED if sign == '"' else Kind.STRING, sql[pos:end], pos)
    return Token(Kind.SIGN, sign, pos)


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1] or escape[2], 16)) if escape[1] or escape[2] else "\\"


def redacted(query: str) -> str:
    r"""Put ? for every literal, and leave out comments, because other people's data has no place in a log.

    The query may be cut off in the middle. With `\'` in a plain string its end depends on standard_conforming_strings,
    so all the rest counts as the literal's.
    """
    parts, end = list[str](), 0
    for token in tokens(query):
        is_string = token.kind is Kind.STRING
        is_literal = is_string or (token.kind is Kind.NUMBER and token.text[0] != "$")
        parts += [" " if token.start > end else "", "?" if is_literal else token.text]
        if is_string and token.text[0] not in "eE$" and "\\'" in token.text:
            break
        end = token.end
    return " ".join("".join(parts).split())
