"""A file that takes no writes, and takes them again."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.storage.probing import PROBE_DELAY, WriteProbe


class WriteProbeTests(SynchronousTestCase):
    """Q-15: a write is tried each second after one that failed, until one succeeds."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.probes: list[Deferred[None]] = []
        self.probe = WriteProbe(self.clock, self.begin)

    def begin(self) -> Deferred[None]:
        self.probes.append(Deferred())
        return self.probes[-1]

    def fail(self, text: str) -> None:  # type: ignore[override]
        self.probe.failed(Failure(OSError(text)))

    def test_until_one_succeeds(self) -> None:
        self.fail("full")
        self.fail("still full")
        self.assertEqual(self.probe.problem, "still full")
        self.clock.advance(PROBE_DELAY)
        self.probes[0].errback(OSError("full again"))
        self.assertEqual((self.probe.problem, len(self.clock.getDelayedCalls())), ("full again", 1))
        self.clock.advance(PROBE_DELAY)
        self.probes[1].callback(None)
        self.assertEqual((self.probe.problem, self.clock.getDelayedCalls()), ("", []))
        self.clock.advance(10 * PROBE_DELAY)
        self.assertEqual(len(self.probes), 2)

    def test_another_write_that_succeeds(self) -> None:
        self.fail("full")
        self.probe.wrote()
        self.assertEqual(self.probe.problem, "")
        self.clock.advance(PROBE_DELAY)
        self.assertEqual(self.probes, [])

    def test_closed(self) -> None:
        """What ends later begins no probe."""
        self.fail("full")
        self.clock.advance(PROBE_DELAY)
        self.fail("full")
        self.probe.close()
        self.probe.close()
        self.probes[0].errback(OSError("closed"))
        self.assertEqual(self.clock.getDelayedCalls(), [])
