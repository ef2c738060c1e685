"""The report of a fleet: a line a target, if asked for, and one for the whole."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from outreach_migrate import display, errors
from outreach_migrate.report import addresses, batches, printer, sentences, terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from outreach_migrate.errors import MigrateError, Outcome
    from outreach_migrate.fleet import events
    from outreach_migrate.run import events as of_run

_NAMES = 10  # that a line shows
_CANCELLED = "57014"  # a statement, by statement_timeout or by somebody


class FleetReport(printer.Report):
    """The output for many targets; with JSON a line for each as it ends, and one for the whole."""

    def __init__(self, command: str, *, as_json: bool, verbosity: int) -> None:
        super().__init__(command, as_json=as_json, verbosity=verbosity)
        self.began = self.told = time.monotonic()
        self.targets = 0
        self.addresses = addresses.Addresses("targets")
        self.canary: tuple[str, ...] = ()
        self.canary_failed = False
        self.done = 0  # of the targets
        self.at_work: dict[str, None] = {}
        self.batched: dict[str, dict[str, of_run.Batched]] = {}  # the progress of files in batches: target, version
        self.put_off = set[str]()
        self.fewest: dict[str, int] = {}  # targets at once, of a server that refused a connection
        self.applied = 0  # of the files, in all targets
        self.wrong: list[str] = []
        self.notes: dict[str, dict[str, None]] = {}  # lines for the end, with the targets that each is about
        self.lasting = False  # whether an error would come again
        self.first: dict[object, str] = {}  # the first target with an error, or with a wait

    def event(self, event: events.Event) -> None:
        """Print an event; a subclass prints the end of a target itself."""
        from outreach_migrate.fleet import events
        from outreach_migrate.postgres import connections

        match event:
            case events.Found(targets, canary):
                self.targets, self.canary = targets, canary
            case events.Begun(target):
                self.at_work[target] = None
                self.put_off.discard(target)
            case events.Fewer():
                self._fewer(event)
            case connections.Unreachable(why, _):
                self.aside(f"waiting for the server: {why}")
            case events.PutOff():
                self._put_off(event)
            case events.Reported(target, told):
                self._told(target, told)

    def leave(self, target: str) -> None:
        """Count a target that has ended."""
        self.at_work.pop(target, None)
        self.put_off.discard(target)
        self.last.pop(target, None)
        self.done += 1

    def _fewer(self, event: events.Fewer) -> None:
        """Say that a server gets fewer connections, but not again when one more was tried in vain."""
        self.at_work.pop(event.target, None)
        if event.workers < self.fewest.get(event.server, event.workers + 1):
            self.fewest[event.server] = event.workers
            name, at_once = display.in_line(event.target), sentences.count(event.workers, "target", "targets")
            self.aside(f"{name}  the server refuses more connections, so {at_once} at once: {event.error.message}")

    def _put_off(self, event: events.PutOff) -> None:
        self.at_work.pop(event.target, None)
        self.put_off.add(event.target)
        error = event.error
        file = f"  {error.location.path}" if isinstance(error, errors.StatementError) else ""
        why = sentences.message(error).removeprefix("canceling statement due to ")
        again = f"goes to the back, to be retried in {event.seconds:.1f} s or later ({event.left} left)"
        self.aside(f"{display.in_line(event.target)}{file}  {why}: {again}")
        for one in getattr(error, "blockers", ()):
            self.aside(f"    {sentences.blocker(one, 'in the way:')}")

    def note(self, target: str, line: str) -> None:
        """Keep a line about a target for the end, because many targets have the same."""
        self.notes.setdefault(line, {})[target] = None

    def _told(
        self,
        target: str,
        event: of_run.Noticed | of_run.Waiting | of_run.OfBatches | of_run.Beside | of_run.CodeGone,
    ) -> None:
        from outreach_migrate.run import events

        if isinstance(event, events.CodeGone):
            self.note(target, f"warning: code  {event.path} is gone, but its objects stay")
            return
        name, path = display.in_line(target), event.migration.path
        match event:
            case events.Noticed(_, notice):
                if self.verbosity > 0:
                    self.aside(f"{name}  {path}: {notice.severity}: {notice.message}")
            case events.Waiting(_, blockers):
                key = (target, *(one.pid for one in blockers))
                if self.verbosity > 0 and key not in self.first:
                    self.first[key] = target
                    for one in blockers:
                        self.aside(f"{name}  {sentences.blocker(one)}")
            case events.Batched():
                self.batched.setdefault(target, {})[event.migration.version] = event
                if self.verbosity > 0:
                    self.seldom(target, f"{name}  {path}  {batches.progress(event)}")
            case events.GivingWay() | events.Lagging() | events.Unseen():
                self.seldom(type(event), f"{name}  {path}  {batches.making_way(event)}")
            case _:
                self.aside(f"{name}  {path}: {sentences.beside(event)}")

    def tick(self) -> None:
        """Show the progress: on a terminal in a live line, elsewhere in a line every ten seconds."""
        if self.live:
            self.running(self._progress())
        elif self.targets and time.monotonic() - self.told >= self.every:
            self.told = time.monotonic()
            self.aside(self._progress())

    def _progress(self) -> str:
        parts = [f"{self.done:,} of {self.targets:,}"]
        parts += [f"{len(self.at_work)} running"] if self.at_work else []
        parts += [f"{len(self.put_off)} waiting"] if self.put_off else []
        parts += [f"{len(self.wrong)} failed"] if self.wrong else []
        passed, left = time.monotonic() - self.began, self.targets - self.done
        if self.done and left and passed > 1 and (seconds := passed / self.done * left) >= 1:
            parts.append(f"{_clock(seconds)} left")
        named = ", ".join(map(self._named, self.at_work or self.put_off))
        return "  ".join(filter(None, [*parts, named or ("" if self.done else "reading the histories")]))

    def _named(self, target: str) -> str:
        """Name a target, with the percentage of a file in batches that is not done."""
        last = next(reversed(self.batched.get(target, {}).values()), None)
        how_far = f" {batches.percent(last.rows, last.total)} %" if last and last.rows < last.total else ""
        return f"{display.in_line(target)}{how_far}"

    def unknown(self) -> Outcome:
        """Name the targets that a signal ended too late to find out their state."""
        for target in self.at_work:
            self.aside(f"{display.in_line(target)}  is abandoned: fleet status shows its state")
        self.wrong += self.at_work
        self.done += len(self.at_work)
        return errors.Outcome(None, before=self.applied)

    def target_failed(self, target: str, error: MigrateError) -> None:
        """Print the error of a target; one that another target had before is not printed again."""
        self.wrong.append(target)
        self.lasting |= not _passes(error)
        self.canary_failed |= target in self.canary and not isinstance(error, errors.Interrupted)
        error = self.addresses.error(target, error)
        place = str(error.location) if isinstance(error, errors.StatementError) else ""
        first = self.first.setdefault((type(error), place, error.message), target)
        name = display.in_line(target)
        self._clear()
        if first is target or isinstance(error, errors.Interrupted | errors.Refused):
            terminal.say(f"{name} failed:\n{sentences.error(error)}", err=True)
        else:
            terminal.say(
                f"{name} failed as {display.in_line(first)}: {sentences.message(error).splitlines()[0]}", err=True
            )

    def print_document(self) -> None:
        """Print the last line."""
        self.print_line(self.document | {"summary": self.summary()})

    def summary(self) -> dict[str, Any]:
        """Count the targets."""
        return {
            "targets": self.targets,
            **self.counted(),
            "failed": len(self.wrong),
            "not_started": self.targets - self.done,
            "seconds": self.seconds(),
        }

    def counted(self) -> dict[str, int]:
        """Count the targets that have ended well."""
        raise NotImplementedError

    def sentence(self) -> str:
        """Sum the targets up."""
        raise NotImplementedError

    def amiss(self) -> list[str]:
        """Name the targets that failed, and count those that were not started."""
        parts = [f"{len(self.wrong):,} failed ({names(self.wrong)})"] if self.wrong else []
        return parts + ([f"{self.targets - self.done:,} not started"] if self.targets > self.done else [])

    def ended(self) -> None:
        """Sum up the whole."""
        for line, targets in self.notes.items():
            self.aside(f"{line} ({count(len(targets))}: {names(targets)})")
        self.document["ok"] = not self.wrong and not self.document["error"]
        self.result(self.sentence())

    def failed(self, error: MigrateError) -> None:
        """Print an error that ends the whole, and sum up the targets before it."""
        super().failed(error)
        self.lasting |= not _passes(error)
        if self.targets:
            self.ended()

    def seconds(self) -> float:
        """Give the time since the command began."""
        return round(time.monotonic() - self.began, 3)


def _passes(error: MigrateError) -> bool:
    """Tell whether another run may do better without a correction: after a timeout, a lost connection, a signal."""
    if isinstance(error, errors.ConnectionFailed):
        return error.transient or error.outcome is not None
    if isinstance(error, errors.StatementError):
        from outreach_migrate.run import retries

        return error.sqlstate in retries.RETRIED | {_CANCELLED}
    return isinstance(error, errors.HistoryLocked | errors.Interrupted)


def count(targets: int) -> str:
    """Write a number of targets."""
    return f"{targets:,} {'target' if targets == 1 else 'targets'}"


def names(targets: Iterable[str]) -> str:
    """List the first names, and the number of the rest."""
    every = [display.in_line(one) for one in targets]
    more = f" and {len(every) - _NAMES:,} more" if len(every) > _NAMES else ""
    return ", ".join(every[:_NAMES]) + more


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"
