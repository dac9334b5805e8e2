"""Many connections in one thread: plain sockets on epoll, faster than a daemon on another core."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
from collections import Counter
from collections.abc import Callable

#: Closing with a reset leaves no port behind in TIME_WAIT.
_RESET = struct.pack("ii", 1, 0)

#: IP_BIND_ADDRESS_NO_PORT: the kernel chooses the port for both ends, so that they never run out.
_NO_PORT_YET = 24


class Line:
    """One connection: what is still to be sent, and which group it is in."""

    __slots__ = ("group", "out", "socket")

    def __init__(self, sock: socket.socket, out: bytes, group: str) -> None:
        self.socket = sock
        self.out = out
        self.group = group


class Swarm:
    """The connections. ``heard`` is called with a line and what it received, ``ended`` with one
    that the other side has ended, or that could not be opened.
    """

    def __init__(
        self,
        address: tuple[str, int],
        heard: Callable[[Line, bytes], object],
        ended: Callable[[Line], object] = lambda line: None,
    ) -> None:
        self._address = address
        self._heard = heard
        self._ended = ended
        self._poll = select.epoll()
        self._lines: dict[int, Line] = {}
        self.open = Counter[str]()
        self.counts = Counter[str]()

    def start(self, out: bytes, group: str = "", *, source: str = "") -> Line:
        """Open a connection that sends something; ``source`` is the address that it comes from."""
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        if source:
            sock.setsockopt(socket.IPPROTO_IP, _NO_PORT_YET, 1)
            sock.bind((source, 0))
        sock.connect_ex(self._address)
        line = Line(sock, out, group)
        self._lines[sock.fileno()] = line
        self._poll.register(sock, select.EPOLLIN | (select.EPOLLOUT if out else 0))
        self.open[group] += 1
        self.counts["opened"] += 1
        return line

    def send(self, line: Line, out: bytes) -> None:
        """Send more on a connection."""
        line.out += out
        self._poll.modify(line.socket, select.EPOLLIN | select.EPOLLOUT)

    def lines(self, group: str) -> list[Line]:
        """Return the open connections of a group."""
        return [line for line in self._lines.values() if line.group == group]

    def end(self, line: Line) -> None:
        """Close a connection."""
        if self._lines.pop(line.socket.fileno(), None) is not None:
            line.socket.close()
            self.open[line.group] -= 1

    def turn(self) -> None:
        """Send and receive what can be."""
        for descriptor, events in self._poll.poll(0.005):
            line = self._lines.get(descriptor)
            if line is None:
                continue
            try:
                if line.out and events & select.EPOLLOUT:
                    line.out = line.out[line.socket.send(line.out) :]
                    if not line.out:
                        self._poll.modify(descriptor, select.EPOLLIN)
                if events & ~select.EPOLLOUT:
                    data = line.socket.recv(65536)
                    if data:
                        self._heard(line, data)
                    else:
                        self._lost(line, "closed by the daemon")
            except BlockingIOError:
                pass
            except OSError as error:
                self._lost(line, f"closed: {os.strerror(error.errno or 0)}")

    def _lost(self, line: Line, why: str) -> None:
        self.counts[why] += 1
        self.end(line)
        self._ended(line)


def request(method: str, number: int = 1, **params: object) -> bytes:
    """Return a request of the pool in ``line``."""
    return json.dumps({"id": number, "method": method, "params": params}).encode() + b"\n"


__all__ = ["Line", "Swarm", "request"]
