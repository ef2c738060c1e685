"""The function of a module that makes psycopg give types which it gives as text otherwise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import adapters, sql

from outreach_migrate.schema import literals
from outreach_migrate.schema.annotations import WORD
from outreach_migrate.schema.rows import TypeKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from outreach_migrate.schema.rows import Type

_OF_KIND = {
    TypeKind.ENUM: """\
    for name, enum in _ENUMS.items():
        found = _found(EnumInfo.fetch(connection, name), name)
        mapping = {member: member.value for member in enum}
        register_enum(found, context, enum, mapping=mapping)
""",
    TypeKind.COMPOSITE: """\
    for name, make in _COMPOSITES.items():
        composite = _found(CompositeInfo.fetch(connection, name), name)
        register_composite(composite, context, make)
""",
    TypeKind.RANGE: """\
    for name in _RANGES:
        register_range(_found(RangeInfo.fetch(connection, name), name), context)
""",
    TypeKind.MULTIRANGE: """\
    for name in _MULTIRANGES:
        multirange = _found(MultirangeInfo.fetch(connection, name), name)
        register_multirange(multirange, context)
""",
    TypeKind.BASE: """\
    for name in _ELEMENTS:
        _found(TypeInfo.fetch(connection, name), name).register(context)
""",
    TypeKind.DOMAIN: """\
    known = context.adapters if context else adapters
    for name, base in _DOMAINS.items():
        domain = _found(TypeInfo.fetch(connection, name), name)
        domain.register(context)
        oid = _found(TypeInfo.fetch(connection, base), base).oid
        for form in (Format.TEXT, Format.BINARY):
            if loader := known.get_loader(oid, form):
                known.register_loader(domain.oid, loader)
""",
}
_TABLES = {
    TypeKind.ENUM: "_ENUMS: dict[str, type[StrEnum]] = {",
    TypeKind.COMPOSITE: "_COMPOSITES: dict[str, Callable[..., Any]] = {",
    TypeKind.RANGE: "_RANGES = [",
    TypeKind.MULTIRANGE: "_MULTIRANGES = [",
    TypeKind.BASE: "_ELEMENTS = [",
    TypeKind.DOMAIN: "_DOMAINS = {",
}
_MODULES = {
    **dict.fromkeys(("Any", "TypeVar"), "typing"),
    **dict.fromkeys(("Connection", "adapters"), "psycopg"),
    **dict.fromkeys(("EnumInfo", "register_enum"), "psycopg.types.enum"),
    **dict.fromkeys(("CompositeInfo", "register_composite"), "psycopg.types.composite"),
    **dict.fromkeys(("RangeInfo", "register_range"), "psycopg.types.range"),
    **dict.fromkeys(("MultirangeInfo", "register_multirange"), "psycopg.types.multirange"),
    "AdaptContext": "psycopg.abc",
    "Callable": "collections.abc",
    "Format": "psycopg.pq",
    "StrEnum": "enum",
    "TypeInfo": "psycopg.types",
}
_FUNCTION = '''
_Info = TypeVar("_Info")


def register(connection: Connection[Any], context: AdaptContext | None) -> None:
    """Make psycopg give the types of this module, which come as text until then.

    The connection looks them up in its database. `context` is the connection that
    reads them; None stands for all connections that are made after this call.
    """
'''
_FOUND = """

def _found(info: _Info | None, name: str) -> _Info:
    if info is None:
        raise LookupError(f"the database has no type {name}")
    return info
"""
NAMES = {*_MODULES, "register", "_Info", "_found", *(line.split(" ")[0].rstrip(":") for line in _TABLES.values())}


def text(types: Mapping[int, Type], classes: Mapping[int, str]) -> tuple[str, dict[str, str]]:
    """Write the function, and the modules of the names that it imports; no text if psycopg knows all types.

    `classes` are the names of the types' classes by OID, each after those that it is made of.
    """
    tables: dict[TypeKind, list[str]] = {}
    for kind, entry in _entries(types, classes):
        tables.setdefault(kind, []).append(entry)
    if not tables:
        return "", {}
    kinds = [kind for kind in _OF_KIND if kind in tables]
    opened = [[_TABLES[kind], *(f"    {entry}," for entry in tables[kind]), _closed(kind)] for kind in kinds]
    body = "\n".join(line for lines in opened for line in lines) + "\n" + _FUNCTION
    body += "".join(_OF_KIND[kind] for kind in kinds) + _FOUND
    return body, {name: module for name, module in _MODULES.items() if name in WORD.findall(body)}


def _closed(kind: TypeKind) -> str:
    return "]" if _TABLES[kind].endswith("[") else "}"


def _entries(types: Mapping[int, Type], classes: Mapping[int, str]) -> Iterator[tuple[TypeKind, str]]:
    """Yield the types to register, a domain after its base.

    The server names the base for a column of a domain, but the domain itself in arrays, composites and ranges.
    """
    elements = {type_.of for type_ in types.values() if type_.kind is TypeKind.ARRAY}
    within = elements | {type_.of for type_ in types.values() if type_.kind is TypeKind.RANGE}
    within |= {oid for type_ in types.values() for _, oid in type_.fields}
    while more := {types[oid].of for oid in within if types[oid].kind is TypeKind.DOMAIN} - within:
        within |= more
    for oid in [*classes, *(oid for oid in types if oid not in classes)]:
        found, name = types[oid], literals.string(_quoted(types[oid]))
        match found.kind:
            case TypeKind.ENUM | TypeKind.COMPOSITE:
                yield found.kind, f"{name}: {classes[oid]}"
            case TypeKind.DOMAIN if oid in within:
                yield found.kind, f"{name}: {literals.string(_quoted(types[found.of]))}"
            case TypeKind.RANGE | TypeKind.MULTIRANGE if found.schema != "pg_catalog":
                yield found.kind, name
            case TypeKind.BASE if oid in elements and (found.schema != "pg_catalog" or not adapters.types.get(oid)):
                yield found.kind, name


def _quoted(type_: Type) -> str:
    return sql.Identifier(type_.schema, type_.name).as_string()
