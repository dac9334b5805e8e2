"""What publications of clients have to pass: the limit of devices, and degraded mode."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.failures import LiveLimitExceeded
from kupool.live.fanned import FannedRecord
from kupool.live.gate import GateLimits, PublishingGate, PublishingWay
from kupool.live.overload import LoadChange, OverloadLimits
from kupool.live.publications import NewPublication, PublishedRecord, published
from tests.fakes.live import new

DURABLE = "log"


class Gate:
    """A gate, and what has passed it; ``behind`` is how many clients wait."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.behind = 0
        self.passed: list[PublishedRecord] = []
        #: Answers that have not come, while ``slow``.
        self.slow = False
        self.open: list[Deferred[PublishedRecord]] = []
        overload = OverloadLimits(enter_after=0.1, leave_after=1.0)
        self.gate = PublishingGate(
            self.clock,
            GateLimits(**{"device_rate": 0, "overload": overload, **limits}),
            PublishingWay(self._publish, lambda name: name != DURABLE, lambda: self.behind),
        )
        self.changes: list[LoadChange] = []
        self.gate.tell(self.changes.append)
        self.gate.start()

    def _publish(self, channel: str, publication: NewPublication) -> Deferred[PublishedRecord]:
        record = published(publication, len(self.passed) + 1, 0.0)
        self.passed.append(record)
        if self.slow:
            self.open.append(Deferred())
            return self.open[-1]
        return succeed(record)

    def publish(self, data: int, channel: str = "c", **fields: Any) -> Deferred[PublishedRecord]:
        return self.gate.publish(channel, new(data, **fields))

    def overload(self) -> None:
        self.behind = 1000
        self.go(1)
        assert self.gate.watch.degraded

    def go(self, seconds: float) -> None:
        for _ in range(round(seconds * 100)):
            self.clock.advance(0.01)

    @property
    def data(self) -> list[int]:
        return [int(record.data) for record in self.passed]


class GateTests(SynchronousTestCase):
    """W-41, W-62: issue text of build 7, overload."""

    def test_normal_mode(self) -> None:
        """Everything passes at once."""
        gate = Gate()
        for priority in (1, 2, 3, 1):
            self.successResultOf(gate.publish(priority, device="d", priority=priority))
        self.assertEqual(gate.data, [1, 2, 3, 1])

    def test_degraded_mode(self) -> None:
        """W-62: emergencies pass at once, important ones in a batch, normal ones are merged."""
        gate = Gate()
        gate.overload()
        merged = [gate.publish(number, device="d", event_type="t") for number in range(3)]
        important = [gate.publish(number, device="e", priority=2) for number in (10, 11)]
        self.successResultOf(gate.publish(20, device="f", priority=3))
        self.assertEqual(gate.data, [20])
        self.assertEqual(gate.gate.waiting, {1: 3, 2: 2, 3: 0})
        gate.go(0.05)
        self.assertEqual(gate.data, [20, 10, 11, 2])
        self.assertEqual({self.successResultOf(each).merged for each in merged}, {2})
        self.assertEqual([self.successResultOf(each).merged for each in important], [0, 0])
        self.assertEqual(gate.gate.merged, 2)
        self.assertGreaterEqual(gate.gate.batches, 1)

    def test_what_cannot_be_merged(self) -> None:
        """Without a device, and in a durable channel, normal ones pass at once."""
        gate = Gate()
        gate.overload()
        gate.publish(1)
        gate.publish(2, DURABLE, device="d", event_type="t")
        gate.publish(3, DURABLE, device="d", event_type="t")
        self.assertEqual(gate.data, [1, 2, 3])

    def test_an_emergency_passes_nothing_of_its_device(self) -> None:
        """W-49: what is held of its device goes before it, and only that."""
        gate = Gate()
        gate.overload()
        gate.publish(1, device="other", event_type="t")
        gate.publish(2, device="d", event_type="t")
        gate.publish(3, device="d", event_type="u", priority=2)
        gate.publish(4, device="d", priority=3)
        self.assertEqual(gate.data, [2, 3, 4])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from("ab"),
                st.sampled_from("xy"),
                st.sampled_from((1, 1, 2, 3)),
                st.sampled_from((0.0, 0.0, 0.0, 0.02, 1.5)),
                st.sampled_from((0, 1000)),
            ),
            max_size=40,
        ),
        st.integers(1, 6),
    )
    def test_any_order(self, steps: list[tuple[str, str, int, float, int]], held: int) -> None:
        """W-49, W-62: whatever the load does, the order of each device stands, only normal ones are
        merged, and nothing but normal ones is refused.
        """
        gate = Gate(held=held)
        answers = []
        for number, (device, kind, priority, pause, gate.behind) in enumerate(steps):
            gate.go(pause)
            done = gate.publish(number, device=device, event_type=kind, priority=priority)
            answers.append((number, priority, done))
        gate.gate.stop()
        for device in "ab":
            own = [int(each.data) for each in gate.passed if each.device == device]
            self.assertEqual(own, sorted(own))
        for number, priority, done in answers:
            results: list[Any] = []
            done.addBoth(results.append)
            if number in gate.data:
                self.assertEqual(int(results[0].data), number)
                continue
            self.assertEqual(priority, 1)
            if not isinstance(results[0], PublishedRecord):
                results[0].trap(LiveLimitExceeded)

    def test_too_many_are_held(self) -> None:
        """Normal ones are refused then, and counted; others pass."""
        gate = Gate(held=2)
        gate.overload()
        for number in (1, 2):
            gate.publish(number, device=f"d{number}")
        error = self.failureResultOf(gate.publish(3, device="d"), LiveLimitExceeded).value
        self.assertIn("2 publications wait already", str(error))
        gate.publish(4, device="d2", priority=2)
        self.assertEqual(gate.data, [2, 4])
        self.assertEqual(gate.gate.refusals.counts.total(), 1)

    def test_a_device_over_its_limit(self) -> None:
        """W-41: it is told so by name, and counted; its emergencies pass; a second later all is
        well.
        """
        gate = Gate(device_rate=2)
        for number in range(2):
            self.successResultOf(gate.publish(number, device="pump"))
        with capturedLogs() as logs:
            error = self.failureResultOf(gate.publish(2, device="pump"), LiveLimitExceeded).value
        self.assertIn("device pump has published 2 events in the last second", str(error))
        self.assertIn("limit of a device", formatEvent(logs[0]))
        self.successResultOf(gate.publish(3, device="pump", priority=3))
        self.successResultOf(gate.publish(4, device="valve"))
        self.successResultOf(gate.publish(5, "another", device="pump"))
        self.assertEqual(gate.gate.refusals.counts.total(), 1)
        gate.go(1.01)
        self.successResultOf(gate.publish(6, device="pump"))

    def test_too_many_devices(self) -> None:
        """W-42: no more devices are remembered than the limit; the rest is refused."""
        gate = Gate(device_rate=2, devices=2)
        for number in range(2):
            self.successResultOf(gate.publish(number, device=f"d{number}"))
        error = self.failureResultOf(gate.publish(2, device="d2"), LiveLimitExceeded).value
        self.assertIn("2 other devices", str(error))
        self.successResultOf(gate.publish(3, device="d3", priority=3))

    def test_what_is_under_way_is_backlog(self) -> None:
        """A channel that does not answer is an overload, and W-65: is visible."""
        gate = Gate(overload=OverloadLimits(backlog=3, enter_after=0.1))
        gate.slow = True
        for number in range(3):
            gate.publish(number, device="d", priority=2)
        self.assertEqual(gate.gate.waiting, {1: 0, 2: 3, 3: 0})
        gate.go(1)
        self.assertEqual([each.backlog for each in gate.changes], [3])
        for each in gate.open:
            each.callback(gate.passed[0])
        self.assertEqual(gate.gate.waiting, {1: 0, 2: 0, 3: 0})

    def test_it_is_logged_and_told(self) -> None:
        """Entering and leaving degraded mode are logged, and told to all who want to know."""
        gate = Gate()
        with capturedLogs() as logs:
            gate.overload()
            gate.behind = 0
            gate.go(3)
        self.assertEqual([each.degraded for each in gate.changes], [True, False])
        texts = [formatEvent(each) for each in logs]
        self.assertEqual(len(texts), 2)
        self.assertIn("Live channels are overloaded", texts[0])
        self.assertIn("no longer overloaded", texts[1])

    def test_stop(self) -> None:
        """What is held is published, and no timer is left; what comes later passes at once."""
        gate = Gate()
        gate.overload()
        gate.publish(1, device="d")
        gate.gate.stop()
        gate.publish(2, device="d")
        self.assertEqual(gate.data, [1, 2])
        self.assertEqual(gate.clock.calls, [])
