"""yoyo's folders, in which each file names those that it depends on."""

from __future__ import annotations

import ast
import heapq
import os
import re
from typing import TYPE_CHECKING

from outreach_migrate.adopt import source
from outreach_migrate.adopt.source import Cut, Folder, Left, Part, Reason, Source

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = re.compile(r"\s*--\s*(transactional|depends)\s*:\s*(.*)")
_COMMENT = re.compile(r"\s*(?:--.*)?")
_DATED = re.compile(r"([0-9]{8})_([0-9]{2})_(.+)", re.DOTALL)
_NUMBERED = re.compile(r"([0-9]+)(?:[._-]+(.+))?", re.DOTALL)


def yoyo(folder: str) -> Folder:
    """Read yoyo's, sorted by name and then by dependencies; see yoyo/migrations.py and topologicalsort.py."""
    sources, depends, left = dict[str, Source](), dict[str, set[str]](), list[Left]()
    for entry in source.listed(folder):
        name, ending = os.path.splitext(entry.name)
        if not entry.is_file() or ending not in (".sql", ".py"):
            continue
        if entry.name.endswith(".rollback.sql"):
            left.append(Left(entry.path, Reason.WAY_DOWN))
        elif name.startswith("post-apply"):
            left.append(Left(entry.path, Reason.REPEATED))
        else:
            sources[name], depends[name] = _read(name, entry.path)
    ordered = [sources[name] for name in _sorted(folder, depends)]
    return Folder(tuple(source.dated(ordered, [one.version for one in ordered])), tuple(left))


def _read(name: str, path: str) -> tuple[Source, set[str]]:
    """Read a file and its dependencies."""
    text = source.read(path)
    dated, numbered = _DATED.fullmatch(name), _NUMBERED.fullmatch(name)
    version = f"{dated[1]}0000{dated[2]}" if dated else numbered[1] if numbered else ""
    title = source.title(dated[3] if dated else (numbered[2] or "") if numbered else name)
    if path.endswith(".py"):
        return Source(name, version, title, path, unwritten="yoyo runs Python code here"), _depends(path, text)
    marks = list(_marks(text))
    depends = {one for _, word, value in marks if word == "depends" for one in value.split()}
    alone = any(word == "transactional" and value.strip().lower() == "false" for _, word, value in marks)
    cuts = tuple(cut for cut, _, _ in marks)
    return Source(name, version, title, path, text, transaction=not alone, cuts=cuts), depends


def _marks(text: str) -> Iterator[tuple[Cut, str, str]]:
    """Yield the marks above the first statement."""
    for start, line in source.lines(text):
        if found := _MARK.fullmatch(line):
            yield Cut(start, start + len(line), Part.MARK), found[1], found[2]
        elif not _COMMENT.fullmatch(line):
            return


def _depends(path: str, text: str) -> set[str]:
    """Read __depends__ of a Python file without running it."""
    try:
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and any(
                isinstance(target, ast.Name) and target.id == "__depends__" for target in node.targets
            ):
                value = ast.literal_eval(node.value)
                return {value} if isinstance(value, str) else set(value)
    except (SyntaxError, ValueError, TypeError) as error:
        raise source.malformed(path, 1, "its __depends__ can't be read without running it") from error
    return set()


def _sorted(folder: str, depends: dict[str, set[str]]) -> list[str]:
    """Sort names so that each comes after those that it depends on, and else by name."""
    for name, needed in depends.items():
        if unknown := sorted(needed - depends.keys()):
            raise source.malformed(os.path.join(folder, name), 1, f"depends on {unknown[0]}, which is not there")
    ready = sorted(name for name, needed in depends.items() if not needed)
    done = dict[str, None]()
    while ready:
        name = heapq.heappop(ready)
        done[name] = None
        for other, needed in depends.items():
            if name in needed and needed <= done.keys():
                heapq.heappush(ready, other)
    if circle := sorted(depends.keys() - done.keys()):
        raise source.malformed(os.path.join(folder, circle[0]), 1, f"circular dependencies: {', '.join(circle)}")
    return list(done)
