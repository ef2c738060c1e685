"""The project: the nearest folder upwards with [tool.outreach-migrate] in its pyproject.toml."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from outreach_migrate.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = "outreach-migrate"
_MENTIONED = re.compile(rb"outreach[-_.]?migrate", re.IGNORECASE)


def find(start: str) -> tuple[str, Any] | None:
    """Find the project, from a folder upwards; return its folder and the table, or None.

    From the current folder "." the result is relative. Raise UsageError for a file that can't be read.
    """
    for root in _upwards(start):
        path = os.path.normpath(os.path.join(root, "pyproject.toml"))
        if os.path.isfile(path) and (table := _table(path)) is not None:
            return root, table
    return None


def _upwards(start: str) -> Iterator[str]:
    here, root = os.path.abspath(start), start
    while True:
        yield root
        above = os.path.dirname(here)
        if above == here:
            return
        here, root = above, os.pardir if root == "." else os.path.join(root, os.pardir)


def _table(path: str) -> Any:
    """Read [tool.outreach-migrate] of a pyproject.toml, None if absent; a file without the name is not even parsed."""
    try:
        with open(path, "rb") as file:
            text = file.read()
        if not _MENTIONED.search(text):
            return None
        import tomllib

        tools = tomllib.loads(text.decode()).get("tool", {})
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read {path}: {reason}") from None
    if not isinstance(tools, dict):
        return None
    for name in tools:
        if name != KEY and re.sub("[-_.]", "", name.lower()) == KEY.replace("-", ""):
            raise UsageError(f"{path}: [tool.{name}] must be written [tool.{KEY}]")
    return tools.get(KEY)
