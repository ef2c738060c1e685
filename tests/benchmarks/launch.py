"""Run a command so many times at once, and write what it cost as JSON.

A small process of its own, for a child's peak memory is never less than that of the process it was started from.
"""

import json
import os
import signal
import sys
import time


def main() -> None:
    """Take the result's file, the output's file, the limit in seconds, the number of runs, and the command."""
    result, output, limit, count, *command = sys.argv[1:]
    quiet = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    files: list[tuple[object, ...]] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, output, quiet, 0o600),
    ]
    files.append((os.POSIX_SPAWN_DUP2, 1, 2))
    children: list[int] = []

    def stop(*_: object) -> None:
        for child in children:
            os.killpg(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(int(limit))
    began = time.monotonic()
    for _ in range(int(count)):
        children.append(os.posix_spawnp(command[0], command, os.environ, file_actions=files, setpgroup=0))
    ends = [os.wait4(child, 0)[1:] for child in children]
    wall = time.monotonic() - began
    signal.alarm(0)
    cost = {
        "wall": wall,
        "cpu": sum(usage.ru_utime + usage.ru_stime for _, usage in ends),
        "memory": max(usage.ru_maxrss for _, usage in ends) * (1 if sys.platform == "darwin" else 1024),
        "codes": [os.waitstatus_to_exitcode(status) for status, _ in ends],
    }
    with open(result, "w") as file:
        json.dump(cost, file)


if __name__ == "__main__":
    main()
