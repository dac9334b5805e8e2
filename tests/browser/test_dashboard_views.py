"""Issue 18, acceptance 1: every page, in both themes and both languages, on every screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.crew import Crew
from tests.servers.dashboard import VIEWS, View, Visit, routes, visit, with_browser
from tests.servers.demo_pool import PASSWORD, pool_with_accounts
from tests.servers.of_class import of_class
from tests.servers.running_daemon import RunningDaemon

USERNAMES = (
    "alice.rig1",
    "alice.rig2",
    "bob.rig1",
    "bob.a-worker-with-a-rather-long-name",
    "carol",
)


@contextmanager
def busy_pool() -> Iterator[RunningDaemon]:
    """Run a daemon whose workers submit, right and wrong results."""
    with ExitStack() as stack:
        daemon = stack.enter_context(pool_with_accounts())
        stack.enter_context(Crew(daemon, USERNAMES, password=PASSWORD, pause=0.2, wrong_every=7))
        yield daemon


class DashboardViewTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.browser, self.daemon = of_class(self, lambda: with_browser(busy_pool))

    @staticmethod
    def language(window: Visit) -> str:
        found: str = window.page.evaluate("document.documentElement.lang")
        return found[:2]

    @staticmethod
    def dark(window: Visit) -> bool:
        found: bool = window.page.evaluate(
            "getComputedStyle(document.body).color.match(/[0-9]+/g)"
            ".slice(0, 3).every(part => part > 150)"
        )
        return found

    def check_view(self, view: View) -> None:
        """Each page: nothing in the console, nothing wider than the window, no barrier."""
        found = []
        with visit(self.browser, self.daemon, view) as window:
            window.come_as("root", PASSWORD)
            for name, route in routes("alice", "alice.rig1").items():
                window.go(route)
                if window.scrolls_sideways() > 0:
                    found.append(f"{name}: {window.scrolls_sideways()} pixels wider than {view}")
                found += [f"{name}: {barrier}" for barrier in window.barriers()]
            self.assertEqual(self.language(window), view.language)
            self.assertEqual(self.dark(window), view.theme == "dark")
            found += window.problems
        self.assertEqual(found, [])

    def test_switches(self) -> None:
        """Theme and language can be switched, by the viewer; the next visit has them too."""
        with visit(self.browser, self.daemon, View(theme="light", language="en")) as window:
            window.go("/overview")
            window.page.select_option("#language", "zh")
            window.until(lambda: self.language(window) == "zh", "the language is the same")
            window.page.select_option("#theme", "dark")
            self.assertTrue(self.dark(window))
            window.page.reload()
            window.settle()
            self.assertEqual(self.language(window), "zh")
            self.assertTrue(self.dark(window))
            self.assertEqual(window.problems, [])

    def test_no_scripts(self) -> None:
        """Issue 18, bad input: with JavaScript off the page says so, and where the numbers are."""
        for view in (View(), View(320, 640, "dark", "zh")):
            with visit(self.browser, self.daemon, view, scripts=False) as window:
                window.page.goto(self.daemon.url("/"))
                self.assertIn("JavaScript", window.text())
                links = window.page.locator("noscript a, .no-script a")
                hrefs = {links.nth(n).get_attribute("href") for n in range(links.count())}
                self.assertLessEqual({"/stats", "/ready"}, hrefs)
                self.assertEqual(window.problems, [])

    def test_first_view(self) -> None:
        """Issue 18, build 1: the first view is under 100 KB, as it comes over the wire."""
        with visit(self.browser, self.daemon) as window:
            window.go("/overview")
            sizes: dict[str, int] = window.page.evaluate(
                "Object.fromEntries(performance.getEntries().filter(e => e.encodedBodySize)"
                ".filter(e => e.entryType === 'navigation' || e.name.includes('/dashboard/'))"
                ".map(e => [e.name, e.encodedBodySize]))"
            )
        self.assertGreater(len(sizes), 5)
        self.assertLess(sum(sizes.values()), 100_000, sizes)


def _test_of(view: View) -> None:
    def test(self: DashboardViewTests) -> None:
        self.check_view(view)

    test.__doc__ = f"Issue 18, acceptance 1: every page at {view.name}."
    setattr(DashboardViewTests, f"test_{view.name.replace('-', '_')}", test)


for _view in VIEWS:
    _test_of(_view)
