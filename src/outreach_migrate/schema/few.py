"""The queries for objects of which a database has few: schemas, extensions, publications, servers, languages …"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql as quoting

from outreach_migrate.schema.sql import MARK, comment, enabled, foreign_options, free, grants, lines, plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.schema.sql import Facts


def queries(facts: Facts) -> Iterator[str]:
    """Give the queries; each row is a kind, a name, the name of the object that it belongs to, and a definition."""
    yield _schemas(facts)
    yield _extensions()
    yield _statistics()
    yield _event_triggers()
    yield _publications()
    yield _subscriptions()
    yield from _foreign(facts)
    yield _languages(facts)
    yield _transforms()
    yield _access_methods()
    yield _default_privileges(facts)
    yield _labels()


def _schemas(facts: Facts) -> str:
    head = "'CREATE SCHEMA ' || quote_ident(n.nspname)"
    # the comment of public is the server's own
    note = f"CASE WHEN n.nspname <> 'public' THEN {comment('pg_namespace', 'n.oid')} END"
    given = grants(facts, "n", "n.nspacl", "n.nspowner")
    if facts.public_differs:
        given = f"CASE WHEN n.nspname <> 'public' THEN {given} END"
    return f"""
        SELECT 'schema', quote_ident(n.nspname), NULL, {lines(head, given, note)}
          FROM pg_namespace n WHERE {plain()} AND {free("pg_namespace", "n.oid")}"""


def _extensions() -> str:
    """Write the query for extensions; their versions and comments are those that the server has."""
    return """
        SELECT 'extension', quote_ident(e.extname), NULL,
               format('CREATE EXTENSION %I SCHEMA %I', e.extname, n.nspname)
          FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql'"""


def _statistics() -> str:
    name = "format('%I.%I', n.nspname, s.stxname)"
    parts = lines(
        "pg_get_statisticsobjdef(s.oid)",
        "'STATISTICS ' || nullif(s.stxstattarget, -1)",
        comment("pg_statistic_ext", "s.oid"),
    )
    return f"""
        SELECT 'statistics', {name}, (SELECT format('%I.%I', m.nspname, c.relname) FROM pg_class c
                                        JOIN pg_namespace m ON m.oid = c.relnamespace WHERE c.oid = s.stxrelid), {parts}
          FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace
         WHERE {plain()} AND {free("pg_statistic_ext", "s.oid")}"""


def _event_triggers() -> str:
    parts = lines(
        "format('CREATE EVENT TRIGGER %I ON %s EXECUTE FUNCTION %s', e.evtname, e.evtevent, e.evtfoid::regprocedure)",
        "'    WHEN TAG IN (' || array_to_string(e.evttags, ', ') || ')'",
        enabled("e.evtenabled"),
        comment("pg_event_trigger", "e.oid"),
    )
    return f"""
        SELECT 'event trigger', quote_ident(e.evtname), NULL, {parts}
          FROM pg_event_trigger e WHERE {free("pg_event_trigger", "e.oid")}"""


def _publications() -> str:
    tables = """
        CASE WHEN NOT p.puballtables THEN (
            SELECT string_agg(concat('    TABLE ', format('%I.%I', t.schemaname, t.tablename),
                                     ' WHERE ' || (to_jsonb(t) ->> 'rowfilter')),
                              E'\\n' ORDER BY t.schemaname, t.tablename)
              FROM pg_publication_tables t WHERE t.pubname = p.pubname) END"""
    parts = lines(
        "format('CREATE PUBLICATION %I%s', p.pubname, CASE WHEN p.puballtables THEN ' FOR ALL TABLES' END)",
        "format('    INSERT %s, UPDATE %s, DELETE %s, TRUNCATE %s, VIA ROOT %s', p.pubinsert, p.pubupdate, p.pubdelete,"
        " p.pubtruncate, p.pubviaroot)",
        tables,
        comment("pg_publication", "p.oid"),
    )
    return f"""
        SELECT 'publication', quote_ident(p.pubname), NULL, {parts}
          FROM pg_publication p WHERE {free("pg_publication", "p.oid")}"""


def _subscriptions() -> str:
    """Write the query for subscriptions, without their connection strings, which have passwords."""
    publications = "array_to_string(ARRAY(SELECT quote_ident(one) FROM unnest(s.subpublications) one ORDER BY 1), ', ')"
    return f"""
        SELECT 'subscription', quote_ident(s.subname), NULL,
               format('CREATE SUBSCRIPTION %I PUBLICATION %s', s.subname, {publications})
          FROM pg_subscription s
         WHERE s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())"""


def _foreign(facts: Facts) -> Iterator[str]:
    wrapper = lines(
        "'CREATE FOREIGN DATA WRAPPER ' || quote_ident(w.fdwname)",
        "'    HANDLER ' || nullif(w.fdwhandler, 0)::regproc",
        "'    VALIDATOR ' || nullif(w.fdwvalidator, 0)::regproc",
        foreign_options("w.fdwoptions"),
        grants(facts, "F", "w.fdwacl", "w.fdwowner"),
        comment("pg_foreign_data_wrapper", "w.oid"),
    )
    yield f"""
        SELECT 'foreign data wrapper', quote_ident(w.fdwname), NULL, {wrapper}
          FROM pg_foreign_data_wrapper w WHERE {free("pg_foreign_data_wrapper", "w.oid")}"""
    server = lines(
        "format('CREATE SERVER %I FOREIGN DATA WRAPPER %I', s.srvname,"
        " (SELECT fdwname FROM pg_foreign_data_wrapper w WHERE w.oid = s.srvfdw))",
        "'    TYPE ' || quote_literal(s.srvtype)",
        "'    VERSION ' || quote_literal(s.srvversion)",
        foreign_options("s.srvoptions"),
        grants(facts, "S", "s.srvacl", "s.srvowner"),
        comment("pg_foreign_server", "s.oid"),
    )
    yield f"""
        SELECT 'server', quote_ident(s.srvname), NULL, {server}
          FROM pg_foreign_server s WHERE {free("pg_foreign_server", "s.oid")}"""
    name = "format('FOR %s SERVER %I', CASE m.umuser WHEN 0 THEN 'PUBLIC' ELSE quote_ident(m.usename) END, m.srvname)"
    yield f"SELECT 'user mapping', {name}, NULL, 'CREATE USER MAPPING ' || {name} FROM pg_user_mappings m"


def _languages(facts: Facts) -> str:
    parts = lines(
        "format('CREATE %sLANGUAGE %I', CASE WHEN l.lanpltrusted THEN 'TRUSTED ' END, l.lanname)",
        "'    HANDLER ' || nullif(l.lanplcallfoid, 0)::regproc",
        "'    INLINE ' || nullif(l.laninline, 0)::regproc",
        "'    VALIDATOR ' || nullif(l.lanvalidator, 0)::regproc",
        grants(facts, "l", "l.lanacl", "l.lanowner"),
        comment("pg_language", "l.oid"),
    )
    return f"""
        SELECT 'language', quote_ident(l.lanname), NULL, {parts}
          FROM pg_language l WHERE l.oid >= 16384 AND {free("pg_language", "l.oid")}"""


def _transforms() -> str:
    name = "format('FOR %s LANGUAGE %I', format_type(t.trftype, NULL), l.lanname)"
    parts = lines(
        f"'CREATE TRANSFORM ' || {name}",
        "'    FROM SQL WITH FUNCTION ' || nullif(t.trffromsql, 0)::regprocedure",
        "'    TO SQL WITH FUNCTION ' || nullif(t.trftosql, 0)::regprocedure",
        comment("pg_transform", "t.oid"),
    )
    return f"""
        SELECT 'transform', {name}, NULL, {parts} FROM pg_transform t JOIN pg_language l ON l.oid = t.trflang
         WHERE {free("pg_transform", "t.oid")}"""


def _access_methods() -> str:
    head = "format('CREATE ACCESS METHOD %I TYPE %s HANDLER %s', a.amname, a.amtype, a.amhandler::regproc)"
    return f"""
        SELECT 'access method', quote_ident(a.amname), NULL, {lines(head, comment("pg_am", "a.oid"))}
          FROM pg_am a WHERE a.oid >= 16384 AND {free("pg_am", "a.oid")}"""


def _default_privileges(facts: Facts) -> str:
    """Write the query for default privileges; those of the role that migrates have no name."""
    history = f"{quoting.quote(facts.history.schema)}, {quoting.quote(facts.history.name)}"
    owner = "(SELECT c.relowner FROM pg_class c JOIN pg_namespace h ON h.oid = c.relnamespace"
    owner += f" WHERE (h.nspname, c.relname) = ({history}))"
    owner = f"coalesce({owner}, current_user::regrole)"
    name = f"""concat('ON ', CASE d.defaclobjtype
                          WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS'
                          WHEN 'T' THEN 'TYPES' WHEN 'n' THEN 'SCHEMAS' ELSE d.defaclobjtype::text END,
                      (SELECT ' IN SCHEMA ' || quote_ident(nspname) FROM pg_namespace n
                        WHERE n.oid = d.defaclnamespace),
                      ' FOR ROLE ' || quote_ident(pg_get_userbyid(nullif(d.defaclrole, {owner}))))"""
    given = f"replace({grants(facts, 'r', 'd.defaclacl', 'd.defaclrole')}, '{MARK}', '')"
    return f"""
        SELECT 'default privileges', {name}, NULL, {lines("'ALTER DEFAULT PRIVILEGES ' || " + name, given)}
          FROM pg_default_acl d"""


def _labels() -> str:
    return """
        SELECT 'security label', concat_ws(' ', l.objtype, l.objname, l.provider), NULL,
               format('SECURITY LABEL FOR %I ON %s %s IS %L', l.provider, l.objtype, l.objname, l.label)
          FROM pg_seclabels l WHERE l.objtype NOT IN ('role', 'database', 'tablespace')"""
