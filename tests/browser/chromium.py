"""Chromium under Playwright: the browser that the machine has, never one that Playwright loads."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import SkipTest

from playwright.sync_api import Browser, sync_playwright

from tests.servers.services import required

#: The names of the program, the smallest first; etc/setup/install-services.sh has the same ones.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

#: Root may not use the browser's sandbox; and no service of its maker is called.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")

#: Seconds for the browser to start, and for an answer of a page: far more than either takes.
PATIENCE = 60.0


@contextmanager
def chromium(*flags: str) -> Iterator[Browser]:
    """Run a browser; raises SkipTest where none is installed.

    Leave it before anything else of the same thread uses asyncio: Playwright runs a loop there
    as long as the browser is there.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with required():
        if program is None:
            raise SkipTest(f"none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=[*FLAGS, *flags], timeout=PATIENCE * 1000
        )
        try:
            yield browser
        finally:
            browser.close()
