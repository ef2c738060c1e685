"""The file that a failed statement needs, if the rehearsal left that file out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from outreach_migrate.files import scanner
from outreach_migrate.rehearsal import changes
from outreach_migrate.rehearsal.changes import NameKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from outreach_migrate.errors import ServerMessage
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.rehearsal.changes import NameChange

# The kind of the name that a statement misses, or finds taken, by SQLSTATE.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_MISSING = {
    "42P01": {NameKind.RELATION},
    "42704": {NameKind.RELATION, NameKind.OTHER},
    "42703": {NameKind.COLUMN},
    "42883": {NameKind.FUNCTION},
    "3F000": {NameKind.SCHEMA},
    "22P02": {NameKind.VALUE},
}
_TAKEN = {
    "42P07": {NameKind.RELATION},
    "42710": {NameKind.RELATION, NameKind.OTHER},
    "42701": {NameKind.COLUMN},
    "42723": {NameKind.FUNCTION},
    "42P06": {NameKind.SCHEMA},
}
# The text has the name, and nothing else: PostgreSQL fills an error's table, column and constraint fields only for
# violated constraints, not for names that are missing or taken, nor for a value of an enum.
# https://www.postgresql.org/docs/current/protocol-error-fields.html
_NAME = re.compile(
    r"""["«»„“‹][ \u00a0]?([^"«»„“”‹›]+?)[ \u00a0]?["«»“”›]"""  # in the quotes of some language
    r"""|(?<!\S)([^\s"«»„“”(]+)\("""  # a function with its arguments
    r"""|(?<!\S)(\w[\w$]*\.\w[\w$]*)(?!\S)"""  # a column with its table
)


@dataclass(frozen=True, slots=True)
class Earlier:
    """A file's changes before the failed statement, which may be its own, and whether they were carried out."""

    migration: Migration
    changes: Sequence[NameChange]
    rehearsed: bool


@dataclass(frozen=True, slots=True)
class Failure:
    """A statement that failed: the server's message, its text, and the schemas of its search path."""

    report: ServerMessage
    text: str
    path: tuple[str, ...]


def found(failure: Failure, earlier: Sequence[Earlier], home: str | None) -> Migration | None:
    """Give the one file that was left out, and that makes the object that the statement misses, or drops a rival.

    `home` is the schema in which a clean session makes objects. The last change of the name in the server's error
    decides, by the text of the files: if it was carried out, or takes the name away again, a run fails as well. A
    doubtful case counts as a failure.
    """
    code = failure.report.sqlstate
    kinds = _MISSING.get(code) or _TAKEN.get(code) or set()
    for file in reversed(earlier):
        for change in reversed(file.changes):
            if change.kind in kinds and _is_meant(change, failure, home):
                return file.migration if not file.rehearsed and change.made == (code in _MISSING) else None
    return None


def adding_value(report: ServerMessage, earlier: Iterable[Earlier]) -> Migration | None:
    """Give the last file whose statements add the enum value that a message names."""
    adding = [
        file.migration
        for file in earlier
        for change in file.changes
        if change.kind is NameKind.VALUE and change.made and change.name in names(report.message)
    ]
    return adding[-1] if adding else None


def _is_meant(change: NameChange, failure: Failure, home: str | None) -> bool:
    """Tell whether the name in the server's message can only be this one."""
    said = names(failure.report.message)
    qualifiers = [one.removesuffix(change.name).rstrip(".") for one in said if _is(one, change.name)]
    owner = change.owner or ""
    if change.kind is NameKind.VALUE:
        return change.name in said and owner in re.findall(r"[\w$]+", failure.report.message)
    if not qualifiers or change.kind is NameKind.SCHEMA:
        return bool(qualifiers)
    if change.kind is NameKind.COLUMN:
        return _is_column_of(owner, qualifiers[0], [one for one in said if not _is(one, change.name)], failure.text)
    if change.kind is NameKind.OTHER and owner:
        return any(_is(one, owner) for one in said)
    if failure.report.sqlstate == "42P01" and _only_qualifies(change.name, failure.text):  # no FROM clause has it
        return False
    schema = change.schema or home
    return qualifiers[0] == schema if qualifiers[0] else schema in failure.path


def _is_column_of(table: str, qualifier: str, others: list[str], text: str) -> bool:
    """Tell whether a column is the table's, by the message, or by the table's name or alias in the statement."""
    names_of_text = [changes.plain(token.text) for token in scanner.tokens(text)]
    if qualifier:
        is_alias = (table, qualifier) in pairwise(name for name in names_of_text if name != "as")
        return qualifier == table or is_alias
    if others:
        return any(_is(one, table) for one in others)
    return table in names_of_text


def _only_qualifies(name: str, text: str) -> bool:
    """Tell whether a statement has a name only before a dot, as that of a table that its FROM clause lacks."""
    tokens = [*(token.text for token in scanner.tokens(text)), ""]
    following = [after for token, after in pairwise(tokens) if changes.plain(token) == name]
    return bool(following) and set(following) == {"."}


def _is(said: str, name: str) -> bool:
    return said == name or said.endswith(f".{name}")


def names(message: str) -> list[str]:
    """Give the names in a message of the server, in any of its languages; a schema or table may qualify them.

    They are in quotes, except a function, and a column with its table.
    """
    return ["".join(found) for found in _NAME.findall(message)]
