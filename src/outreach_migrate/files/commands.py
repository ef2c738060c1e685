"""Commands that PostgreSQL refuses inside a transaction block, or that may end one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from outreach_migrate.files.phrases import Phrases, any_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outreach_migrate.files.scanner import Token
    from outreach_migrate.files.statements import Statement


class Command(Enum):
    """A command that can't share a transaction; its value is its spelling in messages."""

    ALTER_DATABASE = "ALTER DATABASE … SET TABLESPACE"
    ALTER_SUBSCRIPTION = "ALTER SUBSCRIPTION … SET"
    ALTER_SUBSCRIPTION_ADD = "ALTER SUBSCRIPTION … ADD PUBLICATION"
    ALTER_SUBSCRIPTION_DROP = "ALTER SUBSCRIPTION … DROP PUBLICATION"
    ALTER_SUBSCRIPTION_REFRESH = "ALTER SUBSCRIPTION … REFRESH PUBLICATION"
    ALTER_SUBSCRIPTION_SET = "ALTER SUBSCRIPTION … SET PUBLICATION"
    ALTER_SYSTEM = "ALTER SYSTEM"
    CALL = "CALL"
    CLUSTER = "CLUSTER"
    COMMIT_PREPARED = "COMMIT PREPARED"
    CREATE_DATABASE = "CREATE DATABASE"
    CREATE_INDEX_CONCURRENTLY = "CREATE INDEX CONCURRENTLY"
    CREATE_SUBSCRIPTION = "CREATE SUBSCRIPTION"
    CREATE_TABLESPACE = "CREATE TABLESPACE"
    DETACH_CONCURRENTLY = "ALTER TABLE … DETACH PARTITION … CONCURRENTLY"
    DISCARD_ALL = "DISCARD ALL"
    DO_CALL = "DO with CALL"
    DO_COMMIT = "DO with COMMIT"
    DO_ROLLBACK = "DO with ROLLBACK"
    DROP_DATABASE = "DROP DATABASE"
    DROP_INDEX_CONCURRENTLY = "DROP INDEX CONCURRENTLY"
    DROP_SUBSCRIPTION = "DROP SUBSCRIPTION with a slot"
    DROP_TABLESPACE = "DROP TABLESPACE"
    REINDEX_CONCURRENTLY = "REINDEX CONCURRENTLY"
    REINDEX_DATABASE = "REINDEX DATABASE"
    REINDEX_SCHEMA = "REINDEX SCHEMA"
    REINDEX_SYSTEM = "REINDEX SYSTEM"
    ROLLBACK_PREPARED = "ROLLBACK PREPARED"
    VACUUM = "VACUUM"
    VACUUM_FULL = "VACUUM FULL"

    def __str__(self) -> str:
        return self.value

    @property
    def is_concurrent(self) -> bool:
        """Whether it lets other sessions read and write the table, and waits for their transactions."""
        return self in _CONCURRENT

    @property
    def may_commit(self) -> bool:
        """Whether the code that it runs may commit or roll back."""
        return self in _COMMITTING


_CONCURRENT = {
    *(Command.CREATE_INDEX_CONCURRENTLY, Command.DROP_INDEX_CONCURRENTLY),
    *(Command.REINDEX_CONCURRENTLY, Command.DETACH_CONCURRENTLY),
}
_COMMITTING = {Command.CALL, Command.DO_CALL, Command.DO_COMMIT, Command.DO_ROLLBACK}
_ENDINGS = {"call": Command.DO_CALL, "commit": Command.DO_COMMIT, "rollback": Command.DO_ROLLBACK}
_CONCERNING = {
    "add": Command.ALTER_SUBSCRIPTION_ADD,
    "drop": Command.ALTER_SUBSCRIPTION_DROP,
    "refresh": Command.ALTER_SUBSCRIPTION_REFRESH,
    "set": Command.ALTER_SUBSCRIPTION_SET,
}

_BUILD = any_of("create [unique] index concurrently [if not exists]")
_BEFORE_TABLE = any_of("alter|drop table [if exists] [only]", "create [unique] index … on [only]")
_NEVER_INSIDE = Phrases(
    {
        "alter database … set tablespace": Command.ALTER_DATABASE,
        "alter system": Command.ALTER_SYSTEM,
        "commit prepared": Command.COMMIT_PREPARED,
        "create database": Command.CREATE_DATABASE,
        "create [unique] index concurrently": Command.CREATE_INDEX_CONCURRENTLY,
        "create tablespace": Command.CREATE_TABLESPACE,
        "alter table … detach partition … concurrently": Command.DETACH_CONCURRENTLY,
        "discard all": Command.DISCARD_ALL,
        "drop database": Command.DROP_DATABASE,
        "drop index concurrently": Command.DROP_INDEX_CONCURRENTLY,
        "drop tablespace": Command.DROP_TABLESPACE,
        "reindex database|index|schema|system|table concurrently": Command.REINDEX_CONCURRENTLY,
        "reindex database": Command.REINDEX_DATABASE,
        "reindex schema": Command.REINDEX_SCHEMA,
        "reindex system": Command.REINDEX_SYSTEM,
        "rollback prepared": Command.ROLLBACK_PREPARED,
        "vacuum": Command.VACUUM,
    }
)
_WITH_OPTIONS = {"reindex", "cluster", "subscription", "vacuum"}  # one is among the first two words
_OFF = {"false", "off", "0"}


@dataclass(frozen=True, slots=True)
class Build:
    """An index to be built concurrently; without a name PostgreSQL chooses one. `table` is a name with its schema."""

    index: Token | None
    table: tuple[Token, ...]

    @property
    def name(self) -> str:
        """The index's name as SQL."""
        return self.index.identifier if self.index else ""

    @property
    def on(self) -> str:
        """The table's name as SQL."""
        return ".".join(part.identifier for part in self.table)


def outside(sql: str, statement: Statement, slotless: set[str] | None = None) -> Command | None:
    """Give a statement's command if PostgreSQL refuses it inside a transaction block.

    These commands call PreventInTransactionBlock() in PostgreSQL. Those on a partitioned table, REINDEX and CLUSTER,
    are not among them, because the statement alone doesn't show it. `slotless` collects the subscriptions that a file
    detaches from their slot before it drops them.
    """
    command, _ = _NEVER_INSIDE.look_up(statement.words) or (None, 0)
    if _WITH_OPTIONS.isdisjoint(statement.words[:2]):
        return command
    read = _tokens(sql, statement)
    match [token.word for token in read[:2]]:
        case ["vacuum", *_]:
            return Command.VACUUM_FULL if _is_on("full", read) else command
        case ["reindex", *_]:
            return Command.REINDEX_CONCURRENTLY if _is_on("concurrently", read) else command
        case ["cluster", *_]:
            return Command.CLUSTER if _names_nothing(read) else None
        case [("create" | "alter" | "drop"), "subscription"]:
            return _subscription(read, slotless if slotless is not None else set())
    return command


def committing(sql: str, statement: Statement) -> Command | None:
    """Give the command of a statement that may commit by itself: CALL, or DO if its block names a commit."""
    if statement.words[:1] == ("call",):
        return Command.CALL
    if statement.words[:1] == ("do",):
        return next(filter(None, (_ending(token) for token in _tokens(sql, statement))), None)
    return None


def build(sql: str, statement: Statement) -> Build | None:
    """Read the index that a statement builds concurrently, and its table; None for other statements."""
    if not _BUILD.end(statement.words):
        return None
    read = _tokens(sql, statement)
    words = [*(token.word for token in read), "", "", ""]
    at = _BUILD.end(words)
    if at is None:
        return None
    on = at if words[at] == "on" else at + 1
    table = _name(read, on + (2 if words[on + 1] == "only" else 1))
    return Build(read[at] if at < on else None, table) if words[on] == "on" and table else None


def altered(sql: str, statement: Statement) -> tuple[Token, ...]:
    """Give the name of the (first) table that a statement alters, drops or indexes; empty for other statements."""
    if not _BEFORE_TABLE.end(statement.words):
        return ()
    read = _tokens(sql, statement)
    at = _BEFORE_TABLE.end([token.word for token in read])
    return _name(read, at) if at else ()


def _name(read: Sequence[Token], start: int) -> tuple[Token, ...]:
    """Read a name with its qualifiers; empty if the text breaks off."""
    end = start + 1
    while [token.word for token in read[end : end + 1]] == ["."]:
        end += 2
    return tuple(read[start:end:2]) if end <= len(read) else ()


def _tokens(sql: str, statement: Statement) -> list[Token]:
    from outreach_migrate.files import scanner  # here, because few files need it, and its pattern compiles slowly

    return list(scanner.tokens(sql, statement.start, statement.end))


def _ending(block: Token) -> Command | None:
    """Find a word by which a block may commit: plpy.commit() and spi_commit() too, not ON COMMIT."""
    from outreach_migrate.files import scanner

    before = ""
    for token in scanner.tokens(block.name) if block.kind is scanner.Kind.STRING else ():
        last = token.word.rpartition("_")[2]
        if before != "on" and (last in ("commit", "rollback") or token.word == "call"):
            return _ENDINGS[last]
        before = token.word
    return None


def _options(read: Sequence[Token]) -> dict[str, str]:
    """Read options in parentheses: `(full, verbose off)`, `(connect = false)`."""
    depth, parts = 0, [list[str]()]
    for token in read:
        depth += (token.word == "(") - (token.word == ")")
        if token.word in ("(", ")", ","):
            parts.append([])
        elif depth and token.word != "=":
            parts[-1].append(token.name.lower())
    return {name: value[0] if value else "on" for name, *value in filter(None, parts)}


def _is_on(option: str, read: Sequence[Token]) -> bool:
    """Tell whether an option is on, in the parentheses after the command or as its next word."""
    words = [token.word for token in read]
    if words[1:2] != ["("]:
        return words[1:2] == [option]
    return _options(read[1 : words.index(")") + 1 if ")" in words else None]).get(option, "off") not in _OFF


def _names_nothing(read: Sequence[Token]) -> bool:
    """Tell whether CLUSTER names no table, and so takes all tables that were clustered before."""
    words = [token.word for token in read[1:]]
    rest = words[words.index(")") + 1 :] if words[:1] == ["("] and ")" in words else words
    return rest in ([], ["verbose"])


def _subscription(read: Sequence[Token], slotless: set[str]) -> Command | None:
    words, options = [token.word for token in read], _options(read)
    verb, at = words[0], 2 + (2 if words[2:4] == ["if", "exists"] else 0)
    name = read[at].name if len(read) > at else ""
    if verb != "drop" and options.get("slot_name") == "none":
        slotless.add(name)
    if verb == "drop":
        return Command.DROP_SUBSCRIPTION if name not in slotless else None
    if verb == "create":
        unconnected = options.get("connect") in _OFF or options.get("create_slot") in _OFF
        return None if unconnected else Command.CREATE_SUBSCRIPTION
    match words[at + 1 : at + 3]:
        case [did, "publication"] if did in _CONCERNING and options.get("refresh") not in _OFF:
            return _CONCERNING[did]
        case ["set", "("] if not options.keys().isdisjoint(("failover", "two_phase")):
            return Command.ALTER_SUBSCRIPTION
    return None
