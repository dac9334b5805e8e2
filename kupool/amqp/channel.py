"""A channel of a connection, and what is delivered on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from kupool.amqp import BrokerError
from kupool.amqp.wire import as_error, make_properties


class BrokerMessage(NamedTuple):
    """A message as it came; ``tag`` is what it is acknowledged by on its channel.

    ``kind``, ``sender`` and ``reply_to`` are what AMQP calls type, app-id and reply-to.
    """

    tag: int
    message_id: str
    headers: dict[str, Any]
    body: bytes
    redelivered: bool
    kind: str = ""
    sender: str = ""
    reply_to: str = ""


def _translated(failure: Failure) -> Any:
    raise as_error(failure.value) from None


class BrokerChannel:
    """A channel; its Deferreds fail with :class:`BrokerError`."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        #: Called with the reason when it ends, in whatever way.
        self.on_closed: Callable[[BrokerError], object] = lambda reason: None
        channel.on_closed.addBoth(self._closed)

    def _closed(self, reason: Any) -> None:
        self.on_closed(as_error(reason.value if isinstance(reason, Failure) else reason))

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""
        return bool(self._channel.is_open)

    def _call(self, name: str, **arguments: Any) -> Deferred[Any]:
        if not self._channel.is_open:
            # pika would leave a Deferred behind that fails later, and nobody hears it.
            return fail(BrokerError("the channel is closed"))
        called: Deferred[Any] = getattr(self._channel, name)(**arguments)
        return called.addErrback(_translated)

    def declare_exchange(self, name: str, kind: str, *, durable: bool = True) -> Deferred[Any]:
        """Make an exchange, unless it is there."""
        return self._call("exchange_declare", exchange=name, exchange_type=kind, durable=durable)

    def fence(self, exchange: str) -> Deferred[Any]:
        """Fires when the broker has done all that was asked on this channel before."""
        return self._call("exchange_declare", exchange=exchange, passive=True)

    def declare_queue(self, name: str, arguments: dict[str, Any]) -> Deferred[int]:
        """Make a durable queue, unless it is there; returns how many messages wait in it."""
        made = self._call("queue_declare", queue=name, durable=True, arguments=arguments)
        return made.addCallback(lambda frame: int(frame.method.message_count))

    def declare_own_queue(self, name: str, arguments: dict[str, Any]) -> Deferred[Any]:
        """Make a queue that nobody else can use, and that ends with the connection."""
        return self._call("queue_declare", queue=name, exclusive=True, arguments=arguments)

    def count_consumers(self, queue: str, arguments: dict[str, Any]) -> Deferred[int]:
        """Return how many consumers a queue has that does not outlive the broker.

        It is made where it is missing.
        """
        made = self._call("queue_declare", queue=queue, arguments=arguments)
        return made.addCallback(lambda frame: int(frame.method.consumer_count))

    def look_at(self, queue: str) -> Deferred[int]:
        """Return how many messages wait in a queue; fails with code 404 if it is gone."""
        found = self._call("queue_declare", queue=queue, passive=True)
        return found.addCallback(lambda frame: int(frame.method.message_count))

    def look_closely(self, queue: str) -> Deferred[tuple[int, int]]:
        """Return how many messages wait in a queue, and how many consumers it has; fails as
        :meth:`look_at`.
        """
        found = self._call("queue_declare", queue=queue, passive=True)
        return found.addCallback(
            lambda frame: (int(frame.method.message_count), int(frame.method.consumer_count))
        )

    def bind(self, queue: str, exchange: str, key: str = "") -> Deferred[Any]:
        """Let a queue have what comes to an exchange, for this key where that counts."""
        return self._call("queue_bind", queue=queue, exchange=exchange, routing_key=key)

    def confirm(self, returned: Callable[[str], object]) -> Deferred[Any]:
        """Have what is published confirmed.

        ``returned`` is called with the id of a message that no queue wanted, before it is
        confirmed. pika tells that to the first of the messages confirmed together, whichever it
        was: only this says which.
        """
        self._channel.add_on_return_callback(
            lambda message: returned(message.properties.message_id or "")
        )
        return self._call("confirm_delivery")

    def publish(
        self, exchange: str, key: str, message_id: str, headers: dict[str, Any], *, body: bytes
    ) -> Deferred[Any]:
        """Publish persistently; fires when confirmed, fails when refused or returned."""
        if not self._channel.is_open:
            return fail(BrokerError("the channel is closed"))
        properties = make_properties(message_id, headers)
        published: Deferred[Any] = self._channel.basic_publish(
            exchange, key, body, properties, mandatory=True
        )
        return published

    def on_unroutable(self, returned: Callable[[str], object]) -> None:
        """Have ``returned`` called with the routing key of what :meth:`send` could not place."""
        self._channel.add_on_return_callback(lambda message: returned(message.method.routing_key))

    def send(self, exchange: str, key: str, body: bytes, properties: Any) -> None:
        """Publish without a confirm; does nothing on a channel that is closed."""
        if self._channel.is_open:
            self._channel.basic_publish(exchange, key, body, properties, mandatory=True)

    def prefetch(self, count: int) -> Deferred[Any]:
        """Have at most so many messages unacknowledged for each consumer of this channel."""
        return self._call("basic_qos", prefetch_count=count)

    def consume(self, queue: str, arguments: dict[str, Any] | None = None) -> Deferred[Deliveries]:
        """Have the messages of a queue delivered, each to be acknowledged."""
        begun = self._call("basic_consume", queue=queue, arguments=arguments or {})
        return begun.addCallback(lambda result: Deliveries(*result))

    def cancel(self, tag: str) -> Deferred[Any]:
        """Have no more messages delivered."""
        return self._call("basic_cancel", consumer_tag=tag)

    def ack(self, tag: int, multiple: bool = False) -> None:
        """Acknowledge a message, or with ``multiple`` all up to it."""
        if self._channel.is_open:
            self._channel.basic_ack(tag, multiple)

    def requeue(self, tag: int) -> None:
        """Give a message back."""
        if self._channel.is_open:
            self._channel.basic_nack(tag, requeue=True)

    def close(self) -> Deferred[Any]:
        """End the channel; what is unacknowledged goes back. Never fails."""
        if not self._channel.is_open:
            return succeed(None)
        closed = self._channel.on_closed
        done: Deferred[None] = Deferred()
        closed.addBoth(lambda _: done.callback(None))
        self._channel.close()
        return done


class Deliveries:
    """The messages of one consumer as they come."""

    def __init__(self, queue: Any, tag: str) -> None:
        self._queue = queue
        self.tag = tag

    async def next(self) -> BrokerMessage:
        """Wait for a message; raises :class:`BrokerError` when no more will come."""
        try:
            return _message(await self._queue.get())
        except Exception as error:
            raise as_error(error) from None

    async def arrived(self) -> list[BrokerMessage]:
        """Return the messages that are here already."""
        return [await self.next() for _ in range(len(self._queue.pending))]


def _message(received: Any) -> BrokerMessage:
    method, properties = received.method, received.properties
    return BrokerMessage(
        method.delivery_tag,
        properties.message_id or "",
        properties.headers or {},
        received.body,
        method.redelivered,
        properties.type or "",
        properties.app_id or "",
        properties.reply_to or "",
    )


__all__ = ["BrokerChannel", "BrokerMessage", "Deliveries"]
