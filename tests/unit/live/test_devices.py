"""The limit of the events of a device."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.live.devices import DeviceLimit, DeviceVerdict

PASSES, TOO_OFTEN = DeviceVerdict.PASSES, DeviceVerdict.TOO_OFTEN


class Hand:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


class DeviceLimitTests(SynchronousTestCase):
    """Issue text of build 7, overload: limits of devices, exact over any sliding second."""

    # Multiples of 1/8 are exact as floats.
    @given(
        st.lists(st.tuples(st.integers(0, 6), st.sampled_from("ab"), st.booleans()), max_size=80),
        st.integers(1, 4),
    )
    def test_the_window_is_exact(self, steps: list[tuple[int, str, bool]], rate: int) -> None:
        """An event is refused exactly if its device has had as many as it may in that second."""
        clock = Hand()
        limit = DeviceLimit(clock, rate, most=10)
        passed: dict[str, list[float]] = {"a": [], "b": []}
        for pause, device, urgent in steps:
            clock.time += pause / 8
            recent = [at for at in passed[device] if clock.time - at < 1.0]
            if urgent:
                limit.pass_anyway(device)
                passed[device].append(clock.time)
                continue
            verdict = limit.take(device)
            self.assertEqual(verdict is PASSES, len(recent) < rate)
            if verdict is PASSES:
                passed[device].append(clock.time)

    def test_the_longest_idle_device_is_forgotten(self) -> None:
        """At most so many devices are remembered, and the limit holds for all of them."""
        clock = Hand()
        limit = DeviceLimit(clock, 1, most=2)
        self.assertIs(limit.take("a"), PASSES)
        clock.time = 0.5
        self.assertIs(limit.take("b"), PASSES)
        self.assertIs(limit.take("c"), DeviceVerdict.TOO_MANY_DEVICES)
        clock.time = 1.0
        self.assertIs(limit.take("c"), PASSES)
        self.assertEqual(len(limit), 2)
        self.assertIs(limit.take("b"), TOO_OFTEN)

    def test_no_limit(self) -> None:
        """A rate of 0 is no limit, and remembers nothing."""
        limit = DeviceLimit(Hand(), 0, most=1)
        self.assertEqual({limit.take("a") for _ in range(100)}, {PASSES})
        limit.pass_anyway("a")
        self.assertEqual(len(limit), 0)

    def test_a_lower_rate_counts_at_once(self) -> None:
        """The rate may be changed."""
        limit = DeviceLimit(Hand(), 3, most=1)
        limit.take("a")
        limit.take("a")
        limit.rate = 2
        self.assertIs(limit.take("a"), TOO_OFTEN)
