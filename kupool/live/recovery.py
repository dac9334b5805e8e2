"""What a client gets that subscribes again: what it missed, or the truth about it."""

from __future__ import annotations

from typing import NamedTuple

from kupool.live.interfaces import IChannelStore
from kupool.live.publications import (
    HistoryPart,
    MissedCount,
    PublishedRecord,
    StreamPosition,
)


class Recovery(NamedTuple):
    """What was recovered.

    The reply begins at ``position`` and has ``publications``; behind them the client is at ``at``.
    If not everything was ``recovered``, ``missed`` counts what is lost; None if nobody can know.
    """

    position: StreamPosition
    publications: list[PublishedRecord]
    at: int
    recovered: bool
    missed: MissedCount | None = None


async def recover(
    store: IChannelStore, since: StreamPosition, *, limit: int, partial: bool
) -> Recovery:
    """Recover what was published after a position, up to ``limit`` publications of it.

    The others, from ``at`` on, have to be read later. With ``partial`` what is left of the history
    is handed over even if some is lost. Raises :class:`HistoryUnavailable`.
    """
    part: HistoryPart = await store.after(since.offset, limit)
    top = part.position
    if since.epoch not in ("", top.epoch) or since.offset > top.offset:
        if not partial:
            return Recovery(top, [], top.offset, recovered=False)
        part = await store.after(0, limit)
        return _beginning_with(part, 0, None)
    if not part.missed:
        position = StreamPosition(since.offset, top.epoch)
        return Recovery(
            position, list(part.publications), _behind(part, since.offset), recovered=True
        )
    if partial:
        return _beginning_with(part, since.offset, MissedCount(part.missed, part.exact))
    missed: MissedCount = await store.count_after(since.offset)
    at = since.offset + missed.missed if missed.exact else top.offset
    return Recovery(StreamPosition(at, top.epoch), [], at, recovered=False, missed=missed)


async def recover_newest(store: IChannelStore, since: StreamPosition) -> Recovery:
    """Recover the newest publication, unless the client has it.

    Without any, it is recovered only if the client is at the end of the stream.
    """
    part: HistoryPart = await store.newest(1)
    top = part.position
    if since == top:
        return Recovery(top, [], top.offset, recovered=True)
    if not part.publications:
        return Recovery(top, [], top.offset, recovered=False)
    before = StreamPosition(part.publications[0].offset - 1, top.epoch)
    return Recovery(before, list(part.publications), top.offset, recovered=True)


def _beginning_with(part: HistoryPart, offset: int, missed: MissedCount | None) -> Recovery:
    """Return what is left of a history."""
    at = _behind(part, offset)
    begin = part.publications[0].offset - 1 if part.publications else at
    return Recovery(
        StreamPosition(begin, part.position.epoch),
        list(part.publications),
        at,
        recovered=False,
        missed=missed,
    )


def _behind(part: HistoryPart, offset: int) -> int:
    if not part.publications:
        return max(offset, part.position.offset)
    return part.publications[-1].offset if part.more else part.position.offset


__all__ = ["Recovery", "recover", "recover_newest"]
