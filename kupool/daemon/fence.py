"""A way to the log that ends when another daemon has taken over the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail

from kupool.log import LogUnavailable


class FencedLog:
    """What takes submissions sees of a log: nothing is appended once there is a reason.

    ``reason`` returns it, and an empty text while there is none. What was appended then would
    be acknowledged, and not be counted by the daemon that has taken over.
    """

    def __init__(self, log: Any, reason: Callable[[], str]) -> None:
        self._log = log
        self._reason = reason
        self.instant: bool = log.instant

    def append(self, entry_id: str, body: bytes) -> Deferred[None]:
        """Append an entry; fails with :class:`kupool.log.LogUnavailable`."""
        reason = self._reason()
        if reason:
            return fail(LogUnavailable(reason))
        appended: Deferred[None] = self._log.append(entry_id, body)
        return appended


__all__ = ["FencedLog"]
