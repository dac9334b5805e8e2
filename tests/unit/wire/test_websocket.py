"""Issue 12: reading WebSocket (RFC 6455): messages in any pieces, and what is no WebSocket."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import CLOSE_MALFORMED, CLOSE_REASONS, CLOSE_UNAUTHORIZED
from kupool.wire.messages import close_message
from kupool.wire.websocket import (
    CLOSE,
    INVALID_PAYLOAD,
    NORMAL,
    PING,
    POLICY_VIOLATION,
    PONG,
    PROTOCOL_ERROR,
    SUBPROTOCOL,
    VERSION,
    WEBSOCKET,
    WEBSOCKET_BINARY,
    FrameReader,
    WebSocketEvent,
    WholeMessages,
    accept_key,
    choose_subprotocol,
    encode_websocket,
    encode_websocket_close,
)
from tests.fakes.websocket_frames import frame

PART = WebSocketEvent(0, b"")


def read(reader: FrameReader, data: bytes = b"") -> list[WebSocketEvent]:
    """Add bytes, and return what they complete, parts of messages left out."""
    reader.add(data)
    events = []
    while (event := reader.next()) is not None:
        if event.opcode:
            events.append(event)
    return events


class MessageTests(SynchronousTestCase):
    def test_kinds(self) -> None:
        reader = FrameReader(100)
        data = frame(0x81, "é".encode()) + frame(0x82, b"\xff") + frame(0x89, b"?")
        data += frame(0x8A, b"") + frame(0x88, b"\x03\xe8bye")
        expected = [(1, "é".encode()), (2, b"\xff"), (9, b"?"), (10, b""), (8, b"\x03\xe8bye")]
        self.assertEqual(read(reader, data), expected)
        self.assertEqual((reader.buffered, reader.broken), (0, 0))

    def test_lengths_and_masks(self) -> None:
        for size in (0, 1, 3, 4, 5, 125, 126, 127, 65535, 65536, 70001):
            for mask in (b"\0\0\0\0", b"\xff\x00\x80\x01"):
                payload = os.urandom(size)
                reader = FrameReader(size)
                self.assertEqual(read(reader, frame(0x82, payload, mask=mask)), [(2, payload)])

    def test_a_byte_at_a_time(self) -> None:
        for size in (0, 125, 126, 300, 65_536):
            reader, payload = FrameReader(size), b"x" * size
            data = frame(0x82, payload)
            found = [event for at in range(20) for event in read(reader, data[at : at + 1])]
            found += read(reader, data[20:])
            self.assertEqual(found, [(2, payload)])

    def test_what_is_held_between_two_events(self) -> None:
        reader = FrameReader(100)
        self.assertEqual((reader.too_large, reader.buffered), (False, 0))
        first, second = frame(0x82, b"abc"), frame(0x82, b"de")
        reader.add(first + second)
        self.assertEqual(reader.buffered, len(first) + len(second))
        reader.next()
        self.assertEqual(reader.buffered, len(second))
        reader.next()
        self.assertEqual(reader.buffered, 0)

    def test_a_part_of_a_message(self) -> None:
        """It has no opcode and no payload: the message comes as a whole."""
        reader = FrameReader(100)
        reader.add(frame(0x01, b"abc"))
        self.assertEqual(reader.next(), (0, b""))
        reader.add(frame(0x80, b"de"))
        self.assertEqual(reader.next(), (1, b"abcde"))

    @given(
        st.lists(st.tuples(st.binary(max_size=200), st.lists(st.integers(0, 200)))),
        st.lists(st.integers(1, 50)),
    )
    def test_any_fragments_in_any_pieces(
        self, messages: list[tuple[bytes, list[int]]], cuts: list[int]
    ) -> None:
        """Fragments, empty ones too, with a ping between each two; cut into reads anywhere."""
        data, expected = b"", []
        for payload, places in messages:
            ends = [*sorted(min(place, len(payload)) for place in places), len(payload)]
            start = 0
            for number, end in enumerate(ends):
                final = 0x80 if number == len(ends) - 1 else 0
                data += frame(final | (0 if number else 2), payload[start:end])
                start = end
                if not final:
                    data += frame(0x89, b"p")
                    expected.append(WebSocketEvent(9, b"p"))
            expected.append(WebSocketEvent(2, payload))
        reader, found, at = FrameReader(200), [], 0
        for cut in cuts:
            found += read(reader, data[at : at + cut])
            at += cut
        found += read(reader, data[at:])
        self.assertEqual(found, expected)
        self.assertEqual((reader.buffered, reader.broken, reader.too_large), (0, 0, False))

    @given(st.lists(st.binary(max_size=300)), st.booleans())
    def test_it_never_raises(self, pieces: list[bytes], discarding: bool) -> None:
        reader = FrameReader(50)
        if discarding:
            reader.discard()
        for piece in pieces:
            for event in read(reader, piece):
                self.assertTrue(len(event.payload) <= 125)
        self.assertIn(reader.broken, (0, 1002, 1007))


class LimitTests(SynchronousTestCase):
    """K-07: a size over the limit is seen from headers alone, however it is cut."""

    def test_from_a_header(self) -> None:
        for data in (
            frame(0x81, b"", length=101),
            frame(0x82, b"", length=65536),
            frame(0x01, b"", length=2**62),
            frame(0x01, b"x" * 100) + frame(0x00, b"", length=1),
        ):
            reader = FrameReader(100)
            self.assertEqual(read(reader, data), [])
            self.assertTrue(reader.too_large)
            self.assertTrue(reader.buffered <= 114)

    def test_a_limit_that_is_raised(self) -> None:
        reader = FrameReader(10)
        self.assertEqual(read(reader, frame(0x81, b"x" * 11) + frame(0x81, b"y")), [])
        self.assertTrue(reader.too_large)
        reader.max_payload = 11
        self.assertEqual(read(reader), [(1, b"x" * 11), (1, b"y")])
        self.assertFalse(reader.too_large)

    def test_thrown_away(self) -> None:
        """What is thrown away is not kept; control frames behind it are read."""
        reader = FrameReader(10)
        read(reader, frame(0x01, b"abc") + frame(0x00, b"", length=2**20))
        reader.discard()
        self.assertFalse(reader.too_large)
        for _ in range(16):
            read(reader, b"x" * 65536)
            self.assertEqual(reader.buffered, 1)  # it is in a message
            self.assertEqual(len(reader._data), 0)
        self.assertEqual(read(reader, frame(0x80, b"end") + frame(0x88, b"")), [(8, b"")])
        self.assertEqual(reader.buffered, 0)

    def test_memory_of_many_fragments(self) -> None:
        """Issue 12: a message costs its size, in however many frames it comes."""
        reader = FrameReader(200_000)
        piece = frame(0x00, b"ab") * 1000
        read(reader, frame(0x01, b"ab"))
        tracemalloc.start()
        try:
            for _ in range(19):
                read(reader, piece)
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual(reader.buffered, 38_002)
        self.assertTrue(kept < 60_000, kept)
        self.assertEqual(read(reader, frame(0x80, b"c")), [(1, b"ab" * 19_001 + b"c")])

    def test_what_is_held_of_a_message(self) -> None:
        """Its finished fragments, and the bytes of the one that is not finished."""
        reader = FrameReader(100)
        read(reader, frame(0x01, b"abc"))
        self.assertEqual((reader.buffered, reader.in_message), (3, True))
        rest = frame(0x80, b"de")
        read(reader, rest[:5])
        self.assertEqual(reader.buffered, 8)
        self.assertEqual(read(reader, rest[5:]), [(1, b"abcde")])
        self.assertEqual((reader.buffered, reader.in_message), (0, False))

    def test_the_messages_that_are_discarded_are_no_more_than_themselves(self) -> None:
        """Of several in one read, whole or in fragments; what stands among them is read."""
        reader = FrameReader(100)
        read(reader, frame(0x01, b"begun"))
        reader.discard()
        data = frame(0x00, b"x" * 300) + frame(0x89, b"1") + frame(0x80, b"x")
        data += frame(0x82, b"abc") + frame(0x82, b"de") + frame(0x89, b"2") + frame(0x82, b"f")
        self.assertEqual(read(reader, data + frame(0x88, b"")), [(9, b"1"), (9, b"2"), (8, b"")])
        self.assertEqual((reader.broken, reader.buffered, reader.in_message), (0, 0, False))

    def test_a_discarded_message_in_two_reads(self) -> None:
        """Of the first read no more is passed over than there is."""
        reader = FrameReader(100)
        reader.discard()
        data = frame(0x89, b"x" * 100) + frame(0x82, b"x" * 300) + frame(0x89, b"2")
        self.assertEqual(read(reader, data[:300]), [(9, b"x" * 100)])
        self.assertEqual(read(reader, data[300:]), [(9, b"2")])

    def test_empty_fragments_are_nothing(self) -> None:
        reader = FrameReader(10)
        read(reader, frame(0x01, b""))
        for _ in range(100):
            self.assertEqual(read(reader, frame(0x00, b"") * 100), [])
        self.assertEqual((reader.buffered, reader.in_message), (1, True))
        self.assertEqual(read(reader, frame(0x80, b"end")), [(1, b"end")])
        self.assertFalse(reader.in_message)


class BrokenTests(SynchronousTestCase):
    """What is no WebSocket is said by the close code of RFC 6455, and ends the reading."""

    def test_each_rule(self) -> None:
        ping = b'{"id":7,"method":"ping"}'
        cases: list[tuple[bytes, int]] = [
            (b"\x81\x18" + ping, 1002),  # not masked
            (frame(0xC1, b""), 1002),  # a reserved bit
            (frame(0x83, b""), 1002),  # reserved opcodes
            (frame(0x8B, b""), 1002),
            (frame(0x80, b""), 1002),  # the end of no message
            (frame(0x01, b"a") + frame(0x81, b"b"), 1002),  # a message in another
            (frame(0x09, b""), 1002),  # a control frame in pieces
            (frame(0x89, b"x" * 126), 1002),  # a control frame that is too long
            (b"\x82\xfe\x00\x05", 1002),  # a length that is not in its shortest form
            (b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff", 1002),
            (b"\x82\xff\x80\x00\x00\x00\x00\x00\x00\x00", 1002),
            (frame(0x88, b"\x03"), 1002),  # half a close code
            (frame(0x88, b"\x03\xe7"), 1002),  # codes that nobody may send
            (frame(0x88, b"\x03\xed"), 1002),
            (frame(0x88, b"\x13\x88"), 1002),
            (frame(0x88, b"\x03\xe8\xff"), 1007),  # a reason that is no text
            (frame(0x81, b"\xff\xff"), 1007),  # nor is this
            (frame(0x01, b"\xc3") + frame(0x80, b"\xc3"), 1007),
        ]
        for data, code in cases:
            reader = FrameReader(1000)
            good = frame(0x82, b"good")
            self.assertEqual(read(reader, good + data + good), [(2, b"good")], data)
            self.assertEqual(reader.broken, code, data)
            self.assertEqual(read(reader, good * 1000), [])
            self.assertEqual(reader.buffered, 0)

    def test_the_first_two_bytes_are_enough(self) -> None:
        for data in (b"\x81\x05", b"\x81\x06", b"\xc1\x85", b"\x83\x85"):
            reader = FrameReader(1000)
            self.assertEqual(read(reader, data), [])
            self.assertEqual(reader.broken, 1002, data)

    def test_every_opcode(self) -> None:
        """RFC 6455, section 5.2: those that are reserved break the protocol."""
        for opcode in range(16):
            reader = FrameReader(1000)
            read(reader, frame(0x80 | opcode, b""))
            self.assertEqual(reader.broken, 0 if opcode in (1, 2, 8, 9, 10) else 1002, opcode)

    def test_which_close_codes_may_be_sent(self) -> None:
        """RFC 6455, section 7.4, and the registry of codes: all others break the protocol."""
        known = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}
        for code in (*range(990, 1025), 2999, 3000, 4999, 5000):
            reader = FrameReader(1000)
            read(reader, frame(0x88, code.to_bytes(2, "big")))
            fits = code in known or 3000 <= code < 5000
            self.assertEqual(reader.broken, 0 if fits else 1002, code)

    def test_the_longest_control_frame(self) -> None:
        for opcode in (0x89, 0x8A):
            reader = FrameReader(1000)
            self.assertEqual(read(reader, frame(opcode, b"x" * 125)), [(opcode & 0xF, b"x" * 125)])

    def test_the_shortest_of_each_form_of_a_length(self) -> None:
        """126 bytes take two for their length, 65,536 eight."""
        for head, broken in (
            (b"\x82\xfe\x00\x7d", 1002),
            (b"\x82\xfe\x00\x7e", 0),
            (b"\x82\xff\x00\x00\x00\x00\x00\x00\xff\xff", 1002),
            (b"\x82\xff\x00\x00\x00\x00\x00\x01\x00\x00", 0),
            (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff", 0),
        ):
            reader = FrameReader(1 << 62)
            self.assertEqual(read(reader, head), [])
            self.assertEqual(reader.broken, broken, head)

    def test_a_character_in_two_fragments(self) -> None:
        reader = FrameReader(10)
        self.assertEqual(
            read(reader, frame(0x01, b"\xc3") + frame(0x80, b"\xa9")), [(1, "é".encode())]
        )


class HandshakeTests(SynchronousTestCase):
    def test_the_version_and_the_name(self) -> None:
        """RFC 6455, section 4.1, and docs/protocol.md."""
        self.assertEqual((VERSION, SUBPROTOCOL), (b"13", "kupool"))

    def test_the_answer_to_a_key(self) -> None:
        """The example of RFC 6455, section 1.3."""
        self.assertEqual(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        for key in (b"", b"short==", b"dGhlIHNhbXBsZSBub25jZ!==", b"dGhlIHNhbXBsZSBub25jZQ==\n"):
            self.assertRaises(ValueError, accept_key, key)

    def test_subprotocols(self) -> None:
        """Issue 12: ``kupool`` where it is offered, else the first; none where none is."""
        for offers, chosen in (
            ([], ""),
            ([""], ""),
            ([" , ,"], ""),
            (["chat"], "chat"),
            (["chat, superchat"], "chat"),
            (["chat", "superchat,kupool "], "kupool"),
            (["Kupool"], "Kupool"),
            (["a b, \ufffd, é, c(d), v1.json"], "v1.json"),
            (["a\r\nSet-Cookie: x"], ""),
        ):
            self.assertEqual(choose_subprotocol(offers), chosen, offers)


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

    def test_control_frames(self) -> None:
        """RFC 6455, section 5.5: each is whole, so its first bit is set."""
        frames = [encode_websocket(b"x", first) for first in (CLOSE, PING, PONG)]
        self.assertEqual(frames, [b"\x88\x01x", b"\x89\x01x", b"\x8a\x01x"])

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
        first, payload, rest = decode(encode_websocket_close(4000, "x" * 200))
        self.assertEqual((first, payload[2:], rest), (0x88, b"x" * 123, b""))
        self.assertEqual(encode_websocket_close(4000, "a\udcff")[4:], b"a?")

    def test_the_codes_of_this_side(self) -> None:
        """RFC 6455, section 7.4.1."""
        codes = (NORMAL, PROTOCOL_ERROR, INVALID_PAYLOAD, POLICY_VIOLATION)
        self.assertEqual(codes, (1000, 1002, 1007, 1008))

    def test_codes_that_nobody_may_send(self) -> None:
        """A close with one of them says that a rule of this side was broken."""
        for code, sent in ((999, 1008), (1000, 1000), (1001, 1008), (2999, 1008),
                           (3000, 3000), (4999, 4999), (5000, 1008)):  # fmt: skip
            self.assertEqual(encode_websocket_close(code, "x")[2:4], sent.to_bytes(2, "big"))

    def test_messages_come_whole(self) -> None:
        splitter = WholeMessages(10)
        self.assertEqual((splitter.buffered, splitter.corrupt), (0, False))
        self.assertEqual((splitter.max_payload, splitter.too_large), (10, False))
        self.assertEqual(splitter.feed(b"one"), [b"one"])
        self.assertEqual(splitter.feed(b""), [])
        splitter.too_large = True
        self.assertEqual((splitter.resume(), splitter.too_large), ([], False))


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
