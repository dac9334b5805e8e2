"""Streams of RabbitMQ: what they are made with, and how a part of one is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kupool.amqp import BrokerError
from kupool.amqp.channel import BrokerChannel, BrokerMessage, Deliveries
from kupool.amqp.connection import BrokerConnection
from kupool.amqp.links import Link

#: Bytes of a segment of a stream, by default.
_SEGMENT = 500_000_000

#: Seconds that a reader waits at the apparent end: the broker may confirm a message before its
#: stream shows it. Of 4,000 reads directly after an append, one found nothing, and the message 0.8
#: ms later.
SETTLING = 0.05

#: Seconds that a reader waits for a connection.
_PATIENCE = 15.0

#: Attempts for a read on connections that break.
_ATTEMPTS = 3

#: The most messages of a fetch.
MOST_FETCHED = 5000


def stream_arguments(max_age: str = "", max_bytes: int = 0, replicas: int = 0) -> dict[str, Any]:
    """Return the arguments to declare a stream with.

    ``max_age`` (as ``7D``) and ``max_bytes`` limit it; empty and 0 mean no limit. 0 ``replicas``
    leave their number to the broker.
    """
    arguments: dict[str, Any] = {"x-queue-type": "stream"}
    if max_age:
        arguments["x-max-age"] = max_age
    if max_bytes:
        arguments["x-max-length-bytes"] = max_bytes
        # A stream drops whole segments, and never the one being written.
        arguments["x-stream-max-segment-size-bytes"] = max(min(_SEGMENT, max_bytes // 8), 1)
    if replicas:
        arguments["x-initial-cluster-size"] = replicas
    return arguments


def offset_of(headers: Mapping[str, Any]) -> int:
    """Return the offset of a message that a stream delivered."""
    return int(headers["x-stream-offset"])


class StreamFetcher:
    """Reads parts of streams on a separate connection, which ``link`` keeps.

    Refusing a message of a stream closes the whole connection, so messages stay unacknowledged
    here, and the prefetch is as large as the number of wanted messages. ``exchange`` is one that
    exists: see :meth:`BrokerChannel.fence`.
    """

    def __init__(self, clock: IReactorTime, link: Link, exchange: str) -> None:
        self._clock = clock
        self._link = link
        self._exchange = exchange

    async def fetch(self, stream: str, start: int | str, limit: int) -> list[BrokerMessage]:
        """Return up to ``limit`` messages from an offset on; ``start`` may be first or last.

        At most :data:`MOST_FETCHED` are returned; none only at the end. Raises
        :class:`BrokerUnreachable` without a connection, and :class:`BrokerError` if the stream
        cannot be read.
        """
        for attempt in range(_ATTEMPTS):
            connection = await self._link.up(_PATIENCE)
            try:
                return await self._fetch(connection, stream, start, min(limit, MOST_FETCHED))
            except BrokerError as error:
                # The next attempt uses another connection: each read is complete by itself.
                connection.drop(f"reading {stream!r}: {error}")
                await connection.ended()
                if attempt == _ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    async def _fetch(
        self, connection: BrokerConnection, stream: str, start: int | str, limit: int
    ) -> list[BrokerMessage]:
        channel = await connection.channel()
        await channel.prefetch(limit)
        deliveries = await channel.consume(stream, {"x-stream-offset": start})
        least = start if isinstance(start, int) else 0
        found = await self._arrived(channel, deliveries, least)
        if not found:
            await deferLater(self._clock, SETTLING)
            found = await self._arrived(channel, deliveries, least)
        await channel.close()
        return found

    async def _arrived(
        self, channel: BrokerChannel, deliveries: Deliveries, least: int
    ) -> list[BrokerMessage]:
        # A channel reads the stream itself, so all its deliveries come before the next answer.
        await channel.fence(self._exchange)
        return [m for m in await deliveries.arrived() if offset_of(m.headers) >= least]


__all__ = ["MOST_FETCHED", "SETTLING", "StreamFetcher", "offset_of", "stream_arguments"]
