"""The pool's events: what they hold, when they come, and that nobody pays for them unheard."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from twisted.internet.defer import fail
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.bus import Message, Model
from kupool.bus.local import LocalBus
from kupool.pool import ACCEPTED, CLOSED, EVENTS, JOB, OPENED, IEvents
from kupool.pool.events import BusEvents, ManyEvents, NoEvents, accepted_events
from kupool.pool.judge import Rules
from kupool.wire.batches import Batch, decode_batch
from tests.fakes.pool_fixture import WALL, HeldLog, PoolBench


class EventCase(SynchronousTestCase):
    """A pool whose log decides when the test says so, and a bus beside it."""

    def setUp(self) -> None:
        self.log = HeldLog()
        clock = Clock()
        self.bus = LocalBus(clock, wall=lambda: WALL + clock.seconds())
        self.made = 0

        def listening(topic: str) -> object:
            self.made += 1
            return self.bus.broker.listening(topic)

        self.events = BusEvents(self.bus, listening, 45_000, lambda: WALL + clock.seconds())
        self.bench = PoolBench(
            log=self.log, rules=Rules(0, 0), clock=clock, events=self.events
        ).start()
        self.made = 0
        self.heard: list[Message] = []

    def listen(self, *topics: str) -> None:
        self.successResultOf(self.bus.subscribe(topics, self.heard.append))

    def told(self) -> list[Any]:
        self.bench.settle()
        heard = [(m.topic, json.loads(m.data)) for m in self.heard]
        self.heard.clear()
        return heard

    def submit(self, *nonces: str, username: str = "alice.rig") -> None:
        peer = self.bench.connect().authorize(username)
        peer.send(*[peer.submission(nonce) for nonce in nonces])
        self.bench.settle()


class AcceptedTests(EventCase):
    """A-61, K-53: a submission is told of once, and after it is durable."""

    def test_once_durable(self) -> None:
        self.listen(ACCEPTED)
        self.submit("a", "b")
        self.assertEqual(self.told(), [])
        self.log.decide(True)
        ((topic, event),) = self.told()
        (entry,) = [decode_batch(body) for _, body in self.log.appended]
        self.assertEqual((topic, event["batch"], event["at"]), (ACCEPTED, entry.batch, entry.at))
        job = self.bench.book.current
        assert job is not None
        self.assertEqual(
            event["submissions"],
            [
                {"id": f"{entry.batch}/{n}", "username": "alice.rig", "job_id": job.job_id,
                 "client_nonce": nonce}
                for n, nonce in enumerate("ab")
            ],
        )  # fmt: skip
        self.assertEqual(self.told(), [])

    def test_not_durable(self) -> None:
        """K-52: what was not accepted is told of to nobody; sent again, it is told of once."""
        self.listen(ACCEPTED)
        self.submit("a")
        self.log.decide(False)
        self.assertEqual(self.told(), [])
        self.submit("a")
        self.log.decide(True)
        ((_, event),) = self.told()
        self.assertEqual([s["client_nonce"] for s in event["submissions"]], ["a"])

    def test_a_session_that_has_gone(self) -> None:
        """Its submission counts, so it is told of."""
        self.listen(ACCEPTED)
        peer = self.bench.connect().authorize("bob")
        peer.send(peer.submission("a"))
        self.bench.settle()
        peer.connection.abort()
        self.log.decide(True)
        ((_, event),) = self.told()
        self.assertEqual([s["username"] for s in event["submissions"]], ["bob"])

    def test_trace(self) -> None:
        """A-60: the bus knows the event by the batch's id in the log."""
        self.listen("kupool.submission.*")
        self.submit("a")
        self.log.decide(True)
        self.bench.settle()
        (message,) = self.heard
        self.assertEqual(message.model, Model.UNRELIABLE_ALL)
        self.assertEqual(message.headers["content-type"], "application/json")
        batch_id = decode_batch(self.log.appended[0][1]).batch
        steps = self.successResultOf(self.bus.trace(batch_id))
        self.assertEqual([step.event for step in steps], ["published", "offered", "delivered"])

    def test_nobody_listens(self) -> None:
        """A-14: no event is made, and nothing is kept for a subscriber who comes later."""
        made: list[object] = []
        entry = self.bench.acceptance._entry
        self.patch(
            self.bench.acceptance, "_entry", lambda batch: made.append(batch) or entry(batch)
        )
        self.submit("a", "b", "c")
        self.log.decide(True)
        self.assertEqual(len(made), 1, "for the log alone")
        self.assertEqual(self.made, 2, "one session, one batch: asked once for each")
        self.listen("kupool.>")
        self.assertEqual(self.told(), [])
        self.assertEqual(self.successResultOf(self.bus.status()).counts, {})

    def test_a_bus_that_fails(self) -> None:
        """A-61: costs the pool nothing but a line in its log."""
        self.listen(ACCEPTED)
        for broken in (lambda *a, **k: fail(OSError("away")), self.refuse):
            self.patch(self.bus, "publish_unreliable_all", broken)
            peer = self.bench.connect().authorize()
            peer.send(peer.submission(f"a{id(broken)}", message_id=9))
            self.bench.settle()
            self.log.decide(True)
            self.assertEqual(peer.hear()[-1], {"id": 9, "result": True})
            self.assertEqual(len(self.flushLoggedErrors(OSError, ValueError)), 1)

    def test_a_bus_that_fails_is_logged(self) -> None:
        """A-61: with what failed."""
        self.listen(ACCEPTED)
        lines = []
        for broken in (lambda *a, **k: fail(OSError("away")), self.refuse):
            self.patch(self.bus, "publish_unreliable_all", broken)
            with capturedLogs() as events:
                self.submit(f"a{id(broken)}")
                self.log.decide(True)
            lines += [formatEvent(event) for event in events if "log_failure" in event]
            self.flushLoggedErrors()
        self.assertEqual(
            lines,
            [
                "An event could not be published",
                "An event of topic kupool.submission.accepted could not be published",
            ],
        )

    def refuse(self, *message: object, **headers: object) -> Any:
        raise ValueError("too large")


class SplitTests(SynchronousTestCase):
    """A-25: a batch of any size fits the messages that tell of it."""

    def split(self, count: int, max_data: int, username: str = "alice") -> list[Any]:
        batch = Batch(
            1, "id", 7, [username] * count, list(range(count)), [f"n{n}" for n in range(count)]
        )
        found = list(accepted_events(batch, max_data))
        self.assertTrue(all(len(data) <= max_data for data in found))
        return [json.loads(data) for data in found]

    def test_as_few_as_they_fit(self) -> None:
        for count in (1, 2, 500, 1234):
            parts = self.split(count, 45_000, username='"\\ü' * 20)
            self.assertEqual({(p["batch"], p["at"]) for p in parts}, {("id", 7)})
            rows = [row for part in parts for row in part["submissions"]]
            self.assertEqual([row["id"] for row in rows], [f"id/{n}" for n in range(count)])
            self.assertEqual([row["job_id"] for row in rows], list(range(count)))
        self.assertEqual(len(self.split(500, 45_000)), 1)
        self.assertEqual(len(self.split(500, 44_000 // 2)), 2)
        self.assertEqual(self.split(0, 45_000), [])

    def test_each_is_as_full_as_it_may_be(self) -> None:
        """Whatever the limit, the next submission would not have fitted."""
        batch = Batch(1, "id", 7, ["alice"] * 30, list(range(30)), ["n"] * 30)
        for max_data in range(200, 420):
            parts = list(accepted_events(batch, max_data))
            for part, after in pairwise(parts):
                submissions = json.loads(after)["submissions"]
                row = json.dumps(submissions[0], separators=(",", ":"))
                self.assertGreater(len(part) + 1 + len(row), max_data)
            self.assertLessEqual(max(map(len, parts)), max_data)

    def test_the_longest_fits_the_smallest(self) -> None:
        """The setting has a least that holds any single submission."""
        self.assertEqual(len(self.split(2, 4096, username="\U0001f600" * 255)), 1)
        self.assertEqual(len(self.split(2, 2048, username="\U0001f600" * 255)), 2)


class OtherTests(EventCase):
    """A-61: jobs and sessions."""

    def test_topics(self) -> None:
        """As docs/bus.md has them."""
        self.assertEqual(EVENTS, "kupool.>")
        self.assertEqual(
            (JOB, ACCEPTED, OPENED, CLOSED),
            (
                "kupool.job",
                "kupool.submission.accepted",
                "kupool.session.opened",
                "kupool.session.closed",
            ),
        )

    def test_the_interface(self) -> None:
        self.assertTrue(verifyObject(IEvents, self.events))
        self.assertTrue(verifyObject(IEvents, NoEvents()))

    def test_who_wants_accepted_submissions(self) -> None:
        """A-14: a bus does, until it says that nobody listens."""
        self.assertFalse(NoEvents().wants_accepted)
        self.assertTrue(self.events.wants_accepted)
        self.events.look()
        self.assertFalse(self.events.wants_accepted)
        self.listen(ACCEPTED)
        self.events.look()
        self.assertTrue(self.events.wants_accepted)

    def test_jobs(self) -> None:
        self.listen("kupool.job")
        self.bench.at(30.0)
        ((_, event),) = self.told()
        job = self.bench.book.current
        assert job is not None
        at = int((WALL + 30) * 1000)
        self.assertEqual(event, {"job_id": job.job_id, "server_nonce": job.server_nonce, "at": at})

    def test_sessions(self) -> None:
        self.listen("kupool.session.>")
        self.bench.at(2.5)
        now = int((WALL + 2.5) * 1000)
        peer = self.bench.connect().authorize("alice.rig")
        ((topic, opened),) = self.told()
        session_id = peer.connection.context.session_id.hex()
        self.assertEqual(topic, "kupool.session.opened")
        self.assertEqual(
            opened,
            {"session": session_id, "username": "alice.rig", "at": now,
             "peer": peer.connection.peer},
        )  # fmt: skip
        peer.connection.lost(Failure(ConnectionError("gone")))
        ((topic, closed),) = self.told()
        self.assertEqual((topic, closed["session"]), ("kupool.session.closed", session_id))
        self.assertEqual((closed["username"], closed["reason"]), ("alice.rig", "gone"))


class ManyEventsTests(EventCase):
    """Issue 16, build 6: the bus and the topic of events are told the same."""

    def test_every_receiver_is_told(self) -> None:
        self.listen(JOB, OPENED, CLOSED, ACCEPTED)
        events = ManyEvents([self.events, NoEvents(), self.events])
        verifyObject(IEvents, events)
        self.assertIs(events.wants_accepted, True)
        session = self.bench.connect().authorize("alice").connection.context
        self.told()
        job = self.bench.book.current
        assert job is not None
        events.job(job.saved())
        events.opened(session, "peer")
        events.accepted(lambda: Batch(1, "b", 0, ["a"], [1], ["x"]))
        events.closed(session, "gone")
        topics = [topic for topic, _ in self.told()]
        self.assertEqual(topics, [JOB, JOB, OPENED, OPENED, ACCEPTED, ACCEPTED, CLOSED, CLOSED])

    def test_nobody_wants_accepted_submissions(self) -> None:
        """So no list of them is made."""
        events = ManyEvents([NoEvents(), NoEvents()])
        self.assertIs(events.wants_accepted, False)
        events.accepted(lambda: self.fail("made for nobody"))
