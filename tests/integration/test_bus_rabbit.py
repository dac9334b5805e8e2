"""The bus on RabbitMQ when the broker is killed, nodes die or freeze, or it is not for us."""

from __future__ import annotations

import base64
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from kupool.amqp.links import LinkSettings
from kupool.amqp.wire import ConnectionSettings
from kupool.bus import BusError, BusSettings, Kind, Message, Outcome
from kupool.bus.rabbit.bus import RabbitBus
from kupool.bus.rabbit.settings import MeshSettings
from tests.servers.services import rabbit
from tests.servers.sockets import until

ROOT = Path(__file__).parents[2]

#: A node in a process of its own: on `hold` it never answers, on `echo` at once.
NODE = """
import sys, time
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from kupool.bus.rabbit.bus import RabbitBus
from kupool.bus.rabbit.settings import MeshSettings

def hold(message):
    print("held", flush=True)
    return Deferred()

async def main():
    mesh = MeshSettings(beat=0.2, silence=1.0)
    bus = RabbitBus(reactor, sys.argv[1], wall=time.time, mesh=mesh, node="other")
    await bus.connect()
    await bus.subscribe(["hold"], hold)
    await bus.subscribe(["echo"], lambda message: message.data)
    print("ready", flush=True)

Deferred.fromCoroutine(main())
reactor.run()
"""

#: Only a node that is gone, or seems so, is given up: no call goes to another for being slow.
PATIENT = BusSettings(share=1.0)


class BusCase(TestCase):
    """A virtual host of its own, and nodes in it."""

    timeout = 120

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.server = rabbit()
        self.url = self.server.new_vhost()
        self.vhost = self.url.rpartition("/")[2]
        self.heard: list[Message] = []

    def answer(self, message: Message) -> bytes:
        self.heard.append(message)
        return b"answer"

    def make(self, url: str = "", **more: Any) -> RabbitBus:
        mesh = MeshSettings(
            beat=0.2,
            silence=1.0,
            link=LinkSettings(ConnectionSettings(timeout=2.0), longest_wait=0.3),
        )
        arguments: dict[str, Any] = {"settings": PATIENT, "mesh": mesh} | more
        bus = RabbitBus(self.reactor, url or self.url, wall=time.time, **arguments)
        self.addCleanup(bus.close)
        return bus

    async def open_bus(self, **more: Any) -> RabbitBus:
        bus = self.make(**more)
        await bus.connect()
        return bus

    async def until(self, condition: Any, what: str) -> None:
        await until(self.reactor, condition, what)

    def start_process(self) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", NODE, self.url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )

        def end() -> None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

        self.addCleanup(end)
        return process

    async def start_node(self) -> subprocess.Popen[str]:
        """Start a node in a process, and wait until it has subscribed."""
        process = self.start_process()
        self.assertEqual(await self.line(process), "ready\n")
        return process

    async def line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        text: str = await deferToThread(process.stdout.readline)
        return text


class BrokerTests(BusCase):
    """A-05, A-06, A-21, A-22: RabbitMQ itself is killed, and comes back."""

    async def test_killed(self) -> None:
        """Each call under way has exactly one outcome by its deadline and 100 ms; then
        everything is as before: subscriptions, exchanges, queues.
        """
        publisher, worker = await self.open_bus(), await self.open_bus()
        random = Random(9)
        late: list[Deferred[bytes]] = []

        def handler(message: Message) -> Any:
            if random.random() < 0.5:
                return b"done"
            late.append(Deferred())
            return late[-1]

        await worker.subscribe(["t.*"], handler)
        ended: dict[int, list[Outcome]] = {}
        in_time: dict[int, bool] = {}

        def publish(n: int) -> None:
            timeout = random.choice([0.3, 1.0, 2.0, 3.0])
            model = random.choice(["publish_reliable_random", "publish_reliable_specific"])
            ended[n] = []
            getattr(publisher, model)(b"x", f"t.{n % 7}", timeout).addCallback(ended[n].append)
            # What holds up the whole process is not the bus's fault: this is held up as well.
            self.reactor.callLater(timeout + 0.1, lambda: in_time.update({n: bool(ended[n])}))

        for n in range(200):
            publish(n)
        await self.until(lambda: sum(map(len, ended.values())) > 50, "some answers")
        await deferToThread(self.server.kill)
        for n in range(200, 300):
            publish(n)
        await self.until(lambda: not publisher.connected, "the end of the connection")
        refused = await publisher.publish_unreliable_all(b"", "t.1")
        self.assertEqual((refused.kind, refused.reason), (Kind.REFUSED, "not connected"))
        waiting = publisher.publish_reliable_random(b"x", "back", 60.0)
        await worker.subscribe(["back"], self.answer)
        await self.until(lambda: len(in_time) == 300, "the deadlines")
        self.assertEqual(Counter(in_time.values()), {True: 300})
        self.assertEqual({len(outcomes) for outcomes in ended.values()}, {1})
        kinds = Counter(outcome.kind for (outcome,) in ended.values())
        self.assertGreater(kinds[Kind.ANSWERED], 50)
        self.assertGreater(kinds[Kind.TIMEOUT] + kinds[Kind.NO_SUBSCRIBER], 50)
        await deferToThread(self.server.start)
        self.assertEqual((await waiting).data, b"answer")
        self.assertFalse(self.heard[0].redelivered)
        await self.until(lambda: worker.connected and publisher.connected, "the way back")
        for topic in ("t.1", "back"):
            outcome = await publisher.publish_unreliable_random(b"", topic)
            self.assertEqual(outcome, Outcome(Kind.SENT, receivers=1))
        for deferred in late:
            deferred.addErrback(lambda _: None)

    async def test_paused(self) -> None:
        """A-13, A-21: a broker that stands still: deadlines hold, and it goes on."""
        publisher, worker = await self.open_bus(), await self.open_bus()
        await worker.subscribe(["t"], self.answer)
        await deferToThread(self.server.pause)
        self.addCleanup(self.server.resume)
        start = self.reactor.seconds()
        outcomes = [publisher.publish_reliable_random(b"x" * 40_000, "t", 0.5) for _ in range(500)]
        kinds = Counter([(await outcome).kind for outcome in outcomes])
        self.assertEqual(kinds, {Kind.TIMEOUT: 500})
        self.assertLess(self.reactor.seconds() - start, 5.0)
        await deferToThread(self.server.resume)
        outcome = await publisher.publish_reliable_random(b"", "t", 20.0)
        self.assertEqual(outcome.data, b"answer")

    async def test_memory_alarm(self) -> None:
        """A-13: a broker low on memory takes nothing: what is kept for it is bounded, what has
        a deadline ends, and all goes on when it takes messages again.
        """
        publisher, worker = await self.open_bus(), await self.open_bus()
        await worker.subscribe(["t"], self.answer)
        limit = ("set_vm_memory_high_watermark",)
        self.addCleanup(self.server.control, *limit, "0.4")
        await deferToThread(self.server.control, *limit, "0.0000001")
        await self.until(lambda: not publisher._carrier.writable, "the alarm")
        waiting = publisher.publish_reliable_random(b"waits", "t", 60.0)
        kinds: Counter[Kind] = Counter()
        for _ in range(500):
            kinds[(await publisher.publish_unreliable_all(b"x" * 40_000, "t")).kind] += 1
        self.assertGreater(kinds[Kind.REFUSED], 50)
        outcome = await publisher.publish_reliable_random(b"", "t", 0.2)
        self.assertIn(outcome.kind, (Kind.TIMEOUT, Kind.NO_SUBSCRIBER))
        await deferToThread(self.server.control, *limit, "0.4")
        self.assertEqual((await waiting).data, b"answer")


class NodeTests(BusCase):
    """A-20: a node in a process of its own, with calls in its hands."""

    async def test_killed(self) -> None:
        """What it had in hand goes to another, at once."""
        process = await self.start_node()
        bus = await self.open_bus()
        waiting = [bus.publish_reliable_random(b"", "hold", 60.0) for _ in range(5)]
        for _ in waiting:
            self.assertEqual(await self.line(process), "held\n")
        await bus.subscribe(["hold"], self.answer)
        process.send_signal(signal.SIGKILL)
        for deferred in waiting:
            self.assertEqual((await deferred).data, b"answer")
        self.assertEqual({message.redelivered for message in self.heard}, {True})
        self.assertEqual(bus.nodes, ())

    async def test_frozen(self) -> None:
        """One that stands still counts as gone, and is known again when it goes on."""
        process = await self.start_node()
        bus = await self.open_bus()
        self.assertEqual((await bus.publish_reliable_random(b"1", "echo")).data, b"1")
        waiting = bus.publish_reliable_random(b"", "hold", 60.0)
        self.assertEqual(await self.line(process), "held\n")
        await bus.subscribe(["hold"], self.answer)
        process.send_signal(signal.SIGSTOP)
        self.assertEqual((await waiting).data, b"answer")
        late = bus.publish_reliable_random(b"2", "echo", 60.0)
        process.send_signal(signal.SIGCONT)
        self.assertEqual((await late).data, b"2")
        self.assertEqual(len(bus.nodes), 1)

    async def test_cut(self) -> None:
        """A-05, A-29: nodes whose connections are cut come back, again and again; a call is
        handled once.
        """
        publisher, worker = await self.open_bus(), await self.open_bus()
        answers: list[Deferred[bytes]] = []

        def hold(message: Message) -> Deferred[bytes]:
            answers.append(Deferred())
            return answers[-1]

        await worker.subscribe(["hold"], hold)
        waiting = publisher.publish_reliable_random(b"", "hold", 60.0)
        await self.until(lambda: answers, "the call")
        for _ in range(3):
            for bus in (publisher, worker):
                bus._carrier.drop("a test cuts it")
            await self.until(lambda: not worker.connected, "the end of the connection")
            await self.until(lambda: publisher.nodes and worker.nodes, "the way back")
        answers[0].callback(b"once")
        self.assertEqual((await waiting).data, b"once")
        self.assertEqual(len(answers), 1)


class QueueTests(BusCase):
    """A-13, A-62: what is made at the broker."""

    async def test_names_and_bounds(self) -> None:
        """All begins with the prefix, nothing is kept, and everything is bounded."""
        bus = await self.open_bus(prefix="my.bus", node="web")
        queues = {q["name"]: q for q in self.server.api(f"queues/{self.vhost}")}
        self.assertEqual(set(queues), {f"my.bus.{bus.node}.1", "my.bus.count"})
        self.assertTrue(bus.node.startswith("web-"))
        own = queues[f"my.bus.{bus.node}.1"]
        self.assertTrue(own["exclusive"])
        arguments = {k: v for k, v in own["arguments"].items() if k != "x-queue-type"}  # since 4.0
        self.assertEqual(
            arguments, {"x-message-ttl": 10_000, "x-max-length-bytes": 64 * 1024 * 1024}
        )
        self.assertEqual({q["durable"] for q in queues.values()}, {False})
        exchanges = self.server.api(f"exchanges/{self.vhost}")
        found = {e["name"]: (e["type"], e["durable"]) for e in exchanges if "my." in e["name"]}
        self.assertEqual(
            found, {"my.bus.all": ("fanout", False), "my.bus.nodes": ("direct", False)}
        )
        await bus.close()
        self.assertEqual(
            [q["name"] for q in self.server.api(f"queues/{self.vhost}")], ["my.bus.count"]
        )

    async def test_prefixes(self) -> None:
        """Several buses share a virtual host, and hear nothing of each other."""
        one, other = await self.open_bus(prefix="one"), await self.open_bus(prefix="other")
        await one.subscribe(["t"], self.answer)
        outcome = await other.publish_reliable_random(b"", "t", 0.3)
        self.assertEqual(outcome.kind, Kind.NO_SUBSCRIBER)
        self.assertEqual((one.nodes, other.nodes), ((), ()))

    async def test_poison(self) -> None:
        """A-09, A-16: what strangers put into a node's queue is dropped and counted."""
        publisher, worker = await self.open_bus(), await self.open_bus()
        await worker.subscribe(["t"], self.answer)
        sent = 0
        for properties in (
            {},
            {"type": "kupool.bus/1"},
            {"type": "kupool.bus/1", "app_id": "x", "reply_to": "y"},
        ):
            for exchange, key in (
                ("kupool.bus.nodes", f"kupool.bus.{worker.node}.1"),
                ("kupool.bus.all", ""),
                ("amq.default", "kupool.bus.count"),
            ):
                body = {
                    "properties": properties,
                    "routing_key": key,
                    "payload": base64.b64encode(b"\xc1poison").decode(),
                    "payload_encoding": "base64",
                }
                done = self.server.api(f"exchanges/{self.vhost}/{exchange}/publish", "POST", body)
                self.assertTrue(done["routed"])
                sent += exchange != "amq.default"

        async def counted() -> int:
            return (await worker.status()).counts.get("unreadable", 0)

        for _ in range(500):
            if await counted() == sent:
                break
            await deferLater(self.reactor, 0.01)
        self.assertEqual(await counted(), sent)
        outcome = await publisher.publish_reliable_random(b"", "t")
        self.assertEqual(outcome.data, b"answer")


class StartTests(BusCase):
    """A-06, A-38: what keeps a bus from working is one line, and shows no password."""

    async def refused(self, url: str, **more: Any) -> str:
        bus = self.make(url, **more)
        with self.assertRaises(BusError) as caught:
            await bus.connect()
        text = str(caught.exception)
        self.assertNotIn("\n", text)
        self.assertNotIn("s3cret", text)
        return text

    def account(self, **permissions: str) -> str:
        """Return a URL for a new user with permissions here."""
        user = f"user-{self.vhost}"
        self.server.api(f"users/{user}", "PUT", {"password": "s3cret", "tags": ""})
        self.addCleanup(self.server.api, f"users/{user}", "DELETE")
        if permissions:
            self.server.api(f"permissions/{self.vhost}/{user}", "PUT", permissions)
        return f"amqp://{user}:s3cret@{self.server.address}/{self.vhost}"

    async def test_refused(self) -> None:
        address = self.server.address
        for url, why in (
            ("amqp://guest:s3cret@127.0.0.1:1/", "RabbitMQ at 127.0.0.1:1 cannot be reached"),
            (f"amqp://guest:s3cret@{address}/", "refuses user 'guest': wrong password"),
            (self.server.url("nowhere"), "has no virtual host 'nowhere'"),
            (self.account(), f"does not let user 'user-{self.vhost}' use virtual host"),
        ):
            self.assertIn(why, await self.refused(url))

    async def test_closed_meanwhile(self) -> None:
        """A-06: who closes while there is no answer yet waits for nothing."""
        factory = Factory.forProtocol(Protocol)
        port = self.reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        address = f"127.0.0.1:{port.getHost().port}"
        bus = self.make(f"amqp://u:p@{address},{address}")
        connecting = bus.connect()
        await deferLater(self.reactor, 0.1)
        self.assertNoResult(connecting)
        await bus.close()
        await self.assertFailure(connecting, BusError)

    async def test_permissions(self) -> None:
        """Those for names that begin with the prefix are enough."""
        mine = "^my\\.bus.*"
        url = self.account(configure=mine, write=mine, read=mine)
        bus = self.make(url, prefix="my.bus")
        await bus.connect()
        self.assertTrue(bus.connected)
        text = await self.refused(url)
        # RabbitMQ 4 says which access.
        self.assertRegex(
            text, "lacks a permission: (configure )?access to exchange 'kupool.bus.all'"
        )

    async def test_something_else_there(self) -> None:
        """K-79: something else under the same name is named, with what differs."""
        path = f"exchanges/{self.vhost}/kupool.bus.all"
        self.server.api(path, "PUT", {"type": "topic", "durable": True})
        text = await self.refused(self.url)
        self.assertIn("exchange 'kupool.bus.all' exists with another type", text)
