"""Statements that a file without a transaction can't have, because they would not work there as in psql."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from outreach_migrate.files import commands, outline, statements
from outreach_migrate.files.statements import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.files.statements import Statement

_TEMPORARY = "Make an ordinary one, and drop it at the end of the file."
_TOGETHER = "Statements that need one transaction belong in a file that has one."
_ISOLATION = "Leave it out: each statement runs in a transaction of its own, READ COMMITTED."
_SETTING = "Use SET as a statement of its own: it holds for the statements after it."
_IN_BLOCK = (
    "Use SET LOCAL for the block alone, or write the statement outside of the block for the statements after it."
)
_DROPPED = "Add ON COMMIT DROP, or make an ordinary one, and drop it at the end of the file."
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
    (r"\bupdate (?:only )?(?:pg_catalog \. )?(pg_settings)\b", _SETTING, None),
    (rf"{_CALL}(pg_(?:try_)?advisory_(?:un)?lock(?:_shared|_all)?) \(", _ADVISORY, r"_lock(?:_shared)? .*_unlock"),
    (rf"{_CALL}(currval|lastval) \(", _SEQUENCE, r"\b(?:nextval|returning)\b"),
    (rf"{_CALL}(setseed) \(", _RANDOM, r"\brandom\w* \("),
)
_MADE = (
    (rf"{_INTO}(into (?:local |global )?temp(?:orary)?) (?!(?:from|where|group|order|limit) |$)", _TEMPORARY, None),
    (rf"{_INTO}(into (?:table )?pg_temp) \.", _TEMPORARY, None),
)
_TELLTALES = ("set_config", "pg_settings", "advisory_", "currval", "lastval", "setseed")  # tokens take long
_START = r"(?:^|; |>> |\b(?:begin|then|else|loop) )"
_IN_BLOCKS = (  # searched for in the tokens of a DO block
    (rf"{_START}((?:re)?set|load) (?!local |transaction |constraints |[:=.\[])", _IN_BLOCK, None),
    (
        rf"{_START}(create (?:global |local )?temp(?:orary)? (?:recursive )?(?:table|view|sequence))\b",
        _DROPPED,
        r"\b(?:on commit drop|drop (?:table|view|sequence)) ",
    ),
)
_EXECUTES = re.compile(r"\bexecute |spi_exec")
_MAKES = re.compile(r"\bcreate (?:or replace )?(?:function|procedure) ")
_CALLERS = {"select", "with", "values", "table", "insert", "update", "delete", "merge", "explain", "copy", "call"}


def findings(sql: str) -> Iterator[Finding]:
    """Yield the statements that a file without a transaction can't have."""
    whole = list(statements.split(sql))
    alone = sum(one.words[:1] not in (("set",), ("reset",), ("load",)) for one in whole) <= 1
    for statement in whole:
        text = sql[statement.start : statement.end]
        in_block = None if statement is whole[-1] else _block(sql, statement)  # after the last one nothing is left
        if found := _command(statement) or _call(text, statement.words) or in_block:
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
    return _found(outline.flattened(text), (*_CALLS, *_MADE))


def _block(sql: str, statement: Statement) -> tuple[str, str] | None:
    """Find the first thing that a DO block, which may have a language of its own, leaves in the session."""
    if statement.words[:1] != ("do",):
        return None
    from outreach_migrate.files import scanner

    read = scanner.tokens(sql, statement.start, statement.end)
    flat = "; ".join(text for token in read if token.kind is scanner.Kind.STRING for text in _executed(token.name))
    found = _found(flat, (*_CALLS, *_IN_BLOCKS))
    return (f"DO with {found[0]}", found[1]) if found else None


def _executed(block: str) -> Iterator[str]:
    """Yield the tokens of a block, and those of its strings where it executes some and makes no function of them."""
    from outreach_migrate.files import scanner

    flat = outline.flattened(block)
    yield flat
    if _EXECUTES.search(flat) and not _MAKES.search(flat):
        for token in scanner.tokens(block):
            if token.kind is scanner.Kind.STRING:
                yield from _executed(token.name)


def _found(flat: str, wanted: tuple[tuple[str, str, str | None], ...]) -> tuple[str, str] | None:
    for pattern, hint, excuse in wanted:
        if (found := re.search(pattern, flat)) and not (excuse and re.search(excuse, flat)):
            if found[1] == "pg_settings":
                return "UPDATE pg_settings", hint
            return f"{found[1]}()" if found[0].rstrip().endswith("(") else found[1].upper(), hint
    return None
