"""What the log has in RabbitMQ, without a broker."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.log.rabbit.topology import Topology


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
