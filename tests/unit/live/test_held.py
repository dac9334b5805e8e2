"""What is held while live channels are overloaded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.failures import HistoryUnavailable
from kupool.live.held import HeldPublications
from kupool.live.publications import NewPublication, PublishedRecord, published


def event(number: int, device: str = "d", kind: str = "t", priority: int = 1) -> NewPublication:
    return NewPublication(data=b"%d" % number, device=device, event_type=kind, priority=priority)


class Published:
    """What was published, and a holder that publishes to it."""

    def __init__(self) -> None:
        self.records: list[PublishedRecord] = []
        self.held = HeldPublications(self._publish)

    def _publish(self, channel: str, new: NewPublication) -> Deferred[PublishedRecord]:
        self.records.append(published(new, len(self.records) + 1, 0.0))
        return succeed(self.records[-1])

    @property
    def data(self) -> list[int]:
        return [int(each.data) for each in self.records]


_EVENTS = st.lists(
    st.tuples(
        st.sampled_from(("", "a", "b")),
        st.sampled_from(("x", "y")),
        st.sampled_from((1, 1, 2)),
        st.sampled_from(("hold", "hold", "hold", "release", "device")),
    ),
    max_size=60,
)


class HeldTests(SynchronousTestCase):
    """W-49, W-62, W-64: what is merged and batched, and in which order."""

    @given(_EVENTS)
    def test_nothing_is_lost_or_reordered(self, steps: list[tuple[str, str, int, str]]) -> None:
        """Whatever comes: the order of each device stands, only normal ones are merged, into newer
        ones of the same device and type, and each publisher is answered.
        """
        out = Published()
        given_events: list[NewPublication] = []
        answers: list[Deferred[PublishedRecord]] = []
        for number, (device, kind, priority, what) in enumerate(steps):
            new = event(number, device, kind, priority)
            given_events.append(new)
            answers.append(out.held.hold("c", new))
            if what == "release":
                out.held.release_next()
            elif what == "device" and device:
                out.held.release_device("c", device)
                self.assertEqual(out.records[-1].data, new.data)
        out.held.release_all()
        self.assertEqual(len(out.held), 0)
        seen = set(out.data)
        for number, new in enumerate(given_events):
            record = self.successResultOf(answers[number])
            self.assertEqual(int(record.data), number)
            self.assertEqual(record.replaced, number not in seen)
            if record.replaced:
                self.assertEqual((new.priority, record.offset), (1, 0))
                same = (new.device, new.event_type)
                self.assertTrue(new.device)
                self.assertIn(same, [steps[other][:2] for other in seen if other > number])
        self.assertEqual(out.held.merged, len(steps) - len(seen))
        self.assertEqual(sum(each.merged for each in out.records), out.held.merged)
        for device in ("a", "b"):
            own = [int(each.data) for each in out.records if each.device == device]
            self.assertEqual(own, sorted(own))

    def test_weights(self) -> None:
        """Important ones go first, and normal ones are not starved."""
        out = Published()
        for number in range(8):
            out.held.hold("c", event(number, f"n{number}"))
        for number in range(100, 108):
            out.held.hold("c", event(number, f"h{number}", priority=2))
        out.held.release_all()
        self.assertEqual(out.data[:10], [100, 101, 102, 103, 0, 104, 105, 106, 107, 1])

    def test_what_waits_is_counted(self) -> None:
        """W-65: what is replaced does not wait any more."""
        held = Published().held
        held.hold("c", event(1))
        held.hold("c", event(2))
        held.hold("c", event(3, priority=2))
        self.assertEqual((held.waiting(1), held.waiting(2), len(held)), (1, 1, 2))
        held.release_all()
        self.assertEqual((held.waiting(1), held.waiting(2)), (0, 0))

    def test_replaced_at_once(self) -> None:
        """Who has published it does not wait for the batch."""
        held = Published().held
        first, second = held.hold("c", event(1)), held.hold("c", event(2))
        self.assertTrue(self.successResultOf(first).replaced)
        self.assertNoResult(second)
        self.assertTrue(held.replaces("c", event(3)))
        for other in (event(3, priority=2), event(3, device=""), event(3, kind="other")):
            self.assertFalse(held.replaces("c", other))

    def test_failures(self) -> None:
        """If publishing fails, who has published it learns that."""
        held = HeldPublications(lambda channel, new: fail(HistoryUnavailable("no")))
        first, second = held.hold("c", event(1)), held.hold("c", event(2))
        held.release_all()
        self.assertTrue(self.successResultOf(first).replaced)
        self.failureResultOf(second, HistoryUnavailable)

    def test_channels_are_apart(self) -> None:
        """The same device in another channel is another one."""
        out = Published()
        out.held.hold("c", event(1))
        out.held.hold("other", event(2))
        out.held.release_device("c", "d")
        self.assertEqual(out.data, [1])
