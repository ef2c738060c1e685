"""The plan of a run, and the checks of files, history and server before anything runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from outreach_migrate import errors
from outreach_migrate.history import catalog
from outreach_migrate.run import plan
from outreach_migrate.run.plan import Planned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from outreach_migrate.errors import Problem
    from outreach_migrate.files.code import Code
    from outreach_migrate.files.migrations import Migration
    from outreach_migrate.history.read import History
    from outreach_migrate.run.plan import Pending, Plan
    from outreach_migrate.run.request import Request


def plan_of(past: History, request: Request) -> Planned:
    """Make the plan, and choose the steps to run.

    Raise errors.UsageError when the requested version does not exist, else errors.Refused with every problem of files
    and history.
    """
    whole = plan.make(request.files, past.entries)
    steps = whole.to_run(to=request.to, out_of_order=request.out_of_order)
    if whole.steps:
        _check_versions(whole, steps, request)
    if foreign := unadopted(past, request.files):
        raise errors.NotAdopted(foreign)
    wrong = [*request.file_problems]
    wrong += [*of_texts(steps), *_unmet(steps, request.code or ())]
    contradictions = whole.contradictions(out_of_order=request.out_of_order, from_start=request.from_start)
    if contradictions:
        raise errors.HistoryError([*wrong, *contradictions])
    if wrong:
        raise errors.MigrationFileError(wrong)
    return Planned(whole, *plan.parted(steps)) if request.before_deploy else Planned(whole, steps)


def unadopted(past: History, files: tuple[Migration, ...]) -> tuple[Problem, ...]:
    """Find the history of another tool that must be adopted first, because its files would run a second time.

    It counts if the files' first lines name the tool. Without such lines the files may be copies made by hand, unless
    --table or ?schema= says that this history is to be a new one.
    """
    tools = (
        {migration.directives.origin.tool for migration in files if migration.directives.origin} if past.foreign else ()
    )
    doubtful = not tools and not past.table.chosen
    found = tuple(one for one in past.foreign if one.tool in tools or doubtful)
    return (catalog.unadopted(past.table, found, doubtful=doubtful),) if found else ()


def of_texts(steps: Sequence[Pending]) -> list[Problem]:
    """List the problems of the files' texts."""
    if not steps:
        return []
    from outreach_migrate.files import rules  # here, because no text is read if nothing is pending

    return [problem for step in steps for problem in rules.problems(step.migration)]


def _unmet(steps: Sequence[Pending], code: Sequence[Code]) -> list[Problem]:
    """List the variables without a value, and the files of code that are named and not there.

    A file of code needs its values in each run, because only the records tell whether it is carried out.
    """
    if not steps and not any(one.migration.written for one in code):
        return []
    from outreach_migrate.files import rules

    known = {one.path for one in code}
    every = [*(step.migration for step in steps), *(one.migration for one in code)]
    missing = [problem for migration in every for problem in rules.without_value(migration)]
    return missing + [problem for step in steps for problem in rules.without_code(step.migration, known)]


def to_carry_out(past: History, request: Request) -> Planned:
    """Make the plan of a run; raise as `plan_of` does, and MigrateError when steps are to run on a read-only server."""
    planned = plan_of(past, request)
    if planned.steps:
        must_be_writable(past)
    return planned


def _check_versions(whole: Plan, steps: tuple[Pending, ...], request: Request) -> None:
    if request.to is not None and request.to not in {int(step.version) for step in whole.steps}:
        newest = f"The newest version is {whole.steps[-1].version}."
        raise errors.UsageError(f"no migration has version {request.to}", hint=newest)
    unfinished = {int(step.version) for step in steps if step.state is plan.State.UNFINISHED}
    if request.from_start is not None and request.from_start not in unfinished:
        hint = "--from-start runs an unfinished file anew: status shows which files are unfinished."
        raise errors.UsageError(f"no unfinished migration has version {request.from_start}", hint=hint)


def must_not_be_partly_replaced(whole: Plan) -> None:
    """Raise HistoryError if the entries are not those that a squashed file replaces: one more would spoil them."""
    if whole.partly:
        raise errors.HistoryError([whole.partly])


def must_be_writable(past: History) -> None:
    """Raise MigrateError if the server is a standby, or writes nothing by default."""
    if past.standby:
        hint = "Connect to the primary; the program finds it when the URL names several hosts."
        raise errors.MigrateError("the server is a standby and can only be read", hint=hint)
    if past.read_only:
        hint = "Turn it off for the role that migrates: ALTER ROLE … SET default_transaction_read_only = off"
        raise errors.MigrateError("nothing can be written, because default_transaction_read_only is on", hint=hint)
