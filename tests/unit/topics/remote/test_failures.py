"""What a refusal of a server means."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from kupool.errors import (
    ALREADY_EXISTS,
    FORBIDDEN,
    INTERNAL_ERROR,
    NOT_FOUND,
    OFFSET_OUT_OF_RANGE,
    STALE_GENERATION,
    UNAVAILABLE,
    WRONG_NODE,
    ErrorText,
)
from kupool.topics.api.params import (
    FetchParams,
    GroupParams,
    HeartbeatParams,
    ProduceParams,
    TopicParams,
)
from kupool.topics.api.refusals import refusal_of
from kupool.topics.errors import (
    GroupInUse,
    IllegalGeneration,
    OffsetOutOfRange,
    SequenceTooOld,
    TopicsUnavailable,
    UnknownMember,
    UnknownTopic,
    UnreadableBatch,
)
from kupool.topics.partition import Partition
from kupool.topics.remote.failures import (
    AnswerLost,
    BadAnswer,
    LedElsewhere,
    NotProduced,
    NotSent,
    RefusedByServer,
    WriteState,
    refusal,
    write_state,
)

FETCH = FetchParams("t", 1, 5)
BEAT = HeartbeatParams("g", "m", 4)


class RefusalTests(SynchronousTestCase):
    def made(self, row: ErrorText, method: str, params: Any, says: str = "") -> Any:
        return refusal(row.about(says) if says else row, method, params)

    def test_known_ones(self) -> None:
        """Q-04, Q-27, Q-46."""
        found = self.made(OFFSET_OUT_OF_RANGE, "log.fetch", FETCH, "low=7 high=9")
        self.assertIsInstance(found, OffsetOutOfRange)
        self.assertEqual((found.low, found.high), (7, 9))
        self.assertIn("partition 1 of topic t has no offset 5", str(found))
        for text, current in (("generation 4 ended: learn 12 now", 12), ("", 0)):
            found = self.made(STALE_GENERATION, "group.heartbeat", BEAT, text)
            self.assertIsInstance(found, IllegalGeneration)
            self.assertEqual((found.generation, found.current), (4, current if text else 0))
        found = self.made(NOT_FOUND, "group.heartbeat", BEAT, "whatever")
        self.assertIsInstance(found, UnknownMember)
        found = self.made(NOT_FOUND, "log.fetch", FETCH, "there is no topic t: create it first")
        self.assertIsInstance(found, UnknownTopic)
        found = self.made(ALREADY_EXISTS, "group.delete", GroupParams("g"), "it has members")
        self.assertIsInstance(found, GroupInUse)
        stamped = ProduceParams(topic="t", producer="p", sequence=3)
        found = self.made(ALREADY_EXISTS, "log.produce", stamped, "the oldest is 9: go on")
        self.assertIsInstance(found, SequenceTooOld)
        self.assertIsInstance(self.made(UNAVAILABLE, "log.fetch", FETCH), TopicsUnavailable)

    def test_a_batch_that_cannot_be_read(self) -> None:
        """Q-08: as the server has it."""
        sent = UnreadableBatch(Partition("t", 1), 5, 8, "it is no batch: a; read on from 7")
        row = refusal_of(sent)
        assert row is not None
        found = self.made(row, "log.fetch", FETCH)
        self.assertIsInstance(found, UnreadableBatch)
        self.assertEqual(str(found), str(sent))
        self.assertEqual((found.partition, found.offset, found.next_offset), (sent.partition, 5, 8))
        backwards = row.text.replace("next=8", "next=5")
        for method, text in (("log.offsets", row.text), ("log.fetch", backwards)):
            found = self.made(ErrorText(row.code, text), method, FETCH)
            self.assertIsInstance(found, RefusedByServer)

    def test_others(self) -> None:
        """Whatever the text is, the code and the text are told."""
        for row, method, params, says in (
            (FORBIDDEN, "log.fetch", FETCH, "t"),
            (OFFSET_OUT_OF_RANGE, "log.fetch", FETCH, "low=x"),
            (OFFSET_OUT_OF_RANGE, "group.commit", BEAT, "low=1 high=2"),
            (STALE_GENERATION, "log.fetch", FETCH, "7"),
            (NOT_FOUND, "log.fetch", FETCH, "there is no topic u: create it first"),
            (ALREADY_EXISTS, "topic.delete", TopicParams("t"), ""),
            (ErrorText(99, "of a later version"), "log.fetch", FETCH, ""),
        ):
            found = self.made(row, method, params, says)
            self.assertIsInstance(found, RefusedByServer, (row, method))
            self.assertEqual(found.code, row.code)
            self.assertIn(row.text, str(found))

    def test_another_node(self) -> None:
        """Q-36."""
        for text, host, port in (
            ("10.0.0.7:8080", "10.0.0.7", 8080),
            ("[::1]:80", "[::1]", 80),
            ("a-b.example:1", "a-b.example", 1),
        ):
            found = self.made(WRONG_NODE, "group.join", BEAT, text)
            self.assertIsInstance(found, LedElsewhere)
            self.assertEqual((found.host, found.port), (host, port))
        for text in ("", "host", "host:0", "host:65536", "a:b:1", "tcp:h:1", "h\n:1", "x" * 300):
            self.assertIsInstance(self.made(WRONG_NODE, "group.join", BEAT, text), RefusedByServer)


class WriteStateTests(SynchronousTestCase):
    def test_each(self) -> None:
        """Q-56: the error tells whether it was written."""
        unknown, written = WriteState.UNKNOWN, WriteState.WRITTEN
        for error, state in (
            (AnswerLost("x"), unknown),
            (BadAnswer("x"), unknown),
            (RefusedByServer(INTERNAL_ERROR), unknown),
            (RuntimeError("x"), unknown),
            (SequenceTooOld("p", 1, 2), written),
            (NotProduced(written, NotSent("x")), written),
            (NotSent("x"), WriteState.NOT_WRITTEN),
            (RefusedByServer(FORBIDDEN), WriteState.NOT_WRITTEN),
            (TopicsUnavailable("x"), WriteState.NOT_WRITTEN),
            (UnknownTopic("t"), WriteState.NOT_WRITTEN),
        ):
            self.assertIs(write_state(error), state, error)
        says = [str(NotProduced(state, NotSent("why"))) for state in WriteState]
        self.assertEqual(len(set(says)), 3)
        for each in says:
            self.assertTrue(each.endswith(": why"), each)
