"""The extent of a stream, and whether a store was counted from it."""

from __future__ import annotations

from typing import NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kupool.amqp.channel import BrokerMessage
from kupool.amqp.streams import offset_of
from kupool.log import Extent, Identity, Mark
from kupool.log.rabbit.headers import identity_of
from kupool.log.rabbit.stream import StreamReader

#: Attempts to find a marked entry, and the seconds between them: replicas of a stream show an entry
#: at different times.
LOOKS = 10
PAUSE = 0.3


class Found(NamedTuple):
    """The extent of a stream.

    ``base`` is the position that its first offset comes after; None if a new epoch decides it.
    ``entries`` is the number of offsets.
    """

    extent: Extent
    base: int | None
    entries: int


async def examine(
    clock: IReactorTime,
    reader: StreamReader,
    known: Identity | None,
    mark: Mark,
    *,
    new: bool = False,
) -> Found:
    """Compare a stream with what a store knows. ``new`` says that it is known to be empty, as
    nothing was appended since its epoch began.

    ===================================================  ======================================
    What is found                                        What is returned
    ===================================================  ======================================
    At the store's mark is the entry of that id          The store's identity
    The stream begins after the mark                     The same: what lies between is a gap
    It is empty, ends before the mark, or has another    None, without data: it was made again,
    entry there, with entries of the pool                and all of it is above the mark
    The same, with entries of another pool               That pool
    The same, with entries that name no pool             None, with data
    The store knows none, and entries name a pool        That pool, and the newest epoch
    The store knows none, and neither do entries         None, with data
    ===================================================  ======================================

    Raises :class:`kupool.log.LogUnavailable` where the broker cannot be reached.
    """
    if known is None:
        ends = await reader.ends()
        return _found(await _named(reader, ends), ends, 0, holds_data=ends is not None)
    place = await _place(clock, reader, known, mark)
    ends = await reader.ends()
    if ends is not None and not place.certain:
        # Only the messages themselves tell which pool they belong to.
        named = await _named(reader, ends, known.pool_id)
        if named is None and (place.base is None or not mark.position):
            return _found(None, ends, 0, holds_data=True)
        if named is not None and named.pool_id != known.pool_id:
            return _found(named, ends, 0, holds_data=True)
    if new and ends is None:
        return _found(known, None, known.begins_after, holds_data=False)
    if ends is None or place.base is None:
        again = max(mark.position, known.begins_after)
        return _found(None, ends, again, holds_data=False)._replace(base=None)
    return _found(known, ends, place.base, holds_data=True)


class _StreamBase(NamedTuple):
    """The position that a stream starts after, as far as the mark tells.

    ``base`` is None if the mark is not in the stream. ``certain`` says that the marked entry is.
    """

    base: int | None
    certain: bool = False


async def _place(
    clock: IReactorTime, reader: StreamReader, known: Identity, mark: Mark
) -> _StreamBase:
    """Look for the entry at a mark.

    A stream belongs to the epoch that it started with; further epochs may have begun since, as
    after a restore of a store.
    """
    if mark.position <= known.begins_after and not mark.entry_id:
        return _StreamBase(known.begins_after)  # no entry of the newest epoch is marked yet
    bases = [epoch.begins_after for epoch in known.epochs if epoch.begins_after < mark.position]
    for attempt in range(LOOKS):
        if attempt:
            await deferLater(clock, PAUSE)
        newest = await reader.newest()
        places = [(base, mark.position - base - 1) for base in reversed(bases)]
        # There is nothing beyond the end, and a read would take long to find that out.
        found = [
            await _look(reader, base, offset, mark) if offset <= newest else None
            for base, offset in places
        ]
        for place in found:
            if place is not None and place.certain:
                return place
        for place in found:
            if place is not None and place.base is not None:
                return place
        if None not in found:
            break
    return _StreamBase(None)


async def _look(reader: StreamReader, base: int, offset: int, mark: Mark) -> _StreamBase | None:
    """Return what is at a mark in a stream that starts after ``base``; None if it ends before."""
    message = await reader.at(offset)
    if message is None:
        return None
    if offset_of(message.headers) > offset or not mark.entry_id:
        return _StreamBase(base)
    same = message.message_id == mark.entry_id
    return _StreamBase(base if same else None, same)


async def _named(
    reader: StreamReader,
    ends: tuple[BrokerMessage, list[BrokerMessage]] | None,
    own: str | None = None,
) -> Identity | None:
    """Return the identity in the newest message that names the ``own`` pool, or else any pool.

    Messages of strangers may be anywhere.
    """
    if ends is None:
        return None
    first, newest = ends
    earlier = await reader.before(offset_of(newest[0].headers))
    found = [identity_of(message.headers) for message in (first, *earlier, *newest)]
    names = [identity for identity in found if identity is not None]
    return next(
        (identity for identity in reversed(names) if identity.pool_id == own),
        names[-1] if names else None,
    )


def _found(
    identity: Identity | None,
    ends: tuple[BrokerMessage, list[BrokerMessage]] | None,
    base: int,
    *,
    holds_data: bool,
) -> Found:
    if ends is None:
        return Found(Extent(identity, base + 1, base, holds_data, base), base, 0)
    first, newest = offset_of(ends[0].headers), offset_of(ends[1][-1].headers)
    last = base + newest + 1
    # The broker keeps what was acknowledged: nobody has to start before the mark.
    return Found(Extent(identity, base + first + 1, last, holds_data, last), base, newest + 1)


__all__ = ["Found", "examine"]
