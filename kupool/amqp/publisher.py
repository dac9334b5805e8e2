"""Publishes messages to RabbitMQ, each until it is certainly stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from kupool.amqp import BrokerError
from kupool.amqp.channel import BrokerChannel
from kupool.amqp.connection import BrokerConnection
from kupool.timing.waiting import Waiters

#: Seconds from a refusal to the next channel: a channel that is opened while a quorum queue has no
#: leader is refused for ever.
RENEW_DELAY = 0.25

_TICK = 0.25

#: The header of an entry that was sent before, and may be stored already.
REPEATED = "repeated"


@dataclass(frozen=True)
class PublisherSettings:
    """Limits for unconfirmed entries; times in seconds.

    ``entries`` and ``bytes`` limit what is unconfirmed. After ``stalled`` without a confirm nothing
    more is accepted; after ``silent`` the connection is closed.

    An entry that was sent and is not confirmed may have been stored or not. It is sent again until
    it is confirmed, unless ``give_up`` is set: then it fails after that time. Set it only if the
    caller then appends the same entry again, under the same id. With ``mark_repeats`` an entry that
    is sent again has the header :data:`REPEATED`, so that readers know which ones may be there
    twice.
    """

    entries: int = 1000
    bytes: int = 64 * 1024 * 1024
    stalled: float = 2.0
    silent: float = 10.0
    give_up: float = 0.0
    mark_repeats: bool = False


@dataclass(eq=False)
class _Outgoing:
    serial: int
    exchange: str
    key: str
    message_id: str
    headers: dict[str, Any]
    body: bytes
    done: Deferred[None]
    first_sent: float = 0.0
    sent: float = 0.0
    confirmed: bool = False


class Publisher:
    """Publishes on one channel with confirms, in the order of the calls.

    A confirm says that some queue has the entry. To know that each of ``queues`` has it, the queues
    are checked on the same channel after it was published: a deleted queue would otherwise go
    unnoticed while another one is bound. ``wall`` returns seconds since the epoch. What is not
    stored fails with an ``unavailable``, which is made from a text.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        queues: Callable[[], tuple[str, ...]],
        settings: PublisherSettings | None = None,
        *,
        unavailable: Callable[[str], Exception] = BrokerError,
    ) -> None:
        self._clock = clock
        self._unavailable = unavailable
        self._wall = wall
        self._queues = queues
        self._settings = settings or PublisherSettings()
        #: By serial number, and so in order.
        self._waiting: dict[int, _Outgoing] = {}
        self._bytes = 0
        self._serial = 0
        self._connection: BrokerConnection | None = None
        self._channel: BrokerChannel | None = None
        #: On this channel: the last entry sent, and the last entry after which the queues were
        #: checked.
        self._sent = self._covered = 0
        self._checking = False
        self._down = "not connected yet"
        self._closed = False
        self._renewing: IDelayedCall | None = None
        self._idle = Waiters[None]()
        self._ticking: IDelayedCall | None = None

    @property
    def waiting(self) -> int:
        """The number of unsettled entries."""
        return len(self._waiting)

    @property
    def obstacle(self) -> str:
        """Why nothing can be accepted now; empty if something can."""
        if self._closed:
            return "the log is closed"
        if self._connection is None:
            return self._down
        if self._connection.blocked:
            return (
                f"RabbitMQ at {self._connection.broker} is low on memory or disk, "
                "and accepts nothing"
            )
        if self._silence() > self._settings.stalled:
            return f"RabbitMQ at {self._connection.broker} does not confirm what is published"
        if len(self._waiting) >= self._settings.entries or self._bytes >= self._settings.bytes:
            return "too many entries wait for RabbitMQ's confirm"
        return ""

    def _silence(self) -> float:
        """Seconds since the oldest entry was sent on this connection; 0 if none waits."""
        for item in self._waiting.values():
            return self._clock.seconds() - item.sent if item.sent else 0.0
        return 0.0

    def publish(
        self, exchange: str, key: str, message_id: str, headers: dict[str, Any], *, body: bytes
    ) -> Deferred[None]:
        """Publish an entry; fires when it is stored.

        Fails as unavailable if it was not sent at all, or if it is given up.
        """
        obstacle = self.obstacle
        if obstacle:
            return fail(self._unavailable(obstacle))
        self._serial += 1
        item = _Outgoing(self._serial, exchange, key, message_id, headers, body, Deferred())
        self._waiting[item.serial] = item
        self._bytes += len(body)
        if self._ticking is None:
            self._ticking = self._clock.callLater(_TICK, self._tick)
        if self._channel is not None:
            self._send(self._channel, item)
        return item.done

    async def up(self, connection: BrokerConnection) -> None:
        """Use a new connection: unsettled entries are sent again, in order."""
        if not self._closed or self._waiting:
            await self._open(connection)
            self._connection = connection

    def abandon(self, key: str, why: str) -> None:
        """Send nothing more with a routing key: what waits with it fails, stored or not."""
        for item in [each for each in self._waiting.values() if each.key == key]:
            self._fail(item, why)

    @property
    def keys(self) -> set[str]:
        """The routing keys of the entries that wait."""
        return {item.key for item in self._waiting.values()}

    def down(self, why: str) -> None:
        """The connection is lost: sent entries wait for the next one, the others fail."""
        self._connection, self._channel, self._down = None, None, why
        self._cancel_renewal()
        for item in list(self._waiting.values()):
            item.sent = 0.0
            if not item.first_sent:
                self._fail(item, why)

    async def _open(self, connection: BrokerConnection) -> None:
        channel = await connection.channel()
        await channel.confirm(lambda message_id: self._returned(connection, channel, message_id))
        channel.on_closed = lambda why: self._broken(connection, channel, str(why))
        self._channel, self._checking, self._covered = channel, False, 0
        for item in list(self._waiting.values()):
            self._send(channel, item)

    def _send(self, channel: BrokerChannel, item: _Outgoing) -> None:
        item.confirmed = False
        item.sent = self._clock.seconds()
        headers = {"appended_at": int(self._wall() * 1000), **item.headers}
        if item.first_sent and self._settings.mark_repeats:
            headers[REPEATED] = True
        item.first_sent = item.first_sent or item.sent
        self._sent = item.serial
        channel.publish(
            item.exchange, item.key, item.message_id, headers, body=item.body
        ).addCallbacks(
            self._confirmed, self._refused, callbackArgs=(channel, item), errbackArgs=(channel,)
        ).addErrback(
            lambda failure: self._log.failure("A confirm of RabbitMQ could not be handled", failure)
        )
        self._check(channel)

    def _confirmed(self, _: object, channel: BrokerChannel, item: _Outgoing) -> None:
        if channel is self._channel:
            item.confirmed = True
            if item.serial <= self._covered:
                self._settle(item)

    def _check(self, channel: BrokerChannel) -> None:
        """Check the queues after entries were published; one check covers many entries."""
        if self._checking or channel is not self._channel or self._covered >= self._sent:
            return
        queues = self._queues()
        if not queues:
            self._covered = self._sent
            return
        self._checking = True
        looks = [channel.look_at(queue) for queue in queues]
        gatherResults(looks, consumeErrors=True).addCallbacks(
            self._checked,
            lambda _: None,  # the channel is closed by that, which is handled elsewhere
            callbackArgs=(channel, self._sent),
        ).addErrback(lambda failure: self._log.failure("A check of RabbitMQ failed", failure))

    def _checked(self, _: object, channel: BrokerChannel, serial: int) -> None:
        if channel is not self._channel:
            return
        self._checking = False
        self._covered = serial
        for item in list(self._waiting.values()):
            if item.serial > serial:
                break
            if item.confirmed:
                self._settle(item)
        self._check(channel)

    def _settle(self, item: _Outgoing) -> None:
        self._forget(item)
        if not item.done.called:
            item.done.callback(None)

    def _fail(self, item: _Outgoing, why: str) -> None:
        self._forget(item)
        if not item.done.called:
            item.done.errback(self._unavailable(why))

    def _forget(self, item: _Outgoing) -> None:
        if self._waiting.pop(item.serial, None) is not None:
            self._bytes -= len(item.body)
        if not self._waiting:
            if self._ticking is not None:
                self._ticking.cancel()
                self._ticking = None
            self._idle.tell(None)

    def _refused(self, failure: Failure, channel: BrokerChannel) -> None:
        """The broker refused an entry: open a new channel, and send everything again."""
        if channel is not self._channel or not channel.is_open:
            return
        assert failure.value is not None
        self._log.warn(
            "RabbitMQ refused an entry ({why}); trying again", why=type(failure.value).__name__
        )
        self._channel = None
        channel.close()
        self._renewing = self._clock.callLater(RENEW_DELAY, self._renew)

    def _renew(self) -> None:
        self._renewing = None
        connection = self._connection
        if connection is None:
            return
        held: BrokerConnection = connection

        def failed(failure: Failure) -> None:
            held.drop(f"no channel: {failure.getErrorMessage()}")

        Deferred.fromCoroutine(self._open(held)).addErrback(failed)

    def _returned(
        self, connection: BrokerConnection, channel: BrokerChannel, message_id: str
    ) -> None:
        if channel is self._channel:
            self._channel = None
            connection.drop(f"no queue takes entry {message_id!r}")

    def _broken(self, connection: BrokerConnection, channel: BrokerChannel, why: str) -> None:
        """The broker closed a channel: something that is published to is missing or wrong."""
        if channel is self._channel:
            self._channel = None
            connection.drop(why)

    def _tick(self) -> None:
        self._ticking = None
        if self._settings.give_up:
            late = self._clock.seconds() - self._settings.give_up
            for item in list(self._waiting.values()):
                if item.first_sent and item.first_sent <= late:
                    self._fail(item, f"not confirmed in time: {self.obstacle or 'slow broker'}")
        connection, silent = self._connection, self._settings.silent
        if connection is not None and not connection.blocked and self._silence() > silent:
            self._channel = None
            connection.drop(f"no confirm for {silent:g} s")
        if self._waiting and self._ticking is None:
            self._ticking = self._clock.callLater(_TICK, self._tick)

    def _cancel_renewal(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            self._renewing = None

    async def close(self, seconds: float) -> None:
        """Accept nothing more, and wait for unconfirmed entries; the rest fails."""
        self._closed = True
        if self._waiting:
            await self._idle.wait().addTimeout(seconds, self._clock, lambda *_: None)
        self._cancel_renewal()
        for item in list(self._waiting.values()):
            self._fail(item, "the log was closed before it was confirmed")


__all__ = ["REPEATED", "Publisher", "PublisherSettings"]
