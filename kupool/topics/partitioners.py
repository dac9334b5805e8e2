"""Which partition a record goes to. Pure.

The hashes are public algorithms, so that programs in other languages choose the same partition:
the hash of the key's bytes as an unsigned 32-bit number, modulo the number of partitions.

- ``fnv1a``: FNV-1a, 32 bits (offset basis 2166136261, prime 16777619).
- ``crc32``: CRC-32 as in zlib and gzip.
- ``round-robin``: one partition after the other, whatever the key.
- ``random``: any partition, whatever the key.

A record without a key goes round-robin with the first two.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from random import Random
from zlib import crc32

from kupool.topics.errors import InvalidTopic

#: Every name that a setting may have.
PARTITIONERS = ("fnv1a", "crc32", "round-robin", "random")

#: Those that send all records of a key to the same partition.
BY_KEY = ("fnv1a", "crc32")

#: The most bytes of a key whose hash is remembered.
SHORT = 64

_BASIS, _PRIME, _MASK = 2166136261, 16777619, 0xFFFFFFFF


def fnv1a(key: bytes) -> int:
    """Return the 32-bit FNV-1a hash of some bytes."""
    value = _BASIS
    for byte in key:
        value = (value ^ byte) * _PRIME & _MASK
    return value


class KeyHashes:
    """The hashes of keys, by the names of partitioners.

    FNV-1a takes Python much longer than the rest of the way of a record, so that the hashes of the
    newest ``most`` keys of up to :data:`SHORT` bytes are remembered.
    """

    def __init__(self, most: int = 65_536) -> None:
        self._remembered = lru_cache(maxsize=most)(fnv1a)

    def of(self, name: str) -> Callable[[bytes], int] | None:
        """Return the hash of a partitioner; None if it does not go by the key."""
        hashes: dict[str, Callable[[bytes], int]] = {"fnv1a": self._fnv1a, "crc32": crc32}
        return hashes.get(name)

    def _fnv1a(self, key: bytes) -> int:
        return self._remembered(key) if len(key) <= SHORT else fnv1a(key)


class Partitioner:
    """Chooses partitions for the records of one topic, by one of :data:`PARTITIONERS`.

    Raises :class:`InvalidTopic` for another name. ``random`` is the source of random numbers.
    """

    def __init__(self, name: str, random: Random, hashes: KeyHashes) -> None:
        if name not in PARTITIONERS:
            raise InvalidTopic(
                f"unknown partitioner {name!r:.40}: use one of {', '.join(PARTITIONERS)}"
            )
        self._hash = hashes.of(name)
        self._random = random if name == "random" else None
        self._turn = 0

    @property
    def by_key(self) -> bool:
        """Whether records of a key always go to the same partition."""
        return self._hash is not None

    def choose(self, key: bytes | None, partitions: int) -> int:
        """Return the number of a partition, from 0 to ``partitions`` - 1."""
        if self._random is not None:
            return self._random.randrange(partitions)
        if self._hash is not None and key is not None:
            return self._hash(key) % partitions
        turn, self._turn = self._turn % partitions, self._turn + 1
        return turn


__all__ = ["BY_KEY", "PARTITIONERS", "SHORT", "KeyHashes", "Partitioner", "fnv1a"]
