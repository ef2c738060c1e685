"""The head of a squashed file: the files that it replaces."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NAME = "squashed"
_START = "-- migrate: "
_VALUE = r"replaces (\d+) files?, ([0-9a-f]{64})"  # compiled on first use, because few folders have such a file


class Replaced(NamedTuple):
    """Files that a squashed file replaces: their number, and a checksum over their versions and checksums.

    The checksum is a chain: that of the first files, and the rest of them, give that of all. So a second squash can
    name the files that the first one has replaced, although they are gone.
    """

    files: int = 0
    checksum: str = ""

    def then(self, files: Iterable[tuple[int, str]]) -> Replaced:
        """Add files, each as its version and its checksum."""
        import hashlib  # here, because it loads OpenSSL

        count, chain = self.files, self.checksum
        for version, checksum in sorted(files):
            count, chain = count + 1, hashlib.sha256(f"{chain} {version} {checksum}".encode()).hexdigest()
        return Replaced(count, chain)

    def __str__(self) -> str:
        return f"{_START}replaces {self.files} {'file' if self.files == 1 else 'files'}, {self.checksum}"


def of(sql: str) -> tuple[Replaced, ...]:
    """Read the first lines of a text, which name the files that it replaces; each line names another set of files."""
    return tuple(_lines(sql)) if sql.startswith(f"{_START}replaces") else ()


def is_one(sql: str, directive: str) -> bool:
    """Tell whether a directive of a text names files that it replaces; it counts in the first lines only."""
    return f"{_START}{directive}" in map(str, of(sql))


def _lines(sql: str) -> Iterator[Replaced]:
    line, at = re.compile(rf"{_START}{_VALUE}\n?"), 0
    while found := line.match(sql, at):
        yield Replaced(int(found[1]), found[2])
        at = found.end()
