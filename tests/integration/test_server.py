"""A server from its first address to its orderly end, on real sockets."""

from __future__ import annotations

import datetime
import json
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from kupool.errors import RESTARTING
from kupool.net.manager import ServerSettings
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.session.connection import Connection
from kupool.wire.framing import FRAME, INT32, LINE, OP_CLOSE
from kupool.wire.messages import encode_success
from tests.fakes.peers import Observer, frames, ping_router
from tests.servers.sockets import Peer, in_thread, started, until

reactor: Any = _reactor

PING = b'{"id":%d,"method":"ping"}'


class ArgumentTests(SynchronousTestCase):
    """K-88: a wrong value is named."""

    def test_unknown_framing_or_transport(self) -> None:
        for arguments in ({"framing": "morse"}, {"transport": "pigeon"}):
            with self.assertRaises(ValueError) as caught:
                Server(reactor, Observer(), **arguments)  # type: ignore[arg-type]
            self.assertIn(repr(next(iter(arguments.values()))), str(caught.exception))


class _ServerSuite(TestCase):
    timeout = 120
    transport = "direct"

    def server(self, router: Any = None, **settings: Any) -> tuple[Server, Observer]:
        observer = Observer(router)
        framing = settings.pop("framing", "auto")
        server = Server(
            reactor,
            observer,
            ServerSettings(**settings),
            framing=framing,
            transport=self.transport,
        )
        self.addCleanup(lambda: started(server.stop(timeout=1.0)))
        return server, observer

    async def serve(self, router: Any = None, **settings: Any) -> tuple[Server, Observer, int]:
        server, observer = self.server(router, **settings)
        await server.listen(["127.0.0.1:0"])
        return server, observer, server.addresses[0].port

    async def meet(self, port: int, count: int = 1) -> list[Peer]:
        """Peers of the framing `frame` that have been answered once."""

        def talk() -> list[Peer]:
            peers = [Peer(port) for _ in range(count)]
            for peer in peers:
                peer.send(FRAME.encode(PING % 1))
                peer.frame()
            return peers

        peers = await in_thread(talk)
        for peer in peers:
            self.addCleanup(peer.close)
        return peers

    # -- listening

    async def test_port_zero_can_be_read(self) -> None:
        """P-08: of each address."""
        server, _ = self.server()
        self.assertEqual(server.addresses, [])
        await server.listen(["127.0.0.1:0", "tcp:0:interface=127.0.0.1", ":0"])
        ports = [address.port for address in server.addresses]
        self.assertEqual(len(set(ports)), 3)
        for port in ports:
            self.assertGreater(port, 0)
            await self.meet(port)

    async def test_ipv6(self) -> None:
        if not socket.has_ipv6:
            self.fail("no IPv6")
        server, observer = self.server()
        await server.listen(["[::1]:0"])
        address = server.addresses[0]

        def talk() -> bytes:
            with socket.create_connection((address.host, address.port), 30) as peer:
                peer.sendall(LINE.encode(PING % 1))
                return peer.recv(100)

        self.assertEqual(await in_thread(talk), LINE.encode(encode_success(1)))
        self.assertEqual(observer.connections[0].host, "::1")

    async def test_a_port_that_is_taken_leaves_none_listening(self) -> None:
        """K-88: a failure to listen is an error, and nothing stays half started."""
        _, _, taken = await self.serve()
        server, _ = self.server()
        with self.assertRaises(CannotListenError) as caught:
            await server.listen(["127.0.0.1:0", f"127.0.0.1:{taken}"])
        self.assertIn(str(taken), str(caught.exception))
        self.assertEqual(server.addresses, [])
        await server.listen(["127.0.0.1:0"])
        await self.meet(server.addresses[0].port)

    async def test_an_address_that_is_none(self) -> None:
        server, _ = self.server()
        with self.assertRaises(ValueError) as caught:
            await server.listen(["127.0.0.1:0", "nowhere"])
        self.assertIn("'nowhere'", str(caught.exception))
        self.assertEqual(server.addresses, [])

    async def test_several_servers_in_one_reactor(self) -> None:
        for framing in (FRAME, INT32, LINE):
            server, _, port = await self.serve(framing=framing.name)

            def talk(port: int = port, framing: Any = framing) -> bytes:
                with Peer(port) as peer:
                    peer.send(framing.encode(PING % 3))
                    return peer.exactly(len(framing.encode(encode_success(3))))

            self.assertEqual(await in_thread(talk), framing.encode(encode_success(3)))
            self.assertEqual(server.manager.accepted, 1)

    async def test_a_pinned_framing_takes_no_other(self) -> None:
        _, _, port = await self.serve(framing="int32")

        def talk() -> bytes:
            with Peer(port) as peer:
                peer.send(b'{"id":1,"method":"ping"}\n')
                return peer.rest()

        self.assertIn(b"frame too large", await in_thread(talk))

    async def test_unix_socket(self) -> None:
        path = str(Path(tempfile.mkdtemp()) / "pool.sock")
        server, observer = self.server(max_connections_per_ip=1)
        await server.listen([f"unix:{path}"])

        def talk() -> None:
            with Peer(path) as one, Peer(path) as two:
                for peer in (one, two):
                    peer.send(FRAME.encode(PING % 1))
                    self.assertEqual(peer.frame(), (2, encode_success(1)))
                    peer.finish()
                    self.assertEqual(peer.rest(), b"")

        await in_thread(talk)
        self.assertEqual({(c.host, c.peer) for c in observer.connections}, {("", "")})
        await until(reactor, lambda: not len(server.manager), "all to go")

    # -- stopping

    async def test_stop_tells_every_peer(self) -> None:
        """K-85: every connection is told to come back, then ends; the port is free again."""
        server, observer, port = await self.serve()
        peers = await self.meet(port, 5)
        stopping = started(server.stop(RESTARTING))
        for peer in peers:
            self.assertEqual(frames(await in_thread(peer.rest)), [(OP_CLOSE, b"server restarting")])
            peer.close()
        await stopping
        self.assertEqual((len(server.manager), len(observer.ended)), (0, 5))
        with self.assertRaises(ConnectionRefusedError):
            Peer(port)
        await server.listen([f"127.0.0.1:{port}"])
        await self.meet(port)

    async def test_stop_twice(self) -> None:
        server, _, port = await self.serve()
        (peer,) = await self.meet(port)
        stopping = gatherResults([started(server.stop()) for _ in range(3)])
        self.assertEqual(frames(await in_thread(peer.rest)), [(OP_CLOSE, b"server going down")])
        peer.close()
        await stopping
        await server.stop()
        self.assertEqual(server.addresses, [])

    async def test_a_second_stop_waits_for_the_port_as_well(self) -> None:
        server, _, port = await self.serve()
        first = started(server.stop())
        await server.stop()
        again, _ = self.server()
        await again.listen([f"127.0.0.1:{port}"])
        await first

    async def test_stop_from_a_handler(self) -> None:
        router = ping_router()
        stopped: Deferred[None] = Deferred()

        async def stop(connection: Connection, message: Any) -> bool:
            await server.stop()
            stopped.callback(None)
            return True

        router.add("stop", stop)
        server, _, port = await self.serve(router)
        (peer,) = await self.meet(port)
        peer.send(FRAME.encode(b'{"id":2,"method":"stop"}'))
        self.assertEqual(frames(await in_thread(peer.rest)), [(OP_CLOSE, b"server going down")])
        peer.close()
        await stopped
        self.assertEqual(len(server.manager), 0)

    async def test_a_peer_that_does_not_end_is_not_waited_for(self) -> None:
        """The connection of a peer that keeps its side open ends a moment later."""
        server, _, port = await self.serve()
        await self.meet(port)
        await server.stop(timeout=60.0)
        self.assertEqual(len(server.manager), 0)

    async def test_a_peer_that_reads_nothing_is_cut_off(self) -> None:
        server, observer, port = await self.serve(outbox_limit=10_000_000, write_timeout=60.0)
        await self.meet(port)
        connection = observer.connections[0]
        while not connection.outbound:
            connection.send(b"x" * 60_000)
        await server.stop(timeout=0.2)
        self.assertEqual(len(server.manager), 0)

    async def test_refused_peers_do_not_outlive_the_server(self) -> None:
        server, _, port = await self.serve(max_connections=1)
        (first,) = await self.meet(port)
        silent = await in_thread(Peer, port)
        await deferLater(reactor, 0.05, lambda: None)
        stopping = started(server.stop())
        await in_thread(first.rest)
        first.close()
        await stopping
        self.assertEqual(await in_thread(silent.rest), b"")
        silent.close()


class DirectServerTests(_ServerSuite):
    transport = "direct"


class StockServerTests(_ServerSuite):
    transport = "stock"


del _ServerSuite


def certificate(folder: Path) -> Path:
    """Make a key and a certificate for 127.0.0.1 in one PEM file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


class TlsTests(TestCase):
    """P-07: a `ssl:` endpoint goes through the stock transport, whichever is set."""

    timeout = 60

    async def serve(self, router: Any = None, **settings: Any) -> tuple[Server, Observer]:
        self.pem = certificate(Path(tempfile.mkdtemp()))
        observer = Observer(router)
        server = Server(reactor, observer, ServerSettings(**settings), transport="direct")
        await server.listen([f"ssl:0:interface=127.0.0.1:privateKey={self.pem}:certKey={self.pem}"])
        self.addCleanup(lambda: started(server.stop(timeout=1.0)))
        return server, observer

    def connect(self, server: Server) -> Peer:
        peer = Peer(server.addresses[0].port)
        context = ssl.create_default_context(cafile=str(self.pem))
        peer.socket = context.wrap_socket(peer.socket, server_hostname="localhost")
        return peer

    async def test_every_framing(self) -> None:
        server, observer = await self.serve()

        def talk() -> None:
            for framing in (FRAME, INT32, LINE):
                with self.connect(server) as peer:
                    for n in range(3):
                        peer.send(framing.encode(PING % n))
                        expected = framing.encode(encode_success(n))
                        self.assertEqual(peer.exactly(len(expected)), expected)

        await in_thread(talk)
        self.assertEqual({c.host for c in observer.connections}, {"127.0.0.1"})
        await until(reactor, lambda: not len(server.manager), "all to go")

    async def test_messages_behind_one_that_is_held(self) -> None:
        """More than one TLS record may come after the connection stopped reading."""
        router = Router()
        held: list[Connection] = []

        def first(connection: Connection, message: Any) -> bool:
            connection.hold()
            held.append(connection)
            return True

        router.add("first", first)
        router.add("ping", lambda connection, message: True)
        server, observer = await self.serve(router, max_frame=1024)
        padding = b" " * 3000

        def talk() -> list[bytes]:
            with self.connect(server) as peer:
                peer.send(
                    LINE.encode(b'{"id":0,"method":"first"}')
                    + LINE.encode(padding + PING % 1)
                    + LINE.join([PING % n for n in range(2, 2500)])
                )
                return [peer.line() for _ in range(2500)]

        talking = in_thread(talk)
        await until(reactor, lambda: held, "the first message")
        await deferLater(reactor, 0.1, lambda: None)
        held[0].max_frame = 65536
        held[0].release()
        self.assertEqual(await talking, [encode_success(n) for n in range(2500)])
        self.assertEqual(observer.connections[0].malformed, 0)

    async def test_refused_and_stopped(self) -> None:
        server, _ = await self.serve(max_connections=1)

        def first() -> Peer:
            peer = self.connect(server)
            peer.send(LINE.encode(PING % 1))
            peer.line()
            return peer

        def second() -> bytes:
            with self.connect(server) as peer:
                peer.send(LINE.encode(PING % 1))
                return peer.line()

        one = await in_thread(first)
        refusal = json.loads(await in_thread(second))
        self.assertEqual(refusal["params"]["code"], 4102)
        stopping = started(server.stop())
        farewell = json.loads(await in_thread(one.line))
        self.assertEqual(farewell["params"]["reason"], "server going down")
        one.close()
        await stopping

    async def test_too_large(self) -> None:
        server, _ = await self.serve(max_frame=1024)

        def talk() -> tuple[int, bytes]:
            with self.connect(server) as peer:
                peer.send(b"\x02\xff\xff\xff\xff")
                return peer.frame()

        self.assertEqual(await in_thread(talk), (OP_CLOSE, b"frame too large"))
