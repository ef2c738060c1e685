"""The drift of one target of many."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from psycopg import sql

from outreach_migrate.run.request import Request
from outreach_migrate.schema import drift
from outreach_migrate.schema.drift import Drift


def find(request: Request, *, private: Path, ignore: Collection[str]) -> Drift:
    """Compare a target with its applied files; of a schema's drift keep only the objects in it."""
    found = drift.find(request, private=private, ignore=ignore)
    if not request.target.schema:
        return found
    name = sql.Identifier(request.target.schema).as_string()
    forms = {name, name.strip('"')}  # PostgreSQL quotes it only where that is needed
    kept = tuple(one for one in found.comparison.differences if any(_is_of(one.name, form) for form in forms))
    return replace(found, comparison=replace(found.comparison, differences=kept))


def _is_of(name: str, schema: str) -> bool:
    return name == schema or name.startswith(f"{schema}.") or f" on {schema}." in name
