"""What waits for a peer that reads slowly."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.session.outbox import JOIN_SIZE, EventPolicy, Outbox


def drained(outbox: Outbox) -> list[bytes]:
    taken = []
    while (data := outbox.take()) is not None:
        taken.append(data)
    return taken


class OutboxTests(SynchronousTestCase):
    """K-27, K-28: replies are kept, latest are replaced, events obey their policy."""

    def test_empty(self) -> None:
        outbox = Outbox()
        self.assertEqual((len(outbox), outbox.take(), outbox.dropped), (0, None, 0))

    def test_replies_stay_in_order_and_are_never_dropped(self) -> None:
        outbox = Outbox()
        replies = [b"%d;" % n for n in range(50_000)]
        for data in replies:
            outbox.add_reply(data)
        self.assertEqual(outbox.reply_bytes, sum(map(len, replies)))
        taken = drained(outbox)
        self.assertEqual(b"".join(taken), b"".join(replies))
        self.assertEqual((outbox.reply_bytes, outbox.dropped), (0, 0))
        longest = max(map(len, replies))
        self.assertLess(max(map(len, taken)), JOIN_SIZE + longest)
        self.assertLess(len(taken), 10)

    def test_replies_are_joined_up_to_a_size(self) -> None:
        """One that reaches 64 KiB goes alone; one that would pass it is not cut."""
        for first, taken in ((65_535, [65_537, 2]), (65_536, [65_536, 4]), (65_537, [65_537, 4])):
            outbox = Outbox()
            for size in (first, 2, 2):
                outbox.add_reply(bytes(size))
            self.assertEqual([len(data) for data in drained(outbox)], taken)

    def test_latest_replaces_what_waits_under_its_key(self) -> None:
        outbox = Outbox()
        for n in range(5):
            outbox.add_latest("jobs", b"job %d" % n)
            outbox.add_latest("other", b"other %d" % n)
        self.assertEqual(len(outbox), len(b"job 4") + len(b"other 4"))
        self.assertEqual(sorted(drained(outbox)), [b"job 4", b"other 4"])
        self.assertEqual(outbox.dropped, 8)

    def test_replies_go_first_then_latest_then_events(self) -> None:
        outbox = Outbox()
        outbox.add_event(b"event", 100, EventPolicy.DROP_NEW)
        outbox.add_latest("k", b"latest")
        outbox.add_reply(b"reply")
        self.assertEqual(drained(outbox), [b"reply", b"latest", b"event"])

    def test_drop_new(self) -> None:
        outbox = Outbox()
        kept = [outbox.add_event(b"%d" % n, 3, EventPolicy.DROP_NEW) for n in range(5)]
        self.assertEqual(kept, [True, True, True, False, False])
        self.assertEqual((drained(outbox), outbox.dropped), ([b"0", b"1", b"2"], 2))

    def test_drop_oldest(self) -> None:
        outbox = Outbox()
        kept = [outbox.add_event(b"%d" % n, 3, EventPolicy.DROP_OLDEST) for n in range(5)]
        self.assertEqual(kept, [True] * 5)
        self.assertEqual((drained(outbox), outbox.dropped), ([b"2", b"3", b"4"], 2))

    def test_an_event_that_never_fits_costs_no_other(self) -> None:
        for policy in EventPolicy:
            outbox = Outbox()
            outbox.add_event(b"ab", 3, policy)
            self.assertFalse(outbox.add_event(b"abcd", 3, policy))
            self.assertEqual((drained(outbox), outbox.dropped), ([b"ab"], 1))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from(["reply", "latest", "new", "oldest", "take"]),
                st.binary(min_size=1, max_size=12),
            )
        )
    )
    def test_sizes_agree_and_events_stay_within_their_limit(
        self, steps: list[tuple[str, bytes]]
    ) -> None:
        outbox, limit, given_in, taken = Outbox(), 20, 0, 0
        replies = b""
        for what, data in steps:
            if what == "take":
                taken += outbox.take() is not None
                continue
            given_in += 1
            if what == "reply":
                replies += data
                outbox.add_reply(data)
            elif what == "latest":
                outbox.add_latest(str(len(data) % 3), data)
            else:
                outbox.add_event(data, limit, EventPolicy("drop-" + what))
            self.assertLessEqual(len(outbox) - outbox.reply_bytes, limit + 3 * 12)
        size = len(outbox)
        rest = drained(outbox)
        self.assertEqual(sum(map(len, rest)), size)
        self.assertEqual(len(outbox), 0)
        self.assertLessEqual(taken + len(rest) + outbox.dropped, given_in)
