"""The log in RabbitMQ, from its parts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.amqp import BrokerUnreachable as NoBroker
from kupool.amqp.address import parse_brokers
from kupool.amqp.channel import BrokerChannel
from kupool.amqp.connection import BrokerConnection
from kupool.amqp.links import Link, LinkSettings
from kupool.log import (
    DeliveredEntry,
    Entry,
    Extent,
    Identity,
    ILog,
    ISubscription,
    LogStatus,
    LogUnavailable,
    Mark,
)
from kupool.log.groups import RetrySettings
from kupool.log.rabbit import BrokerRefused, LogBrokerUnreachable
from kupool.log.rabbit.consumer import RabbitSubscription
from kupool.log.rabbit.extent import Found, examine
from kupool.log.rabbit.gauge import Gauge
from kupool.log.rabbit.headers import marks, offset_of, pool_of
from kupool.log.rabbit.publisher import Publisher, PublisherSettings
from kupool.log.rabbit.stream import StreamReader
from kupool.log.rabbit.topology import Topology, declare


@dataclass(frozen=True)
class RabbitSettings:
    """How a log in RabbitMQ is used; times in seconds.

    With ``required`` a start fails where no broker can be reached; without, the log opens
    all the same and says so in its status. One that refuses us always fails the start.
    ``look_every`` is how often the depths of the queues are asked for; ``close_timeout`` how
    long a close waits for confirms; ``patience`` how long a start waits for a broker that is
    not required, and a consumer for a queue. With ``hold`` the log takes and delivers nothing
    before it is told which pool it belongs to.
    """

    topology: Topology = field(default_factory=Topology)
    link: LinkSettings = field(default_factory=LinkSettings)
    publisher: PublisherSettings = field(default_factory=PublisherSettings)
    retry: RetrySettings = field(default_factory=RetrySettings)
    required: bool = True
    look_every: float = 0.5
    close_timeout: float = 5.0
    patience: float = 6.0
    hold: bool = False


@implementer(ILog)
class RabbitLog:
    """Entries in RabbitMQ, kept by it: in the queue of each group, and in a stream.

    ``url`` holds one or several addresses (:func:`parse_brokers`); raises
    :class:`ValueError` when it is none. ``wall`` returns seconds since the epoch. Publishing,
    consuming and reading have a connection each, so that the broker's flow control on one
    does not hold up the others.

    Positions are of two kinds. Those of :meth:`read` are places in the stream: what its epoch
    begins after, and the offset, and one. Those of entries that are delivered number
    them within one subscription. What ties the two together is the entry's id. An entry
    may be in the queue and the stream more than once: what was not confirmed is sent again.

    Every message says in its headers which pool and epoch it is of. What is of another pool
    is not read, and goes from the queue to the dead letters.
    """

    persistent = True
    instant = False
    positional = False

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        wall: Callable[[], float],
        url: str,
        settings: RabbitSettings | None = None,
    ) -> None:
        self._reactor = reactor
        self._settings = settings or RabbitSettings()
        self._topology = self._settings.topology
        brokers, link = parse_brokers(url), self._settings.link
        name = f"kupool {self._topology.queue}"
        self._publisher = Publisher(
            reactor,
            wall,
            lambda: (*self._topology.queues, self._topology.stream),
            self._settings.publisher,
        )
        self._publishing = Link(
            reactor,
            brokers,
            f"{name}: publishing",
            self._set_up_publishing,
            lost=self._publisher.down,
            settings=link,
        )
        self._consuming = Link(
            reactor,
            brokers,
            f"{name}: consuming",
            self._set_up_consuming,
            lost=self._consuming_lost,
            settings=link,
        )
        self._reading = Link(
            reactor, brokers, f"{name}: reading", self._set_up_reading, settings=link
        )
        self._identity: Identity | None = None
        self._reader = StreamReader(reactor, self._reading, self._topology, self._pool)
        #: What the stream was found to hold when it was last compared.
        self._found: Found | None = None
        #: Offsets of the stream known here: at least so many are there.
        self._entries = 0
        #: How many there were then without those that were on their way: they may be among
        #: them, and are counted when they are confirmed.
        self._settled = 0
        self._watchers: list[Callable[[], object]] = []
        self._refusal = ""
        self._subscriptions: dict[str, RabbitSubscription] = {}
        self._gauges: dict[str, Gauge] = {}
        self._watch: BrokerChannel | None = None
        self._watching: BrokerConnection | None = None
        self._looks = LoopingCall(self._look)
        self._looks.clock = reactor
        self._opened = self._closed = False

    def _pool(self) -> str:
        return pool_of(self._identity)

    @property
    def _held(self) -> bool:
        return self._settings.hold and self._identity is None

    # -- begin

    def open(self) -> Deferred[None]:
        """Connect, and make what is missing at the broker.

        Fails with :class:`BrokerRefused` where a broker will not have us or has something
        else under our names, with :class:`LogBrokerUnreachable` where none answers and one is
        required. Both say why in one line, without passwords.
        """
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        self._opened = True
        links = (self._publishing, self._consuming, self._reading)
        for link in links:
            link.start()
        try:
            patience = None if self._settings.required else self._settings.patience
            # One after another: what is missing is made by the first.
            for link in links:
                await link.first(patience)
            ends = await self._reader.ends()
            if ends is not None:
                self._entries = offset_of(ends[1][-1].headers) + 1
        except BrokerRefused:
            await self.close()
            raise
        except (NoBroker, LogBrokerUnreachable) as error:
            if self._settings.required:
                await self.close()
                raise LogBrokerUnreachable(str(error)) from None
        self._looks.start(self._settings.look_every).addErrback(
            lambda failure: self._log.failure(
                "The checks of the queues stopped because of an error", failure
            )
        )

    async def _set_up_publishing(self, connection: BrokerConnection) -> None:
        await self._declare(connection)
        await self._publisher.up(connection)

    async def _set_up_consuming(self, connection: BrokerConnection) -> None:
        for queue, count in (await self._declare(connection)).items():
            self._gauge(queue).seen(count)
        # Who subscribes from here on begins by himself.
        self._watch, self._watching = await connection.channel(), connection
        if not self._held:
            await self._begin_consuming(connection)

    async def _begin_consuming(self, connection: BrokerConnection) -> None:
        for subscription in list(self._subscriptions.values()):
            await subscription.up(connection)

    async def _set_up_reading(self, connection: BrokerConnection) -> None:
        await self._declare(connection)
        self._reactor.callLater(0, self._tell)

    async def _declare(self, connection: BrokerConnection) -> dict[str, int]:
        declared = await declare(connection, self._topology)
        if self._topology.stream in declared.made and self._identity is not None:
            self._log.error(
                "The stream {name!r} was deleted by somebody, and was made again",
                name=self._topology.stream,
            )
            self._reactor.callLater(0, self._tell)
        return declared.waiting

    def watch(self, told: Callable[[], object]) -> None:
        """Have ``told`` called when the stream may have become another one: after each new
        connection, and where it had to be made.
        """
        self._watchers.append(told)

    def _tell(self) -> None:
        for told in self._watchers if not self._closed else ():
            told()

    def _consuming_lost(self, why: str) -> None:
        self._watch = self._watching = None
        for subscription in self._subscriptions.values():
            subscription.down()

    # -- whose it is

    def extent(self, known: Identity | None, mark: Mark) -> Deferred[Extent]:
        """Return what the stream holds, see :func:`kupool.log.rabbit.extent.examine`.

        Fails with :class:`LogUnavailable` where the broker cannot be reached.
        """
        return Deferred.fromCoroutine(self._extent(known, mark))

    async def _extent(self, known: Identity | None, mark: Mark) -> Extent:
        if self._reading.connection is None:
            raise LogBrokerUnreachable(self._reading.problem)  # a read would wait for it
        new = known is not None and known == self._identity and not self._entries
        found = self._found = await examine(self._reactor, self._reader, known, mark, new=new)
        self._settled = max(found.entries - self._publisher.waiting, 0)
        if known is not None and found.extent.identity == known:
            assert found.base is not None
            self._use(found.base, max(self._settled, self._entries))
        return found.extent

    def refuse(self, reason: str) -> None:
        """Take nothing from now on, for a reason; an empty one ends it."""
        self._refusal = reason

    def identify(self, identity: Identity) -> Deferred[None]:
        """Carry an identity from now on; what was held begins to move.

        It is kept by the broker with the next entry, and by the store. The positions of what
        the stream holds come after the newest epoch's beginning, unless it reaches there.
        """
        found, base, entries = self._found, identity.begins_after, self._entries
        if found is not None:
            entries = self._settled
            if found.base is not None and found.base + found.entries >= base:
                base = found.base
        if base == self._reader.base:
            entries = max(entries, self._entries)
        held, self._identity = self._held, identity
        self._use(base, entries)
        connection = self._watching
        if held and connection is not None:
            begun = Deferred.fromCoroutine(self._begin_consuming(connection))
            return self._patiently(begun.addErrback(_not_begun, connection))
        return succeed(None)

    def _use(self, base: int, entries: int) -> None:
        if base != self._reader.base:
            self._reader.rebase(base)
        self._entries = entries

    # -- append and read

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        """Append an entry; fires when the broker has it safe in every queue and the stream.

        Fails with :class:`LogUnavailable` at once where nothing can be sent now. What was
        sent and is not confirmed is sent again and not failed, unless the settings of the
        publisher say so: it may have been kept.
        """
        obstacle = self._obstacle()
        if obstacle:
            return fail(LogUnavailable(obstacle))
        headers = marks(self._identity)
        done = self._publisher.publish(self._topology.exchange, "", entry_id, headers, body=body)
        return done.addCallback(self._appended)

    def _obstacle(self) -> str:
        """Why nothing can be taken now; empty when something can."""
        if self._refusal or self._publisher.obstacle or not self._held:
            return self._refusal or self._publisher.obstacle
        return "the stream has not been compared with the counts yet"

    def _appended(self, _: object) -> None:
        self._entries += 1
        for queue in self._topology.queues:
            self._gauge(queue).put()

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` entries of the stream that follow the position ``after``.

        Fails with :class:`LogUnavailable` where the broker cannot be reached.
        """
        return Deferred.fromCoroutine(self._reader.read(after, limit))

    # -- consume

    def consume(
        self, group: str, consumer: Any, prefetch: int, after: int | None = None
    ) -> Deferred[ISubscription]:
        """Deliver what a group has not acknowledged, at most ``prefetch`` ahead.

        The broker holds the place, so that ``after`` is of no consequence. A group that the
        topology does not name begins with what is appended from now on.
        """
        return Deferred.fromCoroutine(self._consume(group, consumer, prefetch))

    async def _consume(self, group: str, consumer: Any, prefetch: int) -> ISubscription:
        if group not in self._topology.groups:
            self._topology = replace(self._topology, groups=(*self._topology.groups, group))
            if self._watching is not None:
                await declare(self._watching, self._topology)
        queue = self._topology.queue_of(group)
        subscription = RabbitSubscription(
            self._reactor,
            queue,
            self._gauge(queue),
            consumer,
            prefetch=prefetch,
            retry=self._settings.retry,
            bury=lambda delivery, reason: self._bury(group, delivery, reason),
            identity=lambda: self._identity,
        )
        before = self._subscriptions.get(group)
        if before is not None:
            await before.stop()
        self._subscriptions[group] = subscription
        connection = self._watching
        if connection is not None and not self._held:
            begun = Deferred.fromCoroutine(subscription.up(connection))
            await self._patiently(begun.addErrback(_not_begun, connection))
        return subscription

    def _patiently(self, work: Deferred[None]) -> Deferred[None]:
        """Wait a while for what goes on all the same.

        A queue without a leader answers late, or never; it may do so later.
        """
        done: Deferred[None] = Deferred()
        work.addCallback(lambda _: done.callback(None) if not done.called else None)
        return done.addTimeout(self._settings.patience, self._reactor, lambda *_: None)

    def _bury(self, group: str, delivery: DeliveredEntry, reason: str) -> Deferred[None]:
        headers = {
            "reason": reason,
            "group": group,
            "deliveries": delivery.attempt,
            "appended_at": int(delivery.entry.appended_at * 1000),
            **marks(self._identity),
        }
        queue, entry = self._topology.dead_letters, delivery.entry
        done = self._publisher.publish("", queue, entry.entry_id, headers, body=entry.body)
        return done.addCallback(lambda _: self._gauge(queue).put())

    # -- state

    def _gauge(self, queue: str) -> Gauge:
        return self._gauges.setdefault(queue, Gauge())

    def _look(self) -> Deferred[Any] | None:
        """Ask how many messages wait; a queue that is gone ends the connection, and is made."""
        watch, connection = self._watch, self._watching
        if watch is None or connection is None:
            return None
        watched = [*map(self._topology.queue_of, self._subscriptions), self._topology.dead_letters]
        looks = [watch.look_at(q).addCallback(self._gauge(q).seen) for q in watched]
        looked: Deferred[Any] = gatherResults(looks, consumeErrors=True)
        return looked.addErrback(_look_failed, connection)

    def trim(self, now: float, max_age: float, max_bytes: int) -> Deferred[int]:
        """Drop nothing, and return 0: entries leave the stream by the broker's retention.

        That is set by ``max_age`` and ``max_bytes`` of the topology when the stream is
        made. The queues hold only what is not acknowledged.
        """
        return succeed(0)

    def trimmed(self) -> Deferred[int | None]:
        """Return None: what the broker drops, it does not tell."""
        return succeed(None)

    def status(self) -> LogStatus:
        """Say how the log is.

        ``appended`` is a position that the newest entry is not before. ``depth`` is for the
        group that is behind most, of those that are consumed here: messages that wait in its
        queue, as asked for now and then, and those delivered here and not acknowledged.
        """
        depth = max(
            (
                self._gauge(self._topology.queue_of(group)).waiting + subscription.unacknowledged
                for group, subscription in self._subscriptions.items()
            ),
            default=0,
        )
        dead = self._gauge(self._topology.dead_letters).waiting
        return LogStatus(self._reader.base + self._entries, depth, dead, self._obstacle())

    # -- end

    def close(self) -> Deferred[None]:
        """Wait a while for what is on its way, and end the connections."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._closed or not self._opened:
            self._closed = True
            return
        self._closed = True
        if self._looks.running:
            self._looks.stop()
        await self._publisher.close(self._settings.close_timeout)
        for subscription in self._subscriptions.values():
            await subscription.stop()
        links = (self._publishing, self._consuming, self._reading)
        for ending in [Deferred.fromCoroutine(link.stop()) for link in links]:
            await ending


def _not_begun(failure: Failure, connection: BrokerConnection) -> None:
    connection.drop(failure.getErrorMessage())


def _look_failed(failure: Failure, connection: BrokerConnection) -> None:
    error: Any = failure.value  # of gatherResults
    connection.drop(f"looking at the queues: {error.subFailure.getErrorMessage()}")


__all__ = ["RabbitLog", "RabbitSettings"]
