"""Text for a terminal: control characters escaped, columns counted."""

from __future__ import annotations

import re

# Control characters except newline and tab, marks that change the direction of writing, and undecodable bytes
_UNSHOWN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""Escape characters that a terminal would act on or can't show, as \x1b; newlines and tabs stay."""
    return text if text.isprintable() else _UNSHOWN.sub(lambda found: ascii(found[0])[1:-1], text)


def in_line(text: str) -> str:
    r"""Escape a text that must stay in one line, newlines as \n."""
    return text if text.isprintable() else escaped(text).replace("\n", "\\n").replace("\t", "\\t")


def in_json(document: str) -> str:
    """Escape the same characters in a JSON document, because its writer leaves some of them as they are."""
    return _UNSHOWN.sub(lambda found: f"\\u{ord(found[0]):04x}", document)


def count(number: int, one: str, many: str) -> str:
    """Write a number with its noun, or with noun and verb."""
    return f"{number} {one if number == 1 else many}"


def width(text: str) -> int:
    """Count the columns that a text takes: two for a wide character, none for one that combines.

    https://www.unicode.org/reports/tr11/
    """
    if text.isascii():
        return len(text)
    import unicodedata  # here, because few texts need it

    combining = {"Mn", "Me", "Cf"}
    return sum(
        0 if unicodedata.category(one) in combining else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def padded(text: str, columns: int) -> str:
    """Fill a text with spaces up to a width."""
    return text.ljust(columns) if text.isascii() else text + " " * (columns - width(text))
