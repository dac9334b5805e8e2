"""Rooms on their way from one host to another: their state, and who asks for them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.rooms.spread.entries import Ask
from tests.unit.rooms.spread.test_lobby import Host, Peer, World


class HandoverTests(SynchronousTestCase):
    """A-51: a room moves from host ``a``, which ends, to host ``b``."""

    def setUp(self) -> None:
        self.world = World()
        self.a, self.b = self.world.add("a"), self.world.add("b")
        self.code = self.world.code_of("a")
        self.bob = Peer(self.b)
        self.bob.ask(room=self.code, user="bob")

    def move(self) -> None:
        ended = Deferred.fromCoroutine(self.a.lobby.close())
        self.world.advance(2)
        self.successResultOf(ended)

    def counts(self, host: Host) -> tuple[int, int]:
        return host.lobby.handover.moved, host.lobby.handover.taken

    def test_counts(self) -> None:
        self.move()
        self.assertEqual((self.counts(self.a), self.counts(self.b)), ((1, 0), (0, 1)))

    def test_the_largest_state(self) -> None:
        """One that is larger is lost, and the room moves without it."""
        most = self.a.lobby.spread.max_entry
        for size in (most, most + 1):
            self.setUp()
            state = b'["' + b"x" * (size - 4) + b'"]'
            self.patch(self.a.hooks, "on_hand_over", lambda room, state=state: state)
            self.move()
            self.assertEqual(self.b.codes, {self.code})
            data: Any = self.b.lobby.get(self.code).data
            self.assertEqual(len(data), 1 if size == most else 0)

    def test_a_host_that_asks_and_does_not_get_it(self) -> None:
        """It is told that there is no such room here; who gets it is sent the room alone."""
        sent: list[tuple[str, str, bool]] = []
        send = self.a.lobby.exchange.send

        def note(host: str, entry: Any) -> None:
            if type(entry).__name__ == "Handed":
                sent.append((host, entry.code, entry.state is not None))
            send(host, entry)

        self.patch(self.a.lobby.exchange, "send", note)
        self.a.hooks.slow = slow = Deferred()
        self.bob.tell()
        self.world.advance(0.1)
        ended = Deferred.fromCoroutine(self.a.lobby.close())
        self.world.advance(0.1)
        for host in ("b", "c"):
            self.a.lobby.handover.asked(host, Ask(self.code))
        slow.callback("done")
        self.world.advance(2)
        self.successResultOf(ended)
        self.assertEqual(sorted(sent), [("b", self.code, True), ("c", self.code, False)])
