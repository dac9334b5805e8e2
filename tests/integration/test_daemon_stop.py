"""How the daemon stops: in order, within its deadline, or at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.fakes.peers import frames
from tests.servers.pool_load import counted
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon

AUTHORIZE = b'{"id":1,"method":"authorize","params":{"username":"admin"}}'


def framed(payload: bytes) -> bytes:
    return b"\x02" + len(payload).to_bytes(4, "little") + payload


def read_all(sock: socket.socket) -> bytes:
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return data


class StopTests(SynchronousTestCase):
    """K-85: listeners, in-flight submissions, clients, counts, exit 0."""

    def start(self, *flags: str, **options: Any) -> RunningDaemon:
        daemon = RunningDaemon("--interval=1h", *UNLIMITED, *flags, **options)
        self.addCleanup(daemon.__exit__)
        return daemon.start()

    def client(self, daemon: RunningDaemon, **options: Any) -> LineClient:
        client = LineClient(daemon, **options)
        self.addCleanup(client.close)
        return client

    def wait_for_phase(self, daemon: RunningDaemon, phase: str) -> None:
        while daemon.get("/shutdown/status")[1]["phase"] != phase:
            time.sleep(0.02)

    def check_goodbyes(self, number: int) -> None:
        """Stop by a signal; each framing hears why, and the status is 0."""
        daemon = self.start()
        line = self.client(daemon)
        line.authorize("alice")
        frame = daemon.connect()
        self.addCleanup(frame.close)
        frame.sendall(framed(AUTHORIZE))
        first = frame.recv(5)
        self.assertEqual(first[0], 0x2)
        frame.recv(int.from_bytes(first[1:], "little"), socket.MSG_WAITALL)
        daemon.signal(number)
        self.assertEqual(
            line.receive(),
            {
                "id": None,
                "method": "close",
                "params": {"reason": "server going down", "code": 4000, "reconnect": True},
            },
        )
        self.assertRaises(EOFError, line.receive)
        *job, close = frames(read_all(frame))
        self.assertEqual([json.loads(payload)["method"] for _, payload in job], ["job"])
        self.assertEqual(close, (0x8, b"server going down"))
        self.assertEqual(daemon.wait(), 0)
        self.assertEqual(daemon.events()[-1]["message"], "Server Shut Down.")
        self.assertNotIn("Traceback", daemon.output)

    def test_sigterm(self) -> None:
        """K-85: SIGTERM; OpClose in frame, the close notification in line."""
        self.check_goodbyes(signal.SIGTERM)

    def test_sigint(self) -> None:
        """K-85: SIGINT does the same."""
        self.check_goodbyes(signal.SIGINT)

    def test_what_is_in_flight_is_answered(self) -> None:
        """K-85: a submission that waits in an open batch is answered, then counted."""
        daemon = self.start("--batch-delay=1h", "--batch-size=1000")
        held = hold_writes(daemon)
        self.addCleanup(held.close)
        client = self.client(daemon)
        job = client.authorize("alice")
        client.send(submission(job, "a"))
        while not daemon.get("/shutdown/status")[1]["batches_in_flight"]:
            time.sleep(0.01)
        daemon.signal(signal.SIGTERM)
        self.wait_for_phase(daemon, "stopping: answers")
        # Nobody new comes in, and whoever asks is told that it is not ready.
        self.assertRaises(ConnectionRefusedError, daemon.connect)
        status, ready = daemon.get("/ready")
        self.assertEqual((status, ready["reasons"]), (503, ["stopping: answers"]))
        held.rollback()
        self.assertEqual(client.receive(), {"id": "a", "result": True})
        self.assertEqual(client.receive()["method"], "close")
        self.assertEqual(daemon.wait(), 0)
        self.assertEqual(counted(daemon.data), {"alice": 1})

    def test_a_client_that_never_reads(self) -> None:
        """K-85: it holds the stop up for no longer than the last answers may take."""
        daemon = self.start("--outbox-limit=64MiB", "--write-timeout=1h", "--max-errors=0")
        deaf = daemon.connect()
        self.addCleanup(deaf.close)
        deaf.sendall(AUTHORIZE + b"\n")
        deaf.setblocking(False)
        sent = 0
        ping = b'{"id":7,"method":"ping"}\n' * 4000
        while sent < 30_000_000:
            try:
                sent += deaf.send(ping)
            except BlockingIOError:
                break
            time.sleep(0.001)
        self.assertEqual(daemon.stop(timeout=25), 0)
        self.assertIn("Stopped", daemon.output)

    def test_the_deadline(self) -> None:
        """K-85: a log that never answers is waited for until the deadline only."""
        daemon = self.start("--shutdown-timeout=2s")
        held = hold_writes(daemon)
        self.addCleanup(held.close)
        client = self.client(daemon)
        client.send(submission(client.authorize("alice"), "a"))
        while not daemon.get("/shutdown/status")[1]["batches_in_flight"]:
            time.sleep(0.01)
        # SQLite itself waits 30 s for the lock: longer than the stop may take.
        self.assertEqual(daemon.stop(timeout=15), 0)
        self.assertIn("Stop: the step answers", daemon.output)
        messages = [message["method"] for message in read_messages(client)]
        self.assertEqual(messages, ["close"])  # and never a true

    def test_a_second_signal_ends_at_once(self) -> None:
        """K-85: the second signal ends it, with status 1."""
        daemon = self.start()
        held = hold_writes(daemon)
        self.addCleanup(held.close)
        client = self.client(daemon)
        client.send(submission(client.authorize("alice"), "a"))
        while not daemon.get("/shutdown/status")[1]["batches_in_flight"]:
            time.sleep(0.01)
        daemon.signal(signal.SIGTERM)
        self.wait_for_phase(daemon, "stopping: answers")
        time.sleep(0.15)
        daemon.signal(signal.SIGINT)
        self.assertEqual(daemon.wait(timeout=5), 1)
        self.assertIn("kupool: a second signal, stopping at once", daemon.lines)

    def test_the_same_signal_twice_is_one(self) -> None:
        """K-85: a signal that a parent passes on as well does not cut the stop short."""
        daemon = self.start()
        self.client(daemon).authorize("alice")
        daemon.signal(signal.SIGTERM)
        daemon.signal(signal.SIGINT)
        self.assertEqual(daemon.wait(), 0)


class DescriptorTests(SynchronousTestCase):
    """K-86: sockets are closed when their sessions end."""

    def test_descriptors_return_to_the_baseline(self) -> None:
        """K-86: after 2,000 connections the process has the files open that it began with."""
        if not Path("/proc/self/fd").exists():
            raise SkipTest("this system has no /proc")
        with RunningDaemon("--interval=1h", *UNLIMITED) as daemon:

            def opened() -> int:
                return len(os.listdir(f"/proc/{daemon.pid}/fd"))

            warm = LineClient(daemon)
            warm.authorize("alice")
            warm.close()
            self.wait_for(daemon, 0)
            daemon.get("/stats")
            baseline = opened()
            for _ in range(20):
                crowd = [daemon.connect() for _ in range(100)]
                for number, sock in enumerate(crowd):
                    if number % 2:
                        sock.sendall(AUTHORIZE + b"\n")
                    if number % 10 == 1:
                        sock.recv(1)
                for number, sock in enumerate(crowd):
                    if number % 3 == 0:  # a reset instead of an orderly end
                        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    sock.close()
            self.wait_for(daemon, 0)
            deadline = time.monotonic() + 10
            while opened() > baseline and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertLessEqual(opened(), baseline)
            self.assertEqual(daemon.stop(), 0)

    def wait_for(self, daemon: RunningDaemon, connections: int) -> None:
        deadline = time.monotonic() + 10
        while daemon.get("/shutdown/status")[1]["connections"] != connections:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)


def submission(job: dict[str, Any], nonce: str) -> dict[str, Any]:
    from hashlib import sha256

    result = sha256((job["server_nonce"] + nonce).encode()).hexdigest()
    params = {"job_id": job["job_id"], "client_nonce": nonce, "result": result}
    return {"id": nonce, "method": "submit", "params": params}


def hold_writes(daemon: RunningDaemon) -> sqlite3.Connection:
    """Keep the log's file locked, so that nothing becomes durable until it is rolled back."""
    connection = sqlite3.connect(daemon.data / "log.sqlite", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def read_messages(client: LineClient) -> list[dict[str, Any]]:
    messages = []
    try:
        while True:
            messages.append(client.receive())
    except EOFError:
        return messages
