"""Issue 12: Chromium opens the WebSocket, whatever subprotocols a page asks for."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.browser.chromium import PATIENCE, chromium
from tests.servers.running_daemon import RunningDaemon

PAGE = """<!doctype html><script>
function session(protocols) {
  return new Promise(done => {
    const url = "ws://127.0.0.1:PORT/ws", found = {messages: []};
    const ws = protocols === null ? new WebSocket(url) : new WebSocket(url, protocols);
    ws.onopen = () => {
      found.protocol = ws.protocol;
      ws.send('{"id":1,"method":"authorize","params":{"username":"alice"}}');
    };
    ws.onmessage = event => {
      found.messages.push(JSON.parse(event.data));
      if (found.messages.length === 2) ws.close(1000, "bye");
    };
    ws.onclose = event => done({...found, code: event.code, clean: event.wasClean});
  });
}
(async () => {
  const report = [];
  for (const protocols of ASKED) report.push(await session(protocols));
  await fetch("/report", {method: "POST", body: JSON.stringify(report)});
})();
</script>"""


class PageServer:
    """Serves one page, and takes what it reports."""

    def __init__(self) -> None:
        self.page = b""
        self.report: Any = None
        self.reported = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version: ClassVar[str] = "HTTP/1.0"

            def do_GET(self) -> None:
                self.answer(server.page if self.path == "/" else b"")

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


class ChromiumTests(SynchronousTestCase):
    def test_subprotocols(self) -> None:
        """Issue 12: none, ours, and others; each page has its session and its close."""
        pages = PageServer()
        self.addCleanup(pages.close)
        asked = [None, [], ["kupool"], ["chat", "kupool"], ["v2.json", "v1.json"]]
        with RunningDaemon(f"--ws-origins={pages.url}") as daemon:
            text = PAGE.replace("PORT", str(daemon.http_port)).replace("ASKED", json.dumps(asked))
            pages.page = text.encode()
            with chromium() as browser:
                browser.new_page().goto(pages.url + "/")
                self.assertTrue(pages.reported.wait(PATIENCE), "the page reported nothing")
        chosen = [session.get("protocol") for session in pages.report]
        self.assertEqual(chosen, ["", "", "kupool", "kupool", "v2.json"])
        for session in pages.report:
            self.assertEqual(session["messages"][0], {"id": 1, "result": True})
            self.assertEqual(session["messages"][1]["method"], "job")
            self.assertEqual((session["code"], session["clean"]), (1000, True))
