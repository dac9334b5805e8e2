"""The load generators of the benchmarks."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from bench.load import CompiledLoad


class CompiledLoadTests(SynchronousTestCase):
    """K-96: the load generator in C."""

    def test_without_its_source(self) -> None:
        """K-96: a missing source is named, in place of a traceback of the compiler."""
        with self.assertRaises(SystemExit) as caught:
            CompiledLoad(Path("no/loadgen.c"))
        self.assertIn("no/loadgen.c: no such file", str(caught.exception))
