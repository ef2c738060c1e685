"""Errors that another try may not meet, and the pauses between the tries."""

from __future__ import annotations

import random

RETRIED = {"55P03", "40P01", "40001"}  # a lock timeout, a deadlock, a serialization failure


def pause_after(retries: int) -> float:
    """Give the seconds until the next try, which double with each, up to 30."""
    return min(30.0, 0.5 * 2.0 ** min(retries, 10)) * random.uniform(0.75, 1.25)
