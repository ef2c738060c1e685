"""Another tool's records compared with the files, without any I/O."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate
from typing import TYPE_CHECKING, TypeVar

from outreach_migrate.adopt import tables
from outreach_migrate.adopt.tables import Record, Recorded, Standing
from outreach_migrate.files.migrations import Migration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

T = TypeVar("T")

_SUMMED = {"prisma": "sha256", "drizzle": "sha256", "sqlx": "sha384"}  # the tools with checksums that can be compared
_PADDED = 64  # digits of a SHA-256; Prisma's older rows have fewer
_NAMED = re.compile(r"(?:[A-Z]?([0-9]+))?(?:[._-]+)?(.*)", re.DOTALL)


class Verdict(StrEnum):
    """The result for one migration; all but the first three are in the way."""

    ADOPTED = "adopted"
    PENDING = "pending"
    AFTER = "applied after --to"
    NO_FILE = "no file"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    ROLLED_BACK = "rolled back"
    DIRTY = "dirty"
    EDITED = "edited"
    PASSED_OVER = "passed over"


_AMISS = {Standing.FAILED, Standing.UNFINISHED, Standing.ROLLED_BACK, Standing.DIRTY}


@dataclass(frozen=True, slots=True)
class Match:
    """One migration seen from both sides, its file and its record; one of them may be absent.

    `compared` says whether the tool's checksum could be compared with the file's, null where there is nothing to
    compare. With `out_of_order` its tool applied it after a newer one; with `edited` the checksums differ.
    """

    verdict: Verdict
    version: str
    name: str
    migration: Migration | None = None
    record: Record | None = None
    compared: bool | None = None
    out_of_order: bool = False
    edited: bool = False


def match(
    recorded: Recorded, files: Sequence[Migration], *, to: int | None = None, accept_edited: bool = False
) -> tuple[Match, ...]:
    """Compare records and files: by the files' first lines; if none names the tool, by version, else by name.

    The matches with a file come first, in the order of the files. With `to` later ones are left as they are; with
    `accept_edited` checksums may differ.
    """
    records = _whole(recorded, files)
    pairs = _pairs(recorded.table.tool, records, files)
    places = [pairs[one.name].number for one in records if one.name in pairs]
    late = {number for number, newest in zip(places, accumulate(places, max), strict=True) if number < newest}
    found = {migration.number: record for record in records if (migration := pairs.get(record.name))}
    matches = [
        replace(
            _judged(recorded, migration, found.get(migration.number), to, accept_edited=accept_edited),
            out_of_order=migration.number in late,
        )
        for migration in files
    ]
    gone = {Standing.BASELINE, Standing.ROLLED_BACK}  # these need no file
    lost = [one for one in records if one.name not in pairs and one.standing not in gone]
    return (*matches, *(_without_file(records, pairs, one, to) for one in lost))


def _whole(recorded: Recorded, files: Sequence[Migration]) -> list[Record]:
    """Give a record for each migration, also where the tool keeps the newest alone, or a baseline."""
    tool, records = recorded.table.tool, list(recorded.records)
    if recorded.up_to and records:
        [newest] = records
        return [*(_applied(newest, one) for one in _before(tool, newest, files)), newest]
    known = {key for one in records for key in one.keys}
    for base in [one for one in records if one.standing is Standing.BASELINE]:
        before = [one for one in _of(tool, files) if _is_covered(one, base) and known.isdisjoint(_keys(tool, one))]
        records[:0] = [_applied(base, one) for one in before]
    return records


def _applied(record: Record, migration: Migration) -> Record:
    """Give the record of a file that another record says is applied."""
    origin = migration.directives.origin
    name = origin.name if origin else migration.version
    keys = tables.keys(origin) if origin else (str(migration.number),)
    return replace(record, name=name, keys=keys, standing=Standing.APPLIED)


def _of(tool: str, files: Sequence[Migration]) -> list[Migration]:
    """Choose the files that came from the tool; if there are none, those that don't say where they came from."""
    own = [one for one in files if _is_from(tool, one)]
    return own or [one for one in files if not one.directives.origin]


def _is_from(tool: str, migration: Migration) -> bool:
    return migration.directives.origin is not None and migration.directives.origin.tool == tool


def _keys(tool: str, migration: Migration) -> tuple[str, ...]:
    origin = migration.directives.origin
    return tables.keys(origin) if origin and origin.tool == tool else (str(migration.number), migration.version)


def _is_covered(migration: Migration, base: Record) -> bool:
    return tables.flyway(_keys("flyway", migration)[0]) <= tables.flyway(base.keys[0])


def _before(tool: str, newest: Record, files: Sequence[Migration]) -> list[Migration]:
    """Choose the files that the newest applied one rests on, without that one."""
    own = _of(tool, files)
    if tool != "alembic":
        return [one for one in own if _number(_keys(tool, one)[0]) < _number(newest.keys[0])]
    graph = {_keys(tool, one)[0]: one.directives.origin.marked("after") for one in own if one.directives.origin}
    needed, open_ = set[str](), [newest.keys[0]]
    while open_:
        needed.update(following := [*graph.get(open_.pop(), ())])
        open_ += following
    return [one for one in own if _keys(tool, one)[0] in needed]


def _number(key: str) -> float:
    """Read a version; a first line that has none was changed by hand, and comes before nothing."""
    return int(key) if key.isdecimal() else math.inf


def _pairs(tool: str, records: Sequence[Record], files: Sequence[Migration]) -> dict[str, Migration]:
    """Find each record's file, by the record's name."""
    own = [one for one in files if _is_from(tool, one)]
    if not own:
        return _likely_pairs(tool, records, files)
    by_key = {key: one for one in reversed(own) for key in _keys(tool, one)}
    pairs, taken = dict[str, Migration](), set[int]()
    for rank in range(max((len(one.keys) for one in records), default=0)):  # all best keys before any worse one
        for record in records:
            found = by_key.get(record.keys[rank]) if rank < len(record.keys) and record.name not in pairs else None
            if found and found.number not in taken:
                pairs[record.name] = found
                taken.add(found.number)
    return pairs


def _likely_pairs(tool: str, records: Sequence[Record], files: Sequence[Migration]) -> dict[str, Migration]:
    """Find each record's file by version, then by name, if no file's first line names the tool: copies made by hand."""
    pairs, taken = dict[str, Migration](), set[int]()
    for part in (0, 1):
        left = [one for one in records if one.name not in pairs and one.standing is not Standing.BASELINE]
        free = [one for one in files if one.number not in taken]
        theirs = _unique((_parted(tool, one)[part], one) for one in left)
        mine = _unique((str(one.number) if part == 0 else one.name, one) for one in free)
        for value in theirs.keys() & mine.keys():
            pairs[theirs[value].name] = mine[value]
            taken.add(mine[value].number)
    return pairs


def _parted(tool: str, record: Record) -> tuple[str, str]:
    """Part a record's name into its version, as a number, and the rest; empty where it has none."""
    if tool == "alembic" or record.name.startswith("when:"):
        return "", ""
    if found := _NAMED.fullmatch(record.keys[0] if tool in ("flyway", "diesel") else record.name):
        return (str(int(found[1])) if found[1] and found[2][:1] not in tuple("0123456789") else ""), found[2]
    return "", record.name


def _unique(pairs: Iterator[tuple[str, T]]) -> dict[str, T]:
    listed = [(value, one) for value, one in pairs if value]
    counts = Counter(value for value, _ in listed)
    return {value: one for value, one in listed if counts[value] == 1}


def _judged(
    recorded: Recorded, migration: Migration, record: Record | None, to: int | None, *, accept_edited: bool
) -> Match:
    def found(verdict: Verdict, compared: bool | None = None, *, edited: bool = False) -> Match:
        return Match(verdict, migration.version, migration.name, migration, record, compared, edited=edited)

    if record is None:
        return found(Verdict.PASSED_OVER if _is_passed_over(recorded, migration) else Verdict.PENDING)
    if record.standing in _AMISS:
        return found(Verdict(record.standing.value))
    if to is not None and migration.number > to:
        return found(Verdict.AFTER)
    same = _is_same(recorded.table.tool, migration, record)
    compared = None if record.checksum is None and recorded.table.tool != "flyway" else same is not None
    edited = same is False
    return found(Verdict.EDITED if edited and not accept_edited else Verdict.ADOPTED, compared, edited=edited)


def _is_passed_over(recorded: Recorded, migration: Migration) -> bool:
    origin = migration.directives.origin
    if recorded.newest is None or origin is None or origin.tool != "drizzle":
        return False
    return any(int(when) < recorded.newest for when in origin.marked("when"))


def _is_same(tool: str, migration: Migration, record: Record) -> bool | None:
    """Compare the checksums; None if they can't be compared.

    A file without its tool's first line may have been adapted by hand, so only an equal checksum says something.
    """
    origin = migration.directives.origin
    if record.checksum is None or tool not in _SUMMED:
        return None
    if origin and origin.tool == tool and origin.checksums:
        return any(_equal(one, record.checksum) for one in origin.checksums)
    texts = (migration.sql, migration.sql.replace("\n", "\r\n"))
    kind = _SUMMED[tool]
    sums = (f"{kind}:{hashlib.new(kind, text.encode()).hexdigest()}" for text in texts)
    return True if any(_equal(one, record.checksum) for one in sums) else None


def _equal(mine: str, theirs: str) -> bool:
    """Compare two checksums; Prisma's old ones lack the zero before a byte below 16."""
    (kind, digits), their_digits = mine.split(":"), theirs.partition(":")[2]
    if kind == "sha256" and len(their_digits) < _PADDED:
        return "".join(f"{byte:x}" for byte in bytes.fromhex(digits)) == their_digits
    return mine == theirs


def _without_file(records: Sequence[Record], pairs: dict[str, Migration], record: Record, to: int | None) -> Match:
    if record.standing in _AMISS:
        return Match(Verdict(record.standing.value), "", record.name, None, record)
    is_after = to is not None and _is_after(records, pairs, record, to)
    return Match(Verdict.AFTER if is_after else Verdict.NO_FILE, "", record.name, None, record)


def _is_after(records: Sequence[Record], pairs: dict[str, Migration], record: Record, to: int) -> bool:
    """Tell whether a record without a file comes after a version, by the files of its neighbours."""
    place = records.index(record)
    before = [pairs[one.name].number for one in records[:place] if one.name in pairs]
    after = [pairs[one.name].number for one in records[place:] if one.name in pairs]
    return to <= max(before, default=-1) and to < min(after, default=to + 1)
