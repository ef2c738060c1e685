"""A new migration's file."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta

_FORMAT = "%Y%m%d%H%M%S"


def make(folder: str, name: str, *, transaction: bool) -> str:
    """Make the file of a migration in a folder, which is made too where it is absent; give its path.

    Its version is the time in UTC, or one second after the newest file's where that is later. Raise ValueError when
    nothing of the name can stand in a file's name.
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
                file.write(f"-- {' '.join(name.split())}\n" + ("" if transaction else "-- migrate: no-transaction\n"))
        except FileExistsError:  # somebody made it this very moment
            continue
        return path


def _after(version: int) -> str:
    """Give the version one second later; of a number that is no time, the next."""
    try:
        return (datetime.strptime(str(version), _FORMAT).replace(tzinfo=UTC) + timedelta(seconds=1)).strftime(_FORMAT)
    except ValueError:
        return str(version + 1)
