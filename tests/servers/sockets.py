"""Blocking peers for tests on real sockets; they run in threads of their own."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

_T = TypeVar("_T")

#: Seconds after which a test that hangs fails; never a measure of speed.
PATIENCE = 30.0


class Peer:
    """One blocking connection to a server on the loopback interface."""

    def __init__(self, address: Any, *, receive_buffer: int = 0) -> None:
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.socket = socket.socket(family)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(PATIENCE)
        self.socket.connect(address if isinstance(address, str) else ("127.0.0.1", address))
        self._read = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def finish(self) -> None:
        """Send no more, but go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self._read)
            self._read += data
        data, self._read = self._read[:size], self._read[size:]
        return data

    def frame(self) -> tuple[int, bytes]:
        head = self.exactly(5)
        return head[0], self.exactly(int.from_bytes(head[1:], "little"))

    def int32(self) -> bytes:
        return self.exactly(int.from_bytes(self.exactly(4), "big"))

    def line(self) -> bytes:
        data = b""
        while not data.endswith(b"\n"):
            data += self.exactly(1)
        return data[:-1]

    def rest(self) -> bytes:
        """Everything until the server ends the connection, however it does."""
        data, self._read = [self._read], b""
        try:
            while piece := self.socket.recv(65536):
                data.append(piece)
        except ConnectionError:
            pass
        return b"".join(data)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Go without a goodbye."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def in_thread(talk: Callable[..., _T], *args: Any) -> Deferred[_T]:
    """Run what a peer does in a thread, while the reactor serves it."""
    return deferToThread(talk, *args)


async def until(reactor: Any, condition: Callable[[], object], what: str) -> None:
    """Wait until something has happened; fails when it does not."""
    end = reactor.seconds() + PATIENCE
    while not condition():
        if reactor.seconds() > end:
            raise AssertionError(f"waited in vain: {what}")
        await deferLater(reactor, 0.01, lambda: None)


def started(work: Awaitable[_T]) -> Deferred[_T]:
    """Let a coroutine run beside the test."""
    deferred: Deferred[_T] = ensureDeferred(work)  # type: ignore[arg-type]
    return deferred


def open_descriptors() -> int:
    """Count the descriptors of this process, that of the counting not included."""
    return len(os.listdir("/proc/self/fd")) - 1
