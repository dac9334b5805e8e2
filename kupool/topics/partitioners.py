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
from random import Random
from zlib import crc32

from kupool.topics.errors import InvalidTopic

#: Every name that a setting may have.
PARTITIONERS = ("fnv1a", "crc32", "round-robin", "random")

#: Those that send all records of a key to the same partition.
BY_KEY = ("fnv1a", "crc32")

_BASIS, _PRIME, _MASK = 2166136261, 16777619, 0xFFFFFFFF


def fnv1a(key: bytes) -> int:
    """Return the 32-bit FNV-1a hash of some bytes."""
    value = _BASIS
    for byte in key:
        value = (value ^ byte) * _PRIME & _MASK
    return value


class Partitioner:
    """Chooses partitions for the records of one topic, by one of :data:`PARTITIONERS`.

    Raises :class:`InvalidTopic` for another name. ``random`` is the source of random numbers.
    """

    def __init__(self, name: str, random: Random) -> None:
        if name not in PARTITIONERS:
            raise InvalidTopic(
                f"unknown partitioner {name!r:.40}: use one of {', '.join(PARTITIONERS)}"
            )
        hashes: dict[str, Callable[[bytes], int]] = {"fnv1a": fnv1a, "crc32": crc32}
        self._hash = hashes.get(name)
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


__all__ = ["BY_KEY", "PARTITIONERS", "Partitioner", "fnv1a"]
