"""The daemon over a stream that is purged, deleted, or made again: nothing lost, nothing double."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.log.rabbit.topology import Topology
from tests.servers.commands import kupool
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon, StartFailed
from tests.servers.services import rabbit

TOPOLOGY = Topology()


class StreamDaemonTests(SynchronousTestCase):
    """Issue 11, point 1, with the counts in SQLite."""

    def setUp(self) -> None:
        self.broker = rabbit()
        self.url = self.broker.new_vhost()
        self.vhost = self.url.rpartition("/")[2]
        self.flags = ["--mq=rabbit", f"--mq-url={self.url}", "--interval=1h"]
        self.daemon = RunningDaemon(*self.flags, "--flush-interval=100ms", *UNLIMITED)
        self.addCleanup(self.daemon.__exit__)
        self.daemon.start()

    def delete(self, *queues: str) -> None:
        for queue in queues:
            self.broker.api(f"queues/{self.vhost}/{queue}", "DELETE")

    def submit(self, *nonces: str) -> dict[str, Any]:
        """Have some submissions accepted; returns their job."""
        client = LineClient(self.daemon)
        job = client.authorize("alice")
        for nonce in nonces:
            self.assertIs(client.submit(job, nonce)["result"], True)
        client.close()
        return job

    def again(self, job: dict[str, Any], nonce: str) -> str:
        """Submit a nonce of a job once more, as after a reconnect; returns the error."""
        client = LineClient(self.daemon)
        client.authorize("alice")
        error: str = client.submit(job, nonce).get("error", "")
        client.close()
        return error

    def counted(self) -> int:
        found = self.daemon.get("/stats?username=alice")[1]
        return int(found["total"])

    def wait_for(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"waited too long: {self.daemon.get('/ready')} {self.daemon.output}")
            time.sleep(0.1)

    def test_the_stream_is_deleted_after_a_crash(self) -> None:
        """The nonces are in no log any more: the job is retired, and nothing is taken twice."""
        job = self.submit("n1", "n2")
        self.wait_for(lambda: self.counted() == 2)
        self.daemon.kill()
        self.delete(TOPOLOGY.stream)
        self.daemon.start()
        self.assertIn("The log is missing: a new one begins", self.daemon.output)
        self.assertEqual(self.again(job, "n1"), "Task does not exist")
        self.submit("n3")
        self.wait_for(lambda: self.counted() == 3)
        self.assertEqual(self.daemon.get("/ready")[0], 200)

    def test_queue_and_stream_are_deleted_after_a_crash(self) -> None:
        job = self.submit("n1", "n2")
        self.wait_for(lambda: self.counted() == 2)
        self.daemon.kill()
        self.delete(TOPOLOGY.stream, TOPOLOGY.queue)
        self.daemon.start()
        self.assertEqual(self.again(job, "n1"), "Task does not exist")
        self.submit("n3")
        self.wait_for(lambda: self.counted() == 3)

    def test_the_queue_is_deleted_after_a_crash(self) -> None:
        """Everything is in the stream: it is counted, and known as a duplicate."""
        job = self.submit("n1", "n2")
        self.daemon.kill()
        self.delete(TOPOLOGY.queue)
        self.daemon.start()
        self.wait_for(lambda: self.counted() == 2)
        self.assertEqual(self.again(job, "n1"), "Duplicate submission")
        self.assertEqual(self.daemon.stop(), 0)
        found = kupool("audit", f"--data={self.daemon.data}", *self.flags)
        self.assertEqual(found.returncode, 0, found.stdout + found.stderr)

    def test_the_stream_is_deleted_while_it_runs(self) -> None:
        """It goes on, says so once, and after a restart nothing is taken twice."""
        job = self.submit("n1", "n2")
        self.delete(TOPOLOGY.stream)
        client = LineClient(self.daemon)
        client.authorize("alice")
        for nonce in ("n3", "n4"):
            self.assertIs(client.submit(job, nonce)["result"], True)
        self.assertEqual(client.submit(job, "n1")["error"], "Duplicate submission")
        client.close()
        self.wait_for(lambda: "a new one begins" in self.daemon.output)
        self.wait_for(lambda: self.counted() == 4)
        self.daemon.kill()
        self.daemon.start()
        for nonce in ("n1", "n3"):
            self.assertIn(self.again(job, nonce), ("Duplicate submission", "Task does not exist"))
        self.submit("n5")
        self.wait_for(lambda: self.counted() == 5)

    def test_the_counts_of_another_pool(self) -> None:
        """A stream and counts that do not belong together end the start with one line."""
        self.submit("n1")
        self.wait_for(lambda: self.counted() == 1)
        self.daemon.kill()
        # Its topics have names of their own, so nothing else keeps it from starting.
        other = RunningDaemon(
            "--mq=rabbit",
            f"--mq-url={self.broker.new_vhost()}",
            "--interval=1h",
            "--topics-prefix=other",
            *UNLIMITED,
        )
        self.addCleanup(other.__exit__)
        other.start()
        other.stop()
        other.flags[1] = f"--mq-url={self.url}"
        with self.assertRaises(StartFailed) as caught:
            other.start()
        text = str(caught.exception)
        self.assertIn("status 1", text)
        self.assertRegex(
            text, r"Cannot start: \w+: the log belongs to pool \w+ and the store to pool"
        )
