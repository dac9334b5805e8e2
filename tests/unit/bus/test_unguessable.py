"""Random numbers that nobody can guess."""

from __future__ import annotations

from sys import byteorder

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import unguessable
from kupool.bus.unguessable import Unguessable


class NumberTests(SynchronousTestCase):
    def test_many_at_a_time(self) -> None:
        """The system is asked once for 512 numbers."""
        asked: list[int] = []

        def urandom(size: int) -> bytes:
            asked.append(size)
            return bytes(size)

        self.patch(unguessable, "urandom", urandom)
        numbers = Unguessable()
        for _ in range(512):
            numbers.number()
        self.assertEqual(asked, [4096])
        numbers.number()
        self.assertEqual(asked, [4096, 4096])

    def test_text(self) -> None:
        """16 hexadecimal digits, whatever the number."""
        drawn = (0xAB).to_bytes(8, byteorder) + (2**64 - 1).to_bytes(8, byteorder)
        self.patch(unguessable, "urandom", lambda size: bytes(size - 16) + drawn)
        numbers = Unguessable()
        self.assertEqual([numbers.text(), numbers.text()], ["f" * 16, "00000000000000ab"])
