"""The JSON messages, and the table of errors."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool import errors
from kupool.wire import messages as m
from kupool.wire.framing import FRAME, FRAMINGS, INT32, LINE, Control
from kupool.wire.incoming import TRUE, decode_incoming, read_close, read_websocket_close
from kupool.wire.websocket import WEBSOCKET, WEBSOCKET_BINARY

SUBMIT = m.request_type("submit", m.SubmitParams)
PING = m.request_type("ping", None)
decode = m.request_decoder({"submit": SUBMIT, "ping": PING}).decode

IDS = st.none() | st.integers() | st.text(max_size=16)


class RequestTests(SynchronousTestCase):
    """K-04: a request has an id, a method and params; a notification has no id."""

    def test_request(self) -> None:
        body = b'{"id":7,"method":"submit","params":{"job_id":3,"client_nonce":"n","result":"r"}}'
        message = decode(body)
        self.assertIs(type(message), SUBMIT)
        self.assertEqual((message.id, message.params), (7, m.SubmitParams(3, "n", "r")))

    def test_any_key_order_and_unknown_keys(self) -> None:
        message = decode(b'{"jsonrpc":"2.0","params":[1],"method":"ping","x":{},"id":"a"}')
        self.assertEqual((type(message), message.id), (PING, "a"))
        self.assertIsNone(message.params)

    def test_params_that_may_be_left_out(self) -> None:
        """Where null fits, nothing fits as well."""
        for kind in (object, dict[str, int] | None):
            read = m.request_decoder({"x": m.request_type("x", kind)}).decode
            self.assertIsNone(read(b'{"method":"x"}').params)
            self.assertIsNone(read(b'{"method":"x","params":null}').params)
            self.assertEqual(read(b'{"method":"x","params":{"a":1}}').params, {"a": 1})

    def test_notification(self) -> None:
        self.assertIsNone(decode(b'{"id":null,"method":"ping"}').id)
        self.assertIsNone(decode(b'{"method":"ping"}').id)

    def test_ids_of_other_types_do_not_fit(self) -> None:
        for bad in (b"1.5", b"true", b"[1]", b"{}", b"1.0", b"1e2"):
            with self.assertRaises(msgspec.ValidationError):
                decode(b'{"id":%b,"method":"ping"}' % bad)

    @given(IDS)
    def test_encoded_request_is_read_back(self, message_id: Any) -> None:
        encoded = m.encode_request(message_id, "ping", {"a": 1})
        self.assertEqual(
            json.loads(encoded), {"id": message_id, "method": "ping", "params": {"a": 1}}
        )

    def test_job_is_as_the_contract_says(self) -> None:
        """K-26: the broadcast of a job, byte for byte."""
        self.assertEqual(
            m.encode_request(None, "job", m.JobParams(5, "ab")),
            b'{"id":null,"method":"job","params":{"job_id":5,"server_nonce":"ab"}}',
        )


class ReplyTests(SynchronousTestCase):
    """K-05: success has no error, failure has false, the text and the code, in order."""

    def test_success(self) -> None:
        self.assertEqual(m.encode_success(1), b'{"id":1,"result":true}')
        self.assertEqual(m.encode_success('a"b'), b'{"id":"a\\"b","result":true}')
        self.assertEqual(m.encode_result(2, True), b'{"id":2,"result":true}')

    def test_result(self) -> None:
        self.assertEqual(m.encode_result(1, {"a": [1]}), b'{"id":1,"result":{"a":[1]}}')
        self.assertEqual(m.encode_result(1, 1), b'{"id":1,"result":1}')
        self.assertEqual(m.encode_result(1, False), b'{"id":1,"result":false}')
        self.assertEqual(m.encode_result("a", 1), b'{"id":"a","result":1}')

    def test_error_and_its_key_order(self) -> None:
        encoded = m.encode_error(9, errors.DUPLICATE)
        self.assertEqual(
            encoded, b'{"id":9,"result":false,"error":"Duplicate submission","code":22}'
        )
        self.assertEqual(list(json.loads(encoded)), ["id", "result", "error", "code"])

    def test_texts_are_escaped(self) -> None:
        encoded = m.encode_error(None, errors.BAD_PARAMS.about('a "quoted"\nname'))
        self.assertEqual(json.loads(encoded)["error"], 'bad params: a "quoted"\nname')
        self.assertNotIn(b"\n", encoded)

    @given(st.integers(), st.integers(0, 4000))
    def test_ids_of_any_size_come_back_exactly(self, small: int, digits: int) -> None:
        for number in (small, -small, 10**digits):
            for encoded in (m.encode_success(number), m.encode_error(number, errors.TIMEOUT)):
                self.assertTrue(encoded.startswith(b'{"id":%d,' % number))

    @given(st.text(max_size=64))
    def test_text_ids_come_back_exactly(self, text: str) -> None:
        self.assertEqual(json.loads(m.encode_success(text))["id"], text)
        self.assertNotIn(b"\n", m.encode_success(text))

    def test_a_client_reads_both(self) -> None:
        read = msgspec.json.Decoder(m.Reply).decode
        self.assertEqual(read(m.encode_success(4)), m.Reply(4, True, None, None))
        failed = read(m.encode_error(4, errors.TASK_EXPIRED))
        self.assertEqual(failed, m.Reply(4, False, "Task expired", 25))


class LooseTests(SynchronousTestCase):
    """K-10: what can be saved of a message that does not fit."""

    def test_what_is_not_an_object(self) -> None:
        deep = b"[" * 100_000
        for body in (b"", b"{", b"nonsense", b"1", b"[]", b"null", b'"\xff"', b"NaN", deep):
            self.assertIsNone(m.decode_loosely(body), body[:10])

    def test_deeply_nested_params(self) -> None:
        body = b'{"id":1,"method":"ping","params":' + b'{"a":' * 20_000 + b"1" + b"}" * 20_001
        self.assertIsNone(m.decode_loosely(body))

    def test_readable_id(self) -> None:
        loose = m.decode_loosely(b'{"id":"x","method":"nope","params":3}')
        self.assertEqual(loose, m.Loose("x", True, "nope", 3))

    def test_absent_id(self) -> None:
        self.assertEqual(m.decode_loosely(b"{}"), m.Loose(None, True, None, None))

    def test_unreadable_ids(self) -> None:
        for bad in (b"1.5", b"true", b"{}", b"[]", b'"' + b"x" * 65 + b'"', b"1e400", b"NaN"):
            loose = m.decode_loosely(b'{"id":%b,"method":"ping"}' % bad)
            self.assertTrue(loose is None or not loose.known_id, bad)

    def test_duplicate_keys_the_last_wins(self) -> None:
        loose = m.decode_loosely(b'{"id":1,"id":2,"method":"x"}')
        assert loose is not None
        self.assertEqual(loose.id, 2)

    def test_id_length_is_counted_in_bytes(self) -> None:
        self.assertTrue(m.valid_id("x" * 64))
        self.assertFalse(m.valid_id("x" * 65))
        self.assertFalse(m.valid_id("\N{EURO SIGN}" * 22))
        self.assertTrue(m.valid_id(2**70))
        self.assertFalse(m.valid_id(True))
        self.assertFalse(m.valid_id(None))

    @given(st.binary(max_size=200))
    def test_no_bytes_raise(self, body: bytes) -> None:
        self.assertIsInstance(m.decode_loosely(body), m.Loose | None)


class DescribeTests(SynchronousTestCase):
    """K-10: what was wrong names the parameter."""

    def described(self, params: bytes) -> str:
        try:
            decode(b'{"id":1,"method":"submit"%b}' % params)
        except msgspec.ValidationError as error:
            return m.describe(error)
        raise AssertionError("decoded")

    def test_texts(self) -> None:
        cases = {
            b"": "params is required",
            b',"params":3': "params: expected object, got int",
            b',"params":{}': "job_id is required",
            b',"params":{"job_id":"1"}': "job_id: expected int, got str",
            b',"params":{"job_id":1,"client_nonce":1}': "client_nonce: expected str, got int",
        }
        for params, text in cases.items():
            self.assertEqual(self.described(params), text)

    def test_nested(self) -> None:
        inner = msgspec.defstruct("Inner", [("a", list[int])])
        outer = msgspec.defstruct("Outer", [("inner", inner)])
        read = m.request_decoder({"x": m.request_type("x", outer)}).decode
        with self.assertRaises(msgspec.ValidationError) as caught:
            read(b'{"method":"x","params":{"inner":{"a":[1,"2"]}}}')
        self.assertEqual(m.describe(caught.exception), "inner.a[1]: expected int, got str")
        with self.assertRaises(msgspec.ValidationError) as caught:
            read(b'{"method":"x","params":{"inner":{}}}')
        self.assertEqual(m.describe(caught.exception), "inner.a is required")


class UsernameTests(SynchronousTestCase):
    """K-18: what follows the last dot names the worker."""

    def test_split(self) -> None:
        cases = {
            "alice.rig1": ("alice", "rig1"),
            "a.b.c": ("a.b", "c"),
            "alice": ("alice", ""),
            ".rig": (".rig", ""),
            "alice.": ("alice.", ""),
            ".": (".", ""),
        }
        for name, expected in cases.items():
            self.assertEqual(m.split_username(name), expected)


class CloseTests(SynchronousTestCase):
    """K-03, K-07: how a close is announced in each framing."""

    def test_frame_carries_the_reason_alone(self) -> None:
        self.assertEqual(
            m.close_message(FRAME, errors.FRAME_TOO_LARGE), b"\x08\x0f\0\0\0frame too large"
        )

    def test_line_and_int32_carry_a_notification(self) -> None:
        body = (
            b'{"id":null,"method":"close","params":'
            b'{"reason":"slow reader","code":4100,"reconnect":true}}'
        )
        self.assertEqual(m.close_message(LINE, errors.SLOW_READER), body + b"\n")
        self.assertEqual(
            m.close_message(INT32, errors.SLOW_READER), len(body).to_bytes(4, "big") + body
        )

    def test_when_to_come_back(self) -> None:
        params = json.loads(m.close_message(LINE, errors.BANNED, 2.5))["params"]
        self.assertEqual(params["retry_after"], 2.5)

    def test_a_detail(self) -> None:
        """K-14, K-39: it stands beside the reason, which stays as it is in every framing."""
        late = errors.CLOSE_UNAUTHORIZED.about("no authorize within 10 s")
        body = (
            b'{"id":null,"method":"close","params":{"reason":"unauthorized","code":4500,'
            b'"reconnect":false,"detail":"no authorize within 10 s"}}'
        )
        self.assertEqual(m.close_message(LINE, late), body + b"\n")
        close = b"\x08\x0c\0\0\0unauthorized"
        self.assertEqual(m.close_message(FRAME, late), FRAME.encode(body) + close)
        for framing in (WEBSOCKET, WEBSOCKET_BINARY):
            plain = m.close_message(framing, errors.CLOSE_UNAUTHORIZED)
            self.assertEqual(m.close_message(framing, late), plain)
            self.assertEqual(m.close_notice(framing, late), framing.encode(body))
            self.assertEqual(m.close_notice(framing, errors.CLOSE_UNAUTHORIZED), b"")
        self.assertEqual(m.close_notice(FRAME, late), b"")

    def test_a_detail_is_read(self) -> None:
        """K-63: a client says it, and decides by the code alone."""
        notice = decode_incoming(
            m.encode_close(errors.CLOSE_UNAUTHORIZED.about("no authorize within 10 s"))
        )
        close = read_close(notice)
        assert close is not None
        self.assertEqual(str(close), "unauthorized: no authorize within 10 s")
        self.assertEqual((close.reason, close.code), ("unauthorized", 4500))

    def test_every_reason_in_every_framing(self) -> None:
        for framing in FRAMINGS.values():
            for reason in errors.CLOSE_REASONS:
                self.assertIn(reason.reason.encode(), m.close_message(framing, reason))


class ErrorTableTests(SynchronousTestCase):
    """K-39: one table of texts and codes, the same as in docs/protocol.md."""

    def test_texts_and_codes(self) -> None:
        table = {row.code: row.text for row in errors.ERRORS}
        self.assertEqual(len(table), len(errors.ERRORS))
        texts = {
            21: "Task does not exist",
            22: "Duplicate submission",
            23: "Invalid result",
            24: "unauthorized",
            25: "Task expired",
            26: "Submission too frequent",
            27: "Temporarily unavailable",
            30: "malformed message",
            31: "unknown method",
            32: "bad params",
            33: "forbidden",
            34: "too many requests",
            35: "not found",
            36: "already exists",
            37: "timeout",
            38: "no subscriber",
            39: "stale generation",
            40: "offset out of range",
            41: "not the owner",
            42: "wrong node",
            43: "too large",
        }
        self.assertEqual({code: table[code] for code in texts}, texts)
        self.assertEqual(set(table) - set(texts), {20})

    def test_close_codes(self) -> None:
        codes = {row.code: row.reason for row in errors.CLOSE_REASONS}
        self.assertEqual(len(codes), len(errors.CLOSE_REASONS))
        self.assertEqual(
            codes,
            {
                4000: "server going down",
                4001: "server restarting",
                4100: "slow reader",
                4101: "idle timeout",
                4102: "too many connections",
                4103: "try again",
                4500: "unauthorized",
                4501: "frame too large",
                4502: "too many errors",
                4503: "banned",
                30: "malformed message",
            },
        )

    def test_who_comes_back(self) -> None:
        for row in errors.CLOSE_REASONS:
            self.assertEqual(row.reconnect, 4000 <= row.code < 4500, row)
            self.assertEqual(row.immediate, row.code in (4000, 4001), row)

    def test_detail_follows_a_colon(self) -> None:
        self.assertEqual(errors.NOT_FOUND.about("room 7"), (35, "not found: room 7"))
        error = errors.RequestError(errors.NOT_FOUND.about("room 7"))
        self.assertEqual((str(error), error.error.code), ("not found: room 7", 35))

    def test_every_row_is_in_the_table(self) -> None:
        rows = [row for row in vars(errors).values() if isinstance(row, errors.ErrorText)]
        self.assertEqual(set(rows), set(errors.ERRORS))
        closes = [row for row in vars(errors).values() if isinstance(row, errors.CloseReason)]
        self.assertEqual(set(closes), set(errors.CLOSE_REASONS))
        for row in errors.ERRORS:
            self.assertTrue(re.fullmatch(r"[A-Za-z, ]+", row.text), row)


class IncomingTests(SynchronousTestCase):
    """K-63: what a client reads of a close, and of what is none."""

    def read(self, body: bytes) -> Any:
        return read_close(decode_incoming(body))

    def test_every_part(self) -> None:
        close = self.read(
            b'{"method":"close","params":{"reason":"r","code":4999,"reconnect":true,'
            b'"retry_after":2.5,"detail":"d"}}'
        )
        self.assertEqual(close, errors.Announced("r", 4999, True, 2.5, "d"))

    def test_a_reason_or_a_code(self) -> None:
        close = self.read(b'{"method":"close","params":{"code":4100}}')
        self.assertEqual((close.reason, close.code), ("closed by the server", 4100))
        close = self.read(b'{"method":"close","params":{"reason":"r"}}')
        self.assertEqual(close, errors.Announced("r", None, None, None, ""))

    def test_what_is_no_close(self) -> None:
        for body in (
            b'{"method":"close"}',
            b'{"method":"close","params":{"reconnect":true}}',
            b'{"method":"close","params":{"code":"x"}}',
            b'{"method":"close","params":%b}' % (b"[" * 500 + b"]" * 500),
            b'{"id":1,"method":"close","params":{"reason":"r"}}',
            b'{"method":"job","params":{"reason":"r"}}',
            b'{"id":1,"result":true}',
        ):
            self.assertIsNone(self.read(body), body[:60])

    def test_the_opcodes_of_frame(self) -> None:
        close = read_close(Control(8, b"banned"))
        assert close is not None
        self.assertEqual((close.reason, close.code), ("banned", 4503))
        self.assertIsNone(read_close(Control(9, b"banned")))
        self.assertIsNone(read_close(b"banned"))
        self.assertIsNotNone(read_close(Control(8, b"\xff")))

    def test_the_close_of_websocket(self) -> None:
        for payload, code in ((b"", None), (b"\x11", None), (b"\x11\x97", 4503),
                              (b"\x11\x97banned", 4503)):  # fmt: skip
            self.assertEqual(read_websocket_close(payload).code, code, payload)
        self.assertEqual(read_websocket_close(b"\x11\x97banned").reason, "banned")
        self.assertIn("\ufffd", read_websocket_close(b"\x11\x97\xff").reason)

    def test_a_result_that_is_true(self) -> None:
        self.assertEqual(decode_incoming(b'{"id":1,"result":true}').result, TRUE)
        self.assertNotEqual(decode_incoming(b'{"id":1,"result":false}').result, TRUE)

    def test_a_message_without_its_parts(self) -> None:
        message = decode_incoming(b"{}")
        self.assertEqual((bytes(message.params), bytes(message.result)), (b"{}", b"null"))
        parts = (message.id, message.method, message.error, message.code)
        self.assertEqual(parts, (None, None, None, None))


class TextTests(SynchronousTestCase):
    def test_lone_surrogates_are_escaped(self) -> None:
        """As in the name of a file that is no UTF-8."""
        self.assertEqual(m.encodable("a\udcff"), "a\\udcff")
        self.assertEqual(m.encodable("é"), "é")
        reply = m.encode_error(1, errors.BAD_PARAMS.about("a\udcff"))
        self.assertEqual(json.loads(reply)["error"], "bad params: a\\udcff")
        for framing in (FRAME, INT32, LINE, WEBSOCKET):
            odd = errors.CLOSE_UNAUTHORIZED._replace(reason="a\udcff")
            self.assertIn(b"a\\udcff" if framing in (FRAME, WEBSOCKET) else b"a\\\\udcff",
                          m.close_message(framing, odd))  # fmt: skip

    def test_a_reason_that_is_not_in_the_table(self) -> None:
        """In ``frame`` the text alone would not say whether to come back."""
        own = errors.CloseReason(4999, "tired", True)
        close = b"\x08\x05\0\0\0tired"
        self.assertEqual(m.close_message(FRAME, own), FRAME.encode(m.encode_close(own)) + close)

    def test_one_parameter_alone(self) -> None:
        """The name goes before the path within it."""
        for kind, value, text in (
            (int, "x", "p: expected int, got str"),
            (list[int], ["x"], "p[0]: expected int, got str"),
            (m.JobParams, {"job_id": "x"}, "p.job_id: expected int, got str"),
            (m.JobParams, {}, "p.job_id is required"),
        ):
            with self.assertRaises(msgspec.ValidationError) as caught:
                msgspec.convert(value, kind)
            self.assertEqual(m.describe(caught.exception, "p"), text)
