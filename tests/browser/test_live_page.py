"""Issue 17, acceptance 7: the pages of docs/live.md show a live number in Chromium."""

from __future__ import annotations

import time

from twisted.trial.unittest import SkipTest

from tests.docs.pages import ROOT, blocks
from tests.servers.chromium import PATIENCE, ChromiumCase, PageServer
from tests.servers.running_daemon import RunningDaemon
from tests.servers.services import required

#: Where the page loads the library from; here it is a file beside the page.
LIBRARY = "https://unpkg.com/centrifuge@5/dist/centrifuge.js"

MODULES = ROOT / ".cache" / "sdk" / "node_modules"

#: Tells each text that the page shows.
WATCH = """<script>
const shown = document.getElementById("visitors");
const tell = () => fetch("/report", {method: "POST", body: JSON.stringify(shown.textContent)});
new MutationObserver(tell).observe(shown, {childList: true, characterData: true, subtree: true});
</script>"""


class LivePageTests(ChromiumCase):
    def shows(self, page: str, **files: bytes) -> None:
        """See on a page the number that was there before it, and the next one."""
        pages = PageServer()
        self.addCleanup(pages.close)
        pages.files.update({f"/{name}.js": content for name, content in files.items()})
        with RunningDaemon(
            "--live-rules=numbers.* kind=latest",
            "--permissions=* channel.subscribe numbers.*",
            f"--ws-origins={pages.url}",
        ) as daemon:
            pages.page = (page.replace("8081", str(daemon.http_port)) + WATCH).encode()

            def sees_both() -> bool:
                first = told(pages, "7 visitors")
                self.publish(daemon, 8)
                return first and told(pages, "8 visitors")

            self.publish(daemon, 7)
            self.browse(pages.url + "/", sees_both)

    def publish(self, daemon: RunningDaemon, number: int) -> None:
        body = {"channel": "numbers.visitors", "data": number}
        status, answer = daemon.post("/api/publish", body)
        self.assertEqual((status, "result" in answer), (200, True), answer)

    def test_with_centrifuge_js(self) -> None:
        """Issue 17, acceptance 7: the library shows the newest number, and then each new one."""
        with required():
            if not MODULES.exists():
                raise SkipTest("make sdk installs the library")
        library = MODULES / "centrifuge" / "dist" / "centrifuge.js"
        page = page_with(LIBRARY)
        self.shows(page.replace(LIBRARY, "/centrifuge.js"), centrifuge=library.read_bytes())

    def test_without_a_library(self) -> None:
        """W-77: over Server-Sent Events it is the same."""
        self.shows(page_with("EventSource"))


def page_with(text: str) -> str:
    """Return the page of docs/live.md that has a text."""
    pages = [block.text for block in blocks("docs/live.md") if block.language == "html"]
    (page,) = [page for page in pages if text in page]
    return page


def told(pages: PageServer, text: str) -> bool:
    """Wait until the page has told that it shows a text."""
    end = time.monotonic() + PATIENCE
    while pages.report != text and time.monotonic() < end:
        pages.reported.wait(1.0)
        pages.reported.clear()
    return bool(pages.report == text)
