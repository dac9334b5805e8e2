"""What must be there at the broker: made where it is missing, and never changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kupool.amqp import BrokerError
from kupool.amqp.channel import Channel
from kupool.amqp.connection import Connection
from kupool.amqp.refusals import explained

#: Deliveries after which the broker gives an entry up by itself. High, as each time that a
#: consumer is gone counts as well: it stops only what ends process after process. Without a
#: number, newer brokers take 20.
DELIVERY_LIMIT = 10_000

#: Bytes of a segment of a stream, where nothing else is said.
_SEGMENT = 500_000_000


@dataclass(frozen=True)
class Topology:
    """Names and kinds of all that belongs to one log.

    ``queue`` names the exchange and the queue of the first group as well; the other groups'
    queues, the stream and the dead letters have it as the beginning of theirs. ``kind`` is
    ``quorum`` or ``classic``. ``max_age`` (as ``7D``) and ``max_bytes`` bound the stream,
    empty and 0 do not.
    """

    queue: str = "kupool_submissions"
    kind: str = "quorum"
    groups: tuple[str, ...] = ("stats",)
    max_age: str = ""
    max_bytes: int = 0

    @property
    def exchange(self) -> str:
        """Where entries are published."""
        return self.queue

    @property
    def stream(self) -> str:
        """The copy that can be read again."""
        return f"{self.queue}.stream"

    @property
    def dead_letters(self) -> str:
        """The queue of what could not be processed."""
        return f"{self.queue}.dead"

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues of the groups."""
        return tuple(self.queue_of(group) for group in self.groups)

    def queue_of(self, group: str) -> str:
        """Return the name of a group's queue."""
        return self.queue if group == self.groups[0] else f"{self.queue}.{group}"

    def queue_arguments(self) -> dict[str, Any]:
        """Return the arguments of a group's queue."""
        arguments = {
            "x-queue-type": self.kind,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self.dead_letters,
        }
        if self.kind == "classic":
            return arguments
        return arguments | {
            "x-delivery-limit": DELIVERY_LIMIT,
            # What the broker itself gives up is in one of the two queues at all times.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }

    def stream_arguments(self) -> dict[str, Any]:
        """Return the arguments of the stream."""
        arguments: dict[str, Any] = {"x-queue-type": "stream"}
        if self.max_age:
            arguments["x-max-age"] = self.max_age
        if self.max_bytes:
            arguments["x-max-length-bytes"] = self.max_bytes
            # A stream loses whole segments, and never the one it writes to.
            segment = min(_SEGMENT, self.max_bytes // 8)
            arguments["x-stream-max-segment-size-bytes"] = max(segment, 1)
        return arguments


async def declare(connection: Connection, topology: Topology) -> dict[str, int]:
    """Make everything that is missing; returns how many messages wait in each queue.

    Raises :class:`BrokerRefused` where something is there with other arguments or where the
    account may not do it, otherwise :class:`BrokerError`.
    """
    channel = await connection.channel()
    try:
        found = await _declare(channel, topology)
    except BrokerError as error:
        raise explained(error, connection) from None
    await channel.close()
    return found


async def _declare(channel: Channel, topology: Topology) -> dict[str, int]:
    await channel.declare_exchange(topology.exchange, "fanout")
    found = {
        topology.dead_letters: await channel.declare_queue(
            topology.dead_letters, {"x-queue-type": topology.kind}
        ),
        topology.stream: await channel.declare_queue(topology.stream, topology.stream_arguments()),
    }
    for queue in topology.queues:
        found[queue] = await channel.declare_queue(queue, topology.queue_arguments())
    for queue in (topology.stream, *topology.queues):
        await channel.bind(queue, topology.exchange)
    return found


__all__ = ["Topology", "declare"]
