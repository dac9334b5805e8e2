"""Batches of records: docs of the format in the module."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.batches import Compression, RecordCodec
from kupool.topics.compression import CODECS, compress
from kupool.topics.errors import CorruptBatch, UnknownCodec
from kupool.topics.records import NewRecord, Record

NOW = 1_800_000_000_123

RECORDS = st.lists(
    st.builds(
        NewRecord,
        st.binary(max_size=200),
        key=st.none() | st.binary(max_size=20),
        headers=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3),
        timestamp=st.none() | st.integers(-(2**63), 2**63 - 1),
    ),
    min_size=1,
    max_size=50,
)


def batch(*parts: object) -> bytes:
    """Return a batch of parts that may be wrong, with the right checksum."""
    array = msgspec.msgpack.encode(parts)
    return b"\x01" + crc32(array).to_bytes(4, "big") + array


def parts_of(body: bytes) -> list[object]:
    """Return the parts of a batch: id, time, codec, count, size, payload."""
    found: list[object] = msgspec.msgpack.decode(body[5:])
    return found


class RecordCodecTests(SynchronousTestCase):
    """Q-03, Q-08, Q-20, Q-22, Q-62."""

    def setUp(self) -> None:
        self.codec = RecordCodec()

    def encode(self, *records: NewRecord, codec: str = "none", threshold: int = 0) -> bytes:
        return self.codec.encode(records, "id", NOW, Compression(codec, threshold))

    def test_the_bytes_of_a_batch(self) -> None:
        """Q-38: programs in other languages read them."""
        body = self.encode(
            NewRecord(b"v", key=b"k", headers={"h": "x"}, timestamp=5), NewRecord(b"w")
        )
        payload = msgspec.msgpack.encode([[b"v", b"k", {"h": "x"}, 5], [b"w", None, {}, None]])
        array = msgspec.msgpack.encode(["id", NOW, "none", 2, len(payload), payload])
        self.assertEqual(body, b"\x01" + crc32(array).to_bytes(4, "big") + array)

    def test_offsets_follow_the_base(self) -> None:
        body = self.encode(
            NewRecord(b"v", key=b"k", headers={"h": "x"}, timestamp=5), NewRecord(b"")
        )
        self.assertEqual(
            self.codec.decode(body, 70),
            ("id", [Record(70, 5, b"k", b"v", {"h": "x"}), Record(71, NOW, None, b"", {})]),
        )

    @given(RECORDS, st.sampled_from(CODECS), st.integers(0, 5000))
    def test_what_was_written_is_read(
        self, records: list[NewRecord], codec: str, threshold: int
    ) -> None:
        body = self.encode(*records, codec=codec, threshold=threshold)
        _, found = self.codec.decode(body, 0)
        self.assertEqual(
            found,
            [
                Record(n, NOW if r.timestamp is None else r.timestamp, r.key, r.value, r.headers)
                for n, r in enumerate(records)
            ],
        )

    def test_payloads_of_several_are_joined(self) -> None:
        """Q-93: whatever their numbers of records, it is as if they had been written together."""
        codec = RecordCodec()
        for counts in ((1, 1), (15, 1), (8, 8), (1, 16, 300), (65_000, 535)):
            parts = [
                [
                    NewRecord(b"%d" % each, key=b"k", headers={"n": str(count)})
                    for each in range(count)
                ]
                for count in counts
            ]
            joined = codec.join([(len(part), codec.payload(part)) for part in parts])
            self.assertEqual(joined, codec.payload([each for part in parts for each in part]))

    def test_the_size_before_compression(self) -> None:
        """Q-22: is known without decompressing; of what is no batch, it is its own."""
        codec, records = RecordCodec(), [NewRecord(b"x" * 50_000)]
        plain = len(codec.payload(records))
        small = codec.encode(records, "i", 5, Compression("gzip"))
        self.assertLess(len(small), 1000)
        self.assertEqual(codec.plain_size(small), plain)
        large = codec.encode(records, "i", 5, Compression())
        self.assertEqual(codec.plain_size(large), len(large))
        for body in (b"", b"123", b"no batch at all"):
            self.assertEqual(codec.plain_size(body), len(body))

    def test_small_batches_stay_plain(self) -> None:
        """Q-20: below the threshold, and where compression would make them larger."""
        record = NewRecord(b"a" * 1000)
        size = parts_of(self.encode(record))[4]
        for codec in CODECS[1:]:
            used = [
                parts_of(self.encode(each, codec=codec, threshold=threshold))[2]
                for each, threshold in (
                    (record, size + 1),
                    (record, size),
                    (NewRecord(bytes(range(100))), 0),
                )
            ]
            self.assertEqual(used, ["none", codec, "none"])

    def test_1_to_65535_records(self) -> None:
        """Q-62."""
        records = [NewRecord(b"")] * 65_536
        with self.assertRaisesRegex(ValueError, "1 to 65535 records, not 0"):
            self.encode()
        with self.assertRaisesRegex(ValueError, "1 to 65535 records, not 65536"):
            self.encode(*records)
        self.assertEqual(len(self.codec.decode(self.encode(*records[1:]), 0)[1]), 65_535)

    def assert_corrupt(self, body: bytes, why: str) -> None:
        with self.assertRaisesRegex(CorruptBatch, why):
            self.codec.decode(body, 0)

    def changed(self, index: int, value: object) -> bytes:
        parts = parts_of(self.encode(NewRecord(b"v" * 50)))
        parts[index] = value
        return batch(*parts)

    def test_what_is_wrong_is_said(self) -> None:
        """Q-08, Q-22, Q-62."""
        good = self.encode(NewRecord(b"v" * 50))
        self.assert_corrupt(b"", "it has 0 bytes, that is no batch")
        self.assert_corrupt(good[:4], "it has 4 bytes, that is no batch")
        self.assert_corrupt(good[:5], "its checksum is wrong")
        self.assert_corrupt(good[:-1], "its checksum is wrong")
        self.assert_corrupt(b"\x02" + good[1:], "it has version 2, expected 1")
        self.assert_corrupt(batch("id"), "it is no batch")
        self.assert_corrupt(self.changed(3, 2), "it has 1 records, 2 were announced")
        self.assert_corrupt(self.changed(4, 7), "has 57 bytes, 7 were announced")
        self.assert_corrupt(self.changed(4, -1), "it announces -1 bytes")
        self.assert_corrupt(self.changed(4, 2**40), "announces 1099511627776 bytes, the limit is")

    def test_a_compression_of_a_later_release(self) -> None:
        with self.assertRaisesRegex(UnknownCodec, "unknown compression 'xz'"):
            self.codec.decode(self.changed(2, "xz"), 0)

    def test_records_that_cannot_be_read(self) -> None:
        for payload in (b"\x00", msgspec.msgpack.encode([[b"", 2, {}, None]]), b"\x91" * 100_000):
            body = batch("id", 5, "none", 1, len(payload), payload)
            self.assert_corrupt(body, "its records cannot be read")

    def test_a_limit_for_what_is_decompressed(self) -> None:
        """Q-22: a bomb takes no memory: the size is checked before, and is not exceeded."""
        body = self.encode(NewRecord(b"\0" * 10_000), codec="zstd")
        size: Any = parts_of(body)[4]
        self.assertEqual(len(RecordCodec(size).decode(body, 0)[1]), 1)
        with self.assertRaisesRegex(
            CorruptBatch, f"announces {size} bytes, the limit is {size - 1}"
        ):
            RecordCodec(size - 1).decode(body, 0)
        bomb = compress("gzip", b"\0" * 10_000_000)
        body = batch("id", 5, "gzip", 1, 100, bomb)
        self.assert_corrupt(body, "the gzip data cannot be decompressed")

    @given(st.binary(max_size=300))
    def test_any_bytes_are_a_batch_or_corrupt(self, data: bytes) -> None:
        """Q-62: nothing else is raised."""
        try:
            self.codec.decode(data, 0)
        except CorruptBatch:
            pass

    @given(st.data())
    def test_a_changed_byte_is_noticed(self, data: st.DataObject) -> None:
        """Q-08."""
        body = bytearray(self.encode(NewRecord(b"value" * 30, key=b"k"), codec="lz4"))
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] ^= data.draw(st.integers(1, 255))
        with self.assertRaises(CorruptBatch):
            self.codec.decode(bytes(body), 0)
