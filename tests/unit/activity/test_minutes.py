"""The counts of a minute, as they are kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.activity.minutes import MinuteCounts, decode_minute, encode_minute


class MinuteCountsTests(SynchronousTestCase):
    """A-55: what is kept of a minute is all of it."""

    @given(
        st.dictionaries(st.text(max_size=9), st.integers(1, 10**12), max_size=9),
        st.integers(0, 10**9),
        st.lists(st.floats(0, 100), max_size=30),
    )
    def test_there_and_back(self, methods: dict[str, int], count: int, times: list[float]) -> None:
        counts = MinuteCounts()
        counts.methods.update(methods)
        counts.accepted, counts.rejected = count, count + 1
        for seconds in times:
            counts.latency.add(seconds)
        record = decode_minute(encode_minute(counts.record()))
        self.assertEqual(record, counts.record())
        self.assertEqual(MinuteCounts.of(record).record(), record)

    def test_something_else(self) -> None:
        for text in ("", "{}", "[1]", '[{},"a",1,{},0.0]', "\ud800".encode("utf-8", "replace")):
            self.assertRaises(ValueError, decode_minute, text)

    def test_methods_that_were_not_called(self) -> None:
        """A-55: they take no room."""
        counts = MinuteCounts()
        counts.methods.update({"ping": 0, "submit": 2})
        self.assertEqual(counts.record().methods, {"submit": 2})
