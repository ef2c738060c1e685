"""The end of a command by a signal: at once if it only reads, else after its statement is cancelled."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from outreach_migrate import errors
from outreach_migrate.report import terminal

if TYPE_CHECKING:
    from concurrent.futures import Future

    from outreach_migrate.errors import Outcome
    from outreach_migrate.run.events import Event
    from outreach_migrate.run.stop import Stop

T = TypeVar("T")

_PROMPT = 1.5  # s: an interrupted run ends within two, even if the server no longer answers
_MANY = 3000  # events that wait to be shown
_BATCH = 0.1  # s between two looks at the events and the clock


@contextmanager
def raised() -> Iterator[None]:
    """Raise Interrupted at the first signal; a second one ends the process at once."""

    def interrupt(number: int) -> None:
        raise errors.Interrupted(number)

    with _handled(interrupt):
        yield


@contextmanager
def _handled(handle: Callable[[int], None]) -> Iterator[None]:
    """Handle the first SIGINT, SIGTERM or SIGHUP; SIGHUP stays ignored where it is, as under nohup."""

    def once(number: int, _: FrameType | None) -> None:
        for one in before:
            signal.signal(one, signal.SIG_DFL)
        terminal.hurry()
        handle(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, once) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def carry_out(
    run: Callable[[Callable[[Any], None], Stop], T],
    show: Callable[[Any], None],
    *,
    tick: Callable[[], None],
    unknown: Callable[[], Outcome],
) -> T:
    """Run the engine in a thread, show its events in this one, and give its result, or raise its error.

    A signal asks the run to stop, and takes effect at once, even if the engine waits for the server. A run that does
    not end in time is abandoned, and Interrupted has the `unknown` outcome. Events are shown in batches, because waking
    up for each takes a tenth of a run of small files.
    """
    from concurrent import futures

    from outreach_migrate.run.stop import Stop

    said: deque[Event] = deque()
    stop = Stop()
    asked: list[tuple[int, float]] = []

    def tell(event: Event) -> None:
        while len(said) > _MANY:  # a flood of notices must not fill the memory
            time.sleep(_BATCH)
        said.append(event)

    def ask(number: int) -> None:
        asked.append((number, time.monotonic() + _PROMPT))
        stop.ask(number)

    with _handled(ask):
        result = _started(lambda: run(tell, stop))
        while not futures.wait([result], _BATCH).done:
            _show_all(said, show)
            tick()
            if asked and time.monotonic() > asked[0][1]:
                outcome = unknown()
                raise errors.Interrupted(asked[0][0], during=outcome.migration, outcome=outcome)
        _show_all(said, show)
    return result.result()


def _started(work: Callable[[], T]) -> Future[T]:
    """Start work in a thread that does not keep the process alive, and give its result to be."""
    from concurrent.futures import Future

    result: Future[T] = Future()

    def carry_out() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=carry_out, name="outreach-migrate run", daemon=True).start()
    return result


def _show_all(said: deque[Event], show: Callable[[Any], None]) -> None:
    for _ in range(len(said)):
        show(said.popleft())
