"""What handlers may return and raise in both kinds of routers, and that it is answered once."""
# ruff: noqa: B023  (what is defined in a loop is called in it)

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import NOT_FOUND, CloseReason, ErrorText, RequestError
from kupool.net.routing.base import BaseRouter
from kupool.net.routing.correlation import correlated
from kupool.net.routing.guards import RateLimit
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.request import LATER, Request
from kupool.net.routing.router import Router
from kupool.net.transport.protocols import TLV
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.wire.framing import FRAME, INT32, LINE, Framing, Tlv, encode_tlv
from kupool.wire.messages import close_message
from tests.fakes.peers import Bench, lines
from tests.fakes.raising import ENDINGS, raising, returning

#: What Python makes of the name of a file that is not UTF-8.
NAME = os.fsdecode(b"caf\xe9.txt")


class Case(SynchronousTestCase):
    """Asks a router by method and one by number the same things."""

    def ask(self, add: Callable[[Router, Any], None]) -> list[list[Any]]:
        """What each kind of router sends; ``add`` registers a handler, once for each."""
        methods, numbers = Router(), IdRouter()
        add(methods, "m")
        add(numbers, 7)
        first, sent = Bench(methods).connect(LINE)
        first.feed(b'{"id":1,"method":"m"}\n')
        second, packed = Bench(numbers).connect(TLV)
        second.feed(encode_tlv(b"data", 7))
        self.assertEqual((first.state, second.state), (OPEN, OPEN))
        self.routers = (methods, numbers)
        return [lines(sent.value()), tlvs(packed.value())]

    def codes(self, add: Callable[[Router, Any], None]) -> list[Any]:
        """The codes of the one answer that each gives."""
        answers = self.ask(add)
        self.assertEqual([len(each) for each in answers], [1, 1], answers)
        return [each[0].get("code") for each in answers]


def tlvs(data: bytes) -> list[Any]:
    """Take `tlv` apart: errors as JSON, answers as they are."""
    out: list[Any] = []
    while data:
        size, number = (int.from_bytes(data[n : n + 4], "little") for n in (0, 4))
        body = data[8 : 8 + size]
        out.append({"bytes": body} if number else json.loads(body))
        data = data[8 + size :]
    return out


class EndingTests(Case):
    """Issue 12: what a handler raises is its own failure, whatever it is."""

    def test_in_every_place(self) -> None:
        def inner(*message: Any) -> object:
            return b"answer"

        for error in (ZeroDivisionError, *ENDINGS):
            for function in raising(error):

                def around(handler: Any, function: Any = function) -> Any:
                    return function

                class Steps(BaseRouter):
                    before = handle = after = staticmethod(function)  # type: ignore[assignment]

                places: dict[str, Callable[[Router, Any], None]] = {
                    "handler": lambda router, key: router.add(key, function),
                    "on": lambda router, key: router.on(key)(function),  # type: ignore[arg-type]
                    "class": lambda router, key: router.add(key, Steps()),
                    "guard": lambda router, key: router.add(key, inner, guards=[function]),
                    "before": lambda router, key: router.add(key, inner, before=[function]),
                    "after": lambda router, key: router.add(key, inner, after=[function]),
                    "middleware": lambda router, key: router.add(key, inner, use=[around]),
                }
                for place, add in places.items():
                    self.assertEqual(self.codes(add), [20, 20], (place, error))
                    failed = [sum(router.failures.values()) for router in self.routers]
                    self.assertEqual(failed, [1, 1], (place, error))
                self.flushLoggedErrors(error)

    def test_of_messages_that_no_route_has(self) -> None:
        for error in ENDINGS:
            for function in raising(error):
                for router, framing, sent in (
                    (Router(function), LINE, b'{"id":1,"method":"m"}\n'),
                    (IdRouter(function), TLV, encode_tlv(b"", 7)),
                ):
                    connection, transport = Bench(router).connect(framing)
                    connection.feed(sent)
                    self.assertIn(b"internal error, reference", transport.value())
                    self.assertEqual(router.failures, {"unknown": 1})
                self.flushLoggedErrors(error)

    def test_of_params_that_do_not_fit(self) -> None:
        for error in ENDINGS:
            for function in raising(error):
                router = Router()
                router.add("m", lambda c, r: True, int, invalid=function)
                connection, transport = Bench(router).connect(LINE)
                connection.feed(b'{"id":1,"method":"m","params":"x"}\n')
                self.assertEqual([a["code"] for a in lines(transport.value())], [20])
                self.flushLoggedErrors(error)

    def test_of_results_that_the_framing_cannot_pack(self) -> None:
        """The framing may be the application's; the peer is told, however late that is."""
        for error in ENDINGS:
            for function in returning(b"answer"):
                router = IdRouter()
                router.add(7, function)
                framing = TLV._replace(name="hostile", pack=raising(error)[0])
                connection, transport = Bench(router).connect(framing)
                connection.feed(encode_tlv(b"data", 7))
                self.assertEqual([a["code"] for a in tlvs(transport.value())], [20])
                self.assertEqual((router.failures, connection.state), ({7: 1}, OPEN))
                self.assertEqual(len(self.flushLoggedErrors(error)), 1)

    def test_of_later_answers_that_the_framing_cannot_encode(self) -> None:
        """Whoever answers hears nothing of it."""
        for error in ENDINGS:
            kept: list[Request] = []
            router = Router()
            router.on("m")(lambda request, kept=kept: kept.append(request) or LATER)  # type: ignore[misc]
            framing = LINE._replace(crlf=None, encode=raising(error)[0])
            connection, _ = Bench(router).connect(framing)
            connection.feed(b'{"id":1,"method":"m"}\n')
            kept[0].reply(True)
            self.assertIs(connection.state, OPEN)
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)

    def test_behind_a_correlation_id(self) -> None:
        for error in ENDINGS:
            for function in raising(error):
                router = IdRouter()
                router.use(correlated(router))
                router.add(7, function)
                connection, transport = Bench(router).connect(TLV)
                connection.feed(encode_tlv(b"\x05\0\0\0data", 7))
                self.assertEqual([a["id"] for a in tlvs(transport.value())], ["#5"])
                self.flushLoggedErrors(error)


class StyleTests(Case):
    """Issue 12: a handler returns a value, a Deferred, a coroutine or another awaitable."""

    def test_all_answer_alike(self) -> None:
        for function in returning(b"answer"):
            self.assertEqual(
                self.ask(lambda router, key: router.on(key)(function)),  # type: ignore[arg-type]
                [[{"id": 1, "result": "YW5zd2Vy"}], [{"bytes": b"answer"}]],
            )

    def test_steps_too(self) -> None:
        for function in returning(NOT_FOUND):
            for where in ("guards", "before"):
                self.assertEqual(
                    self.codes(lambda r, key: r.add(key, function, **{where: [function]})),
                    [35, 35],
                )

    def test_a_future_of_asyncio_is_an_error(self) -> None:
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        futures = lambda *_: loop.create_future()  # noqa: E731
        self.assertEqual(self.codes(lambda router, key: router.add(key, futures)), [20, 20])
        for failure in self.flushLoggedErrors(TypeError):
            self.assertIn("return a coroutine or a Deferred", str(failure.value))

    def test_a_handler_for_unknown_methods(self) -> None:
        """As by number: one router has one way."""

        def unknown(connection: Connection, request: Request) -> object:
            return [request.msg_id, request.params]

        router = Router(unknown)
        connection, transport = Bench(router).connect(LINE)
        connection.feed(b'{"id":1,"method":"nope","params":{"a":1}}\n')
        self.assertEqual(lines(transport.value()), [{"id": 1, "result": ["nope", {"a": 1}]}])
        self.assertEqual((router.unknown, connection.malformed), (1, 0))


class OneAnswerTests(Case):
    """Issue 12, W-28: exactly one response to a request."""

    def test_whatever_a_handler_does(self) -> None:
        def reply_and_return(request: Request) -> object:
            request.reply(b"first")
            return b"second"

        def reply_twice(request: Request) -> object:
            request.reply(b"first")
            request.reply(b"second")
            return LATER

        def reply_and_refuse(request: Request) -> object:
            request.reply(b"first")
            raise RequestError(NOT_FOUND)

        async def reply_and_wait(request: Request) -> object:
            request.reply(succeed(b"first"))
            await succeed(None)
            return NOT_FOUND

        def return_and_reply(request: Request) -> object:
            self.kept.append(request)
            return b"first"

        for handler in (
            reply_and_return,
            reply_twice,
            reply_and_refuse,
            reply_and_wait,
            return_and_reply,
        ):
            self.kept: list[Request] = []

            def add(router: Router, key: Any, handler: Any = handler) -> None:
                router.on(key)(handler)

            answers = self.ask(add)
            for request in self.kept:
                request.reply(b"too late")
            self.assertEqual(
                answers, [[{"id": 1, "result": "Zmlyc3Q="}], [{"bytes": b"first"}]], handler
            )

    def test_one_that_fails_after_its_answer(self) -> None:
        """It is counted and logged, and the peer hears nothing of it."""
        for error in (ZeroDivisionError, *ENDINGS):

            def handler(request: Request) -> object:
                request.reply(b"first")
                raise error

            async def later(request: Request) -> object:
                request.reply(b"first")
                raise error

            for each in (handler, later):
                answers = self.ask(lambda router, key: router.on(key)(each))  # type: ignore[arg-type]
                self.assertEqual([len(one) for one in answers], [1, 1])
                self.assertEqual([sum(r.failures.values()) for r in self.routers], [1, 1])
                self.assertEqual(len(self.flushLoggedErrors(error)), 2)

    def test_one_that_answers_after_it_failed(self) -> None:
        """The failure was the answer."""
        for error in (ZeroDivisionError, *ENDINGS):
            kept: list[Request] = []

            def handler(request: Request) -> object:
                kept.append(request)
                raise error

            self.assertEqual(self.codes(lambda r, key: r.on(key)(handler)), [20, 20])  # type: ignore[arg-type]
            for request in kept:
                before = request.connection.transport.value()
                request.reply(b"too late")
                self.assertEqual(request.connection.transport.value(), before)
            self.flushLoggedErrors(error)

    def test_no_answer_is_none_by_number(self) -> None:
        """None leaves the answer to ``reply``."""
        kept: list[Request] = []
        router = IdRouter()
        router.on(7)(kept.append)
        connection, transport = Bench(router).connect(TLV)
        connection.feed(encode_tlv(b"", 7))
        self.assertEqual(transport.value(), b"")
        kept[0].reply(Tlv(9, b"later"))
        self.assertEqual(tlvs(transport.value()), [{"bytes": b"later"}])


class TextTests(Case):
    """Issue 12: a text that cannot be encoded is an error reply, and never a lost answer."""

    def test_in_errors(self) -> None:
        """The text arrives with what cannot be expressed escaped."""
        for function in (*returning(NOT_FOUND.about(NAME)), *self.refusing()):
            for answers in self.ask(lambda router, key: router.add(key, function)):
                self.assertEqual([a["code"] for a in answers], [35])
                self.assertEqual(answers[0]["error"], "not found: caf\\udce9.txt")

    def refusing(self) -> list[Callable[..., object]]:
        def refuse(*_: object) -> object:
            raise RequestError(NOT_FOUND.about(NAME))

        async def later(*_: object) -> object:
            await succeed(None)
            raise RequestError(NOT_FOUND.about(NAME))

        return [refuse, later]

    def test_in_results(self) -> None:
        for value in (NAME, [NAME], {NAME: 1}, {"a": {"b": NAME}}):
            for function in returning(value):
                self.assertEqual(
                    self.codes(lambda router, key: router.add(key, function)), [20, 20]
                )
        self.flushLoggedErrors(UnicodeEncodeError, TypeError)

    def test_answered_later(self) -> None:
        kept: list[Any] = []

        def add(router: Router, key: Any) -> None:
            router.on(key)(lambda request: kept.append(request) or LATER)

        self.assertEqual(self.ask(add), [[], []])
        for request in kept:
            request.reply(NAME)
        answers = [request.connection.transport.value() for request in kept]
        self.assertEqual([b"internal error" in answer for answer in answers], [True, True])
        self.flushLoggedErrors(UnicodeEncodeError, TypeError)

    def test_from_peers(self) -> None:
        """What a peer sends of the kind is malformed, and answered."""
        router = Router()
        router.add("m", lambda c, r: True, object)
        for body in (
            b'{"id":"\\udce9","method":"m","params":1}',
            b'{"id":1,"method":"m","params":"\\ud800"}',
            b'{"id":1,"method":"\\udfff"}',
        ):
            connection, transport = Bench(router).connect(LINE)
            connection.feed(body + b"\n")
            self.assertEqual([a["code"] for a in lines(transport.value())], [30])

    def test_in_closes(self) -> None:
        reason = CloseReason(4999, f"moved to {NAME}", False)
        for framing in (LINE, INT32, FRAME):
            self.assertIn(b"moved to caf", close_message(framing, reason), framing.name)
        self.assertIn(b"caf", self.closed_with(LINE, reason))

    def closed_with(self, framing: Framing, reason: CloseReason) -> bytes:
        connection, transport = Bench().connect(framing)
        connection.close(reason)
        return transport.value()

    def test_texts_that_can_be_encoded_stay(self) -> None:
        text = "no such file: 咖啡 \N{GRINNING FACE} \\udce9"
        answers = self.ask(lambda r, key: r.add(key, lambda *_: ErrorText(40, text)))
        self.assertEqual([a[0]["error"] for a in answers], [text, text])


class LimitTests(SynchronousTestCase):
    def test_rates_that_are_none(self) -> None:
        """Issue 12: numbers of any kind end in an error that says what is wrong."""
        for rate in (0.0, -1.0, float("nan"), float("inf")):
            with self.assertRaises(ValueError):
                RateLimit(rate)


class ParamTests(SynchronousTestCase):
    """Issue 12, W-27: typed params; a wrong type is an error that names the param."""

    KINDS: dict[Any, tuple[Any, list[Any]]] = {
        str: ("text", [1, None, True, [], {}]),
        int: (5, ["5", 5.5, None, True, [], {}]),
        bool: (True, [1, "true", None, []]),
        float: (2.5, ["2.5", None, True, []]),
        dict: ({"a": 1}, [1, "x", None, []]),
        list: ([1, "x"], [1, "x", None, {}]),
        list[int]: ([1, 2], [["x"], [None], 1]),
        dict[str, int]: ({"a": 1}, [{"a": "x"}, []]),
    }

    def ask(self, kind: Any, params: Any, **default: Any) -> Any:
        router = Router()
        router.on("m", dict)(lambda request: {"got": request.param("n", kind, **default)})
        connection, transport = Bench(router).connect(LINE)
        body = {"id": "q", "method": "m", "params": params}
        connection.feed(json.dumps(body).encode() + b"\n")
        (answer,) = lines(transport.value())
        self.assertEqual((answer["id"], connection.state), ("q", OPEN))
        return answer

    def test_what_fits(self) -> None:
        for kind, (value, _) in self.KINDS.items():
            self.assertEqual(self.ask(kind, {"n": value})["result"], {"got": value})
            self.assertEqual(self.ask(kind, {"n": value}, default=None)["result"], {"got": value})
        self.assertEqual(self.ask(float, {"n": 7})["result"], {"got": 7.0})

    def test_what_does_not(self) -> None:
        for kind, (_, wrong) in self.KINDS.items():
            for value in wrong:
                for default in ({}, {"default": None}):
                    answer = self.ask(kind, {"n": value}, **default)
                    self.assertEqual(answer["code"], 32, (kind, value))
                    self.assertRegex(answer["error"], r"^bad params: n(\[.*\])?: ", (kind, value))

    def test_what_is_not_there(self) -> None:
        for kind in self.KINDS:
            answer = self.ask(kind, {"other": 1})
            self.assertEqual((answer["code"], answer["error"]), (32, "bad params: n is required"))
            self.assertEqual(self.ask(kind, {}, default=None)["result"], {"got": None})

    def test_numbers_of_any_size(self) -> None:
        self.assertEqual(self.ask(int, {"n": 10**300})["result"], {"got": 10**300})
        self.assertEqual(
            self.ask(float, {"n": 10**400})["error"], "bad params: n: number out of range"
        )

    def test_params_that_are_no_object(self) -> None:
        answer = self.ask(int, [1])
        self.assertEqual(answer["error"], "bad params: params: expected object, got array")

    def test_a_handler_that_wants_params_and_takes_none(self) -> None:
        """A route without a type has no params: each is missing, or has its default."""
        router = Router()
        router.on("m")(lambda request: request.param("n", int, 3))
        connection, transport = Bench(router).connect(LINE)
        connection.feed(b'{"id":1,"method":"m","params":{"n":5}}\n')
        self.assertEqual(lines(transport.value()), [{"id": 1, "result": 3}])

    def test_bytes_have_no_params(self) -> None:
        router = IdRouter()
        router.on(7)(lambda request: request.param("n", int))
        connection, transport = Bench(router).connect(TLV)
        connection.feed(encode_tlv(b"x", 7))
        (answer,) = tlvs(transport.value())
        self.assertEqual((answer["code"], "params: expected object" in answer["error"]), (32, True))

    def test_what_handlers_know(self) -> None:
        """W-25, W-26: a request has its id, its method, its connection, and through that all."""
        seen: list[Request] = []
        router = Router()
        router.add("m", lambda connection, request: seen.append(request) or True, dict)
        bench = Bench(router)
        bench.manager.index.declare("user")
        connection, _ = bench.connect(LINE)
        connection.set_property("user", "ann")
        connection.feed(b'{"id":5,"method":"m","params":{"a":1}}\n')
        (request,) = seen
        self.assertEqual((request.id, request.msg_id, request.params), (5, "m", {"a": 1}))
        self.assertEqual(request.connection.get_property("user"), "ann")
        self.assertEqual(bench.manager.find("user", "ann"), [request.connection])


class RegistrationTests(SynchronousTestCase):
    """Issue 12: keys belong to the codec of their router."""

    def test_keys_that_are_none(self) -> None:
        for router, key, options in (
            (Router(), 7, {}),
            (IdRouter(), "m", {}),
            (IdRouter(), -1, {}),
            (IdRouter(), 2**32, {}),
            (IdRouter(), 7, {"params": int}),
        ):
            with self.assertRaises(ValueError):
                router.add(key, lambda *_: None, **options)
            self.assertEqual(router.routes, ())
        for router, ends in ((Router(), (1, 5)), (Router(), ("a", "b")), (IdRouter(), ("room.",))):
            with self.assertRaises(ValueError):
                router.group(*ends)  # type: ignore[arg-type]

    def test_waiting_answers_of_both(self) -> None:
        """They come when they are there, in any order."""
        waiting: dict[Any, Deferred[Any]] = {}
        router = Router()
        router.add("m", lambda c, r: waiting.setdefault(r.id, Deferred()))
        connection, transport = Bench(router).connect(LINE)
        connection.feed(b'{"id":1,"method":"m"}\n{"id":2,"method":"m"}\n')
        waiting[2].callback("b")
        waiting[1].callback("a")
        self.assertEqual([a["id"] for a in lines(transport.value())], [2, 1])
