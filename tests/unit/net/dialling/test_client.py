"""P-63: a client with the codecs and routers of the server, on the network in memory."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import BANNED, FORBIDDEN, CloseReason, RequestError
from kupool.net.dialling.answers import Answers
from kupool.net.dialling.client import Client, ClientSettings
from kupool.net.dialling.deadlines import Reading
from kupool.net.dialling.dialler import ClientState
from kupool.net.dialling.failures import (
    ClientClosed,
    ConnectionEnded,
    NotConnected,
    NotWanted,
    RequestTimeout,
    SlowServer,
    TooManyRequests,
    Unreachable,
    UnreadableAnswer,
)
from kupool.net.failures import MESSAGE_TOO_LARGE
from kupool.net.manager import ServerSettings
from kupool.net.observer import Observer
from kupool.net.routing.correlation import correlated
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.request import Request
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork
from kupool.session.connection import Connection
from kupool.wire.codecs import Codec, TlvCodec
from kupool.wire.framing import Tlv
from kupool.wire.incoming import decode_incoming
from kupool.wire.messages import encode_request

ADDRESS = "tcp:127.0.0.1:8000"


class ClientCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.said: list[object] = []
        self.kept: list[Request] = []

    def serve(self, router: Any = None, framing: str = "auto", **settings: Any) -> None:
        self.methods = router or self.router()
        self.server = Server(
            self.network, Observer(self.methods), ServerSettings(**settings), framing=framing
        )
        self.network.run(self.server.listen(["127.0.0.1:8000"]))

    def router(self) -> Router:
        router = Router()
        router.add("twice", lambda c, m: m.params * 2, int)
        router.add("refuse", lambda c, m: FORBIDDEN)
        router.add("never", lambda c, m: Deferred())
        return router

    def client(self, *, codec: str | Codec = "line", router: Any = None, **settings: Any) -> Client:
        client = Client(
            self.network,
            ADDRESS,
            router,
            ClientSettings(**settings),
            codec=codec,
            random=lambda: 1.0,
            on_connected=lambda connection: self.said.append("connected"),
            on_disconnected=self.said.append,
        )
        self.addCleanup(lambda: self.network.run(client.close(), patience=20))
        return client

    def connected(self, **options: Any) -> Client:
        client = self.client(**options)
        self.network.run(client.connect())
        return client

    def result(self, work: Any) -> Any:
        return self.network.run(work)


class RequestTests(ClientCase):
    """P-63: requests and their answers, matched by id."""

    def test_every_framing(self) -> None:
        self.serve()
        for codec in ("line", "frame", "int32", "json"):
            client = self.connected(codec=codec)
            self.assertEqual(self.result(client.request("twice", 21)), 42)
            with self.assertRaises(RequestError) as caught:
                self.result(client.request("refuse"))
            self.assertEqual(caught.exception.error, FORBIDDEN)
            with self.assertRaises(RequestError) as caught:
                self.result(client.request("twice", "x"))
            self.assertEqual(caught.exception.error.code, 32)

    def test_answers_may_overtake_each_other(self) -> None:
        waiting: list[Deferred[object]] = []
        router = Router()
        router.add("wait", lambda c, m: waiting.append(Deferred()) or waiting[-1])
        self.serve(router)
        client = self.connected()
        answers = [client.request("wait") for _ in range(3)]
        self.network.settle()
        for number in (2, 0, 1):
            waiting[number].callback(number)
            self.network.settle()
            self.assertEqual(self.successResultOf(answers[number]), number)
        self.assertEqual(client.pending, 0)

    def test_no_answer_in_time(self) -> None:
        waiting: Deferred[str] = Deferred()
        router = Router()
        router.add("slow", lambda c, m: waiting)
        self.serve(router)
        client = self.connected(timeout=3.0)
        asked, patient = client.request("slow"), client.request("slow", timeout=60)
        self.network.advance(2.9)
        self.assertNoResult(asked)
        self.network.advance(0.1)
        self.failureResultOf(asked, RequestTimeout)
        self.assertEqual((client.pending, client.counters["timeouts"]), (1, 1))
        patient.cancel()
        self.failureResultOf(patient, CancelledError)
        waiting.callback("late")
        self.network.settle()
        self.assertEqual(client.counters["unknown answers"], 2)

    def test_a_result_of_a_type(self) -> None:
        """Q-62: it is decoded to the type, or the request fails; the connection stays."""
        self.serve()
        client = self.connected()
        self.assertEqual(self.result(client.request("twice", 4, form=float)), 8.0)
        asked = client.request("twice", 4, form=list[int])
        self.network.settle()
        failure = self.failureResultOf(asked, UnreadableAnswer)
        self.assertIn("Expected `array`, got `int`", failure.getErrorMessage())
        self.assertEqual(self.result(client.request("twice", 2)), 4)

    def test_only_so_many_wait(self) -> None:
        self.serve()
        client = self.connected(most_pending=2)
        asked = [client.request("never") for _ in range(2)]
        self.failureResultOf(client.request("twice", 1), TooManyRequests)
        self.server.manager.get(1).abort()
        self.network.settle()
        for each in asked:
            self.failureResultOf(each, ConnectionEnded)
        self.assertEqual(client.pending, 0)

    def test_without_a_connection(self) -> None:
        client = self.client()
        self.failureResultOf(client.request("twice", 1), NotConnected)
        self.assertRaises(NotConnected, client.notify, "twice")

    def test_what_is_too_large_to_send(self) -> None:
        self.serve()
        client = self.connected(max_frame=100)
        self.failureResultOf(client.request("twice", "x" * 200), ValueError)
        self.assertEqual((client.pending, self.result(client.request("twice", 2))), (0, 4))

    def test_sends_keep_their_order(self) -> None:
        """P-43: what a client sends arrives in order, however it is cut."""
        seen: list[int] = []
        router = Router()
        router.add("note", lambda c, m: seen.append(m.params), int)
        self.network.chunk = 7
        self.serve(router)
        client = self.connected()
        for n in range(200):
            client.notify("note", n)
        self.network.settle()
        self.assertEqual(seen, list(range(200)))


class NumberTests(ClientCase):
    """P-63: messages with numbers, by correlation id."""

    def serve_numbers(self, framing: str = "tlv") -> None:
        router = IdRouter()
        router.add(1, lambda c, n, data: data.upper())
        router.add(2, lambda c, n, data: Tlv(20, data))
        router.add(3, lambda c, n, data: FORBIDDEN)
        router.add(4, self.fail_at_once)
        router.add(5, self.later)
        router.add(6, lambda c, n, data: None)
        router.use(correlated(router))
        router.add(8, lambda c, n, data: self.late.append(Deferred()) or self.late[-1])
        self.late: list[Deferred[bytes]] = []
        self.waiting: Deferred[bytes] = Deferred()
        self.numbers = router
        self.serve(router, framing)

    def fail_at_once(self, connection: Connection, number: int, data: bytes) -> object:
        raise ZeroDivisionError

    async def later(self, connection: Connection, number: int, data: bytes) -> bytes:
        return await self.waiting + data

    def test_answers(self) -> None:
        self.serve_numbers()
        client = self.connected(codec="tlv")
        later = client.call(5, b"!")
        self.assertEqual(self.result(client.call(1, b"abc")), b"ABC")
        self.assertEqual(self.result(client.call(2, b"abc", answer_id=20)), b"abc")
        self.assertNoResult(later)
        self.waiting.callback(b"late")
        self.assertEqual(self.result(later), b"late!")
        self.assertEqual(client.pending, 0)

    def test_errors(self) -> None:
        self.serve_numbers()
        client = self.connected(codec="tlv")
        codes = {}
        self.waiting.errback(RequestError(FORBIDDEN))
        for number in (3, 4, 5):
            with self.assertRaises(RequestError) as caught:
                self.result(client.call(number, b""))
            codes[number] = caught.exception.error.code
        self.assertEqual(codes, {3: 33, 4: 20, 5: 33})
        self.assertEqual(self.numbers.failures, {4: 1})
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        none = client.call(6, b"", timeout=5.0)
        self.network.advance(5)
        self.failureResultOf(none, RequestTimeout)
        self.assertEqual(client.pending, 0)

    def test_one_without_a_correlation_id(self) -> None:
        self.serve_numbers()
        peer = self.network.connect(8000, "tlv")
        peer.tell(Tlv(1, b"ab"))
        (answer,) = peer.items()
        self.assertEqual(msgspec.json.decode(answer.payload)["code"], 32)

    def test_messages_of_the_server_go_to_the_router(self) -> None:
        self.serve_numbers()
        incoming = IdRouter()
        seen: list[bytes] = []
        incoming.add(301, lambda c, n, data: seen.append(data))
        incoming.add(302, lambda c, n, data: Tlv(6, b"\0\0\0\0thanks"))
        client = self.connected(codec="tlv", router=incoming)
        pending = client.call(6, b"")
        self.network.settle()
        (connection,) = self.server.manager
        # Even one that begins as an answer would.
        connection.send_message(301, b"\x01\0\0\0welcome")
        connection.send_message(302, b"")
        self.network.settle()
        self.assertEqual((seen, connection.messages_in), ([b"\x01\0\0\0welcome"], 2))
        self.assertNoResult(pending)
        pending.addErrback(lambda failure: None)

    def test_a_codec_of_ones_own(self) -> None:
        self.serve_numbers()
        client = self.connected(codec=TlvCodec(max_payload=1000))
        self.assertEqual(self.result(client.call(1, b"abc")), b"ABC")
        with self.assertRaises(ValueError):
            self.client(codec="morse")

    def test_answers_that_come_late(self) -> None:
        """P-63: they are counted, and neither reach the router nor annoy the server."""
        self.serve_numbers()
        incoming = IdRouter()
        client = self.connected(codec="tlv", router=incoming, most_pending=50)
        late = [client.call(8, b"!", timeout=1.0) for _ in range(40)]
        late[0].cancel()
        self.network.advance(1.0)
        self.failureResultOf(late[0], CancelledError)
        for each in late[1:]:
            self.failureResultOf(each, RequestTimeout)
        for answer in self.late:
            answer.callback(b"late")
        self.network.settle()
        self.assertEqual((len(self.late), client.counters["unknown answers"]), (40, 40))
        self.assertEqual((incoming.unknown, self.server.manager.counters.malformed), (0, 0))
        self.assertEqual(self.result(client.call(1, b"abc")), b"ABC")

    def test_more_late_ones_than_are_remembered(self) -> None:
        self.serve_numbers()
        client = self.connected(codec="tlv", most_pending=2)
        for _ in range(30):
            for each in [client.call(8, b"!", timeout=1.0) for _ in range(2)]:
                each.addErrback(lambda failure: failure.trap(RequestTimeout))
            self.network.advance(1.0)
        for answer in self.late:
            answer.callback(b"late")
        self.network.settle()
        self.assertEqual((len(self.late), client.counters["unknown answers"]), (60, 2))
        # Without a router nobody complains of the others.
        self.assertEqual(self.server.manager.counters.malformed, 0)

    def test_ids_that_begin_again(self) -> None:
        """P-63: none is given twice while the first waits."""
        clock = Clock()
        reading = Reading(clock, lambda: 0)
        answers = Answers(clock, reading, Counter(), most=100, most_id=5)
        self.assertEqual([answers.next_id() for _ in range(3)], [1, 2, 3])
        told: list[Any] = []
        answers.expect(2, told.append)
        answers.expect((7, 4), told.append)
        self.assertEqual([answers.next_id() for _ in range(6)], [5, 1, 3, 5, 1, 3])
        reply = decode_incoming(b'{"id":2,"result":true}')
        self.assertTrue(answers.take(reply))
        self.assertTrue(answers.numbered(Tlv(7, b"\4\0\0\0x")))
        self.assertEqual(told, [reply, b"x"])
        self.assertEqual([answers.next_id() for _ in range(3)], [4, 5, 1])


class GarbageTests(ClientCase):
    """P-63: whatever the server sends, each request has one end, and nothing is raised."""

    garbage = (
        b"",
        b"{",
        b"null",
        b"[]",
        b"{}",
        b'"x"',
        b"\xff\xfe",
        b'{"id":[]}',
        b'{"id":true,"result":1}',
        b'{"id":1e400,"result":1}',
        b'{"id":-1,"result":1}',
        b'{"id":77,"result":1}',
        b'{"id":"#' + b"9" * 5000 + b'","result":1}',
        '{"id":"#\u0663","result":1}'.encode(),
        b'{"id":"#77","error":"x","code":1}',
        b'{"id":null,"result":false,"error":"malformed message","code":30}',
        b'{"id":1,"error":5}',
        b'{"id":1,"code":"x"}',
        b'{"method":"close"}',
        b'{"method":"close","params":7}',
        b'{"method":"close","params":{"retry_after":"x"}}',
        b'{"id":1,"method":"close","params":{}}',
        b"[" * 5000,
    )

    def play(self, codec: str, garbage: list[bytes]) -> None:
        """A server that answers everything with garbage first."""
        router = Router()

        def answer(connection: Connection, message: Any) -> bool:
            for each in garbage:
                connection.send(each)
            return True

        router.add("ask", answer)
        self.serve(router, codec)
        client = self.connected(codec=codec)
        ends: list[object] = []
        for _ in range(3):
            client.request("ask").addBoth(ends.append)
            self.network.settle()
        self.assertEqual((len(ends), client.pending), (3, 0))
        self.assertEqual(ends[1:], [True, True])
        self.network.run(client.close(), patience=20)
        self.network.run(self.server.stop(), patience=20)

    def test_that_fits_the_codec(self) -> None:
        for codec in ("line", "frame", "int32"):
            known = [each for each in self.garbage if codec != "line" or each]
            self.play(codec, known)
            # The answer that the garbage pretends to be is one.
            self.assertEqual(self.flushLoggedErrors(), [])

    def test_with_numbers(self) -> None:
        router = IdRouter()
        self.serve(router, "tlv")

        def answer(connection: Connection, number: int, data: bytes) -> bytes:
            for each in self.garbage:
                connection.send_message(0, each)
                connection.send_message(9, each)
                connection.send_message(1, each)
            return data

        router.add(1, answer)
        client = self.connected(codec="tlv")
        self.assertEqual(self.result(client.call(1, b"abc")), b"abc")
        self.assertEqual((client.pending, self.server.manager.counters.malformed), (0, 0))

    def test_that_fits_no_codec(self) -> None:
        router = Router()
        router.add("ask", lambda c, m: c.send_encoded(b"\xff" * 100))
        self.serve(router, "frame")
        client = self.connected(codec="frame")
        ends: list[Any] = []
        client.request("ask").addBoth(ends.append)
        self.network.settle()
        (end,) = ends
        self.assertTrue(end.check(ConnectionEnded))
        self.network.advance(60)
        self.assertEqual(len(ends), 1)


class SlowServerTests(ClientCase):
    """P-63: a server that never reads: what waits for it is bounded, and so is the time."""

    def test_bounded(self) -> None:
        self.network.window = 1000
        self.serve()
        client = self.connected(most_pending=10_000, most_outbound=20_000, timeout=100.0)
        (serving,) = self.server.manager
        serving.hold()
        ends: list[Any] = []
        for _ in range(500):
            client.request("twice", 1).addBoth(ends.append)
            client_side = client.connection
            assert client_side is not None
            self.assertLess(client_side.outbound, 21_000)
            for _ in range(3):
                try:
                    client.notify("twice", 1)
                except SlowServer as error:
                    self.assertGreater(error.waiting, 20_000)
        self.assertTrue(ends)
        for end in ends:
            self.assertTrue(end.check(SlowServer))
        self.assertEqual(client.pending, 500 - len(ends))
        serving.release()
        self.network.settle()
        self.assertEqual((len(ends), client.pending), (500, 0))
        self.assertEqual(ends[-1], 2)

    def test_left_after_a_while(self) -> None:
        self.network.window = 1000
        self.serve()
        client = self.connected(timeout=1000.0)
        (serving,) = self.server.manager
        serving.hold()
        ends: list[Any] = []
        for _ in range(20):
            client.request("twice", "x" * 20_000).addBoth(ends.append)
        self.assertEqual(ends, [])
        self.network.advance(12)
        self.assertEqual((len(ends), client.pending), (20, 0))
        self.assertEqual({type(end.value) for end in ends}, {ConnectionEnded})


class RouterTests(ClientCase):
    """P-63: the same routers, for what the server sends on its own."""

    def test_notifications_and_requests(self) -> None:
        self.serve()
        router = Router()
        router.add("news", lambda c, m: self.said.append(m.params), str)
        router.add("who", lambda c, m: "a client")
        for codec in ("line", "frame"):
            self.said.clear()
            client = self.connected(codec=codec, router=router)
            connection = list(self.server.manager)[-1]
            if codec == "line":  # the port still has to see which framing it is
                self.result(client.request("twice", 1))
            else:
                self.result(client.request("twice", 2))
            connection.send(encode_request(None, "news", "hello"))
            connection.send(encode_request("s1", "who", None))
            for _ in range(30):
                connection.send(encode_request(None, "unheard of", None))
            self.network.settle()
            self.assertEqual(self.said, ["connected", "hello"])
            self.assertIsNotNone(client.connection)


class ReconnectTests(ClientCase):
    """P-63: it comes back, and says what happened."""

    def test_the_first_failure_is_reported(self) -> None:
        client = self.client()
        with self.assertRaises(Unreachable):
            self.result(client.connect())
        self.serve()
        self.result(client.connect())
        self.assertEqual(self.said, ["connected"])

    def test_several_addresses(self) -> None:
        """Q-34: they are tried in turn, and the client says which one it has."""
        self.serve()
        client = Client(
            self.network,
            ["tcp:127.0.0.1:7000", ADDRESS],
            settings=ClientSettings(attempts=0, backoff_first=1.0),
        )
        self.addCleanup(lambda: self.network.run(client.close(), patience=20))
        self.assertEqual(client.server, "tcp:127.0.0.1:7000")
        self.network.run(client.connect(), patience=5)
        self.assertEqual(client.server, ADDRESS)

    def test_as_many_attempts_as_it_is_told(self) -> None:
        client = self.client(attempts=3, backoff_first=1.0)
        connecting = client.connect()
        self.network.advance(2.9)
        self.assertNoResult(connecting)
        self.network.advance(0.1)
        self.failureResultOf(connecting, Unreachable)
        self.assertEqual(client.counters["failed"], 3)
        patient = self.client(attempts=0)
        waiting = patient.connect()
        self.network.advance(3600)
        self.serve()
        self.network.advance(30)
        self.assertEqual(self.result(patient.request("twice", 4)), 8)
        self.successResultOf(waiting)

    def test_it_comes_back(self) -> None:
        self.serve()
        client = self.connected(backoff_first=1.0)
        asked = client.request("never")
        self.network.settle()
        self.network.cut()
        self.failureResultOf(asked, ConnectionEnded)
        self.failureResultOf(client.request("twice", 1), NotConnected)
        again = client.connect()
        self.network.advance(1.0)
        self.assertIs(self.successResultOf(again), client.connection)
        self.assertEqual(self.result(client.request("twice", 1)), 2)
        self.assertEqual([s for s in self.said if s == "connected"], ["connected"] * 2)

    def test_it_waits_longer_each_time_up_to_a_limit(self) -> None:
        self.serve()
        client = self.connected(backoff_first=1.0, backoff_most=4.0)
        self.network.run(self.server.stop(), patience=10)
        self.network.advance(100)
        failed = client.counters["failed"]
        self.network.advance(40)
        self.assertEqual(client.counters["failed"] - failed, 10)
        self.assertIn("server going down", self.said)
        self.serve()
        self.network.advance(4)
        self.assertEqual(self.result(client.request("twice", 3)), 6)

    def test_a_server_that_accepts_and_closes(self) -> None:
        """P-63: is asked less and less often, until a connection has stood for a while."""
        self.serve(framing="line", max_connections=1)
        occupant = self.network.connect(8000)
        client = self.connected(backoff_first=1.0, backoff_most=16.0)
        self.network.advance(1 + 2 + 4 + 8 + 1)
        self.assertEqual(client.counters["connected"], 5)
        self.network.advance(160)
        self.assertEqual(client.counters["connected"], 15)
        occupant.close()
        self.network.advance(16)
        stood = client.counters["connected"]
        self.network.advance(16)
        self.network.cut()
        self.network.advance(1)
        self.assertEqual(client.counters["connected"], stood + 1)

    def test_as_long_as_the_server_wants(self) -> None:
        """P-63: its ``retry_after`` comes on top."""
        for asked, waited in ((20.0, 20.0), (0.0, 0.0)):
            self.serve()
            client = self.connected(backoff_first=1.0)
            self.result(client.request("twice", 1))
            (serving,) = self.server.manager
            serving.close(CloseReason(4503, "banned", False), retry_after=asked)
            self.network.advance(waited + 0.9)
            self.assertEqual(client.counters["connected"], 1)
            self.network.advance(0.2)
            self.assertEqual(client.counters["connected"], 2)
            self.network.run(client.close(), patience=20)
            self.network.run(self.server.stop(), patience=20)

    def test_callbacks_that_fail(self) -> None:
        """P-63: that of the start is told to who connects; none keeps it from coming back."""
        self.serve()
        client = self.client(backoff_first=1.0)
        fails = [True]

        def begin(connection: Connection) -> None:
            if fails:
                fails.pop()
                raise ZeroDivisionError

        client.on_connected = begin
        client.on_disconnected = lambda why: 1 / 0
        connecting = client.connect()
        self.network.settle()
        self.failureResultOf(connecting, ZeroDivisionError)
        self.network.advance(1)
        self.assertEqual(self.result(client.request("twice", 2)), 4)
        self.network.cut()
        self.network.advance(2)
        self.assertEqual(self.result(client.request("twice", 2)), 4)
        self.network.run(client.close(), patience=20)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 4)

    def test_it_stays_away_when_it_is_told_to(self) -> None:
        for codec in ("line", "frame", "int32"):
            self.serve()
            client = self.connected(codec=codec)
            self.result(client.request("twice", 1))
            reason = CloseReason(4503, "banned", False)
            self.network.run(self.server.stop(reason), patience=10)
            self.network.advance(600)
            self.assertEqual((client.counters["failed"], client.counters["lost"]), (0, 1))
            self.assertEqual(self.said[-1], "banned")

    def test_it_stays_away_where_its_messages_are_too_large(self) -> None:
        for codec in ("line", "frame", "int32"):
            self.serve(max_frame=100, too_large=MESSAGE_TOO_LARGE)
            client = self.connected(codec=codec)
            asked = client.request("twice", "x" * 200)
            self.network.advance(60)
            failure = self.failureResultOf(asked, ConnectionEnded)
            self.assertEqual(failure.value.reason, "too large message data")
            self.assertEqual(client.counters["connected"], 1)
            self.network.run(self.server.stop(), patience=10)

    def test_close(self) -> None:
        self.serve()
        client = self.connected()
        asked = client.request("never")
        self.network.run(client.close(), patience=1)
        self.failureResultOf(asked, ConnectionEnded)
        self.assertEqual(len(self.server.manager), 0)
        self.failureResultOf(client.connect(), ClientClosed)
        self.network.run(client.close())
        self.network.run(self.server.stop(), patience=10)
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_close_when_the_connection_is_lost(self) -> None:
        """P-63: a hook that closes the client then is told when it is closed."""
        self.serve()
        client = self.connected()
        closing: list[Deferred[None]] = []
        client.on_disconnected = lambda why: closing.append(Deferred.fromCoroutine(client.close()))
        self.network.cut()
        self.network.settle()
        self.assertIs(self.successResultOf(closing[0]), None)

    def test_close_while_it_tries(self) -> None:
        for unreachable in (True, False):
            if unreachable:
                self.network.unreachable.add(8000)
            else:
                self.network.unreachable.clear()
            client = self.client(attempts=0)
            connecting = client.connect()
            self.network.advance(0.1)
            self.network.run(client.close())
            self.failureResultOf(connecting, ClientClosed)
            self.assertEqual(self.network.getDelayedCalls(), [])


class HookTests(ClientCase):
    """Issue 12: hooks of a client may take time, and what they raise is theirs alone."""

    def test_log_in(self) -> None:
        """P-63: the client counts as connected when its first hook is done."""
        self.serve()
        client = self.client()
        seen: list[object] = []

        async def log_in(connection: Connection) -> None:
            seen.append(await client.request("twice", 4))

        async def gone(why: str) -> None:
            seen.append("gone")

        client.on_connected, client.on_disconnected = log_in, gone
        self.result(client.connect())
        self.network.cut()
        self.network.advance(1.0)
        self.assertEqual(seen, [8, "gone", 8])

    def test_whatever_is_raised(self) -> None:
        self.serve()
        for error in (SystemExit, KeyboardInterrupt, CancelledError):
            client = self.client(backoff_first=1.0)
            fails = [True, False]

            async def begin(
                connection: Connection, error: Any = error, fails: list[bool] = fails
            ) -> None:
                if fails.pop(0):
                    raise error

            async def end(why: str, error: Any = error) -> None:
                raise error

            client.on_connected, client.on_disconnected = begin, end
            connecting = client.connect()
            self.network.settle()
            failure = self.failureResultOf(connecting)
            self.assertIsInstance(failure.value, Exception)
            self.network.advance(1.0)
            self.assertEqual(self.result(client.request("twice", 2)), 4)
            self.network.run(client.close(), patience=20)
            self.assertEqual(len(self.flushLoggedErrors(error)), 3)

    def test_a_hook_that_fails_is_tried_again_without_end(self) -> None:
        """With no limit of attempts, a first hook that fails is no reason to give up."""
        self.serve()
        client = self.client(attempts=0, backoff_first=1.0)
        fails = [True, True, False]

        def begin(connection: Connection) -> None:
            if fails.pop(0):
                raise RequestError(FORBIDDEN)

        client.on_connected = begin
        client.connect().addErrback(lambda failure: None)
        self.network.advance(10.0)
        self.assertEqual((client.state, fails), (ClientState.CONNECTED, []))
        self.assertEqual(len(self.flushLoggedErrors(RequestError)), 2)

    def test_a_hook_that_gives_a_connection_up(self) -> None:
        """It counts as lost, is no fault in a log, and those who wait get the next one."""
        self.serve()
        client = self.client(attempts=0, backoff_first=1.0)
        fails = [True, False]

        def begin(connection: Connection) -> None:
            if fails.pop(0):
                raise ConnectionEnded("not now")

        client.on_connected = begin
        connecting = client.connect()
        self.network.settle()
        self.assertNoResult(connecting)
        self.network.advance(2.0)
        self.assertIs(self.successResultOf(connecting), client.connection)
        self.assertEqual(self.said, ["not now"])

    def test_a_hook_that_is_not_wanted(self) -> None:
        """Issue 16: a login that is refused for good ends the client, and is no fault in a log."""
        self.serve()
        told: list[NotWanted] = []
        client = self.client()

        def begin(connection: Connection) -> None:
            raise NotWanted(client.server, "no such user", 24)

        client.on_connected, client.on_gone = begin, told.append
        connecting = client.connect()
        self.network.settle()
        error = self.failureResultOf(connecting, NotWanted).value
        self.assertEqual((error.code, told), (24, [error]))
        self.network.advance(100.0)
        self.assertEqual((client.state, client.counters["connected"]), (ClientState.GONE, 1))
        self.assertIn(ADDRESS, str(error))

    def test_not_wanted(self) -> None:
        """Issue 12: a state, an event with the code, and the code in later errors."""
        self.serve()
        told: list[NotWanted] = []
        client = self.connected()

        async def gone(why: NotWanted) -> None:
            told.append(why)

        client.on_gone = gone
        self.network.run(self.server.manager.close_all(BANNED))
        self.network.settle()
        (error,) = told
        self.assertEqual((error.code, error.reason), (4503, "banned"))
        self.assertIs(client.state, ClientState.GONE)
        later = self.failureResultOf(client.request("twice", 1), NotConnected).value
        self.assertIs(later, error)
        with self.assertRaises(NotWanted) as caught:
            client.notify("twice", 1)
        self.assertIn("banned (4503)", str(caught.exception))
        self.result(client.connect())
        self.assertEqual(self.result(client.request("twice", 1)), 2)


class LifeTests(ClientCase):
    """P-63: signs of life, and a server that gives none."""

    def test_keepalive(self) -> None:
        self.serve(idle_timeout=60.0)
        frame = self.connected(codec="frame")
        line = Client(
            self.network,
            ADDRESS,
            codec="line",
            keepalive=encode_request(None, "twice", 1),
        )
        self.network.run(line.connect())
        self.network.advance(600)
        self.assertEqual(len(self.server.manager), 2)
        self.assertEqual((frame.counters["lost"], line.counters["lost"]), (0, 0))
        self.network.run(line.close(), patience=1)

    def test_a_silent_server_is_left(self) -> None:
        self.serve()
        client = self.connected(silence=30.0)
        self.result(client.request("twice", 1))
        self.network.advance(29)
        self.assertEqual(client.counters["lost"], 0)
        self.network.advance(5)
        self.assertEqual((client.counters["lost"], client.counters["connected"]), (1, 2))
