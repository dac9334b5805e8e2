"""How handlers of somebody else's are called."""

from __future__ import annotations

import asyncio
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.callbacks import NotAwaitable, attempt, awaited, called
from tests.fakes.raising import ENDINGS, Waits, raising, returning


class CallbackTests(SynchronousTestCase):
    """Issue 12: one mechanism turns every outcome into a Deferred, and raises nothing."""

    def test_values(self) -> None:
        for function in returning(7):
            self.assertEqual(self.successResultOf(called(function, 1, "x")), 7)

    def test_whatever_is_raised(self) -> None:
        for error in (ValueError, *ENDINGS):
            for function in raising(error):
                failure = self.failureResultOf(called(function))
                self.assertIs(type(failure.value), error)

    def test_what_needs_no_time_makes_no_deferred(self) -> None:
        self.assertEqual(attempt(max, 1, 2), 2)
        self.assertIsNone(attempt(lambda: None))
        self.assertIsInstance(attempt(raising(SystemExit)[0]), Failure)

    def test_what_is_waited_for(self) -> None:
        waiting: Deferred[int] = Deferred()
        outcome = called(lambda: Waits(waiting))
        self.assertNoResult(outcome)
        waiting.callback(5)
        self.assertEqual(self.successResultOf(outcome), 5)

    def test_only_results_to_come_are_awaited(self) -> None:
        class Nosy:
            def __getattr__(self, name: str) -> Any:
                raise AssertionError(name)

        for value in (None, 1, b"", {}, object(), Waits, Deferred, Nosy()):
            self.assertFalse(awaited(value))

    def test_a_future_of_asyncio_is_refused_in_clear_words(self) -> None:
        """Its loop does not run: without this it would be waited for without end."""
        loop = asyncio.new_event_loop()
        self.addCleanup(loop.close)
        failure = self.failureResultOf(called(loop.create_future), NotAwaitable)
        self.assertIn("Future of asyncio", str(failure.value))
        self.assertIn("return a coroutine or a Deferred", str(failure.value))

    def test_one_that_is_cancelled_ends_in_order(self) -> None:
        """A handler that takes too long is cancelled, not closed: it may wait as it ends."""
        end: Deferred[None] = Deferred()

        async def handler() -> None:
            try:
                await Deferred()
            finally:
                await end

        outcome = called(handler)
        outcome.cancel()
        self.assertNoResult(outcome)
        end.callback(None)
        self.failureResultOf(outcome, CancelledError)
