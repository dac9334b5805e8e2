"""Issue 18, acceptance 1: every page, in both themes and both languages, on every screen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from twisted.trial.unittest import SynchronousTestCase

from tests.browser.chromium import chromium
from tests.browser.crew import Crew
from tests.browser.dashboard import VIEWS, View, routes, visit
from tests.browser.demo_pool import PASSWORD, pool_with_accounts
from tests.servers.of_class import of_class
from tests.servers.running_daemon import RunningDaemon

USERNAMES = ("alice.rig1", "alice.rig2", "bob.rig1", "bob.a-worker-with-a-rather-long-name", "carol")


@contextmanager
def busy_pool() -> Iterator[RunningDaemon]:
    """Run a daemon whose workers submit, right and wrong results."""
    with pool_with_accounts() as daemon:
        with Crew(daemon, USERNAMES, password=PASSWORD, pause=0.2, wrong_every=7):
            yield daemon


class DashboardViewTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.browser = of_class(self, chromium)
        self.daemon = of_class(self, busy_pool)

    def check_view(self, view: View) -> None:
        """Every page of a view: nothing in the console, nothing wider than the window, no barrier."""
        found = []
        with visit(self.browser, self.daemon, view) as window:
            window.come_as("root", PASSWORD)
            for name, route in routes("alice", "alice.rig1").items():
                window.go(route)
                if window.scrolls_sideways() > 0:
                    found.append(f"{name}: {window.scrolls_sideways()} pixels wider than {view}")
                found += [f"{name}: {barrier}" for barrier in window.barriers()]
            language = window.page.evaluate("document.documentElement.lang")
            self.assertEqual(language[:2], view.language)
            dark = window.page.evaluate(
                "getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"
                ".slice(0, 3).every(part => part < 100)"
            )
            self.assertEqual(dark, view.theme == "dark")
            found += window.problems
        self.assertEqual(found, [])


def _test_of(view: View) -> None:
    def test(self: DashboardViewTests) -> None:
        self.check_view(view)

    test.__doc__ = f"Issue 18, acceptance 1: every page at {view.name}."
    setattr(DashboardViewTests, f"test_{view.name.replace('-', '_')}", test)


for _view in VIEWS:
    _test_of(_view)
