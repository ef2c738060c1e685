"""What a text has that can't be sent, or not in a transaction, and where a large one can be cut."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outreach_migrate.files import statements

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.files.statements import Statement

# Matched with a statement's words.
_CONTROL = re.compile(
    r"(?:commit|rollback) prepared\b|start transaction\b|(?:begin|commit|end|abort)\b"
    r"|rollback\b(?! (?:(?:work|transaction) )?to\b)|prepare transaction\b(?!.* as\b)"  # AS: a statement of that name
)
_CLIENT_COPY = re.compile(r"copy\b.*? (from (?:stdin|stdout))\b")  # PostgreSQL takes the two for the same
_NEVER_INSIDE = re.compile(
    r"((?:create|drop) (?:database|tablespace)|(?:create|create unique|drop) index concurrently|vacuum|alter system"
    r"|discard all|(?:commit|rollback) prepared|reindex (?:database|schema|system|\S+ concurrently))\b"
    r"|(alter database) (?:.* )?(set tablespace)\b|(alter table) .*\b(detach partition)\b.* (concurrently)$"
)
# Matched with all its tokens: see flattened.
_NOT_INSIDE_WITH = re.compile(
    r"(reindex) \( (?:[^)]* )?(concurrently) (?!(?:= )?(?:false|off|0) )"
    r"|(cluster) (?:\( [^)]*\) |verbose )*$"
    r"|(create subscription) (?!.*[(,] (?:connect|create_slot) = (?:false|off|0) )"
    r"|(alter subscription) \S+ ((?:refresh|set|add|drop) publication) (?!.*[(,] refresh = (?:false|off|0) )"
    r"|(alter subscription) \S+ (set) \( (?:.*, )?(?:failover|two_phase) "
)
_DROP_SUBSCRIPTION = re.compile(r"drop subscription (?:if exists )?(\S+) ")
_SLOTLESS = re.compile(r"(?:alter|create) subscription (\S+) .*[(,] slot_name = none ")

DROP_SUBSCRIPTION = "DROP SUBSCRIPTION with a slot"
_OWN_TRANSACTION = "the file runs in a transaction of its own; SAVEPOINT and ROLLBACK TO can be used"
_ONLY_SQL = r"psql's commands cannot be used: only SQL is sent (remove \restrict and \unrestrict, which pg_dump writes)"
_NO_DATA = "only SQL is sent: use INSERT statements, or COPY with a file or program on the server"
_REFUSED = "{} cannot be used in a migration"
_OPENERS = {'"': "quoted identifier", "$": "dollar-quoted string", "/": "/* comment"}
_CUT = 1_000_000  # characters between the places where a large text can be cut


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a text that a migration may not have, and its offset in characters."""

    offset: int
    message: str
    hint: str | None = None


@dataclass(frozen=True, slots=True)
class Outline:
    """What stands in a text: what can't be sent, what can't be in a transaction, and where a large one can be cut.

    `cuts` are starts of statements, with their numbers, about a megabyte apart.
    """

    findings: tuple[Finding, ...]
    outside: tuple[tuple[Statement, str], ...]
    cuts: tuple[tuple[int, int], ...]
    count: int


def make(sql: str) -> Outline:
    """Read a text through, once: of all that we do this takes the most time."""
    findings, outside, cuts, count, cut = [], [], [], 0, 0
    slotless = set[str]()
    for found in _read_through(sql):
        if isinstance(found, Finding):
            findings.append(found)
            continue
        if command := outside_transaction(sql, found) or _drops_slot(sql, found, slotless):
            outside.append((found, command))
        if found.start - cut >= _CUT:
            cut = found.start
            cuts.append((cut, count))
        count += 1
    return Outline(tuple(findings), tuple(outside), tuple(cuts), count)


def findings(sql: str) -> Iterator[Finding]:
    """Yield what cannot be sent: transaction control, psql's commands, COPY FROM stdin, what is never closed.

    After COPY … FROM stdin nothing is read any more: the lines that follow are data.
    """
    return (found for found in _read_through(sql) if isinstance(found, Finding))


def outside_transaction(sql: str, statement: Statement) -> str | None:
    """Name the statement's command when PostgreSQL refuses it inside a transaction block.

    These are the callers of its PreventInTransactionBlock() as far as the statement alone tells: REINDEX and CLUSTER
    of a partitioned table look like their harmless kin, and so does DROP SUBSCRIPTION with a slot.
    """
    found = _NEVER_INSIDE.match(" ".join(statement.words))
    if not found and {"reindex", "cluster", "subscription"}.intersection(statement.words[:2]):
        found = _NOT_INSIDE_WITH.match(flattened(sql[statement.start : statement.end]))
    return " … ".join(part.upper() for part in found.groups() if part) if found else None


def _drops_slot(sql: str, statement: Statement, slotless: set[str]) -> str | None:
    """Name DROP SUBSCRIPTION where nothing before it in the file took the slot away, which `slotless` collects."""
    if "subscription" not in statement.words[:2]:
        return None
    tokens = flattened(sql[statement.start : statement.end])
    if parted := _SLOTLESS.match(tokens):
        slotless.add(parted[1])
    dropped = _DROP_SUBSCRIPTION.match(tokens)
    return DROP_SUBSCRIPTION if dropped and dropped[1] not in slotless else None


def _read_through(sql: str) -> Iterator[Statement | Finding]:
    """Yield the statements of a text, and after each what there is to find in it."""
    for found in statements.walk(sql):
        if isinstance(found, range):
            yield _no_statement(sql, found)
            continue
        yield found
        words = " ".join(found.words)
        if control := _CONTROL.match(words):
            yield Finding(found.start, _REFUSED.format(control[0].upper()), _OWN_TRANSACTION)
        elif copy := _CLIENT_COPY.match(words):
            yield Finding(found.start, _REFUSED.format(f"COPY … {copy[1].upper()}"), _NO_DATA)
            return


def _no_statement(sql: str, offsets: range) -> Finding:
    sign = sql[offsets.start]
    if sign == "\\":
        command = sql[offsets.start : offsets.stop].split()[0]
        return Finding(offsets.start, _REFUSED.format(command), _ONLY_SQL)
    return Finding(offsets.start, f"unterminated {_OPENERS.get(sign, 'quoted string')}")


def flattened(sql: str) -> str:
    """Return a statement's tokens in lower case, a space after each; quoted ones keep their word characters only."""
    return "".join((re.sub(r"\W", "", token) or token) + " " for token in statements.tokens(sql)).lower()
