"""The manual's pages, one a subject, and the command that prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from outreach_migrate.cli import usage

if TYPE_CHECKING:
    from collections.abc import Iterable

SUBJECTS = (
    "getting-started",
    "files",
    "which-database",
    "commands",
    "locks",
    "no-transaction",
    "backfills",
    "deployments",
    "code",
    "when-a-run-stops",
    "rehearse",
    "schema",
    "types",
    "ci",
    "json",
    "python",
    "testing",
    "fleets",
    "citus",
    "moving",
    "guarantees",
    "benchmarks",
    "limits",
)


def page(subject: str) -> str:
    """Read a page; KeyError where there is none of this name."""
    if subject not in SUBJECTS:
        raise KeyError(subject)
    from importlib import resources  # slow, as it needs tempfile

    return resources.files("outreach_migrate").joinpath("manual", f"{subject}.md").read_text(encoding="utf-8")


def absent(subject: str, commands: Iterable[str]) -> str:
    """Say that the manual has no such page, and suggest one."""
    meant = f"; the command's options: {subject} --help" if subject in commands else usage.meant(subject, SUBJECTS)
    return f"the manual has no page {subject}{meant}\nThe pages are {', '.join(SUBJECTS)}."


def contents() -> str:
    """List the subjects, each with its summary: the line below the page's title."""
    width = max(map(len, SUBJECTS))
    lines = [f"  {subject:{width}}  {page(subject).splitlines()[2]}" for subject in SUBJECTS]
    return "\n".join(["outreach-migrate help SUBJECT prints a page of the manual:", "", *lines])


@click.command("help", cls=usage.StrictCommand)
@click.argument("subject", required=False)
@click.pass_context
def help_(ctx: click.Context, /, subject: str | None) -> None:
    """List the pages of the manual, or print one."""
    group = ctx.find_root().command
    if subject is None:
        click.echo(contents())
    elif subject in SUBJECTS:
        click.echo_via_pager(page(subject))
    else:
        raise click.UsageError(absent(subject, group.commands if isinstance(group, click.Group) else ()))
