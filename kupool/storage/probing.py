"""Notices when a file that took no writes takes them again."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

#: Seconds until the next attempt after a failed write.
PROBE_DELAY = 1.0


class WriteProbe:
    """Why a file takes no writes, and an attempt each second until it takes one.

    Those who are told of the problem write nothing, so nobody else would notice its end. A probe is
    one write that changes nothing; ``probe`` begins it. There is none if another write succeeds
    before it.
    """

    def __init__(self, clock: IReactorTime, probe: Callable[[], Deferred[None]]) -> None:
        self._clock = clock
        self._probe = probe
        self._timer: IDelayedCall | None = None
        self._closed = False
        #: Why the last write failed; empty if it did not fail.
        self.problem = ""

    def wrote(self) -> None:
        """Note that a write has succeeded."""
        self.problem = ""

    def failed(self, failure: Failure) -> None:
        """Note that a write has failed."""
        self.problem = failure.getErrorMessage()
        if self._timer is None and not self._closed:
            self._timer = self._clock.callLater(PROBE_DELAY, self._begin)

    def _begin(self) -> None:
        self._timer = None
        if self.problem:
            self._probe().addCallbacks(lambda _: self.wrote(), self.failed)

    def close(self) -> None:
        """Probe no more; may be called again."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


__all__ = ["PROBE_DELAY", "WriteProbe"]
