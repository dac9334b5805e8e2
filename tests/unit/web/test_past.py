"""The routes that read the topic of events."""

from __future__ import annotations

from twisted.internet.defer import fail

from kupool.daemon.events import CLOSED
from kupool.topics.errors import TopicsUnavailable
from kupool.web.past import NO_EVENTS
from tests.fakes.activity_site import ActivityCase
from tests.fakes.pool_fixture import WALL


class EndedTests(ActivityCase):
    """A-54: sessions that have ended, with reasons, searched."""

    def tell(self, username: str, reason: str, **more: object) -> None:
        event = {"session": "ab", "username": username, "reason": reason, **more}
        self.successResultOf(self.writer.write(CLOSED, event))

    def test_ended(self) -> None:
        self.tell("alice.rig1", "idle timeout", peer="192.0.2.1:5", since=int(WALL * 1000))
        self.clock.advance(90)
        self.tell("bob.rig1", "slow reader")
        self.clock.advance(90)
        self.tell("alice.rig2", "Connection was closed cleanly.")
        found = self.get("/api/sessions/ended").json
        self.assertEqual(found["next"], None)
        names = [each["username"] for each in found["sessions"]]
        self.assertEqual(names, ["alice.rig2", "bob.rig1", "alice.rig1"])
        self.assertEqual(
            found["sessions"][2],
            {
                "session": "ab",
                "username": "alice.rig1",
                "peer": "192.0.2.1:5",
                "since": "2027-01-15T08:00:00.000Z",
                "until": "2027-01-15T08:00:00.000Z",
                "reason": "idle timeout",
            },
        )
        self.assertEqual(found["sessions"][1]["since"], None)  # of an older release

        def names_of(query: str, by: str = "olga") -> list[str]:
            told = self.get(f"/api/sessions/ended?{query}", by).json
            return [each["username"] for each in told["sessions"]]

        self.assertEqual(names_of("user=alice"), ["alice.rig2", "alice.rig1"])
        self.assertEqual(names_of("worker=rig1"), ["bob.rig1", "alice.rig1"])
        self.assertEqual(names_of("reason=TIMEOUT"), ["alice.rig1"])
        self.assertEqual(names_of("from=2027-01-15T08:01:00Z"), ["alice.rig2", "bob.rig1"])
        self.assertEqual(names_of("to=2027-01-15T08:01:00Z"), ["alice.rig1"])
        self.assertEqual(names_of("", "bob"), ["bob.rig1"])
        first = self.get("/api/sessions/ended?limit=2").json
        self.assertEqual(names_of(f"before={first['next']}"), ["alice.rig1"])

    def test_topics_that_cannot_be_read(self) -> None:
        self.tell("alice", "x")
        self.patch(
            self.topics.engine, "read", lambda *_: fail(TopicsUnavailable("RabbitMQ is away"))
        )
        self.refused(
            self.get("/api/sessions/ended"),
            503,
            "the topic events cannot be read: RabbitMQ is away",
        )


class WithoutEventsTests(ActivityCase):
    """A-54: where the daemon writes no events, it says what to do."""

    def past(self) -> None:
        return None

    def test_it_is_told(self) -> None:
        for path in ("/api/sessions/ended", "/api/audit"):
            self.refused(self.get(path), 404, NO_EVENTS)
