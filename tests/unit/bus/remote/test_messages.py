"""The requests and replies of the bus as JSON, byte by byte."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.calls import CallVerdict, Response
from kupool.bus.messages import Kind, Message, Model, Outcome
from kupool.bus.remote.messages import (
    AnswerBody,
    PublishParams,
    StatusParams,
    SubscribeParams,
    UnsubscribeParams,
    encode_call,
    encode_data,
    encode_outcome,
    encode_publish,
    read_call,
    read_outcome,
    read_reply,
    response_result,
    status_page,
)
from kupool.bus.status import BusStatus, SubscriberStatus, TopicStatus
from kupool.errors import ErrorText
from kupool.wire.incoming import ServerMessage

RELIABLE, UNRELIABLE = Model.RELIABLE_RANDOM, Model.UNRELIABLE_ALL


class DataTests(SynchronousTestCase):
    """A-07: bytes are text if they are text and base64 is not shorter."""

    def test_text_that_is_longer_than_base64(self) -> None:
        """Each quote takes two characters: with six of nine, base64 is shorter."""
        self.assertEqual(encode_data(b'"""""aaaa'), ('"""""aaaa', False))
        self.assertEqual(encode_data(b'""""""aaa'), ("IiIiIiIiYWFh", True))

    def test_bytes_that_are_no_text(self) -> None:
        self.assertEqual(encode_data(b"\xff"), ("/w==", True))


class RequestTests(SynchronousTestCase):
    """A-07: keys that have their default are left out, and mean the default where they are."""

    def test_publish(self) -> None:
        """The time counts only for a reliable message; it is in milliseconds."""
        reliable = Message("m", "t", b"", RELIABLE, {}, "", 9.0)
        self.assertEqual(
            encode_publish(5, reliable, 1.5, redelivered=False),
            b'{"id":5,"method":"bus.publish","params":'
            b'{"topic":"t","model":"reliable-random","timeout_ms":1500.0,"message":"m"}}',
        )
        unreliable = Message("m", "t", b"\xff", UNRELIABLE, {"a": "b"}, "k")
        self.assertEqual(
            encode_publish(6, unreliable, 1.5, redelivered=True),
            b'{"id":6,"method":"bus.publish","params":{"data":"/w==","base64":true,"topic":"t",'
            b'"model":"unreliable-all","key":"k","headers":{"a":"b"},"message":"m",'
            b'"redelivered":true}}',
        )

    def test_call(self) -> None:
        message = Message("m", "t", b"", UNRELIABLE, {})
        encoded = (
            b'{"id":null,"method":"call",'
            b'"params":{"topic":"t","message":"m","model":"unreliable-all"}}'
        )
        self.assertEqual(encode_call(None, message, ""), encoded)
        params = msgspec.json.decode(encoded, type=ServerMessage).params
        self.assertEqual(read_call(bytes(params)), ("", message))

    def test_the_time_of_a_call(self) -> None:
        """It is in milliseconds, rounded to three digits."""
        for seconds, text in (
            (3.0, b"3000.0"),
            (1.2345674, b"1234.567"),
            (1.2345676, b"1234.568"),
        ):
            encoded = encode_call("c.0", Message("m", "t", b"", RELIABLE, {}, "", seconds), "s")
            self.assertIn(b'"timeout_ms":' + text + b"}", encoded)
            params = msgspec.json.decode(encoded, type=ServerMessage).params
            subscriber, message = read_call(bytes(params))
            self.assertEqual((subscriber, message.timeout), ("s", float(text) / 1000))

    def test_what_is_left_out(self) -> None:
        cases: tuple[tuple[Any, bytes, dict[str, object]], ...] = (
            (
                PublishParams,
                b'{"topic":"t","model":"unreliable-all"}',
                {"data": "", "base64": False, "timeout_ms": None, "key": "", "headers": {},
                 "message": "", "redelivered": False},
            ),
            (SubscribeParams, b'{"topics":["t"]}', {"subscriber": "", "keys": []}),
            (UnsubscribeParams, b"{}", {"topics": None, "subscriber": ""}),
            (StatusParams, b"{}", {"start": 0}),
        )  # fmt: skip
        for form, encoded, expected in cases:
            params = msgspec.json.decode(encoded, type=form)
            found = {name: getattr(params, name) for name in expected}
            self.assertEqual(found, expected, form)


class OutcomeTests(SynchronousTestCase):
    """A-22: each outcome as its publisher gets it."""

    def test_both_ways(self) -> None:
        for outcome, encoded in (
            (Outcome(Kind.SENT, receivers=2), b'"result":{"outcome":"sent","receivers":2}'),
            (Outcome(Kind.SENT), b'"result":{"outcome":"sent"}'),
            (Outcome(Kind.REFUSED, reason="no"), b'"result":{"outcome":"refused","reason":"no"}'),
            (
                Outcome(Kind.ANSWERED, b"x", 3, subscriber="1/0"),
                b'"result":{"data":"x","outcome":"answered","status":3,"subscriber":"1/0"}',
            ),
            (Outcome(Kind.TIMEOUT), b'"result":false,"error":"timeout","code":37'),
            (Outcome(Kind.NO_SUBSCRIBER), b'"result":false,"error":"no subscriber","code":38'),
        ):
            encoded = b'{"id":5,' + encoded + b"}"
            self.assertEqual(encode_outcome(5, outcome), encoded)
            reply = msgspec.json.decode(encoded, type=ServerMessage)
            self.assertEqual(read_outcome(reply), outcome)

    def test_errors(self) -> None:
        """Any other error is a refusal, with a code or without."""
        for code in (None, 0, 1, 34):
            reply = ServerMessage(id=5, error="too much", code=code)
            self.assertEqual(read_outcome(reply), Outcome(Kind.REFUSED, reason="too much"))


class ReplyTests(SynchronousTestCase):
    """A-16, A-18: what a subscriber answers to a call."""

    def test_answers(self) -> None:
        for result, data, status in (
            (b'"text"', b"text", 0),
            (b"true", b"", 0),
            (b"null", b"", 0),
            (b"{}", b"", 0),
            (b'{"data":"x"}', b"x", 0),
            (b'{"data":"x","status":3}', b"x", 3),
            (b'{"data":"/w==","base64":true}', b"\xff", 0),
            (b'{"data":"/w==","base64":true,"status":-1}', b"\xff", -1),
        ):
            found = read_reply(b'{"id":"c","result":' + result + b"}")
            self.assertEqual(found, ("c", Response(CallVerdict.ANSWER, data, status)), result)

    def test_answers_that_cannot_be_read(self) -> None:
        """They are failures of the subscriber, and the publisher is told what is wrong."""
        for result, why in (
            (b"false", "false"),
            (b"[]", "Expected "),
            (b'{"data":1}', "Expected "),
        ):
            found = read_reply(b'{"id":"c","result":' + result + b"}")
            assert found is not None
            call, response = found
            self.assertEqual((call, response.verdict), ("c", CallVerdict.FAILED))
            self.assertRegex(response.text, f"^an answer that cannot be read: {why}")
            self.assertFalse(response.text.endswith("!"))

    def test_errors(self) -> None:
        for code, response in (
            (35, Response(CallVerdict.NOT_MINE)),
            (33, Response(CallVerdict.REFUSE, text="not you")),
            (31, Response(CallVerdict.FAILED, text="forbidden: not you")),
        ):
            reply = b'{"id":"c","error":"forbidden: not you","code":%d,"result":[]}' % code
            self.assertEqual(read_reply(reply), ("c", response))

    def test_what_is_no_reply_to_a_call(self) -> None:
        """Also where its result would be no answer."""
        for message in (
            b'{"id":"c","method":"m","result":true}',
            b'{"id":5,"result":true}',
            b'{"id":5,"method":"m","result":true}',
            b'{"id":"c","method":"m","result":[]}',
            b'{"id":5,"result":[]}',
            b'{"id":5,"method":"m","result":[]}',
            b"[]",
            b"{",
        ):
            self.assertIsNone(read_reply(message), message)

    def test_results(self) -> None:
        """What a client sends for the response of its handler."""
        for response, result in (
            (Response(CallVerdict.ANSWER, b"x", 3), AnswerBody(data="x", status=3)),
            (Response(CallVerdict.NOT_MINE), ErrorText(35, "not found: not mine")),
            (Response(CallVerdict.REFUSE, text="no"), ErrorText(33, "forbidden: no")),
            (Response(CallVerdict.FAILED, text="broken"), ErrorText(20, "broken")),
        ):
            self.assertEqual(response_result(response), result)


class StatusPageTests(SynchronousTestCase):
    """A-37: a page has 40,000 bytes of entries at most, or a single entry that is larger."""

    def subscriber(self, size: int) -> SubscriberStatus:
        """Return an entry of this many bytes as JSON."""
        empty = b'{"id":"","since":0.0,"topics":[],"unanswered":0}'
        return SubscriberStatus("x" * (size - len(empty)), 0.0, (), 0)

    def pages(self, *entries: int, topics: int = 0) -> list[tuple[int, int]]:
        """Return the numbers of topics and subscribers in each page."""
        some = tuple(TopicStatus(f"t{n}", {}, 0, 0, ()) for n in range(topics))
        status = BusStatus(0, 0, {}, some, tuple(map(self.subscriber, entries)))
        found, start = [], 0
        while True:
            page = status_page(status, start)
            found.append((len(page.topics), len(page.subscribers)))
            if page.next is None:
                return found
            start = page.next

    def test_as_many_as_fit(self) -> None:
        self.assertEqual(self.pages(), [(0, 0)])
        self.assertEqual(self.pages(20_000, 10_000, 10_000, 100), [(0, 3), (0, 1)])
        self.assertEqual(self.pages(20_000, 10_000, 10_001, 100), [(0, 2), (0, 2)])
        self.assertEqual(self.pages(50_000, 50_000), [(0, 1), (0, 1)])
        self.assertEqual(self.pages(40_000, topics=2), [(2, 0), (0, 1)])

    def test_a_start_that_cannot_be(self) -> None:
        """From before the first entry the page has all; after the last it has none."""
        status = BusStatus(0, 0, {}, (), (self.subscriber(100), self.subscriber(100)))
        for start, count in ((-1, 2), (0, 2), (1, 1), (2, 0), (3, 0)):
            page = status_page(status, start)
            self.assertEqual((len(page.subscribers), page.next), (count, None))
