"""Statements that begin, end or set a transaction, which a file may not have."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from outreach_migrate.files import outline, statements
from outreach_migrate.files.phrases import any_of
from outreach_migrate.files.statements import Forbidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from outreach_migrate.files.outline import Outline
    from outreach_migrate.files.statements import Statement


class Isolation(StrEnum):
    """The isolation level of a file's transaction."""

    READ_COMMITTED = "READ COMMITTED"
    REPEATABLE_READ = "REPEATABLE READ"
    SERIALIZABLE = "SERIALIZABLE"


class _Role(Enum):
    """The part of a statement in a pair of BEGIN and COMMIT."""

    OPENS = "begins a transaction"
    CLOSES = "ends one, and does no more"


_BLOCK, _PAUSE = (_Role.OPENS, _Role.CLOSES), (_Role.CLOSES, _Role.OPENS)
_SETS = any_of("set [local] transaction|transaction_isolation")
_ADDS_VALUE = any_of("alter type … add value")
_LASTS = any_of(  # up to the end of the transaction
    "set local unless transaction|transaction_isolation|transaction_read_only|transaction_deferrable",
    "set constraints",
    "create … on commit",
)
_REPEATABLE_READ = any_of("repeatable read")
_REASONS = {
    any_of("reset", "to|= default"): "PostgreSQL can't reset it, and a file's transaction has the default.",
    any_of("read only", "transaction_read_only"): "A file can't be READ ONLY: its transaction writes the entry.",
    any_of("deferrable|transaction_deferrable"): "DEFERRABLE is for transactions that only read.",
    any_of("snapshot"): "A file's transaction has a snapshot of its own.",
    any_of("read uncommitted"): "PostgreSQL takes READ UNCOMMITTED for READ COMMITTED, which a file has anyway.",
}

_ONE = "The file runs in a transaction of its own. To undo a part of it, use SAVEPOINT and ROLLBACK TO."
_ONE_EACH = (
    "In a file without a transaction each statement commits by itself: put statements that belong together into "
    "another file."
)


def isolation(sql: str, statement: Statement) -> Isolation:
    """Read the isolation level that BEGIN or SET TRANSACTION names, READ COMMITTED for none."""
    words = _said(sql, statement)
    if "serializable" in words:
        return Isolation.SERIALIZABLE
    return Isolation.REPEATABLE_READ if _REPEATABLE_READ.are_in(words) else Isolation.READ_COMMITTED


def sets_modes(sql: str, statement: Statement) -> bool:
    """Tell whether a statement sets the modes of its transaction, by SET or by set_config()."""
    if any(word.startswith("transaction") for word in statement.words[1:3]):
        return True
    words = _said(sql, statement)
    calls = zip(words, words[1:], words[2:], strict=False)
    return any(one == ["set_config", "("] and name.startswith("transaction_") for *one, name in calls)


def names_level(statement: Statement) -> bool:
    """Tell whether BEGIN names an isolation level."""
    return "isolation" in statement.words


def superfluous(sql: str, whole: Outline) -> tuple[tuple[Statement, ...], Isolation | None]:
    """Give the statements that a file in one transaction can do without, and the isolation level that they set.

    These are BEGIN and COMMIT that belong together, unless that COMMIT ends something which would change the rest of
    the file; and SET TRANSACTION, unless it sets more than the level, or there are two levels.
    """
    inner = [statement for statement in whole.control if statement not in (whole.outer or ())]
    settings = [one for one in inner if _SETS.end(one.words) and not _reasons(_said(sql, one))]
    levels = {isolation(sql, one) for one in settings} - {Isolation.READ_COMMITTED}
    level = levels.pop() if len(levels) == 1 else None
    found = [one for one in settings if level and isolation(sql, one) is level]
    pairs = list(_pairs([one for one in inner if one.words[0] != "set"]))
    if all(not _modes(sql, one, transaction=True) for pair in pairs for one in pair) and not any(
        _ends_with(sql, one) for pair in pairs for one in pair[_roles(*pair) == _BLOCK :]
    ):
        found += [one for pair in pairs for one in pair]
    return tuple(sorted(found, key=lambda one: one.start)), level


def pauses(whole: Outline) -> tuple[Statement, ...]:
    """Give each COMMIT and the BEGIN after it, if a text has no other statements about transactions."""
    pairs = list(_pairs(list(whole.control)))
    if len(pairs) * 2 < len(whole.control) or any(_roles(*pair) != _PAUSE for pair in pairs):
        return ()
    return tuple(one for pair in pairs for one in pair)


def _pairs(control: list[Statement]) -> Iterator[tuple[Statement, Statement]]:
    left = iter(control)
    first = next(left, None)
    while first:
        second = next(left, None)
        if second and _roles(first, second) in (_BLOCK, _PAUSE):
            yield first, second
            second = next(left, None)
        first = second


def _ends_with(sql: str, commit: Statement) -> bool:
    """Tell whether a COMMIT ends something that the statements after it would meet if it were left out.

    So does a BEGIN after a COMMIT: each statement between the two commits by itself.
    """
    from outreach_migrate.files import scanner  # few files get here

    for one in statements.split(sql):
        if one.start >= commit.start:
            return False
        if _LASTS.end(one.words) and next(statements.split(sql[commit.end :]), None):
            return True
        if _ADDS_VALUE.end(one.words):  # PostgreSQL: new enum values must be committed before they can be used
            tokens = scanner.tokens(sql, one.start, one.end)
            value = next((token.text for token in tokens if token.kind is scanner.Kind.STRING), "")
            if value in sql[one.end if _role(commit) is _Role.OPENS else commit.end :]:
                return True
    return False


def findings(
    sql: str, whole: Outline, *, transaction: bool, place: Callable[[int], tuple[int, int]]
) -> Iterator[Forbidden]:
    """Yield the statements that a file may not have; BEGIN and COMMIT that belong together are one finding.

    Around a whole file in a transaction they are harmless, and so is SET TRANSACTION to the file's own level. `place`
    turns an offset into line and column.
    """
    outer = whole.outer or () if transaction else ()
    left = iter([statement for statement in whole.control if statement not in outer])
    following = next(left, None)
    while statement := following:
        following = next(left, None)
        if statement.words[0] in ("set", "reset"):  # see no_transaction for files that have none
            yield from _setting(sql, statement) if transaction else ()
        elif following and _roles(statement, following) in (_BLOCK, _PAUSE):
            yield _pair(sql, statement, following, transaction=transaction, line=place(following.start)[0])
            following = next(left, None)
        else:
            message = outline.REFUSED.format(_name(statement))
            yield Forbidden(statement.start, message, _ONE if transaction else _ONE_EACH)


def _setting(sql: str, statement: Statement) -> Iterator[Forbidden]:
    if wrong := _modes(sql, statement, transaction=True):
        yield Forbidden(statement.start, outline.REFUSED.format(_name(statement)), " ".join(["Remove it.", *wrong]))


def _pair(sql: str, first: Statement, second: Statement, *, transaction: bool, line: int) -> Forbidden:
    lines = " lines" if "\n" in sql[first.start : second.start] else ""
    why = (
        "the whole file is one transaction" if transaction else "without a transaction each statement commits by itself"
    )
    modes = [mode for one in (first, second) for mode in _modes(sql, one, transaction=transaction)]
    message = outline.REFUSED.format(f"{_name(first)}, with {_name(second)} on line {line},")
    return Forbidden(first.start, message, " ".join([f"Remove both{lines}: {why}.", *modes]))


def _modes(sql: str, statement: Statement, *, transaction: bool) -> list[str]:
    """Word the hint about a transaction's modes that a file can't have, or can't set in this way."""
    if _role(statement) is _Role.CLOSES:
        return []
    said = _reasons(_said(sql, statement))
    level = isolation(sql, statement)
    if level is not Isolation.READ_COMMITTED:
        other = f"Begin the file with: -- migrate: isolation {level.lower()}"
        said.append(other if transaction else "In a file without a transaction each statement is READ COMMITTED.")
    return said


def _reasons(words: list[str]) -> list[str]:
    """Give the reasons for which a file can't set the modes that these words name."""
    return [reason for one, reason in _REASONS.items() if one.are_in(words)]


def _said(sql: str, statement: Statement) -> list[str]:
    """Give a statement's words, with those in quotes, because a mode's value may be a string."""
    from outreach_migrate.files import scanner  # here, because few files need it

    read = scanner.tokens(sql, statement.start, statement.end)
    return [word for token in read for word in ([token.word] if token.word else token.name.lower().split())]


def _roles(*pair: Statement) -> tuple[_Role | None, ...]:
    return tuple(map(_role, pair))


def _role(statement: Statement) -> _Role | None:
    if outline.OPENS.end(statement.words):
        return _Role.OPENS
    return _Role.CLOSES if outline.CLOSES.end(statement.words) == len(statement.words) else None


def _name(statement: Statement) -> str:
    return " ".join(statement.words[: outline.CONTROL.end(statement.words)]).upper()
