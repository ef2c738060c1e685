"""The versions of imported files."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH = 4  # of new numbers, if the first migration has none: 0001


def assign(wanted: Sequence[str], *, after: str | None = None) -> list[str]:
    """Give each a version, so that they sort in this order: its own where it can, else its predecessor's and one.

    `wanted` are digits, or empty. Of those with the most common width, the longest series that rises keeps its
    versions, if no renumbering before it reaches them; other files keep theirs if they fit in between. `after` is a
    version that comes before all of them.
    """
    last = after if after is not None else "0" * _WIDTH
    least = -1 if after is None else int(after)
    kept = _rising(wanted, least)
    given = list[str]()
    for place, version in enumerate(wanted):
        following = next((int(wanted[one]) for one in kept if one > place), None)
        fits = version and int(version) > least and (place in kept or following is None or int(version) < following)
        last = version if fits else str(int(last) + 1).zfill(len(last))
        least = int(last)
        given.append(last)
    return given


def _rising(wanted: Sequence[str], least: int) -> list[int]:
    """Find the places of the longest series of versions that rise above `least`; of equal ones the first counts."""
    width = Counter(map(len, filter(None, wanted))).most_common(1)
    ends, numbers, before = list[int](), list[int](), dict[int, int | None]()
    for place, version in enumerate(wanted):
        if not version or len(version) != width[0][0] or int(version) <= least:
            continue
        at = bisect_left(numbers, int(version))
        if numbers[at : at + 1] != [int(version)]:
            before[place] = ends[at - 1] if at else None
            ends[at : at + 1], numbers[at : at + 1] = [place], [int(version)]
    found, one = list[int](), ends[-1] if ends else None
    while one is not None:
        found.append(one)
        one = before[one]
    return found[::-1]
