"""The queries for functions, types, operators, and all that is made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate.schema.sql import comment, free, grants, lines, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.schema.sql import Facts

_NAME = "format('%I.%I', n.nspname, {})"
_METHOD = "(SELECT quote_ident(amname) FROM pg_am WHERE oid = {})"


def queries(facts: Facts) -> Iterator[str]:
    """Give the queries; each row is a kind, a name, the name of the object that it belongs to, and a definition."""
    yield _functions(facts)
    yield _aggregates(facts)
    yield _enums_and_composites(facts)
    yield _domains(facts)
    yield _ranges(facts)
    yield _base_types(facts)
    yield _operators()
    yield _operator_families()
    yield _operator_classes()
    yield _casts()
    yield _collations()
    yield _conversions()
    yield from _text_search()


def _functions(facts: Facts) -> str:
    parts = lines(
        "rtrim(pg_get_functiondef(p.oid), E'\\n')",
        grants(facts, "f", "p.proacl", "p.proowner"),
        comment("pg_proc", "p.oid"),
    )
    return f"""
        SELECT CASE p.prokind WHEN 'p' THEN 'procedure' ELSE 'function' END,
               format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), NULL, {parts}
          FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE p.prokind <> 'a' AND {plain()} AND {free("pg_proc", "p.oid")}"""


def _aggregates(facts: Facts) -> str:
    name = "format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid))"
    functions = ("transfn", "finalfn", "combinefn", "serialfn", "deserialfn", "mtransfn", "minvtransfn", "mfinalfn")
    parts = lines(
        f"'CREATE AGGREGATE ' || {name}",
        *(f"'    {one.upper()} = ' || nullif(a.agg{one}, 0)::regprocedure" for one in functions),
        "'    STYPE = ' || format_type(a.aggtranstype, NULL)",
        "'    MSTYPE = ' || format_type(nullif(a.aggmtranstype, 0), NULL)",
        "'    INITCOND = ' || quote_literal(a.agginitval)",
        "'    MINITCOND = ' || quote_literal(a.aggminitval)",
        "'    SORTOP = ' || nullif(a.aggsortop, 0)::regoperator",
        "format('    KIND %s, FINALFUNC_EXTRA %s, FINALFUNC_MODIFY %s, PARALLEL %s', a.aggkind, a.aggfinalextra,"
        " a.aggfinalmodify, p.proparallel)",
        grants(facts, "f", "p.proacl", "p.proowner"),
        comment("pg_proc", "p.oid"),
    )
    return f"""
        SELECT 'aggregate', {name}, NULL, {parts}
          FROM pg_aggregate a JOIN pg_proc p ON p.oid = a.aggfnoid JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE {plain()} AND {free("pg_proc", "p.oid")}"""


def _types(facts: Facts, head: str, *parts: str, joins: str = "", where: str) -> str:
    name = _NAME.format("t.typname")
    whole = lines(head.format(name), *parts, grants(facts, "T", "t.typacl", "t.typowner"), comment("pg_type", "t.oid"))
    return f"""
        SELECT CASE t.typtype WHEN 'd' THEN 'domain' ELSE 'type' END, {name}, NULL, {whole}
          FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace {joins}
         WHERE {where} AND {plain()} AND {free("pg_type", "t.oid")}"""


def _enums_and_composites(facts: Facts) -> str:
    labels = "(SELECT string_agg('    ' || quote_literal(enumlabel), E'\\n' ORDER BY enumsortorder)"
    labels += " FROM pg_enum WHERE enumtypid = t.oid)"
    columns = """
        (SELECT string_agg(concat('    ', quote_ident(a.attname), ' ', format_type(a.atttypid, a.atttypmod),
                    (SELECT format(' COLLATE %I.%I', n.nspname, l.collname) FROM pg_collation l
                       JOIN pg_namespace n ON n.oid = l.collnamespace
                      WHERE l.oid = a.attcollation AND a.attcollation <> y.typcollation),
                    (SELECT ' COMMENT ' || quote_literal(description) FROM pg_description
                      WHERE classoid = 'pg_class'::regclass AND objoid = a.attrelid AND objsubid = a.attnum)),
                E'\\n' ORDER BY a.attnum)
           FROM pg_attribute a JOIN pg_type y ON y.oid = a.atttypid
          WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)"""
    head = "format('CREATE TYPE %s AS%s', {}, CASE t.typtype WHEN 'e' THEN ' ENUM' END)"
    composite = "t.typtype = 'c' AND (SELECT relkind FROM pg_class c WHERE c.oid = t.typrelid) = 'c'"
    return _types(facts, head, labels, columns, where=f"(t.typtype = 'e' OR {composite})")


def _domains(facts: Facts) -> str:
    checks = f"""
        (SELECT string_agg(concat(format('    CONSTRAINT %I %s', conname, pg_get_constraintdef(k.oid)),
                                  ' ' || {comment("pg_constraint", "k.oid")}), E'\\n' ORDER BY conname)
           FROM pg_constraint k WHERE contypid = t.oid AND contype <> 'n')"""
    head = """concat(format('CREATE DOMAIN %s AS %s', {}, format_type(t.typbasetype, t.typtypmod)),
                     (SELECT format(' COLLATE %I.%I', m.nspname, l.collname) FROM pg_collation l
                        JOIN pg_namespace m ON m.oid = l.collnamespace JOIN pg_type b ON b.oid = t.typbasetype
                       WHERE l.oid = t.typcollation AND t.typcollation <> b.typcollation),
                     ' DEFAULT ' || t.typdefault, CASE WHEN t.typnotnull THEN ' NOT NULL' END)"""
    return _types(facts, head, checks, where="t.typtype = 'd'")


def _ranges(facts: Facts) -> str:
    parts = (
        "'    SUBTYPE = ' || format_type(r.rngsubtype, NULL)",
        "(SELECT format('    SUBTYPE_OPCLASS = %I.%I', m.nspname, o.opcname) FROM pg_opclass o"
        " JOIN pg_namespace m ON m.oid = o.opcnamespace WHERE o.oid = r.rngsubopc AND NOT o.opcdefault)",
        "'    COLLATION = ' || (SELECT format('%I.%I', m.nspname, l.collname) FROM pg_collation l JOIN pg_namespace m"
        " ON m.oid = l.collnamespace JOIN pg_type b ON b.oid = r.rngsubtype"
        " WHERE l.oid = r.rngcollation AND l.oid <> b.typcollation)",
        "'    CANONICAL = ' || nullif(r.rngcanonical, 0)::regproc",
        "'    SUBTYPE_DIFF = ' || nullif(r.rngsubdiff, 0)::regproc",
        "'    MULTIRANGE_TYPE_NAME = ' || format_type(r.rngmultitypid, NULL)",
    )
    head = "format('CREATE TYPE %s AS RANGE', {})"
    return _types(facts, head, *parts, joins="JOIN pg_range r ON r.rngtypid = t.oid", where="t.typtype = 'r'")


def _base_types(facts: Facts) -> str:
    functions = ("input", "output", "receive", "send", "modin", "modout", "analyze")
    parts = (
        *(f"'    {one.upper()} = ' || nullif(t.typ{one}, 0)::regproc" for one in functions),
        "format('    LENGTH %s, BY VALUE %s, ALIGNMENT %s, STORAGE %s, CATEGORY %s, PREFERRED %s, DELIMITER %L,"
        " ELEMENT %s', t.typlen, t.typbyval, t.typalign, t.typstorage, t.typcategory, t.typispreferred, t.typdelim,"
        " format_type(nullif(t.typelem, 0), NULL))",
        "'    DEFAULT ' || t.typdefault",
    )
    is_array = "EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)"
    return _types(facts, "'CREATE TYPE ' || {}", *parts, where=f"t.typtype = 'b' AND NOT {is_array}")


def _operators() -> str:
    operator = lines(
        "'CREATE OPERATOR ' || o.oid::regoperator",
        "'    FUNCTION = ' || o.oprcode::regprocedure",
        "'    COMMUTATOR = ' || nullif(o.oprcom, 0)::regoperator",
        "'    NEGATOR = ' || nullif(o.oprnegate, 0)::regoperator",
        "'    RESTRICT = ' || nullif(o.oprrest, 0)::regproc",
        "'    JOIN = ' || nullif(o.oprjoin, 0)::regproc",
        "CASE WHEN o.oprcanhash THEN '    HASHES' END",
        "CASE WHEN o.oprcanmerge THEN '    MERGES' END",
        comment("pg_operator", "o.oid"),
    )
    return f"""
        SELECT 'operator', o.oid::regoperator::text, NULL, {operator}
          FROM pg_operator o JOIN pg_namespace n ON n.oid = o.oprnamespace
         WHERE o.oprcode <> 0 AND {plain()} AND {free("pg_operator", "o.oid")}"""


def _operator_families() -> str:
    members = """
        (SELECT string_agg(line, E'\\n' ORDER BY line) FROM (
            SELECT format('    OPERATOR %s %s', amopstrategy, amopopr::regoperator)
              FROM pg_amop WHERE amopfamily = f.oid
             UNION ALL
            SELECT format('    FUNCTION %s (%s, %s) %s', amprocnum, format_type(amproclefttype, NULL),
                          format_type(amprocrighttype, NULL), amproc::regprocedure)
              FROM pg_amproc WHERE amprocfamily = f.oid) AS m(line))"""
    family = f"format('%I.%I USING %s', n.nspname, f.opfname, {_METHOD.format('f.opfmethod')})"
    return f"""
        SELECT 'operator family', {family}, NULL,
               {lines(f"'CREATE OPERATOR FAMILY ' || {family}", members, comment("pg_opfamily", "f.oid"))}
          FROM pg_opfamily f JOIN pg_namespace n ON n.oid = f.opfnamespace
         WHERE {plain()} AND {free("pg_opfamily", "f.oid")}"""


def _operator_classes() -> str:
    name = f"format('%I.%I USING %s', n.nspname, c.opcname, {_METHOD.format('c.opcmethod')})"
    head = f"format('CREATE OPERATOR CLASS %s FOR TYPE %s%s FAMILY %I', {name}, format_type(c.opcintype, NULL),"
    head += " CASE WHEN c.opcdefault THEN ' DEFAULT' END, (SELECT opfname FROM pg_opfamily WHERE oid = c.opcfamily))"
    storage = "'    STORAGE ' || format_type(nullif(c.opckeytype, 0), NULL)"
    return f"""
        SELECT 'operator class', {name}, NULL, {lines(head, storage, comment("pg_opclass", "c.oid"))}
          FROM pg_opclass c JOIN pg_namespace n ON n.oid = c.opcnamespace
         WHERE {plain()} AND {free("pg_opclass", "c.oid")}"""


def _casts() -> str:
    name = "format('(%s AS %s)', format_type(c.castsource, NULL), format_type(c.casttarget, NULL))"
    head = f"""format('CREATE CAST %s %s AS %s', {name}, CASE c.castmethod
                   WHEN 'b' THEN 'WITHOUT FUNCTION' WHEN 'i' THEN 'WITH INOUT'
                   ELSE 'WITH FUNCTION ' || c.castfunc::regprocedure END,
               CASE c.castcontext WHEN 'e' THEN 'EXPLICIT' WHEN 'a' THEN 'ASSIGNMENT' ELSE 'IMPLICIT' END)"""
    return f"""
        SELECT 'cast', {name}, NULL, {lines(head, comment("pg_cast", "c.oid"))}
          FROM pg_cast c WHERE c.oid >= 16384 AND {free("pg_cast", "c.oid")}"""


def _collations() -> str:
    name = _NAME.format("l.collname")
    # the locale's column has another name in each of three versions
    locale = "coalesce(j.row ->> 'colllocale', j.row ->> 'colliculocale', l.collcollate)"
    head = f"""format('CREATE COLLATION %s (PROVIDER = %s, LOCALE = %L, CTYPE = %L, DETERMINISTIC = %s)', {name},
                      l.collprovider, {locale}, l.collctype, l.collisdeterministic)"""
    return f"""
        SELECT 'collation', {name}, NULL, {lines(head, comment("pg_collation", "l.oid"))}
          FROM pg_collation l JOIN pg_namespace n ON n.oid = l.collnamespace
         CROSS JOIN LATERAL (SELECT to_jsonb(l)) AS j(row)
         WHERE {plain()} AND {free("pg_collation", "l.oid")}"""


def _conversions() -> str:
    name = _NAME.format("c.conname")
    head = f"""format('CREATE %sCONVERSION %s FOR %L TO %L FROM %s',
                      CASE WHEN c.condefault THEN 'DEFAULT ' END, {name},
                      pg_encoding_to_char(c.conforencoding), pg_encoding_to_char(c.contoencoding),
                      c.conproc::regproc)"""
    return f"""
        SELECT 'conversion', {name}, NULL, {lines(head, comment("pg_conversion", "c.oid"))}
          FROM pg_conversion c JOIN pg_namespace n ON n.oid = c.connamespace
         WHERE {plain()} AND {free("pg_conversion", "c.oid")}"""


def _text_search() -> Iterator[str]:
    dictionary = "(SELECT format('%I.%I', o.nspname, d.dictname) FROM pg_ts_dict d"
    dictionary += " JOIN pg_namespace o ON o.oid = d.dictnamespace WHERE d.oid = {})"
    of_parser = "(SELECT format('%I.%I', o.nspname, p.prsname) FROM pg_ts_parser p"
    of_parser += " JOIN pg_namespace o ON o.oid = p.prsnamespace WHERE p.oid = x.cfgparser)"
    mapping = f"""
        (SELECT string_agg(format('    MAPPING FOR %s WITH %s', k.alias, k.dicts), E'\\n' ORDER BY k.alias)
           FROM (SELECT t.alias, string_agg({dictionary.format("m.mapdict")}, ', ' ORDER BY m.mapseqno) AS dicts
                   FROM pg_ts_config_map m JOIN ts_token_type(x.cfgparser) t ON t.tokid = m.maptokentype
                  WHERE m.mapcfg = x.oid GROUP BY t.alias) AS k)"""
    template = "(SELECT format('%I.%I', o.nspname, t.tmplname) FROM pg_ts_template t"
    template += " JOIN pg_namespace o ON o.oid = t.tmplnamespace WHERE t.oid = x.dicttemplate)"
    parts = {
        ("pg_ts_config", "cfg", "configuration"): (f"'    PARSER = ' || {of_parser}", mapping),
        ("pg_ts_dict", "dict", "dictionary"): (f"'    TEMPLATE = ' || {template}", "'    ' || x.dictinitoption"),
        ("pg_ts_parser", "prs", "parser"): tuple(
            f"'    {one.upper()} = ' || nullif(x.prs{one}, 0)::regproc"
            for one in ("start", "token", "end", "lextype", "headline")
        ),
        ("pg_ts_template", "tmpl", "template"): tuple(
            f"'    {one.upper()} = ' || nullif(x.tmpl{one}, 0)::regproc" for one in ("init", "lexize")
        ),
    }
    for (catalog, prefix, kind), found in parts.items():
        name = _NAME.format(f"x.{prefix}name")
        head = f"'CREATE TEXT SEARCH {kind.upper()} ' || {name}"
        yield f"""
            SELECT 'text search {kind}', {name}, NULL, {lines(head, *found, comment(catalog, "x.oid"))}
              FROM {catalog} x JOIN pg_namespace n ON n.oid = x.{prefix}namespace
             WHERE {plain()} AND {free(catalog, "x.oid")}"""
