"""Broker and database killed under load, in small; the large runs are by hand."""

from __future__ import annotations

import time
from collections import Counter
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from kupool.wire.batches import VERSION, Batch
from tests.servers.services import PostgresServer, RabbitServer, postgres, rabbit
from tools import outage, outages
from tools.paced import Told
from tools.reconcile import Compared


class OutageTests(SynchronousTestCase):
    """K-52, K-81: nothing is refused, lost or counted twice while a server is away."""

    def short(self, kind: type[outages.Outage]) -> outage.Report:
        broker, database = rabbit(), postgres()
        if not isinstance(broker, RabbitServer) or not isinstance(database, PostgresServer):
            raise SkipTest("the servers given by the environment are not ours to kill")
        struck = kind(1.5, broker=broker, database=database)
        report = outage.run(struck, 300, before=2.0, after=0.5, sessions=20)
        self.assertEqual([], report.problems, "\n".join(report.lines()))
        self.assertGreater(len(report.load.told), 300 * 4)
        return report

    def test_broker(self) -> None:
        """K-52, K-81: the broker is killed: the spool fills, /ready says so, it drains."""
        report = self.short(outages.BrokerOutage)
        self.assertGreater(report.most("spooled"), 0)
        assert report.compared is not None
        self.assertEqual(report.compared.counted, len(report.load.told))

    def test_postgres(self) -> None:
        """K-72: the database is killed: the queue grows, /ready says why, it is worked off."""
        report = self.short(outages.PostgresOutage)
        self.assertGreater(report.most("depth"), report.usual)
        assert report.compared is not None
        self.assertEqual(report.compared.counted, len(report.load.told))


class ComparisonTests(SynchronousTestCase):
    """The comparison itself: it must see what is wrong."""

    MINUTE = int(time.time()) // 60 * 60

    def batch(self, batch_id: str, *nonces: str) -> Batch:
        names = ["bob.rig"] * len(nonces)
        return Batch(VERSION, batch_id, self.MINUTE * 1000, names, [7] * len(nonces), list(nonces))

    def found(self, told: str, batches: list[Batch], counted: int, unsure: int = 0) -> Compared:
        answers = [Told("bob.rig", 7, nonce, self.MINUTE, self.MINUTE) for nonce in told]
        counts = Counter({("bob", self.MINUTE): counted})
        return Compared(answers, batches, counts, unsure)

    def test_equal(self) -> None:
        """K-53: what agrees is no difference, nor is a batch that was sent again."""
        again = [self.batch("1", "a", "b"), self.batch("1", "a", "b"), self.batch("2", "c")]
        compared = self.found("abc", again, 3)
        self.assertEqual(
            (0, 0, 1), (compared.differences.count, compared.lost, compared.sent_again)
        )

    def test_different(self) -> None:
        """K-53: what is lost, twice in the log, untold, or counted wrong is seen."""
        one = [self.batch("1", "a", "b")]
        self.assertEqual(1, self.found("abc", one, 2).lost)
        self.assertEqual(1, self.found("a", one, 2).differences.count)
        self.assertEqual(0, self.found("a", one, 2, unsure=1).differences.count)
        self.assertEqual(1, self.found("ab", one, 3).differences.count)
        self.assertEqual(1, self.found("ab", one, 1).differences.count)
        twice = [*one, self.batch("2", "a")]
        self.assertEqual(1, self.found("ab", twice, 3).differences.count)
        other = [*one, self.batch("1", "a", "c")]
        self.assertEqual(1, self.found("ab", other, 2).differences.count)
        late = [Told("bob.rig", 7, nonce, self.MINUTE + 60, self.MINUTE + 60) for nonce in "ab"]
        counts = Counter({("bob", self.MINUTE): 2})
        self.assertEqual(2, Compared(late, one, counts).differences.count)
