"""The carrier on RabbitMQ: a queue for this node, a direct exchange and a fanout exchange."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from zope.interface import implementer

from kupool.amqp import BrokerError, BrokerRefused, BrokerUnreachable
from kupool.amqp.address import parse_brokers
from kupool.amqp.channel import BrokerChannel, BrokerMessage, Deliveries
from kupool.amqp.connection import BrokerConnection
from kupool.amqp.links import Link
from kupool.amqp.refusals import explained
from kupool.amqp.wire import make_envelope
from kupool.bus.messages import BusError
from kupool.bus.rabbit.carrier import EVERYBODY, ICarrier, Listener
from kupool.bus.rabbit.items import KIND
from kupool.bus.rabbit.settings import MeshSettings

#: The longest prefix, in characters, so that the names of queues have room for the rest.
MAX_PREFIX = 100

#: Seconds that the queue for counting nodes outlives the last node.
_COUNTER_EXPIRES = 60


@implementer(ICarrier)
class AmqpCarrier:
    """One connection for all messages of a node.

    The queue of a node is exclusive and ends with the connection: later messages to it are
    returned. Nobody publishes to the queue for counting nodes; every node is a consumer of it.
    """

    _log = Logger()

    def __init__(self, reactor: Any, url: str, prefix: str, settings: MeshSettings) -> None:
        if not prefix or len(prefix) > MAX_PREFIX or not prefix.isprintable() or " " in prefix:
            raise ValueError(
                f"prefix: {prefix!r:.60} is not a name of at most {MAX_PREFIX} characters"
            )
        self._reactor = reactor
        self._brokers = parse_brokers(url)
        self._prefix = prefix
        self._settings = settings
        self._fanout = f"{prefix}.all"
        self._direct = f"{prefix}.nodes"
        self._counter = f"{prefix}.count"
        self._link: Link | None = None
        self._connection: BrokerConnection | None = None
        self._channel: BrokerChannel | None = None
        self._address = ""
        self._connections = 0

    @property
    def writable(self) -> bool:
        """Whether data sent now leaves soon."""
        return self._connection is not None and self._connection.writable

    @property
    def problem(self) -> str:
        """Why there is no connection, in one line without secrets; empty where there is."""
        return "not connected yet" if self._link is None else self._link.problem

    # -- the connection

    def connect(self, node: str, listener: Listener) -> Deferred[None]:
        """Connect, and reconnect without end.

        Fails with :class:`BusError` if the first attempt fails; then there is no other attempt. If
        no broker is required, only a broker that refuses this node is such a failure.
        """
        self._node = node
        self._listener = listener
        return Deferred.fromCoroutine(self._connect())

    async def _connect(self) -> None:
        name = f"{self._prefix} {self._node}"
        self._link = link = Link(
            self._reactor,
            self._brokers,
            name,
            self._set_up,
            lost=self._lost,
            settings=self._settings.link,
        )
        link.start()
        settings = self._settings
        try:
            await link.first(None if settings.required else settings.patience)
        except (BrokerRefused, BrokerUnreachable) as error:
            if isinstance(error, BrokerUnreachable) and not settings.required:
                return
            await link.stop()
            raise BusError(str(error)) from None

    async def _set_up(self, connection: BrokerConnection) -> None:
        self._connections += 1
        address = f"{self._prefix}.{self._node}.{self._connections}"
        channel = await connection.channel()
        try:
            own, counter = await self._declare(channel, address)
        except BrokerError as error:
            raise explained(error, connection) from None
        channel.on_closed = lambda why: connection.drop(f"the channel ended: {why}")
        channel.on_unroutable(partial(self._returned, channel))
        connection.watch(self._resumed)
        self._connection, self._channel, self._address = connection, channel, address
        for deliveries, take in ((own, self._take), (counter, _ignore)):
            Deferred.fromCoroutine(self._pump(connection, channel, deliveries, take)).addErrback(
                lambda failure: self._log.failure(
                    "The messages of the bus could not be read from RabbitMQ", failure
                )
            )
        self._listener.up(address)

    async def _declare(self, channel: BrokerChannel, address: str) -> tuple[Deliveries, Deliveries]:
        settings = self._settings
        await channel.declare_exchange(self._fanout, "fanout", durable=False)
        await channel.declare_exchange(self._direct, "direct", durable=False)
        await channel.declare_own_queue(
            address,
            {
                "x-message-ttl": max(1, round(settings.message_ttl * 1000)),
                "x-max-length-bytes": settings.max_queue_bytes,
            },
        )
        await channel.bind(address, self._direct, address)
        await channel.prefetch(settings.prefetch)
        # First be counted, then receive: a node that counts this one can also be heard by it.
        await channel.count_consumers(self._counter, _counter_arguments())
        counter = await channel.consume(self._counter)
        own = await channel.consume(address)
        await channel.bind(address, self._fanout)
        return own, counter

    async def _pump(
        self,
        connection: BrokerConnection,
        channel: BrokerChannel,
        deliveries: Deliveries,
        take: Any,
    ) -> None:
        while True:
            try:
                message = await deliveries.next()
                messages = [message, *await deliveries.arrived()]
            except BrokerError as error:
                if channel is self._channel:
                    connection.drop(f"no more messages: {error}")
                return
            if channel is self._channel:
                for message in messages:
                    take(message)
            channel.ack(messages[-1].tag, multiple=True)

    def _take(self, message: BrokerMessage) -> None:
        if message.kind != KIND:
            self._listener.unreadable(f"a message of kind {message.kind!r:.60}")
        else:
            self._listener.received(message.sender, message.reply_to, message.body)

    def _returned(self, channel: BrokerChannel, address: str) -> None:
        if channel is self._channel:
            self._listener.returned(address)

    def _resumed(self) -> None:
        if self._connection is not None:
            self._listener.resumed()

    def _lost(self, why: str) -> None:
        self._connection = self._channel = None
        self._listener.down(why)

    # -- messages

    def send(self, address: str, body: bytes, seconds: float) -> None:
        """Send a message to an address; it expires after this many seconds."""
        if self._channel is None:
            return
        envelope = make_envelope(
            KIND, self._node, self._address, min(seconds, self._settings.message_ttl)
        )
        if address == EVERYBODY:
            self._channel.send(self._fanout, "", body, envelope)
        else:
            self._channel.send(self._direct, address, body, envelope)

    def count(self) -> Deferred[int]:
        """Return the number of nodes, including this one."""
        if self._channel is None:
            return fail(BusError("not connected"))
        return self._channel.count_consumers(self._counter, _counter_arguments())

    def drop(self, why: str) -> None:
        """Close the connection, and make another one."""
        if self._connection is not None:
            self._connection.drop(why)

    def close(self) -> Deferred[None]:
        """Close the connection for good; fires when it is closed."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        if self._link is not None:
            await self._link.stop()


def _counter_arguments() -> dict[str, Any]:
    return {"x-expires": _COUNTER_EXPIRES * 1000, "x-max-length": 1}


def _ignore(message: BrokerMessage) -> None:
    """Ignore a message: nobody publishes to the queue for counting nodes."""


__all__ = ["MAX_PREFIX", "AmqpCarrier"]
