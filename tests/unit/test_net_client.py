"""P-63: a client with the codecs and routers of the server, on the network in memory."""

from __future__ import annotations

from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import FORBIDDEN, CloseReason, RequestError
from kupool.net.client import Client, ClientSettings
from kupool.net.client_failures import (
    ClientClosed,
    ConnectionEnded,
    NotConnected,
    RequestTimeout,
    TooManyRequests,
    Unreachable,
)
from kupool.net.connection import Connection
from kupool.net.correlation import correlated
from kupool.net.failures import MESSAGE_TOO_LARGE
from kupool.net.id_router import IdRouter
from kupool.net.manager import ServerSettings
from kupool.net.observer import Observer
from kupool.net.request import Request
from kupool.net.router import Router
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork
from kupool.wire.codecs import Codec, TlvCodec
from kupool.wire.framing import Tlv
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
        ((_, body),) = peer.items()
        self.assertEqual(msgspec.json.decode(body)["code"], 32)

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

    def test_as_many_attempts_as_it_is_told(self) -> None:
        client = self.client(attempts=3, backoff_first=1.0)
        connecting = client.connect()
        self.network.advance(5.9)
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
            self.serve(max_frame=100)
            self.server.manager.too_large = MESSAGE_TOO_LARGE
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
