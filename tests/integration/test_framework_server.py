"""A server of one's own on real sockets: rows P-01 to P-08, P-14, P-54 and P-56."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import CannotListenError
from twisted.internet.task import deferLater

import kupool.net.transport.listening
from kupool.net.configuration import ServerConfig
from kupool.net.heartbeat import Heartbeat
from kupool.net.hooks import HookedObserver
from kupool.net.manager import ServerSettings
from kupool.net.server import Server
from kupool.net.transport import protocols
from kupool.net.transport.endpoints import Address
from kupool.session.connection import Connection
from kupool.session.failures import ConnectionClosed
from kupool.wire.codecs import LengthFieldCodec, TlvCodec
from kupool.wire.framing import LINE, Tlv, encode_tlv
from kupool.wire.messages import encode_success
from tests.fakes.peers import Observer, Recorder
from tests.servers.serving import ServerCase, echo, received
from tests.servers.sockets import PATIENCE, Peer, in_thread, started, until

reactor: Any = _reactor

ROOT = Path(__file__).parents[2]


class _ServerSuite(ServerCase):
    async def test_start_and_stop_by_config(self) -> None:
        """P-01, P-08: name, IP version, IP and port; port 0 can be read."""
        config = ServerConfig(name="demo", host="127.0.0.1", tcp_port=0)
        server = self.keep(
            Server.from_config(reactor, HookedObserver(echo()), config, transport=self.transport)
        )
        self.assertEqual((server.name, server.host, server.port), ("demo", "127.0.0.1", 0))
        await server.start()
        self.assertEqual((server.host, server.ip_version), ("127.0.0.1", "tcp4"))
        self.assertGreater(server.port, 0)
        await self.talk(server.port)
        await server.stop()
        with self.assertRaises(ConnectionRefusedError):
            Peer(server.addresses[0].port if server.addresses else self.unused_port())

    def unused_port(self) -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port: int = free.getsockname()[1]
            return port

    async def test_serve_until_it_is_stopped(self) -> None:
        """P-01, P-04: serve starts, calls what is to run then, and returns after the stop."""
        steps: list[str] = []
        server = self.server()

        async def prepare(started_server: Server) -> None:
            steps.append(f"listening {started_server.port > 0}")
            await deferLater(reactor, 0.01)
            steps.append("prepared")

        server.after_start(prepare)
        server.after_start(lambda s: steps.append("second"))
        server.before_stop(lambda s: steps.append(f"stops with {len(s.manager)}"))
        serving = started(server.serve())
        serving.addCallback(lambda _: steps.append("served"))
        await until(reactor, lambda: "second" in steps, "the start")
        await self.talk(server.port)
        await until(reactor, lambda: not len(server.manager), "the peer to go")
        self.assertNoResult(serving)
        await server.stop()
        await serving
        self.assertEqual(steps, ["listening True", "prepared", "second", "stops with 0", "served"])

    async def test_stopped_from_its_own_extension(self) -> None:
        """P-03, P-04: a stop while it starts ends it as well."""
        server = self.server()
        server.after_start(lambda s: s.stop())
        await server.serve()
        self.assertEqual(server.addresses, [])

    async def test_an_extension_that_fails_stops_it(self) -> None:
        """P-04: start raises what it did, and nothing is left listening."""
        server = self.server()
        ports: list[int] = []

        def fail(starting: Server) -> None:
            ports.append(starting.port)
            raise ZeroDivisionError

        server.after_start(fail)
        for begin in (server.start, server.serve):
            with self.assertRaises(ZeroDivisionError):
                await begin()
            self.assertEqual(server.addresses, [])
            with self.assertRaises(ConnectionRefusedError):
                Peer(ports[-1])

    async def test_start_errors_say_where_and_why(self) -> None:
        """P-02: the address and the cause; serve does not wait for ever."""
        first = self.server()
        await first.start()
        taken = f"127.0.0.1:{first.port}"
        missing = str(Path(tempfile.mkdtemp()) / "no" / "such.sock")
        for address, words in (
            (taken, (str(first.port), "127.0.0.1", os.strerror(errno.EADDRINUSE))),
            ("192.0.2.1:80", ("192.0.2.1", "80", os.strerror(errno.EADDRNOTAVAIL))),
            (f"unix:{missing}", (missing, os.strerror(errno.ENOENT))),
            ("no-such-host.invalid:80", ("no-such-host.invalid", "80", "no address")),
        ):
            server = self.server(addresses=["127.0.0.1:0", address])
            for begin in (server.start, server.serve):
                with self.assertRaises(CannotListenError) as caught:
                    await begin()
                for word in words:
                    self.assertIn(word, str(caught.exception))
                self.assertEqual(server.addresses, [])

    async def test_a_name_is_resolved(self) -> None:
        """P-01, P-02: all its addresses, on one port, without holding the reactor up."""
        try:
            socket.getaddrinfo("localhost", 0)
        except OSError as error:
            self.skipTest(f"nothing here knows localhost: {error}")
        server = self.server(addresses=["localhost:0"])
        await server.start()
        infos = await in_thread(socket.getaddrinfo, "localhost", 0, 0, socket.SOCK_STREAM)
        names = {str(info[4][0]) for info in infos}
        hosts = [address.host for address in server.addresses]
        self.assertTrue(hosts and names.issuperset(hosts), (hosts, names))
        self.assertEqual({address.port for address in server.addresses}, {server.port})

        def by(host: str) -> bytes:
            with socket.create_connection((host, server.port), PATIENCE) as peer:
                peer.sendall(encode_tlv(b"x", 6))
                return peer.recv(100)

        for host in hosts:
            self.assertEqual(await in_thread(by, host), encode_tlv(b"x", 6))

    async def test_a_name_with_addresses_of_both_kinds(self) -> None:
        """P-01, P-07: each is listened on, but for those that this machine does not have."""

        async def named(reactor: Any, text: str) -> list[Address]:
            hosts = text.partition("?")[2]
            return [Address(host, 0) for host in hosts.split(",")] if hosts else []

        self.patch(kupool.net.transport.listening, "resolved", named)
        for hosts, kept in (
            (["127.0.0.1", "::1"], ["127.0.0.1", "::1"]),
            (["192.0.2.1", "127.0.0.1"], ["127.0.0.1"]),
            (["127.0.0.1", "2001:db8::1"], ["127.0.0.1"]),
        ):
            path = "unix:" + str(Path(tempfile.mkdtemp()) / "x.sock")
            server = self.server(addresses=[path, "both.example?" + ",".join(hosts)])
            await server.start()
            self.assertEqual([address.host for address in server.addresses[1:]], kept)
            self.assertEqual(len({address.port for address in server.addresses[1:]}), 1)
            await server.stop()
        server = self.server(addresses=["both.example?192.0.2.1,2001:db8::1"])
        with self.assertRaises(CannotListenError):
            await server.start()
        self.assertEqual(server.addresses, [])

    async def test_stop_from_a_handler_and_twice(self) -> None:
        """P-03: connections, timers and the listener end; calling it again does no harm."""
        ended: list[int] = []
        router = echo()

        def stop(connection: Connection, message_id: int, data: bytes) -> None:
            for _ in range(2):
                started(server.stop()).addCallback(lambda _: ended.append(len(server.manager)))

        router.add(9, stop)
        server = self.server(HookedObserver(router))
        beat = Heartbeat(server.manager, 60.0)
        server.after_start(lambda s: beat.start())
        server.before_stop(lambda s: beat.stop())
        serving = started(server.serve())
        await until(reactor, lambda: server.addresses, "the start")
        port = server.port

        def conversation() -> bytes:
            with Peer(port) as one, Peer(port) as two:
                two.send(encode_tlv(b"hello", 1))
                self.assertEqual(received(two), (1, b"hello"))
                one.send(encode_tlv(b"", 9))
                return one.rest() + two.rest()

        farewells = await in_thread(conversation)
        self.assertEqual(farewells.count(b"server going down"), 2)
        await serving
        await until(reactor, lambda: len(ended) == 2, "both stops")
        self.assertEqual(ended, [0, 0])
        await gatherResults([started(server.stop()) for _ in range(3)])
        with self.assertRaises(ConnectionRefusedError):
            Peer(port)

    async def test_hooks_before_the_stop(self) -> None:
        """P-03: each runs once, the last first, while the connections live."""
        steps: list[Any] = []
        server = self.server()
        server.before_stop(lambda s: steps.append(("first", len(s.manager))))

        async def slow(stopping: Server) -> None:
            await deferLater(reactor, 0.02)
            steps.append(("slow", len(stopping.manager)))

        server.before_stop(slow)
        fail = iter([True])
        server.before_stop(lambda s: 1 / 0 if next(fail, False) else None)
        await server.start()
        with Peer(server.port) as peer:
            peer.send(encode_tlv(b"x", 1))
            await until(reactor, lambda: len(server.manager), "the peer")
            await gatherResults([started(server.stop(timeout=1.0)) for _ in range(3)])
        self.assertEqual(steps, [("slow", 1), ("first", 1)])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await server.start()
        await self.talk(server.port)

    async def test_several_with_settings_of_their_own(self) -> None:
        """P-05: in one process, each with its limits, its codec and its router."""
        big = TlvCodec("big", order="id")
        field = LengthFieldCodec(width=2)
        servers = [
            self.server(settings=ServerSettings(max_frame=8)),
            self.server(framing=big),
            self.server(Observer(Recorder(lambda c, item: item)), framing=field),  # type: ignore[arg-type,return-value]
            self.server(Observer(), framing="line"),
        ]
        await gatherResults([started(server.start()) for server in servers])

        def conversation() -> None:
            for server, sent, expected in zip(
                servers,
                (
                    encode_tlv(b"small", 1),
                    big.pack(Tlv(2, b"x" * 100)),
                    field.pack(b"plain"),
                    LINE.encode(b'{"id":1,"method":"ping"}'),
                ),
                (None, None, None, LINE.encode(encode_success(1))),
                strict=True,
            ):
                with Peer(server.port) as peer:
                    peer.send(sent)
                    answer = sent if expected is None else expected
                    self.assertEqual(peer.exactly(len(answer)), answer)
            with Peer(servers[0].port) as peer:
                peer.send(encode_tlv(b"far too long", 1))
                self.assertIn(b"frame too large", peer.rest())

        await in_thread(conversation)
        self.assertEqual(len({server.port for server in servers}), 4)
        await servers[0].stop()
        await self.talk_big(servers[1].port, big)

    async def talk_big(self, port: int, codec: TlvCodec) -> None:
        def conversation() -> bytes:
            with Peer(port) as peer:
                peer.send(codec.pack(Tlv(1, b"still here")))
                return peer.exactly(18)

        self.assertEqual((await in_thread(conversation))[8:], b"still here")

    async def test_endpoints(self) -> None:
        """P-07: IPv4, IPv6 and Unix sockets by endpoint string, several at once."""
        path = str(Path(tempfile.mkdtemp()) / "demo.sock")
        server = self.server(addresses=["tcp:0:interface=127.0.0.1", "[::1]:0", f"unix:{path}"])
        await server.start()
        four, six, _ = server.addresses
        await self.talk(four.port)
        await self.talk(path)

        def by_six() -> bytes:
            with socket.create_connection(("::1", six.port), PATIENCE) as peer:
                peer.sendall(encode_tlv(b"six", 6))
                return peer.recv(100)

        self.assertEqual(await in_thread(by_six), encode_tlv(b"six", 6))

    async def test_behind_a_proxy(self) -> None:
        """P-07: PROXY v1 and v2 name the peer that the proxy speaks for."""
        observer = Observer(echo())
        server = self.server(observer, addresses=["haproxy:tcp:0:interface=127.0.0.1"])
        await server.start()
        port = server.addresses[0].port
        two = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11\0\x0c"
        two += socket.inet_aton("198.51.100.2") + socket.inet_aton("127.0.0.1")
        two += (1234).to_bytes(2, "big") + port.to_bytes(2, "big")
        one = b"PROXY TCP4 198.51.100.1 127.0.0.1 1234 %d\r\n" % port

        def conversation() -> None:
            for head in (one, two):
                with Peer(port) as peer:
                    peer.send(head + encode_tlv(b"hello", 7))
                    self.assertEqual(received(peer), (7, b"hello"))

        await in_thread(conversation)
        peers = sorted(connection.peer for connection in observer.connections)
        self.assertEqual(peers, ["198.51.100.1:1234", "198.51.100.2:1234"])

    async def test_a_write_error_closes(self) -> None:
        """P-14: the connection ends, later sends fail, and nothing else waits for it."""
        hooks = HookedObserver(echo())
        ends: list[Any] = []
        opened: list[Connection] = []
        hooks.set_on_conn_start(opened.append)
        hooks.set_on_conn_stop(lambda c, reason: ends.append(reason))
        server = self.server(hooks)
        await server.start()
        peer = Peer(server.port)
        await until(reactor, lambda: opened, "the peer")
        (connection,) = opened
        await in_thread(peer.reset)
        try:
            while True:
                connection.send_message(1, bytes(1000))
                await deferLater(reactor, 0.001)
        except ConnectionClosed:
            pass
        await until(reactor, lambda: not len(server.manager), "the end")
        self.assertEqual(len(ends), 1)
        with self.assertRaises(ConnectionClosed):
            connection.send_message(1, b"x")
        await self.talk(server.port)

    async def test_greeting_and_farewell(self) -> None:
        """P-56, P-57: 301 before anything else, 302 from the stop hook, and it arrives."""
        hooks = HookedObserver(echo())
        ready: Deferred[None] = Deferred()
        reasons: list[Any] = []

        async def start(connection: Connection) -> None:
            await ready
            connection.send_message(301, b"welcome")

        def stop(connection: Connection, reason: Any) -> None:
            reasons.append(reason)
            if connection.sends:
                connection.send_message(302, b"farewell")

        hooks.set_on_conn_start(start)
        hooks.set_on_conn_stop(stop)
        server = self.server(hooks)
        await server.start()
        port = server.port

        def begin() -> list[Peer]:
            peers = [Peer(port) for _ in range(3)]
            for peer in peers:
                peer.send(encode_tlv(b"early", 1))
            return peers

        stays, resets, finishes = await in_thread(begin)
        await until(reactor, lambda: len(server.manager) == 3, "three peers")
        await deferLater(reactor, 0.05)
        ready.callback(None)

        def go_on() -> None:
            for peer in (stays, resets, finishes):
                self.assertEqual(received(peer), (301, b"welcome"))
                self.assertEqual(received(peer), (1, b"early"))
            resets.reset()
            finishes.finish()
            self.assertEqual(received(finishes), (302, b"farewell"))
            self.assertEqual(finishes.rest(), b"")
            finishes.close()

        await in_thread(go_on)
        await until(reactor, lambda: len(server.manager) == 1, "two to go")
        stopping = started(server.stop())
        self.assertEqual(await in_thread(received, stays), (302, b"farewell"))
        message_id, reason = await in_thread(received, stays)
        self.assertEqual(message_id, 0)
        self.assertIn(b"server going down", reason)
        self.assertEqual(await in_thread(stays.rest), b"")
        stays.close()
        await stopping
        self.assertEqual(len(reasons), 3)

    async def test_a_crowd_at_the_limit(self) -> None:
        """P-54: of many at once, exactly so many are let in; each other one is told."""
        most: list[int] = []
        observer = HookedObserver(echo(), on_start=lambda c: most.append(len(server.manager)))
        server = self.server(observer, settings=ServerSettings(max_connections=10))
        await server.start()
        port = server.port

        def conversation() -> tuple[int, int]:
            peers = [Peer(port) for _ in range(60)]
            answers = []
            for peer in peers:
                peer.send(encode_tlv(b"hello", 7))
            for peer in peers:
                try:
                    answers.append(received(peer))
                except (ConnectionError, EOFError):
                    answers.append((-1, b"cut off without a word"))
            for peer in peers:
                peer.close()
            told = sum(number == 0 and b"too many connections" in data for number, data in answers)
            return sum(answer == (7, b"hello") for answer in answers), told

        self.assertEqual(await in_thread(conversation), (10, 50))
        self.assertEqual((server.manager.accepted, server.manager.refused), (10, 50))
        self.assertEqual(max(most), 10)

    async def test_the_refused_read_why_whatever_they_had_sent(self) -> None:
        """P-54: the packet, then an end in order; a reset could take the packet with it."""
        for framing, word in (("tlv", encode_tlv(b"x" * 500, 7)), ("auto", b"{" + b"x" * 500)):
            server = self.server(framing=framing, settings=ServerSettings(max_connections=1))
            await server.start()
            occupant = await in_thread(Peer, server.port)
            await until(reactor, lambda: len(server.manager), "the first")  # noqa: B023
            # The reactor stands still here: all is sent before anyone is accepted.
            peers = [Peer(server.port) for _ in range(30)]
            for peer in peers:
                peer.send(word)

            def endings(peers: list[Peer] = peers, word: bytes = word) -> None:
                for peer in peers:
                    heard = b""
                    while data := peer.socket.recv(65536):  # raises where it is reset
                        if not heard:
                            peer.send(word)  # and once more, when it is refused already
                        heard += data
                    self.assertIn(b"too many connections", heard)
                    peer.close()

            await in_thread(endings)
            self.assertEqual((server.manager.accepted, server.manager.refused), (1, 30))
            occupant.close()
            await until(reactor, lambda: not len(server.manager), "the first to go")  # noqa: B023
            await server.stop()

    async def test_the_refused_that_do_not_go_are_cut_off(self) -> None:
        """P-54: they hold a descriptor for a moment, and none of the places."""
        self.patch(protocols, "REFUSAL_GRACE", 0.1)
        self.patch(protocols, "MAX_REFUSALS", 5)
        server = self.server(settings=ServerSettings(max_connections=1))
        await server.start()
        peers = await in_thread(lambda: [Peer(server.port) for _ in range(20)])
        await until(reactor, lambda: server.manager.refused == 19, "nineteen refusals")

        def endings() -> int:
            told = 0
            for peer in peers[1:]:
                told += b"too many connections" in peer.rest()
            with self.assertRaises(ConnectionError):
                while True:
                    peers[1].send(bytes(1000))
            return told

        self.assertEqual(await in_thread(endings), 19)
        for peer in peers:
            peer.close()
        await until(reactor, lambda: not len(server.manager), "the first to go")
        await self.talk(server.port)


class DirectTests(_ServerSuite):
    transport = "direct"


class StockTests(_ServerSuite):
    transport = "stock"


del _ServerSuite


class SystemdTests(ServerCase):
    """P-07: a socket that systemd passes."""

    script = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from kupool.net.hooks import HookedObserver
from kupool.net.routing.id_router import IdRouter
from kupool.net.server import Server
router = IdRouter(lambda connection, message_id, data: data)
where = ["systemd:domain=INET:name=demo"]
server = Server(reactor, HookedObserver(router), framing="tlv", addresses=where)
server.after_start(lambda s: print("listening", flush=True))
serving = lambda: ensureDeferred(server.serve()).addErrback(lambda f: os._exit(1))
reactor.callWhenRunning(serving)
reactor.run()
"""

    def start(self, listening: socket.socket) -> subprocess.Popen[bytes]:
        # The descriptor is to be 3 in the process, where no other may be in its place.
        command = f'exec 3<&{listening.fileno()}; exec {sys.executable} -c "$SCRIPT"'
        return subprocess.Popen(
            ["/bin/bash", "-c", command],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            env={
                **os.environ,
                "SCRIPT": self.script,
                "LISTEN_FDS": "1",
                "LISTEN_FDNAMES": "demo",
            },
            pass_fds=(listening.fileno(),),
        )

    async def test_it_is_listened_on(self) -> None:
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            listening.listen(5)
            port = listening.getsockname()[1]
            process = await in_thread(self.start, listening)
        try:
            assert process.stdout is not None
            self.assertEqual(await in_thread(process.stdout.readline), b"listening\n")
            await self.talk(port)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
