"""A client's watches of members, with a server that answers when the test says so."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import BusError
from kupool.bus.remote.client_watches import RemoteWatches
from kupool.wire.incoming import ServerMessage


class WatchesCase(SynchronousTestCase):
    """A client that is connected, what it asks of the server, and what a watch is told."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.link: object | None = object()
        self.refusal = ""
        #: Each request: the method, the topic, and the function that takes the reply.
        self.asked: list[tuple[str, str, Any]] = []
        self.told: list[Any] = []
        self.watches = RemoteWatches(
            self.clock,
            lambda: cast(Any, self.link),
            ask=self.ask,
            refusal=lambda: self.refusal,
        )

    def ask(self, link: Any, method: str, params: Any, replied: Any) -> None:
        self.assertIs(link, self.link)
        self.asked.append((method, params.topic, replied))

    def requests(self) -> list[tuple[str, str]]:
        asked = [(method, topic) for method, topic, _ in self.asked]
        self.asked.clear()
        return asked

    def note(self, members: Any) -> None:
        self.told.append(None if members is None else [member.id for member in members])

    def news(self) -> list[Any]:
        told = self.told[:]
        self.told.clear()
        return told

    def reply(self, milliseconds: float = 3000.0, request: int = -1) -> None:
        """Answer a request, by default the last one."""
        result = msgspec.Raw(json.dumps({"valid_ms": milliseconds}).encode())
        self.asked[request][2](ServerMessage(id=1, result=result))

    def report(self, *came: str, **params: Any) -> None:
        """Have the server report members."""
        entries = [{"subscriber": name, "keys": ["k"]} for name in came]
        body = json.dumps({"topic": "t", "came": entries, **params}).encode()
        self.watches.members(ServerMessage(method="members", params=msgspec.Raw(body)))

    def watch(self) -> None:
        """Watch a topic with two members."""
        self.watches.watch("t", self.note)
        self.reply()
        self.report("a", "b")
        self.assertEqual(self.news(), [["a", "b"]])

    def reconnect(self) -> None:
        self.link = None
        self.watches.down()
        self.link = object()
        self.watches.up()


class LastingTests(WatchesCase):
    """Issue 13, A-62: a watch is asked for each second, and holds as long as the server said."""

    def test_renewed_each_second(self) -> None:
        self.watches.watch("t", self.note)
        self.assertEqual(self.requests(), [("bus.watch", "t")])
        self.clock.advance(0.999)
        self.assertEqual(self.requests(), [])
        self.clock.advance(0.001)
        self.assertEqual(self.requests(), [("bus.watch", "t")])

    def test_a_second_topic(self) -> None:
        """All are asked for together, and the second begins anew."""
        self.watches.watch("t", self.note)
        self.clock.advance(0.5)
        self.watches.watch("u", self.note)
        self.requests()
        self.clock.advance(0.999)
        self.assertEqual(self.requests(), [])
        self.clock.advance(0.001)
        self.assertEqual(self.requests(), [("bus.watch", "t"), ("bus.watch", "u")])

    def test_as_long_as_the_server_said(self) -> None:
        """It counts from the request, not from the reply."""
        self.watches.watch("t", self.note)
        self.clock.pump([0.25, 0.25])
        self.reply(3000.0)
        self.report("a")
        self.clock.advance(2.499)
        self.assertEqual(self.news(), [["a"]])
        self.clock.advance(0.001)
        self.assertEqual(self.news(), [None])

    def test_members_before_the_answer(self) -> None:
        """They count from the answer on: before it, this client may count as gone."""
        done = self.watches.watch("t", self.note)
        self.report("a")
        self.assertEqual(self.news(), [])
        self.assertNoResult(done)
        self.reply()
        self.assertEqual(self.news(), [["a"]])
        self.successResultOf(done)

    def test_an_answer_in_time(self) -> None:
        """The end of the watch moves with each answer."""
        self.watch()
        for _ in range(5):
            self.clock.advance(1.0)
            self.reply()
        self.clock.advance(2.999)
        self.assertEqual(self.news(), [])
        self.clock.advance(0.001)
        self.assertEqual(self.news(), [None])

    def test_an_answer_after_the_end(self) -> None:
        """What was reported over this connection still holds."""
        self.watch()
        self.clock.advance(3.0)
        self.assertEqual(self.news(), [None])
        self.reply()
        self.assertEqual(self.news(), [["a", "b"]])

    def test_an_answer_that_is_out_of_date(self) -> None:
        """The watch has ended when it comes: no member is known yet."""
        self.watches.watch("t", self.note)
        self.clock.pump([1.0, 1.0, 1.0, 1.0])
        self.reply(request=0)
        self.report("a")
        self.assertEqual(self.news(), [])

    def test_answers_that_count_no_more(self) -> None:
        """Without a connection, over the one before, and of a topic that is not watched."""
        done = self.watches.watch("t", self.note)
        self.asked[0][2](None)
        self.reconnect()
        self.reply(request=0)
        self.assertNoResult(done)
        self.watches.unwatch(self.note)
        self.reply(request=1)
        self.report("a")
        self.assertEqual(self.news(), [])


class ReconnectTests(WatchesCase):
    """Issue 13, acceptance 3: the members stay as they were until the next report."""

    def test_the_next_report_is_complete(self) -> None:
        self.watch()
        self.reconnect()
        self.reply()
        self.assertEqual(self.news(), [])
        self.report("b", "c")
        self.assertEqual(self.news(), [["b", "c"]])
        self.report("d", gone=["b"])
        self.assertEqual(self.news(), [["c", "d"]])

    def test_an_answer_keeps_the_members(self) -> None:
        """The watch over the connection before would have ended meanwhile."""
        self.watch()
        self.clock.advance(1.0)
        self.reconnect()
        self.reply()
        self.clock.advance(2.5)
        self.assertEqual(self.news(), [])

    def test_the_watch_ends_before_the_report(self) -> None:
        """What was known is out of date, whatever is answered later."""
        self.watch()
        self.reconnect()
        self.clock.advance(3.0)
        self.assertEqual(self.news(), [None])
        self.reply()
        self.assertEqual(self.news(), [])
        self.report("c")
        self.assertEqual(self.news(), [["c"]])

    def test_the_answer_ends_the_watch(self) -> None:
        """The server has lost the other nodes: what was known is out of date as well."""
        self.watch()
        self.reconnect()
        self.reply(0.0)
        self.assertEqual(self.news(), [None])
        self.reply()
        self.assertEqual(self.news(), [])
        self.report("c")
        self.assertEqual(self.news(), [["c"]])

    def test_one_request_a_second(self) -> None:
        """The renewal over the connection before is not made."""
        self.watch()
        self.clock.advance(0.5)
        self.reconnect()
        self.requests()
        self.clock.advance(0.999)
        self.assertEqual(self.requests(), [])

    def test_without_a_connection(self) -> None:
        """The next one asks for it."""
        self.link = None
        done = self.watches.watch("t", self.note)
        self.assertEqual((self.requests(), self.clock.getDelayedCalls()), ([], []))
        self.link = object()
        self.watches.up()
        self.assertEqual([topic for _, topic, _ in self.asked], ["t"])
        self.reply()
        self.successResultOf(done)

    def test_there_will_be_none(self) -> None:
        self.link = None
        waiting = self.watches.watch("t", self.note)
        self.refusal = "banned"
        self.watches.gone()
        later = self.watches.watch("t", self.note)
        for failed in (waiting, later):
            self.assertEqual(str(self.failureResultOf(failed, BusError).value), "banned")

    def test_nothing_is_watched(self) -> None:
        """A connection without watches asks for nothing."""
        self.watches.up()
        self.assertEqual((self.requests(), self.clock.getDelayedCalls()), ([], []))


class EndingTests(WatchesCase):
    """Issue 13: a watch that ends leaves nothing."""

    def test_unwatched(self) -> None:
        """The server is told when the last one of a topic ends."""
        other: list[Any] = []
        self.watch()
        self.watches.watch("t", other.append)
        self.requests()
        self.successResultOf(self.watches.unwatch(self.note))
        self.assertEqual(self.requests(), [])
        self.report("c")
        self.assertEqual((self.news(), len(other[-1])), ([], 3))
        self.watches.unwatch(other.append)
        self.assertEqual(self.requests(), [("bus.unwatch", "t")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_of_two_topics(self) -> None:
        """The other one is renewed as before."""
        self.watch()
        self.watches.watch("u", print)
        self.requests()
        self.watches.unwatch(print)
        self.assertEqual(self.requests(), [("bus.unwatch", "u")])
        self.clock.advance(1.0)
        self.assertEqual(self.requests(), [("bus.watch", "t")])

    def test_unwatched_without_a_connection(self) -> None:
        self.watch()
        self.link = None
        self.watches.down()
        self.requests()
        self.successResultOf(self.watches.unwatch(self.note))
        self.assertEqual((self.requests(), self.clock.getDelayedCalls()), ([], []))

    def test_closed(self) -> None:
        self.watch()
        self.watches.close()
        self.requests()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.watches.up()
        self.report("c")
        self.assertEqual((self.requests(), self.news()), ([], []))

    def test_refused(self) -> None:
        """Also with an answer that cannot be read; the topic is not asked for again."""
        for reply, why in (
            (ServerMessage(id=1, error="forbidden"), "^forbidden$"),
            (ServerMessage(id=1, result=msgspec.Raw(b"{}")), "valid_ms"),
        ):
            self.setUp()
            self.watch()
            again = self.watches.watch("t", self.note)
            self.asked[-1][2](reply)
            self.assertRegex(str(self.failureResultOf(again, BusError).value), why)
            self.assertEqual(self.news(), [None])
            self.requests()
            self.clock.advance(1.0)
            self.assertEqual(self.requests(), [])


class ReportTests(WatchesCase):
    """Issue 13: what the server reports, and who is told."""

    def test_in_parts(self) -> None:
        """A watch is told when the last one has come."""
        self.watch()
        self.report("c", more=True)
        self.assertEqual(self.news(), [])
        self.report("d", gone=["a", "nobody"])
        self.assertEqual(self.news(), [["b", "c", "d"]])

    def test_members_that_are_unknown(self) -> None:
        """The next report has all of them again."""
        self.watch()
        self.report(known=False)
        self.assertEqual(self.news(), [None])
        self.report("c")
        self.assertEqual(self.news(), [["c"]])

    def test_no_change(self) -> None:
        self.watch()
        self.report("a")
        self.assertEqual(self.news(), [])

    def test_one_more_for_the_same_topic(self) -> None:
        """It is told at once what is known."""
        self.watch()
        other: list[Any] = []
        self.watches.watch("t", other.append)
        self.assertEqual(([len(told) for told in other], self.news()), ([2], []))

    def test_another_topic(self) -> None:
        self.watch()
        self.report("c", topic="u")
        self.assertEqual(self.news(), [])

    def test_one_that_ends_another(self) -> None:
        """That one is told nothing more."""
        self.watches.watch("t", lambda members: self.watches.unwatch(self.note))
        self.watches.watch("t", self.note)
        self.reply()
        self.report("a")
        self.assertEqual(self.news(), [])

    def test_one_that_raises(self) -> None:
        """It is logged, and the others are told."""
        self.watches.watch("t", lambda members: 1 // 0)
        self.watches.watch("t", self.note)
        self.reply()
        self.report("a")
        self.assertEqual(self.news(), [["a"]])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
