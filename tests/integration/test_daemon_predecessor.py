"""Clients of the predecessor's bus against a real daemon: raw sockets, and no code of ours."""

from __future__ import annotations

import re
import socket
import struct
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.predecessor import (
    ACCEPTED,
    ALL,
    CALL,
    ONE,
    SPECIFIC,
    Fields,
    acknowledged,
    frame,
    frames,
    handshake,
    topics,
    websocket,
)
from tests.servers.of_class import of_class
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon, StartFailed

_SERVED = re.compile(r"Clients of the predecessor's bus are served on 127\.0\.0\.1:(\d+)")


class Socket:
    """A client over a blocking TCP socket."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10.0)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> Fields:
        """The next frame; raises :class:`EOFError` at the end."""
        head = self.read(24)
        (found,) = frames(head + self.read(struct.unpack(">I", head[12:16])[0]))
        return found

    def read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise EOFError(data)
            data += piece
        return data

    def rest(self) -> bytes:
        """What still comes before the end."""
        data = b""
        while piece := self.socket.recv(65536):
            data += piece
        return data

    def silent(self, seconds: float = 0.2) -> bool:
        """Whether nothing comes for some time."""
        self.socket.settimeout(seconds)
        try:
            self.socket.recv(1)
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(10.0)
        return False

    def close(self) -> None:
        self.socket.close()


class WebSocket(Socket):
    """The same over WebSocket."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.socket.sendall(handshake())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self.read(1)
        assert ACCEPTED in head, head

    def send(self, data: bytes) -> None:
        self.socket.sendall(websocket(data))

    def receive(self) -> Fields:
        first, size = self.read(2)
        if size == 126:
            size = int.from_bytes(self.read(2), "big")
        assert first == 0x82, (first, self.read(size))
        (found,) = frames(self.read(size))
        return found


class PredecessorTests(SynchronousTestCase):
    """A-07, A-18, A-26, A-31, A-33: issue 13, acceptance 2."""

    client: type[Socket] = Socket

    def setUp(self) -> None:
        self.daemon = of_class(
            self,
            lambda: RunningDaemon(
                *UNLIMITED, "--mq=memory", "--store=memory", "--bus-rate=0",
                "--bus-compatible-addr=127.0.0.1:0",
            ),
        )  # fmt: skip
        found = _SERVED.search(self.daemon.output)
        assert found is not None, self.daemon.output
        self.port = int(found[1])

    def connect(self) -> Socket:
        client = self.client(self.port)
        self.addCleanup(client.close)
        return client

    def subscriber(self, *wanted: int) -> Socket:
        client = self.connect()
        began = time.monotonic()
        client.send(frame(1, 1000001, topics(*wanted)))
        self.assertEqual(client.receive(), (2, 1000001, acknowledged(*wanted), 0, 0))
        self.assertLess(time.monotonic() - began, 0.2)
        return client

    def test_calls(self) -> None:
        """2, 3, 4: to one of two, and to the one of two who can."""
        subscribers = [self.subscriber(1001), self.subscriber(1001, 1002)]
        publisher = self.connect()
        asked = set()
        for n in range(40):
            publisher.send(frame(1001, 1000002 + n, b"alice", CALL))
            number, offer = self.whoever(subscribers)
            self.assertEqual(offer, (1001, offer[1], b"alice", 0, CALL))
            subscribers[number].send(frame(n, offer[1], b"100"))
            self.assertEqual(publisher.receive(), (1001, 1000002 + n, b"100", 0, 0))
            asked.add(number)
        self.assertEqual(asked, {0, 1})
        publisher.send(frame(1001, 77, b"bob", SPECIFIC))
        offers = [subscriber.receive() for subscriber in subscribers]
        subscribers[1].send(frame(1001, offers[1][1], b"7"))
        self.assertEqual(publisher.receive(), (1001, 77, b"7", 0, 0))
        self.assertTrue(publisher.silent())

    def whoever(self, subscribers: list[Socket]) -> tuple[int, Fields]:
        """Wait for the next message to any of some subscribers, and say whose it was."""
        import select

        (ready, *_), _, _ = select.select([s.socket for s in subscribers], [], [], 10.0)
        number = [s.socket for s in subscribers].index(ready)
        return number, subscribers[number].receive()

    def test_without_an_answer(self) -> None:
        """5: to all and to one; and what says 12 but has no sequence."""
        subscribers = [self.subscriber(2001), self.subscriber(2001)]
        publisher = self.connect()
        for sequence, low in ((5, ALL), (0, ALL), (6, ONE), (0, ONE), (0, CALL), (0, SPECIFIC)):
            publisher.send(frame(2001, sequence, b"news", low))
            everybody = low in (ALL, SPECIFIC)
            first, offer = self.whoever(subscribers)
            self.assertEqual(offer, (2001, offer[1], b"news", 0, low))
            subscribers[first].send(frame(2001, offer[1], b"thanks", low))
            other = subscribers[1 - first]
            if everybody:
                self.assertEqual(other.receive()[2], b"news")
            self.assertTrue(other.silent(1.2), (sequence, low))
        self.assertTrue(publisher.silent())

    def test_timeout(self) -> None:
        """4: after 3,000 ms, with the body of the request."""
        self.subscriber(3001)
        publisher = self.connect()
        began = time.monotonic()
        publisher.send(frame(3001, 9, b"nobody", CALL))
        self.assertEqual(publisher.receive(), (3001, 9, b"nobody", 1, 0))
        self.assertTrue(2.99 <= time.monotonic() - began < 3.5, time.monotonic() - began)

    def test_reconnect(self) -> None:
        """1: the same again, and messages come."""
        publisher = self.connect()
        for n in range(3):
            subscriber = self.subscriber(4001)
            publisher.send(frame(4001, n + 1, b"x", SPECIFIC))
            offer = subscriber.receive()
            subscriber.send(frame(4001, offer[1], b"y"))
            self.assertEqual(publisher.receive(), (4001, n + 1, b"y", 0, 0))
            subscriber.close()
            self.gone(4001)

    def gone(self, topic: int) -> None:
        """Wait until nobody listens to a topic any more."""
        while any(str(topic) in s["topics"] for s in self.status()["subscribers"]):
            time.sleep(0.01)

    def status(self) -> Any:
        return self.daemon.get("/bus/status")[1]

    def test_garbage(self) -> None:
        """6: the connection ends, and nothing comes before that."""
        for garbage in (
            frame(5001, 5, b"x", CALL, magic=1), frame(5001, 5, b"", CALL, length=51_201),
            frame(5001, 5, b"x", 14), frame(0, 5, b"x", CALL), frame(1, 5, b"{junk"),
            frame(1, 5, topics("a")), frame(2, 5, acknowledged(5001)), b"\xff" * 100,
        ):  # fmt: skip
            for listens in (False, True):
                client = self.subscriber(5001) if listens else self.connect()
                client.send(garbage)
                said = client.rest()
                if self.client is WebSocket:
                    self.assertEqual(said[:1], b"\x88", "WebSocket's own goodbye, and no more")
                else:
                    self.assertEqual(said, b"", garbage)
        self.assertNotIn("5001", [topic["topic"] for topic in self.status()["topics"]])

    def test_across(self) -> None:
        """A-07: sessions of the pool and the predecessor's clients call each other."""
        session = LineClient(self.daemon)
        self.addCleanup(session.close)
        session.authorize("alice")
        subscriber, publisher = self.subscriber(6001), self.connect()
        session.send({"id": 1, "method": "bus.publish", "params": {
            "topic": 6001, "data": "alice", "model": "reliable-random"}})  # fmt: skip
        offer = subscriber.receive()
        self.assertEqual(offer, (6001, offer[1], b"alice", 0, CALL))
        subscriber.send(frame(0, offer[1], b"100"))
        self.assertEqual(session.receive()["result"]["data"], "100")
        session.request("bus.subscribe", topics=[6002])
        publisher.send(frame(6002, 5, b"bob", SPECIFIC))
        call = session.receive()
        self.assertEqual(call["params"]["data"], "bob")
        session.send({"id": call["id"], "result": "7"})
        self.assertEqual(publisher.receive(), (6002, 5, b"7", 0, 0))


class PredecessorOverWebSocketTests(PredecessorTests):
    """The same, each frame one binary message."""

    client = WebSocket


class AddressTests(SynchronousTestCase):
    """K-88, K-89: the setting."""

    def start(self, *flags: str, **options: Any) -> RunningDaemon:
        daemon = RunningDaemon("--mq=memory", "--store=memory", *flags, **options)
        self.addCleanup(daemon.__exit__)
        return daemon.start()

    def test_not_with_passwords(self) -> None:
        """Build 4: refused at the start, by a line that names both settings."""
        with self.assertRaises(StartFailed) as caught:
            self.start("--auth=memory:alice:secret", "--bus-compatible-addr=127.0.0.1:0")
        self.assertRegex(
            str(caught.exception),
            r"kupool: bus_compatible_addr: .*--auth.* \(from flag --bus-compatible-addr\)$",
        )

    def test_from_the_environment(self) -> None:
        daemon = self.start(env={"KUP_BUS_COMPATIBLE_ADDR": "127.0.0.1:0"})
        self.assertIsNotNone(_SERVED.search(daemon.output))

    def test_a_port_that_is_taken(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with self.assertRaises(StartFailed) as caught:
                self.start(f"--bus-compatible-addr=127.0.0.1:{port}")
        self.assertIn(f"bus_compatible_addr: cannot listen on 127.0.0.1:{port}: Address already",
                      str(caught.exception))  # fmt: skip

    def test_behind_a_proxy(self) -> None:
        """K-89: TCP and WebSocket, by the address that the proxy names."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sock"
            self.start(f"--bus-compatible-addr=haproxy:unix:{path}")
            for named in (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", b"PROXY UNKNOWN\r\n"):
                for ask, answer in (
                    (frame(1, 7, topics(1001)), frame(2, 7, acknowledged(1001))),
                    (handshake() + websocket(frame(1, 7, topics(1001))),
                     b"\x82\x41" + frame(2, 7, acknowledged(1001))),
                ):  # fmt: skip
                    with socket.socket(socket.AF_UNIX) as client:
                        client.settimeout(10.0)
                        client.connect(str(path))
                        client.sendall(named + ask)
                        said = b""
                        while not said.endswith(answer):
                            piece = client.recv(65536)
                            self.assertTrue(piece, said)
                            said += piece

    def test_stop(self) -> None:
        """A-22: a call that waits is told; every connection ends; status 0."""
        daemon = self.start("--bus-compatible-addr=127.0.0.1:0", "--transport=stock")
        found = _SERVED.search(daemon.output)
        assert found is not None
        client, browser = Socket(int(found[1])), WebSocket(int(found[1]))
        for one in (client, browser):
            self.addCleanup(one.close)
            one.send(frame(1001, 5, b"x", CALL))
        time.sleep(0.1)
        began = time.monotonic()
        daemon.signal(15)
        self.assertEqual(client.rest(), frame(1001, 5, b"x", high=1))
        self.assertEqual(browser.receive(), (1001, 5, b"x", 1, 0))
        self.assertEqual(daemon.wait(), 0, daemon.output)
        self.assertLess(time.monotonic() - began, 10.0)
