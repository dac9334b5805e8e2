"""Rooms and matches of a real daemon, over sockets and a WebSocket."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon
from tests.servers.sockets import in_thread
from tests.servers.websocket_peers import WebSocketClient

ROOT = Path(__file__).parents[2]

FLAGS = (*UNLIMITED, "--interval=1h", "--mq=memory", "--store=memory")


def conversation() -> list[tuple[str, str, str]]:
    """Return the lines of docs/protocol.md: whose, whether it is sent, and what."""
    text = (ROOT / "docs" / "protocol.md").read_text("utf-8")
    (block,) = re.findall(r"Alice \(`A`\) and Bob .*?```\n(.*?)```", text, re.DOTALL)
    found = re.findall(r"(?m)^([AB])([<>]) (.*)␊$", block)
    assert len(found) == len(block.splitlines())
    return found


class Line(LineClient):
    """A client that sees lines as they are, but for the jobs."""

    def line(self) -> str:
        while True:
            message = self.receive()
            if message.get("method") != "job":
                return json.dumps(message, separators=(",", ":"))


class RoomsTests(SynchronousTestCase):
    """A-43 to A-50: through the door that the pool's sessions come in by."""

    def daemon(self, *flags: str) -> RunningDaemon:
        daemon = RunningDaemon(*FLAGS, *flags).start()
        self.addCleanup(daemon.__exit__)
        return daemon

    def client(self, daemon: RunningDaemon, user: str) -> Line:
        client = Line(daemon, 30.0)
        self.addCleanup(client.close)
        client.authorize(user)
        return client

    def test_as_documented(self) -> None:
        """Every line of the conversation in docs/protocol.md, in its order."""
        daemon = self.daemon("--rooms=on")
        peers = {"A": self.client(daemon, "alice"), "B": self.client(daemon, "bob")}
        for who, way, text in conversation():
            if way == ">":
                peers[who].send(json.loads(text))
            else:
                self.assertEqual(peers[who].line(), text)

    def test_off_unless_asked_for(self) -> None:
        alice = self.client(self.daemon(), "alice")
        for method in ("room.create", "match.join"):
            self.assertEqual(alice.request(method, room="tea")["code"], 31)

    def test_limits(self) -> None:
        """A-48: each is a setting."""
        daemon = self.daemon("--rooms=on", "--rooms-max=1", "--rooms-members=1", "--rooms-rate=4")
        alice, bob = self.client(daemon, "alice"), self.client(daemon, "bob")
        self.assertEqual(alice.request("room.create", room="tea")["result"]["members"], 1)
        self.assertEqual(
            bob.request("room.create", room="x")["error"], "too many requests: 1 rooms"
        )
        self.assertEqual(
            bob.request("room.join", room="tea")["error"],
            "too many requests: members of room tea",
        )
        too_large = alice.request("room.send", data="x" * 4096)
        self.assertEqual(too_large["error"], "bad params: data: 4098 bytes, more than 4096")
        errors = [bob.request("room.list").get("error") for _ in range(6)]
        self.assertEqual(errors[-1], "too many requests")

    def test_the_end(self) -> None:
        """A-47: who is in a room hears that it is over, and submissions go on till then."""
        daemon = self.daemon("--rooms=on")
        alice = self.client(daemon, "alice")
        alice.request("room.create", room="tea")
        alice.request("match.join", mode="m", needed=2)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGTERM)
        over = json.loads(alice.line())["params"]
        self.assertEqual((over["event"], over["data"]), ("closed", "server going down"))
        self.assertEqual(json.loads(alice.line())["method"], "close")
        self.assertEqual(daemon.process.wait(30), 0)
        self.assertNotIn('"error"', daemon.output)


class BrowserTests(TestCase):
    """A-43: a page and a worker in one room."""

    timeout = 60

    async def test_together(self) -> None:
        from twisted.internet import reactor

        daemon = RunningDaemon(*FLAGS, "--rooms=on")
        await in_thread(daemon.start)
        self.addCleanup(daemon.__exit__)
        page: Any = WebSocketClient(host=f"127.0.0.1:{daemon.http_port}")
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", daemon.http_port)
        await connectProtocol(endpoint, page)
        await page.opened
        await page.authorize("page")
        self.addCleanup(page.transport.abortConnection)
        worker = await in_thread(lambda: Line(daemon, 30.0))
        self.addCleanup(worker.close)
        await in_thread(lambda: worker.authorize("worker"))
        await in_thread(lambda: worker.request("room.create", room="tea"))
        self.assertEqual((await page.call("room.join", room="tea"))["result"]["members"], 2)
        await page.call("room.send", data={"html": "<b>"})
        heard = [json.loads(await in_thread(worker.line))["params"] for _ in range(2)]
        self.assertEqual([event["event"] for event in heard], ["joined", "message"])
        self.assertEqual((heard[1]["user"], heard[1]["data"]), ("page", {"html": "<b>"}))
