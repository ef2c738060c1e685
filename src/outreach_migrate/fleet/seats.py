"""The limits of a fleet's connections, a server each."""

from __future__ import annotations

import time
from collections import Counter


class Seats:
    """The workers at each server, and how many there may be; a server has no limit until it refuses a connection.

    After `again` seconds one more connection is tried there.
    """

    def __init__(self, *, again: float = 5.0) -> None:
        self._wait = again
        self._taken = Counter[object]()
        self._most: dict[object, int] = {}
        self._again: dict[object, float] = {}

    def taken(self, host: object) -> int:
        """Count the workers at a server."""
        return self._taken[host]

    def is_free(self, host: object) -> bool:
        """Tell whether one more worker may be at a server; if it is full, another try is due now and then."""
        return self._taken[host] < self._most.get(host, self._taken[host] + 1) or time.monotonic() >= self._again[host]

    def move(self, old: object, new: object) -> None:
        """Let a worker change to another server, from none if `old` is None."""
        self._taken[old] -= 1
        self._taken[new] += 1
        if new in self._most and self._taken[new] > self._most[new]:
            self._limit(new, self._taken[new])

    def refused(self, host: object) -> int:
        """Take away the worker that was refused, unless it is alone there; give the number of those that are left."""
        others = self._taken[host] - 1
        if others:
            self._taken[host] = others
            self._limit(host, others)
        return others

    def _limit(self, host: object, most: int) -> None:
        self._most[host], self._again[host] = most, time.monotonic() + self._wait
