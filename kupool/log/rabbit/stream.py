"""The copy of all entries that can be read again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kupool.amqp import BrokerError
from kupool.amqp import BrokerUnreachable as NoBroker
from kupool.amqp.channel import Channel, Deliveries, Message
from kupool.amqp.connection import Connection
from kupool.amqp.links import Link
from kupool.log import Entry, LogUnavailable
from kupool.log.rabbit import BrokerUnreachable
from kupool.log.rabbit.topology import Topology

#: Entries that are fetched at once, whoever asks for fewer: each time costs some ways to
#: the broker and back, and the broker looks for the beginning in all that is there.
AHEAD = 200

#: Bytes in one fetch above which who reads on and on does not get twice as many entries.
ENOUGH = 4 * 1024 * 1024

#: Seconds that a reader waits at what seems to be the end: the broker may confirm an entry
#: before its stream shows it. One of 4,000 reads that followed an append at once found
#: nothing, and the entry 0.8 ms later.
SETTLING = 0.05

#: Seconds that a reader waits for a connection.
_PATIENCE = 15.0

#: Times that a read is tried on connections that break.
_ATTEMPTS = 3

_MOST = 5000


class StreamReader:
    """Reads a stream on a connection of its own.

    On a stream a refusal of a message ends the whole connection, so messages are left
    unacknowledged here; the prefetch is as large as what is wanted. The position of an entry is
    its offset in the stream and one: positions grow and are not without gaps. ``skew`` is how
    many seconds the clocks of those who append may differ by, and how long an entry may be
    on its way.
    """

    def __init__(
        self, clock: IReactorTime, link: Link, topology: Topology, skew: float = 10.0
    ) -> None:
        self._clock = clock
        self._link = link
        self._topology = topology
        self._skew = skew
        self._ahead: Sequence[Entry] = ()
        self._ahead_after = -1
        #: Entries to fetch next, if it is where the last fetch ended.
        self._onward = AHEAD

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        """Return up to ``limit`` entries after a position; none only at the end.

        Raises :class:`LogUnavailable` where the broker cannot be reached.
        """
        after = max(after, 0)
        if not self._ahead or not self._ahead_after <= after < self._ahead[-1].position:
            onward = bool(self._ahead) and after == self._ahead[-1].position
            size = self._onward if onward else AHEAD
            self._ahead, self._ahead_after = (), -1
            found = await self._fetch(after, max(limit, size))
            self._ahead, self._ahead_after = found, after
            small = sum(len(entry.body) for entry in found) < ENOUGH
            self._onward = min(size * 2, _MOST) if small else AHEAD
            return found[:limit]
        start = bisect_right(self._ahead, after, key=_position)
        return self._ahead[start : start + limit]

    async def last(self) -> int:
        """Return the position of the newest entry; 0 when there is none."""
        position = 0
        found = await self._fetch("last", _MOST)
        while found:
            position = found[-1].position
            found = await self._fetch(position, _MOST)
        return position

    async def position_at(self, time: float) -> int:
        """Return a position that no entry appended at ``time`` or later is before.

        Searches by halves for an entry older than that by the skew, and reads on from there.
        """
        first = await self._fetch(0, 1)
        if not first:
            return 0
        low, high, before = first[0].position, await self.last(), 0
        while low <= high:
            middle = (low + high) // 2
            found = await self._fetch(middle - 1, 1)
            if found and found[0].appended_at < time - self._skew:
                before = found[0].position
                low = before + 1
            else:
                high = middle - 1
        while entries := await self.read(before, AHEAD):
            for entry in entries:
                if entry.appended_at >= time:
                    return before
                before = entry.position
        return before

    async def _fetch(self, start: int | str, limit: int) -> list[Entry]:
        for attempt in range(_ATTEMPTS):
            try:
                connection = await self._link.up(_PATIENCE)
            except NoBroker as error:
                raise BrokerUnreachable(str(error)) from None
            try:
                return await self._fetch_from(connection, start, min(limit, _MOST))
            except BrokerError as error:
                # The next attempt is made on another connection: each read by itself is whole.
                connection.drop(f"reading {self._topology.stream!r}: {error}")
                await connection.ended()
                if attempt == _ATTEMPTS - 1:
                    raise LogUnavailable(f"the stream cannot be read: {error}") from None
        raise AssertionError("unreachable")

    async def _fetch_from(
        self, connection: Connection, start: int | str, limit: int
    ) -> list[Entry]:
        channel = await connection.channel()
        await channel.prefetch(limit)
        deliveries = await channel.consume(self._topology.stream, {"x-stream-offset": start})
        after = start if isinstance(start, int) else 0
        found = await self._arrived(channel, deliveries, after)
        if not found:
            await deferLater(self._clock, SETTLING)
            found = await self._arrived(channel, deliveries, after)
        await channel.close()
        return found

    async def _arrived(self, channel: Channel, deliveries: Deliveries, after: int) -> list[Entry]:
        # A channel reads the stream itself: all it can deliver comes before the next answer.
        await channel.fence(self._topology.exchange)
        found = [_entry(message) for message in await deliveries.arrived()]
        return [entry for entry in found if entry.position > after]


def _position(entry: Entry) -> int:
    return entry.position


def _entry(message: Message) -> Entry:
    headers: dict[str, Any] = message.headers
    at = headers.get("appended_at", 0)
    appended_at = at / 1000 if isinstance(at, int | float) else 0.0
    return Entry(int(headers["x-stream-offset"]) + 1, message.message_id, appended_at, message.body)


__all__ = ["StreamReader"]
