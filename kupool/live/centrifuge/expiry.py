"""When the tokens of one client end: of its connection, and of its subscriptions."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

#: The longest time that is waited at once: the wall clock may be set meanwhile.
LOOK = 60.0


class TokenExpiries:
    """Calls ``expired`` with a channel whose time has passed, or with an empty name.

    An empty name stands for the connection. Times are seconds since the epoch of ``wall``. There is
    one timer, and none without times.
    """

    def __init__(
        self,
        clock: IReactorTime,
        wall: Callable[[], float],
        expired: Callable[[str], object],
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._expired = expired
        self._ends: dict[str, float] = {}
        self._timer: IDelayedCall | None = None

    def set(self, channel: str, end: float) -> None:
        """Set when a channel, or the connection, ends; 0 is never."""
        if end:
            self._ends[channel] = end
        else:
            self._ends.pop(channel, None)
        self._wait()

    def forget(self, channel: str) -> None:
        """Forget the time of a channel."""
        if self._ends.pop(channel, None) is not None:
            self._wait()

    def close(self) -> None:
        """Forget all times."""
        self._ends.clear()
        self._wait()

    def _wait(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if self._ends:
            seconds = max(0.0, min(self._ends.values()) - self._wall())
            self._timer = self._clock.callLater(min(seconds, LOOK), self._look)

    def _look(self) -> None:
        now = self._wall()
        for channel in [name for name, end in self._ends.items() if end <= now]:
            if self._ends.pop(channel, None) is not None:
                self._expired(channel)
        self._wait()


__all__ = ["LOOK", "TokenExpiries"]
