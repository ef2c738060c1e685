"""Files in batches in words: their progress, and why they slow down."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate import display, durations
from outreach_migrate.errors import Conflict, Problem

if TYPE_CHECKING:
    from outreach_migrate.errors import Contradiction
    from outreach_migrate.run.events import Batched, GivingWay, Lagging, Unseen


def rows(done: int, total: int | None) -> str:
    """Write how far a file in batches is."""
    total = max(done, total or 0)
    return f"{done:,} of about {total:,} rows ({percent(done, total)} %)"


def percent(done: int, total: int) -> int:
    """Give the part of the rows that is done."""
    return 100 * done // total if total else 100


def making_way(event: GivingWay | Lagging | Unseen) -> str:
    """Say why a file in batches slows down, or that it can't tell whether it should."""
    from outreach_migrate.run import events

    if isinstance(event, events.Lagging):
        seconds = f"{event.seconds:.1f} s behind, more than --max-lag {event.limit:g}s"
        return f"pausing: the replica {display.in_line(event.replica)} is {seconds}"
    if isinstance(event, events.Unseen):
        how_far = f"how far {display.count(event.replicas, 'replica is', 'replicas are')} behind"
        mended = f"GRANT pg_read_all_stats TO {event.role};"
        return f"warning: the role {event.role} can't see {how_far}, so the file does not wait: {mended}"
    first, *others = event.waiting
    name = first.application or first.user
    who = f"pid {first.pid}{f' ({display.in_line(name)})' if name else ''}"
    more = f" and {display.count(len(others), 'other session', 'other sessions')}" if others else ""
    return f"{who}{more} waited for it: the next range has {event.size:,} rows"


def progress(event: Batched) -> str:
    """Write the progress of a file in batches."""
    left = "" if event.seconds_left is None else f", {durations.text(event.seconds_left)} left"
    return f"{rows(event.rows, event.total)}, {event.per_second:,.0f}/s{left}"


def problem(one: Contradiction) -> Problem:
    """Put the state of an unfinished file in batches into words."""
    anew = f"run it anew, over all ranges: outreach-migrate up --from-start {one.version}"
    if one.conflict is Conflict.UNFINISHED_CHANGED:
        message = "unfinished: some of its ranges are done, and the file has been changed since"
        return Problem(message, one.location, f"Restore it. Or {anew}")
    if one.rows == 0:
        return Problem("unfinished: no range is done", one.location, "Correct the file if it failed, then run up.")
    message = "unfinished" if one.rows is None else f"unfinished: {rows(one.rows, one.total)} done"
    hint = f"Run up, which goes on there, with the file as it is. To change it, {anew}"
    return Problem(message, one.location, hint)
