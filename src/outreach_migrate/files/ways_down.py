"""Other tools' marks, and the ways down below them, which would run too."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outreach_migrate.files import foreign, statements
from outreach_migrate.files.statements import Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterator

TERN = "---- create above / drop below ----"  # tern's mark

# The marks as the tools' own parsers read them: internal/sqlparser of goose, sqlparse of sql-migrate, pkg/dbmate,
# src/sqlMigration.ts of node-pg-migrate, migrate/migrate.go of tern, whose mark alone may stand behind SQL.
_TOOLS = {
    "goose": r"[ \t]*\+goose[ \t]*(?:up|down)\b",
    "sql-migrate": r"[ \t]*\+migrate[ \t]+(?:up|down)\b",
    "dbmate": r"[ \t]*migrate:(?:up|down)\b",
    "node-pg-migrate": r"[ \t-]*\b(?:up|down)[ \t]+migration",
    "tern": TERN.removeprefix("--"),
}
_MARK = re.compile("--(?i:" + "|".join(f"({pattern})" for pattern in _TOOLS.values()) + ")")
_ALONE = re.compile(r"^--[ \t]*\+(?:goose[ \t]+no[ \t]+transaction|migrate[ \t]+up[ \t]+notransaction)", re.M | re.I)
_NO_MORE = re.compile(r"s?[ \t:-]*(?:\n|\Z)")
_SIGNS = (
    "+goose",
    "+migrate",
    "igrate:",
    "IGRATE:",
    "igration",
    "IGRATION",
    "drop below",
)  # quick to search for
_IMPORTED = {"goose", "dbmate", "tern"}  # of those above, the tools whose folders `import` copies


@dataclass(frozen=True, slots=True)
class _Mark:
    """A mark's offset and text, and whether its line says more."""

    start: int
    text: str
    tool: str
    says_more: bool

    @property
    def is_up(self) -> bool:
        return "up" in self.text.lower()


def tools(sql: str) -> set[str]:
    """Name the tools whose marks stand in a text."""
    return {mark.tool for mark in _marks(sql) if not mark.says_more} if any(sign in sql for sign in _SIGNS) else set()


def findings(sql: str, folder: str = "") -> Iterator[Forbidden]:
    """Yield the mark of a way down that has a statement, or else a tool's first mark, which it reads as an order.

    All marks of dbmate are yielded, because they look like directives.
    """
    if not any(sign in sql for sign in _SIGNS) or not (marks := list(_marks(sql))):
        return
    starts = _starts(sql, marks)
    marks = [mark for mark in marks if mark.start + 1 in starts]
    starts -= {mark.start + 1 for mark in marks}
    for mark in marks:
        ups = [one for one in marks if one.tool == mark.tool and one.is_up]
        end = next((one.start for one in ups if one.start > mark.start), len(sql))
        if mark.is_up and mark.tool == "dbmate":
            yield _begins(sql, mark, folder)
        elif mark.is_up or (mark.says_more and not ups):  # a comment about the way down
            continue
        elif mark.tool == "dbmate" or any(mark.start < start < end for start in starts):
            keep = f"below {ups[0].text}" if end < len(sql) else "above this line"
            hint = f"Keep the part {keep}, and remove the rest: the whole file is run, and {foreign.NO_WAY_DOWN}."
            message = f"{mark.tool}'s way down begins here: {mark.text}"
            yield Forbidden(mark.start, message, _or_copy(hint, mark.tool, folder))
            return
    if first := next((mark for mark in marks if not mark.says_more and mark.tool != "dbmate"), None):
        line = sql[first.start :].partition("\n")[0].strip()
        alone = " NO TRANSACTION becomes: -- migrate: no-transaction." if _ALONE.search(sql) else ""
        hint = f"Remove {first.tool}'s marks.{alone}"
        yield Forbidden(first.start, f"{first.tool}'s mark: {line}", _or_copy(hint, first.tool, folder))


def _begins(sql: str, mark: _Mark, folder: str) -> Forbidden:
    line = sql[mark.start :].partition("\n")[0].strip()
    hint = "Write instead: -- migrate: no-transaction." if "transaction:false" in line else "Remove the line."
    return Forbidden(mark.start, f"dbmate's mark: {line}", _or_copy(hint, mark.tool, folder))


def _or_copy(hint: str, tool: str, folder: str) -> str:
    return f"{hint} {foreign.copied(folder, tool) if tool in _IMPORTED else foreign.RECIPE}"


def _marks(sql: str) -> Iterator[_Mark]:
    for found in _MARK.finditer(sql):
        tool = [*_TOOLS][(found.lastindex or 1) - 1]
        before = sql[sql.rfind("\n", 0, found.start()) + 1 : found.start()]
        if tool == "tern" or not before.strip():
            says_more = tool == "node-pg-migrate" and not _NO_MORE.match(sql, found.end())
            yield _Mark(found.start(), found[0], tool, says_more)


def _starts(sql: str, marks: list[_Mark]) -> set[int]:
    """Give the starts of statements after a statement of one letter has taken the place of each mark.

    A mark that is a comment at the top level, even before a missing semicolon, thereby becomes a statement's start; a
    mark in a string, in another comment or in parentheses does not.
    """
    texts, last = [], 0
    for mark in marks:
        texts += [sql[last : mark.start], ";x;", "-" * (len(mark.text) - 3)]
        last = mark.start + len(mark.text)
    return {statement.start for statement in statements.split("".join([*texts, sql[last:]]))}
