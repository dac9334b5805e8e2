"""The queues, exchange and stream at the broker: created if missing, and never changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from kupool.amqp import BrokerError, BrokerRefused
from kupool.amqp.channel import BrokerChannel
from kupool.amqp.connection import BrokerConnection
from kupool.amqp.refusals import explained
from kupool.amqp.streams import stream_arguments

#: Deliveries after which the broker itself gives up an entry. It is high, because every lost
#: consumer counts as one: it only stops entries that crash process after process. Without a number,
#: newer brokers use 20.
DELIVERY_LIMIT = 10_000

#: Reply codes: something does not exist, or exists with other arguments.
NOT_FOUND = 404
NOT_AS_ASKED = 406


@dataclass(frozen=True)
class Topology:
    """The names and kinds of everything that belongs to one log.

    ``queue`` is the name of the exchange and of the first group's queue. It is also the prefix of
    the other groups' queues, the stream and the dead letters. ``kind`` is ``quorum`` or
    ``classic``. ``max_age`` (as ``7D``) and ``max_bytes`` limit the stream; empty and 0 mean no
    limit.
    """

    queue: str = "kupool_submissions"
    kind: str = "quorum"
    groups: tuple[str, ...] = ("stats",)
    max_age: str = ""
    max_bytes: int = 0

    @property
    def exchange(self) -> str:
        """The exchange that entries are published to."""
        return self.queue

    @property
    def stream(self) -> str:
        """The stream with all entries."""
        return f"{self.queue}.stream"

    @property
    def dead_letters(self) -> str:
        """The queue of entries that could not be processed."""
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
            # A message that the broker gives up is in one of the two queues at all times.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }

    def stream_arguments(self) -> dict[str, Any]:
        """Return the arguments of the stream."""
        return stream_arguments(self.max_age, self.max_bytes)


class Declared(NamedTuple):
    """The state of the broker: how many messages wait in each queue, and what was created."""

    waiting: dict[str, int]
    made: tuple[str, ...]


async def declare(connection: BrokerConnection, topology: Topology) -> Declared:
    """Create everything that is missing, unless something exists with wrong properties.

    Raises :class:`BrokerRefused` if something exists with other arguments, in which case nothing
    was created, or if the account has no permission; otherwise :class:`BrokerError`.
    """
    try:
        present = [queue for queue in _queues(topology) if await _is_there(connection, queue)]
        channel = await connection.channel()
        waiting = {}
        for queue in reversed(present):  # first what others know by name
            waiting[queue] = await _compared(connection, channel, topology, queue)
        made = tuple(queue for queue in _queues(topology) if queue not in waiting)
        # Refused if it is of another kind, when no queue is created yet.
        await channel.declare_exchange(topology.exchange, "fanout")
        for queue in made:
            waiting[queue] = await channel.declare_queue(queue, _queues(topology)[queue])
        for queue in (topology.stream, *topology.queues):
            await channel.bind(queue, topology.exchange)
    except BrokerRefused:
        raise
    except BrokerError as error:
        raise explained(error, connection) from None
    await channel.close()
    return Declared(waiting, made)


def _queues(topology: Topology) -> dict[str, dict[str, Any]]:
    """Return the arguments of each queue, in the order of creation."""
    return {
        topology.dead_letters: {"x-queue-type": topology.kind},
        topology.stream: topology.stream_arguments(),
        **dict.fromkeys(topology.queues, topology.queue_arguments()),
    }


async def _is_there(connection: BrokerConnection, queue: str) -> bool:
    """Return whether a queue exists; uses its own channel, which a broker closes if not."""
    channel = await connection.channel()
    try:
        await channel.look_at(queue)
    except BrokerError as error:
        if error.code != NOT_FOUND:
            raise
        return False
    await channel.close()
    return True


async def _compared(
    connection: BrokerConnection, channel: BrokerChannel, topology: Topology, queue: str
) -> int:
    """Return how many messages wait in an existing queue, if it is as expected."""
    try:
        return await channel.declare_queue(queue, _queues(topology)[queue])
    except BrokerError as error:
        if error.code != NOT_AS_ASKED or queue == topology.stream:
            raise
    other = replace(topology, kind="classic" if topology.kind == "quorum" else "quorum")
    # It exists, so this creates nothing.
    trying = await connection.channel()
    try:
        await trying.declare_queue(queue, _queues(other)[queue])
    except BrokerError as error:
        if error.code != NOT_AS_ASKED:
            raise
        raise _somebody_elses(connection, topology, queue) from None
    await trying.close()
    raise BrokerRefused(
        f"RabbitMQ at {connection.broker}: queue {queue!r} is there as a {other.kind} queue of "
        f"KuPool, where a {topology.kind} queue is expected: set --mq-kind={other.kind}, or "
        "another name with --mq-queue",
        NOT_AS_ASKED,
    )


def _somebody_elses(connection: BrokerConnection, topology: Topology, queue: str) -> BrokerRefused:
    return BrokerRefused(
        f"RabbitMQ at {connection.broker}: queue {queue!r} is there and is not one of KuPool's "
        "(the first implementation made a classic queue without arguments by this name), where a "
        f"{topology.kind} queue with dead letters is expected (--mq-kind={topology.kind}): set "
        "another name with --mq-queue, or remove the queue once what is in it is done with",
        NOT_AS_ASKED,
    )


__all__ = ["Declared", "Topology", "declare"]
