"""A file in batches in a rehearsal: one range is carried out, and the time of all is estimated by it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from outreach_migrate.rehearsal import groups, snapshots
from outreach_migrate.rehearsal.one_file import Part
from outreach_migrate.run import batches, keys, pace

if TYPE_CHECKING:
    from outreach_migrate.files.batches import Batches
    from outreach_migrate.rehearsal.one_file import File, Stage


def first(stage: Stage, file: File, wanted: Batches) -> Part:
    """Give a file over the first range of its key; raise MigrationFileError if that is none."""
    session, migration = stage.session, file.migration
    session.exchange("; ".join((*session.opening(), *keys.SETTINGS)))

    def ask(query: str) -> str:
        return snapshots.ask(session, query)[0][0]

    key = keys.find(ask, migration, wanted)
    upper = ask(keys.upper(key))
    if upper == keys.NONE:
        part, rows, total = batches.in_range(migration, key, keys.NONE, keys.NONE), 0, 0
    else:
        total = keys.estimate(ask, key)
        end = ask(f"SELECT {keys.next_end(key, keys.NONE, upper, pace.FIRST)}")
        rows = pace.FIRST if end else int(ask(keys.count(key, keys.NONE, upper)))
        part = batches.in_range(migration, key, keys.NONE, end or upper)
    return Part(replace(file, migration=part, groups=groups.cut(part)), rows, max(total, rows))
