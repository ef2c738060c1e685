"""Commands as processes of their own, to run at once."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 30.0  # s until a test that waits gives up


def parted(stderr: str) -> tuple[str, str | None]:
    """Take the line that names the database out of what a command says: give the rest, and the name."""
    found = re.search("^database: (.*)\n", stderr, re.MULTILINE)
    return (stderr[: found.start()] + stderr[found.end() :], found[1]) if found else (stderr, None)


@dataclass(frozen=True)
class Ended:
    """What a command left behind; `err` without its line that names the `database`."""

    code: int
    out: str
    err: str
    database: str | None = None

    @property
    def said(self) -> str:
        return self.out + self.err


class Run:
    """A command that runs, in `folder`; what it says goes to `output`.out and .err."""

    def __init__(self, arguments: tuple[object, ...], folder: Path, output: Path, env: dict[str, str]) -> None:
        self.output = output
        with output.with_suffix(".out").open("wb") as out, output.with_suffix(".err").open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "outreach_migrate", *map(str, arguments)],
                cwd=folder,
                env={**os.environ, **env},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    def said(self, stream: str) -> str:
        return self.output.with_suffix(f".{stream}").read_text(encoding="utf-8")

    def says(self, words: str) -> str:
        """Wait for a line on stderr that has these words."""
        until(lambda: words in self.said("err") or self.process.poll() is not None)
        found = [line for line in self.said("err").splitlines() if words in line]
        assert found, f"it never said {words!r}, but: {self.said('err')}"
        return found[0]

    def end(self) -> Ended:
        """Wait for the end."""
        code = self.process.wait(PATIENCE)
        return Ended(code, self.said("out"), *parted(self.said("err")))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Run]]:
    """A function that starts a command in the test's folder, with these variables added to the environment."""
    outputs = tmp_path_factory.mktemp("runs")
    with ExitStack() as stack:
        count = iter(range(1000))

        def started(*arguments: object, **env: str) -> Run:
            run = Run(arguments, tmp_path, outputs / str(next(count)), env)
            stack.callback(run.kill)
            return run

        yield started


@pytest.fixture
def run(start: Callable[..., Run]) -> Callable[..., Ended]:
    """A function that runs a command in the test's folder to its end."""
    return lambda *arguments, **env: start(*arguments, **env).end()


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., None]:
    """A function that writes the texts into sql/, as 1_a.sql, 2_a.sql, …."""

    def written(*texts: str) -> None:
        (tmp_path / "sql").mkdir(exist_ok=True)
        for number, text in enumerate(texts, 1):
            (tmp_path / "sql" / f"{number}_a.sql").write_text(text, encoding="utf-8", newline="")

    return written


def until(happened: Callable[[], Any]) -> Any:
    """Wait until this gives something that is true, and give that."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := happened():
            return found
        time.sleep(0.01)
    raise AssertionError("it never happened")
