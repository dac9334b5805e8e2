"""One session of a pool with passwords against the others, on the bus.

Issue 13: an attacker reads, answers, swallows, delays and counts nothing of others. Each
attempt is a test; the attacker is Eve, who has a password of her own.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import Kind, Message
from kupool.bus.rabbit.bus import MeshBus
from kupool.bus.remote.client import RemoteBus
from kupool.bus.remote.service import BusService
from kupool.net import Server
from kupool.net.testing import MemoryNetwork, MemoryPeer
from tests.fakes.bus_exchange import Exchange, MemoryCarrier
from tests.fakes.daemon_case import PORT, DaemonCase

USERS = ("ann", "bank", "eve", "kupool", "root")


class AttackCase(DaemonCase):
    """Ann calls the bank; letters are for who is named in their topic."""

    settings = {
        "bus_publish": ["public.>", "bank.{user}.>", "letters.*", "{user}.>"],
        "bus_subscribe": ["public.>", "letters.{user}", "{user}.>"],
        "bus_permissions": ["bank subscribe bank.>"],
        "bus_operators": ["root"],
        "bus_rate": "0",
        "bus_max_calls": "40",
        "bus_user_calls": "10",
        "bus_user_topics": "20",
    }

    def start(self, **settings: Any) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("".join(f"{user}:secret\n" for user in USERS))
        super().start(auth=[f"file:{path}"], **settings)

    def setUp(self) -> None:
        super().setUp()
        self.ann, self.eve = self.user("ann"), self.user("eve")

    def user(self, name: str) -> MemoryPeer:
        return self.session(name, password="secret")

    def bank(self, handler: Any) -> RemoteBus:
        endpoint = TCP4ClientEndpoint(self.network, "127.0.0.1", PORT)
        bus = RemoteBus(self.network, endpoint, username="bank", password="secret")
        self.network.run(bus.connect())
        self.network.run(bus.subscribe(["bank.>"], handler))
        self.addCleanup(lambda: self.network.run(bus.close(), patience=5))
        return bus

    def call(self, peer: MemoryPeer, topic: str, **more: Any) -> int:
        params = {"topic": topic, "model": "reliable-random", **more}
        return peer.request("bus.publish", params)

    def reply(self, peer: MemoryPeer, call_id: str, result: str) -> None:
        peer.tell(json.dumps({"id": call_id, "result": result}).encode())


class ReadTests(AttackCase):
    def test_subscribing(self) -> None:
        """No pattern lets her hear what is for others."""
        for topic in (
            "bank.ann.balance", "bank.ann.*", "bank.*.balance", "bank.>", "*.ann.balance", "*.*.*",
            ">", "*.>", "letters.ann", "letters.*", "letters.>", "*.ann", "*", "ann.>", "ann.x",
            "kupool.>", "kupool.session.opened", "kupool.submission.accepted", "*.job",
        ):  # fmt: skip
            for topics in ([topic], ["public.x", topic], ["eve.x", topic]):
                self.assertEqual(self.ask(self.eve, "subscribe", topics=topics)[0], 33, topic)
        self.bank(lambda message: b"100")
        self.call(self.ann, "bank.ann.balance", data="secret")
        self.publish(self.ann, "letters.ann", data="secret")
        self.publish(self.ann, "ann.private", data="secret")
        self.assertEqual([m["result"]["data"] for m in self.ann.messages()], ["100"])
        self.assertEqual(self.eve.messages(), [])

    def test_asking(self) -> None:
        """Of what the bus knows, she is told nothing."""
        self.call(self.ann, "bank.ann.balance", message="m-1")
        for method, params in (("status", {}), ("trace", {"message": "m-1"})):
            self.assertEqual(self.ask(self.eve, method, **params), (33, "forbidden"))
        root = self.user("root")
        self.assertEqual(len(self.ask(root, "trace", message="m-1")), 1)

    def test_the_answer_to_another_call(self) -> None:
        """The id of Ann's message, her topic, her data: she may not send it, or has her own."""
        self.bank(lambda message: b"for " + message.topic.encode())
        self.call(self.ann, "bank.ann.balance", message="m-1", data="x")
        for redelivered in (False, True):
            same = {"message": "m-1", "data": "x", "model": "reliable-random"}
            same["redelivered"] = redelivered
            self.assertEqual(self.ask(self.eve, "publish", topic="bank.ann.balance", **same)[0], 33)
            found = self.ask(self.eve, "publish", topic="bank.eve.balance", **same)
            self.assertEqual(found["data"], "for bank.eve.balance")

    def test_a_name_that_is_a_topic(self) -> None:
        """Who is called as the pool's own topics does not have those."""
        kupool = self.user("kupool")
        for topic in ("kupool.>", "kupool.session.opened", "kupool.x"):
            self.assertEqual(self.ask(kupool, "subscribe", topics=[topic])[0], 33)
        self.assertEqual(self.publish(kupool, "kupool.job")[0], 33)


class AnswerTests(AttackCase):
    def test_a_call_of_another_session(self) -> None:
        """With its very id, under any number of a subscriber, and as a subscriber herself."""
        bank = self.user("bank")
        self.ask(bank, "subscribe", topics=["bank.>"])
        self.ask(self.eve, "subscribe", topics=["public.x"])
        self.ask(self.eve, "subscribe", topics=["public.x"], subscriber="second")
        self.call(self.ann, "bank.ann.balance")
        (call,) = bank.messages()
        number = call["id"].partition(".")[0]
        for call_id in (call["id"], f"{number}.1", f"{number}.2", "1.0", "2.0", number):
            self.reply(self.eve, call_id, "stolen")
        self.assertEqual(self.ann.messages(), [])
        self.reply(bank, call["id"], "100")
        self.assertEqual(self.ann.messages()[0]["result"]["data"], "100")

    def test_guessing(self) -> None:
        """The ids that she has seen tell her no other."""
        bank = self.user("bank")
        self.ask(bank, "subscribe", topics=["bank.>"])
        self.ask(self.eve, "subscribe", topics=["eve.x"])
        self.call(self.eve, "eve.x")
        own = next(m["id"] for m in self.eve.messages() if m.get("method") == "call")
        self.call(self.ann, "bank.ann.balance")
        first = int(own.partition(".")[0], 16)
        for number in range(max(0, first - 500), first + 500):
            self.reply(self.eve, f"{number:016x}.0", "stolen")
        self.assertEqual(self.ann.messages(), [])

    def test_events(self) -> None:
        """She cannot publish what is the pool's, or somebody else's, to say."""
        for topic in ("kupool.job", "kupool.session.opened", "bank.ann.balance", "ann.x"):
            self.assertEqual(self.publish(self.eve, topic)[0], 33)


class NodeTests(SynchronousTestCase):
    """Over several nodes: a session answers no call that another session of its node has."""

    def test_a_call_of_another_node(self) -> None:
        network = MemoryNetwork()
        exchange = Exchange(network)
        nodes = []
        for port in (8001, 8002):
            bus = MeshBus(network, MemoryCarrier(exchange), wall=network.seconds)
            network.run(bus.connect(), patience=5)
            server = Server(network, BusService(bus.broker, taken=bus.taken))
            network.run(server.listen([f":{port}"]))
            nodes.append(bus)
        worker, eve = network.connect(8002), network.connect(8002)
        for peer, topic in ((worker, "bank"), (eve, "eve")):
            peer.request("bus.subscribe", {"topics": [topic]})
            network.advance(0.1)
            peer.messages()
        outcome = nodes[0].publish_reliable_random(b"", "bank", 3.0)
        network.advance(0.1)
        (call,) = worker.messages()
        number = int(call["id"].partition(".")[0], 16)
        for guess in (number, *range(1 << 48, (1 << 48) + 100), *range(1 << 63, (1 << 63) + 100)):
            eve.tell(json.dumps({"id": f"{guess:016x}.0", "result": "stolen"}).encode())
            eve.tell(json.dumps({"id": f"{guess}.0", "result": "stolen"}).encode())
        network.advance(0.1)
        self.assertNoResult(outcome)
        worker.tell(json.dumps({"id": call["id"], "result": "100"}).encode())
        network.advance(0.1)
        self.assertEqual(self.successResultOf(outcome).data, b"100")
        for bus in nodes:
            bus.close()
        self.assertIsInstance(network, Clock)


class SwallowTests(AttackCase):
    def test_an_id_that_was_used_before(self) -> None:
        """Ann's call reaches the bank, whatever ids Eve has used, and says are sent again."""
        handled: list[Message] = []

        def bank(message: Message) -> bytes:
            handled.append(message)
            return message.topic.encode()

        self.bank(bank)
        ids = ["m-1", "m-2"]
        for n in ids:
            self.call(self.eve, "bank.eve.pay", message=n, data="5", redelivered=True)
            self.call(self.eve, "bank.eve.pay", message=n, data="5")
        for n in ids:
            self.call(self.ann, "bank.ann.pay", message=n, data="5", redelivered=n == "m-2")
        told = [m["result"]["data"] for m in self.ann.messages()]
        self.assertEqual(told, ["bank.ann.pay", "bank.ann.pay"])
        self.assertEqual([m.topic for m in handled].count("bank.ann.pay"), 2)

    def test_being_asked_instead(self) -> None:
        """She is not among those that a call may go to; a letter waits for Ann alone."""
        for topic in ("bank.ann.pay", "letters.ann"):
            self.assertEqual(self.ask(self.eve, "subscribe", topics=[topic], keys=["ann"])[0], 33)
        bank = self.user("bank")
        self.assertEqual(self.publish(bank, "letters.ann", data="hello"), {"outcome": "sent"})
        self.ask(self.eve, "subscribe", topics=["letters.eve"])
        self.ask(self.ann, "subscribe", topics=["letters.ann"])
        (letter,) = self.ann.messages()
        self.assertEqual(letter["params"]["data"], "hello")
        self.assertEqual(self.eve.messages(), [])

    def test_removing_a_subscriber(self) -> None:
        """Names of subscribers are each session's own."""
        bank = self.user("bank")
        for name in ("", "main"):
            self.ask(bank, "subscribe", topics=["bank.>"], subscriber=name)
            self.ask(self.eve, "subscribe", topics=["public.x"], subscriber=name)
            self.assertIs(self.ask(self.eve, "unsubscribe", subscriber=name), True)
        self.assertEqual(len(self.broker.status().subscribers), 2)


class DelayTests(AttackCase):
    def test_filling_the_bus(self) -> None:
        """Over many sessions she has the calls of one user; the bus is not full for others."""
        refused = 0
        for _ in range(6):
            eve = self.user("eve")
            for _ in range(10):
                self.call(eve, "eve.nobody", timeout_ms=3_600_000)
            refused += sum(m.get("code") == 34 for m in eve.messages())
        self.assertEqual((refused, self.broker.status().calls), (50, 10))
        self.bank(lambda message: b"100")
        began = self.network.seconds()
        self.call(self.ann, "bank.ann.balance")
        self.assertEqual(self.ann.messages()[0]["result"]["data"], "100")
        self.assertEqual(self.network.seconds(), began)
        counts = self.broker.status().counts
        self.assertEqual(counts["turned away: open calls of one user"], 50)

    def test_calls_that_outlive_her(self) -> None:
        """What she has published ends with each of her sessions."""
        for _ in range(20):
            eve = self.user("eve")
            for _ in range(10):
                self.call(eve, "eve.nobody", timeout_ms=3_600_000)
            eve.abort()
        self.network.settle()
        self.assertEqual(self.broker.status().calls, 0)

    def test_filling_topics(self) -> None:
        """So it is with what she subscribes to."""
        taken = 0
        for session in range(5):
            eve = self.user("eve")
            for n in range(10):
                found = self.ask(eve, "subscribe", topics=[f"eve.{session}.{n}"])
                taken += isinstance(found, dict)
        self.assertEqual(taken, 20)
        self.assertEqual(self.ask(self.ann, "subscribe", topics=["ann.x"])["topics"], ["ann.x"])

    def test_calls_that_the_bank_does_not_answer(self) -> None:
        """Her open calls do not keep the bank from Ann's."""
        bank = self.user("bank")
        self.ask(bank, "subscribe", topics=["bank.>"])
        for _ in range(30):
            self.call(self.eve, "bank.eve.slow", timeout_ms=60_000)
        self.call(self.ann, "bank.ann.balance")
        last = bank.messages()[-1]
        self.assertEqual(last["params"]["topic"], "bank.ann.balance")
        self.reply(bank, last["id"], "100")
        self.assertEqual(self.ann.messages()[0]["result"]["data"], "100")

    def test_a_large_message(self) -> None:
        """Nothing that she may say ends the connection of somebody else."""
        self.ask(self.ann, "subscribe", topics=["letters.ann"], subscriber="\U0001f600" * 250)
        for size in (60_000, 45_000, 44_000):
            params = {"topic": "letters.ann", "model": "unreliable-all", "key": '"' * 255}
            self.eve.request("bus.publish", {**params, "data": "\\" * (size // 2)})
            self.eve.request("bus.publish", {**params, "data": "x" * size})
            if not self.eve.open:
                self.eve = self.user("eve")
        self.network.settle()
        self.assertTrue(self.ann.open)
        for item in self.ann.items():
            self.assertLessEqual(len(item), 65_536)


class CountTests(AttackCase):
    def test_ids(self) -> None:
        """What she sees of her own calls is the same, however much others do meanwhile."""
        self.bank(lambda message: b"100")
        self.ask(self.eve, "subscribe", topics=["eve.>"])
        seen: list[tuple[int, int]] = []
        for _ in range(25):
            self.call(self.eve, "eve.x")
            (call,) = [m for m in self.eve.messages() if m.get("method") == "call"]
            self.reply(self.eve, call["id"], "")
            self.eve.messages()
            seen.append((int(call["id"].partition(".")[0], 16), int(call["params"]["message"], 16)))
            for _ in range(3):
                self.call(self.ann, "bank.ann.balance")
        for numbers in zip(*seen, strict=True):
            self.assertNotEqual(list(numbers), sorted(numbers))
            self.assertEqual(len(set(numbers)), 25)
            steps = {b - a for a, b in pairwise(numbers)}
            self.assertEqual(len(steps), 24)

    def test_receivers(self) -> None:
        """How many hear a topic is told to those who may publish there only."""
        self.ask(self.ann, "subscribe", topics=["ann.x"])
        for topic in ("ann.x", "bank.ann.balance"):
            self.assertEqual(self.publish(self.eve, topic)[0], 33)

    def test_the_outcome_says_who_answered_and_no_more(self) -> None:
        self.bank(lambda message: b"100")
        found = self.ask(
            self.eve, "publish", topic="bank.eve.x", model="reliable-random", message="m-1"
        )
        self.assertEqual(set(found), {"outcome", "data", "subscriber"})
        self.assertEqual(found["outcome"], Kind.ANSWERED.value)
