"""The size of a backfill's ranges, and how one makes way for the sessions that wait for it."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psycopg

from outreach_migrate.postgres import activity, messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.postgres.activity import Waiter
    from outreach_migrate.run.sessions import Session

LEAST, MOST, FIRST = 100, 100_000, 1000  # rows of a range
# How much a range may grow at once: fast while it is short; slowly once another session has waited, so that few do
_SHORT, _FAST, _USUAL, _STEADY = 0.05, 2.0, 1.1, 1.01
_LOOK = 0.02  # s between two looks for sessions that wait for a range; none should wait for a tenth of a second


@dataclass(frozen=True, slots=True)
class Pace:
    """The size of the next range, in rows; a `steady` one grows slowly."""

    size: int
    steady: bool = False

    def after(self, seconds: float, wanted: float, *, waited: bool) -> Pace:
        """Give the pace after a range, by the time that it took and the time that it should take."""
        if waited:
            return self.halved()
        growth = _STEADY if self.steady else _FAST if seconds < _SHORT else _USUAL
        factor = min(growth, max(0.5, wanted / max(seconds, 0.001)))
        return replace(self, size=_bounded(self.size * factor))

    def halved(self) -> Pace:
        """Give the pace that makes way for other sessions; from now on it grows slowly."""
        return Pace(_bounded(self.size / 2), steady=True)

    @contextmanager
    def making_way(self, session: Session, looking: psycopg.Connection) -> Iterator[list[Waiter]]:
        """Cancel a range as soon as a session waits for it; yield the list of those that did.

        `looking` is the connection that looks. A range of the least size is not cancelled, because it can't be taken
        again with fewer rows.
        """
        waited, began = list[activity.Waiter](), time.monotonic()

        def look() -> float:
            if time.monotonic() - began > messages.SILENCE:
                session.watcher.wake()
            if self.size > LEAST:
                with suppress(psycopg.Error):  # a look that fails shows nothing; a lost claim is found after the range
                    waited[:] = activity.make_way(looking, session.token) or waited
            return _LOOK

        with session.calling(messages.Silent(_LOOK, look)):
            yield waited


def _bounded(size: float) -> int:
    return max(LEAST, min(MOST, round(size)))
