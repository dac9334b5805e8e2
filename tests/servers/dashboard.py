"""The dashboard of a real daemon in a real browser, as somebody sees it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple
from unittest import SkipTest
from urllib.parse import quote

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request

from tests.servers.chromium import chromium
from tests.servers.running_daemon import RunningDaemon
from tests.servers.services import required

#: The file of axe-core, where `make sdk` installs it.
AXE = Path(__file__).resolve().parents[2] / ".cache/sdk/node_modules/axe-core/axe.min.js"

#: Seconds for a page to show something: far more than it takes.
PATIENCE = 30.0

#: What axe-core finds that shuts people out; the milder kinds are advice.
GRAVE = ("serious", "critical")


class View(NamedTuple):
    """How somebody looks at a page: width and height in CSS pixels, colours and language."""

    width: int = 1440
    height: int = 900
    theme: str = "light"
    language: str = "en"

    @property
    def name(self) -> str:
        """A name for files."""
        return f"{self.width}-{self.theme}-{self.language}"


#: Both themes and both languages, on a wide screen, on a phone, and on the smallest phone.
VIEWS = tuple(
    View(width, height, theme, language)
    for width, height in ((1440, 900), (390, 844), (320, 640))
    for theme in ("light", "dark")
    for language in ("en", "zh")
)


def routes(user: str, worker: str) -> dict[str, str]:
    """Return the pages by their names, as what stands behind ``#``; one is about each name."""
    return {
        "overview": "/overview",
        "workers": "/workers",
        "user": f"/worker/{quote(user, safe='')}",
        "worker": f"/worker/{quote(worker, safe='')}",
        "trace": "/trace",
        "bus": "/bus",
        "log": "/log",
        "limits": "/limits",
        "admin": "/admin",
        "me": "/me",
    }


class Visit:
    """One browser window at the dashboard.

    ``problems`` has each error of its console, each exception of its scripts, and each request
    that went elsewhere than to its daemon.
    """

    def __init__(self, daemon: RunningDaemon, context: BrowserContext) -> None:
        self.daemon = daemon
        self.context = context
        self.problems: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        self.page.on("request", self._asked)

    def _said(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            where = message.location.get("url", "")
            self.problems.append(f"console: {message.text} ({where})")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.daemon.url("/"), "data:", "blob:")):
            self.problems.append(f"request elsewhere: {request.url}")

    def go(self, route: str = "/") -> None:
        """Show a page by its hash, such as ``/workers``, and wait until it shows something."""
        url = self.daemon.url("/") + "#" + route
        if self.page.url == url:
            self.page.reload()
        else:
            # A page stays until the next one is there.
            self.page.evaluate("document.querySelector('main > *')?.setAttribute('data-old', '')")
            self.page.goto(url)
        self.page.wait_for_selector("main > :not([data-old])")
        self.settle()

    def settle(self) -> None:
        """Wait until each part of the page has its data, or says why it has none."""
        self.page.wait_for_selector("main h1")
        self.until(
            lambda: self.page.locator(".state.loading:visible").count() == 0, "it stays busy"
        )

    def until(self, holds: Callable[[], object], problem: str) -> None:
        """Wait until something holds; raises :class:`AssertionError` with the problem."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            if time.monotonic() > deadline:
                raise AssertionError(f"{problem}; the page says: {self.text()[:2000]}")
            self.page.wait_for_timeout(20)

    def text(self) -> str:
        """Return the text of the page as it is seen."""
        return self.page.inner_text("body")

    def shows(self, text: str) -> None:
        """Wait until the page shows a text."""
        self.until(lambda: text in self.text(), f"{text!r} is not shown")

    def figure(self, name: str) -> float | None:
        """Return a figure of the page by its name; None as long as it shows none."""
        place = self.page.locator(f"[data-figure={name}]")
        found = numbers(place.inner_text()) if place.count() else []
        return found[0] if found else None

    def accepted(self) -> int:
        """Return how many accepted submissions the overview counts; waits until it does."""
        self.until(lambda: self.figure("total") is not None, "no total is shown")
        return int(self.figure("total") or 0)

    def rows(self, selector: str) -> list[list[str]]:
        """Return the texts of the cells of rows, all as they are at one moment."""
        found: list[list[str]] = self.page.evaluate(
            "selector => [...document.querySelectorAll(selector)]"
            ".map(row => [...row.cells].map(cell => cell.textContent.trim()))",
            selector,
        )
        return found

    def says_offline(self) -> bool:
        """Return whether the page says that it does not hear the daemon."""
        return self.page.locator(".live.offline").count() > 0

    def log_in(self, username: str, password: str) -> None:
        """Log in by the form of the page, on whatever page or dialog it is."""
        form = self.page.locator("form[data-form=password]").last
        form.locator("[name=username]").fill(username)
        form.locator("[name=password]").fill(password)
        form.locator("[type=submit]").click()

    def come_as(self, username: str, password: str) -> None:
        """Have the cookie of somebody who has logged in before."""
        answer = self.context.request.post(
            self.daemon.url("/api/login"), data={"username": username, "password": password}
        )
        assert answer.ok, answer.text()

    def scrolls_sideways(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        found: int = self.page.evaluate(
            "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
        return found

    def barriers(self) -> list[str]:
        """Return what axe-core finds grave, each with the elements it is about."""
        with required():
            if not AXE.exists():
                raise SkipTest("axe-core is not installed: run `make sdk`")
        if not self.page.evaluate("typeof window.axe === 'object'"):
            # By the debugger: the page's policy lets in no script but its own.
            session = self.context.new_cdp_session(self.page)
            session.send("Runtime.evaluate", {"expression": AXE.read_text("utf-8")})
            session.detach()
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{violation['id']} ({violation['impact']}): {violation['help']}: "
            + "; ".join(f"{node['target']} {node['failureSummary']}" for node in nodes)
            for violation in found["violations"]
            if violation["impact"] in GRAVE
            for nodes in [violation["nodes"][:4]]
        ]

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Take a picture, of the whole page or of the window alone."""
        self.page.screenshot(path=path, full_page=whole, animations="disabled")


@contextmanager
def visit(
    browser: Browser,
    daemon: RunningDaemon,
    view: View | None = None,
    *,
    storage: Mapping[str, str] | None = None,
    scripts: bool = True,
) -> Iterator[Visit]:
    """Open a window at the dashboard, with a profile of its own.

    ``storage`` is what the browser has stored for the page; without ``scripts`` it runs none.
    """
    view = view or View()
    context = browser.new_context(
        viewport={"width": view.width, "height": view.height},
        color_scheme="dark" if view.theme == "dark" else "light",
        locale="zh-CN" if view.language == "zh" else "en-US",
        timezone_id="UTC",
        java_script_enabled=scripts,
        reduced_motion="reduce",
    )
    if storage:
        items = json.dumps(dict(storage))
        context.add_init_script(
            f"for (const [k, v] of Object.entries({items})) localStorage.setItem(k, v)"
        )
    try:
        yield Visit(daemon, context)
    finally:
        context.close()


@contextmanager
def with_browser(
    pool: Callable[[], AbstractContextManager[RunningDaemon]],
) -> Iterator[tuple[Browser, RunningDaemon]]:
    """Run a browser and a daemon, for all tests of a class; see of_class.py."""
    with pool() as daemon, chromium() as browser:
        yield browser, daemon


def numbers(text: str) -> list[float]:
    """Return the numbers in a text, with their separators of thousands removed."""
    return [float(found) for found in re.findall(r"\d+(?:\.\d+)?", re.sub(r"(?<=\d),", "", text))]
