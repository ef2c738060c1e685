"""What a statement does to the relations that were there before: locks, new files, scans of a whole table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_TABLES = {"table", "partitioned table", "materialized view", "foreign table"}
_REWRITABLE = {"table", "materialized view", "index"}


class Mode(IntEnum):
    """A table-level lock mode, from the weakest to the strongest.

    https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
    """

    ACCESS_SHARE = 1
    ROW_SHARE = 2
    ROW_EXCLUSIVE = 3
    SHARE_UPDATE_EXCLUSIVE = 4
    SHARE = 5
    SHARE_ROW_EXCLUSIVE = 6
    EXCLUSIVE = 7
    ACCESS_EXCLUSIVE = 8

    @classmethod
    def named(cls, name: str) -> Self:
        """Read a mode as pg_locks has it: ShareUpdateExclusiveLock."""
        return cls[re.sub(r"(?<=.)([A-Z])", r"_\1", name.removesuffix("Lock")).upper()]

    def __str__(self) -> str:
        return self.name.replace("_", " ")

    @property
    def weakest_blocked(self) -> Mode:
        """The weakest mode it conflicts with, from the manual's Table 13.2."""
        return Mode((8, 7, 5, 4, 3, 3, 2, 1)[self - 1])

    @property
    def blocks_writes(self) -> bool:
        """Whether INSERT has to wait."""
        return self.weakest_blocked <= Mode.ROW_EXCLUSIVE

    @property
    def blocks(self) -> str:
        """What others can't do meanwhile, in words."""
        weakest = self.weakest_blocked
        if weakest is Mode.ACCESS_SHARE:  # SELECT's
            return "reads and writes"
        if self.blocks_writes:
            return "writes"
        if weakest is Mode.SHARE_UPDATE_EXCLUSIVE:
            return "other schema changes"
        return f"only {weakest}" + ("" if weakest is Mode.ACCESS_EXCLUSIVE else " and stronger")


# The strongest lock that a command takes on the tables it names, for what the command's tag tells.
# https://www.postgresql.org/docs/current/explicit-locking.html#LOCKING-TABLES
_STRONGEST = {
    **dict.fromkeys(("SELECT", "CREATE VIEW"), Mode.ROW_SHARE),
    **dict.fromkeys(("INSERT", "UPDATE", "DELETE", "MERGE", "COPY"), Mode.ROW_EXCLUSIVE),
    **dict.fromkeys(("ANALYZE", "COMMENT", "CREATE STATISTICS"), Mode.SHARE_UPDATE_EXCLUSIVE),
    "CREATE INDEX": Mode.SHARE,
    "CREATE TRIGGER": Mode.SHARE_ROW_EXCLUSIVE,
    **dict.fromkeys(
        (
            *("ALTER TABLE", "CREATE TABLE", "DROP TABLE", "TRUNCATE TABLE", "LOCK TABLE", "CLUSTER", "DO", "CALL"),
            *("ALTER INDEX", "DROP INDEX", "REINDEX", "ALTER TRIGGER", "DROP TRIGGER", "CREATE RULE", "DROP RULE"),
            *("CREATE POLICY", "ALTER POLICY", "DROP POLICY", "REFRESH MATERIALIZED VIEW", "DROP MATERIALIZED VIEW"),
        ),
        Mode.ACCESS_EXCLUSIVE,
    ),
}


@dataclass(frozen=True, slots=True)
class Relation:
    """A relation as others see it: before the rehearsal. An index and its like have the `table` they belong to.

    `rows` is the database's own estimate, null without one; `bytes` is what pg_table_size() said before the
    statement, else what the last VACUUM or ANALYZE found; `file` is its relfilenode, `plain_name` the name
    without a schema.
    """

    oid: int
    name: str
    kind: str
    table_oid: int | None
    table: str | None
    rows: int | None
    bytes: int
    file: int = field(repr=False)
    plain_name: str = field(repr=False)

    @property
    def is_table(self) -> bool:
        """Whether it holds rows of its own right."""
        return self.kind in _TABLES


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that a statement newly took.

    `presumed`: an earlier file of the rehearsal holds it still, so that it can't be seen whether this one took it too.
    `covered`: the lock is not a table's, and blocks nothing that its table's own lock doesn't.
    """

    relation: Relation
    mode: Mode
    presumed: bool = False
    covered: bool = False


@dataclass(frozen=True, slots=True)
class Effects:
    """What one statement did. Of a table that is rewritten, or emptied by TRUNCATE, the indexes are not told of."""

    locks: tuple[Lock, ...]
    rewritten: tuple[Relation, ...]
    emptied: tuple[Relation, ...]
    scanned: tuple[Relation, ...]
    dropped: tuple[Relation, ...]


NOTHING = Effects((), (), (), (), ())


@dataclass(frozen=True, slots=True)
class Seen:
    """A relation of before at a moment, as our own session sees it: our locks on it, its file, our scans of it.

    Without locks it was not looked at; without a `file` it is gone.
    """

    modes: frozenset[Mode] = frozenset()
    file: int | None = None  # its relfilenode
    scans: int = 0
    rows_read: int = 0  # by these scans


Changes = Mapping[int, tuple[Seen, Seen]]  # of the relations that changed between two looks


def lost(changed: Changes) -> set[int]:
    """Give the relations, locked still, that were there in the first look, or not yet locked, and are gone after it."""
    return {
        oid
        for oid, (before, after) in changed.items()
        if after.modes and after.file is None and (before.file is not None or not before.modes)
    }


Indexes = dict[tuple[int | None, str], int]  # files by table and name: a change of type may make an index anew


def between(
    changed: Changes, known: Mapping[int, Relation], tag: str, *, locked: Mapping[int, Seen], indexes: Indexes
) -> Effects:
    """Tell what a statement with this tag did, between two looks, to relations that others know.

    `locked` are all that are locked after it, `indexes` those that the tables of lost indexes have now.
    """
    changed = {oid: pair for oid, pair in changed.items() if oid in known}
    gone = lost(changed)
    made_again = {oid for oid in gone if (known[oid].table_oid, known[oid].plain_name) in indexes}
    there = {oid for oid, (_, after) in changed.items() if after.file is not None} | made_again
    rewritten = {oid for oid in there if _is_rewritten(known[oid], *changed[oid], indexes)}

    def chosen(oids: Iterable[int]) -> tuple[Relation, ...]:
        return tuple(sorted((known[oid] for oid in oids), key=lambda relation: relation.name))

    new_files = chosen(oid for oid in rewritten if known[oid].table_oid not in rewritten)
    return Effects(
        locks=tuple(_taken(changed, known, locked)),
        rewritten=() if tag == "TRUNCATE TABLE" else new_files,
        emptied=new_files if tag == "TRUNCATE TABLE" else (),
        scanned=chosen(oid for oid in there if known[oid].is_table and _is_scanned(known[oid], *changed[oid])),
        dropped=chosen(oid for oid in gone - made_again if not _goes_with_its_table(known[oid], gone)),
    )


def _taken(changed: Changes, known: Mapping[int, Relation], locked: Mapping[int, Seen]) -> Iterator[Lock]:
    new = [(known[oid], mode) for oid, (before, after) in changed.items() for mode in after.modes - before.modes]
    for relation, mode in sorted(new, key=lambda lock: (not lock[0].is_table, lock[0].name, -lock[1])):
        of_table = [one.weakest_blocked for one in locked.get(relation.table_oid or 0, Seen()).modes]
        harmless = min([Mode.SHARE, *of_table])  # what blocks neither DML nor a schema change is no news of an index
        yield Lock(relation, mode, covered=not relation.is_table and mode.weakest_blocked >= harmless)


def _is_rewritten(relation: Relation, before: Seen, after: Seen, indexes: Indexes) -> bool:
    """Say whether its data lie in another file than before; an index made again may have kept its file."""
    old = relation.file if before.file is None else before.file
    new = after.file or indexes.get((relation.table_oid, relation.plain_name), old)
    return relation.kind in _REWRITABLE and new != old


def _goes_with_its_table(relation: Relation, gone: set[int]) -> bool:
    """Say whether it was dropped with its table, or replaced in a rewrite, as TOAST tables are."""
    return relation.table_oid in gone or relation.kind.startswith("TOAST")


def _is_scanned(relation: Relation, before: Seen, after: Seen) -> bool:
    """Say whether it was read from end to end: a scan that LIMIT ended after some rows does not count.

    Of a table that several processes read, as for an index, our own counters have our share only.
    """
    read = after.rows_read - before.rows_read
    return after.scans > before.scans and read * 100 >= (relation.rows or 0)


def presumed(
    oids: Iterable[int], tag: str, at_first: Callable[[int], frozenset[Mode]], known: Mapping[int, Relation]
) -> Iterator[Lock]:
    """Give the locks that a statement can't be seen to take, since an earlier file holds them: for a run it is new.

    That the statement names the table, and what its command takes at most, is all there is to go by. `at_first` gives
    the modes in which a relation was locked when the file began.
    """
    strongest = _STRONGEST.get(re.sub(r"[ \d]+$", "", tag))
    for oid in sorted(oids):
        if strongest and oid in known and (held := at_first(oid)):
            yield Lock(known[oid], min(strongest, max(held)), presumed=True)
