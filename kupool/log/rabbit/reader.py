"""Reads the stream of a log in RabbitMQ, for others than the log itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from zope.interface import implementer

from kupool.amqp.streams import offset_of
from kupool.log import Entry, ILogReader, LogBounds, LogUnavailable
from kupool.log.groups import WAKE_DELAY
from kupool.log.rabbit.copies import FirstCopies
from kupool.log.rabbit.stream import AHEAD, StreamReader
from kupool.log.searching import position_since

#: Seconds after which those who wait for entries look again: others may append, too.
LOOK = 1.0


@implementer(ILogReader)
class RabbitLogReader:
    """Reads a stream; ``obstacle`` returns why its positions are not known, or an empty text.

    An entry that was sent again is in the stream more than once. Only its first copy is returned,
    as far as this reader has seen that.
    """

    _log = Logger()

    def __init__(
        self, clock: IReactorTime, stream: StreamReader, obstacle: Callable[[], str]
    ) -> None:
        self._clock = clock
        self._stream = stream
        self._obstacle = obstacle
        self._copies = FirstCopies()
        self._watchers: list[Callable[[], object]] = []
        self._waking: IDelayedCall | None = None
        self._looks = LoopingCall(self._tell)
        self._looks.clock = clock

    def open(self) -> Deferred[None]:
        """Begin to tell those who watch."""
        self._looks.start(LOOK, now=False).addErrback(
            lambda failure: self._log.failure("Readers of the stream are not told", failure)
        )
        return succeed(None)

    def read(self, after: int, max_bytes: int) -> Deferred[Sequence[Entry]]:
        """Return the entries that follow a position, up to ``max_bytes``."""
        return Deferred.fromCoroutine(self._read(after, max_bytes))

    async def _read(self, after: int, max_bytes: int) -> Sequence[Entry]:
        self._check()
        found: list[Entry] = []
        while not found:
            entries = await self._stream.read(after, AHEAD)
            if not entries:
                break
            for entry in entries:
                if not self._copies.is_first(entry.entry_id, entry.position):
                    continue
                max_bytes -= len(entry.body)
                if max_bytes < 0 and found:
                    break
                found.append(entry)
            after = entries[-1].position
        return found

    def bounds(self) -> Deferred[LogBounds]:
        """Return what the stream has; its size is not known."""
        return Deferred.fromCoroutine(self._bounds())

    async def _bounds(self) -> LogBounds:
        self._check()
        base, ends = self._stream.base, await self._stream.ends()
        if ends is None:
            return LogBounds(base + 1, base, 0)
        first, newest = offset_of(ends[0].headers), offset_of(ends[1][-1].headers)
        return LogBounds(base + first + 1, base + newest + 1, 0)

    def find(self, at: float) -> Deferred[int]:
        """Return the position of the first entry that was appended at a time or later."""
        return Deferred.fromCoroutine(self._find(at))

    async def _find(self, at: float) -> int:
        return await position_since(await self._bounds(), at, self._stream.following)

    def _check(self) -> None:
        obstacle = self._obstacle()
        if obstacle:
            raise LogUnavailable(obstacle)

    def watch(self, told: Callable[[], object]) -> None:
        """Have ``told`` called soon after entries were appended, here or elsewhere."""
        self._watchers.append(told)

    def appended(self) -> None:
        """Tell soon that this process has appended an entry."""
        if self._waking is None and self._looks.running:
            self._waking = self._clock.callLater(WAKE_DELAY, self._wake)

    def _wake(self) -> None:
        self._waking = None
        self._tell()

    def _tell(self) -> None:
        for told in self._watchers:
            told()

    def close(self) -> Deferred[None]:
        """Tell nobody any more; the connection is that of the log."""
        if self._looks.running:
            self._looks.stop()
        if self._waking is not None:
            self._waking.cancel()
            self._waking = None
        return succeed(None)


__all__ = ["LOOK", "RabbitLogReader"]
