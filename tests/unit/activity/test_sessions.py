"""Who is connected, on a pool in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.activity.figures import SessionFigures, UserTotals
from kupool.activity.selection import Page
from kupool.activity.sessions import LONGEST_REASON, PATIENCE, SessionBook
from kupool.daemon.tenants import Tenants
from kupool.errors import IDLE_TIMEOUT, TRY_AGAIN
from kupool.net.interfaces import IClosingObserver
from kupool.net.manager import ConnectionManager, ServerSettings
from kupool.pool.events import NoEvents
from kupool.pool.judge import Rules
from kupool.pool.session import Session
from tests.fakes.pool_fixture import FRAME, WALL, HeldLog, PoolBench


class ClosedSessions(NoEvents):
    """Notes the reasons of sessions that end."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def closed(self, session: Session, reason: str) -> None:
        self.reasons.append(reason)


class BookCase(SynchronousTestCase):
    """A pool whose connections a book knows."""

    most = 3

    def setUp(self) -> None:
        self.ends = ClosedSessions()
        self.start()

    def start(self, **changes: Any) -> None:
        rules = Rules(submit_interval=0.0)
        self.bench = PoolBench(events=self.ends, rules=rules, **changes)
        self.book = SessionBook(
            self.bench.clock,
            self.bench.wall,
            lambda: self.bench.manager,
            lambda: not self.bench.acceptance.undecided,
            most=self.most,
        )
        self.bench.manager = ConnectionManager(
            self.bench.clock, Tenants(self.bench.pool, self.book), ServerSettings()
        )
        self.bench.start()

    def run_it(self, work: Any) -> Any:
        done = Deferred.fromCoroutine(work)
        while not done.called:
            self.bench.clock.advance(0)
        return self.successResultOf(done)

    def sessions(self, **asked: Any) -> tuple[int, list[SessionFigures]]:
        found: tuple[int, list[SessionFigures]] = self.run_it(self.book.sessions(**asked))
        return found

    def users(self, **asked: Any) -> dict[str, UserTotals]:
        total, found = self.run_it(self.book.users(**asked))
        self.assertEqual(total, len(found))
        return dict(found)


class SessionBookTests(BookCase):
    """A-53: sessions with their traffic, and the totals of users."""

    def test_the_interface(self) -> None:
        self.assertTrue(verifyObject(IClosingObserver, self.book))

    def test_figures_of_a_session(self) -> None:
        """A-53: they equal what went over its connection."""
        self.bench.at(5.0)
        peer = self.bench.connect().authorize("alice.rig1")
        self.bench.connect()  # one that has not authorized is no session
        self.assertEqual(self.sessions()[1][0].last_submission, None)
        self.bench.at(8.0)
        self.assertIs(peer.submit("a")["result"], True)
        self.assertIs(peer.submit("b")["result"], True)
        self.assertIn("error", peer.submit("a"))
        total, (found,) = self.sessions()
        self.assertEqual(total, 1)
        connection = peer.connection
        self.assertEqual(
            found._replace(last_submission=None),
            SessionFigures(
                connection.context.session_id.hex(),
                "alice.rig1",
                "alice",
                "rig1",
                connection.peer,
                "line",
                WALL + 5.0,
                None,
                2,
                1,
                4,
                5,  # the answers, and the job
                connection.bytes_in,
                connection.bytes_out,
            ),
        )
        assert found.last_submission is not None
        self.assertApproximates(found.last_submission, WALL + 8.04, 0.05)

    def test_orders_and_pages(self) -> None:
        """A-53: sorted by each column, and a page at a time."""
        for number, name in enumerate(("b.1", "a.1", "c.1", "a.2")):
            self.bench.at(float(number))
            peer = self.bench.connect(FRAME).authorize(name)
            for nonce in range(number):
                peer.submit(f"{name}{nonce}")

        def names(order: str, page: Page) -> list[str]:
            total, found = self.sessions(order=order, page=page)
            self.assertEqual(total, 4)
            return [each.username for each in found]

        self.assertEqual(names("since", Page()), ["b.1", "a.1", "c.1", "a.2"])
        self.assertEqual(names("since", Page(descending=True)), ["a.2", "c.1", "a.1", "b.1"])
        self.assertEqual(names("accepted", Page(2, 0, True)), ["a.2", "c.1"])
        self.assertEqual(names("bytes", Page(2, 2, True)), ["a.1", "b.1"])
        self.assertEqual(names("username", Page()), ["a.1", "a.2", "b.1", "c.1"])
        self.assertEqual(names("rejected", Page(9, 9)), [])
        total, found = self.sessions(wanted=lambda session: session.user == "a")
        self.assertEqual((total, {each.worker for each in found}), (2, {"1", "2"}))

    def test_totals_of_users(self) -> None:
        """A-53: those of all sessions since the start, also of those that have ended."""
        first = self.bench.connect().authorize("alice.rig1")
        second = self.bench.connect().authorize("alice.rig2")
        self.bench.connect().authorize("bob")
        for peer, nonce in ((first, "a"), (first, "b"), (second, "c"), (second, "a")):
            peer.submit(nonce)
        before = self.users()
        self.assertEqual(set(before), {"alice", "bob"})
        alice = before["alice"]
        self.assertEqual((alice.sessions, alice.names), (2, {"alice.rig1", "alice.rig2"}))
        self.assertEqual((alice.accepted, alice.rejected), (3, 1))
        connections = (first.connection, second.connection)
        self.assertEqual(alice.bytes_in, sum(each.bytes_in for each in connections))
        self.assertEqual(alice.messages_out, sum(each.messages_out for each in connections))
        first.leave()
        second.leave()
        self.bench.connect().authorize("alice.rig1")
        after = self.users()["alice"]
        self.assertEqual((after.sessions, after.names), (1, {"alice.rig1"}))
        self.assertEqual((after.accepted, after.rejected), (3, 1))
        self.assertEqual(after.messages_in, alice.messages_in + 1)

    def test_a_million_users(self) -> None:
        """Issue 18, bad input: those who left first are forgotten, and that is told; those who are
        connected never are.
        """
        stays = self.bench.connect().authorize("stays")
        for number in range(10):
            self.bench.connect().authorize(f"user{number}").leave()
        self.assertEqual(set(self.users()), {"stays", "user7", "user8", "user9"})
        self.assertEqual(self.book.forgotten, 7)
        self.bench.connect().authorize("user7").leave()
        self.bench.connect().authorize("new").leave()
        self.assertEqual(set(self.users()), {"stays", "user7", "user9", "new"})
        stays.leave()

    def test_a_session_that_ends_while_users_are_read(self) -> None:
        """A-53: it counts once."""
        peers = [self.bench.connect().authorize(f"alice.{n}") for n in range(600)]
        before = sum(peer.connection.messages_in for peer in peers)
        reading = Deferred.fromCoroutine(self.book.users())
        self.assertFalse(reading.called)
        peers[0].leave()
        peers[-1].leave()
        while not reading.called:
            self.bench.clock.advance(0)
        _, found = self.successResultOf(reading)
        self.assertEqual(found[0][1].messages_in, before)
        self.assertEqual(self.users()["alice"].messages_in, before)

    def test_why_sessions_end(self) -> None:
        """A-54: the reason of the server if it closed the session, else what was noticed."""
        self.bench.connect().authorize("alice").leave()
        for reason in (IDLE_TIMEOUT, TRY_AGAIN.about("x" * 1000)):
            peer = self.bench.connect().authorize("alice")
            peer.connection.close(reason)
            peer.leave()
        self.assertEqual(
            self.ends.reasons,
            [
                "Connection was closed cleanly.",
                "idle timeout",
                ("try again: " + "x" * 1000)[:LONGEST_REASON],
            ],
        )

    def test_closing(self) -> None:
        """Issue 18, build 7: the sessions that are wanted are closed, with the reason."""
        alice = self.bench.connect(FRAME).authorize("alice")
        bob = self.bench.connect(FRAME).authorize("bob")
        stranger = self.bench.connect(FRAME)
        closed = self.run_it(
            self.book.close(lambda c: c.context.user == "bob", TRY_AGAIN.about("by hand"))
        )
        self.assertEqual(closed, 1)
        bob.hear()
        self.assertEqual(bob.details, ["by hand"])
        self.assertEqual([peer.closed for peer in (alice, stranger)], [False, False])
        again = self.run_it(self.book.close(lambda c: c.context.user == "bob", TRY_AGAIN))
        self.assertEqual(again, 0)


class UndecidedTests(BookCase):
    """A-53: what was not stored was not accepted, whenever that is known."""

    def setUp(self) -> None:
        self.ends = ClosedSessions()
        self.log = HeldLog()
        self.start(log=self.log)

    def submit(self, *nonces: str) -> None:
        """Submit in a session that ends before that is decided."""
        peer = self.bench.connect().authorize("alice")
        for nonce in nonces:
            peer.send(peer.submission(nonce))
        self.bench.settle()
        peer.leave()

    def test_a_session_that_ended_before(self) -> None:
        for kept, expected in ((True, (2, 0)), (False, (2, 2))):
            self.submit(f"a{kept}", f"b{kept}")
            while self.log.waiting:
                self.log.decide(kept)
            found = self.users()["alice"]
            self.assertEqual((found.accepted, found.rejected), expected)

    def test_it_does_not_wait_for_ever(self) -> None:
        """A-53: a log that never answers keeps no sessions."""
        self.submit("a")
        self.bench.clock.pump([1.0] * int(PATIENCE - 1))
        self.book.look()
        self.assertEqual(len(self.book._left), 1)
        self.bench.clock.pump([1.0] * 2)
        self.book.look()
        self.assertEqual(len(self.book._left), 0)
