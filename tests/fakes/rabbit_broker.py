"""A RabbitMQ in memory: what its connections, channels, queues and streams do, at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from kupool.amqp import BrokerError, BrokerRefused
from kupool.amqp.channel import BrokerMessage


@dataclass
class Stored:
    """A message in a queue or a stream."""

    message_id: str
    headers: dict[str, Any]
    body: bytes


@dataclass(eq=False)
class StoredQueue:
    """A queue, or a stream, which keeps all of its messages."""

    arguments: dict[str, Any]
    ready: list[Stored] = field(default_factory=list)
    consumers: list[ArrivingDeliveries] = field(default_factory=list)

    @property
    def is_stream(self) -> bool:
        return bool(self.arguments.get("x-queue-type") == "stream")

    def put(self, message: Stored) -> None:
        if self.is_stream:
            offset = {"x-stream-offset": len(self.ready)}
            message = Stored(message.message_id, message.headers | offset, message.body)
        self.ready.append(message)
        self.deliver()

    def deliver(self) -> None:
        """Hand over what is ready, as far as the prefetch of a consumer allows."""
        for consumer in self.consumers if not self.is_stream else ():
            while self.ready and consumer.has_room:
                consumer.arrive(self.ready.pop(0))


class RabbitBroker:
    """The broker; a test says what it does and sees what it holds.

    ``connect`` stands for :func:`kupool.amqp.connection.connect`.
    """

    def __init__(self) -> None:
        self.up = True
        #: Whether a connection is never answered.
        self.hangs = False
        #: Why it refuses the account; empty if it does not.
        self.refusal = ""
        #: Whether it stores messages and confirms them, and answers those who want to consume.
        self.stores = self.confirms = self.lets_consume = True
        self.queues: dict[str, StoredQueue] = {}
        #: The queues that each exchange copies to.
        self.exchanges: dict[str, list[str]] = {}
        #: The exchanges that are not of the kind ``fanout``, with their kinds.
        self.other_kinds: dict[str, str] = {}
        self.connections: list[RabbitConnection] = []

    async def connect(self, reactor: Any, broker: Any, settings: Any, name: str) -> Any:
        if self.hangs:
            await Deferred()
        if not self.up:
            raise BrokerError("nobody there")
        if self.refusal:
            raise BrokerRefused(self.refusal)
        connection = RabbitConnection(self, name.rpartition(": ")[2])
        self.connections.append(connection)
        return connection

    def of(self, purpose: str) -> RabbitConnection:
        """The open connection of a purpose, such as ``consuming``."""
        (found,) = [c for c in self.connections if c.purpose == purpose and c.is_open]
        return found

    def fall(self) -> None:
        """Go down, with all connections."""
        self.up = False
        for connection in list(self.connections):
            connection.end(BrokerError("the broker is gone"))

    def confirm_all(self) -> None:
        """Confirm what was published so far, and what is published from now on."""
        self.confirms = True
        for connection in self.connections:
            for channel in connection.channels:
                unconfirmed, channel.unconfirmed = channel.unconfirmed, []
                for confirm in unconfirmed:
                    confirm.callback(None)

    def ids(self, queue: str) -> list[str]:
        """The ids of what a queue or a stream has ready."""
        return [message.message_id for message in self.queues[queue].ready]

    def put(self, exchange: str, key: str, message: Stored) -> None:
        for queue in self.exchanges[exchange] if exchange else [key]:
            self.queues[queue].put(message)

    def delete(self, queue: str) -> None:
        """Delete a queue, as somebody at the broker may."""
        for consumer in self.queues.pop(queue).consumers:
            consumer.end()
        for bound in self.exchanges.values():
            if queue in bound:
                bound.remove(queue)


class RabbitConnection:
    """A connection to the broker, for one purpose."""

    broker = "broker:5672"

    def __init__(self, broker: RabbitBroker, purpose: str) -> None:
        self._broker = broker
        self.purpose = purpose
        self.is_open = True
        self.blocked = False
        self.channels: list[RabbitChannel] = []
        self.why: BrokerError | None = None
        self._over: Deferred[BrokerError] = Deferred()

    async def channel(self) -> RabbitChannel:
        self.channels.append(RabbitChannel(self._broker))
        return self.channels[-1]

    async def ended(self) -> BrokerError:
        waiter: Deferred[BrokerError] = Deferred()
        self._over.addCallback(lambda why: (waiter.callback(why), why)[1])
        return await waiter

    def drop(self, why: str) -> None:
        self.end(BrokerError(why))

    def close(self) -> None:
        self.end(BrokerError("closed"))

    def end(self, why: BrokerError) -> None:
        if self.is_open:
            self.is_open, self.why = False, why
            for channel in self.channels:
                channel.close()
            self._broker.connections.remove(self)
            self._over.callback(why)


class RabbitChannel:
    """A channel; what it asks of the broker is answered at once."""

    def __init__(self, broker: RabbitBroker) -> None:
        self._broker = broker
        self.is_open = True
        self.on_closed: Callable[[BrokerError], object] = lambda why: None
        self.unconfirmed: list[Deferred[None]] = []
        self._returned: Callable[[str], object] = lambda message_id: None
        self._limit = 0
        self._consumers: list[ArrivingDeliveries] = []

    def _failed(self, text: str, code: int) -> Deferred[Any]:
        """Fail, and close the channel, as a broker does."""
        error = BrokerError(text, code)
        self.close()
        self.on_closed(error)
        return fail(error)

    def declare_exchange(self, name: str, kind: str) -> Deferred[None]:
        self._broker.exchanges.setdefault(name, [])
        found = self._broker.other_kinds.get(name, "fanout")
        if found != kind:
            text = f"inequivalent arg 'type' for exchange '{name}' in vhost '/': "
            return self._failed(f"{text}received '{kind}' but current is '{found}'", 406)
        return succeed(None)

    def fence(self, exchange: str) -> Deferred[None]:
        if exchange not in self._broker.exchanges:
            return self._failed(f"no exchange {exchange!r}", 404)
        return succeed(None)

    def declare_queue(self, name: str, arguments: dict[str, Any]) -> Deferred[int]:
        queue = self._broker.queues.setdefault(name, StoredQueue(arguments))
        if queue.arguments != arguments:
            return self._failed(f"queue {name!r} has other arguments", 406)
        return succeed(len(queue.ready))

    def look_at(self, queue: str) -> Deferred[int]:
        if not self.is_open:
            return fail(BrokerError("the channel is closed"))
        if queue not in self._broker.queues:
            return self._failed(f"no queue {queue!r}", 404)
        return succeed(len(self._broker.queues[queue].ready))

    def bind(self, queue: str, exchange: str) -> Deferred[None]:
        bound = self._broker.exchanges[exchange]
        if queue not in bound:
            bound.append(queue)
        return succeed(None)

    def confirm(self, returned: Callable[[str], object]) -> Deferred[None]:
        self._returned = returned
        return succeed(None)

    def publish(
        self, exchange: str, key: str, message_id: str, headers: dict[str, Any], *, body: bytes
    ) -> Deferred[None]:
        if self._broker.stores:
            self._broker.put(exchange, key, Stored(message_id, headers, body))
        if self._broker.confirms:
            return succeed(None)
        self.unconfirmed.append(Deferred())
        return self.unconfirmed[-1]

    def prefetch(self, count: int) -> Deferred[None]:
        self._limit = count
        return succeed(None)

    def consume(
        self, queue: str, arguments: dict[str, Any] | None = None
    ) -> Deferred[ArrivingDeliveries]:
        if not self._broker.lets_consume:
            return Deferred()
        stored = self._broker.queues[queue]
        deliveries = ArrivingDeliveries(stored, self._limit)
        self._consumers.append(deliveries)
        stored.consumers.append(deliveries)
        if stored.is_stream:
            start = (arguments or {})["x-stream-offset"]
            offset = start if isinstance(start, int) else 0
            for message in stored.ready[offset : offset + self._limit]:
                deliveries.arrive(message)
        stored.deliver()
        return succeed(deliveries)

    def ack(self, tag: int, multiple: bool = False) -> None:
        for consumer in self._consumers:
            consumer.settle(tag, multiple)

    def requeue(self, tag: int) -> None:
        for consumer in self._consumers:
            consumer.give_back([tag])

    def close(self) -> Deferred[None]:
        if self.is_open:
            self.is_open = False
            for consumer in self._consumers:
                consumer.end()
        return succeed(None)


class ArrivingDeliveries:
    """What a consumer of a queue gets, and has not acknowledged."""

    def __init__(self, queue: StoredQueue, limit: int) -> None:
        self._queue = queue
        self._limit = limit
        self._tag = 0
        self._arrived: list[BrokerMessage] = []
        self._next: Deferred[BrokerMessage] | None = None
        self.unacknowledged: dict[int, Stored] = {}

    @property
    def has_room(self) -> bool:
        return len(self.unacknowledged) < self._limit

    def arrive(self, message: Stored) -> None:
        self._tag += 1
        self.unacknowledged[self._tag] = message
        delivered = BrokerMessage(
            self._tag, message.message_id, message.headers, message.body, False
        )
        waiting, self._next = self._next, None
        if waiting is None:
            self._arrived.append(delivered)
        else:
            waiting.callback(delivered)

    def next(self) -> Deferred[BrokerMessage]:
        if self._arrived:
            return succeed(self._arrived.pop(0))
        self._next = Deferred()
        return self._next

    async def arrived(self) -> list[BrokerMessage]:
        arrived, self._arrived = self._arrived, []
        return arrived

    def settle(self, tag: int, multiple: bool) -> None:
        for each in [t for t in self.unacknowledged if t == tag or (multiple and t < tag)]:
            del self.unacknowledged[each]
        self._queue.deliver()

    def give_back(self, tags: list[int]) -> None:
        back = [self.unacknowledged.pop(tag) for tag in tags]
        if not self._queue.is_stream:
            self._queue.ready[:0] = back
            self._queue.deliver()

    def end(self) -> None:
        """Give everything back, and deliver no more."""
        if self in self._queue.consumers:
            self._queue.consumers.remove(self)
        self.give_back(list(self.unacknowledged))
        waiting, self._next = self._next, None
        if waiting is not None:
            waiting.errback(BrokerError("no more deliveries"))
