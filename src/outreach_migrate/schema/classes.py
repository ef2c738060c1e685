"""The classes of a module: their names, and the names and annotations of their fields."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from outreach_migrate.schema import naming, registration
from outreach_migrate.schema.annotations import ALIASES, MODULES, Annotations
from outreach_migrate.schema.rows import TypeKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from outreach_migrate.schema.rows import Catalog, Column, RowRelation, Type


class Style(StrEnum):
    """The kinds of classes that rows can be read into."""

    DATACLASS = "dataclass"
    PYDANTIC = "pydantic"
    MSGSPEC = "msgspec"
    TYPEDDICT = "typeddict"


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a class, and the column that it is named after."""

    name: str
    column: str
    annotation: str
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class Class:
    """A class with fields; `note` says why it is not named as in the database."""

    name: str
    doc: str
    note: str | None
    fields: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """The class of an enum, with each member's name and label."""

    name: str
    doc: str
    members: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """The name of a domain, for its base; `is_alias` where type checkers accept no NewType of the base."""

    name: str
    base: str
    is_alias: bool
    doc: str | None


@dataclass(frozen=True, slots=True)
class Classes:
    """All classes of a module, each after those that it needs; and the names that annotations have for types."""

    types: tuple[Labels | Domain | Class, ...]
    rows: tuple[Class, ...]
    inserts: tuple[Class, ...]
    annotations: Annotations


# The names that no class may have, because the module imports or defines them.
_RESERVED = {
    *(*naming.BUILTINS, *MODULES, *ALIASES, *registration.NAMES),
    *("BaseModel", "ConfigDict", "Field", "NamedTuple", "NewType", "StrEnum", "Struct", "TypedDict"),
    *("annotations", "dataclass"),
}
_OF_A_MODEL = {  # pydantic.BaseModel
    *("construct", "copy", "dict", "from_orm", "json", "parse_file", "parse_obj", "parse_raw", "schema"),
    *("schema_json", "update_forward_refs", "validate", "model_computed_fields", "model_config", "model_construct"),
    *("model_copy", "model_dump", "model_dump_json", "model_extra", "model_fields", "model_fields_set"),
    *("model_json_schema", "model_parametrized_name", "model_post_init", "model_rebuild", "model_validate"),
    *("model_validate_json", "model_validate_strings", "mro", "register"),
}
_OF_A_TUPLE = {"count", "index"}


def of(rows: Catalog, style: Style, *, inserts: bool) -> Classes:
    """Name the classes and fields of a schema's rows, the same in every run."""
    tables = naming.assigned(
        [relation.name for relation in rows.relations],
        "table",
        {relation.name for relation in rows.relations if naming.is_free(relation.name)} - _RESERVED,
        _RESERVED,
    )
    fields = {relation.name: _fields(relation, style) for relation in rows.relations}
    of_composites = {oid: _of_composite(type_) for oid, type_ in rows.types.items() if type_.kind is TypeKind.COMPOSITE}
    in_fields = {
        name for names in (*fields.values(), *of_composites.values()) for pair in names.items() for name in pair
    }
    classes = _of_types(rows.types, {*tables.values(), *in_fields, *_RESERVED})
    taken = {*in_fields, *classes.values(), *tables.values()}
    spelled = {name: naming.unique(f"{name}_", taken) for name in (*MODULES, *ALIASES) if name in in_fields}
    annotations = Annotations(rows.types, classes, spelled)
    return Classes(
        tuple(_of_type(oid, annotations, of_composites.get(oid, {})) for oid in classes),
        tuple(_row(relation, tables, fields[relation.name], annotations) for relation in rows.relations),
        tuple(_inserts(rows.relations, tables, taken, annotations)) if inserts else (),
        annotations,
    )


def _fields(relation: RowRelation, style: Style) -> dict[str, str]:
    """Give the columns' Python names, which are the columns' own wherever they can be."""
    names = [column.name for column in relation.columns]
    if style is Style.TYPEDDICT:
        return {name: name for name in names}
    reserved, prefix = (_OF_A_MODEL, "_") if style is Style.PYDANTIC else (set[str](), "__")
    kept = {name for name in names if naming.is_free(name) and not name.startswith(prefix)} - reserved
    return naming.assigned(names, "column", kept, reserved)


def _of_composite(type_: Type) -> dict[str, str]:
    names = [name for name, _ in type_.fields]
    kept = {name for name in names if naming.is_free(name) and not name.startswith("_")} - _OF_A_TUPLE
    return naming.assigned(names, "field", kept, _OF_A_TUPLE)


def _of_types(types: Mapping[int, Type], taken: set[str]) -> dict[int, str]:
    """Name the enums, composites and domains, each after those that it is made of."""
    named: dict[int, str] = {}

    def name(oid: int) -> None:
        found = types[oid]
        for part in (found.of, *(part for _, part in found.fields)):
            if part and part not in named:
                name(part)
        if found.kind in (TypeKind.ENUM, TypeKind.COMPOSITE, TypeKind.DOMAIN):
            named[oid] = naming.unique(naming.pascal(found.name), {*taken, *named.values()})

    for oid in sorted(types, key=lambda oid: (types[oid].schema, types[oid].name)):
        if oid not in named:
            name(oid)
    return named


def _of_type(oid: int, annotations: Annotations, fields: Mapping[str, str]) -> Labels | Domain | Class:
    found, name = annotations.types[oid], annotations.classes[oid]
    written = f"{found.schema}.{found.name}"
    match found.kind:
        case TypeKind.ENUM:
            members = tuple(zip(_members(found.labels), found.labels, strict=True))
            return Labels(name, found.comment or f"A label of {written}.", members)
        case TypeKind.DOMAIN:
            return Domain(name, annotations.of(found.of), not annotations.may_be_newtype(found.of), found.comment)
    parts = tuple(Field(fields[field], field, f"{annotations.of(part)} | None") for field, part in found.fields)
    return Class(name, found.comment or f"A value of {written}.", None, parts)


def _members(labels: Iterable[str]) -> list[str]:
    names: list[str] = []
    for label in labels:
        names.append(naming.unique(naming.identifier(label.upper(), "LABEL"), names))
    return names


def _row(
    relation: RowRelation, tables: Mapping[str, str], fields: Mapping[str, str], annotations: Annotations
) -> Class:
    name, kind = tables[relation.name], "table" if relation.is_table else "view"
    columns = tuple(
        Field(fields[column.name], column.name, _annotation(column, annotations), column.comment)
        for column in relation.columns
    )
    doc = relation.comment or f"A row of the {kind} {relation.name}."
    return Class(name, doc, None if name == relation.name else f"Renamed: the {kind} is {relation.name}.", columns)


def _annotation(column: Column, annotations: Annotations) -> str:
    annotation = annotations.of(column.type)
    return f"{annotation} | None" if column.may_be_null else annotation


def _inserts(
    relations: Iterable[RowRelation], tables: Mapping[str, str], taken: set[str], annotations: Annotations
) -> Iterator[Class]:
    """Make a class for each table with the columns that an INSERT gives."""
    used = {*taken, *_RESERVED}
    for relation in relations:
        if relation.is_table:
            name = naming.unique(f"{tables[relation.name]}Insert", used)
            used.add(name)
            columns = tuple(
                Field(column.name, column.name, _given(column, annotations))
                for column in relation.columns
                if column.is_insertable
            )
            yield Class(name, f"The columns of an INSERT into {relation.name}.", None, columns)


def _given(column: Column, annotations: Annotations) -> str:
    annotation = _annotation(column, annotations)
    return f"{annotations.word('NotRequired')}[{annotation}]" if column.is_optional else annotation
