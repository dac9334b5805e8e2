"""Downloads of submissions: as fast as they are read, and never all in memory."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import fail
from twisted.internet.task import Clock

from kupool.log import LogUnavailable, Mark
from kupool.log.memory import MemoryLog
from kupool.stats.fold import fold_entry
from kupool.web.access import WebAccess
from kupool.web.answers import ApiResource
from kupool.web.downloads import Downloads
from kupool.web.logged import READ_BYTES, LoggedSubmissions
from kupool.web.trace import Traces
from kupool.wire.batches import Batch, encode_batch
from tests.fakes.web_site import NOW, Answer, RouteTestCase, Transport

MS = int(NOW) * 1000

#: The rows of one large batch, and how many there are.
ROWS, BATCHES = 1000, 40


class CountingReader:
    """Reads a log, and counts the reads."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.reads = 0
        self.broken = False

    def read(self, after: int, max_bytes: int) -> Any:
        self.reads += 1
        if self.broken:
            return fail(LogUnavailable("the broker is away"))
        return self._reader.read(after, max_bytes)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reader, name)


class FullTransport(Transport):
    """A transport that is full after some bytes, until the peer reads."""

    room = 128 * 1024

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.room and len(self.value()) > self.room and self.producer is not None:
            self.producer.pauseProducing()

    def read_on(self) -> None:
        """Have room for everything from now on."""
        self.room = 0
        self.producer.resumeProducing()


class LoggedCase(RouteTestCase):
    """A site with a log in memory, which has what a test puts there."""

    def connect(self) -> tuple[Any, FullTransport]:
        protocol = self.site.buildProtocol(None)
        assert protocol is not None
        transport = FullTransport()
        protocol.makeConnection(transport)
        return protocol, transport

    def more(self, access: WebAccess) -> dict[str, ApiResource]:
        self.log = MemoryLog(Clock(), lambda: NOW, 100 * 1024 * 1024)
        self.reader = CountingReader(self.log.reader())
        logged = LoggedSubmissions(self.clock, self.reader, self.stats, positional=True)
        downloads = Downloads(self.clock, lambda: NOW, logged, patience=30.0)
        traces = Traces(self.stats, logged, lambda name: f"told {name}")
        return {
            "/api/submissions": access.resource("/api/submissions", {b"GET": downloads.get}),
            "/api/trace": access.resource("/api/trace", {b"GET": traces.get}),
        }

    def put(self, batch_id: str, *usernames: str, at: int = MS, counted: bool = True) -> None:
        names = list(usernames)
        numbers = [str(n) for n in range(len(names))]
        body = encode_batch(Batch(1, batch_id, at, names, [7] * len(names), numbers))
        self.successResultOf(self.log.append(batch_id, body))
        position = self.log.contents()[1].last
        if counted:
            counts = fold_entry(body, position)
            self.successResultOf(self.stats.apply([counts], {}, Mark(position, batch_id)))

    def begin(self, path: str) -> tuple[Any, Any]:
        """Send a request, and return the protocol and the transport."""
        protocol, transport = self.connect()
        protocol.dataReceived(f"GET {path} HTTP/1.0\r\nHost: localhost:8081\r\n\r\n".encode())
        return protocol, transport

    def turns(self) -> None:
        for _ in range(2000):
            self.clock.advance(0)


class DownloadTests(LoggedCase):
    """Issue 18, build 8: downloads of every counted submission."""

    def rows(self, transport: Any) -> list[dict[str, Any]]:
        return [json.loads(line) for line in Answer(transport.value()).body.splitlines()]

    def test_only_counted_ones_of_the_user(self) -> None:
        self.put("b1", "alice", "alicia", "alice.rig", "bob", 'x"alice')
        self.put("b2", "bob")
        self.put("b3", "alice", at=MS - 86_400_000 * 2)
        self.put("b4", "alice.b.c", "alice")
        self.put("b5", "alice", counted=False)
        _, transport = self.begin("/api/submissions?user=alice")
        self.assertEqual(
            [(row["id"], row["username"], row["client_nonce"]) for row in self.rows(transport)],
            [("b1/0", "alice", "0"), ("b1/2", "alice.rig", "2"), ("b4/1", "alice", "1")],
        )
        self.assertTrue(transport.closed)

    def test_hostile_names(self) -> None:
        """Issue 18, bad input: names with quotes, HTML, commas and line ends."""
        for n, name in enumerate(('"q"', "<b>&", "a,b;c", "é\\x", "=1+1")):
            self.put(f"b{n}", f"{name}.rig")
            for form in ("json", "csv"):
                quoted = "".join(f"%{byte:02X}" for byte in name.encode())
                _, transport = self.begin(f"/api/submissions?user={quoted}&format={form}")
                self.assertEqual(200, Answer(transport.value()).code)
                self.assertIn(f"b{n}/0".encode(), transport.value())

    def test_a_slow_reader(self) -> None:
        """The log is read on only when there is room, so that nothing piles up."""
        for n in range(BATCHES):
            self.put(f"b{n}", *["alice.a-rather-long-name-of-a-worker"] * ROWS)
        _, transport = self.begin("/api/submissions?user=alice")
        self.turns()
        reads, paused = self.reader.reads, len(transport.value())
        self.assertLess(paused, 2 * READ_BYTES)
        self.turns()
        self.assertEqual((self.reader.reads, len(transport.value())), (reads, paused))
        transport.read_on()
        self.turns()
        self.assertEqual(len(self.rows(transport)), BATCHES * ROWS)
        self.assertGreater(self.reader.reads, reads)

    def test_one_that_does_not_read(self) -> None:
        """A client that reads nothing for the time of ``--write-timeout`` is disconnected."""
        for n in range(BATCHES):
            self.put(f"b{n}", *["alice.a-rather-long-name-of-a-worker"] * ROWS)
        _, transport = self.begin("/api/submissions?user=alice")
        self.turns()
        self.clock.advance(29)
        self.assertFalse(transport.aborted)
        self.clock.advance(2)
        self.assertTrue(transport.aborted)

    def test_one_that_goes_away(self) -> None:
        """Nothing more is read for a client that is gone."""
        from twisted.internet.error import ConnectionDone
        from twisted.python.failure import Failure

        for n in range(BATCHES):
            self.put(f"b{n}", *["alice.a-rather-long-name-of-a-worker"] * ROWS)
        protocol, _transport = self.begin("/api/submissions?user=alice")
        self.turns()
        reads = self.reader.reads
        protocol.connectionLost(Failure(ConnectionDone()))
        self.turns()
        self.assertEqual(self.reader.reads, reads)

    def test_a_log_that_is_away(self) -> None:
        """Before the first row it is an error; after that the answer has no end."""
        self.put("b1", "alice")
        self.reader.broken = True
        answer = self.ask("/api/submissions?user=alice")
        self.assertEqual(answer.code, 503)
        self.assertIn("the log cannot be read now: the broker is away", answer.json["error"])
        self.reader.broken = False
        for n in range(2, BATCHES):
            self.put(f"b{n}", *["alice.a-rather-long-name-of-a-worker"] * ROWS)
        _, transport = self.begin("/api/submissions?user=alice")
        self.turns()
        self.reader.broken = True
        transport.read_on()
        self.turns()
        self.assertTrue(transport.aborted)
        self.assertEqual(len(self.flushLoggedErrors()), 1)


class TraceTests(LoggedCase):
    """Issue 18, build 5: the trace of a submission."""

    def test_one_that_is_not_counted(self) -> None:
        self.put("b1", "bob")
        self.put("b2", "alice.rig1", "bob", counted=False)
        found = self.ask("/api/trace?id=b2/0").json
        self.assertIs(found["counted"], False)
        step = {"name": "minute", "at": None, "text": "not counted yet"}
        self.assertEqual(found["steps"][4], step)
        self.assertEqual(found["steps"][5]["text"], "told alice.rig1")
        self.assertEqual((found["session"], found["peer"]), (None, None))
        listed = self.ask("/api/trace?user=alice&at=2026-11-21T10:05:59Z").json
        self.assertEqual([each["id"] for each in listed["submissions"]], ["b2/0"])

    def test_newest_first_and_bounded(self) -> None:
        for n in range(5):
            self.put(f"b{n}", "alice", "alice.x")
        found = self.ask("/api/trace?user=alice&at=2026-11-21T10:05:00Z&limit=3").json
        self.assertEqual([each["id"] for each in found["submissions"]], ["b4/1", "b4/0", "b3/1"])
        self.assertEqual(found["left_out"], 7)
        found = self.ask("/api/trace?user=alice.x&at=2026-11-21T10:05:00Z").json
        self.assertEqual(len(found["submissions"]), 5)

    def test_a_scan_has_an_end(self) -> None:
        """A minute that is too large is not searched to its end, and the answer says so."""
        from kupool.web import logged

        self.patch(logged, "SEARCH_BYTES", 1000)
        self.patch(logged, "READ_BYTES", 100)
        for n in range(100):
            self.put(f"b{n}", "alice")
        found = self.ask("/api/trace?user=alice&at=2026-11-21T10:05:00Z").json
        self.assertIs(found["complete"], False)
        self.assertLess(len(found["submissions"]), 100)
        self.assertEqual(self.ask("/api/trace?id=unknown/0").code, 404)
