"""Topics in memory, for tests of what is built on them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime

from kupool.topics.memory import MemoryTopics
from kupool.topics.service import TopicLimits, Topics


def _no_thread(call: Callable[[], Any]) -> Deferred[Any]:
    return fail(RuntimeError("this test has no threads"))


def topics_in_memory(
    clock: IReactorTime,
    wall: Callable[[], float] | None = None,
    *,
    run_in_thread: Callable[[Callable[[], Any]], Deferred[Any]] = _no_thread,
    **limits: int,
) -> Topics:
    """Return topics on an engine in memory; the clock is also the wall clock, unless there is one.

    The engine is its attribute ``engine``.
    """
    now = wall or clock.seconds
    return Topics(
        MemoryTopics(now),
        clock,
        now,
        run_in_thread,
        random=Random(1),
        limits=TopicLimits(**limits),
    )
