"""A client's subscriptions, with a connection that notes what is asked and sent."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import BusError, BusSettings, Message, Refusal
from kupool.bus.interfaces import Subscription
from kupool.bus.remote.listening import RemoteListening
from kupool.wire.incoming import ServerMessage


class Link:
    """A connection that notes what is sent over it."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, payload: bytes) -> None:
        self.sent.append(json.loads(payload))


class ListeningCase(SynchronousTestCase):
    """A client that is connected, and what it has asked of the server."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.link: Link | None = Link()
        self.refusal = ""
        #: Each request: the method, its parameters, and the function that takes the reply.
        self.asked: list[tuple[str, Any, Any]] = []
        self.heard: list[bytes] = []
        self.listening = RemoteListening(
            self.clock,
            BusSettings(),
            lambda: cast(Any, self.link),
            ask=self.ask,
            refusal=lambda: self.refusal,
        )

    def ask(self, link: Any, method: str, params: object, replied: Any) -> None:
        self.assertIs(link, self.link)
        self.asked.append((method, params, replied))

    def requests(self) -> list[tuple[str, Any, Any]]:
        asked, self.asked = self.asked, []
        return asked

    def handler(self, message: Message) -> bytes:
        self.heard.append(message.data)
        return b"yes"

    def reply(self, replied: Any, result: object = True) -> None:
        replied(ServerMessage(id=1, result=msgspec.Raw(json.dumps(result).encode())))

    def call(self, call_id: str | None, **params: Any) -> None:
        """Have the server send a call."""
        body = {"topic": "t", "message": "m", "model": "reliable-random", "timeout_ms": 1000}
        assert self.link is not None
        encoded = msgspec.Raw(json.dumps({**body, **params}).encode())
        message = ServerMessage(id=call_id, method="call", params=encoded)
        self.listening.called(cast(Any, self.link), message)
        self.clock.advance(0)


class RequestTests(ListeningCase):
    """A-05, A-30: a request has 12,000 bytes of topics and of keys, and 50 of each, at most."""

    def counts(self, topics: list[str], keys: list[str]) -> list[tuple[int, int]]:
        """Return how many topics and keys are in each request of a subscription."""
        self.listening.subscribe(topics, lambda message: b"", keys)
        asked = self.requests()
        self.assertEqual({method for method, _, _ in asked}, {"bus.subscribe"})
        self.assertEqual({params.subscriber for _, params, _ in asked}, {asked[0][1].subscriber})
        return [(len(params.topics), len(params.keys)) for _, params, _ in asked]

    def texts(self, *sizes: int) -> list[str]:
        """Return different texts that have these sizes as JSON, each with its comma."""
        return [f"{n:03}".ljust(size - 3, "x") for n, size in enumerate(sizes)]

    def test_as_many_as_fit(self) -> None:
        full, more = [250] * 48, [250] * 47 + [251]
        self.assertEqual(self.counts(self.texts(*full), []), [(48, 0)])
        self.assertEqual(self.counts(self.texts(*more), []), [(47, 0), (1, 0)])
        self.assertEqual(self.counts(["t"], self.texts(*full)), [(1, 48)])
        self.assertEqual(self.counts(["t"], self.texts(*more)), [(1, 47), (1, 1)])

    def test_as_many_as_are_allowed(self) -> None:
        self.assertEqual(self.counts(self.texts(*[10] * 50), []), [(50, 0)])
        self.assertEqual(self.counts(self.texts(*[10] * 51), []), [(50, 0), (1, 0)])

    def test_keys_for_more_requests_than_topics(self) -> None:
        """A request has to name a topic: it is the first one again."""
        self.listening.subscribe(["a", "b"], self.handler, self.texts(*[10] * 51))
        self.assertEqual([params.topics for _, params, _ in self.requests()], [["a", "b"], ["a"]])

    def test_the_last_reply_counts(self) -> None:
        done = self.listening.subscribe(self.texts(*[10] * 51), self.handler, ())
        first, last = self.requests()
        self.reply(first[2], {"subscriber": "1/0", "topics": ["part"]})
        self.assertNoResult(done)
        self.reply(last[2], {"subscriber": "1/0", "topics": ["all"]})
        self.assertEqual(self.successResultOf(done), Subscription("1/0", ("all",)))

    def test_unsubscribing_in_parts(self) -> None:
        """A-30: the last reply counts here, too; with nothing left it is one request."""
        topics = self.texts(*[10] * 102)
        self.listening.subscribe(topics, self.handler, ())
        self.requests()
        done = self.listening.unsubscribe(self.handler, topics[:101])
        asked = self.requests()
        self.assertEqual({method for method, _, _ in asked}, {"bus.unsubscribe"})
        self.assertEqual([len(params.topics) for _, params, _ in asked], [50, 50, 1])
        for _, _, replied in asked[:2]:
            self.reply(replied)
        self.assertNoResult(done)
        self.reply(asked[2][2])
        self.successResultOf(done)
        self.listening.unsubscribe(self.handler, topics[101:])
        self.assertEqual([params.topics for _, params, _ in self.requests()], [None])

    def test_unsubscribing_from_nothing(self) -> None:
        """The server is not asked."""
        self.successResultOf(self.listening.unsubscribe(self.handler, None))
        self.listening.subscribe(["a"], self.handler, ())
        self.requests()
        self.successResultOf(self.listening.unsubscribe(self.handler, []))
        self.assertEqual(self.requests(), [])


class WithoutConnectionTests(ListeningCase):
    """A-05: what is asked without a connection."""

    def setUp(self) -> None:
        super().setUp()
        self.link = None

    def test_unsubscribed_before_there_is_one(self) -> None:
        """Who waits for the subscription hears that it has no topic."""
        waiting = self.listening.subscribe(["a"], self.handler, ())
        self.assertNoResult(waiting)
        self.successResultOf(self.listening.unsubscribe(self.handler, None))
        self.assertEqual(self.successResultOf(waiting), Subscription("", ()))
        self.assertEqual(self.requests(), [])

    def test_there_will_be_none(self) -> None:
        waiting = self.listening.subscribe(["a"], self.handler, ())
        self.refusal = "banned"
        self.listening.gone()
        later = self.listening.subscribe(["b"], self.handler, ())
        for failed in (waiting, later):
            self.assertEqual(str(self.failureResultOf(failed, BusError).value), "banned")

    def test_lost_before_the_reply(self) -> None:
        """The next connection subscribes anew, and its reply counts."""
        self.link = Link()
        waiting = self.listening.subscribe(["a"], self.handler, ["k"])
        ((_, _, replied),) = self.requests()
        replied(None)
        self.assertNoResult(waiting)
        self.listening.up(cast(Any, self.link))
        ((_, params, replied),) = self.requests()
        self.assertEqual((params.topics, params.keys), (["a"], ["k"]))
        self.reply(replied, {"subscriber": "2/0", "topics": ["a"]})
        self.assertEqual(self.successResultOf(waiting), Subscription("2/0", ("a",)))

    def test_lost_before_the_reply_and_unsubscribed(self) -> None:
        self.link = Link()
        waiting = self.listening.subscribe(["a"], self.handler, ())
        ((_, _, replied),) = self.requests()
        self.link = None
        self.listening.unsubscribe(self.handler, None)
        replied(None)
        error = self.failureResultOf(waiting, BusError).value
        self.assertEqual(str(error), "unsubscribed meanwhile")

    def test_closed(self) -> None:
        waiting = self.listening.subscribe(["a"], self.handler, ())
        self.listening.close()
        error = self.failureResultOf(waiting, BusError).value
        self.assertEqual(str(error), "the bus is closed")
        with self.assertRaisesRegex(ValueError, "^the bus is closed$"):
            self.listening.subscribe(["a"], self.handler, ())
        self.link = Link()
        self.listening.up(cast(Any, self.link))
        self.assertEqual(self.requests(), [])


class CallTests(ListeningCase):
    """A-09, A-18: what the server sends to a subscription."""

    def setUp(self) -> None:
        super().setUp()
        self.listening.subscribe(["t"], self.handler, ())
        self.name = self.requests()[0][1].subscriber

    def sent(self) -> list[Any]:
        assert self.link is not None
        sent, self.link.sent = self.link.sent, []
        return sent

    def test_answered(self) -> None:
        self.call("1.0", subscriber=self.name, data="one")
        self.assertEqual(self.sent(), [{"id": "1.0", "result": {"data": "yes"}}])
        self.call(None, subscriber=self.name, data="two", model="unreliable-all")
        self.assertEqual((self.heard, self.sent()), ([b"one", b"two"], []))

    def test_refused(self) -> None:
        def refuse(message: Message) -> bytes:
            raise Refusal("not you")

        self.listening.subscribe(["t"], refuse, ())
        self.call("1.0", subscriber=self.requests()[0][1].subscriber)
        error = {"result": False, "error": "forbidden: not you", "code": 33}
        self.assertEqual(self.sent(), [{"id": "1.0", **error}])

    def test_params_that_cannot_be_read(self) -> None:
        """A call is answered with what is wrong; a notification is passed over."""
        for call_id in ("1.0", None):
            self.call(call_id, subscriber=self.name, data="!", base64=True)
        (answer,) = self.sent()
        self.assertEqual((answer["id"], answer["code"]), ("1.0", 32))
        self.assertRegex(answer["error"], "^bad params: data: ")

    def test_not_for_this_client(self) -> None:
        """Neither for another subscriber, nor on another topic."""
        self.call("1.0", subscriber="other")
        self.call("2.0", subscriber=self.name, topic="u")
        self.call(None, subscriber=self.name, topic="u", model="unreliable-all")
        error = {"result": False, "error": "not found: not mine", "code": 35}
        self.assertEqual(self.sent(), [{"id": "1.0", **error}, {"id": "2.0", **error}])
        self.assertEqual(self.heard, [])

    def test_closed_before_it_was_handled(self) -> None:
        """What waits for the handler is dropped."""
        body = {"topic": "t", "message": "m", "model": "unreliable-all", "subscriber": self.name}
        encoded = msgspec.Raw(json.dumps(body).encode())
        message = ServerMessage(method="call", params=encoded)
        self.listening.called(cast(Any, self.link), message)
        self.listening.close()
        self.clock.advance(0)
        self.assertEqual(self.heard, [])
        self.call("1.0", subscriber=self.name)
        (answer,) = self.sent()
        self.assertEqual(answer["error"], "not found: not mine")
