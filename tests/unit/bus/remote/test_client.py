"""A client of a bus, with a server that says what the test says."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from kupool.bus import BusError, BusSettings, Kind, Model
from kupool.bus.remote.client import RemoteBus
from kupool.net.testing import MemoryNetwork
from kupool.wire.framing import INT32, LINE, Framing


class Server(Protocol):
    """One connection as the server sees it: the messages that came, and when."""

    def __init__(self, case: ClientCase) -> None:
        self.case = case
        self.open = True
        self.messages: list[tuple[float, Any]] = []
        self._splitter = case.framing.splitter(1 << 30)

    def dataReceived(self, data: bytes) -> None:
        for item in self._splitter.feed(data):
            assert isinstance(item, bytes)
            self.messages.append((self.case.network.seconds(), json.loads(item)))

    def connectionLost(self, reason: Any = None) -> None:
        self.open = False

    def say(self, payload: bytes) -> None:
        assert self.transport is not None
        self.transport.write(self.case.framing.encode(payload))
        self.case.network.settle()

    def taken(self) -> list[Any]:
        """What came since the last call."""
        messages = [message for _, message in self.messages]
        self.messages.clear()
        return messages


@implementer(IStreamClientEndpoint)
class NoEndpoint:
    """An endpoint that never connects."""

    def connect(self, factory: Any) -> Deferred[Any]:
        return Deferred()


class ClientCase(SynchronousTestCase):
    framing: Framing = LINE

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.began: list[float] = []
        self.servers: list[Server] = []
        self.serves = True
        self.random = 0.5
        factory = Factory()
        factory.buildProtocol = self.accept  # type: ignore[method-assign]
        self.network.listenTCP(8000, factory)

    def accept(self, address: object) -> Server | None:
        self.began.append(self.network.seconds())
        if not self.serves:
            return None
        self.servers.append(Server(self))
        return self.servers[-1]

    def bus(self, settings: BusSettings | None = None, **options: Any) -> RemoteBus:
        endpoint = TCP4ClientEndpoint(self.network, "127.0.0.1", 8000)
        bus = RemoteBus(
            self.network,
            endpoint,
            settings,
            framing=self.framing,
            random=lambda: self.random,
            **options,
        )
        self.addCleanup(bus.close)
        return bus

    def connect(self, settings: BusSettings | None = None, **options: Any) -> RemoteBus:
        bus = self.bus(settings, **options)
        self.network.run(bus.connect())
        return bus

    @property
    def server(self) -> Server:
        return self.servers[-1]

    def lose(self) -> None:
        """End the last connection as a server that is killed."""
        transport: Any = self.server.transport
        transport.abortConnection()


class TimeTests(ClientCase):
    """A-06: how long a client waits for its server."""

    def test_keepalive(self) -> None:
        """It asks every twenty seconds whether the server is there."""
        self.connect()
        self.network.advance(19.9)
        self.assertEqual(self.server.taken(), [])
        self.network.advance(0.2)
        (ping,) = self.server.taken()
        self.assertEqual(ping["method"], "ping")

    def test_silence(self) -> None:
        """After 45 seconds without a word from the server, the connection ends."""
        bus = self.connect()
        self.network.advance(44.9)
        self.assertTrue(bus.connected)
        self.network.advance(0.2)
        self.assertFalse(self.servers[0].open)

    def test_no_answer_to_authorize(self) -> None:
        """It comes within ten seconds, or the attempt has failed."""
        bus = self.bus(username="alice")
        connected = bus.connect()
        self.network.advance(9.9)
        self.assertNoResult(connected)
        self.network.advance(0.2)
        error = self.failureResultOf(connected, BusError).value
        self.assertEqual(str(error), "no answer to authorize")

    def test_no_connection(self) -> None:
        """It comes within ten seconds, too."""
        bus = RemoteBus(self.network, NoEndpoint())
        connected = bus.connect()
        self.network.advance(9.9)
        self.assertNoResult(connected)
        self.network.advance(0.2)
        self.failureResultOf(connected)

    def test_waits_between_attempts(self) -> None:
        """They double from a quarter of a second to fifteen."""
        self.random = 1.0
        self.connect()
        self.serves = False
        self.lose()
        self.network.advance(80.0)
        waits = [after - before for before, after in zip(self.began, self.began[1:], strict=False)]
        expected = [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]
        self.assertEqual([round(wait, 2) for wait in waits[: len(expected)]], expected)

    def test_steady(self) -> None:
        """After a connection of ten seconds they begin anew."""
        self.random = 1.0
        for lasts, wait in ((9.9, 0.5), (10.1, 0.25)):
            self.began.clear()
            bus = self.connect()
            self.lose()
            self.network.advance(0.3)
            self.assertTrue(bus.connected)
            self.network.advance(lasts - 0.05)
            self.lose()
            self.network.advance(wait - 0.02)
            self.assertEqual(len(self.began), 2)
            self.network.advance(0.04)
            self.assertEqual(len(self.began), 3)
            bus.close()
            self.network.settle()


class ServerMessageTests(ClientCase):
    """A-09, A-31: what a server may say."""

    def test_what_a_client_does_not_know(self) -> None:
        """A request is answered with an error; anything else is passed over."""
        bus = self.connect()
        for said in (
            b'{"id":null,"method":"news","params":{"topic":7}}',
            b'{"id":99,"result":true}',
            b'{"id":"99","error":"no","code":1}',
        ):
            self.server.say(said)
        self.assertEqual(self.server.taken(), [])
        for method in ("news", "members"):
            request = {"id": 7, "method": method, "params": {"topic": 7}}
            self.server.say(json.dumps(request).encode())
            error = {"id": 7, "result": False, "error": "unknown method", "code": 31}
            (answer,) = self.server.taken()
            self.assertEqual(answer, error)
        self.assertTrue(bus.connected)
        self.assertEqual(len(self.servers), 1)

    def test_an_answer_that_cannot_be_read(self) -> None:
        """It is an error of that request."""
        bus = self.connect()
        asked = bus.trace("m")
        self.network.settle()
        (request,) = self.server.taken()
        self.assertEqual((request["method"], request["params"]), ("bus.trace", {"message": "m"}))
        self.server.say(b'{"id":%d,"result":7}' % request["id"])
        self.assertRegex(str(self.failureResultOf(asked, BusError).value), "^Expected `array`")

    def test_a_question_that_is_refused(self) -> None:
        bus = self.connect()
        asked = bus.status()
        self.network.settle()
        (request,) = self.server.taken()
        self.assertEqual((request["method"], request["params"]), ("bus.status", {"start": 0}))
        self.server.say(b'{"id":%d,"error":"forbidden","code":33}' % request["id"])
        self.assertEqual(str(self.failureResultOf(asked, BusError).value), "forbidden")

    def test_a_question_without_a_connection(self) -> None:
        bus = self.bus()
        self.assertEqual(str(self.failureResultOf(bus.status(), BusError).value), "not connected")

    def test_publish_by_a_model(self) -> None:
        """What is not given is not sent."""
        bus = self.connect()
        bus.publish(Model.UNRELIABLE_ALL, b"x", "t")
        self.network.settle()
        (request,) = self.server.taken()
        self.assertEqual(set(request["params"]), {"data", "topic", "model", "message"})


class ClosingTests(ClientCase):
    """A-05, A-22: what waits for a connection, and what waits at its end."""

    def test_what_was_asked_before_there_is_one(self) -> None:
        bus = self.bus()
        bus.watch("t", print)
        bus.subscribe(["u"], print)
        bus.publish_reliable_random(b"x", "v")
        self.network.run(bus.connect())
        methods = {request["method"] for request in self.server.taken()}
        self.assertEqual(methods, {"bus.watch", "bus.subscribe", "bus.publish"})

    def test_closed(self) -> None:
        bus = self.connect()
        sent, listening = bus.publish_reliable_random(b"x", "t"), bus.subscribe(["t"], print)
        bus.watch("t", print)
        self.network.run(bus.close())
        outcome = self.successResultOf(sent)
        self.assertEqual((outcome.kind, outcome.reason), (Kind.REFUSED, "the bus is closed"))
        self.failureResultOf(listening, BusError)
        self.assertEqual((bus.connected, self.network.getDelayedCalls()), (False, []))

    def test_cancelled(self) -> None:
        """The attempt ends, and there is no other."""
        bus = self.bus(username="alice")
        connected = bus.connect()
        self.network.settle()
        connected.cancel()
        self.failureResultOf(connected, CancelledError)
        self.network.advance(60.0)
        self.assertEqual((len(self.servers), self.server.open), (1, False))
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_closed_before_it_was_let_in(self) -> None:
        bus = self.bus(username="alice")
        connected = bus.connect()
        self.network.settle()
        bus.close()
        error = self.failureResultOf(connected, BusError).value
        self.assertEqual(str(error), "the bus is closed")


class SizeTests(ClientCase):
    """A-13: a message of the server has so many bytes."""

    framing = INT32

    def test_the_largest(self) -> None:
        """131,072 bytes, or what is set, or twice a message of the bus if that is more."""
        for largest, options in (
            (131_072, {}),
            (131_073, {"max_frame": 131_073}),
            (411_072, {"settings": BusSettings(max_data=150_000)}),
        ):
            bus = self.connect(**options)  # type: ignore[arg-type]
            self.server.say(b'{"id":7,"method":"m"}'.ljust(largest))
            (answer,) = self.server.taken()
            self.assertEqual(answer["error"], "unknown method")
            server = self.server
            server.say(b'{"id":7,"method":"m"}'.ljust(largest + 1))
            self.assertFalse(server.open)
            bus.close()
            self.network.settle()


class GoneTests(ClientCase):
    """Issue 12: what waits when the server wants this client no more."""

    def test_what_waits(self) -> None:
        bus = self.connect()
        waiting = bus.watch("t", print), bus.subscribe(["t"], print)
        close = {"reason": "banned", "code": 4503, "reconnect": False}
        message = {"id": None, "method": "close", "params": close}
        self.server.say(json.dumps(message).encode())
        self.lose()
        self.network.settle()
        for failed in (*waiting, bus.watch("t", print)):
            self.assertIn("(4503)", str(self.failureResultOf(failed, BusError).value))

    def test_a_hook_that_raises(self) -> None:
        """It is logged."""

        def gone(why: Exception) -> None:
            raise ZeroDivisionError

        self.connect(on_gone=gone)
        close = {"reason": "banned", "code": 4503, "reconnect": False}
        self.server.say(json.dumps({"id": None, "method": "close", "params": close}).encode())
        self.lose()
        self.network.settle()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
