"""Statements that a file without a transaction can't have, because they would not work there as in psql."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from outreach_migrate.files import commands, outline, statements
from outreach_migrate.files.outline import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.files.statements import Statement

_TEMPORARY = "Make an ordinary one, and drop it at the end of the file."
_TOGETHER = "Statements that need one transaction belong in a file that has one."
_ISOLATION = "Leave it out: each statement runs in a transaction of its own, READ COMMITTED."
_SETTING = "Use SET: it holds for the statements after it."
_RANDOM = "Call setseed() in the statement that needs it: … FROM (SELECT setseed(0.5)) AS seed, …"
_STRINGS = "Leave it out, and write strings with backslashes as E'…': the file is read with this setting on."
_ADVISORY = "Leave it out: no two runs work on a file at once."
_SEQUENCE = "Use RETURNING, or call nextval() in the same statement."
_AGAIN = "Put it into a file of its own: if it fails, its commits stay, and the next up runs it again."

# Each statement has a transaction and a session of its own. Of the commands in PostgreSQL's manual these affect later
# statements, or need the same transaction. So do SET, RESET, LOAD and DISCARD ALL, but pieces.cut repeats those.
_COMMANDS = {  # matched with a statement's words
    r"create (?:or replace )?(?:global |local )?temp(?:orary)? (?:recursive )?(?:table|view|sequence)": _TEMPORARY,
    r"create (?:or replace )?(?:unlogged |materialized |recursive )?\w+ (?:if not exists )?pg_temp": _TEMPORARY,
    r"prepare": "Write the statement out where it is executed.",
    r"declare": "A cursor ends with its statement: use one statement, or a loop in a DO block.",
    r"listen": "Leave it out: a run waits for no notification.",
    r"savepoint|release|rollback|lock|set constraints": _TOGETHER,
    r"set (?:session |local )*(?:transaction|characteristics|(?:default_)?transaction_(?!timeout)\w+)": _ISOLATION,
    r"set local": _SETTING,
    r"set (?:session )?seed": _RANDOM,
    r"set (?:session )?standard_conforming_strings(?! (?:to )?(?:on|true|default)\b)": _STRINGS,
}
_FIRST = {"create", "prepare", "declare", "listen", "savepoint", "release", "rollback", "lock", "set"}  # spare the rest
_CALL = r"(?:(?<!\. )|(?<=pg_catalog \. ))\b"  # not a function of this name in another schema
_INTO = r"\b(?<!insert )(?<!merge )"
_CALLS = (  # searched for in a statement's tokens; the third pattern excuses a call
    (rf"{_CALL}(set_config) \( (?!(?:[^()]|\((?:[^()]|\([^()]*\))*\))*[,>] (?:true|t) \))", _SETTING, None),
    (rf"{_CALL}(pg_(?:try_)?advisory_(?:un)?lock(?:_shared|_all)?) \(", _ADVISORY, None),
    (rf"{_CALL}(currval|lastval) \(", _SEQUENCE, r"\b(?:nextval|returning)\b"),
    (rf"{_CALL}(setseed) \(", _RANDOM, r"\brandom\w* \("),
    (rf"{_INTO}(into (?:local |global )?temp(?:orary)?) (?!(?:from|where|group|order|limit) |$)", _TEMPORARY, None),
    (rf"{_INTO}(into (?:table )?pg_temp) \.", _TEMPORARY, None),
)
_TELLTALES = ("set_config", "advisory_", "currval", "lastval", "setseed")  # each call has one, and tokens take long
_CALLERS = {"select", "with", "values", "table", "insert", "update", "delete", "merge", "explain", "copy", "call"}


def findings(sql: str) -> Iterator[Finding]:
    """Yield the statements that a file without a transaction can't have."""
    whole = list(statements.split(sql))
    alone = sum(one.words[:1] not in (("set",), ("reset",), ("load",)) for one in whole) <= 1
    for statement in whole:
        text = sql[statement.start : statement.end]
        if found := _command(statement) or _call(text, statement.words):
            yield Finding(statement.start, f"{found[0]} does not work in a file without a transaction", found[1])
        elif not alone and (command := commands.committing(sql, statement)):
            yield Finding(statement.start, f"{command} must be a file's only statement besides SET", _AGAIN)


def _command(statement: Statement) -> tuple[str, str] | None:
    words = " ".join(statement.words) if statement.words and statement.words[0] in _FIRST else ""
    for pattern, hint in _COMMANDS.items() if words else ():
        if found := re.match(rf"(?:{pattern})\b", words):
            return found[0].upper(), hint
    return None


def _call(text: str, words: tuple[str, ...]) -> tuple[str, str] | None:
    """Find a call that leaves something in the session; a call in the body of a view or a function does not count."""
    makes = words[:1] == ("create",) and words[1:2] in (("table",), ("unlogged",), ("materialized",)) and "as" in words
    lower = text.lower()
    into = words[:1] in ((), ("select",), ("with",)) and "into" in lower and "temp" in lower
    if not (makes or not words or words[0] in _CALLERS) or not (into or any(word in lower for word in _TELLTALES)):
        return None
    flat = outline.flattened(text)
    for pattern, hint, excuse in _CALLS:
        if (found := re.search(pattern, flat)) and not (excuse and re.search(excuse, flat)):
            return found[1].upper() if found[1].startswith("into") else f"{found[1]}()", hint
    return None
