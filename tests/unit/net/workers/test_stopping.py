"""Issue 12: a handler in a worker pool may stop its own server, and nobody waits for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.observer import Observer
from kupool.net.routing.id_router import IdRouter
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork
from kupool.net.workers.pool import Drained, WorkerPool, WorkerSettings
from kupool.session.connection import Connection
from kupool.wire.framing import Tlv

#: Seconds of the pool's deadline: what is told in less time did not wait for it.
DEADLINE = 50.0


class StoppingTests(SynchronousTestCase):
    def begin(self, **settings: Any) -> None:
        self.network = MemoryNetwork()
        self.settings = WorkerSettings(**{"size": 2, "timeout": 5.0, **settings})
        self.pool = WorkerPool(self.network, self.settings)
        self.ended: list[Drained] = []
        self.done: list[str] = []
        router = IdRouter()
        handlers: tuple[Callable[..., object], ...] = (
            self.work,
            self.stop_server,
            self.stop_after_a_while,
            self.stop_in_callbacks,
            self.stop_pool_alone,
            self.stop_another,
        )
        for number, handler in enumerate(handlers):
            router.add(number, handler, use=[self.pool])
        self.server = self.listen(router, 8000)
        self.server.before_stop(self.drain)
        self.peer = self.network.connect(8000, "tlv")

    def listen(self, router: IdRouter, port: int) -> Server:
        server = Server(self.network, Observer(router), framing="tlv")
        self.network.run(server.listen([f":{port}"]))
        return server

    async def drain(self, server: Server) -> None:
        self.ended.append(await self.pool.stop(DEADLINE))

    async def work(self, connection: Connection, number: int, data: bytes) -> bytes:
        await deferLater(self.network, 2.0)
        self.done.append("work")
        return data

    async def stop_server(self, connection: Connection, number: int, data: bytes) -> bytes:
        await self.server.stop()
        self.done.append("stopped")
        return data

    async def stop_after_a_while(self, connection: Connection, number: int, data: bytes) -> bytes:
        await deferLater(self.network, 1.0)
        return await self.stop_server(connection, number, data)

    @inlineCallbacks
    def stop_in_callbacks(self, connection: Connection, number: int, data: bytes) -> Any:
        yield deferLater(self.network, 1.0)
        yield Deferred.fromCoroutine(self.server.stop())
        self.done.append("stopped")
        return data

    async def stop_pool_alone(self, connection: Connection, number: int, data: bytes) -> bytes:
        self.ended.append(await self.pool.stop(DEADLINE))
        await deferLater(self.network, 1.0)
        self.done.append("stopped")
        return data

    async def stop_another(self, connection: Connection, number: int, data: bytes) -> bytes:
        await self.other.stop()
        await deferLater(self.network, 10.0)
        return data

    def test_whenever_it_does_so(self) -> None:
        """At its first step or later, as a coroutine or with callbacks, alone or not."""
        for number, seconds in ((1, 2), (2, 2), (3, 2)):
            for others in (0, 1, 3):
                self.begin()
                for n in range(others):
                    self.peer.tell(Tlv(0, b"%d" % n))
                self.peer.tell(Tlv(number, b"stop"))
                self.network.advance(seconds * (others + 1))
                self.assertEqual(self.done, ["work"] * others + ["stopped"])
                self.assertEqual(self.ended[0].dropped, Counter())
                answers = [item.payload for item in self.peer.items() if item.message_id == 0]
                self.assertEqual(answers[:others], [b"%d" % n for n in range(others)])
                self.assertFalse(self.peer.open)
                self.assertEqual(self.network.getDelayedCalls(), [])

    def test_what_waits_behind_it_is_handled(self) -> None:
        """It holds no worker while it waits."""
        self.begin(size=1)
        self.peer.tell(Tlv(2, b"stop"))
        self.peer.tell(Tlv(0, b"behind"))
        self.network.advance(4.0)
        self.assertEqual(self.done, ["work", "stopped"])
        self.assertEqual(self.ended[0].dropped, Counter())

    def test_while_somebody_else_stops_it(self) -> None:
        """It waits for a stop that waits for the pool: that goes on without it."""
        self.begin()
        self.peer.tell(Tlv(2, b"stop"))
        self.peer.tell(Tlv(0, b"work"))
        stopping = Deferred.fromCoroutine(self.server.stop())
        self.network.advance(2.0)
        self.successResultOf(stopping)
        self.assertEqual(self.done, ["work", "stopped"])

    def test_several(self) -> None:
        self.begin(size=3)
        for number in (2, 3, 2):
            self.peer.tell(Tlv(number, b"stop"))
        self.network.advance(2.0)
        self.assertEqual(self.done, ["stopped"] * 3)

    def test_its_time_does_not_cut_off_the_stop(self) -> None:
        """However long the stop takes, the handler is not cancelled in it."""
        self.begin(timeout=1.0)
        self.server.before_stop(lambda server: deferLater(self.network, 3.0))
        self.server.before_stop(lambda server: deferLater(self.network, 3.0))
        for number in (1, 2):
            self.peer.tell(Tlv(number, b"stop"))
        self.network.advance(7.0)
        self.assertEqual(self.done, ["stopped", "stopped"])
        self.assertEqual((self.pool.counters["timeout"], self.pool.stuck), (0, 0))

    def test_the_pool_alone(self) -> None:
        """It goes on afterwards, and is answered."""
        self.begin()
        self.peer.tell(Tlv(4, b"stop"))
        self.network.advance(1.0)
        self.assertEqual(self.done, ["stopped"])
        self.assertEqual(self.peer.items(), [Tlv(4, b"stop")])
        self.assertEqual(self.ended, [Drained(0, Counter())])
        self.peer.tell(Tlv(0, b"late"))
        self.network.settle()
        self.assertIn(b'"code":27', self.peer.items()[0].payload)

    def test_another_server(self) -> None:
        """Whoever stops another server than the pool's is a handler as any other."""
        self.begin(timeout=0)
        self.other = self.listen(IdRouter(), 9000)
        self.peer.tell(Tlv(5, b"other"))
        self.network.advance(1.0)
        stopping = Deferred.fromCoroutine(self.server.stop())
        self.network.advance(8.0)
        self.assertNoResult(stopping)
        self.network.advance(1.0)
        self.successResultOf(stopping)
        self.assertEqual(self.peer.items()[0], Tlv(5, b"other"))


class CancelTests(SynchronousTestCase):
    """Issue 12: what fails to be cancelled for its time costs its worker nothing."""

    def test_a_canceller_that_raises(self) -> None:
        network = MemoryNetwork()
        pool = WorkerPool(network, WorkerSettings(size=1, timeout=1.0))
        router = IdRouter()

        def stubborn(deferred: Deferred[bytes]) -> None:
            raise SystemExit

        router.add(1, lambda c, n, data: Deferred(stubborn), use=[pool])
        router.add(2, lambda c, n, data: data, use=[pool])
        server = Server(network, Observer(router), framing="tlv")
        network.run(server.listen([":8000"]))
        peer = network.connect(8000, "tlv")
        peer.tell(Tlv(1, b"a"))
        peer.tell(Tlv(2, b"b"))
        network.advance(1.0)
        first, second = peer.items()
        self.assertIn(b'"code":37', first.payload)
        self.assertEqual(second, Tlv(2, b"b"))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 1)
