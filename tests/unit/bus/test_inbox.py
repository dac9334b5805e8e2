"""What a handler may answer: each limit on both of its sides."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.bus import Answer
from kupool.bus.calls import CallVerdict, Response
from kupool.bus.inbox import UNSENDABLE, answered


class AnsweredTests(SynchronousTestCase):
    """A-22: an answer that no form of the bus can carry is a failure of the handler."""

    def test_status(self) -> None:
        """A signed number of 64 bits, but for the smallest."""
        for status in (0, 1, -1, 2**63 - 1, -(2**63) + 1):
            response = answered(Answer(b"x", status), 10)
            self.assertEqual(response, Response(CallVerdict.ANSWER, b"x", status))

    def test_what_cannot_be_sent(self) -> None:
        failed = Response(CallVerdict.FAILED, text=UNSENDABLE)
        wrong: tuple[Any, ...] = (2**63, -(2**63), True, 1.0, "1", None)
        for status in wrong:
            self.assertEqual(answered(Answer(b"x", status), 10), failed, status)
        for data in ("text", bytearray(b"x"), None):
            self.assertEqual(answered(Answer(data), 10), failed, data)  # type: ignore[arg-type]

    def test_size(self) -> None:
        self.assertEqual(answered(Answer(b"x" * 10), 10).verdict, CallVerdict.ANSWER)
        too_large = answered(Answer(b"x" * 11), 10)
        self.assertEqual(
            too_large, Response(CallVerdict.FAILED, text="answer of 11 bytes: too large")
        )
