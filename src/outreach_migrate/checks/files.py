"""Checks of the files against each other and against a git revision."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outreach_migrate.errors import Contradiction, Location, MigrateError, Problem, UsageError
from outreach_migrate.files import git, migrations, rules, statements
from outreach_migrate.files.squashed import Replaced

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from outreach_migrate.files.code import Code
    from outreach_migrate.files.migrations import Migration


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem that is an error or a warning, with the linter's rule, if one found it."""

    problem: Problem | Contradiction
    is_error: bool = True
    rule: str | None = None


def chosen(
    found: Iterable[Migration], problems: Iterable[Problem], paths: Iterable[str]
) -> tuple[list[Migration], list[Problem]]:
    """Choose the migrations and problems of these paths, or all if there are no paths.

    Raise UsageError for a .sql file outside of the folder.
    """
    wanted = {os.path.realpath(path): path for path in (os.fsencode(path).decode() for path in paths)}
    if not wanted:
        return list(found), list(problems)
    by_path = {os.path.realpath(one.path): one for one in found}
    told = [(os.path.realpath(one.location.path), one) for one in problems if one.location]
    strange = wanted.keys() - by_path.keys() - {path for path, _ in told}
    if named := sorted(wanted[path] for path in strange if path.endswith(".sql")):
        raise UsageError(f"not a migration of the folder: {', '.join(named)}", hint="Name the folder with --dir.")
    return [one for path, one in by_path.items() if path in wanted], [one for path, one in told if path in wanted]


def files(found: Iterable[Migration], problems: Iterable[Problem], code: Collection[str]) -> list[Finding]:
    """Check migrations as `up` does before it runs them.

    `problems` were met while they were read, and `code` are the paths of the files of code.
    """
    findings = [Finding(problem) for problem in problems]
    for migration in found:
        wrong = [*rules.problems(migration), *rules.without_code(migration, code)]
        findings += map(Finding, wrong)
        # a file that another tool made for a merge of two branches keeps its place in the order
        if not migration.directives.origin and next(statements.split(migration.sql), None) is None:
            findings.append(Finding(Problem("no statement in this file", Location(migration.path)), is_error=False))
    return findings


def of_code(codes: Iterable[Code], paths: Iterable[str]) -> list[Finding]:
    """Warn of files of code, those of `paths` if there are any, that run once only."""
    from outreach_migrate.files import code  # here, because few projects have files of code

    wanted = {os.path.realpath(os.fsencode(path).decode()) for path in paths}
    findings = list[Finding]()
    for one in codes:
        if wanted and os.path.realpath(one.migration.path) not in wanted:
            continue
        for statement, kind in code.only_once(one):
            message = f"CREATE {kind.upper()} fails when the file runs again, because the {kind} is there by then"
            hint = f"Write CREATE OR REPLACE {kind.upper()}, or begin the file with: -- migrate: drop-first"
            place, excerpt = one.migration.location(statement.start), one.migration.excerpt(statement.start)
            findings.append(Finding(Problem(message, place, hint, excerpt), is_error=False))
    return findings


def against(folder: str, found: Iterable[Migration], ref: str) -> list[Finding]:
    """Compare the files with those of a git revision: new ones must be newer, and the rest must not have changed.

    The files that a new squashed file replaces may be gone. A file that the revision has gained since the branches
    parted may be missing here, but a new file must be newer.
    """
    theirs = {name for name in git.output(folder, "ls-tree", "-z", "--name-only", ref, "./").split("\0") if name}
    if not theirs:  # git keeps no empty folders
        hint = "Name the folder as that revision has it, with --dir; for the change that makes it, leave --base out."
        raise MigrateError(f"{ref} has no folder {folder}: there is nothing to compare with", hint=hint)
    parted = git.output(folder, "merge-base", ref, "HEAD", otherwise=ref).strip()
    since, now = _changes(folder, parted), _changes(folder, ref)
    newest = max((int(name.partition("_")[0]) for name in theirs if migrations.is_name(name)), default=-1)
    problems = []
    new, replaced = _squashed(folder, ref, theirs, found := list(found))
    for migration in found:
        name = os.path.basename(migration.path)
        if migration is new:
            continue
        if "M" in (since.get(name), now.get(name)):
            hint = "Restore it, and put the change into a new migration."
            message = f"changed: it is in {ref}, and may have been applied"
            problems.append(Problem(message, Location(migration.path), hint))
        elif name not in theirs and migration.number <= newest:
            message = f"out of order: version {newest} is in {ref} already, and newer"
            problems.append(Problem(message, Location(migration.path), "Give it a later version."))
    for name in sorted(theirs - replaced):
        if since.get(name) == "D" and migrations.is_name(name) and not os.path.exists(os.path.join(folder, name)):
            problems.append(
                Problem(f"renamed or deleted: it is in {ref}", Location(os.path.join(folder, name)), "Restore it.")
            )
    added = [migration for migration in found if os.path.basename(migration.path) not in theirs]
    return [*map(Finding, problems), *_waiting(added)]


def _waiting(added: Iterable[Migration]) -> Iterator[Finding]:
    """Warn of files that the new release needs, but that come after one which is for after its deployment."""
    first: Migration | None = None
    for migration in added:
        if migration.is_after_deploy:
            first = first or migration
        elif first:
            message = f"it is applied after the deployment only, because it comes after {os.path.basename(first.path)}"
            hint = "Give it an earlier version; or, if the new release can do without it: -- migrate: after-deploy"
            yield Finding(Problem(message, Location(migration.path), hint), is_error=False)


def _squashed(
    folder: str, ref: str, theirs: set[str], found: Iterable[Migration]
) -> tuple[Migration | None, frozenset[str]]:
    """Find a new squashed file that replaces exactly the revision's files up to its version, and give their names."""
    for migration in found:
        if migration.replaces and os.path.basename(migration.path) not in theirs:
            numbers = {name: int(name.partition("_")[0]) for name in theirs if migrations.is_name(name)}
            names = [name for name, number in numbers.items() if number <= migration.number]
            contents = git.contents(folder, ref, names)
            pairs = [(numbers[name], migrations.checksum(content)) for name, content in contents.items()]
            if Replaced().then(pairs) in migration.replaces:
                return migration, frozenset(names)
    return None, frozenset()


def changed(folder: str, found: Iterable[Migration], ref: str) -> list[Migration]:
    """Choose the files that are new or changed since a git revision."""
    theirs = git.output(folder, "ls-tree", "-z", "--name-only", ref, "./").split("\0")
    changes = _changes(folder, ref)
    names = {migration: os.path.basename(migration.path) for migration in found}
    return [migration for migration, name in names.items() if name not in theirs or name in changes]


def _changes(folder: str, ref: str) -> dict[str, str]:
    """Read the files of a revision that are modified (M) or deleted (D) in the folder."""
    fields = git.output(
        folder, "diff", "--relative", "--no-renames", "--diff-filter=MDT", "--name-status", "-z", ref, "--", "."
    )
    statuses, names = fields.split("\0")[0:-1:2], fields.split("\0")[1::2]
    return {name: "D" if status == "D" else "M" for status, name in zip(statuses, names, strict=True)}
