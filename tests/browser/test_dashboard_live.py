"""W-86, issue 18, acceptance 1: the dashboard follows a daemon, and says what it cannot show."""

from __future__ import annotations

import tempfile
import time
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.chromium import chromium
from tests.servers.dashboard import View, Visit, routes, visit
from tests.servers.demo_pool import open_pool
from tests.servers.of_class import of_class
from tests.servers.running_daemon import LineClient, RunningDaemon
from tests.servers.services import required
from tools.torture_clock import DAY, Clock, forget

#: A name as somebody gives it who wants to run a script in the page of the operator.
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>&amp;\"'"

#: A worker that is a page: it authorizes, solves its job and submits, and tells the answer.
WORKER_IN_A_PAGE = """async username => {
  const ws = new WebSocket(location.origin.replace("http", "ws") + "/ws");
  const hex = async text => [...new Uint8Array(await crypto.subtle.digest("SHA-256",
    new TextEncoder().encode(text)))].map(byte => byte.toString(16).padStart(2, "0")).join("");
  return await new Promise(done => {
    ws.onopen = () => ws.send(JSON.stringify({id: 1, method: "authorize", params: {username}}));
    ws.onmessage = async event => {
      const message = JSON.parse(event.data);
      if (message.method === "job") {
        const {job_id, server_nonce} = message.params;
        const params = {job_id, client_nonce: "page", result: await hex(server_nonce + "page")};
        ws.send(JSON.stringify({id: 2, method: "submit", params}));
      } else if (message.id === 2) {
        ws.close(1000);
        done(message);
      }
    };
  });
}"""


class DashboardLiveTests(SynchronousTestCase):
    """What happens to a daemon is on the page, without a reload."""

    def setUp(self) -> None:
        self.browser = of_class(self, chromium)
        self.daemon = self.enter(open_pool())

    def enter(self, manager: AbstractContextManager[RunningDaemon]) -> RunningDaemon:
        daemon = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return daemon

    def look(self, view: View | None = None) -> Visit:
        manager = visit(self.browser, self.daemon, view)
        window = manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)
        return window

    def submit(self, username: str, count: int = 1) -> None:
        with closing(LineClient(self.daemon)) as client:
            job = client.authorize(username)
            for number in range(count):
                answer = client.submit(job, f"{time.time_ns()}-{number}")
                self.assertIs(answer.get("result"), True, answer)

    def test_submission_over_tcp(self) -> None:
        """Acceptance 1: a submission over TCP is on the overview; tools.screenshots measures when.

        The page was open before, and is not loaded again.
        """
        window = self.look()
        window.go("/")
        window.page.evaluate("window.kept = true")
        self.assertEqual(window.accepted(), 0)
        self.submit("alice.rig1", 3)
        window.until(lambda: window.accepted() == 3, "three submissions are not shown")
        self.assertIs(window.page.evaluate("window.kept"), True)
        self.assertEqual(window.problems, [])

    def test_page_as_a_worker(self) -> None:
        """Acceptance 1: a browser page works as a worker, from the dashboard's own origin."""
        window = self.look()
        window.go("/")
        answer = window.page.evaluate(WORKER_IN_A_PAGE, "browser.tab1")
        self.assertEqual(answer, {"id": 2, "result": True})
        window.until(lambda: window.accepted() == 1, "its submission is not shown")
        window.go("/workers")
        window.shows("tab1")
        self.assertEqual(window.problems, [])

    def test_restart(self) -> None:
        """Issue 18, build 9: after a restart the page goes on by itself, and shows no gap."""
        window = self.look()
        window.go("/")
        window.page.evaluate("window.kept = true")
        self.submit("alice.rig1", 2)
        window.until(lambda: window.accepted() == 2, "what came before is not shown")
        self.assertEqual(self.daemon.stop(), 0)
        window.until(window.says_offline, "it does not say that the daemon is away")
        self.daemon.start()
        self.submit("bob.rig1", 3)
        window.until(lambda: window.accepted() == 5, "what came after the restart is not shown")
        window.until(lambda: not window.says_offline(), "it still says that the daemon is away")
        self.assertIs(window.page.evaluate("window.kept"), True, "the page was loaded again")
        serious = [text for text in window.problems if "Failed to load resource" not in text]
        self.assertEqual(serious, [])

    def test_names_with_html(self) -> None:
        """Issue 18, bad input: a name with HTML in it is text on every page."""
        self.submit(f"{HOSTILE}.rig1")
        window = self.look()
        alerts: list[str] = []
        window.page.on("dialog", lambda dialog: (alerts.append(dialog.message), dialog.dismiss()))
        window.go("/")
        window.shows(HOSTILE)
        for route in routes(HOSTILE, f"{HOSTILE}.rig1").values():
            window.go(route)
            self.assertEqual(window.page.locator("img[src=x], script:not([src])").count(), 0)
        window.go("/workers")
        window.shows(HOSTILE)
        self.assertEqual(alerts, [])
        self.assertEqual(window.problems, [])

    def test_names_with_dots(self) -> None:
        """The page splits a name where the pool does: at its last dot."""
        self.submit("a.b.rig7")
        window = self.look()
        window.go("/worker/a.b.rig7")
        window.until(lambda: window.figure("total") == 1, "the total is not shown")
        crumb = window.page.locator(".crumbs a.name")
        self.assertEqual(crumb.inner_text(), "a.b")
        self.assertEqual(window.problems, [])

    def test_worker_without_data(self) -> None:
        """Issue 18, bad input: a worker with no data has a page that says so, without an error."""
        self.submit("alice.rig1")
        window = self.look()
        for name in ("alice.never", "nobody"):
            window.go(f"/worker/{name}")
            window.until(lambda: window.figure("total") == 0, "the total is not 0")
            self.assertEqual(window.page.locator(".state.error, .state.missing").count(), 0)
        self.assertEqual(window.problems, [])

    def test_axis_of_counts(self) -> None:
        """Issue 18, build 1: the axis of a chart of counts has whole numbers alone."""
        self.submit("alice.rig1")
        window = self.look()
        window.go("/overview")
        window.until(lambda: window.accepted() == 1, "the submission is not counted")
        ticks = window.page.locator("[data-box=minutes] .tick:not(.below) text")
        window.until(lambda: ticks.all_text_contents() == ["0", "1"], "the axis is another one")

    def test_pool_without_data(self) -> None:
        """A pool in which nothing has happened yet shows its empty states, and no error."""
        window = self.look()
        for name, route in routes("alice", "alice.rig1").items():
            window.go(route)
            self.assertEqual(window.page.locator(".state.error").count(), 0, name)
        self.assertEqual(window.problems, [])


class DashboardPastTests(SynchronousTestCase):
    """Issue 18, bad input: a day without the daemon."""

    def test_day_without_the_daemon(self) -> None:
        """What came before is there; the day has no submission, and no error."""
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        with required():
            clock = Clock(Path(folder.name))
        clock.set(-2 * DAY)
        data = Path(folder.name) / "data"
        with open_pool(data=data, env=clock.environment) as daemon:
            self.addCleanup(forget, daemon.pid)
            with closing(LineClient(daemon)) as client:
                job = client.authorize("alice.rig1")
                for number in range(4):
                    self.assertIs(client.submit(job, f"n{number}").get("result"), True)
            self.assertEqual(daemon.stop(), 0)
        with ExitStack() as stack:
            daemon = stack.enter_context(open_pool(data=data))
            browser = stack.enter_context(chromium())
            window = stack.enter_context(visit(browser, daemon))
            window.go("/overview")
            window.until(lambda: window.accepted() == 4, "the total is not 4")
            window.go("/worker/alice.rig1?range=day")
            window.until(lambda: window.figure("range") == 0, "there is something in the day")
            window.go("/worker/alice.rig1?range=week")
            window.until(lambda: window.figure("range") == 4, "the week lacks the other day")
            self.assertEqual(window.problems, [])
