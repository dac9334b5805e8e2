"""The peers of docs/protocol.md, each on a daemon of ours."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from tests.servers.running_daemon import RunningDaemon
from tests.servers.sockets import Peer

if TYPE_CHECKING:
    from tests.docs.set_ups import Surroundings

#: A session may submit once here, so that an answer does not depend on how fast we are.
FLAGS = (
    "--interval=1h",
    "--submit-interval=1m",
    "--rooms=on",
    "--live-rules=chat.* history_size=10 publish_by_clients=on",
    "--permissions=* channel.subscribe chat.*",
    "--permissions=* channel.publish chat.*",
    *(
        f"--permissions=* {action} shop.>"
        for action in ("log.publish", "log.subscribe", "log.manage", "log.group")
    ),
)

#: Peers that have authorized before their conversation begins, and their users. Each two have
#: a daemon of their own, where they come first.
AUTHORIZED = {
    "W": ("bus", "worker"),
    "C": ("bus", "caller"),
    "A": ("rooms", "alice"),
    "B": ("rooms", "bob"),
    "T": ("topics", "teller"),
    "K": ("live", "drinker"),
}

#: Peers that speak WebSocket.
PAGES = ("P", "Q")

_JOB = re.compile(rb'\{"id":null,"method":"job","params":(\{.*?\})\}')
_SUBMIT = re.compile(rb'"client_nonce":"(\w+)","result":"[0-9a-f]{64}"')
_LEFT = re.compile(rb'(?<="timeout_ms":)29\d\d\.\d+')


class Worker(Peer):
    """A peer for which a result of 64 digits on the page is that of the job it has now."""

    def __init__(self, address: Any) -> None:
        super().__init__(address)
        self._heard = self._nonce = b""

    def send(self, data: bytes) -> None:
        super().send(_SUBMIT.sub(self._submit, data))

    def exactly(self, size: int) -> bytes:
        data = super().exactly(size)
        self.hear(data)
        return data

    def hear(self, data: bytes) -> None:
        """Note the nonce of a job; ``data`` may be a part of it."""
        self._heard = (self._heard + data)[-1000:]
        for found in _JOB.finditer(self._heard):
            self._nonce = json.loads(found[1])["server_nonce"].encode()

    def _submit(self, shown: re.Match[bytes]) -> bytes:
        result = sha256(self._nonce + shown[1]).hexdigest().encode()
        return b'"client_nonce":"%b","result":"%b"' % (shown[1], result)


class Member(Peer):
    """A peer that has authorized, and counts what is left of three seconds as three seconds."""

    def __init__(self, address: Any, user: str) -> None:
        super().__init__(address)
        self._whole = b""
        self.send(b'{"id":1,"method":"authorize","params":{"username":"%b"}}\n' % user.encode())
        for _ in ("the answer", "the job"):
            self.line()

    def exactly(self, size: int) -> bytes:
        while len(self._whole) < size:
            line = b""
            while not line.endswith(b"\n"):
                line += super().exactly(1)
            self._whole += _LEFT.sub(b"3000.0", line)
        data, self._whole = self._whole[:size], self._whole[size:]
        return data


class Page(Worker):
    """A peer that speaks WebSocket, with messages of less than 64 KiB; a close is a text."""

    def __init__(self, address: Any) -> None:
        super().__init__(address)
        self._messages = b""
        self.socket.sendall(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += Peer.exactly(self, 1)
        assert head.startswith(b"HTTP/1.1 101 "), head

    def send(self, data: bytes) -> None:
        data = _SUBMIT.sub(self._submit, data)
        length = bytes([128 | len(data)]) if len(data) < 126 else b"\xfe%b" % len(data).to_bytes(2)
        self.socket.sendall(b"\x81" + length + bytes(4) + data)  # with a mask of zeroes

    def exactly(self, size: int) -> bytes:
        while len(self._messages) < size:
            self._messages += self._message()
        data, self._messages = self._messages[:size], self._messages[size:]
        return data

    def _message(self) -> bytes:
        first, length = Peer.exactly(self, 2)
        if length == 126:
            length = int.from_bytes(Peer.exactly(self, 2))
        data = Peer.exactly(self, length)
        if first == 0x88:
            return b"close %d %b" % (int.from_bytes(data[:2]), data[2:])
        self.hear(data)
        return data


def protocol(around: Surroundings, stack: ExitStack) -> None:
    """Connect the peers of the page; a daemon starts when the first comes to it."""
    daemons: dict[str, RunningDaemon] = {}

    def daemon(name: str) -> RunningDaemon:
        if name not in daemons:
            daemons[name] = stack.enter_context(RunningDaemon(*FLAGS))
        return daemons[name]

    def connect(_: Surroundings, name: str) -> Peer:
        if name in AUTHORIZED:
            where, user = AUTHORIZED[name]
            return Member(daemon(where).port, user)
        pool = daemon("pool")
        return Page(pool.http_port) if name in PAGES else Worker(pool.port)

    around.connect = connect


__all__ = ["protocol"]
