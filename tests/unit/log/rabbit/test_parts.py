"""The parts of the log in RabbitMQ that need no broker."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.log.rabbit.gauge import Gauge
from kupool.log.rabbit.topology import Topology


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


class TopologyTests(SynchronousTestCase):
    def test_names(self) -> None:
        """K-79: all names come from the name of the queue."""
        topology = Topology("q", groups=("stats", "alerts"))
        self.assertEqual(topology.queues, ("q", "q.alerts"))
        self.assertEqual(
            (topology.exchange, topology.stream, topology.dead_letters), ("q", "q.stream", "q.dead")
        )

    def test_retention(self) -> None:
        """K-76: segments are small enough for the bound to be kept."""
        arguments = Topology(max_age="7D", max_bytes=80_000_000).stream_arguments()
        self.assertEqual(
            arguments,
            {
                "x-queue-type": "stream",
                "x-max-age": "7D",
                "x-max-length-bytes": 80_000_000,
                "x-stream-max-segment-size-bytes": 10_000_000,
            },
        )
        self.assertEqual(Topology().stream_arguments(), {"x-queue-type": "stream"})
