"""A signal ends a command: at once where it only looks, after its statement is cancelled where it runs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

from outreach_migrate import errors

if TYPE_CHECKING:
    from outreach_migrate.errors import Outcome
    from outreach_migrate.run.events import Event
    from outreach_migrate.run.stop import Stop

T = TypeVar("T")

_PROMPT = 1.5  # s: an interrupted run ends within two, also where the server answers no more
_MANY = 1000  # events that wait to be shown
_TICK = 0.1  # s between two looks at the clock, for the line that shows it


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
    tick: Callable[[], None] | None = None,
    unknown: Callable[[], Outcome],
) -> T:
    """Run the engine in a thread, show its events in this one, and give its result, or raise its error.

    A signal asks the run to stop, and is seen at once, whatever the engine waits for. A run that does not end in time
    is left behind: then Interrupted has the `unknown` outcome. `tick` is called every tenth of a second.
    """
    from concurrent.futures import Future

    from outreach_migrate.run.stop import Stop

    said: SimpleQueue[Event | None] = SimpleQueue()
    result: Future[T] = Future()
    stop, asked = Stop(), list[tuple[int, float]]()

    def tell(event: Event) -> None:
        while said.qsize() > _MANY:  # a flood of notices is not to fill the memory
            time.sleep(0.01)
        said.put(event)

    def work() -> None:
        try:
            result.set_result(run(tell, stop))
        except BaseException as error:
            result.set_exception(error)
        said.put(None)

    def ask(number: int) -> None:
        asked.append((number, time.monotonic() + _PROMPT))
        stop.ask(number)
        said.put(None)  # wakes the loop below

    with _handled(ask):
        threading.Thread(target=work, name="outreach-migrate run", daemon=True).start()
        while not result.done() or not said.empty():
            event = _next(said, timeout=_TICK if tick or asked else None)
            if event is not None:
                show(event)
            elif tick:
                tick()
            if asked and not result.done() and time.monotonic() > asked[0][1]:
                outcome = unknown()
                raise errors.Interrupted(asked[0][0], during=outcome.migration, outcome=outcome)
    return result.result()


def _next(said: SimpleQueue[Event | None], timeout: float | None) -> Event | None:
    try:
        return said.get(timeout=timeout)
    except Empty:
        return None
