"""What operators see of live channels of the real daemon: alarms, figures, audits."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.commands.live import FOUND
from kupool.live.durable import record_of
from tests.fakes.live import new
from tests.integration.test_daemon_live import EventReader, LivePeer
from tests.integration.test_daemon_live_overload import event, told
from tests.servers.commands import kupool
from tests.servers.of_class import of_class
from tests.servers.own_process import wait_until
from tests.servers.running_daemon import RunningDaemon

FLAGS = (
    "--live-rules=kept kind=durable topic=kept publish_by_clients=on",
    "--live-rules=plain publish_by_clients=on history_size=10",
    *(
        f"--permissions=* {action} {channel}"
        for action in ("channel.publish", "channel.subscribe")
        for channel in ("kept", "plain")
    ),
    "--live-remembered-events=3",
    "--live-audit-interval=200ms",
    "--live-sweep-interval=200ms",
)


class LiveFigureTests(SynchronousTestCase):
    """W-52, W-58, W-60, W-85, with one daemon."""

    def setUp(self) -> None:
        self.daemon = of_class(self, lambda: RunningDaemon(*FLAGS))
        self.env = {"KUP_URL": self.daemon.url(""), "KUP_DATA": str(self.daemon.data)}

    def status(self) -> Any:
        code, status = self.daemon.get("/api/live/status")
        self.assertEqual(code, 200)
        return status

    def kupool(self, *words: str, status: int = 0) -> str:
        done = kupool(*words, env=self.env)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        return done.stdout

    def test_a_gap_in_the_sequence_of_a_device(self) -> None:
        """W-52: it is counted, logged, and told on the channel and in the topic."""
        with (
            EventReader(self.daemon, "channel=server") as server,
            EventReader(self.daemon, "channel=events") as events,
            EventReader(self.daemon, "channel=plain") as reader,
            LivePeer(self.daemon, "line") as peer,
        ):
            for number in (1, 2, 5):
                peer.ask("publish", channel="plain", data=number, device="pump", sequence=number)
            self.assertEqual([reader.event()[1]["sequence"] for _ in range(3)], [1, 2, 5])
            found = told(server, "live.sequence", "server")
            self.assertEqual((found["device"], found["first"], found["last"]), ("pump", 3, 4))
            event(events, "live.sequence")
        self.assertEqual(self.status()["sequences"]["missing"], 2)
        self.assertIn("The sequence of device pump in channel plain", self.daemon.output)

    def test_more_events_than_are_remembered(self) -> None:
        """W-58: they are published, perhaps twice, and that is told."""
        with (
            EventReader(self.daemon, "channel=server") as server,
            EventReader(self.daemon, "channel=plain") as reader,
            LivePeer(self.daemon, "line") as peer,
        ):
            for number in (1, 2, 3, 4, 1):
                peer.ask("publish", channel="plain", data=number, event_id=f"e{number}")
            self.assertEqual([reader.data() for _ in range(5)], [1, 2, 3, 4, 1])
            told(server, "live.duplicates_unchecked", "server")
        reasons = " ".join(self.daemon.get("/ready")[1]["reasons"])
        self.assertIn("live: not all repeated messages can be noticed", reasons)
        self.assertGreaterEqual(self.status()["duplicates"]["pushed_out"], 2)

    def test_broadcasts(self) -> None:
        """W-85: of the channel, and of all together."""
        with (
            EventReader(self.daemon, "channel=plain") as reader,
            LivePeer(self.daemon, "line") as p,
        ):
            before = self.status()["broadcasts"]["channels"].get("plain", {"count": 0})
            for number in range(3):
                p.ask("publish", channel="plain", data=number)
                self.assertEqual(reader.data(), number)
            shown = self.status()["broadcasts"]
            self.assertEqual(shown["channels"]["plain"]["count"], before["count"] + 3)
            self.assertGreaterEqual(shown["total"]["reached"], 3)
            self.assertLessEqual(shown["total"]["average_ms"], shown["total"]["longest_ms"])
            self.assertEqual(set(shown["total"]), set(shown["channels"]["plain"]))

    def test_an_audit_and_a_repair(self) -> None:
        """W-60: what a topic has twice is told by the daemon, listed by the command, and left out
        of a copy.
        """
        for topic in ("kept", "mended"):
            self.kupool("topic", "create", topic, "--partitions", "1")
        record = record_of(new({"n": 1}, event_id="order/7"))
        header = f"live={record.headers['live']}"
        with EventReader(self.daemon, "channel=server") as server:
            for value in ("1", "1", "2"):
                more = ("--header", header) if value == "1" else ()
                self.kupool("log", "produce", "kept", value, *more)
            found = told(server, "live.duplicates", "server")
        self.assertEqual((found["event_id"], found["offset"], found["first"]), ("order/7", 1, 0))
        duplicates = self.status()["duplicates"]
        self.assertEqual((duplicates["found"], duplicates["with_id"] > -1), (1, True))
        self.assertIn("Topic kept, partition 0, has events more than once", self.daemon.output)
        listed = self.kupool("live", "audit", "kept", status=FOUND)
        self.assertEqual(
            listed, "0/1  first 0/0  order/7\nRead 3 records of kept: 1 event again.\n"
        )
        shown = json.loads(self.kupool("live", "audit", "kept", "--json", status=FOUND))
        self.assertEqual(shown, {"partition": 0, "event_id": "order/7", "offset": 1, "first": 0})
        copied = self.kupool("live", "audit", "kept", "--copy-to", "mended", status=FOUND)
        self.assertIn("Wrote 2 records to mended.", copied)
        self.assertIn("0 events again", self.kupool("live", "audit", "mended"))
        self.assertEqual(self.kupool("log", "fetch", "mended", "--values"), "1\n2\n")
        done = kupool("live", "audit", "kept", "--copy-to", "kept", env=self.env)
        self.assertEqual((done.returncode, "name another topic" in done.stderr), (1, True))

    def test_sweeps(self) -> None:
        """W-11: they run, and find nothing of clients that come and go."""
        for _ in range(5):
            with EventReader(self.daemon, "channel=plain"), LivePeer(self.daemon, "line") as peer:
                peer.ask("subscribe", channel="plain")
        before = self.status()["leftovers"]["sweeps"]
        wait_until(lambda: self.status()["leftovers"]["sweeps"] >= before + 3, "sweeps")
        self.assertEqual(self.status()["leftovers"]["found"], {})
