"""The parts of the bus: topics, deadlines, what handlers say."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import BusSettings, Message, Model, Outcome
from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.inbox import MAX_STATUS, Inbox
from kupool.bus.messages import Kind
from kupool.bus.remote.messages import (
    Body,
    CallParams,
    Published,
    decode_data,
    encode_call,
    encode_data,
    encode_outcome,
    encode_publish,
    read_call,
    read_reply,
)
from kupool.bus.topics import MAX_KNOWN, Trie, matches, overlaps, pattern_name, topic_name
from kupool.bus.topics import covers as wider
from kupool.wire.messages import encode_request, encode_result
from tests.requirements import ROOT

_LEVELS = st.sampled_from(["a", "b", "c"])
_TOPICS = st.lists(_LEVELS, min_size=1, max_size=4).map(".".join)
_PATTERNS = st.builds(
    lambda levels, tail: ".".join([*levels, *tail]),
    st.lists(st.sampled_from(["a", "b", "c", "*"]), min_size=1, max_size=4),
    st.sampled_from([(), (">",)]),
) | st.just(">")


def message(data: bytes = b"", topic: str = "t", timeout: float = 0.0) -> Message:
    return Message("id", topic, data, Model.UNRELIABLE_ALL, {}, timeout=timeout)


def covers(pattern: list[str], topic: list[str]) -> bool:
    """What a pattern means, in other words than the code under test."""
    if not pattern or not topic:
        return pattern == topic
    if pattern == [">"]:
        return True
    return pattern[0] in ("*", topic[0]) and covers(pattern[1:], topic[1:])


class TopicTests(SynchronousTestCase):
    """A-11: names, patterns, integers."""

    @given(_PATTERNS, _TOPICS)
    def test_matches(self, pattern: str, topic: str) -> None:
        self.assertEqual(matches(pattern, topic), covers(pattern.split("."), topic.split(".")))

    @given(_PATTERNS, _PATTERNS)
    def test_patterns_over_patterns(self, one: str, other: str) -> None:
        """A-38: what a permission covers is exactly what its topics are."""
        every = [".".join(t) for n in range(1, 6) for t in product("abcx", repeat=n)]
        first = {topic for topic in every if matches(one, topic)}
        second = {topic for topic in every if matches(other, topic)}
        self.assertEqual(wider(one, other), second <= first)
        self.assertEqual(overlaps(one, other), bool(first & second))

    @given(
        st.lists(st.tuples(st.booleans(), _PATTERNS, st.integers(0, 3)), max_size=40),
        st.lists(_TOPICS, min_size=1, max_size=5),
    )
    def test_trie(self, changes: list[tuple[bool, str, int]], topics: list[str]) -> None:
        """A-03, A-04: after any comings and goings the trie finds each once, and no other."""
        trie: Trie[int] = Trie()
        there: set[tuple[str, int]] = set()
        for add, pattern, value in changes:
            if add:
                trie.add(pattern, value)
                there.add((pattern, value))
            else:
                trie.remove(pattern, value)
                there.discard((pattern, value))
        for topic in topics:
            found = trie.match(topic)
            wanted = {v for p, v in there if covers(p.split("."), topic.split("."))}
            self.assertEqual(len(found), len(set(found)))
            self.assertEqual(set(found), wanted)
        self.assertEqual(sorted(trie), sorted({p for p, _ in there}))
        for pattern, value in there:
            trie.remove(pattern, value)
        self.assertFalse(trie)

    def test_names(self) -> None:
        self.assertEqual(topic_name(0), "0")
        self.assertEqual(topic_name(4294967295), "4294967295")
        self.assertEqual(topic_name("orders.名"), "orders.名")
        self.assertEqual(pattern_name("a.*.>"), "a.*.>")
        for longest in ("a" * 255, "名" * 255, ".".join("a" * 16), ".".join("*" * 15 + ">")):
            self.assertEqual(pattern_name(longest), longest)
        for longest in ("a" * 255, "名" * 255, ".".join("a" * 16), ".".join("名" * 16)):
            self.assertEqual(topic_name(longest), longest)
        for bad in ("", ".", "a.", ".a", "a b", "a\n", "a" * 256, ".".join("a" * 17), -1, True,
                    None, 1.5, b"a", ["a"], "a*", "a.>b"):  # fmt: skip
            for check in (topic_name, pattern_name):
                with self.assertRaises(ValueError):
                    check(bad)
        for bad in ("*", "a.>"):
            with self.assertRaises(ValueError):
                topic_name(bad)
        with self.assertRaises(ValueError):
            pattern_name(">.a")

    def test_names_that_are_remembered(self) -> None:
        """Issue 13 build 8: a name is valid or not, however often and in whatever type it comes."""
        for _ in range(3):
            for topic in (1, "1", *map(str, range(2, MAX_KNOWN + 2)), "1"):
                self.assertEqual(topic_name(topic), str(topic))
            for bad in (True, 1.0, "*", "a b"):
                with self.assertRaises(ValueError):
                    topic_name(bad)


class InboxTests(SynchronousTestCase):
    """A-16: a handler's exceptions and delays stay its own."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.responses: list[Response] = []

    def inbox(self, handler: Any, **limits: Any) -> Inbox:
        return Inbox(self.clock, BusSettings(**limits), handler)

    def test_wrong_results(self) -> None:
        for result in ("text", 7, ["list"]):
            inbox = self.inbox(lambda m, result=result: result)
            inbox.put(message(timeout=1.0), self.responses.append)
            self.clock.advance(0)
            self.assertIs(self.responses.pop().verdict, CallVerdict.FAILED)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 3)

    def test_bounds(self) -> None:
        """A-13: by count and bytes."""
        inbox = self.inbox(lambda m: None, max_unanswered=3, max_unanswered_bytes=100)
        taken = [inbox.put(message(b"x"), None) for _ in range(4)]
        self.assertEqual(taken, [Taken.YES] * 3 + [Taken.FULL])
        self.clock.advance(0)
        taken = [inbox.put(message(b"x" * 60), None) for _ in range(2)]
        self.assertEqual(taken, [Taken.YES, Taken.FULL])
        inbox.close()
        self.assertIs(inbox.put(message(), None), Taken.GONE)

    def test_running(self) -> None:
        """A-15: so many at once, and one that hangs makes room when its time is over."""
        started: list[Message] = []

        def handler(m: Message) -> Deferred[bytes]:
            started.append(m)
            return Deferred()

        inbox = self.inbox(handler, max_running=2, handler_timeout=60.0)
        for timeout in (1.0, 0.0, 5.0, 0.5):
            respond = self.responses.append if timeout else None
            inbox.put(message(timeout=timeout), respond)
        self.clock.advance(0)
        self.assertEqual(len(started), 2)
        self.clock.advance(1.0)
        self.clock.advance(0)
        self.assertEqual([m.timeout for m in started], [1.0, 0.0, 4.0])
        self.clock.advance(59.0)
        self.clock.advance(0)
        # the last one is not begun: nobody has waited for it since long ago
        self.assertEqual((len(started), self.responses), (3, []))

    def test_never_within_the_call(self) -> None:
        """A-15: a handler runs in a turn of its own, so many in each."""
        called: list[bytes] = []
        inbox = self.inbox(lambda m: called.append(m.data))
        for _ in range(250):
            inbox.put(message(), None)
        self.assertEqual(called, [])
        sizes: list[int] = []

        def others() -> None:
            sizes.append(len(called))
            if len(sizes) < 3:
                self.clock.callLater(0, others)

        self.clock.callLater(0, others)
        self.clock.advance(0)
        self.assertEqual(sizes, [100, 200, 250])


class MessageTests(SynchronousTestCase):
    """Issue 13 build 8: what every call comes through."""

    def test_offered(self) -> None:
        """All of a message but its time, and whether it is redelivered, stays as it is."""
        message = Message("id", "t", b"x", Model.RELIABLE_RANDOM, {"a": "b"}, "key", 3.0)
        for again in (False, True):
            expected = message._replace(timeout=1.5, redelivered=again)
            self.assertEqual(message.offered(1.5, again), expected)

    def test_reliable(self) -> None:
        reliable = [model for model in Model if model.reliable]
        self.assertEqual(reliable, [Model.RELIABLE_RANDOM, Model.RELIABLE_SPECIFIC])


class WireTests(SynchronousTestCase):
    """Issue 13 build 8: what is read and made in one step is as it was in several."""

    def test_call(self) -> None:
        message = Message(
            "m", "t", b'a "b"', Model.RELIABLE_RANDOM, {"h": "1"}, "k", 1.2345678, True
        )
        self.assertEqual(
            encode_call("00.1", message, "s"),
            b'{"id":"00.1","method":"call","params":{"data":"a \\"b\\"","topic":"t","message":"m",'
            b'"model":"reliable-random","subscriber":"s","timeout_ms":1234.568,"key":"k",'
            b'"headers":{"h":"1"},"redelivered":true}}',
        )
        self.assertEqual(
            encode_publish(7, message, 1.5, redelivered=True),
            b'{"id":7,"method":"bus.publish","params":{"data":"a \\"b\\"","topic":"t",'
            b'"model":"reliable-random","timeout_ms":1500.0,"key":"k","headers":{"h":"1"},'
            b'"message":"m","redelivered":true}}',
        )
        bare = Message("m", "t", b"\xff", Model.UNRELIABLE_ALL, {})
        self.assertEqual(
            encode_publish(8, bare, 1.5, redelivered=False),
            b'{"id":8,"method":"bus.publish","params":{"data":"/w==","base64":true,"topic":"t",'
            b'"model":"unreliable-all","message":"m"}}',
        )
        self.assertEqual(
            encode_call(None, bare, ""),
            b'{"id":null,"method":"call","params":{"data":"/w==","base64":true,"topic":"t",'
            b'"message":"m","model":"unreliable-all"}}',
        )

    @given(
        st.tuples(st.text(max_size=9), st.text(max_size=9), st.binary(max_size=40)),
        st.sampled_from(list(Model)),
        st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
        st.text(max_size=5),
        st.sampled_from([0.0, 0.0004, 1.2345678, 3600.0]),
        st.booleans(),
    )
    def test_call_as_its_params(
        self,
        of: tuple[str, str, bytes],
        model: Model,
        headers: dict[str, str],
        key: str,
        timeout: float,
        again: bool,
    ) -> None:
        """What is put together for a call is its params, byte for byte."""
        message = Message(*of, model, headers, key, timeout, again)
        text, base64 = encode_data(message.data)
        params = CallParams(
            data=text,
            base64=base64,
            topic=message.topic,
            message=message.id,
            model=model,
            subscriber=key,
            key=key,
            headers=headers,
            redelivered=again,
        )
        if timeout:
            params.timeout_ms = round(timeout * 1000, 3)
        expected = encode_request("00.1", "call", params)
        self.assertEqual(encode_call("00.1", message, key), expected)
        received = message._replace(timeout=params.timeout_ms / 1000)
        self.assertEqual(read_call(msgspec.json.encode(params)), (key, received))

    @given(
        st.sampled_from([Kind.ANSWERED, Kind.REFUSED, Kind.SENT]),
        st.binary(max_size=40),
        st.integers(-MAX_STATUS, MAX_STATUS),
        st.text(max_size=5),
        st.text(max_size=5),
        st.integers(0, 3),
    )
    def test_outcome_as_its_result(
        self, kind: Kind, data: bytes, status: int, reason: str, subscriber: str, receivers: int
    ) -> None:
        """What is put together for an outcome is its result, byte for byte."""
        text, base64 = encode_data(data)
        result = Published(
            data=text,
            base64=base64,
            outcome=kind,
            status=status,
            reason=reason,
            subscriber=subscriber,
            receivers=receivers,
        )
        outcome = Outcome(kind, data, status, reason, subscriber, receivers)
        for request in (7, "seven"):
            self.assertEqual(encode_outcome(request, outcome), encode_result(request, result))

    def test_replies(self) -> None:
        for result, response in (
            (b'{"data":"a","status":3}', Response(CallVerdict.ANSWER, b"a", 3)),
            (b'{"data":"a","method":"b"}', Response(CallVerdict.ANSWER, b"a")),
            (b'"text"', Response(CallVerdict.ANSWER, b"text")),
            (b"true", Response(CallVerdict.ANSWER)),
            (b"null", Response(CallVerdict.ANSWER)),
        ):
            payload = b'{"id":"c.1","result":' + result + b"}"
            self.assertEqual(read_reply(payload), ("c.1", response), payload)

    def test_the_status_of_a_reply(self) -> None:
        """A status outside of the range is the subscriber's failure."""
        for status, verdict in (
            (MAX_STATUS, CallVerdict.ANSWER),
            (-MAX_STATUS, CallVerdict.ANSWER),
            (MAX_STATUS + 1, CallVerdict.FAILED),
            (-MAX_STATUS - 1, CallVerdict.FAILED),
        ):
            _, response = read_reply(b'{"id":"c","result":{"status":%d}}' % status) or ("", None)
            self.assertEqual(response and response.verdict, verdict, status)

    def test_replies_that_cannot_be_read(self) -> None:
        """They are the subscriber's failure, which is told what was wrong with its result."""
        for result, why in (
            (b"false", "false"),
            (b'{"status":"1"}', "Expected `int`, got `str` - at `$.status`"),
            (b'{"data":"///","base64":true}', "data: Incorrect padding"),
        ):
            found = read_reply(b'{"id":"c.1","result":' + result + b"}")
            text = f"an answer that cannot be read: {why}"
            self.assertEqual(found, ("c.1", Response(CallVerdict.FAILED, text=text)))
        found = read_reply(b'{"id":"c.1","result":[1],"error":"no","code":0}')
        self.assertEqual(found, ("c.1", Response(CallVerdict.FAILED, text="no")))

    def test_no_replies(self) -> None:
        for payload in (
            b'{"id":"c.1","method":"m","result":true}',
            b'{"id":"c.1","method":"m","result":[1]}',
            b'{"id":7,"result":true}',
            b'{"id":7,"result":[1]}',
            b"[1]",
            b"[" * 100_000,
        ):
            self.assertIsNone(read_reply(payload), payload[:50])


class BytesInJsonTests(SynchronousTestCase):
    """A-25: any bytes pass, and never grow by more than a third and a little."""

    @given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
    def test_bytes(self, data: bytes) -> None:
        import json

        text, base64 = encode_data(data)
        self.assertEqual(decode_data(Body(data=text, base64=base64)), data)
        size = len(json.dumps(text, ensure_ascii=False).encode())
        self.assertLessEqual(size, len(data) * 4 / 3 + 8)

    def test_examples(self) -> None:
        self.assertEqual(encode_data("名 a".encode()), ("名 a", False))
        self.assertEqual(encode_data(b"\xff"), ("/w==", True))
        self.assertTrue(encode_data(b"\x00" * 100)[1])
        # Text, as long as its escaped form is no larger than base64 could be.
        self.assertEqual(encode_data(b'"' * 3), ('"' * 3, False))
        self.assertEqual(encode_data(b'"' * 4), ("IiIiIg==", True))
        with self.assertRaises(ValueError):
            decode_data(Body(data="///", base64=True))


class ImportTests(SynchronousTestCase):
    def test_importing_does_nothing(self) -> None:
        """A-64: importing prints nothing, starts no thread and opens no port."""
        script = (
            "import threading, os\n"
            "before = len(os.listdir('/proc/self/fd'))\n"
            "import kupool.bus.local, kupool.bus.remote.client, kupool.bus.remote.service, sys\n"
            "assert threading.active_count() == 1\n"
            "assert len(os.listdir('/proc/self/fd')) == before\n"
            "assert 'twisted.internet.reactor' not in sys.modules\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_forms_that_need_more(self) -> None:
        """A-64: they are imported at first use, and there are no others."""
        from kupool import bus
        from kupool.bus.rabbit.bus import RabbitBus
        from kupool.bus.remote.client import RemoteBus

        self.assertIs(bus.RabbitBus, RabbitBus)
        self.assertIs(bus.RemoteBus, RemoteBus)
        self.assertFalse(hasattr(bus, "OtherBus"))

    def test_outcomes_can_be_compared(self) -> None:
        """A-22: outcomes are values."""
        from kupool.bus import Kind

        self.assertEqual(len({kind.value for kind in Kind}), 5)
        self.assertEqual(Outcome(Kind.TIMEOUT), Outcome(Kind.TIMEOUT))
