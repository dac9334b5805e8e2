"""Streams of RabbitMQ: their arguments, and the offsets of their messages."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp.streams import offset_of, stream_arguments


class StreamTests(SynchronousTestCase):
    """Q-11, Q-31: what a stream is made with."""

    def test_the_offset(self) -> None:
        """RabbitMQ names it in this header."""
        self.assertEqual(offset_of({"x-stream-offset": 7}), 7)

    def test_limits_and_replicas(self) -> None:
        """Without a limit the broker keeps everything, on as many nodes as it chooses."""
        self.assertEqual(stream_arguments(), {"x-queue-type": "stream"})
        self.assertEqual(
            stream_arguments("60s", 8_000, 3),
            {
                "x-queue-type": "stream",
                "x-max-age": "60s",
                "x-max-length-bytes": 8_000,
                "x-stream-max-segment-size-bytes": 1_000,
                "x-initial-cluster-size": 3,
            },
        )
        large = stream_arguments(max_bytes=10**12)
        self.assertEqual(large["x-stream-max-segment-size-bytes"], 500_000_000)
