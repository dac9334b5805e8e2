"""The examples with rooms, each as a process of its own."""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.programs import EXAMPLES, python
from tests.servers.sockets import Peer


class Player:
    """A blocking peer that speaks JSON in lines."""

    def __init__(self, port: int) -> None:
        self.peer = Peer(port)

    def __enter__(self) -> Player:
        return self

    def __exit__(self, *exc: object) -> None:
        self.peer.close()

    def ask(self, method: str, **params: Any) -> Any:
        """Ask, with what comes unasked thrown away; returns the result or the error."""
        self.peer.send(json.dumps({"id": 1, "method": method, "params": params}).encode() + b"\n")
        while (answer := self.next())["id"] is None:
            pass
        return answer.get("error", answer["result"])

    def next(self) -> Any:
        return json.loads(self.peer.line())

    def hear(self, method: str) -> Any:
        """The params of the next notification of this method."""
        while (message := self.next()).get("method") != method:
            pass
        return message["params"]


class ChatTests(SynchronousTestCase):
    """A-41 to A-46: the chat on real sockets."""

    def test_a_chat(self) -> None:
        with python("chat.py", "--port", "0") as program:
            port = program.port()
            with Player(port) as ann, Player(port) as bob:
                self.assertEqual(ann.ask("say", text="hello"), "forbidden")
                self.assertEqual(ann.ask("join", room="tea", user="ann"), ["ann"])
                self.assertEqual(bob.ask("join", room="tea", user="bob"), ["ann", "bob"])
                self.assertEqual(ann.hear("joined"), {"user": "bob"})
                self.assertIs(bob.ask("say", text="hello"), True)
                self.assertEqual(ann.hear("said"), {"user": "bob", "text": "hello"})
                self.assertEqual(bob.ask("join", room="coffee", user="bob"), ["bob"])
                self.assertEqual(ann.hear("left"), {"user": "bob"})
                program.interrupt()
                self.assertEqual(bob.hear("close")["reason"], "server going down")
            self.assertEqual(program.end(), (0, ""))

    def test_it_is_short(self) -> None:
        source = (EXAMPLES / "chat.py").read_text("utf-8")
        code = re.sub(r'""".*?"""', "", source, flags=re.S)
        self.assertLessEqual(len([line for line in code.splitlines() if line.strip()]), 60)


class GameTests(SynchronousTestCase):
    """A-50, A-57: matches, a game with timers and statistics, on real sockets."""

    def test_matches_and_a_game(self) -> None:
        program = python("game_match.py", "--port", "0", "--wait", "2", "--turn", "0.5")
        with program, Player(port := program.port()) as alone:
            self.assertIs(alone.ask("play", player="dan", mode="party"), True)
            with Player(port) as ann, Player(port) as bob:
                self.assertIs(ann.ask("play", player="ann", mode="duel"), True)
                self.assertIs(bob.ask("play", player="bob", mode="duel"), True)
                for number in (1, 2, 3):
                    self.assertEqual(bob.hear("round")["number"], number)
                    bob.ask("pick", number=5)
                    self.assertEqual(ann.hear("result"), {"picks": {"bob": 5}, "winner": "bob"})
                self.assertEqual(ann.hear("over"), {"points": {"bob": 3}})
                self.assertEqual(alone.hear("nobody"), {"mode": "party"})
                stats = ann.ask("stats")
                duel, party = stats["matches"]["duel"], stats["matches"]["party"]
                self.assertEqual((duel["matched"], party["timed_out"], stats["games"]), (2, 1, 0))
                self.assertGreater(stats["timers"]["turn"]["runs"], 0)
                program.interrupt()
                self.assertEqual(bob.hear("close")["reason"], "server going down")
            self.assertEqual(program.end(), (0, ""))
