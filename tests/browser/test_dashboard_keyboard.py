"""Issue 18, build 1: everything on the page can be reached, seen and used by keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.dashboard import View, Visit, routes, visit, with_browser
from tests.servers.demo_pool import PASSWORD, pool_with_accounts
from tests.servers.of_class import of_class
from tests.servers.running_daemon import LineClient, RunningDaemon

#: Tells controls apart, also those that have been made anew meanwhile.
NAME = """element => [element.tagName, element.name || element.id || "",
  element.getAttribute("href") || "", (element.getAttribute("aria-label") || element.textContent)
  .trim().replace(/[0-9]+/g, "#").slice(0, 60)].join(" ")"""

#: The controls that can be seen and used.
CONTROLS = f"""() => [...document.querySelectorAll(
  "a[href], button, input, select, textarea, summary, [tabindex='0']")]
  .filter(element => !element.disabled && element.tabIndex >= 0)
  .filter(element => element.checkVisibility({{visibilityProperty: true}}))
  .map({NAME})"""

#: The control that has the focus, and whether that can be seen.
FOCUSED = f"""() => {{
  const element = document.activeElement;
  if (!element || element === document.body) return null;
  const style = getComputedStyle(element);
  const seen = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0)
    || style.boxShadow !== "none";
  return [({NAME})(element), seen];
}}"""


@contextmanager
def quiet_pool() -> Iterator[RunningDaemon]:
    """Run a daemon with a few submissions."""
    with pool_with_accounts() as daemon, closing(LineClient(daemon)) as client:
        reply = client.request("authorize", username="alice.rig1", password=PASSWORD)
        assert reply.get("result") is True, reply
        job = client.job()
        for number in range(3):
            assert client.submit(job, f"n{number}").get("result") is True
        yield daemon


class DashboardKeyboardTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.browser, self.daemon = of_class(self, lambda: with_browser(quiet_pool))

    def check_page(self, window: Visit, name: str) -> list[str]:
        """Press Tab until every control had the focus; returns what was wrong."""
        wanted = set(window.page.evaluate(CONTROLS))
        reached, seen = set[str](), set[str]()
        for _ in range(3 * len(wanted) + 20):
            window.page.keyboard.press("Tab")
            found = window.page.evaluate(FOCUSED)
            if found is not None:
                reached.add(found[0])
                # A field of a time has several stops, of which the browser marks the inner ones.
                if found[1]:
                    seen.add(found[0])
            if wanted <= seen:
                break
        problems = [f"{name}: not reached: {control}" for control in sorted(wanted - reached)]
        return problems + [
            f"{name}: focus not seen: {control}" for control in sorted(reached - seen)
        ]

    def test_every_control(self) -> None:
        """Tab comes to each control of each page, and shows where it is."""
        found = []
        for view in (View(), View(390, 844, "dark")):
            with visit(self.browser, self.daemon, view) as window:
                window.come_as("root", PASSWORD)
                for name, route in routes("alice", "alice.rig1").items():
                    window.go(route)
                    found += self.check_page(window, f"{name} at {view.name}")
        self.assertEqual(found, [])

    def test_skip_link(self) -> None:
        """The first control goes past the navigation."""
        with visit(self.browser, self.daemon) as window:
            window.go("/overview")
            window.page.keyboard.press("Tab")
            window.page.keyboard.press("Enter")
            self.assertEqual(window.page.evaluate("document.activeElement.id"), "main")

    def test_chart(self) -> None:
        """The arrow keys go along a chart, and what they come to is told."""
        with visit(self.browser, self.daemon) as window:
            window.go("/overview")
            window.page.locator("[data-box=minutes] svg.chart").focus()
            window.page.keyboard.press("ArrowLeft")
            said = window.page.locator("[data-box=minutes] [aria-live]")
            window.until(lambda: "Accepted" in said.inner_text(), "no number is told")

    def test_page_by_keyboard_alone(self) -> None:
        """A page of the navigation is opened without a pointer."""
        with visit(self.browser, self.daemon) as window:
            window.go("/overview")
            window.page.locator("nav a[href='#/workers']").focus()
            window.page.keyboard.press("Enter")
            window.page.wait_for_url("**/#/workers")
            window.settle()
            window.shows("alice")
