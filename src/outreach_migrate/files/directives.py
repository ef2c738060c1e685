"""What the comments at a file's head ask for."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outreach_migrate import durations
from outreach_migrate.files import statements
from outreach_migrate.files.outline import Finding

if TYPE_CHECKING:
    from outreach_migrate.files.outline import Outline

_DIRECTIVE = re.compile(r"^[ \t]*--[ \t]*migrate:(.*)$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Directives:
    """What a file asks for, `lock_timeout` in seconds, 0 for no limit; and what is wrong with how it asks."""

    transaction: bool
    lock_timeout: float | None
    findings: tuple[Finding, ...]


def read(sql: str, outline: Outline) -> Directives:
    """Read what a text asks for; one statement that can't run in a transaction asks for none by itself."""
    transaction, lock_timeout, findings = not (outline.count == 1 and outline.outside), None, list[Finding]()
    head, lines = _lines(sql)
    for line in lines:
        text = line[1].strip()
        word, _, value = text.partition(" ")
        if line.start() > head:
            findings.append(Finding(line.start(1), "a directive must stand before the first statement"))
        elif text == "no-transaction":
            transaction = False
        elif word == "lock-timeout" and (limit := durations.seconds(value)) is not None:
            lock_timeout = limit
        else:
            hint = "There are: no-transaction, lock-timeout DURATION (as 30s, 500ms, 2min, 1h)."
            findings.append(Finding(line.start(1), f"unknown directive: {text}", hint))
    return Directives(transaction, lock_timeout, tuple(findings))


def _lines(sql: str) -> tuple[int, list[re.Match[str]]]:
    """Find where the first statement starts, and the directives that stand outside of statements and /* comments."""
    if not ("igrate:" in sql or "IGRATE:" in sql) or not (matches := list(_DIRECTIVE.finditer(sql))):
        return 0, []
    spans = [(statement.start, statement.end) for statement in statements.split(sql)]
    outside = [match for match in matches if not any(start < match.start(1) < end for start, end in spans)]
    bare = [match for match in outside if not _in_comment(sql, match.start())]
    return spans[0][0] if spans else len(sql), bare


def _in_comment(sql: str, offset: int) -> bool:
    """Tell whether a /* comment is open at an offset between statements: a statement put there would not be one."""
    last = deque(statements.split(sql[:offset] + ";x"), maxlen=1)[0]
    return last.start != offset + 1
