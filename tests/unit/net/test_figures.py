"""P-64: figures and structured logs, off the hot path."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import FORBIDDEN
from kupool.net.figures import Meter, figures
from kupool.net.manager import ServerSettings
from kupool.net.observer import Observer
from kupool.net.routing.guards import allow
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork
from kupool.net.workers.pool import WorkerPool, WorkerSettings
from kupool.wire.framing import Tlv


class FigureTests(SynchronousTestCase):
    """P-64: what happened can be read at any time, by route and reason."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.router = IdRouter()
        self.pool = WorkerPool(self.network, WorkerSettings(size=2, timeout=5.0))
        self.meter = Meter(self.network)
        settings = ServerSettings(max_connections=1)
        self.server = Server(self.network, Observer(self.router), settings, framing="tlv")
        self.network.run(self.server.listen([":8000"]))
        self.peer = self.network.connect(8000, "tlv")

    def read(self) -> dict[tuple[str, ...], float]:
        found = figures(self.server.manager, [self.router], [self.pool], [self.meter])
        return {(f.name, *f.labels.values()): f.value for f in found}

    def test_all(self) -> None:
        waiting: Deferred[bytes] = Deferred()

        def fail(*message: Any) -> object:
            raise ZeroDivisionError

        self.router.add(1, lambda c, n, data: data, use=[self.meter])
        self.router.add(2, lambda c, n, data: waiting, use=[self.pool, self.meter])
        self.router.add(3, fail)
        self.router.add(4, lambda c, n, data: b"", guards=[allow(lambda c: False, FORBIDDEN)])
        for number in (1, 1, 2, 3, 4, 99):
            self.peer.tell(Tlv(number, b""))
        self.network.connect(8000, "tlv")
        now = self.read()
        self.assertEqual(now["kupool_worker_load", "0"], 1)
        self.network.advance(2.0)
        waiting.callback(b"")
        now = self.read()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        expected: dict[tuple[str, ...], float] = {
            ("kupool_connections",): 1,
            ("kupool_accepted_total",): 1,
            ("kupool_refused_total",): 1,
            ("kupool_bans_total",): 0,
            ("kupool_bans_lifted_total",): 0,
            ("kupool_refusals_total", "connection, too many at once"): 1,
            ("kupool_malformed_total",): 1,
            ("kupool_dropped_total",): 0,
            ("kupool_closes_total", "too many connections"): 1,
            ("kupool_unknown_messages_total",): 1,
            ("kupool_failed_messages_total", "3"): 1,
            ("kupool_refused_messages_total", "4"): 1,
            ("kupool_worker_load", "0"): 0,
            ("kupool_worker_load", "1"): 0,
            ("kupool_workers_stuck",): 0,
            ("kupool_worker_messages_total", "handled"): 1,
            ("kupool_handled_messages_total", "1"): 2,
            ("kupool_handler_seconds_total", "1"): 0,
            ("kupool_handled_messages_total", "2"): 1,
            ("kupool_handler_seconds_total", "2"): 2.0,
        }
        self.assertEqual(now, expected)

    def test_by_method(self) -> None:
        router = Router()
        router.add("echo", lambda c, m: m.params, object, use=[self.meter])
        connection = next(iter(self.server.manager))
        router.dispatch(connection, b'{"id":1,"method":"echo","params":1}')
        self.assertEqual(self.meter.handled, {"echo": 1})
