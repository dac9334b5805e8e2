"""One connection: what came in, what goes out, and how it ends.

A connection belongs to a protocol of :mod:`kupool.net.protocols`, which feeds it
bytes, and to a server's manager, which sweeps it for timeouts. It never blocks and
never buffers without bound: see :mod:`kupool.net.outbox` for a peer that reads slowly.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IPushProducer, ISSLTransport, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.errors import (
    CLOSE_MALFORMED,
    IDLE_TIMEOUT,
    INTERNAL_ERROR,
    SLOW_READER,
    TOO_MANY_ERRORS,
    CloseReason,
    ErrorText,
)
from kupool.net.failures import ConnectionClosed
from kupool.net.outbox import EventPolicy, Outbox
from kupool.wire.framing import Discarding, Framing, Item, Splitter, Tlv
from kupool.wire.messages import decode_loosely, encode_error, encode_result
from kupool.wire.packets import MessageTooLarge

if TYPE_CHECKING:
    from kupool.net.manager import ConnectionManager
    from kupool.net.router import IRouter
    from kupool.net.waiting import WaitingRoom
    from kupool.wire.messages import RequestId

OPEN = "open"
CLOSING = "closing"
CLOSED = "closed"

#: Seconds that a peer has to end its side, once all that it was sent is on its way.
LINGER = 1.0


def ends_by_halves(transport: Any) -> bool:
    """Say whether this side of a transport can end alone."""
    return ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport)


@implementer(IPushProducer)
class Connection:
    """A peer, as handlers see it.

    ``context`` is the application's own, as ``properties`` are; ``last_seen`` is the
    time of the last whole message, in seconds of the server's clock.
    """

    __slots__ = (
        "__weakref__",
        "_backlogged_since",
        "_dispatch",
        "_encode",
        "_ends_at",
        "_halted",
        "_held",
        "_holds",
        "_lingering",
        "_now",
        "_outbox",
        "_partial",
        "_parting",
        "_peer_finished",
        "_properties",
        "_read_stops",
        "_receiving",
        "_router",
        "_splitter",
        "_writable",
        "bytes_in",
        "bytes_out",
        "context",
        "deadline",
        "framing",
        "host",
        "id",
        "last_seen",
        "malformed",
        "manager",
        "messages_in",
        "messages_out",
        "state",
        "transport",
        "waiting",
    )

    _log = Logger()

    def __init__(
        self,
        connection_id: int,
        manager: ConnectionManager,
        transport: Any,
        host: str,
        framing: Framing,
    ) -> None:
        self.id = connection_id
        #: The peer's address without its port when it came; empty for a Unix socket.
        self.host = host
        self.manager = manager
        self.transport = transport
        self.state = OPEN
        self.context: Any = None
        self._now = manager.now
        self.last_seen = manager.now()
        #: (time, reason) at which the connection is closed unless it is cleared.
        self.deadline: tuple[float, CloseReason] | None = None
        self.bytes_in = self.bytes_out = self.messages_in = self.malformed = 0
        #: Messages given to it for sending, those an outbox dropped afterwards included.
        self.messages_out = 0
        self.framing = framing
        self._encode = framing.encode
        self._splitter: Splitter = framing.splitter(manager.settings.max_frame)
        self._properties: dict[str, object] | None = None
        self._outbox: Outbox | None = None
        self._writable = True
        self._held: list[Item] | None = None
        self._holds = 0
        self._halted = self._parting = False
        self._read_stops = 0
        self._receiving = False
        self._backlogged_since: float | None = None
        self._peer_finished = self._lingering = False
        self._ends_at: float | None = None
        self._partial: tuple[int, float] | None = None
        #: Messages that wait for room, as :mod:`kupool.net.delivery` lets them.
        self.waiting: WaitingRoom | None = None

    # -- who it is

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
    def properties(self) -> dict[str, object]:
        """Whatever handlers want to keep with the connection, by name."""
        if self._properties is None:
            self._properties = {}
        return self._properties

    def set_property(self, name: str, value: object) -> None:
        """Keep something with the connection, until it ends.

        Where the manager has an index of that name, the connection is found by it.
        Raises :class:`ConnectionClosed` on one that has ended.
        """
        if self.state is CLOSED:
            raise ConnectionClosed(self.id)
        self.manager.index.set(self, name, value)

    def get_property(self, name: str) -> object:
        """Return what :meth:`set_property` kept; raises :class:`PropertyNotFound`."""
        return self.manager.index.get(self, name)

    def remove_property(self, name: str) -> None:
        """Keep it no longer; raises :class:`PropertyNotFound`."""
        self.manager.index.remove(self, name)

    def forget(self) -> None:
        """Drop the properties of a connection that has ended; called by the manager."""
        if self._properties:
            self.manager.index.forget(self)

    @property
    def router(self) -> IRouter:
        """What answers the messages of this connection; may be replaced at any time."""
        return self._router

    @router.setter
    def router(self, router: IRouter) -> None:
        self._router = router
        self._dispatch = router.dispatch

    @property
    def max_frame(self) -> int:
        """The largest payload accepted from the peer, in bytes."""
        return self._splitter.max_payload

    @max_frame.setter
    def max_frame(self, size: int) -> None:
        self._splitter.max_payload = size

    @property
    def outbound(self) -> int:
        """Bytes that wait because the peer reads slowly, the kernel's not counted."""
        return 0 if self._outbox is None else len(self._outbox)

    # -- coming in

    def use_framing(self, framing: Framing) -> None:
        """Set the framing, once the first byte has shown it."""
        self._splitter = framing.splitter(self._splitter.max_payload)
        self.framing = framing
        self._encode = framing.encode

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer; called by the protocol."""
        self.bytes_in += len(data)
        splitter = self._splitter
        items = splitter.feed(data)
        if len(items) == 1 and not self._halted:
            # Most reads are one message; this is receive() without its loop.
            now, dispatch = self._now, self._dispatch
            self.last_seen = now()
            self.messages_in += 1
            reply = dispatch(self, items[0])
            if reply is not None:
                try:
                    self.send(reply)
                except Exception:
                    self.unsendable(reply)
        else:
            self.receive(items)
        if splitter.too_large:
            self._over_limit()

    def receive(self, items: Sequence[Item]) -> None:
        """Handle messages in order. What is answered leaves in one write per read: the
        transport joins it.
        """
        if self._halted:
            if self._held is not None:
                self._held.extend(items)
            return
        if not items:
            return
        self.last_seen = self._now()
        self.messages_in += len(items)
        self._receiving = True
        rest = iter(items)
        for item in rest:
            dispatch = self._dispatch  # a handler may have set another router
            reply = dispatch(self, item)
            if reply is not None:
                try:
                    self.send(reply)
                except Exception:
                    self.unsendable(reply)
            if self._halted:
                left = list(rest)
                self.messages_in -= len(left)
                if self._held is not None:
                    self._held += left
                break
        self._receiving = False

    def _over_limit(self) -> None:
        """A header announced too much, unless the messages before it raised the limit."""
        while self._splitter.too_large and self.state is OPEN and self._held is None:
            items = self._splitter.resume()
            if items:
                self.receive(items)
            elif self._splitter.corrupt:
                self.malformed += 1
                self.manager.malformed += 1
                self.close(CLOSE_MALFORMED)
            elif self._splitter.too_large:
                self.close(self.manager.too_large)

    def hold(self) -> None:
        """Handle no further message of this peer until :meth:`release`.

        What has been read already is kept, and nothing more is read. Several may hold
        a connection: it goes on when each of them has released it.
        """
        if self.state is not OPEN or self._parting:
            return
        self._holds += 1
        if self._held is None:
            self._held = []
            self._halted = True
            self._stop_reading()

    def release(self) -> None:
        """Undo one :meth:`hold`; after the last, go on with the messages that were kept."""
        if self._held is None or self.state is not OPEN:
            return
        self._holds -= 1
        if self._holds:
            return
        items, self._held = self._held, None
        self._halted = False
        self._start_reading()
        if self._receiving:
            return  # what is being received goes on, and comes before all that follows
        try:
            if items:
                self.receive(items)
            self._over_limit()
        except Exception:
            # As from a read: it costs this peer its connection, and whoever let go nothing.
            self._log.failure("Unhandled error in a connection")
            self.abort()
            return
        if self._peer_finished:
            self.finished()

    def complain(self, answer: bytes) -> None:
        """Answer a malformed message, and close when that was one too many.

        An empty ``answer`` is not sent.
        """
        if answer:
            self.send_error(answer)
        self.malformed += 1
        self.manager.malformed += 1
        limit = self.manager.settings.max_errors
        if limit and self.malformed >= limit:
            self.close(TOO_MANY_ERRORS)

    # -- going out

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

    # IPushProducer, for the transport

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

    # -- the end

    def expect_within(self, seconds: float, reason: CloseReason) -> None:
        """Close with ``reason`` in so many seconds, unless ``deadline`` is cleared."""
        self.deadline = (self._now() + seconds, reason) if seconds else None

    def close(self, reason: CloseReason | None, retry_after: float | None = None) -> None:
        """Tell the peer why, send what was answered before, and end the connection.

        An observer that has a last word is waited for, at most the write timeout; nothing
        more of the peer is handled meanwhile. A peer that does not take what it is sent
        within the write timeout is cut off. With None for ``reason`` the connection ends
        without a message, as the peer asked.
        """
        if self.state is not OPEN or self._parting:
            return
        told = self.manager.tell_closing(self, reason)
        if self.state is not OPEN:
            return  # whoever was told has ended it
        if told is None or reason is SLOW_READER:
            self._close(reason, retry_after)
            return
        self._parting = self._halted = True
        self._held = None
        self._splitter = Discarding()
        told.addBoth(lambda result: self._close(reason, retry_after))

    def _close(self, reason: CloseReason | None, retry_after: float | None) -> None:
        if self.state is not OPEN:
            return  # it was lost meanwhile
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            self.manager.dropped += outbox.dropped
            while reason is not SLOW_READER and (data := outbox.take()) is not None:
                self._put(data)
        if reason is not None:
            self.manager.count_close(reason)
            self._put(self.manager.last_word(self.framing, reason, retry_after))
        self._end(linger=reason is not None)

    def end_with(self, last: bytes) -> None:
        """Send bytes outside every framing, and end the connection."""
        if self.state is OPEN:
            self.send_encoded(last)
            self._end(linger=True)

    def _end(self, *, linger: bool) -> None:
        self.state = CLOSING
        self._halted = True
        self._held = None
        self._ends_at = self._now() + self.manager.settings.write_timeout
        self._tell_waiting()
        transport: Any = self.transport
        transport.unregisterProducer()
        if linger and ends_by_halves(transport):
            # A socket that is closed with bytes unread is reset, and the peer may never
            # see what was written last. So only this side ends; what still comes is dropped.
            self._splitter = Discarding()
            transport.loseWriteConnection()
            transport.resumeProducing()
        else:
            transport.loseConnection()

    def flushed(self) -> None:
        """All is sent, and this side has ended: the peer has a moment to end its own."""
        if self.state is CLOSING:
            self._lingering = True
            self._ends_at = self._now() + LINGER

    def abort(self) -> None:
        """Cut the connection off without a word."""
        if self.state is not CLOSED:
            self.state = CLOSING
            self._halted = True
            self.transport.abortConnection()

    def finished(self) -> None:
        """The peer will send no more: end once its answers are on their way."""
        if self.state is CLOSING:
            self.transport.loseConnection()
        if self.state is not OPEN or self._parting:
            return
        if not self._peer_finished:
            self._peer_finished = True
            self._stop_reading()
        if self._held is not None:
            return  # release() comes back here when the messages held are handled
        self._halted = True
        try:
            settled = self.manager.observer.settle(self)
        except Exception:
            settled = None
            self._log.failure("The last answers of a connection cannot be waited for")
        if settled is None:
            self.close(None)
        else:
            settled.addBoth(self._settled)

    def _settled(self, result: object) -> None:
        if isinstance(result, Failure):
            self._log.failure("Waiting for the last answers of a connection", result)
        self.close(None)

    def lost(self, reason: Failure) -> None:
        """The transport has ended; called by the protocol."""
        if self.state is not CLOSED:
            self.state = CLOSED
            self._halted = True
            self._held = None
            outbox, self._outbox = self._outbox, None
            if outbox is not None:
                self.manager.dropped += outbox.dropped
            self._tell_waiting()
            self.manager.remove(self, reason)

    def _part_is_late(self, now: float, timeout: float) -> bool:
        """Say whether the rest of a message is due: looked at once a second, so that it
        costs nothing while messages come.
        """
        if self._read_stops or not getattr(self._splitter, "buffered", 0):
            self._partial = None
        elif self._partial is None or self._partial[0] != self.messages_in:
            self._partial = (self.messages_in, now)
        else:
            return now - self._partial[1] >= timeout
        return False

    def sweep(
        self,
        now: float,
        idle_timeout: float,
        write_timeout: float,
        message_timeout: float = 0.0,
    ) -> None:
        """Apply the timeouts; called about once a second by the manager."""
        if self.state is OPEN:
            since = self._backlogged_since
            if since is not None and now - since >= write_timeout:
                self.close(SLOW_READER)
            elif self.deadline is not None and now >= self.deadline[0]:
                self.close(self.deadline[1])
            elif (idle_timeout and now - self.last_seen >= idle_timeout) or (
                message_timeout and self._part_is_late(now, message_timeout)
            ):
                self.close(IDLE_TIMEOUT)
        elif self._ends_at is not None and now >= self._ends_at:
            self._ends_at = None
            if self._lingering:
                self.transport.loseConnection()
            else:
                self.abort()
