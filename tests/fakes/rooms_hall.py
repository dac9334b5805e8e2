"""What the tests of rooms are made of: a lobby, hooks that note everything, and peers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.rooms.hooks import RoomHooks
from kupool.rooms.lobby import Lobby
from kupool.rooms.observer import LobbyObserver
from kupool.rooms.room import Incoming, Room
from kupool.rooms.settings import RoomSettings
from kupool.session.connection import Connection
from kupool.wire.framing import LINE, Framing
from tests.fakes.peers import PeerTransport, Recorder


class Hooks(RoomHooks):
    """Notes what is dispatched, and does what a test says."""

    def __init__(self) -> None:
        self.started: list[Lobby] = []
        self.log: list[Any] = []  # type: ignore[assignment]
        self.errors: list[tuple[Room | None, Failure, Any]] = []
        self.outcomes: list[Any] = []
        self.users: dict[Connection, Any] = {}
        self.handle: Callable[[Room, Incoming], object] = lambda room, incoming: None
        self.create: Callable[[Room], object] = lambda room: None
        self.system: Callable[[Room, object], object] = lambda room, event: None
        self.matched: Callable[[Lobby, Any], object] = lambda lobby, outcome: None
        self.parse_match: Callable[[Connection, Any], Any] = lambda connection, body: body

    def on_init(self, lobby: Lobby) -> None:
        self.started.append(lobby)

    def on_parse_user(self, connection: Connection, body: object) -> object:
        return self.users.get(connection)

    def on_create_room(self, room: Room) -> object:
        return self.create(room)

    def on_dispatch_message(self, room: Room, incoming: Incoming) -> object:
        self.log.append(incoming.body)
        return self.handle(room, incoming)

    def on_dispatch_system_message(self, room: Room, event: object) -> object:
        self.log.append(event)
        return self.system(room, event)

    def on_error(self, room: Room | None, failure: Failure, subject: object) -> None:
        self.errors.append((room, failure, subject))

    def on_match_players(self, lobby: Lobby, outcome: Any) -> object:
        self.outcomes.append(outcome)
        return self.matched(lobby, outcome)

    def on_parse_match(self, connection: Connection, body: object) -> object:
        return self.parse_match(connection, body)


class Hall:
    """A lobby on a fake clock. What a peer sends goes to it as it is."""

    def __init__(self, settings: RoomSettings | None = None) -> None:
        self.clock = Clock()
        self.hooks = Hooks()
        self.lobby = Lobby(
            self.clock, self.hooks, settings, wall=lambda: 1000 + self.clock.seconds(), tick=0.1
        )
        router = Recorder(lambda connection, item: self.lobby.deliver(connection, item))
        observer = LobbyObserver(router, self.lobby)
        limits = ServerSettings(max_connections=0)
        self.manager = ConnectionManager(self.clock, observer, limits)
        self.done = Failure(ConnectionDone())

    def connect(self, framing: Framing = LINE) -> tuple[Connection, PeerTransport]:
        transport = PeerTransport()
        return self.manager.admit(transport, "192.0.2.1", framing), transport

    def member(
        self, code: str, user: str, framing: Framing = LINE
    ) -> tuple[Connection, PeerTransport]:
        """Connect, and join a room that there is."""
        connection, transport = self.connect(framing)
        self.lobby.members.join(self.lobby.get(code), user, connection)
        return connection, transport

    def settle(self) -> None:
        """Let everything happen that needs no time."""
        self.clock.advance(0)

    def request_now(self, connection: Connection, body: object) -> Deferred[object]:
        answer = self.lobby.request(connection, body)
        self.settle()
        return answer
