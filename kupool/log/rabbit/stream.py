"""Reads entries from the stream of a log in RabbitMQ."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime

from kupool.amqp import BrokerError
from kupool.amqp import BrokerUnreachable as NoBroker
from kupool.amqp.channel import BrokerMessage
from kupool.amqp.links import Link
from kupool.amqp.streams import MOST_FETCHED, StreamFetcher, offset_of
from kupool.log import Entry, LogUnavailable
from kupool.log.rabbit import LogBrokerUnreachable
from kupool.log.rabbit.headers import appended_at, is_foreign
from kupool.log.rabbit.topology import Topology

#: The least entries fetched at once: each fetch costs some round trips, and the broker searches the
#: whole stream for the start.
AHEAD = 200

#: The size of a fetch in bytes above which a continuous reader's next fetch is not doubled.
ENOUGH = 4 * 1024 * 1024


class StreamReader:
    """Reads a stream on a separate connection.

    The position of an entry is the :attr:`base` plus its offset in the stream plus one; positions
    grow and have gaps. ``pool`` returns the id of the pool whose entries are read, empty while it
    is unknown; entries of other pools are skipped.
    """

    def __init__(
        self,
        clock: IReactorTime,
        link: Link,
        topology: Topology,
        pool: Callable[[], str],
    ) -> None:
        self._fetcher = StreamFetcher(clock, link, topology.exchange)
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
            self._onward = min(size * 2, MOST_FETCHED) if small else AHEAD
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
        newest = await self._fetch("last", MOST_FETCHED) or first
        # At least one more fetch: the first may be too early for a confirmed entry.
        found = newest
        while found := await self._fetch(offset_of(found[-1].headers) + 1, MOST_FETCHED):
            newest = found
            if len(found) < MOST_FETCHED:
                break
        return first[0], newest

    async def newest(self) -> int:
        """Return the offset of one of the newest messages; -1 if there is none."""
        found = await self._fetch("last", MOST_FETCHED)
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
        try:
            return await self._fetcher.fetch(self._topology.stream, start, limit)
        except NoBroker as error:
            raise LogBrokerUnreachable(str(error)) from None
        except BrokerError as error:
            raise LogUnavailable(f"the stream cannot be read: {error}") from None


def _position(entry: Entry) -> int:
    return entry.position


def _entry(message: BrokerMessage, base: int) -> Entry:
    headers = message.headers
    position = base + offset_of(headers) + 1
    return Entry(position, message.message_id, appended_at(headers), message.body)


__all__ = ["StreamReader"]
