"""The parts of the daemon, all together, each of them off, and each of them alone."""

from __future__ import annotations

from typing import Any

from tests.fakes.daemon_case import DaemonCase

#: A request that each part answers, and the setting with which the part is on and off.
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "bus": ("bus.publish", {"topic": "a", "data": "x", "model": "unreliable-all"}),
    "rooms": ("room.create", {"room": "tea"}),
    "topics": ("topic.list", {}),
    "live": ("subscribe", {"channel": "pool"}),
}
ON = {"bus": "local", "rooms": "on", "topics": "memory", "live": "on"}

#: The code of the error for a method that the daemon does not have.
UNKNOWN = 31


class PartCase(DaemonCase):
    def start(self, **settings: Any) -> None:
        """Start nothing before the test says what."""
        if settings:
            super().start(**settings)

    def run_with(self, *on: str) -> list[str]:
        """Run a daemon with some parts; returns those that answer, and submits."""
        self.start(**{part: ON[part] if part in on else "off" for part in ON})
        peer = self.session()
        answers = []
        for part, (method, params) in REQUESTS.items():
            reply = peer.ask(method, params)
            if reply.get("code") != UNKNOWN:
                self.assertNotIn("code", reply, f"{part}: {reply}")
                answers.append(part)
        return answers


class PartTests(PartCase):
    """X-02: one process runs all parts; each can be turned off, or run alone with the pool."""

    def test_all_together(self) -> None:
        self.assertEqual(self.run_with(*ON), list(ON))

    def test_none(self) -> None:
        self.assertEqual(self.run_with(), [])

    def test_without_the_bus(self) -> None:
        self.assertEqual(self.run_with("rooms", "topics", "live"), ["rooms", "topics", "live"])

    def test_without_rooms(self) -> None:
        self.assertEqual(self.run_with("bus", "topics", "live"), ["bus", "topics", "live"])

    def test_without_topics(self) -> None:
        self.assertEqual(self.run_with("bus", "rooms", "live"), ["bus", "rooms", "live"])

    def test_without_live_channels(self) -> None:
        self.assertEqual(self.run_with("bus", "rooms", "topics"), ["bus", "rooms", "topics"])

    def test_the_bus_alone(self) -> None:
        self.assertEqual(self.run_with("bus"), ["bus"])

    def test_rooms_alone(self) -> None:
        self.assertEqual(self.run_with("rooms"), ["rooms"])

    def test_topics_alone(self) -> None:
        self.assertEqual(self.run_with("topics"), ["topics"])

    def test_live_channels_alone(self) -> None:
        self.assertEqual(self.run_with("live"), ["live"])
