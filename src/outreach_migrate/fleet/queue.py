"""The queue of a fleet's jobs, which its workers share."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from outreach_migrate.fleet.seats import Seats
from outreach_migrate.run.stop import Stop

_AGAIN = 0.1  # s until it is looked again whether a signal has arrived


class OfServer(Protocol):
    """A job that needs a connection to a server."""

    @property
    def host(self) -> object:
        """The server."""


J = TypeVar("J", bound=OfServer)


class Queue(Generic[J]):
    """Jobs, in order; those that were put off come after all that are there when their time has come.

    A server that refuses connections keeps no other server's jobs waiting. After `most` failures, or a signal, it
    gives no more jobs; `left` has the rest.
    """

    def __init__(self, jobs: Iterable[J], *, most: int | None, stop: Stop) -> None:
        self._changed = threading.Condition()
        self._seats = Seats()
        self._ready: dict[object, deque[tuple[int, J]]] = defaultdict(deque)  # by server, each with its number
        self._later: list[tuple[float, int, J]] = []
        self._back, self._front = itertools.count(), itertools.count(-1, -1)
        self._taken = 0
        self._failures = 0
        self._most = most
        self._stop = stop
        self.add(jobs)

    def take(self, host: object) -> J | None:
        """Wait for the next job of a worker that is connected to `host`, if any; None when none is left to start."""
        with self._changed:
            while not self._ends():
                now = time.monotonic()
                while self._later and self._later[0][0] <= now:
                    self._append(heapq.heappop(self._later)[2])
                if job := self._next(host):
                    self._taken += 1
                    return job
                due = self._later[0][0] - now if self._later else _AGAIN
                self._changed.wait(min(due, _AGAIN))
            self._changed.notify_all()
            return None

    def _next(self, host: object) -> J | None:
        """Take the first job for which the worker may have a connection."""
        fit = [(jobs[0][0], one) for one, jobs in self._ready.items() if one == host or self._seats.is_free(one)]
        if not fit:
            return None
        chosen = min(fit)[1]
        job = self._ready[chosen].popleft()[1]
        if not self._ready[chosen]:
            del self._ready[chosen]
        self._seats.move(host, chosen)
        return job

    def _append(self, job: J) -> None:
        self._ready[job.host].append((next(self._back), job))

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
            for job in jobs:
                self._append(job)
            self._changed.notify_all()

    def put_back(self, job: J, seconds: float) -> None:
        """Put a job behind all other jobs, to be taken after this many seconds at the earliest."""
        with self._changed:
            heapq.heappush(self._later, (time.monotonic() + seconds, next(self._back), job))
            self._changed.notify_all()

    def fail(self) -> None:
        """Count a failure."""
        with self._changed:
            self._failures += 1
            self._changed.notify_all()

    def close(self) -> None:
        """Give no more jobs."""
        with self._changed:
            self._most = 0
            self._changed.notify_all()

    def refused(self, job: J) -> int:
        """Put a job at the front whose server refused a connection; give the number of workers that have one there.

        Without another worker the job is not put back, and the number is 0.
        """
        with self._changed:
            if left := self._seats.refused(job.host):
                self._ready[job.host].appendleft((next(self._front), job))
                self._changed.notify_all()
            return left

    def is_shared(self, host: object) -> bool:
        """Tell whether several workers are connected to a server."""
        with self._changed:
            return self._seats.taken(host) > 1

    @property
    def failures(self) -> int:
        """The number of failures."""
        return self._failures

    def left(self) -> list[J]:
        """Give the jobs that nobody has taken."""
        ready = sorted((one for jobs in self._ready.values() for one in jobs), key=lambda one: one[0])
        return [*(job for _, job in ready), *(job for _, _, job in self._later)]
