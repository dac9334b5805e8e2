"""Whole conversations, byte for byte, on one port of the real daemon."""

from __future__ import annotations

import json
import socket
from hashlib import sha256

from twisted.trial.unittest import SynchronousTestCase

from tests.servers.running_daemon import UNLIMITED, shared_daemon


def read(sock: socket.socket, size: int) -> bytes:
    """Return exactly so many bytes; fewer at the end of the connection."""
    data = b""
    while len(data) < size:
        part = sock.recv(size - len(data))
        if not part:
            break
        data += part
    return data


def frame(payload: bytes, opcode: int = 2) -> bytes:
    return bytes([opcode]) + len(payload).to_bytes(4, "little") + payload


def int32(payload: bytes) -> bytes:
    return len(payload).to_bytes(4, "big") + payload


def line(payload: bytes) -> bytes:
    return payload + b"\n"


class ConversationCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.daemon = shared_daemon(*UNLIMITED, "--interval=1h")

    def connect(self) -> socket.socket:
        sock = self.daemon.connect()
        self.addCleanup(sock.close)
        return sock

    def expect(self, sock: socket.socket, expected: bytes) -> None:
        self.assertEqual(read(sock, len(expected)), expected)

    def job(self, sock: socket.socket, encode: object, head: int) -> dict[str, object]:
        """Read the job notification in the given framing and check all of its bytes."""
        if head:
            order = "big" if encode is int32 else "little"
            start = read(sock, head)
            payload = read(sock, int.from_bytes(start[-4:], order))  # type: ignore[arg-type]
            raw = start + payload
        else:
            raw = b""
            while not raw.endswith(b"\n"):
                raw += read(sock, 1)
            payload = raw[:-1]
        job: dict[str, object] = json.loads(payload)["params"]
        made = (
            b'{"id":null,"method":"job","params":{"job_id":%d,"server_nonce":"%b"}}'
            % (job["job_id"], str(job["server_nonce"]).encode())
        )  # fmt: skip
        self.assertEqual(raw, encode(made))  # type: ignore[operator]
        return job


class SamePortTests(ConversationCase):
    """K-01, K-04, K-05, K-37: the bytes of docs/protocol.md, three framings, one port."""

    def converse(self, encode: object, head: int, nonce: bytes) -> None:
        def enc(payload: bytes) -> bytes:
            made: bytes = encode(payload)  # type: ignore[operator]
            return made

        sock = self.connect()
        sock.sendall(enc(b'{"id":1,"method":"authorize","params":{"username":"admin"}}'))
        self.expect(sock, enc(b'{"id":1,"result":true}'))
        job = self.job(sock, encode, head)
        result = sha256(str(job["server_nonce"]).encode() + nonce).hexdigest().encode()

        def submit(message_id: bytes, result: bytes) -> bytes:
            return enc(
                b'{"id":%b,"method":"submit","params":{"job_id":%d,"client_nonce":"%b",'
                b'"result":"%b"}}' % (message_id, job["job_id"], nonce, result)
            )

        sock.sendall(submit(b"2", result))
        self.expect(sock, enc(b'{"id":2,"result":true}'))
        sock.sendall(submit(b'"three"', result))
        self.expect(
            sock,
            enc(b'{"id":"three","result":false,"error":"Duplicate submission","code":22}'),
        )
        sock.sendall(enc(b'{"id":4,"method":"ping"}'))
        self.expect(sock, enc(b'{"id":4,"result":true}'))
        sock.sendall(enc(b'{"id":5,"method":"nope","params":{}}'))
        self.expect(sock, enc(b'{"id":5,"result":false,"error":"unknown method","code":31}'))
        sock.sendall(enc(b'{"id":6,"method":"submit","params":{"job_id":"x"}}'))
        self.expect(
            sock,
            enc(
                b'{"id":6,"result":false,'
                b'"error":"bad params: job_id: expected int, got str","code":32}'
            ),
        )

    def test_frame(self) -> None:
        self.converse(frame, 5, b"frame")

    def test_int32(self) -> None:
        self.converse(int32, 4, b"int32")

    def test_line(self) -> None:
        self.converse(line, 0, b"line")

    def test_line_with_carriage_returns(self) -> None:
        """W-04: who ends its lines with CR LF is answered so."""
        sock = self.connect()
        sock.sendall(b'{"id":1,"method":"authorize","params":{"username":"admin"}}\r\n')
        self.expect(sock, b'{"id":1,"result":true}\r\n')

    def test_unauthorized_in_each_framing(self) -> None:
        """K-14: any other first message ends the connection, with the reason."""
        refusal = b'{"id":1,"result":false,"error":"unauthorized","code":24}'
        notice = (
            b'{"id":null,"method":"close",'
            b'"params":{"reason":"unauthorized","code":4500,"reconnect":false}}'
        )
        for encode, close in (
            (frame, frame(b"unauthorized", 8)),
            (int32, int32(notice)),
            (line, line(notice)),
        ):
            sock = self.connect()
            sock.sendall(encode(b'{"id":1,"method":"ping"}'))
            self.expect(sock, encode(refusal) + close)
            self.assertEqual(sock.recv(1), b"")

    def test_no_framing_of_ours(self) -> None:
        sock = self.connect()
        sock.sendall(b"\xff\xff")
        self.assertIn(b'"reason":"malformed message"', read(sock, 4096))

    def test_tls_is_told_that_there_is_none(self) -> None:
        """K-88: a client that speaks TLS to this port."""
        sock = self.connect()
        sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        self.assertIn(b'"detail":"this port does not speak TLS"', read(sock, 4096))

    def test_http_is_told_where_to_go(self) -> None:
        sock = self.connect()
        sock.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = read(sock, 4096)
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
        self.assertIn(b"HTTP is served on", answer)


class FirstImplementationTests(ConversationCase):
    """K-02, K-03: clients of the first implementation, which speak frame, work unchanged."""

    def authorized(self) -> tuple[socket.socket, dict[str, object]]:
        sock = self.connect()
        sock.sendall(frame(b'{"id":1,"method":"authorize","params":{"username":"admin"}}'))
        self.expect(sock, frame(b'{"id":1,"result":true}'))
        return sock, self.job(sock, frame, 5)

    def test_empty_payloads_are_ignored(self) -> None:
        sock, _ = self.authorized()
        sock.sendall(frame(b"") * 3 + frame(b'{"id":2,"method":"ping"}'))
        self.expect(sock, frame(b'{"id":2,"result":true}'))

    def test_empty_payloads_before_authorize_are_ignored(self) -> None:
        sock = self.connect()
        sock.sendall(frame(b""))
        sock.sendall(frame(b'{"id":1,"method":"authorize","params":{"username":"admin"}}'))
        self.expect(sock, frame(b'{"id":1,"result":true}'))

    def test_html_escaped_strings_are_understood(self) -> None:
        """Go's encoder writes <, > and & as escapes."""
        sock = self.connect()
        sock.sendall(
            frame(b'{"id":1,"method":"authorize","params":{"username":"a\\u003cb\\u003e\\u0026c"}}')
        )
        self.expect(sock, frame(b'{"id":1,"result":true}'))
        job = self.job(sock, frame, 5)
        result = sha256(f"{job['server_nonce']}<n>&".encode()).hexdigest()
        sock.sendall(
            frame(
                b'{"id":2,"method":"submit","params":{"job_id":%d,'
                b'"client_nonce":"\\u003cn\\u003e\\u0026","result":"%b"}}'
                % (job["job_id"], result.encode())
            )
        )
        self.expect(sock, frame(b'{"id":2,"result":true}'))

    def test_upper_case_results_are_right(self) -> None:
        """K-38: hex digits in any case."""
        sock, job = self.authorized()
        result = sha256(f"{job['server_nonce']}upper".encode()).hexdigest().upper()
        sock.sendall(
            frame(
                b'{"id":2,"method":"submit","params":{"job_id":%d,"client_nonce":"upper",'
                b'"result":"%b"}}' % (job["job_id"], result.encode())
            )
        )
        self.expect(sock, frame(b'{"id":2,"result":true}'))

    def test_text_opcode(self) -> None:
        sock, _ = self.authorized()
        sock.sendall(frame(b'{"id":2,"method":"ping"}', 1))
        self.expect(sock, frame(b'{"id":2,"result":true}'))

    def test_ping_is_answered_by_pong_with_its_payload(self) -> None:
        """K-08: a ping comes back as a pong."""
        sock, _ = self.authorized()
        sock.sendall(frame(b"hello", 9) + frame(b"", 9))
        self.expect(sock, frame(b"hello", 10) + frame(b"", 10))

    def test_close_is_answered_by_the_end(self) -> None:
        """K-03: with a reason or without one."""
        for payload in (b"", b"bye"):
            sock, _ = self.authorized()
            sock.sendall(frame(payload, 8))
            self.assertEqual(read(sock, 100), b"")

    def test_answers_come_before_the_end(self) -> None:
        sock, job = self.authorized()
        result = sha256(f"{job['server_nonce']}last".encode()).hexdigest().encode()
        sock.sendall(
            frame(
                b'{"id":2,"method":"submit","params":{"job_id":%d,"client_nonce":"last",'
                b'"result":"%b"}}' % (job["job_id"], result)
            )
            + frame(b"", 8)
        )
        self.assertEqual(read(sock, 1000), frame(b'{"id":2,"result":true}'))

    def test_lengths_that_lie(self) -> None:
        """K-07: refused from the header alone."""
        for length in (0xFFFFFFF0, 65537):
            sock, _ = self.authorized()
            sock.sendall(b"\x02" + length.to_bytes(4, "little"))
            self.expect(sock, frame(b"frame too large", 8))
            self.assertEqual(sock.recv(1), b"")
