"""Peers that mean no good, each with a good client beside it that must not notice."""

from __future__ import annotations

import contextlib
import itertools
import json
import resource
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.wire.framing import FRAMINGS
from tests.servers.running_daemon import LineClient, RunningDaemon
from tests.servers.sockets import Peer
from tools.crowd import submission
from tools.process import complaints, cpu, descriptors, rss, wait_until

UNAUTHORIZED = b"unauthorized"


class GoodClient(threading.Thread):
    """Submits right work all the time, and notes every answer that is not ``true``."""

    def __init__(self, daemon: RunningDaemon) -> None:
        threading.Thread.__init__(self, daemon=True)
        self._client = LineClient(daemon)
        self._job = self._client.authorize("good")
        self._finished = threading.Event()
        self.accepted = 0
        self.wrong: list[object] = []
        self.start()

    def run(self) -> None:
        try:
            for number in itertools.count():
                if self._finished.wait(0.005):
                    return
                answer = self._client.submit(self._job, f"good{number}")
                if answer.get("result") is True:
                    self.accepted += 1
                else:
                    self.wrong.append(answer)
        except Exception as error:
            self.wrong.append(error)

    def finish(self) -> None:
        self._finished.set()
        self.join(20)
        self._client.close()


def close_notice(reason: str, code: int, reconnect: bool) -> dict[str, object]:
    params = {"reason": reason, "code": code, "reconnect": reconnect}
    return {"id": None, "method": "close", "params": params}


class HostileCase(SynchronousTestCase):
    """A daemon, and a good client that goes on through the whole test."""

    @contextlib.contextmanager
    def serving(self, *flags: str, prefix: tuple[str, ...] = ()) -> Iterator[RunningDaemon]:
        limits = ("--submit-interval=0", *flags)
        with RunningDaemon(*limits, prefix=prefix) as daemon:
            good = GoodClient(daemon)
            yield daemon
            before = good.accepted
            self.assertTrue(
                wait_until(lambda: good.accepted > before or good.wrong),
                "the good client is not answered any more",
            )
            good.finish()
            self.assertEqual([], good.wrong)
            self.assertEqual(200, daemon.get("/ready")[0])
            self.assertEqual([], complaints(daemon))
            self.assertEqual(0, daemon.stop())

    def frame_end(self, peer: Peer) -> list[tuple[int, bytes]]:
        """Everything that is left in the framing `frame` until the end."""
        left, found = peer.rest(), []
        while left:
            size = int.from_bytes(left[1:5], "little")
            found.append((left[0], left[5 : 5 + size]))
            left = left[5 + size :]
        return found


class LengthTests(HostileCase):
    """K-07: what a header announces is judged before anything is kept."""

    def test_lengths_before_authorize(self) -> None:
        """K-07, K-14: 0 and 1 are no authorize, cap + 1 and 0xFFFFFFF0 are too large."""
        with self.serving() as daemon:
            grown = rss(daemon)
            for length in (1025, 0xFFFFFFF0):
                with Peer(daemon.port) as peer:
                    peer.send(b"\x02" + length.to_bytes(4, "little"))
                    self.assertEqual([(8, b"frame too large")], self.frame_end(peer))
                with Peer(daemon.port) as peer:
                    if length < 1 << 24:  # beyond it the first byte is not that of int32
                        peer.send(length.to_bytes(4, "big"))
                        expected = close_notice("frame too large", 4501, False)
                        self.assertEqual(expected, json.loads(peer.int32()))
                        self.assertEqual(b"", peer.rest())
            with Peer(daemon.port) as peer:
                peer.send(b"\x02" + (1).to_bytes(4, "little") + b"{")
                notice, close = self.frame_end(peer)
                detail = json.loads(notice[1])["params"]["detail"]
                self.assertEqual("the first message is not a JSON request", detail)
                self.assertEqual((8, UNAUTHORIZED), close)
            with Peer(daemon.port) as peer:
                peer.send(b"{" + b" " * 1024 + b"\n")
                expected = close_notice("frame too large", 4501, False)
                self.assertEqual(expected, json.loads(peer.line()))
            self.assertLess(rss(daemon) - grown, 8_000_000)

    def test_lengths_after_authorize(self) -> None:
        """K-07: the cap is 64 KiB then, and the whole 64 KiB are taken."""
        with self.serving() as daemon:
            cases = (
                ("frame", lambda n: b"\x02" + n.to_bytes(4, "little")),
                ("int32", lambda n: n.to_bytes(4, "big")),
            )
            for name, header in cases:
                for length in (65537, 0xFFFFFFF0):
                    with self.subTest(framing=name, length=length), Peer(daemon.port) as peer:
                        self.authorize(peer, name)
                        peer.send(header(length))
                        self.assertIn(b"frame too large", peer.rest())
                with Peer(daemon.port) as peer:
                    self.authorize(peer, name)
                    ping = b'{"id":7,"method":"ping"}'
                    peer.send(header(0) + header(1) + b"{" + header(65536) + ping.ljust(65536))
                    answers = self.payloads(peer, name, 2)
                    # The empty one is ignored, as the first clients expect.
                    self.assertEqual(30, answers[0]["code"])
                    self.assertEqual({"id": 7, "result": True}, answers[1])

    def authorize(self, peer: Peer, framing: str) -> None:
        request = b'{"id":1,"method":"authorize","params":{"username":"h"}}'
        peer.send(FRAMINGS[framing].encode(request))
        answers = self.payloads(peer, framing, 2)
        self.assertEqual({"id": 1, "result": True}, answers[0])
        self.assertEqual("job", answers[1]["method"])

    def payloads(self, peer: Peer, framing: str, count: int) -> list[dict[str, object]]:
        take = {"frame": lambda: peer.frame()[1], "int32": peer.int32, "line": peer.line}[framing]
        return [json.loads(take()) for _ in range(count)]


class GreetingTests(HostileCase):
    """K-14, K-15, K-16: how a session may not begin."""

    def test_half_a_header(self) -> None:
        """K-15: half a header, for ever, is closed after the time to authorize."""
        with self.serving("--authorize-timeout=1s") as daemon:
            for begin in (b"", b"\x02", b"\x02\x30\x00", b"\x00\x00", b'{"id":1'):
                with self.subTest(begin=begin), Peer(daemon.port) as peer:
                    peer.send(begin)
                    self.assertIn(UNAUTHORIZED, peer.rest())

    def test_one_byte_a_second(self) -> None:
        """K-15: bytes that trickle in do not extend the time to authorize."""
        request = b'{"id":1,"method":"authorize","params":{"username":"slow"}}'
        with self.serving("--authorize-timeout=1s") as daemon, Peer(daemon.port) as peer:
            sent = 0
            with contextlib.suppress(ConnectionError):
                for byte in FRAMINGS["frame"].encode(request):
                    peer.send(bytes((byte,)))
                    sent += 1
                    time.sleep(0.3)
            self.assertLess(sent, len(request))
            self.assertTrue(wait_until(lambda: daemon.get("/stats")[1]["sessions"] == 1))

    def test_other_first_messages(self) -> None:
        """K-14: anything else than authorize is unauthorized, and closed."""
        firsts = (
            {"id": 1, "method": "submit", "params": {"job_id": 1}},
            {"id": 1, "method": "ping"},
            {"id": 1, "method": "nothing.such"},
            {"id": 1, "method": "authorize"},
            {"id": 1, "method": "authorize", "params": {"username": 7}},
        )
        with self.serving() as daemon:
            for first in firsts:
                client = LineClient(daemon)
                client.send(first)
                answer = {"id": 1, "result": False, "error": "unauthorized", "code": 24}
                self.assertEqual(answer, client.receive(), first)
                close = client.receive()
                detail = close["params"].pop("detail", "")
                self.assertEqual(close_notice("unauthorized", 4500, False), close)
                self.assertEqual(first["method"] == "authorize", "username" in detail, first)
                self.assertRaises(EOFError, client.receive)
                client.close()

    def test_usernames(self) -> None:
        """K-16: 1 to 255 characters, none of them control characters."""
        with self.serving() as daemon:
            for name in ("", "x" * 256, "é" * 256, "a\nb", "\x00", "a\x7f", "a\u2028b", "\x1b[31m"):
                client = LineClient(daemon)
                self._greet(client, name)
                self.assertEqual("unauthorized", client.receive()["error"])
                client.close()
            for name in ("x" * 255, "é" * 255):
                client = LineClient(daemon)
                self._greet(client, name)
                self.assertEqual({"id": 1, "result": True}, client.receive())
                self.assertIs(True, client.submit(client.job(), "1")["result"])
                client.close()

    def _greet(self, client: LineClient, name: str) -> None:
        # Not escaped: 255 characters of two bytes each fit into the first frame as they are.
        message = {"id": 1, "method": "authorize", "params": {"username": name}}
        client.send(json.dumps(message, ensure_ascii=False).encode())


class MessageTests(HostileCase):
    """K-10: what no method of ours is, on a session."""

    def test_odd_messages(self) -> None:
        """K-10: each gets its error, and the session goes on until it has made ten."""
        nested = b'{"id":5,"method":"ping","params":' + b"[" * 20000 + b"]" * 20000 + b"}"
        cases = (
            (b'{"id":3,"method":"nothing.such","params":{}}', 3, 31),
            (b"\xff\xfe\xfd", None, 30),
            (b'{"id":4,"method":"\xff"}', None, 30),
            (nested, None, 30),
            (b'{"id":NaN,"method":"ping"}', None, 30),
            (b'{"id":6,"method":"submit"}', 6, 32),
            (b'{"id":1e400,"method":"ping"}', None, 30),
        )
        with self.serving() as daemon:
            client = LineClient(daemon)
            job = client.authorize("odd")
            for payload, message_id, code in cases:
                client.send(payload)
                answer = client.receive()
                self.assertEqual((message_id, code), (answer["id"], answer["code"]), payload[:60])
            # A huge integer is an integer, and is echoed as it is.
            client.send(b'{"id":%d,"method":"ping"}' % 2**70)
            self.assertEqual({"id": 2**70, "result": True}, client.receive())
            # The last of several equal keys counts, but two methods are one too many.
            client.send(b'{"id":8,"id":9,"method":"ping"}')
            self.assertEqual({"id": 9, "result": True}, client.receive())
            client.send(b'{"id":9,"method":"submit","method":"ping"}')
            twice = client.receive()
            self.assertEqual((9, 32), (twice["id"], twice["code"]))
            client.send(b'{"id":10,"method":"submit","params":{"job_id":%d}}' % 2**80)
            self.assertEqual(10, client.receive()["id"])
            self.assertIs(True, client.submit(job, "after all")["result"])
            for _ in range(10):
                client.send(b"{")
            last = [client.receive()]
            with contextlib.suppress(EOFError):
                while True:
                    last.append(client.receive())
            self.assertEqual(close_notice("too many errors", 4502, False), last[-1])
            client.close()

    def test_leaves_with_answers_pending(self) -> None:
        """K-53: a client that is gone before its answers is counted, and costs nothing."""
        with self.serving() as daemon:
            before = descriptors(daemon)
            for number in range(20):
                client = LineClient(daemon)
                job = client.authorize("gone")
                for nonce in range(20):
                    self._send_submission(client, job, f"{number}/{nonce}")
                client.close()
            self.assertTrue(wait_until(lambda: descriptors(daemon) <= before))
            # The first answer to reach a closed socket resets the connection, and what it
            # had sent beyond that may never have been read: at least one of each is.
            self.assertTrue(wait_until(lambda: self._counted(daemon, "gone") >= 20))

    def test_half_closed_with_answers_pending(self) -> None:
        """K-11: one that only stops sending gets every answer before the end."""
        with self.serving() as daemon:
            client = LineClient(daemon)
            job = client.authorize("half")
            for nonce in range(200):
                self._send_submission(client, job, str(nonce))
            client.socket.shutdown(socket.SHUT_WR)
            answers = [client.receive() for _ in range(200)]
            self.assertRaises(EOFError, client.receive)
            self.assertEqual({True}, {answer["result"] for answer in answers})
            client.close()
            self.assertTrue(wait_until(lambda: self._counted(daemon, "half") == 200))

    def _send_submission(self, client: LineClient, job: dict[str, object], nonce: str) -> None:
        client.send(submission(1000, job, nonce))

    def _counted(self, daemon: RunningDaemon, user: str) -> int:
        top = daemon.get("/stats?top=10")[1]["top"]
        return sum(row["count"] for row in top if row["username"] == user)


class FloodTests(HostileCase):
    """K-45: 34,000 wrong submissions at once."""

    COUNT = 34_000

    def flood(self, daemon: RunningDaemon, name: str) -> list[dict[str, Any]]:
        """Send all, in large writes; returns the answers."""
        client = LineClient(daemon, timeout=60)
        job = client.authorize(name)
        wrong = b'{"id":5,"method":"submit","params":{"job_id":%d,' % job["job_id"]
        wrong += b'"client_nonce":"w","result":"' + b"0" * 64 + b'"}}\n'

        def send() -> None:
            with contextlib.suppress(OSError):
                client.socket.sendall(wrong * self.COUNT)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        answers: list[dict[str, Any]] = []
        with contextlib.suppress(EOFError, OSError):
            while len(answers) < self.COUNT:
                answers.append(client.receive())
        client.close()
        sender.join(20)
        return answers

    def test_banned(self) -> None:
        """K-45: beyond the attempts it has, its score rises, and it is banned.

        It is on no trusted proxy's address here, and is not slowed down before.
        """
        with self.serving("--proxy-trusted=192.0.2.1", "--attempts-pause=0") as daemon:
            answers = self.flood(daemon, "flood")
            errors = [answer["error"] for answer in answers if "error" in answer]
            self.assertEqual(["Invalid result"] * 5, errors[:5])
            # The session may make one more attempt for each second that the flood lasts.
            rest = Counter(errors[5:-5])
            self.assertLess(rest.pop("Invalid result", 0), 30)
            self.assertEqual(["Submission too frequent"], list(rest))
            self.assertLess(len(answers), self.COUNT)
            self.assertGreater(len(answers), 10_000)
            last = answers[-1]
            self.assertEqual("close", last["method"])
            self.assertEqual("banned", last["params"]["reason"])
            late = LineClient(daemon)
            late.send({"id": 1, "method": "authorize", "params": {"username": "late"}})
            self.assertEqual(4503, late.receive()["params"]["code"])
            late.close()

    def test_answered(self) -> None:
        """K-39: without a ban every one of them is answered."""
        with self.serving("--ban-score=0") as daemon:
            answers = self.flood(daemon, "flood")
            self.assertEqual(self.COUNT, len(answers))
            self.assertEqual(
                {"Invalid result", "Submission too frequent"}, {a["error"] for a in answers}
            )


class LimitTests(HostileCase):
    """Too many connections, and too few descriptors."""

    def test_max_connections(self) -> None:
        """K-39: one too many is told so, in its own framing, and may come later."""
        with self.serving("--max-connections=3") as daemon:
            others = [LineClient(daemon) for _ in range(2)]
            for other in others:
                other.authorize("other")
            request = b'{"id":1,"method":"authorize","params":{"username":"more"}}'
            for framing in FRAMINGS.values():
                with Peer(daemon.port) as peer:
                    peer.send(framing.encode(request))
                    if framing.name == "frame":
                        self.assertEqual((8, b"too many connections"), peer.frame())
                    else:
                        take = peer.int32 if framing.name == "int32" else peer.line
                        expected = close_notice("too many connections", 4102, True)
                        self.assertEqual(expected, json.loads(take()))
                    self.assertEqual(b"", peer.rest())
            others[0].close()
            self.assertTrue(wait_until(lambda: daemon.get("/stats")[1]["sessions"] == 2))
            late = LineClient(daemon)
            self.assertEqual("more", self._welcome(late, "more"))
            late.close()
            others[1].close()

    def _welcome(self, client: LineClient, name: str) -> str:
        client.authorize(name)
        return name

    def test_out_of_descriptors(self) -> None:
        """K-87: accept() that fails neither ends the daemon nor makes it spin."""
        with self.serving() as daemon:
            # After the start: it takes no more clients than the limit at its start leaves room for.
            resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (80, 80))
            crowd = [self._connect(daemon) for _ in range(100)]
            self.assertTrue(wait_until(lambda: descriptors(daemon) >= 76))
            time.sleep(0.5)
            before = cpu(daemon)
            time.sleep(2.0)
            used = cpu(daemon) - before
            self.assertLess(used, 1.0, "it spins")
            self.assertIsNone(daemon.process.poll() if daemon.process else 1)
            for sock in crowd:
                sock.close()
            self.assertTrue(wait_until(lambda: descriptors(daemon) < 56))
            late = LineClient(daemon, timeout=30)
            self.assertIs(True, late.submit(late.authorize("late"), "1")["result"])
            late.close()

    def _connect(self, daemon: RunningDaemon) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", daemon.port))
        return sock
