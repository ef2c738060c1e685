"""A new migration's file."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FORMAT = "%Y%m%d%H%M%S"


def make(folder: Path, name: str, *, transaction: bool) -> Path:
    """Make the file of a migration in a folder, which is made too where it is absent; give its path.

    Its version is the time in UTC, or one second after the newest file's where that is later. Raise ValueError when
    nothing of the name can stand in a file's name.
    """
    plain = re.sub(r"\W+", "_", name.lower()).strip("_")
    if not plain:
        raise ValueError("the name needs a letter or a digit")
    folder.mkdir(parents=True, exist_ok=True)
    version = datetime.now(UTC).strftime(_FORMAT)
    while True:
        newest = max(
            (int(found[0]) for path in folder.iterdir() if (found := re.match("[0-9]+", path.name))), default=0
        )
        version = version if int(version) > newest else _after(newest)
        path = folder / f"{version}_{plain}.sql"
        try:
            with path.open("x", encoding="utf-8") as file:
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
