"""The list of the rooms of all hosts: each host is asked for its part over the bus."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, Protocol

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kupool.bus import IBus, Kind, Message
from kupool.rooms.room import Room
from kupool.rooms.spread.hosts import parted
from kupool.rooms.spread.ring import Ring
from kupool.rooms.spread.settings import SpreadSettings

#: The time limit for the answer of one host, in seconds.
PATIENCE = 1.0


class ListedRoom(msgspec.Struct, array_like=True):
    """A room, and how many members it has."""

    room: str
    members: int


class _Wanted(msgspec.Struct, array_like=True):
    start: int
    most: int


class _Part(msgspec.Struct, array_like=True):
    rooms: list[ListedRoom]
    total: int


class RoomPage(NamedTuple):
    """A page of the list; the next page begins at ``next``, None if there is none."""

    rooms: list[ListedRoom]
    next: int | None


class ListedHosts(Protocol):
    """The hosts, as the lists need them: :class:`~kupool.rooms.spread.hosts.Hosts`."""

    host: str
    ring: Ring


class Rooms(Protocol):
    """The rooms of this host: a :class:`~kupool.rooms.lobby.Lobby`."""

    def __iter__(self) -> Iterator[Room]:
        """Iterate over the rooms."""

    def __len__(self) -> int:
        """Return how many there are."""


def list_rooms(rooms: Rooms, start: int, most: int) -> RoomPage:
    """Return at most this many rooms of this host."""
    found = [ListedRoom(r.code, len(r.members)) for r in islice(rooms, start, start + most)]
    end = start + len(found)
    return RoomPage(found, end if end < len(rooms) else None)


class RoomLists:
    """Answers the list requests of other hosts, and sends them. A host that does not answer is left
    out.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        bus: IBus,
        settings: SpreadSettings,
        *,
        hosts: ListedHosts,
        rooms: Rooms,
    ) -> None:
        self._clock = clock
        self._bus = bus
        self._name = settings.name
        self._hosts = hosts
        self._rooms = rooms

    def _topic(self, host: str) -> str:
        return f"{self._name}.list.{host}"

    async def start(self) -> None:
        """Answer the other hosts from now on."""
        await self._bus.subscribe([self._topic(self._hosts.host)], self._asked)

    async def stop(self) -> None:
        """Stop answering."""
        await parted(self._clock, self._bus.unsubscribe(self._asked))

    async def page(self, start: int, most: int) -> RoomPage:
        """Return at most this many rooms of all hosts, in the order of the hosts' names."""
        found: list[ListedRoom] = []
        skip, hosts = start, sorted(self._hosts.ring)
        for at, host in enumerate(hosts):
            wanted = _Wanted(skip, most - len(found))
            own = host == self._hosts.host
            part = self._part(wanted) if own else await self._ask(host, wanted)
            found += part.rooms
            more = skip + len(part.rooms) < part.total
            skip = max(0, skip - part.total)
            if len(found) >= most:
                more = more or at + 1 < len(hosts)
                return RoomPage(found, start + len(found) if more else None)
        return RoomPage(found, None)

    async def _ask(self, host: str, wanted: _Wanted) -> _Part:
        outcome = await self._bus.publish_reliable_random(
            msgspec.json.encode(wanted), self._topic(host), PATIENCE
        )
        if outcome.kind is Kind.ANSWERED:
            try:
                return msgspec.json.decode(outcome.data, type=_Part)
            except ValueError:
                self._log.warn("The rooms of host {host} could not be read", host=host)
        return _Part([], 0)

    def _asked(self, message: Message) -> bytes:
        return msgspec.json.encode(self._part(msgspec.json.decode(message.data, type=_Wanted)))

    def _part(self, wanted: _Wanted) -> _Part:
        return _Part(list_rooms(self._rooms, wanted.start, wanted.most).rooms, len(self._rooms))


__all__ = ["ListedRoom", "RoomLists", "RoomPage", "list_rooms"]
