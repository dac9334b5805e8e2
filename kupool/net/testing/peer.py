"""The peer of a server under test, controlled by the test."""

from __future__ import annotations

import json
from typing import Any
from typing import Protocol as Interface

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.net.testing.transport import MemoryTransport
from kupool.wire.codecs import CODECS, Codec
from kupool.wire.framing import Control, Item, Tlv
from kupool.wire.packets import UNLIMITED


class Settling(Interface):
    """What a peer needs of its network."""

    def settle(self) -> None:
        """Deliver data, and the answers to it, until nothing more happens."""


@implementer(IHalfCloseableProtocol)
class MemoryPeer(Protocol):
    """Sends what the test tells it to, and keeps what it receives. ``network.connect`` makes it.

    After each call, everything has been delivered and answered that needs no time to pass.
    When the server ends the connection, the peer ends it too, unless ``lingers`` is set.
    """

    def __init__(self, network: Settling, codec: str | Codec) -> None:
        self.network = network
        self.codec: Codec = CODECS[codec](0) if isinstance(codec, str) else codec
        self.lingers = False
        #: Why the connection has ended; None while it is open.
        self.reason: Failure | None = None
        #: Whether the server has finished sending.
        self.ended = False
        self._splitter = self.codec.splitter(UNLIMITED)
        self._received = b""
        self._items: list[Item] = []
        self._last_id = 0

    @property
    def memory(self) -> MemoryTransport:
        """The peer's transport, for inspection."""
        transport: Any = self.transport
        found: MemoryTransport = transport
        return found

    @property
    def open(self) -> bool:
        """Whether the connection is open."""
        return self.reason is None

    # -- sending

    def send(self, data: bytes, step: int | None = None) -> None:
        """Send raw bytes; with ``step``, in pieces of that many bytes."""
        pieces = [data] if not step else [data[i : i + step] for i in range(0, len(data), step)]
        for piece in pieces:
            self.memory.write(piece)
            self.network.settle()

    def tell(self, message: bytes | Tlv, step: int | None = None) -> None:
        """Send one message in the peer's codec."""
        self.send(self.codec.pack(message), step)

    def request(self, method: str, params: object = None) -> int:
        """Send a JSON request, and return its id."""
        self._last_id += 1
        body = {"id": self._last_id, "method": method, "params": params}
        self.tell(json.dumps(body).encode())
        return self._last_id

    def ask(self, method: str, params: object = None) -> dict[str, Any]:
        """Send a JSON request, and return its reply; other messages stay to be read.

        Raises :class:`AssertionError` if no reply arrives at once.
        """
        wanted = self.request(method, params)
        for item in self._items:
            found = json.loads(item) if isinstance(item, bytes) else {}
            if found.get("id") == wanted and "method" not in found:
                self._items.remove(item)
                reply: dict[str, Any] = found
                return reply
        stands = "stands" if self.reason is None else f"ended: {self.reason.getErrorMessage()}"
        raise AssertionError(
            f"no reply to {method!r} at once; the connection {stands}; other messages:"
            f" {self._items}. For one that comes later: request(), advance(), messages()"
        )

    def finish(self) -> None:
        """Finish sending; the server may still send."""
        self.memory.loseWriteConnection()
        self.network.settle()

    def close(self) -> None:
        """Close the connection."""
        self.memory.loseConnection()
        self.network.settle()

    def abort(self) -> None:
        """Abort the connection."""
        self.memory.abortConnection()
        self.network.settle()

    # -- receiving

    def stop_reading(self) -> None:
        """Stop reading."""
        self.memory.pauseProducing()

    def read_again(self) -> None:
        """Read the pending data, and all further data."""
        self.memory.resumeProducing()
        self.network.settle()

    def received(self) -> bytes:
        """Return the bytes received since the last call."""
        data, self._received = self._received, b""
        return data

    def items(self) -> list[Item]:
        """Return the messages received since the last call, as the codec decodes them."""
        items, self._items = self._items, []
        return items

    def messages(self) -> list[Any]:
        """Return the JSON messages received since the last call.

        With the framing ``frame``, pings, pongs and closes are returned as (opcode,
        payload).
        """
        return [
            (item.opcode, item.payload)
            if isinstance(item, Control)
            else json.loads(item.payload if isinstance(item, Tlv) else item)
            for item in self.items()
        ]

    # -- called by the network

    def dataReceived(self, data: bytes) -> None:
        """Keep the data."""
        self._received += data
        self._items += self._splitter.feed(data)

    def readConnectionLost(self) -> None:
        """Note that the server has finished sending."""
        self.ended = True
        if not self.lingers:
            self.memory.loseConnection()

    def writeConnectionLost(self) -> None:
        """Do nothing: everything has been sent."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Keep the reason."""
        self.ended = True
        self.reason = reason


__all__ = ["MemoryPeer"]
