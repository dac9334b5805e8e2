"""Rooms spread over processes, on the networked bus."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kupool.bus.rabbit.bus import RabbitBus
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.rooms.observer import LobbyObserver
from kupool.rooms.spread.lobby import SpreadLobby
from kupool.rooms.spread.packing import RequestPacking
from kupool.rooms.spread.ring import Ring
from tests.servers.programs import Program
from tests.servers.rooms_host import Hooks
from tests.servers.services import rabbit
from tests.servers.sockets import PATIENCE, Peer, in_thread, until

reactor: Any = _reactor

ROOMS = [f"room {n}" for n in range(12)]


class Member:
    """A blocking connection of a user, who is in one room; keeps what came unasked."""

    def __init__(self, port: int, user: str, room: str) -> None:
        self.peer = Peer(port)
        self.user, self.room = user, room
        self.news: list[Any] = []
        self._number = 0
        self.join()

    def join(self) -> list[Any]:
        return self.until(lambda answer: isinstance(answer, list), room=self.room, user=self.user)

    def ask(self, **params: Any) -> Any:
        self._number += 1
        request = {"id": self._number, "method": "do", "params": params}
        self.peer.send(json.dumps(request).encode() + b"\n")
        while True:
            message = json.loads(self.peer.line())
            if message["id"] is None:
                self.news.append(message["params"])
            else:
                return message.get("error", message["result"])

    def until(self, right: Any, **params: Any) -> Any:
        """Ask until the answer is right."""
        end = time.monotonic() + PATIENCE
        while not right(answer := self.ask(**params)):
            assert time.monotonic() < end, answer
            time.sleep(0.05)
        return answer


class ProcessTests(SynchronousTestCase):
    """A-51: rooms are spread over processes; hosts come, are killed, and go."""

    def start(self, *arguments: str) -> tuple[Program, int]:
        program = Program(sys.executable, "-m", "tests.servers.rooms_host", *arguments)
        self.addCleanup(program.__exit__)
        return program, program.port()

    def end(self, program: Program) -> None:
        program.interrupt()
        status, output = program.end()
        self.assertEqual(status, 0)
        logged = output.splitlines()
        self.assertEqual([line for line in logged if "Host c is not heard" not in line], [])

    def test_a_life(self) -> None:
        bus = str(self.start("bus")[1])
        hosts = {name: self.start("host", name, bus) for name in ("a", "b")}
        members = []
        for n, room in enumerate(ROOMS):
            name = "ab"[n % 2]
            members.append(Member(hosts[name][1], f"user {n}", room))
            self.addCleanup(members[n].peer.close)
        watcher = Member(hosts["a"][1], "watcher", ROOMS[1])
        self.addCleanup(watcher.peer.close)

        ring = Ring(hosts)
        for n, member in enumerate(members):
            host, users, said = member.ask(say=n)
            self.assertEqual((host, users[0], said), (ring.owner(member.room), f"user {n}", [n]))
        self.assertEqual(watcher.ask()[1], ["user 1", "watcher"])
        self.assertEqual(watcher.news, [1])

        # One more host: only its share moves, with what was said there.
        hosts["c"] = self.start("host", "c", bus)
        ring = Ring(hosts)
        theirs = [m for m in members if ring.owner(m.room) == "c"]
        self.assertTrue(theirs)
        for n, member in enumerate(members):
            owner = ring.owner(member.room)
            answer = member.until(lambda answer, owner=owner: answer[0] == owner)
            self.assertEqual(answer[2], [n])

        # It is killed: its rooms are gone, and their members hear of it.
        hosts["c"][0].process.kill()
        del hosts["c"]
        ring = Ring(hosts)
        for member in theirs:
            member.until(lambda answer: answer == "forbidden")
            lost = {"room": member.room, "event": "lost", "user": member.user, "data": "host lost"}
            self.assertEqual(member.news[-1], lost)
            answer = member.join()
            self.assertEqual((answer[0], answer[2]), (ring.owner(member.room), []))

        # One goes in order: its rooms are handed over, and nobody else notices.
        self.end(hosts["b"][0])
        for n, member in enumerate(members):
            if n % 2 == 0:
                answer = member.until(lambda answer: answer[0] == "a")
                self.assertEqual(answer[2], [] if member in theirs else [n])
        self.end(hosts["a"][0])


class RabbitTests(TestCase):
    """A-51, A-62: the same across nodes, on RabbitMQ."""

    timeout = 120

    async def start(self, name: str, url: str) -> tuple[SpreadLobby, int]:
        bus = RabbitBus(reactor, url, wall=time.time)
        await bus.connect()
        router = Router()
        lobby = SpreadLobby(reactor, bus, Hooks(), RequestPacking(router), host=name)
        router.add("do", lobby.request, dict)
        await lobby.start()
        server = Server(reactor, LobbyObserver(router, lobby))
        await server.listen(["127.0.0.1:0"])

        async def stop() -> None:
            await lobby.close()
            await server.stop()
            await bus.close()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        return lobby, server.addresses[0].port

    async def test_members_at_several_nodes_and_a_node_that_goes(self) -> None:
        url = rabbit().new_vhost()
        starting = [Deferred.fromCoroutine(self.start(name, url)) for name in ("a", "b")]
        (a, ports_a), (b, ports_b) = await gatherResults(starting)  # type: ignore[misc]
        await until(reactor, lambda: len(a.hosts.ring) == len(b.hosts.ring) == 2, "the ring")
        here, there = a.code_here("here "), b.code_here("there ")

        def talk() -> list[Any]:
            members = [Member(ports_a, "ann", there), Member(ports_b, "bob", here)]
            watcher = Member(ports_b, "watcher", there)
            said = [member.ask(say=n) for n, member in enumerate(members)]
            watcher.ask()
            answers = [*said, watcher.news]
            for member in (*members, watcher):
                self.addCleanup(member.peer.close)
            self.member = members[0]
            return answers

        ann, bob, news = await in_thread(talk)
        self.assertEqual((ann, bob), (["b", ["ann", "watcher"], [0]], ["a", ["bob"], [1]]))
        self.assertEqual(news, [0])
        await b.close()
        moved = await in_thread(lambda: self.member.until(lambda answer: answer[0] == "a"))
        self.assertEqual((moved[2], b.handover.moved), ([0], 1))
