"""The migration files of a folder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

from outreach_migrate import display
from outreach_migrate.errors import Location, MigrationFileError, Problem
from outreach_migrate.files import copies, folders, foreign, squashed, statements

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from outreach_migrate.files.copies import Copied, Rows
    from outreach_migrate.files.directives import Directives
    from outreach_migrate.files.folders import File, Folder
    from outreach_migrate.files.outline import Outline
    from outreach_migrate.files.pieces import Piece
    from outreach_migrate.files.squashed import Replaced
    from outreach_migrate.files.variables import Lookup, Written

_NAME = re.compile(r"([0-9]+)_(.+)\.sql", re.DOTALL)
_AT_ONCE = 1_000_000  # characters that a checksum encodes at a time, so that a large text is not in memory twice
_FIRST = (
    "Make the first file: outreach-migrate new NAME. To copy another tool's folder: outreach-migrate import DIR. "
    "Or name the folder with --dir."
)
_WIDTH = 160  # of an excerpt, because a line of a dump may have a megabyte


@dataclass(frozen=True)
class Migration:
    """A migration file; `sql` is its text without BOM, with LF for CRLF, and without the rows that it copies.

    `written` is the text as it stands in the file, if `sql` has the values of variables.
    """

    version: str
    name: str
    path: str
    sql: str = field(repr=False)
    copied: Copied | None = None
    written: Written | None = None

    @cached_property
    def checksum(self) -> str:
        """The SHA-256 of the file's text, in hex."""
        return self.copied.checksum if self.copied else _sha256(self.text)

    @property
    def replaces(self) -> tuple[Replaced, ...]:
        """The sets of files that this one replaces; a database that has one of them is up to date."""
        return squashed.of(self.sql)

    @property
    def text(self) -> str:
        """The text as it stands in the file, with the names of variables."""
        return self.written.text if self.written else self.sql

    def shown(self, start: int, end: int) -> str:
        """Give the text between two offsets of `sql` as it stands in the file."""
        return self.text[self._written(start) : self._written(end)]

    def _written(self, offset: int) -> int:
        return self.written.offset(offset) if self.written else offset

    def pieces(self) -> Iterator[Piece]:
        """Cut the file into its statements."""
        from outreach_migrate.files import pieces  # here, because few files need it

        return pieces.cut(self.sql, self.written.text if self.written else None)

    @property
    def number(self) -> int:
        """The version as a number, so that 2 comes before 10."""
        return int(self.version)

    def __str__(self) -> str:
        return f"{self.version}_{self.name}"

    @cached_property
    def outline(self) -> Outline:
        """The text's outline, found in one pass."""
        from outreach_migrate.files import outline  # here, because the text of an applied file is not read

        return outline.make(self.sql)

    @cached_property
    def directives(self) -> Directives:
        """The directives in the comments at the file's head."""
        from outreach_migrate.files import directives

        return directives.read(self.sql, self.outline)

    @property
    def is_after_deploy(self) -> bool:
        """Whether it is marked after-deploy; most files are not read for that."""
        return "after-deploy" in self.sql and self.directives.after_deploy

    @property
    def body(self) -> str:
        """The text without BEGIN and COMMIT around it, and without psql's commands; no offset changes."""
        text = self.sql
        for statement in self.outline.outer or ():
            text = statements.blanked(text, statement)
        for offsets in self.outline.skipped:
            text = statements.without(text, offsets)
        return text

    @cached_property
    def rows(self) -> dict[int, Rows]:
        """The rows of the statements that copy them, by the statements' numbers from 0."""
        numbers = (number for _, number in self.outline.copies)
        return dict(zip(numbers, self.copied.rows, strict=False)) if self.copied else {}

    def place(self, offset: int) -> tuple[int, int]:
        """Turn an offset, in characters of `sql`, into a line and a column of the file."""
        line, column = statements.place(self.text, self._written(offset))
        return line + sum(rows.lines for rows in self.rows.values() if rows.offset <= offset), column

    def location(self, offset: int) -> Location:
        """Turn an offset, in characters of `sql`, into path, line and column."""
        return Location(self.path, *self.place(offset))

    def excerpt(self, offset: int) -> str:
        """Show the line of an offset and the one before it, numbered, with a caret below the place."""
        (line, column), text, offset = self.place(offset), self.text, self._written(offset)
        begin = offset - column + 1
        previous = text[text.rfind("\n", 0, max(begin - 1, 0)) + 1 : max(begin - 1, 0)]
        if any(rows.offset == begin for rows in self.rows.values()):
            previous = "\\."
        end = text.find("\n", offset)
        return _excerpt(line, column, text[begin : end if end >= 0 else None], previous)

    def in_rows(self, number: int, context: str) -> tuple[Location, str] | None:
        """Give the place and the excerpt of the row that an error's context tells; `number` is its statement's."""
        copy = next(copies.of(self.sql, statement) for statement, other in self.outline.copies if other == number)
        if not (copy and (told := copy.told(context))):
            return None
        from outreach_migrate.files import rows as places  # here, because few runs need it

        rows = self.rows[number]
        try:
            nth, previous, text = places.find(copy, rows, told[0])
        except OSError:
            return None
        if nth == 1:
            previous = self.sql[self.sql.rfind("\n", 0, rows.offset - 1) + 1 : rows.offset - 1]
        line, column = rows.line + nth - 1, copy.column(text, told[1])
        return Location(self.path, line, column), _excerpt(line, column, text, previous)


def _excerpt(line: int, column: int, text: str, previous: str) -> str:
    cut = max(0, column - _WIDTH // 2) if len(text) > _WIDTH else 0
    shown, before = display.escaped(text[cut : cut + _WIDTH]), display.escaped(text[cut : column - 1])
    margin = len(str(line))
    above = f"{line - 1:>{margin}} | {display.escaped(previous[:_WIDTH])}\n" if line > 1 else ""
    indent = "\t".join(" " * display.width(part) for part in before.split("\t"))  # a tab is as wide above as below
    return f"{above}{line} | {shown}\n{'':>{margin}} | {indent}^"


def read(folder: Folder) -> tuple[tuple[Migration, ...], list[Problem]]:
    """Read a folder's migrations, in order of their versions, with the problems of all files.

    Names that start with a dot, subfolders and files of other kinds are ignored. Raise MigrationFileError when the
    folder can't be read.
    """
    found: list[Migration] = []
    problems: list[Problem] = []
    try:
        files = folders.listed(folder)
    except OSError as error:
        hint = _FIRST if isinstance(error, FileNotFoundError) else "Name the folder with --dir."
        problem = Problem(f"cannot read the folder: {error.strerror or error}", Location(str(folder)), hint)
        raise MigrationFileError([problem]) from error
    if another := foreign.of_folder(folder, names := [file.name for file in files], named=any(map(is_name, names))):
        return (), [another]
    for file in files:
        one = _read_file(file) if file.name.lower().endswith(".sql") else None
        if isinstance(one, Problem):
            problems.append(one)
        elif one:
            found.append(one)
    if not found and not problems:
        problems.append(Problem("there are no migrations in this folder", Location(str(folder)), _FIRST))
    found.sort(key=lambda migration: (migration.number, migration.path))
    problems += [*_same_version_twice(found), *_before_a_squashed_file(found)]
    return tuple(found), problems


def _read_file(file: File) -> Migration | Problem | None:
    """Read a file; None for a folder."""
    path = os.fsencode(file.path).decode(errors="surrogateescape")  # names are UTF-8, whatever the locale says
    shown = display.in_line(path)
    match = _NAME.fullmatch(os.path.basename(path))
    try:
        if file.is_dir():
            return None
        if shown == path and (another := foreign.one_way(path) or (None if match else foreign.of_name(path))):
            return another
        is_regular = file.is_file()
        if not match or shown != path:
            from outreach_migrate.files import heads  # here, because few folders have such a file

            return heads.misnamed(shown, folders.head(file) if is_regular else b"")
        if not is_regular and os.stat(file.path):  # opening a FIFO would hang; a link to nothing can't be read
            return Problem("not a regular file", Location(shown))
        # a checkout on Windows must not fail a deployment, so its CRLFs don't count
        return Migration(match[1], match[2], path, *copies.read(file))
    except OSError as error:
        return Problem(f"cannot be read: {error.strerror}", Location(shown))
    except copies.NotUtf8 as error:
        return Problem(str(error), Location(shown, error.line), "Save the file as UTF-8.")


def checksum(data: bytes) -> str:
    """Give the checksum of a file's content."""
    return _sha256(data.decode(errors="surrogateescape").removeprefix("\ufeff").replace("\r\n", "\n"))


def _sha256(text: str) -> str:
    import hashlib  # here, because it loads OpenSSL

    digest = hashlib.sha256()
    for start in range(0, len(text), _AT_ONCE):
        digest.update(text[start : start + _AT_ONCE].encode())
    return digest.hexdigest()


def _same_version_twice(found: list[Migration]) -> Iterator[Problem]:
    for first, second in pairwise(found):
        if first.number == second.number:
            message = f"version {second.version} is used twice: {os.path.basename(first.path)} has it, too"
            yield Problem(message, Location(second.path), "Give the newer one another version.")


def _before_a_squashed_file(found: list[Migration]) -> Iterator[Problem]:
    """Find files that a database which has the replaced files would run late, and an empty one early."""
    newest = next((one for one in reversed(found) if one.replaces), None)
    for one in found:
        if newest and one.number < newest.number:
            message = f"{os.path.basename(newest.path)} replaces all files up to version {newest.version}"
            hint = "Remove this file if it is one of them; else give it a later version."
            yield Problem(message, Location(one.path), hint)


def bound(migration: Migration, lookup: Lookup) -> Migration:
    """Give a migration whose `sql` has values in place of its variables, if it has any; raise UsageError."""
    if "variables" not in migration.sql or migration.written or not migration.directives.has_variables:
        return migration
    from outreach_migrate.files import variables  # here, because few files need it

    sql, written = variables.bound(migration.sql, lookup)
    return replace(migration, sql=sql, written=written)


def values(found: Iterable[Migration], lookup: Lookup) -> dict[str, str]:
    """Give the values of all variables of migrations, without those that have none."""
    texts = (bound(migration, lookup).written for migration in found)
    return {name: value for written in texts if written for name, value in written.values.items()}


def is_name(name: str) -> bool:
    """Say whether a file of this name is a migration."""
    return _NAME.fullmatch(name) is not None
