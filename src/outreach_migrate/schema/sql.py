"""Parts of the queries for a schema's objects; pg_catalog is their search path, so that names are printed in full."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from outreach_migrate.history.table import Table

MARK = "\x01"  # before each line that is a privilege
_HAS_PUBLIC = "fTl"  # kinds of acldefault() whose default has a privilege for PUBLIC


@dataclass(frozen=True, slots=True)
class Facts:
    """The server's major version, that of the server to compare with, and the history table."""

    server: int
    other: int
    history: Table

    @property
    def public_differs(self) -> bool:
        """Whether one of the servers lets everybody create objects in the schema public, as it was before 15."""
        return min(self.server, self.other) < 15 <= max(self.server, self.other)

    @property
    def not_history(self) -> str:
        """The condition that a relation `c` in a schema `n` is not the history, nor a table beside it."""
        names = ", ".join(sql.quote(one.name) for one in self.history.all)
        return f"NOT (n.nspname = {sql.quote(self.history.schema)} AND c.relname IN ({names}))"


REL = "format('%I.%I', n.nspname, c.relname)"  # the name of a relation `c` in a schema `n`
OF_REL = "JOIN pg_class c ON c.oid = {} JOIN pg_namespace n ON n.oid = c.relnamespace"


def plain(schema: str = "n") -> str:
    """Write the condition that a schema is not the server's own."""
    return f"{schema}.nspname !~ '^pg_' AND {schema}.nspname <> 'information_schema'"


def free(catalog: str, oid: str) -> str:
    """Write the condition that an object belongs to no extension, and was not made along with another one."""
    return (
        f"{oid} NOT IN (SELECT objid FROM pg_depend"
        f" WHERE classid = '{catalog}'::regclass AND deptype IN ('e', 'i') AND objsubid = 0)"
    )


def lines(*parts: str) -> str:
    """Write the expression for a definition's lines, without those that are null."""
    return f"concat_ws(E'\\n', {', '.join(parts)})"


def comment(catalog: str, oid: str) -> str:
    """Write the line for an object's comment."""
    return (
        "(SELECT 'COMMENT ' || quote_literal(description) FROM pg_description"
        f" WHERE classoid = '{catalog}'::regclass AND objoid = {oid} AND objsubid = 0)"
    )


def enabled(column: str) -> str:
    """Write the line for a trigger or a rule that does not fire as it would by default."""
    return (
        f"CASE {column} WHEN 'D' THEN 'DISABLED' WHEN 'R' THEN 'ENABLED FOR REPLICA' WHEN 'A' THEN 'ENABLED ALWAYS' END"
    )


def grants(facts: Facts, kind: str, acl: str, owner: str) -> str:
    """Write the marked lines for an object's privileges, without its owner's; `kind` is that of acldefault()."""
    given = f"coalesce({acl}, acldefault('{kind}', {owner}))" if kind in _HAS_PUBLIC else acl
    return f"""
        CASE WHEN {given} IS NOT NULL THEN (SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
            SELECT {_grant("privilege_type")} AS line FROM aclexplode({given})
             WHERE grantee <> {owner} AND {_known(facts)} GROUP BY grantee, is_grantable) AS granted) END"""


def column_grants(relation: str, owner: str) -> str:
    """Write the marked lines for the privileges on a relation's columns."""
    return f"""
        (SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
            SELECT {_grant("format('%s (%I)', privilege_type, attname)")} AS line
              FROM pg_attribute, aclexplode(attacl)
             WHERE attrelid = {relation} AND attacl IS NOT NULL AND grantee <> {owner} AND NOT attisdropped
             GROUP BY grantee, is_grantable) AS granted)"""


def _grant(privilege: str) -> str:
    return f"""format('{MARK}GRANT %s TO %s%s', string_agg({privilege}, ', ' ORDER BY {privilege}),
                      CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
                      CASE WHEN is_grantable THEN ' WITH GRANT OPTION' END)"""


def _known(facts: Facts) -> str:
    return "true" if min(facts.server, facts.other) >= 17 else "privilege_type <> 'MAINTAIN'"


def foreign_options(options: str) -> str:
    """Write the expression for the options of a foreign table, column or server; a password is not shown."""
    return f"""
        CASE WHEN {options} IS NOT NULL THEN (SELECT format('OPTIONS (%s)', string_agg(format('%I %L', name, CASE
                    WHEN name ~* 'pass|secret|token|key' THEN '***' ELSE value END), ', ' ORDER BY name))
           FROM (SELECT split_part(one, '=', 1), substr(one, strpos(one, '=') + 1)
                   FROM unnest({options}) AS one) AS o(name, value) HAVING count(*) > 0) END"""
