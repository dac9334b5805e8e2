"""Where to connect next, and when: failover and backoff. Pure."""

from __future__ import annotations

from collections.abc import Callable

from kupool.client.answers import Closing
from kupool.client.settings import ClientSettings


class Route:
    """The way along a list of ``count`` servers; ``index`` is the one to try now.

    ``random`` returns a number from 0 to 1: the wait is that part of the backoff, so
    that many clients which lost one server do not come back together.
    """

    def __init__(self, count: int, settings: ClientSettings, random: Callable[[], float]) -> None:
        self._count = count
        self._settings = settings
        self._random = random
        self._last_immediate = float("-inf")
        self.index = 0
        #: Failed attempts in a row, sessions that did not stand included.
        self.failures = 0

    def after(self, closing: Closing | None, stood: float, now: float) -> float:
        """Choose the next server; returns the seconds to wait before it is tried.

        ``closing`` is what the server announced, if it did; ``stood`` is how long the
        session was authorized, 0 if it never was.
        """
        settings = self._settings
        if stood >= settings.steady_after:
            self.failures = 0
        if closing is None or closing.elsewhere:
            self.index = (self.index + 1) % self._count
        if (
            closing is not None
            and closing.immediate
            and closing.retry_after is None
            and now - self._last_immediate >= settings.steady_after
        ):
            # Only once in a while: a server that ends every session at once must not
            # be met with a storm.
            self._last_immediate = now
            return 0.0
        rounds = min(self.failures // self._count, 32)
        self.failures += 1
        ceiling = min(settings.backoff_most, settings.backoff_first * 2.0**rounds)
        wait = self._random() * ceiling
        if closing is not None and closing.retry_after is not None:
            wait += closing.retry_after
        return wait
