"""The code of docs/rooms.md runs, and does what the page says."""

from __future__ import annotations

import re
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.local import LocalBus
from kupool.net.testing import MemoryNetwork, MemoryPeer
from kupool.rooms import IRoomHooks
from kupool.rooms.settings import RoomSettings
from tests.docs.pages import blocks

TEXT = (Path(__file__).parents[3] / "docs" / "rooms.md").read_text("utf-8")


class RoomsDocumentTests(SynchronousTestCase):
    """A-41 to A-52, A-56, A-57: as they are told to those who build on them."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        bus = LocalBus(self.network, wall=self.network.seconds)
        self.names: dict[str, Any] = {"reactor": self.network, "bus": bus}
        #: By the name of a file of the page: what is in it.
        self.files: dict[str, ModuleType] = {}
        for block in blocks("docs/rooms.md"):
            if block.language != "python":
                continue
            code = compile(block.text, block.where, "exec")
            if block.file_name is None:  # goes on with what is in the files before it
                exec(code, self.names)
                continue
            name = block.file_name.removesuffix(".py")
            module = self.files[name] = ModuleType(name)
            self.patch_module(name, module)
            exec(code, vars(module))
            self.names.update(vars(module))

    def patch_module(self, name: str, module: ModuleType) -> None:
        """Let the files of the page import each other, as those of one folder do."""
        self.assertNotIn(name, sys.modules)
        sys.modules[name] = module
        self.addCleanup(sys.modules.pop, name)

    def start(self, name: str, port: int, **options: str) -> tuple[Any, Any]:
        """Start the program of a file; returns its server and its lobby."""
        server = self.files[name].make(self.network, Namespace(**options))
        self.listen(server, port)
        return server, server.manager.observer.lobby

    def listen(self, server: Any, port: int) -> None:
        self.network.run(server.listen([f":{port}"]))

    def connect(self, method: str, port: int = 8000, **params: str) -> tuple[MemoryPeer, Any]:
        peer = self.network.connect(port)
        return peer, peer.ask(method, params)["result"]

    def news(self, peer: MemoryPeer) -> list[tuple[str, Any]]:
        return [(message["method"], message["params"]) for message in peer.messages()]

    def test_the_quiz(self) -> None:
        server, lobby = self.start("quiz", 8000)
        ann, question = self.connect("play", room="one", user="ann")
        self.assertEqual(question, "6 times 7")
        bob, _ = self.connect("play", room="one", user="bob")
        self.assertEqual(self.news(ann), [("players", ["ann", "bob"])])
        self.assertIs(ann.ask("guess", {"word": "41"})["result"], False)
        again = ann.ask("guess", {"word": "42"})
        self.assertEqual(again["error"], "already exists: a guess of ann")
        self.assertIs(bob.ask("guess", {"word": "42"})["result"], True)
        who = self.files["members"].who(lobby, "one")
        self.assertEqual([p[:2] for p in who], [("ann", True), ("bob", True)])
        self.files["members"].kick(lobby, "ann")
        self.network.settle()
        self.assertEqual(self.news(ann), [("kicked", {"room": "one"})])
        self.assertEqual(self.news(bob), [("players", ["bob"])])
        bob.close()
        self.network.advance(14.9)
        self.assertEqual(len(lobby), 1)
        self.network.advance(0.2)
        self.assertEqual(len(lobby), 0, "grace, and linger")
        self.network.run(server.stop())

    def test_matches_and_timers(self) -> None:
        _, lobby = self.start("matches", 8001)
        ann, _ = self.connect("seek", 8001, player="ann", mode="duel")
        cid, _ = self.connect("seek", 8001, player="cid", mode="trio")
        bob, _ = self.connect("seek", 8001, player="bob", mode="duel")
        self.network.settle()
        self.assertIn(("matched", "duel 1"), self.news(ann))
        self.assertIs(bob.ask("guess", {"word": "42"})["result"], True)
        self.network.advance(31)
        news = [what for what in self.news(ann) if what[0] != "players"]
        self.assertEqual(news, [("hint", 2)] * 3 + [("over", {"bob": "42"})])
        self.assertEqual(self.news(cid), [("nobody", "trio")])
        statistics = self.files["matches"].statistics(lobby)
        matches, tasks = statistics["matches"], statistics["tasks"]
        self.assertEqual((matches["duel"].matched, matches["trio"].timed_out), (2, 1))
        self.assertEqual((tasks["time"].runs, tasks["hint"].runs), (1, 3))
        self.assertEqual([statistics[n] for n in ("rooms", "members", "timers")], [0, 0, 0])

    def club(self) -> tuple[MemoryPeer, MemoryPeer]:
        parser = ArgumentParser()
        self.files["club"].add_options(parser)
        options = parser.parse_args(["--motd", "be nice"])
        server, _ = self.start("club", 8002, **vars(options))
        peers = [self.connect("enter", 8002, room="tea", user=user)[0] for user in ("ann", "bob")]
        self.assertEqual(self.news(peers[0])[-1], ("joined", {"user": "bob"}))
        self.assertEqual(self.news(peers[1]), [("welcome", {"motd": "be nice", "lines": []})])
        self.addCleanup(lambda: self.network.run(server.stop(), 30))
        return peers[0], peers[1]

    def test_names(self) -> None:
        ann, bob = self.club()
        stranger = self.network.connect(8002)
        self.assertEqual(stranger.ask("who")["error"], "forbidden")
        answer = stranger.ask("enter", {"room": "tea", "user": "ann"})
        self.assertEqual(answer["error"], "already exists: user ann")
        self.assertEqual(bob.ask("nick", {"name": "ann"})["error"], "already exists: user ann")
        self.assertEqual(bob.ask("nick", {"name": "rob"})["result"], ["ann", "rob"])
        self.assertEqual(self.news(ann), [("renamed", {"user": "bob", "name": "rob"})])
        self.assertEqual(ann.ask("who")["result"], ["ann", "rob"])

    def test_a_whisper(self) -> None:
        ann, bob = self.club()
        cid, _ = self.connect("enter", 8002, room="coffee", user="cid")
        ann.ask("tell", {"user": "cid", "text": "damn tea"})
        self.assertEqual(self.news(cid)[1:], [("told", {"user": "ann", "text": "**** tea"})])
        self.assertEqual(self.news(bob), [])
        nobody = ann.ask("tell", {"user": "dan", "text": "psst"})
        self.assertEqual(nobody["code"], 35)

    def test_the_last_lines(self) -> None:
        ann, _ = self.club()
        for number in range(25):
            ann.ask("say", {"text": f"line {number}"})
            self.network.advance(1)
        cid = self.network.connect(8002)
        cid.request("enter", {"room": "tea", "user": "cid"})
        welcome, answer = cid.messages()
        self.assertEqual(answer["result"], ["ann", "bob", "cid"])
        self.assertEqual(welcome["params"]["motd"], "be nice")
        lines = [line["text"] for line in welcome["params"]["lines"]]
        self.assertEqual(lines, [f"line {number}" for number in range(5, 25)])

    def test_silence_and_an_empty_room(self) -> None:
        ann, bob = self.club()
        self.network.advance(200)
        ann.ask("who")
        self.network.advance(99)
        self.assertEqual(self.news(bob), [])
        self.network.advance(2)
        self.assertEqual(self.news(bob), [("removed", {"reason": "silent"})])
        self.assertEqual(self.news(ann), [("left", {"user": "bob", "reason": "silent"})])
        self.assertEqual((bob.ask("who")["error"], bob.open), ("forbidden", True))
        ann.ask("say", {"text": "alone"})
        ann.close()
        for wait, lines in ((30 + 59, ["alone"]), (30 + 61, [])):
            self.network.advance(wait)
            cid, _ = self.connect("enter", 8002, room="tea", user="cid")
            ((_, welcome),) = self.news(cid)
            self.assertEqual([line["text"] for line in welcome["lines"]], lines)
            cid.close()

    def test_a_limit(self) -> None:
        ann, _ = self.club()
        self.network.advance(1)
        answers = [ann.ask("who").get("code") for _ in range(6)]
        self.assertEqual(answers, [None] * 5 + [34])
        self.assertEqual(ann.ask("nick", {"name": "amy"})["error"], "too many requests")
        self.network.advance(0.3)
        self.assertEqual(ann.ask("who")["result"], ["ann", "bob"])

    def test_spread(self) -> None:
        """A-51: two hosts; one goes, and the game goes on at the other."""
        servers = {}
        for port, name in ((8000, "a"), (8001, "b")):
            servers[port] = self.network.run(self.names["start_host"](name), 5)
            self.listen(servers[port], port)
        players = {}
        for n in range(8):
            players[n], question = self.connect("play", room=f"room {n}", user=f"user {n}")
            self.assertEqual(question, "6 times 7")
            self.assertIs(players[n].ask("guess", {"word": "42"})["result"], True)
        self.network.run(servers[8001].stop(), 30)
        self.network.advance(1)
        for n, player in players.items():
            again = player.ask("guess", {"word": "42"})
            self.assertEqual(again["error"], f"already exists: a guess of user {n}")
        self.network.run(servers[8000].stop(), 30)

    def test_every_hook_and_setting_is_listed(self) -> None:
        for hook in IRoomHooks.names():
            self.assertRegex(TEXT, rf"(?m)^\| `{hook}\(.*\)` \|", hook)
        for field in fields(RoomSettings):
            row = re.search(rf"(?m)^\| `{field.name}` \| (\w+) \|", TEXT)
            assert row is not None, field.name
            default = getattr(field.default, "name", field.default)
            self.assertEqual(row[1], f"{default:g}" if isinstance(default, float) else str(default))
