"""Every error of topics is a row of the table of errors."""

from __future__ import annotations

from collections.abc import Iterator

from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import ERRORS, INTERNAL_ERROR
from kupool.topics import errors
from kupool.topics.api.refusals import refusal_of
from kupool.topics.partition import Partition
from kupool.web.topics import STATUS

P0 = Partition("t", 0)

#: An error of each class, with its code.
EXAMPLES: tuple[tuple[errors.TopicError, int], ...] = (
    (errors.InvalidTopic("x"), 32),
    (errors.TopicExists("t"), 36),
    (errors.UnknownTopic("t"), 35),
    (errors.UnknownPartition("t", 3, 1), 35),
    (errors.UnknownRecord(P0, 3), 35),
    (errors.TooManyTopics(1), 34),
    (errors.OffsetOutOfRange("t", 0, 1, low=2, high=3), 40),
    (errors.RecordTooLarge("t", 3, 2), 43),
    (errors.BatchTooLarge("t", 0, records=1, size=1), 43),
    (errors.PartitionFull("t", 0), 43),
    (errors.CorruptBatch("x"), 20),
    (errors.UnreadableBatch(P0, 3, 5, "x"), 20),
    (errors.TransactionsUnsupported(), 32),
    (errors.TooManyTransactions(1), 34),
    (errors.UnknownTransaction("1-a"), 35),
    (errors.TransactionTooLarge(1, 1), 43),
    (errors.UnknownCodec("x"), 32),
    (errors.SequenceTooOld("p", 1, 2), 36),
    (errors.InvalidGroup("x"), 32),
    (errors.TooManyGroups("x"), 34),
    (errors.GroupInUse("g"), 36),
    (errors.UnknownGroup("g"), 35),
    (errors.UnknownMember("m", "g"), 35),
    (errors.IllegalGeneration(1, 7), 39),
    (errors.NotPartitionOwner("m", P0), 41),
    (errors.TopicsUnavailable("/a/file"), 27),
    (errors.ReservedTopic("events"), 33),
    (errors.WrongNode("g", "192.0.2.1:8080"), 42),
)


def classes(base: type) -> Iterator[type]:
    for found in base.__subclasses__():
        yield found
        yield from classes(found)


class RefusalTests(SynchronousTestCase):
    """Q-63: every error has a code, a text of the table and a status of HTTP."""

    def test_every_class(self) -> None:
        # Those of a client are no errors that a server may have.
        known = {each for each in classes(errors.TopicError) if each.__module__ == errors.__name__}
        self.assertEqual({type(e) for e, _ in EXAMPLES}, known)
        texts = {row.code: row.text for row in ERRORS}
        for error, code in EXAMPLES:
            row = refusal_of(error)
            assert row is not None, error
            self.assertEqual(row.code, code, error)
            if code != INTERNAL_ERROR.code:
                self.assertEqual(row.text.partition(":")[0], texts[code])
            self.assertIn(code, STATUS)

    def test_what_programs_read(self) -> None:
        """Q-04, Q-08, Q-36, Q-46"""
        for error, text in (
            (EXAMPLES[6][0], "offset out of range: low=2 high=3"),
            (errors.IllegalGeneration(1, 7), "stale generation: current=7"),
            (errors.IllegalGeneration(9, 7), "stale generation: current=7"),
            (errors.WrongNode("g", "192.0.2.1:8080"), "wrong node: 192.0.2.1:8080"),
            (
                errors.UnreadableBatch(P0, 3, 5, "it is no batch"),
                "internal error: partition 0 of topic t, batch at offset 3: it is no batch; "
                "read on from 5 (offset=3 next=5)",
            ),
        ):
            row = refusal_of(error)
            assert row is not None
            self.assertEqual(row.text, text)

    def test_an_error_that_is_not_known(self) -> None:
        """It is reported under a reference, as every unexpected error."""
        self.assertIsNone(refusal_of(errors.TopicError("x")))
