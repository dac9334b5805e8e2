"""A worker on a fake clock: against a scripted server, and ten minutes on the real pool."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.client import PoolClient, PoolClientSettings, SubmissionAnswer, Worker
from kupool.client.pace import PaceSettings
from kupool.client.worker import solve
from kupool.net.dialling.dialler import Place
from kupool.net.transport.detecting import DetectingFactory
from tests.fakes.client_script import PipeEndpoint, ScriptedEndpoint
from tests.servers.pool_server import PoolServer

EPOCH = 1_700_000_000.0


class WorkerCase(SynchronousTestCase):
    """A worker and a server that says what the test wants."""

    def start(self, **pace: float) -> None:
        self.clock = Clock()
        self.endpoint = ScriptedEndpoint()
        self.client = PoolClient(self.clock, [self.endpoint.server()], "admin", random=lambda: 1.0)
        self.randoms = iter(range(1, 10_000))
        self.answers: list[SubmissionAnswer] = []
        self.worker = Worker(
            self.clock,
            self.client,
            PaceSettings(**pace),
            random_bytes=lambda size: next(self.randoms).to_bytes(size, "big"),
            on_answer=lambda job, nonce, answer: self.answers.append(answer),
        )
        self.client.connect().addErrback(lambda _: None)
        self.endpoint.last.answer()

    def job(self, job_id: int, server_nonce: str = "ab") -> None:
        params = {"job_id": job_id, "server_nonce": server_nonce}
        self.endpoint.last.say({"id": None, "method": "job", "params": params})

    def sent(self) -> list[Any]:
        return [
            (m["params"]["job_id"], m["params"]["client_nonce"], m["params"]["result"])
            for m in self.endpoint.last.heard()
            if isinstance(m, dict)
        ]

    def end(self) -> None:
        self.client.close()
        self.endpoint.last.drop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WorkerTests(WorkerCase):
    """K-56 to K-59: what a worker submits, and when."""

    def test_at_once(self) -> None:
        """K-56, K-59: on a job it submits at once: the hash, over a nonce of 12 bytes."""
        self.start()
        self.assertEqual(self.sent(), [])
        self.job(5, "c0ffee")
        nonce = "00" * 11 + "01"
        result = sha256(b"c0ffee" + nonce.encode()).hexdigest()
        self.assertEqual(self.sent(), [(5, nonce, result)])
        self.end()

    def test_vector(self) -> None:
        """K-38: the vector of the protocol."""
        expected = "8d969eef6ecad3c29a3a629280e686cf0c3f5d5a86aff3ca12020c923adc6c92"
        self.assertEqual(solve("123", "456"), expected)

    def test_nonces_are_random(self) -> None:
        """K-59: by default a nonce is 96 bits of the system's random source."""
        seen = set()
        for _ in range(50):
            self.start()
            worker = Worker(self.clock, self.client)
            self.job(1)
            ((_, nonce, _),) = self.sent()
            self.assertRegex(nonce, "^[0-9a-f]{24}$")
            seen.add(nonce)
            worker.stop()
            self.end()
        self.assertEqual(len(seen), 50)

    def test_one_at_a_time(self) -> None:
        """K-56, K-58: a job that comes before the answer is submitted for after it."""
        self.start()
        self.job(1)
        self.assertEqual(len(self.sent()), 1)
        self.job(2)
        self.clock.advance(5.0)
        self.assertEqual(self.sent(), [])
        self.endpoint.last.say({"id": 2, "result": True})
        self.clock.advance(1.04)
        self.assertEqual(self.sent(), [])
        self.clock.advance(0.02)
        ((job_id, _, _),) = self.sent()
        self.assertEqual(job_id, 2)
        self.end()

    def test_new_job_at_the_earliest_moment(self) -> None:
        """K-56: within the second it waits for its end, and not for the interval."""
        self.start(interval=30.0)
        self.job(1)
        self.endpoint.last.answer()
        self.clock.advance(0.5)
        self.job(2)
        self.assertEqual(self.sent(), [])
        self.clock.advance(0.54)
        self.assertEqual(self.sent(), [])
        self.clock.advance(0.02)
        self.assertEqual([s[0] for s in self.sent()], [2])
        self.end()

    def test_after_a_refusal_a_job_is_submitted_for_at_once_a_second_later(self) -> None:
        """K-56, K-57: a refused submission does not hold up the next job's beyond 1 s."""
        self.start(interval=30.0)
        self.job(1)
        self.endpoint.last.answer(False, error="Task does not exist", code=21)
        self.clock.advance(1.0)
        self.job(2)
        self.assertEqual([s[0] for s in self.sent()], [2])
        self.end()

    def test_every_refusal_goes_on(self) -> None:
        """Whatever the answer is, the worker goes on, within the minute."""
        for text in (
            "Duplicate submission",
            "Invalid result",
            "Task expired",
            "Submission too frequent",
            "something else",
        ):
            self.start()
            self.job(1)
            nonces = set()
            for _ in range(10):
                (request,) = self.submitted_within_a_minute()
                nonces.add(request["params"]["client_nonce"])
                self.endpoint.last.say({"id": request["id"], "result": False, "error": text})
            self.assertEqual(len(nonces), 10, text)
            self.end()

    def submitted_within_a_minute(self) -> list[Any]:
        for _ in range(61):
            found = [m for m in self.endpoint.last.heard() if isinstance(m, dict)]
            if found:
                return found
            self.clock.advance(1.0)
        return []

    def test_a_lost_connection(self) -> None:
        """K-62: nothing is submitted without a session; then what was unanswered comes
        first, and the new session's job after it.
        """
        self.start()
        self.job(1)
        ((_, nonce, _),) = self.sent()
        self.endpoint.last.drop()
        self.clock.advance(0.5)
        self.endpoint.last.answer()
        self.job(2)
        ((job_id, again, _),) = self.sent()
        self.assertEqual((job_id, again), (1, nonce))
        self.endpoint.last.say({"id": 4, "result": False, "error": "Duplicate submission"})
        self.assertEqual([(a.accepted, a.resubmitted) for a in self.answers], [(True, True)])
        self.clock.advance(1.06)
        self.assertEqual([s[0] for s in self.sent()], [2])
        self.end()

    def test_stop(self) -> None:
        """A worker that was stopped stays so, whatever jobs and connections come."""
        self.start()
        self.job(1)
        self.endpoint.last.answer()
        self.worker.stop()
        self.job(2)
        self.clock.advance(30.0)
        self.assertEqual(self.sent(), [])
        self.endpoint.last.drop()
        self.clock.advance(0.5)
        self.endpoint.last.answer()
        self.job(3)
        self.assertEqual(self.sent(), [])
        self.end()

    def test_no_polling(self) -> None:
        """K-60: one timer for the heartbeat and one for the next submission, and between
        two submissions a minute apart no more than six wake-ups.
        """
        self.start(interval=60.0)
        self.job(1)
        self.endpoint.last.answer()
        wakes = []
        while self.clock.seconds() < 59.0:
            calls = self.clock.getDelayedCalls()
            self.assertLessEqual(len(calls), 2)
            wakes.append(min(call.getTime() for call in calls))
            self.clock.advance(wakes[-1] - self.clock.seconds())
        self.assertEqual(len(self.sent()), 1)
        self.assertLessEqual(len(wakes), 6)
        self.end()

    def test_a_hook_that_fails(self) -> None:
        self.start()
        self.worker.on_answer = lambda *_: 1 / 0
        self.job(1)
        self.endpoint.last.answer()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.clock.advance(1.06)
        self.assertEqual(len(self.sent()), 1)
        self.end()


class TenMinutesTests(SynchronousTestCase):
    """K-56, K-57, K-58, and the eighth line of acceptance: ten simulated minutes on the
    real pool and judge, a new job every 30 s. At most one submission a second, at least
    one a minute, an immediate one on each job, and none refused as too frequent.
    """

    def run_worker(
        self, pace: PaceSettings, delay: Callable[[], float], rotation: float = 30.0
    ) -> None:
        clock = self.clock = Clock()
        pool = self.pool = PoolServer(
            clock, wall=lambda: EPOCH + clock.seconds(), interval=rotation
        )
        self.successResultOf(_deferred(pool.start(listen=False)))
        pool.server.manager.start()
        self.judged: list[float] = []
        add = pool.acceptance.add

        def noting(connection: Any, *arguments: Any) -> bool:
            self.judged.append(clock.seconds())
            taken: bool = add(connection, *arguments)
            return taken

        pool.acceptance.add = pool.handlers._add = noting  # type: ignore[method-assign]
        endpoint = PipeEndpoint(clock, DetectingFactory(pool.server.manager), delay)
        self.client = PoolClient(
            clock, [Place("memory", endpoint)], "admin", settings=PoolClientSettings()
        )
        self.jobs: list[tuple[float, int]] = []
        self.sent: list[tuple[float, int]] = []
        self.accepted: list[float] = []
        worker = Worker(
            clock,
            self.client,
            pace,
            on_job=lambda job: self.jobs.append((clock.seconds(), job.job_id)),
            on_answer=lambda job, nonce, answer: self.accepted.append(clock.seconds()),
        )
        submit = self.client.submit

        def noted(job_id: int, nonce: str, result: str) -> Any:
            self.sent.append((clock.seconds(), job_id))
            return submit(job_id, nonce, result)

        self.client.submit = noted  # type: ignore[method-assign]
        self.client.connect().addErrback(lambda _: None)
        while (left := 600.0 - 0.001 - clock.seconds()) > 1e-9:  # from one event to the next
            due = clock.getDelayedCalls()[0].getTime() - clock.seconds()
            clock.advance(min(max(due, 0.0), left))
        self.connected = self.client.connected
        self.client.on_job = None
        worker.stop()
        closed = self.client.close()
        clock.pump([0.1] * 30)
        self.successResultOf(closed)
        self.successResultOf(_deferred(pool.coordinator.stop()))

    def check(self, jobs: int = 20) -> None:
        """What must hold whatever the network does."""
        self.assertTrue(self.connected)
        self.assertEqual(self.client.counters["reconnects"], 0)
        times = [time for time, _ in self.sent]
        gaps = [b - a for a, b in pairwise(times)]
        self.assertGreaterEqual(min(gaps), 1.0 - 1e-9)
        self.assertLessEqual(max(gaps), 60.0)
        self.assertGreaterEqual(times[-1], 540.0)
        judged = [b - a for a, b in pairwise(self.judged)]
        self.assertGreaterEqual(min(judged), 1.0 - 1e-9)
        self.assertEqual(self.pool.acceptance.rejections.outcomes, {})
        self.assertEqual(self.client.counters, {"accepted": len(self.accepted)})
        self.assertLessEqual(len(self.sent) - len(self.accepted), 1)
        self.assertEqual(len(self.jobs), jobs)
        self.check_immediate()

    def check_immediate(self) -> None:
        """K-56: on each job at once, or as soon as the second after the last answer ends."""
        self.late = 0
        for came, job_id in self.jobs:
            first = min(time for time, job in self.sent if job == job_id)
            answered = max((t for t in self.accepted if t <= first), default=-10.0)
            self.assertLessEqual(first, max(came, answered + 1.05) + 0.005, f"job {job_id}")
            self.late += first - came > 0.005

    def test_as_often_as_permitted(self) -> None:
        """K-56, K-57, K-58 and acceptance 8: at the default pace, 20 ms on the way."""
        self.run_worker(PaceSettings(), lambda: 0.01)
        self.check()
        self.assertGreater(len(self.accepted), 540)

    def test_at_an_interval(self) -> None:
        """K-56, K-57 and acceptance 8: every 20 s, and at once on every job."""
        self.run_worker(PaceSettings(interval=20.0), lambda: 0.01)
        self.check()
        self.assertEqual(self.late, 0)

    def test_once_a_minute(self) -> None:
        """K-57 and acceptance 8: at the longest interval there is one on each job, and
        without new jobs one a minute.
        """
        self.run_worker(PaceSettings(interval=60.0), lambda: 0.01)
        self.check()
        self.assertEqual(self.late, 0)
        self.assertEqual(len(self.sent), 20)
        self.run_worker(PaceSettings(interval=60.0), lambda: 0.01, rotation=3600.0)
        self.check(jobs=1)
        self.assertEqual(len(self.sent), 11)

    def test_with_jitter(self) -> None:
        """K-58 and acceptance 8: every message takes from nothing to 0.7 s."""
        for seed in range(2):
            random = Random(seed)
            self.run_worker(PaceSettings(), lambda random=random: 0.7 * random.random())
            self.check()
            self.assertGreater(len(self.accepted), 240)


def _deferred(coroutine: Any) -> Any:
    from twisted.internet.defer import Deferred

    return Deferred.fromCoroutine(coroutine)
