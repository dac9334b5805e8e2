"""The log in RabbitMQ, which connects its parts."""

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
from kupool.amqp.publisher import Publisher, PublisherSettings
from kupool.amqp.streams import offset_of
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
from kupool.log.rabbit.headers import marks, pool_of
from kupool.log.rabbit.reader import RabbitLogReader
from kupool.log.rabbit.stream import StreamReader
from kupool.log.rabbit.topology import Topology, declare

#: Why nothing is accepted or read before the pool of the log is known.
NOT_COMPARED = "the stream has not been compared with the counts yet"


@dataclass(frozen=True)
class RabbitSettings:
    """Settings of a log in RabbitMQ; times in seconds.

    With ``required`` a start fails if no broker can be reached. Without it, the log opens anyway
    and reports the problem in its status. A broker that refuses the login always fails the start.
    ``look_every`` is the time between two checks of the queues' depths. ``close_timeout`` is how
    long a close waits for confirms, ``patience`` how long a start waits for a broker that is not
    required, and a consumer for a queue. With ``hold`` the log accepts and delivers nothing before
    its pool is set.
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
    """The log in RabbitMQ: each group has a queue, and a stream has all entries.

    ``url`` holds one or several addresses (:func:`parse_brokers`); an invalid one raises
    :class:`ValueError`. ``wall`` returns seconds since the epoch. Publishing, consuming and reading
    have separate connections, so that the broker's flow control on one does not block the others.

    There are two kinds of positions. Those of :meth:`read` are positions in the stream: the start
    of its epoch plus the offset plus one. Those of delivered entries are numbers within one
    subscription. The entry's id connects the two. The queue and the stream may contain an entry
    more than once, because unconfirmed entries are sent again.

    The headers of every message name its pool and epoch. A message of another pool is skipped in
    the stream, and moved from the queue to the dead letters.
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
            unavailable=LogUnavailable,
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
        self._reader = self._stream_reader()
        #: Those that :meth:`reader` has made, with what reads the stream for each.
        self._readers: list[tuple[RabbitLogReader, StreamReader]] = []
        #: The extent of the stream when it was last compared.
        self._found: Found | None = None
        #: The known number of offsets in the stream: there are at least this many.
        self._entries = 0
        #: The same number then, without entries that were on their way. They may have been
        #: included, and are counted when they are confirmed.
        self._settled = 0
        self._watchers: list[Callable[[], object]] = []
        self._refusal = ""
        self._subscriptions: dict[str, RabbitSubscription] = {}
        self._gauges: dict[str, Gauge] = {}
        self._watch: BrokerChannel | None = None
        self._watching: BrokerConnection | None = None
        self._looks = LoopingCall(self._look)
        self._looks.clock = reactor
        self._closed = False

    def _stream_reader(self) -> StreamReader:
        return StreamReader(self._reactor, self._reading, self._topology, self._pool)

    def _pool(self) -> str:
        return pool_of(self._identity)

    @property
    def _held(self) -> bool:
        return self._settings.hold and self._identity is None

    # -- begin

    def open(self) -> Deferred[None]:
        """Connect, and create what is missing at the broker.

        Fails with :class:`BrokerRefused` if a broker refuses the login or has something else under
        these names, and with :class:`LogBrokerUnreachable` if no broker answers and one is
        required. Both say why in one line, without passwords.
        """
        return Deferred.fromCoroutine(self._open())

    async def _open(self) -> None:
        links = (self._publishing, self._consuming, self._reading)
        for link in links:
            link.start()
        try:
            patience = None if self._settings.required else self._settings.patience
            # One after another: the first one creates what is missing.
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
        # A later subscriber starts by itself.
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
        """Have ``told`` called when the stream may have been replaced: after each new connection,
        and when it was created.
        """
        self._watchers.append(told)

    def _tell(self) -> None:
        for told in self._watchers if not self._closed else ():
            told()

    def _consuming_lost(self, why: str) -> None:
        self._watch = self._watching = None
        for subscription in self._subscriptions.values():
            subscription.down()

    # -- identity

    def extent(self, known: Identity | None, mark: Mark) -> Deferred[Extent]:
        """Return the extent of the stream; see :func:`kupool.log.rabbit.extent.examine`.

        Fails with :class:`LogUnavailable` if the broker cannot be reached.
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
        """Refuse all entries from now on, for a reason; an empty reason ends this."""
        self._refusal = reason

    def identify(self, identity: Identity) -> Deferred[None]:
        """Set the identity; held entries are sent and delivered from then on.

        The broker stores it with the next entry, and the store has it as well. The positions of the
        stream's entries start after the newest epoch's start, unless the stream reaches back to it.
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
        for reader in (self._reader, *(stream for _, stream in self._readers)):
            if base != reader.base:
                reader.rebase(base)
        self._entries = entries

    # -- appending and reading

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        """Append an entry; fires when every queue and the stream have it.

        Fails with :class:`LogUnavailable` at once if nothing can be sent now. An entry that was
        sent and is not confirmed is sent again and does not fail, unless the settings of the
        publisher say so: it may have been stored.
        """
        obstacle = self._obstacle()
        if obstacle:
            return fail(LogUnavailable(obstacle))
        headers = marks(self._identity)
        done = self._publisher.publish(self._topology.exchange, "", entry_id, headers, body=body)
        return done.addCallback(self._appended)

    def _obstacle(self) -> str:
        """Why nothing can be accepted now; empty if something can."""
        if self._refusal or self._publisher.obstacle or not self._held:
            return self._refusal or self._publisher.obstacle
        return NOT_COMPARED

    def _appended(self, _: object) -> None:
        self._entries += 1
        for queue in self._topology.queues:
            self._gauge(queue).put()
        for reader, _stream in self._readers:
            reader.appended()

    def read(self, after: int, limit: int) -> Deferred[Sequence[Entry]]:
        """Return up to ``limit`` entries of the stream that follow the position ``after``.

        Fails with :class:`LogUnavailable` where the broker cannot be reached.
        """
        return Deferred.fromCoroutine(self._reader.read(after, limit))

    def reader(self) -> RabbitLogReader:
        """Return a reader of the stream: what waits in a spool is not there yet."""
        stream = self._stream_reader()
        stream.rebase(self._reader.base)
        reader = RabbitLogReader(self._reactor, stream, lambda: NOT_COMPARED if self._held else "")
        self._readers.append((reader, stream))
        return reader

    # -- consume

    def consume(
        self, group: str, consumer: Any, prefetch: int, after: int | None = None
    ) -> Deferred[ISubscription]:
        """Deliver the entries that a group has not acknowledged, at most ``prefetch`` at once.

        The broker keeps the position, so ``after`` is ignored. A group that is not in the topology
        starts with entries that are appended from now on.
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
        """Wait for a while; what is waited for continues in any case.

        A queue without a leader answers late, or never.
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
        """Ask for the depths of the queues; if a queue is missing, the connection is closed and the
        queue created.
        """
        watch, connection = self._watch, self._watching
        if watch is None or connection is None:
            return None
        watched = [*map(self._topology.queue_of, self._subscriptions), self._topology.dead_letters]
        looks = [watch.look_at(q).addCallback(self._gauge(q).seen) for q in watched]
        looked: Deferred[Any] = gatherResults(looks, consumeErrors=True)
        return looked.addErrback(_look_failed, connection)

    def trim(self, now: float, max_age: float, max_bytes: int) -> Deferred[int]:
        """Drop nothing, and return 0: the broker's retention removes entries from the stream.

        The retention is set by ``max_age`` and ``max_bytes`` of the topology when the stream is
        created. The queues contain only unacknowledged entries.
        """
        return succeed(0)

    def trimmed(self) -> Deferred[int | None]:
        """Return None: the broker does not tell what it has dropped."""
        return succeed(None)

    def status(self) -> LogStatus:
        """Return the status of the log.

        ``appended`` is a position that is not above the newest entry's. ``depth`` is that of the
        slowest group consumed here: messages in its queue, as of the last check, and those
        delivered here and not acknowledged.
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
        """Wait a while for unconfirmed entries, and close the connections."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._closed:
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
