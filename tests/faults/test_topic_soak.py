"""A short soak of topics over the wire, with kills: tools.topic_soak is the long one."""

from __future__ import annotations

from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from kupool.topics.lanes import DeliveredRecord
from kupool.topics.partition import Partition
from kupool.topics.records import Record
from kupool.topics.remote.failures import NotSent
from kupool.topics.service import Written
from tests.servers.reactor import the_reactor
from tests.servers.running_daemon import RunningDaemon
from tools.topic_soak import FLAGS, SoakBooks, SoakLoad, growth, run


class SoakTests(TestCase):
    """Q-39, Q-56, Q-60, Q-91: producers and consumers over the wire outlive the daemon's kills."""

    timeout = 240

    async def test_a_short_one_with_kills(self) -> None:
        daemon = RunningDaemon(*FLAGS)
        await deferToThread(daemon.start)
        self.addCleanup(daemon.__exit__)
        load = SoakLoad(rate=200.0, kill_every=2.0)
        books = await run(the_reactor(), daemon, load, seconds=7.0, interval=3.5)
        self.assertEqual(books.problems, [])
        self.assertEqual(books.written, sum(books.sent))
        self.assertGreaterEqual(books.read, books.written)
        self.assertGreater(books.written, 100)
        self.assertGreaterEqual(books.kills, 1)


class SoakBooksTests(TestCase):
    """The tool notices what it is there for."""

    def received(self, books: SoakBooks, offset: int, value: bytes) -> None:
        record: Any = Record(offset, 0, None, value, {})
        books.received(DeliveredRecord(Partition("soak", 0), record))

    def test_faults(self) -> None:
        """Q-91, Q-56."""
        books = SoakBooks(1)
        self.received(books, 0, b"0 x")
        books.acknowledged(0, 0, Written(0, 0))
        self.received(books, 0, b"0 x")
        self.assertEqual(books.problems, [])
        self.received(books, 1, b"0 x")
        self.received(books, 3, b"3 x")
        books.acknowledged(0, 4, Written(0, 5))
        books.acknowledged(0, 5, NotSent("away"))
        self.assertEqual(
            books.problems,
            [
                "offset 1 of partition 0 has 0",
                "partition 0: 1 to 2 were left out",
                "record 4 of partition 0: Written(partition=0, offset=5)",
                "record 5 of partition 0: away",
            ],
        )

    def test_memory(self) -> None:
        mega = 1_000_000
        self.assertEqual(growth([50 * mega, *[100 * mega] * 8]), "")
        self.assertEqual(growth([100 * mega, 0, 104 * mega]), "")
        wanted = "memory grew from 100.0 MB to 120.0 MB"
        self.assertEqual(growth([*[100 * mega] * 8, 120 * mega]), wanted)
