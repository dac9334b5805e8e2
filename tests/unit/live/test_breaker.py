"""The breaker that guards a topic."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.breaker import Breaker, BreakerLimits, BreakerState
from kupool.live.failures import SinkUnavailable


class Sink:
    """A sink with a breaker; ``answer`` is how calls end."""

    def __init__(self, **limits: float) -> None:
        self.clock = Clock()
        self.calls = 0
        self.answer: Deferred[str] | Exception | str = "ok"
        wanted = {"failures": 2, "timeout": 10.0, "first": 1.0, "longest": 3.0, **limits}
        self.breaker = Breaker(
            "topic shop",
            self.clock,
            BreakerLimits(**wanted),  # type: ignore[arg-type]
            lambda error: not isinstance(error, ValueError),
        )

    def _work(self) -> Deferred[str]:
        self.calls += 1
        answer = self.answer
        if isinstance(answer, Exception):
            return fail(answer)
        return answer if isinstance(answer, Deferred) else succeed(answer)

    def call(self) -> Deferred[str]:
        return self.breaker.call(self._work)


class BreakerTests(SynchronousTestCase):
    """Issue text of build 7, overload: circuit breakers around sinks."""

    def break_(self, sink: Sink, times: int = 1) -> None:
        sink.answer = OSError("the disk")
        for _ in range(times):
            self.failureResultOf(sink.call(), OSError)

    def test_opens_and_closes(self) -> None:
        """After failures in a row calls fail at once; after the wait one call decides."""
        sink = Sink()
        self.break_(sink, 2)
        error = self.failureResultOf(sink.call(), SinkUnavailable).value
        self.assertEqual(str(error), "topic shop does not work at the moment: try again in 1 s")
        self.assertEqual((sink.calls, sink.breaker.refused, sink.breaker.opened), (2, 1, 1))
        sink.clock.advance(1)
        self.assertIs(sink.breaker.state, BreakerState.HALF_OPEN)
        sink.answer = "ok"
        self.assertEqual(self.successResultOf(sink.call()), "ok")
        self.assertIs(sink.breaker.state, BreakerState.CLOSED)

    def test_longer_waits(self) -> None:
        """Each trial that fails doubles the wait, up to the longest."""
        sink = Sink()
        self.break_(sink, 2)
        for wait in (1, 2, 3, 3):
            sink.clock.advance(wait - 0.1)
            self.assertIs(sink.breaker.state, BreakerState.OPEN)
            sink.clock.advance(0.1)
            self.break_(sink)
        self.assertEqual(sink.breaker.opened, 5)

    def test_one_trial_at_a_time(self) -> None:
        """While a trial is under way, other calls are refused."""
        sink = Sink()
        self.break_(sink, 2)
        sink.clock.advance(1)
        sink.answer = trial = Deferred()
        done = sink.call()
        self.failureResultOf(sink.call(), SinkUnavailable)
        trial.callback("ok")
        self.assertEqual(self.successResultOf(done), "ok")
        self.assertIs(sink.breaker.state, BreakerState.CLOSED)

    def test_hanging_calls(self) -> None:
        """A call without an answer is a failure once; a late answer still reaches the caller."""
        sink = Sink()
        answers: list[Deferred[str]] = [Deferred(), Deferred()]
        done = []
        for sink.answer in answers:
            done.append(sink.call())
        sink.clock.advance(10)
        self.assertIs(sink.breaker.state, BreakerState.OPEN)
        answers[0].callback("late")
        self.assertEqual(self.successResultOf(done[0]), "late")
        self.assertIs(sink.breaker.state, BreakerState.OPEN)
        answers[1].errback(OSError())
        self.failureResultOf(done[1], OSError)
        self.assertEqual(sink.breaker.opened, 1)
        self.assertEqual(sink.clock.calls, [])

    def test_a_trial_that_hangs(self) -> None:
        """It opens the breaker again, and does not keep it half open for ever."""
        sink = Sink()
        self.break_(sink, 2)
        sink.clock.advance(1)
        sink.answer = Deferred()
        sink.call()
        sink.clock.advance(10)
        self.assertIs(sink.breaker.state, BreakerState.OPEN)
        sink.clock.advance(2)
        sink.answer = "ok"
        self.assertEqual(self.successResultOf(sink.call()), "ok")

    def test_errors_of_callers(self) -> None:
        """What is the caller's fault is an answer: it ends the failures in a row."""
        sink = Sink()
        self.break_(sink)
        sink.answer = ValueError("too large")
        self.failureResultOf(sink.call(), ValueError)
        self.break_(sink)
        self.assertIs(sink.breaker.state, BreakerState.CLOSED)

    def test_off(self) -> None:
        """With 0 failures it never opens."""
        sink = Sink(failures=0)
        self.break_(sink, 20)
        self.assertIs(sink.breaker.state, BreakerState.CLOSED)
