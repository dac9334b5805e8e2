"""The connection of a peer: incoming messages, outgoing messages, and its end.

A protocol owns a connection: it feeds it bytes and tells it of the end of the transport.
The states of a connection are those of :mod:`kupool.session.lifecycle`. It uses only its
transport and its :class:`~kupool.session.surroundings.Surroundings`. It never blocks, and
its buffers are bounded: see :mod:`kupool.session.outbox` for a slow reader, and
:data:`BUDGET` for a busy sender.

The transport has the methods of Twisted's transports. Pure.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from kupool.errors import (
    CLOSE_MALFORMED,
    IDLE_TIMEOUT,
    SLOW_READER,
    TOO_MANY_ERRORS,
    CloseReason,
)
from kupool.session.failures import ConnectionClosed
from kupool.session.lifecycle import (
    CLOSED,
    CLOSING,
    DRAINING,
    LINGERING,
    OPEN,
    SENDING,
    Event,
    State,
    after,
)
from kupool.session.outbox import EventPolicy, Outbox
from kupool.session.surroundings import Limits, Surroundings
from kupool.session.waiting import SpaceWaiter, WaitingRoom
from kupool.wire.framing import Discarding, Framing, Item, Splitter, Tlv
from kupool.wire.messages import (
    RequestId,
    close_notice,
    decode_loosely,
    encode_error,
    encode_result,
)
from kupool.wire.packets import UNLIMITED, MessageTooLarge

#: Seconds that a peer has to end its side, once all data has been sent to it.
LINGER = 1.0

#: Most messages of one peer that are handled in one turn.
BUDGET = 64

#: Most bytes of one read that are split at once; more may be thousands of messages.
SLICE = 8192


class Dispatcher(Protocol):
    """Answers the messages of a connection."""

    def dispatch(self, connection: Any, item: Item) -> bytes | None:
        """Handle one message; returns the payload of the answer, if any. Never raises."""


class Connection:
    """A peer, as handlers see it.

    ``host`` is the peer's address without its port, empty for a Unix socket. ``half_close``
    is whether this side of the transport can end alone. ``context`` and ``properties`` are
    free for the application. ``last_seen`` is the time of the last whole message, in
    seconds of the clock of its surroundings.
    """

    __slots__ = (
        "__weakref__",
        "_backlogged_since",
        "_behind",
        "_dispatch",
        "_encode",
        "_ending",
        "_half_close",
        "_halted",
        "_held",
        "_holds",
        "_later",
        "_now",
        "_outbox",
        "_partial",
        "_peer_finished",
        "_properties",
        "_read_stops",
        "_receiving",
        "_replies",
        "_router",
        "_slice",
        "_space_waiters",
        "_splitter",
        "_writable",
        "around",
        "bytes_in",
        "bytes_out",
        "context",
        "deadline",
        "framing",
        "host",
        "id",
        "last_seen",
        "malformed",
        "messages_in",
        "messages_out",
        "state",
        "transport",
        "waiting",
    )

    def __init__(
        self,
        connection_id: int,
        around: Surroundings,
        transport: Any,
        framing: Framing,
        *,
        host: str = "",
        half_close: bool = False,
    ) -> None:
        self.id = connection_id
        self.around = around
        self.transport = transport
        self.framing = framing
        self.host = host
        self.state: State = OPEN
        self.context: Any = None
        #: Number of messages given to it for sending, including those dropped by the outbox.
        self.messages_out = 0
        self.bytes_in = self.bytes_out = self.messages_in = self.malformed = 0
        #: (since, seconds, reason): the connection is closed with the reason after so many
        #: seconds, unless this is cleared.
        self.deadline: tuple[float, float, CloseReason] | None = None
        #: Messages that wait for space in the buffer; see :mod:`kupool.net.delivery`.
        self.waiting: WaitingRoom | None = None
        self._space_waiters: tuple[SpaceWaiter, ...] = ()
        self._now = around.now
        self.last_seen = around.now()
        self._half_close = half_close
        self._encode = framing.encode
        self._splitter: Splitter = self._cut(framing, around.limits().max_frame)
        self._slice = SLICE if framing.stream else UNLIMITED
        self._properties: dict[str, object] | None = None
        self._outbox: Outbox | None = None
        self._writable: bool = True
        self._backlogged_since: float | None = None
        #: The reasons why reading is paused.
        self._read_stops = 0
        #: Whether message handling is paused: it is held, waits for its turn, or ends.
        self._halted = False
        self._holds = 0
        self._behind = False
        #: Messages that were read but not handled, while it is held or waits for its turn.
        self._held: list[Item] | None = None
        #: Bytes that were read after those, and are not split yet.
        self._later = b""
        self._receiving = False
        #: Answers to the messages being handled; they are sent before anything else.
        self._replies: list[bytes] = []
        self._peer_finished = False
        #: (since, seconds): this side ends the connection after so many seconds.
        self._ending: tuple[float, float] | None = None
        self._partial: tuple[int, float] | None = None

    # -- identity

    @property
    def manager(self) -> Any:
        """The owner that made it: a server's manager, or a client."""
        return self.around.owner

    @property
    def limits(self) -> Limits:
        """The current limits."""
        return self.around.limits()

    @property
    def sends(self) -> bool:
        """Whether data sent now goes to the peer."""
        return self.state is OPEN or self.state in SENDING  # a set alone is slower

    @property
    def outbound(self) -> int:
        """Number of bytes that wait because the peer reads slowly, without the kernel's buffer."""
        return 0 if self._outbox is None else len(self._outbox)

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
        """Values that handlers keep with the connection, by name."""
        if self._properties is None:
            self._properties = {}
        return self._properties

    def set_property(self, name: str, value: object) -> None:
        """Set a property, which is kept until the connection ends.

        If the property is indexed, the connection can be found by it. Raises
        :class:`ConnectionClosed` if the connection has ended.
        """
        if self.state is CLOSED:
            raise ConnectionClosed(self.id)
        self.around.index.set(self, name, value)

    def get_property(self, name: str) -> object:
        """Return a property; raises :class:`PropertyNotFound`."""
        return self.around.index.get(self, name)

    def remove_property(self, name: str) -> None:
        """Remove a property; raises :class:`PropertyNotFound`."""
        self.around.index.remove(self, name)

    def forget(self) -> None:
        """Drop the properties of a connection that has ended; called by its owner."""
        if self._properties:
            self.around.index.forget(self)

    @property
    def router(self) -> Dispatcher:
        """What answers the messages of this connection; may be replaced at any time."""
        return self._router

    @router.setter
    def router(self, router: Dispatcher) -> None:
        self._router = router
        self._dispatch = router.dispatch

    @property
    def max_frame(self) -> int:
        """The largest payload accepted from the peer, in bytes."""
        return self._splitter.max_payload

    @max_frame.setter
    def max_frame(self, size: int) -> None:
        self._splitter.max_payload = size

    # -- incoming messages

    def use_framing(self, framing: Framing) -> None:
        """Set the framing, once the first byte has shown it."""
        self._splitter = self._cut(framing, self._splitter.max_payload)
        self.framing = framing
        self._encode = framing.encode
        self._slice = SLICE if framing.stream else UNLIMITED

    def _cut(self, framing: Framing, limit: int) -> Splitter:
        splitter = framing.splitter(limit)
        if framing.crlf is not None:
            splitter.on_crlf = self.answer_with_crlf  # type: ignore[attr-defined]
        return splitter

    def answer_with_crlf(self) -> None:
        """End every line with CR LF from now on, as the peer does."""
        if self.framing.crlf is not None:
            self.framing = self.framing.crlf
            self._encode = self.framing.encode

    def feed(self, data: bytes) -> None:
        """Take bytes from the peer; called by the protocol."""
        size = len(data)
        self.bytes_in += size
        splitter = self._splitter
        if size > self._slice:
            self._feed_slices(data)
            return
        items = splitter.feed(data)
        if len(items) == 1 and not self._halted:
            # Fast path: most reads are one message; this is receive() without its loop.
            now, dispatch = self._now, self._dispatch
            self.last_seen = now()
            self.messages_in += 1
            reply = dispatch(self, items[0])
            if reply is not None:
                try:
                    self.send(reply)
                except BaseException:  # an application's framing may raise
                    self.unsendable(reply)
        else:
            self.receive(items)
        if splitter.too_large:
            self._over_limit()

    def receive(self, items: Sequence[Item]) -> None:
        """Handle messages in order, up to the peer's share of a turn.

        The results of handlers are sent in one write, after the last message or before
        anything else that this connection sends.
        """
        if self._halted:
            if self._held is not None:
                self._held.extend(items)
            return
        if not items:
            return
        self.last_seen = self._now()
        share = items if len(items) <= BUDGET else items[:BUDGET]
        self._receiving = True
        handled = 0
        try:
            for item in share:
                handled += 1
                dispatch = self._dispatch  # a handler may have set another router
                reply = dispatch(self, item)
                if reply is not None:
                    self._replies.append(reply)
                if self._halted:
                    break
        finally:  # if it raises, earlier messages are still answered
            self._receiving = False
            if self._replies:
                self._send_replies()
        self.messages_in += handled
        if handled < len(items):
            self._keep(items[handled:])

    def _send_replies(self) -> None:
        """Send the answers of the messages handled so far."""
        replies, self._replies = self._replies, []
        try:
            data = self._encode(replies[0]) if len(replies) == 1 else self.framing.join(replies)
        except BaseException:  # one of them cannot be sent: send the others
            for reply in replies:
                try:
                    self.send_encoded(self._encode(reply))
                except BaseException:
                    self.unsendable(reply)
        else:
            self.send_encoded(data, len(replies))

    def _keep(self, items: Sequence[Item]) -> None:
        """Keep messages for later: the connection is held, or has used up its share."""
        if not self._halted:
            self._wait_for_turn()
        if self._held is not None:
            self._held[:0] = items

    def _feed_slices(self, data: bytes) -> None:
        """Split a large read piece by piece, up to the peer's share of a turn."""
        if self._later:
            self._later += data
            return
        before, start = self.messages_in, 0
        while start < len(data) and not self._halted:
            if self.messages_in - before >= BUDGET:
                self._wait_for_turn()
                continue
            self.receive(self._splitter.feed(data[start : start + SLICE]))
            start += SLICE
            if self._splitter.too_large:
                self._over_limit()
        if start < len(data) and self._held is not None:
            self._later = data[start:]
            self._slice = 0  # all further data has to wait behind it

    def _over_limit(self) -> None:
        """Close with ``too_large``, unless an earlier message raised the limit meanwhile."""
        while self._splitter.too_large and self.state is OPEN and self._held is None:
            items = self._splitter.resume()
            if items:
                self.receive(items)
            elif self._splitter.corrupt:
                self._count_malformed()
                self._refuse(CLOSE_MALFORMED)
            elif self._splitter.too_large:
                self._refuse(self.around.limits().too_large)

    def hold(self) -> None:
        """Handle no further message of this peer until :meth:`release`.

        Data that has been read is kept, and nothing more is read. Several holders may hold
        a connection: it goes on when each of them has released it.
        """
        if self.state is not OPEN:
            return
        self._holds += 1
        if self._holds == 1:
            self._halt()

    def release(self) -> None:
        """Undo one :meth:`hold`; after the last one, handle the kept messages."""
        if not self._holds or self.state is not OPEN:
            return
        self._holds -= 1
        if not self._holds:
            self._unhalt()

    def _wait_for_turn(self) -> None:
        """Leave the rest to a later turn, so that others get theirs."""
        self._behind = True
        self._halt()
        self.around.owner.go_on_later(self)

    def go_on(self) -> None:
        """Handle the rest of the data; called by the owner, in a later turn."""
        if self._behind:
            self._behind = False
            if self.state is OPEN:
                self._unhalt()

    def _halt(self) -> None:
        if self._held is None:
            self._held = []
        self._halted = True
        self._stop_reading()

    def _unhalt(self) -> None:
        self._start_reading()
        if self._holds or self._behind:
            return
        items, self._held = self._held, None
        self._halted = False
        if self._receiving:
            return  # the current messages are handled first
        try:
            if items:
                self.receive(items)
            if self._later and not self._halted:
                later, self._later = self._later, b""
                self._slice = SLICE
                self._feed_slices(later)
            self._over_limit()
        except BaseException:
            # As in a read: it ends this connection, and does not reach the caller.
            self.around.owner.failed(self)
            self.abort()
            return
        if self._peer_finished:
            self.finished()

    def complain(self, answer: bytes) -> None:
        """Answer a malformed message, and close the connection after too many.

        An empty ``answer`` is not sent.
        """
        if answer:
            self.send_error(answer)
        self._count_malformed()
        limit = self.around.limits().max_errors
        if limit and self.malformed >= limit:
            self._refuse(TOO_MANY_ERRORS)

    def _refuse(self, reason: CloseReason) -> None:
        """Close because of what the peer sent; that is counted and logged."""
        if self.state is OPEN:
            self.around.owner.note_refusal(f"message, {reason.reason}", self.host, "")
        self.close(reason)

    def _count_malformed(self) -> None:
        self.malformed += 1
        self.around.counters.malformed += 1

    # -- outgoing messages

    def reply(self, message_id: RequestId, result: object) -> None:
        """Answer a request with ``result``; a notification is not answered.

        Behaves like :meth:`send` after the end of the connection. Raises :class:`TypeError`
        for a result that JSON cannot express.
        """
        if message_id is not None:
            self.send(encode_result(message_id, result))

    def send(self, payload: bytes) -> None:
        """Send one message of the class *reply*, which is never dropped.

        Does nothing if the connection has ended: peers may disconnect at any time, and an
        answer that nobody waits for is not an error. To find out, check ``sends``, or use
        :meth:`send_message` or a :class:`~kupool.net.delivery.Delivery`, which raise.
        """
        encode = self._encode  # calling the attribute itself is slower
        data = encode(payload)
        if self._outbox is None and self.state is OPEN and not self._replies:
            self.bytes_out += len(data)
            self.messages_out += 1
            self.transport.write(data)
        else:
            self.send_encoded(data)

    def answer(self, reply: bytes) -> None:
        """Send a late reply, or an error if the reply cannot be sent. Never raises."""
        if self.state is OPEN or self.sends:
            try:
                self.send(reply)
            except BaseException:  # an application's framing may raise
                self.unsendable(reply)

    def send_error(self, answer: bytes) -> None:
        """Send an error of the framework; sends nothing if the framing cannot encode it."""
        with suppress(BaseException):
            self.send(answer)

    def unsendable(self, reply: bytes) -> None:
        """Answer an error instead of a reply that could not be sent.

        Call it while that exception is handled. The exception is logged under a reference;
        usually the reply is over the limit of the codec.
        """
        error = self.around.owner.unsendable(self, reply)
        loose = decode_loosely(reply)
        if loose is not None and loose.id is not None:
            self.send_error(encode_error(loose.id, error))

    def send_many(self, payloads: Sequence[bytes]) -> None:
        """Send several messages of the class *reply* in one write; see :meth:`send`."""
        if len(payloads) == 1:
            self.send(payloads[0])
        else:
            self.send_encoded(self.framing.join(payloads), len(payloads))

    def pack(self, message: bytes | Tlv) -> bytes:
        """Return a message encoded in this framing.

        Raises :class:`MessageTooLarge` for a message over the server's limit, and
        :class:`ValueError` for one that the framing cannot encode.
        """
        size = len(message if isinstance(message, bytes) else message.payload)
        limit = self.around.limits().max_frame
        if size > limit:
            raise MessageTooLarge(size, limit)
        if self.framing.pack is not None:
            return self.framing.pack(message)
        if not isinstance(message, bytes):
            raise ValueError(f"{self.framing.name} has no message ids")
        return self.framing.encode(message)

    def send_message(self, message_id: int, data: bytes) -> None:
        """Send one message under an id, of the class *reply*.

        Raises :class:`ConnectionClosed` if the connection has ended, and what :meth:`pack`
        raises.
        """
        if self.state not in SENDING:
            raise ConnectionClosed(self.id)
        self.send_encoded(self.pack(Tlv(message_id, data)))

    def send_encoded(self, data: bytes, messages: int = 1) -> None:
        """Send encoded messages of this framing, of the class *reply*.

        Does nothing if the connection has ended.
        """
        if self._replies:
            self._send_replies()
        if self.state not in SENDING:
            return
        self.messages_out += messages
        if self._outbox is None:
            self.bytes_out += len(data)
            self.transport.write(data)
            return
        self._outbox.add_reply(data)
        limit = self.around.limits().outbox_limit
        if self._backlogged_since is None and self._outbox.reply_bytes > limit:
            self._backlogged_since = self._now()
            self._stop_reading()

    def send_latest(self, key: str, encoded: bytes) -> None:
        """Send an encoded message that replaces an unsent one of the same ``key``."""
        if self._replies:
            self._send_replies()
        if self.state is not OPEN and not self.sends:
            return
        self.messages_out += 1
        if self._outbox is not None:
            self._outbox.add_latest(key, encoded)
        else:
            self.bytes_out += len(encoded)
            self.transport.write(encoded)

    def send_event(
        self,
        encoded: bytes,
        policy: EventPolicy = EventPolicy.DROP_NEW,
        limit: int | None = None,
    ) -> bool:
        """Send an encoded message that may be dropped; returns whether it was kept.

        ``limit`` is the most bytes of events that may wait, by default the outbox limit.
        """
        if self._replies:
            self._send_replies()
        if self.state is not OPEN and not self.sends:
            return False
        self.messages_out += 1
        if self._outbox is not None:
            most = self.around.limits().outbox_limit if limit is None else limit
            return self._outbox.add_event(encoded, most, policy)
        self.bytes_out += len(encoded)
        self.transport.write(encoded)
        return True

    def _put(self, data: bytes) -> None:
        self.bytes_out += len(data)
        self.transport.write(data)

    def _empty_outbox(self, *, send: bool) -> None:
        """Send the waiting messages as the last ones, or drop them."""
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            self.around.counters.dropped += outbox.dropped
            while send and (data := outbox.take()) is not None:
                self._put(data)

    # -- IPushProducer, for the transport

    def pauseProducing(self) -> None:
        """Keep further messages in the outbox: the transport's buffer is full."""
        self._writable = False
        if self._outbox is None:
            self._outbox = Outbox()

    def resumeProducing(self) -> None:
        """Send waiting messages until the transport's buffer is full again."""
        self._writable = True
        outbox = self._outbox
        while outbox is not None and self._writable and self.state in SENDING:
            data = outbox.take()
            if data is None:
                self.around.counters.dropped += outbox.dropped
                self._outbox = outbox = None
            else:
                self._put(data)
        if self._backlogged_since is not None and (
            outbox is None or outbox.reply_bytes <= self.around.limits().outbox_limit // 2
        ):
            self._backlogged_since = None
            self._start_reading()
        self._tell_waiting()

    @property
    def congested(self) -> bool:
        """Whether data sent now has to wait, as the peer reads slowly."""
        return self._outbox is not None

    def wait_for_space(self, waiter: SpaceWaiter) -> None:
        """Call ``waiter.changed()`` when there is more space, and when the connection ends.

        The waiters are called in their order, and again each time, until they stop waiting.
        """
        if waiter not in self._space_waiters:
            self._space_waiters += (waiter,)

    def stop_waiting(self, waiter: SpaceWaiter) -> None:
        """Call a waiter no more."""
        self._space_waiters = tuple(each for each in self._space_waiters if each is not waiter)

    def _tell_waiting(self) -> None:
        for waiter in self._space_waiters:
            waiter.changed()

    def stopProducing(self) -> None:
        """Do nothing: the transport has ended, and :meth:`lost` follows."""

    def _stop_reading(self) -> None:
        self._read_stops += 1
        if self._read_stops == 1:
            self.transport.pauseProducing()

    def _start_reading(self) -> None:
        self._read_stops -= 1
        if self._read_stops == 0 and self.state is OPEN:
            self.transport.resumeProducing()

    # -- closing

    def _move(self, event: Event) -> bool:
        """Enter the next state; returns False if the event changes nothing."""
        state = after(self.state, event)
        if state is None:
            return False
        self.state = state
        if state is not OPEN:
            self._halted = True
            self._held, self._later = None, b""
        return True

    def expect_within(self, seconds: float, reason: CloseReason) -> None:
        """Close with ``reason`` after some seconds, unless ``deadline`` is cleared."""
        self.deadline = (self._now(), seconds, reason) if seconds else None

    def close(self, reason: CloseReason | None, retry_after: float | None = None) -> None:
        """Send the pending answers and the reason, and end the connection.

        If the owner has a last message, the close waits for it for at most the write
        timeout; no further messages of the peer are handled. A peer that does not read
        within the write timeout is aborted. With a ``reason`` of None the connection ends
        without a close message, as the peer asked.
        """
        if self._replies:
            self._send_replies()
        if after(self.state, Event.CLOSE) is None:
            return
        waits = self.around.owner.parting(self, reason, lambda: self._end(reason, retry_after))
        if not self._move(Event.CLOSE):
            return  # the callback has ended it
        self._splitter = Discarding()
        if not waits or reason is SLOW_READER:
            self._end(reason, retry_after)

    def _end(self, reason: CloseReason | None, retry_after: float | None) -> None:
        if not self.sends:
            return  # it was lost meanwhile, or has ended
        self._empty_outbox(send=reason is not SLOW_READER)
        if reason is not None:
            self.around.counters.closes[reason.reason] += 1
            notice = close_notice(self.framing, reason)
            if notice:
                self._put(notice)
            self._put(self.around.last_word(self.framing, reason, retry_after))
        self._finish_sending(linger=reason is not None)

    def end_with(self, last: bytes) -> None:
        """Send bytes outside every framing, and end the connection."""
        if self.sends:
            self.send_encoded(last)
            self._finish_sending(linger=True)

    def _finish_sending(self, *, linger: bool) -> None:
        self._move(Event.END)
        self._ending = (self._now(), self.around.limits().write_timeout)
        self._tell_waiting()
        self.transport.unregisterProducer()
        if linger and self._half_close:
            # A socket that is closed with unread bytes is reset, and the peer may not get
            # the last message. So only this side ends; further data is dropped.
            self._splitter = Discarding()
            self.transport.loseWriteConnection()
            self.transport.resumeProducing()
        else:
            self.transport.loseConnection()

    def flushed(self) -> None:
        """Everything is sent, and this side has ended: wait shortly for the peer's end."""
        if self._move(Event.FLUSHED):
            self._ending = (self._now(), LINGER)

    def abort(self) -> None:
        """Abort the connection without a close message."""
        if self._move(Event.ABORT):
            self.transport.abortConnection()

    def finished(self) -> None:
        """The peer has finished sending: end the connection once its answers are sent."""
        if self.state in (CLOSING, LINGERING):
            self.transport.loseConnection()
        if self.state is not OPEN:
            return
        if not self._peer_finished:
            self._peer_finished = True
            self._stop_reading()
        if self._held is not None:
            return  # called again when the kept messages have been handled
        self._move(Event.PEER_FINISHED)
        if not self.around.owner.settling(self, lambda: self.close(None)):
            self.close(None)

    def lost(self, reason: Any) -> None:
        """The transport has ended; called by the protocol."""
        if self._move(Event.LOST):
            self._splitter = Discarding(self._splitter.max_payload)  # break the reference cycle
            self._empty_outbox(send=False)
            self._tell_waiting()
            self.around.owner.ended(self, reason)

    def _part_is_late(self, now: float, timeout: float, elapsed: Callable[[float], float]) -> bool:
        """Return whether the rest of a message is late.

        It is checked once a second, so that it costs nothing per message.
        """
        if self._read_stops or not getattr(self._splitter, "buffered", 0):
            self._partial = None
        elif self._partial is None or self._partial[0] != self.messages_in:
            self._partial = (self.messages_in, now)
        else:
            return now - self._partial[1] >= timeout <= elapsed(self._partial[1])
        return False

    def sweep(self, now: float, elapsed: Callable[[float], float] | None = None) -> None:
        """Apply the timeouts; called about once a second by the owner.

        ``elapsed`` returns the seconds since a time of the clock, without the pauses in
        which this process did not run. It is called before a timeout closes the connection.
        """
        elapsed = elapsed or now.__sub__
        if self.state is OPEN or self.state is DRAINING:
            reason = self._overdue(now, elapsed)
            if reason is not None:
                self.close(reason)
        elif self._ending is not None and elapsed(self._ending[0]) >= self._ending[1]:
            self._ending = None
            if self.state is LINGERING:
                self.transport.loseConnection()
            else:
                self.abort()

    def _overdue(self, now: float, elapsed: Callable[[float], float]) -> CloseReason | None:
        """Return the reason if the peer has exceeded a timeout."""
        limits, since = self.around.limits(), self._backlogged_since
        if since is not None and now - since >= limits.write_timeout <= elapsed(since):
            return SLOW_READER
        if self.deadline is not None:
            since, seconds, reason = self.deadline
            if now - since >= seconds <= elapsed(since):
                return reason
        idle, part = limits.idle_timeout, limits.message_timeout
        if idle and now - self.last_seen >= idle <= elapsed(self.last_seen):
            return IDLE_TIMEOUT
        if part and self._part_is_late(now, part, elapsed):
            return IDLE_TIMEOUT
        return None


__all__ = ["BUDGET", "LINGER", "SLICE", "Connection", "Dispatcher"]
