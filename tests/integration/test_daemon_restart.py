"""What a restart keeps: jobs, history, used nonces and counts."""

from __future__ import annotations

import signal

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.pool_load import Load, counted
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon


class RestartTests(SynchronousTestCase):
    """K-29, K-34, K-47: jobs, history and used nonces outlive the process."""

    def daemon(self, *flags: str) -> RunningDaemon:
        daemon = RunningDaemon("--interval=1h", *UNLIMITED, *flags)
        self.addCleanup(daemon.__exit__)
        return daemon.start()

    def client(self, daemon: RunningDaemon, username: str = "alice") -> LineClient:
        client = LineClient(daemon)
        self.addCleanup(client.close)
        self.job = client.authorize(username)
        return client

    def check_restart(self, *, in_order: bool) -> None:
        """Use two jobs, end the daemon and start it again, and look what is known."""
        daemon = self.daemon()
        client = self.client(daemon)
        old = self.job
        self.assertEqual(client.submit(old, "a")["result"], True)
        daemon.post("/jobs/rotate", {})
        newest = client.job()
        self.assertEqual(newest["job_id"], old["job_id"] + 1)
        self.assertEqual(client.submit(newest, "b")["result"], True)
        if in_order:
            self.assertEqual(daemon.stop(), 0)
        else:
            daemon.kill()
        daemon.start()
        client = self.client(daemon)
        if in_order:
            self.assertEqual(self.job, newest)
        else:
            # Jobs may have gone out that were not saved any more.
            self.assertGreater(self.job["job_id"], newest["job_id"])
        for job, nonce in ((old, "a"), (newest, "b")):
            self.assertEqual(client.submit(job, nonce)["error"], "Duplicate submission")
        self.assertEqual(client.submit(old, "new")["result"], True)
        other = self.client(daemon, "bob")
        self.assertEqual(other.submit(old, "a")["result"], True)
        daemon.post("/jobs/rotate", {})
        self.assertGreater(client.job()["job_id"], newest["job_id"])
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        self.assertEqual(daemon.get("/stats")[1]["accepted_total"], 4)
        self.assertEqual(daemon.stop(), 0)

    def test_a_stop_in_order(self) -> None:
        """K-34, K-47: after SIGTERM the old job validates and its nonces are duplicates."""
        self.check_restart(in_order=True)

    def test_a_kill(self) -> None:
        """K-34, K-47: after kill -9 too, without a moment to write anything."""
        self.check_restart(in_order=False)

    def test_ids_grow_over_many_restarts(self) -> None:
        """K-34: job_id strictly grows, however the process ends and whatever is kept."""
        daemon = self.daemon("--interval=10ms")
        seen = []
        for number in range(4):
            client = self.client(daemon)
            seen += [self.job["job_id"], *(client.job()["job_id"] for _ in range(3))]
            client.close()
            if number % 2:
                daemon.stop()
            else:
                daemon.kill()
            daemon.start()
        self.assertEqual(seen, sorted(set(seen)))

    def test_ids_grow_without_a_store(self) -> None:
        """K-34: in memory nothing is kept, and ids grow all the same."""
        daemon = self.daemon("--store=memory", "--mq=memory")
        client = self.client(daemon)
        before = self.job
        self.assertEqual(client.submit(before, "a")["result"], True)
        daemon.kill()
        daemon.start()
        client = self.client(daemon)
        self.assertGreater(self.job["job_id"], before["job_id"])
        self.assertEqual(client.submit(before, "a")["error"], "Task does not exist")

    def test_the_window_bounds_the_history(self) -> None:
        """K-29: a job older than the history window does not come back."""
        daemon = self.daemon("--history-window=1s", "--interval=100ms")
        client = self.client(daemon)
        old = self.job
        while self.job["job_id"] < old["job_id"] + 15:
            self.job = client.job()
        self.assertEqual(client.submit(old, "a")["error"], "Task does not exist")
        self.assertEqual(client.submit(self.job, "a")["result"], True)

    def test_expiry_goes_by_the_age_of_the_job(self) -> None:
        """K-43: a job expires at its age, the current one included, and not before."""
        daemon = self.daemon("--expire=1s")
        client = self.client(daemon)
        self.assertEqual(client.submit(self.job, "a")["result"], True)
        answers = [client.submit(self.job, "late")]
        number = 0
        while answers[-1].get("error") != "Task expired":
            self.assertEqual(answers[-1]["result"], True)
            number += 1
            answers.append(client.submit(self.job, f"late{number}"))
        daemon.post("/jobs/rotate", {})
        self.assertEqual(client.submit(client.job(), "b")["result"], True)

    def test_a_kill_under_load(self) -> None:
        """K-53, K-85: what was answered true before kill -9 is counted once after it."""
        daemon = self.daemon()
        load = Load(daemon, 8)
        load.run_until(400)
        daemon.kill()
        accepted = load.finish()
        daemon.start()
        job = load.job
        for user, nonces in load.accepted.items():
            client = self.client(daemon, user)
            again = {client.submit(job, nonce).get("error") for nonce in nonces}
            self.assertEqual(again, {"Duplicate submission"})
        self.assertEqual(daemon.stop(), 0)
        totals = counted(daemon.data)
        self.assertGreaterEqual(sum(accepted.values()), 400)
        for user, count in accepted.items():
            # At most one was durable and could not be answered any more.
            self.assertIn(totals[user] - count, (0, 1))


class StopUnderLoadTests(SynchronousTestCase):
    """K-85: a stop in the midst of submissions loses none and counts none twice."""

    def test_every_true_is_counted(self) -> None:
        """K-85: every true that a client got is in the table after the restart."""
        with RunningDaemon("--interval=1h", *UNLIMITED) as daemon:
            load = Load(daemon, 8)
            load.run_until(400)
            daemon.signal(signal.SIGTERM)
            accepted = load.finish()
            self.assertEqual(daemon.wait(), 0)
            self.assertEqual(load.closes, ["server going down"] * 8)
            # All of it before the restart already, and nothing that was not answered.
            self.assertEqual(counted(daemon.data), accepted)
            daemon.start()
            self.assertEqual(daemon.get("/stats")[1]["accepted_total"], sum(accepted.values()))
            self.assertEqual(daemon.stop(), 0)
            self.assertEqual(counted(daemon.data), accepted)
