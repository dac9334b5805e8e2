"""What a server's messages mean to a client."""

from __future__ import annotations

import json

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from kupool.client.answers import (
    Outcome,
    close_by_params,
    close_by_text,
    decode_incoming,
    read_answer,
)
from kupool.errors import CLOSE_REASONS, ERRORS


class AnswerTests(SynchronousTestCase):
    """K-61: an answer is what its text and code say."""

    expected = {
        "Task does not exist": Outcome.STALE,
        "Task expired": Outcome.EXPIRED,
        "Submission too frequent": Outcome.TOO_FREQUENT,
        "Duplicate submission": Outcome.DUPLICATE,
        "Invalid result": Outcome.INVALID,
        "Temporarily unavailable": Outcome.UNAVAILABLE,
    }

    def test_true_alone_is_accepted(self) -> None:
        """K-61: only ``true`` without an error is an acceptance."""
        for result in (True, False, None, 1, "true", {}):
            answer = read_answer(decode_incoming(json.dumps({"id": 1, "result": result}).encode()))
            self.assertIs(answer.accepted, result is True)
        both = decode_incoming(b'{"id":1,"result":true,"error":"Invalid result"}')
        self.assertIs(read_answer(both).outcome, Outcome.INVALID)

    def test_every_error_with_its_code(self) -> None:
        for row in ERRORS:
            message = {"id": 1, "result": False, "error": row.text, "code": row.code}
            answer = read_answer(decode_incoming(json.dumps(message).encode()))
            self.assertIs(answer.outcome, self.expected.get(row.text, Outcome.OTHER))
            self.assertEqual((answer.text, answer.code), (row.text, row.code))

    def test_the_first_servers_send_no_code(self) -> None:
        for text, outcome in self.expected.items():
            message = {"id": 1, "result": False, "error": text}
            self.assertIs(
                read_answer(decode_incoming(json.dumps(message).encode())).outcome, outcome
            )

    def test_html_escapes_are_json(self) -> None:
        message = decode_incoming(b'{"id":1,"result":false,"error":"a \\u003cb\\u003e \\u0026 c"}')
        self.assertEqual(message.error, "a <b> & c")


class CloseTests(SynchronousTestCase):
    """What each close asks of the client (protocol.md, section 6)."""

    def test_by_text_and_by_code_are_the_same(self) -> None:
        for row in CLOSE_REASONS:
            params = {"reason": row.reason, "code": row.code, "reconnect": row.reconnect}
            by_params = close_by_params(msgspec.Raw(json.dumps(params).encode()))
            self.assertEqual(close_by_text(row.reason.encode()), by_params)
            self.assertEqual(by_params.reconnect, row.reconnect)
            self.assertEqual(by_params.immediate, row.immediate)

    def test_only_a_restart_leads_back_to_the_same_server(self) -> None:
        staying = [
            r.reason for r in CLOSE_REASONS if not close_by_text(r.reason.encode()).elsewhere
        ]
        self.assertEqual(staying, ["server restarting"])

    def test_ranges_of_codes_not_in_the_table(self) -> None:
        for code, reconnect in ((4002, True), (4199, True), (4500, False), (4599, False)):
            params = json.dumps({"reason": "x", "code": code, "reconnect": not reconnect})
            self.assertIs(close_by_params(msgspec.Raw(params.encode())).reconnect, reconnect)

    def test_an_unknown_reason_means_coming_back(self) -> None:
        closing = close_by_text(b"\xff what")
        self.assertTrue(closing.reconnect)
        self.assertFalse(closing.immediate)
        self.assertTrue(close_by_text(b"").reason)

    def test_retry_after(self) -> None:
        def read(value: float) -> float | None:
            params = {"reason": "banned", "code": 4503, "reconnect": False, "retry_after": value}
            return close_by_params(msgspec.Raw(json.dumps(params).encode())).retry_after

        self.assertEqual(read(2.5), 2.5)
        self.assertIsNone(read(-1))
