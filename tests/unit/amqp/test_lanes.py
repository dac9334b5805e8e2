"""Confirms, and messages of a consumer, from their frames."""

from __future__ import annotations

from typing import Any

import pika
from pika import frame as frames_of_pika
from pika.spec import Basic
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp import BrokerError
from kupool.amqp.frames import BODY, HEADER, METHOD
from kupool.amqp.lanes import ConfirmLane, DeliveryLane


def method(value: Any) -> bytes:
    """Return the payload of a frame with a method."""
    return bytes(frames_of_pika.Method(1, value).marshal()[7:-1])


def header(size: int, **given: Any) -> bytes:
    """Return the payload of a frame of properties."""
    return bytes(frames_of_pika.Header(1, size, pika.BasicProperties(**given)).marshal()[7:-1])


class ConfirmTests(SynchronousTestCase):
    """Q-31: a message is confirmed when the broker says so, and not before."""

    def setUp(self) -> None:
        self.lane = ConfirmLane(lambda: ValueError("refused"))

    def test_one_and_many(self) -> None:
        one, two, three, four = (self.lane.published() for _ in range(4))
        self.assertEqual(self.lane.take(METHOD, method(Basic.Ack(2))), b"")
        self.assertIsNone(self.successResultOf(two))
        self.assertNoResult(one)
        self.lane.take(METHOD, method(Basic.Ack(3, multiple=True)))
        self.successResultOf(one)
        self.successResultOf(three)
        self.assertNoResult(four)
        self.lane.take(METHOD, method(Basic.Ack(2)))  # once more: nobody waits

    def test_refused(self) -> None:
        one, two, three = (self.lane.published() for _ in range(3))
        self.lane.take(METHOD, method(Basic.Nack(2, multiple=True)))
        for each in (one, two):
            self.failureResultOf(each, ValueError)
        self.lane.end(BrokerError("closed"))
        self.failureResultOf(three, BrokerError)

    def test_what_is_for_pika(self) -> None:
        returned = method(Basic.Return(312, "NO_ROUTE", "", "key"))
        for kind, payload in ((METHOD, returned), (HEADER, header(1)), (BODY, b"x")):
            self.assertIsNone(self.lane.take(kind, payload))


class DeliveryTests(SynchronousTestCase):
    """Issue 16, build 5: messages are put together from their frames."""

    def setUp(self) -> None:
        self.found: list[Any] = []
        self.lane = DeliveryLane(
            1,
            lambda tag, again, properties, body: self.found.append(
                (tag, again, properties.message_id, properties.headers, body)
            ),
        )

    def begin(self, tag: int = 5) -> bytes | None:
        return self.lane.take(METHOD, method(Basic.Deliver("c", tag, False, "", "key")))

    def test_messages(self) -> None:
        for size, pieces in ((0, ()), (3, (b"abc",)), (5, (b"ab", b"cde"))):
            self.assertEqual(self.begin(), b"")
            self.lane.take(HEADER, header(size, message_id="m", headers={"x-stream-offset": 7}))
            for piece in pieces:
                self.assertEqual(self.lane.take(BODY, piece), b"")
            message = (5, False, "m", {"x-stream-offset": 7}, b"".join(pieces))
            self.assertEqual(self.found.pop(), message)
            self.assertEqual(self.found, [])

    def test_one_that_pika_has_begun(self) -> None:
        """A consumer may begin in the middle of a message: the rest of that is not taken."""
        self.assertIsNone(self.lane.take(HEADER, header(3)))
        self.assertIsNone(self.lane.take(BODY, b"abc"))
        self.assertIsNone(self.lane.take(METHOD, method(Basic.CancelOk("c"))))

    def test_one_that_only_pika_reads(self) -> None:
        """pika gets all of it, and this reads the next one."""
        self.begin()
        payload = header(3, reply_to="a", headers={"n": None})
        first, second = self.frames(self.lane.take(HEADER, payload))
        self.assertEqual((first.method.delivery_tag, second.body_size), (5, 3))
        self.assertIsNone(self.lane.take(BODY, b"abc"))
        self.begin(6)
        self.lane.take(HEADER, header(0, message_id="m"))
        self.assertEqual([each[0] for each in self.found], [6])

    def frames(self, data: bytes | None) -> tuple[Any, Any]:
        count, first = frames_of_pika.decode_frame(data)
        return first, frames_of_pika.decode_frame((data or b"")[count:])[1]
