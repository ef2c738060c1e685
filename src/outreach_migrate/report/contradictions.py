"""Contradictions between files and history in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate import display
from outreach_migrate.errors import Conflict, Problem
from outreach_migrate.report import batches

if TYPE_CHECKING:
    from outreach_migrate.errors import Contradiction


def worded(one: Contradiction) -> Problem:
    """Put a contradiction into words."""
    if one.in_batches and one.conflict in (Conflict.UNFINISHED, Conflict.UNFINISHED_CHANGED):
        return batches.problem(one)
    message, hint = _sentences(one)
    return Problem(message, one.location, hint)


def _sentences(one: Contradiction) -> tuple[str, str]:
    """Write the message and the hint."""
    match one.conflict:
        case Conflict.EDITED:
            was, now = (one.checksum or "")[:12], (one.file_checksum or "")[:12]
            when = f"{one.finished_at:%Y-%m-%d %H:%M:%S}"
            message = f"edited: it was applied {when} with checksum {was}, and the file now has {now}"
            hint = (
                "Restore the file as it was applied, and put the change into a new migration. "
                f"If it still does the same: outreach-migrate accept {one.version}"
            )
        case Conflict.MISSING:
            was = f"was {'applied' if one.finished_at else 'begun'} {one.started_at:%Y-%m-%d %H:%M:%S}"
            message = f"missing: {one.version}_{one.name} {was}, and has no file"
            hint = "Restore the file: a deployment needs the files of all applied migrations."
        case Conflict.OUT_OF_ORDER:
            message = f"out of order: version {one.newest}, which is newer, has been applied already"
            hint = "Give it a new version, later than that one; or run it as it is with --allow-out-of-order."
        case Conflict.PARTLY_REPLACED:
            return _partly_replaced(one)
        case _:
            return _unfinished(one)
    return message, hint


def _unfinished(one: Contradiction) -> tuple[str, str]:
    again = f"run it anew, from its first statement: outreach-migrate up --from-start {one.version}"
    match one.conflict:
        case Conflict.UNFINISHED_WITHOUT_FILE:
            message = f"unfinished: {one.version}_{one.name} has no file here"
            hint = "A newer release began it: finish it with that release's files."
        case Conflict.UNFINISHED_WANTS_TRANSACTION:
            message = "unfinished: it began without a transaction, and now asks for one"
            hint = "Begin the file with: -- migrate: no-transaction"
        case Conflict.UNFINISHED_CHANGED if one.done == 1:
            message = "unfinished: its first statement is done, and has been changed since"
            hint = f"Restore it. Or {again}"
        case Conflict.UNFINISHED_CHANGED:
            message = f"unfinished: its first {one.done} statements are done, and have been changed since"
            hint = f"Restore them. Or {again}"
        case Conflict.UNFINISHED if one.done == one.statements:
            message, hint = "unfinished: all its statements are done, but that is not recorded", "Run up again."
        case _:
            of = display.count(one.statements, "statement", "statements")
            message = f"unfinished: {one.done} of {of} done; the next one is here"
            hint = (
                "Correct the rest of the file if it failed there, then run up, which goes on here. "
                f"To run the file anew: outreach-migrate up --from-start {one.version}"
            )
    return message, hint


def _partly_replaced(one: Contradiction) -> tuple[str, str]:
    before = "Deploy the release before the squash first"
    if one.begun:
        return f"{one.begun}, which it replaces, is unfinished", f"{before}: its up finishes the file."
    if one.entries < one.replaced:
        message = f"{one.entries} of the {one.replaced} files that it replaces are applied"
        return message, f"{before}: its files apply the rest."
    message = f"{one.entries} are applied up to its version, but not exactly the {one.replaced} that it replaces"
    return message, f"{before}: its status shows files that are edited, missing, or not applied."
