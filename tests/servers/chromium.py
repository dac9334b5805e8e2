"""Chromium for tests, and a server of the pages that it shows."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.servers.services import required

BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")

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
            protocol_version: ClassVar[str] = "HTTP/1.0"

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


class ChromiumCase(SynchronousTestCase):
    """A test with a browser."""

    def browse(self, url: str, until: Callable[[], bool]) -> None:
        """Show a page in a browser until something has come of it."""
        program = next(filter(None, map(shutil.which, BROWSERS)), None)
        with required():
            if program is None:
                raise SkipTest(f"none of {', '.join(BROWSERS)} is installed")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            browser = subprocess.Popen(
                [
                    program,
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-background-networking",
                    "--remote-debugging-port=0",
                    f"--user-data-dir={profile}/profile",
                    url,
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                self.assertTrue(until(), "the page reported nothing")
            finally:
                os.killpg(browser.pid, signal.SIGKILL)  # the program may be a script
                browser.wait(PATIENCE)


__all__ = ["PATIENCE", "ChromiumCase", "PageServer"]
