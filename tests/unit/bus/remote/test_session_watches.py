"""The watches of a session, with a broker that reports what the test says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.members import TopicMember
from kupool.bus.remote.session_watches import SessionWatches


class Members:
    """The members of a broker, as the watches of one session see them."""

    def __init__(self) -> None:
        self.lease = 60.0
        self.told: dict[str, Callable[[Any], object]] = {}

    def watch(self, topic: str, told: Callable[[Any], object]) -> Callable[[], None]:
        self.told[topic] = told

        def end() -> None:
            del self.told[topic]

        return end


class Peer:
    """A connection that notes what is sent over it."""

    def __init__(self) -> None:
        self.sends = True
        self.sent: list[Any] = []

    def send(self, payload: bytes) -> None:
        message = json.loads(payload)
        assert (message["id"], message["method"]) == (None, "members"), message
        self.sent.append(message["params"])


class SessionCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.members, self.peer = Members(), Peer()
        self.silent = 0
        self.watches = SessionWatches(
            self.clock, cast(Any, self.members), cast(Any, self.peer), self.fell_silent
        )

    def fell_silent(self) -> None:
        self.silent += 1

    def report(self, *members: str | TopicMember) -> None:
        """Report these members of the topic, with their ids or with keys."""
        found = [TopicMember(m, ()) if isinstance(m, str) else m for m in members]
        self.members.told["t"](tuple(found))

    def sent(self) -> list[Any]:
        sent, self.peer.sent = self.peer.sent, []
        return sent


class RenewingTests(SessionCase):
    """Issue 13: a session asks for its watches again, or is taken for gone."""

    def test_silent_for_four_seconds(self) -> None:
        self.watches.watch("t")
        self.clock.advance(3.0)
        self.watches.watch("t")
        self.clock.advance(3.999)
        self.assertEqual(self.silent, 0)
        self.clock.advance(0.001)
        self.assertEqual(self.silent, 1)

    def test_one_of_two_topics_ends(self) -> None:
        """The other one has to be asked for as before."""
        self.watches.watch("t")
        self.watches.watch("u")
        self.watches.unwatch("t")
        self.assertEqual((len(self.watches), "t" in self.watches), (1, False))
        self.clock.advance(4.0)
        self.assertEqual(self.silent, 1)

    def test_the_last_topic_ends(self) -> None:
        """Then the session may be silent; a watch after that begins anew."""
        self.watches.watch("t")
        self.watches.unwatch("t")
        self.watches.unwatch("t")
        self.clock.advance(5.0)
        self.assertEqual((self.silent, self.members.told), (0, {}))
        self.watches.watch("t")
        self.clock.advance(4.0)
        self.assertEqual(self.silent, 1)

    def test_all_end(self) -> None:
        self.watches.watch("t")
        self.watches.watch("u")
        self.watches.end()
        self.assertEqual((self.members.told, self.clock.getDelayedCalls()), ({}, []))

    def test_how_long_a_watch_holds(self) -> None:
        """Three seconds at most, or as long as the other nodes have heard of this one."""
        for lease, milliseconds in (
            (60.0, 3000.0),
            (1.23456789, 1234.568),
            (0.0, 0.0),
            (-1.0, 0.0),
        ):
            self.members.lease = lease
            self.assertEqual(self.watches.watch("t").valid_ms, milliseconds)

    def test_how_long_its_subscribers_stay_members(self) -> None:
        """Until it would count as silent."""
        self.clock.advance(10.0)
        self.watches.watch("t")
        self.clock.advance(1.5)
        self.assertEqual(self.watches.linger, 2.5)


class ReportTests(SessionCase):
    """Issue 13: a session is told what has changed."""

    def setUp(self) -> None:
        super().setUp()
        self.watches.watch("t")

    def test_changes(self) -> None:
        """Each is told once; new keys are a new member."""
        self.report("a")
        self.assertEqual(self.sent(), [{"topic": "t", "came": [{"subscriber": "a"}]}])
        self.report(TopicMember("b", ("k",)))
        came = [{"subscriber": "b", "keys": ["k"]}]
        self.assertEqual(self.sent(), [{"topic": "t", "came": came, "gone": ["a"]}])
        self.report(TopicMember("b", ("l",)), "c")
        came = [{"subscriber": "b", "keys": ["l"]}, {"subscriber": "c"}]
        self.assertEqual(self.sent(), [{"topic": "t", "came": came, "gone": ["b"]}])

    def test_members_that_are_unknown(self) -> None:
        """After that, all of them are told again."""
        self.report("a")
        self.members.told["t"](None)
        self.report("a", "b")
        came = [{"subscriber": "a"}, {"subscriber": "b"}]
        self.assertEqual(
            self.sent()[1:], [{"topic": "t", "known": False}, {"topic": "t", "came": came}]
        )

    def test_a_connection_that_sends_no_more(self) -> None:
        self.peer.sends = False
        self.report("a")
        self.assertEqual(self.sent(), [])

    def sized(self, name: str, size: int) -> TopicMember:
        """Return a member whose entry has this many bytes as JSON."""
        return TopicMember(name.ljust(size - len('{"subscriber":""}'), "x"), ())

    def counts(self, *sizes: int) -> list[tuple[int, int, bool]]:
        """Report members of these sizes; returns how many came and went in each part."""
        self.report(*(self.sized(f"{n}", size) for n, size in enumerate(sizes)))
        return [
            (len(part.get("came", ())), len(part.get("gone", ())), part.get("more", False))
            for part in self.sent()
        ]

    def test_as_many_as_fit(self) -> None:
        """A part has 32,768 bytes of members, or a single one that is larger."""
        half = 16_384
        self.assertEqual(self.counts(half, half), [(2, 0, False)])
        self.report()
        self.sent()
        sizes = [half, half + 1, half - 1, 40_000, half, half]
        parts = [(1, 0, True), (2, 0, True), (1, 0, True), (2, 0, False)]
        self.assertEqual(self.counts(*sizes), parts)

    def test_as_many_as_are_allowed(self) -> None:
        """A part has 500 that are gone, and then less room for those that came."""
        for count, parts in (
            (500, [(1, 500, False)]),
            (501, [(0, 500, True), (1, 1, False)]),
        ):
            self.report(*map(str, range(count)))
            self.sent()
            self.assertEqual(self.counts(100), parts)
        self.report("a")
        self.sent()
        self.assertEqual(self.counts(8192, 8192, 100), [(2, 1, True), (1, 0, False)])
