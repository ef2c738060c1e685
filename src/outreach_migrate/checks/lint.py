"""Findings of squawk, a linter for migrations. https://squawkhq.com"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from outreach_migrate.checks.files import Finding
from outreach_migrate.errors import MigrateError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.files.migrations import Migration

# Rules of squawk that don't apply, because a run sets a lock timeout, and has an option for the other. It resumes after
# the last statement done, and IF NOT EXISTS would accept an invalid index. BEGIN and COMMIT have errors of their own.
_ANSWERED = (
    *("require-timeout-settings", "require-lock-timeout", "require-statement-timeout"),
    *("prefer-robust-stmts", "transaction-nesting"),
)


def findings(found: Iterable[Migration]) -> list[Finding]:
    """Run squawk over migrations, each file with the transaction that it runs in; give the findings, file by file.

    https://squawkhq.com
    """
    import shutil
    import sys

    beside = os.path.join(os.path.dirname(sys.executable), "squawk")
    program = beside if os.path.exists(beside) else shutil.which("squawk")
    if program is None:
        hint = "pip install squawk-cli"
        return [Finding(Problem("squawk is not installed: nothing was linted", hint=hint))]
    found = list(found)
    inside = [migration for migration in found if migration.directives.transaction]
    alone = [migration for migration in found if not migration.directives.transaction]
    by_file = {
        **_squawk(program, inside, "--assume-in-transaction"),
        **_squawk(program, alone, "--no-assume-in-transaction"),
    }
    return [finding for migration in found for finding in by_file.get(migration.path, ())]


def _squawk(program: str, found: list[Migration], mode: str) -> dict[str, list[Finding]]:
    """Give squawk's findings by file, in the order of their places."""
    import json
    import subprocess
    import tempfile

    if not found:
        return {}
    command = [program, "--reporter", "json", mode, *(f"--exclude={rule}" for rule in _ANSWERED)]
    with tempfile.TemporaryDirectory() as folder:
        by_path = {_readable(migration, folder): migration for migration in found}
        paths = [path.encode() for path in by_path]  # names are UTF-8, whatever the locale says
        done = subprocess.run([*command, "--", *paths], capture_output=True, encoding="utf-8", check=False)
    try:
        reports = json.loads(done.stdout)
    except ValueError:
        raise MigrateError(f"squawk failed: {done.stderr.strip() or done.stdout.strip()}") from None
    findings: dict[str, list[Finding]] = {}
    for report in sorted(reports, key=lambda one: (one["line"], one["column"])):
        migration = by_path[report["file"]]
        offset = _offset(migration.sql, report["line"], report["column"])
        where, excerpt = migration.location(offset), migration.excerpt(offset)
        problem = Problem(" ".join(report["message"].split()), where, report.get("help"), excerpt)
        findings.setdefault(migration.path, []).append(Finding(problem, is_error=False, rule=report["rule_name"]))
    return findings


def _readable(migration: Migration, folder: str) -> str:
    """Give the path of a file for squawk, which takes rows, :range and :'name' for SQL: a copy without them."""
    text = migration.sql
    if migration.directives.has_variables:
        from outreach_migrate.files import variables

        for variable in variables.uses(text):
            text = f"{text[: variable.start]} {text[variable.start + 1 :]}"
    if migration.directives.batches:
        from outreach_migrate.files import batches

        for use in batches.uses(text):
            text = f"{text[: use.start]}{'true':{len(use)}}{text[use.stop :]}"
    elif not migration.rows and text is migration.sql:
        return migration.path
    path = os.path.join(folder, os.path.basename(migration.path))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def _offset(sql: str, line: int, column: int) -> int:
    """Turn squawk's place, a line and a byte in it, both from 0, into an offset in characters."""
    lines = sql.split("\n")
    before = lines[line].encode()[:column].decode(errors="ignore") if line < len(lines) else ""
    return sum(len(one) + 1 for one in lines[:line]) + len(before)
