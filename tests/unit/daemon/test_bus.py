"""The bus in the daemon: who may do what on it, when sessions end, and when the daemon does."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint

from kupool.bus import BusError, Kind
from kupool.bus.remote.client import RemoteBus
from kupool.net.testing import MemoryPeer
from kupool.wire.framing import FRAME, INT32
from tests.fakes.daemon_case import PORT, DaemonCase, PasswordCase
from tests.requirements import ROOT


class SessionTests(DaemonCase):
    """A-07: authorized sessions, in every framing of the port."""

    def test_a_call_across_framings(self) -> None:
        """A-18, A-25: one is called, another is answered."""
        worker, caller = self.session("worker", "frame"), self.session("caller", "int32")
        self.assertEqual(self.ask(worker, "subscribe", topics=["bank.*"])["topics"], ["bank.*"])
        call_id = caller.request(
            "bus.publish", {"topic": "bank.balance", "data": "bob", "model": "reliable-random"}
        )
        (call,) = worker.messages()
        self.assertEqual((call["method"], call["params"]["data"]), ("call", "bob"))
        worker.tell(json.dumps({"id": call["id"], "result": "7"}).encode())
        (reply,) = caller.messages()
        self.assertEqual((reply["id"], reply["result"]["data"]), (call_id, "7"))

    def test_not_authorized(self) -> None:
        """A-38: whoever has not said who it is gets nothing but that."""
        for method in ("bus.subscribe", "bus.publish", "bus.unsubscribe", "bus.status"):
            peer = self.network.connect(PORT, "line")
            reply = peer.ask(method, {"topics": ["t"], "topic": "t", "model": "unreliable-all"})
            self.assertEqual((reply["code"], reply["error"]), (24, "unauthorized"))
            self.assertFalse(peer.open)
        self.assertEqual(self.broker.status().subscribers, ())

    def test_the_end_of_a_session(self) -> None:
        """A-03: takes its subscribers along, whichever way it ends, and no others."""
        stays = self.session("stays")
        self.ask(stays, "subscribe", topics=["t"])
        for end in (MemoryPeer.close, MemoryPeer.abort, MemoryPeer.finish):
            goes = self.session("goes")
            self.ask(goes, "subscribe", topics=["t", "u"])
            self.ask(goes, "subscribe", topics=["t"], subscriber="second")
            self.assertEqual(len(self.broker.status().subscribers), 3)
            end(goes)
            self.assertEqual([s.topics for s in self.broker.status().subscribers], [("t",)])
        self.assertEqual(self.publish(stays, "t")["receivers"], 1)

    def test_the_pool_goes_on_beside_it(self) -> None:
        """A-61: a session with calls in hand submits as ever, and answers in between."""
        peer = self.network.connect(PORT, "line")
        peer.ask("authorize", {"username": "alice"})
        (job,) = peer.messages()
        self.ask(peer, "subscribe", topics=["t"])
        caller = self.session("caller")
        caller.request("bus.publish", {"topic": "t", "model": "reliable-random"})
        (call,) = peer.messages()
        nonce = job["params"]["server_nonce"] + "n"
        params = {
            "job_id": job["params"]["job_id"],
            "client_nonce": "n",
            "result": sha256(nonce.encode()).hexdigest(),
        }
        submitted = peer.request("submit", params)
        self.network.advance(0.1)
        self.assertEqual(peer.messages(), [{"id": submitted, "result": True}])
        self.assertEqual(peer.ask("submit", params)["error"], "Duplicate submission")
        self.assertEqual(peer.ask("nothing")["error"], "unknown method")
        peer.tell(json.dumps({"id": call["id"], "result": True}).encode())
        self.assertEqual(caller.messages()[0]["result"]["outcome"], "answered")

    def test_what_is_wrong_is_named(self) -> None:
        """A-13, A-22: bad params cost nobody anything, and are no reason to go."""
        peer = self.session()
        good = {"topic": "t", "model": "reliable-random"}
        for method, params, named in (
            ("publish", {**good, "topic": "a b"}, "topic 'a b'"),
            ("publish", {**good, "topic": "a..b"}, "topic 'a..b'"),
            ("publish", {**good, "topic": "a.*"}, "topic 'a.*'"),
            ("publish", {**good, "topic": -1}, "topic -1"),
            ("publish", {**good, "data": "x" * 45_001}, "data: 45001 bytes"),
            ("publish", {**good, "timeout_ms": 1}, "timeout_ms: 1 is not from 10 to 3600000"),
            ("publish", {**good, "timeout_ms": 1e10}, "timeout_ms"),
            ("publish", {**good, "timeout_ms": -5}, "timeout_ms"),
            ("publish", {**good, "data": "!", "base64": True}, "data"),
            ("subscribe", {"topics": []}, "no topic"),
            ("subscribe", {"topics": ["a.>.b"]}, "topic 'a.>.b'"),
            ("subscribe", {"topics": ["t"], "keys": ["\n"]}, "keys"),
        ):
            code, text = self.ask(peer, method, **params)
            self.assertEqual(code, 32, params)
            self.assertIn(named, text)
        for params, named in (
            ({**good, "model": "best"}, "model"),
            ({**good, "timeout_ms": "soon"}, "timeout_ms"),
            ({"model": "unreliable-all"}, "topic is required"),
        ):
            code, text = self.ask(peer, "publish", **params)
            self.assertEqual(code, 32)
            self.assertIn(named, text)
        peer.tell(b"{not json")
        self.assertEqual(peer.messages()[0]["error"], "malformed message")
        self.assertEqual((self.broker.status().counts, peer.open), ({}, True))

    def test_events_of_the_pool(self) -> None:
        """A-61: jobs, as everyone hears them anyway; what others submit is not for all."""
        peer = self.session()
        self.assertEqual(self.ask(peer, "subscribe", topics=["kupool.job"])["subscriber"], "1/0")
        self.network.run(self.daemon.status.rotate())
        told = [m for m in peer.messages() if m["method"] == "call"]
        (call,) = told
        event = json.loads(call["params"]["data"])
        current = self.daemon.parts.book.current
        assert current is not None
        self.assertEqual(
            event,
            {"job_id": current.job_id, "server_nonce": current.server_nonce,
             "at": int(current.saved().created_at * 1000)},
        )  # fmt: skip
        self.assertIsNone(call["id"])
        for wanted in ("kupool.submission.accepted", "kupool.>", "kupool.*", ">", "*.job"):
            code, text = self.ask(peer, "subscribe", topics=["fine", wanted])
            self.assertEqual(code, 33, wanted)
            self.assertIn(repr(wanted), text)
        for forged in ("kupool.job", "kupool.anything.else"):
            self.assertEqual(self.publish(peer, forged), (33, f"forbidden: topic {forged!r}"))
        self.assertEqual(self.publish(peer, "kupool")["outcome"], "sent")
        for method, params in (("status", {}), ("trace", {"message": "x"})):
            self.assertEqual(self.ask(peer, method, **params), (33, "forbidden"))
        (subscriber,) = self.broker.status().subscribers
        self.assertEqual(subscriber.topics, ("kupool.job",))


class DocumentTests(DaemonCase):
    """A-07, A-18: the conversation in docs/protocol.md, byte by byte."""

    def test_the_conversation(self) -> None:
        text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
        block = text.partition("a caller (`C`), both authorized:\n```\n")[2].partition("\n```")[0]
        lines = re.findall(r"^([WC])([<>]) (.*)␊$", block, re.M)
        self.assertEqual(len(lines), len(block.splitlines()))
        self.assertGreater(len(lines), 12)
        peers = {"W": self.session("worker"), "C": self.session("caller")}
        heard = dict.fromkeys(peers, b"")
        for peer in peers.values():
            peer.received()
        ids: dict[str, str] = {}  # those in the document, and what they are this time
        for name, direction, said in lines:
            if direction == ">":
                for written, made in ids.items():
                    said = said.replace(written, made)
                peers[name].tell(said.encode())
                continue
            heard[name] += peers[name].received()
            line, _, heard[name] = heard[name].partition(b"\n")
            made = line.decode()
            for pattern in (r'(?<="id":")[0-9a-f]{16}(?=\.\d)', r'(?<="message":")[0-9a-f]{24}'):
                written, found = re.findall(pattern, said), re.findall(pattern, made)
                self.assertEqual(len(written), len(found))
                ids.update(zip(written, found, strict=True))
            for written, found in ids.items():
                made = made.replace(found, written)
            self.assertEqual(made, said)
        self.assertEqual(len(ids), 3)
        self.assertEqual({peer.received() for peer in peers.values()}, {b""})
        self.assertEqual(set(heard.values()), {b""})
        answer = next(said for name, _, said in lines if '"result":"100"' in said).encode()
        for framing, codec in (("frame", FRAME), ("int32", INT32)):
            head = codec.encode(answer)[: -len(answer)].hex(" ")
            self.assertIn(f"`{head}`", text, framing)


class LimitTests(DaemonCase):
    """A-13: what one session may have, and how often it may ask."""

    settings = {"bus_rate": "2", "bus_topics": "3", "bus_calls": "4"}

    def test_rate(self) -> None:
        """A-38: each session has its own allowance, which comes back with time."""
        eager, calm = self.session(), self.session()
        answers = [self.publish(eager, "t") for _ in range(3)]
        self.assertEqual(answers[2], (34, "too many requests"))
        self.assertEqual(self.ask(eager, "subscribe", topics=["t"])[0], 34)
        self.assertEqual(self.publish(calm, "t")["outcome"], "sent")
        self.network.advance(1.0)
        self.assertEqual(self.publish(eager, "t")["outcome"], "sent")
        self.assertTrue(eager.open)

    def test_topics_and_calls(self) -> None:
        peer = self.session()
        self.assertEqual(self.ask(peer, "subscribe", topics=list("abcd"))[0], 34)
        self.assertEqual(self.ask(peer, "subscribe", topics=list("abc"))["topics"], ["a", "b", "c"])
        for _ in range(5):
            self.network.advance(1.0)
            last = peer.request(
                "bus.publish", {"topic": "t", "model": "reliable-random", "timeout_ms": 60_000}
            )
        (refused,) = [m for m in peer.messages() if "method" not in m]
        self.assertEqual((refused["id"], refused["code"]), (last, 34))


class PolicyTests(DaemonCase):
    """A-38: topics that sessions may use, and operators, who may use all."""

    settings = {
        "bus_operators": ["root"],
        "bus_publish": ["public.>", "inbox"],
        "bus_subscribe": ["public.*", "kupool.session.>"],
        "bus_rate": "20",
    }

    def start(self, **settings: Any) -> None:
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("root:secret\nalice:secret\n")
        super().start(auth=[f"file:{path}"], **settings)

    def test_topics(self) -> None:
        peer = self.session("alice.rig1", password="secret")
        for topic, may in (("public.a.b", True), ("inbox", True), ("public", False), (7, False)):
            found = self.publish(peer, topic)
            self.assertEqual(found["outcome"] if may else found[0], "sent" if may else 33, topic)
        for pattern, may in (
            ("public.a", True),
            ("public.*", True),
            ("public.>", False),
            ("*.a", False),
            ("kupool.session.opened", True),
            ("kupool.session.*", True),
            ("kupool.job", False),
            ("kupool.>", False),
        ):
            found = self.ask(peer, "subscribe", topics=[pattern])
            self.assertEqual(pattern in found["topics"] if may else found[0], may or 33, pattern)

    def test_watches(self) -> None:
        """Issue 13: who may not subscribe to a topic may not know its subscribers, either."""
        peer = self.session("alice.rig1", password="secret")
        for topic, may in (("public.a", True), ("inbox", False), ("kupool.job", False)):
            found = self.ask(peer, "watch", topic=topic)
            self.assertEqual(found, {"valid_ms": 3000.0} if may else (33, found[1]), topic)
            self.assertIs(self.ask(peer, "unwatch", topic=topic), True)
        root = self.session("root.desk", password="secret")
        for topic in ("inbox", "kupool.job"):
            self.assertEqual(self.ask(root, "watch", topic=topic), {"valid_ms": 3000.0})

    def test_operators(self) -> None:
        """A-37: they see everything there is, and are not slowed down."""
        root = self.session("root.desk", password="secret")
        for pattern in (">", "kupool.>", "*.*", "kupool.submission.accepted"):
            self.assertIn(pattern, self.ask(root, "subscribe", topics=[pattern])["topics"])
        for _ in range(50):
            self.assertEqual(self.publish(root, "anything")["outcome"], "sent")
        self.assertEqual(self.publish(root, "kupool.job")[0], 33)
        self.assertEqual(self.ask(root, "status")["counts"]["published"], 50)
        self.assertEqual(self.ask(root, "trace", message="nothing"), [])

    def test_sessions_come_and_go(self) -> None:
        """A-61: of which is told only while somebody listens."""
        root = self.session("root", password="secret")
        self.session("alice.unheard", password="secret").close()
        self.ask(root, "subscribe", topics=["kupool.session.>"])
        alice = self.session("alice.rig", password="secret")
        alice.close()
        opened, closed = [
            (m["params"]["topic"], json.loads(m["params"]["data"]))
            for m in root.messages()
            if m["method"] == "call"
        ]
        self.assertEqual((opened[0], closed[0]), ("kupool.session.opened", "kupool.session.closed"))
        self.assertEqual(opened[1]["username"], "alice.rig")
        self.assertEqual(opened[1]["session"], closed[1]["session"])
        self.assertTrue(closed[1]["reason"])
        self.assertEqual(self.broker.status().counts["published"], 2)


class ReloadTests(PasswordCase):
    """Issue 13: who may use which topics changes on a reload."""

    settings = {"bus_publish": ["a"], "bus_subscribe": [">"]}

    users = ("root", "alice")

    def test_rules(self) -> None:
        alice = self.session("alice", password="secret")
        self.assertEqual(self.publish(alice, "b")[0], 33)
        self.reload(
            bus_publish=["b"],
            bus_subscribe=["inbox.{user}"],
            bus_permissions=["alice publish c", "root publish d"],
            bus_operators=["root"],
        )
        for topic, may in (("a", False), ("b", True), ("c", True), ("d", False)):
            found = self.publish(alice, topic)
            self.assertEqual(found["outcome"] if may else found[0], "sent" if may else 33, topic)
        self.assertEqual(self.ask(alice, "subscribe", topics=["a"])[0], 33)
        self.assertEqual(
            self.ask(alice, "subscribe", topics=["inbox.alice"])["topics"], ["inbox.alice"]
        )
        root = self.session("root", password="secret")
        self.assertIn("published", self.ask(root, "status")["counts"])

    def test_subscriptions_that_are_not_allowed_any_more(self) -> None:
        """They end, whoever has them; those that are allowed stay, and an operator's do."""
        alice, root = (
            self.session("alice", password="secret"),
            self.session("root", password="secret"),
        )
        for peer in (alice, root):
            self.ask(peer, "subscribe", topics=["a", "b"], keys=["k"])
            self.ask(peer, "subscribe", topics=["a"], subscriber="other")
        self.reload(bus_subscribe=["b"], bus_operators=["root"])
        found = sorted(s.topics for s in self.broker.status().subscribers)
        self.assertEqual(found, [("a",), ("a", "b"), ("b",)])
        self.assertEqual(self.publish(alice, "a")["receivers"], 2)
        self.assertEqual(alice.items(), [])
        self.assertEqual(self.ask(alice, "subscribe", topics=["a"])[0], 33)
        self.assertEqual(self.ask(alice, "unsubscribe", subscriber="other"), True)
        self.reload(bus_subscribe=["c"])
        self.assertEqual(self.broker.status().subscribers, ())
        self.assertEqual(self.ask(alice, "subscribe", topics=["c"])["topics"], ["c"])

    def test_a_rule_that_is_none(self) -> None:
        """It changes nothing, nor does what is beside it."""
        alice = self.session("alice", password="secret")
        self.reload(bus_publish=["b"], bus_permissions=["alice writes c"], expire="5s")
        self.assertEqual(self.publish(alice, "b")[0], 33)
        self.assertEqual(self.publish(alice, "a")["outcome"], "sent")
        self.assertEqual(self.daemon.settings.bus.publish, ("a",))


class RemoteBusTests(DaemonCase):
    """A-61: the same interface over the daemon's port."""

    def bus(self, username: str = "service", **more: Any) -> tuple[RemoteBus, Deferred[None]]:
        endpoint = TCP4ClientEndpoint(self.network, "127.0.0.1", PORT)
        bus = RemoteBus(self.network, endpoint, username=username, **more)
        connected = bus.connect()
        self.network.settle()
        return bus, connected

    def test_calls(self) -> None:
        bus, connected = self.bus()
        self.successResultOf(connected)
        self.network.run(bus.subscribe(["t"], lambda message: message.data[::-1]))
        outcome = self.network.run(bus.publish_reliable_random(b"ab", "t"), patience=1)
        self.assertEqual((outcome.kind, outcome.data), (Kind.ANSWERED, b"ba"))
        with self.assertRaises(BusError):
            self.network.run(bus.status())
        self.network.run(bus.close(), patience=5)

    def test_not_welcome(self) -> None:
        """A-06: a name that the pool does not take is reported at once."""
        bus, connected = self.bus("x" * 300)
        self.assertEqual(str(self.failureResultOf(connected, BusError).value), "unauthorized")
        self.network.run(bus.close(), patience=5)


class StopTests(DaemonCase):
    """A-22: callers get their outcomes when the daemon stops."""

    def call(self, peer: MemoryPeer, topic: str) -> int:
        params = {"topic": topic, "model": "reliable-random", "timeout_ms": 60_000}
        return peer.request("bus.publish", params)

    def test_calls_under_way(self) -> None:
        """An answer that comes soon counts; a call without one is refused; then comes the
        close, and nothing new is taken meanwhile.
        """
        worker, caller = self.session("worker"), self.session("caller")
        self.ask(worker, "subscribe", topics=["t"])
        first, second = self.call(caller, "t"), self.call(caller, "t")
        calls = worker.messages()
        self.daemon.stop()
        self.network.settle()
        self.assertEqual(self.daemon.status.phase, "stopping: bus")
        third = self.call(caller, "t")
        worker.tell(json.dumps({"id": calls[0]["id"], "result": "in time"}).encode())
        self.network.advance(1.0)
        *outcomes, close = caller.messages()
        told = {m["id"]: (m["result"]["outcome"], m["result"].get("reason")) for m in outcomes}
        closed = ("refused", "the bus is closed")
        self.assertEqual(told, {third: closed, first: ("answered", None), second: closed})
        self.assertEqual([m["id"] for m in outcomes], [third, first, second])
        self.assertEqual(close["params"]["reason"], "server going down")

    def test_nobody_waits_for_nothing(self) -> None:
        """Without calls a stop takes no time for the bus."""
        peer = self.session()
        self.ask(peer, "subscribe", topics=["t"])
        began = self.network.seconds()
        self.network.run(self.daemon.stop(), patience=40)
        self.assertLess(self.network.seconds() - began, 1.0)


class OffTests(DaemonCase):
    """A-38: a pool without a bus."""

    settings = {"bus": "off"}

    def test_off(self) -> None:
        peer = self.session()
        for method in ("publish", "subscribe", "unsubscribe"):
            self.assertEqual(self.ask(peer, method, topics=["t"]), (31, "unknown method"))
        self.assertIsNone(self.daemon.parts.bus)
        self.assertFalse(self.told())


class IdleTests(DaemonCase):
    """A-14: a bus that nobody uses costs nothing."""

    def test_submissions_are_told_of_while_somebody_listens(self) -> None:
        """A-61: nothing is asked on the way of a submission before that, and afterwards."""
        self.stop()
        self.start(bus_subscribe=[">", "kupool.>"])
        peer = self.session()
        self.ask(peer, "subscribe", topics=["kupool.job", "t"])
        self.assertFalse(self.told())
        for end in (
            lambda p: self.ask(p, "unsubscribe", topics=["*.*.accepted"]),
            MemoryPeer.close,
        ):
            self.ask(peer, "subscribe", topics=["kupool.submission.*", "*.*.accepted"])
            self.assertTrue(self.told())
            self.ask(peer, "unsubscribe", topics=["kupool.submission.*"])
            self.assertTrue(self.told())
            end(peer)
            self.assertFalse(self.told())

    def test_no_timers_and_no_events(self) -> None:
        with_bus = len(self.network.getDelayedCalls())
        self.session().close()
        self.network.run(self.daemon.status.rotate())
        status = self.broker.status()
        self.assertEqual((status.counts, status.topics, status.subscribers), ({}, (), ()))
        self.assertFalse(self.told())
        self.stop()
        self.start(bus="off")
        self.assertEqual(len(self.network.getDelayedCalls()), with_bus)
