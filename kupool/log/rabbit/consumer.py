"""The subscription of a consumer group to its queue in RabbitMQ."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from kupool.amqp import BrokerError
from kupool.amqp.channel import BrokerChannel, BrokerMessage, Deliveries
from kupool.amqp.connection import BrokerConnection
from kupool.log import DeliveredEntry, Entry, Identity, ISubscription
from kupool.log.groups import READ_CHUNK, RetrySettings
from kupool.log.rabbit.gauge import Gauge
from kupool.log.rabbit.headers import POOL, appended_at, is_earlier, is_foreign, pool_of

#: The number of refused entries, and of entries settled without a broker, that are remembered.
_REMEMBERED = 10_000

#: The time limit for a broker to end a subscription, in seconds; a hanging one never answers.
_STOPPING = 2.0

#: Moves an entry to the dead letters: (delivery, reason); fires when it is stored there.
Bury = Callable[[DeliveredEntry, str], Deferred[None]]


#: The id and the body of an entry.
_Content = tuple[str, bytes]


class _Held:
    """A delivery that the consumer holds; ``tag`` is None if no broker waits for it."""

    __slots__ = ("burying", "delivery", "refused", "tag")

    def __init__(self, delivery: DeliveredEntry, tag: int | None) -> None:
        self.delivery = delivery
        self.tag = tag
        #: It is returned or moved to the dead letters: the consumer cannot decide any more.
        self.refused = self.burying = False


@implementer(ISubscription)
class RabbitSubscription:
    """Delivers the messages of a queue to a consumer, and acknowledges processed ones.

    The position of a delivered entry is its number among the deliveries here, because a queue has
    no other numbers. It is not a position in the stream.

    After a lost connection the broker delivers unacknowledged messages again. Those that the
    consumer still holds are recognized and not delivered twice, so that it never holds more than
    the prefetch.

    ``identity`` returns the pool and the epochs of the log, None while they are unknown. Messages
    of another pool go to the dead letters without being delivered.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        queue: str,
        gauge: Gauge,
        consumer: Any,
        *,
        prefetch: int,
        retry: RetrySettings,
        bury: Bury,
        identity: Callable[[], Identity | None] = lambda: None,
    ) -> None:
        self._clock = clock
        self._queue = queue
        self._gauge = gauge
        self._consumer = consumer
        self._prefetch = min(max(prefetch, 1), 65535)
        self._retry = retry
        self._bury_entry = bury
        self._identity = identity
        self._connection: BrokerConnection | None = None
        self._channel: BrokerChannel | None = None
        self._position = 0
        #: Received messages that are not delivered to the consumer yet.
        self._backlog: deque[BrokerMessage] = deque()
        self._handing: IDelayedCall | None = None
        #: By position, in the order of delivery.
        self._held: dict[int, _Held] = {}
        #: Tags of the channel, in order: those that the broker waits for.
        self._tags: dict[int, bool] = {}
        #: Deliveries of a lost connection that the consumer still holds: the positions, by content.
        self._lost: dict[_Content, list[int]] = {}
        #: Deliveries that the consumer processed while there was no broker to tell.
        self._settled: OrderedDict[_Content, None] = OrderedDict()
        self._refusals: OrderedDict[str, int] = OrderedDict()
        self._delayed: set[IDelayedCall] = set()
        self._stopped = False

    @property
    def unacknowledged(self) -> int:
        """Messages that the broker has delivered and waits for."""
        return len(self._tags)

    # -- the connection

    async def up(self, connection: BrokerConnection) -> None:
        """Start to consume on a new connection."""
        if self._stopped:
            return
        channel = await connection.channel()
        await channel.prefetch(self._prefetch)
        deliveries = await channel.consume(self._queue)
        if self._stopped:  # meanwhile: its messages are for the next consumer
            channel.close()
            return
        self._connection, self._channel = connection, channel
        Deferred.fromCoroutine(self._pump(channel, deliveries)).addErrback(
            lambda failure: self._log.failure(
                "The deliveries of queue {queue} failed", failure, queue=self._queue
            )
        )

    def down(self) -> None:
        """The connection is lost: its deliveries come again."""
        self._connection = self._channel = None
        self._gauge.put(len(self._tags))
        self._tags.clear()
        self._backlog.clear()
        self._lost.clear()
        for position, held in list(self._held.items()):
            held.tag = None
            if held.refused and not held.burying:
                del self._held[position]
            else:
                self._lost.setdefault(_content(held), []).append(position)

    async def _pump(self, channel: BrokerChannel, deliveries: Deliveries) -> None:
        while True:
            try:
                message = await deliveries.next()
            except BrokerError as error:
                if channel is self._channel and self._connection:
                    self._connection.drop(f"no more deliveries from {self._queue!r}: {error}")
                return
            if channel is not self._channel:
                return  # the broker delivers it again, on another channel
            self._tags[message.tag] = False
            self._gauge.taken()
            if not self._known(message):
                self._backlog.append(message)
                self._hand_over_soon()

    def _known(self, message: BrokerMessage) -> bool:
        """Return whether the consumer holds this message, or processed it without a broker to
        tell.
        """
        if not self._settled and not self._lost:
            return False
        content = (message.message_id, message.body)
        if content in self._settled:
            del self._settled[content]
            self._done_with([message.tag])
            return True
        positions = self._lost.get(content)
        if not positions:
            return False
        self._held[positions[0]].tag = message.tag
        self._no_longer_lost(content, positions[0])
        return True

    def _no_longer_lost(self, content: _Content, position: int) -> None:
        positions = self._lost[content]
        positions.remove(position)
        if not positions:
            del self._lost[content]

    # -- delivering

    def _hand_over_soon(self) -> None:
        if self._handing is None:
            self._handing = self._clock.callLater(0, self._hand_over)

    def _hand_over(self) -> None:
        self._handing = None
        room = min(self._prefetch - len(self._held), READ_CHUNK)
        pool = pool_of(self._identity())
        taken: list[DeliveredEntry] = []
        while self._backlog and len(taken) < room:
            message = self._backlog.popleft()
            delivery = self._deliver(message)
            if is_foreign(message.headers, pool):
                room -= 1
                reason = f"of pool {message.headers[POOL]}, not of {pool}"
                self._log.error("Entry {id}: {reason}", id=message.message_id, reason=reason)
                self.nack(delivery, reason, False)
            else:
                taken.append(delivery)
        if self._backlog and len(self._held) < self._prefetch:
            self._hand_over_soon()  # without room, what makes room does it
        if not taken:
            return
        try:
            self._consumer.received(taken)
        except BaseException:
            self._log.failure("A consumer of the log failed")

    def _deliver(self, message: BrokerMessage) -> DeliveredEntry:
        self._position += 1
        at = appended_at(message.headers)
        entry = Entry(self._position, message.message_id, at, message.body)
        attempt = self._refusals.get(message.message_id, 0) + 1
        earlier = is_earlier(message.headers, self._identity())
        delivery = DeliveredEntry(entry, attempt, earlier)
        self._held[self._position] = _Held(delivery, message.tag)
        return delivery

    # -- acknowledging

    def ack(self, deliveries: Sequence[DeliveredEntry]) -> None:
        """Entries have been processed and will not be delivered again."""
        tags = []
        for delivery in deliveries:
            held = self._held.get(delivery.entry.position)
            if held is None or held.refused:
                continue
            tag = self._release(held)
            if tag is not None:
                tags.append(tag)
        self._done_with(tags)

    def _release(self, held: _Held) -> int | None:
        """Remove a processed delivery; returns the tag to acknowledge, if any."""
        entry = held.delivery.entry
        del self._held[entry.position]
        self._refusals.pop(entry.entry_id, None)
        if held.tag is None:
            self._no_longer_lost(_content(held), entry.position)
            self._settled[_content(held)] = None
            while len(self._settled) > self._prefetch:
                self._settled.popitem(last=False)
        if self._backlog:
            self._hand_over_soon()
        return held.tag

    def _done_with(self, tags: Sequence[int]) -> None:
        """Acknowledge tags: all at the start of the queue at once, the others one by one."""
        channel = self._channel
        if channel is None or not tags:
            return
        for tag in tags:
            self._tags[tag] = True
        first = 0
        for tag, done in self._tags.items():
            if not done:
                break
            first = tag
        if first:
            channel.ack(first, multiple=True)
        for tag in tags:
            if tag > first:
                channel.ack(tag)
                del self._tags[tag]
        while self._tags and (tag := next(iter(self._tags))) <= first:
            del self._tags[tag]

    def nack(self, delivery: DeliveredEntry, reason: str, retry: bool) -> None:
        """An entry could not be processed: return it after a delay, or move it to the dead
        letters.
        """
        held = self._held.get(delivery.entry.position)
        if self._stopped or held is None or held.refused:
            return  # it is delivered again at the next start, or is settled already
        held.refused = True
        if not retry or delivery.attempt >= self._retry.attempts:
            held.burying = True
            self._bury(held, reason)
            return
        entry_id = delivery.entry.entry_id
        self._refusals[entry_id] = delivery.attempt
        while len(self._refusals) > _REMEMBERED:
            self._refusals.popitem(last=False)
        if held.tag is None:
            self._forget(held)  # the broker delivers it again by itself
        else:
            self._later(self._give_back, held)

    def _give_back(self, held: _Held) -> None:
        if held.tag is not None and self._channel is not None:
            self._channel.requeue(held.tag)
            self._tags.pop(held.tag, None)
            self._gauge.put()
            self._forget(held)

    def _forget(self, held: _Held) -> None:
        del self._held[held.delivery.entry.position]
        if held.tag is None:
            self._no_longer_lost(_content(held), held.delivery.entry.position)
        if self._backlog:
            self._hand_over_soon()

    def _later(self, call: Callable[..., object], *args: object) -> None:
        def due() -> None:
            self._delayed.discard(timer)
            call(*args)

        timer = self._clock.callLater(self._retry.delay, due)
        self._delayed.add(timer)

    def _bury(self, held: _Held, reason: str) -> None:
        if self._stopped or held.delivery.entry.position not in self._held:
            return
        self._bury_entry(held.delivery, reason).addCallbacks(
            lambda _: self._buried(held), self._not_buried, errbackArgs=(held, reason)
        ).addErrback(lambda f: self._log.failure("A dead letter could not be settled", f))

    def _buried(self, held: _Held) -> None:
        if held.delivery.entry.position in self._held:
            tag = self._release(held)
            if tag is not None:
                self._done_with([tag])

    def _not_buried(self, failure: Failure, held: _Held, reason: str) -> None:
        self._log.error(
            "A dead letter could not be saved, trying again: {why}", why=failure.getErrorMessage()
        )
        if not self._stopped:
            self._later(self._bury, held, reason)

    # -- the end

    def stop(self) -> Deferred[None]:
        """Deliver nothing more; fires when the broker has every acknowledgement.

        It also fires after a few seconds without an answer.
        """
        self._stopped = True
        delayed, self._delayed = self._delayed, set()
        if self._handing is not None:
            delayed.add(self._handing)
            self._handing = None
        for timer in delayed:
            timer.cancel()
        channel, self._channel, self._connection = self._channel, None, None
        self._gauge.put(len(self._tags))
        self._tags.clear()
        self._backlog.clear()
        if channel is None:
            return succeed(None)
        return channel.close().addTimeout(_STOPPING, self._clock, lambda *_: None)


def _content(held: _Held) -> _Content:
    entry = held.delivery.entry
    return entry.entry_id, entry.body


__all__ = ["Bury", "RabbitSubscription"]
