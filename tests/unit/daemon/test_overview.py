"""Whether everything is all right: the checks of /api/overview."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.overview import LEAST_FREE, OverviewCheck, PoolOverview
from kupool.daemon.parts import Parts, build
from kupool.daemon.status import BEHIND, RUNNING, Status
from kupool.log import Gap, LogStatus
from kupool.settings import Settings, with_values


class _Pool:
    """Runs at once what is for a thread."""

    def callInThreadWithCallback(self, done: Any, call: Any, *arguments: Any) -> None:
        try:
            result = call(*arguments)
        except OSError as error:
            done(False, Failure(error))
        else:
            done(True, result)


class ThreadingClock(Clock):
    """A clock that has threads as a reactor has."""

    def getThreadPool(self) -> _Pool:
        return _Pool()

    def callFromThread(self, call: Any, *arguments: Any) -> None:
        call(*arguments)


class PoolOverviewTests(SynchronousTestCase):
    """Issue 18, build 3: yes or no for each question, and why."""

    def setUp(self) -> None:
        self.start(store="memory", mq="memory")

    def start(self, **values: object) -> None:
        self.clock = ThreadingClock()
        self.wall = 1.8e9
        given = with_values(Settings(), values)
        self.parts: Parts = build(given, self.clock, lambda: self.wall)
        self.status = Status(lambda: self.wall, self.parts)
        self.status.enter(RUNNING)
        self.overview = PoolOverview(self.clock, self.parts, self.status)

    def checks(self) -> dict[str, OverviewCheck]:
        found: list[OverviewCheck] = self.successResultOf(
            Deferred.fromCoroutine(self.overview.checks())
        )
        return {check.name: check for check in found}

    def said(self, name: str) -> tuple[bool | None, str]:
        return self.checks()[name][1:]

    def log_says(self, **changes: Any) -> None:
        status = LogStatus(10, 0, 0, "")._replace(**changes)
        self.patch(self.parts.log, "status", lambda: status)

    def test_all_questions(self) -> None:
        self.assertEqual(
            list(self.checks()),
            [
                "stored",
                "counted",
                "jobs",
                "clock",
                "disk",
                "log",
                "database",
                "broker",
                "topics",
                "live",
            ],
        )

    def test_in_memory(self) -> None:
        """Issue 18, build 3: a question that does not arise has neither answer."""
        found = self.checks()
        neither = [name for name, check in found.items() if check.ok is None]
        self.assertEqual(neither, ["stored", "disk", "database", "broker"])

    def test_stored(self) -> None:
        self.patch(self.parts.log, "persistent", True)
        self.assertEqual(self.said("stored"), (True, "everything that was answered is stored"))
        self.log_says(spooled=3)
        self.assertEqual(self.said("stored")[0], True)
        self.assertIn("3 batches wait here", self.said("stored")[1])
        self.status.gaps = [(Gap(3, 4), "x")]
        ok, text = self.said("stored")
        self.assertIs(ok, False)
        self.assertIn("positions 3 to 4 were lost", text)

    def test_counted(self) -> None:
        for changes, ok, text in (
            ({}, True, "everything that is stored is counted"),
            (
                {"depth": 5},
                True,
                "counted but for the last 5 batches, which are counted now",
            ),
            (
                {"depth": BEHIND + 1},
                False,
                f"{BEHIND + 1} batches wait to be counted",
            ),
            (
                {"dead_letters": 2},
                False,
                "2 entries could not be counted, see 'kupool dlq'",
            ),
        ):
            self.log_says(**changes)
            self.assertEqual(self.said("counted"), (ok, text))
        self.parts.consumer.problem = "the database is locked"
        self.assertEqual(self.said("counted"), (False, "the database is locked"))

    def test_jobs(self) -> None:
        self.assertEqual(self.said("jobs"), (False, "there is no job"))
        self.successResultOf(Deferred.fromCoroutine(self.parts.coordinator.rotate()))
        self.assertEqual(self.said("jobs"), (True, "a new job every 30 s"))
        self.clock.advance(50)
        self.assertEqual(self.said("jobs"), (False, "a new job is overdue by 20 s"))
        self.parts.coordinator.problem = "jobs cannot be saved: disk full"
        self.assertEqual(self.said("jobs"), (False, "jobs cannot be saved: disk full"))

    def test_what_the_status_says(self) -> None:
        """K-91, issue 18, build 3: a problem of /ready makes its check a no."""
        self.patch(
            self.status,
            "concerns",
            lambda: ["clock: set back", "topics: full", "live: overloaded", "spool: 3 wait"],
        )
        for name, text in (
            ("clock", "set back"),
            ("topics", "full"),
            ("live", "overloaded"),
            ("log", "3 wait"),
        ):
            self.assertEqual(self.said(name), (False, text))

    def test_what_is_off(self) -> None:
        self.start(store="memory", mq="memory", topics="off", live="off")
        self.assertEqual(self.said("topics"), (None, "topics are off"))
        self.assertEqual(self.said("live"), (None, "live channels are off"))

    def test_the_disk(self) -> None:
        """Issue 18, build 3: a disk that is nearly full, and a folder that is gone."""
        self.start(store="sqlite", mq="memory", data=self.mktemp())
        assert self.parts.folder is not None
        ok, text = self.said("disk")
        self.assertIs(ok, False)
        self.assertIn("No such file", text)
        Path(self.parts.folder.path).mkdir()
        for free, expected in ((LEAST_FREE - 4096, False), (LEAST_FREE, True)):
            found = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096, f_blocks=10**9)
            self.patch(os, "statvfs", lambda path, found=found: found)
            self.assertIs(self.said("disk")[0], expected)

    def test_the_broker(self) -> None:
        """Issue 18, build 3: RabbitMQ, where something uses it."""
        self.assertEqual(self.said("broker"), (None, "no broker is used"))
        self.patch(self.parts.log, "positional", False)
        self.assertEqual(self.said("broker"), (True, "RabbitMQ answers"))
        self.log_says(away="connection refused")
        self.assertEqual(self.said("broker"), (False, "connection refused"))

    def test_figures(self) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.parts.coordinator.rotate()))
        self.clock.advance(3)
        found: Any = self.successResultOf(Deferred.fromCoroutine(self.overview.read()))
        self.assertEqual((found["sessions"], found["users"]), (0, 0))
        assert self.parts.book.current is not None
        job = {"id": self.parts.book.current.job_id, "age_seconds": 3.0, "interval_seconds": 30.0}
        self.assertEqual(found["job"], job)
        self.assertEqual(found["uptime_seconds"], 3.0)
        self.assertEqual((found["rejections"], found["latency_ms"]), ({}, None))
        self.assertEqual(found["rates"], {"accepted": 0.0, "rejected": 0.0})
