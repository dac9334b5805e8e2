"""The limits of the daemon, and how much of each is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from kupool.bus import BusError
from kupool.daemon.parts import Parts
from kupool.settings import Settings
from kupool.web.limits import LimitPages, LimitUse, RoomUse


class LimitUses:
    """Tells the use of limits, and the rooms; ``settings`` returns those that apply now."""

    def __init__(self, parts: Parts, settings: Callable[[], Settings]) -> None:
        self._parts = parts
        self._settings = settings

    async def uses(self) -> list[LimitUse]:
        """Return each limit of a part that is on."""
        parts, settings = self._parts, self._settings()
        found = [*self._pool(settings)]
        if parts.bus is not None:
            found += await self._bus(settings)
        if parts.rooms is not None:
            rooms = len(parts.rooms.service.lobby)
            found.append(LimitUse("rooms", "rooms-max", rooms, settings.rooms.max_rooms))
        if parts.topics is not None:
            topics = len(parts.topics.world.topics.engine.topics())
            found.append(LimitUse("topics", "max-topics", topics, settings.topics.most))
        if parts.live is not None:
            most = settings.live.clients
            clients = len(parts.live.centrifuge.manager)
            found.append(LimitUse("live_clients", "live-max-clients", clients, most))
            found.append(LimitUse("streams", "live-max-clients", len(parts.live.streams), most))
        return found

    def _pool(self, settings: Settings) -> Iterable[LimitUse]:
        parts = self._parts
        manager, book = parts.server.manager, parts.book
        # Descriptors may leave fewer places than are set.
        most = manager.settings.max_connections
        yield LimitUse("connections", "max-connections", len(manager), most)
        batches = parts.acceptance.batches_in_flight
        in_flight = settings.submissions.batches_in_flight
        yield LimitUse("batches", "batches-in-flight", batches, in_flight)
        yield LimitUse("nonces", "max-nonces", book.remembered, book.max_nonces)
        yield LimitUse("jobs", "history-jobs", len(book), book.max_jobs)

    async def _bus(self, settings: Settings) -> list[LimitUse]:
        assert self._parts.bus is not None
        bus: Any = self._parts.bus.bus
        try:
            status = await bus.status()
        except BusError:
            return []  # it is away: /ready says so
        own = settings.bus
        return [
            LimitUse("bus_calls", "bus-max-calls", status.calls, own.max_calls),
            LimitUse(
                "bus_calls_size",
                "bus-max-calls-size",
                status.calls_bytes,
                own.max_calls_size,
                "bytes",
            ),
        ]

    def pages(self) -> LimitPages:
        """Return what answers the routes."""
        return LimitPages(self.uses, None if self._parts.rooms is None else self.rooms)

    def rooms(self) -> list[RoomUse]:
        """Return the rooms of this node; rooms have to be on."""
        assert self._parts.rooms is not None
        return [
            RoomUse(
                room.code,
                len(room.members),
                sum(member.online for member in room.members.values()),
            )
            for room in self._parts.rooms.service.lobby
        ]


__all__ = ["LimitUses"]
