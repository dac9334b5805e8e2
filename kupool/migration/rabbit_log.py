"""A log in RabbitMQ that takes part in a move: the stream, and not the queue.

Entries are published to the stream by its name. Through the exchange they would also go to the
queue, and would be counted again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater

from kupool.amqp import BrokerError
from kupool.amqp.address import parse_brokers
from kupool.amqp.channel import BrokerChannel, BrokerMessage
from kupool.amqp.connection import BrokerConnection, connect
from kupool.amqp.streams import offset_of
from kupool.amqp.wire import ConnectionSettings
from kupool.log import Entry, Identity
from kupool.log.rabbit.headers import appended_at, marks
from kupool.log.rabbit.topology import Topology, declare
from kupool.migration import CannotMove
from kupool.migration.logs import ENTRIES, Acknowledged, DeadLetter

#: The number of checks for the end of a stream, and the seconds between them: an entry is confirmed
#: before every replica shows it.
LOOKS = 3
PAUSE = 0.1

#: The number of checks of a queue before its readers are taken as active: half a minute.
_LOOKS_AT_REST = 300

#: The reply code for a queue that does not exist.
_NOT_FOUND = 404


class RabbitLogSide:
    """The stream, the queue and the dead letters of one log. ``url`` may name several brokers.

    Methods raise :class:`kupool.amqp.BrokerError` if the broker becomes unavailable.
    """

    def __init__(self, reactor: Any, url: str, topology: Topology) -> None:
        self._reactor = reactor
        self._brokers = parse_brokers(url)
        self._topology = topology
        self._base = 0
        self._headers: dict[str, Any] = {}
        self._connection: BrokerConnection | None = None
        self._publishing: BrokerChannel | None = None
        self._returned: list[str] = []

    @property
    def shown(self) -> str:
        """The stream and its broker."""
        first = self._brokers[0]
        return f"RabbitMQ at {first}, virtual host {first.vhost!r}, queue {self._topology.queue!r}"

    @property
    def kind(self) -> dict[str, str]:
        """The settings for this log; the address of the broker may have changed meanwhile."""
        return {"mq": "rabbit", "queue": self._topology.queue}

    @property
    def place(self) -> tuple[str, ...]:
        """The addresses, the virtual host and the name."""
        addresses = sorted(f"{broker}/{broker.vhost}" for broker in self._brokers)
        return ("rabbit", self._topology.queue, *addresses)

    async def open(self) -> None:
        """Connect to the first broker that answers."""
        problems: list[BrokerError] = []
        for broker in self._brokers:
            try:
                name = f"kupool migrate {self._topology.queue}"
                self._connection = await connect(self._reactor, broker, ConnectionSettings(), name)
                return
            except BrokerError as error:
                problems.append(error)
        raise problems[0]

    async def _channel(self) -> BrokerChannel:
        assert self._connection is not None
        return await self._connection.channel()

    # -- before anything is created

    async def _look(self, queue: str) -> tuple[int, int] | None:
        """Return the messages and consumers of a queue; None if it does not exist."""
        channel = await self._channel()
        try:
            found: tuple[int, int] = await channel.look_closely(queue)
        except BrokerError as error:
            if error.code != _NOT_FOUND:
                raise
            return None
        await channel.close()
        return found

    async def in_use(self) -> str:
        """Say who reads from the queue."""
        for queue in self._topology.queues:
            found = await self._look(queue)
            if found is not None and found[1]:
                return f"{found[1]} consumers of queue {queue!r}"
        return ""

    async def waiting(self) -> int:
        """Return how many messages are in the queue."""
        found = [await self._look(queue) for queue in self._topology.queues]
        return sum(look[0] for look in found if look is not None)

    async def found(self) -> list[str]:
        """Say which queues contain messages."""
        topology, full = self._topology, []
        for queue in (*topology.queues, topology.dead_letters):
            look = await self._look(queue)
            if look is not None and look[0]:
                full.append(f"{look[0]} messages in queue {queue!r}")
        if await self._look(topology.stream) is not None and await self._fetch("first", 1):
            full.append(f"messages in stream {topology.stream!r}")
        return full

    # -- the stream

    async def begin(self, identity: Identity) -> None:
        """Create the exchange, the queues and the stream."""
        self._base = identity.begins_after
        self._headers = marks(identity)
        assert self._connection is not None
        await declare(self._connection, self._topology)

    async def landed(self) -> AsyncIterator[Sequence[Entry]]:
        """Yield the entries in the stream, in order, in pieces."""
        offset, looks = 0, 0
        while looks < LOOKS:
            messages = await self._fetch(offset, ENTRIES)
            if not messages:
                looks += 1
                await deferLater(self._reactor, PAUSE)
                continue
            looks = 0
            offset = offset_of(messages[-1].headers) + 1
            yield [self._entry(message) for message in messages]

    def _entry(self, message: BrokerMessage) -> Entry:
        position = self._base + offset_of(message.headers) + 1
        return Entry(position, message.message_id, appended_at(message.headers), message.body)

    async def _fetch(self, start: int | str, limit: int) -> list[BrokerMessage]:
        """Return messages of the stream from an offset on."""
        channel = await self._channel()
        await channel.prefetch(limit)
        deliveries = await channel.consume(self._topology.stream, {"x-stream-offset": start})
        least = start if isinstance(start, int) else 0
        # A channel reads the stream itself: all that it can deliver comes before its next answer.
        await channel.look_at(self._topology.stream)
        found = [m for m in await deliveries.arrived() if offset_of(m.headers) >= least]
        await channel.close()
        return found

    async def append(self, entries: Sequence[Entry]) -> None:
        """Publish entries to the stream only; returns when the broker has confirmed them."""
        if self._publishing is None:
            self._publishing = await self._channel()
            await self._publishing.confirm(self._returned.append)
        await self._publish(
            self._topology.stream,
            [
                (
                    entry.entry_id,
                    {"appended_at": round(entry.appended_at * 1000), **self._headers},
                    entry.body,
                )
                for entry in entries
            ],
        )

    async def _publish(
        self, queue: str, messages: Sequence[tuple[str, dict[str, Any], bytes]]
    ) -> None:
        channel = self._publishing
        assert channel is not None
        sent = [
            channel.publish("", queue, message_id, headers, body=body)
            for message_id, headers, body in messages
        ]
        try:
            await gatherResults(sent, consumeErrors=True)
        except Exception as error:
            why = getattr(getattr(error, "subFailure", None), "value", error)
            raise BrokerError(f"{self.shown} did not store an entry: {why}") from None
        if self._returned:
            raise BrokerError(f"{self.shown}: there is no queue {queue!r} for published messages")

    async def finish(self, acknowledged: Acknowledged) -> None:
        """Do nothing: the queue is empty, because everything is counted."""

    # -- dead letters

    async def dead_letters(self) -> AsyncIterator[DeadLetter]:
        """Yield the messages in the queue of dead letters; they stay there."""
        queue = self._topology.dead_letters
        number = await self._at_rest(queue)
        if not number:
            return
        channel = await self._channel()
        await channel.prefetch(0)
        deliveries = await channel.consume(queue)
        try:
            for _ in range(number):
                yield _letter(await deliveries.next())
        finally:
            closed = channel.close()
        await closed

    async def _at_rest(self, queue: str) -> int:
        """Return how many messages a queue has once nobody reads from it.

        The broker hides delivered messages until it has noticed that the reader is gone. After our
        own reader has closed its channel, or was killed, this takes a moment.
        """
        for _ in range(_LOOKS_AT_REST):
            number, consumers = await self._look(queue) or (0, 0)
            if not consumers:
                return number
            await deferLater(self._reactor, PAUSE)
        raise CannotMove(f"another client consumes from queue {queue!r}: stop it first")

    async def bury(self, letters: AsyncIterator[DeadLetter]) -> None:
        """Publish the dead letters that are not there yet."""
        there = Counter([letter.digest async for letter in self.dead_letters()])
        if self._publishing is None:
            self._publishing = await self._channel()
            await self._publishing.confirm(self._returned.append)
        async for letter in letters:
            if there[letter.digest]:
                there[letter.digest] -= 1
                continue
            headers = {
                "reason": letter.reason,
                "group": letter.group,
                "deliveries": letter.deliveries,
                "failed_at": letter.failed_at,
            }
            message = (letter.entry_id, headers, letter.body)
            await self._publish(self._topology.dead_letters, [message])

    async def close(self) -> None:
        """Disconnect."""
        if self._connection is not None:
            connection, self._connection = self._connection, None
            connection.close()
            await connection.ended()


def _letter(message: BrokerMessage) -> DeadLetter:
    headers = message.headers
    # For messages that the broker itself gave up, it uses its own headers.
    reason = headers.get("reason") or headers.get("x-first-death-reason") or "unknown"
    at = headers.get("failed_at") or headers.get("appended_at") or 0
    return DeadLetter(
        str(headers.get("group", "stats")),
        0,
        message.message_id,
        str(reason),
        int(headers.get("deliveries", 1)),
        int(at),
        message.body,
    )


__all__ = ["RabbitLogSide"]
