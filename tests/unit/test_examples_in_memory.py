"""P-62: the examples on the network in memory: no socket, no process, no waiting."""

from __future__ import annotations

import importlib.util
import json
from argparse import Namespace
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.command import serve
from kupool.net.testing import MemoryNetwork, MemoryPeer
from kupool.wire.framing import Tlv

EXAMPLES = Path(__file__).parents[2] / "examples"


class ExampleCase(SynchronousTestCase):
    def start(self, name: str, **options: object) -> None:
        """Run an example's server on port 8000 of a network of its own."""
        spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        self.printed: list[str] = []
        arguments = Namespace(host="127.0.0.1", port=8000, **options)
        self.network = MemoryNetwork()
        self.running = Deferred.fromCoroutine(
            serve(self.network, module.make, arguments, self.printed.append)
        )
        self.network.settle()
        self.assertEqual(self.printed, ["listening on 8000"])

    def interrupt(self) -> None:
        self.network.shut_down(patience=20)
        self.assertEqual(self.network.getDelayedCalls(), [])
        self.assertEqual(self.network.connections, 0)


class EchoTests(ExampleCase):
    def test_it_echoes(self) -> None:
        """P-62: hello world, in every framing, and byte by byte."""
        self.start("echo")
        for chunk in (None, 1, 3):
            self.network.chunk = chunk
            for codec in ("line", "frame", "int32"):
                peer = self.network.connect(8000, codec)
                said = {"x": [1, "a", chunk]}
                self.assertEqual(peer.ask("echo", said)["result"], said)
                self.assertEqual(peer.ask("shout")["error"], "unknown method")
        self.interrupt()
        self.assertIsNone(self.successResultOf(self.running))


class TlvServerTests(ExampleCase):
    def connect(self) -> MemoryPeer:
        return self.network.connect(8000, "tlv")

    def test_a_conversation(self) -> None:
        """P-24, P-25, P-36: greeting, a router for each id, unknown ids, farewell."""
        self.start("tlv_server", max_connections=1000)
        self.network.chunk = 1
        peer = self.connect()
        self.assertEqual(peer.items(), [Tlv(301, b"welcome")])
        peer.tell(Tlv(0, b""))
        peer.tell(Tlv(1, b"peer"))
        peer.tell(Tlv(77, b""))
        self.assertEqual(
            peer.items(),
            [
                Tlv(201, b"ping...ping...ping"),
                Tlv(200, b"hello peer"),
                Tlv(400, b"no handler for message 77"),
            ],
        )
        self.interrupt()
        farewell, close = peer.items()
        self.assertEqual(farewell, Tlv(302, b"farewell"))
        assert isinstance(close, Tlv)
        self.assertEqual(json.loads(close.payload)["params"]["code"], 4000)

    def test_one_over_the_limit_is_told(self) -> None:
        self.start("tlv_server", max_connections=1)
        first, second = self.connect(), self.connect()
        (refusal,) = second.items()
        assert isinstance(refusal, Tlv)
        self.assertEqual(json.loads(refusal.payload)["params"]["code"], 4102)
        self.assertEqual((first.open, second.open), (True, False))
        first.close()
        self.assertTrue(self.connect().open)
        self.interrupt()


class ChatTests(ExampleCase):
    """A-41 to A-46: the chat of docs/framework.md, in memory."""

    def join(self, user: str, room: str = "tea") -> MemoryPeer:
        peer = self.network.connect(8000)
        self.assertIn(user, peer.ask("join", {"room": room, "user": user})["result"])
        return peer

    def news(self, peer: MemoryPeer) -> list[tuple[str, dict[str, str]]]:
        return [(m["method"], m["params"]) for m in peer.messages()]

    def test_everybody_else_in_the_room_hears_it(self) -> None:
        self.start("chat")
        ann, bob, cid = self.join("ann"), self.join("bob"), self.join("cid", "coffee")
        self.assertEqual(self.news(ann), [("joined", {"user": "bob"})])
        self.assertTrue(ann.ask("say", {"text": "hello"})["result"])
        self.assertEqual(self.news(bob), [("said", {"user": "ann", "text": "hello"})])
        self.assertEqual((self.news(ann), self.news(cid)), ([], []))
        self.interrupt()

    def test_who_is_in_no_room_and_who_goes_to_another(self) -> None:
        self.start("chat")
        ann, bob, cid = self.join("ann"), self.join("bob"), self.join("cid", "coffee")
        stranger = self.network.connect(8000)
        self.assertEqual(stranger.ask("say", {"text": "hello"})["error"], "forbidden")
        ann.messages()
        moved = bob.ask("join", {"room": "coffee", "user": "bob"})
        self.assertEqual(moved["result"], ["cid", "bob"])
        self.assertEqual(self.news(ann), [("left", {"user": "bob"})])
        self.assertEqual(self.news(cid), [("joined", {"user": "bob"})])
        taken = self.network.connect(8000).ask("join", {"room": "tea", "user": "bob"})
        self.assertEqual(taken["error"], "already exists: bob in room coffee")
        self.interrupt()

    def test_a_lost_connection_and_the_way_back(self) -> None:
        self.start("chat")
        ann, bob = self.join("ann"), self.join("bob")
        ann.messages()
        bob.abort()
        self.network.advance(29)
        bob = self.join("bob")
        self.network.advance(60)
        self.assertEqual(self.news(ann), [])
        bob.close()
        self.network.advance(30.1)
        self.assertEqual(self.news(ann), [("left", {"user": "bob"})])
        self.interrupt()


class GameTests(ExampleCase):
    """A-49, A-50, A-56, A-57: matches, a game with timers, and what is counted."""

    def play(self, *players: str, mode: str = "duel") -> list[MemoryPeer]:
        peers = [self.network.connect(8000) for _ in players]
        for peer, player in zip(peers, players, strict=True):
            self.assertTrue(peer.ask("play", {"player": player, "mode": mode})["result"])
        self.network.advance(0.1)
        return peers

    def news(self, peer: MemoryPeer) -> dict[str, dict[str, object]]:
        return {m["method"]: m["params"] for m in peer.messages()}

    def test_a_duel(self) -> None:
        self.start("game_match", wait=30.0, turn=10.0)
        ann, bob = self.play("ann", "bob")
        for _ in range(2):
            self.assertEqual(self.news(bob)["round"]["players"], ["ann", "bob"])
            self.assertTrue(ann.ask("pick", {"number": 2})["result"])
            self.assertEqual(ann.ask("pick", {"number": 1})["error"], "forbidden")
            self.assertTrue(bob.ask("pick", {"number": 4})["result"])
            self.network.advance(0.1)
            self.assertEqual(self.news(ann)["result"]["winner"], "ann")
            self.assertEqual(self.news(bob)["result"]["picks"], {"ann": 2, "bob": 4})
            self.network.advance(2.5)
        self.assertTrue(bob.ask("pick", {"number": 9})["result"])
        self.network.advance(10.1)
        news = self.news(ann)
        self.assertEqual(news["result"], {"picks": {"bob": 9}, "winner": "bob"}, "time was up")
        self.assertEqual(news["over"], {"points": {"ann": 2, "bob": 1}})
        stats = ann.ask("stats")["result"]
        self.assertEqual(stats["games"], 0)
        duels = stats["matches"]["duel"]
        self.assertEqual((duels["matches"], duels["matched"], duels["waiting"]), (1, 2, 0))
        timers = stats["timers"]
        self.assertEqual((timers["round"]["runs"], timers["turn"]["runs"]), (3, 3))
        self.play("dan", "eve")
        self.interrupt()

    def test_nobody_comes(self) -> None:
        self.start("game_match", wait=30.0, turn=10.0)
        (ann,) = self.play("ann")
        four = self.play("bob", "cid", "dan", mode="party")
        self.network.advance(31)
        self.assertEqual(self.news(ann), {"nobody": {"mode": "duel"}})
        self.assertEqual([self.news(peer) for peer in four], [{"nobody": {"mode": "party"}}] * 3)
        stats = ann.ask("stats")["result"]["matches"]
        self.assertEqual((stats["duel"]["timed_out"], stats["party"]["timed_out"]), (1, 3))
        self.interrupt()

    def test_one_who_is_away_and_back_and_one_who_is_not(self) -> None:
        self.start("game_match", wait=30.0, turn=10.0)
        ann, bob = self.play("ann", "bob")
        bob.abort()
        self.network.settle()
        self.assertIn("away", self.news(ann))
        bob = self.network.connect(8000)
        self.assertTrue(bob.ask("back", {"player": "bob"})["result"])
        self.assertEqual(self.network.connect(8000).ask("back", {"player": "bob"})["code"], 33)
        self.assertTrue(bob.ask("pick", {"number": 1})["result"])
        again = ann.ask("play", {"player": "ann", "mode": "duel"})
        self.assertEqual(again["error"], "already exists: a game of ann")
        bob.close()
        self.network.advance(10.1)
        self.assertIn("over", self.news(ann))
        self.assertEqual(ann.ask("stats")["result"]["games"], 0)
        self.interrupt()
