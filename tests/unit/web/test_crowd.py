"""Issue 12: who is on the HTTP port, who makes room for whom, and what is said of it."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.daemon.connection_limits import DescriptorShares, http_limits
from kupool.net import refusals as refusals_module
from kupool.net.refusals import PERIOD, Refusals
from kupool.settings import LimitSettings, ListenSettings
from kupool.web.crowd import OPERATORS, PATIENCE, RESERVED, Crowd, HttpLimits
from kupool.web.site import BUSY_DELAY
from tests.fakes import web_site
from tests.fakes.web_site import MOMENT, SECRET, Answer, RouteTestCase, Transport, TurningClock

ASK = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
HEALTH, READY, STATS = (ASK % path for path in (b"/health", b"/ready", b"/stats"))
ROTATE = (
    b"POST /jobs/rotate HTTP/1.1\r\nHost: localhost\r\n"
    b"Authorization: Bearer " + SECRET.encode() + b"\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
)


def _with(lines: bytes) -> bytes:
    return STATS[:-2] + lines + b"\r\n\r\n"


#: A request through a proxy, by nobody who is known.
FROM_ELSEWHERE = _with(b"X-Forwarded-For: 192.0.2.9")


class CrowdTests(RouteTestCase):
    limits = HttpLimits(max_connections=6, max_requests=3, request_timeout=30.0)

    def setUp(self) -> None:
        self.patch(web_site, "Clock", TurningClock)
        super().setUp()
        self.addCleanup(self.site.refusals.stop)
        self.addCleanup(lambda: [rotation.callback(1) for rotation in self.source.rotations])

    def busy(self, count: int) -> list[Transport]:
        """Connections whose requests take their time."""
        transports = []
        for _ in range(count):
            self.source.rotations.append(Deferred())
            protocol, transport = self.connect()
            rotations = list(self.source.rotations)
            self.source.rotations = [Deferred()]
            protocol.dataReceived(ROTATE)
            self.source.rotations = rotations
            transports.append(transport)
        return transports

    def answered(self, data: bytes) -> int:
        return Answer(self.raw(data)).code

    def raw(self, data: bytes) -> bytes:
        """Return the answer to a request, which is late where there are too many."""
        protocol, transport = self.connect()
        protocol.dataReceived(data)
        if not transport.value():
            self.clock.advance(BUSY_DELAY - 0.01)
            self.assertEqual(transport.value(), b"")
            self.clock.advance(0.02)
        return transport.value()

    def test_one_that_does_not_wait_for_the_late_answer(self) -> None:
        """Issue 15, acceptance 2: whoever asks in a loop waits between; nothing is left of it."""
        self.busy(3)
        protocol, transport = self.connect()
        protocol.dataReceived(FROM_ELSEWHERE)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.clock.advance(BUSY_DELAY)
        self.assertEqual(transport.value(), b"")

    def test_silent_ones_go_first(self) -> None:
        """The one that has waited longest, and none that asked something if one did not."""
        asked = [self.connect() for _ in range(2)]
        for protocol, _ in asked:
            protocol.dataReceived(HEALTH)
        self.clock.advance(PATIENCE)
        silent = []
        for _ in range(4):
            silent.append(self.connect())
            self.clock.advance(0.01)
        self.clock.advance(PATIENCE)
        for number in range(4):
            self.assertEqual(self.answered(HEALTH if number % 2 else READY), 200)
            self.assertEqual(
                [transport.aborted for _, transport in silent],
                [n <= number for n in range(4)],
            )
            self.assertEqual(self.site.connections, 6)
        self.assertFalse(any(transport.aborted for _, transport in asked))
        self.clock.advance(PATIENCE)
        self.assertEqual(self.answered(HEALTH), 200)
        self.assertEqual([transport.aborted for _, transport in asked], [True, False])
        self.assertEqual(
            self.site.refusals.counts,
            {
                "HTTP connections, that sent no request, for newer ones": 4,
                "HTTP connections, idle, for newer ones": 1,
            },
        )

    def test_part_of_a_request_is_none(self) -> None:
        held = [self.connect() for _ in range(6)]
        for protocol, _ in held:
            protocol.dataReceived(HEALTH[:-2])
        self.clock.advance(PATIENCE)
        self.assertEqual(self.answered(HEALTH), 200)
        self.assertEqual([transport.aborted for _, transport in held], [True] + [False] * 5)

    def test_those_of_this_moment_are_let_be(self) -> None:
        """A burst of connections is not cut short by itself."""
        held = [self.connect() for _ in range(6)]
        self.assertIdentical(self.site.buildProtocol(None), None)
        for protocol, transport in held:
            protocol.dataReceived(HEALTH)
            self.assertEqual(Answer(transport.value()).code, 200)
        self.assertEqual(self.site.refusals.counts, {"HTTP connections, too many at once": 1})

    def test_many_silent_ones(self) -> None:
        """A flood of them keeps nobody from asking."""
        for _ in range(200):
            self.connect()
            self.clock.advance(PATIENCE / 4)
        self.assertEqual(self.site.connections, 6)
        self.assertEqual(self.answered(HEALTH), 200)
        self.assertEqual(self.answered(STATS), 200)

    def test_one_that_made_room_is_not_counted_again(self) -> None:
        held = [self.connect() for _ in range(6)]
        self.clock.advance(PATIENCE)
        self.connect()
        held[0][0].connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.site.connections, 6)

    def test_requests(self) -> None:
        """So many at once; health and readiness are answered beside them."""
        busy = self.busy(3)
        answer = Answer(self.raw(FROM_ELSEWHERE))
        self.assertEqual((answer.code, answer.json), (503, {"error": "too many requests"}))
        self.assertEqual(answer.headers["retry-after"], "1")
        self.assertEqual((self.answered(HEALTH), self.answered(READY)), (200, 200))
        self.assertEqual([transport.value() for transport in busy], [b""] * 3)
        self.assertEqual(self.site.refusals.counts["HTTP requests, too many at once"], 1)

    def test_operators_get_in_beside_too_many_requests(self) -> None:
        """Issue 15, build 5: by a token, by the secret, or from this machine; one at once here,
        so that connections are left for health.
        """
        self.busy(3)
        token = b"X-Forwarded-For: 192.0.2.9\r\nAuthorization: Bearer " + SECRET.encode()
        for request, code in (
            (STATS, 200),
            (_with(token), 200),
            (_with(token + b"x"), 503),
            (_with(b"X-Forwarded-For: 192.0.2.9\r\nCookie: kupool_token=b"), 503),
        ):
            self.assertEqual(self.answered(request), code)
            self.clock.advance(PATIENCE)
        self.busy(1)
        self.assertEqual(self.answered(STATS), 503)
        self.assertEqual(self.answered(HEALTH), 200)

    def test_busy_ones_are_never_cut_off(self) -> None:
        busy = self.busy(3)
        for _ in range(50):
            self.connect()
            self.clock.advance(PATIENCE)
        self.assertFalse(any(transport.aborted for transport in busy))

    def test_ended_requests_are_not_counted(self) -> None:
        for _ in range(10):
            self.assertEqual(self.answered(STATS), 200)
            self.clock.advance(PATIENCE)
        protocol, _ = self.connect()
        self.busy(2)
        self.source.rotations = [Deferred()]
        protocol.dataReceived(ROTATE)
        self.assertEqual(self.answered(FROM_ELSEWHERE), 503)
        protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.answered(FROM_ELSEWHERE), 401)

    def test_what_came_during_a_pause_is_read(self) -> None:
        """A request that lay in a buffer while this process was stopped is not late."""
        protocol, transport = self.connect()
        self.clock.advance(300.0)
        protocol.dataReceived(HEALTH[:30])  # what one read gives
        self.clock.advance(MOMENT)
        protocol.dataReceived(HEALTH[30:])
        self.clock.advance(MOMENT)
        self.assertEqual(Answer(transport.value()).code, 200)
        self.assertFalse(transport.closed)
        self.clock.advance(30.0)
        self.clock.advance(MOMENT)
        self.assertTrue(transport.closed)

    def test_one_whose_time_is_over_is_cut_off_in_the_end(self) -> None:
        _, transport = self.connect()
        self.clock.advance(30.0)
        self.clock.advance(MOMENT)
        self.assertEqual((transport.closed, transport.aborted), (True, False))
        self.clock.advance(5.0)
        self.assertTrue(transport.aborted)


class LimitTests(SynchronousTestCase):
    def test_some_connections_are_always_left(self) -> None:
        for connections, requests, expected in (
            (0, 0, 0),
            (0, 5, 5),
            (2000, 200, 200),
            (2000, 0, 2000 - RESERVED),
            (100, 200, 100 - RESERVED),
            (4, 200, 2),
            (1, 0, 1),
        ):
            limits = HttpLimits(max_connections=connections, max_requests=requests)
            self.assertEqual(limits.requests, expected)

    def test_of_the_daemon(self) -> None:
        """They are settings; a quarter of the descriptors is the most."""
        settings = ListenSettings(
            http_max_connections=500,
            http_max_requests=7,
            http_max_requests_per_ip=5,
            http_request_timeout=3.0,
            ws_max_connections=9,
            ws_ping_interval=4.0,
        )
        expected = HttpLimits(
            max_connections=500,
            max_requests=7,
            max_requests_per_ip=5,
            max_websockets=9,
            request_timeout=3.0,
            ping_interval=4.0,
        )
        for descriptors in (4000, 0):
            found = http_limits(settings, descriptors)
            self.assertEqual(replace(found, shared_hosts=()), expected)
        self.assertEqual(http_limits(settings, 1024).max_connections, 256)
        unlimited = ListenSettings(http_max_connections=0)
        self.assertEqual(http_limits(unlimited, 1024).max_connections, 256)
        self.assertEqual(http_limits(unlimited, 0).max_connections, 0)
        found = http_limits(ListenSettings(http_trusted_proxies=("192.0.2.1",)), 0)
        self.assertEqual(replace(found, shared_hosts=()), HttpLimits())
        self.assertIn("192.0.2.1", found.shared_hosts)


class AddressTests(SynchronousTestCase):
    """Issue 15, acceptance 2: one address does not have all of the requests."""

    def setUp(self) -> None:
        self.refusals = Refusals(clock := Clock())
        self.addCleanup(self.refusals.stop)
        limits = HttpLimits(
            max_requests=9, max_requests_per_ip=2, shared_hosts=("192.0.2.9",), max_connections=0
        )
        self.crowd = Crowd(clock, limits, self.refusals)

    def take(self, host: str, operator: bool = False) -> bool:
        return self.crowd.take_request(host, lambda: operator)

    def test_so_many_of_one_address(self) -> None:
        self.assertTrue(self.take("192.0.2.1") and self.take("192.0.2.1"))
        self.assertFalse(self.take("192.0.2.1"))
        self.assertTrue(self.take("192.0.2.2"))
        self.assertEqual(
            self.refusals.counts, {"HTTP requests, too many at once of one address": 1}
        )
        self.crowd.end_request("192.0.2.1")
        self.assertTrue(self.take("192.0.2.1"))
        self.assertFalse(self.take("192.0.2.1"))

    def test_a_network_of_ipv6_is_one_address(self) -> None:
        self.assertTrue(self.take("2001:db8::1") and self.take("2001:db8::2"))
        self.assertFalse(self.take("2001:db8::3"))
        self.crowd.end_request("2001:db8::4")
        self.assertTrue(self.take("2001:db8::3"))

    def test_operators_have_a_few_more(self) -> None:
        self.assertEqual([self.take("192.0.2.1", True) for _ in range(9)], [True] * 9)
        self.crowd = Crowd(Clock(), HttpLimits(max_requests_per_ip=2), self.refusals)
        found = [self.take("192.0.2.1", True) for _ in range(OPERATORS + 4)]
        self.assertEqual(found, [True] * (OPERATORS + 2) + [False] * 2)

    def test_proxies_are_exempt(self) -> None:
        self.assertEqual([self.take("192.0.2.9") for _ in range(9)], [True] * 9)
        self.assertFalse(self.take("192.0.2.9"))

    def test_no_limit(self) -> None:
        limits = HttpLimits(max_requests=0, max_requests_per_ip=0, max_connections=0)
        self.crowd = Crowd(Clock(), limits, self.refusals)
        self.assertTrue(all(self.take("192.0.2.1") for _ in range(300)))


class DescriptorTests(SynchronousTestCase):
    """Issue 15, build 5: clients leave descriptors to health, operators, and the files."""

    def test_shares(self) -> None:
        listen, limits = ListenSettings(), LimitSettings()
        for descriptors, expected in (
            (0, DescriptorShares(0, 2000, 1000)),
            (256, DescriptorShares(128, 64, 16)),
            (1024, DescriptorShares(512, 256, 64)),
            (20_000, DescriptorShares(15_744, 2000, 1000)),
        ):
            shares = DescriptorShares.of(listen, descriptors)
            self.assertEqual(shares, expected)
            self.assertEqual(shares.max_connections(limits), min(10_000, shares.clients or 10_000))
            self.assertEqual(
                shares.max_connections(LimitSettings(max_connections=0)), shares.clients
            )


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.refusals = Refusals(self.clock)
        self.lines: list[tuple[str, int, int]] = []
        globalLogPublisher.addObserver(self.note)
        self.addCleanup(globalLogPublisher.removeObserver, self.note)

    def note(self, event: dict[str, Any]) -> None:
        self.assertIs(event["log_level"], LogLevel.warn)
        self.lines.append((event["reason"], event["count"], event["total"]))

    def taken(self) -> list[tuple[str, int, int]]:
        lines, self.lines = self.lines, []
        return lines

    def test_a_flood_is_a_few_lines(self) -> None:
        for _ in range(1000):
            self.refusals.note("a")
        self.assertEqual(self.taken(), [("a", 1, 1)])
        self.clock.advance(PERIOD)
        self.assertEqual(self.taken(), [("a", 999, 1000)])
        self.refusals.note("a")
        self.refusals.note("b")
        self.assertEqual(self.taken(), [("b", 1, 1)])
        self.clock.advance(PERIOD)
        self.assertEqual(self.taken(), [("a", 1, 1001)])
        self.clock.advance(PERIOD)
        self.assertEqual((self.taken(), self.clock.getDelayedCalls()), ([], []))
        self.refusals.note("a")
        self.assertEqual(self.taken(), [("a", 1, 1002)])
        self.assertEqual(self.refusals.counts, {"a": 1002, "b": 1})

    def test_an_address_has_lines_of_its_own(self) -> None:
        """Issue 15, build 9: with the address, the user, and the number in a minute."""
        lines: list[str] = []

        def note(event: dict[str, Any]) -> None:
            lines.append(formatEvent(event))

        globalLogPublisher.addObserver(note)
        self.addCleanup(globalLogPublisher.removeObserver, note)
        self.refusals.note("a", "192.0.2.1", "alice")
        for number in range(20):
            self.refusals.note("a", "192.0.2.1", f"user{number}")
            self.refusals.note("a", f"2001:db8::{number}")
        self.refusals.note("a", "")
        self.clock.advance(PERIOD)
        self.assertEqual(
            lines,
            [
                "Refused 192.0.2.1: a: 1, 1 of all addresses since the start, "
                "the last was user 'alice'",
                "Refused 2001:0db8:0000:0000::/64: a: 1, 3 of all addresses since the start",
                "Refused a local socket: a: 1, 42 of all addresses since the start",
                "Refused 192.0.2.1: a: 20, 42 of all addresses since the start, "
                "the last was user 'user19'",
                "Refused 2001:0db8:0000:0000::/64: a: 19, 42 of all addresses since the start",
            ],
        )
        self.clock.advance(PERIOD)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_many_addresses_share_lines(self) -> None:
        """A flood from many addresses does not fill the log."""
        self.patch(refusals_module, "MAX_ADDRESSES", 3)
        for number in range(10):
            self.refusals.note("a", f"192.0.2.{number}")
        self.assertEqual(len(self.lines), 4)
        self.refusals.stop()
        self.assertEqual([count for _, count, _ in self.lines], [1, 1, 1, 1, 6])

    def test_the_end(self) -> None:
        for _ in range(3):
            self.refusals.note("a")
        self.refusals.stop()
        self.assertEqual(self.taken(), [("a", 1, 1), ("a", 2, 3)])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class AnyBytesTests(RouteTestCase):
    """Issue 12: headers and names of any bytes end in the documented error."""

    def test_headers(self) -> None:
        strange = (
            b"\xff",
            b"\xc3",
            b"\x80abc",
            b"localhost\xff",
            b"[",
            b"[::1",
            b"a:b:c",
            b"\xe2\x84\x80",
        )
        for name in (b"Host", b"Origin", b"Upgrade", b"Content-Type", b"Authorization", b"Cookie"):
            for value in strange:
                headers = b"%b: %b\r\n" % (name, value)
                if name != b"Host":
                    headers += b"Host: localhost\r\n"
                for head, codes in (
                    (b"GET /health HTTP/1.1\r\n", {200}),
                    (b"GET /ws HTTP/1.1\r\n", {404}),
                    (
                        b"POST /jobs/interval HTTP/1.1\r\nContent-Length: 17\r\n"
                        + (
                            b""
                            if name == b"Content-Type"
                            else b"Content-Type: application/json\r\n"
                        ),
                        {401, 403},
                    ),
                ):
                    answer = Answer(self.raw(head + headers + b"\r\n" + b'{"interval":"1s"}'))
                    self.assertIn(answer.code, codes, (head, headers))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_random_headers(self) -> None:
        for _ in range(300):
            value = os.urandom(12).translate(None, b"\r\n")
            for name in (
                b"Host",
                b"Origin",
                b"Upgrade",
                b"Connection",
                os.urandom(3).hex().encode(),
            ):
                request = b"POST /jobs/rotate HTTP/1.1\r\n%b: %b\r\n\r\n" % (name, value)
                self.assertIn(Answer(self.raw(request)).code, {400, 403, 415})
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_paths_that_are_no_address(self) -> None:
        for request in (b"GET /\xff\xfe HTTP/1.1", b"GET /stats\xff HTTP/1.1"):
            answer = Answer(self.raw(request + b"\r\nHost: localhost\r\n\r\n"))
            self.assertEqual(answer.code, 400, request)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_paths_methods_and_queries(self) -> None:
        for request, code in (
            (b"GET /%ff%fe HTTP/1.1", 404),
            (b"GET /stats?username=%ff HTTP/1.1", 400),
            (b"GET /stats?%ff=%ff HTTP/1.1", 400),
        ):
            answer = Answer(self.raw(request + b"\r\nHost: localhost\r\n\r\n"))
            self.assertEqual(answer.code, code, request)
            self.assertIn("error", json.loads(answer.body))
        self.assertEqual(self.flushLoggedErrors(), [])
