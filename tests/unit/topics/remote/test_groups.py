"""Members of groups of a server: they go on by themselves, whatever happens to the connection."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from kupool.errors import STALE_GENERATION, WRONG_NODE
from kupool.topics.consumer import GroupConsumer, IGroupClient, MemberSettings
from kupool.topics.errors import IllegalGeneration, UnknownMember
from kupool.topics.interfaces import Append
from kupool.topics.lanes import DeliveredRecord
from kupool.topics.membership import GroupSubscription, MemberBeat
from kupool.topics.partition import Partition
from kupool.topics.remote.failures import BadAnswer
from kupool.topics.remote.groups import RemoteGroupClient
from kupool.topics.remote.operations import REMOTE_OPERATIONS
from kupool.topics.remote.topics import RemoteTopics
from kupool.topics.settings import TopicSettings
from tests.fakes.remote_topics import RemoteCase
from tests.fakes.topic_server import TopicServer

P0, P1 = Partition("t", 0), Partition("t", 1)
WANTED = GroupSubscription(frozenset(["t"]), 10.0)


class GroupClientTests(RemoteCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = RemoteGroupClient(self.topics())

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IGroupClient, self.client))

    def test_a_life(self) -> None:
        """Q-42, Q-45: join, heartbeat, commit and leave."""
        self.write(b"a", b"b")
        place = self.result(self.client.join("g", "m", WANTED))
        self.assertEqual((place.member_id, place.assigned), ("m", {P0, P1}))
        beat = MemberBeat(place.generation, place.assigned)
        self.assertEqual(self.result(self.client.heartbeat("g", "m", beat)), place)
        self.assertEqual(self.result(self.client.committed("g")), {})
        self.result(self.client.commit("g", "m", place.generation, {P0: 2}))
        self.assertEqual(self.result(self.client.committed("g")), {P0: 2})
        self.assertEqual(self.result(self.client.start(P0, True)), 2)
        self.assertEqual(self.result(self.client.start(P0, False)), 0)
        for _ in range(2):  # a second one is no error
            self.result(self.client.leave("g", "m"))
        self.assertEqual(self.result(self.client.committed("none")), {})

    def test_a_heartbeat_that_gives_nothing_back(self) -> None:
        place = self.result(self.client.join("g", "m", WANTED))
        self.result(self.client.heartbeat("g", "m", MemberBeat(place.generation)))
        self.assertNotIn("holding", self.server.asked[-1][1])
        self.result(self.client.heartbeat("g", "m", MemberBeat(place.generation, frozenset())))
        self.assertEqual(self.server.asked[-1][1]["holding"], [])

    def test_refusals(self) -> None:
        """Q-46: with the exceptions that a consumer goes by."""
        place = self.result(self.client.join("g", "m", WANTED))
        with self.assertRaises(IllegalGeneration) as caught:
            self.result(self.client.commit("g", "m", place.generation - 1, {P0: 0}))
        self.assertEqual(caught.exception.current, place.generation)
        for asked in (
            self.client.commit("g", "n", place.generation, {P0: 0}),
            self.client.heartbeat("g", "n", MemberBeat(place.generation)),
        ):
            with self.assertRaises(UnknownMember):
                self.result(asked)

    def test_many_offsets_are_several_requests(self) -> None:
        """Q-62: each is smaller than what the server takes."""
        self.result(self.server.topics.create("many", TopicSettings(partitions=1000)))
        wanted = GroupSubscription(frozenset(["many"]), 10.0)
        place = self.result(self.client.join("g", "m", wanted))
        offsets = dict.fromkeys((Partition("many", number) for number in range(1000)), 0)
        self.result(self.client.commit("g", "m", place.generation, offsets))
        self.assertEqual(self.server.times("group.commit"), 5)
        self.assertEqual(self.result(self.client.committed("g")), offsets)

    def test_answers_that_cannot_be(self) -> None:
        """Q-62."""
        entry = {"topic": "t", "partition": 0}
        good = {"member": "m", "generation": 1, "assigned": [], "revoked": []}
        for change, says in (
            ({"member": "n"}, "for member n"),
            ({"generation": -1}, "cannot be read"),
            ({"assigned": [entry], "revoked": [entry]}, "assigned and revoked"),
            ({"assigned": [{"topic": "t", "partition": -1}]}, "cannot be read"),
            ({"assigned": None}, "cannot be read"),
        ):
            answer = {**good, **change}
            self.server.answers["group.join"] = lambda params, answer=answer: answer
            with self.assertRaisesRegex(BadAnswer, says):
                self.result(self.client.join("g", "m", WANTED))


class RemoteMemberCase(RemoteCase):
    """Consumers, each with a connection of its own."""

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[bytes] = []

    def handle(self, delivery: DeliveredRecord) -> object:
        self.seen.append(delivery.record.value)
        return None

    def member(
        self, member: str = "m", handler: Any = None, **settings: Any
    ) -> tuple[RemoteTopics, GroupConsumer]:
        topics = self.topics()
        client = RemoteGroupClient(topics)
        consumer = GroupConsumer(
            client,
            self.network,
            ("g", member),
            topics=frozenset(["t"]),
            handler=handler or self.handle,
            give_away=client.burial("g", member),
            settings=MemberSettings(**settings),
        )
        return topics, consumer

    def started(self, member: str = "m", handler: Any = None, **settings: Any) -> GroupConsumer:
        _, consumer = self.member(member, handler, **settings)
        self.result(consumer.start())
        self.addCleanup(lambda: self.network.run(consumer.stop(), patience=60))
        return consumer

    def committed(self) -> Any:
        return self.result(self.server.groups.committed("g"))


class RemoteMemberTests(RemoteMemberCase):
    def test_it_processes_and_commits(self) -> None:
        """Q-45, Q-58: pushed to a handler."""
        self.write(b"a", b"b")
        self.started()
        self.write(b"c", partition=1)
        self.network.advance(2.0)
        self.assertEqual(sorted(self.seen), [b"a", b"b", b"c"])
        self.assertEqual(self.committed(), {P0: 2, P1: 1})

    def test_back_pressure(self) -> None:
        """Q-49, Q-58: no more is fetched than may be in flight."""
        held: list[Deferred[None]] = []

        def hold(delivery: DeliveredRecord) -> Deferred[None]:
            held.append(Deferred())
            return held[-1]

        consumer = self.started(handler=hold, in_flight=3, max_bytes=1)
        for number in range(10):
            self.write(b"%d" % number)
        self.network.advance(5.0)
        self.assertEqual((consumer.in_flight, len(held)), (3, 1))
        consumer.pause()
        while held:
            held.pop().callback(None)
            self.network.advance(1.0)
        self.assertEqual(self.committed(), {P0: 3})
        consumer.resume()
        self.network.advance(1.0)
        while held:
            held.pop().callback(None)
            self.network.advance(1.0)
        self.assertEqual(self.committed(), {P0: 10})

    def test_a_member_joins_and_leaves(self) -> None:
        """Q-42, Q-43: partitions move, and nothing is left out."""
        one, two = self.started("a"), self.started("b")
        self.network.advance(6.0)
        self.assertEqual((len(one.assigned), len(two.assigned)), (1, 1))
        self.result(two.stop(), 20.0)
        self.network.advance(6.0)
        self.assertEqual(one.assigned, {P0, P1})

    def test_a_lost_connection(self) -> None:
        """Q-39: it stays a member, and loses nothing."""
        consumer = self.started()
        for number in range(20):
            self.write(b"%d" % number)
            self.network.cut()
            self.network.advance(0.7)
        self.network.advance(20.0)
        self.assertEqual(self.seen, [b"%d" % number for number in range(20)])
        self.assertEqual(consumer.assigned, {P0, P1})
        self.assertEqual(self.committed(), {P0: 20})
        self.assertEqual(self.server.times("group.join"), 1)

    def test_a_restart(self) -> None:
        """Q-39, Q-45: it joins again, and goes on where it was."""
        consumer = self.started()
        self.write(b"a")
        self.network.advance(2.0)
        self.stop()
        self.server.restart_groups()
        self.network.advance(3.0)
        self.serve()
        self.write(b"b")
        self.network.advance(30.0)
        # What was not committed yet is processed again.
        self.assertEqual((set(self.seen), self.committed()), ({b"a", b"b"}, {P0: 2}))
        self.assertEqual(consumer.assigned, {P0, P1})

    def test_a_generation_that_never_was(self) -> None:
        """Q-46: the member joins again, as one that the group does not know."""
        consumer = self.started()
        self.server.answers["group.heartbeat"] = lambda params: STALE_GENERATION.about(
            "generation 9 never was, the current one is 7: join again"
        )
        self.network.advance(3.0)
        self.server.answers.clear()
        self.assertGreater(self.server.times("group.join"), 1)
        self.write(b"a")
        self.network.advance(3.0)
        self.assertEqual((self.seen, consumer.assigned), ([b"a"], {P0, P1}))

    def test_another_node_leads_the_group(self) -> None:
        """Q-32, Q-36: the group moves to another server, and back when that one is gone."""
        consumer = self.started()
        other = TopicServer(self.network, self.server.topics)
        self.addCleanup(lambda: other.close())
        self.network.run(other.listen("127.0.0.1:8001"))
        for method in (each for each in REMOTE_OPERATIONS if each.startswith("group.")):
            self.server.answers[method] = lambda params: WRONG_NODE.about("127.0.0.1:8001")
        self.write(b"a")
        self.network.advance(10.0)
        self.assertEqual(consumer.assigned, {P0, P1})
        self.assertGreater(other.times("group.heartbeat"), 1)
        self.server.answers.clear()
        self.network.run(other.stop(), patience=5)
        self.write(b"b")
        self.network.advance(30.0)
        self.assertEqual((set(self.seen), self.committed()), ({b"a", b"b"}, {P0: 2}))

    def test_dead_letters(self) -> None:
        """Q-51: the server writes what failed in every attempt, with where it was, and why."""

        def fail(delivery: DeliveredRecord) -> None:
            if delivery.record.value == b"bad":
                raise KeyError("no such thing")
            self.seen.append(delivery.record.value)

        self.started(handler=fail, attempts=3, retry_delay=0.1)
        self.write(b"bad", b"good")
        self.network.advance(5.0)
        self.assertEqual((self.seen, self.committed()), ([b"good"], {P0: 2}))
        (letter,) = self.result(self.server.letters.letters("t"))
        self.assertEqual((letter.source, letter.source_offset), (P0, 0))
        self.assertEqual((letter.group, letter.attempts), ("g", 3))
        self.assertIn("KeyError: 'no such thing'", letter.reason)
        (said,) = [params for method, params in self.server.asked if method == "log.bury"]
        self.assertEqual((said["member"], said["generation"] > 0), ("m", True))


class RemoteUnreadableTests(RemoteMemberCase):
    """Q-08: a member at a server stops before a batch that cannot be read, too."""

    def test_it_stands_and_goes_on_when_it_is_said_so(self) -> None:
        self.write(b"a")
        self.result(self.server.topics.engine.append([Append(P0, 2, b"\x01garbage")]))
        self.write(b"b")
        consumer = self.started()
        self.network.advance(30.0)
        self.assertEqual(self.seen, [b"a"])
        self.write(b"c", partition=1)
        self.network.advance(30.0)
        self.assertEqual(self.seen, [b"a", b"c"])
        (error,) = consumer.unreadable.values()
        self.assertEqual((error.partition, error.offset, error.next_offset), (P0, 1, 3))
        self.assertIs(consumer.skip(P0), True)
        self.network.advance(30.0)
        self.assertEqual(self.seen, [b"a", b"c", b"b"])
        committed = self.result(self.server.groups.committed("g"))
        self.assertEqual(committed, {P0: 4, P1: 1})
