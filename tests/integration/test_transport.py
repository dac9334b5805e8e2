"""One suite for both transports, on real sockets: they must not differ for a peer."""

from __future__ import annotations

import gc
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from kupool.net.manager import ServerSettings
from kupool.net.routing.router import IRouter, Router
from kupool.net.server import Server
from kupool.net.transport.descriptors import ENDS_PER_TURN, SHARE, SMALL, DescriptorGroup
from kupool.net.transport.direct import DirectServer, direct_transport_available
from kupool.net.transport.endpoints import endpoint_for
from kupool.session.connection import Connection
from kupool.session.lifecycle import CLOSED
from kupool.wire.framing import FRAME, INT32, LINE, OP_CLOSE, OP_PING, OP_PONG, Item, encode_frame
from kupool.wire.messages import encode_success
from tests.fakes.peers import Observer, TurnClock, frames
from tests.fakes.raising import ENDINGS
from tests.servers.sockets import Peer, in_thread, open_descriptors, started, until

reactor: Any = _reactor

PING = b'{"id":%d,"method":"ping"}'


class Echo(Protocol):
    """Does what its factory's ``act`` says with every read."""

    def __init__(self, act: Callable[[Any, bytes], object], ended: list[Failure]) -> None:
        self._act = act
        self._ended = ended

    def dataReceived(self, data: bytes) -> None:
        self._act(self.transport, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._ended.append(reason)


class _Case(TestCase):
    """Starts servers with the transport of the subclass."""

    timeout = 120
    transport = "direct"

    async def serve(
        self, router: Any = None, *, framing: str = "auto", **settings: Any
    ) -> tuple[Server, Observer, int]:
        observer = Observer(router)
        server = Server(
            reactor,
            observer,
            ServerSettings(**settings),
            framing=framing,
            transport=self.transport,
            http_port="port 8081",
        )
        await server.listen(["127.0.0.1:0"])
        self.addCleanup(lambda: started(server.stop(timeout=1.0)))
        return server, observer, server.addresses[0].port

    async def slow_peer(
        self, observer: Observer, port: int, *, buffer: int = 4096
    ) -> tuple[Peer, Connection]:
        """A frame peer that was answered once, with a small buffer of the kernel's between."""
        peer = await in_thread(lambda: Peer(port, receive_buffer=4096))
        peer.send(FRAME.encode(PING % 0))
        await in_thread(lambda: peer.socket.recv(1, socket.MSG_PEEK))
        connection = observer.connections[-1]
        connection.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        return peer, connection

    async def listen(self, act: Callable[[Any, bytes], object]) -> tuple[int, list[Failure]]:
        """Listen with a protocol of one function, without anything of ours around it."""
        ended: list[Failure] = []
        group = DescriptorGroup(reactor) if self.transport == "direct" else None
        factory = Factory.forProtocol(lambda: Echo(act, ended))  # type: ignore[arg-type]
        factory.noisy = False
        endpoint = endpoint_for(reactor, "tcp:0:interface=127.0.0.1", group)
        port: Any = await endpoint.listen(factory)
        self.group = group
        if group is not None:
            self.addCleanup(group.close)
        self.addCleanup(port.stopListening)
        return port.getHost().port, ended


def drip(peer: Peer, count: int) -> list[Any]:
    """Read so many frames, the first of them slowly, then say goodbye and read the rest."""
    got = []
    for turn in range(count):
        if turn < 40:
            time.sleep(0.005)
        got.append(peer.frame())
    peer.send(encode_frame(b"", OP_CLOSE))
    assert {opcode for opcode, _ in got} == {2}
    messages = [json.loads(body) for _, body in got + frames(peer.rest())]
    return [message for message in messages if "from" in message]


def send_from(connection: Connection, sender: int, count: int) -> Deferred[None]:
    """Send messages of many sizes, each sender in its own way, a few in each turn."""
    ways: list[Callable[[bytes], object]] = [
        connection.send,
        lambda payload: connection.send_many([payload, b'{"from":9}']),
        lambda payload: connection.send_encoded(FRAME.encode(payload)),
        lambda payload: connection.send_latest("k", FRAME.encode(payload)),
    ]

    async def work() -> None:
        for n in range(count):
            head = b'{"from":%d,"n":%d,"fill":"' % (sender, n)
            ways[sender](head + b"x" * (n * 37 % 6000) + b'"}')
            if n % 7 == sender:
                await deferLater(reactor, 0, lambda: None)

    return started(work())


def come_and_go(port: int, kind: int) -> None:
    """Connect, do one of five things, and leave in one of two ways."""
    with Peer(port) as peer:
        try:
            if kind == 0:
                peer.send(LINE.encode(PING % 1))
                peer.line()
            elif kind == 1:
                peer.send(b"\x02\xff\xff\xff\xff")
                peer.rest()
            elif kind == 2:
                peer.send(encode_frame(b"", OP_CLOSE))
                peer.rest()
            elif kind == 3:
                peer.send(b'{"half')
            else:
                peer.finish()
        except (ConnectionError, EOFError):
            pass  # over the limit
        if kind % 2:
            peer.reset()


def start_starved(transport: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.servers.starved_server", transport],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


@implementer(IRouter)
class Failing:
    """Answers every message but `fail`, at which it raises what it never should."""

    def __init__(self, error: type[BaseException]) -> None:
        self._error = error

    def dispatch(self, connection: Connection, item: Item) -> bytes | None:
        if item == b"{fail":
            raise self._error("a bug")
        return item if isinstance(item, bytes) else None


class _TransportSuite(_Case):
    """What holds for the direct and for the stock transport."""

    # -- messages

    async def test_answers_in_the_framing_of_the_first_byte(self) -> None:
        """K-01, K-03: `frame`, `int32` and `line` on one port."""
        _, _, port = await self.serve()

        def talk() -> None:
            for framing, read in ((FRAME, Peer.frame), (INT32, Peer.int32), (LINE, Peer.line)):
                with Peer(port) as peer:
                    for number in range(3):
                        peer.send(framing.encode(PING % number))
                        answer: Any = read(peer)
                        expected = encode_success(number)
                        self.assertEqual(answer, (2, expected) if framing is FRAME else expected)

        await in_thread(talk)

    async def test_cut_anywhere_on_the_wire(self) -> None:
        """K-06: one byte to a segment, and many messages to one."""
        _, _, port = await self.serve()

        def talk() -> None:
            with Peer(port) as peer:
                peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in FRAME.encode(PING % 1) * 2:
                    peer.send(bytes((byte,)))
                peer.send(FRAME.join([PING % n for n in range(10, 2000)]))
                got = [peer.frame()[1] for _ in range(1992)]
            expected = [1, 1, *range(10, 2000)]
            self.assertEqual(got, [encode_success(n) for n in expected])

        await in_thread(talk)

    async def test_large_messages_both_ways(self) -> None:
        router = Router()
        router.add("echo", lambda c, m: m.params, str)
        _, _, port = await self.serve(router, outbox_limit=10_000_000)
        text = "x" * 65000
        request = json.dumps({"id": 1, "method": "echo", "params": text}).encode()

        def talk() -> None:
            with Peer(port) as peer:
                peer.send(FRAME.encode(request) * 40)
                for _ in range(40):
                    _, body = peer.frame()
                    self.assertEqual(json.loads(body)["result"], text)

        await in_thread(talk)

    async def test_ping_is_echoed(self) -> None:
        """K-08: a pong has the ping's payload, in order with the answers around it."""
        _, _, port = await self.serve()

        def talk() -> None:
            with Peer(port) as peer:
                peer.send(
                    FRAME.encode(PING % 1) + encode_frame(b"beat", OP_PING) + FRAME.encode(PING % 2)
                )
                answers = [peer.frame() for _ in range(3)]
            self.assertEqual(
                answers, [(2, encode_success(1)), (OP_PONG, b"beat"), (2, encode_success(2))]
            )

        await in_thread(talk)

    async def test_close_opcode_ends_the_connection(self) -> None:
        """K-03: what was asked before it is answered, then the socket is closed."""
        server, _, port = await self.serve()

        def talk() -> bytes:
            with Peer(port) as peer:
                peer.send(FRAME.encode(PING % 1) + encode_frame(b"", OP_CLOSE))
                return peer.rest()

        self.assertEqual(await in_thread(talk), FRAME.encode(encode_success(1)))
        await until(reactor, lambda: not len(server.manager), "the end of the connection")

    # -- order

    async def test_several_senders_to_a_slow_reader(self) -> None:
        """K-09: whole messages only, each sender's in order, none of the replies lost."""
        _, observer, port = await self.serve(
            outbox_limit=50_000_000, write_timeout=60.0, idle_timeout=0
        )
        count = 150

        peer, _ = await self.slow_peer(observer, port)
        reading = in_thread(drip, peer, 4 * count)
        await gatherResults(
            [send_from(observer.connections[0], sender, count) for sender in range(4)]
        )
        messages = await reading
        peer.close()
        for sender in range(3):
            mine = [message for message in messages if message["from"] == sender]
            self.assertEqual([message["n"] for message in mine], list(range(count)))
            self.assertEqual([len(m["fill"]) for m in mine], [n * 37 % 6000 for n in range(count)])
        latest = [message["n"] for message in messages if message["from"] == 3]
        self.assertEqual(latest, sorted(set(latest)))
        self.assertEqual(sum(message["from"] == 9 for message in messages), count)

    async def test_write_sequence_does_not_overtake(self) -> None:
        """facts.md: `sendLine` uses writeSequence; it keeps its place among the writes."""

        def act(transport: Any, data: bytes) -> None:
            transport.write(b"a")
            transport.writeSequence([b"b", b"c"])
            transport.write(b"d")
            reactor.callLater(0, later, transport)

        def later(transport: Any) -> None:
            # A first write that does not fit, then more behind it.
            transport.write(b"e" * 5_000_000)
            transport.writeSequence([b"f", b"g"])
            transport.write(b"h")
            transport.loseConnection()

        port, _ = await self.listen(act)

        def talk() -> bytes:
            with Peer(port, receive_buffer=4096) as peer:
                peer.send(b"go")
                return peer.rest()

        self.assertEqual(await in_thread(talk), b"abcd" + b"e" * 5_000_000 + b"fgh")

    # -- slow readers

    async def test_a_peer_that_does_not_read(self) -> None:
        """K-27, K-28: reading from it pauses, others are served, then it is closed 4100."""
        limit = 100_000
        server, observer, port = await self.serve(outbox_limit=limit, write_timeout=2.0)
        # With a large buffer much is still on its way when the close is written.
        slow, connection = await self.slow_peer(observer, port, buffer=2_000_000)

        def flood() -> int:
            requests = FRAME.join([PING % n for n in range(1000)])
            slow.socket.settimeout(0.5)
            sent = 0
            try:
                while sent < 300_000_000:
                    sent += slow.socket.send(requests[sent % len(requests) :])
            except TimeoutError:
                pass
            return sent

        sent = await in_thread(flood)
        self.assertLess(sent, 300_000_000)
        self.assertGreater(connection.outbound, 0)
        # What one read asked for comes on top of the limit, and nothing more.
        self.assertLess(connection.outbound, limit + 3 * 65536)

        def other() -> bytes:
            with Peer(port) as peer:
                peer.send(LINE.encode(PING % 7))
                return peer.line()

        self.assertEqual(await in_thread(other), encode_success(7))
        await until(
            reactor,
            lambda: server.manager.counters.closes["slow reader"] == 1,
            "the close of the slow one",
        )
        slow.socket.settimeout(30)
        received = frames(await in_thread(slow.rest))
        slow.close()
        self.assertEqual(received[-1], (OP_CLOSE, b"slow reader"))
        self.assertEqual(received[0], (2, encode_success(0)))
        await until(reactor, lambda: connection.state is CLOSED, "the end of the slow one")

    async def test_a_peer_that_reads_again(self) -> None:
        """K-28: no reply is lost, of the jobs only the newest arrives, reading goes on."""
        server, observer, port = await self.serve(outbox_limit=20_000, write_timeout=60.0)
        asked = 30_000
        slow, connection = await self.slow_peer(observer, port)
        data = FRAME.join([PING % n for n in range(asked)])
        sending = in_thread(slow.send, data)
        await until(reactor, lambda: connection.outbound > 20_000, "a full outbox")
        jobs = 50
        for n in range(jobs):
            await server.manager.broadcast(b'{"job":%d}' % n, key="jobs")
        self.assertGreater(connection.outbound, 0)

        def read() -> list[bytes]:
            return [slow.frame()[1] for _ in range(asked + 2)]

        got = await in_thread(read)
        await sending
        slow.close()
        newest = [body for body in got if body.startswith(b'{"job"')]
        self.assertEqual(newest, [b'{"job":%d}' % (jobs - 1)])
        replies = [body for body in got if not body.startswith(b'{"job"')]
        self.assertEqual(replies, [encode_success(n) for n in (0, *range(asked))])
        await until(reactor, lambda: connection.state is CLOSED, "the end of the peer")
        self.assertEqual(server.manager.counters.dropped, jobs - 1)

    # -- half-close

    async def test_half_close_still_gets_its_answers(self) -> None:
        _, observer, port = await self.serve()
        settled: Deferred[None] = Deferred()
        observer.settling = settled

        def talk() -> bytes:
            with Peer(port) as peer:
                peer.send(LINE.encode(PING % 1) + LINE.encode(PING % 2))
                peer.finish()
                return peer.rest()

        talking = in_thread(talk)
        await until(reactor, lambda: observer.finished, "the end of the peer's side")
        observer.connections[0].send(b"late")
        settled.callback(None)
        expected = b"".join(LINE.encode(encode_success(n)) for n in (1, 2)) + b"late\n"
        self.assertEqual(await talking, expected)

    async def test_half_close_with_much_to_read(self) -> None:
        """What waits in the outbox is sent before the end."""
        _, _, port = await self.serve(outbox_limit=10_000_000, write_timeout=60.0)
        count = 40_000

        def talk() -> bytes:
            with Peer(port, receive_buffer=4096) as peer:
                peer.send(LINE.join([PING % n for n in range(count)]))
                peer.finish()
                return peer.rest()

        expected = LINE.join([encode_success(n) for n in range(count)])
        self.assertEqual(await in_thread(talk), expected)

    # -- ends

    async def test_frame_too_large_is_told(self) -> None:
        """K-07: from the header alone, and to a peer that sends the rest all the same."""
        _, _, port = await self.serve(max_frame=1024)

        def talk(body: bytes) -> bytes:
            with Peer(port) as peer:
                try:
                    peer.send(b"\x02\xf0\xff\xff\xff" + body)
                except ConnectionError:
                    pass
                return peer.rest()

        for body in (b"", bytes(5_000_000)):
            self.assertEqual(frames(await in_thread(talk, body)), [(8, b"frame too large")])

    async def test_an_exception_ends_one_connection_only(self) -> None:
        """facts.md: an exception in dataReceived."""
        for error in (RuntimeError, SystemExit):
            server, _, port = await self.serve(Failing(error))

            def talk(port: int = port) -> bytes:
                with Peer(port) as other, Peer(port) as peer:
                    other.send(b"{1\n")
                    other.line()
                    peer.send(b"{first\n")
                    peer.line()
                    peer.send(b"{fail\n")
                    rest = peer.rest()
                    other.send(b"{2\n")
                    self.assertEqual(other.line(), b"{2")
                    return rest

            self.assertEqual(await in_thread(talk), b"")
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)
            await until(reactor, lambda s=server: not len(s.manager), "the end of all")

    async def test_abort_sends_nothing_more(self) -> None:
        """facts.md: bytes joined so far are dropped by abortConnection."""

        def act(transport: Any, data: bytes) -> None:
            transport.write(b"not to be sent")
            transport.abortConnection()
            transport.write(b"nor this")

        port, ended = await self.listen(act)

        def talk() -> bytes:
            with Peer(port) as peer:
                peer.send(b"go")
                return peer.rest()

        self.assertEqual(await in_thread(talk), b"")
        await until(reactor, lambda: ended, "the end")
        self.assertEqual(len(ended), 1)

    async def test_writes_before_the_end_arrive(self) -> None:
        def act(transport: Any, data: bytes) -> None:
            transport.write(b"x" * 3_000_000)
            transport.write(b"last")
            transport.loseConnection()
            transport.write(b"")

        port, ended = await self.listen(act)

        def talk() -> bytes:
            with Peer(port, receive_buffer=4096) as peer:
                peer.send(b"go")
                return peer.rest()

        self.assertEqual(await in_thread(talk), b"x" * 3_000_000 + b"last")
        await until(reactor, lambda: ended, "the end")

    async def test_half_closing_the_other_way(self) -> None:
        """The server's own loseWriteConnection: what was written comes, then the end."""
        heard: list[bytes] = []

        def act(transport: Any, data: bytes) -> None:
            heard.append(data)
            if data == b"go":
                transport.write(b"bye")
                transport.loseWriteConnection()

        port, ended = await self.listen(act)

        def talk() -> bytes:
            with Peer(port) as peer:
                peer.send(b"go")
                rest = peer.rest()
                peer.send(b"still here")
                return rest

        self.assertEqual(await in_thread(talk), b"bye")
        await until(reactor, lambda: ended, "the end")
        self.assertEqual(heard, [b"go", b"still here"])

    async def test_descriptors_return_to_the_baseline(self) -> None:
        """K-86: 2,000 connections that end in every way leave no socket behind."""
        server, observer, port = await self.serve()

        def warm_up() -> None:
            with Peer(port) as peer:
                peer.send(LINE.encode(PING % 1))
                peer.line()

        await in_thread(warm_up)
        await until(reactor, lambda: not len(server.manager), "the first to go")
        gc.collect()  # what other tests left behind must not go meanwhile
        baseline = open_descriptors()

        def crowd(turn: int) -> None:
            held = [Peer(port) for _ in range(turn % 2 * 35)]
            for number in range(50 - len(held)):
                come_and_go(port, number % 5)
            for peer in held:
                peer.close()

        for turn in range(40):
            await in_thread(crowd, turn)
            await until(reactor, lambda: not len(server.manager), "all to go")
        await until(reactor, lambda: open_descriptors() <= baseline, "the descriptors")
        self.assertEqual(open_descriptors(), baseline)
        self.assertEqual(len(observer.ended), server.manager.accepted)
        self.assertEqual(server.manager.accepted, 1 + 40 * 50)

    async def test_out_of_descriptors(self) -> None:
        """K-87, P-06: EMFILE at accept neither ends the server nor makes it spin."""
        process = await in_thread(start_starved, self.transport)
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout
        try:

            def ask(command: bytes) -> int:
                stdin.write(command + b"\n")
                stdin.flush()
                return int(stdout.readline())

            def talk() -> None:
                port = int(stdout.readline())
                peers = []
                for _ in range(120):
                    peers.append(Peer(port))
                with_answer = 0
                for peer in peers:
                    try:
                        peer.send(LINE.encode(PING % 1))
                        with_answer += peer.line() == encode_success(1)
                    except (ConnectionError, EOFError):
                        pass
                self.assertTrue(0 < with_answer < 120, with_answer)
                accepts = ask(b"accepts")
                time.sleep(0.3)
                # Each command wakes the reactor, but no one waits at the port any more.
                self.assertLessEqual(ask(b"accepts") - accepts, 2)
                for peer in peers:
                    peer.close()
                while ask(b"connections"):
                    time.sleep(0.01)
                with Peer(port) as peer:
                    peer.send(LINE.encode(PING % 2))
                    self.assertEqual(peer.line(), encode_success(2))

            await in_thread(talk)
            self.assertIsNone(process.poll())
        finally:
            process.kill()
            process.wait()
            stdin.close()
            stdout.close()

    async def test_shutdown_of_the_reactor_reaches_the_connections(self) -> None:
        """facts.md: protocols are told when the reactor stops, without a Server.stop."""
        script = (
            "import sys\n"
            "from twisted.internet import reactor\n"
            "from tests.fakes.peers import Observer\n"
            "from kupool.net.server import Server\n"
            "import socket\n"
            "from twisted.internet.defer import ensureDeferred\n"
            "observer = Observer()\n"
            "server = Server(reactor, observer, transport=sys.argv[1])\n"
            "async def main():\n"
            "    await server.listen(['127.0.0.1:0'])\n"
            "    address = ('127.0.0.1', server.addresses[0].port)\n"
            "    peers = [socket.create_connection(address) for _ in range(5)]\n"
            "    observer.on_open = lambda c: len(observer.connections) == 5 and reactor.stop()\n"
            "    reactor.addSystemEventTrigger('after', 'shutdown', peers.clear)\n"
            "ensureDeferred(main())\n"
            "reactor.run()\n"
            "print(len(observer.ended), len(server.manager))\n"
        )

        def run() -> str:
            done = subprocess.run(
                [sys.executable, "-c", script, self.transport],
                cwd=Path(__file__).parents[2],
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
            return done.stdout

        self.assertEqual(await in_thread(run), "5 0\n")

    # -- limits

    async def test_refusals(self) -> None:
        """Protocol section 4: told in the peer's framing, whichever limit it was."""
        cases: Iterable[tuple[dict[str, int], str]] = (
            ({"max_connections": 1}, "too many connections"),
            ({"max_connections_per_ip": 1}, "too many connections"),
            ({}, "banned"),
        )
        for settings, reason in cases:
            server, _, port = await self.serve(**settings)
            first = await in_thread(Peer, port)
            await until(reactor, lambda s=server: len(s.manager), "the first")
            if reason == "banned":
                server.manager.ban("127.0.0.1", 60.0)

            def talk(port: int = port, reason: str = reason) -> None:
                for framing in (FRAME, INT32, LINE):
                    with Peer(port) as peer:
                        peer.send(framing.encode(PING % 1))
                        if framing is FRAME:
                            text = "banned: 60 s" if reason == "banned" else reason
                            self.assertEqual(peer.frame(), (OP_CLOSE, text.encode()))
                        else:
                            body = peer.int32() if framing is INT32 else peer.line()
                            self.assertEqual(json.loads(body)["params"]["reason"], reason)
                        self.assertEqual(peer.rest(), b"")

            await in_thread(talk)
            self.assertEqual(server.manager.refused, 3)
            first.close()

    async def test_http_gets_a_hint(self) -> None:
        _, _, port = await self.serve()

        def talk() -> bytes:
            with Peer(port) as peer:
                peer.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                return peer.rest()

        answer = await in_thread(talk)
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "))
        self.assertIn(b"port 8081", answer)

    async def test_a_stranger_is_told(self) -> None:
        _, _, port = await self.serve()

        def talk() -> bytes:
            with Peer(port) as peer:
                peer.send(b"\x16\x03\x01")
                return peer.rest()

        self.assertEqual(json.loads(await in_thread(talk))["params"]["reason"], "malformed message")


class DirectTransportTests(_TransportSuite):
    """The suite on the direct transport, and what only that has."""

    transport = "direct"
    if not direct_transport_available():
        skip = "this system has no epoll"

    async def test_it_is_used(self) -> None:
        kinds: list[type] = []
        port, _ = await self.listen(lambda transport, data: kinds.append(type(transport)))

        def talk() -> None:
            with Peer(port) as peer:
                peer.send(b"x")

        await in_thread(talk)
        await until(reactor, lambda: kinds, "a read")
        self.assertEqual(kinds, [DirectServer])

    async def test_answers_before_an_exception_are_sent(self) -> None:
        """facts.md: an exception drops that read's unsent replies, unless one takes care."""
        _, _, port = await self.serve(Failing(RuntimeError))

        def talk() -> bytes:
            with Peer(port) as peer:
                peer.send(b"{1\n{2\n{fail\n{3\n")
                return peer.rest()

        self.assertEqual(await in_thread(talk), b"{1\n{2\n")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_what_cannot_be_sent_costs_nobody_else_an_answer(self) -> None:
        """Two peers are served in one turn; one of them is written something not bytes."""

        def act(transport: Any, data: bytes) -> None:
            transport.write("text" if data == b"bad" else data)
            if data == b"bad":
                transport.write(b"more")

        port, ended = await self.listen(act)
        peers = [await in_thread(Peer, port) for _ in range(6)]
        await deferLater(reactor, 0.05, lambda: None)
        # From the reactor's own thread, so that all of it is served in one turn.
        for number, peer in enumerate(peers):
            peer.send(b"bad" if number % 3 == 0 else b"good")

        def read() -> list[bytes]:
            return [peer.rest() if n % 3 == 0 else peer.exactly(4) for n, peer in enumerate(peers)]

        answers = await in_thread(read)
        self.assertEqual(answers, [b"", b"good", b"good"] * 2)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 2)
        self.assertEqual(len(ended), 2)
        for peer in peers:
            peer.close()

    async def test_a_call_at_the_end_of_a_turn_that_fails(self) -> None:
        """Issue 12, point 5: whatever it raises, the answers of the turn are sent."""
        errors: list[type[BaseException]] = [SystemExit, KeyboardInterrupt, RuntimeError]

        def fail() -> None:
            raise errors[-1]

        def act(transport: Any, data: bytes) -> None:
            transport.write(data)
            self.group.after_turn(fail)

        port, ended = await self.listen(act)
        peer = await in_thread(Peer, port)
        while errors:
            peer.send(b"ping")
            self.assertEqual(await in_thread(peer.exactly, 4), b"ping")
            self.assertEqual(len(self.flushLoggedErrors(errors.pop())), 1)
        self.assertEqual(ended, [])
        peer.close()

    async def test_one_that_was_aborted_is_not_heard_in_the_same_turn(self) -> None:
        transports: list[Any] = []
        heard: list[bytes] = []

        def act(transport: Any, data: bytes) -> None:
            if data == b"hello":
                transports.append(transport)
                transport.write(b"hello")
                return
            heard.append(data)
            for each in transports:
                each.abortConnection()

        port, ended = await self.listen(act)

        def come() -> list[Peer]:
            peers = [Peer(port) for _ in range(4)]
            for peer in peers:
                peer.send(b"hello")
                peer.exactly(5)
            return peers

        peers = await in_thread(come)
        for peer in peers:
            peer.send(b"abort all")
        await until(reactor, lambda: len(ended) == 4, "all to end")
        self.assertEqual(heard, [b"abort all"])
        for peer in peers:
            peer.close()

    async def test_closing_the_group_ends_what_is_in_it(self) -> None:
        port, ended = await self.listen(lambda transport, data: transport.write(data))

        def come() -> list[Peer]:
            peers = [Peer(port) for _ in range(3)]
            for peer in peers:
                peer.send(b"x")
                peer.exactly(1)
            return peers

        peers = await in_thread(come)
        assert self.group is not None
        self.assertNotEqual(self.group.fileno(), -1)
        self.group.close()
        self.group.close()
        self.assertEqual((len(ended), self.group.fileno()), (3, -1))
        self.assertEqual(self.group.getReaders() + self.group.getWriters(), [])
        for peer in peers:
            self.assertEqual(await in_thread(peer.rest), b"")
            peer.close()


class HostileDescriptor:
    """A descriptor, and the transport of one, that raises whatever it is asked to do."""

    connected, disconnecting, late = True, False, False

    def __init__(self, group: DescriptorGroup, error: type[BaseException], end: Any) -> None:
        self.protocol = self
        self.ended: list[Failure] = []
        self.end = end
        self._group = group
        self._error = error

    def fileno(self) -> int:
        return int(self.end.fileno())

    def dataReceived(self, data: bytes) -> None:
        assert self._group.turn.corked is not None
        self._group.turn.corked.append(self)

    def fail(self) -> None:
        raise self._error

    doRead = doWrite = uncork = fail

    def connectionLost(self, reason: Failure) -> None:
        self.ended.append(reason)


class SlowDescriptor:
    """A transport whose protocol takes half of the share of large reads."""

    connected, disconnecting, late = True, False, False

    def __init__(self, case: GroupTests, number: int) -> None:
        self.protocol = self
        self._case = case
        self._number = number

    def dataReceived(self, data: bytes) -> None:
        self._case.heard.append((self._number, len(data)))
        self._case.reactor.rightNow += 0.51 * SHARE


class GroupTests(SynchronousTestCase):
    """Issue 12, point 5: whatever a descriptor raises, it ends alone."""

    if not direct_transport_available():
        skip = "this system has no epoll"

    class Reactor(TurnClock):
        """Watches nothing: the test says when there is something."""

        def addReader(self, reader: Any) -> None:
            """The group is there."""

        def removeReader(self, reader: Any) -> None:
            """The group is there no longer."""

    def hostile(self, error: type[BaseException]) -> HostileDescriptor:
        here, there = socket.socketpair()
        for end in (here, there):
            self.addCleanup(end.close)
        there.send(b"something")
        return HostileDescriptor(self.group, error, here)

    def begin(self, error: type[BaseException]) -> list[HostileDescriptor]:
        self.group = DescriptorGroup(self.Reactor())
        self.addCleanup(self.group.close)
        return [self.hostile(error) for _ in range(2)]

    def check(self, both: list[HostileDescriptor], error: type[BaseException]) -> None:
        for each in both:
            self.assertEqual([failure.type for failure in each.ended], [error])
        self.assertEqual(len(self.flushLoggedErrors(error)), 2)
        self.assertEqual(self.group.removeAll(), [])

    def test_reading(self) -> None:
        for error in ENDINGS:
            both = self.begin(error)
            for each in both:
                self.group.addReader(each)
            self.group.doRead()
            self.check(both, error)

    def test_writing(self) -> None:
        for error in ENDINGS:
            both = self.begin(error)
            for each in both:
                self.group.addWriter(each)
            self.group.doRead()
            self.check(both, error)

    def test_sending_at_the_end_of_a_turn(self) -> None:
        for error in ENDINGS:
            both = self.begin(error)
            self.group.turn.arrived = [(each, b"data") for each in both]
            self.group.doRead()
            self.check(both, error)

    def listeners(self, count: int) -> list[SlowDescriptor]:
        self.reactor = self.Reactor()
        self.group = DescriptorGroup(self.reactor)
        self.addCleanup(self.group.close)
        self.heard: list[tuple[int, int]] = []
        return [SlowDescriptor(self, number) for number in range(count)]

    def test_those_who_say_little_come_first(self) -> None:
        """Issue 15, acceptance 2: large reads are handled after them, for a part of a turn."""
        peers = self.listeners(6)
        large = b"x" * (SMALL + 1)
        self.group.turn.arrived = [(peer, large) for peer in peers[:5]]
        self.group.turn.arrived.append((peers[5], b"x" * SMALL))
        self.group.doRead()
        self.assertEqual(self.heard, [(5, SMALL), (0, SMALL + 1), (1, SMALL + 1)])
        self.assertEqual([peer.late for peer in peers], [False, False, True, True, True, False])
        self.group.turn.arrived = [(peers[5], b"again")]
        self.group.doRead()
        self.assertEqual(self.heard[3:], [(5, 5)])  # the others have a turn of their own
        self.reactor.turn()
        self.assertEqual([number for number, _ in self.heard[4:]], [2, 3])
        peers[4].connected = False
        self.reactor.turn()
        self.assertEqual(len(self.heard), 6)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertFalse(peers[4].late)

    def test_what_a_large_read_raises(self) -> None:
        for error in ENDINGS:
            both = self.begin(error)
            for each in both:
                each.dataReceived = lambda data, each=each: each.fail()  # type: ignore
            self.group.turn.arrived = [(each, b"x" * (SMALL + 1)) for each in both]
            self.group.doRead()
            self.check(both, error)

    def test_a_turn_has_few_ends(self) -> None:
        """Issue 15, acceptance 2: thousands that end at once delay nobody else for long."""
        self.begin(ValueError)
        all_of_them = [self.hostile(ValueError) for _ in range(ENDS_PER_TURN + 3)]
        for each in all_of_them:
            self.group.addReader(each)
        self.group.doRead()
        self.assertEqual(sum(bool(each.ended) for each in all_of_them), ENDS_PER_TURN)
        self.group.doRead()
        self.assertTrue(all(each.ended for each in all_of_them))
        self.flushLoggedErrors(ValueError)

    def test_the_end_of_all(self) -> None:
        for error in ENDINGS:
            both = self.begin(error)
            for each in both:
                each.connectionLost = lambda reason, each=each: each.fail()  # type: ignore
                self.group.addReader(each)
            self.group.close()
            self.assertEqual(len(self.flushLoggedErrors(error)), 2)


class StockTransportTests(_TransportSuite):
    """The suite on Twisted's own transport."""

    transport = "stock"


del _TransportSuite
