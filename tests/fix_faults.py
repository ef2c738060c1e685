"""How many rounds the fault tests have, and with which seeds.

OUTREACH_FAULT_ROUNDS is 100 in `make test-faults`; OUTREACH_FAULT_SEED, with one round, has a failed round again.
"""

from __future__ import annotations

import os
import random

import pytest

ROUNDS = int(os.environ.get("OUTREACH_FAULT_ROUNDS") or 1)
LONG = ROUNDS >= 100  # there is time
# in the environment, where the processes of pytest-xdist find the same one
SEED = int(os.environ.setdefault("OUTREACH_FAULT_SEED", str(random.randrange(1_000_000))))


def pytest_report_header(config: pytest.Config) -> str:
    return f"faults: {ROUNDS} rounds, the first one with OUTREACH_FAULT_SEED={SEED}"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give `seed` to a test that asks for it, once a round, so each round has a database of its own."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(SEED, SEED + ROUNDS), ids="seed{}".format)
