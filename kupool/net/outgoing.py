"""What a connection sends, and what waits while its peer reads slowly.

Nothing waits without bound: what a peer does not take goes to an outbox, see
:mod:`kupool.session.outbox`, and with too many replies in it nothing more is read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer
from twisted.logger import Logger
from zope.interface import implementer

from kupool.errors import INTERNAL_ERROR, ErrorText
from kupool.net.failures import ConnectionClosed
from kupool.session.outbox import EventPolicy, Outbox
from kupool.wire.framing import Framing, Tlv
from kupool.wire.messages import decode_loosely, encode_error, encode_result
from kupool.wire.packets import MessageTooLarge

if TYPE_CHECKING:
    from kupool.net.manager import ConnectionManager
    from kupool.net.waiting import WaitingRoom
    from kupool.wire.messages import RequestId

OPEN = "open"
CLOSING = "closing"
CLOSED = "closed"


@implementer(IPushProducer)
class Outgoing:
    """The sending half of a connection, which its transport pauses and resumes."""

    __slots__ = (
        "_backlogged_since",
        "_encode",
        "_now",
        "_outbox",
        "_read_stops",
        "_writable",
        "bytes_out",
        "framing",
        "id",
        "manager",
        "messages_out",
        "state",
        "transport",
        "waiting",
    )

    _log = Logger()

    def __init__(
        self, connection_id: int, manager: ConnectionManager, transport: Any, framing: Framing
    ) -> None:
        self.id = connection_id
        self.manager = manager
        self.transport = transport
        self.state = OPEN
        self.framing = framing
        self._encode = framing.encode
        self._now = manager.now
        self.bytes_out = 0
        #: Messages given to it for sending, those an outbox dropped afterwards included.
        self.messages_out = 0
        self._outbox: Outbox | None = None
        self._writable = True
        self._read_stops = 0
        self._backlogged_since: float | None = None
        #: Messages that wait for room, as :mod:`kupool.net.delivery` lets them.
        self.waiting: WaitingRoom | None = None

    @property
    def sends(self) -> bool:
        """Whether what is sent now goes to the peer."""
        return self.state is OPEN

    @property
    def peer(self) -> str:
        """The peer's address as ``host:port``, or the path of a Unix socket, if any."""
        address = self.transport.getPeer()
        host = getattr(address, "host", None)
        if host is not None:
            return f"{host}:{address.port}"
        return os.fsdecode(getattr(address, "name", None) or b"")

    @property
    def outbound(self) -> int:
        """Bytes that wait because the peer reads slowly, the kernel's not counted."""
        return 0 if self._outbox is None else len(self._outbox)

    def reply(self, message_id: RequestId, result: object) -> None:
        """Answer a request with ``result``; a notification is not answered.

        As :meth:`send` on a connection that has ended; raises :class:`TypeError` for what
        JSON has no form for.
        """
        if message_id is not None:
            self.send(encode_result(message_id, result))

    def send(self, payload: bytes) -> None:
        """Send one message of the class *reply*: it is never dropped.

        Does nothing on a connection that has ended: peers go at any time, and an answer
        that nobody waits for is no error. Who has to know asks ``sends``, or uses
        :meth:`send_message` or a :class:`~kupool.net.delivery.Delivery`, which raise.
        """
        data = self._encode(payload)
        if self._outbox is None and self.state is OPEN:
            self.bytes_out += len(data)
            self.messages_out += 1
            self.transport.write(data)
        else:
            self.send_encoded(data)

    def send_error(self, answer: bytes) -> None:
        """Send an error of the framework; where the framing cannot express it, nothing."""
        try:
            self.send(answer)
        except Exception:
            self._log.debug("An error cannot be sent in {name}", name=self.framing.name)

    def unsendable(self, reply: bytes) -> None:
        """Answer an error in place of a reply that could not be sent.

        Called while that exception is handled. What it was stays in the log, under a
        reference; mostly the reply is over the limit of the codec.
        """
        reference = token_hex(8)
        self._log.failure(
            "A reply of {size} bytes to {peer} could not be sent, reference {reference}",
            size=len(reply),
            peer=self.peer,
            connection=self.id,
            reference=reference,
        )
        loose = decode_loosely(reply)
        if loose is not None and loose.id is not None:
            error = ErrorText(INTERNAL_ERROR.code, f"{INTERNAL_ERROR.text} {reference}")
            self.send_error(encode_error(loose.id, error))

    def send_many(self, payloads: Sequence[bytes]) -> None:
        """Send several messages of the class *reply* in one write; see :meth:`send`."""
        if len(payloads) == 1:
            self.send(payloads[0])
        else:
            self.send_encoded(self.framing.join(payloads), len(payloads))

    def pack(self, message: bytes | Tlv) -> bytes:
        """Return a message as bytes of this framing.

        Raises :class:`MessageTooLarge` for one over the server's limit, and
        :class:`ValueError` for one that the framing cannot express.
        """
        size = len(message if isinstance(message, bytes) else message.payload)
        limit = self.manager.settings.max_frame
        if size > limit:
            raise MessageTooLarge(size, limit)
        if self.framing.pack is not None:
            return self.framing.pack(message)
        if not isinstance(message, bytes):
            raise ValueError(f"{self.framing.name} carries no message ids")
        return self.framing.encode(message)

    def send_message(self, message_id: int, data: bytes) -> None:
        """Send one message under an id; class *reply*.

        Raises :class:`ConnectionClosed` on a connection that has ended, and what
        :meth:`pack` does.
        """
        if self.state is not OPEN:
            raise ConnectionClosed(self.id)
        self.send_encoded(self.pack(Tlv(message_id, data)))

    def send_encoded(self, data: bytes, messages: int = 1) -> None:
        """Send bytes that are messages of this framing already; class *reply*.

        Does nothing on a connection that has ended.
        """
        if self.state is not OPEN:
            return
        self.messages_out += messages
        if self._outbox is None:
            self.bytes_out += len(data)
            self.transport.write(data)
            return
        self._outbox.add_reply(data)
        limit = self.manager.settings.outbox_limit
        if self._backlogged_since is None and self._outbox.reply_bytes > limit:
            self._backlogged_since = self._now()
            self._stop_reading()

    def send_latest(self, key: str, encoded: bytes) -> None:
        """Send bytes of this framing that replace what still waits under ``key``."""
        if self.state is not OPEN:
            return
        self.messages_out += 1
        if self._outbox is not None:
            self._outbox.add_latest(key, encoded)
        else:
            self._put(encoded)

    def send_event(
        self,
        encoded: bytes,
        policy: EventPolicy = EventPolicy.DROP_NEW,
        limit: int | None = None,
    ) -> bool:
        """Send bytes of this framing that may be dropped; returns whether they were kept.

        ``limit`` is how many bytes of events may wait, by default the outbox limit.
        """
        if self.state is not OPEN:
            return False
        self.messages_out += 1
        if self._outbox is not None:
            most = self.manager.settings.outbox_limit if limit is None else limit
            return self._outbox.add_event(encoded, most, policy)
        self._put(encoded)
        return True

    def _put(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self.transport.write(data)

    def _empty_outbox(self, *, send: bool) -> None:
        """Send what waits, as a last thing, or drop it."""
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            self.manager.dropped += outbox.dropped
            while send and (data := outbox.take()) is not None:
                self._put(data)

    # -- IPushProducer, for the transport

    def pauseProducing(self) -> None:
        """The transport has enough: keep what comes next in the outbox."""
        self._writable = False
        if self._outbox is None:
            self._outbox = Outbox()

    def resumeProducing(self) -> None:
        """The transport has room: send what waits until it has enough again."""
        self._writable = True
        outbox = self._outbox
        while outbox is not None and self._writable and self.state is OPEN:
            data = outbox.take()
            if data is None:
                self.manager.dropped += outbox.dropped
                self._outbox = outbox = None
            else:
                self._put(data)
        if self._backlogged_since is not None and (
            outbox is None or outbox.reply_bytes <= self.manager.settings.outbox_limit // 2
        ):
            self._backlogged_since = None
            self._start_reading()
        self._tell_waiting()

    def _tell_waiting(self) -> None:
        if self.waiting is not None:
            self.waiting.changed()

    def stopProducing(self) -> None:
        """The transport has ended; :meth:`lost` follows."""

    def _stop_reading(self) -> None:
        self._read_stops += 1
        if self._read_stops == 1:
            self.transport.pauseProducing()

    def _start_reading(self) -> None:
        self._read_stops -= 1
        if self._read_stops == 0 and self.state is OPEN:
            self.transport.resumeProducing()


__all__ = ["CLOSED", "CLOSING", "OPEN", "Outgoing"]
