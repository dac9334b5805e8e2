"""The core of the bus on a fake clock: bounds, chunks, and subscribers that die."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from twisted.logger import ILogObserver, globalLogPublisher
from zope.interface import directlyProvides

from kupool.bus import Kind, Message, Model, Outcome
from kupool.bus.broker import BUS_CLOSED, BUS_FULL, SHARE_FULL, Broker
from kupool.bus.buffer import BufferOwner
from kupool.bus.calling import FRESH
from kupool.bus.calls import Taken
from kupool.bus.publishing import make_message
from tests.fakes.broker_case import ANSWER, FAILED, NOT_MINE, BrokerCase, Sink


class BoundsTests(BrokerCase):
    """A-13: over a limit the publisher hears it at once."""

    def test_calls(self) -> None:
        self.broker = self.make(max_calls=3)
        for _ in range(4):
            self.publish()
        self.assertEqual(self.outcomes, [Outcome(Kind.REFUSED, reason=BUS_FULL)])
        self.clock.advance(3.0)
        self.assertEqual(self.kinds[1:], [Kind.NO_SUBSCRIBER] * 3)
        self.publish()
        self.assertEqual(len(self.outcomes), 4)
        counts = {"published": 5, "refused": 1, "no subscriber": 3}
        self.assertEqual(self.broker.status().counts, counts)

    def test_bytes(self) -> None:
        self.broker = self.make(max_calls_bytes=100)
        self.publish(data=b"x" * 60)
        self.publish(data=b"x" * 41)
        self.assertEqual(self.outcomes, [Outcome(Kind.REFUSED, reason=BUS_FULL)])
        self.publish(data=b"x" * 40)
        self.assertEqual(len(self.outcomes), 1)
        self.assertEqual(self.broker.status().calls_bytes, 100)

    def test_buffer(self) -> None:
        """A-35, A-13: counted by outcome, and refused over the limit."""
        self.broker = self.make(buffer_count=2)
        for _ in range(3):
            self.publish(Model.UNRELIABLE_ALL)
        self.assertEqual(self.kinds, [Kind.SENT, Kind.SENT, Kind.REFUSED])
        self.clock.advance(3.0)
        (topic,) = self.broker.status().topics
        self.assertEqual(topic.counts, {"published": 3, "buffered": 2, "overflow": 1, "expired": 2})

    def test_unanswered(self) -> None:
        """A-15: a subscriber has so many calls in hand; the next waits for room."""
        self.broker = self.make(max_unanswered=2)
        sink = Sink(self.broker, "a")
        for _ in range(5):
            self.publish()
        self.assertEqual(len(sink.numbers), 2)
        sink.answer()
        self.assertEqual((len(sink.messages), self.kinds), (3, [Kind.ANSWERED]))
        for _ in range(4):
            sink.answer()
        self.assertEqual(self.kinds, [Kind.ANSWERED] * 5)

    def test_topics_that_are_remembered(self) -> None:
        """A-37: the accounts are bounded, whatever topics there are."""
        self.broker = self.make(max_topics=10, max_traces=5)
        for n in range(50):
            self.publish(Model.UNRELIABLE_ALL, f"t{n}")
        self.assertEqual([t.topic for t in self.broker.status().topics][-1], "t49")
        self.assertEqual(len(self.broker.status().topics), 10)
        self.assertEqual(self.broker.status().counts["published"], 50)


class DeliveryTests(BrokerCase):
    def test_failed_write(self) -> None:
        """A-33: where a write fails another gets it."""
        Sink(self.broker, "gone", taken=Taken.GONE)
        Sink(self.broker, "full", taken=Taken.FULL)
        good = Sink(self.broker, "good")
        for n in range(50):
            self.publish(Model.UNRELIABLE_RANDOM, data=b"%d" % n)
        self.assertEqual([m.data for m in good.messages], [b"%d" % n for n in range(50)])
        self.assertEqual(set(self.outcomes), {Outcome(Kind.SENT, receivers=1)})
        self.assertEqual({m.model for m in good.messages}, {Model.UNRELIABLE_RANDOM})

    def test_all_full(self) -> None:
        """A-13, A-15: an unreliable message that nobody has room for is refused, counted."""
        Sink(self.broker, "full", taken=Taken.FULL)
        for model in (Model.UNRELIABLE_ALL, Model.UNRELIABLE_RANDOM):
            self.publish(model)
        self.assertEqual(self.kinds, [Kind.REFUSED] * 2)
        self.assertEqual(self.broker.status().counts["overflow"], 2)

    def test_all_gone(self) -> None:
        """A-32: subscribers that are about to end are none: it is kept for the next."""
        Sink(self.broker, "gone", taken=Taken.GONE)
        self.publish(Model.UNRELIABLE_ALL, data=b"1")
        self.assertEqual(self.outcomes, [Outcome(Kind.SENT)])
        self.broker.remove("gone")
        self.assertEqual([m.data for m in Sink(self.broker, "next").messages], [b"1"])

    def test_lost_with_the_call_in_hand(self) -> None:
        """A-20, A-24: goes to another at once, or to the one that comes."""
        first = Sink(self.broker, "first")
        self.publish()
        second = Sink(self.broker, "second")
        self.broker.remove("first")
        self.assertEqual([m.redelivered for m in second.messages], [True])
        self.broker.remove("second")
        self.clock.advance(1.0)
        third = Sink(self.broker, "third")
        (message,) = third.messages
        self.assertTrue(message.redelivered)
        self.assertAlmostEqual(message.timeout, 2.0)
        first.answer()
        self.assertEqual(self.outcomes, [])
        third.answer()
        self.assertEqual(self.kinds, [Kind.ANSWERED])

    def test_shares(self) -> None:
        """A-20, A-22: each silent one has a third of the time, nobody is asked twice, and
        what is said after the end changes nothing.
        """
        sinks = [Sink(self.broker, str(n)) for n in range(5)]
        self.publish()
        seen = []
        for _ in range(4):
            seen.append(sum(len(s.messages) for s in sinks))
            self.clock.advance(1.0)
        self.assertEqual(seen, [1, 2, 3, 3])
        self.assertEqual(self.kinds, [Kind.TIMEOUT])
        for sink in sinks:
            self.assertLessEqual(len(sink.messages), 1)
            if sink.numbers:
                sink.answer()
        self.assertEqual(self.kinds, [Kind.TIMEOUT])
        self.assertEqual({s.unanswered for s in self.broker.status().subscribers}, {0})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answers_that_nobody_asked_for(self) -> None:
        """A-22: only who was asked can answer, and once."""
        one, other = Sink(self.broker, "one"), Sink(self.broker, "other", "else")
        self.publish(Model.RELIABLE_SPECIFIC)
        (number,) = one.numbers
        self.broker.answer("other", number, ANSWER)
        self.broker.answer("nobody", number, ANSWER)
        self.broker.answer("one", number + 1, ANSWER)
        self.assertEqual((self.outcomes, other.messages), ([], []))
        one.answer()
        self.broker.answer("one", number, FAILED)
        self.assertEqual(self.kinds, [Kind.ANSWERED])

    def test_specific_with_failures(self) -> None:
        """A-26, A-28: a failure counts when nobody else has answered."""
        sinks = [Sink(self.broker, str(n)) for n in range(3)]
        self.publish(Model.RELIABLE_SPECIFIC)
        sinks[0].answer(NOT_MINE)
        sinks[1].answer(FAILED)
        self.assertEqual(self.outcomes, [])
        sinks[2].answer(NOT_MINE)
        self.assertEqual(self.outcomes, [Outcome(Kind.REFUSED, reason="broken", subscriber="1")])

    def test_unsubscribed_with_the_call_in_hand(self) -> None:
        """A-03: who has left may still answer what it was given, and is forgotten then."""
        sink = Sink(self.broker, "a")
        self.publish()
        self.publish()
        self.broker.unsubscribe("a")
        self.assertEqual(len(self.broker.status().subscribers), 1)
        self.assertTrue(self.broker.knows("a"))
        sink.answer()
        self.assertEqual(self.kinds, [Kind.ANSWERED])
        self.clock.advance(3.0)
        self.assertEqual(self.kinds, [Kind.ANSWERED, Kind.TIMEOUT])
        self.assertEqual(self.broker.status().subscribers, ())
        self.assertFalse(self.broker.knows("a"))

    def test_publishing_from_an_outcome(self) -> None:
        """A-15: an outcome may give rise to the next call, for ever, without recursion."""
        self.broker = self.make(max_calls=1)
        sink = Sink(self.broker, "a")
        left = [3000]

        def again(outcome: Outcome) -> None:
            self.outcomes.append(outcome)
            if left[0]:
                left[0] -= 1
                self.publish(done=again)

        self.publish(done=again)
        while sink.numbers:
            sink.answer()
        self.assertEqual(self.kinds, [Kind.ANSWERED] * 3001)

    def test_outcome_that_raises(self) -> None:
        """A-15: whoever fails to take an outcome costs nobody else anything."""

        def broken(outcome: Outcome) -> None:
            raise ValueError(outcome)

        sink = Sink(self.broker, "a")
        self.publish(done=broken)
        self.publish()
        sink.answer()
        sink.answer()
        self.publish(Model.UNRELIABLE_ALL, done=broken)
        self.assertEqual(self.kinds, [Kind.ANSWERED])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_large_fan_out(self) -> None:
        """A-15, A-31: five hundred in each turn of the reactor, so nobody else waits."""
        sinks = [Sink(self.broker, str(n)) for n in range(1200)]
        for model in (Model.UNRELIABLE_ALL, Model.RELIABLE_SPECIFIC):
            for sink in sinks:
                sink.messages.clear()
            seen: list[int] = []

            def others(seen: list[int] = seen) -> None:
                seen.append(sum(len(s.messages) for s in sinks))
                if len(seen) < 3:
                    self.clock.callLater(0, others)

            self.publish(model)
            others()
            self.clock.advance(0)
            self.assertEqual(seen[0], 500)
            self.assertEqual(seen[-1], 1200)
            self.assertEqual({len(sink.messages) for sink in sinks}, {1})
        self.assertEqual(self.outcomes, [Outcome(Kind.SENT, receivers=1200)])
        for sink in sinks:
            sink.answer(NOT_MINE)
        self.assertEqual(self.kinds[1:], [Kind.NO_SUBSCRIBER])

    def test_order_between_messages(self) -> None:
        """Issue 13 build 1: a small fan-out does not pass a large one, whatever its model."""
        sinks = [Sink(self.broker, str(n)) for n in range(1200)]
        last = sinks[-1]
        self.broker.subscribe(last.name, ["u"], last.deliver)
        self.publish(Model.UNRELIABLE_ALL, data=b"1")
        self.publish(Model.UNRELIABLE_ALL, topic="u", data=b"2")
        self.publish(Model.UNRELIABLE_RANDOM, topic="u", data=b"3")
        self.publish(Model.UNRELIABLE_ALL, data=b"4")
        seen = [sum(len(sink.messages) for sink in sinks)]

        def others() -> None:
            seen.append(sum(len(sink.messages) for sink in sinks))
            if len(self.outcomes) < 4:
                self.clock.callLater(0, others)

        self.clock.callLater(0, others)
        self.clock.advance(0)
        self.assertEqual([m.data for m in last.messages], [b"1", b"2", b"3", b"4"])
        self.assertEqual(seen, [500, 1000, 1500, 2000, 2402], "a chunk in each turn")
        self.assertEqual([outcome.receivers for outcome in self.outcomes], [1200, 1, 1, 1200])

    def test_who_comes_and_goes_while_a_message_waits(self) -> None:
        """A-32: who has left gets none of it; who has come, what nobody else got."""
        sinks = [Sink(self.broker, str(n)) for n in range(1200)]
        one = Sink(self.broker, "one", "u")
        self.publish(Model.UNRELIABLE_ALL, data=b"1")
        self.publish(Model.UNRELIABLE_ALL, topic="u", data=b"2")
        self.broker.unsubscribe("one")
        self.broker.remove(sinks[-1].name)
        other = Sink(self.broker, "other", "u")
        self.assertEqual((one.messages, other.messages), ([], []))
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual((one.messages, sinks[-1].messages), ([], []))
        self.assertEqual([m.data for m in other.messages], [b"2"])
        self.assertEqual([outcome.receivers for outcome in self.outcomes], [1199, 0])

    def test_for_nobody_while_others_wait(self) -> None:
        """A-32: it is kept at once, so that who comes next has it."""
        for n in range(1200):
            Sink(self.broker, str(n))
        self.publish(Model.UNRELIABLE_ALL)
        self.publish(Model.UNRELIABLE_ALL, topic="u", data=b"1")
        self.assertEqual([m.data for m in Sink(self.broker, "u", "u").messages], [b"1"])

    def test_what_waits_is_bounded(self) -> None:
        """A-15: by number and by size, as calls are; more is refused."""
        for limits in ({"max_calls": 2}, {"max_calls_bytes": 20}):
            self.broker, self.outcomes = self.make(**limits), []
            for n in range(1200):
                Sink(self.broker, str(n))
            for _ in range(3):
                self.publish(Model.UNRELIABLE_ALL, data=b"x" * 10)
            self.assertEqual(self.outcomes, [Outcome(Kind.REFUSED, reason=BUS_FULL)])
            for _ in range(5):
                self.clock.advance(0)
            self.publish(Model.UNRELIABLE_ALL, data=b"x" * 10)
            self.clock.advance(0)
            self.assertEqual([outcome.receivers for outcome in self.outcomes], [0, *[1200] * 3])

    def test_published_from_within(self) -> None:
        """Issue 13 build 1: behind what is being sent, in the same turn."""
        sink = Sink(self.broker, "b")
        self.broker.remove("b")

        def first(message: Message, number: int | None) -> Taken:
            if message.data == b"1":
                self.publish(Model.UNRELIABLE_ALL, data=b"2")
            return Taken.YES

        self.broker.subscribe("a", ["t"], first)
        self.broker.subscribe("b", ["t"], sink.deliver)
        self.publish(Model.UNRELIABLE_ALL, data=b"1")
        self.assertEqual([m.data for m in sink.messages], [b"1", b"2"])
        self.assertEqual([outcome.receivers for outcome in self.outcomes], [2, 2])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_subscriber_that_raises(self) -> None:
        """A-33: it costs nobody else a message, and its publisher no outcome."""

        def broken(message: Message, number: int | None) -> Taken:
            raise SystemExit

        self.broker.subscribe("broken", ["t"], broken)
        sink = Sink(self.broker, "b")
        for _ in range(10):
            self.publish(Model.UNRELIABLE_RANDOM)
        self.publish(Model.UNRELIABLE_ALL)
        self.assertEqual(len(sink.messages), 11)
        self.assertEqual(set(self.outcomes), {Outcome(Kind.SENT, receivers=1)})
        self.assertTrue(self.flushLoggedErrors(SystemExit))

    def test_closed_while_a_message_waits(self) -> None:
        """A-22: nothing is kept for anybody any more."""
        for n in range(1200):
            Sink(self.broker, str(n))
        Sink(self.broker, "u", "u")
        self.publish(Model.UNRELIABLE_ALL)
        self.publish(Model.UNRELIABLE_ALL, topic="u")
        self.broker.close()
        self.clock.advance(0)
        self.assertEqual(
            self.outcomes,
            [Outcome(Kind.SENT, receivers=500), Outcome(Kind.REFUSED, reason=BUS_CLOSED)],
        )
        counts = {topic.topic: topic.counts for topic in self.broker.status().topics}
        self.assertEqual(counts["u"], {"published": 1, "refused": 1})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_answered_at_once(self) -> None:
        """Issue 13 build 8: such a call leaves no timer; others end at their times all the same."""
        sink = Sink(self.broker, "a")
        self.publish()
        sink.answer()
        self.clock.advance(FRESH)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.publish(timeout=FRESH)
        self.publish(timeout=6 * FRESH)
        self.publish()
        self.clock.pump([FRESH * 0.99, FRESH * 0.02])
        self.assertEqual(self.kinds[1:], [Kind.TIMEOUT])
        self.clock.pump([FRESH] * 4)
        self.assertEqual(self.kinds[1:], [Kind.TIMEOUT])
        self.clock.advance(FRESH)
        self.assertEqual(self.kinds[1:], [Kind.TIMEOUT] * 2)
        sink.numbers.clear()
        other = Sink(self.broker, "b")
        self.clock.pump([FRESH] * 14)
        self.assertEqual(len(other.numbers), 1)  # once the share of the first is over

    def test_ten_thousand_that_wait(self) -> None:
        """A-14, A-24: they are one call to the clock, which is not called before it is due."""
        for _ in range(10_000):
            self.publish()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.assertAlmostEqual(self.clock.getDelayedCalls()[0].getTime(), 3.0)
        sink = Sink(self.broker, "a")
        self.assertEqual(len(sink.messages), 500)
        self.clock.advance(0)
        self.assertEqual(len(sink.messages), 10_000)

    def test_close(self) -> None:
        """A-22: every call is refused, and nothing waits for the clock any more. Nobody is left,
        neither who has a call in hand nor who has none.
        """
        Sink(self.broker, "a")
        self.publish()
        self.publish(Model.RELIABLE_SPECIFIC)
        Sink(self.broker, "idle", "other")
        self.publish(topic="nobody")
        self.publish(Model.UNRELIABLE_ALL, topic="kept")
        self.broker.close()
        self.publish()
        refused = Outcome(Kind.REFUSED, reason=BUS_CLOSED)
        self.assertEqual(self.outcomes, [Outcome(Kind.SENT), *[refused] * 4])
        self.assertEqual(self.broker.status().subscribers, ())
        self.assertEqual(self.clock.getDelayedCalls(), [])
        with self.assertRaises(ValueError):
            Sink(self.broker, "b")


class ReportTests(BrokerCase):
    """A-37, A-13: what became of a message is told to its publisher and counted, and refusals are
    logged now and then.
    """

    def of(self, name: str) -> Any:
        (topic,) = [topic for topic in self.broker.status().topics if topic.topic == name]
        return topic

    def test_why_an_unreliable_message_is_refused(self) -> None:
        """The reason names what is full; the counts say what the subscribers did."""
        for taken, name, reason in (
            (Taken.FULL, "full", "every subscriber has enough to do"),
            (Taken.TOO_LARGE, "too large", "too large for every subscriber"),
        ):
            Sink(self.broker, "a", taken=taken)
            self.publish(Model.UNRELIABLE_ALL)
            self.assertEqual(self.outcomes.pop(), Outcome(Kind.REFUSED, reason=reason))
            self.assertEqual(self.of("t").counts[f"not sent: {name}"], 1)
            self.broker.remove("a")
        self.assertEqual(self.of("t").counts["overflow"], 2)

    def test_a_subscriber_that_is_gone(self) -> None:
        Sink(self.broker, "a", taken=Taken.GONE)
        self.publish(Model.UNRELIABLE_ALL)
        counts = {"published": 1, "not sent: gone": 1, "buffered": 1}
        self.assertEqual(self.of("t").counts, counts)

    def test_the_way_of_an_unreliable_message(self) -> None:
        """Sent at once, kept for a subscriber that comes, and kept for nobody."""
        Sink(self.broker, "a")
        for topic in "tuv":
            self.publish(Model.UNRELIABLE_ALL, topic)
        self.clock.advance(1.0)
        Sink(self.broker, "b", "u")
        self.clock.advance(2.0)
        start, kept = ("published", ""), ("buffered", "")
        expected = {
            "t": [start, ("offered", "a"), ("delivered", "")],
            "u": [start, kept, ("offered", "b"), ("delivered", "")],
            "v": [start, kept, ("expired", "")],
        }
        for topic, way in expected.items():
            steps = self.broker.trace(self.of(topic).recent[0].id)
            self.assertEqual([(step.event, step.subscriber) for step in steps], way)

    def test_a_message_without_a_name_of_its_publisher(self) -> None:
        self.publish(Model.UNRELIABLE_ALL)
        self.assertEqual([self.broker.trace(name) for name in ("", "!")], [(), ()])

    def test_reasons(self) -> None:
        """What a publisher is told is text of the bus."""
        texts = {
            BUS_FULL: "the bus is full",
            BUS_CLOSED: "the bus is closed",
            SHARE_FULL: "too much of one user or address waits for a subscriber",
        }
        for reason, text in texts.items():
            self.assertEqual(reason, text)

    def test_whose_share_is_full(self) -> None:
        """Its owner is told when others would still have room."""
        self.broker = self.make(buffer_total=80, buffer_bytes=60)
        owners = [BufferOwner(True, "ann")]
        for data, reason in ((b"x" * 10, ""), (b"x", SHARE_FULL)):
            self.publish_of(owners, data)
            kind = Kind.REFUSED if reason else Kind.SENT
            self.assertEqual(self.outcomes.pop(), Outcome(kind, reason=reason))
        self.publish(Model.UNRELIABLE_ALL, data=b"x" * 50)
        self.publish(Model.UNRELIABLE_ALL, data=b"x")
        self.assertEqual(
            self.outcomes, [Outcome(Kind.SENT), Outcome(Kind.REFUSED, reason=BUS_FULL)]
        )

    def publish_of(self, owners: list[BufferOwner], data: bytes) -> None:
        settings, new_id = self.broker.settings, self.broker.message_id()
        message = make_message(settings, new_id, Model.UNRELIABLE_ALL, "t", data=data)
        self.broker.publish(message, self.outcomes.append, owners=owners)

    def test_one_kept_message_that_is_too_large(self) -> None:
        """A-32: it is given up, and those behind it are delivered."""
        for data in (b"large", b"1", b"2"):
            self.publish(Model.UNRELIABLE_ALL, data=data)
        taken: list[bytes] = []

        def deliver(message: Message, number: int | None) -> Taken:
            if message.data == b"large":
                return Taken.TOO_LARGE
            taken.append(message.data)
            return Taken.YES

        self.broker.subscribe("a", ["t"], deliver)
        self.assertEqual((taken, self.of("t").buffered), ([b"1", b"2"], 0))
        counts = self.of("t").counts
        self.assertEqual((counts["overflow"], counts["delivered"]), (1, 2))

    def test_kept_for_one_that_is_busy(self) -> None:
        """A-32: what it does not take stays for the next."""
        self.publish(Model.UNRELIABLE_ALL, data=b"1")
        Sink(self.broker, "busy", taken=Taken.FULL)
        self.assertEqual(self.of("t").buffered, 1)
        self.assertEqual([m.data for m in Sink(self.broker, "next").messages], [b"1"])
        self.assertEqual(self.of("t").buffered, 0)

    def test_nothing_is_kept_after_the_end(self) -> None:
        self.publish(Model.UNRELIABLE_ALL, data=b"1")
        self.broker.close()
        self.assertEqual(self.of("t").buffered, 0)

    def test_while_subscribers_may_be_unknown(self) -> None:
        """A-31: unreliable messages are refused for that reason, until all are known."""
        sink = Sink(self.broker, "a")
        self.broker.incomplete("not all known")
        self.publish(Model.UNRELIABLE_ALL)
        self.broker.incomplete("")
        self.publish(Model.UNRELIABLE_ALL)
        expected = [Outcome(Kind.REFUSED, reason="not all known"), Outcome(Kind.SENT, receivers=1)]
        self.assertEqual((self.outcomes, len(sink.messages)), (expected, 1))

    def test_who_is_told_of_changes(self) -> None:
        """Whoever asked for it is called when a subscriber has come, changed or gone."""
        told: list[int] = []
        self.broker.on_listeners_changed(
            lambda: told.append(len(self.broker.listening("t")) + len(self.broker.listening("u")))
        )
        Sink(self.broker, "a")
        Sink(self.broker, "a", "u")
        self.broker.unsubscribe("a", ["t"])
        self.broker.remove("a")
        self.broker.remove("a")
        self.assertEqual(told, [1, 2, 1, 0])

    def test_known_matches_are_bounded(self) -> None:
        """A-13: those of 1024 topics are kept until a subscription changes."""
        Sink(self.broker, "a", ">")
        first = self.broker.listening("t")
        for n in range(1023):
            self.broker.listening(str(n))
        self.assertIs(self.broker.listening("t"), first)
        self.broker.listening("one more")
        self.assertIsNot(self.broker.listening("t"), first)
        self.assertEqual(self.broker.listening("t"), first)

    def test_refusals_in_the_log(self) -> None:
        """All are counted. A line of the log for each reason stands for a minute."""
        lines: list[tuple[str, int]] = []

        def observe(event: Any) -> None:
            if "reason" in event:
                lines.append((event["reason"], event["count"]))

        directlyProvides(observe, ILogObserver)
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        for seconds, reason in ((0, "one"), (0, "one"), (30, "other"), (29, "one"), (1, "one")):
            self.clock.advance(seconds)
            self.broker.turned_away(reason)
        self.assertEqual(lines, [("one", 1), ("other", 1), ("one", 4)])
        counts = self.broker.status().counts
        self.assertEqual((counts["turned away: one"], counts["turned away: other"]), (4, 1))


class MembershipTests(BrokerCase):
    """A-62: what watches and the watcher of the broker are told of subscribers."""

    def setUp(self) -> None:
        super().setUp()
        self.told: list[Any] = []

    def watch(self) -> None:
        self.broker.watches.watch("t", self.told.append)
        self.clock.advance(0)

    def test_removed(self) -> None:
        """It is no member from then on, unless it is to stay one for some time."""
        for arguments, seconds in (((), 0.0), ((0.5,), 0.5)):
            Sink(self.broker, "a")
            self.watch()
            self.broker.remove("a", *arguments)
            self.clock.advance(seconds - 0.1 if seconds else 0)
            self.assertEqual([m.id for m in self.told[-1]], ["a"] if seconds else [])
            self.clock.advance(0.2)
            self.assertEqual(self.told[-1], ())

    def test_keys_end_with_the_last_topic(self) -> None:
        """Also of one that has a call in hand."""
        sink = Sink(self.broker, "a")
        self.broker.subscribe("a", ["u"], sink.deliver, ["k"])
        self.watch()
        self.publish()
        self.broker.unsubscribe("a", ["u"])
        self.clock.advance(0)
        self.broker.unsubscribe("a")
        self.clock.advance(0)
        Sink(self.broker, "a")
        self.clock.advance(0)
        self.assertEqual([[m.keys for m in told] for told in self.told], [[("k",)], [], [()]])

    def test_while_subscribers_may_be_unknown(self) -> None:
        """A-31: nothing is told until all are known."""
        self.watch()
        self.broker.incomplete("not all known")
        Sink(self.broker, "a")
        self.clock.advance(1.0)
        self.assertEqual(self.told, [()])
        self.broker.incomplete("")
        self.clock.advance(0)
        self.assertEqual([[m.id for m in told] for told in self.told], [[], ["a"]])

    def test_no_watch_after_the_end(self) -> None:
        self.watch()
        Sink(self.broker, "a")
        self.broker.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.told, [()])

    def test_the_watcher(self) -> None:
        """It is told of everything but what happens on other nodes."""
        told: list[Any] = []

        class Watcher:
            def subscribed(self, *values: Any, deliver: Any, since: float) -> None:
                told.append((*values, since))

            def unsubscribed(self, *values: Any) -> None:
                told.append(values)

            def removed(self, *values: Any) -> None:
                told.append(values)

            def answered(self, *values: Any) -> None:
                told.append(values)

        self.clock.advance(7.0)
        watcher: Any = Watcher()
        self.broker = Broker(self.clock, wall=self.clock.seconds, watcher=watcher)
        sink = Sink(self.broker, "a")
        self.clock.advance(1.0)
        self.broker.subscribe("a", ["u"], sink.deliver, ["k"])
        self.broker.subscribe("b", ["t"], sink.deliver, since=5.0)
        self.broker.subscribe("c", ["t"], sink.deliver, elsewhere=True)
        self.broker.unsubscribe("a", ["t"])
        self.broker.answer("a", 2**63 - 1, ANSWER)
        self.broker.answer("a", 2**63, ANSWER)
        self.broker.remove("a")
        self.broker.remove("b", 4.0)
        expected = [
            ("a", ("t",), (), 7.0),
            ("a", ("t", "u"), ("k",), 7.0),
            ("b", ("t",), (), 5.0),
            ("a", ("u",)),
            ("a", 2**63, ANSWER),
            ("a", 0.0),
            ("b", 4.0),
        ]
        self.assertEqual(told, expected)


class KillTests(BrokerCase):
    """A-20..A-22: whoever dies, every call has exactly one outcome by its deadline."""

    #: Calls in each run.
    calls = 3000

    def test_random_deaths(self) -> None:
        for seed in range(3):
            self.run_with(Random(seed))

    def run_with(self, random: Random) -> None:
        self.broker = self.make()
        outcomes: dict[int, list[tuple[float, Kind]]] = {}
        deadlines: dict[int, float] = {}
        alive: dict[str, Sink] = {}
        seen: Counter[tuple[str, str]] = Counter()
        born = 0
        for n in range(self.calls):
            if n % 500 < 100:  # now and then they all die, and nobody comes for a while
                for name in list(alive):
                    del alive[name]
                    self.broker.remove(name)
            while n % 500 >= 100 and len(alive) < random.randrange(6):
                born += 1
                name = f"s{born}"
                topics = random.choice([("t",), ("*",), ("t", ">")])
                alive[name] = Sink(self.broker, name, *topics)
            timeout = random.choice([0.05, 0.3, 1.0])
            model = random.choice([Model.RELIABLE_RANDOM, Model.RELIABLE_SPECIFIC])
            outcomes[n] = []
            deadlines[n] = self.clock.seconds() + timeout

            def done(outcome: Outcome, n: int = n) -> None:
                outcomes[n].append((self.clock.seconds(), outcome.kind))

            self.publish(model, timeout=timeout, done=done)
            for name, sink in list(alive.items()):
                self.act(random, name, sink, alive)
            self.clock.advance(random.choice([0.0, 0.001, 0.01]))
            for sink in alive.values():
                seen.update((sink.name, m.id) for m in sink.messages)
                sink.messages.clear()
        self.clock.pump([0.01] * 110)
        self.assertEqual({len(got) for got in outcomes.values()}, {1})
        for n, ((at, _),) in outcomes.items():
            self.assertLessEqual(at, deadlines[n] + 0.011)  # a step of this test's clock
        self.assertEqual(max(seen.values()), 1, "nobody gets a message twice")
        kinds = Counter(got[0][1] for got in outcomes.values())
        self.assertEqual(set(kinds), set(Kind) - {Kind.SENT})
        status = self.broker.status()
        self.assertEqual((status.calls, status.calls_bytes), (0, 0))
        self.assertEqual({s.unanswered for s in status.subscribers} | {0}, {0})
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def act(self, random: Random, name: str, sink: Sink, alive: dict[str, Sink]) -> None:
        luck = random.random()
        if luck < 0.05:
            del alive[name]
            self.broker.remove(name)  # with whatever it has in its hands
        elif luck < 0.08:
            sink.taken = random.choice([Taken.FULL, Taken.GONE])
        elif luck < 0.7 and sink.numbers:
            sink.answer(random.choice([ANSWER, ANSWER, ANSWER, FAILED, NOT_MINE]))
