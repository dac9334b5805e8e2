"""The fuzz of the codecs in small; ten minutes of it are a command."""

from __future__ import annotations

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kupool.wire.packets import MessageTooLarge
from tools.fuzz_codecs_cases import Deliberate
from tools.fuzz_codecs_peers import STEP, HostilePeer, Patience
from tools.fuzz_codecs_servers import LogWatch, ServerFuzz
from tools.fuzz_codecs_splitters import SplitterFuzz

_SEED = "7"


class PatienceTests(SynchronousTestCase):
    """A busy machine makes no reports, and a connection that hangs makes one."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.called: list[float] = []
        self.patience = Patience(self.clock, 5.0, lambda: self.called.append(self.clock.seconds()))

    def test_a_hang(self) -> None:
        self.clock.pump([STEP] * 9)
        self.assertEqual(self.called, [])
        self.clock.pump([STEP] * 9)
        self.assertEqual(self.called, [5.0])
        self.patience.cancel()

    def test_pauses_do_not_count(self) -> None:
        for _ in range(8):
            self.clock.advance(1000.0)
        self.assertEqual(self.called, [])
        self.clock.pump([STEP] * 2)
        self.assertEqual(self.called, [8000.0 + 2 * STEP])

    def test_the_end(self) -> None:
        self.patience.cancel()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_peer_whose_connection_does_not_end(self) -> None:
        peer = HostilePeer(self.clock, None, stops_reading=False)
        self.patience.cancel()
        transport = StringTransport()
        peer.makeConnection(transport)
        peer.leave("stay")
        self.clock.advance(1000.0)
        self.assertEqual(peer.wrong, "")
        self.clock.pump([STEP] * 60)
        self.assertIn("did not end", peer.wrong)
        self.assertTrue(transport.disconnected)


class FuzzTests(TestCase):
    """P-37, P-40: no bytes and no handler let an exception leave the framework."""

    timeout = 120

    def test_codecs_by_themselves(self) -> None:
        """P-37, P-38: the same messages however they are cut, and nothing over the limit."""
        fuzz = SplitterFuzz(_SEED)
        for _ in range(150):
            fuzz.round()
        for kind in ("length-field", "crc", "intercepted", "compatible", "frame", "json"):
            self.assertGreater(fuzz.counts[kind], 10, kind)

    def test_servers_in_memory(self) -> None:
        """P-21, P-38: connections end for documented reasons, once; good peers are answered."""
        with LogWatch() as log:
            fuzz = ServerFuzz(_SEED, log)
            for _ in range(25):
                fuzz.memory_round()
        self.assertGreater(fuzz.good, 25)
        for end in ("frame too large", "idle timeout", "too many connections"):
            self.assertGreater(fuzz.ends[end], 0, end)
        # What handlers raised on purpose was logged, which the watch has looked at.
        self.assertEqual(len(self._logged()), log.deliberate)

    async def test_servers_on_sockets(self) -> None:
        """P-21: the same on both transports."""
        from twisted.internet import reactor

        with LogWatch() as log:
            fuzzes = [ServerFuzz(_SEED, log, name=name) for name in ("sockets", "stock")] * 2
            await gatherResults([ensureDeferred(fuzz.socket_round(reactor)) for fuzz in fuzzes])
            for fuzz in fuzzes:
                self.assertGreater(fuzz.connections, 0)
        self.assertEqual(len(self._logged()), log.deliberate)

    def _logged(self) -> list[object]:
        return self.flushLoggedErrors(Deliberate, TypeError, MessageTooLarge)
