"""Retention beside produce, with few messages; ten million are a command."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from twisted.trial.unittest import TestCase

from tests.servers.reactor import the_reactor
from tools.topic_retention import Spread, measure, spread


class TopicRetentionTests(TestCase):
    """Q-11: half of the messages are dropped while others are written."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    async def test_half_of_the_messages_are_dropped(self) -> None:
        options = Namespace(messages=60_000, per_batch=10, rate=200.0, seconds=0.5)
        ratio, problems = await measure(the_reactor(), options, self.folder)
        self.assertEqual(problems, [])
        self.assertGreater(ratio, 0)

    def test_the_spread_of_times(self) -> None:
        times = [number / 1000 for number in range(201)]
        self.assertEqual(spread(times), Spread(201, 100.0, 198.0, 200.0))
