"""Two schemas compared, object by object."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from outreach_migrate.schema.catalog import Object


class Deviation(StrEnum):
    """The ways in which an object can differ from the files' schema."""

    EXTRA = "extra"
    MISSING = "missing"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """An object that differs: its definition in the database, and the one that the files give; None where it is not.

    `code` is the path of the file of code that made it, if one did.
    """

    change: Deviation
    kind: str
    name: str
    actual: str | None
    expected: str | None
    code: str | None = None

    @property
    def diff(self) -> list[str]:
        """The lines of both definitions: - is as the files give it, + as the database has it."""
        both = (self.expected or "").splitlines(), (self.actual or "").splitlines()
        found = list(difflib.unified_diff(*both, lineterm="", n=2))[3:]
        return [" …" if line.startswith("@@") else line for line in found]


@dataclass(frozen=True, slots=True)
class SchemaComparison:
    """The differences of two schemas, sorted by kind and name, and the number of those that a pattern left out."""

    differences: tuple[Difference, ...]
    objects: int
    ignored: int = 0


def find(actual: Iterable[Object], expected: Iterable[Object], *, ignore: Collection[str] = ()) -> SchemaComparison:
    """Compare two schemas; the definition of an extra or a missing table has everything that belongs to it.

    `ignore` has patterns, with * and ?, of an object's name, of its kind and name, or of the table that it belongs to.
    """
    here, there = _whole(actual), _whole(expected)
    here, there = _without_absent(here, there), _without_absent(there, here)
    found = [
        _difference(here.get(key), there.get(key))
        for key in sorted(here.keys() | there.keys())
        if here.get(key) != there.get(key)
    ]
    kept = [one for one, parent in found if not _is_ignored(one, parent, ignore)]
    return SchemaComparison(tuple(kept), len(here), len(found) - len(kept))


_Key = tuple[str, str]  # kind and name


def _whole(objects: Iterable[Object]) -> dict[_Key, Object]:
    return {(one.kind, one.name): one for one in objects}


def _without_absent(here: dict[_Key, Object], there: dict[_Key, Object]) -> dict[_Key, Object]:
    """Add to the definition of a table that is only here the objects that belong to it."""
    names = {one.name for one in there.values() if one.parent is None}
    alone = {one.name: key for key, one in here.items() if one.parent is None and one.name not in names}
    kept = {key: one for key, one in here.items() if one.parent not in alone}
    for one in here.values():
        if one.parent in alone:
            key = alone[one.parent]
            kept[key] = replace(kept[key], definition=f"{kept[key].definition}\n{one.definition}")
    return kept


def _difference(actual: Object | None, expected: Object | None) -> tuple[Difference, str | None]:
    """Give a difference, and the table that the object belongs to."""
    change = Deviation.MISSING if actual is None else Deviation.EXTRA if expected is None else Deviation.CHANGED
    (one, *_) = (side for side in (actual, expected) if side)
    here, there = (side.definition if side else None for side in (actual, expected))
    return Difference(change, one.kind, one.name, here, there), one.parent


def _is_ignored(one: Difference, parent: str | None, patterns: Collection[str]) -> bool:
    names = [one.name, f"{one.kind} {one.name}", *([parent, f"table {parent}"] if parent else [])]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
