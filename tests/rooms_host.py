"""A host of rooms that are spread, as a program, and the hooks that tests of them use.

``python -m tests.rooms_host bus`` is the bus between them, ``python -m tests.rooms_host host
NAME PORT`` one that has its bus on that port; both print ``listening on PORT``.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.python.failure import Failure

from kupool.bus.local import LocalBus
from kupool.bus.remote.client import RemoteBus
from kupool.bus.remote.service import BusService
from kupool.net.command import run
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.rooms.events import TakenOver
from kupool.rooms.observer import LobbyObserver
from kupool.rooms.room import Room
from kupool.rooms.spread.hooks import SpreadHooks
from kupool.rooms.spread.lobby import SpreadLobby
from kupool.rooms.spread.packing import RequestPacking
from kupool.rooms.spread.settings import SpreadSettings
from kupool.session.connection import Connection


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


async def make(reactor: Any, arguments: Namespace) -> Server:
    if arguments.role == "bus":
        bus = LocalBus(reactor, wall=reactor.seconds)
        return Server(reactor, BusService(bus.broker), framing="frame")
    there = RemoteBus(reactor, TCP4ClientEndpoint(reactor, "127.0.0.1", arguments.bus))
    await there.connect()
    router = Router()
    settings = SpreadSettings(settle=0.5)
    lobby = SpreadLobby(
        reactor, there, Hooks(), RequestPacking(router), spread=settings, host=arguments.name
    )
    router.add("do", lobby.request, dict)
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
    parser.add_argument("bus", type=int, nargs="?")


if __name__ == "__main__":
    run(make, __doc__, options)
