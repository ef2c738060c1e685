"""A Python module with a class for each table and view, as `ruff format` leaves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate.schema import classes, literals, naming, registration
from outreach_migrate.schema.annotations import ALIASES, MODULES, WORD
from outreach_migrate.schema.classes import Class, Domain, Labels, Style

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from outreach_migrate.schema.classes import Classes, Field
    from outreach_migrate.schema.rows import Catalog

_IMPORTED = {
    **dict.fromkeys(("BaseModel", "ConfigDict", "Field"), "pydantic"),
    **dict.fromkeys(("NamedTuple", "NewType", "TypedDict"), "typing"),
    "StrEnum": "enum",
    "Struct": "msgspec",
    "dataclass": "dataclasses",
}
_OTHERS_PACKAGES = ("msgspec", "psycopg", "pydantic")
_OF_STYLE = {
    Style.DATACLASS: {"dataclass"},
    Style.PYDANTIC: {"BaseModel", "ConfigDict"},
    Style.MSGSPEC: {"Struct"},
    Style.TYPEDDICT: {"TypedDict"},
}


def module(rows: Catalog, style: Style, *, inserts: bool, title: str, command: str) -> str:
    """Write the module; the `command` that its head names makes it again."""
    found = classes.of(rows, style, inserts=inserts)
    register, of_register = registration.text(rows.types, found.annotations.classes)
    blocks = [
        *(_type(one) for one in found.types),
        *(_row(one, style) for one in found.rows),
        *(_typed_dict(one) for one in found.inserts),
    ]
    used = _words(found)
    word = found.annotations.word
    aliases = [
        f"{word(name)} = {WORD.sub(lambda part: word(part[0]), made_of)}"
        for name, made_of in ALIASES.items()
        if word(name) in used
    ]
    used.update(word for alias in aliases for word in WORD.findall(alias))
    imports = dict(of_register)
    imports.update((name, _IMPORTED[name]) for name in _constructs(found, style))
    for name, source in MODULES.items():
        spelled = found.annotations.word(name)
        if spelled in used and (spelled != name or source != "builtins"):
            imports[name if spelled == name else f"{name} as {spelled}"] = source
    head = [*literals.docstring(f"{title}\n\nMade by outreach-migrate; don't edit it, make it again:\n{command}"), ""]
    head += ["from __future__ import annotations", "", *_imports(imports), *([""] if imports else []), *aliases]
    parts = [
        "\n".join(head).rstrip(),
        *("\n".join(block) for block in blocks),
        *([register.strip()] if register else []),
    ]
    return "\n\n\n".join(parts) + "\n"


def _words(found: Classes) -> set[str]:
    """Give the words of all annotations."""
    written = [
        field.annotation
        for one in (*found.types, *found.rows, *found.inserts)
        if isinstance(one, Class)
        for field in one.fields
    ]
    written += [one.base for one in found.types if isinstance(one, Domain)]
    return {word for annotation in written for word in WORD.findall(annotation)}


def _constructs(found: Classes, style: Style) -> set[str]:
    """Give the names that the classes themselves need."""
    names = set(_OF_STYLE[style]) if found.rows else set()
    names.update("TypedDict" for _ in found.inserts)
    for one in found.types:
        match one:
            case Labels():
                names.add("StrEnum")
            case Class():
                names.add("NamedTuple")
            case Domain(is_alias=False):
                names.add("NewType")
    if style is Style.PYDANTIC and any(field.name != field.column for row in found.rows for field in row.fields):
        names.add("Field")
    return names


def _imports(imports: dict[str, str]) -> Iterator[str]:
    """Yield the import statements, the standard library's first."""
    sources = sorted(set(imports.values()), key=lambda source: (source.startswith(_OTHERS_PACKAGES), source))
    for before, source in zip(["", *sources], sources, strict=False):
        if source.startswith(_OTHERS_PACKAGES) and before and not before.startswith(_OTHERS_PACKAGES):
            yield ""
        names = sorted((name for name, of in imports.items() if of == source), key=_as_isort)
        plain = [name for name in names if " as " not in name]
        statements = sorted(
            [plain, *([name] for name in names if name not in plain)], key=lambda one: list(map(_as_isort, one[:1]))
        )
        for statement in filter(None, statements):
            line = f"from {source} import {', '.join(statement)}"
            lines = [f"from {source} import (", *(f"    {name}," for name in statement), ")"]
            yield from [line] if literals.fits(line) else lines


def _as_isort(name: str) -> tuple[int, str]:
    """Order names as isort and ruff do: constants, classes, then all other names, each without regard to case."""
    word = name.partition(" ")[0]
    return 0 if len(word) > 1 and word.isupper() else 1 if word[0].isupper() else 2, word.lower()


def _type(one: Labels | Domain | Class) -> list[str]:
    match one:
        case Labels():
            members = [literals.line(f"    {name} = {literals.string(label)}") for name, label in one.members]
            return _class(f"class {one.name}(StrEnum):", one.doc, members)
        case Domain():
            made = (
                [f"{one.name} = {one.base}"]
                if one.is_alias
                else literals.call(f"{one.name} = NewType", [literals.string(one.name), one.base])
            )
            return [*made, *literals.docstring(one.doc or "")]
    return _class(f"class {one.name}(NamedTuple):", one.doc, _fields(one.fields))


def _row(one: Class, style: Style) -> list[str]:
    doc = f"{one.doc}\n\n{one.note}" if one.note else one.doc
    match style:
        case Style.DATACLASS:
            head = ["@dataclass(frozen=True, slots=True, kw_only=True)"]
            return head + _class(f"class {one.name}:", doc, _fields(one.fields))
        case Style.PYDANTIC:
            config = ["frozen=True", "arbitrary_types_allowed=True"]
            if any(field.name.startswith("model_") for field in one.fields):
                config.append("protected_namespaces=()")
            made = [f"    {line}" for line in literals.call("model_config = ConfigDict", config)]
            fields = _fields(one.fields, alias=True)
            return _class(f"class {one.name}(BaseModel):", doc, [*made, "", *fields] if fields else made)
        case Style.MSGSPEC:
            *opened, last = literals.call(f"class {one.name}", ["Struct", "frozen=True", "kw_only=True"])
            return opened + _class(f"{last}:", doc, _fields(one.fields))
    return _typed_dict(one)


def _typed_dict(one: Class) -> list[str]:
    """Write a TypedDict, by a call where a key is no Python name."""
    doc = f"{one.doc}\n\n{one.note}" if one.note else one.doc
    if all(naming.is_free(field.name) and not field.name.startswith("__") for field in one.fields):
        return _class(f"class {one.name}(TypedDict):", doc, _fields(one.fields))
    keys = [f"        {literals.string(field.name)}: {field.annotation}," for field in one.fields]
    made = [f"{one.name} = TypedDict(", f"    {literals.string(one.name)},", "    {", *keys, "    },", ")"]
    if not all(map(literals.fits, keys)):
        made = ["# fmt: off", *made, "# fmt: on"]
    return [*(f"# {line}".rstrip() for line in doc.splitlines()), *made]


def _class(head: str, doc: str, body: list[str]) -> list[str]:
    """Write a class; its docstring has no line that is indented further than the class."""
    lines = [f"    {line}".rstrip() for line in literals.docstring(doc)]
    return [head, *lines, *(["", *body] if body else [])]


def _fields(fields: Iterable[Field], *, alias: bool = False) -> list[str]:
    """Write fields with their comments; with `alias`, a renamed one can be given by its column's name."""
    lines: list[str] = []
    for field in fields:
        written = f"    {field.name}: {field.annotation}"
        if field.name != field.column:
            column = literals.string(field.column)
            lines.append(f"    # the column {column}")
            written += f" = Field(alias={column})" if alias else ""
        lines.append(literals.line(written))
        lines += [f"    {line}".rstrip() for line in literals.docstring(field.comment or "")]
    return lines
