"""One process and one command for all parts of the daemon, and each of them turned off."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.test_daemon_live import EventReader, LivePeer
from tests.servers.running_daemon import RunningDaemon
from tests.unit.daemon.test_parts import REQUESTS, UNKNOWN


class OneProcessTests(SynchronousTestCase):
    """X-02, with real daemons: ``twistd kupool`` and nothing beside it."""

    def answers(self, daemon: RunningDaemon) -> list[str]:
        """Return the parts that answer one session."""
        found = []
        with LivePeer(daemon, "line") as peer:
            for part, (method, params) in REQUESTS.items():
                reply: dict[str, Any] = peer.ask(method, **params)
                if reply.get("code") != UNKNOWN:
                    self.assertNotIn("code", reply, f"{part}: {reply}")
                    found.append(part)
        return found

    def test_all_parts(self) -> None:
        """The pool, the bus, rooms, topics, live channels and the HTTP API."""
        with RunningDaemon("--rooms=on", fresh=True) as daemon:
            self.assertEqual(self.answers(daemon), list(REQUESTS))
            for path in ("/health", "/stats", "/api/topic/list", "/api/live/status"):
                self.assertEqual(daemon.get(path)[0], 200, path)
            with EventReader(daemon, "channel=pool") as reader:
                self.assertEqual(reader.data()["sessions"], 0)
            self.assertEqual(daemon.stop(), 0)

    def test_the_pool_alone(self) -> None:
        """It takes submissions, with all that can be off."""
        off = [f"--{part}=off" for part in REQUESTS]
        with RunningDaemon(*off, http=False) as daemon:
            self.assertEqual(self.answers(daemon), [])
            self.assertEqual(daemon.stop(), 0)
        with RunningDaemon(*off) as daemon:
            self.assertEqual(daemon.get("/stats")[0], 200)
            for path in ("/events?channel=pool", "/api/topic/list", "/api/live/status"):
                self.assertEqual(daemon.get(path)[0], 404, path)

    def test_without_the_http_api(self) -> None:
        """Sessions have all parts."""
        with RunningDaemon("--rooms=on", http=False) as daemon:
            self.assertEqual(self.answers(daemon), list(REQUESTS))
