"""A new migration's file."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta

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
    plain = re.sub(r"\W+", "_", name.lower()).strip("_")
    if not plain:
        raise ValueError("the name needs a letter or a digit")
    os.makedirs(folder, exist_ok=True)
    version = datetime.now(UTC).strftime(_FORMAT)
    while True:
        newest = max((int(found[0]) for other in os.listdir(folder) if (found := re.match("[0-9]+", other))), default=0)
        version = version if int(version) > newest else _after(newest)
        path = os.path.join(folder, f"{version}_{plain}.sql")
        try:
            with open(path, "x", encoding="utf-8") as file:
                file.write(f"-- {' '.join(name.split())}\n{_TRANSACTION if transaction else _NO_TRANSACTION}\n\n")
        except FileExistsError:  # somebody else has just made it
            continue
        return path


def _after(version: int) -> str:
    """Give the version one second later, or the next number if the version is not a time."""
    try:
        return (datetime.strptime(str(version), _FORMAT).replace(tzinfo=UTC) + timedelta(seconds=1)).strftime(_FORMAT)
    except ValueError:
        return str(version + 1)
