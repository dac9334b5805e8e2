"""Overload of live channels of the real daemon: it is entered, seen, and left."""

from __future__ import annotations

import json
import threading
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.test_daemon_live import EventReader, LivePeer
from tests.servers.of_class import of_class
from tests.servers.running_daemon import RunningDaemon
from tests.servers.sockets import Peer

FLAGS = (
    "--live-rules=load publish_by_clients=on",
    "--live-rules=limited publish_by_clients=on",
    *(
        f"--permissions=* {action} {channel}"
        for action in ("channel.publish", "channel.subscribe")
        for channel in ("load", "limited")
    ),
    "--live-rate=0",
    "--live-device-rate=0",
    "--live-overload-clients=1",
    "--live-overload-lag=0",
    "--live-overload-enter=100ms",
    "--live-overload-leave=200ms",
)


class Flood:
    """A client that sends the same as fast as it can until it is told to end."""

    def __init__(self, peer: Peer, lines: bytes) -> None:
        self._peer = peer
        self._lines = lines
        self._over = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._send, self._read)]

    def __enter__(self) -> Flood:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._peer.close()

    def _send(self) -> None:
        while not self._over.is_set():
            self._peer.send(self._lines)
        self._peer.finish()

    def _read(self) -> None:
        while self._peer.socket.recv(65536):
            pass


def flood_of_session(daemon: RunningDaemon) -> Flood:
    """Return a session that publishes events of one device and type."""
    peer = Peer(daemon.port)
    peer.send(_request("authorize", username="flood"))
    event = {"channel": "load", "device": "d", "type": "t"}
    return Flood(peer, b"".join(_request("publish", **event, data=each) for each in range(100)))


def flood_of_centrifuge(daemon: RunningDaemon) -> Flood:
    """Return a client of the Centrifuge protocol that publishes."""
    peer = Peer(daemon.http_port)
    peer.send(
        b"GET /connection/websocket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    while peer.line().strip():
        pass
    peer.send(_frame({"id": 1, "connect": {}}))
    publish = {"id": 2, "publish": {"channel": "load", "data": 1}}
    return Flood(peer, _frame(publish) * 100)


def _request(method: str, **params: Any) -> bytes:
    return json.dumps({"id": 1, "method": method, "params": params}).encode() + b"\n"


def _frame(command: dict[str, Any]) -> bytes:
    """Return a text frame of a client, with a mask that changes nothing."""
    data = json.dumps(command).encode()
    return bytes((0x81, 0x80 | len(data))) + bytes(4) + data


def told(reader: EventReader, kind: str, channel: str) -> Any:
    """Return the next message of a type on a channel."""
    while True:
        _, shown = reader.event()
        if shown["channel"] == channel and shown.get("type") == kind:
            return shown["data"]


def event(reader: EventReader, kind: str) -> None:
    """Wait for an event of a type in the topic ``events``."""
    while True:
        if f'"{kind}"' in json.dumps(reader.event()[1]):
            return


class DegradedModeTests(SynchronousTestCase):
    """Issue text of build 7, overload, with one daemon."""

    def setUp(self) -> None:
        self.daemon = of_class(self, lambda: RunningDaemon(*FLAGS))

    def status(self) -> Any:
        code, status = self.daemon.get("/api/live/status")
        self.assertEqual(code, 200)
        return status

    def test_enters_and_leaves(self) -> None:
        """W-62, W-63, W-65: under a flood of one device, the mode is entered and told, normal
        messages are merged, emergencies arrive; it is left and told after the flood.
        """
        with (
            EventReader(self.daemon, "channel=server") as server,
            EventReader(self.daemon, "channel=events") as events,
            EventReader(self.daemon, "channel=load&min_priority=3") as urgent,
        ):
            with flood_of_session(self.daemon), LivePeer(self.daemon, "line") as alarm:
                degraded = told(server, "live.degraded", "server")
                self.assertGreaterEqual(degraded["clients"], 1)
                event(events, "live.degraded")
                for number in range(20):
                    answer = alarm.ask(
                        "publish", channel="load", data=number, priority=3, device="d", type="t"
                    )
                    self.assertNotIn("merged", answer["result"])
                    self.assertEqual(urgent.data(), number)
                status = self.status()
                self.assertTrue(status["degraded"])
                self.assertGreater(status["merged"], 0)
                self.assertEqual(set(status["waiting"]), {"normal", "high", "emergency"})
                self.assertEqual(status["queued"].keys(), status["waiting"].keys())
                reasons = " ".join(self.daemon.get("/ready")[1]["reasons"])
                self.assertIn("live: overloaded", reasons)
            recovered = told(server, "live.recovered", "server")
            self.assertGreater(recovered["seconds"], 0)
            event(events, "live.recovered")
        status = self.status()
        self.assertFalse(status["degraded"])
        self.assertEqual(status["entered"], status["left"])
        self.assertIn("Live channels are overloaded", self.daemon.output)
        self.assertIn("no longer overloaded", self.daemon.output)

    def test_clients_of_the_centrifuge_protocol(self) -> None:
        """Their requests that wait are an overload as well."""
        with EventReader(self.daemon, "channel=server") as server:
            with flood_of_centrifuge(self.daemon):
                degraded = told(server, "live.degraded", "server")
                self.assertGreaterEqual(degraded["clients"], 1)
            told(server, "live.recovered", "server")


class DeviceLimitDaemonTests(SynchronousTestCase):
    """Issue text of build 7, overload: limits of devices."""

    def test_the_publisher_is_told(self) -> None:
        """What is over the limit is refused, counted and told; emergencies pass."""
        flags = [each for each in FLAGS if "device-rate" not in each]
        with (
            RunningDaemon(*flags, "--live-device-rate=1") as daemon,
            LivePeer(daemon, "line") as peer,
        ):
            answers = []
            for number in range(40):
                answers.append(peer.ask("publish", channel="limited", data=number, device="d"))
                other = {"device": f"other-{number}"}
                self.assertIn(
                    "offset", peer.ask("publish", channel="limited", data=1, **other)["result"]
                )
            refused = [each for each in answers if each["result"] is False]
            self.assertTrue(refused)
            self.assertEqual(refused[0]["code"], 34)
            self.assertIn("device d has published 1 events in the last second", refused[0]["error"])
            urgent = peer.ask("publish", channel="limited", data=1, device="d", priority=3)
            self.assertIn("offset", urgent["result"])
            counts = daemon.get("/api/live/status")[1]["refused"]
            self.assertEqual(sum(counts.values()), len(refused))
