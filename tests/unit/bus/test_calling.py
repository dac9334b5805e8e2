"""Reliable messages on a fake clock: who is asked, when, and what it is told of others."""

from __future__ import annotations

from sys import byteorder

from kupool.bus import Kind, Message, Model, Outcome, unguessable
from kupool.bus.calls import CallVerdict, Response, Taken
from kupool.bus.publishing import make_message
from tests.fakes.broker_case import ANSWER, FAILED, NOT_MINE, BrokerCase, Sink


class AnswerTests(BrokerCase):
    """A-22: what a subscriber answers is the outcome, and nothing else is."""

    def test_the_whole_outcome(self) -> None:
        sink = Sink(self.broker, "a")
        self.publish(data=b"question")
        self.assertEqual(self.broker.status().calls_bytes, 8)
        sink.answer(Response(CallVerdict.ANSWER, b"yes", 7))
        self.assertEqual(self.outcomes, [Outcome(Kind.ANSWERED, b"yes", 7, "", "a", 0)])
        status = self.broker.status()
        self.assertEqual((status.calls, status.calls_bytes), (0, 0))

    def test_an_answer_that_is_too_large(self) -> None:
        """A-13: it is a failure of the subscriber; as much as is allowed is none."""
        self.broker = self.make(max_data=10)
        sink = Sink(self.broker, "a")
        for size in (10, 11):
            self.publish()
            sink.answer(Response(CallVerdict.ANSWER, b"x" * size))
        text = "answer of 11 bytes: too large"
        self.assertEqual(self.outcomes[0].data, b"x" * 10)
        self.assertEqual(self.outcomes[1:], [Outcome(Kind.REFUSED, reason=text, subscriber="a")])

    def test_refused(self) -> None:
        """A-28: the publisher is told at once, and nobody else is asked."""
        sinks = [Sink(self.broker, str(n)) for n in range(2)]
        self.publish()
        (asked,) = [sink for sink in sinks if sink.messages]
        asked.answer(Response(CallVerdict.REFUSE, text="no"))
        self.assertEqual(self.outcomes, [Outcome(Kind.REFUSED, reason="no", subscriber=asked.name)])
        self.assertEqual(sum(len(sink.messages) for sink in sinks), 1)

    def test_numbers_of_calls_differ(self) -> None:
        """A-22: also if the same number is drawn twice; each is below those of other brokers."""
        drawn = b"".join(n.to_bytes(8, byteorder) for n in (2**63 + 5, 2**64 - 1, 2**64 - 1))
        self.patch(unguessable, "urandom", lambda size: bytes(size - len(drawn)) + drawn)
        self.broker = self.make()
        sink = Sink(self.broker, "a")
        for _ in range(2):
            message = Message("id", "t", b"", Model.RELIABLE_RANDOM, {}, "", 3.0)
            self.broker.publish(message, self.outcomes.append)
        self.assertEqual(sink.numbers, [2**63 - 1, 5])
        sink.answer()
        sink.answer()
        self.assertEqual(self.kinds, [Kind.ANSWERED] * 2)


class TraceTests(BrokerCase):
    """A-37: the way of a call from one subscriber to the next."""

    def way(self) -> list[tuple[str, str]]:
        (topic,) = self.broker.status().topics
        steps = self.broker.trace(topic.recent[-1].id)
        return [(step.event, step.subscriber) for step in steps]

    def test_from_one_to_the_next(self) -> None:
        first = Sink(self.broker, "1")
        self.publish()
        self.broker.remove("1")
        for name, response in (("2", NOT_MINE), ("3", FAILED)):
            Sink(self.broker, name).answer(response)
        self.assertEqual(len(first.messages), 1)
        expected = [
            ("published", ""),
            ("offered", "1"),
            ("lost", "1"),
            ("offered", "2"),
            ("not mine", "2"),
            ("offered", "3"),
            ("failed", "3"),
            ("refused", ""),
        ]
        self.assertEqual(self.way(), expected)

    def test_given_up_by_its_publisher(self) -> None:
        """A-22: it has no outcome, is counted, and takes no room any more."""
        sink = Sink(self.broker, "a")
        end = self.publish(data=b"x")
        end()
        end()
        sink.answer()
        self.assertEqual(self.outcomes, [])
        status = self.broker.status()
        self.assertEqual((status.calls, status.calls_bytes), (0, 0))
        self.assertEqual([s.unanswered for s in status.subscribers], [0])
        self.assertEqual((status.counts["cancelled"], status.counts.get("answered")), (1, None))
        self.assertEqual(self.way()[-1], ("cancelled", ""))


class WaitingTests(BrokerCase):
    """A-24: a call waits for a subscriber that comes, or has room, within its time."""

    def waiting(self, topic: str = "t") -> int:
        found = [t.waiting for t in self.broker.status().topics if t.topic == topic]
        return sum(found)

    def test_for_a_pattern(self) -> None:
        self.publish(topic="a.b")
        other = Sink(self.broker, "other", "b.*", "a")
        one = Sink(self.broker, "one", "a.*")
        self.assertEqual((len(other.messages), len(one.messages)), (0, 1))
        self.assertEqual(self.waiting("a.b"), 0)

    def test_one_of_two_is_given_up(self) -> None:
        """The other waits on; when both have ended nothing waits."""
        for model in (Model.RELIABLE_RANDOM, Model.RELIABLE_SPECIFIC):
            ends = [self.publish(model, data=b"%d" % n) for n in range(2)]
            self.assertEqual(self.waiting(), 2)
            ends[0]()
            self.assertEqual(self.waiting(), 1)
            sink = Sink(self.broker, "a")
            self.assertEqual([m.data for m in sink.messages], [b"1"])
            ends[1]()
            self.assertEqual(self.waiting(), 0)
            self.broker.remove("a")

    def test_too_late(self) -> None:
        """It does not wait after its outcome."""
        self.publish()
        self.clock.advance(3.0)
        self.assertEqual((self.kinds, self.waiting()), ([Kind.NO_SUBSCRIBER], 0))

    def test_declined_while_subscribers_may_be_unknown(self) -> None:
        """A-31: it has no outcome until all are known, and then at once."""
        sink = Sink(self.broker, "a")
        self.broker.incomplete("not all known")
        for model in (Model.RELIABLE_RANDOM, Model.RELIABLE_SPECIFIC):
            self.publish(model)
            sink.answer(NOT_MINE)
        self.assertEqual(self.outcomes, [])
        self.broker.incomplete("")
        self.assertEqual(self.kinds, [Kind.NO_SUBSCRIBER] * 2)

    def test_for_one_that_is_busy(self) -> None:
        """A-20: it is asked again after a third of the time of the call."""
        for model in (Model.RELIABLE_RANDOM, Model.RELIABLE_SPECIFIC):
            sink = Sink(self.broker, "a", taken=Taken.FULL)
            self.publish(model)
            sink.taken = Taken.YES
            self.clock.advance(0.98)
            self.assertEqual(sink.messages, [])
            self.clock.advance(0.03)
            self.assertEqual([m.redelivered for m in sink.messages], [False])
            sink.answer()
            self.broker.remove("a")
        self.assertEqual(self.kinds, [Kind.ANSWERED] * 2)

    def test_for_one_that_has_answered_another(self) -> None:
        """A-15: it has room then, and is asked at once."""
        sink = Sink(self.broker, "a")
        self.publish(data=b"1")
        sink.taken = Taken.FULL
        self.publish(data=b"2")
        sink.taken = Taken.YES
        self.assertEqual([m.data for m in sink.messages], [b"1"])
        sink.answer()
        self.assertEqual([m.data for m in sink.messages], [b"1", b"2"])

    def test_bytes_in_hand(self) -> None:
        """A-15: a subscriber has so many bytes of calls in hand. When it has answered, the next
        eight are tried, and more with each answer that follows.
        """
        self.broker = self.make(max_unanswered_bytes=100)
        sink = Sink(self.broker, "a")
        self.publish(data=b"x" * 60)
        self.publish(data=b"x" * 40)
        for _ in range(20):
            self.publish(data=b"x")
        seen = [len(sink.messages)]
        sink.numbers.reverse()  # the one of 40 bytes is answered first
        for _ in range(3):
            sink.answer()
            seen.append(len(sink.messages))
        self.assertEqual(seen, [2, 10, 18, 22])


class OfferTests(BrokerCase):
    """A-20, A-22: what a subscriber learns of the time that is left, and of others before it."""

    def test_time_that_is_left(self) -> None:
        sink = Sink(self.broker, "a")
        self.publish(timeout=0.5)
        self.assertEqual([m.timeout for m in sink.messages], [0.5])

    def test_sent_again_by_its_publisher(self) -> None:
        sink = Sink(self.broker, "a")
        for model in (Model.RELIABLE_RANDOM, Model.RELIABLE_SPECIFIC):
            settings = self.broker.settings
            message = make_message(settings, self.broker.message_id(), model, "t", data=b"")
            self.broker.publish(message._replace(redelivered=True), self.outcomes.append)
        self.assertEqual([m.redelivered for m in sink.messages], [True, True])

    def test_after_one_that_did_not_answer(self) -> None:
        """The next has it as redelivered; all that are asked at once have it as new."""
        sinks = [Sink(self.broker, str(n)) for n in range(2)]
        self.publish()
        self.clock.advance(1.0)
        self.assertEqual(sorted(m.redelivered for s in sinks for m in s.messages), [False, True])
        for sink in sinks:
            sink.messages.clear()
        self.publish(Model.RELIABLE_SPECIFIC)
        self.clock.advance(1.0)
        self.assertEqual([m.redelivered for s in sinks for m in s.messages], [False, False])

    def test_a_late_failure_of_one_that_was_asked_before(self) -> None:
        """A-20: the one that is asked now keeps its share of the time."""
        sinks = [Sink(self.broker, str(n)) for n in range(3)]
        self.publish()
        (first,) = [sink for sink in sinks if sink.messages]
        self.clock.advance(1.0)
        first.answer(FAILED)
        self.clock.advance(0.9)
        self.assertEqual(sum(len(sink.messages) for sink in sinks), 2)
        self.clock.advance(0.2)
        self.assertEqual(sum(len(sink.messages) for sink in sinks), 3)

    def test_after_one_that_is_gone(self) -> None:
        """Whether it was lost with the call, or when it was asked."""
        Sink(self.broker, "gone", taken=Taken.GONE)
        lost = Sink(self.broker, "lost")
        self.publish(Model.RELIABLE_SPECIFIC)
        self.assertEqual([m.redelivered for m in lost.messages], [True])
        self.broker.remove("gone")
        self.publish(Model.RELIABLE_SPECIFIC)
        self.assertEqual([m.redelivered for m in lost.messages], [True, False])
        self.broker.remove("lost")
        later = Sink(self.broker, "later")
        self.assertEqual([m.redelivered for m in later.messages], [True, True])

    def test_one_that_leaves_when_it_is_asked(self) -> None:
        """A-03: nothing is left of it."""

        def leave(message: Message, number: int | None) -> Taken:
            self.broker.unsubscribe("a")
            return Taken.GONE

        self.broker.subscribe("a", ["t"], leave)
        self.publish()
        self.assertEqual(self.broker.status().subscribers, ())

    def test_one_that_left_declines(self) -> None:
        """A-03: with its last answer it is forgotten, whatever that is."""
        for response in (NOT_MINE, FAILED, Response(CallVerdict.LOST)):
            sink = Sink(self.broker, "a")
            self.publish()
            self.broker.unsubscribe("a")
            self.assertEqual([s.unanswered for s in self.broker.status().subscribers], [1])
            sink.answer(response)
            self.assertEqual(self.broker.status().subscribers, ())


class OrderTests(BrokerCase):
    """A-15: a call that changes while another is processed waits for that one."""

    def test_published_from_within(self) -> None:
        """All subscribers have the first call before one has the second."""
        heard: list[tuple[str, bytes]] = []

        def deliver(name: str, message: Message) -> Taken:
            if (name, message.data) == ("a", b"1"):
                self.publish(Model.RELIABLE_SPECIFIC, data=b"2")
            heard.append((name, message.data))
            return Taken.YES

        for name in "ab":
            self.broker.subscribe(name, ["t"], lambda m, number, name=name: deliver(name, m))
        self.publish(Model.RELIABLE_SPECIFIC, data=b"1")
        self.assertEqual(sorted(heard[:2]), [("a", b"1"), ("b", b"1")])
        self.assertEqual(sorted(heard[2:]), [("a", b"2"), ("b", b"2")])

    def test_published_as_another_is_delivered_to_one_that_came(self) -> None:
        heard: list[bytes] = []

        def deliver(message: Message, number: int | None) -> Taken:
            if message.data == b"1":
                self.publish(data=b"2")
            heard.append(message.data)
            return Taken.YES

        self.publish(data=b"1")
        self.broker.subscribe("a", ["t"], deliver)
        self.assertEqual(heard, [b"1", b"2"])

    def test_behind_those_that_wait_for_their_turn(self) -> None:
        """Each call that is published goes on with the next five hundred of them."""
        for _ in range(1200):
            self.publish(data=b"1")
        sink = Sink(self.broker, "a")
        seen = [len(sink.messages)]
        self.publish(data=b"2")
        seen.append(len(sink.messages))
        self.clock.advance(0)
        self.assertEqual(seen, [500, 1000])
        self.assertEqual([m.data for m in sink.messages], [b"1"] * 1200 + [b"2"])

    def test_the_only_one_with_room_is_found(self) -> None:
        """A-20: whatever the order in which they are asked."""
        for n in range(4):
            Sink(self.broker, str(n), taken=Taken.FULL)
        free = Sink(self.broker, "free")
        for n in range(4, 6):
            Sink(self.broker, str(n), taken=Taken.GONE)
        for n in range(40):
            self.publish(data=b"%d" % n)
        self.assertEqual([m.data for m in free.messages], [b"%d" % n for n in range(40)])

    def test_any_of_them_is_asked(self) -> None:
        """A-20: the first one is chosen at random."""
        sinks = [Sink(self.broker, str(n)) for n in range(3)]
        for _ in range(60):
            self.publish()
        self.assertGreater(min(len(sink.messages) for sink in sinks), 10)

    def test_declined_by_a_whole_chunk_at_once(self) -> None:
        """A-28: those that are asked after it may answer yet."""

        def decline(name: str, number: int | None) -> Taken:
            self.broker.answer(name, number or 0, NOT_MINE)
            return Taken.YES

        for n in range(505):
            name = str(n)
            self.broker.subscribe(name, ["t"], lambda m, number, name=name: decline(name, number))
        last = Sink(self.broker, "last")
        self.publish(Model.RELIABLE_SPECIFIC)
        self.clock.advance(0)
        last.answer()
        self.assertEqual(self.kinds, [Kind.ANSWERED])

    def test_answered_while_it_is_asked(self) -> None:
        """A-15: it has room again for exactly what is allowed, whatever it says of the offer."""
        self.broker = self.make(max_unanswered_bytes=10)
        asked: list[bytes] = []
        taken = [Taken.YES, Taken.FULL, Taken.GONE]

        def deliver(message: Message, number: int | None) -> Taken:
            asked.append(message.data)
            if not taken:
                return Taken.YES
            self.broker.answer("a", number or 0, ANSWER)
            return taken.pop()

        self.broker.subscribe("a", ["t"], deliver)
        for data in (b"x", b"x", b"x", b"x" * 10, b"x"):
            self.publish(data=data)
        self.assertEqual(self.kinds, [Kind.ANSWERED] * 3)
        self.assertEqual(asked, [b"x"] * 3 + [b"x" * 10])


class TimeTests(BrokerCase):
    """Issue 13 build 8: a call ends in time, though it gets its timer later."""

    def times(self) -> list[float]:
        return sorted(round(call.getTime(), 3) for call in self.clock.getDelayedCalls())

    def test_when_it_gets_its_timer(self) -> None:
        """After 50 ms, if it is not answered by then; at once if it ends within 100 ms."""
        sink = Sink(self.broker, "a")
        self.publish(Model.RELIABLE_SPECIFIC, timeout=0.1)
        self.assertEqual(self.times(), [0.05])
        self.publish(Model.RELIABLE_SPECIFIC, timeout=0.09)
        self.assertEqual(self.times(), [0.05, 0.09])
        sink.answer()
        sink.answer()
        self.clock.advance(0.05)
        self.assertEqual(self.times(), [0.09])
        self.clock.advance(0.04)
        self.assertEqual((self.times(), self.kinds), ([], [Kind.ANSWERED] * 2))

    def test_it_ends_when_the_clock_calls_first(self) -> None:
        """A timer may come too early by a fraction of a microsecond: that is in time."""
        self.publish()
        (timer,) = self.clock.getDelayedCalls()
        self.assertLess(timer.getTime(), 3.0)
        self.clock.advance(timer.getTime())
        self.assertEqual((self.kinds, self.times()), ([Kind.NO_SUBSCRIBER], []))

    def test_the_last_share_of_the_time(self) -> None:
        """A-20: it ends with the time of the call, though it began late."""
        sinks = [Sink(self.broker, str(n)) for n in range(5)]
        self.publish()
        self.clock.advance(0.5)
        (first,) = [sink for sink in sinks if sink.messages]
        first.answer(FAILED)
        self.clock.pump([1.001, 1.001, 0.49])
        asked = sum(len(sink.messages) for sink in sinks)
        self.assertEqual((asked, self.kinds), (4, []))
        self.clock.advance(0.01)
        self.assertEqual(self.kinds, [Kind.TIMEOUT])

    def test_none_is_left_of_a_call_that_all_have_declined(self) -> None:
        sink = Sink(self.broker, "a")
        for response in (FAILED, NOT_MINE):
            self.publish()
            sink.answer(response)
            self.clock.advance(0.05)
            self.assertEqual(self.times(), [])
        self.assertEqual(self.kinds, [Kind.REFUSED, Kind.NO_SUBSCRIBER])

    def test_one_turn_goes_on_with_a_large_fan_out(self) -> None:
        """However many subscribers are left for it; the other one is for the timer of the call."""
        for n in range(510):
            Sink(self.broker, str(n))
        self.publish(Model.RELIABLE_SPECIFIC)
        self.assertEqual(self.times(), [0.0, 0.05])

    def test_none_is_left_of_calls_that_have_ended(self) -> None:
        ends = [self.publish(timeout=seconds) for seconds in (1.0, 2.0)]
        for end in ends:
            end()
        self.clock.advance(1.0)
        self.assertEqual(self.times(), [])

    def test_declined_by_one_of_two_before_it_gets_its_timer(self) -> None:
        """It ends once, when the other one has not answered in time."""
        sinks = [Sink(self.broker, str(n)) for n in range(2)]
        self.publish(Model.RELIABLE_SPECIFIC, timeout=0.12)
        self.clock.advance(0.03)
        sinks[0].answer(NOT_MINE)
        self.clock.pump([0.03, 0.059])
        self.assertEqual(self.outcomes, [])
        self.clock.pump([0.002, 0.1])
        self.assertEqual((self.kinds, self.times()), ([Kind.TIMEOUT], []))

    def test_less_time_than_that(self) -> None:
        Sink(self.broker, "a")
        self.publish(timeout=0.02)
        self.clock.advance(0.019)
        self.assertEqual(self.outcomes, [])
        self.clock.advance(0.002)
        self.assertEqual(self.kinds, [Kind.TIMEOUT])

    def test_more_than_get_their_timers_in_one_turn(self) -> None:
        Sink(self.broker, "a")
        for _ in range(501):
            self.publish(Model.RELIABLE_SPECIFIC, timeout=0.2)
        self.clock.pump([0.05, 0, 0.151, 0])
        self.assertEqual(self.kinds, [Kind.TIMEOUT] * 501)
