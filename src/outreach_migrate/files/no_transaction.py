"""Statements that a file without a transaction can't have, because they would not work there as in psql."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from outreach_migrate.files import commands, statements
from outreach_migrate.files.phrases import Phrases, any_of
from outreach_migrate.files.statements import Forbidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outreach_migrate.files.statements import Statement

    Reason = tuple[str, str]  # the wrong part of a statement, and a hint

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
_COMMANDS = Phrases(
    {
        "create [or replace] [global|local] temp|temporary [recursive] table|view|sequence": _TEMPORARY,
        "create [or replace] [unlogged|materialized|recursive] table|view|sequence|function|procedure|aggregate|"
        "type|domain|operator|collation|conversion|statistics [if not exists] pg_temp": _TEMPORARY,
        "prepare": "Write the statement out where it is executed.",
        "declare": "A cursor ends with its statement: use one statement, or a loop in a DO block.",
        "listen": "Leave it out: a run waits for no notification.",
        "savepoint|release|rollback|lock": _TOGETHER,
        "set constraints": _TOGETHER,
        "set [session|local] [session] transaction|characteristics|transaction_isolation|transaction_read_only|"
        "transaction_deferrable|default_transaction_isolation|default_transaction_read_only|"
        "default_transaction_deferrable": _ISOLATION,
        "set local": _SETTING,
        "set [session] seed": _RANDOM,
        "set [session] standard_conforming_strings unless [to] on|true|default": _STRINGS,
    }
)
_UPDATES = any_of("update [only] [pg_catalog .] pg_settings")
_LOCKS = {"pg_advisory_lock", "pg_advisory_lock_shared", "pg_try_advisory_lock", "pg_try_advisory_lock_shared"}
_UNLOCKS = {"pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all"}
_TELLTALES = ("set_config", "pg_settings", "advisory_", "currval", "lastval", "setseed")  # tokens take long
_INTO = any_of("into [local|global] temp|temporary unless from|where|group|order|limit")
_INTO_SCHEMA = any_of("into [table] pg_temp .")
_STARTS = {";", ">>", "begin", "then", "else", "loop"}  # a statement of a block comes after them
_SETS = {"set", "reset", "load"}
_NO_SETTING = {"local", "transaction", "constraints", ":", "=", ".", "["}  # after them; SET may be a variable's name
_CREATES = any_of("create [global|local] temp|temporary [recursive] table|view|sequence")
_DROPS = any_of("on commit drop", "drop table|view|sequence")
_MAKES = any_of("create [or replace] function|procedure")
_CALLERS = {"select", "with", "values", "table", "insert", "update", "delete", "merge", "explain", "copy", "call"}


def findings(sql: str) -> Iterator[Forbidden]:
    """Yield the statements that a file without a transaction can't have."""
    whole = list(statements.split(sql))
    alone = sum(one.words[:1] not in (("set",), ("reset",), ("load",)) for one in whole) <= 1
    for statement in whole:
        in_block = None if statement is whole[-1] else _block(sql, statement)  # after the last one nothing is left
        if found := _command(statement) or _call(sql, statement) or in_block:
            yield Forbidden(statement.start, f"{found[0]} does not work in a file without a transaction", found[1])
        elif not alone and (command := commands.committing(sql, statement)):
            yield Forbidden(statement.start, f"{command} must be a file's only statement besides SET", _AGAIN)


def _command(statement: Statement) -> Reason | None:
    if found := _COMMANDS.look_up(statement.words):
        hint, end = found
        return " ".join(statement.words[:end]).upper(), hint
    return None


def _call(sql: str, statement: Statement) -> Reason | None:
    """Find a call that leaves something in the session; a call in the body of a view or a function does not count."""
    words, lower = statement.words, sql[statement.start : statement.end].lower()
    makes = words[:1] == ("create",) and words[1:2] in (("table",), ("unlogged",), ("materialized",)) and "as" in words
    into = words[:1] in ((), ("select",), ("with",)) and "into" in lower and "temp" in lower
    if not (makes or not words or words[0] in _CALLERS) or not (into or any(word in lower for word in _TELLTALES)):
        return None
    from outreach_migrate.files import scanner  # here, because few files need it

    return _first(scanner.words(sql, statement.start, statement.end), _left_behind, _made)


def _block(sql: str, statement: Statement) -> Reason | None:
    """Find the first thing that a DO block, which may have a language of its own, leaves in the session."""
    if statement.words[:1] != ("do",):
        return None
    from outreach_migrate.files import scanner

    read = scanner.tokens(sql, statement.start, statement.end)
    words = [word for token in read if token.kind is scanner.Kind.STRING for word in _executed(token.name)]
    found = _first(words, _left_behind, _in_block)
    return (f"DO with {found[0]}", found[1]) if found else None


def _executed(block: str) -> list[str]:
    """Give the words of a block, and those of its strings where it executes some and makes no function of them."""
    from outreach_migrate.files import scanner

    words = [*scanner.words(block), ";"]
    if not _MAKES.are_in(words) and any(word == "execute" or word.startswith("spi_exec") for word in words):
        for token in scanner.tokens(block):
            if token.kind is scanner.Kind.STRING:
                words += _executed(token.name)
    return words


def _first(words: list[str], *looks: Callable[[list[str], int], Reason | None]) -> Reason | None:
    """Give the first thing that one of these finds at some place in a statement's words."""
    words = [";", *words, ";"]  # so that each word has one before it and one after it
    places = range(1, len(words) - 1)
    return next((found for at in places for look in looks if (found := look(words, at))), None)


def _left_behind(words: list[str], at: int) -> Reason | None:
    """Read a call of a function whose effect lasts longer than its statement, or an update of pg_settings."""
    if _UPDATES.end(words, at):
        return "UPDATE pg_settings", _SETTING
    if words[at + 1] != "(" or (words[at - 1] == "." and words[at - 2] != "pg_catalog"):
        return None
    name, hint = words[at], None
    if name == "set_config" and not _is_local(words, at + 1):
        hint = _SETTING
    elif name in _LOCKS | _UNLOCKS and not _unlocks(words):
        hint = _ADVISORY
    elif name in ("currval", "lastval") and not {"nextval", "returning"}.intersection(words):
        hint = _SEQUENCE
    elif name == "setseed" and not any(one.startswith("random") and two == "(" for one, two in pairwise(words)):
        hint = _RANDOM
    return (f"{name}()", hint) if hint else None


def _is_local(words: list[str], opening: int) -> bool:
    """Tell whether the last argument of a call of set_config() is true."""
    depth = 0
    for at in range(opening, len(words)):
        depth += (words[at] == "(") - (words[at] == ")")
        if not depth:
            return words[at - 2] in (",", "=>") and words[at - 1].lower() in ("true", "'true'", "'t'")
    return False


def _unlocks(words: list[str]) -> bool:
    """Tell whether an advisory lock is taken, and then one is released."""
    taken = next((at for at, word in enumerate(words) if word in _LOCKS), len(words))
    return not _UNLOCKS.isdisjoint(words[taken:])


def _made(words: list[str], at: int) -> Reason | None:
    """Read INTO with a temporary table; that of INSERT and MERGE is another one."""
    if words[at - 1] in ("insert", "merge"):
        return None
    if (end := _INTO.end(words, at)) and end < len(words) - 1:
        return " ".join(words[at:end]).upper(), _TEMPORARY
    end = _INTO_SCHEMA.end(words, at)
    return (" ".join(words[at : end - 1]).upper(), _TEMPORARY) if end else None


def _in_block(words: list[str], at: int) -> Reason | None:
    """Read a statement of a block that sets something for the session, or makes something that lasts as long as it."""
    if words[at - 1] not in _STARTS:
        return None
    if words[at] in _SETS and words[at + 1] not in _NO_SETTING:
        return words[at].upper(), _IN_BLOCK
    end = _CREATES.end(words, at)
    return (" ".join(words[at:end]).upper(), _DROPPED) if end and not _DROPS.are_in(words) else None
