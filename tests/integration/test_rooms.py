"""Rooms on real sockets: floods, disconnects, and the way back."""

from __future__ import annotations

import json
import threading
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.rooms.hooks import RoomHooks
from kupool.rooms.lobby import Lobby
from kupool.rooms.membership import Disconnected, Left, Returned
from kupool.rooms.observer import LobbyObserver
from kupool.rooms.room import Incoming, Room
from kupool.rooms.settings import RoomSettings
from kupool.session.connection import Connection
from tests.servers.sockets import Peer, in_thread, until

reactor: Any = _reactor


class Slow(RoomHooks):
    """Echoes; in the room `slow` every message takes a millisecond."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.most = 0
        self.bodies: list[Any] = []

    def on_parse_user(self, connection: Connection, body: Any) -> object:
        return body.params["room"], body.params["user"]

    async def on_dispatch_message(self, room: Room, incoming: Incoming) -> object:
        self.most = max(self.most, room.waiting)
        body: Any = incoming.body
        if room.code == "slow":
            self.bodies.append(body.params.get("n"))
            await deferLater(reactor, 0.001)
        return [room.code, incoming.member.user, len(room.members)]

    def on_dispatch_system_message(self, room: Room, event: object) -> object:
        self.events.append(type(event).__name__)
        return None


def say(number: int, room: str, user: str) -> bytes:
    params = {"room": room, "user": user, "n": number}
    return json.dumps({"id": number, "method": "say", "params": params}).encode() + b"\n"


class RoomsOnSocketsTests(TestCase):
    timeout = 120

    async def start(self, settings: RoomSettings) -> tuple[Lobby, Slow, int]:
        hooks = Slow()
        lobby = Lobby(reactor, hooks, settings)
        router = Router()
        router.add("say", lobby.request, dict)
        server = Server(reactor, LobbyObserver(router, lobby), framing="line")
        await server.listen(["127.0.0.1:0"])

        async def stop() -> None:
            await lobby.close(handle_pending=False)
            await server.stop()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        return lobby, hooks, server.addresses[0].port

    async def test_a_flood_costs_its_sender_alone(self) -> None:
        """A-48: one member sends far more than the room handles: it is not read, the room's
        queue stays short, and the others are answered before the flood is through."""
        _, hooks, port = await self.start(RoomSettings(sender_limit=8, queue_limit=32))
        flood = b"".join(say(n, "slow", "ann") for n in range(2000))
        answered = threading.Event()

        def flooding() -> tuple[list[int], bool]:
            with Peer(port) as peer:
                sender = threading.Thread(target=peer.send, args=(flood,))
                sender.start()
                ids = [json.loads(peer.line())["id"] for _ in range(20)]
                answered.wait(30)
                early = len(hooks.bodies) < 2000
                ids += [json.loads(peer.line())["id"] for _ in range(1980)]
                sender.join()
                return ids, early

        def polite() -> list[Any]:
            answers = []
            with Peer(port) as same, Peer(port) as other:
                for n in range(5):
                    same.send(say(-1 - n, "slow", "bob"))
                    answers.append(json.loads(same.line())["result"])
                    other.send(say(n, "fast", "cid"))
                    answers.append(json.loads(other.line())["result"])
            return answers

        flooded = in_thread(flooding)
        await until(reactor, lambda: len(hooks.bodies) > 20, "the flood")
        answers = await in_thread(polite)
        answered.set()
        ids, early = await flooded
        self.assertEqual(ids, list(range(2000)), "in order, and none is lost")
        self.assertTrue(early, "the others did not wait for the flood's end")
        self.assertEqual(answers, [["slow", "bob", 2], ["fast", "cid", 1]] * 5)
        self.assertLessEqual(hooks.most, 16)

    async def test_away_and_back(self) -> None:
        """A-46: a connection that breaks, a return within the grace period, and its end."""
        lobby, hooks, port = await self.start(RoomSettings(grace=0.5))

        def come(number: int) -> Any:
            peer = Peer(port)
            peer.send(say(number, "tea", "ann"))
            answer = json.loads(peer.line())
            peer.reset()
            return answer["result"]

        self.assertEqual(await in_thread(lambda: come(1)), ["tea", "ann", 1])
        gone = [Disconnected.__name__]
        await until(reactor, lambda: hooks.events[-1:] == gone, "the end of a connection")
        member = lobby.members.get("ann")
        self.assertEqual(await in_thread(lambda: come(2)), ["tea", "ann", 1])
        self.assertIs(lobby.members.find("ann"), member)
        await until(reactor, lambda: lobby.members.find("ann") is None, "the grace period")
        await until(reactor, lambda: lobby.find("tea") is None, "the empty room")
        expected = [Disconnected, Returned, Disconnected, Left]
        self.assertEqual(hooks.events[1:5], [event.__name__ for event in expected])
