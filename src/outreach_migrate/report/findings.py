"""The report of `check`: text, JSON, or GitHub's workflow commands."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from outreach_migrate.report import as_json, printer, sentences, terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.checks.files import Finding
    from outreach_migrate.errors import Location


class CheckReport(printer.Report):
    """The output of `check`, in one of its formats."""

    def __init__(self, form: str, verbosity: int) -> None:
        super().__init__("check", as_json=form == "json", verbosity=verbosity)
        self.form = form

    def findings(self, findings: list[Finding], *, strict: bool) -> None:
        """Print all findings, and exit with 1 for an error, or with `strict` for a warning."""
        wrong = [finding for finding in findings if finding.is_error or strict]
        self.document |= {"ok": not wrong, "findings": [_value(finding) for finding in findings]}
        if self.form == "github":
            for finding in findings:
                self.result(_workflow_command(finding))
        elif self.form == "text":
            for same in _grouped(findings):
                if same[0].is_error or self.verbosity >= 0:
                    terminal.say(_text(*same))
        errors = sum(finding.is_error for finding in findings)
        if self.form == "text":
            self.result(
                f"{sentences.count(errors, 'error', 'errors')}, "
                f"{sentences.count(len(findings) - errors, 'warning', 'warnings')}."
            )
        if wrong:
            sys.exit(1)


def _grouped(findings: list[Finding]) -> Iterable[list[Finding]]:
    """Group a linter's findings that have the same text under the first of their places."""
    groups: dict[object, list[Finding]] = {}
    for finding in findings:
        problem = sentences.worded(finding.problem)
        words = (finding.rule, problem.message, problem.hint) if finding.rule else id(finding)
        groups.setdefault(words, []).append(finding)
    return groups.values()


def _text(finding: Finding, *same: Finding) -> str:
    text = sentences.problem(finding.problem, "error" if finding.is_error else "warning")
    if not finding.rule:
        return text
    first, *rest = text.split("\n")
    places = [f"also at {one.problem.location}" for one in same]
    return "\n".join([f"{first} [{finding.rule}]", *rest, *places])


def _value(finding: Finding) -> dict[str, object]:
    severity = "error" if finding.is_error else "warning"
    return {"severity": severity, "rule": finding.rule, **as_json.problem(finding.problem)}


def _workflow_command(finding: Finding) -> str:
    """Write a finding so that GitHub shows it in the pull request's lines.

    https://docs.github.com/actions/reference/workflow-commands-for-github-actions#setting-an-error-message
    """
    problem = sentences.worded(finding.problem)
    place = problem.location
    text = "\n".join([problem.message, *([problem.hint] if problem.hint else [])])
    return workflow_command(text, place, finding.rule, severity="error" if finding.is_error else "warning")


def workflow_command(text: str, place: Location | None, title: str | None, *, severity: str = "error") -> str:
    """Write a text as one of GitHub's workflow commands."""
    properties = {
        "file": place and place.path,
        "line": place and place.line,
        "col": place and place.column,
        "title": title or "outreach-migrate",
    }
    shown = ",".join(f"{key}={_escaped(str(value), ':,')}" for key, value in properties.items() if value is not None)
    return f"::{severity} {shown}::{_escaped(text)}"


def _escaped(text: str, more: str = "") -> str:
    for sign in "%\r\n" + more:
        text = text.replace(sign, f"%{ord(sign):02X}")
    return text
