"""Publishing through the gate, in normal and in degraded mode."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.failures import LiveLimitExceeded
from kupool.live.gate import GateLimits, PublishingGate, PublishingWay
from kupool.live.publications import NewPublication, PublishedRecord, published


class GateWorld:
    """A gate that publishes to a list; ``behind`` clients have requests that wait."""

    def __init__(self, **limits: Any) -> None:
        self.clock = Clock()
        self.published: list[int] = []
        self.records: list[PublishedRecord] = []
        self.behind = 0
        self.answers: list[Deferred[PublishedRecord]] | None = None
        way = PublishingWay(self._publish, lambda name: name != "log", lambda: self.behind)
        self.gate = PublishingGate(self.clock, GateLimits(**limits), way)
        self.gate.start()

    def _publish(self, channel: str, new: NewPublication) -> Deferred[PublishedRecord]:
        self.published.append(int(new.data))
        if self.answers is not None:
            self.answers.append(Deferred())
            return self.answers[-1]
        self.records.append(published(new, len(self.published), 0.0))
        return succeed(self.records[-1])

    def publish(
        self,
        number: int,
        priority: int = 1,
        device: str = "d",
        channel: str = "c",
        *,
        kind: str = "t",
    ) -> Deferred[PublishedRecord]:
        new = NewPublication(data=b"%d" % number, priority=priority, device=device, event_type=kind)
        return self.gate.publish(channel, new)

    def degrade(self) -> None:
        """Enter degraded mode."""
        self.behind = 100
        for _ in range(40):
            self.clock.advance(0.05)
        assert self.gate.watch.degraded


class GateTests(SynchronousTestCase):
    """W-62: emergencies at once, important ones batched, normal ones merged by device:type."""

    def test_normal_mode(self) -> None:
        """Everything is published at once."""
        world = GateWorld()
        for priority in (1, 2, 3):
            self.successResultOf(world.publish(priority, priority))
        self.assertEqual(world.published, [1, 2, 3])

    def test_degraded_mode(self) -> None:
        """The important ones of a moment come together, and of the normal ones the latest."""
        world = GateWorld()
        world.degrade()
        first, second = world.publish(1), world.publish(2)
        high = [world.publish(number, 2, device="h") for number in (3, 4)]
        self.successResultOf(world.publish(5, 3, device="e"))
        self.assertEqual(world.published, [5])
        self.assertTrue(self.successResultOf(first).replaced)
        self.assertEqual(world.gate.waiting, {1: 1, 2: 2, 3: 0})
        world.clock.advance(0.02)
        self.assertEqual(world.published, [5, 3, 4, 2])
        self.assertEqual(world.gate.batches, 1)
        for each in high:
            self.assertEqual(self.successResultOf(each).merged, 0)
        self.assertEqual(self.successResultOf(second).merged, 1)
        self.assertEqual(world.gate.merged, 1)

    def test_an_emergency_keeps_the_order_of_its_device(self) -> None:
        """W-49: what waits of its device goes first, and nothing else does."""
        world = GateWorld()
        world.degrade()
        world.publish(1)
        world.publish(2, device="other")
        world.publish(3, 3)
        self.assertEqual(world.published, [1, 3])

    def test_what_is_not_held(self) -> None:
        """Normal ones without a device, and those for a log, are neither merged nor held."""
        world = GateWorld()
        world.degrade()
        world.publish(1, device="")
        world.publish(2, channel="log")
        self.assertEqual(world.published, [1, 2])

    def test_too_many_wait(self) -> None:
        """Over the limit normal ones are refused, and important ones published in their order."""
        world = GateWorld(held=2)
        world.degrade()
        world.publish(1)
        world.publish(2, device="other")
        error = self.failureResultOf(world.publish(3, kind="u"), LiveLimitExceeded).value
        self.assertIn("2 publications wait already", str(error))
        world.publish(4, 2)
        self.assertEqual(world.published, [1, 4])
        world.publish(5)
        world.publish(6)
        self.assertEqual(world.gate.merged, 1)
        self.assertEqual(sum(world.gate.refusals.counts.values()), 1)

    def test_after_degraded_mode(self) -> None:
        """What still waits goes before what is published at once."""
        world = GateWorld(batch_interval=60.0)
        world.degrade()
        world.publish(1)
        world.behind = 0
        for _ in range(200):
            world.clock.advance(0.05)
        self.assertFalse(world.gate.watch.degraded)
        world.publish(2)
        self.assertEqual(world.published, [1, 2])

    def test_limit_of_devices(self) -> None:
        """A device over its limit is refused, in that channel; its emergencies pass."""
        world = GateWorld(device_rate=2, devices=3)
        world.publish(1)
        world.publish(2, 2)
        error = self.failureResultOf(world.publish(3, 2), LiveLimitExceeded).value
        self.assertIn("device d has published 2 events in the last second", str(error))
        world.publish(4, 3)
        world.publish(5, channel="other")
        world.publish(6, device="")
        world.publish(7, device="e")
        error = self.failureResultOf(world.publish(8, device="f"), LiveLimitExceeded).value
        self.assertIn("3 other devices", str(error))
        self.assertEqual(world.published, [1, 2, 4, 5, 6, 7])
        self.assertEqual(len(world.gate.refusals.counts), 2)

    def test_publications_under_way_are_a_backlog(self) -> None:
        """W-65: what is being written waits, by priority, and is an overload if it is too much."""
        world = GateWorld()
        world.answers = []
        for number in range(1000):
            world.publish(number, 2, device=f"d{number}")
        self.assertEqual(world.gate.waiting, {1: 0, 2: 1000, 3: 0})
        for _ in range(40):
            world.clock.advance(0.05)
        self.assertTrue(world.gate.watch.degraded)

    def test_stop(self) -> None:
        """What is held is published, and no timer is left."""
        world = GateWorld()
        world.degrade()
        done = world.publish(1)
        world.gate.stop()
        self.successResultOf(done)
        self.assertEqual([call for call in world.clock.calls if call.active()], [])

    def test_who_is_told(self) -> None:
        """Those who want to know learn that degraded mode begins."""
        world = GateWorld()
        changes: list[Any] = []
        world.gate.tell(changes.append)
        world.degrade()
        self.assertEqual([each.degraded for each in changes], [True])

    @given(
        st.lists(
            st.tuples(
                st.sampled_from("ab"),
                st.sampled_from("xy"),
                st.sampled_from((1, 1, 2, 3)),
                st.sampled_from((0, 0, 0, 1, 8, 120)),
                st.sampled_from((0, 100)),
            ),
            max_size=40,
        ),
        st.integers(1, 6),
    )
    def test_any_load(self, steps: list[tuple[str, str, int, int, int]], held: int) -> None:
        """W-49, W-62: whatever the load does, the order of each device stands, each publisher is
        answered, and nothing but a normal publication is merged or refused.
        """
        world = GateWorld(held=held, device_rate=0)
        answers = []
        for number, (device, kind, priority, beats, world.behind) in enumerate(steps):
            for _ in range(beats):
                world.clock.advance(0.05)
            answers.append(world.publish(number, priority, device, kind=kind))
        world.gate.stop()
        for device in "ab":
            own = [int(each.data) for each in world.records if each.device == device]
            self.assertEqual(own, sorted(own))
        for number, done in enumerate(answers):
            device, kind = steps[number][:2]
            results: list[Any] = []
            done.addBoth(results.append)
            if number in world.published:
                self.assertEqual(int(results[0].data), number)
                continue
            self.assertEqual(steps[number][2], 1)
            if isinstance(results[0], PublishedRecord):
                self.assertTrue(results[0].replaced)
                later = [steps[other][:2] for other in world.published if other > number]
                self.assertIn((device, kind), later)
            else:
                results[0].trap(LiveLimitExceeded)

    def test_after_the_stop(self) -> None:
        """Nothing is held any more: there is no batch that would publish it."""
        world = GateWorld()
        world.degrade()
        world.gate.stop()
        world.publish(1)
        self.assertEqual(world.published, [1])
