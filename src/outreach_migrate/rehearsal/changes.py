"""The names that a file's statements make and take away, as far as their text shows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING

from outreach_migrate.files import scanner, statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_LONGEST = 63  # bytes of a name: NAMEDATALEN - 1
_TOKENS = 2000  # of a statement that are read
_MODIFIERS = {
    *("or", "replace", "global", "local", "temp", "temporary", "unlogged", "unique", "recursive", "materialized"),
    *("foreign", "constraint", "event", "trusted", "procedural", "default"),
}
_OPTIONS = {"concurrently", "if", "not", "exists", "only"}
_CONSTRAINTS = {"primary", "unique", "foreign", "check", "exclude", "not"}


class NameKind(Enum):
    """The kinds of names; two names of one kind can't be the same."""

    RELATION = "relation"
    COLUMN = "column"
    FUNCTION = "function"
    SCHEMA = "schema"
    VALUE = "enum value"
    OTHER = "object"


_KINDS = {
    **dict.fromkeys(("table", "index", "view", "sequence"), NameKind.RELATION),
    **dict.fromkeys(("function", "procedure", "aggregate", "routine"), NameKind.FUNCTION),
    "schema": NameKind.SCHEMA,
    **dict.fromkeys(("type", "domain", "extension", "trigger", "policy", "rule", "collation"), NameKind.OTHER),
    **dict.fromkeys(("role", "user", "publication", "server", "statistics"), NameKind.OTHER),
}


@dataclass(frozen=True, slots=True)
class NameChange:
    """A name that is made, or taken away; without a `schema` it is in the search path's first.

    `owner` is the table of a column or a constraint, the type of a value.
    """

    made: bool
    kind: NameKind
    name: str
    schema: str | None = None
    owner: str | None = None


def of(texts: Iterable[str]) -> Iterator[NameChange]:
    """Yield the changes of statements, in order, which start in a clean session."""
    path: str | None = None
    for text in texts:
        tokens = [token.text for token in islice(scanner.tokens(text), _TOKENS)]
        words = [statements.folded(token) for token in tokens] or [""]
        if words[0] in ("create", "drop"):
            found = _made_or_dropped(tokens, words)
        elif words[0] == "alter":
            found = _altered(tokens, words)
        else:
            found = iter(())
            if (
                "search_path" in words[:3]
                and words[0] == "set"
                and len(tokens) > (at := words.index("search_path") + 2)
            ):
                path = plain(tokens[at])
        yield from (replace(change, schema=change.schema or path) for change in found)


def name(tokens: Sequence[str], at: int) -> tuple[tuple[str, ...], int]:
    """Read a name with its schema, if it has one; give its parts and its end."""
    parts = [plain(token) for token in tokens[at : at + 1]]
    while tokens[at + 1 : at + 2] == ["."] and at + 2 < len(tokens):
        at += 2
        parts.append(plain(tokens[at]))
    return tuple(parts), at + 1


def plain(token: str) -> str:
    """Give the name that a token is: folded, unless in quotes, and cut between two characters, as PostgreSQL does."""
    if len(token) > 1 and token[0] == token[-1] and token[0] in "\"'":
        kept = token[1:-1].replace(token[0] * 2, token[0])
    else:
        kept = statements.folded(token)
    return kept.encode()[:_LONGEST].decode(errors="ignore")


def _made_or_dropped(tokens: list[str], words: list[str]) -> Iterator[NameChange]:
    at = _after(words, 1, _MODIFIERS)
    if at >= len(words) or words[at] not in _KINDS:
        return
    made, what, at = words[0] == "create", words[at], _after(words, at + 1, _OPTIONS)
    for start in [at] if made else _starts(words, at):
        (*schema, last), end = name(tokens, start) if start < len(tokens) else (("",), start)
        owner: list[str] = []
        if what in ("index", "trigger", "policy", "rule") and "on" in words[end:]:
            # an index is in its table's schema
            (*schema_of_table, owner_name), _ = name(tokens, _after(words, words.index("on", end) + 1, _OPTIONS))
            owner, schema = [owner_name], schema or (schema_of_table if what == "index" else [])
        yield NameChange(made, _KINDS[what], last, schema[-1] if schema else None, *owner)


def _altered(tokens: list[str], words: list[str]) -> Iterator[NameChange]:
    at = _after(words, 1, _MODIFIERS)
    if at >= len(words) or words[at] not in _KINDS:
        return
    what, at = words[at], _after(words, at + 1, _OPTIONS)
    (*schema, last), at = name(tokens, at) if at < len(tokens) else (("",), at)
    whole = NameChange(True, _KINDS[what], last, *schema[-1:])
    for start in _starts(words, at):
        yield from _clause(tokens[start:], words[start:], whole)


def _clause(tokens: list[str], words: list[str], whole: NameChange) -> Iterator[NameChange]:
    """Read one clause of an ALTER, if it makes or takes away a name."""

    def part(at: int, kind: NameKind, *, made: bool) -> Iterator[NameChange]:
        at = _after(words, at, _OPTIONS)
        if at < len(tokens):
            yield NameChange(made, kind, plain(tokens[at]), whole.schema, whole.name)

    kinds = {
        "column": NameKind.COLUMN,
        "constraint": NameKind.OTHER,
        "value": NameKind.VALUE,
        "attribute": NameKind.COLUMN,
    }
    verb, what = (*words[:2], "", "")[:2]
    if verb in ("add", "drop") and what in kinds:
        yield from part(2, kinds[what], made=verb == "add")
    elif verb in ("add", "drop") and what not in _CONSTRAINTS:
        yield from part(1, NameKind.COLUMN, made=verb == "add")
    elif verb == "rename" and what == "to" and len(tokens) > 2:
        yield replace(whole, made=False)
        yield replace(whole, name=plain(tokens[2]))
    elif verb == "rename" and "to" in words:
        yield from part(1 + (what in kinds), kinds.get(what, NameKind.COLUMN), made=False)
        yield from part(words.index("to") + 1, kinds.get(what, NameKind.COLUMN), made=True)


def _after(words: Sequence[str], at: int, skipped: set[str]) -> int:
    while at < len(words) and words[at] in skipped:
        at += 1
    return at


def _starts(words: Sequence[str], at: int) -> Iterator[int]:
    """Yield the starts of a list's parts, each after a comma outside of parentheses."""
    depth = 0
    yield at
    for place in range(at, len(words)):
        depth += (words[place] == "(") - (words[place] == ")")
        if words[place] == "," and not depth:
            yield place + 1
