"""A proxy before a server: it counts the clients' messages, makes the way longer, and cuts it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Self
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

# The messages without a type, known by the number after their length.
# https://www.postgresql.org/docs/current/protocol-message-formats.html
_UNTYPED = {80877102: "CancelRequest", 80877103: "SSLRequest", 80877104: "GSSENCRequest"}


class Proxy:
    """A server's double at `url`, from `with` to its end.

    `messages` are the types of all that clients sent, in order: SSLRequest, Startup, then protocol letters (Q, X, …).
    `answered` counts the bytes that the server sent. `round_trip`, in seconds, passes before what a client sent reaches
    the server.
    """

    def __init__(self, url: str, *, round_trip: float = 0.0) -> None:
        self.server = {name: str(value) for name, value in conninfo_to_dict(url).items() if value is not None}
        self.round_trip = round_trip
        self.messages: list[str] = []
        self.answered = 0
        self._cut: tuple[int, bool, float] | None = None
        self._before: tuple[str, int, Callable[[], object]] | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._door = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._door.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._door.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    @property
    def url(self) -> str:
        """The server's URL, by way of the proxy."""
        login = ":".join(quote(self.server[name], safe="") for name in ("user", "password") if name in self.server)
        host, port = self._door.getsockname()
        return f"postgresql://{login}@{host}:{port}/{quote(self.server.get('dbname', ''), safe='')}"

    @property
    def idle(self) -> bool:
        """Whether nobody is connected any more; the last client's messages are counted then."""
        with self._lock:
            return not self._open

    def cut(self) -> None:
        """Cut all connections; new ones are let through."""
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def cut_at(self, nth: int, *, forwarded: bool, late: float = 0.0) -> None:
        """Cut the connection when the nth client message from now arrives: after it is forwarded, or before.

        Of one that is forwarded the server gets all, so many seconds late, and nobody gets its answer.
        """
        with self._lock:
            self._cut = (len(self.messages) + nth, forwarded, late)

    def before(self, kind: str, nth: int, work: Callable[[], object]) -> None:
        """Do this once the nth message of a kind has arrived, before it is forwarded."""
        self._before = (kind, nth, work)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError), self._connect() as server:
            back = threading.Thread(target=self._pass_back, args=(server, client), daemon=True)
            with self._lock:
                self._open |= {client, server}
            back.start()
            try:
                self._pass_on(client, server)
            finally:
                for one in (server, client):
                    with suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)
                back.join()
                with self._lock:
                    self._open -= {client, server}

    def _connect(self) -> socket.socket:
        time.sleep(self.round_trip)  # of TCP's own handshake
        host, port = self.server.get("host", ""), self.server.get("port", "5432")
        if host.startswith("/"):
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{host}/.s.PGSQL.{port}")
        else:
            server = socket.create_connection((host, int(port)))
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return server

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        buffer, begun = bytearray(), False
        while data := client.recv(1 << 20):
            buffer += data
            time.sleep(self.round_trip)
            while message := _first(buffer, typed=begun):
                kind = chr(message[0]) if begun else _UNTYPED.get(int.from_bytes(message[4:8]), "Startup")
                begun = begun or kind == "Startup"
                self._meanwhile(kind)
                if self._is_cut(message, client, server):
                    return
                if kind in ("SSLRequest", "GSSENCRequest"):
                    client.sendall(b"N")  # encrypted messages could not be counted
                else:
                    server.sendall(message)

    def _meanwhile(self, kind: str) -> None:
        with self._lock:
            self.messages.append(kind)
            count = self.messages.count(kind)
        if self._before and self._before[:2] == (kind, count):
            self._before[2]()

    def _is_cut(self, message: bytes, client: socket.socket, server: socket.socket) -> bool:
        with self._lock:
            if self._cut is None or len(self.messages) < self._cut[0]:
                return False
            _, forwarded, late = self._cut
            self._cut = None
        client.shutdown(socket.SHUT_RDWR)
        if forwarded:
            time.sleep(late)
            server.sendall(message)
        return True

    def _pass_back(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                with self._lock:
                    self.answered += len(data)
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)


def _first(buffer: bytearray, *, typed: bool) -> bytes:
    """Take the first message out of the buffer; nothing while it is not complete."""
    start = int(typed)  # the length stands after the type, and doesn't count it
    if len(buffer) < start + 4 or len(buffer) < (end := start + int.from_bytes(buffer[start : start + 4])):
        return b""
    message = bytes(buffer[:end])
    del buffer[:end]
    return message


@pytest.fixture
def proxy(database: str) -> Iterator[Callable[..., Proxy]]:
    """A function that puts a proxy before the test's database."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Proxy(database, **options))
