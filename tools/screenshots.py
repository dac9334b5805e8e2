"""Takes a picture of every page of the dashboard of a running pool, and the one of the README.

    python -m tools.screenshots FOLDER
    python -m tools.screenshots FOLDER --hours 24 --readme docs/dashboard.png

Each page is taken in both themes and both languages, on a wide screen and on phones, of a daemon
with accounts and workers that submit meanwhile. With ``--hours`` these have been there for so long
already, by a clock that is set forward, which takes 2 s for each half hour. Pictures in Chinese
need a font that has it. Then it measures how soon a submission is on the page. It fails if a page
has an error in its console, is wider than the window, or shuts people out in a way that axe-core
knows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from playwright.sync_api import Browser

from tests.servers.chromium import chromium
from tests.servers.crew import Crew
from tests.servers.dashboard import VIEWS, View, routes, visit
from tests.servers.demo_pool import PASSWORD, pool_with_accounts
from tests.servers.past import live_through
from tests.servers.running_daemon import LineClient, RunningDaemon

#: The workers of the demo: some names are long, and one is in Chinese.
WORKERS = (
    *(f"alice.rig{number}" for number in range(1, 6)),
    *(f"bob.rig{number}" for number in range(1, 4)),
    "bob.a-worker-with-a-rather-long-name-in-the-attic",
    "carol",
    "carol.矿机一号",
)

#: The largest picture of the README, in bytes.
MOST_BYTES = 200_000

#: How the picture of the README is taken.
README = View(1280, 800, "light", "en")

#: Submissions whose way to the page is measured.
MEASURED = 20


@contextmanager
def demo(hours: float) -> Iterator[RunningDaemon]:
    """Run a daemon with accounts and workers that submit."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="kupool-screenshots-"))
        data = Path(folder) / "data"
        if hours:
            live_through(data, WORKERS, hours)
        daemon = stack.enter_context(pool_with_accounts(data=data))
        stack.enter_context(Crew(daemon, WORKERS, password=PASSWORD, pause=0.3, wrong_every=17))
        yield daemon


class Pictures:
    """The pictures in a folder, and what was wrong with the pages."""

    def __init__(self, browser: Browser, daemon: RunningDaemon, folder: Path) -> None:
        self._browser = browser
        self._daemon = daemon
        self._folder = folder
        self.problems: list[str] = []

    def take(self, view: View, settle: float) -> None:
        """Take a picture of every page."""
        with visit(self._browser, self._daemon, view) as window:
            window.come_as("root", PASSWORD)
            for name, route in routes("alice", "alice.rig1").items():
                window.go(route)
                window.page.wait_for_timeout(settle * 1000)
                window.picture(self._folder / f"{name}-{view.name}.png")
                at = f"{name} at {view.name}"
                if window.scrolls_sideways() > 0:
                    self.problems.append(f"{at}: {window.scrolls_sideways()} pixels too wide")
                self.problems += [f"{at}: {barrier}" for barrier in window.barriers()]
            self.problems += [f"{view.name}: {problem}" for problem in window.problems]

    def take_readme(self, path: Path, settle: float) -> None:
        """Take the picture of the README: the overview, as a window shows it."""
        with visit(self._browser, self._daemon, README) as window:
            window.come_as("root", PASSWORD)
            window.go("/")
            window.page.wait_for_timeout(settle * 1000)
            window.picture(path, whole=False)
        size = path.stat().st_size
        if size > MOST_BYTES:
            self.problems.append(f"{path} has {size} bytes, more than {MOST_BYTES}")


def measure(browser: Browser, daemon: RunningDaemon) -> list[float]:
    """Return the seconds from the answer of each submission until it is on the overview."""
    delays = []
    with visit(browser, daemon) as window:
        window.come_as("root", PASSWORD)
        window.go("/overview")
        window.until(lambda: window.page.locator(".live.live").count() > 0, "it is not live")
        for number in range(MEASURED):
            worker = f"measured{number}"
            client = LineClient(daemon)
            client.request("authorize", username=f"alice.{worker}", password=PASSWORD)
            answer = client.submit(client.job(), worker)
            answered = time.monotonic()
            assert answer.get("result") is True, answer
            window.page.wait_for_selector(f"[data-box=submissions] >> text=alice.{worker}")
            delays.append(time.monotonic() - answered)
            client.close()
    return delays


def main(arguments: list[str]) -> int:
    """Take the pictures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--readme", type=Path, help="where the picture of the README goes")
    parser.add_argument("--hours", type=float, default=0, help="how long the pool has been there")
    parser.add_argument("--settle", type=float, default=1, help="seconds before each picture")
    parser.add_argument("--only", default="", help="only views whose name has this text")
    given = parser.parse_args(arguments)
    given.folder.mkdir(parents=True, exist_ok=True)
    with demo(given.hours) as daemon, chromium() as browser:
        pictures = Pictures(browser, daemon, given.folder)
        for view in VIEWS:
            if given.only in view.name:
                pictures.take(view, given.settle)
                print(f"{view.name}: taken", flush=True)
        if given.readme:
            pictures.take_readme(given.readme, given.settle)
    with pool_with_accounts() as daemon, chromium() as browser:
        delays = sorted(measure(browser, daemon))
    print(
        f"From the answer of a submission until the page shows it: median "
        f"{statistics.median(delays):.3f} s, longest {delays[-1]:.3f} s, of {len(delays)}"
    )
    for problem in pictures.problems:
        print(problem, file=sys.stderr)
    return 1 if pictures.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
