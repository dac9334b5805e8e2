"""The splitters and encoders of every framing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.wire import framing as f
from kupool.wire.framing import FRAME, INT32, LINE, LINE_CRLF, Control, Framing, Tlv
from kupool.wire.websocket import WEBSOCKET, WEBSOCKET_BINARY

CAP = 48

TLV = Framing("tlv", f.TlvSplitter, f.encode_tlv, lambda parts: b"".join(map(f.encode_tlv, parts)))

BINARY = st.binary(max_size=CAP)
TEXT_LINE = BINARY.map(lambda data: data.replace(b"\n", b"").rstrip(b"\r")).filter(bool)
CONTROL = st.sampled_from(sorted(set(range(256)) - {f.OP_TEXT, f.OP_BINARY}))


def parts(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut ``data`` at the given places."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


def feed_all(splitter: Any, pieces: list[bytes]) -> list[Any]:
    return [item for piece in pieces for item in splitter.feed(piece)]


class GoldenBytesTests(SynchronousTestCase):
    """K-01: the bytes on the wire are those of the contract."""

    payload = b'{"id":1,"result":true}'

    def test_frame(self) -> None:
        golden = bytes.fromhex("02 16 00 00 00") + self.payload
        self.assertEqual(FRAME.encode(self.payload), golden)
        self.assertEqual(f.encode_frame(self.payload), golden)
        self.assertEqual(f.FrameSplitter(CAP).feed(golden), [self.payload])

    def test_frame_length_is_little_endian(self) -> None:
        self.assertEqual(f.encode_frame(bytes(0x010203))[:5].hex(), "0203020100")
        self.assertEqual(FRAME.encode(bytes(2000))[:5].hex(), "02d0070000")

    def test_int32(self) -> None:
        golden = bytes.fromhex("00 00 00 16") + self.payload
        self.assertEqual(INT32.encode(self.payload), golden)
        self.assertEqual(f.Int32Splitter(CAP).feed(golden), [self.payload])
        self.assertEqual(INT32.encode(bytes(2000))[:4].hex(), "000007d0")

    def test_line(self) -> None:
        self.assertEqual(LINE.encode(self.payload), self.payload + b"\n")
        self.assertEqual(f.LineSplitter(CAP).feed(self.payload + b"\r\n"), [self.payload])

    def test_tlv(self) -> None:
        golden = bytes.fromhex("03 00 00 00 04 03 02 01") + b"abc"
        self.assertEqual(f.encode_tlv(b"abc", 0x01020304), golden)
        self.assertEqual(f.TlvSplitter(CAP).feed(golden), [Tlv(0x01020304, b"abc")])

    def test_tlv_without_an_id(self) -> None:
        self.assertEqual(f.encode_tlv(b"abc"), bytes.fromhex("03 00 00 00 00 00 00 00") + b"abc")

    def test_lengths_around_1024(self) -> None:
        """The headers of shorter messages are made in advance; they are the same."""
        for size in (1023, 1024, 1025):
            payload = bytes(size)
            for framing, head in (
                (FRAME, b"\x02" + size.to_bytes(4, "little")),
                (INT32, size.to_bytes(4, "big")),
            ):
                self.assertEqual(framing.encode(payload), head + payload)
                self.assertEqual(framing.join([payload] * 2), (head + payload) * 2)

    def test_names(self) -> None:
        """As ``connection.framing.name`` says them."""
        framings = (FRAME, INT32, LINE, LINE_CRLF, WEBSOCKET, WEBSOCKET_BINARY)
        self.assertEqual(
            [framing.name for framing in framings],
            ["frame", "int32", "line", "line-crlf", "websocket", "websocket-binary"],
        )

    def test_join_is_the_same_as_encoding_one_by_one(self) -> None:
        for framing in (FRAME, INT32, LINE, TLV):
            for payloads in ([b"a"], [b"a", b"b"], [b"a", b"bcd"], [b"x" * 1500, b"y" * 1500]):
                with self.subTest(framing=framing.name, payloads=len(payloads)):
                    expected = b"".join(map(framing.encode, payloads))
                    self.assertEqual(framing.join(payloads), expected)


class OpcodeTests(SynchronousTestCase):
    """K-02, K-03: the opcodes of `frame`; text and binary carry messages."""

    def test_numbers(self) -> None:
        names = ("CONTINUATION", "TEXT", "BINARY", "CLOSE", "PING", "PONG")
        numbers = [getattr(f, "OP_" + name) for name in names]
        self.assertEqual(numbers, [0x0, 0x1, 0x2, 0x8, 0x9, 0xA])

    def test_text_and_binary_are_data(self) -> None:
        fed = f.FrameSplitter(CAP).feed(f.encode_frame(b"t", 1) + f.encode_frame(b"b", 2))
        self.assertEqual(fed, [b"t", b"b"])

    def test_every_other_opcode_is_handed_on_with_its_payload(self) -> None:
        for opcode in sorted(set(range(256)) - {1, 2}):
            fed = f.FrameSplitter(CAP).feed(f.encode_frame(b"x", opcode))
            self.assertEqual(fed, [Control(opcode, b"x")])


class DetectTests(SynchronousTestCase):
    """Protocol section 1: the first byte decides, and nothing else is taken."""

    def test_every_first_byte(self) -> None:
        expected = dict.fromkeys((0x02, 0x01, 0x08), FRAME) | {0x00: INT32}
        expected |= dict.fromkeys(b"{\t\n\r ", LINE)
        for first in range(256):
            self.assertIs(f.detect(first), expected.get(first), hex(first))


class AnyCutTests(SynchronousTestCase):
    """K-06: the same bytes give the same messages, wherever they are cut."""

    def check(self, make: Any, data: bytes, cuts: list[int], expected: list[Any]) -> None:
        splitter = make(CAP)
        self.assertEqual(feed_all(splitter, parts(data, cuts)), expected)
        self.assertEqual(splitter.buffered, 0)
        self.assertFalse(splitter.too_large)

    @given(
        st.lists(BINARY | st.tuples(CONTROL, BINARY), max_size=6),
        st.lists(st.integers(0, 300), max_size=12),
    )
    def test_frame(self, messages: list[Any], cuts: list[int]) -> None:
        data, expected = b"", []
        for message in messages:
            if isinstance(message, bytes):
                data += f.encode_frame(message)
                expected += [message] if message else []
            else:
                data += f.encode_frame(message[1], message[0])
                expected.append(Control(*message))
        self.check(f.FrameSplitter, data, cuts, expected)

    @given(st.lists(BINARY, max_size=6), st.lists(st.integers(0, 300), max_size=12))
    def test_int32(self, messages: list[bytes], cuts: list[int]) -> None:
        expected = [message for message in messages if message]
        self.check(f.Int32Splitter, b"".join(map(f.encode_int32, messages)), cuts, expected)

    @given(
        st.lists(st.tuples(st.integers(0, 2**32 - 1), BINARY), max_size=6),
        st.lists(st.integers(0, 300), max_size=12),
    )
    def test_tlv(self, messages: list[tuple[int, bytes]], cuts: list[int]) -> None:
        data = b"".join(f.encode_tlv(payload, number) for number, payload in messages)
        self.check(f.TlvSplitter, data, cuts, [Tlv(*message) for message in messages])

    @given(
        st.lists(st.tuples(TEXT_LINE, st.sampled_from([b"\n", b"\r\n", b"\n\n", b"\n\r\n"]))),
        st.lists(st.integers(0, 300), max_size=12),
    )
    def test_line(self, messages: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
        data = b"".join(payload + end for payload, end in messages)
        self.check(f.LineSplitter, data, cuts, [payload for payload, _ in messages])

    def test_every_two_cuts_of_one_stream(self) -> None:
        payloads = [b"{}", b"x" * CAP, b'{"id":1}', b"y"]
        for framing in (FRAME, INT32, LINE, TLV):
            data = b"".join(map(framing.encode, payloads))
            expected = feed_all(framing.splitter(CAP), [data])
            self.assertEqual(len(expected), 4)
            for a in range(len(data) + 1):
                for b in range(a, len(data) + 1):
                    got = feed_all(framing.splitter(CAP), [data[:a], data[a:b], data[b:]])
                    self.assertEqual(got, expected, (framing.name, a, b))

    def test_one_byte_at_a_time(self) -> None:
        for framing in (FRAME, INT32, LINE, TLV):
            data = b"".join(map(framing.encode, [b"a", b"b" * CAP, b"c" * 7]))
            expected = feed_all(framing.splitter(CAP), [data])
            got = feed_all(framing.splitter(CAP), [bytes((byte,)) for byte in data])
            self.assertEqual(got, expected, framing.name)


class PieceTests(SynchronousTestCase):
    def test_the_rest_of_a_message_is_waited_for(self) -> None:
        """What is held is only looked at when enough is there. Otherwise a peer that sends a byte
        at a time would cost much.
        """
        for framing, looks in ((FRAME, [5, 53]), (INT32, [4, 52]), (TLV, [8, 56]), (LINE, [49])):
            looked: list[int] = []

            class Watched(framing.splitter):  # type: ignore[misc,name-defined]
                def _complete(self, data: bytes, looked: list[int] = looked) -> bytes:
                    whole: bytes = super()._complete(data)
                    looked += [len(whole)] if whole else []
                    return whole

            data = framing.encode(b"x" * 48)
            got = feed_all(Watched(CAP), [bytes((byte,)) for byte in data])
            self.assertEqual((len(got), looked), (1, looks), framing.name)


class AnyBytesTests(SynchronousTestCase):
    """K-06: no bytes raise, and no more is held than a message and a read."""

    @given(
        st.sampled_from([FRAME, INT32, LINE, TLV]),
        st.integers(0, 64),
        st.lists(st.binary(max_size=200), max_size=20),
    )
    def test_arbitrary_bytes(self, framing: Framing, cap: int, reads: list[bytes]) -> None:
        splitter: Any = framing.splitter(cap)
        for read in reads:
            refused = splitter.too_large
            for item in splitter.feed(read):
                self.assertFalse(refused)
                payload = item if isinstance(item, bytes) else item.payload
                self.assertLessEqual(len(payload), cap)
            limit = cap + f.TLV_HEADER + len(read)
            self.assertLessEqual(splitter.buffered, f.MAX_SPARE if refused else limit)

    @given(st.sampled_from([FRAME, INT32, TLV, LINE]), st.binary(min_size=1, max_size=9))
    def test_small_pieces_for_ever(self, framing: Framing, piece: bytes) -> None:
        splitter: Any = framing.splitter(CAP)
        for _ in range(200):
            splitter.feed(piece)
            if splitter.too_large:
                break
            self.assertLessEqual(splitter.buffered, CAP + f.TLV_HEADER + len(piece))

    def test_half_a_header_for_ever(self) -> None:
        for make, header in ((f.FrameSplitter, 5), (f.Int32Splitter, 4), (f.TlvSplitter, 8)):
            splitter = make(CAP)
            half = bytes(header - 1)
            self.assertEqual(splitter.feed(half), [])
            for _ in range(1000):
                self.assertEqual(splitter.feed(b""), [])
            self.assertEqual(splitter.buffered, header - 1)
            self.assertFalse(splitter.too_large)


class LengthTests(SynchronousTestCase):
    """K-06, K-07: lengths at the limit pass, those above it are refused by the header."""

    headers = {
        "frame": lambda size: b"\x02" + size.to_bytes(4, "little"),
        "int32": lambda size: size.to_bytes(4, "big"),
        "tlv": lambda size: size.to_bytes(4, "little") + bytes(4),
    }

    def test_one_and_the_limit(self) -> None:
        for framing in (FRAME, INT32, TLV):
            for size in (1, CAP - 1, CAP):
                splitter = framing.splitter(CAP)
                (item,) = splitter.feed(self.headers[framing.name](size) + bytes(size))
                payload = item if isinstance(item, bytes) else item.payload
                self.assertEqual((payload, splitter.too_large), (bytes(size), False))

    def test_empty_payloads_are_skipped(self) -> None:
        """The first clients send them; only ``tlv`` messages may be empty."""
        for framing in (FRAME, INT32):
            splitter = framing.splitter(CAP)
            self.assertEqual(splitter.feed(self.headers[framing.name](0) * 3), [])
            self.assertEqual(splitter.feed(framing.encode(b"x")), [b"x"])
        self.assertEqual(TLV.splitter(CAP).feed(self.headers["tlv"](0)), [Tlv(0, b"")])

    def test_above_the_limit_from_the_header_alone(self) -> None:
        for framing in (FRAME, INT32, TLV):
            for size in (CAP + 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF):
                splitter: Any = framing.splitter(CAP)
                header = self.headers[framing.name](size)
                self.assertEqual(feed_all(splitter, [bytes((b,)) for b in header]), [])
                self.assertTrue(splitter.too_large, (framing.name, size))
                self.assertEqual(splitter.buffered, len(header))

    def test_what_came_before_is_handed_out(self) -> None:
        for framing in (FRAME, INT32, TLV):
            splitter = framing.splitter(CAP)
            data = framing.encode(b"before") + self.headers[framing.name](CAP + 1) + b"after"
            self.assertEqual(len(splitter.feed(data)), 1)
            self.assertTrue(splitter.too_large)
            self.assertEqual(splitter.feed(framing.encode(b"later")), [])

    def test_line_limit_does_not_count_its_end(self) -> None:
        for end in (b"\n", b"\r\n"):
            self.assertEqual(f.LineSplitter(CAP).feed(b"x" * CAP + end), [b"x" * CAP])
            splitter = f.LineSplitter(CAP)
            self.assertEqual(splitter.feed(b"x" * (CAP + 1) + end), [])
            self.assertTrue(splitter.too_large)

    def test_line_without_an_end(self) -> None:
        splitter = f.LineSplitter(CAP)
        fed = 0
        while not splitter.too_large:
            self.assertEqual(splitter.feed(b"x"), [])
            fed += 1
            self.assertLessEqual(fed, CAP + 2)
        self.assertGreater(fed, CAP)

    def test_cr_at_the_limit_waits_for_its_lf(self) -> None:
        splitter = f.LineSplitter(CAP)
        self.assertEqual(splitter.feed(b"x" * CAP + b"\r"), [])
        self.assertFalse(splitter.too_large)
        self.assertEqual(splitter.feed(b"\n"), [b"x" * CAP])


class ResumeTests(SynchronousTestCase):
    """K-07: a refused message is taken after all once the limit is raised."""

    def refused(self, framing: Framing) -> Any:
        splitter: Any = framing.splitter(4)
        data = framing.encode(b"abc") + framing.encode(b"x" * CAP) + framing.encode(b"y")
        self.assertEqual(len(splitter.feed(data)), 1)
        self.assertTrue(splitter.too_large)
        return splitter

    def payloads(self, items: list[Any]) -> list[bytes]:
        return [item if isinstance(item, bytes) else item.payload for item in items]

    def test_goes_on_where_it_stopped(self) -> None:
        for framing in (FRAME, INT32, TLV, LINE):
            splitter = self.refused(framing)
            splitter.max_payload = CAP
            self.assertEqual(self.payloads(splitter.resume()), [b"x" * CAP, b"y"])
            self.assertFalse(splitter.too_large)
            self.assertEqual(self.payloads(splitter.feed(framing.encode(b"z"))), [b"z"])

    def test_stays_refused_without_a_higher_limit(self) -> None:
        for framing in (FRAME, INT32, TLV, LINE):
            splitter = self.refused(framing)
            self.assertEqual(splitter.resume(), [])
            self.assertTrue(splitter.too_large)

    def test_bytes_that_come_meanwhile_are_kept_in_order(self) -> None:
        for framing in (FRAME, INT32, TLV, LINE):
            splitter = self.refused(framing)
            more = framing.encode(b"z")
            self.assertEqual(feed_all(splitter, [more[:1], more[1:]]), [])
            splitter.max_payload = CAP
            self.assertEqual(self.payloads(splitter.resume()), [b"x" * CAP, b"y", b"z"])

    def test_how_much_is_kept_meanwhile(self) -> None:
        """128 KiB with what was refused; with one byte more the stream is lost."""
        for framing in (FRAME, INT32, TLV, LINE):
            for more, kept in ((0, 131_072), (1, 0)):
                splitter = self.refused(framing)
                splitter.feed(bytes(131_072 - splitter.buffered + more))
                self.assertEqual(splitter.buffered, kept)

    def test_a_flood_meanwhile_is_dropped_and_never_resumed(self) -> None:
        for framing in (FRAME, INT32, TLV, LINE):
            splitter = self.refused(framing)
            for _ in range(2 * f.MAX_SPARE // 4096):
                splitter.feed(bytes(4096))
                self.assertLessEqual(splitter.buffered, f.MAX_SPARE)
            splitter.max_payload = CAP
            self.assertEqual(splitter.resume(), [])
            self.assertTrue(splitter.too_large)
            self.assertEqual(splitter.feed(framing.encode(b"z")), [])
            self.assertEqual(splitter.buffered, 0)


class DiscardingTests(SynchronousTestCase):
    def test_its_limit(self) -> None:
        """That of the peer, which nothing exceeds."""
        splitter = f.Discarding(CAP)
        self.assertEqual((splitter.max_payload, splitter.corrupt), (CAP, False))
        self.assertEqual(f.Discarding().max_payload, 0)

    def test_everything_is_dropped(self) -> None:
        splitter = f.Discarding(CAP)
        self.assertEqual(list(splitter.feed(b"x" * 1000)) + list(splitter.resume()), [])
        self.assertFalse(splitter.too_large)
