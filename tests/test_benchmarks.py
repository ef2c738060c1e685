"""The command of `make bench`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(("option", "one"), [("--only", "apply-100"), ("--tool", "dbmate")])
def test_a_misspelt_name_is_reported_with_all_there_are(option: str, one: str) -> None:
    """Nothing is installed or measured for a workload or a peer that there is not."""
    command = [sys.executable, "-m", "benchmarks", option, "nonsense"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 2
    assert f" {one}, " in done.stderr
