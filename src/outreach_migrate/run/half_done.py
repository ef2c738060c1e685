"""The files in batches that are unfinished, with their progress."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate.run.plan import State

if TYPE_CHECKING:
    from psycopg import Connection

    from outreach_migrate.history.batches import BatchProgress
    from outreach_migrate.history.read import History
    from outreach_migrate.run.plan import Plan


def of(connection: Connection, past: History, plan: Plan) -> dict[str, BatchProgress]:
    """Read the progress of a plan's unfinished files in batches, by their versions."""
    unfinished = plan.having(State.UNFINISHED)
    steps = [step for step in unfinished if step.migration and step.migration.directives.batches]
    if not steps:
        return {}
    from outreach_migrate.history import batches  # here, because few files need it

    positions = {step.entry.position: step.version for step in steps if step.entry}
    found = batches.read(connection, past.table, positions)
    return {positions[position]: progress for position, progress in found.items()}
