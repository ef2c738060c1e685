"""The outline of a text: statements that can't be sent, or not in a transaction, and the cuts of a large text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outreach_migrate.files import commands, copies, statements
from outreach_migrate.files.statements import Finding

if TYPE_CHECKING:
    from outreach_migrate.files.commands import Command
    from outreach_migrate.files.statements import Statement

# Matched with a statement's words.
CONTROL = re.compile(
    r"(?:commit|rollback) prepared\b|start transaction\b|(?:begin|commit|end|abort)\b"
    r"|(?:re)?set (?:(?:local|session) )?(?:session characteristics as )?"
    r"transaction(?:_(?:isolation|read_only|deferrable))?\b"
    r"|rollback\b(?! (?:(?:work|transaction) )?to\b)|prepare transaction\b(?!.* as\b)"  # AS: a statement's name
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

    findings: tuple[Finding, ...]
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
        if CONTROL.match(" ".join(found.words)):
            control.append(found)
        elif copy := copies.of(sql, found):
            copied.append((found, count))
            if copy.is_binary:
                findings.append(Finding(found.start, REFUSED.format("COPY … FROM STDIN in binary"), _AS_TEXT))
        count += 1
    outer = _outer(sql, first, last)
    lists = (tuple(findings), tuple(control), outer, tuple(outside), tuple(cuts))
    return Outline(*lists, count, tuple(skipped), tuple(copied))


def _outer(sql: str, first: Statement | None, last: Statement | None) -> tuple[Statement, Statement] | None:
    if first and last and statements.begins(sql, first) and statements.commits(sql, last):
        return first, last
    return None


def _is_restriction(sql: str, offsets: range, last: Statement | None) -> bool:
    """Tell whether a line is pg_dump's \\restrict or \\unrestrict, and stands between two statements."""
    line = sql[sql.rfind("\n", 0, offsets.start) + 1 : offsets.stop]
    between = last is None or statements.end(sql, last) > last.end
    return between and _RESTRICTION.fullmatch(line) is not None


def _no_statement(sql: str, offsets: range) -> Finding:
    sign = sql[offsets.start]
    if sign == "\\":
        command = sql[offsets.start : offsets.stop].split()[0]
        return Finding(offsets.start, REFUSED.format(command), f"{_ONLY_SQL} {_INSTEAD.get(command, '')}".rstrip())
    return Finding(offsets.start, f"unterminated {_OPENERS.get(sign, 'quoted string')}")


def flattened(sql: str) -> str:
    """Give a statement's tokens in lower case, a space after each; quoted ones keep their word characters only."""
    from outreach_migrate.files import scanner  # here, because few files need it

    return "".join((token.word or re.sub(r"\W", "", token.name)) + " " for token in scanner.tokens(sql)).lower()
