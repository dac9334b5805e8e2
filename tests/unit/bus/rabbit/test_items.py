"""What nodes of the bus tell each other, in parts that fit a message."""

from __future__ import annotations

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from kupool.bus.rabbit.items import (
    Beat,
    NodeState,
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
        keys = [f"k{n}" for n in range(201)]
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

    def states(self, *weights: tuple[int, int]) -> list[list[tuple[int, int]]]:
        """Return how many topics and keys the entries in each part of a state have."""
        entries = [
            SubscriberEntry(str(n), 0.0, ["t"] * topics, ["k"] * keys)
            for n, (topics, keys) in enumerate(weights)
        ]
        parts = make_state(1, entries, False)
        return [[(len(e.topics), len(e.keys)) for e in part.entries] for part in parts]

    def test_as_many_as_fit_one_part(self) -> None:
        """A-13: 200 topics, keys and subscribers, or a single subscriber with more."""
        half = (50, 49)
        self.assertEqual(self.states(), [[]])
        self.assertEqual(self.states((1, 0)), [[(1, 0)]])
        self.assertEqual(self.states(half, half), [[half, half]])
        self.assertEqual(self.states(half, (50, 50)), [[half], [(50, 50)]])
        self.assertEqual(self.states(half, half, half, half), [[half, half]] * 2)
        self.assertEqual(self.states((200, 200), (1, 0)), [[(200, 200)], [(1, 0)]])
        self.assertEqual(self.states((201, 0)), [[(200, 0)], [(1, 0)]])

    def test_those_that_are_gone(self) -> None:
        """The first part has them."""
        entries = [SubscriberEntry("x", 0.0, ["t"] * 201, [])]
        parts = make_state(1, entries, False, {"y": 1.5})
        self.assertEqual([part.lost for part in parts], [{"y": 1.5}, {}])


class OldNodeTests(SynchronousTestCase):
    """A-62: what nodes of earlier releases send has fewer fields."""

    def test_defaults(self) -> None:
        for fields, item in (
            ([5, 7], Beat(7, 0.0)),
            ([1, 3, 0, 1, True, []], NodeState(3, 0, 1, True, [], {})),
        ):
            self.assertEqual(list(unpack(pack([msgspec.msgpack.encode(fields)]))), [item])


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
