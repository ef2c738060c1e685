"""The table columns that the columns of views show, as PostgreSQL itself describes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import pq

from outreach_migrate.files import scanner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from psycopg import Connection

    Place = tuple[int, int]

# Outer joins and grouping sets add nulls to columns that have none. No bare name is one of the first three words.
_ADD_NULLS = {"left", "right", "full", "rollup", "cube", "sets"}


def origins(connection: Connection, views: Iterable[int]) -> dict[Place, Place]:
    """Find the column of a table that each column of a view shows unchanged, with no null added.

    A column is its relation's OID and its number. A view over other views is followed down to the tables, and to
    materialised views, which keep the nulls of their last refresh. A column that is computed, or may have a null that
    its table does not have, is left out.
    """
    direct: dict[Place, Place] = {}
    seen, left = set[int](), set(views)
    while left:
        seen |= left
        texts = connection.execute(
            "SELECT v::bigint, pg_catalog.pg_get_viewdef(v::oid) FROM pg_catalog.unnest(%s::bigint[]) v", (list(left),)
        ).fetchall()
        found = {place: origin for view, text in texts for place, origin in _shown(connection, view, text).items()}
        direct |= found
        nested = connection.execute(
            "SELECT oid::bigint FROM pg_catalog.pg_class WHERE oid = ANY(%s::bigint[]) AND relkind = 'v'",
            ([relation for relation, _ in found.values()],),
        ).fetchall()
        left = {view for (view,) in nested} - seen
    ends = {place: _end(direct, origin) for place, origin in direct.items()}
    return {place: end for place, end in ends.items() if end[0] not in seen}


def _shown(connection: Connection, view: int, text: str) -> dict[Place, Place]:
    """Read the origins of a view's columns off the description of its query, which is parsed and not run."""
    if any(token.word in _ADD_NULLS for token in scanner.tokens(text)):
        return {}
    connection.pgconn.prepare(b"", text.encode())  # if it fails, as without USAGE on a schema, nothing is described
    described = connection.pgconn.describe_prepared(b"")
    if described.status != pq.ExecStatus.COMMAND_OK:
        return {}
    columns = ((number, described.ftable(number), described.ftablecol(number)) for number in range(described.nfields))
    return {(view, number + 1): (table, column) for number, table, column in columns if table and column > 0}


def _end(direct: dict[Place, Place], place: Place) -> Place:
    while place in direct:
        place = direct[place]
    return place
