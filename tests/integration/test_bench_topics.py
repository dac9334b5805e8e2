"""The bench of topics: that it measures every engine, and tells what it found (Q-87)."""

from __future__ import annotations

import io
from argparse import Namespace
from contextlib import redirect_stdout

from twisted.trial.unittest import SynchronousTestCase, TestCase

from bench.topics import ENGINES, Figures, compare, shown
from tests.servers.reactor import the_reactor


class BenchTests(TestCase):
    """issue 16, accepted 5: produce and fetch of each engine, in batches of 1 and 100."""

    async def test_every_engine(self) -> None:
        options = Namespace(engines=list(ENGINES), rounds=1, batches=500, under_way=8, folder=None)
        said = io.StringIO()
        with redirect_stdout(said):
            await compare(the_reactor(), options)
        lines = [line.split()[:3] for line in said.getvalue().splitlines()]
        self.assertEqual(
            lines,
            [
                [engine, what, count]
                for engine in ("memory", "sqlite", "rabbit")
                for count in ("1", "100")
                for what in ("produce", "fetch")
            ],
        )


class TargetTests(SynchronousTestCase):
    """issue 16, accepted 5: what is slower than the bare engine allows is named."""

    def verdict(self, produce: float) -> tuple[bool, str]:
        bare = Figures(300.0, 1.0)
        found = {
            "produce": Figures(produce, 1.0),
            "bare produce": bare,
            "fetch": Figures(150.0, 1.0),
            "bare fetch": bare,
        }
        said = io.StringIO()
        with redirect_stdout(said):
            met = shown("sqlite", 1, [found])
        return met, said.getvalue()

    def test_both(self) -> None:
        met, said = self.verdict(200.0)
        self.assertTrue(met)
        self.assertIn("time x1.50, CPU x1.00  target x1.5 met", said)
        met, said = self.verdict(199.0)
        self.assertFalse(met)
        self.assertIn("target x1.5 NOT MET", said)
