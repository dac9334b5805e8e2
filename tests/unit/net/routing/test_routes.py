"""Requests, routers as classes, groups, middleware and guards: what stands around handlers."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import FORBIDDEN, NOT_FOUND, RequestError
from kupool.net.routing.base import BaseRouter
from kupool.net.routing.guards import RateLimit, allow
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.request import Request
from kupool.net.routing.router import LATER, Router, Unknown
from kupool.net.transport.protocols import TLV
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.wire.framing import LINE, Tlv, encode_tlv
from tests.fakes.peers import Bench, lines, tlvs


class Steps(BaseRouter):
    """Notes its steps; any of them may raise, or be waited for."""

    def __init__(self, raises: str = "", waits: dict[str, Deferred[None]] | None = None) -> None:
        self.raises = raises
        self.waits = waits or {}
        self.seen: list[str] = []
        self.requests: list[Request] = []

    async def step(self, name: str, request: Request) -> None:
        self.seen.append(name)
        self.requests.append(request)
        if name in self.waits:
            await self.waits[name]
            self.seen.append(f"{name} went on")
        if self.raises == name:
            raise ZeroDivisionError(name)

    async def before(self, request: Request) -> object:
        await self.step("before", request)
        return None

    async def handle(self, request: Request) -> object:
        await self.step("handle", request)
        return b"answer"

    async def after(self, request: Request, outcome: object) -> object:
        await self.step(f"after {outcome!r}", request)
        if self.raises == "after":
            raise ZeroDivisionError
        return None


class IdCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.use(IdRouter())

    def use(self, router: IdRouter) -> None:
        self.router = router
        self.bench = Bench(router, max_errors=10)
        self.connection, self.transport = self.bench.connect(TLV)

    def ask(self, message_id: int, data: bytes = b"") -> list[tuple[int, bytes]]:
        self.connection.feed(encode_tlv(data, message_id))
        return tlvs(self.transport.taken())

    def error(self, message_id: int, data: bytes = b"") -> tuple[int, str]:
        ((number, body),) = self.ask(message_id, data)
        reply = json.loads(body)
        self.assertEqual((number, reply["id"], reply["result"]), (0, message_id, False))
        return reply["code"], reply["error"]


class RequestTests(IdCase):
    """P-19: a request has its connection, its message id and its data."""

    def test_by_id(self) -> None:
        requests: list[Request] = []

        @self.router.on(7)
        def seven(request: Request) -> bytes:
            requests.append(request)
            return b"got " + request.data

        self.assertEqual(self.ask(7, b"x"), [(7, b"got x")])
        (request,) = requests
        self.assertIs(request.connection, self.connection)
        self.assertEqual((request.msg_id, request.data, request.id), (7, b"x", None))

    def test_by_method(self) -> None:
        router = Router()
        requests: list[Request] = []

        @router.on("twice", int)
        def twice(request: Request) -> int:
            requests.append(request)
            return int(request.data) * 2

        connection, transport = Bench(router).connect(LINE)
        connection.feed(b'{"id":5,"method":"twice","params":4}\n')
        self.assertEqual(lines(transport.taken()), [{"id": 5, "result": 8}])
        (request,) = requests
        self.assertIs(request.connection, connection)
        self.assertEqual((request.msg_id, request.data, request.id), ("twice", 4, 5))

    def test_it_can_be_answered_later(self) -> None:
        kept: list[Request] = []
        self.router.on(1)(lambda request: kept.append(request) or LATER)
        methods = Router()
        methods.on("m")(lambda request: kept.append(request) or LATER)
        connection, transport = Bench(methods).connect(LINE)
        connection.feed(b'{"id":9,"method":"m"}\n')
        self.assertEqual((self.ask(1), transport.taken()), ([], b""))
        for request in kept:
            request.reply(b"late" if request.msg_id == 1 else "late")
        self.assertEqual(tlvs(self.transport.taken()), [(1, b"late")])
        self.assertEqual(lines(transport.taken()), [{"id": 9, "result": "late"}])


class BaseRouterTests(IdCase):
    """P-20, P-21: before, handle, after; an exception leaves out the rest."""

    def test_every_step_does_nothing_by_itself(self) -> None:
        """P-20: a subclass overrides what it needs."""
        self.router.add(1, BaseRouter())
        self.assertEqual(self.ask(1), [])
        self.assertEqual((self.connection.state, sum(self.router.failures.values())), (OPEN, 0))

    def test_the_order(self) -> None:
        """P-20, P-21: before, handle, after, with one request object for the three."""
        steps = Steps()
        self.router.add(1, steps)
        self.assertEqual(self.ask(1), [(1, b"answer")])
        self.assertEqual(steps.seen, ["before", "handle", "after b'answer'"])
        self.assertEqual(len(set(map(id, steps.requests))), 1)

    def test_an_exception_in_any_step(self) -> None:
        """P-21: it skips the rest, is logged with connection and id, and counted."""
        seen = {
            "before": ["before"],
            "handle": ["before", "handle"],
            "after": ["before", "handle", "after b'answer'"],
        }
        logged: list[Any] = []
        globalLogPublisher.addObserver(logged.append)
        self.addCleanup(globalLogPublisher.removeObserver, logged.append)
        other, transport = self.bench.connect(TLV)
        for number, (step, expected) in enumerate(seen.items(), 1):
            steps = Steps(raises=step)
            self.router.add(number, steps)
            code, text = self.error(number)
            self.assertEqual((code, steps.seen), (20, expected))
            self.assertEqual(self.router.failures[number], 1)
            (event,) = (e for e in logged if e["log_level"] is LogLevel.critical)
            self.assertEqual((event["route"], event["connection"]), (number, self.connection.id))
            self.assertTrue(text.endswith(event["reference"]))
            logged.clear()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        self.assertEqual((self.connection.state, other.state), (OPEN, OPEN))
        self.router.add(9, lambda c, n, data: data)
        other.feed(encode_tlv(b"fine", 9))
        self.assertEqual(tlvs(transport.taken()), [(9, b"fine")])

    def test_after_runs_after_the_asynchronous_end(self) -> None:
        """P-22: each step waits for the one before it, however long that takes."""
        names = ("before", "handle", "after b'answer'")
        waits: dict[str, Deferred[None]] = {name: Deferred() for name in names}
        steps = Steps(waits=waits)
        self.router.add(1, steps)
        self.assertEqual(self.ask(1), [])
        for number, name in enumerate(names):
            self.assertEqual(steps.seen[-1], name)
            self.assertEqual(self.transport.taken(), b"")
            waits[name].callback(None)
            self.assertEqual(steps.seen[2 * number + 1], f"{name} went on")
        self.assertEqual(tlvs(self.transport.taken()), [(1, b"answer")])

    def test_by_method_too(self) -> None:
        """P-20: the same class serves a method."""

        class Greet(BaseRouter):
            def before(self, request: Request) -> object:
                request.context = "hello"
                return FORBIDDEN if request.data == "nobody" else None

            def handle(self, request: Request) -> object:
                return f"{request.context} {request.data}"

        router = Router()
        router.add("greet", Greet(), str)
        connection, transport = Bench(router).connect(LINE)
        connection.feed(b'{"id":1,"method":"greet","params":"ann"}\n')
        connection.feed(b'{"id":2,"method":"greet","params":"nobody"}\n')
        first, second = lines(transport.taken())
        self.assertEqual((first["result"], second["code"]), ("hello ann", 33))


class HandlerKindTests(IdCase):
    """P-22: plain functions, coroutines and Deferreds."""

    def test_all_answer_alike(self) -> None:
        waiting: Deferred[bytes] = Deferred()

        async def coroutine(connection: Connection, number: int, data: bytes) -> bytes:
            return await waiting

        self.router.add(1, lambda c, n, data: data)
        self.router.add(2, lambda c, n, data: succeed(Tlv(20, data)))
        self.router.add(3, coroutine)
        self.assertEqual(self.ask(1, b"a"), [(1, b"a")])
        self.assertEqual(self.ask(2, b"b"), [(20, b"b")])
        self.assertEqual(self.ask(3, b"c"), [])
        waiting.callback(b"late")
        self.assertEqual(tlvs(self.transport.taken()), [(3, b"late")])

    def test_errors(self) -> None:
        def refuse(connection: Connection, number: int, data: bytes) -> object:
            raise RequestError(NOT_FOUND.about("room 7"))

        async def fail(connection: Connection, number: int, data: bytes) -> object:
            raise ZeroDivisionError

        self.router.add(1, refuse)
        self.router.add(2, lambda c, n, data: FORBIDDEN)
        self.router.add(3, fail)
        self.router.add(4, lambda c, n, data: 4.5)
        self.assertEqual(self.error(1), (35, "not found: room 7"))
        self.assertEqual(self.error(2), (33, "forbidden"))
        self.assertEqual(self.error(3)[0], 20)
        self.assertEqual(self.error(4)[0], 20)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
        self.assertEqual(self.router.failures, {3: 1, 4: 1})

    def test_an_answer_after_the_end_goes_nowhere(self) -> None:
        waiting: Deferred[object] = Deferred()
        self.router.add(1, lambda c, n, data: waiting)
        self.ask(1)
        self.connection.abort()
        waiting.errback(RequestError(FORBIDDEN))
        self.assertEqual(self.transport.taken(), b"")


class RegistrationTests(IdCase):
    """P-23, P-25, P-28: one handler for each id, dispatched by it, and listed."""

    def test_a_second_registration(self) -> None:
        """P-23: repeat api, msgID: N."""
        self.router.add(5, BaseRouter())
        for add in (
            lambda: self.router.add(5, BaseRouter()),
            lambda: self.router.on(5)(lambda request: None),
            lambda: self.router.group(1, 9).add(5, BaseRouter()),
        ):
            with self.assertRaises(ValueError) as caught:
                add()
            self.assertEqual(str(caught.exception), "repeat api, msgID: 5")
        self.assertEqual([route.key for route in self.router.routes], [5])

    def test_dispatch_by_id(self) -> None:
        """P-25: each id has its own router, whatever came before."""
        for number in range(50):
            self.router.add(number, lambda c, n, data, own=number: b"%d" % own)
        for number in (0, 49, 7, 7, 30):
            self.assertEqual(self.ask(number), [(number, b"%d" % number)])

    def test_routes_are_listed(self) -> None:
        """P-28: for documents, and for the labels of metrics."""

        def ping(connection: Connection, number: int, data: bytes) -> bytes:
            """Answer a ping.

            With the same data.
            """
            return data

        self.router.add(1, ping)
        self.router.group(10, 19).add(10, Steps())
        self.router.on(2)(lambda request: None)
        one, ten, two = self.router.describe()
        self.assertEqual((one["route"], one["summary"], one["group"]), ("1", "Answer a ping.", ""))
        self.assertTrue(one["handler"].endswith("ping"))
        self.assertEqual((ten["route"], ten["handler"], ten["group"]), ("10", "Steps", "10-19"))
        self.assertEqual(two["route"], "2")
        methods = Router()
        methods.group("room.").add("join", lambda c, m: True, int)
        (join,) = methods.describe()
        self.assertEqual(
            (join["route"], join["params"], join["group"]), ("room.join", "int", "room.")
        )


class UnknownTests(IdCase):
    """P-24: an error reply, nothing, or a close; counted, and never a crash."""

    def test_reply_is_the_default(self) -> None:
        self.assertEqual(self.error(404), (31, "unknown method"))
        self.assertEqual((self.router.unknown, self.connection.state), (1, OPEN))

    def test_ignore(self) -> None:
        self.use(IdRouter(Unknown.IGNORE))
        for _ in range(20):
            self.assertEqual(self.ask(404), [])
        self.assertEqual((self.router.unknown, self.connection.state), (20, OPEN))

    def test_close(self) -> None:
        self.use(IdRouter(Unknown.CLOSE))
        (_, reply), (_, close) = self.ask(404)
        self.assertEqual(json.loads(reply)["code"], 31)
        self.assertEqual(json.loads(close)["params"]["code"], 4502)
        self.assertNotEqual(self.connection.state, OPEN)

    def test_a_handler_of_ones_own(self) -> None:
        self.use(IdRouter(lambda c, number, data: Tlv(400, b"%d" % number)))
        self.assertEqual(self.ask(404), [(400, b"404")])
        self.assertEqual(self.router.unknown, 1)

    def test_by_method(self) -> None:
        ask = b'{"id":1,"method":"nope"}\n'
        for policy, codes, closed in (
            (Unknown.REPLY, [31], False),
            (Unknown.IGNORE, [], False),
            (Unknown.CLOSE, [31, None], True),
        ):
            router = Router(policy)
            connection, transport = Bench(router).connect(LINE)
            connection.feed(ask)
            self.assertEqual([m.get("code") for m in lines(transport.taken())], codes)
            self.assertEqual((connection.state is not OPEN, router.unknown), (closed, 1))


class GroupTests(IdCase):
    """P-26: groups, middleware, limits and authorization."""

    def setUp(self) -> None:
        super().setUp()
        self.seen: list[str] = []

    def note(self, name: str) -> Any:
        def middleware(handler: Any) -> Any:
            def wrapped(connection: Connection, *message: Any) -> object:
                self.seen.append(name)
                return handler(connection, *message)

            return wrapped

        return middleware

    def test_a_range(self) -> None:
        group = self.router.group(100, 199)
        group.add(100, lambda c, n, data: b"in")
        for outside in (99, 200):
            with self.assertRaises(ValueError) as caught:
                group.add(outside, lambda c, n, data: b"out")
            self.assertEqual(str(caught.exception), f"msgID {outside} is not from 100 to 199")
        self.assertEqual(self.ask(100), [(100, b"in")])

    def test_middleware_and_steps_in_their_order(self) -> None:
        outer = self.router.group(1, 9, use=[self.note("outer")])
        inner = self.router.group(1, 5, use=[self.note("inner")], inside=outer)
        inner.add(
            1,
            lambda c, n, data: self.seen.append("handler"),
            use=[self.note("own")],
            guards=[lambda *message: self.seen.append("guard")],
            before=[lambda *message: self.seen.append("before")],
            after=[lambda *message: self.seen.append("after")],
        )
        outer.add(9, lambda c, n, data: None)
        self.router.add(20, lambda c, n, data: None)
        # Middleware that comes later is around what was there before.
        self.router.use(self.note("all"))
        inner.use(self.note("inner 2"))
        self.ask(1)
        self.assertEqual(
            self.seen,
            ["guard", "all", "outer", "inner", "inner 2", "own", "before", "handler", "after"],
        )
        for number, expected in ((9, ["all", "outer"]), (20, ["all"])):
            self.seen.clear()
            self.ask(number)
            self.assertEqual(self.seen, expected)

    def test_middleware_for_a_range(self) -> None:
        for number in (5, 10, 15):
            self.router.add(number, lambda c, n, data: None)
        self.router.use(self.note("tens"), only=range(10, 20).__contains__)
        self.ask(5)
        self.assertEqual(self.seen, [])
        self.ask(10), self.ask(15)
        self.assertEqual(self.seen, ["tens", "tens"])

    def test_middleware_may_answer_and_change_answers(self) -> None:
        def louder(handler: Any) -> Any:
            def wrapped(connection: Connection, number: int, data: bytes) -> object:
                if not data:
                    return b"nothing"
                return handler(connection, number, data.upper()) + b"!"

            return wrapped

        self.router.add(1, lambda c, n, data: data, use=[louder])
        self.assertEqual(self.ask(1, b"abc"), [(1, b"ABC!")])
        self.assertEqual(self.ask(1), [(1, b"nothing")])

    def test_a_limit_for_each_connection(self) -> None:
        self.router.add(1, lambda c, n, data: b"ok", guards=[RateLimit(2, 3)])
        self.router.add(2, lambda c, n, data: b"ok")
        for _ in range(3):
            self.assertEqual(self.ask(1), [(1, b"ok")])
        self.assertEqual(self.error(1), (34, "too many requests"))
        self.assertEqual(self.router.refusals, {1: 1})
        self.assertEqual(self.ask(2), [(2, b"ok")])
        other, transport = self.bench.connect(TLV)
        other.feed(encode_tlv(b"", 1))
        self.assertEqual(tlvs(transport.taken()), [(1, b"ok")])
        self.bench.clock.advance(0.5)
        self.assertEqual(self.ask(1), [(1, b"ok")])
        self.assertEqual(self.error(1)[0], 34)

    def test_limits_that_are_none(self) -> None:
        for rate, burst in ((0, 1), (-1, 1), (1, 0)):
            self.assertRaises(ValueError, RateLimit, rate, burst)

    def test_authorization_of_a_group(self) -> None:
        self.use(IdRouter())
        admin = self.router.group(50, 59, guards=[allow(lambda c: c.context == "admin")])
        admin.add(50, lambda c, n, data: b"done")
        self.assertEqual(self.error(50), (33, "forbidden"))
        self.connection.context = "admin"
        self.assertEqual(self.ask(50), [(50, b"done")])

    def test_a_guard_that_has_to_wait(self) -> None:
        waiting: Deferred[object] = Deferred()
        self.router.add(1, lambda c, n, data: b"in", guards=[lambda *message: waiting])
        self.assertEqual(self.ask(1), [])
        self.assertEqual(self.router.refusals, {})
        waiting.callback(FORBIDDEN)
        self.assertEqual(json.loads(tlvs(self.transport.taken())[0][1])["code"], 33)
        self.assertEqual(self.router.refusals, {1: 1})

    def test_by_method(self) -> None:
        router = Router()
        room = router.group("room.", guards=[allow(lambda c: c.context is not None)])
        game = router.group("game.", inside=room)
        room.add("join", lambda c, m: "joined")
        game.add("move", lambda c, m: "moved")
        self.assertEqual([r.key for r in router.routes], ["room.join", "room.game.move"])
        router.use(self.note("all"))
        connection, transport = Bench(router).connect(LINE)
        for method in (b"room.join", b"room.game.move"):
            connection.feed(b'{"id":1,"method":"%b"}\n' % method)
        self.assertEqual([m["code"] for m in lines(transport.taken())], [33, 33])
        self.assertEqual((self.seen, sum(router.refusals.values())), ([], 2))
        connection.context = "ann"
        connection.feed(b'{"id":1,"method":"room.join"}\n')
        self.assertEqual(lines(transport.taken()), [{"id": 1, "result": "joined"}])
        self.assertEqual(self.seen, ["all"])


class HostileTests(SynchronousTestCase):
    """P-21, P-24: no bytes raise out of a router, whatever its handlers do with them."""

    @given(st.binary(max_size=400), st.integers(1, 40))
    def test_any_bytes(self, data: bytes, step: int) -> None:
        router = IdRouter(Unknown.IGNORE)
        for number in range(256):
            router.add(number, lambda c, n, d: (d, None, Tlv(n, d), FORBIDDEN)[len(d) % 4])
        connection, _ = Bench(router, max_errors=0).connect(TLV)
        for start in range(0, len(data), step):
            connection.feed(data[start : start + step])

    @given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=40)), max_size=10))
    def test_any_messages(self, messages: list[tuple[int, bytes]]) -> None:
        router = IdRouter()
        router.add(0, lambda c, n, data: data)
        router.add(1, lambda c, n, data: succeed(data))
        router.add(2, lambda c, n, data: FORBIDDEN)
        connection, transport = Bench(router, max_errors=0).connect(TLV)
        connection.feed(b"".join(encode_tlv(data, number) for number, data in messages))
        self.assertEqual(len(tlvs(transport.taken())), len(messages))
        self.assertEqual(router.unknown, sum(number == 3 for number, _ in messages))
