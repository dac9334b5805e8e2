"""One handler that runs: its time limit, and its end."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import TIMEOUT, RequestError
from kupool.rooms.running import HandlerTimeout, Running


class RunningTests(SynchronousTestCase):
    """A-42: a handler takes its time, up to a limit, and is told of once."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[object] = []
        self.running = Running(self.told.append)

    def start(self, result: object, timeout: float) -> None:
        self.running.start(lambda: result, self.clock, timeout)

    def failures(self) -> list[object]:
        """What was told, which are failures: their exceptions."""
        return [each.value for each in self.told if isinstance(each, Failure)]

    def test_a_result_that_is_there(self) -> None:
        """No timer is left of it."""
        self.start(succeed("done"), 5.0)
        self.assertEqual((self.told, self.clock.getDelayedCalls()), (["done"], []))

    def test_a_limit(self) -> None:
        self.start(Deferred(), 5.0)
        self.clock.advance(4.5)
        self.assertEqual(self.told, [])
        self.clock.advance(0.5)
        (error,) = self.failures()
        assert isinstance(error, HandlerTimeout)
        self.assertEqual((error.error, str(error)), (TIMEOUT, "a handler took longer than 5.0 s"))

    def test_no_limit(self) -> None:
        waiting: Deferred[object] = Deferred()
        self.start(waiting, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1000)
        waiting.callback("done")
        self.assertEqual(self.told, ["done"])

    def test_one_that_cannot_be_cancelled(self) -> None:
        """It has its own way to cancel, which fails: the log says so, and it is over."""

        def canceller(handler: object) -> None:
            raise ZeroDivisionError

        self.start(Deferred(canceller), 5.0)
        gone = RequestError(TIMEOUT)
        with capturedLogs() as events:
            self.running.cancel(Failure(gone))
        said = [formatEvent(event) for event in events if "log_failure" in event]
        self.assertEqual(said, ["A handler could not be cancelled"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.failures(), self.clock.getDelayedCalls()), ([gone], []))

    def test_one_that_fails_after_it_was_given_up(self) -> None:
        stubborn: Deferred[object] = Deferred(lambda handler: handler.errback(ValueError("late")))
        self.start(stubborn, 0)
        with capturedLogs() as events:
            self.running.cancel(Failure(RequestError(TIMEOUT)))
        self.assertIn("An abandoned handler ended: late", map(formatEvent, events))
        self.assertEqual(len(self.told), 1)

    def test_one_that_goes_on_after_it_was_given_up(self) -> None:
        """It has returned another coroutine: that one is cancelled as well."""
        cancelled: list[str] = []

        async def more() -> None:
            await Deferred(lambda waiting: cancelled.append("more"))

        async def handler() -> object:
            try:
                await Deferred()
            except CancelledError:
                return more()

        self.start(handler(), 0)
        self.running.cancel(Failure(RequestError(TIMEOUT)))
        self.assertEqual((cancelled, len(self.told)), (["more"], 1))

    def test_one_that_returns_another(self) -> None:
        """The time limit is for both together."""

        async def more() -> str:
            await first
            return "done"

        async def handler() -> object:
            return more()

        first: Deferred[None] = Deferred()
        self.start(handler(), 5.0)
        self.assertEqual(self.told, [])
        first.callback(None)
        self.assertEqual((self.told, self.clock.getDelayedCalls()), (["done"], []))
