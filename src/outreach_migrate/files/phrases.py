"""Phrases of SQL, such as `create [or replace] function|procedure`, found in words.

They are written as in PostgreSQL's manual: `a|b` is either word, `[a b]` may be missing, and anything may stand in
place of `…`. With `a unless b` the words b must not follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Meaning = TypeVar("Meaning")


class Phrases(Generic[Meaning]):
    """Phrases with a meaning each."""

    def __init__(self, meanings: Mapping[str, Meaning]) -> None:
        self._root = _Node[Meaning]()
        for text, meaning in meanings.items():
            said, _, unless = text.partition(" unless ")
            first, *later = said.split("…")
            ending = _Ending(meaning, tuple(map(any_of, later)), any_of(unless) if unless else None)
            for words in _forms(first):
                self._root.behind(words).endings.append(ending)

    def look_up(self, words: Sequence[str], start: int = 0) -> tuple[Meaning, int] | None:
        """Give the meaning of the longest phrase that stands at `start`, and the index behind it."""
        found, following = None, self._root.following
        for at in range(start, len(words)):
            node = following.get(words[at])
            if node is None:
                break
            following = node.following
            for ending in node.endings:
                if end := ending.end(words, at + 1):
                    found = ending.meaning, end
        return found

    def end(self, words: Sequence[str], start: int = 0) -> int | None:
        """Give the index behind the longest phrase that stands at `start`, None if none does."""
        found = self.look_up(words, start)
        return found[1] if found else None

    def are_in(self, words: Sequence[str]) -> bool:
        """Tell whether one of them stands anywhere in words."""
        return any(self.look_up(words, start) for start in range(len(words)))


def any_of(*texts: str) -> Phrases[None]:
    """Make phrases without a meaning."""
    return Phrases(dict.fromkeys(texts))


@dataclass(frozen=True, slots=True)
class _Ending(Generic[Meaning]):
    """The end of a phrase's first words, the parts of it that come later, and those that must not follow."""

    meaning: Meaning
    later: tuple[Phrases[None], ...]
    unless: Phrases[None] | None

    def end(self, words: Sequence[str], start: int) -> int | None:
        end: int | None = start
        for part in self.later:
            if end is not None:
                end = next(filter(None, (part.end(words, at) for at in range(end, len(words)))), None)
        return None if end is None or (self.unless and self.unless.end(words, end)) else end


@dataclass(slots=True)
class _Node(Generic[Meaning]):
    """A place in a tree of words, which are looked up one after the other."""

    following: dict[str, _Node[Meaning]] = field(default_factory=dict)
    endings: list[_Ending[Meaning]] = field(default_factory=list)

    def behind(self, words: Sequence[str]) -> _Node[Meaning]:
        node = self
        for word in words:
            node = node.following.setdefault(word, _Node())
        return node


def _forms(text: str) -> Iterator[tuple[str, ...]]:
    """Yield all rows of words that a phrase without `…` stands for."""
    always_or_not = text.replace("]", "[").split("[")  # every second one stood in brackets
    rows = [[*product(*(word.split("|") for word in part.split()))] for part in always_or_not]
    for chosen in product(*([(), *row] if nth % 2 else row for nth, row in enumerate(rows))):
        yield tuple(word for row in chosen for word in row)
