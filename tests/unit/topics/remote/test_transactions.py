"""Transactions over the wire."""

from __future__ import annotations

from typing import Any

from kupool.topics.records import NewRecord
from kupool.topics.remote.failures import BadAnswer, RefusedByServer
from kupool.topics.remote.transactions import RemoteTransaction, begin_transaction
from kupool.topics.service import Written
from tests.fakes.remote_topics import RemoteCase


class TransactionTests(RemoteCase):
    """Q-53: all or none."""

    def begun(self) -> RemoteTransaction:
        transaction: RemoteTransaction = self.result(begin_transaction(self.topics()))
        return transaction

    def test_committed(self) -> None:
        transaction = self.begun()
        self.assertEqual(transaction.timeout, 60.0)
        self.result(transaction.add("t", [NewRecord(b"a"), NewRecord(b"b")], partition=0))
        self.result(transaction.add("t", [NewRecord(b"c")], partition=1))
        self.assertEqual((self.stored(0), self.stored(1)), ([], []))
        written = self.result(transaction.commit())
        self.assertEqual(written, [[Written(0, 0), Written(0, 1)], [Written(1, 0)]])
        self.assertEqual((self.stored(0), self.stored(1)), ([b"a", b"b"], [b"c"]))

    def test_aborted(self) -> None:
        transaction = self.begun()
        self.result(transaction.add("t", [NewRecord(b"a")], partition=0))
        self.result(transaction.abort())
        self.assertEqual(self.stored(), [])
        with self.assertRaisesRegex(RefusedByServer, "not under way"):
            self.result(transaction.commit())

    def test_answers_that_cannot_be(self) -> None:
        """Q-62."""
        transaction = self.begun()
        answers: dict[str, Any] = {"log.produce": {"added": 2}, "log.commit": {"written": [[]]}}
        for method, answer in answers.items():
            self.server.answers[method] = lambda params, answer=answer: answer
        with self.assertRaisesRegex(BadAnswer, "2 of 1 records"):
            self.result(transaction.add("t", [NewRecord(b"a")]))
        with self.assertRaisesRegex(BadAnswer, "not the places"):
            self.result(transaction.commit())
