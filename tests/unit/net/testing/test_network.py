"""P-62, X-11: the in-memory network and its clock, themselves tested."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet import error
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.error import (
    CannotListenError,
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.interfaces import (
    IConnector,
    IHalfCloseableProtocol,
    IHostnameResolver,
    IListeningPort,
    IReactorPluggableNameResolver,
    IReactorTCP,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from kupool.net.manager import ServerSettings
from kupool.net.observer import Observer
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork, NeverAtRest
from kupool.net.testing.names import MemoryNames
from kupool.net.transport.resolving import resolved
from kupool.wire.framing import Tlv


class Noting(Protocol):
    """Notes what happens to it."""

    def __init__(self, *, echo: bool = False) -> None:
        self.log: list[Any] = []
        self.echo = echo

    def dataReceived(self, data: bytes) -> None:
        self.log.append(data)
        if self.echo:
            assert self.transport is not None
            self.transport.write(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.log.append(reason.type)


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Noting):
    def readConnectionLost(self) -> None:
        self.log.append("read lost")

    def writeConnectionLost(self) -> None:
        self.log.append("write lost")


class Producer:
    def __init__(self) -> None:
        self.log: list[str] = []

    def pauseProducing(self) -> None:
        self.log.append("pause")

    def resumeProducing(self) -> None:
        self.log.append("resume")

    def stopProducing(self) -> None:
        self.log.append("stop")


class PairCase(SynchronousTestCase):
    """Two protocols, connected by endpoints as over TCP."""

    def begin(self, kind: type[Noting] = Noting, **options: Any) -> None:
        self.network = MemoryNetwork(**options)
        self.servers: list[Any] = []
        self.kind = kind
        factory = Factory.forProtocol(self.made)  # type: ignore[arg-type]
        endpoint = TCP4ServerEndpoint(self.network, 7000)
        self.port = self.network.run(endpoint.listen(factory))
        self.client = self.connect()
        (self.server,) = self.servers

    def made(self) -> Noting:
        self.servers.append(self.kind())
        return self.servers[-1]  # type: ignore[no-any-return]

    def connect(self) -> Any:
        endpoint = TCP4ClientEndpoint(self.network, "127.0.0.1", 7000)
        factory = Factory.forProtocol(self.kind)
        return self.network.run(endpoint.connect(factory))


class TransportTests(PairCase):
    """It behaves as Twisted's TCP does."""

    def test_interfaces(self) -> None:
        self.begin()
        verifyObject(IReactorTCP, self.network)
        verifyObject(IReactorTime, self.network)
        verifyObject(IListeningPort, self.port)
        verifyObject(ITCPTransport, self.client.transport)
        connector = self.network.connectTCP("127.0.0.1", 7000, _ClientFactory())
        verifyObject(IConnector, connector)

    def test_nothing_arrives_within_the_call(self) -> None:
        self.begin()
        self.client.transport.write(b"a")
        self.client.transport.writeSequence([b"b", b"c"])
        self.assertEqual(self.server.log, [])
        self.network.settle()
        self.assertEqual(self.server.log, [b"abc"])

    def test_bytes_are_split(self) -> None:
        self.begin(chunk=2)
        self.client.transport.write(b"abcde")
        self.network.settle()
        self.assertEqual(self.server.log, [b"ab", b"cd", b"e"])

    def test_several_connections(self) -> None:
        self.begin()
        second = self.connect()
        self.client.transport.write(b"1")
        second.transport.write(b"2")
        self.network.settle()
        self.assertEqual([s.log for s in self.servers], [[b"1"], [b"2"]])
        self.assertEqual(self.network.connections, 2)
        self.assertNotEqual(self.client.transport.getHost(), second.transport.getHost())
        self.assertEqual(self.client.transport.getHost(), self.server.transport.getPeer())

    def test_close_sends_what_was_written(self) -> None:
        self.begin()
        self.client.transport.write(b"last")
        self.client.transport.loseConnection()
        self.client.transport.write(b" words")  # as Twisted: still sent
        self.network.settle()
        self.assertEqual(self.server.log, [b"last words", ConnectionDone])
        self.assertEqual(self.client.log, [ConnectionDone])
        self.assertEqual(self.network.connections, 0)

    def test_abort_sends_nothing(self) -> None:
        self.begin()
        self.client.transport.write(b"lost")
        self.client.transport.abortConnection()
        self.assertEqual(self.client.log, [])
        self.network.settle()
        self.assertEqual(self.server.log, [ConnectionLost])
        self.assertEqual([r.__name__ for r in self.client.log], ["ConnectionAborted"])

    def test_half_close(self) -> None:
        self.begin(HalfCloseable)
        self.client.transport.write(b"question")
        self.client.transport.loseWriteConnection()
        self.client.transport.write(b"never sent")
        self.network.settle()
        self.assertEqual(self.server.log, [b"question", "read lost"])
        self.assertEqual(self.client.log, ["write lost"])
        self.server.transport.write(b"answer")
        self.server.transport.loseConnection()
        self.network.settle()
        self.assertEqual(self.client.log[1:3], [b"answer", "read lost"])
        self.assertEqual(self.server.log[-1], ConnectionDone)
        self.assertEqual(self.client.log[-1], ConnectionDone)

    def test_half_close_of_one_that_does_not_know_it(self) -> None:
        self.begin()
        self.client.transport.loseWriteConnection()
        self.network.settle()
        self.assertEqual(self.server.log, [ConnectionDone])
        self.assertEqual(self.client.log, [ConnectionDone])

    def test_half_close_while_an_answer_waits(self) -> None:
        """Both ends hear of it, though the answer was never read."""
        self.begin()
        self.client.transport.pauseProducing()
        self.server.transport.write(b"not read")
        self.client.transport.loseWriteConnection()
        self.network.settle()
        self.client.transport.resumeProducing()
        self.network.settle()
        self.assertEqual((self.server.log, self.client.log), ([ConnectionDone], [ConnectionDone]))

    def test_writing_to_one_that_has_gone(self) -> None:
        self.begin(HalfCloseable)
        self.client.transport.loseConnection()
        self.network.settle()
        self.assertEqual(self.server.log, ["read lost"])
        self.server.transport.write(b"hello?")
        self.network.settle()
        self.assertEqual(self.server.log, ["read lost", ConnectionLost])

    def test_a_slow_reader(self) -> None:
        self.begin(window=10, chunk=4)
        producer = Producer()
        self.server.transport.registerProducer(producer, True)
        self.client.transport.pauseProducing()
        self.server.transport.write(b"x" * 10)
        self.network.settle()
        self.assertEqual((producer.log, self.client.log), ([], []))
        self.server.transport.write(b"y")
        self.assertEqual(producer.log, ["pause"])
        self.client.transport.resumeProducing()
        self.network.settle()
        self.assertEqual(self.client.log, [b"xxxx", b"xxxx", b"xxy"])
        self.assertEqual(producer.log, ["pause", "resume"])
        self.server.transport.abortConnection()
        self.network.settle()
        self.assertEqual(producer.log, ["pause", "resume", "stop"])

    def test_the_end_is_not_heard_by_one_that_does_not_read(self) -> None:
        self.begin()
        self.server.transport.pauseProducing()
        self.client.transport.write(b"a")
        self.client.transport.loseConnection()
        self.network.settle()
        self.assertEqual(self.server.log, [])
        self.server.transport.resumeProducing()
        self.network.settle()
        self.assertEqual(self.server.log, [b"a", ConnectionDone])

    def test_only_bytes(self) -> None:
        self.begin()
        self.assertRaises(TypeError, self.client.transport.write, "text")

    def test_the_cable_is_pulled(self) -> None:
        self.begin()
        self.network.cut()
        self.assertEqual((len(self.server.log), len(self.client.log)), (1, 1))
        self.assertEqual(self.network.connections, 0)


class _ClientFactory(Factory):
    protocol = Noting

    def __init__(self) -> None:
        self.log: list[Any] = []

    def doStart(self) -> None:
        pass

    def startedConnecting(self, connector: object) -> None:
        self.log.append("started")

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self.log.append(reason.type)

    def clientConnectionLost(self, connector: object, reason: Failure) -> None:
        self.log.append(reason.type)


class ConnectingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = MemoryNetwork()

    def test_ports(self) -> None:
        factory = Factory.forProtocol(Noting)
        port = self.network.listenTCP(7000, factory)
        other = self.network.listenTCP(0, factory)
        self.assertNotIn(other.getHost().port, (0, 7000))
        with self.assertRaises(CannotListenError):
            self.network.listenTCP(7000, factory)
        port.stopListening()
        self.assertEqual(self.network.listenTCP(7000, factory).getHost().port, 7000)

    def test_refused(self) -> None:
        with self.assertRaises(error.ConnectionRefusedError):
            self.network.connect(7000)
        connecting = TCP4ClientEndpoint(self.network, "h", 7000).connect(
            Factory.forProtocol(Noting)
        )
        self.network.settle()
        self.failureResultOf(connecting, error.ConnectionRefusedError)

    def test_unreachable(self) -> None:
        self.network.unreachable.add(7000)
        connecting = TCP4ClientEndpoint(self.network, "h", 7000, timeout=3).connect(
            Factory.forProtocol(Noting)
        )
        self.network.advance(2.9)
        self.assertNoResult(connecting)
        self.network.advance(0.1)
        self.failureResultOf(connecting, error.TimeoutError)

    def test_connector(self) -> None:
        self.network.listenTCP(7000, Factory.forProtocol(Noting))
        factory = _ClientFactory()
        connector = self.network.connectTCP("h", 7000, factory)
        self.network.settle()
        self.assertEqual(self.network.connections, 1)
        connector.disconnect()
        self.network.settle()
        given_up = self.network.connectTCP("h", 7000, factory)
        given_up.disconnect()
        self.network.settle()
        names = [getattr(each, "__name__", each) for each in factory.log]
        self.assertEqual(names, ["started", "ConnectionDone", "started", "UserError"])

    def test_a_factory_that_wants_nobody(self) -> None:
        class Nobody(Factory):
            def buildProtocol(self, addr: object) -> None:
                return None

        self.network.listenTCP(7000, Nobody())
        peer = self.network.connect(7000)
        self.assertFalse(peer.open)


class ClockTests(SynchronousTestCase):
    """The clock: what is due on the way happens at its own time."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()

    def test_calls_see_the_time_that_they_are_due(self) -> None:
        seen: list[float] = []
        for when in (0.3, 0.1, 2.0):
            self.network.callLater(when, lambda: seen.append(self.network.seconds()))
        self.network.callLater(0.1, lambda: self.network.callLater(0.1, seen.append, -1.0))
        self.network.advance(1.0)
        self.assertEqual(seen, [0.1, -1.0, 0.3])
        self.assertEqual(self.network.seconds(), 1.0)

    def test_many_small_steps_miss_nothing(self) -> None:
        seen: list[int] = []
        for n in range(1, 101):
            self.network.callLater(n * 0.1, seen.append, n)
        self.network.advance(10.1)
        self.assertEqual(seen, list(range(1, 101)))

    def test_run(self) -> None:
        async def work() -> str:
            await deferLater(self.network, 5.0)
            return "done"

        self.assertEqual(self.network.run(work(), patience=5.0), "done")
        with self.assertRaises(AssertionError) as caught:
            self.network.run(Deferred(), patience=60.0)
        self.assertEqual(
            str(caught.exception), "not done within 60 s, and nothing is due after that"
        )
        with self.assertRaises(AssertionError) as caught:
            self.network.run(work(), patience=2.0)
        self.assertEqual(
            str(caught.exception), "not done within 2 s, and the next is due in 3 s after that"
        )
        with self.assertRaises(ZeroDivisionError):
            self.network.run(fail(ZeroDivisionError()))

    def test_what_never_ends_is_found_out(self) -> None:
        self.patch(__import__("kupool.net.testing.network", fromlist=["x"]), "MOST_STEPS", 1000)
        self.network.listenTCP(7000, Factory.forProtocol(lambda: Noting(echo=True)))  # type: ignore[arg-type]
        endpoint = TCP4ClientEndpoint(self.network, "h", 7000)
        client = self.network.run(
            endpoint.connect(Factory.forProtocol(lambda: Noting(echo=True)))  # type: ignore[arg-type]
        )
        client.transport.write(b"x")
        self.assertRaises(NeverAtRest, self.network.settle)

    def test_names(self) -> None:
        """X-11: of hosts, for servers and clients, without a look-up."""
        self.assertTrue(verifyObject(IReactorPluggableNameResolver, self.network))
        self.assertTrue(verifyObject(IHostnameResolver, self.network.nameResolver))
        names = self.network.names
        names.update({"six.example": ["2001:db8::1"], "gone.example": []})
        for text, expected in (
            ("any.example:80", ["127.0.0.1"]),
            ("tcp:80:interface=any.example", ["127.0.0.1"]),
            ("six.example:80", ["2001:db8::1"]),
            ("tcp6:80:interface=six.example", ["2001:db8::1"]),
            ("127.0.0.1:80", []),
            ("[::1]:80", []),
            (":80", []),
            ("unix:/tmp/x", []),
        ):
            found = self.network.run(resolved(self.network, text))
            self.assertEqual([address.host for address in found], expected, text)
        names["both.example"] = ["2001:db8::1", "192.0.2.1", "192.0.2.1"]
        both = self.network.run(resolved(self.network, "both.example:80"))
        self.assertEqual(
            [str(address) for address in both],
            [
                "tcp:80:interface=192.0.2.1:backlog=1024",
                "tcp6:80:interface=2001\\:db8\\:\\:1:backlog=1024",
            ],
        )
        for text, word in (
            ("gone.example:80", "no address for 'gone.example'"),
            ("tcp:80:interface=six.example", "no tcp address for 'six.example'"),
            ("tcp6:80:interface=any.example", "no tcp6 address for 'any.example'"),
        ):
            with self.assertRaises(CannotListenError) as caught:
                self.network.run(resolved(self.network, text))
            self.assertIn(word, str(caught.exception))
        mine = MemoryNames({"any.example": []})
        before = self.network.installNameResolver(mine)
        with self.assertRaises(CannotListenError):
            self.network.run(resolved(self.network, "any.example:80"))
        self.assertIs(self.network.installNameResolver(before), mine)

    def test_threads_are_the_next_turn(self) -> None:
        seen: list[int] = []
        self.network.callFromThread(seen.append, 1)
        self.assertEqual(seen, [])
        self.network.settle()
        self.assertEqual(seen, [1])


class Add(msgspec.Struct):
    a: int
    b: int = 0


class ServerTests(SynchronousTestCase):
    """P-62: a whole server without a socket and without waiting."""

    def serve(self, router: Any = None, framing: str = "auto", **settings: Any) -> None:
        self.network = MemoryNetwork()
        if router is None:
            router = Router()
            router.add("add", lambda c, m: m.params.a + m.params.b, Add)
        self.server = Server(
            self.network, Observer(router), ServerSettings(**settings), framing=framing
        )
        self.network.run(self.server.listen(["127.0.0.1:8000"]))

    def test_every_framing(self) -> None:
        self.serve()
        for codec in ("line", "frame", "int32"):
            peer = self.network.connect(8000, codec)
            self.assertEqual(peer.ask("add", {"a": 1, "b": 2}), {"id": 1, "result": 3})
            self.assertEqual(peer.ask("add", {"a": "x"})["code"], 32)
        self.assertEqual((len(self.server.manager), self.network.connections), (3, 3))

    def test_byte_by_byte(self) -> None:
        self.serve()
        self.network.chunk = 1
        peer = self.network.connect(8000)
        self.assertEqual(peer.ask("add", {"a": 40, "b": 2})["result"], 42)
        self.network.chunk = None
        other = self.network.connect(8000, "int32")
        other.tell(b'{"id":9,"method":"add","params":{"a":1}}', step=3)
        self.assertEqual(other.messages(), [{"id": 9, "result": 1}])

    def test_messages_with_ids(self) -> None:
        router = IdRouter()
        router.add(7, lambda c, n, data: data.upper())
        self.serve(router, "tlv")
        peer = self.network.connect(8000, "tlv")
        peer.tell(Tlv(7, b"abc"))
        self.assertEqual(peer.items(), [Tlv(7, b"ABC")])
        self.assertEqual(peer.received(), b"\x03\0\0\0\x07\0\0\0ABC")

    def test_half_close_of_a_peer(self) -> None:
        self.serve()
        peer = self.network.connect(8000)
        peer.request("add", {"a": 1})
        peer.finish()
        self.assertEqual(peer.messages(), [{"id": 1, "result": 1}])
        self.assertFalse(peer.open)
        self.assertEqual(len(self.server.manager), 0)

    def test_a_slow_reader_is_closed(self) -> None:
        self.serve(outbox_limit=1000, write_timeout=5.0)
        self.network.window = 1000
        peer = self.network.connect(8000)
        peer.ask("add", {"a": 1})
        peer.stop_reading()
        for _ in range(100):
            peer.request("add", {"a": 10**300})
        (connection,) = self.server.manager
        self.assertLess(connection.outbound, 10_000)
        self.network.advance(20)
        self.assertEqual(len(self.server.manager), 0)
        self.assertEqual(self.server.manager.counters.closes["slow reader"], 1)

    def test_a_slow_reader_that_reads_again(self) -> None:
        self.serve(outbox_limit=1000)
        self.network.window = 1000
        peer = self.network.connect(8000)
        peer.stop_reading()
        for n in range(100):
            peer.request("add", {"a": n, "b": 10**100})
        peer.read_again()
        self.assertEqual([m["id"] for m in peer.messages()], list(range(1, 101)))

    def test_timeouts_of_the_server(self) -> None:
        self.serve(idle_timeout=60.0)
        peer = self.network.connect(8000)
        peer.ask("add", {"a": 1})
        self.network.advance(62)
        self.assertEqual([m["params"]["reason"] for m in peer.messages()], ["idle timeout"])
        self.assertFalse(peer.open)
        assert peer.reason is not None
        self.assertIs(peer.reason.type, ConnectionDone)

    def test_a_peer_that_breaks_off(self) -> None:
        self.serve()
        peer = self.network.connect(8000)
        peer.abort()
        self.assertEqual(len(self.server.manager), 0)

    def test_one_that_lingers_is_cut_off(self) -> None:
        self.serve(idle_timeout=60.0)
        peer = self.network.connect(8000)
        peer.lingers = True
        self.network.advance(61)
        self.assertEqual((peer.ended, peer.open), (True, True))
        self.network.advance(3)
        self.assertEqual((peer.open, len(self.server.manager)), (True, 0))
        peer.send(b"anybody there?")
        assert peer.reason is not None
        self.assertIs(peer.reason.type, ConnectionLost)

    def test_the_stop(self) -> None:
        self.serve()
        peer = self.network.connect(8000)
        self.network.run(self.server.stop(), patience=10)
        self.assertEqual(peer.messages()[0]["params"]["reason"], "server going down")
        self.assertRaises(error.ConnectionRefusedError, self.network.connect, 8000)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_no_reply_is_an_error_of_the_test(self) -> None:
        router = Router()
        router.add("never", lambda c, m: Deferred())
        self.serve(router)
        peer = self.network.connect(8000)
        with self.assertRaises(AssertionError) as caught:
            peer.ask("never")
        self.assertIn("no reply to 'never' at once; the connection stands", str(caught.exception))
        peer.close()
        with self.assertRaises(AssertionError) as caught:
            peer.ask("never")
        self.assertIn("the connection ended: Connection was closed cleanly", str(caught.exception))

    def test_where_nobody_listens(self) -> None:
        self.serve()
        with self.assertRaises(error.ConnectionRefusedError) as caught:
            self.network.connect(8001)
        self.assertIn("nothing listens on 8001; listening ports: 8000", str(caught.exception))
