"""Reads entries from the stream of a log in RabbitMQ."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kupool.amqp import BrokerError
from kupool.amqp import BrokerUnreachable as NoBroker
from kupool.amqp.channel import BrokerChannel, BrokerMessage, Deliveries
from kupool.amqp.connection import BrokerConnection
from kupool.amqp.links import Link
from kupool.log import Entry, LogUnavailable
from kupool.log.rabbit import LogBrokerUnreachable
from kupool.log.rabbit.headers import appended_at, is_foreign, offset_of
from kupool.log.rabbit.topology import Topology

#: The least entries fetched at once: each fetch costs some round trips, and the broker searches the
#: whole stream for the start.
AHEAD = 200

#: The size of a fetch in bytes above which a continuous reader's next fetch is not doubled.
ENOUGH = 4 * 1024 * 1024

#: Seconds that a reader waits at the apparent end: the broker may confirm an entry before its
#: stream shows it. Of 4,000 reads directly after an append, one found nothing, and the entry 0.8 ms
#: later.
SETTLING = 0.05

#: Seconds that a reader waits for a connection.
_PATIENCE = 15.0

#: Attempts for a read on connections that break.
_ATTEMPTS = 3

_MOST = 5000


class StreamReader:
    """Reads a stream on a separate connection.

    Refusing a message of a stream closes the whole connection, so messages stay unacknowledged
    here, and the prefetch is as large as the number of wanted entries. The position of an entry is
    the :attr:`base` plus its offset in the stream plus one; positions grow and have gaps. ``pool``
    returns the id of the pool whose entries are read, empty while it is unknown; entries of other
    pools are skipped.
    """

    def __init__(
        self,
        clock: IReactorTime,
        link: Link,
        topology: Topology,
        pool: Callable[[], str],
    ) -> None:
        self._clock = clock
        self._link = link
        self._topology = topology
        self._pool = pool
        self._base = 0
        self._ahead: Sequence[Entry] = ()
        self._ahead_after = 0
        #: Entries fetched in advance, for a read that starts where the last one ended.
        self._onward = AHEAD

    @property
    def base(self) -> int:
        """The position after which the stream starts."""
        return self._base

    def rebase(self, base: int) -> None:
        """Read a stream that starts after another position."""
        self._base = base
        self._ahead = ()

    async def read(self, after: int, limit: int) -> Sequence[Entry]:
        """Return up to ``limit`` entries after a position; empty only at the end.

        Raises :class:`LogUnavailable` if the broker cannot be reached.
        """
        after = max(after, 0)
        if not self._ahead or not self._ahead_after <= after < self._ahead[-1].position:
            onward = bool(self._ahead) and after == self._ahead[-1].position
            size = self._onward if onward else AHEAD
            base = self._base
            found = await self._own(after, max(limit, size))
            if base != self._base:
                return await self.read(after, limit)
            self._ahead, self._ahead_after = found, after
            small = sum(len(entry.body) for entry in found) < ENOUGH
            self._onward = min(size * 2, _MOST) if small else AHEAD
            return found[:limit]
        start = bisect_right(self._ahead, after, key=_position)
        return self._ahead[start : start + limit]

    async def following(self, after: int) -> Entry | None:
        """Return the entry that follows a position; None at the end."""
        found = await self._own(after, 1)
        return found[0] if found else None

    async def _own(self, after: int, limit: int) -> list[Entry]:
        """Return entries of this pool after a position."""
        base, pool = self._base, self._pool()
        offset = max(after - base, 0)
        while messages := await self._fetch(offset, limit):
            own = [_entry(m, base) for m in messages if not is_foreign(m.headers, pool)]
            if own:
                return own
            offset = offset_of(messages[-1].headers) + 1
        return []

    async def ends(self) -> tuple[BrokerMessage, list[BrokerMessage]] | None:
        """Return the first message and some of the newest ones, in order; None if there is none.

        Entries that are appended meanwhile may be left out, as there may be no end of them.
        """
        first = await self._fetch("first", 1)
        if not first:
            return None
        newest = await self._fetch("last", _MOST) or first
        # At least one more fetch: the first may be too early for a confirmed entry.
        found = newest
        while found := await self._fetch(offset_of(found[-1].headers) + 1, _MOST):
            newest = found
            if len(found) < _MOST:
                break
        return first[0], newest

    async def newest(self) -> int:
        """Return the offset of one of the newest messages; -1 if there is none."""
        found = await self._fetch("last", _MOST)
        return offset_of(found[-1].headers) if found else -1

    async def before(self, offset: int) -> list[BrokerMessage]:
        """Return some of the messages before an offset."""
        found = await self._fetch(max(offset - AHEAD, 0), AHEAD)
        return [message for message in found if offset_of(message.headers) < offset]

    async def at(self, offset: int) -> BrokerMessage | None:
        """Return the message at an offset, or the next existing one; None at the end."""
        found = await self._fetch(offset, 1)
        return found[0] if found else None

    async def _fetch(self, start: int | str, limit: int) -> list[BrokerMessage]:
        """Return messages from an offset on; raises :class:`LogUnavailable`."""
        for attempt in range(_ATTEMPTS):
            try:
                connection = await self._link.up(_PATIENCE)
            except NoBroker as error:
                raise LogBrokerUnreachable(str(error)) from None
            try:
                return await self._fetch_from(connection, start, min(limit, _MOST))
            except BrokerError as error:
                # The next attempt uses another connection: each read is complete by itself.
                connection.drop(f"reading {self._topology.stream!r}: {error}")
                await connection.ended()
                if attempt == _ATTEMPTS - 1:
                    raise LogUnavailable(f"the stream cannot be read: {error}") from None
        raise AssertionError("unreachable")

    async def _fetch_from(
        self, connection: BrokerConnection, start: int | str, limit: int
    ) -> list[BrokerMessage]:
        channel = await connection.channel()
        await channel.prefetch(limit)
        deliveries = await channel.consume(self._topology.stream, {"x-stream-offset": start})
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
        await channel.fence(self._topology.exchange)
        return [m for m in await deliveries.arrived() if offset_of(m.headers) >= least]


def _position(entry: Entry) -> int:
    return entry.position


def _entry(message: BrokerMessage, base: int) -> Entry:
    headers = message.headers
    position = base + offset_of(headers) + 1
    return Entry(position, message.message_id, appended_at(headers), message.body)


__all__ = ["StreamReader"]
