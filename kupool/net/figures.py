"""Metrics of a server, collected on demand instead of with each message."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from twisted.internet.interfaces import IReactorTime

from kupool.callbacks import awaited, deferred_of
from kupool.net.manager import ConnectionManager
from kupool.net.routing.router import Router
from kupool.net.routing.steps import RouteStep, label_of
from kupool.net.workers.pool import WorkerPool
from kupool.session.connection import Connection


class Figure(NamedTuple):
    """One metric: a name, labels and a value; a ``*_total`` is a counter."""

    name: str
    labels: dict[str, str]
    value: float


class Meter:
    """Middleware that counts and times the messages of routes.

    The time, in seconds, is from the call of the handler to the end of its Deferred or
    coroutine.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self.handled: Counter[str] = Counter()
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._now = clock.seconds

    def __call__(self, handler: RouteStep) -> RouteStep:
        """Return a handler that is counted and timed."""

        def metered(connection: Connection, *message: Any) -> object:
            began, outcome = self._now(), handler(connection, *message)
            if awaited(outcome):
                return self._later(outcome, began, label_of(message))
            self._note(began, label_of(message))
            return outcome

        metered.__doc__ = handler.__doc__
        return metered

    async def _later(self, outcome: Any, began: float, label: str) -> object:
        try:
            return await deferred_of(outcome)
        finally:
            self._note(began, label)

    def _note(self, began: float, label: str) -> None:
        self.handled[label] += 1
        self.seconds[label] += self._now() - began


def figures(
    manager: ConnectionManager,
    routers: Iterable[Router] = (),
    pools: Iterable[WorkerPool] = (),
    meters: Iterable[Meter] = (),
) -> Iterator[Figure]:
    """Yield the metrics of a server, its routers, worker pools and meters.

    Labels of routes are the registered methods and ids, never a text from a peer.
    """
    yield from _of_connections(manager)
    for router in routers:
        yield Figure("kupool_unknown_messages_total", {}, router.unknown)
        for name, counts in (("failed", router.failures), ("refused", router.refusals)):
            for route, count in counts.items():
                yield Figure(f"kupool_{name}_messages_total", {"route": str(route)}, count)
    for pool in pools:
        for number, load in enumerate(pool.loads):
            yield Figure("kupool_worker_load", {"worker": str(number)}, load)
        yield Figure("kupool_workers_stuck", {}, pool.stuck)
        for outcome, count in pool.counters.items():
            yield Figure("kupool_worker_messages_total", {"outcome": outcome}, count)
    for meter in meters:
        for route, count in meter.handled.items():
            yield Figure("kupool_handled_messages_total", {"route": route}, count)
            yield Figure("kupool_handler_seconds_total", {"route": route}, meter.seconds[route])


def _of_connections(manager: ConnectionManager) -> Iterator[Figure]:
    yield Figure("kupool_connections", {}, len(manager))
    counters = manager.counters
    yield Figure("kupool_accepted_total", {}, manager.accepted)
    yield Figure("kupool_refused_total", {}, manager.refused)
    yield Figure("kupool_bans_total", {}, manager.banned)
    yield Figure("kupool_bans_lifted_total", {}, manager.lifted)
    for reason, count in manager.refusals.counts.items():
        yield Figure("kupool_refusals_total", {"reason": reason}, count)
    yield Figure("kupool_malformed_total", {}, counters.malformed)
    yield Figure("kupool_dropped_total", {}, counters.dropped)
    for reason, count in counters.closes.items():
        yield Figure("kupool_closes_total", {"reason": reason}, count)


__all__ = ["Figure", "Meter", "figures"]
