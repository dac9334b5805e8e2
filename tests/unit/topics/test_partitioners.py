"""Which partition a record goes to."""

from __future__ import annotations

from random import Random
from zlib import crc32

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.errors import InvalidTopic
from kupool.topics.partitioners import PARTITIONERS, SHORT, KeyHashes, Partitioner, fnv1a


def partitioner(name: str) -> Partitioner:
    return Partitioner(name, Random(1), KeyHashes())


class PartitionerTests(SynchronousTestCase):
    """Q-28."""

    def test_fnv1a_is_that_of_its_authors(self) -> None:
        """The vectors of http://www.isthe.com/chongo/src/fnv/test_fnv.c."""
        known = {b"": 0x811C9DC5, b"a": 0xE40C292C, b"foobar": 0xBF9CF968}
        self.assertEqual({key: fnv1a(key) for key in known}, known)

    def test_a_key_goes_to_its_hash_modulo_the_partitions(self) -> None:
        """W-50: by CRC-32 or FNV-1a; that is no consistent hashing."""
        self.assertEqual(partitioner("fnv1a").choose(b"foobar", 1000), 0xBF9CF968 % 1000)
        self.assertEqual(partitioner("crc32").choose(b"123456789", 1000), 0xCBF43926 % 1000)
        self.assertEqual(partitioner("fnv1a").choose(b"", 1000), 0x811C9DC5 % 1000)

    @given(st.binary(), st.integers(1, 1000))
    def test_a_key_has_one_partition(self, key: bytes, partitions: int) -> None:
        for name, found in (("fnv1a", fnv1a(key)), ("crc32", crc32(key))):
            one, other = partitioner(name), partitioner(name)
            one.choose(None, partitions)
            self.assertEqual(one.choose(key, partitions), found % partitions)
            self.assertEqual(other.choose(key, partitions), found % partitions)

    def test_hashes_that_are_remembered(self) -> None:
        """Q-28: a remembered one is the same, and so is one that was forgotten; long keys are not
        remembered.
        """
        hashes = KeyHashes(most=2)
        choose = hashes.of("fnv1a")
        assert choose is not None
        keys = [b"a", b"b", b"c", b"x" * SHORT, b"x" * (SHORT + 1)]
        for _ in range(3):
            self.assertEqual([choose(key) for key in keys], [fnv1a(key) for key in keys])
        self.assertIs(hashes.of("round-robin"), None)

    def test_round_robin(self) -> None:
        """One after the other; with a hash those without a key."""
        for name in ("fnv1a", "crc32", "round-robin"):
            chooser = partitioner(name)
            self.assertEqual([chooser.choose(None, 3) for _ in range(7)], [0, 1, 2, 0, 1, 2, 0])
        chooser = partitioner("round-robin")
        self.assertEqual([chooser.choose(b"same", 2) for _ in range(3)], [0, 1, 0])

    def test_random(self) -> None:
        chooser = partitioner("random")
        found = [chooser.choose(b"same", 4) for _ in range(200)]
        self.assertEqual(set(found), {0, 1, 2, 3})

    def test_names(self) -> None:
        self.assertEqual(PARTITIONERS, ("fnv1a", "crc32", "round-robin", "random"))
        with self.assertRaisesRegex(InvalidTopic, "unknown partitioner 'murmur2': use one of fnv"):
            partitioner("murmur2")
