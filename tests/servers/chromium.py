"""Chromium for tests, and a server of the pages that it shows."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.servers.services import required

#: The names of the program, the smallest first; etc/setup/install-services.sh has the same ones.
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

#: Root may not use the browser's sandbox; and no service of its maker is called.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")

#: Seconds after which a browser that does not answer fails the test.
PATIENCE = 60.0


class PageServer:
    """Serves one page, and takes what it reports."""

    def __init__(self) -> None:
        self.page = b""
        #: Further files, by their paths.
        self.files: dict[str, bytes] = {}
        self.report: Any = None
        self.reported = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self) -> None:
                self.answer(server.page if self.path == "/" else server.files.get(self.path, b""))

            def do_POST(self) -> None:
                server.report = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.answer(b"")
                server.reported.set()

            def answer(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/html")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser that the machine has; raises SkipTest where there is none.

    Playwright drives it. Leave it before anything else of the same thread uses asyncio: as long
    as the browser is there, Playwright runs a loop of that.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    with required():
        if program is None:
            raise SkipTest(f"none of {', '.join(BROWSERS)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program, args=list(FLAGS), timeout=PATIENCE * 1000
        )
        try:
            yield browser
        finally:
            browser.close()


class ChromiumCase(SynchronousTestCase):
    """A test with a browser."""

    def browse(self, url: str, until: Callable[[], bool]) -> None:
        """Show a page in a browser until something has come of it."""
        with chromium() as browser:
            browser.new_page().goto(url)
            if not until():
                raise AssertionError("the page reported nothing")


__all__ = ["PATIENCE", "ChromiumCase", "PageServer", "chromium"]
