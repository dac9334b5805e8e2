"""The server side of the bus, with raw peers."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import BusSettings
from kupool.bus.local import LocalBus
from kupool.bus.remote.service import BusService
from kupool.bus.settings import PeerLimits
from kupool.errors import GOING_DOWN
from kupool.net import Server
from kupool.net.testing import MemoryNetwork, MemoryPeer

#: A call as raw peers publish it.
CALL = {"topic": "t", "model": "reliable-random"}


class ServiceCase(SynchronousTestCase):
    settings = BusSettings()

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.core = LocalBus(
            self.network, self.settings, wall=self.network.seconds, random=Random(13)
        )
        self.service = self.serve(8000)

    def serve(self, port: int, **options: Any) -> BusService:
        """Serve the bus at one more port."""
        service = BusService(self.core.broker, **options)
        self.server = Server(self.network, service)
        self.network.run(self.server.listen([f":{port}"]))
        return service

    def peer(self, port: int = 8000) -> MemoryPeer:
        return self.network.connect(port, "line")

    def ask(self, peer: MemoryPeer, method: str, **params: Any) -> Any:
        reply = peer.ask(f"bus.{method}", params)
        return reply["result"] if "error" not in reply else (reply["code"], reply["error"])

    def call(self, peer: MemoryPeer) -> Any:
        (call,) = [m for m in peer.messages() if m.get("method") == "call"]
        return call

    def worker(self) -> MemoryPeer:
        peer = self.peer()
        self.ask(peer, "subscribe", topics=["t"])
        return peer

    def say(self, peer: MemoryPeer, **message: Any) -> None:
        peer.tell(json.dumps(message).encode())

    @property
    def open_calls(self) -> int:
        return self.core.broker.status().calls


class PublishTests(ServiceCase):
    """A-09, A-21: what a publisher may ask for, and what its subscribers get."""

    def test_the_time_of_a_call(self) -> None:
        """From 10 ms to an hour; the subscriber gets the same."""
        worker, publisher = self.worker(), self.peer()
        for milliseconds in (10, 2500, 3_600_000):
            publisher.request("bus.publish", {**CALL, "timeout_ms": milliseconds})
            call = self.call(worker)
            self.assertEqual(call["params"]["timeout_ms"], milliseconds)
            self.say(worker, id=call["id"], result=True)
        publisher.messages()
        for wrong, text in ((9.99, "9.99"), (3_600_001, "3.6e+06"), (0, "0"), (-1, "-1")):
            code, error = self.ask(publisher, "publish", **CALL, timeout_ms=wrong)
            expected = f"bad params: timeout_ms: {text} is not from 10 to 3600000"
            self.assertEqual((code, error), (32, expected))

    def test_no_time_is_given(self) -> None:
        """A message without one, and with nothing else, has the defaults."""
        worker, publisher = self.worker(), self.peer()
        publisher.request("bus.publish", CALL)
        params = self.call(worker)["params"]
        self.assertEqual(params.pop("timeout_ms"), 3000.0)
        self.assertRegex(params.pop("message"), "^[0-9a-f]{16}$")
        self.assertEqual(params, CALL)

    def test_texts_that_are_too_long(self) -> None:
        """The error names them."""
        peer, text, long = self.peer(), "x" * 255, "x" * 256
        wrong = "is not printable text of at most 255"
        for method, name, params in (
            ("publish", "message", CALL),
            ("subscribe", "subscriber", {"topics": ["t"]}),
        ):
            code, error = self.ask(peer, method, **params, **{name: long})
            self.assertEqual(code, 32)
            self.assertTrue(error.startswith(f"bad params: {name}: "), error)
            self.assertTrue(error.endswith(wrong), error)
        self.assertIn("subscriber", self.ask(peer, "subscribe", topics=["t"], subscriber=text))
        publisher = self.peer()
        publisher.request("bus.publish", {**CALL, "message": text})
        self.assertEqual(len(peer.messages()), 1)

    def test_without_an_id(self) -> None:
        """A-31: a notification is delivered, and has no outcome."""
        worker, publisher = self.worker(), self.peer()
        self.say(publisher, method="bus.publish", params={**CALL, "data": "x"})
        call = self.call(worker)
        self.say(worker, id=call["id"], result=True)
        self.assertEqual((publisher.messages(), self.open_calls), ([], 0))


class ReplyTests(ServiceCase):
    """A-22: which messages are replies to a call."""

    def test_a_result_with_the_word_method(self) -> None:
        worker, publisher = self.worker(), self.peer()
        publisher.request("bus.publish", CALL)
        self.say(worker, id=self.call(worker)["id"], result={"data": "x", "method": "m"})
        (reply,) = publisher.messages()
        self.assertEqual(reply["result"]["data"], "x")

    def test_ids_that_are_not_quite_right(self) -> None:
        """Only the very id of the call counts."""
        worker, publisher = self.worker(), self.peer()
        publisher.request("bus.publish", CALL)
        call = self.call(worker)["id"]
        number, _, index = call.partition(".")
        for wrong in (f"0{call}", number, f"{number}.", f"{number}.1", f"{number}.{index}0",
                      f"{number}.x", f"{number}.{'0' * 30}", f"{number[1:]}.{index}",
                      f"{'g' * 16}.{index}"):  # fmt: skip
            self.say(worker, id=wrong, result="wrong")
        self.assertEqual(publisher.messages(), [])
        self.say(worker, id=call, result="right")
        (reply,) = publisher.messages()
        self.assertEqual(reply["result"]["data"], "right")
        self.assertEqual(worker.messages(), [])


class EndTests(ServiceCase):
    """A-03, A-20: what is left of a peer that goes."""

    def long_timers(self) -> list[Any]:
        """Return the timers of more than a second: a server has shorter ones of its own."""
        soon = self.network.seconds() + 1.0
        return [call for call in self.network.getDelayedCalls() if call.getTime() > soon]

    def test_one_that_sends_no_more(self) -> None:
        """It may wait for its outcomes for thirty seconds."""
        worker, publisher = self.worker(), self.peer()
        publisher.lingers = True
        publisher.request("bus.publish", {**CALL, "timeout_ms": 3_600_000})
        publisher.finish()
        self.network.advance(29.9)
        self.assertEqual(self.open_calls, 1)
        self.network.advance(0.2)
        self.assertEqual(self.open_calls, 0)
        self.call(worker)

    def test_one_that_gets_its_last_outcome(self) -> None:
        """No timer is left."""
        worker, publisher = self.worker(), self.peer()
        publisher.request("bus.publish", CALL)
        publisher.finish()
        self.say(worker, id=self.call(worker)["id"], result=True)
        self.assertFalse(publisher.open)
        publisher.abort()
        worker.abort()
        self.network.settle()
        self.assertEqual(self.long_timers(), [])

    def test_two_subscribers_of_one_that_goes(self) -> None:
        """What one of them had goes to another peer, and not first to its neighbour."""
        for end in (MemoryPeer.finish, self.told_to_go):
            worker, publisher = self.peer(), self.peer()
            for name in ("a", "b"):
                self.ask(worker, "subscribe", topics=["t"], subscriber=name)
            publisher.request("bus.publish", CALL)
            self.call(worker)
            end(worker)
            self.assertEqual([m for m in worker.messages() if m.get("method") == "call"], [])
            other = self.worker()
            self.say(other, id=self.call(other)["id"], result="yes")
            (reply,) = publisher.messages()
            self.assertEqual(reply["result"]["data"], "yes")
            other.abort()

    def test_a_subscriber_that_sends_no_more(self) -> None:
        """The calls in its hands go to others; its own still have their time."""
        worker, publisher = self.worker(), self.peer()
        worker.lingers = True
        worker.request("bus.publish", {**CALL, "topic": "nobody"})
        publisher.request("bus.publish", CALL)
        self.call(worker)
        worker.finish()
        self.assertEqual(self.open_calls, 2)
        self.assertTrue(self.call(self.worker())["params"]["redelivered"])

    def test_one_that_is_closed_and_does_not_go(self) -> None:
        """Its calls end at once, and those that it had go to others."""
        worker, publisher = self.worker(), self.peer()
        worker.lingers = True
        worker.request("bus.publish", {**CALL, "topic": "nobody"})
        publisher.request("bus.publish", CALL)
        self.call(worker)
        self.told_to_go(worker)
        self.assertTrue(worker.open)
        self.assertEqual(self.open_calls, 1)
        self.assertTrue(self.call(self.worker())["params"]["redelivered"])

    def told_to_go(self, peer: MemoryPeer) -> None:
        """Close the connection of the last peer but one."""
        *_, connection, _ = self.server.manager
        connection.close(GOING_DOWN)
        self.network.settle()

    def test_one_that_only_watches(self) -> None:
        """Its watches end with it, however it goes."""
        for end in (MemoryPeer.abort, MemoryPeer.close):
            peer = self.peer()
            self.assertEqual(self.ask(peer, "watch", topic="t"), {"valid_ms": 3000.0})
            end(peer)
            self.network.settle()
            self.assertEqual(self.long_timers(), [])

    def test_a_watch_that_ends(self) -> None:
        """A session with no other watch may be silent after that."""
        peer = self.peer()
        self.ask(peer, "watch", topic="t")
        self.assertIs(self.ask(peer, "unwatch", topic="t"), True)
        self.assertIs(self.ask(peer, "unwatch", topic="t"), True)
        self.network.advance(10.0)
        self.assertTrue(peer.open)

    def test_subscriptions_that_end_by_a_rule(self) -> None:
        """A-38: they are counted by the address of those that have no name."""
        peer = self.peer()
        self.ask(peer, "subscribe", topics=["a", "b"], subscriber="1")
        self.ask(peer, "subscribe", topics=["a"], subscriber="2")
        ended = self.service.end_subscriptions(lambda connection, topic: topic == "b")
        self.assertEqual(ended, {"192.0.2.1": 2})
        self.assertEqual([s.topics for s in self.core.broker.status().subscribers], [("b",)])


class LimitTests(ServiceCase):
    """A-13: the limits of a service."""

    settings = BusSettings(peers=PeerLimits(publishing=2))

    def refused(self, port: int, count: int) -> list[str]:
        """Publish so many calls over one connection; returns why some were refused."""
        peer = self.peer(port)
        for _ in range(count):
            peer.request("bus.publish", CALL)
        found = [message["error"] for message in peer.messages()]
        peer.abort()
        self.network.settle()
        return found

    def test_those_of_the_broker_or_others(self) -> None:
        refused = "too many requests: open calls of one session"
        self.serve(8001, limits=PeerLimits(publishing=3))
        self.assertEqual(self.refused(8000, 3), [refused])
        self.assertEqual(self.refused(8001, 4), [refused])

    def test_peers_without_a_name(self) -> None:
        """They have no share of a user: only their address has one."""
        self.service.limits = PeerLimits(user_calls=1, user_topics=1)
        self.assertEqual(self.refused(8000, 2), [])
        self.assertEqual(len(self.service.shares), 0)
        self.peer().request("bus.publish", CALL)
        self.assertEqual(len(self.service.shares), 1)

    def test_watched_topics(self) -> None:
        """A topic that is watched already is not one more."""
        self.service.limits = PeerLimits(subscribers=2)
        peer = self.peer()
        for topic in ("a", "b", "a"):
            self.assertEqual(self.ask(peer, "watch", topic=topic), {"valid_ms": 3000.0})
        refused = (34, "too many requests: watched topics of one session")
        self.assertEqual(self.ask(peer, "watch", topic="c"), refused)
        self.ask(peer, "unwatch", topic="a")
        self.assertEqual(self.ask(peer, "watch", topic="c"), {"valid_ms": 3000.0})


class StatusTests(ServiceCase):
    def test_the_first_page(self) -> None:
        """A-37: without params a status begins at its beginning."""
        peer = self.worker()
        status = self.ask(peer, "status")
        self.assertEqual([entry["id"] for entry in status["subscribers"]], ["1/0"])
        self.assertEqual(self.ask(peer, "status", start=1)["subscribers"], [])

    def test_a_trace(self) -> None:
        """A-37: the steps of a message, by the id that its publisher gave it."""
        peer = self.peer()
        self.ask(peer, "publish", topic="t", model="unreliable-all", message="m-1")
        steps = self.ask(peer, "trace", message="m-1")
        self.assertEqual([step["event"] for step in steps], ["published", "buffered"])
        self.assertEqual(self.ask(peer, "trace", message="m-2"), [])
