"""What parameters may be, and what is said of those that may not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from decimal import Decimal
from enum import Enum
from math import inf, nan
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kupool.client.settings import PoolClientSettings
from kupool.net import ClientSettings, Heartbeat, ServerSettings
from kupool.net.delivery import Delivery, Policy
from kupool.net.dialling.backoff import Backoff
from kupool.net.dialling.settings import DialSettings
from kupool.net.routing.guards import RateLimit
from kupool.net.stalls import StallWatch
from kupool.net.transport.proxied import ProxySettings
from kupool.net.workers.settings import WorkerSettings
from kupool.net.workers.threads import Threads
from kupool.ranges import a, check, number, one_of, whole
from tests.fakes.peers import Bench

#: What is no number of anything, wherever one is expected.
NO_NUMBERS: tuple[object, ...] = (nan, inf, -inf, -1, -0.001, "1", None, True, 1j, [1], 10**400)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class RangeTests(SynchronousTestCase):
    def text(self, expected: Callable[[object], object], value: object) -> str:
        with self.assertRaises(ValueError) as caught:
            check({"it": expected}, it=value)
        return str(caught.exception)

    def test_numbers(self) -> None:
        for value in (0, 0.0, 1, 0.25, 1e300):
            self.assertEqual(number()(value), value)
        for value in (*NO_NUMBERS, Decimal(1)):
            self.assertRegex(self.text(number(), value), "it: expected a number of at least 0, not")
        self.assertEqual(self.text(number(above=True), 0), "it: expected a number above 0, not 0")

    def test_whole_numbers(self) -> None:
        for value in (2, 5, 10**400):
            self.assertEqual(whole(2)(value), value)
        for value in (*NO_NUMBERS[:-1], 2.0, 1):
            self.assertRegex(
                self.text(whole(2), value), "it: expected a whole number of at least 2"
            )
        self.assertEqual(
            self.text(whole(0, 9), 10), "it: expected a whole number from 0 to 9, not 10"
        )

    def test_objects_and_members(self) -> None:
        self.assertEqual(one_of(Colour)("red"), Colour.RED)
        self.assertEqual(one_of(Colour)(Colour.RED), Colour.RED)
        self.assertEqual(
            self.text(one_of(Colour), "grey"), "it: expected one of red, blue, not 'grey'"
        )
        self.assertEqual(a(Clock)(self.clock), self.clock)
        self.assertEqual(self.text(a(Clock), 1), "it: expected a Clock, not 1")

    def test_values_that_cannot_be_shown(self) -> None:
        class Hostile:
            def __repr__(self) -> str:
                raise SystemError

        self.assertIn("not such a Hostile", self.text(number(), Hostile()))
        self.assertIn("not such a int", self.text(number(), 10**5000))
        self.assertLess(len(self.text(number(), "x" * 10_000)), 150)

    def setUp(self) -> None:
        self.clock = Clock()


class SettingsTests(SynchronousTestCase):
    """Issue 12: a value that makes no sense is named where an object is made with it."""

    def refused(self, make: Callable[..., object], name: str, value: object, **rest: Any) -> None:
        with self.assertRaises(ValueError, msg=f"{make} {name}={value!r}") as caught:
            make(**{**rest, name: value})
        self.assertRegex(str(caught.exception), f"^{name}: expected .+, not ")

    def test_every_field_of_the_settings(self) -> None:
        dialling = {f.name: 1 for f in fields(DialSettings)}
        for kind, rest in (
            (ServerSettings, {}),
            (ClientSettings, {}),
            (PoolClientSettings, {}),
            (WorkerSettings, {}),
            (DialSettings, dialling),
        ):
            for field in fields(kind):
                for value in NO_NUMBERS:
                    if value != 10**400 or "int" not in str(field.type):
                        self.refused(kind, field.name, value, **rest)
        for name in ("timeout", "most"):
            self.refused(ProxySettings, name, nan)

    def test_whole_numbers_only(self) -> None:
        for kind in (ServerSettings, ClientSettings, PoolClientSettings, WorkerSettings):
            for field in fields(kind):
                if field.type == "int":
                    self.refused(kind, field.name, 1.5)

    def test_what_the_documentation_allows(self) -> None:
        limits = {f.name: 0 for f in fields(ServerSettings) if f.type in ("int", "float")}
        self.assertEqual(ServerSettings(**limits).max_frame, 0)  # type: ignore[arg-type]
        self.assertEqual(ClientSettings(attempts=0, keepalive=0, silence=0).attempts, 0)
        self.assertEqual(WorkerSettings(size=0, wait=0, timeout=0, full="drop").size, 0)

    def test_no_time_at_all(self) -> None:
        for kind, name in (
            (ClientSettings, "timeout"),
            (ClientSettings, "connect_timeout"),
            (ClientSettings, "close_timeout"),
            (ProxySettings, "timeout"),
        ):
            self.refused(kind, name, 0)

    def test_other_objects(self) -> None:
        manager = Bench().manager
        for value in (*NO_NUMBERS, 0):
            self.refused(Heartbeat, "interval", value, manager=manager)
            self.refused(StallWatch, "seconds", value, clock=Clock())
            self.refused(RateLimit, "rate", value)
        for value in NO_NUMBERS:
            for name in ("first", "most", "steady"):
                self.refused(Backoff, name, value, first=1, most=1, steady=1)
        for value in (*NO_NUMBERS[:-1], 0, 1.5):
            self.refused(Heartbeat, "missed", value, manager=manager, interval=1)
            self.refused(RateLimit, "burst", value, rate=1)
            self.refused(Backoff, "places", value, first=1, most=1, steady=1)
            self.refused(Threads, "size", value, reactor=Clock())
        for name in ("high", "low", "timeout"):
            self.refused(Delivery, name, nan, policy=Policy.WAIT)
