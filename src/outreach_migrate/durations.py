"""Durations, as people write and read them."""

from __future__ import annotations

import re

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|)")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_LONGEST = 2_147_483  # s: PostgreSQL keeps milliseconds in 32 bits


def seconds(text: str) -> float | None:
    """Read a duration such as 30s, 500ms, 5m, 5min, 1h, or 30 (seconds); None if it is none, or too long."""
    match = _DURATION.fullmatch(text.strip())
    value = float(match[1]) * _UNITS[match[2]] if match else None
    return value if value is not None and value <= _LONGEST else None


def text(seconds: float) -> str:
    """Write a duration for people: 500 ms, 2.5 s, 3 min 20 s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
