"""Issue 12: many WebSockets and many silent HTTP connections, on a daemon of its own."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes.websocket_frames import frame, frames
from tests.servers.certificates import make_certificate
from tests.servers.running_daemon import RunningDaemon
from tests.servers.sockets import PATIENCE

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
AUTHORIZE = b'{"id":1,"method":"authorize","params":{"username":"alice"}}'
ASK = b'{"id":7,"method":"ping"}'


class CrowdCase(SynchronousTestCase):
    def daemon(self, *flags: str) -> RunningDaemon:
        daemon = RunningDaemon(*flags)
        self.addCleanup(daemon.__exit__)
        return daemon.start()

    def connect(self, daemon: RunningDaemon) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", daemon.http_port), PATIENCE)
        self.addCleanup(sock.close)
        return sock

    def upgrade(self, sock: socket.socket) -> None:
        key = base64.b64encode(os.urandom(16))
        sock.sendall(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + key + b"\r\n\r\n"
        )

    def upgraded(self, sock: socket.socket) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            piece = sock.recv(1)
            self.assertTrue(piece, head)
            head += piece
        self.assertTrue(head.startswith(b"HTTP/1.1 101 "), head)

    def talk(self, sock: socket.socket) -> None:
        """Authorize and ask something, answering pings on the way."""
        sock.sendall(frame(0x81, AUTHORIZE) + frame(0x81, ASK))
        while (message := received(sock)).get("id") != 7:
            pass
        self.assertEqual(message["result"], True)

    def status(self, daemon: RunningDaemon, path: str) -> int:
        return daemon.get(path)[0]


def one_frame(sock: socket.socket) -> tuple[int, bytes]:
    """Read one frame of a server."""

    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = sock.recv(size - len(data))
            if not piece:
                raise EOFError(data)
            data += piece
        return data

    head = exactly(2)
    more = exactly(2) if head[1] == 126 else b""
    size = int.from_bytes(more, "big") if more else head[1]
    return frames(head + more + exactly(size))[0]


def received(sock: socket.socket) -> dict[str, object]:
    """Read the next message, answering pings before it."""
    while True:
        first, payload = one_frame(sock)
        if first == 0x89:
            sock.sendall(frame(0x8A, payload))
        else:
            message: dict[str, object] = json.loads(payload)
            return message


@contextmanager
def stopped(daemon: RunningDaemon) -> Iterator[None]:
    """Keep the daemon from running inside."""
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(daemon.pid, signal.SIGCONT)


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


class ManyTests(CrowdCase):
    """K-91: none of them is in the way of another."""

    def test_more_than_two_hundred_of_each(self) -> None:
        """Issue 12: connections that say nothing, and WebSockets that all connect first."""
        daemon = self.daemon()
        silent = [self.connect(daemon) for _ in range(300)]
        sockets = [self.connect(daemon) for _ in range(300)]
        for sock in sockets:
            self.upgrade(sock)
        for sock in sockets:
            self.upgraded(sock)
        self.assertEqual(
            (self.status(daemon, "/health"), self.status(daemon, "/ready")), (200, 200)
        )
        self.talk(sockets[0])
        self.talk(sockets[-1])
        for sock in silent[:3] + silent[-3:]:
            sock.sendall(HEALTH)
            self.assertTrue(sock.recv(100).startswith(b"HTTP/1.1 200 "))
        self.assertNotIn("Refused", daemon.output)

    def test_beyond_every_limit(self) -> None:
        """Issue 12: health is answered, and the log has a line and not one for each."""
        daemon = self.daemon("--http-max-connections=40", "--ws-max-connections=20")
        sockets = [self.connect(daemon) for _ in range(20)]
        for sock in sockets:
            self.upgrade(sock)
        for sock in sockets:
            self.upgraded(sock)
        for _ in range(3):
            for _ in range(40):
                self.connect(daemon)
            time.sleep(0.5)
            self.assertEqual(self.status(daemon, "/health"), 200)
            self.assertEqual(self.status(daemon, "/ready"), 200)
        for _ in range(5):
            over = self.connect(daemon)
            self.upgrade(over)
            self.upgraded(over)
            self.assertEqual(one_frame(over), (0x88, b"\x10\x06too many connections"))
        for sock in sockets[:2]:
            self.talk(sock)
        daemon.lines_with("WebSockets, too many connections")
        lines = [json.loads(line) for line in daemon.lines_with("Refused")]
        reasons = [line["reason"] for line in lines]
        self.assertEqual(sorted(reasons), sorted(set(reasons)))
        self.assertIn("WebSockets, too many connections", reasons)
        self.assertIn("HTTP connections, that sent no request, for newer ones", reasons)


class TlsTests(CrowdCase):
    def test_a_session(self) -> None:
        """K-12: the WebSocket takes the connection over, with the TLS around it."""
        folder = tempfile.TemporaryDirectory(prefix="kupool-test-")
        self.addCleanup(folder.cleanup)
        pem = make_certificate(Path(folder.name) / "server.pem")
        daemon = RunningDaemon(
            http_address=f"ssl:0:interface=127.0.0.1:privateKey={pem}:certKey={pem}"
        )
        self.addCleanup(daemon.__exit__)
        daemon.start()
        context = ssl.create_default_context(cafile=str(pem))
        context.check_hostname = False
        sock = context.wrap_socket(self.connect(daemon))
        self.addCleanup(sock.close)
        self.upgrade(sock)
        self.upgraded(sock)
        self.talk(sock)
        large = b'{"id":7,"method":"ping","params":"%b"}' % (b"x" * 60_000)
        half = len(large) // 2
        sock.sendall(frame(0x01, large[:half]) + frame(0x80, large[half:]))
        while received(sock).get("id") != 7:
            pass
        sock.sendall(frame(0x88, b"\x03\xe8"))
        while (last := one_frame(sock))[0] != 0x88:
            pass
        self.assertEqual(last, (0x88, b"\x03\xe8"))


class PauseTests(CrowdCase):
    """A daemon that did not run for a while reads first what came meanwhile."""

    def test_pings(self) -> None:
        """Issue 12: a peer whose answer lies in the buffer is not silent."""
        daemon = self.daemon("--ws-ping-interval=500ms")
        sock = self.connect(daemon)
        self.upgrade(sock)
        self.upgraded(sock)
        self.talk(sock)
        for _ in range(3):
            while one_frame(sock)[0] != 0x89:
                pass
            with stopped(daemon):
                sock.sendall(frame(0x8A, b""))
                time.sleep(1.2)
        self.talk_on(sock)

    def talk_on(self, sock: socket.socket) -> None:
        sock.sendall(frame(0x81, ASK))
        while received(sock).get("id") != 7:
            pass

    def test_requests(self) -> None:
        """Issue 12: nor is a request late that came in that time."""
        daemon = self.daemon("--http-request-timeout=500ms")
        sock = self.connect(daemon)
        with stopped(daemon):
            sock.sendall(HEALTH)
            time.sleep(1.2)
        self.assertTrue(sock.recv(100).startswith(b"HTTP/1.1 200 "))
        silent = self.connect(daemon)
        self.assertEqual(silent.recv(100), b"")
