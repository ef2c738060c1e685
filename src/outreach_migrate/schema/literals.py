"""Python literals, docstrings and lines as `ruff format` leaves them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDTH = 88


def string(text: str) -> str:
    """Write a string in double quotes, unless single quotes need fewer escapes."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    body = "".join(f"\\{sign}" if sign == quote else sign if sign in "'\"" else repr(sign)[1:-1] for sign in text)
    return f"{quote}{body}{quote}"


def docstring(text: str) -> list[str]:
    """Write the lines of a docstring; none for a text of spaces only."""
    lines = (line.rstrip() for line in inspect.cleandoc(text.expandtabs()).split("\n"))
    body = "\n".join(lines).strip()
    if not body:
        return []
    body = body.replace("\\", "\\\\")
    if body.endswith('"'):
        body = body[:-1] + r"\""
    body = body.replace('"""', r"\"\"\"")
    body = "".join(sign if sign == "\n" or sign.isprintable() else repr(sign)[1:-1] for sign in body)
    start = " " if body.startswith('"') else ""
    first, *rest = f'"""{start}{body}'.split("\n")
    return [first, *rest, '"""'] if rest else [f'{first}"""']


def fits(text: str) -> bool:
    """Tell whether a line is short enough."""
    return len(text) <= _WIDTH


def line(text: str) -> str:
    """Keep a statement in one line, also one that is too long, whose breaks would depend on the settings."""
    return text if fits(text) else f"{text}  # fmt: skip"


def call(function: str, arguments: Sequence[str]) -> list[str]:
    """Write a call in one line if it fits, else an argument a line."""
    short = f"{function}({', '.join(arguments)})"
    return [short] if fits(short) else [f"{function}(", *(f"    {argument}," for argument in arguments), ")"]
