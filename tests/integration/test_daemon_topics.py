"""Topics of the real daemon: every framing, HTTP, and what a restart keeps."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.of_class import of_class
from tests.servers.running_daemon import RunningDaemon, StartFailed
from tests.servers.sockets import Peer

RULES = tuple(
    f"--permissions=* {action} shop.>"
    for action in ("log.publish", "log.subscribe", "log.manage", "log.group")
)


def frame(payload: bytes) -> bytes:
    return b"\x02" + len(payload).to_bytes(4, "little") + payload


def int32(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


class FramedPeer(Peer):
    """A peer that has authorized, in the framing ``frame`` or ``int32``."""

    def __init__(self, daemon: RunningDaemon, framing: str) -> None:
        super().__init__(daemon.port)
        self._encode = frame if framing == "frame" else int32
        self._order: Any = "little" if framing == "frame" else "big"
        self._head = 5 if framing == "frame" else 4
        assert self.ask("authorize", username="teller") is True

    def ask(self, method: str, **params: Any) -> Any:
        request = {"id": 1, "method": method, "params": params}
        self.send(self._encode(json.dumps(request).encode()))
        while True:
            head = self.exactly(self._head)
            answer = json.loads(self.exactly(int.from_bytes(head[-4:], self._order)))
            if "method" not in answer:
                return answer["result"]


class TopicsTests(SynchronousTestCase):
    """Issue 16, build 1: one daemon, in every framing and over HTTP."""

    def setUp(self) -> None:
        self.daemon = of_class(self, lambda: RunningDaemon(*RULES, "--topics-polls-per-ip=3"))

    def call(self, name: str, timeout: float = 10.0, **params: Any) -> Any:
        code, answer = self.daemon.post("/api/" + name.replace(".", "/"), params, timeout)
        self.assertEqual(code, 200, answer)
        return answer

    def test_every_framing(self) -> None:
        """Q-60, Q-66: what one writes all read, with answers of more than 64 KiB."""
        from tests.docs.protocol_peers import Page

        self.call("topic.create", topic="shop.framing")
        large = "x" * 60_000
        for number, framing in enumerate(("frame", "int32")):
            with FramedPeer(self.daemon, framing) as peer:
                written = peer.ask("log.produce", topic="shop.framing", value=large)
                self.assertEqual(written, {"written": [{"partition": 0, "offset": number}]})
                found = peer.ask("log.fetch", topic="shop.framing", partition=0, offset=0)
                self.assertEqual(found["next"], number + 1)
                self.assertEqual({each["value"] for each in found["records"]}, {large})
        page = Page(self.daemon.http_port)
        self.addCleanup(page.close)
        line = Peer(self.daemon.port)
        self.addCleanup(line.close)
        for send, read in ((page, self.message_of_page), (line, self.message_of_line)):
            end = b"\n" if send is line else b""
            for request in (
                b'{"id":1,"method":"authorize","params":{"username":"teller"}}',
                b'{"id":2,"method":"log.offsets","params":{"topic":"shop.framing"}}',
            ):
                send.send(request + end)
            while (answer := read(send)).get("id") != 2:
                pass
            self.assertEqual(answer["result"], {"offsets": [2]})

    def message_of_page(self, page: Any) -> dict[str, Any]:
        text = b""
        while not text.endswith(b"}") or text.count(b"{") != text.count(b"}"):
            text += page.exactly(1)
        found: dict[str, Any] = json.loads(text)
        return found

    def message_of_line(self, peer: Peer) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(peer.line())
        return found

    def test_a_group_over_http_alone(self) -> None:
        """Q-42, Q-45, Q-66: it joins, reads, commits, and reads on from there."""
        self.call("topic.create", topic="shop.http", settings={"partitions": 2})
        for partition in (0, 1):
            self.call(
                "log.produce",
                topic="shop.http",
                partition=partition,
                records=[{"value": str(number)} for number in range(3)],
            )
        place = self.call("group.join", group="shop.g", topics=["shop.http"])
        self.assertEqual(len(place["assigned"]), 2)
        member = {key: place[key] for key in ("member", "generation")}
        for each in place["assigned"]:
            found = self.call("log.fetch", **each, group="shop.g")
            self.assertEqual([record["value"] for record in found["records"]], ["0", "1", "2"])
            done = [{**each, "offset": 2}]
            self.assertIs(self.call("group.commit", group="shop.g", **member, offsets=done), True)
            self.assertEqual(len(self.call("log.fetch", **each, group="shop.g")["records"]), 1)
        positions = self.call("group.describe", group="shop.g")["positions"]
        self.assertEqual([each["lag"] for each in positions], [1, 1])

    def test_long_polls(self) -> None:
        """Q-04, Q-66: they wait, no more than may, and those that leave make room."""
        self.call("topic.create", topic="shop.polls")
        answers: list[Any] = []

        def wait() -> None:
            answers.append(
                self.call(
                    "log.fetch",
                    topic="shop.polls",
                    partition=0,
                    offset=0,
                    wait_ms=50_000,
                    timeout=60,
                )
            )

        threads = [threading.Thread(target=wait) for _ in range(2)]
        for thread in threads:
            thread.start()
        query = "/api/log/fetch?topic=shop.polls&partition=0&offset=0&wait_ms=50000"
        request = (
            f"GET {query} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self.daemon.secret}\r\n\r\n"
        ).encode()
        # The third one leaves, and another one has its place: otherwise there would be a fourth.
        for _ in range(3):
            deadline = time.monotonic() + 10
            while True:
                with Peer(self.daemon.http_port) as peer:
                    peer.send(request)
                    peer.socket.settimeout(0.3)
                    try:
                        refused = peer.socket.recv(1000)
                    except TimeoutError:
                        break  # it waits
                self.assertIn(b"429", refused)
                self.assertLess(time.monotonic(), deadline)
        self.call("log.produce", topic="shop.polls", value="at last")
        for thread in threads:
            thread.join(20)
        self.assertEqual([each["next"] for each in answers], [1, 1])

    def test_a_large_request(self) -> None:
        """Q-13: as large as the setting says, and no larger."""
        self.call("topic.create", topic="shop.large", settings={"max_record": 4 << 20})
        self.call("log.produce", topic="shop.large", value="x" * 2_000_000)
        head = b"POST /api/log/produce HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
        with Peer(self.daemon.http_port) as peer:
            peer.send(head % ((2 << 20) + 1))
            self.assertTrue(peer.rest().startswith(b"HTTP/1.1 413 "))


class RestartTests(SynchronousTestCase):
    """Q-18, Q-45, Q-52: what is in the file."""

    def test_a_restart(self) -> None:
        with RunningDaemon(*RULES) as daemon:

            def call(name: str, **params: Any) -> Any:
                return daemon.post("/api/" + name.replace(".", "/"), params)

            call("topic.create", topic="shop.a", settings={"partitions": 2})
            call("log.produce", topic="shop.a", partition=1, value="kept")
            call("group.reset", group="shop.g", topic="shop.a", at="latest")
            call("log.delay", topic="shop.a", partition=0, value="later", after_ms=500)
            first = call("group.join", group="shop.h", topics=["shop.a"])[1]
            self.assertEqual(daemon.stop(), 0)
            daemon.start()
            code, found = call("log.fetch", topic="shop.a", partition=1, offset=0)
            self.assertEqual((code, found["records"][0]["value"]), (200, "kept"))
            found = call("log.fetch", topic="shop.a", partition=0, offset=0, wait_ms=10_000)[1]
            self.assertEqual(found["records"][0]["value"], "later")
            positions = call("group.describe", group="shop.g")[1]["positions"]
            self.assertEqual([each["committed"] for each in positions], [0, 1])
            # A member of the time before has to join again, and its generation is an old one.
            member = {key: first[key] for key in ("member", "generation")}
            self.assertEqual(call("group.heartbeat", group="shop.h", **member)[0], 404)
            again = call("group.join", group="shop.h", topics=["shop.a"])[1]
            self.assertGreater(again["generation"], first["generation"])

    def test_two_on_one_folder(self) -> None:
        """Q-18: also if topics are all that is in it."""
        flags = ("--mq=memory", "--store=memory", "--topics=sqlite")
        with RunningDaemon(*flags) as daemon:
            self.assertTrue((daemon.data / "topics.sqlite").exists())
            other = RunningDaemon(*flags, data=daemon.data)
            error = self.assertRaises(StartFailed, other.start)
            self.assertIn(str(daemon.data), str(error))
