"""A channel of a broker connection, and the messages delivered on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from kupool.amqp import BrokerError
from kupool.amqp.frames import message_frames, publish_start
from kupool.amqp.lanes import Arrived, ConfirmLane, DeliveryLane
from kupool.amqp.wire import as_error, refused


class BrokerMessage(NamedTuple):
    """A delivered message; ``tag`` identifies it for acknowledgement on its channel.

    ``kind``, ``sender`` and ``reply_to`` are AMQP's type, app-id and reply-to.
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

    def __init__(self, channel: Any, protocol: Any) -> None:
        self._channel = channel
        self._protocol = protocol
        self._number = int(channel.channel_number)
        self._confirms: ConfirmLane | None = None
        #: The first frames of messages, by exchange and routing key.
        self._starts: dict[tuple[str, str], bytes] = {}
        #: Called with the reason when the channel ends.
        self.on_closed: Callable[[BrokerError], object] = lambda reason: None
        channel.on_closed.addBoth(self._closed)

    def _closed(self, reason: Any) -> None:
        error = as_error(reason.value if isinstance(reason, Failure) else reason)
        self._protocol.splitter.lanes.pop(self._number, None)
        if self._confirms is not None:
            self._confirms.end(error)
        self.on_closed(error)

    @property
    def is_open(self) -> bool:
        """Whether the channel is open."""
        return bool(self._channel.is_open)

    def _call(self, name: str, **arguments: Any) -> Deferred[Any]:
        if not self._channel.is_open:
            # pika would return a Deferred that fails later without a handler.
            return fail(BrokerError("the channel is closed"))
        called: Deferred[Any] = getattr(self._channel, name)(**arguments)
        return called.addErrback(_translated)

    def declare_exchange(
        self,
        name: str,
        kind: str,
        *,
        durable: bool = True,
        arguments: dict[str, Any] | None = None,
    ) -> Deferred[Any]:
        """Declare an exchange."""
        return self._call(
            "exchange_declare",
            exchange=name,
            exchange_type=kind,
            durable=durable,
            arguments=arguments,
        )

    def fence(self, exchange: str) -> Deferred[Any]:
        """Return a Deferred that fires when the broker has processed all earlier commands."""
        return self._call("exchange_declare", exchange=exchange, passive=True)

    def declare_queue(self, name: str, arguments: dict[str, Any]) -> Deferred[int]:
        """Declare a durable queue; returns the number of waiting messages."""
        made = self._call("queue_declare", queue=name, durable=True, arguments=arguments)
        return made.addCallback(lambda frame: int(frame.method.message_count))

    def declare_own_queue(self, name: str, arguments: dict[str, Any]) -> Deferred[Any]:
        """Declare an exclusive queue, which is deleted with the connection."""
        return self._call("queue_declare", queue=name, exclusive=True, arguments=arguments)

    def count_consumers(self, queue: str, arguments: dict[str, Any]) -> Deferred[int]:
        """Declare a non-durable queue; returns its number of consumers."""
        made = self._call("queue_declare", queue=queue, arguments=arguments)
        return made.addCallback(lambda frame: int(frame.method.consumer_count))

    def delete_queue(self, name: str) -> Deferred[Any]:
        """Delete a queue with all that it holds, if it exists."""
        return self._call("queue_delete", queue=name)

    def look_at(self, queue: str) -> Deferred[int]:
        """Return the number of a queue's waiting messages; fails with code 404 if it is missing."""
        found = self._call("queue_declare", queue=queue, passive=True)
        return found.addCallback(lambda frame: int(frame.method.message_count))

    def look_closely(self, queue: str) -> Deferred[tuple[int, int]]:
        """Return the numbers of waiting messages and of consumers of a queue.

        Fails as :meth:`look_at`.
        """
        found = self._call("queue_declare", queue=queue, passive=True)
        return found.addCallback(
            lambda frame: (int(frame.method.message_count), int(frame.method.consumer_count))
        )

    def bind(self, queue: str, exchange: str, key: str = "") -> Deferred[Any]:
        """Bind a queue to an exchange, with a routing key if the exchange uses one."""
        return self._call("queue_bind", queue=queue, exchange=exchange, routing_key=key)

    def confirm(self, returned: Callable[[str], object]) -> Deferred[Any]:
        """Turn on publisher confirms.

        ``returned`` is called with the id of each unroutable message before it is
        confirmed.
        """
        self._channel.add_on_return_callback(
            lambda message: returned(message.properties.message_id or "")
        )
        return self._call("confirm_delivery").addCallback(self._confirming)

    def _confirming(self, result: Any) -> Any:
        self._confirms = ConfirmLane(refused)
        self._protocol.splitter.lanes[self._number] = self._confirms.take
        return result

    def publish(
        self, exchange: str, key: str, message_id: str, headers: dict[str, Any], *, body: bytes
    ) -> Deferred[Any]:
        """Publish persistently after :meth:`confirm`; fires when confirmed, fails when refused."""
        if not self._channel.is_open or self._confirms is None:
            return fail(BrokerError("the channel is closed"))
        start = self._starts.get((exchange, key))
        if start is None:
            start = publish_start(self._number, exchange, key)
            self._starts[exchange, key] = start
        most = self._protocol.largest_frame
        frames = message_frames(self._number, message_id, headers, body=body, most=most)
        self._protocol.wire.write(b"".join((start, *frames)))
        return self._confirms.published()

    def on_unroutable(self, returned: Callable[[str], object]) -> None:
        """Call ``returned`` with the routing key of each unroutable message of :meth:`send`."""
        self._channel.add_on_return_callback(lambda message: returned(message.method.routing_key))

    def send(self, exchange: str, key: str, body: bytes, properties: Any) -> None:
        """Publish without a confirm; does nothing on a closed channel."""
        if self._channel.is_open:
            self._channel.basic_publish(exchange, key, body, properties, mandatory=True)

    def prefetch(self, count: int) -> Deferred[Any]:
        """Limit the unacknowledged messages of each consumer of this channel."""
        return self._call("basic_qos", prefetch_count=count)

    def consume(self, queue: str, arguments: dict[str, Any] | None = None) -> Deferred[Deliveries]:
        """Consume a queue; each message must be acknowledged."""
        begun = self._call("basic_consume", queue=queue, arguments=arguments or {})
        return begun.addCallback(
            lambda result: Deliveries(result[0], result[1], read_by=self._read_by)
        )

    def _read_by(self, arrived: Arrived) -> None:
        """Have messages handled without pika; for a channel with one consumer."""
        lane = DeliveryLane(self._number, arrived)
        self._protocol.splitter.lanes[self._number] = lane.take

    def cancel(self, tag: str) -> Deferred[Any]:
        """Cancel a consumer."""
        return self._call("basic_cancel", consumer_tag=tag)

    def ack(self, tag: int, multiple: bool = False) -> None:
        """Acknowledge a message; with ``multiple``, all messages up to it."""
        if self._channel.is_open:
            self._channel.basic_ack(tag, multiple)

    def requeue(self, tag: int) -> None:
        """Return a message to its queue."""
        if self._channel.is_open:
            self._channel.basic_nack(tag, requeue=True)

    def close(self) -> Deferred[Any]:
        """Close the channel; unacknowledged messages return to their queues. Never fails."""
        if not self._channel.is_open:
            return succeed(None)
        closed = self._channel.on_closed
        done: Deferred[None] = Deferred()
        closed.addBoth(lambda _: done.callback(None))
        self._channel.close()
        return done


class Deliveries:
    """The messages delivered to one consumer.

    ``read_by`` has what comes from now on handled without pika.
    """

    def __init__(self, queue: Any, tag: str, read_by: Callable[[Arrived], None]) -> None:
        self._queue = queue
        self.tag = tag
        self._read_by = read_by

    async def next(self) -> BrokerMessage:
        """Wait for a message; raises :class:`BrokerError` if no more will arrive."""
        try:
            return _message(await self._queue.get())
        except Exception as error:
            raise as_error(error) from None

    def each(self, handle: Callable[[BrokerMessage], object]) -> Deferred[BrokerError]:
        """Have each message handled as it arrives, from now on; fires with the reason when no more
        will arrive. An exception of ``handle`` ends the connection. It is for the only consumer of
        a channel.
        """
        # A Deferred for each message would cost more than most handlers.
        while self._queue.pending:
            handle(_message(self._queue.pending.pop(0)))
        self._queue.put = lambda received: handle(_message(received))  # what pika has begun to read
        self._read_by(
            lambda tag, again, properties, body: handle(
                BrokerMessage(tag, properties.message_id, properties.headers, body, again)
            )
        )
        ended: Deferred[BrokerError] = Deferred()
        self._queue.get().addErrback(lambda failure: ended.callback(as_error(failure.value)))
        return ended

    async def arrived(self) -> list[BrokerMessage]:
        """Return the messages that have already arrived."""
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
