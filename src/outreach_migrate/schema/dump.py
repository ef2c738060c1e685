"""The schema as one file: pg_dump's text, made stable."""

from __future__ import annotations

import difflib
import re
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from outreach_migrate import errors
from outreach_migrate.files import scanner, statements
from outreach_migrate.files.statements import Statement
from outreach_migrate.history import records
from outreach_migrate.postgres import connections
from outreach_migrate.schema import pg_dump

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from psycopg import Connection

    from outreach_migrate.history.table import Table
    from outreach_migrate.postgres.dsn import Target

_HEAD = "-- The schema that the migrations give. outreach-migrate dump makes this file again: don't edit it.\n"
# pg_dump's comment before each object; matched with text between statements only. One that has no statement below it
# is of an object that every database has, such as the schema public with another owner.
_ENTRY = re.compile(r"^-- (?:Data for )?(Name: (.*); Type: (.*); Schema: (.*)); Owner: .*\n--\s*\Z", re.MULTILINE)
_Entry = tuple[re.Match[str] | None, list[str]]  # that comment, and the statements after it
# Settings of the session that loads the file, which differ by version and belong to no schema.
_TIMEOUTS = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "transaction_timeout")


@dataclass(frozen=True, slots=True)
class Dumped:
    """The schema's text, and the text that the file had before; None where there was none."""

    path: str
    text: str
    before: str | None

    @property
    def changed(self) -> bool:
        """Whether the file has another text, or is not there."""
        return self.text != self.before

    @property
    def diff(self) -> list[str]:
        """The lines by which the file differs from the schema."""
        return unified(self.before or "", self.text, self.path, f"{self.path} made again")


def unified(before: str, after: str, one: str, other: str) -> list[str]:
    """Give the lines of a diff of two texts, with these names; none if they are alike."""
    return list(difflib.unified_diff(before.splitlines(), after.splitlines(), one, other, lineterm="", n=2))


def schema(target: Target, history: Table, *, wait: float = 0) -> str:
    """Give a database's schema as SQL that an empty database can load, without the tables of histories.

    The same schema gives the same text, because it has no owners, versions, random keys or session limits. Left out are
    subscriptions and user mappings, whose texts have passwords, and the comments that extensions bring along.
    """
    with _connected(target, wait) as connection:
        theirs, made = records.tables(connection, history, search_path=target.schema)
    left = [f"--exclude-table={one.quoted}" for one in theirs]
    text, role = _read(target, history, "--schema-only", "--no-owner", *left, wait=wait)
    found = list(_entries(text))
    unused = {history.schema, *made} - {entry[4] for entry, _ in found if entry}  # no file has made them

    def leaves(kind: str, name: str) -> bool:
        return (
            (kind == "SCHEMA" and name in unused)
            or kind in ("SUBSCRIPTION", "USER MAPPING")
            or _is_extensions_comment(kind, name)
        )

    return _HEAD + _stable(found, role, leaves)


def whole(target: Target, history: Table, *options: str) -> str:
    """Give a database as SQL that a run can apply to an empty one, with its rows; `options` are pg_dump's own.

    The history table is left out, and its schema, because a run makes both. An object of another role than the one
    that migrates is given to that role again.
    """
    text, role = _read(target, history, *options)

    def leaves(kind: str, name: str) -> bool:
        is_historys = kind == "SCHEMA" and name == history.schema != "public"
        return is_historys or _is_extensions_comment(kind, name)

    return _stable(_entries(text), role, leaves)


def _is_extensions_comment(kind: str, name: str) -> bool:
    return kind == "COMMENT" and name.startswith("EXTENSION ")


def _read(target: Target, history: Table, *options: str, wait: float = 0) -> tuple[str, str]:
    """Read pg_dump's text, and the role that migrates."""
    with _connected(target, wait) as connection:
        version, role = connection.info.server_version // 10000, _role(connection, history)
    return pg_dump.text(target, version, history, *options), role


@contextmanager
def _connected(target: Target, wait: float) -> Iterator[Connection]:
    with connections.translated(), closing(connections.connect(target, wait=wait)) as connection:
        yield connection


def _role(connection: Connection, history: Table) -> str:
    """Read the role that migrates: the history table's owner, else the role that asks."""
    query = "SELECT coalesce(pg_catalog.pg_get_userbyid(c.relowner), current_user)::text"
    query += " FROM (SELECT) AS one LEFT JOIN pg_catalog.pg_class c ON c.oid = pg_catalog.to_regclass(%s)"
    return str(connection.execute(query.encode(), (history.quoted,)).fetchall()[0][0])


def _stable(entries: Iterable[_Entry], role: str, leaves: Callable[[str, str], bool]) -> str:
    """Give the text of pg_dump's entries without everything that differs between two dumps of the same schema.

    The objects and the default privileges of `role`, which migrates, are those of the role that loads the text.
    `leaves` decides by kind and name which objects are left out.
    """
    paragraphs = list[str]()
    for entry, found in entries:
        if entry and leaves(entry[3], entry[2]):
            continue
        if entry and entry[3] == "DEFAULT ACL":
            found = [_of_the_loader(one, role) for one in found]
        if entry and entry[3] == "BLOBS":  # a migration is one transaction already
            found = [one for one in found if one not in ("BEGIN;", "COMMIT;")]
        found = [one for one in found if not _gives_to(one, role)]
        title = f"-- {entry[1]}\n" if entry else ""
        paragraphs.append(title + "\n".join(found))
    return "\n".join(f"\n{one}" for one in paragraphs) + "\n"


def _entries(text: str) -> Iterator[_Entry]:
    """Give the statements of each object, with pg_dump's comment before them; settings between objects have none."""
    entry, found, after = None, list[str](), 0
    for statement in statements.walk(text):
        if not isinstance(statement, Statement):  # psql's \restrict
            continue
        gap, begin = text[after : statement.start], statement.start
        after = statements.end(text, statement)
        opened = _ENTRY.search(gap)
        if opened or gap.count("\n") > 2:
            if found:
                yield entry, found
            entry, found = opened, []
        if statement.words[:1] != ("set",) or statement.words[1] not in _TIMEOUTS:
            found.append(text[begin:after])
    if found:
        yield entry, found


def _gives_to(statement: str, role: str) -> bool:
    """Tell whether a statement is ALTER … OWNER TO `role`."""
    if not statement.startswith("ALTER "):
        return False
    *_, owner, to, named = (token for token in scanner.tokens(statement) if token.text != ";")
    return (owner.word, to.word, named.name) == ("owner", "to", role)


def _of_the_loader(statement: str, role: str) -> str:
    """Take FOR ROLE out of ALTER DEFAULT PRIVILEGES, if it names `role`."""
    words = list(islice(scanner.tokens(statement), 6))
    if [token.word for token in words[3:5]] == ["for", "role"] and words[5].name == role:
        return f"{statement[: words[3].start]}{statement[words[5].end :].lstrip()}"
    return statement


def compared(path: str, text: str) -> Dumped:
    """Compare a schema with the file of a path; raise MigrateError where that can't be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return Dumped(path, text, file.read().replace("\r\n", "\n"))  # as a checkout on Windows has it
    except FileNotFoundError:
        return Dumped(path, text, None)
    except OSError as error:
        raise errors.MigrateError(f"cannot read {path}: {error.strerror}") from error


def write(dumped: Dumped) -> None:
    """Write the file, unless it has the text already; raise MigrateError."""
    if not dumped.changed:
        return
    try:
        with open(dumped.path, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(dumped.text)
    except OSError as error:
        raise errors.MigrateError(f"cannot write {dumped.path}: {error.strerror}") from error
