"""The queue of a fleet's jobs, which its workers share."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from outreach_migrate.run.stop import Stop

J = TypeVar("J")

_AGAIN = 0.1  # s until it is looked again whether a signal has arrived


class Queue(Generic[J]):
    """Jobs, in order; those that were put off come after the rest, when their time has come.

    After `most` failures, or a signal, no job is given any more; `left` has the rest.
    """

    def __init__(self, jobs: Iterable[J], *, workers: int, most: int | None, stop: Stop) -> None:
        self._changed = threading.Condition()
        self._ready = deque(jobs)
        self._later: list[tuple[float, int, J]] = []
        self._number = itertools.count()
        self._taken = 0
        self._failures = 0
        self._workers = workers
        self._most = most
        self._stop = stop

    def take(self) -> J | None:
        """Wait for the next job; None when there is none left to start."""
        with self._changed:
            while not self._ends():
                if self._ready:
                    self._taken += 1
                    return self._ready.popleft()
                due = self._later[0][0] - time.monotonic() if self._later else _AGAIN
                if due <= 0:
                    self._taken += 1
                    return heapq.heappop(self._later)[2]
                self._changed.wait(min(due, _AGAIN))
            self._changed.notify_all()
            return None

    def _ends(self) -> bool:
        return not self.is_open or not (self._ready or self._later or self._taken)

    @property
    def is_open(self) -> bool:
        """Whether another target may be started."""
        return not self._stop.asked and (self._most is None or self._failures < self._most)

    def done(self) -> None:
        """End a job that was taken."""
        with self._changed:
            self._taken -= 1
            self._changed.notify_all()

    def add(self, jobs: Iterable[J]) -> None:
        """Put jobs at the back."""
        with self._changed:
            self._ready.extend(jobs)
            self._changed.notify_all()

    def put_back(self, job: J, seconds: float) -> None:
        """Put a job behind all other jobs, to be taken after this many seconds at the earliest."""
        with self._changed:
            heapq.heappush(self._later, (time.monotonic() + seconds, next(self._number), job))
            self._changed.notify_all()

    def fail(self) -> None:
        """Count a failure."""
        with self._changed:
            self._failures += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Give no job any more."""
        with self._changed:
            self._most = 0
            self._changed.notify_all()

    def retire(self, job: J) -> int:
        """Take a worker away and put its job at the front, unless it is the last one; give the number that is left."""
        with self._changed:
            if self._workers == 1:
                return 0
            self._workers -= 1
            self._ready.appendleft(job)
            self._changed.notify_all()
            return self._workers

    @property
    def workers(self) -> int:
        """The number of workers that are left."""
        return self._workers

    @property
    def failures(self) -> int:
        """The number of failures."""
        return self._failures

    def left(self) -> list[J]:
        """Give the jobs that nobody has taken."""
        return [*self._ready, *(job for _, _, job in self._later)]
