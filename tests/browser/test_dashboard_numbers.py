"""W-86, issue 18, acceptance 2: every number on the overview is what the files say, under load."""

from __future__ import annotations

import sqlite3
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import closing

from twisted.trial.unittest import SynchronousTestCase

from kupool.wire.batches import decode_batch
from tests.servers.chromium import chromium
from tests.servers.crew import Crew
from tests.servers.dashboard import PATIENCE, Visit, numbers, visit
from tests.servers.demo_pool import PASSWORD, pool_with_accounts
from tests.servers.running_daemon import LineClient, RunningDaemon

USERNAMES = ("alice.rig1", "alice.rig2", "alice", "bob.rig1", "bob.rig2", "carol.rig1")

#: Seconds under load, and how old a number on the page may be: it asks every 5 s, and a machine
#: that is busy takes its time.
LOADED, OLD = 8.0, 20.0

#: Sessions that stay, and whose they are.
STAYING = ("alice.idle", "bob.idle", "bob.idle2")


class Files:
    """What ``sqlite3`` says of a data folder, while its daemon runs."""

    def __init__(self, daemon: RunningDaemon) -> None:
        self._data = daemon.data

    def ask(self, file: str, query: str) -> list[tuple[int, ...]]:
        with closing(sqlite3.connect(self._data / f"{file}.sqlite", timeout=30)) as connection:
            return connection.execute(query).fetchall()

    def total(self) -> int:
        query = "SELECT coalesce(sum(submission_count), 0) FROM submissions"
        return int(self.ask("store", query)[0][0])

    def of_users(self) -> dict[str, int]:
        query = "SELECT username, sum(submission_count) FROM submissions GROUP BY username"
        return {str(user): int(count) for user, count in self.ask("store", query)}

    def of_minutes(self) -> dict[str, int]:
        query = "SELECT timestamp, sum(submission_count) FROM submissions GROUP BY timestamp"
        return {str(at)[11:16]: int(count) for at, count in self.ask("store", query)}

    def in_log(self) -> Counter[str]:
        """Count the submissions in the log by their usernames."""
        bodies = self.ask("log", "SELECT body FROM entries")
        return Counter(name for (body,) in bodies for name in decode_batch(body).usernames)


class DashboardNumberTests(SynchronousTestCase):
    def setUp(self) -> None:
        manager = chromium()
        self.browser = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        pool = pool_with_accounts()
        self.daemon = pool.__enter__()
        self.addCleanup(pool.__exit__, None, None, None)
        self.files = Files(self.daemon)

    def stay(self, usernames: Sequence[str]) -> None:
        for username in usernames:
            client = LineClient(self.daemon)
            self.addCleanup(client.close)
            reply = client.request("authorize", username=username, password=PASSWORD)
            self.assertIs(reply.get("result"), True, reply)
            self.job_id = client.job()["job_id"]

    def check_under_load(self, window: Visit) -> None:
        """While submissions come, the total is one that the table of counts has had lately."""
        known = [(time.monotonic(), self.files.total())]
        seen = set()
        ends = time.monotonic() + LOADED
        while time.monotonic() < ends or (len(seen) < 3 and time.monotonic() < ends + PATIENCE):
            window.page.wait_for_timeout(200)
            shown = window.accepted()
            now = time.monotonic()
            known.append((now, self.files.total()))
            least = max((total for at, total in known if at < now - OLD), default=known[0][1])
            self.assertLessEqual(least, shown)
            self.assertLessEqual(shown, known[-1][1])
            seen.add(shown)
        self.assertGreaterEqual(len(seen), 3, f"the page shows no more than {seen}")

    def test_numbers_under_load(self) -> None:
        """Under load the total is that of a moment ago; after it every number is exact."""
        self.stay(STAYING)
        with visit(self.browser, self.daemon) as window:
            window.come_as("root", PASSWORD)
            window.go("/overview")
            crew = Crew(self.daemon, USERNAMES, password=PASSWORD, pause=0.01, wrong_every=9)
            with crew:
                self.check_under_load(window)
            accepted, rejected = crew.accepted.total(), crew.rejected.total()
            self.assertGreater(accepted, 100)
            window.until(lambda: window.accepted() == accepted, f"it is not {accepted}")
            self.assertEqual(self.files.total(), accepted)
            self.assertEqual(self.files.in_log(), crew.accepted)
            users = Counter[str]()
            for username, count in crew.accepted.items():
                users[username.partition(".")[0]] += count
            self.assertEqual(self.files.of_users(), users)

            window.until(lambda: self.top(window) == users, f"the top users are not {users}")
            minutes = self.files.of_minutes()
            window.until(lambda: self.minutes(window) == minutes, f"the minutes are not {minutes}")
            window.until(lambda: self.reasons(window) == [rejected], f"{rejected} rejections")
            figure = window.figure
            window.until(lambda: figure("sessions") == len(STAYING), "the sessions")
            window.until(lambda: figure("users") == 2, "the users")
            # Nothing comes any more: so say the rates, once ten seconds are over.
            window.until(lambda: figure("accepted") == figure("rejected") == 0, "the rates")
            self.assertIn(f"#{self.job_id}", window.text())
            self.assertEqual(window.problems, [])

    @staticmethod
    def top(window: Visit) -> dict[str, int]:
        rows = window.rows("[data-box=top] tbody tr")
        return {user: int(numbers(count)[0]) for user, count in rows}

    @staticmethod
    def minutes(window: Visit) -> dict[str, int]:
        window.page.evaluate("document.querySelector('[data-box=minutes] details').open = true")
        rows = window.rows("[data-box=minutes] details tbody tr")
        found = {at[-5:]: int(numbers(count)[0]) for at, count in rows}
        return {at: count for at, count in found.items() if count}

    @staticmethod
    def reasons(window: Visit) -> list[int]:
        texts = window.page.locator("[data-box=rejections] li .number").all_inner_texts()
        return [int(numbers(text)[0]) for text in texts]
