"""pika's Twisted adapter with our additions. Only this module uses the adapter.

The adapter installs the reactor on import. So functions import it, which are called when
there is a reactor.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IPushProducer, ITCPTransport
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.amqp import BrokerError
from kupool.amqp.address import BrokerAddress
from kupool.amqp.frames import BrokerFrames

#: Seconds that a connection has to close in order before it is aborted.
CUT_AFTER = 2.0

_REPLY = re.compile(r"\((\d{3})\) (['\"])(.*)\2", re.DOTALL)


@dataclass(frozen=True)
class ConnectionSettings:
    """The timeouts of a connection, in seconds.

    ``timeout`` limits the network connection and the handshake, each. ``blocked_timeout``
    is how long a broker may accept no data before the connection is dropped.
    """

    timeout: float = 5.0
    heartbeat: int = 10
    blocked_timeout: float = 60.0


@implementer(IPushProducer)
class Wire:
    """The transport that pika uses: it aborts a connection that does not close in time."""

    def __init__(self, reactor: Any, transport: Any) -> None:
        self._reactor = reactor
        self._transport = transport
        self._cutting: IDelayedCall | None = None
        self._resumed: Callable[[], object] | None = None
        #: Whether the broker reads; only valid after :meth:`watch`.
        self.writable = True

    def watch(self, resumed: Callable[[], object]) -> None:
        """Keep :attr:`writable` up to date; ``resumed`` is called when it becomes true again."""
        self._resumed = resumed
        self._transport.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """Send bytes."""
        self._transport.write(data)

    def loseConnection(self) -> None:
        """Close in order, within :data:`CUT_AFTER` seconds."""
        # Closing waits for the write buffer, and the broker may not read.
        self._watch_no_more()
        self._transport.loseConnection()
        self.cut_later()

    def cut_later(self) -> None:
        """Abort the connection in :data:`CUT_AFTER` seconds, unless it ends before."""
        if self._cutting is None:
            self._cutting = self._reactor.callLater(CUT_AFTER, self._transport.abortConnection)

    def abortConnection(self) -> None:
        """Abort the connection now."""
        self._transport.abortConnection()

    def _watch_no_more(self) -> None:
        if self._resumed is not None:
            self._resumed = None
            self._transport.unregisterProducer()

    def pauseProducing(self) -> None:
        """Note that the broker reads slowly."""
        self.writable = False

    def resumeProducing(self) -> None:
        """Note that the broker reads again."""
        self.writable = True
        if self._resumed is not None:
            self._resumed()

    def stopProducing(self) -> None:
        """Note that the transport has ended, and notify pika."""
        self._resumed = None

    def ended(self) -> None:
        """The connection has ended: cancel the abort."""
        if self._cutting is not None and self._cutting.active():
            self._cutting.cancel()


class _Told:
    """A mixin for pika's protocol that reports why it ended, and whether it is blocked."""

    _impl: Any
    reactor: Any
    ready: Any
    #: pika's class of the broker's close command.
    close_method: Any

    def prepare(self) -> None:
        """Set up the connection that pika has just made."""
        # pika's own Deferred for this does not tell the reason of a failure.
        self.ready.addErrback(lambda _: None)
        #: Fires when the virtual host is open, or fails with the reason.
        self.opened: Deferred[None] = Deferred()
        #: Fires when the connection has ended.
        self.over: Deferred[None] = Deferred()
        self.reason: Exception | None = None
        self.blocked = False
        self.unblocked: Callable[[], object] = lambda: None
        self.wire: Wire | None = None
        self.splitter = BrokerFrames(super().dataReceived)  # type: ignore[misc]
        self._impl.add_on_open_callback(self._opened_now)
        self._impl.add_on_open_error_callback(self._ended, remove_default=False)
        self._impl.add_on_close_callback(self._ended)
        # The adapter loses the broker's reason if the connection then closes in order.
        self._impl.callbacks.add(0, self.close_method, self._told_to_close, one_shot=False)
        self._impl.add_on_connection_blocked_callback(lambda *_: self._block(True))
        self._impl.add_on_connection_unblocked_callback(lambda *_: self._block(False))

    def makeConnection(self, transport: Any) -> None:
        """Give pika a transport that is aborted if it does not close in time."""
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)  # small writes must not wait for more data
        self.wire = Wire(self.reactor, transport)
        super().makeConnection(self.wire)  # type: ignore[misc]

    def dataReceived(self, data: bytes) -> None:
        """Give each frame to the lane of its channel, or to pika."""
        taken = self.splitter.feed(data)
        # pika closes a connection on which it sees nothing. It has counted the other bytes itself
        # during that call, so its figure is read after it.
        self._impl.bytes_received += taken

    @property
    def largest_frame(self) -> int:
        """The bytes of a frame that the broker takes."""
        return int(self._impl.params.frame_max)

    def connectionLost(self, reason: Failure) -> None:
        """Notify the waiting Deferreds, after pika."""
        if self.wire is not None:
            self.wire.ended()
        super().connectionLost(reason)  # type: ignore[misc]
        if not self.opened.called:
            self.opened.errback(self.reason or reason)
        self.over.callback(None)

    def _opened_now(self, _: object) -> None:
        if not self.opened.called:
            self.opened.callback(None)

    def _ended(self, _: object, reason: Exception) -> None:
        self.reason = self.reason or reason

    def _told_to_close(self, frame: Any) -> None:
        text = " ".join(str(frame.method.reply_text).split())
        self.reason = BrokerError(text, frame.method.reply_code)

    def _block(self, blocked: bool) -> None:
        self.blocked = blocked
        if not blocked:
            self.unblocked()


def make_protocol(
    reactor: Any, broker: BrokerAddress, settings: ConnectionSettings, name: str
) -> Any:
    """Return pika's protocol for a connection that the broker shows as ``name``."""
    import pika
    from pika.adapters.twisted_connection import TwistedProtocolConnection

    # Callers get what pika logs; its log would reach stderr around our own log.
    logging.getLogger("pika").setLevel(logging.CRITICAL)

    class BrokerProtocol(_Told, TwistedProtocolConnection):  # type: ignore[misc]
        pass

    protocol = BrokerProtocol(
        pika.ConnectionParameters(
            host=broker.host,
            port=broker.port,
            virtual_host=broker.vhost,
            credentials=pika.PlainCredentials(broker.user, broker.password),
            heartbeat=settings.heartbeat,
            blocked_connection_timeout=settings.blocked_timeout,
            client_properties={"connection_name": name},
        ),
        reactor,
    )
    protocol.reactor = reactor
    protocol.close_method = pika.spec.Connection.Close
    protocol.prepare()
    return protocol


def refused() -> Exception:
    """Return pika's error for a message that the broker refused."""
    from pika.exceptions import NackError

    error: Exception = NackError([])
    return error


def make_envelope(kind: str, sender: str, reply_to: str, seconds: float) -> Any:
    """Return the properties of a transient message that expires after ``seconds``."""
    import pika

    return pika.BasicProperties(
        delivery_mode=1,
        type=kind,
        app_id=sender,
        reply_to=reply_to,
        expiration=str(max(1, round(seconds * 1000))),
    )


def as_error(error: BaseException | None) -> BrokerError:
    """Return an exception of pika as ours, with the broker's own text if there is one."""
    if isinstance(error, BrokerError):
        return error
    code, text = getattr(error, "reply_code", 0), getattr(error, "reply_text", "")
    if not code:
        # pika embeds the broker's text in its own during the handshake.
        said = _REPLY.search(str(error))
        if said:
            code, text = int(said[1]), said[3]
    text = text or str(error).strip() or type(error).__name__
    return BrokerError(" ".join(text.split()), code)


__all__ = [
    "CUT_AFTER",
    "ConnectionSettings",
    "Wire",
    "as_error",
    "make_envelope",
    "make_protocol",
    "refused",
]
