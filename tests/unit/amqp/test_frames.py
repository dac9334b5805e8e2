"""Frames that are written and read without pika: pika reads what is written, and the reverse."""

from __future__ import annotations

from typing import Any

import pika
from pika import frame as frames_of_pika
from pika.spec import Basic
from twisted.trial.unittest import SynchronousTestCase

from kupool.amqp.frames import (
    ACK,
    BODY,
    HEADER,
    METHOD,
    BrokerFrames,
    Unreadable,
    confirmed_tag,
    delivery_tag,
    framed,
    message_frames,
    publish_start,
    read_properties,
)

HEADERS = {"records": 5, "appended_at": 1_800_000_000_000, "repeated": True, "kind": "größe"}


def read_by_pika(data: bytes) -> list[Any]:
    """Return the frames in some bytes."""
    found = []
    while data:
        count, frame = frames_of_pika.decode_frame(data)
        found.append(frame)
        data = data[count:]
    return found


def properties(**given: Any) -> bytes:
    """Return the payload of a frame of properties, by pika."""
    written = frames_of_pika.Header(1, 9, pika.BasicProperties(**given)).marshal()
    return bytes(written[7:-1])


class WritingTests(SynchronousTestCase):
    """Issue 16, accepted 5: a message costs less than with pika, and is the same."""

    def test_a_message(self) -> None:
        start = publish_start(7, "exchange", "key")
        frames = message_frames(7, "id-1", HEADERS, body=b"12345" * 100, most=208)
        data = start + b"".join(frames)
        method, header, *bodies = read_by_pika(data)
        self.assertEqual({frame.channel_number for frame in (method, header, *bodies)}, {7})
        self.assertIsInstance(method.method, Basic.Publish)
        self.assertEqual((method.method.exchange, method.method.routing_key), ("exchange", "key"))
        self.assertEqual((method.method.mandatory, method.method.immediate), (True, False))
        expected = pika.BasicProperties(
            delivery_mode=2,
            message_id="id-1",
            headers=HEADERS,
            content_type="application/octet-stream",
        )
        self.assertEqual((header.properties, header.body_size), (expected, 500))
        self.assertEqual([len(each.fragment) for each in bodies], [200, 200, 100])
        self.assertEqual(b"".join(each.fragment for each in bodies), b"12345" * 100)

    def test_an_empty_message(self) -> None:
        (header,) = read_by_pika(b"".join(message_frames(1, "", {}, body=b"", most=4096)))
        self.assertEqual((header.body_size, header.properties.message_id), (0, ""))

    def test_a_header_that_cannot_be_written(self) -> None:
        self.assertRaises(TypeError, message_frames, 1, "", {"a": 1.5}, body=b"", most=4096)


class ReadingTests(SynchronousTestCase):
    """Issue 16, accepted 5: what the broker sends, and pika would read."""

    def test_properties(self) -> None:
        found = read_properties(
            properties(message_id="id-1", headers=HEADERS, delivery_mode=2, content_type="a/b")
        )
        self.assertEqual(found, (9, "id-1", HEADERS))
        self.assertEqual(read_properties(properties()), (9, "", {}))

    def test_what_only_pika_reads(self) -> None:
        for given in ({"reply_to": "a"}, {"headers": {"a": [1]}}, {"headers": {"a": None}}):
            self.assertRaises(Unreadable, read_properties, properties(**given))

    def test_methods(self) -> None:
        deliver = Basic.Deliver("tag", 258, True, "exchange", "key")
        payload = frames_of_pika.Method(1, deliver).marshal()[7:-1]
        self.assertEqual(delivery_tag(payload), (258, True))
        payload = frames_of_pika.Method(1, Basic.Ack(300, True)).marshal()[7:-1]
        self.assertEqual((payload[:4], confirmed_tag(payload)), (ACK, (300, True)))


class SplitterTests(SynchronousTestCase):
    """Issue 16, build 5: nothing is lost between those who take frames, and pika."""

    def setUp(self) -> None:
        self.others: list[bytes] = []
        self.taken: list[tuple[int, bytes]] = []
        self.splitter = BrokerFrames(self.others.append)

    def take(self, kind: int, payload: bytes) -> bytes | None:
        self.taken.append((kind, payload))
        return b""

    def test_in_pieces(self) -> None:
        """However the bytes arrive, each frame is taken once, and pika gets the others."""
        others = framed(METHOD, 1, b"one") + framed(8, 0, b"") + framed(BODY, 3, b"")
        data = framed(METHOD, 2, b"a") + others + framed(HEADER, 2, b"b" * 300)
        for size in (1, 2, 7, 8, 9, 50, 1000):
            self.setUp()
            self.splitter.lanes[2] = self.take
            counts = [
                self.splitter.feed(data[start : start + size])
                for start in range(0, len(data), size)
            ]
            self.assertEqual(self.taken, [(METHOD, b"a"), (HEADER, b"b" * 300)])
            self.assertEqual(b"".join(self.others), others)
            self.assertEqual(sum(counts), len(data) - len(others))

    def test_what_is_no_frame(self) -> None:
        self.splitter.feed(b"AMQP\x00\x00\x09\x01")
        self.assertEqual(self.others, [b"AMQP\x00\x00\x09\x01"])

    def test_order(self) -> None:
        """pika gets what came before a frame before somebody is asked to take it."""
        seen: list[Any] = []
        splitter = BrokerFrames(seen.append)
        splitter.lanes[1] = lambda kind, payload: seen.append(payload)
        one, two = framed(METHOD, 2, b"one"), framed(METHOD, 1, b"two")
        splitter.feed(one + two)
        self.assertEqual(seen, [one, b"two", two])
        splitter.lanes[1] = lambda kind, payload: b"instead"
        splitter.feed(two)
        self.assertEqual(seen[3:], [b"instead"])
