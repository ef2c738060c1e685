"""The report of `rehearse`: text, JSON, or Markdown for a pull request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outreach_migrate.report import as_json, rehearsal_text, run, sentences, terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.errors import MigrateError
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.rehearsal import events
    from outreach_migrate.rehearsal.effects import Lock, Relation
    from outreach_migrate.rehearsal.lock_times import Blocked, Held

_WARNING = (
    "rehearse takes the real locks and does the real work until it rolls back: run it on a copy, or on staging. "
    "Values drawn from sequences stay drawn."
)


class RehearsalReport(run.RunReport):
    """The output of `rehearse`, in one of its formats."""

    def __init__(self, form: str, verbosity: int) -> None:
        super().__init__("rehearse", as_json=form == "json", verbosity=verbosity)
        self.form = form
        self.ends: list[events.FileRehearsed] = []
        self.markdown: list[str] = []
        del self.document["applied"]
        self.document |= {"warning": _WARNING, "complete": False, "files": [], "blocked": []}

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        super().__exit__(kind, *rest)
        if self.form == "markdown":
            terminal.say("\n".join(self.markdown))

    def result(self, line: str) -> None:
        """Print a line of the result; Markdown has other lines."""
        if self.form != "markdown":
            super().result(line)

    def rehearsed(self, event: events.Event) -> None:
        """Print an event."""
        from outreach_migrate.rehearsal import events
        from outreach_migrate.run import events as of_run

        match event:
            case events.Rehearsing(migration):
                self.nothing = ""
                self.markdown = self.markdown or _markdown_head(0)
                self.result(sentences.title(migration))
                self.document["files"].append(_file_value(migration))
            case events.StatementDone():
                self._done(event)
            case events.FileRehearsed(_, seconds, held):
                self.ends.append(event)
                values = [_held_value(one) for one in held]
                self.document["files"][-1] |= {"milliseconds": as_json.milliseconds(seconds), "held": values}
                for line in rehearsal_text.held_lines(held):
                    self.result(f"  {line}")
            case events.Estimated():
                self._estimated(event)
            case events.Skipped(migration, statements):
                self._skipped(migration, statements)
            case events.Stopped():
                self._stopped(event)
            case of_run.Planned(_, steps):
                if steps and self.verbosity > 0:
                    self.aside(f"{terminal.styled('note:', colour='yellow')} {_WARNING}")
                self.markdown = _markdown_head(len(steps)) if steps else []
                self.event(event)
            case _:
                self.event(event)

    def _done(self, done: events.StatementDone) -> None:
        self.document["files"][-1]["statements"].append(_done_value(done))
        self.markdown.append(_markdown_row(done))
        several = f"{len(done.group.members)} statements, " if len(done.group.members) > 1 else ""
        rows = f", {sentences.count(done.rows, 'row', 'rows')}" if done.rows is not None else ""
        text = rehearsal_text.shortened(done.group.shown)
        self.result(f"  {_place(done)}: {text}  {several}{rehearsal_text.span(done.seconds)}{rows}")
        for line, colour in rehearsal_text.effect_lines(done.effects, every=self.verbosity > 0):
            self.result(f"    {terminal.styled(line, colour=colour)}")

    def _estimated(self, event: events.Estimated) -> None:
        seconds = self.ends[-1].seconds
        line = rehearsal_text.estimate(event, seconds)
        self.result(f"  {line}")
        self.markdown.append(_markdown_cells(event.migration.path, "", "", "", line))
        whole = as_json.milliseconds(seconds * event.left / event.rows) if event.rows else 0.0
        known = {"rows": event.rows, "done": event.done, "total": event.done + event.left, "milliseconds": whole}
        self.document["files"][-1]["batches"] = known

    def _skipped(self, migration: Migration, statements: Iterable[events.Unrehearsed]) -> None:
        self._not_rehearsed(migration, "it runs without a transaction, so it can't be rolled back")
        for one in statements:
            lock = f"{one.mode}, blocks {rehearsal_text.blocks(one.mode)} (by the manual)" if one.mode else None
            place = f"{one.location.path}:{one.location.line}"
            self.result(f"  {place}: {rehearsal_text.shortened(one.text)}{f'  {lock}' if lock else ''}")
            self.markdown.append(_markdown_cells(place, one.text, "not rehearsed", "", lock or ""))
            value = {
                **as_json.location(one.location),
                "text": one.text,
                "mode": str(one.mode) if one.mode else None,
            }
            self.document["files"][-1]["statements"].append(value)

    def _stopped(self, stopped: events.Stopped) -> None:
        files, begun = self.document["files"], list[dict[str, Any]]()
        if files and files[-1]["path"] == stopped.migration.path:
            begun = files.pop()["statements"]
        self._not_rehearsed(stopped.migration, rehearsal_text.reason(stopped))
        files[-1] |= {"statements": begun, "needs": stopped.needs and stopped.needs.path}

    def _not_rehearsed(self, migration: Migration, reason: str) -> None:
        self.nothing = ""
        self.result(f"{sentences.title(migration)}  {terminal.styled('not rehearsed', colour='yellow')}: {reason}")
        self.document["files"].append(_file_value(migration) | {"not_rehearsed": reason})
        self.markdown = self.markdown or _markdown_head(0)
        self.markdown.append(_markdown_cells(migration.path, "", "not rehearsed", "", reason))

    def ended(self) -> None:
        """Sum up the time that each table was not available."""
        from outreach_migrate.rehearsal import lock_times

        if self.nothing:
            self.result(self.nothing)
        found = lock_times.blocked(end.held for end in self.ends)
        self.document["blocked"] = [_blocked_value(one) for one in found]
        lines = [f"{one.name}: {rehearsal_text.blocked_text(one)}" for one in found]
        self.markdown = self.markdown or ["There is nothing to rehearse."]
        if self.form == "markdown" and self.ends:
            self.markdown += ["", *(f"- **{line}**" for line in lines or ["Nobody would be blocked."])]
        for line in lines:
            self.result(line)
        files = self.document["files"]
        left = sum(file["not_rehearsed"] is not None for file in files)
        self.document["complete"] = not left
        if self.ends:
            self.result("Rolled back: nothing of it stays.")
        if left:
            incomplete = f"{left} of {sentences.count(len(files), 'file', 'files')} not rehearsed."
            self.result(incomplete)
            self.markdown += ["", incomplete]

    def failed(self, error: MigrateError) -> None:
        """Print an error, in Markdown too."""
        super().failed(error)
        if self.markdown:
            place = getattr(error, "location", None)
            self.markdown += ["", f"**Failed:** {f'`{place}` ' if place else ''}{error.message}"]


def _markdown_head(count: int) -> list[str]:
    of = sentences.count(count, "migration", "migrations") if count else "files of code"
    return [
        f"### Rehearsal of {of}",
        "",
        "| Statement | Took | Rows | Effect on tables that were there before |",
        "| --- | ---: | ---: | --- |",
    ]


def _markdown_row(done: events.StatementDone) -> str:
    lines = "<br>".join(line for line, _ in rehearsal_text.effect_lines(done.effects, every=False))
    rows = "" if done.rows is None else str(done.rows)
    several = f" ({len(done.group.members)} statements)" if len(done.group.members) > 1 else ""
    return _markdown_cells(_place(done) + several, done.group.shown, rehearsal_text.span(done.seconds), rows, lines)


def _place(done: events.StatementDone) -> str:
    """Give the line of a statement, or the first and the last one of several."""
    first, last = done.location.line, done.group.members[-1].last_line
    return f"{done.location.path}:{first}{f'-{last}' if len(done.group.members) > 1 else ''}"


def _markdown_cells(place: str, text: str, took: str, rows: str, what: str) -> str:
    code = rehearsal_text.shortened(text).replace("`", "'")  # a code span can't contain its delimiter
    first = f"{place}<br>`{code}`" if code else place
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in (first, took, rows, what)) + " |"


def _file_value(migration: Migration) -> dict[str, Any]:
    return {
        **{"version": as_json.version(migration.version), "name": migration.name, "path": migration.path},
        **{"not_rehearsed": None, "needs": None, "milliseconds": None},
        **{"statements": [], "held": [], "batches": None},
    }


def _done_value(done: events.StatementDone) -> dict[str, Any]:
    did = done.effects
    return {
        **as_json.location(done.location),
        **{"last_line": done.group.members[-1].last_line, "count": len(done.group.members)},
        "text": done.group.shown,
        "tag": done.tag,
        "milliseconds": as_json.milliseconds(done.seconds),
        "rows": done.rows,
        "locks": [_lock_value(lock) for lock in did.locks],
        **{
            word: [_relation_value(relation) for relation in relations]
            for word, relations in (
                *(("rewritten", did.rewritten), ("emptied", did.emptied)),
                *(("scanned", did.scanned), ("dropped", did.dropped)),
            )
        },
    }


def _lock_value(lock: Lock) -> dict[str, Any]:
    return {
        "relation": _relation_value(lock.relation),
        **{"mode": str(lock.mode), "blocks": rehearsal_text.blocks(lock.mode)},
        **{"presumed": lock.presumed, "covered": lock.covered},
    }


def _held_value(held: Held) -> dict[str, Any]:
    return {
        **_lock_value(held.lock),
        "since": as_json.location(held.since),
        "milliseconds": as_json.milliseconds(held.seconds),
    }


def _relation_value(relation: Relation) -> dict[str, Any]:
    return {
        **{"name": relation.name, "kind": relation.kind, "table": relation.table},
        **{"rows": relation.rows, "bytes": relation.bytes},
    }


def _blocked_value(one: Blocked) -> dict[str, Any]:
    spans = {"reads": one.reads, "writes": one.writes, "schema_changes": one.changes}
    return {
        "table": one.name,
        **{f"{what}_milliseconds": as_json.milliseconds(span) for what, span in spans.items()},
    }
