"""An unexpected error is in the log, and told by its reference alone."""

from __future__ import annotations

import re

from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import INTERNAL_ERROR
from kupool.incidents import report


class ReportTests(SynchronousTestCase):
    """K-92, issue 12: one way for an internal error in every room."""

    def check(self, code: int, text: str) -> None:
        self.assertEqual(code, INTERNAL_ERROR.code)
        found = re.fullmatch(r"internal error, reference ([0-9a-f]{16})", text)
        assert found is not None, text
        (failure,) = self.flushLoggedErrors(ValueError)
        self.assertEqual(failure.getErrorMessage(), "secret")
        self.assertEqual(self.logged(), [f"Work on a {{}} failed, reference {found[1]}"])

    def setUp(self) -> None:
        self.events: list[dict[str, object]] = []

    def logged(self) -> list[str]:
        texts = [str(event["log_format"]) for event in self.events]
        return [text.format(reference=self.events[0]["reference"], what="{}") for text in texts]

    def log(self) -> Logger:
        def observe(event: dict[str, object]) -> None:
            self.events.append(event)
            Logger().failure("again", event["log_failure"])  # type: ignore[arg-type]

        return Logger(observer=observe)  # type: ignore[arg-type]

    def test_an_exception_that_is_handled(self) -> None:
        try:
            raise ValueError("secret")
        except ValueError:
            error = report(self.log(), "Work on a {what} failed", what="thing")
        self.check(*error)
        self.assertEqual(self.events[0]["what"], "thing")

    def test_a_failure(self) -> None:
        failure = Failure(ValueError("secret"))
        self.check(*report(self.log(), "Work on a {what} failed", failure, what="thing"))

    def test_references_differ(self) -> None:
        failure = Failure(ValueError("secret"))
        texts = {report(self.log(), "Failed", failure).text for _ in range(10)}
        self.assertEqual(len(texts), 10)
        self.flushLoggedErrors(ValueError)
