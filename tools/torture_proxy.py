"""A TCP proxy that cuts, and loses, what goes through it."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from typing import Any

from tests.servers.own_process import free_port

#: How it treats what goes through it.
OPEN = "open"
#: Nothing goes either way, connections stay, and new ones are not served.
HOLE = "hole"
#: What is asked arrives, what is answered does not.
MUTE = "mute"
#: The target has lost its end of every connection, and who came has not heard of it.
HALF = "half"

_RESET = struct.pack("ii", 1, 0)
_LIMIT = 1 << 18


class _Side:
    """One end of a connection; what is read from it goes to its peer."""

    def __init__(self, sock: socket.socket, is_client: bool) -> None:
        self.socket = sock
        self.is_client = is_client
        self.out = bytearray()
        self.peer: _Side
        self.connected = is_client
        self.ended = False

    def gone(self) -> bool:
        return self.socket.fileno() < 0


class Proxy:
    """Listens on a port of its own and hands everything to ``target`` on the loopback.

    It works in a thread of its own. All methods may be called from any other, and return
    when the thing is done.
    """

    def __init__(self, target: Callable[[], int]) -> None:
        self._target = target
        self.port = free_port()
        self.mode = OPEN
        self._selector = selectors.DefaultSelector()
        self._clients: set[_Side] = set()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(512)
        self._listener.setblocking(False)
        self._wake, self._woken = socket.socketpair()
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._commands: list[tuple[Callable[[], object], threading.Event]] = []
        self._ending = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # -- from other threads

    @property
    def connections(self) -> int:
        """How many connections go through it."""
        return len(self._clients)

    def set(self, mode: str) -> None:
        """Treat everything so from now on; connections that lost something are reset."""
        self._do(lambda: self._set(mode))

    def reset(self) -> None:
        """Reset every connection, on both sides."""
        self._do(self._reset)

    def close(self) -> None:
        """End it and every connection."""
        if self._thread.is_alive():
            self._do(self._end)
            self._thread.join(10)
        # Only now: the thread may have seen a command before this one could wake it.
        self._woken.close()
        self._wake.close()

    def _do(self, command: Callable[[], object]) -> None:
        done = threading.Event()
        self._commands.append((command, done))
        self._wake.send(b".")
        if not done.wait(30):
            raise RuntimeError("the proxy does not answer")

    # -- in its own thread

    def _run(self) -> None:
        while not self._ending:
            for key, events in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif key.data is not None:
                    self._serve(key.data, events)
            with contextlib.suppress(BlockingIOError):
                while self._woken.recv(64):
                    pass
            while self._commands:
                command, done = self._commands.pop(0)
                command()
                done.set()
        self._selector.close()

    def _end(self) -> None:
        self._reset()
        self._ending = True
        self._selector.unregister(self._listener)
        self._listener.close()

    def _set(self, mode: str) -> None:
        before, self.mode = self.mode, mode
        if before in (MUTE, HALF):
            self._reset()
        for client in list(self._clients):
            if mode == HALF:
                self._drop(client.peer)
            self._watch(client)
            self._watch(client.peer)
        serving = self._listener in self._selector.get_map()
        if mode in (HOLE, HALF) and serving:
            self._selector.unregister(self._listener)
        elif mode in (OPEN, MUTE) and not serving:
            self._selector.register(self._listener, selectors.EVENT_READ, None)

    def _reset(self) -> None:
        for client in list(self._clients):
            self._drop(client)
            self._drop(client.peer)
        self._clients.clear()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        client = _Side(sock, True)
        client.peer = target = _Side(socket.socket(), False)
        target.peer = client
        for side in (client, target):
            side.socket.setblocking(False)
            side.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._clients.add(client)
        problem = target.socket.connect_ex(("127.0.0.1", self._target()))
        if problem not in (0, errno.EINPROGRESS):
            self._break(client)
        else:
            self._watch(target)

    def _flows(self, from_client: bool) -> bool:
        return self.mode == OPEN or (self.mode == MUTE and from_client)

    def _watch(self, side: _Side) -> None:
        """Wait for what can be done on one end now."""
        if side.gone():
            return
        events = 0
        if not side.connected:
            events = selectors.EVENT_WRITE
        else:
            reads = side.peer.connected and not side.ended and len(side.peer.out) < _LIMIT
            if reads and self._flows(side.is_client):
                events |= selectors.EVENT_READ
            if side.out and self._flows(side.peer.is_client):
                events |= selectors.EVENT_WRITE
        known = side.socket in self._selector.get_map()
        if events and known:
            self._selector.modify(side.socket, events, side)
        elif events:
            self._selector.register(side.socket, events, side)
        elif known:
            self._selector.unregister(side.socket)

    def _serve(self, side: _Side, events: int) -> None:
        if side.gone():
            return
        try:
            if not side.connected:
                problem = side.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if problem:
                    raise OSError(problem, "not connected")
                side.connected = True
            elif events & selectors.EVENT_READ:
                self._read(side)
            if side.out and events & selectors.EVENT_WRITE:
                del side.out[: side.socket.send(side.out)]
        except BlockingIOError:
            pass
        except OSError:
            self._break(side)
            return
        if side.peer.ended and not side.out:
            self._finish(side)
            return
        self._watch(side)
        self._watch(side.peer)

    def _read(self, side: _Side) -> None:
        data = side.socket.recv(65536)
        if data:
            side.peer.out += data
            return
        side.ended = True
        if not side.peer.out:
            self._finish(side)

    def _finish(self, side: _Side) -> None:
        """One end has closed in order, and the other has all that it said."""
        for one in (side, side.peer):
            self._forget(one)
            one.socket.close()

    def _break(self, side: _Side) -> None:
        for one in (side, side.peer):
            self._drop(one)

    def _drop(self, side: _Side) -> None:
        """Reset one end."""
        self._forget(side)
        if not side.gone():
            with contextlib.suppress(OSError):
                side.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            side.socket.close()

    def _forget(self, side: _Side) -> None:
        if not side.gone() and side.socket in self._selector.get_map():
            self._selector.unregister(side.socket)
        if side.is_client and self.mode != HALF:
            self._clients.discard(side)

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
