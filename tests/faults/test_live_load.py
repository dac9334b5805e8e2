"""Clients of a live channel that read, and some that do not, for two seconds; the published figures
are those of a run of five minutes.
"""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.requirements import ROOT
from tools.live_load import density, main


class LiveLoadTests(SynchronousTestCase):
    """W-92: the load test gives the numbers that are published."""

    def test_a_short_run(self) -> None:
        """It says connections per GB, deliveries a second, the median and the 99th percentile."""
        with redirect_stdout(StringIO()) as printed:
            status = main(
                ["--healthy=300", "--stalled=5", "--rate=3000", "--seconds=2", "--most-ms=10000"]
            )
        text = printed.getvalue()
        self.assertEqual(status, 0, text)
        dense = re.search(
            r"300 connections .* take ([\d.]+) KB each: (\d+) connections per GB", text
        )
        assert dense is not None, text
        self.assertLess(abs(float(dense[1]) * int(dense[2]) - 1e6), 20_000)
        found = re.search(
            r"(\d+) deliveries to 300 healthy clients \((\d+)/s\): p50 ([\d.]+) ms, "
            r"p99 ([\d.]+) ms, most ([\d.]+) ms",
            text,
        )
        assert found is not None, text
        deliveries, rate, *delays = map(float, found.groups())
        self.assertLess(abs(deliveries / 2 - rate), 1)
        self.assertEqual(delays, sorted(delays))
        self.assertIn("5 stalled clients returned", text)

    def test_memory_that_cannot_be_told(self) -> None:
        self.assertIn("too few", density(999, 1))
        self.assertIn("take 20.0 KB each: 50000 connections per GB", density(20_000_000, 1000))

    def test_they_are_published(self) -> None:
        """The page of speed has each of them, and the command that measures them."""
        page = Path(ROOT, "docs", "speed.md").read_text("utf-8")
        _, found, part = page.partition("## Live channels")
        self.assertTrue(found)
        for figure in (
            "python -m tools.live_load",
            "connections per GB",
            "deliveries a second",
            "median",
            "99th percentile",
        ):
            self.assertIn(figure, part)
