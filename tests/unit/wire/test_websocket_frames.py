"""The frames that the server sends over WebSocket."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import CLOSE_MALFORMED, CLOSE_REASONS, CLOSE_UNAUTHORIZED
from kupool.wire.messages import close_message
from kupool.wire.websocket import (
    WEBSOCKET,
    WEBSOCKET_BINARY,
    WholeMessages,
    encode_websocket,
    encode_websocket_close,
)


def decode(data: bytes) -> tuple[int, bytes, bytes]:
    """Read one unmasked frame as RFC 6455 says: first byte, payload, and the rest."""
    first, size = data[0], data[1]
    start = 2
    if size == 126:
        size, start = int.from_bytes(data[2:4], "big"), 4
    elif size == 127:
        size, start = int.from_bytes(data[2:10], "big"), 10
    return first, data[start : start + size], data[start + size :]


class FrameTests(SynchronousTestCase):
    """K-12: each payload is one message, text or binary."""

    def test_golden_bytes(self) -> None:
        self.assertEqual(WEBSOCKET.encode(b'{"id":1}'), b'\x81\x08{"id":1}')
        self.assertEqual(WEBSOCKET_BINARY.encode(b'{"id":1}'), b'\x82\x08{"id":1}')

    def test_lengths_take_the_shortest_form(self) -> None:
        for size, head in (
            (0, b"\x81\x00"),
            (125, b"\x81\x7d"),
            (126, b"\x81\x7e\x00\x7e"),
            (65535, b"\x81\x7e\xff\xff"),
            (65536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
        ):
            self.assertEqual(encode_websocket(b"x" * size), head + b"x" * size)

    @given(st.lists(st.binary(min_size=1, max_size=300), min_size=1), st.booleans())
    def test_a_run_of_messages_keeps_its_boundaries(self, payloads: list[bytes], b: bool) -> None:
        framing = WEBSOCKET_BINARY if b else WEBSOCKET
        data, found = framing.join(payloads), []
        while data:
            first, payload, data = decode(data)
            self.assertEqual(first, 0x82 if b else 0x81)
            found.append(payload)
        self.assertEqual(found, payloads)

    def test_close_carries_code_and_reason(self) -> None:
        for framing in (WEBSOCKET, WEBSOCKET_BINARY):
            data = close_message(framing, CLOSE_UNAUTHORIZED, 60.0)
            self.assertEqual(data, b"\x88\x0e\x11\x94unauthorized")

    def test_every_reason_is_a_close_that_a_browser_takes(self) -> None:
        for reason in CLOSE_REASONS:
            first, payload, rest = decode(close_message(WEBSOCKET, reason))
            code = int.from_bytes(payload[:2], "big")
            self.assertEqual((first, rest), (0x88, b""))
            self.assertEqual(payload[2:].decode(), reason.reason)
            self.assertEqual(code, 1008 if reason is CLOSE_MALFORMED else reason.code)

    def test_a_long_reason_is_cut_between_characters(self) -> None:
        first, payload, rest = decode(encode_websocket_close(4000, "é" * 100))
        self.assertEqual((first, rest), (0x88, b""))
        self.assertEqual(payload[2:].decode(), "é" * 61)
        self.assertTrue(len(payload) <= 125)

    def test_messages_come_whole(self) -> None:
        splitter = WholeMessages(10)
        self.assertEqual(splitter.feed(b"one"), [b"one"])
        self.assertEqual(splitter.feed(b""), [])
        self.assertEqual(splitter.resume(), [])


class ImportTests(SynchronousTestCase):
    """The web room is used by the plugin's tap, before it is known which reactor runs."""

    def test_importing_it_installs_no_reactor(self) -> None:
        program = "import sys, kupool.web.site; print('twisted.internet.reactor' in sys.modules)"
        found = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[3],
        )
        self.assertEqual(found.stdout.strip(), "False")
