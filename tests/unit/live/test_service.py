"""Live channels by name: publishing, history, and who is there."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.centrifuge.refusals import error_of
from kupool.live.failures import (
    HistoryUnavailable,
    InvalidChannelName,
    InvalidPublication,
    InvalidWish,
    LiveLimitExceeded,
    NotAvailable,
    SinkUnavailable,
    UnknownChannel,
    UnrecoverablePosition,
)
from kupool.live.filters import PublicationFilter
from kupool.live.hub import Channel, Hub
from kupool.live.overload import LoadState
from kupool.live.publications import NewPublication, StreamPosition
from kupool.live.rules import ChannelKind, ChannelRule, ChannelRules
from kupool.live.session import LiveSession
from kupool.live.shown import error_row
from kupool.live.wishes import HistoryWishes, SubscribeWishes
from kupool.timing.chunks import CHUNK
from kupool.topics.interfaces import Append
from kupool.topics.partition import Partition
from kupool.wire.framing import FRAME, LINE
from tests.fakes.live import FakeSubscriber, LiveWorld, new, offsets
from tests.unit.live.test_subscription import durable_world

RULE = ChannelRule(pattern="*", history_size=10)


class SmallHub(Hub):
    """Its channels have room for few publications that are under way."""

    def channel(self, *, limit: int = 5) -> Channel:
        return super().channel(limit=limit)


class Case(SynchronousTestCase):
    def join(
        self, world: LiveWorld, channel: str = "a", user: str = "", **wishes: Any
    ) -> tuple[FakeSubscriber, LiveSession]:
        subscriber, session = world.client(user)
        done = session.subscribe(channel, SubscribeWishes(**wishes))
        self.successResultOf(done).subscription.start()
        return subscriber, session


#: Who subscribes to what, and what is published: a step of one of four clients.
CHANNELS = st.sampled_from(["a", "A", "n:a"])
DEVICES = st.sampled_from(["d", "e", "D"])
STEPS = st.one_of(
    st.tuples(
        st.just("subscribe"), st.integers(0, 3), CHANNELS, st.frozensets(DEVICES, max_size=3)
    ),
    st.tuples(st.just("unsubscribe"), st.integers(0, 3), CHANNELS, st.just(frozenset[str]())),
    st.tuples(st.just("come back"), st.integers(0, 3), CHANNELS, st.just(frozenset[str]())),
    st.tuples(st.just("publish"), st.integers(1, 3), CHANNELS, st.frozensets(DEVICES, max_size=1)),
)


class LookupTests(SynchronousTestCase):
    """W-70: channels and devices are found in dictionaries and sets, which forget at once and
    miss nobody; there is no filter that could say wrongly that nobody listens.
    """

    @given(st.lists(STEPS, min_size=30, max_size=60))
    def test_nobody_is_missed(self, steps: list[tuple[str, int, str, frozenset[str]]]) -> None:
        """Whoever comes and goes: exactly those get a publication who want its channel and device,
        from the next one on.
        """
        world = LiveWorld(
            ChannelRule(pattern="*"), ChannelRule(pattern=">"), ChannelRule(pattern="n:*")
        )
        clients = [world.client() for _ in range(4)]
        wanted: list[dict[str, frozenset[str]]] = [{} for _ in clients]
        for number, (step, who, channel, devices) in enumerate(steps):
            if step == "publish":
                device = next(iter(devices), "")
                world.service.publish(channel, new(number, device=device, priority=who))
                got = [subscriber.data() == [number] for subscriber, _ in clients]
                expected = [
                    channel in each and (not each[channel] or device in each[channel])
                    for each in wanted
                ]
                self.assertEqual(got, expected)
            elif step == "subscribe" and channel not in wanted[who]:
                wishes = SubscribeWishes(wanted=PublicationFilter(devices=tuple(devices)))
                done = clients[who][1].subscribe(channel, wishes)
                self.successResultOf(done).subscription.start()
                wanted[who][channel] = devices
            elif step == "unsubscribe":
                known = wanted[who].pop(channel, None) is not None
                self.assertEqual(clients[who][1].unsubscribe(channel), known)
            elif step == "come back":
                clients[who][1].disconnect()
                clients[who] = world.client()
                wanted[who] = {}


class PublishTests(Case):
    """W-07, W-16: one publication for all."""

    def test_refusals(self) -> None:
        world = LiveWorld(RULE, publication_bytes=10, channels=1)
        for channel, data, error in (
            ("", b"1", InvalidChannelName),
            ("n:x", b"1", UnknownChannel),
            ("a", b"", InvalidPublication),
            ("a", b"{", InvalidPublication),
            ("a", b"1 2", InvalidPublication),
            ("a", b"[" * 9, InvalidPublication),
            ("a", b'"0123456789"', InvalidPublication),
        ):
            done = world.service.publish(channel, NewPublication(data=data))
            self.failureResultOf(done, error)
        tags = NewPublication(data=b"1", tags={"abcde": "fghij"})
        self.failureResultOf(world.service.publish("a", tags), InvalidPublication)
        world.service.publish("a", new(1))
        self.failureResultOf(world.service.publish("b", new(1)), LiveLimitExceeded)

    def test_data_is_one_line(self) -> None:
        """Framings end messages by newlines."""
        world = LiveWorld(RULE)
        subscriber, _ = self.join(world)
        world.service.publish("a", NewPublication(data=b'{\r\n"a": [1,\n2], "b": "\\n"}'))
        self.assertEqual(subscriber.transport.value(), b'["pub","a",1,{"a":[1,2],"b":"\\n"}]\n')

    def test_encoded_once_for_each_framing(self) -> None:
        """W-07."""
        world = LiveWorld(RULE)
        for framing in (LINE, FRAME, LINE, FRAME, LINE):
            _, session = world.client("", framing)
            done = session.subscribe("a", SubscribeWishes())
            self.successResultOf(done).subscription.start()
        world.service.publish("a", new(1))
        self.assertEqual(world.encoding.encoded, 2)

    def test_a_large_channel(self) -> None:
        """W-87: in parts, and it fires when everybody has it."""
        world = LiveWorld(RULE)
        clients = [self.join(world) for _ in range(CHUNK + 10)]
        first, second = (world.service.publish("a", new(each)) for each in (1, 2))
        self.assertNoResult(first)
        clients[3][1].disconnect()
        late, _ = self.join(world)
        world.turns()
        self.assertEqual(self.successResultOf(first).offset, 1)
        self.assertEqual(self.successResultOf(second).offset, 2)
        del clients[3]
        self.assertEqual({tuple(each.data()) for each, _ in clients}, {(1, 2)})
        self.assertEqual(late.data(), [])

    def test_more_than_can_be_fanned_out(self) -> None:
        """W-89: the history has it, or it is counted; nobody waits for the next publication."""
        for rule in (ChannelRule(pattern="*"), ChannelRule(pattern="*", history_size=2000)):
            world = LiveWorld(rule, hub=SmallHub)
            clients = [self.join(world)[0] for _ in range(CHUNK + 10)]
            for each in range(50):
                world.service.publish("a", new(each))
            world.turns()
            for client in (clients[0], clients[-1]):
                missed = sum(gap.missed for _, gap in client.told)
                self.assertEqual(len(client.data()) + missed, 50)
                self.assertEqual(missed == 0, rule.history_size == 2000)

    def test_published_again(self) -> None:
        """W-55: nobody gets it twice, and it has the place of the first time."""
        world = LiveWorld(RULE)
        subscriber, _ = self.join(world)
        event = new(1, event_id="e")
        first = self.successResultOf(world.service.publish("a", event))
        world.clock.advance(10)
        self.assertEqual(self.successResultOf(world.service.publish("a", event)), first)
        self.assertEqual((subscriber.data(), world.service.repeated), ([1], 1))
        world.service.publish("b", event)
        world.clock.advance(300)
        world.service.publish("a", event)
        self.assertEqual((subscriber.data(), world.service.publications), ([1], 3))

    def test_durable_before_anybody_has_it(self) -> None:
        """W-57: if it cannot be kept, the publisher hears of it, and nobody else."""
        engine, world = durable_world()
        subscriber, session = self.join(world)
        engine.slow = True
        published = world.service.publish("a", new(1))
        self.assertEqual(subscriber.data(), [])
        engine.answer()
        self.assertEqual((subscriber.data(), self.successResultOf(published).offset), ([1], 1))
        engine.slow, engine.broken = False, OSError("disk full")
        event = new(2, event_id="e")
        self.failureResultOf(world.service.publish("a", event), HistoryUnavailable)
        self.assertEqual(subscriber.data(), [])
        engine.broken = None
        world.service.publish("a", event)
        world.clock.advance(60)
        self.assertEqual(subscriber.data(), [2])
        session.disconnect()

    def test_an_emergency_is_not_dropped(self) -> None:
        """W-63: however much is being fanned out, everybody gets an emergency."""
        world = LiveWorld(ChannelRule(pattern="a"), hub=SmallHub)
        clients = [self.join(world)[0] for _ in range(CHUNK + 10)]
        for each in range(50):
            world.service.publish("a", new(each, priority=3 if each == 30 else 1))
        world.turns()
        self.assertEqual([30 in client.data() for client in clients], [True] * len(clients))

    def test_merged_publications(self) -> None:
        """W-62: who publishes a replaced event again learns the same, and nobody gets it."""
        world = LiveWorld(RULE)
        subscriber, _ = self.join(world)
        world.service.gate.watch.state = LoadState.DEGRADED
        event = new(1, device="d", event_type="t", event_id="e")
        first = world.service.publish("a", event)
        world.service.publish("a", new(2, device="d", event_type="t"))
        world.clock.advance(0.02)
        record = self.successResultOf(first)
        self.assertEqual((subscriber.data(), record.offset, record.replaced), ([2], 0, True))
        self.assertEqual(self.successResultOf(world.service.publish("a", event)), record)

    def test_what_the_daemon_says(self) -> None:
        """The daemon's own messages are never limited or merged."""
        world = LiveWorld(RULE)
        subscriber, _ = self.join(world)
        world.service.gate.watch.state = LoadState.DEGRADED
        world.service.gate.devices.rate = 1
        for each in range(3):
            world.service.announce("a", new(each, device="d", event_type="t"))
        self.assertEqual(subscriber.data(), [0, 1, 2])

    def test_what_waits_for_slow_clients(self) -> None:
        """W-65: the lengths of the queues are known by priority."""
        world = LiveWorld(ChannelRule(pattern="a"))
        subscriber, _ = self.join(world)
        subscriber.stall()
        for priority in (1, 1, 2, 3):
            world.service.publish("a", new(1, priority=priority))
        self.assertEqual(self.successResultOf(world.service.queued()), {1: 2, 2: 1, 3: 1})

    def test_a_topic_that_fails(self) -> None:
        """Issue text of build 7, overload: a channel fails at once while its topic does not work,
        and says so; it works again after the wait.
        """
        engine, world = durable_world()
        engine.broken = OSError("disk full")
        for _ in range(5):
            self.failureResultOf(world.service.publish("a", new(1)), HistoryUnavailable)
        engine.broken = None
        error = self.failureResultOf(world.service.publish("a", new(2)), SinkUnavailable).value
        self.assertEqual(
            error_row(error).text,
            "Temporarily unavailable: topic t does not work at the moment: try again in 1 s",
        )
        self.assertIn("topic t does not work", error_of(error).message)
        world.clock.advance(1)
        self.successResultOf(world.service.publish("a", new(3)))

    def test_a_durable_channel_without_storage(self) -> None:
        world = LiveWorld(ChannelRule(pattern="a", kind=ChannelKind.DURABLE, topic="t"))
        self.failureResultOf(world.service.publish("a", new(1)), UnknownChannel)


class HistoryTests(Case):
    """W-75: reading the history."""

    def found(self, world: LiveWorld, *wishes: Any) -> list[int]:
        done = world.service.history("a", HistoryWishes(*wishes))
        return offsets(self.successResultOf(done).publications)

    def test_parts_of_it(self) -> None:
        world = LiveWorld(RULE, history_per_call=8)
        for each in range(12):
            world.service.publish("a", new(each))
        since = StreamPosition(6, "epoch1")
        for wishes, expected in (
            ((0,), []),
            ((3,), [3, 4, 5]),
            ((-1,), [3, 4, 5, 6, 7, 8, 9, 10]),
            ((1_000_000,), [3, 4, 5, 6, 7, 8, 9, 10]),
            ((2, since), [7, 8]),
            ((2, None, True), [12, 11]),
            ((2, since, True), [5, 4]),
            ((-1, since, True), [5, 4, 3]),
            ((2, StreamPosition(99, "epoch1")), []),
            ((2, StreamPosition(0, "")), [3, 4]),
        ):
            self.assertEqual(self.found(world, *wishes), expected, wishes)
        done = world.service.history("a", HistoryWishes(0))
        self.assertEqual(self.successResultOf(done).position, StreamPosition(12, "epoch1"))

    def test_backwards_where_offsets_have_gaps(self) -> None:
        """As many as are wanted, from before the gap if need be."""
        engine, world = durable_world()
        for each in range(6):
            world.service.publish("a", new(each))
        engine.append([Append(Partition("t", 0), 50, b"\x01garbage")])
        for each in range(2):
            world.service.publish("a", new(each))
        self.assertEqual(self.found(world, 4, None, True), [58, 57, 6, 5])
        self.assertEqual(self.found(world, 3, StreamPosition(58, "e"), True), [57, 6, 5])
        self.assertEqual(self.found(world, 2, StreamPosition(40, "e"), True), [6, 5])

    def test_a_batch_that_cannot_be_read(self) -> None:
        """Q-08, W-19: who listens is told how much is missed, and publishing goes on."""
        engine, world = durable_world()
        subscriber, session = self.join(world)
        world.service.publish("a", new(1))
        engine.append([Append(Partition("t", 0), 3, b"\x01garbage")])
        self.successResultOf(world.service.publish("a", new(2)))
        world.turns()
        taken = subscriber.taken()
        self.assertEqual([each[3] for each in taken if each[0] == "pub"], [1, 2])
        self.assertEqual([each[2] for each in taken if each[0] == "gap"], [3])
        session.disconnect()

    def test_refusals(self) -> None:
        world = LiveWorld(RULE, ChannelRule(pattern="n:*"))
        service = world.service
        self.failureResultOf(service.history("n:a", HistoryWishes()), NotAvailable)
        self.failureResultOf(service.history("m:a", HistoryWishes()), UnknownChannel)
        self.failureResultOf(service.history_remove("n:a"), NotAvailable)
        other = HistoryWishes(1, StreamPosition(0, "other"))
        self.failureResultOf(service.history("a", other), UnrecoverablePosition)

    def test_removed(self) -> None:
        """The position stays, also of a channel that nobody has."""
        world = LiveWorld(RULE)
        for each in range(3):
            world.service.publish("a", new(each))
        self.successResultOf(world.service.history_remove("a"))
        self.assertEqual(self.found(world, -1), [])
        self.assertEqual(self.successResultOf(world.service.publish("a", new(3))).offset, 4)
        done = world.service.history("a", HistoryWishes())
        self.assertEqual(self.successResultOf(done).position, StreamPosition(4, "epoch1"))


class PresenceTests(Case):
    """W-76: who is there, and who comes and goes."""

    def test_clients_and_users(self) -> None:
        """W-29: a user may have several clients; all anonymous ones are one user."""
        world = LiveWorld(ChannelRule(pattern="a", presence=True))
        clients = [self.join(world, user=user) for user in ("bob", "bob", "", "", "eve")]
        self.assertEqual(world.service.presence_stats("a"), (5, 3))
        present = world.service.presence("a")
        self.assertEqual([each.user for each in present], ["bob", "bob", "", "", "eve"])
        clients[0][1].disconnect()
        clients[4][1].unsubscribe("a")
        self.assertEqual(world.service.presence_stats("a"), (3, 2))
        self.assertEqual(len(list(world.service.sessions_of("bob"))), 1)
        self.assertEqual((world.service.clients, world.service.users), (4, 3))

    def test_one_that_has_not_started_is_not_there(self) -> None:
        world = LiveWorld(ChannelRule(pattern="a", presence=True))
        _, session = world.client()
        self.successResultOf(session.subscribe("a", SubscribeWishes()))
        self.assertEqual(
            (world.service.presence("a"), world.service.presence_stats("a")[0]), ([], 0)
        )
        session.disconnect()
        self.assertEqual(world.service.presence_stats("a"), (0, 0))

    def test_hidden_by_a_token(self) -> None:
        world = LiveWorld(ChannelRule(pattern="a", presence=True, forced_join_leave=True))
        watcher, _ = self.join(world)
        watcher.taken()
        self.join(world, emit_presence=False, emit_join_leave=False)
        self.assertEqual((watcher.taken(), world.service.presence_stats("a")), ([], (1, 1)))

    def test_join_and_leave(self) -> None:
        """Join reaches the newcomer, leave not the leaver."""
        world = LiveWorld(ChannelRule(pattern="a", join_leave=True))
        first, _ = self.join(world, join_leave=True)
        deaf, _ = self.join(world)
        third, session = self.join(world, join_leave=True)
        session.unsubscribe("a")
        expected = [["join", "a", each] for each in ("c1", "c2", "c3")] + [["leave", "a", "c3"]]
        self.assertEqual((first.taken(), deaf.taken()), (expected, []))
        self.assertEqual(third.taken(), [["join", "a", "c3"]])

    def test_no_presence(self) -> None:
        world = LiveWorld(RULE)
        self.assertRaises(NotAvailable, world.service.presence, "a")
        self.assertRaises(NotAvailable, world.service.presence_stats, "a")
        self.assertRaises(UnknownChannel, world.service.presence, "n:a")


class ChannelTests(Case):
    """W-67: which channels there are."""

    def test_by_pattern(self) -> None:
        world = LiveWorld(ChannelRule(pattern=">"))
        for channel in ("users.bob", "users.bob", "users.eve", "pool"):
            self.join(world, channel)
        found = [tuple(each) for each in world.service.channels("users.*")]
        self.assertEqual(found, [("users.bob", 2), ("users.eve", 1)])
        self.assertEqual(len(world.service.channels()), 3)
        self.assertRaises(InvalidWish, world.service.channels, "*" * 256)

    def test_stopped(self) -> None:
        """W-12: no timer is left."""
        world = LiveWorld(RULE)
        for user in ("a", "b", ""):
            self.join(world, user=user)
        world.service.publish("a", new(1))
        world.service.stop()
        world.turns()
        self.assertEqual((world.service.clients, world.clock.getDelayedCalls()), (0, []))


class ChangingRulesTests(Case):
    """W-38, W-71: rules change while clients are there."""

    def test_a_channel_with_another_rule_begins_anew(self) -> None:
        """Its clients are told to come again; channels whose rule is the same notice nothing."""
        kept = ChannelRule(pattern="kept", history_size=5)
        world = LiveWorld(kept, ChannelRule(pattern="*", history_size=5))
        client, session = self.join(world, "a")
        self.successResultOf(session.subscribe("kept", SubscribeWishes())).subscription.start()
        world.service.publish("a", new(1))
        rules = ChannelRules([kept, ChannelRule(pattern="*", history_size=9)])
        self.assertEqual(world.service.use_rules(rules), 1)
        self.assertEqual(client.log, [("unsubscribed", "a", "insufficient")])
        found = self.successResultOf(session.subscribe("a", SubscribeWishes(recoverable=True)))
        self.assertEqual(found.position.offset, 0)
        self.assertEqual(world.service.use_rules(ChannelRules([kept])), 1)
        self.assertEqual(client.log[1:], [("unsubscribed", "a", "forbidden")])
        self.failureResultOf(world.service.publish("a", new(1)), UnknownChannel)

    def test_who_listens(self) -> None:
        """W-40: a source learns when somebody begins to listen, and when nobody does any more."""
        world = LiveWorld(RULE)
        told: list[tuple[str, bool]] = []
        world.service.watch_attended(lambda *what: told.append(what))
        _, first = self.join(world)
        _, second = self.join(world)
        first.disconnect()
        self.assertEqual(told, [("a", True)])
        second.disconnect()
        self.assertEqual(told, [("a", True), ("a", False)])

    def test_a_position_by_time(self) -> None:
        """W-75."""
        world = LiveWorld(RULE, ChannelRule(pattern="n:*"))
        for number in range(3):
            world.service.publish("a", new(number))
            world.clock.advance(10)
        found = self.successResultOf(world.service.position_at("a", world.wall + 15))
        self.assertEqual(found.offset, 2)
        self.failureResultOf(world.service.position_at("n:x", 0.0), NotAvailable)
