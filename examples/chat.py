"""A chat with rooms: join one, say something, and everybody else there hears it."""

from typing import Any

from msgspec import Struct

from kupool.net import Connection, Router, Server, run
from kupool.rooms import Incoming, Joined, Left, Lobby, LobbyObserver, Room, RoomHooks


class Join(Struct):
    room: str
    user: str


class Say(Struct):
    text: str


class Chat(RoomHooks):
    def on_parse_user(self, connection: Connection, request: Any) -> object:
        match request.params:
            case Join(room, user):
                return room, user
        return None

    def on_dispatch_message(self, room: Room, incoming: Incoming) -> object:
        member = incoming.member
        match incoming.body.params:
            case Say(text):
                room.notify("said", {"user": member.user, "text": text}, without=[member])
                return True
            case Join(code):  # one who is in a room already
                room = room.lobby.move(member.user, code).room
        return list(room.members)

    def on_dispatch_system_message(self, room: Room, event: object) -> None:
        match event:
            case Joined(member):
                room.notify("joined", {"user": member.user}, without=[member])
            case Left(member):
                room.notify("left", {"user": member.user})


def make(reactor: Any, arguments: object) -> Server:
    lobby, router = Lobby(reactor, Chat()), Router()
    router.add("join", lobby.request, Join)
    router.add("say", lobby.request, Say)
    server = Server(reactor, LobbyObserver(router, lobby))
    server.before_stop(lambda stopping: lobby.close())
    return server


if __name__ == "__main__":
    run(make, __doc__)
