"""Live channels of the real daemon: every framing, /events, and one submission everywhere."""

from __future__ import annotations

import http.client
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.protocol_peers import Page
from tests.servers.of_class import of_class
from tests.servers.running_daemon import UNLIMITED, RunningDaemon
from tests.servers.sockets import Peer

RULES = (
    "--live-rules=chat.* history_size=100 publish_by_clients=on",
    "--live-rules=plain publish_by_clients=on",
    "--live-rules=kept kind=durable topic=kept publish_by_clients=on",
    *(
        f"--permissions=* {action} {channel}"
        for action in ("channel.publish", "channel.subscribe", "channel.history")
        for channel in ("chat.*", "plain", "kept")
    ),
    "--permissions=* log.manage kept",
    "--live-pool-interval=200ms",
    "--live-ping-interval=1s",
    "--live-rate=10000",
)


class LivePeer:
    """An authorized session in one framing, which tells replies and notifications apart."""

    def __init__(self, daemon: RunningDaemon, framing: str, username: str = "alice") -> None:
        self._framing = framing
        self.peer = Page(daemon.http_port) if framing == "websocket" else Peer(daemon.port)
        self.notifications: list[dict[str, Any]] = []
        self._number = 0
        assert self.ask("authorize", username=username)["result"] is True

    def __enter__(self) -> LivePeer:
        return self

    def __exit__(self, *_: object) -> None:
        self.peer.close()

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        payload = json.dumps({"id": self._number, "method": method, "params": params}).encode()
        heads = {
            "frame": b"\x02" + len(payload).to_bytes(4, "little"),
            "int32": len(payload).to_bytes(4, "big"),
        }
        end = b"\n" if self._framing == "line" else b""
        self.peer.send(heads.get(self._framing, b"") + payload + end)
        while (message := self._message()).get("id") != self._number:
            self.notifications.append(message)
        return message

    def heard(self, method: str, wanted: Any = lambda params: True) -> dict[str, Any]:
        """Return the params of the next notification of a method that is wanted."""
        while True:
            while self.notifications:
                message = self.notifications.pop(0)
                if message.get("method") == method and wanted(message["params"]):
                    params: dict[str, Any] = message["params"]
                    return params
            self.notifications.append(self._message())

    def next_of(self, *methods: str) -> dict[str, Any]:
        """Return the next notification of one of some methods."""
        while True:
            message = self.notifications.pop(0) if self.notifications else self._message()
            if message.get("method") in methods:
                return message

    def _message(self) -> dict[str, Any]:
        if self._framing == "line":
            text = self.peer.line()
        elif self._framing == "websocket":
            text = b""
            while not text.endswith(b"}") or text.count(b"{") != text.count(b"}"):
                text += self.peer.exactly(1)
        else:
            order: Any = "little" if self._framing == "frame" else "big"
            head = self.peer.exactly(5 if self._framing == "frame" else 4)
            text = self.peer.exactly(int.from_bytes(head[-4:], order))
        found: dict[str, Any] = json.loads(text)
        return found


class EventReader:
    """A reader of ``/events``."""

    def __init__(self, daemon: RunningDaemon, query: str, **headers: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", daemon.http_port, timeout=20)
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self._connection.request("GET", f"/events?{query}", headers=given)
        self.response = self._connection.getresponse()
        self.comments = 0
        self.last_id = ""
        self._events = self._read()

    def __enter__(self) -> EventReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._connection.close()

    def _read(self) -> Iterator[tuple[str, Any]]:
        kind, data = "message", ""
        for raw in self.response:
            line = raw.decode().rstrip("\n")
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments += 1
            elif name == "id":
                self.last_id = value
            elif name == "event":
                kind = value
            elif name == "data":
                data = value
            elif not line and data:
                yield kind, json.loads(data)
                kind, data = "message", ""

    def begun(self) -> None:
        """Wait until all subscriptions have begun, one of them to a channel with positions."""
        while not self.response.readline().startswith(b"id: "):
            pass

    def event(self) -> tuple[str, Any]:
        """Return the type and the data of the next event."""
        return next(self._events)

    def data(self) -> Any:
        """Return what was published next."""
        kind, shown = self.event()
        assert kind == "message", (kind, shown)
        return shown["data"]


class LiveDaemonTests(SynchronousTestCase):
    """Issue 17, builds 4 and 5, with one daemon."""

    def setUp(self) -> None:
        self.daemon = of_class(self, lambda: RunningDaemon(*RULES))

    def published(self, channel: str, *values: Any) -> None:
        with LivePeer(self.daemon, "line", "writer") as writer:
            for value in values:
                self.assertIn(
                    "offset", writer.ask("publish", channel=channel, data=value)["result"]
                )

    def test_every_framing(self) -> None:
        """Q-60, W-67: publications and gaps reach a session in each framing."""
        for framing in ("line", "frame", "int32", "websocket"):
            with LivePeer(self.daemon, framing) as peer:
                channel = f"chat.{framing}"
                self.published(channel, *range(103))
                begun = peer.ask("subscribe", channel=channel, offset=0)["result"]
                self.assertEqual((begun["recovered"], begun["missed"]), (False, 3))
                self.published(channel, "live")
                for wanted in (*range(3, 103), "live"):
                    self.assertEqual(peer.heard("publication")["data"], wanted)

    def test_the_pool_for_anybody(self) -> None:
        """W-01, issue 17, build 5: curl hears something on the channel of the pool at once."""
        with EventReader(self.daemon, "channel=pool&channel=jobs") as reader:
            self.assertEqual(reader.response.status, 200)
            headers = reader.response.headers
            self.assertEqual(headers["X-Accel-Buffering"], "no")
            self.assertIn("no-transform", headers["Cache-Control"])
            self.assertTrue(headers["Content-Type"].startswith("text/event-stream"))
            for _ in range(3):
                kind, shown = reader.event()
                self.assertEqual((kind, shown["channel"]), ("message", "pool"))

    def test_ids_of_several_channels(self) -> None:
        """W-75, W-77: a reader that comes back goes on in each of its channels."""
        with EventReader(self.daemon, "channel=chat.one&channel=chat.two&channel=plain") as reader:
            self.published("chat.one", 1, 2)
            self.published("chat.two", "a")
            self.published("plain", "p")
            self.assertEqual([reader.data() for _ in range(4)], [1, 2, "a", "p"])
            last = reader.last_id
        self.assertEqual(
            [part.split(":")[:2] for part in last.split(",")],
            [["chat.one", "2"], ["chat.two", "1"]],
        )
        self.published("chat.two", "b")
        self.published("chat.one", 3)
        query = "channel=chat.one&channel=chat.two"
        with EventReader(self.daemon, query, Last_Event_ID=last) as reader:
            self.assertEqual({str(reader.data()), str(reader.data())}, {"3", "b"})
        with EventReader(self.daemon, "channel=chat.one&from=1") as reader:
            self.assertEqual([reader.data() for _ in range(2)], [2, 3])
        with EventReader(self.daemon, "channel=chat.one&from=1h%20ago") as reader:
            self.assertEqual([reader.data() for _ in range(3)], [1, 2, 3])
        with EventReader(self.daemon, "channel=chat.one&from=2001-01-01T00:00:00Z") as reader:
            self.assertEqual(reader.data(), 1)

    def test_a_gap(self) -> None:
        """W-19, W-75: what the history has lost is told before what follows."""
        self.published("chat.gap", *range(105))
        with EventReader(self.daemon, "channel=chat.gap&from=2") as reader:
            kind, gap = reader.event()
            self.assertEqual((kind, gap["channel"], gap["missed"]), ("gap", "chat.gap", 3))
            self.assertEqual(reader.data(), 5)

    def test_an_id_from_before(self) -> None:
        """W-75: an id of another stream is not taken for one of this."""
        self.published("chat.epoch", 1)
        query = "channel=chat.epoch"
        with EventReader(self.daemon, query, Last_Event_ID="chat.epoch:1:other") as reader:
            self.assertEqual(reader.event()[0], "gap")
            self.assertEqual(reader.data(), 1)

    def test_comments(self) -> None:
        """W-08: a quiet stream shows that it is there."""
        with EventReader(self.daemon, "channel=chat.quiet") as reader:
            deadline = time.monotonic() + 15
            while reader.comments < 3 and time.monotonic() < deadline:
                self.published("chat.quiet", 1)
                reader.data()
            self.assertGreaterEqual(reader.comments, 3)

    def test_filters(self) -> None:
        """W-66: a stream may want only what is urgent, or what has a tag."""
        with LivePeer(self.daemon, "line", "writer") as writer:
            query = "channel=chat.f&min_priority=3"
            with EventReader(self.daemon, query) as reader:
                for priority in (1, 3, 2, 3):
                    writer.ask("publish", channel="chat.f", data=priority, priority=priority)
                self.assertEqual([reader.data(), reader.data()], [3, 3])

    def test_bad_requests(self) -> None:
        """Issue 17, bad input: each is answered with what is wrong."""
        for query, status, said in (
            ("", 400, "channel"),
            ("channel=none", 404, "no rule covers"),
            ("channel=%00", 400, "no name of a channel"),
            ("channel=pool&x=1", 400, "unknown parameter"),
            ("channel=pool&from=yesterday", 400, "from"),
            ("channel=pool&max_rate=fast", 400, "max_rate"),
            ("channel=pool&policy=none", 400, "policy"),
            ("channel=pool&tags={", 400, ""),
            ("&".join(f"channel=chat.{n}" for n in range(129)), 400, "1 to 128"),
        ):
            code, answer = self.daemon.get(f"/events?{query}")
            self.assertEqual((code, said in answer["error"]), (status, True), answer)
        with EventReader(self.daemon, "channel=chat.a", Last_Event_ID="abc") as reader:
            self.assertEqual(reader.response.status, 400)
        with EventReader(self.daemon, "channel=chat.a", Origin="http://elsewhere") as reader:
            self.assertEqual(reader.response.status, 403)

    def test_another_pace(self) -> None:
        """W-04: an operator changes how often the pool is shown, without a restart."""
        for interval, code in (("50ms", 400), ("2h", 400), (5, 400), ("100ms", 200)):
            self.assertEqual(
                self.daemon.post("/api/live/interval", {"interval": interval})[0], code
            )

    def test_a_durable_channel(self) -> None:
        """W-75: an acknowledged publication is in the topic, and everybody gets it once."""
        self.daemon.post("/api/topic/create", {"topic": "kept"})
        with EventReader(self.daemon, "channel=kept") as reader:
            self.published("kept", 1, 2)
            self.assertEqual([reader.data(), reader.data()], [1, 2])


class SubmissionEverywhereTests(SynchronousTestCase):
    """X-01, W-36, design section 6: one submission in the log, the counts, on the bus, and live."""

    def test_one_id(self) -> None:
        """X-01: the log, the counts, the bus and the channels have the same id of a batch."""
        flags = (
            *UNLIMITED,
            "--permissions=* subscribe kupool.submission.accepted",
            "--permissions=* channel.subscribe users.alice",
            "--flush-interval=100ms",
        )
        with (
            RunningDaemon(*flags) as daemon,
            EventReader(daemon, "channel=submissions&channel=users.alice") as browser,
            LivePeer(daemon, "line", "watcher") as bus,
            ExitStack() as stack,
        ):
            browser.begun()
            worker = stack.enter_context(LivePeer(daemon, "line", "alice.rig"))
            answer = bus.ask("bus.subscribe", topics=["kupool.submission.accepted"])
            self.assertIn("result", answer)
            self.assertIn("offset", bus.ask("subscribe", channel="users.alice")["result"])
            _, online = browser.event()
            self.assertEqual(online["data"]["type"], "online")
            job = worker.heard("job")
            nonce = "n-1"
            result = sha256((job["server_nonce"] + nonce).encode()).hexdigest()
            told = worker.ask("submit", job_id=job["job_id"], client_nonce=nonce, result=result)
            self.assertEqual(told["result"], True)
            shown = [browser.event()[1] for _ in range(2)]
            by_channel = {each["channel"]: each["data"] for each in shown}
            # On one connection, the bus is before the channel, and both after the log.
            while (found := bus.next_of("call", "publication"))["params"].get("data") is None:
                pass
            self.assertEqual(found["method"], "call")
            on_bus = json.loads(found["params"]["data"])
            self.assertEqual(bus.heard("publication")["data"]["batch"], on_bus["batch"])
            submission = by_channel["submissions"]
            batch = submission["id"].partition("/")[0]
            self.assertEqual(by_channel["users.alice"]["batch"], batch)
            self.assertEqual(by_channel["users.alice"]["submissions"][0]["id"], submission["id"])
            self.assertEqual(on_bus["batch"], batch)
            self.assertEqual(on_bus["submissions"][0]["id"], submission["id"])
            _, found = daemon.post(
                "/api/log/fetch", {"topic": "submissions", "partition": 0, "at": "earliest"}
            )
            (record,) = found["records"]
            self.assertEqual(json.loads(record["value"])["id"], submission["id"])
            offsets = {each["channel"]: each["offset"] for each in shown}
            self.assertEqual(offsets["submissions"], record["offset"] + 1)
            deadline = time.monotonic() + 20
            while not self.counted(daemon, batch) and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertTrue(self.counted(daemon, batch))

    def counted(self, daemon: RunningDaemon, batch: str) -> bool:
        """Say whether the counts have a batch."""
        path = daemon.data / "store.sqlite"
        store = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return (batch,) in store.execute("SELECT batch_id FROM applied_batches").fetchall()
        finally:
            store.close()
