"""What a server's messages mean to a client."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from kupool.client.answers import SubmissionOutcome, read_answer
from kupool.errors import ERRORS
from kupool.wire.incoming import decode_incoming


class AnswerTests(SynchronousTestCase):
    """K-61: an answer is what its text and code say."""

    expected = {
        "Task does not exist": SubmissionOutcome.STALE,
        "Task expired": SubmissionOutcome.EXPIRED,
        "Submission too frequent": SubmissionOutcome.TOO_FREQUENT,
        "Duplicate submission": SubmissionOutcome.DUPLICATE,
        "Invalid result": SubmissionOutcome.INVALID,
        "Temporarily unavailable": SubmissionOutcome.UNAVAILABLE,
    }

    def test_true_alone_is_accepted(self) -> None:
        """K-61: only ``true`` without an error is an acceptance."""
        for result in (True, False, None, 1, "true", {}):
            answer = read_answer(decode_incoming(json.dumps({"id": 1, "result": result}).encode()))
            self.assertIs(answer.accepted, result is True)
        both = decode_incoming(b'{"id":1,"result":true,"error":"Invalid result"}')
        self.assertIs(read_answer(both).outcome, SubmissionOutcome.INVALID)

    def test_every_error_with_its_code(self) -> None:
        for row in ERRORS:
            message = {"id": 1, "result": False, "error": row.text, "code": row.code}
            answer = read_answer(decode_incoming(json.dumps(message).encode()))
            self.assertIs(answer.outcome, self.expected.get(row.text, SubmissionOutcome.OTHER))
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
