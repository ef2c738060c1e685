"""The new files of an import, written all or none."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

from outreach_migrate.errors import MigrateError
from outreach_migrate.files import foreign, migrations

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.adopt.copy import Import

_DRAFT = ".outreach-migrate-import-"


def write(planned: Import) -> None:
    """Write the new files, all or none; no file is ever overwritten. Raise MigrateError.

    1. All files are written to a hidden folder, and flushed to the disk.
    2. If the target is not there, that folder becomes the target, in one step.
    3. Else it gets the name `.import` in the target, in one step: from then on `up`, `check` and `status` refuse the
       target, and the next import writes the rest.
    4. Each file is linked to its place, and `.import` is removed.

    A kill before the third step leaves a hidden folder that the next import removes; one after it leaves a folder that
    is refused until the next import. POSIX has no step in which several files appear in a folder that is there.
    """
    if not planned.files:
        return
    there = os.path.lexists(planned.target)
    beside = planned.target if there else os.path.dirname(os.path.abspath(planned.target))  # on the same file system
    with _failing():
        os.makedirs(beside, exist_ok=True)
        with _draft(beside) as draft:
            for new in planned.files:
                with open(os.path.join(draft, os.path.basename(new.path)), "xb") as file:
                    file.write(new.text.encode())
                    file.flush()
                    os.fsync(file.fileno())
            os.rename(draft, os.path.join(planned.target, foreign.IMPORTING) if there else planned.target)
            if there:
                _put(planned.target)


def finish(target: str) -> int:
    """Write the rest of an import that was cut short, and give the number of its files; raise MigrateError."""
    with _failing():
        _tidy(os.path.dirname(os.path.abspath(target)))
        _tidy(target)
    if not foreign.cut_short(target):
        return 0
    with _failing(), _locked(os.path.join(target, foreign.IMPORTING)) as is_stale:
        if not is_stale:
            raise MigrateError(f"another import is writing to {target}")
        return _put(target)


def _put(target: str) -> int:
    """Put the files of `.import` in their places, those that are not yet; take all of them back if one fails."""
    whole = os.path.join(target, foreign.IMPORTING)
    names = sorted(filter(migrations.is_name, os.listdir(whole)), key=lambda name: int(name.partition("_")[0]))
    pairs = [(os.path.join(whole, name), os.path.join(target, name)) for name in names]
    try:
        for draft, path in pairs:
            if not _is_same(draft, path):
                os.link(draft, path)  # fails if there is another one
    except BaseException:
        for draft, path in pairs:
            if _is_same(draft, path):
                os.remove(path)
        _remove(whole)
        raise
    _remove(whole)
    return len(names)


def _is_same(draft: str, path: str) -> bool:
    return os.path.lexists(path) and os.path.samestat(os.lstat(draft), os.lstat(path))


def _remove(whole: str) -> None:
    """Remove `.import`, in one step, because a part of it would be taken for a whole import."""
    gone = tempfile.mkdtemp(prefix=_DRAFT, dir=os.path.dirname(whole))
    os.rename(whole, gone)
    shutil.rmtree(gone)


def _tidy(folder: str) -> None:
    """Remove the hidden folders that killed imports have left."""
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        if entry.name.startswith(_DRAFT) and entry.is_dir(follow_symlinks=False):
            with _locked(entry.path) as is_stale:
                if is_stale:
                    shutil.rmtree(entry.path)


@contextmanager
def _draft(folder: str) -> Iterator[str]:
    """Make a hidden folder for this import."""
    with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=folder) as temporary, _locked(temporary):
        draft = os.path.join(temporary, "files")
        os.mkdir(draft)  # with the permissions that a new folder has
        with _locked(draft):  # also under its later name
            yield draft


@contextmanager
def _locked(folder: str) -> Iterator[bool]:
    """Lock a folder, if no living import has it; the kernel takes the lock from one that is killed."""
    number = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(number)


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise MigrateError(f"cannot write {error.filename2 or error.filename}: {error.strerror}") from error
