"""The outline of a text: statements that can't be sent, or not in a transaction, and the cuts of a large text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outreach_migrate.files import commands, copies, statements
from outreach_migrate.files.phrases import any_of
from outreach_migrate.files.statements import Forbidden

if TYPE_CHECKING:
    from outreach_migrate.files.commands import Command
    from outreach_migrate.files.statements import Statement

# Words of statements about transactions.
CONTROL = any_of(
    "commit|rollback prepared",
    "start transaction",
    "begin|commit|end|abort",
    "set|reset [local|session] [session characteristics as] "
    "transaction|transaction_isolation|transaction_read_only|transaction_deferrable",
    "rollback unless [work|transaction] to",
    "prepare transaction unless as",  # a statement's name
)
OPENS = any_of("begin [work|transaction]", "start transaction")
CLOSES = any_of("commit|end [work|transaction]")
_MODES = any_of(  # that a file's transaction has anyway, or can have
    "isolation level serializable",
    "isolation level repeatable read",
    "isolation level read committed|uncommitted",
    "read write",
    "not deferrable",
)
_ONLY_SQL = "It is a command of psql's, and only SQL is sent."
_ALONE = "pg_dump's line may stand between two statements, alone on its line, with its key."
_INSTEAD = {
    r"\connect": "pg_dump --create writes it: dump without --create.",
    r"\copy": "Use COPY with a file or program on the server.",
    r"\i": "Put the SQL of that file here, or make a migration of it.",
    r"\restrict": _ALONE,
    r"\unrestrict": _ALONE,
}
_RESTRICTION = re.compile(r"[ \t]*\\(?:un)?restrict[ \t]+[0-9A-Za-z]+[ \t]*")
_AS_TEXT = "A migration is text: write the rows as text, or in CSV."
REFUSED = "{} cannot be used in a migration"
_OPENERS = {'"': "quoted identifier", "$": "dollar-quoted string", "/": "/* comment"}
_CUT = 1_000_000  # characters between the places where a large text can be cut


@dataclass(frozen=True, slots=True)
class Outline:
    """The findings in a text that can't be sent, the statements about transactions, and the cuts of a large text.

    `control` are the statements that begin, end or set a transaction; `outer` are BEGIN as the first and COMMIT as the
    last statement, where both are there. `cuts` are starts of statements, with their numbers, about a megabyte apart.
    `skipped` are the offsets of pg_dump's \\restrict and \\unrestrict. `copies` are the statements that copy from the
    client, with their numbers.
    """

    findings: tuple[Forbidden, ...]
    control: tuple[Statement, ...]
    outer: tuple[Statement, Statement] | None
    outside: tuple[tuple[Statement, Command], ...]
    cuts: tuple[tuple[int, int], ...]
    count: int
    skipped: tuple[range, ...]
    copies: tuple[tuple[Statement, int], ...]


def make(sql: str) -> Outline:
    """Read a text in one pass, because nothing else takes as much time."""
    findings, control, outside, cuts, count, cut = [], [], [], [], 0, 0
    first, last, slotless, skipped, copied = None, None, set[str](), [], []
    for found in statements.walk(sql):
        if isinstance(found, range):
            if _is_restriction(sql, found, last):
                skipped.append(found)
            else:
                findings.append(_no_statement(sql, found))
            continue
        first, last = first or found, found
        if command := commands.outside(sql, found, slotless):
            outside.append((found, command))
        if found.start - cut >= _CUT:
            cut = found.start
            cuts.append((cut, count))
        if CONTROL.look_up(found.words):
            control.append(found)
        elif copy := copies.of(sql, found):
            copied.append((found, count))
            if copy.is_binary:
                findings.append(Forbidden(found.start, REFUSED.format("COPY … FROM STDIN in binary"), _AS_TEXT))
        count += 1
    outer = _outer(sql, first, last)
    lists = (tuple(findings), tuple(control), outer, tuple(outside), tuple(cuts))
    return Outline(*lists, count, tuple(skipped), tuple(copied))


def _outer(sql: str, first: Statement | None, last: Statement | None) -> tuple[Statement, Statement] | None:
    if first and last and _begins(sql, first) and _commits(sql, last):
        return first, last
    return None


def _begins(sql: str, statement: Statement) -> bool:
    """Tell whether a statement is BEGIN, and asks for no more than an isolation level."""
    if not OPENS.end(statement.words):
        return False
    words = _words(sql, statement)
    end = first = OPENS.end(words)
    while end and end < len(words):
        end = _MODES.end(words, end + (words[end] == "," and end != first))
    return end is not None


def _commits(sql: str, statement: Statement) -> bool:
    """Tell whether a statement is COMMIT and no more."""
    if not CLOSES.end(statement.words):
        return False
    words = _words(sql, statement)
    return CLOSES.end(words) == len(words)


def _is_restriction(sql: str, offsets: range, last: Statement | None) -> bool:
    """Tell whether a line is pg_dump's \\restrict or \\unrestrict, and stands between two statements."""
    line = sql[sql.rfind("\n", 0, offsets.start) + 1 : offsets.stop]
    between = last is None or statements.end(sql, last) > last.end
    return between and _RESTRICTION.fullmatch(line) is not None


def _no_statement(sql: str, offsets: range) -> Forbidden:
    sign = sql[offsets.start]
    if sign == "\\":
        command = sql[offsets.start : offsets.stop].split()[0]
        return Forbidden(offsets.start, REFUSED.format(command), f"{_ONLY_SQL} {_INSTEAD.get(command, '')}".rstrip())
    return Forbidden(offsets.start, f"unterminated {_OPENERS.get(sign, 'quoted string')}")


def _words(sql: str, statement: Statement) -> list[str]:
    from outreach_migrate.files import scanner  # here, because few files need it

    return scanner.words(sql, statement.start, statement.end)
