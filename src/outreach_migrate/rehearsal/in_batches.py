"""A file in batches in a rehearsal: one range is carried out, and the time of those left is estimated by it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from outreach_migrate.rehearsal import groups, snapshots
from outreach_migrate.rehearsal.one_file import Share
from outreach_migrate.run import batches, keys, pace

if TYPE_CHECKING:
    from outreach_migrate.files.batches import Batches
    from outreach_migrate.rehearsal.one_file import File, Stage


def next_range(stage: Stage, file: File, wanted: Batches) -> Share:
    """Give a file over the next range of its key; raise MigrationFileError if that is none."""
    session, migration = stage.session, file.migration
    session.exchange("; ".join((*session.opening(), *keys.SETTINGS)))

    def ask(query: str) -> str:
        return snapshots.ask(session, query)[0][0]

    key, now = keys.find(ask, migration, wanted), file.progress
    last, upper = (now.last_key, now.upper_key) if now else (keys.NONE, ask(keys.upper(key)))
    if last == upper:  # no row, or none left
        part, rows, left = batches.in_range(migration, key, keys.NONE, keys.NONE), 0, 0
    else:
        left = now.total - now.rows if now else keys.estimate(ask, key)
        size = now.size if now else pace.FIRST
        end = ask(f"SELECT {keys.next_end(key, last, upper, size)}")
        rows = size if end else int(ask(keys.count(key, last, upper)))
        part = batches.in_range(migration, key, last, end or upper)
    return Share(replace(file, migration=part, groups=groups.cut(part)), rows, max(left, rows))
