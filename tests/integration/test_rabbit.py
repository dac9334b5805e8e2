"""The log in RabbitMQ when the broker is killed, stopped, full, changed or not for us."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall, deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from kupool.amqp.address import parse_brokers
from kupool.amqp.connection import connect
from kupool.amqp.links import LinkSettings
from kupool.amqp.publisher import PublisherSettings
from kupool.amqp.wire import ConnectionSettings
from kupool.log import LogUnavailable
from kupool.log.groups import RetrySettings
from kupool.log.rabbit import BrokerRefused, LogBrokerUnreachable
from kupool.log.rabbit.log import RabbitLog, RabbitSettings
from kupool.log.rabbit.topology import Topology
from tests.contract.test_log import Collector
from tests.servers.reactor import the_reactor
from tests.servers.services import rabbit

TOPOLOGY = Topology()

ROOT = Path(__file__).parents[2]

#: A process that takes entries and acknowledges the first ten of them.
CONSUMER = """
import sys, time
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from kupool.log.rabbit.log import RabbitLog

class Consumer:
    seen = 0
    def received(self, deliveries):
        for delivery in deliveries:
            self.seen += 1
            if self.seen <= 10:
                self.subscription.ack([delivery])
        print(self.seen, flush=True)

async def main():
    log, consumer = RabbitLog(reactor, time.time, sys.argv[1]), Consumer()
    await log.open()
    consumer.subscription = await log.consume("stats", consumer, 40)

Deferred.fromCoroutine(main())
reactor.run()
"""


class Appender:
    """Appends entries at a steady pace, and remembers how each ended."""

    def __init__(self, log: RabbitLog, name: str = "e") -> None:
        self._log = log
        self._name = name
        self._loop = LoopingCall(self._next)
        self.confirmed: list[str] = []
        self.failed: list[str] = []
        self.under_way = self.count = 0

    def start(self, test: TestCase) -> None:
        self._loop.clock = the_reactor()
        self._loop.start(0.004)
        test.addCleanup(self.stop)

    def stop(self) -> None:
        if self._loop.running:
            self._loop.stop()

    def _next(self) -> None:
        self.count += 1
        self.under_way += 1
        entry_id = f"{self._name}{self.count}"
        done = self._log.append(entry_id, entry_id.encode() * 20)
        done.addCallbacks(
            lambda _: self.confirmed.append(entry_id), self._not_kept, errbackArgs=(entry_id,)
        )
        done.addBoth(self._ended)

    def _not_kept(self, failure: Any, entry_id: str) -> None:
        failure.trap(LogUnavailable)
        self.failed.append(entry_id)

    def _ended(self, _: object) -> None:
        self.under_way -= 1


class RabbitCase(TestCase):
    """A virtual host of its own, and logs in it."""

    timeout = 240

    def setUp(self) -> None:
        self.server = rabbit()
        self.url = self.server.new_vhost()
        self.vhost = self.url.rpartition("/")[2]

    async def open_log(self, url: str = "", **settings: Any) -> RabbitLog:
        settings = {
            "look_every": 0.1,
            "retry": RetrySettings(attempts=3, delay=0.01),
            "link": LinkSettings(ConnectionSettings(timeout=3.0), longest_wait=0.5),
        } | settings
        log = RabbitLog(the_reactor(), time.time, url or self.url, RabbitSettings(**settings))
        self.addCleanup(log.close)
        await log.open()
        return log

    async def follow(self, log: RabbitLog, prefetch: int = 1000, ack: bool = True) -> Collector:
        consumer = Collector(ack)
        consumer.subscription = await log.consume("stats", consumer, prefetch)
        return consumer

    async def fill(self, log: RabbitLog, count: int, start: int = 0) -> list[str]:
        ids = [f"e{n}" for n in range(start, start + count)]
        for entry_id in ids:
            await log.append(entry_id, b"x")
        return ids

    async def until(self, condition: Callable[[], Any], what: str = "", times: int = 6000) -> None:
        for _ in range(times):
            if condition():
                return
            await deferLater(the_reactor(), 0.01)
        self.fail(f"waited too long: {what}")

    async def quiet(self, seconds: float = 0.3) -> None:
        await deferLater(the_reactor(), seconds)

    async def everything(self, log: RabbitLog) -> list[str]:
        """The ids of all entries in the stream."""
        found: list[str] = []
        position = 0
        while entries := await log.read(position, 500):
            found += [entry.entry_id for entry in entries]
            position = entries[-1].position
        return found

    def delete(self, kind: str, name: str) -> None:
        self.server.api(f"{kind}/{self.vhost}/{name}", "DELETE")

    def connections(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.server.api(f"vhosts/{self.vhost}/connections")
        return found

    async def cut(self, purpose: str) -> None:
        """Have the broker end the connection that is for a purpose."""
        found: list[str] = []

        def known() -> bool:  # the broker's own list of them lags
            found[:] = [
                one["name"]
                for one in self.connections()
                if one.get("client_properties", {}).get("connection_name", "").endswith(purpose)
            ]
            return bool(found)

        await self.until(known, f"a connection for {purpose}")
        for name in found:
            self.server.api(f"connections/{quote(name, '')}", "DELETE")

    async def reconnected(self, link: Any, before: Any) -> None:
        await self.until(lambda: link.connection not in (None, before), "a new connection")


def first_seen(ids: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(ids))


class BrokerFaultTests(RabbitCase):
    async def kill_and_restart(self, log: RabbitLog, work: Appender, count: int) -> None:
        await self.until(lambda: len(work.confirmed) > count, "appends")
        await deferToThread(self.server.kill)
        await self.until(lambda: work.failed, "a refusal while the broker is gone")
        self.assertIn("RabbitMQ at 127.0.0.1", log.status().problem)
        await deferToThread(self.server.start)
        confirmed = len(work.confirmed)
        await self.until(lambda: len(work.confirmed) > confirmed + 100, "appends afterwards")

    async def test_kill_9(self) -> None:
        """K-81, K-52: the broker is killed under load and comes back: what was confirmed is
        all there, what failed was not kept, and nothing else is.
        """
        log = await self.open_log()
        consumer = await self.follow(log)
        work = Appender(log)
        work.start(self)
        for count in (300, 1000):
            await self.kill_and_restart(log, work, count)
        work.stop()
        await self.until(lambda: not work.under_way, "the last appends")
        await self.until(lambda: set(consumer.ids) >= set(work.confirmed), "deliveries")
        await self.until(lambda: log.status().depth == 0, "acknowledgements")
        in_stream = await self.everything(log)
        self.assertEqual(set(in_stream), set(work.confirmed))
        self.assertEqual(set(consumer.ids), set(work.confirmed))
        self.assertEqual(len(set(work.confirmed)) + len(set(work.failed)), work.count)
        self.assertEqual(log.status().problem, "")

    async def test_stopped_broker(self) -> None:
        """K-81, K-52: a broker that hangs takes nothing more after moments; what was on its
        way is confirmed when it goes on, and is there.
        """
        log = await self.open_log(publisher=PublisherSettings(stalled=0.5, silent=60.0))
        work = Appender(log)
        work.start(self)
        await self.until(lambda: len(work.confirmed) > 100, "appends")
        await deferToThread(self.server.pause)
        self.addCleanup(self.server.resume)
        await self.until(lambda: work.failed, "refusals")
        self.assertIn("does not confirm", log.status().problem)
        work.stop()
        await self.quiet()
        self.assertGreater(work.under_way, 0)
        self.server.resume()
        await self.until(lambda: not work.under_way, "the last confirms")
        self.assertEqual(set(await self.everything(log)), set(work.confirmed))

    async def test_silent_connection(self) -> None:
        """K-81: a connection without confirms is given up, also while its buffer is full."""
        settings = PublisherSettings(stalled=30.0, silent=1.0)
        log = await self.open_log(publisher=settings)
        before = log._publishing.connection
        await deferToThread(self.server.pause)
        self.addCleanup(self.server.resume)
        waiting = [log.append(f"e{n}", b"x" * 1_000_000) for n in range(20)]
        await self.until(lambda: log._publishing.connection is not before, "the end of it")
        self.assertTrue(before is not None and not before.is_open)
        self.server.resume()
        for done in waiting:
            await done
        self.assertEqual(first_seen(await self.everything(log)), [f"e{n}" for n in range(20)])

    async def test_given_up(self) -> None:
        """K-52: where it is told to, it gives up what is not confirmed in time."""
        log = await self.open_log(publisher=PublisherSettings(give_up=0.5, silent=60.0))
        await deferToThread(self.server.pause)
        self.addCleanup(self.server.resume)
        with self.assertRaises(LogUnavailable) as caught:
            await log.append("e", b"x")
        self.assertIn("not confirmed in time", str(caught.exception))
        self.server.resume()
        await log.append("f", b"x")
        self.assertIn("f", await self.everything(log))

    async def test_memory_alarm(self) -> None:
        """K-81, K-84: a broker low on memory takes nothing, and says so; consuming goes on.
        What it was sent meanwhile is confirmed when it takes entries again.
        """
        log = await self.open_log()
        await self.fill(log, 5)
        limit = ("set_vm_memory_high_watermark",)
        self.addCleanup(self.server.control, *limit, "0.4")
        await deferToThread(self.server.control, *limit, "0.0000001")
        waiting = log.append("blocked", b"x")
        await self.until(lambda: "low on memory" in log.status().problem, "the alarm")
        with self.assertRaises(LogUnavailable):
            await log.append("refused", b"x")
        consumer = await self.follow(log)
        await self.until(lambda: len(consumer.deliveries) == 5, "deliveries")
        self.assertFalse(waiting.called)
        await deferToThread(self.server.control, *limit, "0.4")
        await waiting
        await self.until(lambda: log.status().problem == "", "the end of the alarm")
        await self.fill(log, 1, 5)
        self.assertEqual(
            first_seen(await self.everything(log)), [*(f"e{n}" for n in range(5)), "blocked", "e5"]
        )


class TroubleTests(RabbitCase):
    async def lost_with(self, *names: str) -> None:
        """Delete queues under way: what is appended then ends up in every queue."""
        log = await self.open_log()
        await self.fill(log, 3)
        for name in names:
            self.delete("queues", name)
        await log.append("after", b"x")
        consumer = await self.follow(log)
        await self.until(lambda: "after" in consumer.ids, "the delivery")
        self.assertIn("after", await self.everything(log))
        self.assertTrue(self.flushLoggedErrors() == [])

    async def test_deleted_queue(self) -> None:
        """K-79: with the queue gone, the stream alone does not make an entry kept."""
        await self.lost_with(TOPOLOGY.queue)

    async def test_deleted_stream(self) -> None:
        """K-79, K-77: with the stream gone, the queue alone does not make an entry kept."""
        await self.lost_with(TOPOLOGY.stream)

    async def test_nowhere_to_go(self) -> None:
        """K-79: what no queue takes comes back, and is published again where one does."""
        await self.lost_with(TOPOLOGY.queue, TOPOLOGY.stream)

    async def test_unroutable_among_others(self) -> None:
        """K-79: entries that are confirmed together with one that came back are not mixed up."""
        log = await self.open_log()
        ids = await self.fill(log, 3)
        vhost, exchange = self.vhost, TOPOLOGY.exchange
        for queue in (TOPOLOGY.queue, TOPOLOGY.stream):
            self.server.api(f"bindings/{vhost}/e/{exchange}/q/{queue}/~", "DELETE")
        ids += [f"e{n}" for n in range(3, 203)]
        waiting = [log.append(entry_id, b"x") for entry_id in ids[3:]]
        for done in waiting:
            await done
        self.assertEqual(first_seen(await self.everything(log)), ids)
        consumer = await self.follow(log)
        await self.until(lambda: len(set(consumer.ids)) == len(ids), "deliveries")
        self.assertEqual(first_seen(consumer.ids), ids)

    async def test_deleted_exchange(self) -> None:
        """K-79: the exchange is made again, and the entry published to it."""
        log = await self.open_log()
        self.delete("exchanges", TOPOLOGY.exchange)
        await log.append("after", b"x")
        self.assertEqual(await self.everything(log), ["after"])

    async def test_deleted_while_consumed(self) -> None:
        """K-81: a consumer whose queue is deleted goes on with the one that is made again."""
        log = await self.open_log()
        consumer = await self.follow(log)
        await self.fill(log, 3)
        await self.until(lambda: len(consumer.deliveries) == 3, "deliveries")
        self.delete("queues", TOPOLOGY.queue)
        # What comes before the queue is made again is in the stream alone.
        for number in range(600):
            await log.append(f"after{number}", b"x")
            await self.quiet(0.1)
            if any(entry_id.startswith("after") for entry_id in consumer.ids):
                return
        self.fail("waited too long: the delivery")

    async def test_refused_entries(self) -> None:
        """K-79, K-81: an entry that the broker refuses is sent again, on a new channel, until
        it is taken; what was confirmed before is still there, and the order is kept.
        """
        log = await self.open_log()
        policy = f"policies/{self.vhost}/full"
        definition = {"max-length": 3, "overflow": "reject-publish"}
        self.server.api(
            policy,
            "PUT",
            {"pattern": f"^{TOPOLOGY.queue}$", "apply-to": "queues", "definition": definition},
        )
        queue = f"queues/{self.vhost}/{TOPOLOGY.queue}"
        await self.until(lambda: self.server.api(queue).get("policy") == "full", "the policy")
        work = Appender(log)
        work.start(self)
        channels = set()

        def refused_often() -> bool:
            channels.add(id(log._publisher._channel))
            return len(channels) > 3 and work.under_way > 0

        await self.until(refused_often, "refusals")
        work.stop()
        confirmed = list(work.confirmed)
        self.server.api(policy, "DELETE")
        await self.until(lambda: not work.under_way, "the confirm")
        self.assertEqual(work.confirmed[: len(confirmed)], confirmed)
        consumer = await self.follow(log)
        await self.until(lambda: set(consumer.ids) == set(work.confirmed), "deliveries")
        self.assertEqual(first_seen(consumer.ids), work.confirmed)
        self.assertEqual(work.failed, [])

    async def test_cut_while_publishing(self) -> None:
        """K-81: connections that are cut under load cost nothing and change no order."""
        log = await self.open_log()
        consumer = await self.follow(log)
        work = Appender(log)
        work.start(self)
        for _ in range(2):
            confirmed = len(work.confirmed)
            await self.until(lambda n=confirmed: len(work.confirmed) > n + 100, "appends")
            await self.cut("publishing")
        confirmed = len(work.confirmed)
        await self.until(lambda: len(work.confirmed) > confirmed + 100, "appends")
        work.stop()
        await self.until(lambda: not work.under_way, "the last appends")
        await self.until(lambda: set(consumer.ids) >= set(work.confirmed), "deliveries")
        in_order = sorted(work.confirmed, key=lambda entry_id: int(entry_id[1:]))
        self.assertEqual(first_seen(consumer.ids), in_order)
        self.assertEqual(first_seen(await self.everything(log)), in_order)

    async def test_two_publishers(self) -> None:
        """K-79: each publisher's entries are in the order in which it appended them."""
        one, two = await self.open_log(), await self.open_log()
        first, second = Appender(one, "a"), Appender(two, "b")
        first.start(self)
        second.start(self)
        await self.until(lambda: min(len(w.confirmed) for w in (first, second)) > 300, "appends")
        first.stop()
        second.stop()
        await self.until(lambda: not first.under_way + second.under_way, "the last appends")
        consumer = await self.follow(one)
        await self.until(lambda: len(consumer.ids) == first.count + second.count, "deliveries")
        for ids in (consumer.ids, await self.everything(two)):
            for name, work in (("a", first), ("b", second)):
                mine = [entry_id for entry_id in ids if entry_id.startswith(name)]
                self.assertEqual(mine, [f"{name}{n + 1}" for n in range(work.count)])

    async def test_bounded_in_flight(self) -> None:
        """K-83: only so much is on its way; more is refused at once and was not kept."""
        log = await self.open_log(publisher=PublisherSettings(entries=10))
        waiting = [log.append(f"e{n}", b"x") for n in range(10)]
        with self.assertRaises(LogUnavailable) as caught:
            await log.append("too many", b"x")
        self.assertIn("too many entries", str(caught.exception))
        for done in waiting:
            await done
        self.assertEqual(await self.everything(log), [f"e{n}" for n in range(10)])

    async def test_closed(self) -> None:
        """K-85: what is on its way at a close is confirmed; then nothing is taken."""
        log = await self.open_log()
        waiting = [log.append(f"e{n}", b"x") for n in range(100)]
        closed = log.close()
        with self.assertRaises(LogUnavailable):
            await log.append("late", b"x")
        await closed
        for done in waiting:
            await done
        again = await self.open_log()
        self.assertEqual(len(await self.everything(again)), 100)

    async def test_connections(self) -> None:
        """K-84: publishing, consuming and reading have a connection each."""
        log = await self.open_log()
        await self.follow(log)
        await self.until(lambda: len(self.connections()) == 3, "connections")
        await log.close()
        await self.until(lambda: self.connections() == [], "the end of them")


class ConsumerTests(RabbitCase):
    async def test_killed_consumer(self) -> None:
        """K-79, K-53: what a killed process had not acknowledged is delivered to the next one."""
        log = await self.open_log()
        ids = await self.fill(log, 100)
        process = subprocess.Popen(  # noqa: ASYNC220
            [sys.executable, "-c", CONSUMER, self.url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(process.kill)
        assert process.stdout is not None
        output = process.stdout

        def taken() -> int:
            return next(count for line in output if (count := int(line)) >= 50)

        # Its prefetch is 40, and it acknowledges ten.
        self.assertEqual(await deferToThread(taken), 50)
        process.send_signal(signal.SIGKILL)
        process.wait()
        output.close()
        consumer = await self.follow(log)
        await self.until(lambda: len(consumer.deliveries) >= 90, "deliveries")
        await self.until(lambda: log.status().depth == 0, "acknowledgements")
        await self.quiet()
        self.assertEqual(sorted(consumer.ids), sorted(ids[10:]))

    async def test_cut_while_processing(self) -> None:
        """K-81, K-82: what the consumer still has when the connection is cut is not handed to
        it again, and is acknowledged on the new one.
        """
        log = await self.open_log()
        ids = await self.fill(log, 60)
        consumer = await self.follow(log, prefetch=20, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 20, "deliveries")
        for _ in range(2):
            before = log._consuming.connection
            await self.cut("consuming")
            await self.until(lambda b=before: log._consuming.connection is not b, "the cut")
            # Done with while there is no connection, and so not to be told.
            consumer.subscription.ack(consumer.deliveries[:5])
            await self.reconnected(log._consuming, before)
            await self.until(lambda: len(consumer.deliveries) == 25, "deliveries")
            await self.quiet()
            self.assertEqual(len(consumer.deliveries), 25)
        consumer.subscription.ack(consumer.deliveries)
        await self.until(lambda: len(consumer.deliveries) == 45, "deliveries")
        consumer.subscription.ack(consumer.deliveries)
        await self.until(lambda: len(consumer.deliveries) == 60, "deliveries")
        consumer.subscription.ack(consumer.deliveries)
        await self.until(lambda: log.status().depth == 0, "acknowledgements")
        self.assertEqual(sorted(consumer.ids), sorted(ids))

    async def test_refused_while_away(self) -> None:
        """K-80: an entry refused while the connection is gone comes again, or is buried."""
        log = await self.open_log()
        await self.fill(log, 3)
        consumer = await self.follow(log, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 3, "deliveries")
        before = log._consuming.connection
        await self.cut("consuming")
        await self.until(lambda: log._consuming.connection is not before, "the cut")
        consumer.subscription.nack(consumer.deliveries[0], "bad", False)
        consumer.subscription.nack(consumer.deliveries[1], "not now", True)
        consumer.subscription.ack(consumer.deliveries[2:3])
        await self.until(lambda: len(consumer.deliveries) == 4, "the second attempt")
        again = consumer.deliveries[3]
        self.assertEqual((again.entry.entry_id, again.attempt), ("e1", 2))
        consumer.subscription.ack([again])
        await self.until(lambda: log.status().depth == 0, "acknowledgements")
        await self.until(lambda: log.status().dead_letters == 1, "the dead letter")

    async def test_same_id_other_content(self) -> None:
        """K-80: two entries of one id are two entries, also over a new connection."""
        log = await self.open_log()
        await log.append("e", b"one")
        await log.append("e", b"two")
        consumer = await self.follow(log, ack=False)
        await self.until(lambda: len(consumer.deliveries) == 2, "deliveries")
        await self.cut("consuming")
        await self.quiet(1.0)
        consumer.subscription.ack(consumer.deliveries[:2])
        await self.until(lambda: log.status().depth == 0, "acknowledgements")
        await self.quiet()
        self.assertLessEqual({d.entry.body for d in consumer.deliveries[:2]}, {b"one", b"two"})


class StartTests(RabbitCase):
    """K-79: what keeps a start from working is one line that says what to do."""

    async def refused(self, url: str, kind: type[Exception] = BrokerRefused, **more: Any) -> str:
        with self.assertRaises(kind) as caught:
            await self.open_log(url, **more)
        text = str(caught.exception)
        self.assertNotIn("\n", text)
        self.assertNotIn("s3cret", text)
        self.assertIn(f"RabbitMQ at {self.server.address}", text)
        return text

    def account(self, **permissions: str) -> str:
        """Return a URL for a new user with permissions here."""
        user = f"user-{self.vhost}"
        self.server.api(f"users/{user}", "PUT", {"password": "s3cret", "tags": ""})
        self.addCleanup(self.server.api, f"users/{user}", "DELETE")
        if permissions:
            rights = {"configure": ".*", "write": ".*", "read": ".*"} | permissions
            self.server.api(f"permissions/{self.vhost}/{user}", "PUT", rights)
        return f"amqp://{user}:s3cret@{self.server.address}/{self.vhost}"

    async def test_wrong_password(self) -> None:
        url = f"amqp://guest:s3cret@{self.server.address}/{self.vhost}"
        text = await self.refused(url)
        self.assertIn("refuses user 'guest': wrong password, or no such user", text)

    async def test_wrong_vhost(self) -> None:
        text = await self.refused(self.server.url("nowhere"))
        self.assertIn("has no virtual host 'nowhere'", text)

    async def test_no_access_to_the_vhost(self) -> None:
        text = await self.refused(self.account())
        self.assertIn(f"does not let user 'user-{self.vhost}' use virtual host", text)

    async def test_missing_permission(self) -> None:
        text = await self.refused(self.account(configure="^$"))
        self.assertIn("lacks a permission", text)
        self.assertIn("access to exchange 'kupool_submissions'", text)

    async def test_may_not_write(self) -> None:
        text = await self.refused(self.account(write="^$"))
        self.assertIn("lacks a permission", text)

    async def test_mismatch(self) -> None:
        """K-79: a queue of another kind is named, with the settings that are about it."""
        await (await self.open_log(topology=Topology(kind="classic"))).close()
        text = await self.refused(self.url)
        self.assertIn("queue 'kupool_submissions' is there as a classic queue of KuPool", text)
        self.assertIn("where a quorum queue is expected: set --mq-kind=classic, or", text)
        self.assertIn("--mq-queue", text)
        self.assertEqual(text.count("RabbitMQ at"), 1)

    async def declare(self, name: str, **arguments: Any) -> None:
        """Make a durable queue as somebody else would."""
        (broker,) = parse_brokers(self.url)
        connection = await connect(the_reactor(), broker, ConnectionSettings(), "somebody")
        channel = await connection.channel()
        await channel.declare_queue(name, arguments)
        connection.close()
        await connection.ended()

    def names(self) -> set[str]:
        """The names of all queues here, and of the exchanges that are not the broker's own."""
        queues = {queue["name"] for queue in self.server.api(f"queues/{self.vhost}")}
        exchanges = {exchange["name"] for exchange in self.server.api(f"exchanges/{self.vhost}")}
        return queues | {name for name in exchanges if name and not name.startswith("amq.")}

    async def test_queue_of_the_first_implementation(self) -> None:
        """Issue 11, point 8: it is explained by the settings, whichever kind is set, and
        nothing is made before that is known.
        """
        await self.declare("kupool_submissions")
        for kind in ("quorum", "classic"):
            text = await self.refused(self.url, topology=Topology(kind=kind))
            self.assertIn("queue 'kupool_submissions' is there and is not one of KuPool's", text)
            self.assertIn("the first implementation made a classic queue without arguments", text)
            self.assertIn(f"a {kind} queue with dead letters is expected", text)
            self.assertIn("set another name with --mq-queue", text)
            self.assertEqual(self.names(), {"kupool_submissions"})
        await self.open_log(topology=Topology(queue="other"))
        self.assertIn("other.stream", self.names())

    async def test_nothing_is_made_beside_what_does_not_fit(self) -> None:
        """Issue 11, point 8: the same for each of the other names."""
        for name in ("kupool_submissions.stream", "kupool_submissions.dead"):
            await self.declare(name, **{"x-max-length": 7})
            await self.refused(self.url)
            self.assertEqual(self.names(), {name})
            self.delete("queues", name)

    async def test_other_retention(self) -> None:
        await (await self.open_log(topology=Topology(max_age="1D"))).close()
        text = await self.refused(self.url, topology=Topology(max_age="7D"))
        self.assertIn("'kupool_submissions.stream' exists with another x-max-age", text)

    async def test_password_changed_later(self) -> None:
        """K-81: what goes wrong later is said in the status, and mended when it is."""
        url = self.account(read=".*")
        log = await self.open_log(url)
        user = f"user-{self.vhost}"
        self.server.api(f"users/{user}", "PUT", {"password": "other", "tags": ""})
        await self.cut("publishing")
        await self.until(lambda: "wrong password" in log.status().problem, "the problem")
        with self.assertRaises(LogUnavailable):
            await log.append("e", b"x")
        self.server.api(f"users/{user}", "PUT", {"password": "s3cret", "tags": ""})
        await self.until(lambda: log.status().problem == "", "the way back")
        await log.append("f", b"x")

    async def test_several_addresses(self) -> None:
        """K-81: of several brokers the first that answers is used."""
        account, _, rest = self.url.partition("@")
        log = await self.open_log(f"{account}@127.0.0.1:1,{rest}")
        await log.append("e", b"x")
        self.assertEqual(await self.everything(log), ["e"])

    async def test_nobody_there(self) -> None:
        """A log that is required fails the start; another opens, and says what is wrong."""
        url = "amqp://guest:s3cret@127.0.0.1:1/"
        with self.assertRaises(LogBrokerUnreachable) as caught:
            await self.open_log(url)
        self.assertIn("RabbitMQ at 127.0.0.1:1 cannot be reached", str(caught.exception))
        log = await self.open_log(url, required=False)
        self.assertIn("cannot be reached", log.status().problem)
        with self.assertRaises(LogUnavailable):
            await log.append("e", b"x")

    async def test_broker_that_does_not_answer(self) -> None:
        """K-81: a broker that takes connections and says nothing is not waited for."""
        await deferToThread(self.server.pause)
        self.addCleanup(self.server.resume)
        link = LinkSettings(ConnectionSettings(timeout=0.5))
        text = await self.refused(self.url, LogBrokerUnreachable, link=link)
        self.assertIn("does not answer", text)

    async def test_later_start_of_the_broker(self) -> None:
        """K-81: consumers and publishers that began without a broker go on with one."""
        await deferToThread(self.server.pause)
        self.addCleanup(self.server.resume)
        link = LinkSettings(ConnectionSettings(timeout=0.5), longest_wait=0.2)
        log = await self.open_log(required=False, link=link)
        consumer = await self.follow(log)
        self.server.resume()
        await self.until(lambda: log.status().problem == "", "the broker")
        done: Deferred[None] = log.append("e", b"x")
        await done
        await self.until(lambda: consumer.ids == ["e"], "the delivery")
