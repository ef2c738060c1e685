"""Tools with marks in their files, above the way up and above the way down: goose, dbmate, tern."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from outreach_migrate.adopt import source
from outreach_migrate.adopt.source import Cut, Folder, Left, Part, Reason, Source
from outreach_migrate.files import statements, ways_down

if TYPE_CHECKING:
    from collections.abc import Iterator

_GOOSE = re.compile(r"([0-9]+)_(.*)\.(sql|go)", re.DOTALL)
_GOOSE_MARKS = {"up", "down", "statementbegin", "statementend", "no transaction", "envsub on", "envsub off"}
_DBMATE = re.compile(r"([0-9]+)(.*)\.sql", re.DOTALL)
_DBMATE_MARK = re.compile(r"^--\s*migrate:(up|down)(?:\s*$|\s+\S+)", re.MULTILINE)
_TERN = re.compile(r"([0-9]+)_(.+)\.sql", re.DOTALL)
_TERN_ALONE = re.compile(r"^---- tern: disable-tx ----$", re.MULTILINE)


def goose(folder: str) -> Folder:
    """Read goose's; see provider_collect.go and internal/sqlparser/parser.go."""

    def one(entry: os.DirEntry[str]) -> Source | Left | None:
        found = _GOOSE.fullmatch(entry.name)
        if not found or entry.name.endswith("_test.go") or int(found[1]) < 1:
            return Left(entry.path, Reason.SKIPPED) if entry.name.endswith((".sql", ".go")) else None
        name, _ = os.path.splitext(entry.name)
        title = source.title(found[2])
        if found[3] == "go":
            return Source(name, found[1], title, entry.path, unwritten="goose runs Go code here")
        text = source.read(entry.path)
        marks = list(_goose_marks(entry.path, text))
        alone = any(word == "no transaction" for _, word in marks)
        unwritten = "goose puts environment variables into it" if _substitutes(text, marks) else ""
        cuts = tuple(_goose_cuts(entry.path, text, marks))
        return Source(name, found[1], title, entry.path, text, transaction=not alone, cuts=cuts, unwritten=unwritten)

    return source.of_files(folder, one)


def dbmate(folder: str) -> Folder:
    """Read dbmate's, sorted by name; see pkg/dbmate/migration.go."""

    def one(entry: os.DirEntry[str]) -> Source | Left | None:
        found = _DBMATE.fullmatch(entry.name)
        if not found:
            return Left(entry.path, Reason.NO_VERSION) if entry.name.endswith(".sql") else None
        text = source.read(entry.path)
        marks = list(_DBMATE_MARK.finditer(text))
        if not marks or marks[0][1] != "up":
            raise source.malformed(entry.path, 1, "there is no -- migrate:up before -- migrate:down")
        options = [text[mark.start() :].partition("\n")[0].split() for mark in marks if mark[1] == "up"]
        cuts, last = list[Cut](), len(text)
        for mark in reversed(marks):
            end = _line_end(text, mark.start())
            cuts.append(
                Cut(mark.start(), end, Part.MARK) if mark[1] == "up" else Cut(mark.start(), last, Part.WAY_DOWN)
            )
            last = mark.start()
        return Source(
            entry.name.removesuffix(".sql"),
            found[1],
            source.title(found[2]),
            entry.path,
            text,
            transaction=not any("transaction:false" in words for words in options),
            cuts=tuple(reversed(cuts)),
        )

    return source.of_files(folder, one, key=lambda found: found.path)


def tern(folder: str) -> Folder:
    """Read tern's; see migrate/migrate.go. A file that is a template can't be read without tern's own data."""

    def one(entry: os.DirEntry[str]) -> Source | Left | None:
        found = _TERN.fullmatch(entry.name)
        if not found:
            return Left(entry.path, Reason.SKIPPED) if entry.name.endswith(".sql") else None
        text = source.read(entry.path)
        up, mark, _ = text.partition(ways_down.TERN)
        cuts = [Cut(alone.start(), alone.end(), Part.MARK) for alone in _TERN_ALONE.finditer(up)]
        cuts += [Cut(len(up), len(text), Part.WAY_DOWN)] if mark else []
        return Source(
            entry.name.removesuffix(".sql"),
            found[1],
            source.title(found[2]),
            entry.path,
            text,
            transaction=not _TERN_ALONE.search(up),
            cuts=tuple(cuts),
            unwritten="it is a tern template" if "{{" in up else "",
        )

    return source.of_files(folder, one)


def _goose_marks(path: str, text: str) -> Iterator[tuple[int, str]]:
    for start, line in source.lines(text):
        if line.lstrip().startswith("--") and "+goose" in line:
            word = line.replace("--", "").replace("+goose", "", 1).strip()
            if line[0] != "-" or word.lower() not in _GOOSE_MARKS:
                number, _ = statements.place(text, start)
                raise source.malformed(path, number, f"goose has no such mark: {line.strip()}")
            yield start, word.lower()


def _goose_cuts(path: str, text: str, marks: list[tuple[int, str]]) -> Iterator[Cut]:
    """Yield the marks of the way up, and the way down.

    goose sends the text between StatementBegin and StatementEnd as a message of its own. If the text doesn't end with a
    semicolon, one takes the place of StatementEnd.
    """
    ways = [(start, word) for start, word in marks if word in ("up", "down")]
    if [word for _, word in ways] not in (["up"], ["up", "down"]):
        raise source.malformed(path, 1, "-- +goose Up must stand once, above -- +goose Down")
    down = next((start for start, word in ways if word == "down"), len(text))
    begun = None
    for start, word in marks:
        if start >= down:
            break
        stop = _line_end(text, start)
        ends = word == "statementend"
        yield Cut(start, stop, Part.MARK, ";" if ends and begun and source.is_open(text[begun:start]) else "")
        begun = stop if word == "statementbegin" else None if ends else begun
    if down < len(text):
        yield Cut(down, len(text), Part.WAY_DOWN)


def _substitutes(text: str, marks: list[tuple[int, str]]) -> bool:
    """Tell whether the way up has a $ in a part where goose substitutes variables."""
    begun = None
    for start, word in [*marks, (len(text), "down")]:
        if word == "envsub on":
            begun = start
        elif word in ("envsub off", "down") and begun is not None:
            if "$" in text[begun:start]:
                return True
            begun = None
        if word == "down":
            return False
    return False


def _line_end(text: str, start: int) -> int:
    end = text.find("\n", start)
    return end if end >= 0 else len(text)
