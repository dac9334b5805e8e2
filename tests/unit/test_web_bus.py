"""Publishing by HTTP."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from kupool.bus import Answer, Message, NotMine, Refusal
from kupool.bus.local import LocalBus
from kupool.web.bus import BusPublishing
from kupool.web.control import Hosts


class BusPublishingTests(SynchronousTestCase):
    """A-36: all four models, one answer."""

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
        **options: Any,
    ) -> tuple[int, Any, Any]:
        import io

        request = DummyRequest([b"bus", b"publish"])
        request.method = method
        request.path = b"/bus/publish"
        request.args = query or {}
        request.content = io.BytesIO(json.dumps(body).encode())
        sent = {"host": "localhost", "content-type": "application/json", **(sent or {})}
        for name, value in sent.items():
            request.requestHeaders.setRawHeaders(name, [value])
        publishing = BusPublishing(self.bus, Hosts(), **options)
        publishing.route().render(request)
        self.clock.advance(0)
        self.clock.advance(3.0)
        self.assertEqual(request.finished, 1, "one answer")
        return (
            request.responseCode or 200,
            json.loads(b"".join(request.written)),
            request.responseHeaders,
        )

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
            ({**good, "body": "!", "base64": True}, ""),
            ({**good, "timeout_ms": "soon"}, "timeout_ms"),
            ({**good, "timeout_ms": 1}, "timeout"),
            ({**good, "headers": []}, "headers"),
        ):
            code, answer, _ = self.ask(bad)
            self.assertEqual(code, 400, bad)
            self.assertIn(named, answer["error"])
        self.assertEqual(self.ask(good, sent={"content-type": "text/plain"})[0], 415)
        self.assertEqual(self.heard, [])

    def test_get(self) -> None:
        """A-36: in development only."""
        query = {b"cmd": [b"echo"], b"action": [b"reliable-random"], b"body": [b"ab"]}
        self.assertEqual(self.ask(method=b"GET", query=query)[0], 405)
        code, answer, _ = self.ask(method=b"GET", query=query, development=True)
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
            ({"origin": "https://good.example"}, {"origins": ["https://good.example"]}, 202),
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
