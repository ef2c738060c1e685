"""The report of `up`, printed while it runs."""

from __future__ import annotations

import time
from itertools import chain
from typing import TYPE_CHECKING

from outreach_migrate import durations
from outreach_migrate.report import as_json, batches, printer, sentences, terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.errors import Outcome, ServerMessage
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.postgres.activity import Progress
    from outreach_migrate.run import events
    from outreach_migrate.run.code_plan import CodeStep
    from outreach_migrate.run.engine import Result
    from outreach_migrate.run.plan import Pending, Plan, Planned, Step


class RunReport(printer.Report):
    """The output of `up`, printed from the engine's events."""

    def __init__(self, command: str, *, as_json: bool, verbosity: int) -> None:
        super().__init__(command, as_json=as_json, verbosity=verbosity)
        lists = ("applied", "pending", "later", "code", "ahead", "notices", "batches")
        self.document |= {name: [] for name in lists}
        self.pending: dict[str, Step] = {}
        self.later: tuple[Pending, ...] = ()  # files left for after the deployment
        self.sql: dict[str, str] = {}  # the SQL of a dry run, by version
        self.told: tuple[object, float] = (None, 0.0)
        self.progress = ""  # of the statement that runs, for the live line
        self.started: tuple[Migration, float] | None = None  # the file that runs, and since when
        self.applied: list[events.Applied] = []
        self.code: list[events.CodeApplied] = []
        self.nothing = ""  # is said at the end, if no file of code is carried out either

    def event(self, event: events.Event) -> None:
        """Print an event."""
        from outreach_migrate.history import read
        from outreach_migrate.postgres import connections
        from outreach_migrate.run.plan import Planned

        match event:
            case Planned():
                self._planned(*event)
            case connections.Unreachable(why, _):
                self._once(why, [f"waiting for the server: {why}"])
            case read.Locked():
                self.locked(event)
            case _:
                self._of_work(event)

    def _of_code(self, event: events.OfCode) -> None:
        """Print the end of a file of code, and name the objects that it leaves."""
        from outreach_migrate.run import events

        path = f"code  {event.path}"
        match event:
            case events.CodeApplied(_, seconds, objects, stale, dropped, shared):
                self.code.append(event)
                self.nothing = ""
                done = terminal.styled("dropped" if dropped else "carried out", colour="green")
                self.result(f"{path}  {done} in {sentences.took(seconds)}")
                for one in objects if self.verbosity > 0 else ():
                    self.result(f"    {one}")
                if stale:
                    drops = " ".join(f"DROP {one};" for one in stale)
                    which = "which stays" if len(stale) == 1 else "which stay"
                    dropped_by = f"a migration can drop {'it' if len(stale) == 1 else 'them'}: {drops}"
                    self.aside(f"warning: {path} no longer makes {', '.join(stale)}, {which}; {dropped_by}")
                for one, other in shared:
                    self.aside(f"warning: {path} has made {one} anew, which {other} makes too: remove it from one")
            case events.CodeGone(_, objects):
                left = ", ".join(objects) or "nothing"
                self.aside(f"warning: {path} is gone, but its objects stay: {left}")
        self.document["code"] = [as_json.made(one) for one in self.code]

    def _of_work(self, event: events.OfAFile | events.OfCode) -> None:
        from outreach_migrate.run import events  # here, because a run with nothing to do has none of these

        match event:
            case events.Started(migration):
                self.started, self.progress = (migration, time.monotonic()), ""
                self.tick()
            case events.Applied(migration, seconds, tags):
                self.applied.append(event)
                self.started = None
                self._applied(migration, seconds, tags)
            case events.CodeApplied() | events.CodeGone():
                self._of_code(event)
            case events.Noticed(migration, notice):
                self._noticed(migration, notice)
            case events.Waiting(_, blockers):
                self._once(tuple(blocker.pid for blocker in blockers), map(sentences.blocker, blockers))
            case events.Progressing(migration, progress):
                self._progressing(migration, progress)
            case events.Batched():
                self._batched(event)
            case events.GivingWay() | events.Lagging() | events.Unseen():
                line = f"{sentences.title(event.migration)}  {batches.making_way(event)}"
                self.seldom((type(event), event.migration.version), line)
            case events.Retrying(migration, error, seconds, left):
                why = error.message.removeprefix("canceling statement due to ")
                self.aside(f"{sentences.title(migration)}  {why}; retrying in {seconds:.1f} s ({left} left)")
            case _:
                self.aside(f"{event.migration.path}: {sentences.beside(event)}")

    def tick(self) -> None:
        """Draw the live line with the time that the file has been running."""
        if self.started and self.live:
            migration, began = self.started
            self.running(f"{self.progress}{sentences.title(migration)}  {durations.text(time.monotonic() - began)} …")

    def unknown(self) -> Outcome:
        """Give the outcome of an abandoned run, as far as its events show it."""
        from outreach_migrate.run import recovery

        return recovery.unknown(self.started and self.started[0], self.applied, durable=not self.applied)

    def _planned(self, plan: Plan, steps: tuple[Pending, ...], later: tuple[Pending, ...]) -> None:
        ahead = [step for step in plan.steps if step.state == "ahead"]
        for step in ahead:
            how = "applied" if step.entry and step.entry.finished_at else "unfinished"
            self.aside(f"warning: the database is ahead: {step.version}_{step.name} is {how}, and newer than all files")
        self.document["ahead"] = [as_json.step(step) for step in ahead]
        self.document["later"] = [as_json.step(step) for step in later]
        self.pending, self.later = {step.version: step for step in steps}, later
        if not steps:
            done = sum(step.state in ("applied", "squashed") for step in plan.steps)
            left = sum(step.state in ("pending", "unfinished") for step in plan.steps)  # as with --to
            where = (" before the deployment" if later else " up to this version") if left else ""
            more = f", {sentences.count(left, 'later one is', 'later ones are')} pending" if left else ""
            applied = sentences.count(done, "migration is", "migrations are")
            self.nothing = f"Nothing is pending{where}: {applied} applied{more}."

    def _noticed(self, migration: Migration, notice: ServerMessage) -> None:
        self.aside(f"{migration.path}: {notice.severity}: {notice.message}")
        self.document["notices"].append({"version": as_json.version(migration.version), **as_json.notice(notice)})

    def _progressing(self, migration: Migration, progress: Progress) -> None:
        percent = "" if progress.percent is None else f" {progress.percent:.0f} %"
        text = f"{sentences.title(migration)}  {progress.command.lower()}: {progress.phase}{percent}"
        if self.live:
            filled = round((progress.percent or 0) / 10)
            self.progress = f"[{'#' * filled}{'.' * (10 - filled)}]{percent} {progress.phase}  "
        else:
            self._once("progress", [text])

    def _batched(self, event: events.Batched) -> None:
        done, version = batches.percent(event.rows, event.total), event.migration.version
        self.document["batches"] = [one for one in self.document["batches"] if one["version"] != version]
        self.document["batches"].append(as_json.batched(event))
        if self.live:
            filled = done // 10
            self.progress = f"[{'#' * filled}{'.' * (10 - filled)}] {batches.progress(event)}  "
            self.tick()
        else:
            began = self.started[1] if self.started else 0.0
            line = f"{sentences.title(event.migration)}  {batches.progress(event)}"
            self.seldom((type(event), version), line, since=began)

    def _applied(self, migration: Migration, seconds: float, tags: tuple[str, ...]) -> None:
        applied = terminal.styled("applied", colour="green")
        self.result(f"{sentences.title(migration)}  {applied} in {sentences.took(seconds)}")
        if self.verbosity > 0:
            for tag in tags:
                self.result(f"    {tag}")
        self.pending.pop(migration.version, None)
        self.document["applied"].append(as_json.applied(self.applied[-1]))

    def _once(self, what: object, lines: Iterable[str]) -> None:
        """Report a wait or a long statement when it begins, and then every ten seconds."""
        now = time.monotonic()
        if self.told[0] != what or now - self.told[1] >= self.every:
            self.told = (what, now)
            for line in lines:
                self.aside(line)

    def would_run(self, planned: Planned, steps: Iterable[Pending | CodeStep], *, from_start: int | None) -> None:
        """Print the SQL that a run would send, in order, each file's under its path; with -q the paths only."""
        from outreach_migrate.run import code_plan, plan

        self.event(planned)
        for number, step in enumerate(steps):
            if isinstance(step, code_plan.CodeStep):
                self.nothing = ""
                self._would_carry_out(step, number)
                continue
            path, line, text = plan.to_send(step, from_start)
            self.sql[step.version] = text
            if self.as_json:
                self.result(f"{path}  would be applied")
            elif self.verbosity < 0:
                terminal.say(path)
            else:
                place = path if line == 1 else f"{path}, from line {line} on"
                terminal.say("\n".join([*([""] if number else []), f"-- {place}"]))
                say_sql(step.migration, text)
        if planned.steps:
            pending = sentences.count(len(planned.steps), "migration is", "migrations are")
            self.aside(f"Nothing was run (--dry-run): {pending} pending.")
        self._left()

    def _would_carry_out(self, step: CodeStep, number: int) -> None:
        if step.code is None:
            return
        migration = step.code.migration
        self.document["code"].append({"path": step.path, "sql": migration.sql})
        if self.as_json:
            self.result(f"{migration.path}  would be carried out")
        elif self.verbosity < 0:
            terminal.say(migration.path)
        else:
            terminal.say("\n".join([*([""] if number else []), f"-- {migration.path}"]))
            say_sql(migration, migration.text)

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self.document["pending"] = [
            as_json.step(step) | ({"sql": self.sql[step.version]} if step.version in self.sql else {})
            for step in self.pending.values()
        ]
        super().__exit__(kind, *rest)

    def succeeded(self, result: Result) -> None:
        """Sum up a run that succeeded."""
        if applied := len(self.document["applied"]):
            took = durations.text(result.seconds)
            self.result(f"{sentences.count(applied, 'migration', 'migrations')} applied in {took}.")
        elif self.pending:  # another run applied them
            self.pending.clear()
            self.result("Nothing is left to do: another run has applied the pending migrations.")
        self._left()

    def _left(self) -> None:
        """Say that nothing was pending, and name the files that --before-deploy leaves."""
        if self.nothing:
            self.result(self.nothing)
        if self.later:
            self.aside(sentences.left(self.later, "up"))


def say_sql(migration: Migration, text: str) -> None:
    """Print the SQL that a run would send for a file, with the rows that it copies, so that psql can run it."""
    from outreach_migrate.files import statements

    begin = 0
    for rows in migration.rows.values():
        for part in chain([text[begin : rows.offset]], rows.text(), ["\\.\n"]):
            terminal.say(part, end="")
        begin = rows.offset
    if rest := statements.closed(text[begin:]).rstrip("\n"):
        terminal.say(rest)
