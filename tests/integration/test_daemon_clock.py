"""A wall clock that is wrong, or is set while the daemon runs: nothing is destroyed by it."""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon
from tests.servers.services import required
from tools.torture_clock import DAY, FIRST_DAY, LAST_DAY, Clock, forget

#: Clears twice a second, instead of each ten minutes, and says so.
OFTEN = """
import kupool.daemon.housekeeping as housekeeping
from twisted.scripts.twistd import run

class Telling(housekeeping.Housekeeping):
    async def clear(self):
        await super().clear()
        print("All is cleared")

import kupool.daemon.service as service
housekeeping.CLEAR = housekeeping.KEEP = 0.5
service.Housekeeping = Telling
run()
"""

WAITING = 30.0


def wait_until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAITING
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError("it did not happen")
        time.sleep(0.05)


class ClockCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        with required():
            self.wall = Clock(Path(folder.name))
        self.daemon = RunningDaemon(
            "--interval=1h",
            *UNLIMITED,
            data=Path(folder.name) / "data",
            env=self.wall.environment,
            program=OFTEN,
        )
        self.addCleanup(self.daemon.__exit__)

    def start(self) -> None:
        self.daemon.start()
        self.addCleanup(forget, self.daemon.pid)

    def ask(self, file: str, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask a database of the daemon, which may be running; or change it."""
        connection = sqlite3.connect(self.daemon.data / f"{file}.sqlite", timeout=30)
        try:
            found = connection.execute(query, values).fetchall()
            connection.commit()
            return found
        finally:
            connection.close()

    def client(self) -> LineClient:
        client = LineClient(self.daemon)
        self.addCleanup(client.close)
        self.job = client.authorize("alice")
        return client

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """What a clearing could drop or roll up."""
        return {
            "log": self.ask("log", "SELECT position, entry_id FROM entries ORDER BY 1"),
            "minutes": self.ask("store", "SELECT * FROM submissions ORDER BY 1, 2, 3"),
            "hours": self.ask("store", "SELECT * FROM submissions_hour"),
            "ids": self.ask("store", "SELECT batch_id FROM applied_batches ORDER BY 1"),
            "rejections": self.ask("store", "SELECT * FROM rejections"),
        }

    def let_it_clear(self) -> None:
        """Wait until it has cleared twice from now on."""
        count = self.daemon.output.count("All is cleared")
        wait_until(lambda: self.daemon.output.count("All is cleared") >= count + 2)


class WrongClockTests(ClockCase):
    """Issue 11, point 3: retention follows a clock that no wrong wall clock can rush."""

    def fill(self) -> None:
        """Leave counted submissions, rejections and several log entries behind."""
        self.start()
        client = self.client()
        self.used = [f"n{n}" for n in range(5)]
        for nonce in self.used:
            self.assertTrue(client.submit(self.job, nonce)["result"])
        self.assertEqual(client.submit(self.job, "n0")["error"], "Duplicate submission")
        self.first_job = self.job
        self.let_it_clear()
        self.assertEqual(self.daemon.stop(), 0)
        self.before = self.everything()
        self.assertGreaterEqual(len(self.before["log"]), 5)
        self.assertEqual(len(self.before["rejections"]), 1)

    def check_start(self, set_clock: Callable[[], None]) -> None:
        """Run on a wrong clock, then on the right one: all is there, and used nonces are."""
        self.fill()
        set_clock()
        self.start()
        self.let_it_clear()
        self.assertEqual(self.everything(), self.before)
        self.assertEqual(self.daemon.stop(), 0)
        self.wall.set(0)
        self.start()
        self.let_it_clear()
        self.assertEqual(self.everything(), self.before)
        client = self.client()
        for nonce in self.used:
            self.assertEqual(client.submit(self.first_job, nonce)["error"], "Duplicate submission")
        self.assertEqual(self.daemon.stop(), 0)

    def test_40_days_ahead(self) -> None:
        self.check_start(lambda: self.wall.set(40 * DAY))

    def test_in_1970(self) -> None:
        self.check_start(lambda: self.wall.show(FIRST_DAY))

    def test_in_2099(self) -> None:
        self.check_start(lambda: self.wall.show(LAST_DAY))

    def test_what_is_really_old(self) -> None:
        """K-76: where the retention clock itself is there, all of it goes."""
        self.fill()
        self.wall.set(40 * DAY)
        self.ask("store", "UPDATE retention_clock SET seconds = seconds + ?", 40 * DAY)
        self.ask("log", "UPDATE age_clock SET seconds = seconds + ?", 40 * DAY)
        self.start()
        wait_until(lambda: len(self.everything()["log"]) < len(self.before["log"]))
        wait_until(lambda: self.everything()["hours"] and not self.everything()["rejections"])
        self.assertEqual(self.everything()["minutes"], [])
        self.assertEqual(self.daemon.stop(), 0)


class StepTests(ClockCase):
    """Issue 11, point 3: a step of the wall clock is told, and changes nothing else."""

    def reasons(self) -> list[str]:
        status, body = self.daemon.get("/ready")
        self.assertEqual(status, 200)
        return [reason for reason in body.get("reasons", ()) if reason.startswith("clock")]

    def test_steps_while_it_runs(self) -> None:
        self.start()
        client = self.client()
        self.assertTrue(client.submit(self.job, "a")["result"])
        self.assertEqual(self.reasons(), [])
        self.let_it_clear()
        before = self.everything()
        for step, moved in ((40 * DAY, "ahead by 960h"), (-41 * DAY, "back by 984h")):
            self.wall.step(step)
            wait_until(lambda: moved in str(self.reasons()))  # noqa: B023
            self.assertEqual(len(self.daemon.lines_with(moved)), 1)
            self.let_it_clear()
            self.assertEqual(self.everything(), before)
            self.assertEqual(client.submit(self.job, "a")["error"], "Duplicate submission")
            before["rejections"] = self.rejections_after(len(before["rejections"]))
        self.assertEqual(self.daemon.stop(), 0)

    def rejections_after(self, count: int) -> list[tuple[Any, ...]]:
        wait_until(lambda: len(self.everything()["rejections"]) > count)
        return self.everything()["rejections"]
