"""Rooms spread over processes, on the networked bus."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.spread.ring import Ring
from tests.integration.test_examples import Program
from tests.sockets import PATIENCE, Peer

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
        program = Program(sys.executable, "-m", "tests.rooms_host", *arguments)
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
