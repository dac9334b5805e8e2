"""What a subscriber gets: each publication once and in order, or a gap of the right size."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.breaker import BreakerLimits
from kupool.live.durable import DurableHistory, topic_breaker
from kupool.live.filters import PublicationFilter
from kupool.live.publications import PublicationPriority, StreamPosition
from kupool.live.rules import ChannelKind, ChannelRule, QueueLimits, QueuePolicy
from kupool.live.session import LiveSession
from kupool.live.subscription import MOST_MEANWHILE, PAGE, LiveSubscription, Phase
from kupool.live.wishes import SubscribeOutcome, SubscribeWishes
from kupool.topics.partition import Partition
from kupool.topics.settings import TopicSettings
from tests.fakes.live import FakeSubscriber, LiveWorld, SlowEngine, new, topics_on

HISTORY = ChannelRule(pattern="a", history_size=5)
BARE = ChannelRule(pattern="a")
DURABLE = ChannelRule(pattern="a", kind=ChannelKind.DURABLE, topic="t")


class Watcher:
    """A client that checks that each publication comes once and in order, or is counted."""

    def __init__(self, world: LiveWorld, wishes: dict[str, Any]) -> None:
        self.world = world
        self.wishes = wishes
        #: The last publication that it knows of; None before the first subscription.
        self.at: int | None = None
        self.missed = 0
        self.subscription: LiveSubscription | None = None
        self.problems: list[Any] = []
        #: Whether replies are written late, so that subscriptions start late.
        self.late = False
        self._epoch = ""
        self.connect()

    def connect(self) -> None:
        self.subscriber, self.session = self.world.client()
        self.subscription = None
        wishes = SubscribeWishes(
            recover=None if self.at is None else StreamPosition(self.at, self._epoch),
            recoverable=True,
            **self.wishes,
        )
        self.session.subscribe("a", wishes).addCallbacks(self._subscribed, self._refused)

    def _refused(self, failure: Failure) -> None:
        self.problems.append(failure.value)

    def _subscribed(self, outcome: SubscribeOutcome) -> None:
        position = outcome.position
        if outcome.recoverable:
            if self.at is not None and not outcome.recovered:
                assert outcome.missed is not None
                self.missed += outcome.missed.missed
                self.check(self.at + outcome.missed.missed == position.offset, outcome)
            elif self.at is not None:
                self.check(position.offset == self.at, outcome)
            self.at, self._epoch = position
            for each in outcome.publications:
                self.got(each.offset)
        else:
            self.at = None  # it begins where it starts
        self.subscription = outcome.subscription
        if not self.late:
            self.start()

    def start(self) -> None:
        """The reply is written."""
        if self.subscription is not None:
            self.subscription.start()

    def cut(self) -> None:
        self.read()
        self.session.disconnect()
        self.subscriber.peer.abort()
        self.connect()

    def read(self) -> None:
        """Look at what has arrived."""
        for message in self.subscriber.taken():
            if message[0] == "gap":
                self.missed += message[2]
                if self.at is not None:
                    self.at += message[2]
            else:
                self.got(message[3])

    def got(self, number: int) -> None:
        if self.at is not None:
            self.check(number == self.at + 1, number)
        self.at = number

    def happen(self, step: str) -> None:
        """Let something happen to this one."""
        if step == "start":
            self.start()
        elif step == "stall":
            self.subscriber.stall()
        elif step == "drain":
            self.subscriber.read()
        elif step == "late":
            self.late = not self.late
        elif step == "cut":
            self.cut()
        else:
            self.session.unsubscribe("a")
        self.read()

    def check(self, right: bool, what: Any) -> None:
        if not right:
            self.problems.append((self.at, what))


#: What happens: to all, or to one of three watchers.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 12)),
        st.tuples(st.just("answer"), st.integers(1, 3)),
        st.tuples(st.just("turn"), st.just(0)),
        st.tuples(st.just("trim"), st.integers(0, 6)),
        st.tuples(
            st.sampled_from(("stall", "drain", "cut", "late", "start", "leave")), st.integers(0, 2)
        ),
    ),
    min_size=5,
    max_size=60,
)

#: Enough to find each way to lose something that was tried.
EXAMPLES = 300

POLICIES = st.sampled_from([each for each in QueuePolicy if each is not QueuePolicy.DISCONNECT])


class AnyOrderTests(SynchronousTestCase):
    """W-22, W-75: whatever happens in whatever order, nothing is lost in silence."""

    def run_steps(self, world: LiveWorld, engine: SlowEngine, steps: Any, wishes: Any) -> None:
        watchers = [Watcher(world, wishes) for _ in range(3)]
        published = 0
        engine.slow = True
        for step, number in steps:
            if step == "publish":
                for each in range(published, published + number):
                    world.service.publish("a", new(each + 1))
                published += number
            elif step in ("answer", "turn", "trim"):
                self.happen(world, engine, step, published - number)
            else:
                watchers[number].happen(step)
        engine.slow = False
        for _ in range(5):
            engine.answer()
            world.turns()
            for watcher in watchers:
                watcher.start()
                watcher.subscriber.read()
                watcher.read()
        for watcher in watchers:
            problems = [each for each in watcher.problems if not self.left_early(each)]
            self.assertEqual(problems, [])
            if watcher.session.subscription("a") is not None and watcher.at is not None:
                self.assertEqual(watcher.at, published)

    def happen(self, world: LiveWorld, engine: SlowEngine, step: str, offset: int) -> None:
        if step == "answer":
            engine.answer(2)
        elif step == "turn":
            world.clock.turn()
        else:
            engine.drop_below(Partition("t", 0), offset)

    def left_early(self, problem: Any) -> bool:
        return getattr(problem, "name", "") == "cancelled"

    @settings(max_examples=EXAMPLES)
    @given(STEPS, POLICIES, st.integers(1, 20))
    def test_history_in_memory(self, steps: Any, policy: QueuePolicy, size: int) -> None:
        world = LiveWorld(ChannelRule(pattern="a", history_size=size))
        engine = unused_engine()
        self.run_steps(world, engine, steps, self.wishes(policy))

    @settings(max_examples=EXAMPLES)
    @given(STEPS, POLICIES)
    def test_durable_history_that_answers_late(self, steps: Any, policy: QueuePolicy) -> None:
        engine, world = durable_world()
        self.run_steps(world, engine, steps, self.wishes(policy))

    @settings(max_examples=EXAMPLES)
    @given(STEPS, POLICIES)
    def test_without_history(self, steps: Any, policy: QueuePolicy) -> None:
        world = LiveWorld(BARE)
        engine = unused_engine()
        if policy is QueuePolicy.REPLAY:
            policy = QueuePolicy.DROP_OLDEST
        self.run_steps(world, engine, steps, self.wishes(policy))

    def wishes(self, policy: QueuePolicy) -> dict[str, Any]:
        return {"policy": policy, "queue": QueueLimits(messages=4, size=1000)}


def unused_engine() -> SlowEngine:
    """Return an engine with a topic that no channel uses."""
    engine = SlowEngine(lambda: 0.0)
    engine.create("t", TopicSettings())
    return engine


def durable_world() -> tuple[SlowEngine, LiveWorld]:
    """Return a world with a durable channel `a`, and the engine of its topic."""

    def durable(rule: ChannelRule) -> DurableHistory:
        return DurableHistory(
            topics,
            Partition("t", 0),
            "e",
            clock=world.clock,
            wall=world.clock.seconds,
            breaker=breaker,
        )

    world = LiveWorld(DURABLE, durable=durable)
    breaker = topic_breaker("t", world.clock, BreakerLimits())
    engine = SlowEngine(world.clock.seconds)
    engine.create("t", TopicSettings())
    topics = topics_on(engine, world.clock, world.clock.seconds)
    return engine, world


class Case(SynchronousTestCase):
    def subscribe(
        self, world: LiveWorld, **wishes: Any
    ) -> tuple[FakeSubscriber, LiveSession, LiveSubscription]:
        """Return a client whose subscription to `a` has started."""
        subscriber, session = world.client()
        outcome = self.successResultOf(session.subscribe("a", SubscribeWishes(**wishes)))
        outcome.subscription.start()
        return subscriber, session, outcome.subscription

    def publish(self, world: LiveWorld, *data: Any, **fields: Any) -> None:
        for each in data:
            world.service.publish("a", new(each, **fields))


class ReplayTests(Case):
    """W-20: a reliable subscription falls back to the history."""

    def test_a_slow_reader_gets_all_of_it_later(self) -> None:
        world = LiveWorld(ChannelRule(pattern="a", history_size=10_000))
        subscriber, _, subscription = self.subscribe(world, queue=QueueLimits(messages=3))
        subscriber.stall()
        self.publish(world, *range(500))
        self.assertEqual((subscription.phase, subscription.waiting), (Phase.BEHIND, 0))
        subscriber.read()
        self.assertEqual(subscriber.data(), list(range(500)))
        self.assertEqual((subscription.phase, subscription.dropped), (Phase.LIVE, None))
        self.publish(world, "live")
        self.assertEqual(subscriber.data(), ["live"])

    def test_what_the_history_has_lost_is_counted(self) -> None:
        """W-19: the client is told how much, and how far it goes."""
        world = LiveWorld(HISTORY)
        subscriber, _, subscription = self.subscribe(world, queue=QueueLimits(messages=3))
        subscriber.stall()
        self.publish(world, *range(50))
        subscriber.read()
        ((channel, gap),) = subscriber.told
        self.assertEqual((channel, gap), ("a", (45, 1, 45, "history", True)))
        self.assertEqual(subscriber.data(), list(range(45, 50)))
        self.assertEqual(subscription.dropped, {"history": 45})
        self.assertEqual(world.service.drops, {"history": 45})

    def test_only_as_much_is_read_as_the_client_reads(self) -> None:
        world = LiveWorld(ChannelRule(pattern="a", history_size=10_000))
        subscriber, _, subscription = self.subscribe(world, queue=QueueLimits(messages=3))
        subscriber.stall()
        self.publish(world, *range(PAGE - 1))
        subscriber.transport.producer.resumeProducing()  # there is room for one, and no more
        self.assertEqual(subscriber.data(), [0])
        self.assertEqual((subscription.phase, subscriber.peer.outbound), (Phase.BEHIND, 0))
        subscriber.read()
        self.assertEqual(subscriber.data(), list(range(1, PAGE - 1)))

    def test_a_page_at_a_time(self) -> None:
        """A long history is no deep recursion."""
        world = LiveWorld(ChannelRule(pattern="a", history_size=PAGE * 300))
        self.publish(world, *range(PAGE * 300))
        subscriber, _, _ = self.subscribe(
            world, recover=StreamPosition(0, "epoch1"), queue=QueueLimits(messages=3)
        )
        self.assertEqual(len(subscriber.data()), PAGE * 300 - 300)  # 300 were in the reply

    def test_what_is_published_while_a_page_is_read(self) -> None:
        """W-75: it is kept, and follows the page without a second look."""
        engine, world = durable_world()
        subscriber, _, subscription = self.subscribe(world, queue=QueueLimits(messages=1))
        subscriber.stall()
        self.publish(world, 1, 2, 3)
        engine.slow = True
        subscriber.read()
        self.assertEqual(subscription.phase, Phase.READING)
        engine.answer()
        self.assertEqual((subscriber.data(), subscription.phase), ([1, 2, 3], Phase.LIVE))

    def test_too_much_meanwhile_is_read_again(self) -> None:
        _, world = durable_world()
        subscriber, _, subscription = self.subscribe(world, queue=QueueLimits(messages=1))
        subscriber.stall()
        self.publish(world, 1, 2)
        reading: Deferred[Any] = Deferred()
        store: Any = subscription._channel.store  # type: ignore[attr-defined]
        part = self.successResultOf(store.after(0, 10))
        store.after, after = lambda offset, limit: reading, store.after
        subscriber.read()
        self.publish(world, *range(3, MOST_MEANWHILE + 10))
        store.after = after
        reading.callback(part)
        self.assertEqual(subscriber.data(), list(range(1, MOST_MEANWHILE + 10)))
        self.assertIs(subscription.phase, Phase.LIVE)

    def test_a_history_that_cannot_be_read(self) -> None:
        """The client has to subscribe again."""
        engine, world = durable_world()
        subscriber, session, subscription = self.subscribe(world, queue=QueueLimits(messages=1))
        subscriber.stall()
        self.publish(world, 1, 2)
        engine.broken = OSError("disk")
        subscriber.read()
        self.assertEqual(subscriber.log, [("unsubscribed", "a", "insufficient")])
        self.assertEqual((session.subscriptions, subscription.phase), ([], Phase.ENDED))


class PolicyTests(Case):
    """W-17: what happens to the publications of a slow reader."""

    def slow(self, policy: QueuePolicy, **wishes: Any) -> tuple[LiveWorld, FakeSubscriber]:
        world = LiveWorld(BARE)
        subscriber, _, _ = self.subscribe(
            world, policy=policy, queue=QueueLimits(messages=2), **wishes
        )
        subscriber.stall()
        return world, subscriber

    def test_drop_new(self) -> None:
        world, subscriber = self.slow(QueuePolicy.DROP_NEW)
        self.publish(world, 1, 2, 3, 4)
        subscriber.read()
        self.assertEqual(
            subscriber.taken(),
            [["pub", "a", 0, 1], ["pub", "a", 0, 2], ["gap", "a", 2, "full"]],
        )
        self.assertEqual(subscriber.told[0][1], (2, 0, 0, "full", True))

    def test_drop_oldest(self) -> None:
        world, subscriber = self.slow(QueuePolicy.DROP_OLDEST)
        self.publish(world, 1, 2, 3, 4)
        subscriber.read()
        self.assertEqual(
            subscriber.taken(),
            [["gap", "a", 2, "full"], ["pub", "a", 0, 3], ["pub", "a", 0, 4]],
        )

    def test_latest_of_each_key(self) -> None:
        world, subscriber = self.slow(QueuePolicy.LATEST)
        self.publish(world, 1, key="x")
        self.publish(world, 2, 3, key="y")
        subscriber.read()
        self.assertEqual(
            subscriber.taken(),
            [["pub", "a", 0, 1], ["gap", "a", 1, "replaced"], ["pub", "a", 0, 3]],
        )

    def test_wait_up_to_a_deadline(self) -> None:
        world, subscriber = self.slow(QueuePolicy.WAIT)
        self.publish(world, 1)
        world.clock.advance(4)
        self.publish(world, 2)
        world.clock.advance(2)
        subscriber.read()
        self.assertEqual(subscriber.taken(), [["gap", "a", 1, "late"], ["pub", "a", 0, 2]])

    def test_disconnect(self) -> None:
        world, subscriber = self.slow(QueuePolicy.DISCONNECT)
        self.publish(world, 1, 2, 3, 4)
        self.assertEqual(subscriber.log, [("too slow", "a")])
        subscriber.read()
        self.assertEqual(subscriber.taken(), [])
        self.assertEqual(world.service.drops, {"full": 3})

    def test_an_emergency_passes_what_waits(self) -> None:
        """W-21, W-63: that of another channel goes first, whatever waits before it."""
        world = LiveWorld(ChannelRule(pattern="*"))
        subscriber, session, _ = self.subscribe(world)
        done = session.subscribe("alarms", SubscribeWishes())
        self.successResultOf(done).subscription.start()
        subscriber.stall()
        self.publish(world, *range(200))
        world.service.publish("alarms", new("!", priority=PublicationPriority.EMERGENCY))
        subscriber.read()
        self.assertEqual(subscriber.data()[0], "!")

    def test_who_leaves_when_a_gap_is_told_gets_nothing_more(self) -> None:
        """W-19: as a protocol does that cannot tell a gap."""
        for rule, policy in ((BARE, QueuePolicy.DROP_OLDEST), (HISTORY, QueuePolicy.REPLAY)):
            world = LiveWorld(rule)
            subscriber, session, subscription = self.subscribe(
                world, policy=policy, queue=QueueLimits(messages=2)
            )
            subscriber.gap = lambda *_, leave=session.unsubscribe: leave("a")  # type: ignore
            subscriber.stall()
            self.publish(world, *range(20))
            subscriber.read()
            self.publish(world, 20)
            self.assertEqual((subscriber.taken(), session.subscriptions), ([], []))
            self.assertIs(subscription.phase, Phase.ENDED)

    def test_who_leaves_at_a_hole(self) -> None:
        world = LiveWorld(BARE)
        subscriber, session, subscription = self.subscribe(world)
        subscriber.gap = lambda *_: session.unsubscribe("a")  # type: ignore
        subscription._channel.last += 2  # as if two had been dropped
        self.publish(world, 4)
        self.assertEqual((subscriber.taken(), session.subscriptions), ([], []))

    def test_a_slow_client_delays_nobody(self) -> None:
        """W-16."""
        world, slow = self.slow(QueuePolicy.WAIT)
        other, _, _ = self.subscribe(world)
        published = world.service.publish("a", new(1))
        self.successResultOf(published)
        self.assertEqual((other.data(), slow.data()), ([1], []))


class WishTests(Case):
    """W-66: what a subscriber wants of a channel, and how much of it."""

    def test_a_minimum_priority(self) -> None:
        world = LiveWorld(BARE)
        wanted = PublicationFilter(min_priority=PublicationPriority.HIGH)
        subscriber, _, _ = self.subscribe(world, wanted=wanted)
        self.publish(world, 1, 2)
        self.publish(world, 3, priority=PublicationPriority.EMERGENCY)
        self.assertEqual((subscriber.data(), subscriber.told), ([3], []))

    def test_what_is_not_wanted_is_not_read_again_either(self) -> None:
        world = LiveWorld(ChannelRule(pattern="a", history_size=50))
        wanted = PublicationFilter(devices=["x"])
        subscriber, _, _ = self.subscribe(world, wanted=wanted, queue=QueueLimits(messages=1))
        subscriber.stall()
        for each in range(6):
            self.publish(world, each, device="xy"[each % 2])
        subscriber.read()
        self.assertEqual((subscriber.data(), subscriber.told), ([0, 2, 4], []))

    def test_a_maximum_rate(self) -> None:
        """W-89: two a second; of the others the latest."""
        world = LiveWorld(BARE)
        subscriber, _, _ = self.subscribe(world, max_rate=2.0, policy=QueuePolicy.LATEST)
        self.publish(world, *range(10))
        self.assertEqual(subscriber.data(), [0, 1])
        world.clock.advance(0.25)
        world.turns()
        self.assertEqual(subscriber.data(), [])
        world.clock.advance(0.26)
        world.turns()
        self.assertEqual(subscriber.data(), [9])
        self.assertEqual(subscriber.told[0][1].missed, 7)

    def test_it_begins_with_start(self) -> None:
        """The reply precedes the first publication."""
        for rule, expected in ((BARE, [2]), (HISTORY, [1, 2])):
            world = LiveWorld(rule)
            subscriber, session = world.client()
            outcome = self.successResultOf(session.subscribe("a", SubscribeWishes()))
            self.publish(world, 1)
            self.assertEqual(subscriber.data(), [])
            outcome.subscription.start()
            outcome.subscription.start()
            self.publish(world, 2)
            self.assertEqual(subscriber.data(), expected)

    def test_a_hole_in_a_channel_without_history(self) -> None:
        """What the fan-out dropped is counted, behind what waits."""
        world = LiveWorld(BARE)
        subscriber, _, subscription = self.subscribe(world)
        subscriber.stall()
        self.publish(world, 1)
        subscription._channel.last += 2  # as if two had been dropped
        self.publish(world, 4)
        subscriber.read()
        self.assertEqual(
            subscriber.taken(),
            [["pub", "a", 0, 1], ["gap", "a", 2, "overload"], ["pub", "a", 0, 4]],
        )
        self.assertEqual(subscription.dropped, {"overload": 2})

    def test_an_encoding_that_raises_affects_its_client_alone(self) -> None:
        world = LiveWorld(HISTORY)
        bad, _, _ = self.subscribe(world)
        good, _, _ = self.subscribe(world)
        bad.transport.write = lambda data: 1 / 0  # type: ignore
        self.publish(world, 1)
        self.assertEqual(good.data(), [1])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
