"""A rehearsal's findings in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate import durations
from outreach_migrate.files import scanner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.rehearsal import events
    from outreach_migrate.rehearsal.effects import Effects, Lock, Mode, Relation
    from outreach_migrate.rehearsal.lock_times import Blocked, Held

_WIDTH = 60  # characters of a statement that are shown


def span(seconds: float) -> str:
    """Write a duration, with decimals because most locks last a few milliseconds at most."""
    return f"{seconds * 1000:.1f} ms" if seconds < 0.01 else durations.text(seconds)


def shortened(text: str) -> str:
    """Show the first words of a statement in one line."""
    shown, end = "", 0
    for token in scanner.tokens(text):
        shown += " " * (token.start > end) + token.text
        end = token.end
        if len(shown) > 2 * _WIDTH:
            break
    plain = " ".join(shown.split())
    return plain if len(plain) <= _WIDTH else f"{plain[: _WIDTH - 1]}…"


def reason(stopped: events.Stopped) -> str:
    """Write why a file could not be rehearsed."""
    from outreach_migrate.rehearsal.events import Why

    error = stopped.error
    if stopped.why is Why.DROPS and stopped.needs:
        return f"it rests on {stopped.needs.path}, which is not rehearsed"
    if stopped.why is Why.DROPS:
        return "it drops objects, and those of other files of code that rest on them, which a rehearsal does not"
    if stopped.why is Why.KEY:
        return (
            f"its key is none yet, and {stopped.needs and stopped.needs.path}, which may make it one, is not rehearsed"
        )
    if error is None:
        level = stopped.migration.directives.isolation
        return f"its isolation level is {level}, and the rehearsal is one transaction with that of the first file"
    if stopped.why is Why.NO_ROOM:
        own = f"{error.location}: {error.message}: " if error.version == stopped.migration.version else ""
        return f"{own}one transaction can't hold the locks of so many files here (see max_locks_per_transaction)"
    if stopped.why is Why.PARALLEL:
        own = f"{error.location}: {error.message}: " if error.version == stopped.migration.version else ""
        return f"{own}Citus refuses it after an earlier file's work; in a run each has a transaction of its own"
    needed = stopped.needs.path if stopped.needs else "an earlier file"
    if stopped.why is Why.ENUM_VALUE:
        return f"{error.location}: {error.message}: {needed} adds it, and must be committed first"
    return f"{error.location}: {error.message}: it needs {needed}, which is not rehearsed"


def estimate(event: events.Estimated, seconds: float) -> str:
    """Write how long all ranges that are left of a file in batches would take, by the time of one."""
    if not event.rows:
        return "no range was carried out: no rows are left"
    whole = durations.text(seconds * event.left / event.rows)
    of_which = f"the rest, about {event.left:,} rows," if event.done else f"all of about {event.left:,} rows"
    return f"one range of {event.rows:,} rows was carried out; {of_which} would take about {whole}"


def blocks(mode: Mode) -> str:
    """Name the commands that other sessions can't run while a lock of this mode is held."""
    if mode.blocks_reads:
        return "reads and writes"
    if mode.blocks_writes:
        return "writes"
    if mode.blocks_schema_changes:
        return "other schema changes"
    weakest = mode.weakest_blocked
    return f"only {weakest}" + ("" if weakest == max(type(weakest)) else " and stronger")


def _colour(mode: Mode) -> str | None:
    if mode.blocks_reads:
        return "red"
    return "yellow" if mode.blocks_writes else "cyan" if mode.blocks_schema_changes else None


def effect_lines(did: Effects, *, every: bool) -> list[tuple[str, str | None]]:
    """Write a statement's effects, a line for each relation, with a colour for its strongest lock."""
    strongest: dict[int, Lock] = {}
    for lock in did.locks:
        oid = lock.relation.oid
        if every or not lock.covered or oid in strongest:
            strongest[oid] = max(strongest.get(oid, lock), lock, key=lambda one: one.mode)
    lines = [(_lock_line(lock, did), _colour(lock.mode)) for lock in strongest.values()]
    for relation in dict.fromkeys((*did.rewritten, *did.scanned, *did.dropped)):
        if relation.oid not in strongest:
            of_table = f" of {relation.table}" if relation.table else ""
            name = f"{relation.kind} {relation.name}{of_table}{_size(relation)}"
            lines.append((f"{name}: {_changes(relation, did)}", None))
    return lines


def _lock_line(lock: Lock, did: Effects) -> str:
    relation = lock.relation
    kind = "" if relation.kind == "table" else f"{relation.kind} "
    presumed = " (presumed: an earlier file still holds it)" if lock.presumed else ""
    changes = _changes(relation, did)
    if not changes and relation.kind == "table" and not presumed and lock.mode.blocks_writes:
        changes = "neither rewritten nor scanned"
    words = f"blocks {blocks(lock.mode)}{f'; {changes}' if changes else ''}"
    return f"{lock.mode} on {kind}{relation.name}{_size(relation)}: {words}{presumed}"


def _changes(relation: Relation, did: Effects) -> str:
    words = {"rewritten": did.rewritten, "emptied": did.emptied, "scanned": did.scanned, "dropped": did.dropped}
    return " and ".join(word for word, relations in words.items() if relation in relations)


def held_lines(held: Iterable[Held]) -> list[str]:
    """Write since when the strongest lock of each table was held, if it blocks anything."""
    strongest: dict[str, Held] = {}
    for one in held:
        name = one.lock.relation.name
        if one.lock.mode.blocks_schema_changes and not one.lock.covered:
            strongest[name] = max(strongest.get(name, one), one, key=lambda held: held.lock.mode)
    return [
        f"held to the end of the file: {one.lock.mode} on {name} from line {one.since.line}, {span(one.seconds)}"
        for name, one in strongest.items()
    ]


def _size(relation: Relation) -> str:
    if not relation.bytes and not relation.rows:  # a view, or an empty table
        return ""
    rows = f"{relation.rows:,} row{'' if relation.rows == 1 else 's'}, " if relation.is_table and relation.rows else ""
    return f" ({rows}{_bytes(relation.bytes)})"


def _bytes(number: float) -> str:
    """Write a size as pg_size_pretty() does."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 10_240:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.0f} TB"


def blocked_text(one: Blocked) -> str:
    """Write for how long a table was not available; time without reads is not counted again as time without writes."""
    parts = [f"reads and writes blocked for {span(one.reads)}"] if one.reads else []
    parts += [f"writes blocked for {span(one.writes)}"] if one.writes > one.reads else []
    parts += [f"other schema changes blocked for {span(one.changes)}"] if one.changes > one.writes else []
    return ", ".join(parts)
