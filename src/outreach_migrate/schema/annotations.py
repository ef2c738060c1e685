"""The Python types that psycopg gives for PostgreSQL's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outreach_migrate.schema.rows import TypeKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from outreach_migrate.schema.rows import Type

# https://www.psycopg.org/psycopg3/docs/basic/adapt.html; any other type comes as its text, a str
_BASES = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), "int"),
    **dict.fromkeys(("float4", "float8"), "float"),
    **dict.fromkeys(("json", "jsonb"), "Any"),
    **dict.fromkeys(("timestamp", "timestamptz"), "datetime"),
    **dict.fromkeys(("time", "timetz"), "time"),
    "bool": "bool",
    "bytea": "bytes",
    "cidr": "Network",
    "date": "date",
    "inet": "Address",
    "interval": "timedelta",
    "numeric": "Decimal",
    "uuid": "UUID",
}
MODULES = {
    **dict.fromkeys(("bool", "bytes", "float", "int", "list", "str"), "builtins"),
    **dict.fromkeys(("Any", "NotRequired"), "typing"),
    **dict.fromkeys(("date", "datetime", "time", "timedelta"), "datetime"),
    **dict.fromkeys((f"IPv{n}{kind}" for n in "46" for kind in ("Address", "Interface", "Network")), "ipaddress"),
    "Decimal": "decimal",
    "Multirange": "psycopg.types.multirange",
    "Range": "psycopg.types.range",
    "UUID": "uuid",
}
# the names of unions, which make lines short
ALIASES = {
    "Address": "IPv4Address | IPv6Address | IPv4Interface | IPv6Interface",
    "Network": "IPv4Network | IPv6Network",
}
WORD = re.compile(r"\w+")
_NOT_FOR_NEWTYPE = {"Any", "Address", "Network", "bool"}


@dataclass(frozen=True, slots=True)
class Annotations:
    """The annotations of types by OID.

    `classes` are the names of the types that have a class of their own. `spelled` has the other names of those that
    can't stand in annotations, because a field has the same name.
    """

    types: Mapping[int, Type]
    classes: Mapping[int, str]
    spelled: Mapping[str, str]

    def of(self, oid: int) -> str:
        """Write the annotation of a type."""
        found = self.types[oid]
        if oid in self.classes:
            return self.classes[oid]
        match found.kind:
            case TypeKind.ARRAY:
                return f"{self.word('list')}[{self.of(found.of)}]"
            case TypeKind.RANGE:
                return f"{self.word('Range')}[{self.of(found.of)}]"
            case TypeKind.MULTIRANGE:
                return f"{self.word('Multirange')}[{self.of(self.types[found.of].of)}]"
        return self.word(_BASES.get(found.name, "str") if found.schema == "pg_catalog" else "str")

    def word(self, name: str) -> str:
        """Give the name by which annotations have an imported or a builtin type."""
        return self.spelled.get(name, name)

    def may_be_newtype(self, oid: int) -> bool:
        """Tell whether type checkers accept a NewType of a type: of no union, and of no class that is final."""
        found = self.types[oid]
        if found.kind is TypeKind.DOMAIN:
            return self.may_be_newtype(found.of)
        return found.kind is not TypeKind.ENUM and _BASES.get(found.name) not in _NOT_FOR_NEWTYPE
