"""From batches to counts."""

from __future__ import annotations

import json
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.stats import BatchCounts, MinuteCount
from kupool.stats.fold import as_rows, fold_entry, fold_rows, read_entry, roll_ups
from kupool.wire.batches import VERSION, Batch, PoisonBatch, encode_batch

T = 1_800_000_000
NAMES = st.sampled_from(["alice", "alice.rig1", "alice.rig2", "bob", "bob.", ".x", "a.b.c"])
EVENTS = st.lists(st.tuples(st.integers(0, 4), NAMES), max_size=60)


def body(**changes: object) -> bytes:
    message = {
        "v": 1,
        "batch": "b1",
        "at": T * 1000 + 59_999,
        "usernames": ["alice", "bob"],
        "job_ids": [1, 1],
        "client_nonces": ["x", "y"],
        **changes,
    }
    return json.dumps({k: v for k, v in message.items() if v is not ...}).encode()


class EntryTests(SynchronousTestCase):
    """K-80: what is a batch, and what is poison."""

    def test_batch(self) -> None:
        """K-69: the minute is the UTC minute of acceptance."""
        made = encode_batch(Batch(VERSION, "b1", T * 1000 + 59_999, ["a", "b"], [1, 1], ["x", "y"]))
        counts = fold_entry(made)
        self.assertEqual((counts.batch_id, counts.minute, counts.usernames), ("b1", T, ["a", "b"]))
        self.assertEqual(len(counts.digest), 32)
        self.assertEqual((counts.position, counts.earlier), (0, False))

    def test_digest(self) -> None:
        """K-80: other content has another digest."""
        same, other = fold_entry(body()), fold_entry(body(client_nonces=["x", "z"]))
        self.assertEqual(same.digest, fold_entry(body()).digest)
        self.assertNotEqual(same.digest, other.digest)

    def test_without_its_digest(self) -> None:
        """A batch that is only counted again is the same without one."""
        whole = fold_entry(body(), 7)
        self.assertEqual(read_entry(body(), 7), whole._replace(digest=b""))
        self.assertEqual((whole.position, whole.earlier), (7, False))

    def test_poison(self) -> None:
        """K-80: each is refused with its reason; none gets as far as the store."""
        for bad, reason in (
            (b"", "not a batch"),
            (b"\xff\xfe", "not a batch"),
            (b"[]", "not a batch"),
            (b"[" * 5000, "not a batch"),
            (body(v=2), "version 2"),
            (body(v=...), "not a batch"),
            (body(usernames=...), "not a batch"),
            (body(usernames=[1]), "not a batch"),
            (body(usernames="alice"), "not a batch"),
            (body(at="now"), "not a batch"),
            (body(at=-1), "out of range"),
            (body(at=2**70), "out of range"),
            (body(at=10**15), "out of range"),
            (body(batch=5), "not a batch"),
            (body(batch=""), "0 characters"),
            (body(batch="x" * 65), "65 characters"),
            (body(usernames=["a" * 256]), "256 characters"),
        ):
            with self.assertRaises(PoisonBatch, msg=bad[:80]) as caught:
                fold_entry(bad)
            self.assertIn(reason, str(caught.exception))

    def test_the_longest_and_the_latest(self) -> None:
        """K-80: what a store can just keep is counted."""
        for good in (
            body(at=0),
            body(at=253_402_300_799_999),  # the last of the year 9999
            body(batch="x"),
            body(batch="x" * 64),
            body(usernames=["a" * 255, "b"]),
        ):
            self.assertEqual(len(fold_entry(good).usernames), 2)
        for bad in (
            body(at=253_402_300_800_000),
            body(batch="x" * 65),
            body(usernames=["a" * 256, "b"]),
        ):
            self.assertRaises(PoisonBatch, fold_entry, bad)

    def test_characters_that_no_store_keeps(self) -> None:
        """K-80: a NUL in a name is poison, and its escape as text is not."""
        for bad in (body(batch="x\0"), body(usernames=["a", "b\0c"])):
            self.assertRaisesRegex(PoisonBatch, "NUL", fold_entry, bad)
        self.assertEqual(fold_entry(body(batch="x\\u0000")).batch_id, "x\\u0000")
        self.assertEqual(len(fold_entry(body(client_nonces=["x\0", "y"])).usernames), 2)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """K-80: no bytes raise anything but that."""
        self.assertRaises(PoisonBatch, fold_entry, data)


class RowTests(SynchronousTestCase):
    """K-68, K-18: a row for each user and minute, and for each worker."""

    def test_rows(self) -> None:
        batches = [
            BatchCounts("1", b"", T, ["alice.rig1", "alice.rig2", "alice.rig1", "alice", "bob"]),
            BatchCounts("2", b"", T + 60, ["alice.rig1"]),
        ]
        self.assertEqual(
            as_rows(fold_rows(batches)),
            [
                MinuteCount("alice", "", T, 4),
                MinuteCount("alice", "", T + 60, 1),
                MinuteCount("alice", "rig1", T, 2),
                MinuteCount("alice", "rig1", T + 60, 1),
                MinuteCount("alice", "rig2", T, 1),
                MinuteCount("bob", "", T, 1),
            ],
        )

    def test_roll_ups(self) -> None:
        """K-76: whole hours and whole days, and none before the first."""
        self.assertEqual(list(roll_ups(3599, 86399)), [])
        self.assertEqual(list(roll_ups(7205, 0)), [("", "_hour", 7200)])
        self.assertEqual(list(roll_ups(0, 86400 * 2 + 1)), [("_hour", "_day", 86400 * 2)])
        self.assertEqual(
            list(roll_ups(3600, 86400)), [("", "_hour", 3600), ("_hour", "_day", 86400)]
        )

    @given(EVENTS, st.data())
    def test_any_partition(self, events: list[tuple[int, str]], data: st.DataObject) -> None:
        """K-53, K-68: however events are cut into batches, and batches into commits, the
        rows are the same.
        """
        whole: Counter[tuple[str, str, int]] = Counter()
        for minute, name in events:
            user, _, worker = name.rpartition(".")
            if not user or not worker:
                user, worker = name, ""
            whole[user, "", minute] += 1
            if worker:
                whole[user, worker, minute] += 1
        batches = []
        for minute in range(5):
            left = [name for at, name in events if at == minute]
            while left:
                size = data.draw(st.integers(1, len(left)))
                batches.append(BatchCounts(str(len(batches)), b"", minute, left[:size]))
                left = left[size:]
        batches = data.draw(st.permutations(batches))
        self.assertEqual(fold_rows(batches), whole)
        cut = data.draw(st.integers(0, len(batches)))
        self.assertEqual(fold_rows(batches[:cut]) + fold_rows(batches[cut:]), whole)
