"""Compression by name."""

from __future__ import annotations

import gzip

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.compression import CODECS, compress, decompress
from kupool.topics.errors import CorruptBatch, UnknownCodec

TEXT = b"the same words again and again " * 100


class CompressionTests(SynchronousTestCase):
    """Q-20, Q-21, Q-22."""

    def test_names(self) -> None:
        """Q-21."""
        self.assertEqual(CODECS, ("none", "gzip", "snappy", "lz4", "zstd"))
        for call in (lambda: compress("brotli", b""), lambda: decompress("os", b"", 0)):
            with self.assertRaisesRegex(UnknownCodec, "unknown compression '(brotli|os)': use one"):
                call()

    def test_the_containers_are_the_standard_ones(self) -> None:
        """Q-20: tools in other languages read them."""
        starts = {
            "gzip": b"\x1f\x8b",
            "snappy": b"\xff\x06\0\0sNaPpY",
            "lz4": b"\x04\x22\x4d\x18",
            "zstd": b"\x28\xb5\x2f\xfd",
        }
        for codec, start in starts.items():
            self.assertTrue(compress(codec, TEXT).startswith(start), codec)
            self.assertLess(len(compress(codec, TEXT)), len(TEXT) // 2)
        self.assertEqual(gzip.decompress(compress("gzip", TEXT)), TEXT)
        self.assertEqual(decompress("gzip", gzip.compress(TEXT), len(TEXT)), TEXT)
        self.assertEqual(compress("none", TEXT), TEXT)

    @given(st.sampled_from(CODECS), st.binary(max_size=2000))
    def test_there_and_back(self, codec: str, data: bytes) -> None:
        self.assertEqual(decompress(codec, compress(codec, data), len(data)), data)

    def test_another_size_is_refused(self) -> None:
        """Q-22."""
        for codec in CODECS:
            data = compress(codec, TEXT)
            for size in (0, len(TEXT) - 1, len(TEXT) + 1):
                with self.assertRaisesRegex(CorruptBatch, f"the {codec} data "):
                    decompress(codec, data, size)

    def test_damage_is_named(self) -> None:
        """Q-08."""
        for codec in CODECS[1:]:
            for data in (b"", b"garbage", compress(codec, TEXT)[:-9]):
                with self.assertRaisesRegex(CorruptBatch, f"the {codec} data "):
                    decompress(codec, data, len(TEXT))
