"""What nodes of the bus tell each other, in parts that fit a message."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.rabbit.items import (
    CHUNK,
    Removed,
    SubscriberEntry,
    encode,
    make_state,
    pack,
    unpack,
)


class StateTests(SynchronousTestCase):
    def test_keys_that_do_not_fit_one_part(self) -> None:
        """A-13: all keys arrive, each once; a part of keys alone names the first topic again."""
        keys = [f"k{n}" for n in range(CHUNK + 1)]
        parts = make_state(3, [SubscriberEntry("x", 1.5, ["t", "u"], keys)], True)
        self.assertEqual(
            [(p.version, p.part, p.parts, p.reply) for p in parts],
            [
                (3, 0, 2, True),
                (3, 1, 2, True),
            ],
        )
        entries = [entry for part in parts for entry in part.entries]
        self.assertEqual([entry.topics for entry in entries], [["t", "u"], ["t"]])
        self.assertEqual([key for entry in entries for key in entry.keys], keys)
        self.assertEqual({(entry.subscriber, entry.since) for entry in entries}, {("x", 1.5)})


class RemovedTests(SynchronousTestCase):
    """Issue 13, A-62: for how long one that is lost is a member yet travels last."""

    def test_a_loss_as_it_travels(self) -> None:
        item = Removed(7, "x", None, True, 3.25)
        self.assertEqual(msgspec.msgpack.decode(encode(item)), [3, 7, "x", None, True, 3.25])
        self.assertEqual(list(unpack(pack([encode(item)]))), [item])

    def test_a_loss_of_a_node_that_does_not_say_for_how_long(self) -> None:
        """One of the release before sends four fields: its subscriber is gone at once."""
        old = msgspec.msgpack.encode([3, 7, "x", None, True])
        self.assertEqual(list(unpack(pack([old]))), [Removed(7, "x", None, True, 0.0)])
