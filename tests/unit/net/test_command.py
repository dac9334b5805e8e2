"""A server as a program, in memory; the examples are run as processes elsewhere."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.command import Make, serve
from kupool.net.observer import Observer
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork


def make(reactor: Any, arguments: Namespace) -> Server:
    router = Router()
    router.add("stop", lambda connection, request: server.stop())
    server = Server(reactor, Observer(router))
    return server


class ServeTests(SynchronousTestCase):
    """P-01, P-04: start, say where, serve until the end."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.told: list[str] = []

    def serve(self, make: Make, host: str = "127.0.0.1", port: int = 8000) -> Deferred[None]:
        ended = Deferred.fromCoroutine(
            serve(self.network, make, Namespace(host=host, port=port), self.told.append)
        )
        self.network.settle()
        return ended

    def test_until_the_program_is_told_to_end(self) -> None:
        ended = self.serve(make, port=0)
        self.assertRegex(self.told[0], r"^listening on [1-9]\d*$")
        self.assertNoResult(ended)
        self.network.shut_down(patience=1)
        self.assertIsNone(self.successResultOf(ended))

    def test_until_it_is_stopped_from_a_handler(self) -> None:
        """P-03: a handler may stop the server, and the program ends."""
        ended = self.serve(make)
        self.network.connect(8000).request("stop")
        self.network.settle()
        self.assertIsNone(self.successResultOf(ended))

    def test_what_makes_it_may_take_its_time(self) -> None:
        ready: Deferred[None] = Deferred()

        async def later(reactor: Any, arguments: Namespace) -> Server:
            await ready
            return make(reactor, arguments)

        self.serve(later, "::1")
        self.assertEqual(self.told, [])
        ready.callback(None)
        self.network.settle()
        self.assertEqual(self.told, ["listening on 8000"])

    def test_a_server_with_addresses_of_its_own(self) -> None:
        self.serve(lambda reactor, _: Server(reactor, Observer(Router()), addresses=[":7000"]))
        self.assertEqual(self.told, ["listening on 7000"])

    def test_an_address_that_cannot_be_had(self) -> None:
        """P-02: the program's last words name the address and the cause."""
        self.serve(make)
        for port, words in ((8000, "8000"), (70_000, "127.0.0.1:70000")):
            problem = self.failureResultOf(self.serve(make, port=port), SystemExit).value
            self.assertRegex(str(problem.code), f"^cannot listen: .*{words}")
        self.assertIsInstance(
            self.failureResultOf(
                Deferred.fromCoroutine(make(self.network, Namespace()).start([":8000"]))
            ).value,
            CannotListenError,
        )

    def test_what_is_made_must_be_a_server(self) -> None:
        problem = self.failureResultOf(self.serve(lambda *_: Router()), TypeError).value
        self.assertEqual(str(problem), "a Router was made, not a Server")
