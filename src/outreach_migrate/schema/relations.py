"""The queries for tables, views, sequences, and all that belongs to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate.schema.sql import (
    OF_REL,
    REL,
    column_grants,
    comment,
    enabled,
    foreign_options,
    free,
    grants,
    lines,
    plain,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.schema.sql import Facts

_SEQUENCE = """format('AS %s START %s INCREMENT %s MINVALUE %s MAXVALUE %s CACHE %s%s', s.seqtypid::regtype, s.seqstart,
                      s.seqincrement, s.seqmin, s.seqmax, s.seqcache, CASE WHEN s.seqcycle THEN ' CYCLE' END)"""


def queries(facts: Facts) -> Iterator[str]:
    """Give the queries; each row is a kind, a name, the name of the object that it belongs to, and a definition."""
    yield _tables(facts)
    yield _views(facts)
    yield _sequences(facts)
    yield _constraints(facts)
    yield _indexes(facts)
    yield _triggers()
    yield _rules()
    yield _policies()


def _options(relation: str) -> str:
    """Write the expression for the storage options of a relation, and of the table for its long values."""
    return f"""
        'WITH (' || (SELECT string_agg(one, ', ' ORDER BY one) FROM (
            SELECT unnest({relation}.reloptions) UNION ALL
            SELECT 'toast.' || unnest(o.reloptions) FROM pg_class o WHERE o.oid = {relation}.reltoastrelid
        ) AS options(one)) || ')'"""


_PROPERTIES = (  # of a table
    "'PARTITION BY ' || pg_get_partkeydef(t.oid)",
    "(SELECT 'USING ' || quote_ident(amname) FROM pg_am WHERE pg_am.oid = t.relam AND amname <> 'heap')",
    _options("t"),
    "(SELECT 'TABLESPACE ' || quote_ident(spcname) FROM pg_tablespace s WHERE s.oid = t.reltablespace)",
    "(SELECT format('SERVER %I %s', srvname, {}) FROM pg_foreign_table f JOIN pg_foreign_server s"
    " ON s.oid = f.ftserver WHERE f.ftrelid = t.oid)".format(foreign_options("f.ftoptions").strip()),
    "CASE WHEN t.relrowsecurity THEN 'ENABLE ROW LEVEL SECURITY' END",
    "CASE WHEN t.relforcerowsecurity THEN 'FORCE ROW LEVEL SECURITY' END",
    "CASE WHEN t.relkind <> 'f' THEN CASE t.relreplident WHEN 'f' THEN 'REPLICA IDENTITY FULL' WHEN 'n' THEN"
    " 'REPLICA IDENTITY NOTHING' END END",
    "(SELECT 'REPLICA IDENTITY USING INDEX ' || quote_ident(relname) FROM pg_index x JOIN pg_class ON oid ="
    " indexrelid WHERE x.indrelid = t.oid AND indisreplident)",
    "(SELECT 'CLUSTER ON ' || quote_ident(relname) FROM pg_index x JOIN pg_class ON oid = indexrelid"
    " WHERE x.indrelid = t.oid AND indisclustered)",
)


def _tables(facts: Facts) -> str:
    parents = f"(SELECT string_agg({REL}, ', ' ORDER BY i.inhseqno) FROM pg_inherits i {OF_REL.format('i.inhparent')}"
    parents += " WHERE i.inhrelid = t.oid)"
    head = """format('CREATE %s%s %s', CASE t.relpersistence WHEN 'u' THEN 'UNLOGGED ' END,
                     CASE t.relkind WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, t.rel)"""
    parts = lines(
        head,
        "'    OF ' || nullif(t.reloftype, 0)::regtype",
        _columns(),
        f"CASE WHEN t.relispartition THEN format('PARTITION OF %s %s', {parents}, pg_get_expr(t.relpartbound, t.oid))"
        f" ELSE 'INHERITS (' || {parents} || ')' END",
        *_PROPERTIES,
        grants(facts, "r", "t.relacl", "t.relowner"),
        column_grants("t.oid", "t.relowner"),
        comment("pg_class", "t.oid"),
    )
    return f"""
        SELECT CASE t.relkind WHEN 'f' THEN 'foreign table' ELSE 'table' END, t.rel, NULL, {parts}
          FROM (SELECT c.*, {REL} AS rel FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE c.relkind IN ('r', 'p', 'f') AND {plain()} AND {facts.not_history}
                   AND {free("pg_class", "c.oid")}) AS t"""


def _columns() -> str:
    identity = f"""
        CASE WHEN a.attidentity <> '' THEN (SELECT format(' GENERATED %s AS IDENTITY (%s)',
                       CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END, {_SEQUENCE})
           FROM pg_depend d JOIN pg_sequence s ON s.seqrelid = d.objid
          WHERE d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.refclassid = 'pg_class'::regclass
            AND d.classid = d.refclassid AND d.deptype = 'i') END"""
    return f"""
        (SELECT string_agg(concat('    ', quote_ident(a.attname), ' ', format_type(a.atttypid, a.atttypmod),
                    CASE WHEN a.attcollation <> y.typcollation THEN (
                        SELECT format(' COLLATE %I.%I', n.nspname, l.collname) FROM pg_collation l
                          JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation) END,
                    CASE a.attgenerated WHEN 's' THEN format(' GENERATED ALWAYS AS (%s) STORED', e.expr)
                                        WHEN 'v' THEN format(' GENERATED ALWAYS AS (%s)', e.expr)
                                        ELSE ' DEFAULT ' || e.expr END,
                    {identity},
                    CASE WHEN a.attnotnull THEN ' NOT NULL' END,
                    CASE WHEN a.attstorage <> y.typstorage THEN format(' STORAGE "%s"', a.attstorage) END,
                    CASE WHEN a.attcompression <> '' THEN format(' COMPRESSION "%s"', a.attcompression) END,
                    ' STATISTICS ' || nullif(a.attstattarget, -1),
                    ' WITH (' || array_to_string(a.attoptions, ', ') || ')',
                    ' ' || {foreign_options("a.attfdwoptions")},
                    (SELECT ' COMMENT ' || quote_literal(description) FROM pg_description
                      WHERE classoid = 'pg_class'::regclass AND objoid = a.attrelid AND objsubid = a.attnum)),
                E'\\n' ORDER BY a.attname)
           FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
           LEFT JOIN LATERAL (SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d
                               WHERE d.adrelid = a.attrelid AND d.adnum = a.attnum) AS e(expr) ON true
          WHERE a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped)"""


def _views(facts: Facts) -> str:
    column = """
        (SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
            SELECT concat('COLUMN ', quote_ident(a.attname), ' ' || (
                       SELECT 'COMMENT ' || quote_literal(description) FROM pg_description
                        WHERE classoid = 'pg_class'::regclass AND objoid = a.attrelid AND objsubid = a.attnum),
                   ' DEFAULT ' || (SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef
                                    WHERE adrelid = a.attrelid AND adnum = a.attnum)) AS line, a.attname
              FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0) AS l
          WHERE line <> 'COLUMN ' || quote_ident(attname))"""
    parts = lines(
        f"format('CREATE %sVIEW %s%s AS', CASE c.relkind WHEN 'm' THEN 'MATERIALIZED ' END, {REL},"
        f" ' ' || {_options('c')})",
        "pg_get_viewdef(c.oid)",
        column,
        grants(facts, "r", "c.relacl", "c.relowner"),
        column_grants("c.oid", "c.relowner"),
        comment("pg_class", "c.oid"),
    )
    return f"""
        SELECT CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END, {REL}, NULL, {parts}
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('v', 'm') AND {plain()} AND {facts.not_history} AND {free("pg_class", "c.oid")}"""


def _sequences(facts: Facts) -> str:
    parts = lines(
        f"format('CREATE %sSEQUENCE %s %s', CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' END, {REL}, {_SEQUENCE})",
        "'OWNED BY ' || o.name || '.' || o.attname",
        grants(facts, "s", "c.relacl", "c.relowner"),
        comment("pg_class", "c.oid"),
    )
    return f"""
        SELECT 'sequence', {REL}, o.name, {parts}
          FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN LATERAL (
              SELECT {REL}, quote_ident(a.attname) FROM pg_depend d {OF_REL.format("d.refobjid")}
                JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
               WHERE d.objid = s.seqrelid AND d.classid = 'pg_class'::regclass AND d.deptype = 'a'
                 AND d.refclassid = d.classid) AS o(name, attname) ON true
         WHERE {plain()} AND {free("pg_class", "c.oid")}"""


def _constraints(facts: Facts) -> str:
    definition = lines(
        f"format('ALTER TABLE %s ADD CONSTRAINT %I %s', {REL}, k.conname, pg_get_constraintdef(k.oid))",
        comment("pg_constraint", "k.oid"),
    )
    return f"""
        SELECT 'constraint', format('%I on %s', k.conname, {REL}), {REL}, {definition}
          FROM pg_constraint k {OF_REL.format("k.conrelid")}
         WHERE k.contype IN ('c', 'f', 'p', 'u', 'x') AND k.conparentid = 0 AND (k.conislocal OR k.coninhcount = 0)
           AND {plain()} AND {facts.not_history} AND {free("pg_class", "c.oid")}"""


def _indexes(facts: Facts) -> str:
    definition = lines(
        "pg_get_indexdef(i.indexrelid)",
        "CASE WHEN NOT i.indisvalid THEN 'INVALID' END",
        comment("pg_class", "i.indexrelid"),
    )
    return f"""
        SELECT 'index', format('%I.%I', n.nspname, x.relname), {REL}, {definition}
          FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid {OF_REL.format("i.indrelid")}
         WHERE NOT x.relispartition AND {plain()} AND {facts.not_history} AND {free("pg_class", "c.oid")}
           AND i.indexrelid NOT IN (SELECT conindid FROM pg_constraint WHERE contype IN ('p', 'u', 'x'))"""


def _triggers() -> str:
    """Write the query for triggers; that of a partition is the table's own, unless it fires otherwise."""
    definition = lines("pg_get_triggerdef(t.oid)", enabled("t.tgenabled"), comment("pg_trigger", "t.oid"))
    return f"""
        SELECT 'trigger', format('%I on %s', t.tgname, {REL}), {REL}, {definition}
          FROM pg_trigger t {OF_REL.format("t.tgrelid")}
          LEFT JOIN pg_trigger above ON above.oid = t.tgparentid
         WHERE NOT coalesce(above.tgisinternal, t.tgisinternal)  -- before 15 that of a partition is internal
           AND t.tgenabled IS DISTINCT FROM above.tgenabled AND {plain()}
           AND {free("pg_class", "c.oid")}"""


def _rules() -> str:
    definition = lines("pg_get_ruledef(r.oid)", enabled("r.ev_enabled"), comment("pg_rewrite", "r.oid"))
    return f"""
        SELECT 'rule', format('%I on %s', r.rulename, {REL}), {REL}, {definition}
          FROM pg_rewrite r {OF_REL.format("r.ev_class")}
         WHERE r.rulename <> '_RETURN' AND {plain()} AND {free("pg_class", "c.oid")}"""


def _policies() -> str:
    roles = "(SELECT string_agg(coalesce(quote_ident(rolname), 'PUBLIC'), ', ' ORDER BY rolname)"
    roles += " FROM unnest(p.polroles) AS r(role) LEFT JOIN pg_roles a ON a.oid = r.role)"
    definition = lines(
        f"""format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', p.polname, {REL},
                   CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
                   CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE'
                                 WHEN 'd' THEN 'DELETE' ELSE 'ALL' END, {roles})""",
        "'    USING (' || pg_get_expr(p.polqual, p.polrelid) || ')'",
        "'    WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')'",
        comment("pg_policy", "p.oid"),
    )
    return f"""
        SELECT 'policy', format('%I on %s', p.polname, {REL}), {REL}, {definition}
          FROM pg_policy p {OF_REL.format("p.polrelid")} WHERE {plain()} AND {free("pg_class", "c.oid")}"""
