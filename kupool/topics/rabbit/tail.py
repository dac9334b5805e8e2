"""The end of a stream: what is appended to it, by whatever node, as it comes.

A publisher's confirm does not tell the position of a message. So each node reads the end of the
streams that it writes to. What it reads is kept for a while: most readers read the end.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from kupool.amqp import BrokerError
from kupool.amqp.channel import BrokerChannel, BrokerMessage
from kupool.amqp.connection import BrokerConnection
from kupool.amqp.streams import SETTLING, offset_of
from kupool.timing.waiting import Waiters
from kupool.topics.interfaces import StoredBatch
from kupool.topics.rabbit.entries import STRIDE, StreamEntry, entry_of

#: The messages that the broker sends ahead; half of them are acknowledged together.
PREFETCH = 2000

#: The ids of the newest batches of a partition that are remembered: more than a publisher may have
#: on their way, so that what it sends again is known.
REMEMBERED_IDS = 4000

#: An exchange that every broker has: see :meth:`BrokerChannel.fence`.
EXCHANGE = "amq.direct"


class StreamTail:
    """Follows the end of a stream.

    ``told`` is called when there are new batches, ``ended`` when the broker ended the reading of
    this stream alone. ``room`` returns the bytes of batches to keep.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        stream: str,
        *,
        told: Callable[[], object],
        ended: Callable[[], object],
        room: Callable[[], int],
    ) -> None:
        self._clock = clock
        self.stream = stream
        self._told = told
        self._broken = ended
        self._room = room
        #: When somebody asked for it, on the clock.
        self.used_at = clock.seconds()
        self._channel: BrokerChannel | None = None
        self._unacknowledged = 0
        #: Whether the end is known, and followed.
        self.ready = False
        #: Those who wait until it is ready, or ends.
        self._news = Waiters[None]()
        #: The position of the next message; None until the end is known.
        self.next: int | None = None
        #: When the newest batch was appended, in milliseconds since the epoch.
        self.newest_at = 0
        #: Id of a batch -> its position, of the newest ones.
        self._known: OrderedDict[str, int] = OrderedDict()
        #: Id of a batch that is being published -> who waits for its position.
        self._awaited: dict[str, tuple[float, Deferred[int]]] = {}
        #: The newest batches, without those that are there before.
        self._kept: list[StoredBatch] = []
        self._bytes = 0
        #: The position from which on all batches are kept.
        self.kept_from = 0

    # -- the connection

    async def up(self, connection: BrokerConnection) -> None:
        """Follow the stream on a new connection, from where it was left.

        Raises :class:`BrokerError`.
        """
        channel = await connection.channel()
        await channel.prefetch(PREFETCH)
        start: int | str = "last" if self.next is None else self.next
        deliveries = await channel.consume(self.stream, {"x-stream-offset": start})
        self._channel, self._unacknowledged = channel, 0
        deliveries.each(lambda message: self._received(channel, message)).addCallback(
            self._ended, connection, channel
        )
        await channel.fence(EXCHANGE)
        if self.next is None:
            await deferLater(self._clock, SETTLING)
            await channel.fence(EXCHANGE)
        if self.next is None:
            self.next = 0
        if channel is self._channel:
            self.ready = True
            self._news.tell(None)

    def _ended(
        self, reason: BrokerError, connection: BrokerConnection, channel: BrokerChannel
    ) -> None:
        """The broker ended this consumer alone, as when a stream gets another leader."""
        if channel is self._channel:
            self.down()
            if connection.is_open:
                self._log.info(
                    "The end of stream {name} is read again: {why}", name=self.stream, why=reason
                )
                self._broken()

    def down(self) -> None:
        """The connection is lost."""
        channel, self._channel, self.ready = self._channel, None, False
        if channel is not None:
            channel.close()

    def close(self, reason: Exception) -> None:
        """End for good; who waits for a position gets the reason."""
        self.down()
        awaited, self._awaited = self._awaited, {}
        for _, each in awaited.values():
            each.errback(reason)
        self._news.tell(None)

    def news(self) -> Deferred[None]:
        """Return a Deferred that fires when it becomes ready, or ends; in the order of calls."""
        return self._news.wait()

    def restart(self) -> None:
        """Forget the end: the stream was made again, and its positions begin anew."""
        self.down()
        self.next = None
        self._known.clear()
        self._kept.clear()
        self._bytes = self.kept_from = 0

    def give_up(self, message_id: str, reason: Exception) -> None:
        """Fail who waits for the position of a batch, which was not published."""
        waiting = self._awaited.pop(message_id, None)
        if waiting is not None:
            waiting[1].errback(reason)

    def give_up_before(self, at: float, reason: Callable[[], Exception]) -> None:
        """Fail those who have waited since a time before ``at``."""
        for message_id, (since, _) in list(self._awaited.items()):
            if since >= at:
                break  # those behind it have waited less
            self.give_up(message_id, reason())

    @property
    def waiting(self) -> int:
        """The number of those who wait for positions."""
        return len(self._awaited)

    # -- what comes

    def _received(self, channel: BrokerChannel, message: BrokerMessage) -> None:
        if channel is not self._channel:
            return
        self._unacknowledged += 1
        if self._unacknowledged >= PREFETCH // 2:
            channel.ack(message.tag, multiple=True)
            self._unacknowledged = 0
        position = offset_of(message.headers)
        if self.next is None:
            self.kept_from = position
        elif position < self.next:
            return  # of the chunk with the first message that is wanted
        entry = entry_of(position, message.message_id, message.headers, message.body)
        self._add(entry)

    def _add(self, entry: StreamEntry) -> None:
        self.next = entry.position + 1
        known = self._known.get(entry.message_id) if entry.message_id else None
        if known is None:
            self._known[entry.message_id] = entry.position
            if len(self._known) > REMEMBERED_IDS:
                self._known.popitem(last=False)
            self.newest_at = max(self.newest_at, entry.batch.at)
            self._keep(entry.batch)
        waiting = self._awaited.pop(entry.message_id, None)
        if waiting is not None:
            waiting[1].callback(entry.position if known is None else known)
        self._told()

    def _keep(self, batch: StoredBatch) -> None:
        self._kept.append(batch)
        self._bytes += len(batch.body)
        room = self._room()
        if self._bytes <= room:
            return
        # A quarter at once: each removal moves all that are behind.
        dropped = 0
        while self._bytes > room * 3 // 4 and dropped < len(self._kept):
            self._bytes -= len(self._kept[dropped].body)
            dropped += 1
        self.kept_from = self._kept[dropped - 1].base // STRIDE + 1
        del self._kept[:dropped]

    # -- questions

    def position_of(self, message_id: str) -> Deferred[int]:
        """Return the position of a batch that is being published: that of its first copy."""
        waiting: Deferred[int] = Deferred()
        self._awaited[message_id] = (self._clock.seconds(), waiting)
        return waiting

    def read(self, offset: int, max_bytes: int) -> list[StoredBatch] | None:
        """Return the batch that holds an offset, and those behind it, up to ``max_bytes``.

        None if that is not kept here.
        """
        if not self.ready or offset < self.kept_from * STRIDE:
            return None
        return read_from(self._kept, offset, max_bytes)


def read_from(batches: list[StoredBatch], offset: int, max_bytes: int) -> list[StoredBatch]:
    """Return the batch that holds an offset, or the next one, and those behind it."""
    place = bisect_left(batches, offset - offset % STRIDE, key=_base)
    if place < len(batches) and batches[place].base + batches[place].records <= offset:
        place += 1  # there are no records from there on in this batch
    found: list[StoredBatch] = []
    for index in range(place, len(batches)):
        max_bytes -= len(batches[index].body)
        if max_bytes < 0 and found:
            break
        found.append(batches[index])
    return found


def _base(batch: StoredBatch) -> int:
    return batch.base


__all__ = ["EXCHANGE", "PREFETCH", "REMEMBERED_IDS", "StreamTail", "read_from"]
