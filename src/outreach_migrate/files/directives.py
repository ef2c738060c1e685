"""The directives in the comments at a file's head."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from outreach_migrate import durations
from outreach_migrate.files import control, squashed, statements
from outreach_migrate.files.control import Isolation
from outreach_migrate.files.statements import Forbidden

if TYPE_CHECKING:
    from collections.abc import Iterator

    from outreach_migrate.files.batches import Batches
    from outreach_migrate.files.outline import Outline

_KNOWN = (
    "The directives are: no-transaction, lock-timeout DURATION (as 30s, 500ms, 2min, 1h), isolation serializable, "
    "isolation repeatable read, after-deploy, variables, code PATH, batches of TABLE by KEY; in a file of code: after "
    "PATH, drop-first, drop."
)
_FLAGS = {"no-transaction", "after-deploy", "variables", "drop-first", "drop"}
_OF_CODE = {"after", "drop-first", "drop"}
_REPEATED = {"code", "after"}
_BATCHES = 'Write it as: -- migrate: batches of "Table" by "key"; for ranges of two seconds, put "each 2s" at its end'
_UNWRITTEN = "Write its SQL here, and remove this line."
_MARK = r"sha[0-9]+:[0-9a-f]+|when:[0-9]+|after:\S+"
_FROM = re.compile(rf"(?P<tool>[a-z-]+)/(?P<name>.+?)(?P<marks>(?: (?:{_MARK}))*)")
_LEVELS = {str(level) for level in Isolation}
_DBMATE = re.compile(r"(?:up|down)\b", re.IGNORECASE)  # ways_down reports these as marks
_DIRECTIVE = re.compile(r"^[ \t]*--[ \t]*migrate:(.*)$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Origin:
    """The migration of another tool that a file was made from, with marks by which `adopt` finds its tool's record.

    `name` is the migration's, without `.sql`. A mark is a checksum that the tool may have recorded (`sha256:…`), the
    `when` of drizzle's journal, or, for a tool whose migrations are a graph, one that this one follows (`after:NAME`).
    """

    tool: str
    name: str
    marks: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([f"{self.tool}/{self.name}", *self.marks])

    @property
    def checksums(self) -> tuple[str, ...]:
        """The checksums among the marks."""
        return tuple(mark for mark in self.marks if mark.startswith("sha"))

    def marked(self, kind: str) -> tuple[str, ...]:
        """Give the values of the marks of a kind, such as `when`."""
        return tuple(mark.partition(":")[2] for mark in self.marks if mark.startswith(f"{kind}:"))


@dataclass(frozen=True, slots=True)
class Directives:
    """A file's directives, with findings about wrong ones; `lock_timeout` is in seconds, 0 for no limit.

    A file that is `after_deploy` needs the new release, as one does that drops a column which the old release reads.
    `of_code` is the offset of the first directive that only a file of code may have, `code_at` that of a `code`.
    """

    transaction: bool
    isolation: Isolation
    lock_timeout: float | None
    findings: tuple[Forbidden, ...]
    origin: Origin | None = None
    after_deploy: bool = False
    has_variables: bool = False
    code: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    drops_first: bool = False
    drops: bool = False
    of_code: int | None = None
    code_at: int | None = None
    batches: Batches | None = None


_PLAIN = Directives(True, Isolation.READ_COMMITTED, None, ())  # those of most files


def read(sql: str, outline: Outline) -> Directives:
    """Read a text's directives; a single statement that can't run in a transaction needs none to run without one."""
    head, lines = _lines(sql)
    return _of(sql, outline, head, lines) if lines or outline.outer or outline.outside else _PLAIN


def _of(sql: str, outline: Outline, head: int, lines: list[re.Match[str]]) -> Directives:
    found, level, findings = _PLAIN, None, list[Forbidden]()
    given = dict[str, re.Match[str]]()
    for line in lines:
        text = line[1].strip()
        word, _, value = text.partition(" ")
        if _DBMATE.match(line[1]) or squashed.is_one(sql, text):
            continue
        if wrong := _misplaced(sql, line, head, word, given):
            findings.append(wrong)
        elif word == "isolation" and " ".join(value.upper().split()) in _LEVELS:
            level = Isolation(" ".join(value.upper().split()))
        elif added := _added(found, word, value, line.start(1)):
            found = added
        else:
            findings.append(_unread(word, text, line.start(1)))
        given.setdefault(word, line)
    transaction = not {"no-transaction", "batches"} & given.keys() and not (outline.count == 1 and outline.outside)
    findings += _contradictions(sql, outline, given.get("isolation"), level, transaction=transaction)
    asked = control.isolation(sql, outline.outer[0]) if outline.outer and not level else level
    return replace(
        found,
        transaction=transaction,
        isolation=asked or Isolation.READ_COMMITTED,
        findings=tuple(findings),
        after_deploy="after-deploy" in given,
        has_variables="variables" in given,
        drops_first="drop-first" in given,
        drops="drop" in given,
        of_code=min((given[word].start(1) for word in _OF_CODE & given.keys()), default=None),
        code_at=given["code"].start(1) if "code" in given else None,
    )


def _misplaced(
    sql: str, line: re.Match[str], head: int, word: str, given: dict[str, re.Match[str]]
) -> Forbidden | None:
    """Find a directive below the head, or one that was given before."""
    if line.start() > head:
        return Forbidden(line.start(1), "a directive belongs before the first statement")
    if word in given and word not in _REPEATED:
        first, _ = statements.place(sql, given[word].start())
        return Forbidden(line.start(1), f"{word} was given on line {first} already", "Remove one of the two.")
    return None


def _added(found: Directives, word: str, value: str, offset: int) -> Directives | None:
    """Add a directive to those that were found; None if it can't be read."""
    match word:
        case "code" if value:
            return replace(found, code=(*found.code, value))
        case "after" if value:
            return replace(found, after=(*found.after, value))
        case "lock-timeout" if (limit := durations.seconds(value)) is not None:
            return replace(found, lock_timeout=limit)
        case "from" if origin := _FROM.fullmatch(value):
            return replace(found, origin=Origin(origin["tool"], origin["name"], tuple(origin["marks"].split())))
        case "batches" if read := _batches(value, offset):
            return replace(found, batches=read)
    return found if word in _FLAGS and not value else None


def _batches(value: str, offset: int) -> Batches | None:
    from outreach_migrate.files import batches  # here, because few files have it

    return batches.read(value, offset)


def _unread(word: str, text: str, offset: int) -> Forbidden:
    """Give the finding about a directive that can't be read."""
    if word == "unwritten":
        return Forbidden(offset, f"this migration has no SQL yet: {text.partition(' ')[2]}", _UNWRITTEN)
    if word == "batches":
        return Forbidden(offset, "batches needs a table and its key", _BATCHES)
    return Forbidden(offset, f"unknown directive: {text}", _KNOWN)


def _contradictions(
    sql: str, outline: Outline, line: re.Match[str] | None, level: Isolation | None, *, transaction: bool
) -> Iterator[Forbidden]:
    if not (line and level):
        return
    if not transaction:
        hint = "Remove it: each statement commits by itself, and is READ COMMITTED."
        yield Forbidden(line.start(1), "a file without a transaction has no isolation level", hint)
    elif outline.outer and control.names_level(outline.outer[0]) and control.isolation(sql, outline.outer[0]) != level:
        yield Forbidden(
            line.start(1), "BEGIN asks for another isolation level", "Remove BEGIN and COMMIT, or this line."
        )


def _lines(sql: str) -> tuple[int, list[re.Match[str]]]:
    """Find the start of the first statement, and the directives outside of statements and /* comments."""
    if not ("igrate:" in sql or "IGRATE:" in sql) or not (matches := list(_DIRECTIVE.finditer(sql))):
        return 0, []
    spans = [(statement.start, statement.end) for statement in statements.split(sql)]
    outside = [match for match in matches if not any(start < match.start(1) < end for start, end in spans)]
    bare = [match for match in outside if not _in_comment(sql, match.start())]
    return spans[0][0] if spans else len(sql), bare


def _in_comment(sql: str, offset: int) -> bool:
    """Tell whether a /* comment is open at an offset between statements, by whether a statement put there counts."""
    last = deque(statements.split(sql[:offset] + ";x"), maxlen=1)[0]
    return last.start != offset + 1
