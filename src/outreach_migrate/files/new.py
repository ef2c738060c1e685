"""A new migration's file."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta

from outreach_migrate import display

_FORMAT = "%Y%m%d%H%M%S"
# The second line of a new file, because an author can't see from the file how it will run.
_TRANSACTION = "-- One transaction: if a statement fails, nothing of this file stays. No BEGIN or COMMIT here."
_NO_TRANSACTION = """\
-- migrate: no-transaction
-- Each statement is committed by itself: if one fails, those before it stay, and the next up goes on with it."""


def make(folder: str, name: str, *, transaction: bool) -> str:
    """Make a migration's file, and the folder if absent; give the file's path.

    Its version is the time in UTC, or one second after the newest file's version if that is later. Raise ValueError
    when no character of the name can be part of a file's name.
    """
    title = display.in_line(" ".join(name.split()))
    plain = re.sub(r"\W+", "_", name.lower()).strip("_")
    if not plain:
        raise ValueError("the name needs a letter or a digit")
    os.makedirs(folder, exist_ok=True)
    version = datetime.now(UTC).strftime(_FORMAT)
    while True:
        newest = max((int(found[0]) for other in os.listdir(folder) if (found := re.match("[0-9]+", other))), default=0)
        version = version if int(version) > newest else _after(newest)
        # names are UTF-8, whatever the locale says
        path = os.fsdecode(os.path.join(os.fsencode(folder), f"{version}_{plain}.sql".encode()))
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(f"-- {title}\n{_TRANSACTION if transaction else _NO_TRANSACTION}\n\n")
        except FileExistsError:  # somebody else has just made it
            continue
        return path


def _after(version: int) -> str:
    """Give the version one second later, or the next number if the version is not a time."""
    try:
        return (datetime.strptime(str(version), _FORMAT).replace(tzinfo=UTC) + timedelta(seconds=1)).strftime(_FORMAT)
    except ValueError:
        return str(version + 1)
