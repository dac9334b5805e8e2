"""The routes of the HTTP API, byte for byte, without a socket."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool import __version__
from kupool.errors import DUPLICATE, INVALID_RESULT
from kupool.pool.coordinator import RotationFailed
from kupool.stats import Rejection
from kupool.web import IStatusSource
from kupool.web.answers import MAX_BODY
from kupool.web.site import HttpLimits
from kupool.web.statistics import Shared
from tests.fakes.raising import ENDINGS, raising
from tests.fakes.web_site import SECRET, Answer, RouteTestCase

MINUTE = 1795255500
HOUR = 3600


class StateTests(RouteTestCase):
    """K-91: health, readiness, the progress of a stop."""

    def test_the_source_keeps_its_interface(self) -> None:
        verifyObject(IStatusSource, self.source)

    def test_health(self) -> None:
        self.clock.advance(12.5)
        answer = self.ask("/health")
        self.assertEqual(answer.code, 200)
        self.assertEqual(answer.json, {"status": "ok", "version": __version__, "uptime": 12.5})

    def test_health_does_not_depend_on_readiness(self) -> None:
        self.source.reasons = ["starting"]
        self.assertEqual(self.ask("/health").code, 200)

    def test_ready(self) -> None:
        answer = self.ask("/ready")
        self.assertEqual((answer.code, answer.json), (200, {"ready": True, "reasons": []}))

    def test_not_ready_and_why(self) -> None:
        self.source.reasons = ["the log is full", "no job"]
        answer = self.ask("/ready")
        self.assertEqual(answer.code, 503)
        self.assertEqual(answer.json, {"ready": False, "reasons": ["the log is full", "no job"]})

    def test_ready_with_something_away(self) -> None:
        """K-91: what keeps nobody from work is told, and leaves the node in rotation."""
        self.source.worries = ["statistics: PostgreSQL is away"]
        answer = self.ask("/ready")
        self.assertEqual(answer.code, 200)
        self.assertEqual(
            answer.json, {"ready": True, "reasons": ["statistics: PostgreSQL is away"]}
        )
        self.source.reasons = ["stopping: clients"]
        answer = self.ask("/ready")
        self.assertEqual(answer.code, 503)
        self.assertEqual(
            answer.json["reasons"], ["stopping: clients", "statistics: PostgreSQL is away"]
        )

    def test_shutdown_status(self) -> None:
        """K-85: what is left of a stop is shown while it goes on."""
        self.assertEqual(
            self.ask("/shutdown/status").json,
            {
                "phase": "stopping: clients",
                "since": "2026-11-21T10:05:28Z",
                "connections": 7,
                "batches_in_flight": 1,
                "log_depth": 12,
                "spooled": 3,
                "dead_letters": 5,
            },
        )

    def test_index_lists_every_route(self) -> None:
        listed = {route["path"]: route["methods"] for route in self.ask("/").json["routes"]}
        self.assertEqual(
            listed,
            {
                "/dashboard": ["GET", "HEAD"],
                "/health": ["GET", "HEAD"],
                "/ready": ["GET", "HEAD"],
                "/stats": ["GET", "HEAD"],
                "/shutdown/status": ["GET", "HEAD"],
                "/bans": ["GET", "HEAD"],
                "/bans/lift": ["POST"],
                "/jobs/rotate": ["POST"],
                "/jobs/interval": ["POST"],
            },
        )


class AnswerTests(RouteTestCase):
    """K-91: what all answers have in common."""

    def test_headers(self) -> None:
        for path, code in (("/health", 200), ("/nowhere", 404), ("/stats?x=1", 400)):
            answer = self.ask(path)
            self.assertEqual(answer.code, code)
            self.assertEqual(answer.headers["content-type"], "application/json")
            self.assertEqual(answer.headers["cache-control"], "no-store")
            self.assertEqual(answer.headers["x-content-type-options"], "nosniff")
            self.assertEqual(answer.headers["content-length"], str(len(answer.body)))

    def test_head_has_the_headers_of_get_and_no_body(self) -> None:
        get, head = self.ask("/ready"), self.ask("/ready", "HEAD")
        self.assertEqual(head.code, 200)
        self.assertEqual(head.body, b"")
        self.assertEqual(head.headers["content-length"], get.headers["content-length"])
        self.assertEqual(head.headers["content-type"], "application/json")

    def test_unknown_paths(self) -> None:
        for path in (
            "/nowhere",
            "/health/",
            "/health/x",
            "/jobs",
            "/shutdown",
            "/ws",
            "//",
            "/%ff",
        ):
            answer = self.ask(path)
            self.assertEqual(answer.code, 404, path)
            self.assertTrue(answer.json["error"].startswith("not found: /"), path)
        self.assertEqual(self.ask("/nowhere", "HEAD").body, b"")

    def test_wrong_methods(self) -> None:
        for path, method, allowed in (
            ("/health", "POST", "GET, HEAD"),
            ("/stats", "DELETE", "GET, HEAD"),
            ("/jobs/rotate", "GET", "POST"),
            ("/jobs/interval", "PUT", "POST"),
            ("/jobs/rotate", "BREW", "POST"),
            ("/", "POST", "GET, HEAD"),
        ):
            answer = self.ask(path, method)
            self.assertEqual(answer.code, 405, path)
            self.assertEqual(answer.headers["allow"], allowed)
            self.assertIn(method, answer.json["error"])

    def test_an_unexpected_error_is_logged_under_the_reference_that_is_answered(self) -> None:
        self.source.broken = True
        answer = self.ask("/ready")
        self.assertEqual(answer.code, 500)
        self.assertNotIn("secret", answer.body.decode())
        reference = answer.json["error"].removeprefix("internal error, reference ")
        self.assertEqual(len(reference), 16)
        (logged,) = self.flushLoggedErrors(RuntimeError)
        self.assertEqual(str(logged.value), "secret detail")
        self.source.broken = False
        self.assertEqual(self.ask("/ready").code, 200)

    def test_whatever_is_raised(self) -> None:
        """Issue 12: also what wants the process to exit is a failure of that request alone."""
        for error in ENDINGS:
            patch = self.patch(self.source, "ready", raising(error)[0])
            answer = self.ask("/ready")
            patch.restore()
            self.assertEqual(answer.code, 500)
            self.assertIn("internal error, reference ", answer.json["error"])
            self.source.rotations = [fail(error())]
            self.assertEqual(self.ask("/jobs/rotate", "POST", b"").code, 500)
            self.assertEqual(len(self.flushLoggedErrors(error)), 2)
            self.assertEqual(self.ask("/ready").code, 200)

    def test_a_client_that_left_is_not_answered(self) -> None:
        waiting: Deferred[int] = Deferred()
        self.source.rotations = [waiting]
        protocol, transport = self.connect()
        protocol.dataReceived(
            b"POST /jobs/rotate HTTP/1.1\r\nHost: localhost\r\n"
            b"Authorization: Bearer " + SECRET.encode() + b"\r\n"
            b"Content-Type: application/json\r\nContent-Length: 0\r\n\r\n"
        )
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure

        protocol.connectionLost(Failure(ConnectionLost()))
        waiting.callback(42)
        self.assertEqual(transport.value(), b"")
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_requests_on_one_connection(self) -> None:
        protocol, transport = self.connect()
        for _ in range(2):
            protocol.dataReceived(b"GET /ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(transport.value().count(b"HTTP/1.1 200 OK"), 2)
        self.assertFalse(transport.closed)


class StatsTests(RouteTestCase):
    """K-73, K-91: counts of a minute, of a range, the top N, totals."""

    def setUp(self) -> None:
        super().setUp()
        self.count(MINUTE, "alice.rig1", "alice.rig1", "alice.rig2", "bob")
        self.count(MINUTE - 60, "alice", "bob")
        self.count(MINUTE - 2 * HOUR, "carol", "carol")
        rejected = {
            Rejection("alice", INVALID_RESULT.code, MINUTE): 3,
            Rejection("bob", DUPLICATE.code, MINUTE): 4,
            Rejection("bob", INVALID_RESULT.code, MINUTE): 2,
            Rejection("bob", DUPLICATE.code, MINUTE - HOUR): 9,
        }
        self.successResultOf(self.stats.apply([], rejected))

    def test_overview(self) -> None:
        self.assertEqual(
            self.ask("/stats").json,
            {
                "accepted_total": 8,
                "sessions": 3,
                "users": 2,
                "job_id": 41,
                "from": "2026-11-21T09:51:00Z",
                "to": "2026-11-21T10:06:00Z",
                "accepted": 6,
                "per_minute": [
                    {"minute": "2026-11-21T10:04:00Z", "users": 2, "count": 2},
                    {"minute": "2026-11-21T10:05:00Z", "users": 2, "count": 4},
                ],
                "top": [
                    {"username": "alice", "count": 4},
                    {"username": "bob", "count": 2},
                ],
                "top_left_out": 0,
                "rejections": {"Invalid result": 5, "Duplicate submission": 4},
            },
        )

    def test_a_user_in_a_minute(self) -> None:
        for minute in ("2026-11-21T10:05:00Z", "2026-11-21T12:05:44%2B02:00"):
            self.assertEqual(
                self.ask(f"/stats?username=alice&minute={minute}").json,
                {"username": "alice", "minute": "2026-11-21T10:05:00Z", "count": 3},
            )

    def test_a_minute_without_any(self) -> None:
        answer = self.ask("/stats?username=nobody&minute=2026-11-21T10:05:00Z").json
        self.assertEqual(answer["count"], 0)

    def test_a_worker_in_a_minute(self) -> None:
        """K-18: statistics exist per worker."""
        answer = self.ask("/stats?username=alice.rig1&minute=2026-11-21T10:05:00Z").json
        self.assertEqual(
            answer, {"username": "alice.rig1", "minute": "2026-11-21T10:05:00Z", "count": 2}
        )

    def test_everyone_in_a_minute(self) -> None:
        answer = self.ask("/stats?minute=2026-11-21T10:05:00Z").json
        self.assertEqual(answer, {"minute": "2026-11-21T10:05:00Z", "users": 2, "count": 4})

    def test_a_user(self) -> None:
        self.assertEqual(
            self.ask("/stats?username=alice").json,
            {
                "username": "alice",
                "from": "2026-11-21T09:51:00Z",
                "to": "2026-11-21T10:06:00Z",
                "total": 4,
                "accepted": 4,
                "per_minute": [
                    {"minute": "2026-11-21T10:04:00Z", "count": 1},
                    {"minute": "2026-11-21T10:05:00Z", "count": 3},
                ],
                "workers": [{"worker": "rig1", "count": 2}, {"worker": "rig2", "count": 1}],
                "workers_left_out": 0,
                "rejections": {"Invalid result": 3},
            },
        )

    def test_a_worker(self) -> None:
        """K-18"""
        answer = self.ask("/stats?username=alice.rig2").json
        self.assertEqual((answer["total"], answer["accepted"]), (1, 1))
        self.assertEqual(answer["per_minute"], [{"minute": "2026-11-21T10:05:00Z", "count": 1}])
        self.assertNotIn("workers", answer)

    def test_a_range_and_its_top(self) -> None:
        answer = self.ask("/stats?from=2026-11-21T08:05:00Z&to=2026-11-21T10:05:00Z&top=1").json
        self.assertEqual(answer["accepted"], 4)
        self.assertEqual(answer["accepted_total"], 8)
        self.assertEqual(answer["top"], [{"username": "carol", "count": 2}])
        self.assertEqual(answer["rejections"], {"Duplicate submission": 9})

    def test_what_is_left_out_is_named(self) -> None:
        """Issue 15, build 5: an answer has a bound, and says how much is not in it."""
        answer = self.ask("/stats?top=1").json
        self.assertEqual((len(answer["top"]), answer["top_left_out"]), (1, 1))
        answer = self.ask("/stats?username=alice&limit=1").json
        self.assertEqual(answer["workers"], [{"worker": "rig1", "count": 2}])
        self.assertEqual(answer["workers_left_out"], 1)

    def test_a_users_range(self) -> None:
        answer = self.ask("/stats?username=carol&from=2026-11-21T08:00:00Z").json
        self.assertEqual((answer["total"], answer["accepted"]), (2, 2))
        answer = self.ask("/stats?username=carol").json
        self.assertEqual((answer["total"], answer["accepted"]), (2, 0))

    def test_a_long_range_is_not_answered_minute_by_minute(self) -> None:
        for who in ("", "username=alice&"):
            week = self.ask(f"/stats?{who}from=2026-11-14T10:06:00Z&to=2026-11-21T10:06:00Z")
            self.assertNotEqual(week.json["per_minute"], None)
            more = self.ask(f"/stats?{who}from=2026-11-14T10:05:00Z&to=2026-11-21T10:06:00Z")
            self.assertEqual(more.json["per_minute"], None)
            self.assertEqual(more.json["accepted"], week.json["accepted"])

    def test_minutes_that_were_rolled_up(self) -> None:
        """K-76: totals hold what is rolled up; a minute that is gone is not called zero."""
        self.successResultOf(self.stats.roll_up(MINUTE - HOUR, 0))
        answer = self.ask("/stats?username=carol&minute=2026-11-21T08:05:00Z")
        self.assertEqual(answer.code, 410)
        self.assertIn("rolled up", answer.json["error"])
        answer = self.ask("/stats?username=carol&from=2026-11-21T08:00:00Z")
        self.assertEqual((answer.json["total"], answer.json["accepted"]), (2, 2))
        self.assertEqual(answer.json["per_minute"], [])
        self.assertEqual(answer.json["minutes_since"], "2026-11-21T09:00:00Z")
        answer = self.ask("/stats")
        self.assertEqual(answer.json["accepted_total"], 8)
        self.assertNotIn("minutes_since", answer.json)

    def test_wrong_values(self) -> None:
        for query, name in (
            ("username=", "username"),
            ("username=a%0ab", "username"),
            ("username=a&username=b", "username"),
            ("minute=now", "minute"),
            ("from=yesterday", "from"),
            ("to=2026-11-21", "to"),
            ("from=2026-11-21T10:05:00Z&to=2026-11-21T10:05:00Z", "from"),
            ("top=0", "top"),
            ("top=many", "top"),
            ("minute=2026-11-21T10:05:00Z&from=2026-11-21T10:05:00Z", "from"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("minute=2026-11-21T10:05:00Z&limit=3", "limit"),
            ("page=3", "page"),
        ):
            answer = self.ask("/stats?" + query)
            self.assertEqual(answer.code, 400, query)
            self.assertTrue(answer.json["error"].startswith(name + ": "), query)

    def test_a_store_that_fails(self) -> None:
        self.stats.minutes = lambda start, end: fail(OSError("disk"))  # type: ignore[method-assign]
        self.assertEqual(self.ask("/stats").code, 500)
        self.assertEqual(len(self.flushLoggedErrors(OSError)), 1)


class SharedTests(SynchronousTestCase):
    """The number of all submissions is counted once for all who ask at the same time."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.begun: list[Deferred[int]] = []
        self.shared = Shared(self.clock, 1.0, self.compute)

    async def compute(self) -> int:
        self.begun.append(Deferred())
        return await self.begun[-1]

    def get(self) -> Deferred[int]:
        return Deferred.fromCoroutine(self.shared.get())

    def test_once_for_all(self) -> None:
        asked = [self.get() for _ in range(3)]
        self.assertEqual(len(self.begun), 1)
        self.begun[0].callback(5)
        self.assertEqual([self.successResultOf(d) for d in asked], [5, 5, 5])

    def test_anew_after_its_age(self) -> None:
        first = self.get()
        self.begun[0].callback(5)
        self.clock.advance(0.999)
        self.assertEqual(self.successResultOf(first), 5)
        self.assertEqual(self.successResultOf(self.get()), 5)
        self.clock.advance(0.001)
        again = self.get()
        self.begun[1].callback(6)
        self.assertEqual(self.successResultOf(again), 6)

    def test_a_failure_is_not_kept(self) -> None:
        asked = [self.get() for _ in range(2)]
        self.begun[0].errback(OSError("disk"))
        for failed in asked:
            self.failureResultOf(failed, OSError)
        again = self.get()
        self.begun[1].callback(6)
        self.assertEqual(self.successResultOf(again), 6)


class ControlTests(RouteTestCase):
    """K-32, K-33: rotate now, and change the interval."""

    def test_rotate(self) -> None:
        """K-33: the answer is the new job's id."""
        self.source.rotations = [succeed(42), succeed(43)]
        answer = self.ask("/jobs/rotate", "POST", b"")
        self.assertEqual((answer.code, answer.json), (200, {"job_id": 42}))
        self.assertEqual(self.ask("/jobs/rotate", "POST", b"{}").json, {"job_id": 43})

    def test_rotate_where_no_job_can_be_made(self) -> None:
        self.source.rotations = [fail(RotationFailed("jobs cannot be saved: disk full"))]
        answer = self.ask("/jobs/rotate", "POST", b"")
        self.assertEqual(answer.code, 503)
        self.assertEqual(answer.json["error"], "no new job: jobs cannot be saved: disk full")

    def test_interval(self) -> None:
        """K-32"""
        answer = self.ask("/jobs/interval", "POST", b'{"interval":"1m30s"}')
        self.assertEqual((answer.code, answer.json), (200, {"interval": "1m30s"}))
        self.assertEqual(self.source.interval, 90.0)

    def test_wrong_intervals(self) -> None:
        for body in (
            b"",
            b"{}",
            b'{"interval":30}',
            b'{"interval":"soon"}',
            b'{"interval":"-1s"}',
            b'{"interval":"1ms"}',
            b'{"interval":"999ms"}',
            b'{"interval":"24h1s"}',
            b'{"interval":"0"}',
            b'{"interval":null}',
        ):
            answer = self.ask("/jobs/interval", "POST", body)
            self.assertEqual(answer.code, 400, body)
            self.assertTrue(answer.json["error"].startswith("interval: "), body)
        self.assertEqual(self.source.interval, 30.0)

    def test_bodies_that_are_no_json_object(self) -> None:
        for body in (b"[]", b"30s", b'"x"', b"{", b"\xff", b"[" * 5000):
            answer = self.ask("/jobs/interval", "POST", body)
            self.assertEqual(answer.code, 400, body)
            self.assertEqual(answer.json["error"], "body: must be a JSON object")

    def test_a_form_on_another_site_cannot(self) -> None:
        for declared in (
            "text/plain",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "",
        ):
            for path in ("/jobs/rotate", "/jobs/interval"):
                answer = self.ask(path, "POST", b'{"interval":"1s"}', Content_Type=declared)
                self.assertEqual(answer.code, 415, declared)
        answer = self.ask("/jobs/rotate", "POST")
        self.assertEqual(answer.code, 415)
        self.assertEqual(self.source.interval, 30.0)

    def test_json_with_a_charset(self) -> None:
        answer = self.ask(
            "/jobs/interval",
            "POST",
            b'{"interval":"1s"}',
            Content_Type="Application/JSON; charset=utf-8",
        )
        self.assertEqual(answer.code, 200)

    def test_under_another_name(self) -> None:
        """A page whose name was made to point here cannot change anything."""
        for host in ("evil.example:8081", "localhost.evil.example", "10.0.0.1:8081", ""):
            for path in ("/jobs/rotate", "/jobs/interval"):
                answer = self.ask(path, "POST", b'{"interval":"1s"}', Host=host)
                self.assertEqual(answer.code, 403, host)
                self.assertTrue(answer.json["error"].startswith("Host: "))
        self.assertEqual(self.source.interval, 30.0)

    def test_under_its_own_names(self) -> None:
        for host in ("127.0.0.1:8081", "[::1]:8081", "LOCALHOST", "pool.example.com:443"):
            answer = self.ask("/jobs/interval", "POST", b'{"interval":"1s"}', Host=host)
            self.assertEqual(answer.code, 200, host)


class LimitTests(RouteTestCase):
    """K-91: a peer can hold neither memory nor connections for long."""

    limits = HttpLimits(max_connections=3, request_timeout=30.0)

    def test_a_body_that_says_it_is_too_large(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(
            b"POST /jobs/interval HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY + 1)
        )
        answer = Answer(transport.value())
        self.assertEqual(answer.code, 413)
        self.assertEqual(answer.json, {"error": "body: larger than 65536 bytes"})
        self.assertTrue(transport.closed)

    def test_a_body_that_grows_too_large(self) -> None:
        protocol, transport = self.connect()
        protocol.dataReceived(
            b"POST /jobs/interval HTTP/1.1\r\nHost: localhost\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(20):
            protocol.dataReceived(b"1000\r\n" + b" " * 4096 + b"\r\n")
        protocol.dataReceived(b"0\r\n\r\n")
        self.assertEqual(transport.value().count(b"HTTP/1.1 "), 1)
        self.assertEqual(Answer(transport.value()).code, 413)
        self.assertTrue(transport.closed)

    def test_the_largest_body(self) -> None:
        body = b'{"interval":"1s"}'
        answer = self.ask("/jobs/interval", "POST", body + b" " * (MAX_BODY - len(body)))
        self.assertEqual(answer.code, 200)

    def test_a_request_has_limited_time_to_arrive(self) -> None:
        """A byte now and then does not keep a connection."""
        protocol, transport = self.connect()
        for byte in b"GET /health HTTP/1.1\r\nX: " + b"a" * 100:
            protocol.dataReceived(bytes((byte,)))
            self.clock.advance(0.5)
            if transport.closed:
                break
        self.assertTrue(transport.closed)
        self.assertEqual(self.clock.seconds(), 30.0)

    def test_silence_ends_a_connection_after_an_answer_too(self) -> None:
        protocol, transport = self.connect()
        self.clock.advance(29)
        protocol.dataReceived(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.clock.advance(29)
        self.assertFalse(transport.closed)
        self.clock.advance(1)
        self.assertTrue(transport.closed)

    def test_too_many_connections(self) -> None:
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        held = [self.connect()[0] for _ in range(3)]
        self.assertEqual(self.site.connections, 3)
        self.assertIdentical(self.site.buildProtocol(None), None)
        held[0].connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.site.connections, 2)
        self.assertEqual(self.ask("/health").code, 200)

    def test_headers_without_end(self) -> None:
        data = self.raw(b"GET /health HTTP/1.1\r\n" + b"X: y\r\n" * 20000)
        self.assertTrue(data.startswith(b"HTTP/1.1 400 "))
