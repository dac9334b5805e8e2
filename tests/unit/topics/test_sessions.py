"""Topics for sessions: every framing, connections that end, and what one session may have."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.net.interfaces import IClosingObserver
from kupool.net.manager import ServerSettings
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork, MemoryPeer
from kupool.permissions.grants import parse_grant
from kupool.permissions.table import PermissionTable
from kupool.topics.api.access import Caller
from kupool.topics.api.table import OPERATIONS, TopicApi
from kupool.topics.sessions import (
    LAST_FETCHES,
    TOO_MANY_FETCHES,
    SessionFetchLimits,
    TopicSessions,
)
from tests.fakes.topic_api import caller_of, topic_world


class SessionsCase(SynchronousTestCase):
    """A server whose sessions may use topics and groups whose names begin with ``a``."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.world = topic_world(self.network)
        self.noted: list[tuple[str, str, str]] = []
        note = lambda *refusal: self.noted.append(refusal)  # noqa: E731
        self.api = TopicApi(self.world, note)
        rules = [f"* log.{action} a" for action in ("publish", "subscribe", "manage", "group")]
        table = PermissionTable(map(parse_grant, rules))

        def caller(connection: Any) -> Caller:
            return caller_of(table, "ann", "worker")._replace(host=connection.host)

        self.router = Router()
        self.sessions = TopicSessions(
            self.api, self.router, caller, limits=SessionFetchLimits(3, 1000), note=note
        )
        settings = ServerSettings(idle_timeout=0)
        self.server = Server(self.network, self.sessions, settings)
        self.network.run(self.server.listen(["tcp:8000"]))
        self.addCleanup(self.end)

    def end(self) -> None:
        self.api.close()
        self.world.groups.close()
        self.world.transactions.close()
        self.network.run(self.server.stop(), patience=10)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def connect(self, framing: str = "line") -> MemoryPeer:
        return self.network.connect(8000, framing)

    def ok(self, peer: MemoryPeer, method: str, **params: Any) -> Any:
        answer = peer.ask(method, params)
        self.assertNotIn("error", answer)
        return answer["result"]

    def refused(self, peer: MemoryPeer, method: str, **params: Any) -> tuple[int, str]:
        answer = peer.ask(method, params)
        self.assertIs(answer["result"], False)
        return answer["code"], answer["error"]

    def wait(self, peer: MemoryPeer, **more: Any) -> int:
        given = {"topic": "a", "partition": 0, "offset": 0, "wait_ms": 60_000, "max_bytes": 100}
        return peer.request("log.fetch", {**given, **more})


class MethodTests(SessionsCase):
    """Q-60, Q-63, Q-66."""

    def test_interface(self) -> None:
        verifyObject(IClosingObserver, self.sessions)

    def test_every_operation_is_a_method(self) -> None:
        """Q-63"""
        self.assertEqual(
            [route.key for route in self.router.routes], [each.name for each in OPERATIONS]
        )

    def test_every_framing(self) -> None:
        """Issue 16, build 1: the same messages in each."""
        for number, framing in enumerate(("line", "frame", "int32")):
            peer = self.connect(framing)
            if not number:
                self.ok(peer, "topic.create", topic="a")
            written = self.ok(peer, "log.produce", topic="a", value=framing)
            self.assertEqual(written, {"written": [{"partition": 0, "offset": number}]})
            found = self.ok(peer, "log.fetch", topic="a", partition=0, offset=number)
            self.assertEqual(found["records"][0]["value"], framing)

    def test_params(self) -> None:
        """Q-62: those that all have a default may be left out; the others are named."""
        peer = self.connect()
        for method in ("log.capabilities", "topic.list", "group.list", "log.begin"):
            self.assertIn("result", peer.ask(method))
            answer = peer.ask(method, None)
            self.assertNotIn("error", answer)
        for given, said in (
            ({}, "bad params: topic is required"),
            ({"topic": 7}, "bad params: topic: expected str, got int"),
            ({"topic": "a", "partition": -1}, "bad params: partition: expected int >= 0"),
            ({"topic": "a", "partition": 0, "offset": 2**70}, "bad params: offset: "),
            ({"topic": "a", "partition": 0, "wait_ms": 60_001}, "bad params: wait_ms: "),
            ({"topic": "a" * 250}, "bad params: topic: "),
        ):
            code, text = self.refused(peer, "log.fetch", **given)
            self.assertEqual((code, text[: len(said)]), (32, said))

    def test_many_at_once(self) -> None:
        """Q-60: requests of one connection overtake one that waits."""
        peer = self.connect()
        self.ok(peer, "topic.create", topic="a")
        waiting = self.wait(peer)
        self.ok(peer, "log.offsets", topic="a")
        self.assertEqual(peer.messages(), [])
        self.ok(self.connect(), "log.produce", topic="a", value="b")
        self.network.settle()
        (answer,) = peer.messages()
        self.assertEqual((answer["id"], answer["result"]["next"]), (waiting, 1))

    def test_what_is_not_permitted(self) -> None:
        peer = self.connect()
        self.assertEqual(
            self.refused(peer, "log.fetch", topic="b", partition=0, offset=0),
            (33, "forbidden: log.subscribe b"),
        )
        self.assertEqual(self.noted, [("topics, not permitted", peer.memory.getHost().host, "ann")])


class ConnectionTests(SessionsCase):
    """Issue 16, build 1: what ends with a connection, and what does not."""

    def setUp(self) -> None:
        super().setUp()
        self.ok(self.connect(), "topic.create", topic="a")

    def timers(self) -> int:
        return len(self.network.getDelayedCalls())

    def test_a_fetch_ends_with_its_connection(self) -> None:
        before = self.timers()
        peer = self.connect()
        self.wait(peer), self.wait(peer)
        self.assertEqual(self.timers(), before + 2)
        peer.abort()
        self.assertEqual(self.timers(), before)

    def test_a_fetch_ends_soon_after_its_peer_has_finished_sending(self) -> None:
        """Whether it waits for the answer cannot be known, as if a process has ended."""
        before = self.timers()
        peer = self.connect()
        self.wait(peer)
        peer.finish()
        self.network.advance(LAST_FETCHES - 0.1)
        self.assertTrue(peer.open)
        self.network.advance(0.2)
        self.assertEqual([each["code"] for each in peer.messages()], [27])
        self.assertEqual((peer.open, self.timers()), (False, before))

    def test_a_peer_that_has_finished_sending_gets_its_answer(self) -> None:
        """As of ``nc``, which closes its side behind the last line."""
        peer = self.connect()
        self.wait(peer)
        peer.finish()
        self.assertTrue(peer.open)
        self.ok(self.connect(), "log.produce", topic="a", value="b")
        self.network.settle()
        (answer,) = peer.messages()
        self.assertEqual(answer["result"]["next"], 1)
        self.assertFalse(peer.open)

    def test_a_member_outlives_its_connection(self) -> None:
        """Q-44: until its session times out; it goes on over another connection."""
        peer = self.connect()
        joined = self.ok(peer, "group.join", group="a", topics=["a"], member="m")
        peer.abort()
        beat = {"group": "a", "member": "m", "generation": joined["generation"]}
        self.network.advance(5)
        self.assertEqual(self.ok(self.connect(), "group.heartbeat", **beat), joined)
        for _ in range(21):
            self.network.advance(0.5)
        self.assertEqual(self.refused(self.connect(), "group.heartbeat", **beat)[0], 35)


class LimitTests(SessionsCase):
    """Issue 16: a session cannot make the server keep any number of answers."""

    def setUp(self) -> None:
        super().setUp()
        self.ok(self.connect(), "topic.create", topic="a")

    def test_the_number_of_fetches(self) -> None:
        peer = self.connect()
        for _ in range(3):
            self.wait(peer)
        refusal = (34, "too many requests: fetches of one session")
        given = {"topic": "a", "partition": 0, "offset": 0}
        self.assertEqual(self.refused(peer, "log.fetch", **given), refusal)
        self.assertEqual(self.noted[0][0], TOO_MANY_FETCHES)
        self.ok(peer, "log.offsets", topic="a")
        self.ok(self.connect(), "log.fetch", **given)
        self.ok(self.connect(), "log.produce", topic="a", value="b")
        self.ok(peer, "log.fetch", **given)

    def test_their_size(self) -> None:
        peer = self.connect()
        self.wait(peer, max_bytes=5000)  # one alone may be as large as it likes
        given = {"topic": "a", "partition": 0, "offset": 0, "max_bytes": 100}
        refusal = (34, "too many requests: data in fetches of one session")
        self.assertEqual(self.refused(peer, "log.fetch", **given), refusal)
        self.sessions.limits = SessionFetchLimits(3, 6000)
        self.ok(peer, "log.fetch", **given)
