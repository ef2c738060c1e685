"""Files that define objects which can be made anew: views, functions, triggers, policies, grants."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

from outreach_migrate import display
from outreach_migrate.errors import Location, Problem
from outreach_migrate.files import copies, folders, rules, scanner, statements
from outreach_migrate.files.migrations import Migration
from outreach_migrate.files.scanner import Kind
from outreach_migrate.files.statements import Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from outreach_migrate.files.folders import File, Folder
    from outreach_migrate.files.scanner import Token
    from outreach_migrate.files.statements import Statement

FOLDER = rules.CODE
_FOREIGN = re.compile(r"^[ \t]*--[ \t]*migrate:[ \t]*(no-transaction|after-deploy|batches)\b", re.M | re.I)
_ROUTINES = {"function", "procedure", "aggregate"}
_LOCAL = {"trigger", "policy", "rule", "publication", "operator"}  # no other statement uses their names
_KINDS = _ROUTINES | _LOCAL | {"view", "type", "domain", "table", "sequence", "schema", "collation"}
_BEFORE_A_KIND = {"or", "replace", "temp", "temporary", "unlogged", "recursive", "materialized", "constraint", "event"}
_REPLACED = _ROUTINES | {"view", "trigger", "rule"}  # CREATE OR REPLACE makes them anew
_NOT_REPLACED = {"replace", "temp", "temporary", "materialized", "constraint", "event"}
_BEFORE_A_NAME = {"if", "not", "exists"}
_BEFORE_A_ROUTINE = {*_ROUTINES, "routine", "="}  # where no parenthesis follows its name


@dataclass(frozen=True, slots=True)
class Code:
    """A file of code. `path` is below the folder of code, with slashes.

    `named` are the kinds and names of the objects that its CREATE statements make, without their schemas; `rests_on`
    are the paths of the files that come before it. `checksum` covers its text and those of the files that it rests on.
    Its `migration` is its text, and places errors.
    """

    path: str
    migration: Migration
    named: tuple[tuple[str, str], ...]
    rests_on: tuple[str, ...] = ()
    checksum: str = ""

    @property
    def makes(self) -> tuple[str, ...]:
        """The names of the objects that its CREATE statements make."""
        return tuple(name for _, name in self.named)

    @property
    def drops(self) -> bool:
        """Whether the file's only content says that its objects are to be dropped."""
        return self.migration.directives.drops

    @property
    def drops_first(self) -> bool:
        """Whether its objects are dropped before they are made."""
        return self.migration.directives.drops_first


def read(folder: Folder) -> tuple[tuple[Code, ...], list[Problem]]:
    """Read the files of a folder and of the folders below it, each after those that it rests on; none if it is absent.

    The problems are those of names, texts, and circles.
    """
    found: list[Code] = []
    problems: list[Problem] = []
    try:
        files = list(_files(folder, "", ()))
    except OSError as error:
        place = Location(display.in_line(str(error.filename or folder)))
        return (), [Problem(f"the folder cannot be read: {error.strerror}", place)]
    for path, file in files:
        if (shown := display.in_line(path)) != path:  # it would break a dry run's comment
            problems.append(Problem("the name has characters that can't be printed", Location(shown)))
            continue
        try:
            sql, copied = copies.read(file)
        except OSError as error:
            problems.append(Problem(f"cannot be read: {error.strerror}", Location(display.in_line(str(file.path)))))
            continue
        except copies.NotUtf8 as error:
            place = Location(display.in_line(str(file.path)), error.line)
            problems.append(Problem(str(error), place, "Save the file as UTF-8."))
            continue
        migration = Migration(FOLDER, path.removesuffix(".sql"), str(file.path), sql, copied)
        code = Code(path, migration, tuple(_made(sql)))
        problems += _problems(migration)
        found.append(code)
    ordered, circles = _ordered(found)
    return ordered, [*problems, *circles]


def _files(folder: Folder, below: str, above: tuple[str, ...]) -> Iterator[tuple[str, File]]:
    """Yield the files of a folder and of the folders in it; raise OSError, also for a link to a folder `above` it."""
    if isinstance(folder, str | os.PathLike):
        if (real := os.path.realpath(folder)) in above:
            raise OSError(errno.ELOOP, "it is a link to a folder that it lies in", os.fspath(folder))
        above = (*above, real)
    try:
        listed = folders.listed(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    for file in listed:
        if file.is_dir():
            inner: Folder = file.resource if isinstance(file, folders.Resource) else file.path
            yield from _files(inner, f"{below}{file.name}/", above)
        elif file.name.lower().endswith(".sql"):
            yield below + file.name, file


def _problems(migration: Migration) -> list[Problem]:
    wanted, whole = migration.directives, migration.outline
    outside, wrong = "Make it a migration: outreach-migrate new NAME", list[Forbidden]()
    for statement, command in whole.outside:
        message = f"{command} cannot run in a transaction, and all files of code share one"
        wrong.append(Forbidden(statement.start, message, outside))
    for statement, _ in whole.copies:
        wrong.append(Forbidden(statement.start, "COPY … FROM STDIN cannot be used in a file of code", outside))
    if wanted.drops and whole.count:
        message = "drop must be all that a file of code has, and it has statements"
        wrong.append(Forbidden(wanted.of_code or 0, message))
    if wanted.code_at is not None:
        wrong.append(Forbidden(wanted.code_at, "code is for migrations; a file of code has after"))
    if not wrong and (mark := _FOREIGN.search(migration.sql)):
        wrong.append(Forbidden(mark.start(1), f"{mark[1].lower()} cannot be used in a file of code", outside))
    wrong.sort(key=lambda one: one.offset)
    problems = [
        Problem(one.message, migration.location(one.offset), one.hint, migration.excerpt(one.offset)) for one in wrong
    ]
    return problems or rules.problems(migration)


def _made(sql: str) -> Iterator[tuple[str, str]]:
    """Yield the kind and the name of each object that a text's CREATE statements make."""
    for statement in statements.split(sql):
        if made := _created(sql, statement):
            yield made


def _created(sql: str, statement: Statement) -> tuple[str, str] | None:
    if statement.words[:1] != ("create",):
        return None
    tokens = scanner.tokens(sql, statement.start, statement.end)
    words = [token for token, _ in zip(tokens, range(16), strict=False)][1:]
    while words and words[0].word in _BEFORE_A_KIND:
        words.pop(0)
    if words and (kind := words[0].word) in _KINDS:
        words.pop(0)
        while words and words[0].word in _BEFORE_A_NAME:
            words.pop(0)
        if (name := _last_part(words)) and (name.kind is Kind.SIGN) is (kind == "operator"):
            return kind, name.name
    return None


def only_once(code: Code) -> Iterator[tuple[Statement, str]]:
    """Yield the CREATE statements that fail when the file runs again, each with the kind of its object.

    They lack the OR REPLACE that PostgreSQL has for this kind, and nothing drops the object before.
    """
    sql, dropped = code.migration.sql, set[str]()
    for statement in statements.split(sql) if not code.drops_first else ():
        if statement.words[:1] == ("drop",):
            dropped |= {token.name for token in scanner.tokens(sql, statement.start, statement.end)}
        elif (made := _created(sql, statement)) and made[0] in _REPLACED and made[1] not in dropped:
            before = statement.words[: statement.words.index(made[0])]
            if _NOT_REPLACED.isdisjoint(before):
                yield statement, made[0]


def _last_part(tokens: list[Token]) -> Token | None:
    while len(tokens) > 2 and tokens[1].text == ".":
        tokens = tokens[2:]
    return tokens[0] if tokens else None


def _ordered(found: Sequence[Code]) -> tuple[tuple[Code, ...], list[Problem]]:
    """Put each file after those that it rests on, otherwise in the order of their paths."""
    makers: dict[str, dict[str, str]] = {}  # by name: the kind of the object that a file makes, by its path
    for code in found:
        for kind, name in code.named:
            if kind not in _LOCAL:
                makers.setdefault(name, {})[code.path] = kind
    paths = {code.path for code in found}
    rests = {code.path: _rests_on(code, makers) for code in found}
    problems = [
        Problem(f"there is no file {path} in the folder of code", Location(code.migration.path), None)
        for code in found
        for path in code.migration.directives.after
        if path not in paths
    ]
    order, circle = _sorted({path: needed & paths for path, needed in rests.items()})
    if circle:
        names = " → ".join([*circle, circle[0]])
        place = Location(next(code.migration.path for code in found if code.path == circle[0]))
        hint = "Put the objects that need each other into one file."
        return tuple(found), [*problems, Problem(f"files of code rest on each other: {names}", place, hint)]
    by_path, made = {code.path: code for code in found}, dict[str, Code]()
    for path in order:
        code, needed = by_path[path], sorted(rests[path] & paths)
        texts = [code.migration.checksum, *(made[one].checksum for one in needed)]
        checksum = hashlib.sha256("\n".join(texts).encode()).hexdigest()
        made[path] = Code(path, code.migration, code.named, tuple(needed), checksum)
    return tuple(made.values()), problems


def _rests_on(code: Code, makers: Mapping[str, Mapping[str, str]]) -> set[str]:
    if code.drops:
        return set()
    used, before = set(code.migration.directives.after), ""
    read = [*scanner.with_strings(code.migration.sql)]
    for token, following in zip_longest(read, read[1:]):
        if token.kind in (Kind.WORD, Kind.QUOTED) and (paths := makers.get(token.name)) and code.path not in paths:
            follows = following.text if following else ""
            used.update(path for path, kind in paths.items() if _is_use(kind, before, follows))
        before = token.word
    return used - {code.path}


def _is_use(kind: str, before: str, following: str) -> bool:
    """Tell whether a name stands where an object of a kind may: a routine's is called, and no alias of a column."""
    if kind in _ROUTINES:
        return following == "(" or before in _BEFORE_A_ROUTINE
    return before != "as" or kind in ("type", "domain")


def _sorted(rests: Mapping[str, set[str]]) -> tuple[list[str], list[str]]:
    """Sort paths; give a circle instead if there is one."""
    order: list[str] = []
    left = dict(sorted(rests.items()))
    while left:
        free = next((path for path, needed in left.items() if needed.isdisjoint(left)), None)
        if free is None:
            return [], _circle(left)
        order.append(free)
        del left[free]
    return order, []


def _circle(rests: Mapping[str, set[str]]) -> list[str]:
    path = next(iter(rests))
    way: list[str] = []
    while path not in way:
        way.append(path)
        path = min(needed for needed in rests[path] if needed in rests)
    return way[way.index(path) :]


def closure(codes: Iterable[Code], paths: Iterable[str]) -> list[Code]:
    """Choose the files of these paths with all that they rest on, in order."""
    by_path = {code.path: code for code in codes}
    wanted, left = set[str](), [path for path in paths if path in by_path]
    while left:
        path = left.pop()
        if path not in wanted:
            wanted.add(path)
            left += by_path[path].rests_on
    return [code for path, code in by_path.items() if path in wanted]
