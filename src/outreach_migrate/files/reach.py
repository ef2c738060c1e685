"""Names in a migration's SQL that lie outside of its database: roles, databases, publishers; and extensions."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from outreach_migrate.files import scanner, statements
from outreach_migrate.files.commands import Command
from outreach_migrate.files.scanner import Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.files.scanner import Token
    from outreach_migrate.files.statements import Statement

_FIRST = {
    "alter",
    "create",
    "do",
    "drop",
    "grant",
    "reassign",
    "revoke",
    "set",
}  # words of the statements that may reach out
_VERBS = {"alter", "create", "drop"}
_SHARED = {"database", "group", "role", "system", "tablespace", "user"}
_MAKERS = {"group", "role", "user"}
_BEFORE_A_ROLE = {("for", "role"), ("for", "user"), ("owner", "to"), ("set", "role")}
_NOBODY = {"current_role", "current_user", "none", "public", "session_user"}
# the parts of names in SQL by which the name of the current schema can be learned
_OF_SCHEMAS = ("current_schema", "search_path", "nspname", "regnamespace", "table_schema", "schemaname")
_CONNECTS = {Command.CREATE_SUBSCRIPTION, Command.DROP_SUBSCRIPTION, Command.ALTER_SUBSCRIPTION}


def shared(migration: Migration) -> Iterator[tuple[Statement, str]]:
    """Give the statements that may change an object of the whole server, each with its telling words.

    In a function or a DO block the words alone count, whatever the block makes of them.
    """
    for statement, read in _reaching([migration]):
        if found := next(filter(None, map(_changes, read, read[1:], [*read[2:], None])), None) or _grants(read):
            yield statement, found


def _changes(verb: Token, noun: Token, after: Token | None) -> str | None:
    """Name a change such as ALTER ROLE; CREATE USER MAPPING is none."""
    pair = verb.word, noun.word
    is_shared = pair[0] in _VERBS and pair[1] in _SHARED and not (after and after.word == "mapping")
    return " ".join(pair).upper() if is_shared or pair in {("reassign", "owned"), ("drop", "owned")} else None


def _grants(read: Sequence[Token]) -> str | None:
    """Name a grant of a role, which has no ON, or of a right on an object of the whole server."""
    verb, before = "", ""
    for token in read:
        word = token.word
        if verb and before == "on":
            if word in _SHARED | {"parameter"}:
                return f"{verb} on {word}".upper()
            verb = ""
        elif verb and word in ("to", "from"):
            return f"{verb} {word}".upper()
        verb = word if word in ("grant", "revoke") else "" if word == ";" else verb
        before = word
    return None


def connecting(migration: Migration) -> Iterator[tuple[int, Command]]:
    """Give the statements that connect to a publisher, and make or drop a slot there: offset and command."""
    for statement, command in migration.outline.outside:
        if command in _CONNECTS:
            yield statement.start, command


def roles(found: Iterable[Migration]) -> list[str]:
    """List the roles that files name without making them; the list may have names that are no role's."""
    named, made = dict[str, None](), set[str]()
    for _, read in _reaching(found):
        made.update(token.name for token, *before in zip(read[2:], read, read[1:], strict=False) if _makes(*before))
        named.update(dict.fromkeys(_named(read)))
    return [name for name in named if name not in made | _NOBODY and not name.startswith("pg_")]


def _makes(verb: Token, noun: Token) -> bool:
    return verb.word == "create" and noun.word in _MAKERS


def _named(read: Sequence[Token]) -> Iterator[str]:
    """Give the names at the places of roles: OWNER TO …, and the lists of GRANT, REVOKE and CREATE POLICY."""
    before, in_list, is_next, is_one = ("", ""), False, False, False
    granted = list[str]()  # GRANT a, b TO c
    for token in read:
        word, is_name = token.word, token.kind in (Kind.WORD, Kind.QUOTED)
        if is_next and word in ("group", "role", "user"):  # TO GROUP x
            continue
        if is_name and (is_next or before in _BEFORE_A_ROLE or before[1] == "authorization"):
            yield token.name
        if in_list and word in ("to", "from"):
            yield from granted
        if before[1] in ("grant", "revoke") or (before[1] == "," and granted):
            granted.append(token.name)
        elif word != ",":
            granted = []
        in_list = word in ("grant", "revoke", "policy") or (in_list and word not in (";", "using", "check"))
        is_one, is_next = is_next, in_list and (word in ("to", "from") or (word == "," and is_one))
        before = (before[1], word)


def learns_its_schema(migration: Migration) -> bool:
    """Tell whether a file may find out the name of the schema in which it runs, and so depend on that name."""
    text = migration.sql.lower()
    return any(word in text for word in _OF_SCHEMAS)


def extensions(found: Iterable[Migration]) -> list[str]:
    """List the extensions that statements of files make."""
    named = dict[str, None]()
    for migration in found:
        for statement in statements.split(migration.sql):
            if statement.words[:2] == ("create", "extension"):
                read = list(scanner.tokens(migration.sql, statement.start, statement.end))
                at = 5 if [token.word for token in read[2:5]] == ["if", "not", "exists"] else 2
                named.update((token.name, None) for token in read[at : at + 1])
    return list(named)


def perhaps_extensions(found: Iterable[Migration]) -> set[str]:
    """Give the names in statements that may make an extension, such as a DO block; the list has other names, too."""
    return {
        token.name
        for _, read in _reaching(found)
        if any(one.word == "create" and two.word == "extension" for one, two in pairwise(read))
        for token in read
    }


def _reaching(found: Iterable[Migration]) -> Iterator[tuple[Statement, list[Token]]]:
    """Give the statements that may name something outside of the database, with the tokens of their strings too."""
    for migration in found:
        for statement in statements.split(migration.sql):
            if not _FIRST.isdisjoint(statement.words[:1]):
                yield statement, list(scanner.with_strings(migration.sql[statement.start : statement.end]))
