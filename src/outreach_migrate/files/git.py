"""git: its output, and the versions of a file that it has."""

from __future__ import annotations

import codecs
import os
import re
import subprocess
from typing import TYPE_CHECKING

from outreach_migrate.errors import MigrateError, MissingTool

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from outreach_migrate.files.migrations import Migration

_COMMITS = 500  # that are looked through for a version of a file
_LONGEST = 20  # s that git may take, because in a large repository it may take minutes
_LARGEST = 10_000_000  # bytes of a version that is looked at
_RAW = re.compile(rb"^:[0-7]+ [0-7]+ ([0-9a-f]+) ([0-9a-f]+) ", re.MULTILINE)
_NONE = re.compile(rb"0+")


def output(folder: str, *arguments: str, otherwise: str | None = None) -> str:
    """Run git in a folder, and give its output, or `otherwise` if it fails; raise MigrateError."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", check=False)
    except OSError as error:
        raise MissingTool(f"cannot run git: {error.strerror}") from error
    if done.returncode == 0:
        return done.stdout
    if otherwise is not None:
        return otherwise
    said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    hint = "Is the revision there? CI often fetches one commit only: fetch-depth: 0"
    raise MigrateError(f"git {arguments[0]}: {said}", hint=hint)


def contents(folder: str, ref: str, names: Sequence[str]) -> dict[str, bytes]:
    """Read files of a folder as a revision has them, all by one process; those that git lacks are left out.

    https://git-scm.com/docs/git-cat-file#_batch_output
    """
    rest = _bytes(folder, "cat-file", "--batch", given="".join(f"{ref}:./{name}\n" for name in names).encode())
    found = dict[str, bytes]()
    for name in names:
        head, _, rest = rest.partition(b"\n")
        if head[-1:].isdigit():  # else it is missing, in a clone that has a part of the objects only
            size = int(head.split()[-1])
            found[name], rest = rest[:size], rest[size + 1 :]
    return found


def version_with(migration: Migration, checksum: str) -> str | None:
    """Find the text of a migration's file that has a checksum, among its versions on all branches, also by older names.

    None if there is none, no git, or no repository.
    """
    import hashlib  # here, because it loads OpenSSL

    for data in _versions(*os.path.split(os.path.abspath(migration.path))):
        text = data.removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
        if hashlib.sha256(text).hexdigest() == checksum:
            return text.decode()
    return None


def _versions(folder: str, name: str) -> Iterator[bytes]:
    """Yield the versions of a file, the newest first."""
    log = ["log", "--all", "--follow", f"--max-count={_COMMITS}", "--format=", "--raw", "--no-abbrev", "--", name]
    found = dict.fromkeys(
        blob for pair in _RAW.findall(_bytes(folder, *log, within=_LONGEST)) for blob in reversed(pair)
    )
    blobs = b"".join(blob + b"\n" for blob in found if not _NONE.fullmatch(blob))
    for line in _bytes(folder, "cat-file", "--batch-check", given=blobs).splitlines():
        blob, kind, *size = line.split()
        if kind == b"blob" and int(size[0]) <= _LARGEST:
            yield _bytes(folder, "cat-file", "blob", blob.decode())


def _bytes(folder: str, *arguments: str, given: bytes = b"", within: float | None = None) -> bytes:
    """Run git, and give its output; nothing without git, or if it takes longer than `within`, in seconds."""
    command = ["git", *arguments]
    try:
        return subprocess.run(command, cwd=folder, input=given, capture_output=True, check=False, timeout=within).stdout
    except (OSError, subprocess.TimeoutExpired):
        return b""
