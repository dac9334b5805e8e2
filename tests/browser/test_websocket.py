"""Issue 12: Chromium opens the WebSocket, whatever subprotocols a page asks for."""

from __future__ import annotations

import json

from tests.servers.chromium import PATIENCE, ChromiumCase, PageServer
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


class ChromiumTests(ChromiumCase):
    def test_subprotocols(self) -> None:
        """Issue 12: none, ours, and others; each page has its session and its close."""
        pages = PageServer()
        self.addCleanup(pages.close)
        asked = [None, [], ["kupool"], ["chat", "kupool"], ["v2.json", "v1.json"]]
        with RunningDaemon(f"--ws-origins={pages.url}") as daemon:
            text = PAGE.replace("PORT", str(daemon.http_port)).replace("ASKED", json.dumps(asked))
            pages.page = text.encode()
            self.browse(pages.url + "/", lambda: pages.reported.wait(PATIENCE))
        chosen = [session.get("protocol") for session in pages.report]
        self.assertEqual(chosen, ["", "", "kupool", "kupool", "v2.json"])
        for session in pages.report:
            self.assertEqual(session["messages"][0], {"id": 1, "result": True})
            self.assertEqual(session["messages"][1]["method"], "job")
            self.assertEqual((session["code"], session["clean"]), (1000, True))
