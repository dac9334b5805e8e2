"""Channels between members of a bus that loses, repeats and refuses what it likes."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from struct import pack
from typing import Any

from twisted.internet.defer import Deferred, ensureDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import Answer, ChannelSettings, Kind, Message, Model, Outcome, Refusal
from kupool.bus.channels import STALE, Channels, IncomingChannels, OutgoingChannel

ARRIVED = Outcome(Kind.ANSWERED)
LOST = Outcome(Kind.TIMEOUT)


def framed(*messages: bytes) -> bytes:
    """Messages as a channel sends them: each after its length."""
    return b"".join(pack(">I", len(message)) + message for message in messages)


class ManualBus:
    """A bus whose calls are answered by the test."""

    def __init__(self) -> None:
        #: Each call: its data, topic, time limit and headers, and the Deferred of its outcome.
        self.calls: list[tuple[bytes, str, float, dict[str, str], Deferred[Outcome]]] = []
        #: The topics of the calls that were cancelled.
        self.cancelled: list[str] = []
        self.refuses = False
        self.handlers: dict[Any, list[str]] = {}

    def publish_reliable_random(
        self, data: bytes, topic: str, timeout: float, *, headers: Mapping[str, str]
    ) -> Deferred[Outcome]:
        if self.refuses:
            raise ValueError("not taken")
        outcome: Deferred[Outcome] = Deferred(lambda _: self.cancelled.append(topic))
        self.calls.append((data, topic, timeout, dict(headers), outcome))
        return outcome

    def subscribe(self, topics: list[str], handler: Any) -> Deferred[None]:
        self.handlers[handler] = topics
        return succeed(None)

    def unsubscribe(self, handler: Any) -> Deferred[None]:
        self.handlers.pop(handler, None)
        return succeed(None)


class SendingTests(SynchronousTestCase):
    """A-51: what is sent arrives once and in order, or both ends are told."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.bus = ManualBus()
        self.members = {"b", "c"}
        self.received: list[tuple[str, bytes]] = []
        self.broken: list[str] = []
        self.channels = Channels(
            self.clock,
            self.bus,  # type: ignore[arg-type]
            ChannelSettings(chunk=10, max_outbound=20),
            "hosts",
            member="a",
            known=lambda member: member in self.members,
            received=lambda member, data: self.received.append((member, data)),
            broken=self.end,
        )
        #: What is sent to another member when a channel has broken.
        self.again: list[bytes] = []

    def end(self, member: str) -> None:
        self.broken.append(member)
        while self.again:
            self.channels.send("c", self.again.pop())

    def send(self, data: bytes, member: str = "b") -> None:
        self.assertIs(self.channels.send(member, data), True)
        self.clock.advance(0)

    def answer(self, outcome: Outcome = ARRIVED) -> None:
        self.bus.calls[-1][-1].callback(outcome)
        self.clock.advance(0)

    def test_a_message(self) -> None:
        self.channels.send("b", b"tea")
        self.assertEqual(self.bus.calls, [], "not within the call of the sender")
        self.clock.advance(0)
        ((data, topic, timeout, headers, _),) = self.bus.calls
        self.assertEqual((data, topic, timeout), (framed(b"tea"), "hosts.b", 1.0))
        self.assertRegex(headers.pop("stream"), "^[0-9a-f]{16}$")
        expected = {"from": "a", "n": "0", "epoch": "", "to": "", "hears": ""}
        self.assertEqual(headers, expected)
        self.answer()
        self.assertEqual((self.channels.size("b"), self.clock.getDelayedCalls()), (0, []))

    def test_one_chunk_after_the_other(self) -> None:
        self.send(b"0123456789")
        self.send(b"x")
        self.assertEqual([call[0] for call in self.bus.calls], [framed(b"0123456789")[:10]])
        self.assertEqual(self.channels.size("b"), 14 + 5)
        self.answer()
        self.assertEqual(self.channels.size("b"), 4 + 5)
        self.answer()
        sent = b"".join(call[0] for call in self.bus.calls)
        self.assertEqual(sent, framed(b"0123456789", b"x"))
        self.assertEqual([call[3]["n"] for call in self.bus.calls], ["0", "1"])
        self.assertEqual(len({call[3]["stream"] for call in self.bus.calls}), 1)
        self.assertEqual(len(self.bus.calls), 2)

    def test_a_chunk_that_does_not_arrive_is_sent_again(self) -> None:
        self.send(b"tea")
        self.answer(LOST)
        self.clock.advance(0.09)
        self.assertEqual(len(self.bus.calls), 1)
        self.clock.advance(0.02)
        first, second = self.bus.calls
        self.assertEqual(first[:4], second[:4])

    def test_a_bus_that_refuses_is_asked_again(self) -> None:
        self.bus.refuses = True
        self.send(b"tea")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.bus.refuses = False
        self.clock.advance(0.9)
        self.assertEqual(self.bus.calls, [])
        self.clock.advance(0.2)
        self.assertEqual([call[0] for call in self.bus.calls], [framed(b"tea")])

    def test_a_stream_that_the_other_side_does_not_know(self) -> None:
        """Both ends are told, and nothing more is sent."""
        self.send(b"0123456789")
        self.bus.calls[-1][-1].callback(Outcome(Kind.ANSWERED, status=STALE))
        self.assertEqual(self.broken, [], "not within the answer")
        self.clock.advance(0)
        self.send(b"more")
        self.clock.advance(10)
        self.assertEqual((self.broken, len(self.bus.calls)), (["b"], 1))
        self.assertEqual((self.channels.size("b"), self.clock.getDelayedCalls()), (0, []))

    def test_after_a_break_a_new_stream_begins(self) -> None:
        self.send(b"tea")
        self.channels.forget("b")
        self.send(b"milk")
        first, second = self.bus.calls
        self.assertEqual((second[0], second[3]["n"]), (framed(b"milk"), "0"))
        self.assertNotEqual(first[3]["stream"], second[3]["stream"])

    def test_full(self) -> None:
        self.assertFalse(self.channels.full("b"))
        self.send(b"x" * 15)
        self.assertFalse(self.channels.full("b"), "19 bytes wait, with the length")
        self.channels.send("c", b"y")
        self.assertEqual(self.channels.waiting(), 19 + 5)
        self.channels.forget("b")
        self.send(b"x" * 16)
        self.assertTrue(self.channels.full("b"), "20 of 20")
        self.assertFalse(self.channels.full("c"))

    def test_who_is_not_there(self) -> None:
        self.assertIs(self.channels.send("nobody", b"x"), False)
        self.assertTrue(self.channels.full("nobody"))
        self.assertEqual((self.channels.size("nobody"), self.channels.waiting()), (0, 0))
        self.channels.forget("nobody")

    def test_far_too_much(self) -> None:
        """Four times what makes it full still waits; with more the channel breaks, once."""
        self.send(b"x" * 76)
        self.assertEqual((self.channels.size("b"), self.broken), (80, []))
        self.channels.send("b", b"")
        self.channels.send("b", b"")
        self.clock.advance(0)
        self.assertEqual((self.channels.size("b"), self.broken), (0, ["b"]))
        self.assertEqual(self.bus.cancelled, ["hosts.b"])

    def test_flush(self) -> None:
        self.successResultOf(ensureDeferred(self.channels.flush(5)))
        self.send(b"tea")
        self.send(b"milk", "c")
        waits = ensureDeferred(self.channels.flush(5))
        self.bus.calls[0][-1].callback(ARRIVED)
        self.clock.advance(0)
        self.assertNoResult(waits)
        self.bus.calls[1][-1].callback(ARRIVED)
        self.clock.advance(0)
        self.successResultOf(waits)
        self.assertEqual(self.clock.getDelayedCalls(), [], "nor is there a timer of it")

    def test_flush_without_any_time(self) -> None:
        self.send(b"tea")
        self.successResultOf(ensureDeferred(self.channels.flush(0)))

    def test_what_has_arrived(self) -> None:
        """All that was sent before it was asked for, and no more."""
        self.send(b"123456")
        first = self.channels.arrived("b")
        self.send(b"0123456789")
        second = self.channels.arrived("b")
        self.send(b"x")
        self.answer()
        self.assertIs(self.successResultOf(first), True)
        self.answer()
        self.assertNoResult(second)  # 10 bytes of 14
        self.answer()
        self.assertIs(self.successResultOf(second), True)

    def test_flush_before_the_first_chunk_is_sent(self) -> None:
        self.channels.send("b", b"tea")
        self.assertNoResult(waits := ensureDeferred(self.channels.flush(5)))
        self.clock.advance(0)
        self.answer()
        self.successResultOf(waits)

    def test_flush_of_what_does_not_arrive(self) -> None:
        self.send(b"tea")
        for seconds in (5, 0.5):
            waits = ensureDeferred(self.channels.flush(seconds))
            self.clock.advance(seconds - 0.1)
            self.assertNoResult(waits)
            self.clock.advance(0.2)
            self.successResultOf(waits)
        del waits
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [], "it is no error of the program")

    def test_flush_of_what_is_sent_again_to_another(self) -> None:
        """It waits for that as well, if a member has restarted, and if one is found to be gone."""
        for gone in (False, True):
            self.send(b"tea")
            waits = ensureDeferred(self.channels.flush(5))
            if gone:
                self.channels.forget("b")
                self.channels.send("c", b"tea")
            else:
                self.again.append(b"tea")
                self.bus.calls[-1][-1].callback(Outcome(Kind.ANSWERED, status=STALE))
            self.clock.advance(0)
            self.assertNoResult(waits)
            self.answer()
            self.successResultOf(waits)
            self.assertEqual([call[1] for call in self.bus.calls], ["hosts.b", "hosts.c"])
            self.channels.forget("b")
            self.bus.calls.clear()

    def test_a_member_that_is_gone(self) -> None:
        """Nobody waits for it any more."""
        self.send(b"tea")
        waits = ensureDeferred(self.channels.flush(5))
        self.channels.forget("b")
        self.clock.advance(0)
        self.successResultOf(waits)
        self.assertEqual(self.bus.cancelled, ["hosts.b"])
        self.channels.send("b", b"tea")
        self.channels.forget("b")
        self.assertEqual((self.clock.getDelayedCalls(), len(self.bus.calls)), ([], 1))
        self.assertEqual(self.broken, [])

    def test_start_and_stop(self) -> None:
        self.successResultOf(ensureDeferred(self.channels.start()))
        ((handler, topics),) = self.bus.handlers.items()
        self.assertEqual(topics, ["hosts.a"])
        headers = {"from": "b", "stream": "s", "n": "0"}
        chunk = Message("m", "hosts.a", framed(b"hi"), Model.RELIABLE_RANDOM, headers)
        self.assertEqual(handler(chunk), Answer())
        self.assertEqual(self.received, [("b", b"hi")])
        self.send(b"tea")
        self.successResultOf(self.channels.stop())
        self.assertEqual(self.bus.cancelled, ["hosts.b"])
        self.assertEqual((self.bus.handlers, self.channels.waiting()), ({}, 0))

    def test_a_chunk_of_nobody(self) -> None:
        """Who has no name is no member, even where every name is one."""
        channels = Channels(
            self.clock,
            self.bus,  # type: ignore[arg-type]
            ChannelSettings(),
            "hosts",
            member="a",
            known=bool,
            received=lambda member, data: self.received.append((member, data)),
            broken=self.broken.append,
        )
        self.successResultOf(ensureDeferred(channels.start()))
        ((handler, _),) = self.bus.handlers.items()
        headers = {"from": "b", "n": "0"}
        chunk = Message("m", "hosts.a", framed(b"x"), Model.RELIABLE_RANDOM, headers)
        self.assertEqual(handler(chunk), Answer())
        with self.assertRaises(Refusal):
            handler(chunk._replace(headers={"n": "0"}))
        self.assertEqual(self.received, [("b", b"x")])

    def test_a_channel_that_is_closed_takes_nothing(self) -> None:
        channel = OutgoingChannel(
            self.clock,
            self.bus,  # type: ignore[arg-type]
            ChannelSettings(),
            "hosts.b",
            headers=lambda: {"from": "a"},
            broken=lambda: self.broken.append("b"),
        )
        channel.close()
        self.assertIs(self.successResultOf(channel.arrived()), False)
        channel.send(b"tea")
        self.assertEqual((channel.size, self.clock.getDelayedCalls()), (0, []))
        self.successResultOf(channel.flushed())


class ReceivingTests(SynchronousTestCase):
    """A-51: each message is handed on once and in order, however its chunks are repeated."""

    def setUp(self) -> None:
        self.received: list[tuple[str, bytes]] = []
        self.renewed: list[str] = []
        self.incoming = self.make(ChannelSettings(max_message=20, max_members=1))

    def make(self, settings: ChannelSettings) -> IncomingChannels:
        return IncomingChannels(
            settings,
            lambda message: message.headers.get("from") != "nobody",
            lambda member: "",
            received=self.take,
            renewed=self.renewed.append,
        )

    def take(self, member: str, data: bytes) -> None:
        self.received.append((member, data))
        if data == b"bad":
            raise ZeroDivisionError

    def chunk(self, data: bytes, n: int, stream: str = "s", member: str = "b") -> Answer:
        headers = {"from": member, "stream": stream, "n": str(n)}
        return self.incoming.handle(self.message(data, headers))

    def message(self, data: bytes, headers: Mapping[str, str]) -> Message:
        return Message("m", "t", data, Model.RELIABLE_RANDOM, headers)

    @property
    def data(self) -> list[bytes]:
        return [data for _, data in self.received]

    def test_messages_over_chunks(self) -> None:
        """At whatever byte they are cut, empty ones included."""
        sent = [b"", b"tea", b"milk"]
        whole = framed(*sent)
        for cut in range(len(whole) + 1):
            stream = f"cut {cut}"
            self.incoming, self.received = self.make(ChannelSettings()), []
            self.assertEqual(self.chunk(whole[:cut], 0, stream), Answer())
            self.assertEqual(self.chunk(whole[cut:], 1, stream), Answer())
            self.assertEqual(self.data, sent, cut)
        self.assertEqual({member for member, _ in self.received}, {"b"})

    def test_repeated_and_missing(self) -> None:
        self.chunk(framed(b"0"), 0)
        self.chunk(framed(b"1"), 1)
        self.assertEqual(self.chunk(framed(b"0"), 0), Answer())
        self.assertEqual(self.chunk(framed(b"1"), 1), Answer())
        self.assertEqual(self.chunk(framed(b"3"), 3), Answer(b"", STALE))
        self.assertEqual(self.chunk(framed(b"2"), 2), Answer())
        self.assertEqual(self.data, [b"0", b"1", b"2"])

    def test_a_stream_that_does_not_begin_here(self) -> None:
        self.assertEqual(self.chunk(framed(b"1"), 1), Answer(b"", STALE))
        self.assertEqual((self.received, self.renewed), ([], []))

    def test_what_is_no_chunk(self) -> None:
        with self.assertRaisesRegex(Refusal, "no known member"):
            self.chunk(framed(b"x"), 0, member="nobody")
        with self.assertRaisesRegex(Refusal, "has no number"):
            self.incoming.handle(self.message(b"", {"from": "b", "n": "x"}))
        without_a_number = self.message(framed(b"x"), {"from": "b", "stream": "s"})
        self.assertEqual(self.incoming.handle(without_a_number), Answer(b"", STALE))
        self.assertEqual((self.received, self.renewed), ([], []))

    def test_a_chunk_without_names(self) -> None:
        """It is of the member and the stream of no name."""
        chunk = self.message(framed(b"x"), {"n": "0"})
        self.assertEqual(self.incoming.handle(chunk), Answer())
        self.assertEqual((self.received, self.incoming.name("")), ([("", b"x")], ""))

    def test_a_member_that_has_restarted(self) -> None:
        """What was begun is dropped, the application is told, and the old stream is over."""
        self.chunk(framed(b"whole", b"begun")[:-1], 0)
        self.assertEqual(self.renewed, [])
        self.assertEqual(self.chunk(framed(b"new"), 0, "other"), Answer())
        self.assertEqual((self.data, self.renewed), ([b"whole", b"new"], ["b"]))
        self.assertEqual(self.chunk(framed(b"late"), 0), Answer(b"", STALE))
        self.assertEqual(self.chunk(framed(b"newer"), 1, "other"), Answer())
        self.assertEqual((self.data, self.renewed), ([b"whole", b"new", b"newer"], ["b"]))

    def test_one_member_of_two(self) -> None:
        self.chunk(framed(b"0"), 0, member="b")
        self.chunk(framed(b"0"), 0, "t", member="c")
        self.chunk(framed(b"1"), 1, member="b")
        self.assertEqual(self.received, [("b", b"0"), ("c", b"0"), ("b", b"1")])
        self.assertEqual(self.renewed, [])

    def test_forgotten(self) -> None:
        self.chunk(framed(b"0"), 0)
        self.incoming.forget("b")
        self.incoming.forget("c")
        for n in (0, 1):
            self.assertEqual(self.chunk(framed(b"x"), n), Answer(b"", STALE))
        self.assertEqual(self.chunk(framed(b"1"), 0, "next"), Answer())
        self.assertEqual((self.data, self.renewed), ([b"0", b"1"], []))

    def test_the_last_eight_streams_of_a_member_are_over(self) -> None:
        for n in range(10):
            self.chunk(b"", 0, f"s{n}")
        for n in range(8, 0, -1):
            self.assertEqual(self.chunk(b"", 0, f"s{n}"), Answer(b"", STALE), n)
        self.assertEqual(self.chunk(b"", 0, "s0"), Answer(), "nothing is kept for ever")

    def test_as_many_streams_for_each_of_two_members(self) -> None:
        self.incoming = self.make(ChannelSettings(max_members=2))
        for n in range(18):
            self.chunk(b"", 0, f"s{n}")
        self.assertEqual(self.chunk(b"", 0, "s1"), Answer(b"", STALE))
        self.assertEqual(self.chunk(b"", 0, "s0"), Answer())

    def test_too_large(self) -> None:
        self.assertEqual(self.chunk(framed(b"x" * 20), 0), Answer())
        self.assertEqual(self.chunk(framed(b"x" * 21)[:4], 1), Answer(b"", STALE))
        self.assertEqual(self.chunk(b"", 2), Answer(b"", STALE))
        self.assertEqual((self.data, self.incoming.name("b")), ([b"x" * 20], ""))
        self.assertEqual(self.chunk(framed(b"new"), 0, "next"), Answer())
        self.assertEqual((self.data, self.renewed), ([b"x" * 20, b"new"], []))

    def test_a_message_that_cannot_be_handled(self) -> None:
        """A-26: it costs the next ones nothing."""
        self.assertEqual(self.chunk(framed(b"bad", b"good"), 0), Answer())
        self.assertEqual(self.data, [b"bad", b"good"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
