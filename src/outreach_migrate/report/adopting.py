"""The reports of `adopt` and `baseline`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from outreach_migrate import display
from outreach_migrate.adopt import folders
from outreach_migrate.report import printer, sentences, terminal

if TYPE_CHECKING:
    from outreach_migrate.adopt.baseline import Baseline
    from outreach_migrate.adopt.matching import Match
    from outreach_migrate.adopt.taking_over import Nothing, Takeover
    from outreach_migrate.history.forms import Foreign
    from outreach_migrate.schema.drift import Drift


class AdoptReport(printer.Report):
    """The output of `adopt`, and of another command that records migrations without running them."""

    def __init__(self, command: str, *, as_json: bool, verbosity: int) -> None:
        super().__init__(command, as_json=as_json, verbosity=verbosity)
        if command == "adopt":
            self.document |= {"tool": None, "table": None, "written": False, "present": 0, "migrations": []}

    def event(self, event: object) -> None:
        """Print an event: the comparison, or a wait."""
        from outreach_migrate.adopt import taking_over
        from outreach_migrate.history import read
        from outreach_migrate.postgres import connections

        match event:
            case taking_over.Compared(takeover):
                self._compared(takeover)
            case read.Locked():
                self.locked(event)
            case connections.Unreachable(why, _):
                self.aside(f"waiting for the server: {why}")

    def _compared(self, takeover: Takeover) -> None:
        recorded = takeover.recorded
        self.document |= {
            "tool": recorded.table.tool,
            "table": str(recorded.table),
            "zone": recorded.zone,
            "migrations": [value(one) for one in takeover.matches],
        }
        newest = max((int(one.version) for one in takeover.adopted), default=-1)
        for one in takeover.matches:
            version = one.version or "(no file)"
            self.result(f"{version}  {display.in_line(one.name)}  {_told(one, newest)}")
        if recorded.zone:
            self.aside(f"The times have no zone there: they are read in {recorded.zone}, the database's TimeZone.")
        if takeover.adopted and all(one.compared is None for one in takeover.matches):
            self.aside(f"{recorded.table.tool} keeps no checksums, so the files were not compared with those it ran.")

    def taken_over(self, done: Takeover) -> None:
        """Sum up."""
        self.document["written"] = done.written
        table = done.recorded.table
        count = sentences.count(len(done.adopted), "migration", "migrations")
        verb = "would be adopted" if done.adopted and not done.written else "adopted"
        stays = "" if done.renamed or not done.written else ", whose table stays as it is"
        pending = sum(one.verdict == "pending" for one in done.matches)
        rest = f" {sentences.count(pending, 'is', 'are')} pending." if pending else ""
        self.result(f"{count} {verb} from {table.tool} ({table}){stays}.{rest}")
        if any(one.verdict == "applied after --to" for one in done.matches):
            self.aside("Do not bring back the file of one that was left: up would run it again.")
        if done.renamed and done.undo:
            self.document |= {"renamed": done.renamed, "undo": done.undo}
            self.aside(f"{table} is {done.renamed} now. To take all of this back: {done.undo}")

    def nothing(self, found: Nothing) -> None:
        """Say why there is nothing to adopt."""
        self.document["present"] = found.present
        if found.present:
            entries = sentences.count(found.present, "entry", "entries")
            self.aside(f"There is nothing to adopt: the history has {entries} already.")
        elif found.empty:
            self.aside(f"There is nothing to adopt: {_whose(found.empty)} has no applied migration.")
        else:
            places = f"the {'schema' if len(found.schemas) == 1 else 'schemas'} {', '.join(found.schemas)}"
            whose = f"{' or '.join(found.tools)} has" if found.tools else "no tool has"
            self.aside(f"There is nothing to adopt: {whose} {'no' if found.tools else 'a'} table in {places}.")
        for tool in folders.ELSEWHERE.intersection(found.tools):
            self.aside(
                f"{tool} keeps its history elsewhere. If it has run the files: outreach-migrate baseline VERSION"
            )
        for other in found.others:
            self.aside(f"{_whose(other)} is there. If that is the one: outreach-migrate adopt --from {other.tool}")

    def compared(self, drift: Drift) -> None:
        """Print the differences between the database and the files."""
        from outreach_migrate.report import schema

        self.document["drift"] = schema.value(drift)
        for line in (*schema.notes(drift), *schema.lines(drift), schema.summary(drift)):
            self.aside(line)

    def recorded(self, done: Baseline) -> None:
        """Report a baseline."""
        self.document |= record(done)
        for one in done.recorded:
            self.result(f"{sentences.title(one)}  {terminal.styled('recorded', colour='green')}")
        if done.recorded:
            count = sentences.count(len(done.recorded), "migration", "migrations")
            self.result(f"{count} recorded as applied, and not run.")
        else:
            are = sentences.count(done.present, "migration is", "migrations are")
            self.result(f"Nothing to record: {are} recorded as a baseline already.")


def _whose(table: Foreign) -> str:
    return f"{table.tool}'s table {table}"


def _told(match: Match, newest: int) -> str:
    """Word a verdict in short."""
    record = match.record
    if match.verdict == "adopted":
        when = f", applied {record.started_at:%Y-%m-%d %H:%M:%S}" if record and record.started_at else ""
        late = ", after a newer one there" if match.out_of_order else ""
        doubt = " (its checksum can't be compared)" if match.compared is False else ""
        doubt = " (its checksum differs)" if match.edited else doubt
        return f"{terminal.styled('adopted', colour='green')}{when}{late}{doubt}"
    if match.verdict == "pending":
        old = ", and older than the newest adopted one: up will refuse it" if int(match.version) < newest else ""
        return f"{terminal.styled('pending', colour='cyan')}{old}"
    if match.verdict == "applied after --to":
        rest = "and would be run again" if match.migration else "and has no file here"
        return f"{terminal.styled('left', colour='yellow')}, because of --to: it is applied there, {rest}"
    return terminal.styled({"no file": "applied there, no file here"}.get(match.verdict, match.verdict), colour="red")


def record(done: Baseline) -> dict[str, Any]:
    """Turn a baseline into JSON."""
    files = [{"version": one.version, "name": one.name, "path": one.path} for one in done.recorded]
    return {"recorded": files, "present": done.present}


def value(match: Match) -> dict[str, Any]:
    """Turn a migration that another tool has recorded, or a file, into JSON."""
    record = match.record
    times = (record.started_at, record.finished_at or record.started_at) if record else (None, None)
    started, finished = (time.isoformat() if time else None for time in times)
    return {
        "version": match.version or None,
        "name": match.name,
        "path": match.migration and match.migration.path,
        "verdict": str(match.verdict),
        "recorded_as": record and record.name,
        "started_at": started,
        "finished_at": finished,
        "compared": match.compared,
        "out_of_order": match.out_of_order,
        "edited": match.edited,
    }
