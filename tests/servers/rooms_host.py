"""A host of rooms that are spread, as a program, and the hooks that tests of them use.

``python -m tests.servers.rooms_host bus`` is the bus between them,
``python -m tests.servers.rooms_host host NAME BUS`` one that has its bus on that port, or on
RabbitMQ at that URL; both print ``listening on PORT``. With ``--journal FILE`` a host has other
hooks, which write down what its rooms do.
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.python.failure import Failure

from kupool.bus.local import LocalBus
from kupool.bus.rabbit.bus import RabbitBus
from kupool.bus.remote.client import RemoteBus
from kupool.bus.remote.service import BusService
from kupool.net.command import run
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.rooms.events import TakenOver
from kupool.rooms.observer import LobbyObserver
from kupool.rooms.room import Room
from kupool.rooms.settings import RoomSettings
from kupool.rooms.spread.hooks import SpreadHooks
from kupool.rooms.spread.lobby import SpreadLobby
from kupool.rooms.spread.packing import RequestPacking
from kupool.rooms.spread.settings import SpreadSettings
from kupool.session.connection import Connection
from tools.rooms_journal import JournaledHooks


class Hooks(SpreadHooks):
    """A room's data is the list of what was said, and goes with it."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.slow: Deferred[object] | None = None

    def on_parse_user(self, connection: Connection, body: Any) -> object:
        params = body.params
        return (params["room"], params["user"]) if "room" in params else None

    def on_create_room(self, room: Room) -> None:
        room.data = []

    def on_dispatch_message(self, room: Room, incoming: Any) -> object:
        params = incoming.body.params
        if params.get("fail"):
            raise ZeroDivisionError
        if params.get("kick"):
            room.members[params["kick"]].leave("kicked")
        if "say" in params:
            room.data.append(params["say"])
            room.notify("said", params["say"], without=[incoming.member])
        if self.slow is not None:
            return self.slow
        return [room.lobby.host, list(room.members), room.data]  # type: ignore[attr-defined]

    def on_dispatch_system_message(self, room: Room, event: object) -> None:
        self.events.append(event)
        if isinstance(event, TakenOver):
            room.data = json.loads(event.state)

    def on_hand_over(self, room: Room) -> bytes:
        return json.dumps(room.data).encode()

    def on_error(self, room: Room | None, failure: Failure, subject: object) -> None:
        """Say nothing: the answers are looked at."""


def times(journaled: bool) -> tuple[RoomSettings, SpreadSettings]:
    """Return settings with short times; shorter ones where much is done to hosts."""
    if not journaled:
        return RoomSettings(), SpreadSettings(settle=0.5)
    spread = SpreadSettings(settle=0.5, answer_timeout=10.0, move_timeout=8.0, window=8.0)
    return RoomSettings(grace=4.0), spread


def state_of(lobby: SpreadLobby) -> dict[str, Any]:
    """Return what a host has at the moment, and whom it takes for there."""
    return {
        "hosts": sorted(lobby.hosts.ring),
        "rooms": len(lobby),
        "members": len(lobby.members),
        "seats": len(lobby.seats),
        "remote_peers": len(lobby.remote_peers),
    }


async def make(reactor: Any, arguments: Namespace) -> Server:
    if arguments.role == "bus":
        bus = LocalBus(reactor, wall=reactor.seconds)
        return Server(reactor, BusService(bus.broker), framing="frame")
    there: RabbitBus | RemoteBus
    if arguments.bus.isdecimal():
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", int(arguments.bus))
        there = RemoteBus(reactor, endpoint)
    else:
        there = RabbitBus(reactor, arguments.bus, wall=time.time)
    await there.connect()
    router, journal = Router(), arguments.journal
    settings, spread = times(journal is not None)
    hooks = Hooks() if journal is None else JournaledHooks(journal, arguments.name)
    lobby = SpreadLobby(
        reactor,
        there,
        hooks,
        RequestPacking(router),
        settings=settings,
        spread=spread,
        host=arguments.name,
    )
    router.add("do", lobby.request, dict)
    router.add("state", lambda connection, request: state_of(lobby))
    await lobby.start()
    server = Server(reactor, LobbyObserver(router, lobby))

    async def stop(stopping: Server) -> None:
        await lobby.close()
        await there.close()

    server.before_stop(stop)
    return server


def options(parser: ArgumentParser) -> None:
    parser.add_argument("role", choices=["bus", "host"])
    parser.add_argument("name", nargs="?")
    parser.add_argument("bus", nargs="?")
    parser.add_argument("--journal", type=Path)


if __name__ == "__main__":
    run(make, __doc__, options)
