"""From a message to its answer."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.errors import DUPLICATE, NOT_FOUND, RequestError
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.router import LATER, IRouter, Router
from kupool.net.transport.protocols import TLV
from kupool.session.connection import Connection
from kupool.session.lifecycle import CLOSING, OPEN
from kupool.wire.framing import (
    FRAME,
    LINE,
    OP_CLOSE,
    OP_CONTINUATION,
    OP_PING,
    OP_PONG,
    Tlv,
    encode_frame,
    encode_tlv,
)
from tests.fakes.peers import Bench, PeerTransport, frames, lines


class AddParams(msgspec.Struct):
    a: int
    b: int = 0


class RouterCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.router = Router()
        self.router.add("add", lambda c, m: m.params.a + m.params.b, AddParams)
        self.router.add("ping", lambda c, m: True)
        self.bench = Bench(self.router, max_errors=10)
        self.connection: Connection
        self.transport: PeerTransport
        self.connection, self.transport = self.bench.connect(LINE)

    def ask(self, *payloads: bytes) -> list[Any]:
        """Send messages one to a read; return everything that was answered."""
        self.transport.clear()
        for payload in payloads:
            self.connection.feed(payload + b"\n")
        return lines(self.transport.value())


class DispatchTests(RouterCase):
    """K-04, K-05: a request gets exactly one reply, with its id; a notification none."""

    def test_interface(self) -> None:
        self.assertTrue(verifyObject(IRouter, self.router))

    def test_result(self) -> None:
        self.assertEqual(
            self.ask(b'{"id":"x","method":"add","params":{"a":2,"b":3}}'),
            [{"id": "x", "result": 5}],
        )

    def test_success_has_no_error_key(self) -> None:
        self.connection.feed(b'{"id":1,"method":"ping"}\n')
        self.assertEqual(self.transport.value(), b'{"id":1,"result":true}\n')

    def test_huge_integer_id_comes_back_exactly(self) -> None:
        number = 2**70
        self.assertEqual(
            self.ask(b'{"id":%d,"method":"ping"}' % number), [{"id": number, "result": True}]
        )

    def test_notifications_are_handled_but_not_answered(self) -> None:
        seen: list[object] = []
        self.router.add("note", lambda c, m: seen.append(m.id))
        for body in (b'{"id":null,"method":"note"}', b'{"method":"note"}'):
            self.assertEqual(self.ask(body), [])
        self.assertEqual(seen, [None, None])

    def test_a_method_is_registered_once(self) -> None:
        with self.assertRaises(ValueError) as caught:
            self.router.add("ping", lambda c, m: True)
        self.assertIn("'ping'", str(caught.exception))
        self.assertEqual([route.key for route in self.router.routes], ["add", "ping"])

    def test_methods_may_be_added_while_connections_are_open(self) -> None:
        self.assertEqual(self.ask(b'{"id":1,"method":"new"}')[0]["code"], 31)
        self.router.add("new", lambda c, m: "here")
        self.assertEqual(self.ask(b'{"id":2,"method":"new"}'), [{"id": 2, "result": "here"}])

    def test_without_any_method(self) -> None:
        self.connection.router = Router()
        self.assertEqual(self.ask(b'{"id":1,"method":"add"}')[0]["code"], 31)

    def test_ping_needs_no_handler(self) -> None:
        """P-15, issue 12: it is the heartbeat of framings without an opcode for it."""
        self.connection.router = Router()
        self.assertEqual(self.ask(b'{"id":1,"method":"ping"}'), [{"id": 1, "result": True}])
        self.assertEqual(self.ask(b'{"id":null,"method":"ping"}'), [])
        self.assertEqual(self.connection.malformed, 0)


class ErrorTests(RouterCase):
    """K-10: what does not fit is answered where an id is readable, and counted."""

    def code(self, body: bytes) -> tuple[object, object, str]:
        (reply,) = self.ask(body)
        self.assertIs(reply["result"], False)
        return reply["id"], reply["code"], reply["error"]

    def test_malformed_json(self) -> None:
        for body in (b"nonsense", b"{", b"[]", b"1", b'{"id":1', b"\xff\xfe", b'{"a":NaN}'):
            self.connection.malformed = 0
            self.assertEqual(self.code(body), (None, 30, "malformed message"))
            self.assertEqual(self.connection.malformed, 1)

    def test_invalid_utf8(self) -> None:
        self.assertEqual(self.code(b'{"id":1,"method":"pi\xffng"}')[1], 30)

    def test_invalid_utf8_in_a_skipped_field_passes(self) -> None:
        self.assertEqual(
            self.ask(b'{"id":1,"method":"ping","x":"\xff"}'), [{"id": 1, "result": True}]
        )

    def test_deep_nesting(self) -> None:
        for body in (b"[" * 60_000, b'{"a":' * 12_000, b'{"id":1,"method":"ping","x":' * 2_000):
            self.connection.malformed = 0
            self.assertEqual(self.code(body), (None, 30, "malformed message"))

    def test_duplicate_keys_the_last_wins(self) -> None:
        self.assertEqual(
            self.ask(b'{"id":1,"id":2,"method":"add","params":{"a":1,"a":2}}'),
            [{"id": 2, "result": 2}],
        )

    def test_two_methods_are_refused(self) -> None:
        self.assertEqual(
            self.code(b'{"id":1,"method":"add","method":"ping"}'),
            (1, 32, "bad params: method: invalid value 'ping'"),
        )

    def test_huge_integers(self) -> None:
        body = b'{"id":1,"method":"add","params":{"a":%s,"b":1}}'
        self.assertEqual(self.ask(body % (b"9" * 400))[0]["result"], 10**400)
        self.assertEqual(self.code(body % (b"9" * 5000))[:2], (None, 30))
        self.assertEqual(self.code(body % b"1e400")[:2], (None, 30))

    def test_unknown_method(self) -> None:
        self.assertEqual(self.code(b'{"id":7,"method":"nope"}'), (7, 31, "unknown method"))

    def test_missing_params(self) -> None:
        self.assertEqual(
            self.code(b'{"id":7,"method":"add"}'), (7, 32, "bad params: params is required")
        )
        self.assertEqual(
            self.code(b'{"id":7,"method":"add","params":{"b":1}}'),
            (7, 32, "bad params: a is required"),
        )
        self.assertEqual(
            self.code(b'{"id":7,"method":"add","params":{"a":"x"}}'),
            (7, 32, "bad params: a: expected int, got str"),
        )

    def test_missing_or_strange_method(self) -> None:
        self.assertEqual(self.code(b'{"id":7}'), (7, 30, "malformed message"))
        self.assertEqual(self.code(b'{"id":7,"method":3}'), (7, 30, "malformed message"))

    def test_ids_that_are_none(self) -> None:
        for bad in (b"1.5", b"true", b"[]", b"{}", b'"%s"' % (b"x" * 65)):
            self.connection.malformed = 0
            body = b'{"id":%b,"method":"ping"}' % bad
            self.assertEqual(self.code(body), (None, 30, "malformed message"))

    def test_notifications_that_do_not_fit_are_counted_only(self) -> None:
        self.assertEqual(self.ask(b'{"id":null,"method":"nope"}', b'{"method":"add"}'), [])
        self.assertEqual(self.connection.malformed, 2)

    def test_closed_at_the_threshold(self) -> None:
        answers = self.ask(*[b'{"id":1,"method":"nope"}'] * 12)
        self.assertEqual([a.get("code") for a in answers], [31] * 10 + [None])
        self.assertEqual(answers[-1]["params"]["reason"], "too many errors")
        self.assertEqual(self.connection.state, CLOSING)

    @given(st.binary(max_size=120))
    def test_no_bytes_raise_out_of_the_router(self, body: bytes) -> None:
        self.connection.malformed = 0
        self.router.dispatch(self.connection, body)
        self.assertEqual(self.connection.state, OPEN)

    def test_invalid_may_answer_instead(self) -> None:
        seen: list[object] = []

        def invalid(connection: Connection, message_id: object, params: object) -> object:
            seen.append((message_id, params))
            return {1: DUPLICATE, 2: None, 3: LATER}[message_id]  # type: ignore[index]

        self.router.add("own", lambda c, m: True, AddParams, invalid=invalid)
        body = b'{"id":%d,"method":"own","params":{"a":null}}'
        self.assertEqual(self.ask(body % 1)[0]["code"], 22)
        self.assertEqual(self.ask(body % 2)[0]["code"], 32)
        self.assertEqual(self.ask(body % 3), [])
        self.assertEqual(seen, [(n, {"a": None}) for n in (1, 2, 3)])
        self.assertEqual(self.connection.malformed, 1)

    def test_invalid_that_fails_is_an_internal_error(self) -> None:
        def invalid(connection: Connection, message_id: object, params: object) -> object:
            raise ZeroDivisionError("invalid")

        self.router.add("own", lambda c, m: True, AddParams, invalid=invalid)
        self.assertEqual(self.code(b'{"id":1,"method":"own"}')[1], 20)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class HandlerTests(RouterCase):
    """What handlers may return and raise."""

    def handle(self, returned: Any) -> list[Any]:
        router = Router()
        router.add("x", lambda c, m: returned(c, m) if callable(returned) else returned)
        self.connection.router = router
        return self.ask(b'{"id":1,"method":"x"}')

    def test_a_row_of_the_error_table(self) -> None:
        expected = [{"id": 1, "result": False, "error": "Duplicate submission", "code": 22}]
        self.assertEqual(self.handle(DUPLICATE), expected)
        self.assertEqual(self.handle(succeed(DUPLICATE)), expected)

    def test_raising_a_request_error(self) -> None:
        def fail(connection: Connection, message: Any) -> object:
            raise RequestError(NOT_FOUND.about("room 7"))

        self.assertEqual(self.handle(fail)[0]["error"], "not found: room 7")
        self.assertEqual(self.connection.malformed, 0)

    def test_an_exception_is_answered_with_the_reference_that_is_logged(self) -> None:
        def fail(connection: Connection, message: Any) -> object:
            raise ZeroDivisionError("secret detail")

        (reply,) = self.handle(fail)
        self.assertEqual(reply["code"], 20)
        self.assertNotIn("secret", reply["error"])
        self.assertRegex(reply["error"], "^internal error, reference [0-9a-f]{16}$")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.connection.state, OPEN)

    def test_deferred_and_coroutine(self) -> None:
        later: Deferred[int] = Deferred()
        self.assertEqual(self.handle(later), [])
        later.callback(5)
        self.assertEqual(lines(self.transport.value()), [{"id": 1, "result": 5}])

        async def work(connection: Connection, message: Any) -> int:
            return await succeed(6)

        self.assertEqual(self.handle(work), [{"id": 1, "result": 6}])

    def test_deferred_that_fails(self) -> None:
        later: Deferred[int] = Deferred()
        self.handle(later)
        later.errback(ZeroDivisionError())
        self.assertEqual(lines(self.transport.value())[0]["code"], 20)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_deferred_that_fires_after_the_end(self) -> None:
        later: Deferred[int] = Deferred()
        self.handle(later)
        self.connection.close(None)
        later.callback(1)
        self.assertEqual(self.transport.value(), b"")

    def test_later(self) -> None:
        self.assertEqual(self.handle(LATER), [])
        self.assertEqual(self.handle(succeed(LATER)), [])
        self.assertEqual(repr(LATER), "LATER")

    def test_result_that_is_not_json(self) -> None:
        (reply,) = self.handle(lambda c, m: object())
        self.assertEqual(reply["code"], 20)
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_exception_of_a_notification_is_logged_only(self) -> None:
        def fail(connection: Connection, message: Any) -> object:
            raise ZeroDivisionError

        self.router.add("fail", fail)
        self.assertEqual(self.ask(b'{"id":null,"method":"fail"}'), [])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class StepTests(RouterCase):
    """Steps before and after a handler."""

    def with_steps(self, handler: Any, before: Any = (), after: Any = ()) -> list[Any]:
        router = Router()
        router.add("x", handler, before=before, after=after)
        self.connection.router = router
        return self.ask(b'{"id":1,"method":"x"}')

    def test_before_may_answer_instead(self) -> None:
        def never(connection: Connection, message: Any) -> object:
            raise AssertionError("called")

        answers = self.with_steps(never, before=[lambda c, m: None, lambda c, m: DUPLICATE])
        self.assertEqual(answers[0]["code"], 22)

    def test_after_sees_the_outcome(self) -> None:
        seen: list[object] = []

        async def work(connection: Connection, message: Any) -> int:
            return 6

        note = [lambda c, m, outcome: seen.append(outcome)]
        self.with_steps(lambda c, m: 5, after=note)
        self.with_steps(work, after=note)
        self.with_steps(lambda c, m: DUPLICATE, after=note)
        self.assertEqual(seen, [5, 6, DUPLICATE])

    def test_after_is_not_called_for_an_exception(self) -> None:
        def fail(connection: Connection, message: Any) -> object:
            raise RequestError(DUPLICATE)

        seen: list[object] = []
        answers = self.with_steps(fail, after=[lambda c, m, outcome: seen.append(outcome)])
        self.assertEqual((answers[0]["code"], seen), (22, []))

    def test_a_step_that_fails_is_an_internal_error(self) -> None:
        def fail(connection: Connection, message: Any) -> object:
            raise ZeroDivisionError

        self.assertEqual(self.with_steps(lambda c, m: 1, before=[fail])[0]["code"], 20)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)


class ControlTests(SynchronousTestCase):
    """K-02, K-08: ping, pong, close, and opcodes that are not used."""

    def setUp(self) -> None:
        self.bench = Bench()
        self.connection, self.transport = self.bench.connect(FRAME)

    def test_ping_is_echoed(self) -> None:
        for payload in (b"", b"x", bytes(range(256)), b"y" * 5000):
            self.connection.feed(encode_frame(payload, OP_PING))
            self.assertEqual(frames(self.transport.taken()), [(OP_PONG, payload)])

    def test_pong_is_taken_in_silence(self) -> None:
        self.connection.feed(encode_frame(b"x", OP_PONG))
        self.assertEqual((self.transport.value(), self.connection.malformed), (b"", 0))

    def test_close_ends_the_connection(self) -> None:
        self.connection.feed(encode_frame(b"", OP_CLOSE))
        self.assertTrue(self.transport.disconnecting)
        self.assertEqual(self.transport.value(), b"")

    def test_unused_opcodes_are_malformed(self) -> None:
        for opcode in (OP_CONTINUATION, 0x3, 0x7, 0xB, 0xFF):
            self.connection.feed(encode_frame(b"x", opcode))
            ((_, body),) = frames(self.transport.taken())
            self.assertEqual(json.loads(body)["code"], 30)
        self.assertEqual(self.connection.malformed, 5)


class IdRouterTests(SynchronousTestCase):
    """The router of `tlv` messages."""

    def setUp(self) -> None:
        self.router = IdRouter(lambda c, message_id, data: b"unknown %d" % message_id)
        self.bench = Bench(self.router)
        self.connection, self.transport = self.bench.connect(TLV)

    def ask(self, message_id: int, data: bytes) -> bytes:
        self.transport.clear()
        self.connection.feed(encode_tlv(data, message_id))
        return self.transport.value()

    def test_answers(self) -> None:
        self.assertTrue(verifyObject(IRouter, self.router))
        self.router.add(1, lambda c, message_id, data: data.upper())
        self.router.add(2, lambda c, message_id, data: Tlv(200, data))
        self.router.add(3, lambda c, message_id, data: None)
        self.assertEqual(self.ask(1, b"abc"), encode_tlv(b"ABC", 1))
        self.assertEqual(self.ask(2, b"abc"), encode_tlv(b"abc", 200))
        self.assertEqual(self.ask(3, b"abc"), b"")
        self.assertEqual(self.ask(9, b""), encode_tlv(b"unknown 9", 9))

    def test_an_id_is_registered_once(self) -> None:
        self.router.add(1, lambda c, message_id, data: None)
        with self.assertRaises(ValueError) as caught:
            self.router.add(1, lambda c, message_id, data: None)
        self.assertEqual(str(caught.exception), "repeat api, msgID: 1")

    def test_an_exception_costs_nobody_anything(self) -> None:
        def fail(connection: Connection, message_id: int, data: bytes) -> object:
            raise ZeroDivisionError

        self.router.add(1, fail)
        self.assertIn(b'{"id":1,"result":false,"error":"internal error', self.ask(1, b""))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.connection.state, OPEN)

    def test_other_messages_are_passed_over(self) -> None:
        self.assertIsNone(self.router.dispatch(self.connection, b"json"))
