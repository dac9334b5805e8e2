"""The history of a channel in memory: limited by size and time, or only the newest publication."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from kupool.live.interfaces import IChannelStore
from kupool.live.publications import (
    HistoryPart,
    MissedCount,
    NewPublication,
    PublishedRecord,
    StreamPosition,
    published,
)


@implementer(IChannelStore)
class MemoryHistory:
    """Keeps up to ``size`` publications, each up to ``seconds`` (0 is no limit).

    ``now`` returns seconds of a clock that is never set, ``wall`` seconds since the epoch. The
    stream begins after ``start``, so that a stream may go on that was not kept meanwhile. The
    offsets of the epoch grow by one. With ``newest_only`` older publications are not missed: the
    channel has only one value.
    """

    __slots__ = (
        "_heard",
        "_kept",
        "_newest_only",
        "_now",
        "_position",
        "_seconds",
        "_size",
        "_wall",
    )

    def __init__(
        self,
        start: StreamPosition,
        now: Callable[[], float],
        wall: Callable[[], float],
        *,
        size: int,
        seconds: float = 0.0,
        newest_only: bool = False,
    ) -> None:
        self._position = start
        self._now = now
        self._wall = wall
        self._size = 1 if newest_only else size
        self._seconds = seconds
        self._newest_only = newest_only
        #: Publications with the times until which they are kept, the oldest first. A list: most
        #: histories are short, and an empty deque takes more memory than all the rest of them.
        self._kept: list[tuple[float, PublishedRecord]] | None = None
        self._heard: Callable[[PublishedRecord], object] | None = None

    def position(self) -> Deferred[StreamPosition]:
        """Return the end of the stream."""
        return succeed(self._position)

    def append(self, new: NewPublication) -> Deferred[PublishedRecord]:
        """Keep a publication."""
        self._position = StreamPosition(self._position.offset + 1, self._position.epoch)
        record = published(new, self._position.offset, self._wall())
        self._drop_old()
        if self._kept is None:
            self._kept = []
        elif len(self._kept) >= self._size:
            del self._kept[0]
        self._kept.append((self._now() + self._seconds, record))
        if self._heard is not None:
            self._heard(record)
        return succeed(record)

    def follow(
        self, heard: Callable[[PublishedRecord], object], skipped: Callable[[int], object]
    ) -> Deferred[StreamPosition]:
        """Call ``heard`` with each publication from now on; none is skipped."""
        self._heard = heard
        return succeed(self._position)

    def unfollow(self) -> None:
        """Call ``heard`` no more."""
        self._heard = None

    def after(self, offset: int, limit: int) -> Deferred[HistoryPart]:
        """Return publications after an offset."""
        self._drop_old()
        kept = self._kept or []
        before = self._position.offset - len(kept)
        skipped = max(0, offset - before)
        found = [record for _, record in kept[skipped : skipped + max(0, limit)]]
        return succeed(
            HistoryPart(
                found,
                self._position,
                self._missed(before, offset),
                more=len(kept) > skipped + len(found),
            )
        )

    def count_after(self, offset: int) -> Deferred[MissedCount]:
        """Count the publications after an offset."""
        if self._newest_only:
            return succeed(MissedCount(int(offset < self._position.offset)))
        return succeed(MissedCount(max(0, self._position.offset - offset)))

    def newest(self, limit: int, before: int | None = None) -> Deferred[HistoryPart]:
        """Return the newest publications, before an offset if one is given."""
        self._drop_old()
        kept = self._kept or []
        if before is not None:
            later = self._position.offset - before + 1
            kept = kept[: max(0, len(kept) - max(0, later))]
        found = [record for _, record in kept[max(0, len(kept) - limit) :]]
        return succeed(HistoryPart(found, self._position))

    def before(self, time: float, most: int | None = None) -> Deferred[StreamPosition]:
        """Return the position before the first publication of a time or later."""
        self._drop_old()
        kept = self._kept or []
        later = sum(1 for _, record in kept if record.time >= time)
        later = later if most is None else min(later, most)
        return succeed(self._position._replace(offset=self._position.offset - later))

    def forget(self) -> Deferred[None]:
        """Forget all publications."""
        self._kept = None
        return succeed(None)

    def expire(self) -> bool:
        """Forget what is too old; returns whether nothing is kept."""
        self._drop_old()
        return self._kept is None

    @property
    def ended_at(self) -> StreamPosition:
        """The end of the stream, where another one can go on."""
        return self._position

    def _missed(self, before: int, offset: int) -> int:
        return 0 if self._newest_only else max(0, before - offset)

    def _drop_old(self) -> None:
        kept = self._kept
        if kept is None or not self._seconds:
            return
        now, old = self._now(), 0
        while old < len(kept) and kept[old][0] <= now:
            old += 1
        if old:
            del kept[:old]
            self._kept = kept or None


__all__ = ["MemoryHistory"]
