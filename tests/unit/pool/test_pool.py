"""The pool: sessions that come and go, and the whole way of a submission."""

from __future__ import annotations

from collections import Counter
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from kupool.net.interfaces import IConnectionObserver
from kupool.net.routing.router import IRouter
from kupool.permissions.grants import parse_grant
from kupool.permissions.table import PermissionTable
from kupool.pool.judge import Rules
from kupool.pool.pool import SessionSettings
from kupool.settings.declaration import JobSettings, LimitSettings, RateSettings
from kupool.stats.consumer import StatsConsumer
from kupool.stats.memory import MemoryStats
from kupool.wire.messages import JobParams, encode_request
from tests.fakes.pool_fixture import FRAME, LINE, WALL, HeldLog, PoolBench


class DefaultTests(SynchronousTestCase):
    """Issue 14: without settings it does what the table of settings says."""

    def test_defaults(self) -> None:
        jobs, rates, limits = JobSettings(), RateSettings(), LimitSettings()
        declared = SessionSettings(
            nonce_scope=jobs.nonce_scope,
            duplicate_scope=jobs.duplicate_scope,
            user_rate=rates.user_rate,
            ip_rate=rates.ip_rate,
            authorize_timeout=limits.authorize_timeout,
            first_frame=limits.first_frame,
            max_frame=limits.max_frame,
        )
        self.assertEqual(SessionSettings(), declared)


class SessionTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        bench = PoolBench().start()
        verifyObject(IConnectionObserver, bench.pool)
        verifyObject(IRouter, bench.handlers)
        peer = bench.connect()
        verifyObject(IRouter, peer.connection.router)

    def test_come_and_go(self) -> None:
        """K-21, K-86: nothing is left of a session that has ended."""
        bench = PoolBench(session=SessionSettings(user_rate=5, ip_rate=5)).start()
        peers = [bench.connect().authorize(f"user{n % 3}") for n in range(30)]
        self.assertEqual(bench.pool.sessions, 30)
        self.assertEqual(bench.pool.users, {"user0": 10, "user1": 10, "user2": 10})
        held = [bucket for peer in peers for bucket in peer.connection.context.shared]
        self.assertEqual({bucket.holders for bucket in held}, {10, 30})
        peers[0].leave()
        self.assertEqual(bench.pool.users, {"user0": 9, "user1": 10, "user2": 10})
        for peer in peers[1:]:
            peer.leave()
        self.assertEqual(bench.pool.sessions, 0)
        self.assertEqual(dict(bench.pool.users), {})
        self.assertEqual(len(bench.channel), 0)
        self.assertEqual(len(bench.manager), 0)
        self.assertEqual({bucket.holders for bucket in held}, {0})

    def test_before_the_first_job(self) -> None:
        """K-26: a session that comes before there is a job hears of none."""
        peer = PoolBench().connect()
        peer.send({"id": 1, "method": "authorize", "params": {"username": "ann"}})
        self.assertEqual(peer.raw(), b'{"id":1,"result":true}\n')

    def test_who_has_authorized_takes_no_place_of_others(self) -> None:
        """K-15: of one address, so many may not have authorized yet."""
        bench = PoolBench(max_unauthorized_per_ip=1).start()
        bench.connect().authorize()
        self.assertIsNone(bench.manager.refusal("192.0.2.1"))
        bench.connect()
        self.assertIsNotNone(bench.manager.refusal("192.0.2.1"))

    def test_only_who_may_not_call_all_is_asked_at_each_message(self) -> None:
        """Issue 15, build 2."""
        for grants, free, code in (((), True, 31), (("@operator call bus.*",), False, 33)):
            table = PermissionTable(map(parse_grant, grants))
            bench = PoolBench(permissions=table).start()
            peer = bench.connect().authorize()
            self.assertIs(peer.connection.router is bench.handlers, free)
            peer.send({"id": 3, "method": "bus.status"})
            self.assertEqual([message["code"] for message in peer.hear()], [code])

    def test_leaves_before_authorize(self) -> None:
        bench = PoolBench().start()
        bench.connect().leave()
        self.assertEqual(bench.pool.sessions, 0)

    def test_no_limits_no_buckets(self) -> None:
        bench = PoolBench().start()
        self.assertEqual(bench.connect().authorize().connection.context.shared, ())

    def test_limits_below_one_a_second(self) -> None:
        """K-46: one submission is accepted, and the next only after that time."""
        for settings in (SessionSettings(user_rate=0.5), SessionSettings(ip_rate=0.5)):
            bench = PoolBench(session=settings, rules=Rules(0, 0)).start()
            peer = bench.connect().authorize()
            accepted = []
            for turn in range(5):
                bench.at(float(turn))
                accepted.append(peer.submit(f"n{turn}")["result"])
            self.assertEqual(accepted, [True, False, True, False, True])

    def test_frame_limit(self) -> None:
        """K-07: the smaller of the two limits holds before authorize."""
        bench = PoolBench(session=SessionSettings(first_frame=1024, max_frame=100)).start()
        peer = bench.connect(FRAME)
        peer.send_bytes(b"\x02\x65\x00\x00\x00")
        peer.hear()
        self.assertEqual(peer.closes, ["frame too large"])

    def test_settle(self) -> None:
        """K-85: there is nothing to wait for where nothing is on its way."""
        log = HeldLog()
        bench = PoolBench(log=log).start()
        peer = bench.connect().authorize()
        self.assertIs(bench.pool.settle(peer.connection), None)
        peer.send(peer.submission("a"))
        settled = bench.pool.settle(peer.connection)
        assert settled is not None
        self.assertNoResult(settled)
        log.decide(True)
        self.successResultOf(settled)

    def test_broadcast_time(self) -> None:
        """K-95: how long the last job took is known."""
        bench = PoolBench(max_connections=0, interval=100.0)
        self.assertEqual(bench.pool.broadcast_seconds, 0.0)
        bench.start()
        self.assertEqual(bench.pool.broadcast_seconds, 0.0)
        for n in range(600):
            bench.connect().authorize(f"user{n}")
        bench.clock.advance(7.0)
        self.successResultOf(Deferred.fromCoroutine(bench.coordinator.rotate()))
        bench.clock.advance(0.25)
        self.assertEqual(bench.pool.broadcast_seconds, 0.25)

    def test_two_framings(self) -> None:
        """K-26: each session hears the job in its own framing."""
        bench = PoolBench().start()
        peers = [bench.connect(framing).authorize() for framing in (FRAME, LINE)]
        bench.at(30.0)
        heard = [peer.hear() for peer in peers]
        self.assertEqual(heard[0], heard[1])
        self.assertEqual(heard[0][0]["method"], "job")

    def test_a_nonce_for_each_session(self) -> None:
        """K-26, K-55: byte for byte what would be encoded for that session alone."""
        bench = PoolBench(session=SessionSettings(nonce_scope="session")).start()
        peers = [bench.connect(framing).authorize() for framing in (FRAME, LINE, LINE)]
        for peer in peers:
            peer.transport.clear()
        bench.at(30.0)
        job = bench.published[-1]
        for peer in peers:
            params = JobParams(job.job_id, job.server_nonce + peer.connection.context.suffix)
            payload = encode_request(None, "job", params)
            self.assertEqual(len(params.server_nonce), 48)  # 16 digits are the session's own
            self.assertEqual(peer.transport.value(), peer.connection.framing.encode(payload))


class WholeWayTests(SynchronousTestCase):
    """K-53, K-68, K-75, K-78: from submissions to counts."""

    def setUp(self) -> None:
        self.bench = PoolBench(rules=Rules(0, 0), interval=1000.0).start()
        self.stats: Any = MemoryStats()
        self.consumer = StatsConsumer(
            self.bench.clock, self.stats, self.bench.acceptance.rejections.take
        )
        self.successResultOf(Deferred.fromCoroutine(self.consumer.start(self.bench.log)))

    def wait(self, seconds: float) -> None:
        for _ in range(int(seconds * 10)):
            self.bench.clock.advance(0.1)

    def test_exact(self) -> None:
        """K-68: what was answered `true` is what is counted, user by user."""
        names = ["alice.rig1", "alice.rig2", "bob"]
        peers = [self.bench.connect().authorize(name) for name in names]
        answered: Counter[str] = Counter()
        for n in range(40):
            for peer, name in zip(peers, names, strict=True):
                peer.send(*[peer.submission(f"{n}-{i}-{name}") for i in range(5)])
            self.bench.settle()
            for peer, name in zip(peers, names, strict=True):
                answered[name.split(".")[0]] += sum(m["result"] is True for m in peer.hear())
        self.wait(3)
        self.assertEqual(answered, {"alice": 400, "bob": 200})
        for user, count in answered.items():
            self.assertEqual(self.successResultOf(self.stats.total(0, 2**40, user)), count)
        self.assertEqual(self.bench.log.status().depth, 0)

    def test_minute_of_acceptance(self) -> None:
        """K-69: a submission counts in the UTC minute in which it was accepted."""
        peer = self.bench.connect().authorize()
        self.bench.at(59.9)
        peer.submit("a")
        self.bench.at(60.0)
        peer.submit("b")
        peer.submit("c")
        self.wait(3)
        found = self.successResultOf(self.stats.series("alice", 0, 2**40))
        self.assertEqual(found, [(int(WALL), 1), (int(WALL) + 60, 2)])

    def test_rejections(self) -> None:
        """K-75: rejections get there too."""
        peer = self.bench.connect().authorize("alice.rig")
        for _ in range(3):
            peer.submit("a", result="0" * 64)
        self.wait(3)
        found = self.successResultOf(self.stats.rejections(0, 2**40))
        self.assertEqual(found, [("alice", 23, 3)])
