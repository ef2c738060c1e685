"""The pytest plug-in: databases that have all migrations, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outreach_migrate.testing.databases import Database as Database
    from outreach_migrate.testing.databases import DatabaseBefore as DatabaseBefore

__all__ = ["Database", "DatabaseBefore"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # imported on first use, because pytest imports this module in every run
        from outreach_migrate.testing import databases

        return getattr(databases, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
