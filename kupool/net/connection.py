"""One connection: what came in, what goes out, and how it ends.

A connection belongs to a protocol of :mod:`kupool.net.transport.protocols`, which feeds it
bytes, and to a server's manager, which sweeps it for timeouts. It never blocks and
never buffers without bound: see :mod:`kupool.session.outbox` for a peer that reads slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.errors import (
    CLOSE_MALFORMED,
    IDLE_TIMEOUT,
    SLOW_READER,
    TOO_MANY_ERRORS,
    CloseReason,
)
from kupool.net.failures import ConnectionClosed
from kupool.net.outgoing import CLOSED, CLOSING, OPEN, Outgoing
from kupool.wire.framing import Discarding, Framing, Item, Splitter

if TYPE_CHECKING:
    from kupool.net.manager import ConnectionManager
    from kupool.net.routing.router import IRouter

#: Seconds that a peer has to end its side, once all that it was sent is on its way.
LINGER = 1.0


def ends_by_halves(transport: Any) -> bool:
    """Say whether this side of a transport can end alone."""
    return ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(transport)


class Connection(Outgoing):
    """A peer, as handlers see it.

    ``context`` is the application's own, as ``properties`` are; ``last_seen`` is the
    time of the last whole message, in seconds of the server's clock.
    """

    __slots__ = (
        "__weakref__",
        "_dispatch",
        "_ends_at",
        "_halted",
        "_held",
        "_holds",
        "_lingering",
        "_partial",
        "_parting",
        "_peer_finished",
        "_properties",
        "_receiving",
        "_router",
        "_splitter",
        "bytes_in",
        "context",
        "deadline",
        "host",
        "last_seen",
        "malformed",
        "messages_in",
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
        super().__init__(connection_id, manager, transport, framing)
        #: The peer's address without its port when it came; empty for a Unix socket.
        self.host = host
        self.context: Any = None
        self.last_seen = manager.now()
        #: (time, reason) at which the connection is closed unless it is cleared.
        self.deadline: tuple[float, CloseReason] | None = None
        self.bytes_in = self.messages_in = self.malformed = 0
        self._splitter: Splitter = framing.splitter(manager.settings.max_frame)
        self._properties: dict[str, object] | None = None
        self._held: list[Item] | None = None
        self._holds = 0
        self._halted = self._parting = False
        self._receiving = False
        self._peer_finished = self._lingering = False
        self._ends_at: float | None = None
        self._partial: tuple[int, float] | None = None

    # -- who it is

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
        self._empty_outbox(send=reason is not SLOW_READER)
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
            self._empty_outbox(send=False)
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


__all__ = ["CLOSED", "CLOSING", "LINGER", "OPEN", "Connection", "ends_by_halves"]
