"""Overload of live channels in the real daemon: degraded mode begins, is seen, and ends."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.test_daemon_live import EventReader, LivePeer
from tests.servers.running_daemon import RunningDaemon

FLAGS = (
    "--live-rules=load publish_by_clients=on",
    "--permissions=* channel.publish load",
    "--permissions=* channel.subscribe load",
    "--live-rate=0",
    "--live-device-rate=0",
    # One session that sends too much is enough, and nothing else is.
    "--live-overload-clients=1",
    "--live-overload-backlog=0",
    "--live-overload-lag=0",
    "--live-overload-enter=0",
    "--live-overload-leave=200ms",
)


class EndlessPublisher:
    """A session that publishes normal messages of one device as fast as it can, in threads."""

    def __init__(self, port: int) -> None:
        self.merged = 0
        self._over = False
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=20)
        self._threads = [threading.Thread(target=each) for each in (self._write, self._read)]

    def __enter__(self) -> EndlessPublisher:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._threads[0].join()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._threads[1].join()
        self._socket.close()

    def _write(self) -> None:
        self._socket.sendall(_line("authorize", username="flood"))
        many = _line("publish", channel="load", data=1, device="pump", type="reading") * 500
        while not self._over:
            self._socket.sendall(many)

    def _read(self) -> None:
        while data := self._socket.recv(1 << 16):
            self.merged += data.count(b'"merged":')


def _line(method: str, **params: Any) -> bytes:
    return json.dumps({"id": 1, "method": method, "params": params}).encode() + b"\n"


class LiveOverloadTests(SynchronousTestCase):
    """W-47, acceptance 4 of build 7: degraded mode enters and leaves, visibly."""

    def until(self, wanted: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not wanted():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.02)

    def status(self, daemon: RunningDaemon) -> dict[str, Any]:
        code, found = daemon.get("/api/live/status")
        self.assertEqual(code, 200)
        return dict(found)

    def next_of(self, reader: EventReader, kind: str) -> dict[str, Any]:
        while (data := reader.data())["type"] != kind:
            pass
        return dict(data)

    def test_degraded_mode(self) -> None:
        """W-47, W-62, W-65: it is in the log, in the status, in /ready, on the channel server and
        in the topic events; emergencies come meanwhile.
        """
        with (
            RunningDaemon(*FLAGS) as daemon,
            EventReader(daemon, "channel=server") as news,
            EventReader(daemon, "channel=load&min_priority=3") as alarms,
            LivePeer(daemon, "line", "alarm") as alarm,
        ):
            self.assertEqual(self.status(daemon)["state"], "normal")
            with EndlessPublisher(daemon.port) as flood:
                begun = self.next_of(news, "live.degraded")
                self.assertGreaterEqual(begun["clients"], 1)
                self.until(lambda: self.status(daemon)["degraded"], "not in the status")
                _, ready = daemon.get("/ready")
                self.assertIn("live: overloaded", json.dumps(ready))
                for number in range(10):
                    alarm.ask("publish", channel="load", data=number, priority=3, device="pump")
                self.assertEqual([alarms.data() for _ in range(10)], list(range(10)))
                self.until(lambda: flood.merged > 0, "nothing was merged")
            self.next_of(news, "live.recovered")
            self.until(lambda: self.status(daemon)["state"] == "normal", "still degraded")
            status = self.status(daemon)
            self.assertGreaterEqual(status["entered"], 1)
            self.assertEqual(status["entered"], status["left"])
            self.assertGreater(status["merged"], 0)
            self.assertEqual(status["waiting"], {"normal": 0, "high": 0, "emergency": 0})
            self.assertIn("Live channels are overloaded", daemon.output)
            self.assertIn("Live channels are no longer overloaded", daemon.output)
            kinds: list[str] = []

            def written() -> bool:
                _, found = daemon.post(
                    "/api/log/fetch", {"topic": "events", "partition": 0, "at": "earliest"}
                )
                kinds[:] = [json.dumps(record) for record in found["records"]]
                return all(
                    any(kind in each for each in kinds)
                    for kind in ("live.degraded", "live.recovered")
                )

            self.until(written, "not in the topic events")
