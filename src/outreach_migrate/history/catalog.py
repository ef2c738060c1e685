"""The catalog's facts about the history table, and the problems that they show."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from psycopg import sql

from outreach_migrate import display
from outreach_migrate.errors import Problem
from outreach_migrate.history import foreign
from outreach_migrate.history.table import NAME, Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from outreach_migrate.history.forms import Foreign

_COLUMNS = (
    *("position", "version", "name", "checksum", "started_at", "finished_at"),
    *("statements_done", "done_checksum", "statements_begun", "applied_by", "origin"),
)
_OURS = f"ARRAY[{', '.join(map(sql.quote, _COLUMNS))}]::pg_catalog.name[]"

_ECTOS = {"version", "inserted_at"}
# The name of a kind, and its keyword in SQL, by pg_class.relkind or pg_type.typtype.
_NO_TABLES = {"i": ("an index", "INDEX"), "I": ("an index", "INDEX"), "S": ("a sequence", "SEQUENCE")}
_TYPES = {"c": ("a composite type", "TYPE"), "e": ("an enum", "TYPE"), "d": ("a domain", "DOMAIN")}
_NO_PLAIN_TABLES = {
    "v": ("a view", "VIEW"),
    "m": ("a materialized view", "MATERIALIZED VIEW"),
    "p": ("a partitioned table", "TABLE"),
    "f": ("a foreign table", "FOREIGN TABLE"),
}
_SHOWN = 3  # of the tables that may be meant


def query(table: Table, search_path: str | None) -> str:
    """Write the query for the facts, one JSON object; `search_path` is the schema that the URL names.

    Any role may read the catalog, also about schemas and tables that it has no right to.
    https://www.postgresql.org/docs/current/catalog-pg-class.html
    """
    wanted = ", ".join(map(sql.quote, sorted({table.schema, search_path or table.schema})))
    schema, name = sql.quote(table.schema), sql.quote(table.name)
    return f"""
        SELECT pg_catalog.json_build_object(
            'role', pg_catalog.quote_ident(current_user),
            'sql', pg_catalog.format('%I.%I', {schema}, {name}),
            'kept', pg_catalog.quote_ident({name} || '_old'),
            'relation', (SELECT {_relation()}
                           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                          WHERE n.nspname = {schema} AND c.relname = {name}),
            'type', (SELECT t.typtype FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
                      WHERE n.nspname = {schema} AND t.typname = {name} AND t.typcategory <> 'A'),
            'missing_schemas', (SELECT coalesce(pg_catalog.json_agg(name), '[]')
                                  FROM pg_catalog.unnest(ARRAY[{wanted}]::pg_catalog.name[]) AS name
                                 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = name)),
            'foreign', {foreign.query(table, search_path)},
            'standby', pg_catalog.pg_is_in_recovery(),
            'read_only', pg_catalog.current_setting('default_transaction_read_only') = 'on',
            -- on other systems than Linux, setting it may be an error
            'checks_client', pg_catalog.current_setting('client_connection_check_interval', true) = '0'
                AND pg_catalog.version() LIKE '%linux%',
            'citus', EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'citus'))"""


def query_of_many(tables: Sequence[Table]) -> str:
    """Write the query for the facts of many tables: a row for each, in their order.

    Its columns: whether the schema is there, the relation's facts, whether a type has the name, whether a session holds
    or awaits the lock that would keep the table from being read, and whether another tool may have a table there.
    """
    schemas, names = (
        f"pg_catalog.unnest(ARRAY[{', '.join(map(sql.quote, column))}]::pg_catalog.name[])"
        for column in ([table.schema for table in tables], [table.name for table in tables])
    )
    return f"""
        WITH locked AS MATERIALIZED (
            SELECT coalesce(i.indrelid, l.relation) AS oid
              FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = l.relation
             WHERE l.mode = 'AccessExclusiveLock' AND l.database = (
                       SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())),
             tools AS MATERIALIZED ({foreign.query_of_many()})
        SELECT n.oid IS NOT NULL, CASE WHEN c.oid IS NOT NULL THEN {_relation()} END,
               EXISTS (SELECT FROM pg_catalog.pg_type t
                        WHERE t.typnamespace = n.oid AND t.typname = w.name AND t.typcategory <> 'A'),
               c.oid IN (SELECT oid FROM locked),
               -- the history itself has such a name, too, unless --table names another
               EXISTS (SELECT FROM tools WHERE schema = 0)
                   OR coalesce(tools.count, 0) > (c.oid IS NOT NULL AND w.name = {sql.quote(NAME)})::pg_catalog.int4
          FROM ROWS FROM ({schemas}, {names}) WITH ORDINALITY AS w(schema, name, nth)
          LEFT JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
          LEFT JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
          LEFT JOIN tools ON tools.schema = n.oid
         ORDER BY w.nth"""


def is_fit(table: Table, relation: dict[str, Any]) -> bool:
    """Tell from a relation's facts whether it is a history that the role may read."""
    facts = {"relation": relation, "sql": "", "kept": "", "role": "", "foreign": ()}
    return relation["usage"] and relation["select"] and not unfit(table, facts)


def _relation() -> str:
    """Write the facts of a relation `c` in its schema `n`.

    A key counts only if it is checked at once, because one that is checked at COMMIT lets two runs go on.
    """
    key = """EXISTS (
        SELECT FROM pg_catalog.pg_index i
          JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
         WHERE i.indrelid = c.oid AND i.indisunique AND i.indisprimary = {primary} AND a.attname = '{column}'
           AND i.indnkeyatts = 1 AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL)"""
    return f"""pg_catalog.json_build_object(
        'kind', c.relkind,
        'columns', (SELECT coalesce(pg_catalog.json_agg(attname), '[]') FROM pg_catalog.pg_attribute
                     WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped),
        'unlogged', c.relpersistence = 'u',
        'filtered', pg_catalog.row_security_active(c.oid),
        'usage', pg_catalog.has_schema_privilege(n.oid, 'USAGE'),
        'schema', pg_catalog.quote_ident(n.nspname),
        'select', pg_catalog.has_table_privilege(c.oid, 'SELECT'),
        'position', {key.format(primary="true", column="position")},
        'version', {key.format(primary="false", column="version")},
        'other', (SELECT pg_catalog.quote_ident(conname) FROM pg_catalog.pg_constraint
                   WHERE conrelid = c.oid AND contype = 'p'))"""


def alike(table: Table) -> str:
    """Write the query for the other tables that have a history's columns: schema and name, the likeliest first."""
    return f"""
        SELECT n.nspname::text, c.relname::text
          FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p', 'f') AND c.relpersistence <> 't' AND c.oid IN (
                   SELECT attrelid FROM pg_catalog.pg_attribute WHERE attname = ANY ({_OURS}) AND NOT attisdropped
                    GROUP BY attrelid HAVING pg_catalog.count(*) = {len(_COLUMNS)})
           AND (n.nspname, c.relname) <> ({sql.quote(table.schema)}, {sql.quote(table.name)})
         ORDER BY c.relname <> {sql.quote(table.name)}, 1, 2"""


def absent(
    table: Table, facts: dict[str, Any], others: list[tuple[Any, ...]], *, search_path: str | None
) -> list[Problem]:
    """List the problems that keep an absent table from being made; `others` are the result of `alike`."""
    if facts["type"]:
        return [_in_the_way(table, facts, *_TYPES.get(facts["type"], ("a type", "TYPE")))]
    if others and not table.chosen:
        return [_others(table, others, f"there is no {table}, but ")]
    if table.schema == "public" and "public" in facts["missing_schemas"] and search_path != "public":
        message = "the database has no schema public, where the history table would be"
        return [Problem(message, hint=f"Name another place: --table SCHEMA.{NAME}; or make it: CREATE SCHEMA public;")]
    return []


def hidden(table: Table, facts: dict[str, Any], others: list[tuple[Any, ...]]) -> list[Problem]:
    """List the rights that the role lacks to read the table."""
    relation, role = facts["relation"], facts["role"]
    lacks = [
        *([] if relation["usage"] else [f"GRANT USAGE ON SCHEMA {relation['schema']} TO {role};"]),
        *([] if relation["select"] else [f"GRANT SELECT ON {facts['sql']} TO {role};"]),
    ]
    if not lacks:
        return []
    hint = f"{' '.join(lacks)} up also needs INSERT and UPDATE."
    found = [Problem(f"the role {role} may not read the history table {table}", hint=hint)]
    return found + ([_others(table, others)] if others and not table.chosen else [])


def _others(table: Table, others: list[tuple[Any, ...]], start: str = "") -> Problem:
    tables = [Table(*other) for other in others]
    if len(schemas := [one.schema for one in tables if one.name == NAME]) > 1:
        names = ", ".join(map(display.in_line, schemas[:_SHOWN])) + (", …" if len(schemas) > _SHOWN else "")
        return Problem(
            f"{start}{len(schemas)} schemas have a history: {names}",
            hint=f"Name one in the URL: ?schema={quote(schemas[0], safe='')}; for all of them: outreach-migrate help "
            f"fleets. To begin a new history: --table {table}",
        )
    shown = ", ".join(map(str, tables[:_SHOWN])) + (", …" if len(tables) > _SHOWN else "")
    count = "1 other table" if len(tables) == 1 else f"{len(tables)} other tables"
    url = f", or ?schema={tables[0].schema} in the URL" if tables[0].name == NAME else ""
    return Problem(
        f"{start}{count} may be the history: {shown}",
        hint=f"Choose one: --table {shlex.quote(str(tables[0]))}{url}. To begin a new history: --table {table}",
    )


def unfit(table: Table, facts: dict[str, Any]) -> list[Problem]:
    """List the problems that keep a relation of the table's name from being a history."""
    relation, kind = facts["relation"], facts["relation"]["kind"]
    if kind in _NO_TABLES or kind == "c":
        return [_in_the_way(table, facts, *(_NO_TABLES | _TYPES)[kind])]
    if not set(_COLUMNS) <= set(relation["columns"]):
        from outreach_migrate.history import forms

        return [stranger(table, relation["columns"], forms.known(facts["foreign"]))]
    if kind in _NO_PLAIN_TABLES:
        return [_no_plain_table(table, facts, *_NO_PLAIN_TABLES[kind])]
    return [*_filtered(table, facts), *_keyless(table, facts)]


def _in_the_way(table: Table, facts: dict[str, Any], what: str, word: str) -> Problem:
    hint = f"Rename it: ALTER {word} {facts['sql']} RENAME TO {facts['kept']}; or give the history another name:"
    return Problem(f"{table} is {what}: no table can have this name", hint=f"{hint} {_another(table)}")


def _another(table: Table) -> str:
    return f"--table {shlex.quote(str(Table(table.schema, 'outreach_migrations')))}"


def stranger(table: Table, columns: Iterable[str], found: Iterable[Foreign]) -> Problem:
    """Refuse a table of the history's name that another tool made; `found` are the tools' tables that are there."""
    mine = f"give this program's history another name: {_another(table)}"
    for one in found:
        if one.table == Table(table.schema, table.name):
            whose = "Rails' or dbmate's" if one.tool == "dbmate" else f"{one.tool}'s"
            hint = f"To take {one.tool}'s history over: outreach-migrate adopt --from {one.tool} --rename. Or {mine}"
            return Problem(f"the table {table} looks like {whose}: its columns are {', '.join(columns)}", hint=hint)
    whose = "Ecto's" if set(columns) == _ECTOS else "another tool's"
    message = f"the table {table} looks like {whose}: its columns are {', '.join(columns)}"
    return Problem(message, hint=f"{mine[0].upper()}{mine[1:]}")


def unadopted(table: Table, found: tuple[Foreign, ...], *, doubtful: bool) -> Problem:
    """Refuse to begin a history while another tool's may be the one; `doubtful` says that no file names the tool."""
    near = [one for one in found if one.schema == table.schema] or found
    tools = dict.fromkeys(f" --from {one.tool}" for one in near)
    given = ", or".join(tools) if doubtful or len(found) > 1 else ""
    chosen = "the one that has run these files" if len(tools) > 1 else "it"
    new = f" To begin a new history: --table {shlex.quote(str(table))}" if doubtful else ""
    tables = " and ".join(f"{one.tool}'s {one}" for one in found)
    return Problem(
        f"the database has no history {table}, but one of another tool: {tables}",
        hint=f"Take {chosen} over: outreach-migrate adopt{given}.{new}",
    )


def _no_plain_table(table: Table, facts: dict[str, Any], what: str, word: str) -> Problem:
    old = f"{facts['relation']['schema']}.{facts['kept']}"
    return Problem(
        f"the history table {table} is {what}, with which two runs at once could apply a file twice",
        hint=f"Make a table of it: BEGIN; ALTER {word} {facts['sql']} RENAME TO {facts['kept']}; "
        f"CREATE TABLE {facts['sql']} AS TABLE {old}; "
        f"ALTER TABLE {facts['sql']} ADD PRIMARY KEY (position), ADD UNIQUE (version); COMMIT; "
        "or name another table: --table SCHEMA.NAME",
    )


def _filtered(table: Table, facts: dict[str, Any]) -> Iterator[Problem]:
    if facts["relation"]["filtered"]:
        yield Problem(
            f"row security on the history table {table} applies to the role {facts['role']}, and may hide entries",
            hint=f"ALTER TABLE {facts['sql']} DISABLE ROW LEVEL SECURITY; or exempt the role, as a superuser: "
            f"ALTER ROLE {facts['role']} BYPASSRLS;",
        )


def _keyless(table: Table, facts: dict[str, Any]) -> Iterator[Problem]:
    relation = facts["relation"]
    lacks, adds = [], []
    if not relation["position"]:
        lacks.append("no primary key on position")
        adds += [f"DROP CONSTRAINT {relation['other']}"] if relation["other"] else []
        adds.append("ADD PRIMARY KEY (position)")
    if not relation["version"]:
        lacks.append("no unique key on version")
        adds.append("ADD UNIQUE (version)")
    if lacks:
        message = f"the history table {table} has {' and '.join(lacks)}, so two runs at once could apply a file twice"
        yield Problem(message, hint=f"Add the keys: ALTER TABLE {facts['sql']} {', '.join(adds)};")
    if relation["unlogged"]:
        message = f"the history table {table} is unlogged: a crash of the server would empty it"
        yield Problem(message, hint=f"ALTER TABLE {facts['sql']} SET LOGGED;")
