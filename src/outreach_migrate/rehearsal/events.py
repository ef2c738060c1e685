"""The events of a rehearsal."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from outreach_migrate.run import events as run

if TYPE_CHECKING:
    from outreach_migrate import errors
    from outreach_migrate.errors import Location
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.rehearsal.effects import Effects, Mode
    from outreach_migrate.rehearsal.groups import Group
    from outreach_migrate.rehearsal.lock_times import Held


@dataclass(frozen=True, slots=True)
class Rehearsing:
    """A file is about to be rehearsed."""

    migration: Migration


@dataclass(frozen=True, slots=True)
class StatementDone:
    """A statement, or a group, was carried out; `tag` is its command tag, with the number of the group's rows."""

    migration: Migration
    group: Group
    seconds: float
    tag: str
    effects: Effects

    @property
    def location(self) -> Location:
        """The place of its start."""
        return self.group.location

    @property
    def rows(self) -> int | None:
        """The number of rows that it affected; None for a command that counts none."""
        count = re.search(r" (\d+)$", self.tag)
        return int(count[1]) if count else None


@dataclass(frozen=True, slots=True)
class FileRehearsed:
    """A file was carried out, with the checks that COMMIT would make; `seconds` includes them."""

    migration: Migration
    seconds: float
    held: tuple[Held, ...]


@dataclass(frozen=True, slots=True)
class Unrehearsed:
    """A statement that was not carried out; `mode` is its lock by PostgreSQL's manual, null if it locks no table."""

    location: Location
    text: str
    mode: Mode | None


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file was left out, because it runs without a transaction and can't be rolled back."""

    migration: Migration
    statements: tuple[Unrehearsed, ...]


@dataclass(frozen=True, slots=True)
class Estimated:
    """A file in batches was carried out over one range, with `rows` of about `left`, after `done` by earlier runs."""

    migration: Migration
    rows: int
    left: int
    done: int


class Why(Enum):
    """The reasons why a rehearsal can't carry out a file although a run might."""

    ENUM_VALUE = "it uses an enum value that another file adds"
    NAME = "it uses an object that another file makes or drops"
    ISOLATION = "its transaction has another isolation level than the rehearsal's, which is that of the first file"
    KEY = "it has no key, which another file may make"
    NO_ROOM = "the locks of all files together are too many"
    DROPS = "it drops objects before it makes them anew"
    PARALLEL = "Citus refuses it after the parallel work of an earlier file in the same transaction"


@dataclass(frozen=True, slots=True)
class Stopped:
    """A file could not begin, or go on after `error`; `needs` is the left-out file that it needs, if any."""

    migration: Migration
    why: Why
    needs: Migration | None = None
    error: errors.StatementError | None = None


Event = Rehearsing | StatementDone | FileRehearsed | Estimated | Skipped | Stopped | run.Event
