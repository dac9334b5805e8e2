"""The sequences of devices, as their events are published."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.live.failures import HistoryUnavailable
from kupool.live.overload import LoadState
from kupool.live.publications import NewPublication
from kupool.live.rules import ChannelRule
from kupool.live.sequencing import PATIENCE
from kupool.live.wishes import HistoryWishes, SubscribeWishes
from tests.fakes.live import FakeSubscriber, LiveWorld, SlowEngine, new
from tests.unit.live.test_subscription import durable_world

NONE = {"devices": 1, "gap": 0, "missing": 0, "late": 0, "repaired": 0, "inversion": 0}


class SequencingCase(SynchronousTestCase):
    world: LiveWorld

    def watch(self) -> None:
        self.told: list[Any] = []
        self.world.service.alarms.tell(lambda kind, event: self.told.append((kind, event)))

    def publish(self, *numbers: int, device: str = "d", **fields: Any) -> None:
        for number in numbers:
            event = new(number, device=device, sequence=number, **fields)
            self.successResultOf(self.world.service.publish("a", event))

    def shown(self) -> Any:
        return self.world.service.sequences.shown()

    def sequences(self) -> list[int]:
        """Return the sequences in the history."""
        done = self.world.service.history("a", HistoryWishes(100))
        return [each.sequence for each in self.successResultOf(done).publications]


class MemorySequenceTests(SequencingCase):
    """W-52: in a channel in memory."""

    def setUp(self) -> None:
        self.world = LiveWorld(ChannelRule(pattern="*", history_size=100))
        self.watch()

    def test_the_channel_gives_them(self) -> None:
        """Each event of a device has one; those of others have none."""
        for device in ("d", "e", "d", ""):
            self.world.service.publish("a", new(1, device=device))
        self.world.service.publish("b", new(1, device="d"))
        self.assertEqual(self.sequences(), [1, 1, 2, 0])

    def test_the_publisher_gives_them(self) -> None:
        """Gaps and inversions are counted and told; the events are published all the same."""
        self.publish(1, 2, 5, 3, 3)
        self.assertEqual(self.sequences(), [1, 2, 5, 3, 3])
        self.assertEqual(self.shown(), {**NONE, "gap": 1, "missing": 1, "late": 1, "inversion": 1})
        gap = {"channel": "a", "device": "d", "what": "gap", "first": 3, "last": 4}
        self.assertEqual(self.told, [("live.sequence", {**gap, "count": 1, "total": 1})])
        self.world.clock.advance(60)
        back = {**gap, "what": "inversion", "last": 3, "count": 1, "total": 2}
        self.assertEqual(self.told[1:], [("live.sequence", back)])

    def test_one_that_is_published_again(self) -> None:
        """It is not published, so it is no inversion; and it has the number of the first time."""
        event = new(1, device="d", event_id="e")
        first, again = (
            self.successResultOf(self.world.service.publish("a", event)) for _ in range(2)
        )
        self.assertEqual((first, first.sequence, self.shown()), (again, 1, NONE))

    def test_merged_ones(self) -> None:
        """What a newer event stands for is not missing."""
        self.publish(1)
        self.world.service.gate.watch.state = LoadState.DEGRADED
        for number in (2, 3, 4):
            self.world.service.publish("a", new(number, device="d", sequence=number))
        self.world.clock.advance(0.02)
        self.assertEqual((self.sequences(), self.shown()), ([1, 4], NONE))


class DurableSequenceTests(SequencingCase):
    """W-52: in a durable channel, with the help of the log."""

    engine: SlowEngine

    def setUp(self) -> None:
        self.engine, self.world = durable_world()
        self.watch()

    def restarted(self) -> LiveWorld:
        """Return the world of another run of the daemon, with the same log."""
        old, self.world = self.world, LiveWorld(*self.world.service._table.rules)
        self.world.service._table._sources = old.service._table._sources
        self.watch()
        return self.world

    def test_they_go_on_after_a_restart(self) -> None:
        for _ in range(3):
            self.successResultOf(self.world.service.publish("a", new(1, device="d")))
        self.restarted()
        self.successResultOf(self.world.service.publish("a", new(1, device="d")))
        self.publish(2, device="new")
        self.assertEqual(self.sequences(), [1, 2, 3, 4, 2])
        self.publish(7)
        self.assertEqual(self.shown()["missing"], 2)

    def test_a_gap_that_the_log_fills(self) -> None:
        """Somebody else has written what is missing: that is repaired, and nobody is alarmed."""
        self.publish(1)
        other = LiveWorld(*self.world.service._table.rules)
        other.service._table._sources = self.world.service._table._sources
        for number in (2, 3):
            event = NewPublication(data=b"0", device="d", sequence=number)
            self.successResultOf(other.service.publish("a", event))
        self.publish(4)
        self.assertEqual(self.shown(), {**NONE, "gap": 1, "repaired": 2})
        self.assertEqual(self.told, [])
        self.publish(7)
        self.assertEqual(self.shown(), {**NONE, "gap": 2, "repaired": 2, "missing": 2})
        self.assertEqual(
            [(e["what"], e["first"], e["last"]) for _, e in self.told], [("gap", 5, 6)]
        )

    def test_an_event_that_is_not_written(self) -> None:
        """Its number comes again, when the publisher tries again."""
        self.publish(1)
        self.engine.broken = OSError("disk full")
        event = new(2, device="d", sequence=2)
        self.failureResultOf(self.world.service.publish("a", event), HistoryUnavailable)
        self.engine.broken = None
        self.publish(2, 3)
        self.assertEqual((self.shown(), self.told), (NONE, []))

    def test_a_log_that_does_not_answer(self) -> None:
        """Events wait for the last numbers, in their order, and not for ever."""
        self.engine.slow = True
        done = [self.world.service.publish("a", new(n, device="d")) for n in range(3)]
        self.engine.slow = False
        self.assertNoResult(done[0])
        self.world.clock.advance(PATIENCE)
        found = [self.successResultOf(each) for each in done]
        self.assertEqual([(each.offset, each.sequence) for each in found], [(1, 1), (2, 2), (3, 3)])

    def test_who_follows_sees_them(self) -> None:
        """The sequence is in the log, so every subscriber gets it, whoever has published."""
        subscriber: FakeSubscriber
        subscriber, session = self.world.client()
        seen: list[int] = []
        encoding = subscriber.encoding
        self.patch(
            encoding,
            "publication",
            lambda channel, record: seen.append(record.sequence) or b"[0]",
        )
        outcome = self.successResultOf(session.subscribe("a", SubscribeWishes()))
        outcome.subscription.start()
        self.publish(5, 6)
        self.assertEqual(seen, [5, 6])
        session.disconnect()
