"""A chat with rooms: join one, say something, and everybody else there hears it.

Start it with ``python examples/chat.py --port 8000``, then, in two terminals, say ``nc
localhost 8000`` and ``{"id":1,"method":"join","params":{"room":"tea","user":"ann"}}``.
docs/framework.md builds it up step by step. Ctrl-C ends it.
"""

from argparse import Namespace
from typing import Any

from msgspec import Struct

from kupool.net.command import run
from kupool.net.connection import Connection
from kupool.net.router import Router
from kupool.net.server import Server
from kupool.rooms.events import Incoming, Joined, Left
from kupool.rooms.hooks import RoomHooks
from kupool.rooms.lobby import Lobby
from kupool.rooms.observer import LobbyObserver
from kupool.rooms.room import Room


class Join(Struct):
    """The params of ``join``."""

    room: str
    user: str


class Say(Struct):
    """The params of ``say``."""

    text: str


class Chat(RoomHooks):
    """What happens in the rooms, one thing after the other in each."""

    def on_parse_user(self, connection: Connection, request: Any) -> object:
        """Let in who joins; whoever else is in no room is answered ``forbidden``."""
        match request.params:
            case Join(room, user):
                return room, user
        return None

    def on_dispatch_message(self, room: Room, incoming: Incoming) -> object:
        """Answer what a member says."""
        member = incoming.member
        match incoming.body.params:
            case Say(text):
                room.notify("said", {"user": member.user, "text": text}, without=[member])
                return True
            case Join(code):  # another room
                room = room.lobby.move(member.user, code).room
        return list(room.members)

    def on_dispatch_system_message(self, room: Room, event: object) -> None:
        """Tell the others who comes and who goes."""
        match event:
            case Joined(member):
                room.notify("joined", {"user": member.user}, without=[member])
            case Left(member):
                room.notify("left", {"user": member.user})


def make(reactor: Any, arguments: Namespace) -> Server:
    """Return the server: a router for what peers send, and a lobby for where it goes."""
    lobby, router = Lobby(reactor, Chat()), Router()
    router.add("join", lobby.request, Join)
    router.add("say", lobby.request, Say)
    server = Server(reactor, LobbyObserver(router, lobby))
    server.before_stop(lambda stopping: lobby.close())
    return server


if __name__ == "__main__":
    run(make, __doc__)
