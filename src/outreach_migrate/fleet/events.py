"""The events that a fleet reports while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from outreach_migrate.errors import Contradiction, MigrateError, Problem
from outreach_migrate.postgres.connections import Unreachable
from outreach_migrate.run import events, sessions
from outreach_migrate.run.plan import Pending, Plan, Planned

if TYPE_CHECKING:
    from outreach_migrate.adopt.baseline import Baseline
    from outreach_migrate.adopt.taking_over import Nothing, Takeover
    from outreach_migrate.run.code_plan import CodeStep
    from outreach_migrate.schema.drift import Drift

    Value = Takeover | Nothing | Baseline | Drift


@dataclass(frozen=True, slots=True)
class Found:
    """The targets were found; `targets` is their number, `canary` has the names of those that run alone, first."""

    targets: int
    canary: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Begun:
    """A worker has turned to a target."""

    target: str


@dataclass(frozen=True, slots=True)
class PutOff:
    """A target goes to the back of the queue, for example because of a lock; `left` counts this retry too."""

    target: str
    error: MigrateError
    seconds: float
    left: int


@dataclass(frozen=True, slots=True)
class Reported:
    """The run of a target has reported this event."""

    target: str
    event: events.Noticed | events.Waiting | events.OfBatches | events.Beside | events.CodeGone


@dataclass(frozen=True, slots=True)
class Fewer:
    """The server refuses more connections, so only so many workers go on there.

    The target is tried again, and now and then one more connection.
    """

    target: str
    server: str
    workers: int
    error: MigrateError


@dataclass(frozen=True, slots=True)
class Ended:
    """A target is migrated, was up to date, or failed.

    `pending` are the steps that were to run and have not, `later` those that --before-deploy leaves; both are empty if
    the target's history could not be read.
    """

    target: str
    applied: tuple[events.Applied, ...]
    pending: tuple[Pending, ...]
    seconds: float
    error: MigrateError | None = None
    code: tuple[events.CodeApplied, ...] = ()
    later: tuple[Pending, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """A target was looked at; without a plan its history could not be read, because of `error`.

    `problems` are those that `status` shows. A plan is shared by all targets with the same history, and its entries
    have the times of one of them. `code` are the files of code that the next run carries out.
    """

    target: str
    plan: Plan | None
    problems: tuple[Problem | Contradiction, ...]
    seconds: float
    error: MigrateError | None = None
    code: tuple[CodeStep, ...] = ()


@dataclass(frozen=True, slots=True)
class Would:
    """A target would be migrated like this, or is up to date: then the plan has no steps, and there is no code."""

    target: str
    planned: Planned
    code: tuple[CodeStep, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class Halted:
    """The failures of a dry run would end a run, too: it would not start the targets `kept`.

    They are those of which that is sure: of several databases some may be at work before the failure.
    """

    kept: frozenset[str]
    by_canary: bool


@dataclass(frozen=True, slots=True)
class Succeeded:
    """A target was adopted, recorded or compared, with this result."""

    target: str
    value: Value
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A target could not be adopted, recorded or compared, or would be refused."""

    target: str
    error: MigrateError
    seconds: float


TOLD = (events.Noticed, events.Waiting, *get_args(events.OfBatches), *get_args(events.Beside), events.CodeGone)
Event = Found | Begun | PutOff | Reported | Fewer | Ended | Seen | Would | Halted | Succeeded | Failed | Unreachable
Tell = Callable[[Event], None]
one_at_a_time = sessions.one_at_a_time
