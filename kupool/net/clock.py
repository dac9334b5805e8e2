"""Make a reactor schedule calls by the monotonic clock instead of the wall clock.

Twisted's reactors schedule by ``time.time``. When the wall clock is set back by an hour, no
timeout fires for an hour; when it is set forward, all timeouts fire at once.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.logger import Logger
from twisted.python.runtime import seconds as wall_seconds

_log = Logger()


def use_monotonic(reactor: Any) -> bool:
    """Make a reactor schedule by the monotonic clock; returns whether it does.

    A reactor with a clock of its own, such as those of tests, keeps it. Call this before
    anything is scheduled: pending calls hold times of the old clock, so a reactor that has
    some keeps the old clock.
    """
    if not isinstance(reactor, ReactorBase):
        return True
    clock: Any = reactor
    if clock.seconds not in (time.time, wall_seconds):
        return True
    if clock.getDelayedCalls():
        _log.info(
            "The timeouts of this process follow the wall clock, as calls were scheduled before "
            "its first server or client was made: call kupool.net.clock.use_monotonic first"
        )
        return False
    clock.seconds = time.monotonic
    return True


__all__ = ["use_monotonic"]
