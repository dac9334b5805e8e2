"""Remembered nonces."""

from __future__ import annotations

import gc
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.pool import nonces
from kupool.pool.nonces import JobNonces, NonceScope

NONCES = st.text(alphabet="abc", min_size=1, max_size=3)
STEPS = st.lists(st.tuples(st.sampled_from(["reserve", "release"]), NONCES, st.integers(1, 9)))


def walk(case: SynchronousTestCase, steps: list[tuple[str, str, int]]) -> None:
    scope, model = NonceScope(), {}
    for step, nonce, serial in steps:
        if step == "reserve":
            scope.reserve(nonce, serial)
            model[nonce] = serial
        else:
            scope.release(nonce)
            model.pop(nonce, None)
        case.assertEqual(len(scope.used), len(model))
        case.assertEqual(scope.used.get(nonce), model.get(nonce))
    for a in ("a", "b", "c", "ab", "abc", "zz"):
        case.assertEqual(a in scope.used, a in model)
        case.assertEqual(scope.used.get(a), model.get(a))


class ScopeTests(SynchronousTestCase):
    """K-47, K-48: what is reserved is used, and what is released is not."""

    @given(STEPS)
    def test_as_a_dictionary(self, steps: list[tuple[str, str, int]]) -> None:
        walk(self, steps)

    @given(STEPS)
    @settings(max_examples=50)
    def test_as_a_dictionary_in_shards(self, steps: list[tuple[str, str, int]]) -> None:
        """K-50: the same when it is cut into shards on the way."""
        whole, nonces.SHARD_ABOVE = nonces.SHARD_ABOVE, 2
        try:
            walk(self, steps)
        finally:
            nonces.SHARD_ABOVE = whole

    def test_large(self) -> None:
        """K-50: a large scope is kept in many small parts, and forgets nothing."""
        scope, count = NonceScope(), 51_000
        for i in range(count):
            scope.reserve(f"n{i}", i)
        self.assertNotIsInstance(scope.used, dict)
        self.assertEqual(len(scope.used), count)
        for i in (0, 1, 50_000, count - 1):
            self.assertEqual(scope.used.get(f"n{i}"), i)
        largest = max(map(len, scope.used.shards))  # type: ignore[union-attr]
        self.assertLess(largest, count // 100)

    def test_release_of_an_unknown_nonce(self) -> None:
        scope = NonceScope()
        scope.release("a")
        self.assertEqual(len(scope.used), 0)


class JobNoncesTests(SynchronousTestCase):
    def test_one_scope_to_a_name(self) -> None:
        """K-47: a name's scope is the same whoever asks."""
        job = JobNonces()
        self.assertIs(job.scope("alice"), job.scope("alice"))
        self.assertIsNot(job.scope("alice"), job.scope("bob"))
        self.assertEqual(len(job), 2)

    def test_dismantle(self) -> None:
        """K-50: a retired job's nonces are freed in small steps, all of them."""
        job = JobNonces()
        for i in range(3):
            scope = job.scope(f"user{i}")
            for n in range(10 * i):
                scope.reserve(f"n{n}", 1)
        large = job.scope("large")
        for n in range(50_001):
            large.reserve(f"n{n}", 1)
        steps = list(job.dismantle())
        self.assertEqual(len(job), 0)
        self.assertEqual(len(large.used), 0)
        # Each scope, or shard of one, counts as one beside its nonces.
        self.assertEqual(sum(steps), 30 + 50_001 + 3 + 256)
        self.assertLess(max(steps), 1000)

    def test_a_scope_of_50_000_nonces_is_one_dictionary(self) -> None:
        """K-50: a larger one is divided into 256."""
        job = JobNonces()
        scope = job.scope("large")
        for n in range(50_000):
            scope.reserve(f"n{n}", 1)
        self.assertEqual(list(job.dismantle()), [50_001])


class MemoryTests(SynchronousTestCase):
    """K-50: what a remembered nonce costs."""

    def bytes_each(self, users: int, each: int, size: int) -> float:
        gc.collect()
        tracemalloc.start()
        try:
            job = JobNonces()
            before = tracemalloc.get_traced_memory()[0]
            for user in range(users):
                scope = job.scope(f"user{user}")
                for n in range(each):
                    scope.reserve(f"{user:x}-{n:x}".rjust(size, "0"), n)
            return (tracemalloc.get_traced_memory()[0] - before) / (users * each)
        finally:
            tracemalloc.stop()

    def test_bytes_of_a_nonce(self) -> None:
        """K-50: at most 250 bytes with a nonce of 24 characters, one user or many."""
        for users, each in ((1, 5000), (20, 250), (1, 51_000)):
            cost = self.bytes_each(users, each, 24)
            print(f"{users} users, {each} nonces each: {cost:.0f} bytes a nonce")
            self.assertLess(cost, 250)

    def test_bytes_of_a_lonely_nonce(self) -> None:
        """K-50: at most 700 bytes where each user has one only."""
        cost = self.bytes_each(2500, 1, 24)
        print(f"2500 users, 1 nonce each: {cost:.0f} bytes a nonce")
        self.assertLess(cost, 700)
