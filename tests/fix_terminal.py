"""The command line with a terminal for its output."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress

from fix_cli import Migrate


def in_a_terminal(migrate: Migrate, *arguments: str, **environment: str) -> str:
    """Run the command line as a process whose output is a terminal, and give its output."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "outreach_migrate", *arguments]
    env = {**os.environ, "DATABASE_URL": migrate.url, "TERM": "xterm", **environment}
    with subprocess.Popen(command, cwd=migrate.folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        written = b""
        with suppress(OSError):  # EIO: nobody has it open any more
            while True:
                written += os.read(ours, 10_000)
        os.close(ours)
    assert process.returncode == 0
    return written.decode()
