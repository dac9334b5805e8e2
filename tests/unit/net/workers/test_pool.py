"""Worker pools on a fake clock: balance, order, full queues, stuck handlers, the stop."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.configuration import ServerConfig
from kupool.net.observer import Observer
from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.router import Router
from kupool.net.server import Server
from kupool.net.testing import MemoryNetwork
from kupool.net.transport.protocols import TLV
from kupool.net.workers.pool import Balance, Drained, Full, WorkerPool, WorkerSettings
from kupool.session.connection import Connection
from kupool.session.lifecycle import OPEN
from kupool.wire.framing import LINE, Tlv, encode_tlv
from tests.fakes.peers import Bench, lines, tlvs


class Slow:
    """A handler whose messages end when the test says so."""

    def __init__(self) -> None:
        self.begun: list[tuple[int, bytes]] = []
        self.waiting: dict[tuple[int, bytes], Deferred[bytes]] = {}

    def __call__(self, connection: Connection, number: int, data: bytes) -> Deferred[bytes]:
        self.begun.append((connection.id, data))
        waiting = self.waiting[connection.id, data] = Deferred()
        return waiting

    def end(self, connection: Connection, data: bytes) -> None:
        self.waiting.pop((connection.id, data)).callback(data.upper())


class PoolCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.slow = Slow()

    def begin(self, key: Any = None, **settings: Any) -> None:
        self.router = IdRouter()
        self.bench = Bench(self.router)
        self.clock = self.bench.clock
        self.pool = WorkerPool(self.clock, WorkerSettings(**settings), key=key)
        self.router.add(1, self.slow, use=[self.pool])
        self.router.add(2, lambda c, n, data: data, use=[self.pool])
        self.router.add(3, lambda c, n, data: data)
        self.peers = [self.bench.connect(TLV) for _ in range(4)]

    def send(self, peer: int, data: bytes, number: int = 1) -> None:
        self.peers[peer][0].feed(encode_tlv(data, number))

    def end(self, peer: int, data: bytes) -> None:
        self.slow.end(self.peers[peer][0], data)

    def answers(self, peer: int) -> list[Any]:
        """What a peer was sent: data, or the code of an error."""
        found = tlvs(self.peers[peer][1].taken())
        return [data if number else json.loads(data).get("code") for number, data in found]

    def begun(self) -> list[bytes]:
        return [data for _, data in self.slow.begun]


class BalanceTests(PoolCase):
    """P-44, P-45: workers with queues of their own, and how messages find them."""

    def test_round_robin(self) -> None:
        """P-45: each message to the next worker, whoever sent it."""
        self.begin(size=3)
        for data in (b"a", b"b", b"c", b"d", b"e"):
            self.send(0, data)
        self.assertEqual(self.pool.loads, [2, 2, 1])
        self.assertEqual(self.begun(), [b"a", b"b", b"c"])
        self.end(0, b"b")
        self.assertEqual(self.begun(), [b"a", b"b", b"c", b"e"])

    def test_by_connection(self) -> None:
        self.begin(size=2, balance="by-connection")
        for data in (b"a", b"b"):
            for peer in range(4):
                self.send(peer, data)
        self.assertEqual(self.pool.loads, [4, 4])
        self.assertEqual(self.slow.begun, [(1, b"a"), (2, b"a")])

    def test_by_key(self) -> None:
        self.begin(size=8, balance=Balance.BY_KEY, key=lambda c, number, data: data[:1])
        for data in (b"a1", b"b1", b"a2", b"a3", b"b2"):
            for peer in range(2):
                self.send(peer, data)
        by_worker = {hash(b"a") % 8: 6, hash(b"b") % 8: 4}
        if len(by_worker) == 1:
            by_worker = {hash(b"a") % 8: 10}
        self.assertEqual(self.pool.loads, [by_worker.get(n, 0) for n in range(8)])
        with self.assertRaises(ValueError):
            WorkerPool(self.clock, WorkerSettings(balance="by-key"))

    def test_least_loaded(self) -> None:
        self.begin(size=3, balance="least-loaded")
        for data in (b"a", b"b", b"c", b"d"):
            self.send(0, data)
        self.assertEqual(self.pool.loads, [2, 1, 1])
        self.end(0, b"b")
        self.send(1, b"e")
        self.send(1, b"f")
        self.assertEqual(self.pool.loads, [2, 2, 1])

    def test_idle_workers_answer_at_once(self) -> None:
        """P-44: a message costs no turn of the reactor when its worker is free."""
        self.begin(size=1)
        self.send(0, b"now", 2)
        self.assertEqual(self.answers(0), [b"now"])
        self.assertEqual(self.pool.counters["handled"], 1)

    def test_by_method(self) -> None:
        """P-44: messages of both routers go through the one method ``submit``."""
        self.begin(size=1)
        router = Router()
        router.add("add", lambda c, m: m.params + 1, int)
        router.use(self.pool)
        connection, transport = Bench(router).connect(LINE)
        self.send(0, b"a")
        connection.feed(b'{"id":1,"method":"add","params":1}\n')
        self.assertEqual(transport.taken(), b"")
        self.end(0, b"a")
        self.assertEqual(lines(transport.taken()), [{"id": 1, "result": 2}])

    def test_as_a_file_sets_it_up(self) -> None:
        """P-44: as many workers as ``WorkerPoolSize``, with ``MaxWorkerTaskLen`` places."""
        config = ServerConfig(worker_pool_size=4, max_worker_task_len=2)
        settings = WorkerSettings.from_config(config, wait=0.0)
        self.begin(size=settings.size, queue=settings.queue, wait=settings.wait)
        for n in range(13):
            self.send(0, b"%d" % n)
        self.assertEqual(self.pool.loads, [3, 3, 3, 3])
        self.assertEqual(self.answers(0), [27])

    def test_settings_that_are_none(self) -> None:
        for wrong in (
            {"size": -1},
            {"queue": 0},
            {"concurrency": 0},
            {"wait": -1},
            {"timeout": -1},
            {"balance": "any"},
            {"full": "explode"},
        ):
            self.assertRaises(ValueError, WorkerSettings, **wrong)


class OrderTests(PoolCase):
    """P-43, P-46: what is kept in order."""

    def test_each_connections_messages_in_order(self) -> None:
        """P-46: by connection, however long each takes, and whatever the queue's room."""
        self.begin(size=2, balance="by-connection", queue=2, wait=60.0)
        sent = [b"%d" % n for n in range(10)]
        for peer in range(4):
            self.peers[peer][0].feed(b"".join(encode_tlv(data, 1) for data in sent))
        received: dict[int, list[bytes]] = {peer: [] for peer in range(4)}
        while self.slow.waiting:
            # The one that began last ends first.
            self.slow.waiting.pop(list(self.slow.waiting)[-1]).callback(b"done")
            self.clock.advance(0)
        for peer in range(4):
            number = self.peers[peer][0].id
            received[peer] = [data for owner, data in self.slow.begun if owner == number]
            self.assertEqual(received[peer], sent)
            self.assertEqual(self.answers(peer), [b"done"] * 10)

    def test_each_keys_messages_in_order(self) -> None:
        """P-46: by key, across connections."""
        self.begin(size=3, balance="by-key", key=lambda c, number, data: data[:1])
        sent = [
            (peer, b"%s%d" % (key, n)) for n in range(6) for peer, key in enumerate((b"x", b"y"))
        ]
        for n, (peer, data) in enumerate(sent):
            self.send((peer + n) % 4, data)
        while self.slow.waiting:
            self.slow.waiting.pop(list(self.slow.waiting)[-1]).callback(b"")
        for key in (b"x", b"y"):
            of_key = [data for _, data in sent if data.startswith(key)]
            self.assertEqual([d for d in self.begun() if d.startswith(key)], of_key)

    def test_sends_of_a_connection_leave_in_order(self) -> None:
        """P-43: from handlers, from elsewhere, and while the peer does not read."""
        self.begin(size=1)
        connection, transport = self.peers[0]
        expected = []
        for n in range(300):
            if n == 100:
                transport.full = True
            if n == 200:
                transport.drain()
            data = b"%d" % n
            expected.append(data)
            if n % 3:
                connection.send_encoded(encode_tlv(data, 3))
            else:
                self.send(0, data, 2 + n % 2)
        self.assertEqual(self.answers(0), expected)


class FullTests(PoolCase):
    """P-47: a full queue: a bounded wait, then the policy; and nobody else waits."""

    def fill(self, **settings: Any) -> None:
        self.begin(size=1, queue=2, balance="by-connection", **settings)
        for data in (b"a", b"b", b"c"):
            self.send(0, data)
        self.assertEqual(self.pool.loads, [3])

    def test_rejected_after_the_wait(self) -> None:
        self.fill(wait=0.5)
        self.peers[0][0].feed(encode_tlv(b"d", 1) + encode_tlv(b"free", 3))
        transport = self.peers[0][1]
        self.assertFalse(transport.reading)
        self.clock.advance(0.4)
        self.assertEqual(self.answers(0), [])
        # Others are read, and answered where they need no worker.
        self.send(1, b"other", 3)
        self.assertEqual(self.answers(1), [b"other"])
        self.clock.advance(0.1)
        self.assertEqual(self.answers(0), [27, b"free"])
        self.assertTrue(transport.reading)
        self.assertEqual(self.pool.counters["reject"], 1)

    def test_a_place_in_time(self) -> None:
        self.fill(wait=0.5)
        self.peers[0][0].feed(encode_tlv(b"d", 1) + encode_tlv(b"free", 3))
        self.clock.advance(0.4)
        self.end(0, b"a")
        self.assertEqual(self.answers(0), [b"A", b"free"])
        for data in (b"b", b"c", b"d"):
            self.end(0, data)
        self.assertEqual(self.answers(0), [b"B", b"C", b"D"])
        self.clock.advance(60)
        self.assertEqual((self.pool.counters["reject"], self.answers(0)), (0, []))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_places_in_the_order_of_asking(self) -> None:
        self.fill(wait=5.0)
        for peer in (1, 2, 3):
            self.send(peer, b"%d" % peer)
        self.assertEqual(self.pool.loads, [6])
        while self.slow.waiting:
            self.slow.waiting.popitem()[1].callback(b"")
        self.assertEqual(self.begun(), [b"a", b"b", b"c", b"1", b"2", b"3"])

    def test_without_a_wait(self) -> None:
        self.fill(wait=0)
        for _ in range(5):
            self.send(0, b"d")
        self.assertEqual(self.answers(0), [27] * 5)
        self.assertEqual(self.pool.counters["reject"], 5)
        self.assertEqual(self.pool.loads, [3])

    def test_close(self) -> None:
        self.fill(wait=0, full="close")
        self.send(1, b"d")
        self.assertNotEqual(self.peers[1][0].state, OPEN)
        ((_, close),) = tlvs(self.peers[1][1].taken())
        self.assertEqual(json.loads(close)["params"]["reason"], "Temporarily unavailable")
        self.assertEqual((self.peers[0][0].state, self.pool.counters["close"]), (OPEN, 1))

    def test_drop(self) -> None:
        self.fill(wait=0.5, full=Full.DROP)
        self.send(1, b"d")
        self.clock.advance(0.5)
        self.assertEqual((self.answers(1), self.peers[1][0].state), ([], OPEN))
        self.assertEqual((self.pool.counters["drop"], self.pool.loads), (1, [3]))

    def test_its_connection_ends_while_it_waits(self) -> None:
        self.fill(wait=0.5)
        self.send(1, b"d")
        self.peers[1][0].abort()
        self.clock.advance(0.5)
        self.assertEqual((self.answers(1), self.pool.loads), ([], [3]))


class InlineTests(PoolCase):
    """P-48: size 0 handles in the event loop, with bounded concurrency."""

    def test_bounded(self) -> None:
        self.begin(size=0, concurrency=3, queue=2, wait=0)
        for n in range(6):
            self.send(0, b"%d" % n)
        self.assertEqual((len(self.slow.begun), self.pool.loads), (3, [5]))
        self.assertEqual(self.answers(0), [27])
        self.end(0, b"2")
        self.assertEqual((len(self.slow.begun), self.pool.loads), (4, [4]))
        self.assertEqual(self.answers(0), [b"2"])

    def test_at_once(self) -> None:
        self.begin(size=0)
        self.send(0, b"now", 2)
        self.assertEqual(self.answers(0), [b"now"])


class StuckTests(PoolCase):
    """P-49: a handler that does not end is isolated, and its worker goes on."""

    def test_timeout(self) -> None:
        self.begin(size=2, balance="by-connection", timeout=5.0)
        self.send(0, b"stuck")
        self.send(2, b"next")  # behind it: connections 1 and 3 share a worker
        self.send(1, b"other")
        self.assertEqual(self.begun(), [b"stuck", b"other"])
        stuck = self.slow.waiting[self.peers[0][0].id, b"stuck"]
        cancelled: list[Any] = []
        stuck.addErrback(lambda failure: cancelled.append(failure.type) or failure)
        self.clock.advance(4.9)
        self.end(1, b"other")
        self.assertEqual((self.answers(0), self.answers(1)), ([], [b"OTHER"]))
        self.clock.advance(0.1)
        self.assertEqual(self.answers(0), [37])
        self.assertEqual(self.begun()[-1], b"next")
        self.assertEqual(self.pool.counters["timeout"], 1)
        self.end(2, b"next")
        self.assertEqual(self.answers(2), [b"NEXT"])
        self.assertEqual(self.pool.stuck, 0)

    def test_a_coroutine_is_cancelled(self) -> None:
        self.begin(size=1, timeout=5.0)
        seen: list[object] = []

        async def hang(connection: Connection, number: int, data: bytes) -> None:
            try:
                await Deferred()
            except CancelledError as error:
                seen.append(type(error))
                raise

        self.router.add(9, hang, use=[self.pool])
        self.send(0, b"", 9)
        self.clock.advance(5)
        self.assertEqual((seen, self.answers(0)), ([CancelledError], [37]))
        self.send(0, b"on", 2)
        self.assertEqual(self.answers(0), [b"on"])

    def test_one_that_takes_no_notice(self) -> None:
        """P-49: nobody waits for it, and what it says in the end goes nowhere."""
        self.begin(size=1, timeout=5.0)
        waits: list[Deferred[None]] = []

        async def stubborn(connection: Connection, number: int, data: bytes) -> bytes:
            for _ in range(3):
                waits.append(Deferred())
                try:
                    await waits[-1]
                except CancelledError:
                    continue
            return b"late"

        self.router.add(9, stubborn, use=[self.pool])
        self.send(0, b"", 9)
        self.send(0, b"next", 2)
        self.clock.advance(5)
        self.assertEqual((self.answers(0), self.pool.stuck), ([37, b"next"], 1))
        waits[-1].callback(None)
        waits[-1].callback(None)
        self.assertEqual((self.answers(0), self.pool.stuck), ([], 0))
        self.assertEqual(self.pool.counters["late"], 1)

    def test_without_a_limit(self) -> None:
        self.begin(size=1, timeout=0)
        self.send(0, b"a")
        self.clock.advance(10_000)
        self.end(0, b"a")
        self.assertEqual(self.answers(0), [b"A"])

    def test_exceptions_free_the_worker(self) -> None:
        self.begin(size=1)

        def fail(connection: Connection, number: int, data: bytes) -> object:
            raise ZeroDivisionError

        self.router.add(9, fail, use=[self.pool])
        self.send(0, b"", 9)  # at once
        self.send(0, b"a")
        self.send(0, b"", 9)  # from the queue
        self.send(0, b"b", 2)
        self.slow.waiting[self.peers[0][0].id, b"a"].errback(ZeroDivisionError())
        self.assertEqual(self.answers(0), [20, 20, 20, b"b"])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        self.assertEqual(self.pool.loads, [0])

    def test_one_that_wants_the_process_to_exit(self) -> None:
        """P-49: from the queue, too, it is an error as any other, and the worker goes on."""
        self.begin(size=1)

        def leave(connection: Connection, number: int, data: bytes) -> object:
            raise SystemExit

        self.router.add(9, leave, use=[self.pool])
        self.send(0, b"a")
        self.send(1, b"", 9)
        self.send(2, b"b", 2)
        self.end(0, b"a")
        self.assertEqual((self.answers(1), self.answers(2)), ([20], [b"b"]))
        self.send(2, b"", 9)  # at once
        self.send(2, b"c", 2)
        self.assertEqual((self.answers(2), self.pool.loads), ([20, b"c"], [0]))
        self.assertEqual(len(self.flushLoggedErrors(SystemExit)), 2)

    def test_many_that_need_not_wait_leave_turns_to_others(self) -> None:
        """P-49: a long queue is not handled in one turn of the reactor."""
        self.begin(size=1, queue=1000)
        self.send(0, b"a")
        for n in range(250):
            self.send(1, b"%d" % n, 2)
        self.end(0, b"a")
        self.assertEqual((len(self.answers(1)), self.pool.loads), (100, [150]))
        self.clock.advance(0)
        self.assertEqual((len(self.answers(1)), self.pool.loads), (150, [0]))


class StopTests(PoolCase):
    """P-51: drained within a deadline, and what was dropped is reported."""

    def test_drained(self) -> None:
        self.begin(size=1)
        for data in (b"a", b"b"):
            self.send(0, data)
        stopped = Deferred.fromCoroutine(self.pool.stop(10.0))
        again = Deferred.fromCoroutine(self.pool.stop())
        self.send(1, b"late")
        self.assertEqual(self.answers(1), [27])
        self.assertEqual(self.pool.counters["stopped"], 1)
        self.end(0, b"a")
        self.assertNoResult(stopped)
        self.end(0, b"b")
        report = Drained(2, Counter())
        self.assertEqual(self.successResultOf(stopped), report)
        self.assertEqual(self.successResultOf(again), report)
        self.assertEqual(self.answers(0), [b"A", b"B"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_deadline(self) -> None:
        self.begin(size=1, queue=2, wait=60.0, timeout=60.0)
        for data in (b"a", b"b", b"c"):
            self.send(0, data)
        self.send(1, b"waits")
        stopped = Deferred.fromCoroutine(self.pool.stop(3.0))
        self.end(0, b"a")
        self.clock.advance(2.9)
        self.assertNoResult(stopped)
        self.clock.advance(0.1)
        report = self.successResultOf(stopped)
        self.assertEqual(report, Drained(1, Counter({"1": 3})))
        self.assertEqual((self.answers(0), self.answers(1)), ([b"A", 27, 27], [27]))
        self.assertEqual(self.begun(), [b"a", b"b"])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.successResultOf(Deferred.fromCoroutine(self.pool.stop())), report)

    def test_nothing_to_do(self) -> None:
        self.begin(size=2)
        stopped = Deferred.fromCoroutine(self.pool.stop())
        self.assertEqual(self.successResultOf(stopped), Drained(0, Counter()))


class ServedTests(SynchronousTestCase):
    """P-51: a server that stops drains its pool first, and the answers arrive."""

    def setUp(self) -> None:
        self.network = MemoryNetwork()
        self.pool = WorkerPool(self.network, WorkerSettings(size=1, queue=8, timeout=0))
        self.ended: list[Drained] = []
        router = IdRouter()
        router.add(1, self.work, use=[self.pool])
        self.server = Server(self.network, Observer(router), framing="tlv")
        self.server.before_stop(self.drain)
        self.network.run(self.server.listen([":8000"]))
        self.peer = self.network.connect(8000, "tlv")

    async def work(self, connection: Connection, number: int, data: bytes) -> bytes:
        await deferLater(self.network, 1.0)
        return data

    async def drain(self, server: Server) -> None:
        self.ended.append(await self.pool.stop(5.0))

    def test_drained(self) -> None:
        for data in (b"a", b"b", b"c"):
            self.peer.tell(Tlv(1, data))
        self.network.run(self.server.stop(), patience=10)
        self.assertEqual(self.ended, [Drained(3, Counter())])
        self.assertEqual(self.peer.items()[:3], [Tlv(1, b"a"), Tlv(1, b"b"), Tlv(1, b"c")])
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_more_than_the_deadline_takes(self) -> None:
        for n in range(9):
            self.peer.tell(Tlv(1, b"%d" % n))
        self.network.run(self.server.stop(), patience=20)
        (report,) = self.ended
        self.assertEqual(report.finished + report.dropped["1"], 9)
        self.assertIn(report.finished, (4, 5))
        *answers, close = self.peer.items()
        done = [item for item in answers if isinstance(item, Tlv) and item.message_id == 1]
        self.assertEqual(done, [Tlv(1, b"%d" % n) for n in range(report.finished)])
        self.assertEqual(len(answers), 9)
        self.assertIn(b"server going down", close.payload)  # type: ignore[union-attr]
        self.assertEqual(self.network.getDelayedCalls(), [])

    def test_a_peer_that_sends_no_more_gets_its_answers(self) -> None:
        self.server.manager.observer.settle = self.pool.settled  # type: ignore[method-assign]
        for data in (b"a", b"b"):
            self.peer.tell(Tlv(1, data))
        other = self.network.connect(8000, "tlv")
        other.tell(Tlv(1, b"other"))
        self.peer.finish()
        self.assertTrue(self.peer.open)
        self.network.advance(2.0)
        self.assertEqual(self.peer.items(), [Tlv(1, b"a"), Tlv(1, b"b")])
        self.assertEqual((self.peer.open, other.open), (False, True))
        self.network.advance(1.0)
        other.finish()
        self.assertEqual((other.items(), other.open), ([Tlv(1, b"other")], False))
