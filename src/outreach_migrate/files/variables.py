"""Variables in a file: two of psql's forms, :'name' for a literal and :"name" for an identifier."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from outreach_migrate.errors import UsageError
from outreach_migrate.files import scanner
from outreach_migrate.files.scanner import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from outreach_migrate.errors import ServerMessage

    Lookup = Callable[[str], str | None]

PREFIX = "OUTREACH_MIGRATE_SET_"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHORT = 4  # characters; a shorter value is hidden only where it stands as a word, because it is in most messages
_PRIVATE = 0xE000  # the first of the characters that mean nothing


@dataclass(frozen=True, slots=True)
class Use:
    """A variable's name, and where it stands in the text: from its colon to its closing quote."""

    name: str
    quote: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Written:
    """The text of a file as it is written, whose `sql` has values where this has variables.

    `ends` are the offsets behind each value in `sql` and behind its variable in the text, in order. `missing` are the
    variables without a value, which are in `sql` as they are written.
    """

    text: str = field(repr=False)
    missing: tuple[Use, ...]
    ends: tuple[tuple[int, int], ...]
    values: Mapping[str, str] = field(repr=False)

    def offset(self, offset: int) -> int:
        """Turn an offset in `sql` into one in the text; inside a value it is the variable's last character."""
        following = bisect_right(self.ends, (offset, len(self.text)))
        after_sql, after = self.ends[following - 1] if following else (0, 0)
        found = after + offset - after_sql
        if following == len(self.ends):
            return found
        return min(found, self.ends[following][1] - 1)

    def hidden(self, text: str) -> str:
        """Put the variables' names in place of their values, which may be secret, and of the parts of them."""
        names = dict[str, str]()  # by a sign that stands for one meanwhile, so that no value is found in a name
        for number, (name, value) in enumerate(sorted(self.values.items(), key=lambda pair: -len(pair[1]))):
            sign = chr(_PRIVATE + number)
            names[sign] = f":'{name}'"
            text = _without(text, value, sign)
        return "".join(names.get(sign, sign) for sign in text)

    def shown_in(self, text: str) -> list[str]:
        """Name the variables whose whole values a text has; a short one counts where it stands as a word."""
        return [name for name, value in self.values.items() if value and re.search(_pattern(value), text)]


def _without(text: str, value: str, sign: str) -> str:
    """Put a sign in place of a value, as it is and as the server quotes it, and of the parts of it.

    The server cuts a long value off, and of JSON it shows the wrong token and the line before it. A part begins where
    a word of the value does, and is words of the text.
    """
    if not value:
        return text
    text = re.sub(_pattern(value), sign, text)
    if len(value) < _SHORT:
        return text
    parts, done = list[str](), 0
    for start in re.finditer(r"(?<!\w)\S", text):
        if start.start() >= done and (end := _end_of_part(text, start.start(), value)):
            parts += [text[done : start.start()], sign]
            done = end
    return "".join([*parts, text[done:]])


def _pattern(value: str) -> str:
    """Write a pattern of a value, as it is and as the server quotes it."""
    if len(value) < _SHORT:
        return rf"(?<!\w){re.escape(value)}(?!\w)"
    doubled = value.replace("\\", "\\\\")
    forms = {value, doubled, value.replace('"', '""'), doubled.replace('"', '\\"')}
    forms |= {form.replace("'", "''") for form in (value, doubled)}
    return "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))


def _end_of_part(text: str, start: int, value: str) -> int:
    """Find the end of the longest part of a value that begins at an offset of a text; 0 if it is too short."""
    end = start + _SHORT
    if text[start:end] not in value:
        return 0
    while end < len(text) and text[start : end + 1] in value:
        end += 1
    while end > start and re.fullmatch(r"\w\w", text[end - 1 : end + 1]):  # in the middle of a word
        end -= 1
    part = text[start:end].rstrip()
    if len(re.findall(r"\w", part)) < _SHORT or not re.search(rf"(?<!\w){re.escape(part)}", value):
        return 0
    return start + len(part)


def uses(sql: str) -> Iterator[Use]:
    """Yield the variables outside of strings and comments; a bare :name and a cast are none."""
    colon: scanner.Token | None = None
    is_cast = False
    for token in scanner.tokens(sql):
        if token.text == ":":
            is_cast = colon is not None and colon.end == token.start
            colon = token
            continue
        is_form = token.kind in (Kind.STRING, Kind.QUOTED) and token.text[1:-1] == token.name
        if colon and colon.end == token.start and not is_cast and is_form and NAME.fullmatch(token.name):
            yield Use(token.name, token.text[0], colon.start, token.end)
        colon = None


def bound(sql: str, lookup: Lookup) -> tuple[str, Written]:
    """Put the values of its variables into a text, quoted as libpq quotes.

    Raise UsageError for a value that is no text of PostgreSQL's.
    """
    parts, ends, missing = list[str](), list[tuple[int, int]](), list[Use]()
    values = dict[str, str]()
    begin = length = 0
    for use in uses(sql):
        value = lookup(use.name)
        if value is None:
            missing.append(use)
            continue
        _check(use.name, value)
        values[use.name] = value
        parts += [sql[begin : use.start], _quoted(value, use.quote)]
        length += len(parts[-2]) + len(parts[-1])
        begin = use.end
        ends.append((length, use.end))
    return "".join([*parts, sql[begin:]]), Written(sql, tuple(missing), tuple(ends), values)


def _check(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise UsageError(f"the value of the variable {name} is no text, but of the type {type(value).__name__}")
    if "\0" in value:
        raise UsageError(f"the value of the variable {name} has a NUL, which PostgreSQL's text can't hold")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(f"the value of the variable {name} is not UTF-8") from None


def _quoted(value: str, quote: str) -> str:
    if quote == "'" and "\\" in value:
        return " E'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
    return quote + value.replace(quote, quote * 2) + quote


def lookup(given: Mapping[str, str], environment: Mapping[str, str], project: Mapping[str, str]) -> Lookup:
    """Give the values of --set, else of variables of the environment, else of pyproject.toml."""

    def value(name: str) -> str | None:
        found = given.get(name, environment.get(PREFIX + name.upper()))
        return project.get(name) if found is None else found

    return value


def of_project(table: object, where: str) -> dict[str, str]:
    """Read [tool.outreach-migrate.set]; raise UsageError, which quotes no value."""
    if not isinstance(table, dict):
        raise UsageError(f"{where} must be a table")
    for name, value in table.items():
        if not NAME.fullmatch(name):
            raise UsageError(f"{where}: a variable's name is letters, digits and underscores")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UsageError(f"{where} has a {type(value).__name__} as {name}")
    return {name: str(value) for name, value in table.items()}


def hidden(written: Written | None, message: ServerMessage) -> ServerMessage:
    """Hide the values in the server's messages about a file."""
    if written is None:
        return message
    shown = written.hidden
    return message._replace(
        message=shown(message.message),
        detail=message.detail and shown(message.detail),
        hint=message.hint and shown(message.hint),
        context=message.context and shown(message.context),
    )
