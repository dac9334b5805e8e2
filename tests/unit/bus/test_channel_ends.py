"""Channels between members that begin anew, each at a time of its own."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import Answer, Message, Model
from kupool.bus.channels import STALE, Channels, ChannelSettings, IncomingChannels
from kupool.bus.local import LocalBus


class Member:
    """One end: what it has received, and whose channel has ended for it."""

    def __init__(self, clock: Clock, bus: LocalBus, name: str) -> None:
        self.epochs = {"a": "1", "b": "1"}
        self.received: list[bytes] = []
        self.broken: list[str] = []
        self.channels = Channels(
            clock,
            bus,
            ChannelSettings(),
            "test",
            member=name,
            known=self.epochs.__contains__,
            received=lambda sender, data: self.received.append(data),
            broken=self.forget,
            epoch_of=lambda member: self.epochs.get(member, ""),
        )

    def forget(self, member: str) -> None:
        self.broken.append(member)
        self.channels.forget(member)


class ChannelTests(SynchronousTestCase):
    """Issue 13, acceptance 3: each end of a channel is told once that the other began anew."""

    def setUp(self) -> None:
        self.clock = Clock()
        bus = LocalBus(self.clock, wall=self.clock.seconds)
        self.a, self.b = Member(self.clock, bus, "a"), Member(self.clock, bus, "b")
        for member in (self.a, self.b):
            self.successResultOf(Deferred.fromCoroutine(member.channels.start()))
        self.talk()
        self.assertEqual((self.a.received, self.b.received), ([b"hello"], [b"hello"]))

    def talk(self, seconds: float = 0.5) -> None:
        self.a.channels.send("b", b"hello")
        self.b.channels.send("a", b"hello")
        self.clock.pump([0.01] * round(seconds * 100))

    def test_one_end_begins_anew(self) -> None:
        """Both talk on at the same time: it is over after one end was told."""
        self.a.channels.forget("b")
        for _ in range(5):
            self.talk()
        self.assertEqual((self.a.broken, self.b.broken), ([], ["a"]))
        self.assertGreaterEqual(len(self.a.received), 5)
        self.assertGreaterEqual(len(self.b.received), 5)

    def test_both_ends_begin_anew(self) -> None:
        self.a.channels.forget("b")
        self.b.channels.forget("a")
        self.talk()
        self.talk()
        self.assertEqual((self.a.broken, self.b.broken), ([], []))
        self.assertEqual((len(self.a.received), len(self.b.received)), (3, 3))

    def test_another_epoch(self) -> None:
        """What it sends waits until the other end knows, and has forgotten the one before."""
        self.b.epochs["b"] = "2"
        self.b.channels.forget("a")
        self.talk()
        self.assertEqual((len(self.a.received), len(self.b.received)), (1, 1))
        self.a.epochs["b"] = "2"
        self.a.channels.forget("b")
        self.talk()
        self.talk()
        self.assertEqual((self.a.broken, self.b.broken), ([], []))
        self.assertEqual(len(self.a.received), 4, "what waited came, and what followed")
        self.assertEqual(len(self.b.received), 3, "what was sent to the one before did not")

    def test_the_number_of_a_stale_stream(self) -> None:
        """Releases that run beside each other have to mean the same by it."""
        self.assertEqual(STALE, 1)

    def test_a_stream_of_an_end_that_has_not_heard_of_that(self) -> None:
        """It is refused as stale, even if it is a new one: that end has to begin anew as well."""
        for hears, sent, stale in (("s", "t", True), ("s", "s", False), ("", "t", False)):
            incoming = IncomingChannels(
                ChannelSettings(),
                lambda message: True,
                lambda member, sent=sent: sent,
                received=lambda member, data: None,
                renewed=lambda member: None,
            )
            self.assertEqual(self.chunk(incoming, "one", hears).status == STALE, stale)
            if not stale:  # another one from who hears us: the end that is known did not begin anew
                another = self.chunk(incoming, "two", hears)
                self.assertEqual(another.status == STALE, bool(hears))

    def chunk(self, incoming: IncomingChannels, stream: str, hears: str) -> Answer:
        headers = {"from": "b", "stream": stream, "hears": hears, "n": "0"}
        return incoming.handle(Message("id", "test.a", b"", Model.RELIABLE_RANDOM, headers))

    def test_what_has_arrived(self) -> None:
        self.a.channels.send("b", b"x" * 100_000)
        arrived = self.a.channels.arrived("b")
        self.a.channels.send("b", b"behind it")
        self.assertNoResult(arrived)
        self.clock.pump([0.01] * 10)
        self.assertTrue(self.successResultOf(arrived))
        self.a.channels.send("b", b"more")
        never = self.a.channels.arrived("b")
        self.a.channels.forget("b")
        self.assertFalse(self.successResultOf(never))
        self.assertFalse(self.successResultOf(self.a.channels.arrived("b")))
