"""A statement's effects on the relations that were there before: locks, new files, scans of a whole table."""

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
        """The weakest mode that it conflicts with, from the manual's Table 13.2."""
        return Mode((8, 7, 5, 4, 3, 3, 2, 1)[self - 1])

    @property
    def blocks_reads(self) -> bool:
        """Whether SELECT must wait."""
        return self.weakest_blocked <= Mode.ACCESS_SHARE

    @property
    def blocks_writes(self) -> bool:
        """Whether INSERT must wait."""
        return self.weakest_blocked <= Mode.ROW_EXCLUSIVE

    @property
    def blocks_schema_changes(self) -> bool:
        """Whether CREATE INDEX CONCURRENTLY must wait, and VACUUM."""
        return self.weakest_blocked <= Mode.SHARE_UPDATE_EXCLUSIVE


# The strongest lock that a command takes on the tables it names, by the command's tag.
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
    """A relation as other sessions see it, before the rehearsal; an index or a TOAST table has a `table` it belongs to.

    `rows` is the database's own estimate, null without one; `bytes` is from pg_table_size() before the statement, else
    from the last VACUUM or ANALYZE; `file` is its relfilenode, `plain_name` the name without a schema.
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
        """Whether it holds rows of its own."""
        return self.kind in _TABLES


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that a statement newly took.

    `presumed` says that an earlier file of the rehearsal still holds the lock, so nobody can see whether this one took
    it too; `covered`, that the lock is not a table's, and blocks nothing that its table's own lock doesn't.
    """

    relation: Relation
    mode: Mode
    presumed: bool = False
    covered: bool = False


@dataclass(frozen=True, slots=True)
class Effects:
    """The effects of one statement, without those on the indexes of a table that is rewritten or truncated."""

    locks: tuple[Lock, ...]
    rewritten: tuple[Relation, ...]
    emptied: tuple[Relation, ...]
    scanned: tuple[Relation, ...]
    dropped: tuple[Relation, ...]


NOTHING = Effects((), (), (), (), ())


@dataclass(frozen=True, slots=True)
class Moment:
    """A relation at a moment, as the run's session sees it: the session's locks and scans, and the relation's file.

    Without locks it was not looked at; without a `file` it is gone.
    """

    modes: frozenset[Mode] = frozenset()
    file: int | None = None  # its relfilenode
    scans: int = 0
    rows_read: int = 0  # by these scans


Changes = Mapping[int, tuple[Moment, Moment]]  # of the relations that changed between two looks


def lost(changed: Changes) -> set[int]:
    """Give the relations that are locked but gone in the second look, and were there, or unlocked, in the first."""
    return {
        oid
        for oid, (before, after) in changed.items()
        if after.modes and after.file is None and (before.file is not None or not before.modes)
    }


Indexes = dict[tuple[int | None, str], int]  # files by table and name, because a change of type may rebuild an index


def between(
    changed: Changes, known: Mapping[int, Relation], tag: str, *, locked: Mapping[int, Moment], indexes: Indexes
) -> Effects:
    """Find the effects of a statement with this tag, from two looks, on relations that other sessions know.

    `locked` are all relations locked after it, `indexes` the present ones of tables that lost an index.
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


def _taken(changed: Changes, known: Mapping[int, Relation], locked: Mapping[int, Moment]) -> Iterator[Lock]:
    new = [(known[oid], mode) for oid, (before, after) in changed.items() for mode in after.modes - before.modes]
    for relation, mode in sorted(new, key=lambda lock: (not lock[0].is_table, lock[0].name, -lock[1])):
        of_table = [one.weakest_blocked for one in locked.get(relation.table_oid or 0, Moment()).modes]
        harmless = min([Mode.SHARE, *of_table])  # an index's weaker locks block nothing that matters
        yield Lock(relation, mode, covered=not relation.is_table and mode.weakest_blocked >= harmless)


def _is_rewritten(relation: Relation, before: Moment, after: Moment, indexes: Indexes) -> bool:
    """Tell whether its data are in another file than before; a rebuilt index may have kept its file."""
    old = relation.file if before.file is None else before.file
    new = after.file or indexes.get((relation.table_oid, relation.plain_name), old)
    return relation.kind in _REWRITABLE and new != old


def _goes_with_its_table(relation: Relation, gone: set[int]) -> bool:
    """Tell whether it was dropped with its table, or replaced in a rewrite, as TOAST tables are."""
    return relation.table_oid in gone or relation.kind.startswith("TOAST")


def _is_scanned(relation: Relation, before: Moment, after: Moment) -> bool:
    """Tell whether it was read from end to end; a scan that LIMIT ended after some rows does not count.

    When several processes read a table, as for an index, the session's counters have its own share only.
    """
    read = after.rows_read - before.rows_read
    return after.scans > before.scans and read * 100 >= (relation.rows or 0)


def presumed(
    oids: Iterable[int], tag: str, at_first: Callable[[int], frozenset[Mode]], known: Mapping[int, Relation]
) -> Iterator[Lock]:
    """Presume the locks that a statement takes anew in a run, but an earlier file still holds in a rehearsal.

    They follow from the tables that the statement names and the strongest lock of its command. `at_first` gives the
    modes in which a relation was locked when the file began.
    """
    strongest = _STRONGEST.get(re.sub(r"[ \d]+$", "", tag))
    for oid in sorted(oids):
        if strongest and oid in known and (held := at_first(oid)):
            yield Lock(known[oid], min(strongest, max(held)), presumed=True)
