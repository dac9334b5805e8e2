"""What the daemon writes to the topic of events."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.daemon.dead_letter_events import DeadLetterEvents
from kupool.daemon.events import LONGEST, EventWatch, TopicEvents
from kupool.pool import IEvents, SavedJob
from kupool.pool.session import Session
from kupool.topics.dead_letters import DeadRecord
from kupool.topics.partition import Partition
from kupool.topics.records import Record


class Told:
    """Takes what would be written."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Mapping[str, object], str]] = []

    def tell(self, kind: str, event: Mapping[str, object], key: str = "") -> None:
        self.events.append((kind, event, key))

    def take(self) -> list[tuple[str, Mapping[str, object], str]]:
        taken, self.events = self.events, []
        return taken


class TopicEventsTests(SynchronousTestCase):
    """Issue 16, build 6: events of the pool say the same as on the bus."""

    def test_jobs_and_sessions(self) -> None:
        told = Told()
        events = TopicEvents(told, lambda: 5.0)  # type: ignore[arg-type]
        verifyObject(IEvents, events)
        session = Session("alice.rig", "user", peer="192.0.2.1:5", since=3.5)
        events.job(SavedJob(7, "ab", 3.0))
        events.opened(session, "192.0.2.1:5")
        events.closed(session, "x" * 1000)
        self.assertIs(events.wants_accepted, False)
        events.accepted(lambda: self.fail("nobody wants it"))
        same = {"session": session.session_id.hex(), "username": "alice.rig", "at": 5000}
        self.assertEqual(
            told.events,
            [
                ("job", {"job_id": 7, "server_nonce": "ab", "at": 3000}, ""),
                ("session.opened", {**same, "peer": "192.0.2.1:5"}, "alice.rig"),
                (
                    "session.closed",
                    {**same, "reason": "x" * LONGEST, "peer": "192.0.2.1:5", "since": 3500},
                    "alice.rig",
                ),
            ],
        )


class DeadLetterEventsTests(SynchronousTestCase):
    """Q-51: an operator hears of each record that a group gave up."""

    def letter(self, topic: str) -> DeadRecord:
        record = Record(4, 5, None, b"v", {})
        return DeadRecord(0, 4, Partition(topic, 1), 7, "g", "w" * 1000, 3, record)

    def test_where_it_was_and_why(self) -> None:
        told = Told()
        DeadLetterEvents(told).told(self.letter("shop"))  # type: ignore[arg-type]
        event = {
            "topic": "shop",
            "partition": 1,
            "offset": 7,
            "group": "g",
            "reason": "w" * LONGEST,
            "attempts": 3,
            "letter": "0/4",
        }
        self.assertEqual(told.events, [("dead_letter", event, "g")])

    def test_not_those_of_the_events(self) -> None:
        """A group that gives up each event would get another one for each."""
        told = Told()
        DeadLetterEvents(told).told(self.letter("events"))  # type: ignore[arg-type]
        self.assertEqual(told.events, [])


class Status:
    """A status that a test sets."""

    def __init__(self) -> None:
        self.banned: dict[str, float] = {}
        self.reasons: list[str] = []
        self.worries: list[str] = []
        self.dead = 0
        self.phase = "running"

    def bans(self) -> dict[str, float]:
        return dict(self.banned)

    def ready(self) -> list[str]:
        return self.reasons

    def concerns(self) -> list[str]:
        return self.worries

    def shutdown(self) -> Any:
        return SimpleNamespace(dead_letters=self.dead, phase=self.phase)


class EventWatchTests(SynchronousTestCase):
    """Issue 16, build 6: what begins and ends is written once each."""

    def setUp(self) -> None:
        self.told = Told()
        self.status = Status()
        self.watch = EventWatch(self.told, self.status)  # type: ignore[arg-type]

    def look(self) -> list[tuple[str, Mapping[str, object]]]:
        self.watch.look()
        return [(kind, event) for kind, event, _ in self.told.take()]

    def test_nothing_happens(self) -> None:
        self.assertEqual(self.look(), [])

    def test_bans(self) -> None:
        self.status.banned = {"192.0.2.1": 59.6}
        self.assertEqual(self.look(), [("ban", {"address": "192.0.2.1", "seconds": 60})])
        self.status.banned = {"192.0.2.1": 58.0, "192.0.2.2": 5.0}
        self.assertEqual(self.look(), [("ban", {"address": "192.0.2.2", "seconds": 5})])
        self.status.banned = {"192.0.2.2": 4.0}
        self.assertEqual(self.look(), [("ban.over", {"address": "192.0.2.1"})])

    def test_what_is_away_and_back(self) -> None:
        """A reason whose figures change with every look is one problem."""
        self.status.reasons = ["log: the disk is full"]
        self.status.worries = ["spool: 2 batches wait for the log, the oldest for 3s"]
        self.assertCountEqual(
            self.look(),
            [
                ("problem", {"part": "log", "reason": "the disk is full"}),
                (
                    "problem",
                    {"part": "spool", "reason": "2 batches wait for the log, the oldest for 3s"},
                ),
            ],
        )
        self.status.worries = ["spool: 9 batches wait for the log, the oldest for 4s"]
        self.assertEqual(self.look(), [])
        self.status.reasons = []
        self.assertEqual(self.look(), [("problem.over", {"part": "log"})])

    def test_a_daemon_that_starts_or_stops_has_no_problem(self) -> None:
        for self.status.phase in ("listening", "stopping: clients"):
            self.status.reasons = [self.status.phase]
            self.assertEqual(self.look(), [])

    def test_dead_letters(self) -> None:
        for dead, told in ((2, [2]), (2, []), (1, []), (3, [3])):
            self.status.dead = dead
            self.assertEqual(self.look(), [("dead_letters", {"waiting": n}) for n in told])
