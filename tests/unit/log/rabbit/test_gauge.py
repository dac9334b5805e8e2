"""How many entries wait in the queue."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.log.rabbit.gauge import Gauge


class GaugeTests(SynchronousTestCase):
    """K-82: how much waits is never said to be less while it is on its way."""

    def test_looks(self) -> None:
        gauge = Gauge()
        gauge.seen(5)
        self.assertEqual(gauge.waiting, 5)
        gauge.seen(0)  # they may be on their way to us
        self.assertEqual(gauge.waiting, 5)
        gauge.taken(5)
        self.assertEqual(gauge.waiting, 0)
        gauge.seen(0)
        self.assertEqual(gauge.waiting, 0)

    def test_taken_by_others(self) -> None:
        gauge = Gauge()
        for count in (5, 0, 0):
            gauge.seen(count)
        self.assertEqual(gauge.waiting, 0)

    def test_own_doing(self) -> None:
        gauge = Gauge()
        gauge.put(3)
        gauge.taken()
        self.assertEqual(gauge.waiting, 2)
        gauge.taken(4)
        self.assertEqual(gauge.waiting, 0)

    def test_what_is_put_while_others_are_on_their_way(self) -> None:
        """Both counts include it: the one before, which still holds, and the last one."""
        gauge = Gauge()
        gauge.seen(5)
        gauge.seen(0)
        gauge.put(3)
        self.assertEqual(gauge.waiting, 8)
        gauge.seen(0)
        self.assertEqual(gauge.waiting, 3)
