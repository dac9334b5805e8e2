"""The audit trail."""

from __future__ import annotations

from io import BytesIO
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from kupool.topics.errors import TopicsUnavailable
from kupool.web.audit import LARGEST, PATIENCE, AuditTrail, Change
from tests.fakes.activity_site import ActivityCase
from tests.fakes.web_site import Answer


class AuditTrailTests(ActivityCase):
    """Issue 18, build 7: the entry is written before the answer, or that is told."""

    def test_the_trail(self) -> None:
        """Issue 18, build 7: who, from where, what, and whether it worked; the newest first."""
        self.source.rotations.append(succeed(42))
        self.post("/jobs/rotate", {})
        self.post("/jobs/interval", {"interval": "soon"})
        self.post("/bans/lift", {"address": "192.0.2.7"})
        self.post("/api/sessions/close", {"user": "alice"}, "alice")  # not permitted: no change
        found = self.get("/api/audit").json["entries"]
        self.assertEqual(
            [(each["action"], each["what"], each["ok"]) for each in found],
            [
                ("bans.lift", {"address": "192.0.2.7"}, False),
                ("jobs.interval", {"interval": "soon"}, False),
                ("jobs.rotate", {}, True),
            ],
        )
        self.assertEqual({each["by"] for each in found}, {"olga"})
        self.assertEqual({each["peer"] for each in found}, {"127.0.0.1"})
        self.assertEqual(found[0]["error"], "not found: '192.0.2.7' is not banned")
        self.assertTrue(found[1]["error"].startswith("interval: "))
        self.assertNotIn("error", found[2])
        self.assertEqual(found[2]["at"], "2027-01-15T08:00:00.000Z")

    def test_before_the_answer(self) -> None:
        written: Deferred[Any] = Deferred()
        self.patch(self.topics, "produce", lambda topic, records: written)
        protocol, transport = self.connect()
        body = b'{"user":"alice"}'
        protocol.dataReceived(
            b"POST /api/sessions/close HTTP/1.1\r\nHost: localhost\r\n"
            b"Authorization: Bearer olga\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        self.assertEqual(transport.value(), b"")
        self.clock.advance(PATIENCE)
        self.assertEqual(Answer(transport.value()).code, 200)

    def test_a_full_disk(self) -> None:
        """Issue 18, build 7: whoever frees it must be able to act."""
        engine = self.topics.engine
        self.patch(engine, "append", lambda appends: fail(TopicsUnavailable("disk full")))
        self.assertEqual(self.post("/api/sessions/close", {"user": "a"}).code, 200)
        trail = self.site._access._trail
        assert trail is not None
        self.assertEqual(trail.lost, 1)

    def test_large_parameters(self) -> None:
        """Issue 18, bad input: an entry is small, whatever was asked."""
        self.post("/api/sessions/close", {"user": "a" * LARGEST})
        self.post("/api/sessions/close", ["no", "object"])
        found = self.get("/api/audit").json["entries"]
        self.assertEqual(found[1]["what"], {"bytes": LARGEST + 12})
        self.assertEqual(found[0]["what"], {"bytes": 16})


class TrailWithoutTopicTests(SynchronousTestCase):
    """Issue 18, build 7: without events, changes are in the log of the process alone."""

    def test_in_the_log(self) -> None:
        async def handler(request: Any) -> object:
            return {"said": request.content.read().decode()}

        request: Any = SimpleNamespace(content=BytesIO(b'{"a":1}'))
        trail = AuditTrail(Clock(), None)
        with capturedLogs() as told:
            done = Deferred.fromCoroutine(
                trail.run(Change("jobs.rotate", "olga", "192.0.2.1"), handler, request)
            )
        self.assertEqual(self.successResultOf(done), {"said": '{"a":1}'})
        (event,) = told
        self.assertEqual(formatEvent(event), "jobs.rotate by olga: done")
        self.assertEqual((event["remote"], event["what"]), ("192.0.2.1", '{"a":1}'))
        self.assertEqual(trail.lost, 0)
