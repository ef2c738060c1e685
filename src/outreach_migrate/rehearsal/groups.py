"""A file's statements in groups: one by one, but a dump's INSERTs together."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, groupby, islice, pairwise
from typing import TYPE_CHECKING

from outreach_migrate.errors import Location
from outreach_migrate.files import scanner, statements
from outreach_migrate.rehearsal import changes
from outreach_migrate.run.sending import Message

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.files.copies import Rows
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.files.statements import Statement

_AT_ONCE = 1_000_000  # characters, because PostgreSQL parses a whole message before it runs any of it
_HEAD = 500  # characters that surely hold a command and the name of its table
_PLAIN = {"create", "alter", "drop", "comment", "insert", "update", "delete"}
_FAR_REACHING = {
    "database",
    "domain",
    "event",
    "extension",
    "foreign",
    "owned",
    "role",
    "schema",
    "system",
    "type",
    "user",
}
_BEFORE_NAME = {"insert": {"into"}, "update": {"only"}, "delete": {"from", "only"}}


@dataclass(frozen=True, slots=True)
class Placed:
    """A statement, its start, and its last line; `end` is the offset of the next one's start."""

    statement: Statement
    location: Location
    last_line: int
    end: int


@dataclass(frozen=True, slots=True)
class Group:
    """The unit of a rehearsal: a statement, or consecutive ones of one kind that change the rows of one table.

    `sql` is the file's text, `first` the number of the first statement, from 0. `rows` are those that it copies,
    `shown` is its first statement as the file has it.
    """

    sql: str
    first: int
    members: tuple[Placed, ...]
    rows: Rows | None
    shown: str

    @property
    def location(self) -> Location:
        """The place of the first statement's start."""
        return self.members[0].location

    @property
    def text(self) -> str:
        """The first statement."""
        return self.sql[self.members[0].statement.start : self.members[0].statement.end]

    @property
    def whole(self) -> str:
        """All of its statements."""
        return self.sql[self.members[0].statement.start : self.members[-1].statement.end]

    @property
    def changes_rows(self) -> bool:
        """Whether it changes the rows of a table, and nothing else."""
        return bool(_changed(self.sql, self.members[0].statement))

    @property
    def is_plain(self) -> bool:
        """Whether it is a statement that changes no setting, and touches few relations that it doesn't name."""
        first, second, *_ = (*self.members[0].statement.words, "", "")
        return first in _PLAIN and second not in _FAR_REACHING and "cascade" not in self.members[0].statement.words

    def messages(self) -> Iterator[Message]:
        """Cut the file into messages; each reaches to the next one's start, as in a run, to place errors alike."""
        begin = self.members[0].statement.start
        first, last = self.first, self.members[-1]
        for number, member in enumerate(self.members, self.first + 1):
            if member is last or member.end - begin >= _AT_ONCE:
                yield Message(text=self.sql[begin : member.end], start=begin, first=first, rows=self.rows)
                begin, first = member.end, number


def cut(migration: Migration) -> tuple[Group, ...]:
    """Cut a file into groups."""
    sql = migration.body
    numbered = enumerate(placed(migration, sql))
    runs = groupby(numbered, key=lambda one: _changed(sql, one[1].statement) or one[0])
    found = []
    for _, run in runs:
        (first, member), *others = run
        members = (member, *(other for _, other in others))
        shown = migration.shown(member.statement.start, member.statement.end)
        found.append(Group(sql, first, members, migration.rows.get(first), shown))
    return tuple(found)


def placed(migration: Migration, sql: str) -> Iterator[Placed]:
    """Yield the statements of a file's text with their places, and count each line only once."""
    line, at, newline = 1, 0, -1
    for statement, after in pairwise(chain(statements.split(sql), [None])):
        if statement:
            line += sql.count("\n", at, statement.start)
            line += sum(rows.lines for rows in migration.rows.values() if at < rows.offset <= statement.start)
            newline = max(newline, sql.rfind("\n", at, statement.start))
            at = statement.start
            last_line = line + sql.count("\n", at, statement.end)
            end = after.start if after else len(sql)
            yield Placed(statement, Location(migration.path, line, at - newline), last_line, end)


def _changed(sql: str, statement: Statement) -> tuple[str, ...]:
    """Give the command and the table of a statement that changes rows; None for another statement."""
    command = statement.words[0] if statement.words else ""
    if command not in _BEFORE_NAME:
        return ()
    head = sql[statement.start : min(statement.end, statement.start + _HEAD)]
    tokens = [token.text for token in islice(scanner.tokens(head), 1, 10)]
    while tokens and tokens[0].lower() in _BEFORE_NAME[command]:
        del tokens[0]
    table, _ = changes.name(tokens, 0)
    return (command, *table)
