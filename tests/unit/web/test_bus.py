"""Publishing by HTTP."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import fail
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from kupool.bus import Answer, BusError, Message, NotMine, Refusal
from kupool.bus.local import LocalBus
from kupool.errors import FORBIDDEN
from kupool.web.answers import ApiResource, NotFound
from kupool.web.bus import bus_routes
from kupool.web.control import KnownHosts
from kupool.web.visitors import VisitorGate


class BusCase(SynchronousTestCase):
    """A bus on a fake clock, with a few handlers, and a way to ask for its routes."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.bus = LocalBus(self.clock, wall=self.clock.seconds)
        self.heard: list[Message] = []
        for topic, answer in (
            ("echo", None),
            ("bytes", Answer(b"\xff", 7)),
            ("7", Refusal("no")),
            ("other", NotMine()),
        ):
            self.bus.subscribe([topic], lambda m, answer=answer: self.answer(m, answer))

    def answer(self, message: Message, answer: Any) -> Any:
        self.heard.append(message)
        if isinstance(answer, Exception):
            raise answer
        return message.data[::-1] if answer is None else answer

    def ask(
        self,
        body: Any = None,
        method: bytes = b"POST",
        query: dict[bytes, list[bytes]] | None = None,
        sent: dict[str, str] | None = None,
        path: str = "/bus/publish",
        token: str = "",
        origins: Sequence[str] = (),
        goes: bool = False,
        **options: Any,
    ) -> tuple[int, Any, Any]:
        routes = bus_routes(self.bus, VisitorGate(KnownHosts(), token, origins), **options)
        name = max((p for p in routes if path.startswith(p)), key=len)
        below = path.removeprefix(name).lstrip("/").encode()
        request = DummyRequest(below.split(b"/") if below else [])
        request.method = method
        request.path = path.encode()
        request.getCookie = lambda name: None  # which this request of Twisted's lacks
        request.args = query or {}
        request.content = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        sent = {"host": "localhost", "content-type": "application/json", **(sent or {})}
        for header, value in sent.items():
            request.requestHeaders.setRawHeaders(header, [value])
        route = routes[name] if routes[name].isLeaf or not below else NotFound()
        assert isinstance(route, ApiResource)
        route.render(request)
        self.clock.advance(0)
        if goes:
            request.processingFailed(Failure(ConnectionLost()))
            return 0, len(self.bus.broker.listening("t")), self.bus.broker.status().calls
        self.clock.advance(3.0)
        self.assertEqual(request.finished, 1, "one answer")
        answer = b"".join(request.written)
        return request.responseCode or 200, json.loads(answer), request.responseHeaders

    def look(self, path: str, **options: Any) -> tuple[int, Any]:
        code, answer, _ = self.ask(method=b"GET", path=path, **options)
        return code, answer


class BusPublishingTests(BusCase):
    """A-36: all four models, one answer."""

    def test_a_visitor_who_goes(self) -> None:
        """Issue 13: a call ends with the connection of its publisher."""
        body = {"topic": "nobody", "action": "reliable-random", "timeout_ms": 3_600_000}
        _, _, calls = self.ask(body, goes=True)
        self.assertEqual(calls, 0)
        self.assertEqual(self.bus.broker.status().counts["cancelled"], 1)

    def test_models(self) -> None:
        for action in ("reliable-random", "reliable-specific"):
            code, answer, _ = self.ask({"topic": "echo", "action": action, "body": "名a"})
            self.assertEqual((code, answer["outcome"], answer["status"]), (200, "answered", 0))
        code, answer, _ = self.ask(
            {"cmd": "echo", "action": "reliable-random", "body": "YWI=", "base64": True}
        )
        self.assertEqual((code, answer["body"]), (200, "ba"))
        for action in ("unreliable-all", "unreliable-random"):
            code, answer, _ = self.ask({"topic": "echo", "action": action, "body": "x"})
            self.assertEqual((code, answer), (202, {"outcome": "sent", "receivers": 1}))
        self.assertEqual(
            [m.model.value for m in self.heard],
            ["reliable-random", "reliable-specific", "reliable-random", "unreliable-all",
             "unreliable-random"],
        )  # fmt: skip

    def test_outcomes(self) -> None:
        """A-22, A-36: distinct codes."""
        for topic, code, outcome in (
            ("bytes", 200, "answered"),
            (7, 409, "refused"),
            ("other", 503, "no subscriber"),
            ("nobody", 503, "no subscriber"),
        ):
            found, answer, _ = self.ask({"topic": topic, "action": "reliable-random"})
            self.assertEqual((found, answer["outcome"]), (code, outcome))
        code, answer, _ = self.ask({"topic": "bytes", "action": "reliable-specific"})
        self.assertEqual((answer["body"], answer["base64"], answer["status"]), ("/w==", True, 7))

    def test_bad_requests(self) -> None:
        """A-36: what is wrong is named, and nothing is published."""
        good = {"topic": "echo", "action": "reliable-random"}
        for bad, named in (
            ({**good, "action": "best"}, "best"),
            ({"topic": "echo"}, "None"),
            ({"action": "unreliable-all"}, "topic"),
            ({**good, "topic": "a.*"}, "wildcard"),
            ({**good, "body": 7}, "body"),
            ({**good, "body": "!", "base64": True}, "body"),
            ({**good, "timeout_ms": "soon"}, "timeout_ms"),
            ({**good, "timeout_ms": 1}, "timeout_ms: 1 is not from 10 to 3600000"),
            ({**good, "timeout_ms": 1e9}, "timeout_ms"),
            ({**good, "timeout_ms": True}, "timeout_ms"),
            # Issue 12: larger than any float.
            ({**good, "timeout_ms": 10**400}, "timeout_ms: 1000000000"),
            ({**good, "timeout_ms": -(10**400)}, "is not from 10 to 3600000"),
            ({**good, "body": "x" * 45_001}, "data: 45001 bytes"),
            ({**good, "topic": "a b"}, "topic"),
            ({**good, "topic": None}, "topic"),
            ({**good, "headers": []}, "headers"),
        ):
            code, answer, _ = self.ask(bad)
            self.assertEqual(code, 400, bad)
            self.assertIn(named, answer["error"])
        self.assertEqual(self.ask(good, sent={"content-type": "text/plain"})[0], 415)
        for no_json in (b"{not json", b"[1]", b"\xff", b"[" * 50_000):
            code, answer, _ = self.ask(no_json)
            self.assertEqual((code, answer), (400, {"error": "body: must be a JSON object"}))
        self.assertEqual(self.heard, [])

    def test_get(self) -> None:
        """A-36: in development only."""
        query = {b"cmd": [b"echo"], b"action": [b"reliable-random"], b"body": [b"ab"]}
        self.assertEqual(self.ask(method=b"GET", query=query)[0], 405)
        code, answer, _ = self.ask(method=b"GET", query=query, by_get=True)
        self.assertEqual((code, answer["body"]), (200, "ba"))

    def test_who_may(self) -> None:
        """A-38: a token, known hosts, and an allow-list of pages elsewhere."""
        good = {"topic": "echo", "action": "unreliable-all"}
        for sent, options, wanted in (
            ({}, {"token": "s"}, 401),
            ({"authorization": "Bearer x"}, {"token": "s"}, 401),
            ({"authorization": "Bearer s"}, {"token": "s"}, 202),
            ({"host": "evil.example"}, {}, 403),
            ({"origin": "https://evil.example"}, {}, 403),
            ({"origin": "http://localhost:8081"}, {}, 202),
            # From a proxy that speaks TLS to browsers.
            ({"origin": "https://localhost"}, {}, 202),
            ({"origin": "null"}, {}, 403),
            ({"origin": "https://good.example"}, {"origins": ["https://GOOD.example:443"]}, 202),
        ):
            code, _, headers = self.ask(good, sent=sent, **options)
            self.assertEqual(code, wanted, sent)
            allowed = headers.getRawHeaders("access-control-allow-origin")
            self.assertEqual(allowed, ["https://good.example"] if "origins" in options else None)
            self.assertFalse(headers.hasHeader("access-control-allow-credentials"))
        code, _, headers = self.ask(
            method=b"OPTIONS",
            sent={"origin": "https://good.example"},
            origins=["https://good.example"],
        )
        self.assertEqual(code, 200)
        self.assertEqual(headers.getRawHeaders("access-control-allow-methods"), ["POST"])
        for wrong in ("*", "good.example", "https://good.example/page"):
            self.assertRaises(ValueError, VisitorGate, KnownHosts(), "", [wrong])

    def test_topics_that_are_kept(self) -> None:
        """A-38: the server's own topics are published by itself alone."""

        def refuse(topic: str) -> Any:
            return FORBIDDEN.about(f"topic {topic!r}") if topic == "echo" else None

        good = {"topic": "echo", "action": "unreliable-all"}
        code, answer, _ = self.ask(good, refuse=refuse)
        self.assertEqual((code, answer), (403, {"error": "forbidden: topic 'echo'"}))
        self.assertEqual(self.ask({**good, "topic": "bytes"}, refuse=refuse)[0], 202)
        self.assertEqual([message.topic for message in self.heard], ["bytes"])


class BusStatusTests(BusCase):
    """A-37, A-60: topics, subscribers, counts, last messages, and the way of each."""

    def test_status(self) -> None:
        for n in range(103):
            self.ask({"topic": "echo", "action": "unreliable-all", "body": f"message {n}"})
        self.ask({"topic": "nobody", "action": "unreliable-all", "body": "/w==", "base64": True})
        code, status = self.look("/bus/status")
        self.assertEqual(code, 200)
        echo, nobody = status["topics"]
        self.assertEqual((echo["topic"], nobody["topic"]), ("echo", "nobody"))
        self.assertEqual(echo["counts"], {"published": 103, "delivered": 103})
        self.assertEqual(nobody["counts"], {"published": 1, "buffered": 1, "expired": 1})
        self.assertEqual(len(echo["recent"]), 100)
        last = echo["recent"][-1]
        self.assertEqual(
            (last["start"], last["size"], last["model"], last["outcome"]),
            ("message 102", 11, "unreliable-all", "delivered"),
        )
        self.assertEqual(last["at"], "1970-01-01T00:05:06.000Z")
        self.assertEqual(nobody["recent"][0]["start"], "\ufffd")
        self.assertEqual(status["subscriber_count"], 4)
        self.assertEqual(
            status["subscribers"][0],
            {"id": "local/1", "since": "1970-01-01T00:00:00Z", "topics": ["echo"],
             "unanswered": 0},
        )  # fmt: skip
        code, one = self.look("/bus/status", query={b"topic": [b"nobody"]})
        self.assertEqual((code, one["topics"]), (200, [nobody]))
        code, answer = self.look("/bus/status", query={b"colour": [b"red"]})
        self.assertEqual((code, answer["error"]), (400, "colour: unknown parameter"))

    def test_trace(self) -> None:
        """A-60: by the message's id, and by the header ``trace-id``, slashes and all."""
        self.ask({"topic": "echo", "action": "reliable-random", "headers": {"trace-id": "order/7"}})
        code, trace = self.look("/bus/trace/order/7")
        self.assertEqual((code, trace["id"]), (200, "order/7"))
        self.assertEqual(
            [(step["event"], step["subscriber"]) for step in trace["steps"]],
            [("published", ""), ("offered", "local/1"), ("answered", "")],
        )
        self.assertRegex(trace["steps"][0]["at"], r"^1970-01-01T00:00:0\d\.000Z$")
        for path in ("/bus/trace/nothing", "/bus/trace"):
            self.assertEqual(self.look(path)[0], 404)

    def test_who_may(self) -> None:
        """A-38: whoever may not publish may not look either."""
        for path in ("/bus/status", "/bus/trace/x"):
            self.assertEqual(self.look(path, token="s")[0], 401)
            self.assertEqual(self.look(path, sent={"host": "evil.example"})[0], 403)
            self.assertEqual(self.look(path, sent={"origin": "https://evil.example"})[0], 403)
            code, _, headers = self.ask(
                method=b"OPTIONS", path=path, sent={"origin": "https://evil.example"}
            )
            self.assertEqual(code, 403)
            self.assertFalse(headers.hasHeader("access-control-allow-origin"))
        sent = {"authorization": "Bearer s"}
        self.assertEqual(self.look("/bus/status", token="s", sent=sent)[0], 200)

    def test_a_bus_that_is_away(self) -> None:
        """A-37: is said, as what it is."""
        self.patch(self.bus, "status", lambda: fail(BusError("not connected")))
        self.assertEqual(self.look("/bus/status"), (503, {"error": "bus: not connected"}))
