"""The bus of a real daemon: raw lines, the client, a browser's WebSocket and HTTP on one bus."""

from __future__ import annotations

import json
import sqlite3
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.trial.unittest import TestCase

from kupool.bus import BusError, Kind, Message, NotMine, Refusal
from kupool.bus.remote.client import RemoteBus
from kupool.wire.batches import decode_batch
from kupool.wire.framing import FRAMINGS
from tests.servers.running_daemon import UNLIMITED, LineClient, RunningDaemon
from tests.servers.services import RabbitServer, rabbit, required
from tests.servers.sockets import in_thread, until
from tests.servers.websocket_peers import WebSocketClient


class DaemonCase(TestCase):
    """Daemons, and everything that talks to them."""

    timeout = 120

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor

    async def daemon(self, *flags: str) -> RunningDaemon:
        daemon = RunningDaemon(*UNLIMITED, "--interval=1h", *flags)
        await in_thread(daemon.start)
        self.addCleanup(daemon.__exit__)
        return daemon

    async def bus(
        self, daemon: RunningDaemon, username: str = "service", framing: str = "frame"
    ) -> RemoteBus:
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", daemon.port)
        bus = RemoteBus(self.reactor, endpoint, username=username, framing=FRAMINGS[framing])
        await bus.connect()
        self.addCleanup(bus.close)
        return bus

    async def browser(self, daemon: RunningDaemon) -> WebSocketClient:
        browser = WebSocketClient(host=f"127.0.0.1:{daemon.http_port}")
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", daemon.http_port)
        await connectProtocol(endpoint, browser)
        await browser.opened
        await browser.authorize("browser")
        self.addCleanup(browser.transport.abortConnection)
        return browser

    def line(self, daemon: RunningDaemon, username: str = "line") -> LineClient:
        client = LineClient(daemon, 30.0)
        client.authorize(username)
        self.addCleanup(client.close)
        return client

    def post(self, daemon: RunningDaemon, topic: object, body: str = "", **more: Any) -> Any:
        request = {"topic": topic, "action": "reliable-random", "body": body, **more}
        return in_thread(daemon.post, "/bus/publish", request, 60.0)


class OneBusTests(DaemonCase):
    """A-07, A-36, A-61: everyone calls everyone."""

    async def test_everyone_calls_everyone(self) -> None:
        daemon = await self.daemon("--mq=memory", "--store=memory")
        remote, browser = await self.bus(daemon), await self.browser(daemon)
        line = await in_thread(self.line, daemon)
        await remote.subscribe(["remote"], lambda m: b"remote:" + m.data)
        await browser.call("bus.subscribe", topics=["browser"])
        await in_thread(lambda: line.request("bus.subscribe", topics=["line"]))

        def line_answers() -> None:
            call = line.receive()
            line.send({"id": call["id"], "result": "line:" + call["params"]["data"]})

        async def browser_answers() -> None:
            call = await browser.receive()
            browser.send({"id": call["id"], "result": "browser:" + call["params"]["data"]})

        async def ask_remote(topic: str) -> str:
            return (await remote.publish_reliable_random("名".encode(), topic)).data.decode()

        async def ask_http(topic: str) -> str:
            status, answer = await self.post(daemon, topic, "名")
            self.assertEqual((status, answer["outcome"]), (200, "answered"))
            return str(answer["body"])

        for ask in (ask_remote, ask_http):
            for topic, answers in (
                ("remote", None),
                ("line", lambda: in_thread(line_answers)),
                ("browser", lambda: Deferred.fromCoroutine(browser_answers())),
            ):
                answered = answers() if answers is not None else None
                self.assertEqual(await ask(topic), f"{topic}:名")
                await answered if answered is not None else None
        published = {"topic": "remote", "data": "x", "model": "reliable-random"}
        reply = await in_thread(lambda: line.request("bus.publish", **published))
        self.assertEqual(reply["result"]["data"], "remote:x")
        reply = await browser.call("bus.publish", **published)
        self.assertEqual(reply["result"]["data"], "remote:x")

        _, status = await in_thread(daemon.get, "/bus/status")
        topics = {t["topic"]: t["counts"] for t in status["topics"]}
        self.assertEqual(topics["remote"], {"published": 4, "answered": 4})
        self.assertEqual(topics["line"], {"published": 2, "answered": 2})
        self.assertEqual(
            [s["topics"] for s in status["subscribers"]], [["remote"], ["browser"], ["line"]]
        )
        (last,) = [t["recent"][-1] for t in status["topics"] if t["topic"] == "browser"]
        _, trace = await in_thread(daemon.get, f"/bus/trace/{last['id']}")
        self.assertEqual(
            [step["event"] for step in trace["steps"]], ["published", "offered", "answered"]
        )
        line.close()

        async def gone() -> bool:
            return len((await in_thread(daemon.get, "/bus/status"))[1]["subscribers"]) == 2

        while not await gone():
            pass  # each look takes its time, and the test has its own
        self.assertEqual((await self.post(daemon, "line", timeout_ms=50))[0], 503)

    async def test_every_framing_and_large_data(self) -> None:
        """A-07, A-25: what is no text goes through as it is, up to the limit."""
        daemon = await self.daemon("--mq=memory", "--store=memory")
        buses = {name: await self.bus(daemon, framing=name) for name in FRAMINGS}
        for name, bus in buses.items():
            await bus.subscribe([f"f.{name}"], lambda m: m.data[::-1])
        data = bytes(range(256)) * 175
        for bus in buses.values():
            for name in buses:
                outcome = await bus.publish_reliable_random(data, f"f.{name}")
                self.assertEqual((outcome.kind, outcome.data), (Kind.ANSWERED, data[::-1]))

    async def test_http(self) -> None:
        """A-36, A-38: outcomes by status, what is wrong by name, pages elsewhere by a list."""
        daemon = await self.daemon(
            "--mq=memory", "--store=memory", "--bus-origins=https://shop.example", "--bus-token=s3"
        )
        bus = await self.bus(daemon)

        def refuse(message: Message) -> None:
            raise Refusal("closed today") if message.data else NotMine

        await bus.subscribe(["shop"], refuse)

        def ask(body: object, method: str = "POST", **headers: str) -> tuple[int, Any, Any]:
            request = urllib.request.Request(
                daemon.url("/bus/publish"),
                data=body if isinstance(body, bytes) else json.dumps(body).encode(),
                headers={"Content-Type": "application/json", "Authorization": "Bearer s3"}
                | {name.replace("_", "-"): value for name, value in headers.items()},
                method=method,
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    return response.status, json.load(response), response.headers
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, json.load(error), error.headers

        good = {"topic": "shop", "action": "reliable-random", "body": "x", "timeout_ms": 200}
        page = {"Origin": "https://shop.example"}
        for body, headers, code, said in (
            (good, {}, 409, {"outcome": "refused", "reason": "closed today"}),
            ({**good, "body": ""}, {}, 503, {"outcome": "no subscriber"}),
            ({**good, "topic": "kupool.job"}, {}, 403, {"error": "forbidden: topic 'kupool.job'"}),
            (good, {"Authorization": "Bearer x"}, 401, None),
            (good, {"Origin": "https://evil.example"}, 403, None),
            (good, {"Host": "evil.example"}, 403, None),
            (good, {"Content_Type": "text/plain"}, 415, None),
            (b"{not json", {}, 400, {"error": "body: must be a JSON object"}),
            ({**good, "topic": "a b"}, {}, 400, None),
            ({**good, "action": "best"}, {}, 400, None),
            ({**good, "timeout_ms": 5}, {}, 400, None),
            ({**good, "body": "x" * 46_000}, {}, 400, None),
            (b"x" * 70_000, {}, 413, None),
            (good, page, 409, {"outcome": "refused", "reason": "closed today"}),
        ):
            status, answer, answered = await in_thread(lambda b=body, h=headers: ask(b, **h))
            self.assertEqual((status, said or answer), (code, answer), (body, headers))
            allowed = answered["Access-Control-Allow-Origin"]
            self.assertEqual(allowed, "https://shop.example" if headers is page else None)
        status, _, answered = await in_thread(lambda: ask(b"", "OPTIONS", **page))
        self.assertEqual((status, answered["Access-Control-Allow-Methods"]), (200, "POST"))
        self.assertEqual((await in_thread(ask, b"", "GET"))[0], 405)
        self.assertEqual((await in_thread(daemon.get, "/bus/status"))[0], 401)

    async def test_not_authorized(self) -> None:
        """A-38: a peer that has not said who it is, and one that is refused."""
        daemon = await self.daemon("--mq=memory", "--store=memory")
        client = LineClient(daemon)
        self.addCleanup(client.close)
        reply = await in_thread(lambda: client.request("bus.subscribe", topics=["t"]))
        self.assertEqual((reply["error"], reply["code"]), ("unauthorized", 24))
        with self.assertRaises(BusError):
            await self.bus(daemon, "\u0007")
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", daemon.port)
        nameless = RemoteBus(self.reactor, endpoint)
        await nameless.connect()
        self.addCleanup(nameless.close)
        with self.assertRaises(BusError):
            await nameless.status()


class EventTests(DaemonCase):
    """A-61: the pool's events reach whoever listens, by the ids that the log has."""

    async def test_submissions_and_jobs(self) -> None:
        daemon = await self.daemon("--bus-subscribe=kupool.>")
        bus = await self.bus(daemon, framing="int32")
        jobs: list[Any] = []
        told: list[Any] = []
        await bus.subscribe(["kupool.job"], lambda m: jobs.append(json.loads(m.data)))
        await bus.subscribe(
            ["kupool.submission.>"], lambda m: told.extend(json.loads(m.data)["submissions"])
        )

        def work(username: str) -> list[tuple[str, int, str]]:
            client = LineClient(daemon, 30.0)
            job = client.authorize(username)
            accepted = []
            for n in range(60):
                if client.submit(job, f"{username}-{n}")["result"] is True:
                    accepted.append((username, job["job_id"], f"{username}-{n}"))
                client.submit(job, f"{username}-{n}")  # a duplicate
                client.submit(job, f"wrong-{n}", result="0" * 64)
            client.close()
            return accepted

        users = ["alice.rig1", "alice.rig2", "bob"]
        working = await gatherResults([in_thread(work, user) for user in users])
        accepted = [submission for worker in working for submission in worker]
        self.assertEqual(len(accepted), 180)
        await until(self.reactor, lambda: len(told) >= 180, "the events")
        _, rotated = await in_thread(daemon.post, "/jobs/rotate", {})
        await until(self.reactor, lambda: jobs, "the job's event")
        self.assertEqual([job["job_id"] for job in jobs], [rotated["job_id"]])
        heard = Counter((s["username"], s["job_id"], s["client_nonce"]) for s in told)
        self.assertEqual(heard, Counter(accepted), "each once, and no other")
        self.assertEqual(await in_thread(daemon.stop), 0, daemon.output)
        with sqlite3.connect(daemon.data / "log.sqlite") as log:
            batches = [decode_batch(body) for (body,) in log.execute("SELECT body FROM entries")]
        kept = {
            f"{batch.batch}/{place}": (batch.usernames[place], batch.job_ids[place], nonce)
            for batch in batches
            for place, nonce in enumerate(batch.client_nonces)
        }
        self.assertEqual(
            kept, {s["id"]: (s["username"], s["job_id"], s["client_nonce"]) for s in told}
        )


class StopTests(DaemonCase):
    """A-22: callers get their outcomes before they are told to go."""

    async def test_a_call_in_hand(self) -> None:
        daemon = await self.daemon("--mq=memory", "--store=memory")
        bus = await self.bus(daemon)
        await bus.subscribe(["t"], lambda message: Deferred())
        waiting = self.post(daemon, "t", timeout_ms=60_000)

        def call() -> list[Any]:
            client = LineClient(daemon, 30.0)
            client.authorize()
            params = {"topic": "t", "model": "reliable-random", "timeout_ms": 60_000}
            client.send({"id": 9, "method": "bus.publish", "params": params})
            messages = []
            try:
                while True:
                    messages.append(client.receive())
            except EOFError:
                return [*client.notifications, *messages]
            finally:
                client.close()

        talking = in_thread(call)
        while (await in_thread(daemon.get, "/bus/status"))[1]["calls"] != 2:
            pass  # each look takes its time, and the test has its own
        self.assertEqual(await in_thread(daemon.stop), 0, daemon.output)
        *_, outcome, close = await talking
        refused = {"outcome": "refused", "reason": "the bus is closed"}
        self.assertEqual(outcome, {"id": 9, "result": refused})
        self.assertEqual(close["params"]["code"], 4000)
        self.assertEqual(await waiting, (409, refused))


class NodesTests(DaemonCase):
    """A-62: two daemons with one RabbitMQ are one bus, and two without it."""

    timeout = 180

    def flags(self, url: str) -> list[str]:
        return [
            "--mq=memory", "--store=memory", "--bus=rabbit", f"--bus-url={url}",
            "--bus-subscribe=>", "--bus-subscribe=kupool.>",
        ]  # fmt: skip

    async def reasons(self, daemon: RunningDaemon) -> str:
        status, answer = await in_thread(daemon.get, "/ready")
        self.assertEqual(status, 200, answer)
        return " ".join(answer["reasons"])

    async def wait_for(self, condition: Callable[[], Any]) -> None:
        while not await condition():
            pass  # each look takes its time, and the test has its own

    async def test_two_nodes(self) -> None:
        broker = await in_thread(rabbit)
        url = await in_thread(broker.new_vhost)
        first, second = await self.daemon(*self.flags(url)), await self.daemon(*self.flags(url))
        here, there = await self.bus(first), await self.bus(second)
        heard: list[Message] = []
        await there.subscribe(["bank"], lambda m: b"there:" + m.data)
        await there.subscribe(["kupool.submission.accepted"], heard.append)
        outcome = await here.publish_reliable_random(b"x", "bank")
        self.assertEqual((outcome.kind, outcome.data), (Kind.ANSWERED, b"there:x"))
        self.assertEqual((await self.post(first, "bank", "y"))[1]["body"], "there:y")

        def work() -> Any:
            client = LineClient(first, 30.0)
            accepted = client.submit(client.authorize("alice"), "n")
            client.close()
            return accepted["result"]

        self.assertIs(await in_thread(work), True)
        await until(self.reactor, lambda: heard, "the event of the other node")
        (event,) = [json.loads(message.data) for message in heard]
        self.assertEqual([s["username"] for s in event["submissions"]], ["alice"])
        self.assertEqual(await in_thread(second.stop), 0, second.output)

        async def nobody() -> bool:
            """The first node may hear a moment later that the other has left."""
            outcome = await here.publish_reliable_random(b"x", "bank", 0.3)
            return outcome.kind is Kind.NO_SUBSCRIBER

        await self.wait_for(nobody)

    async def test_a_broker_that_is_away(self) -> None:
        """A daemon starts and runs without it, says so, and joins the others afterwards."""
        with required():
            server = await in_thread(RabbitServer)
            self.addCleanup(in_thread, server.close)
        url = server.url()  # nobody listens there yet
        first, second = await self.daemon(*self.flags(url)), await self.daemon(*self.flags(url))
        self.assertIn("bus: RabbitMQ at ", await self.reasons(first))
        here, there = await self.bus(first), await self.bus(second)
        await there.subscribe(["bank"], lambda m: b"there")
        await here.subscribe(["near"], lambda m: b"here")
        outcome = await here.publish_reliable_random(b"", "near")
        self.assertEqual(outcome.data, b"here", "calls of one node go on")
        outcome = await here.publish_reliable_random(b"", "bank", 0.3)
        self.assertEqual(outcome.kind, Kind.NO_SUBSCRIBER)
        refused = await here.publish_unreliable_all(b"", "bank")
        self.assertEqual((refused.kind, refused.reason), (Kind.REFUSED, "not connected"))
        waiting = here.publish_reliable_random(b"", "bank", 60.0)
        await in_thread(server.start)
        self.assertEqual((await waiting).data, b"there")

        async def well() -> bool:
            return not await self.reasons(first)

        await self.wait_for(well)

    async def test_a_broker_that_refuses(self) -> None:
        """A wrong password ends the start, with a line that does not show it."""
        broker = await in_thread(rabbit)
        vhost = (await in_thread(broker.new_vhost)).rpartition("/")[2]
        url = f"amqp://nobody:s3cret@{broker.address}/{vhost}"
        daemon = RunningDaemon(*self.flags(url))
        self.addCleanup(daemon.__exit__)
        with self.assertRaises(Exception) as raised:
            await in_thread(daemon.start)
        self.assertIn("Cannot start: bus_url: ", str(raised.exception))
        self.assertNotIn("s3cret", str(raised.exception))
