"""The first items of many, in order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.activity.selection import SPARE, Page, Selection


class SelectionTests(SynchronousTestCase):
    """A-53: a page of many sessions or users is what sorting all of them would show."""

    @given(
        st.lists(st.integers(0, 9), max_size=60),
        st.integers(1, 8),
        st.integers(0, 70),
        st.booleans(),
    )
    def test_as_if_all_were_sorted(
        self, keys: list[int], limit: int, offset: int, descending: bool
    ) -> None:
        """A-53: of the same key, the one that was added first comes first."""
        selection: Selection[int] = Selection(Page(limit, offset, descending))
        for number, key in enumerate(keys):
            selection.add(key, number)
        ordered = sorted(range(len(keys)), key=lambda n: (-keys[n] if descending else keys[n], n))
        self.assertEqual(selection.items(), ordered[offset : offset + limit])
        self.assertEqual(selection.total, len(keys))

    def test_memory(self) -> None:
        """A-53: of a hundred thousand, no more are kept than the page needs, and some spare."""
        selection: Selection[int] = Selection(Page(10, 20))
        most = 0
        for number in range(100_000):
            selection.add(-number, number)
            most = max(most, len(selection._kept))
        self.assertLessEqual(most, 2 * 30 + SPARE)
        self.assertEqual(selection.items(), list(range(99_979, 99_969, -1)))
