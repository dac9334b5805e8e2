"""Access to the log that ends when another daemon takes over the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail

from kupool.log import LogUnavailable


class FencedLog:
    """A log that refuses entries from acceptance when ``reason`` returns a reason.

    ``reason`` returns an empty text otherwise. An entry appended after a takeover would be
    acknowledged, and not counted by the daemon that has taken over.
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
