"""Every codec: bytes to messages and back, limits in both directions, and nonsense."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.remote.compatible import CompatibleCodec
from kupool.net.routing.interceptors import Intercepted
from kupool.wire.codecs import (
    CODECS,
    Codec,
    CrcCodec,
    FramingCodec,
    JsonCodec,
    LengthFieldCodec,
    LineCodec,
    TlvCodec,
    framing_of,
)
from kupool.wire.framing import FRAME, INT32
from kupool.wire.packets import MAX_MESSAGE_ID, UNLIMITED, MessageTooLarge, NumberedMessage
from kupool.wire.splitters import MAX_SPARE, Tlv, TlvSplitter

CAP = 40

#: A whole message has at most so many bytes beside its data.
HEAD = 16

WITH_IDS: dict[str, Codec] = {
    name: CODECS[name](CAP) for name in ("tlv", "tlv-big", "tag-first", "ltv", "tlv-crc")
}

LENGTHS: dict[str, Codec] = {
    "plain": LengthFieldCodec(max_payload=CAP),
    "one byte": LengthFieldCodec(width=1, max_payload=CAP),
    "three, little": LengthFieldCodec(width=3, byteorder="little", max_payload=CAP),
    "eight": LengthFieldCodec(width=8, max_payload=CAP),
    "counts itself": LengthFieldCodec(width=2, adjust=-2, max_payload=CAP),
    "counts less": LengthFieldCodec(width=2, adjust=3, max_payload=CAP + 3),
    "behind a magic": LengthFieldCodec(offset=4, width=2, head=b"KuPo", max_payload=CAP),
    "crc": CrcCodec(LengthFieldCodec(max_payload=CAP + 4)),
}

BARE: dict[str, Codec] = {
    **LENGTHS,
    "int32": CODECS["int32"](CAP),
    "frame": CODECS["frame"](CAP),
    "frame crc": CrcCodec(FramingCodec(FRAME, max_payload=CAP + 4)),
}

LINES: dict[str, Codec] = {name: CODECS[name](CAP) for name in ("line", "json")}

ALL = {**WITH_IDS, **BARE, **LINES}

DATA = st.binary(max_size=CAP)
CUTS = st.lists(st.integers(0, 300), max_size=12)


def parts(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut ``data`` at the given places."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[a:b] for a, b in pairwise(places)]


def feed(codec: Codec, pieces: list[bytes], limit: int = UNLIMITED) -> tuple[Any, list[Any]]:
    splitter: Any = codec.splitter(limit)
    return splitter, [item for piece in pieces for item in splitter.feed(piece)]


class MessageTests(SynchronousTestCase):
    """P-35: a message has an id, a length and data; the length is always that of the data."""

    def test_length_follows_the_data(self) -> None:
        message = NumberedMessage(7, b"abc")
        self.assertEqual((message.message_id, message.length, message.data), (7, 3, b"abc"))
        message.data = b"longer than before"
        self.assertEqual(message.length, 18)
        message.message_id = 9
        packed = TlvCodec().pack(message)
        self.assertEqual(packed, b"\x12\0\0\0\x09\0\0\0longer than before")
        self.assertEqual(message.item, Tlv(9, b"longer than before"))
        self.assertEqual(repr(NumberedMessage(1, b"x")), "NumberedMessage(1, b'x')")
        self.assertEqual(repr(NumberedMessage()), "NumberedMessage(0, b'')")
        with self.assertRaises(AttributeError):
            message.length = 3  # type: ignore[misc]

    def test_ids_have_32_bits(self) -> None:
        self.assertEqual(MAX_MESSAGE_ID, 0xFFFFFFFF)
        message = NumberedMessage(MAX_MESSAGE_ID)
        for wrong in (-1, MAX_MESSAGE_ID + 1):
            with self.assertRaises(ValueError):
                message.message_id = wrong
            with self.assertRaises(ValueError):
                TlvCodec().pack(Tlv(wrong, b""))
        self.assertEqual(message.message_id, MAX_MESSAGE_ID)


class GoldenTests(SynchronousTestCase):
    """P-36, P-40: the bytes on the wire, written by hand."""

    def check(self, codec: Codec, message: Any, wire: bytes, item: Any = None) -> None:
        self.assertEqual(codec.pack(message), wire)
        self.assertEqual(list(codec.splitter(CAP).feed(wire)), [message if item is None else item])

    def test_length_then_id_little_endian_then_data(self) -> None:
        """P-36: the head is 8 bytes."""
        for codec in (TlvCodec(), CODECS["tlv"](0), CODECS["ltv"](0)):
            wire = bytes.fromhex("03000000 2d010000") + b"abc"
            self.check(codec, Tlv(301, b"abc"), wire)
            self.check(codec, b"abc", b"\x03" + bytes(7) + b"abc", Tlv(0, b"abc"))
        self.assertEqual(TlvCodec.HEAD, 8)

    def test_the_usual_order_has_the_fast_splitter(self) -> None:
        for codec, fast in (
            (TlvCodec(), True),
            (TlvCodec("big"), False),
            (TlvCodec(order="id"), False),
        ):
            self.assertIs(type(codec.splitter(CAP)) is TlvSplitter, fast)

    def test_big_endian(self) -> None:
        wire = bytes.fromhex("00000003 0000012d") + b"abc"
        self.check(CODECS["tlv-big"](0), Tlv(301, b"abc"), wire)

    def test_id_first(self) -> None:
        wire = bytes.fromhex("0000012d 00000003") + b"abc"
        self.check(CODECS["tag-first"](0), Tlv(301, b"abc"), wire)
        little = TlvCodec(order="id")
        self.check(little, Tlv(301, b"abc"), bytes.fromhex("2d010000 03000000") + b"abc")

    def test_checksum(self) -> None:
        total = crc32(b"\x2d\x01\0\0abc").to_bytes(4, "little")
        wire = bytes.fromhex("07000000 2d010000") + b"abc" + total
        self.check(CODECS["tlv-crc"](0), Tlv(301, b"abc"), wire)
        self.assertEqual(CODECS["tlv-crc"](0).pack(NumberedMessage(301, b"abc")), wire)
        bare = crc32(b"\0\0\0\0abc").to_bytes(4, "little")
        self.assertEqual(CODECS["tlv-crc"](0).pack(b"abc")[-4:], bare)
        plain = crc32(b"abc").to_bytes(4, "little")
        self.check(CrcCodec(LengthFieldCodec()), b"abc", b"\0\0\0\x07abc" + plain)

    def test_length_fields(self) -> None:
        for codec, data, wire in (
            (LengthFieldCodec(), b"abc", b"\0\0\0\x03abc"),
            (LengthFieldCodec(width=2, byteorder="little"), b"abc", b"\x03\0abc"),
            # the length counts itself
            (LengthFieldCodec(width=2, adjust=-2), b"abc", b"\0\x05abc"),
            # two bytes of header between the length and what it counts
            (LengthFieldCodec(width=1, adjust=2), b"HHabc", b"\x03HHabc"),
            # a magic before it, stripped or not
            (LengthFieldCodec(offset=2, width=1, head=b"MG"), b"abc", b"MG\x03abc"),
            (LengthFieldCodec(offset=2, width=1, strip=0), b"MG\x03abc", b"MG\x03abc"),
            (LengthFieldCodec(offset=2, width=1, strip=1, head=b"M"), b"G\x03abc", b"MG\x03abc"),
            # stripped beyond the length
            (LengthFieldCodec(width=1, strip=3), b"abc", b"\x05\0\0abc"),
        ):
            self.check(codec, data, wire)

    def test_a_length_that_is_part_of_the_data_is_set_right(self) -> None:
        codec = LengthFieldCodec(offset=1, width=1, strip=0)
        self.assertEqual(codec.pack(b"M?abc"), b"M\x03abc")
        with self.assertRaises(ValueError):
            codec.pack(b"M")

    def test_data_too_short_for_its_length(self) -> None:
        """What cannot be expressed is an error, but not that of too much data."""
        with self.assertRaises(ValueError) as caught:
            LengthFieldCodec(width=2, adjust=3).pack(b"ab")
        self.assertNotIsInstance(caught.exception, MessageTooLarge)

    def test_json_lines(self) -> None:
        codec = JsonCodec()
        line = codec.pack_value({"jsonrpc": "2.0", "id": 1, "result": "a\nb"})
        self.assertEqual(line.count(b"\n"), 1)
        (item,) = codec.splitter(CAP * 10).feed(line)
        self.assertEqual(json.loads(item), {"jsonrpc": "2.0", "id": 1, "result": "a\nb"})  # type: ignore[arg-type]

    def test_the_framings_of_the_port(self) -> None:
        self.check(FramingCodec(FRAME), b"{}", b"\x02\x02\0\0\0{}")
        self.check(FramingCodec(INT32), b"{}", b"\0\0\0\x02{}")

    def test_names(self) -> None:
        for name, make in CODECS.items():
            self.assertEqual((make(CAP).name, make(CAP).max_payload), (name, CAP))
        self.assertEqual(LengthFieldCodec().name, "length-field")


class AnyCutTests(SynchronousTestCase):
    """P-37: however the bytes are cut or stuck together, the messages are the same."""

    def check(self, codec: Codec, messages: list[Any], cuts: list[int]) -> None:
        data = b"".join(map(codec.pack, messages))
        splitter, items = feed(codec, parts(data, cuts))
        self.assertEqual(items, messages)
        self.assertEqual((splitter.too_large, splitter.corrupt), (False, False))
        self.assertEqual(splitter.buffered, 0)

    @given(
        st.sampled_from(sorted(WITH_IDS)),
        st.lists(st.builds(Tlv, st.integers(0, MAX_MESSAGE_ID), DATA), max_size=6),
        CUTS,
    )
    def test_with_ids(self, name: str, messages: list[Any], cuts: list[int]) -> None:
        self.check(WITH_IDS[name], messages, cuts)

    @given(st.sampled_from(sorted(LENGTHS)), st.lists(DATA, max_size=6), CUTS)
    def test_lengths(self, name: str, messages: list[Any], cuts: list[int]) -> None:
        """P-39: data of no length is a message, too."""
        codec = LENGTHS[name]
        if name == "counts less":  # the length cannot express fewer
            messages = [message.ljust(3, b"x") for message in messages]
        self.check(codec, messages, cuts)

    @given(
        st.sampled_from(sorted({**LINES, "int32": 0, "frame": 0, "frame crc": 0})),
        st.lists(DATA, max_size=6),
        CUTS,
    )
    def test_those_that_skip_empty_messages(
        self, name: str, messages: list[Any], cuts: list[int]
    ) -> None:
        messages = [m.replace(b"\n", b"").rstrip(b"\r") for m in messages]
        self.check(ALL[name], [m for m in messages if m], cuts)

    def test_a_line_is_refused_at_the_same_byte(self) -> None:
        """P-37: one over the limit is refused with its first byte over, however it comes."""
        for last, refused in ((b"x", True), (b"\r", False)):
            data = b"x" * CAP + last
            for pieces in ([data], [data[:3], data[3:]], [data[n : n + 1] for n in range(CAP + 1)]):
                self.assertEqual(feed(LINES["line"], pieces)[0].too_large, refused)

    def test_every_two_cuts(self) -> None:
        for codec in ALL.values():
            packed = [codec.pack(data) for data in (b"abcdef", b"x" * (CAP - 8), b"y" * 3)]
            data = b"".join(packed)
            _, whole = feed(codec, [data])
            self.assertEqual(len(whole), 3)
            for a in range(len(data) + 1):
                for b in range(a, len(data) + 1, 3):
                    self.assertEqual(feed(codec, [data[:a], data[a:b], data[b:]])[1], whole)

    def test_head_first_then_the_body(self) -> None:
        """P-37: in two steps, for a reader that asks for so many bytes at a time."""
        for name in ("tlv", "tlv-big", "tag-first", "ltv"):
            codec: Any = CODECS[name](CAP)
            data = codec.pack(Tlv(301, b"hello"))
            length, message_id = codec.unpack_head(data[: codec.HEAD])
            self.assertEqual((length, message_id), (5, 301))
            self.assertEqual(data[codec.HEAD :][:length], b"hello")
            with self.assertRaises(MessageTooLarge):
                codec.unpack_head(CODECS[name](0).pack(Tlv(1, bytes(CAP + 1)))[: codec.HEAD])

    def test_no_data_is_legal(self) -> None:
        """P-39: an empty message arrives as one."""
        for codec in WITH_IDS.values():
            _, items = feed(codec, [codec.pack(Tlv(5, b"")) * 2])
            self.assertEqual(items, [Tlv(5, b"")] * 2)
        self.assertEqual(feed(LengthFieldCodec(), [bytes(8)])[1], [b"", b""])


class AnyBytesTests(SynchronousTestCase):
    """P-37, P-40: no bytes raise, and none make a splitter hold more than its limit."""

    @given(
        st.sampled_from(sorted(ALL)),
        st.integers(0, 64),
        st.lists(st.binary(max_size=200), max_size=20),
    )
    def test_arbitrary_bytes(self, name: str, limit: int, reads: list[bytes]) -> None:
        codec = ALL[name]
        splitter: Any = codec.splitter(limit)
        most = min(limit, codec.max_payload)
        for read in reads:
            refused = splitter.too_large
            for item in splitter.feed(read):
                self.assertFalse(refused)
                payload = item if isinstance(item, bytes) else item.payload
                self.assertLessEqual(len(payload), most)
            held = MAX_SPARE if refused else most + HEAD + len(read)
            self.assertLessEqual(splitter.buffered, held)

    @given(
        st.sampled_from(sorted(ALL)),
        st.lists(st.binary(min_size=4, max_size=30), min_size=1, max_size=4),
        st.lists(st.tuples(st.integers(0, 200), st.integers(1, 255)), min_size=1, max_size=3),
        CUTS,
    )
    def test_bytes_that_were_changed_on_the_way(
        self, name: str, messages: list[bytes], flips: list[tuple[int, int]], cuts: list[int]
    ) -> None:
        codec = ALL[name]
        messages = [m.replace(b"\n", b" ").replace(b"\r", b" ") for m in messages]
        wire = bytearray(b"".join(map(codec.pack, messages)))
        for place, bits in flips:
            wire[place % len(wire)] ^= bits
        splitter, items = feed(codec, parts(bytes(wire), cuts))
        for item in items:
            payload = item if isinstance(item, bytes) else item.payload
            self.assertLessEqual(len(payload), codec.max_payload)
        self.assertLessEqual(splitter.buffered, MAX_SPARE)


class LimitTests(SynchronousTestCase):
    """P-38: over the limit is `too large message data`, when packed and when read."""

    def test_pack(self) -> None:
        for name, codec in ALL.items():
            most = codec.max_payload
            with self.subTest(codec=name):
                codec.pack(b"x" * most)
                with self.assertRaises(MessageTooLarge) as caught:
                    codec.pack(b"x" * (most + 1))
                self.assertIn("too large message data", str(caught.exception))
                self.assertEqual((caught.exception.size, caught.exception.limit), (most + 1, most))

    def test_read(self) -> None:
        for name, codec in CODECS.items():
            with self.subTest(codec=name):
                data = codec(0).pack(b"x" * (CAP + 1))
                splitter, items = feed(codec(CAP), [data])
                self.assertEqual((items, splitter.too_large), ([], True))
                # the limit of the connection holds as well as that of the codec
                splitter, items = feed(codec(0), [data], CAP)
                self.assertEqual((items, splitter.too_large), ([], True))
                splitter, items = feed(codec(0), [data], CAP + 1)
                self.assertEqual((len(items), splitter.too_large), (1, False))

    def test_refused_from_the_header_alone(self) -> None:
        for name in ("tlv", "tlv-big", "tag-first", "ltv", "tlv-crc", "int32", "frame"):
            splitter: Any = CODECS[name](CAP).splitter(UNLIMITED)
            self.assertEqual(splitter.feed(b"\x02" + b"\xff" * 15), [])
            self.assertTrue(splitter.too_large)
            self.assertEqual(splitter.buffered, 16)

    def test_without_a_limit_of_its_own(self) -> None:
        """A codec that is given none takes 64 KiB, as a connection does."""
        for codec in (LineCodec(), TlvCodec(), LengthFieldCodec(), FramingCodec(INT32)):
            self.assertEqual(codec.max_payload, 64 * 1024)

    def test_zero_is_no_limit(self) -> None:
        self.assertEqual(LineCodec(max_payload=0).max_payload, 2**63 - 1)
        big = bytes(1 << 20)
        for name in ("tlv", "tlv-big", "tlv-crc", "int32"):
            codec = CODECS[name](0)
            _, items = feed(codec, [codec.pack(big)])
            self.assertEqual(len(items), 1)

    def test_no_limit_is_what_the_length_can_say(self) -> None:
        """P-38: a length of 32 bits; the checksum takes four bytes of it."""
        for name, most in (("tlv", 2**32 - 1), ("tlv-big", 2**32 - 1), ("tlv-crc", 2**32 - 5),
                           ("int32", 2**32 - 1), ("frame", 2**32 - 1)):  # fmt: skip
            self.assertEqual(CODECS[name](0).max_payload, most)
            self.assertEqual(CODECS[name](2**40).max_payload, most)
        for name in ("line", "json"):
            self.assertEqual(CODECS[name](2**40).max_payload, 2**40)

    def test_a_checksum_of_no_data(self) -> None:
        codec = CrcCodec(TlvCodec(max_payload=4))
        self.assertEqual(feed(codec, [codec.pack(Tlv(7, b""))])[1], [Tlv(7, b"")])

    def test_what_a_length_with_more_behind_it_can_say(self) -> None:
        """The size and the limit of the error are those of what comes after the length."""
        codec = LengthFieldCodec(width=1, adjust=2)
        self.assertEqual(codec.pack(bytes(257))[:1], b"\xff")
        with self.assertRaises(MessageTooLarge) as caught:
            codec.pack(bytes(258))
        self.assertEqual((caught.exception.size, caught.exception.limit), (258, 257))

    def test_raised_for_one_peer(self) -> None:
        for name, codec in CODECS.items():
            splitter: Any = codec(CAP).splitter(UNLIMITED)
            data = codec(0).pack(b"x" * (2 * CAP))
            self.assertEqual(list(splitter.feed(data)), [])
            splitter.max_payload = 3 * CAP
            self.assertEqual(splitter.max_payload, 3 * CAP)
            self.assertEqual(len(splitter.resume()), 1, name)
            self.assertFalse(splitter.too_large)

    def test_more_than_the_length_can_say(self) -> None:
        codec = LengthFieldCodec(width=1)
        self.assertEqual(len(codec.pack(bytes(255))), 256)
        with self.assertRaises(MessageTooLarge):
            codec.pack(bytes(256))


class CorruptTests(SynchronousTestCase):
    """P-40: what no packer makes ends the stream, for good; what came before is handed out."""

    def test_wrong_checksum(self) -> None:
        for codec in (CODECS["tlv-crc"](CAP), CrcCodec(LengthFieldCodec(max_payload=CAP))):
            good = codec.pack(b"good")
            bad = bytearray(codec.pack(b"evil"))
            bad[-1] ^= 1
            splitter, items = feed(codec, [good + bytes(bad) + good])
            self.assertEqual(len(items), 1)
            self.assertEqual((splitter.too_large, splitter.corrupt), (True, True))
            splitter.max_payload = 10 * CAP
            splitter.too_large = False
            self.assertEqual([*splitter.resume(), *splitter.feed(good)], [])
            self.assertEqual((splitter.too_large, splitter.buffered), (True, 0))

    def test_an_id_that_was_changed(self) -> None:
        wire = bytearray(CODECS["tlv-crc"](CAP).pack(Tlv(7, b"data")))
        wire[4] ^= 1
        splitter, items = feed(CODECS["tlv-crc"](CAP), [bytes(wire)])
        self.assertEqual((items, splitter.corrupt), ([], True))

    def test_with_and_without_the_id_0(self) -> None:
        """A codec may hand out data alone for what was packed under the id 0, and vice versa."""
        for inner in (CompatibleCodec(), CODECS["tlv-crc"](CAP), Intercepted(TlvCodec())):
            codec = CrcCodec(inner)
            for message in (b"abc", Tlv(0, b"abc"), Tlv(7, b"abc")):
                splitter, items = feed(codec, [codec.pack(message)])
                self.assertFalse(splitter.corrupt)
                (item,) = items
                self.assertEqual(item if isinstance(item, bytes) else item.payload, b"abc")

    def test_ids_have_32_bits(self) -> None:
        for wrong in (-1, 2**32):
            with self.assertRaises(ValueError):
                CODECS["tlv-crc"](CAP).pack(Tlv(wrong, b""))

    def test_codecs_that_change_what_they_carry(self) -> None:
        """A checksum would be wrong, or hold the end of a line."""
        for inner in (LineCodec(), JsonCodec(), LengthFieldCodec(strip=0)):
            for wrapped in (inner, Intercepted(inner)):
                with self.assertRaises(ValueError):
                    CrcCodec(wrapped)

    def test_too_short_for_a_checksum(self) -> None:
        wire = TlvCodec().pack(b"abc")
        splitter, items = feed(CODECS["tlv-crc"](CAP), [wire])
        self.assertEqual((items, splitter.corrupt), ([], True))

    def test_a_length_below_its_header(self) -> None:
        for codec, wire in (
            (LengthFieldCodec(width=2, adjust=-2), b"\0\x01"),
            (LengthFieldCodec(width=1, strip=3), b"\x01x"),
        ):
            splitter, items = feed(codec, [wire, b"more" * 100_000])
            self.assertEqual((items, splitter.too_large, splitter.corrupt), ([], True, True))
            self.assertEqual(list(splitter.resume()), [])
            self.assertLessEqual(splitter.buffered, MAX_SPARE)


class ArgumentTests(SynchronousTestCase):
    def test_values_that_do_not_fit(self) -> None:
        for wrong in (
            {"width": 0},
            {"width": 9},
            {"offset": -1},
            {"strip": -1},
            {"head": b"MG"},
            {"offset": 2, "head": b"abc"},
            {"max_payload": -1},
        ):
            with self.assertRaises(ValueError):
                LengthFieldCodec(**wrong)  # type: ignore[arg-type]
        with self.assertRaises(ValueError):
            CrcCodec(LineCodec())
        with self.assertRaises(ValueError):
            CrcCodec(TlvCodec(max_payload=3))

    def test_messages_that_a_codec_cannot_express(self) -> None:
        for codec in BARE.values():
            with self.assertRaises(ValueError):
                codec.pack(Tlv(1, b"x"))
        for data in (b"two\nlines", b"end\r"):
            with self.assertRaises(ValueError):
                LineCodec().pack(data)

    def test_as_a_framing(self) -> None:
        for name, codec in CODECS.items():
            framing = framing_of(codec(CAP))
            self.assertEqual(framing.name, name)
            joined = framing.join([b"a", b"bc"])
            self.assertEqual(joined, framing.encode(b"a") + framing.encode(b"bc"))
            self.assertEqual(len(framing.splitter(CAP).feed(joined)), 2)
