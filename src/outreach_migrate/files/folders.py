"""The folder of migrations: a path, or the resources of a package, which may be in an archive."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from outreach_migrate.errors import UsageError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable
    from typing import BinaryIO

    Folder = str | os.PathLike[str] | Traversable


@dataclass(frozen=True, slots=True)
class Resource:
    """A file of a package, with the methods of os.DirEntry."""

    resource: Traversable
    path: str

    @property
    def name(self) -> str:
        """The file's name."""
        return self.resource.name

    def is_dir(self) -> bool:
        """Tell whether it is a folder."""
        return self.resource.is_dir()

    def is_file(self) -> bool:
        """Tell whether it is a regular file."""
        return self.resource.is_file()


@dataclass(frozen=True, slots=True)
class Text:
    """A text that is no file yet, with the path that it will have."""

    path: str
    data: bytes


File = os.DirEntry[str] | Resource
_HEAD = 64_000  # bytes, which tell whose file it is


def find(given: str) -> Folder:
    """Find the folder that --dir names: a path, or PACKAGE:PATH.

    The package is imported. Raise UsageError when it does not exist.
    """
    if not is_package(given) or os.path.exists(given):
        return given
    from importlib import resources

    package, _, path = given.partition(":")
    try:
        folder = resources.files(package).joinpath(path)
    except ModuleNotFoundError as error:
        hint = "Install it; python -m outreach_migrate also finds a package of the current folder."
        raise UsageError(f"--dir {given}: there is no package {error.name}", hint=hint) from None
    return os.fspath(folder) if isinstance(folder, os.PathLike) else folder


def is_package(given: str) -> bool:
    """Tell whether a folder is written as PACKAGE:PATH."""
    package, colon, _ = given.partition(":")
    return bool(colon) and all(part.isidentifier() for part in package.split("."))


def on_disk(given: str) -> str:
    """Find the folder that --dir names; raise UsageError for a package, because git and editors need a path."""
    folder = find(given)
    if isinstance(folder, str):
        return folder
    raise UsageError(f"--dir {given} lies in an archive: give a folder on disk")


def below(folder: Folder, name: str) -> Folder | None:
    """Find a folder in another one; None if it is not there."""
    if isinstance(folder, str | os.PathLike):
        path = os.path.join(folder, name)
        return path if os.path.isdir(path) else None
    inner = folder / name
    return inner if inner.is_dir() else None


def listed(folder: Folder) -> list[File]:
    """List a folder, sorted by name, without names that start with a dot; raise OSError."""
    if isinstance(folder, str | os.PathLike):
        with os.scandir(folder) as listing:
            found: list[File] = list(listing)
    else:
        found = [Resource(one, os.path.join(str(folder), one.name)) for one in folder.iterdir()]
    return sorted((one for one in found if not one.name.startswith(".")), key=lambda one: one.name)


def opened(file: File | Text, at: int = 0) -> BinaryIO:
    """Open a file, to be read from an offset on, in bytes; raise OSError."""
    stream = _stream(file)
    if at:
        stream.seek(at)
    return stream


def head(file: File) -> bytes:
    """Read a file's first bytes, none if they can't be read."""
    try:
        with opened(file) as stream:
            return stream.read(_HEAD)
    except OSError:
        return b""


def _stream(file: File | Text) -> BinaryIO:
    if isinstance(file, Text):
        return io.BytesIO(file.data)
    return cast("BinaryIO", file.resource.open("rb")) if isinstance(file, Resource) else open(file.path, "rb")
