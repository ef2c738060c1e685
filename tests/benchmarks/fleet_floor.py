"""The floor of a fleet: psycopg in eight bare threads that send all messages of `up`, the look's and the file's.

A thread connects once for each database.
"""

import json
import sys
import threading
from collections.abc import Iterator

import psycopg

THREADS = 8


def main() -> None:
    """Take a file with the targets, as pairs of a URL and the messages for it."""
    with open(sys.argv[1], encoding="utf-8") as file:
        targets = iter(json.load(file))
    lock = threading.Lock()
    threads = [threading.Thread(target=work, args=(targets, lock)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def work(targets: Iterator[tuple[str, list[str]]], lock: threading.Lock) -> None:
    """Migrate one target after another; a connection is used again for the same URL."""
    connection, connected = None, ""
    while True:
        with lock:
            url, messages = next(targets, ("", []))
        if connection and url != connected:
            connection.close()
        if not url:
            return
        if connection is None or url != connected:
            connection, connected = psycopg.connect(url, autocommit=True, prepare_threshold=None), url
        for message in messages:
            connection.execute(message.encode())


if __name__ == "__main__":
    main()
