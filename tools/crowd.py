"""Many connections in one thread, without Twisted: what the fault programs are made of.

It shares the framings with the daemon and nothing else, so that a fault of the reactor
or of the client library cannot hide one of the daemon.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import selectors
import socket
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec

from kupool.wire.framing import FRAMINGS, Framing, Item

#: Bytes asked of the kernel in one read.
READ_SIZE = 65536

_NOT_YET = (errno.EINPROGRESS, errno.EAGAIN)

decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


class Crowd:
    """Peers, and what is to be done later; :meth:`turn` serves them once."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = itertools.count()

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *_: object) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.close()
        self._selector.close()

    def call_later(self, seconds: float, call: Callable[[], object]) -> None:
        """Call something in so many seconds, from :meth:`turn`."""
        when = time.monotonic() + seconds
        heapq.heappush(self._later, (when, next(self._serial), call))

    def turn(self, longest: float = 0.05) -> None:
        """Wait up to ``longest`` seconds for something to do, and do it."""
        if self._later:
            longest = min(longest, self._later[0][0] - time.monotonic())
        for key, events in self._selector.select(max(0.0, longest)):
            key.data.serve(events)
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()

    def run(self, until: Callable[[], object], timeout: float) -> bool:
        """Serve until something is so; returns False if that took ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        while not until():
            if time.monotonic() >= deadline:
                return False
            self.turn()
        return True

    def run_for(self, seconds: float) -> None:
        """Serve for some time."""
        self.run(lambda: False, seconds)

    def watch(self, peer: Peer, events: int) -> None:
        """Watch for what a peer waits for; 0 for nothing."""
        sock = peer.socket
        known = sock in self._selector.get_map() if sock.fileno() >= 0 else False
        if events and known:
            self._selector.modify(sock, events, peer)
        elif events:
            self._selector.register(sock, events, peer)
        elif known:
            self._selector.unregister(sock)


class Peer:
    """One connection to the daemon. Override what should happen with what comes.

    ``receive_buffer`` is asked of the kernel, in bytes. With ``reading`` False nothing
    is ever read.
    """

    def __init__(
        self,
        crowd: Crowd,
        port: int,
        framing: str = "frame",
        *,
        receive_buffer: int = 0,
        reading: bool = True,
    ) -> None:
        self.crowd = crowd
        self.port = port
        self.framing: Framing = FRAMINGS[framing]
        self.ended = False
        self.connected = False
        self.reading = reading
        self._splitter = self.framing.splitter(1 << 24)
        self._out = bytearray()
        self.socket = socket.socket()
        self.socket.setblocking(False)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        problem = self.socket.connect_ex(("127.0.0.1", port))
        if problem and problem not in _NOT_YET:
            crowd.call_later(0, lambda: self.end(errno.errorcode[problem]))
        else:
            crowd.watch(self, selectors.EVENT_WRITE)

    # -- to override

    def on_connected(self) -> None:
        """The connection stands."""

    def on_item(self, item: Item) -> None:
        """One message, or one control frame, has come."""

    def on_ended(self, reason: str) -> None:
        """The connection has ended; called once, unless :meth:`close` ended it."""

    # -- to use

    @property
    def backlog(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return len(self._out)

    def send(self, message: object) -> None:
        """Send one message: an object as JSON, bytes as they are."""
        payload = message if isinstance(message, bytes) else encode(message)
        self.send_raw(self.framing.encode(payload))

    def send_raw(self, data: bytes) -> None:
        """Send bytes outside every framing."""
        if self.ended:
            return
        waiting = bool(self._out)
        self._out += data
        if self.connected and not waiting:
            self._flush()

    def close(self) -> None:
        """End the connection, without a call of :meth:`on_ended`."""
        if not self.ended:
            self.ended = True
            self.crowd.watch(self, 0)
            self.socket.close()

    def end(self, reason: str) -> None:
        """End the connection, and say so."""
        if not self.ended:
            self.close()
            self.on_ended(reason)

    # -- for the crowd

    def serve(self, events: int) -> None:
        """Read and write what can be."""
        if not self.connected:
            self._connect()
            return
        if events & selectors.EVENT_READ:
            self._read()
        if events & selectors.EVENT_WRITE and not self.ended:
            self._flush()

    def _connect(self) -> None:
        problem = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            if not problem and self.socket.getsockname() == self.socket.getpeername():
                # A port that nobody listens on can be given to the one who asks for it.
                problem = errno.ECONNREFUSED
        except OSError as error:  # it was there, and is reset already
            problem = error.errno or errno.EIO
        if problem:
            self.end(errno.errorcode[problem])
            return
        self.connected = True
        self._watch()
        self.on_connected()
        if self._out:
            self._flush()

    def _watch(self) -> None:
        if not self.ended:
            events = (selectors.EVENT_READ if self.reading else 0) | (
                selectors.EVENT_WRITE if self._out else 0
            )
            self.crowd.watch(self, events)

    def _read(self) -> None:
        try:
            data = self.socket.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self.end(errno.errorcode[error.errno or errno.EIO])
            return
        if not data:
            self.end("EOF")
            return
        self.on_data(data)

    def on_data(self, data: bytes) -> None:
        """Bytes have come: cut them into messages."""
        for item in self._splitter.feed(data):
            if self.ended:
                return
            self.on_item(item)

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self.socket.send(self._out[:READ_SIZE])
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError as error:
            self.on_write_failed(errno.errorcode[error.errno or errno.EIO])
            return
        self._watch()

    def on_write_failed(self, reason: str) -> None:
        """The other side takes nothing more; what it sent before may still be read."""
        if self.reading:
            # Its last words arrive before the end.
            self._out.clear()
            self._watch()
        else:
            self.end(reason)


def submission(message_id: Any, job: dict[str, Any], client_nonce: str) -> dict[str, Any]:
    """Return a right submission for a job, as a message."""
    text = f"{job['server_nonce']}{client_nonce}"
    return {
        "id": message_id,
        "method": "submit",
        "params": {
            "job_id": job["job_id"],
            "client_nonce": client_nonce,
            "result": sha256(text.encode()).hexdigest(),
        },
    }
