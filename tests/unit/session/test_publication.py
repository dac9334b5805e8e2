"""One message for many: its encodings, its kinds, and what they raise."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.transport.protocols import TLV
from kupool.session.connection import Connection
from kupool.session.outbox import EventPolicy
from kupool.session.publication import ForEach, Packed, Payload, Publication
from kupool.wire.framing import FRAME, INT32, LINE, Framing, Tlv, encode_tlv
from kupool.wire.packets import MessageTooLarge
from tests.fakes.peers import Bench, PeerTransport

DONE = Failure(ConnectionDone())


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench(outbox_limit=10, max_frame=50)
        self.failed: list[Connection] = []

    def pairs(self, *framings: Framing) -> list[tuple[Connection, PeerTransport]]:
        return [self.bench.connect(framing) for framing in framings]

    def send(self, publication: Publication, pairs: Any, **how: Any) -> int:
        return publication.send_all([c for c, _ in pairs], failed=self.failed.append, **how)


class EncodingTests(Case):
    """Issue 13: encoded once for each encoding, and byte for byte what each would be sent."""

    def counting(self, framing: Framing, made: list[str]) -> Framing:
        def encode(payload: bytes) -> bytes:
            made.append(framing.name)
            return framing.encode(payload)

        return framing._replace(encode=encode)

    def test_once_for_each_framing(self) -> None:
        made: list[str] = []
        framings = [self.counting(framing, made) for framing in (LINE, FRAME, INT32)]
        pairs = self.pairs(*framings, *framings, *framings[::-1])
        for how in ({"key": "k"}, {"policy": None}, {}):
            made.clear()
            publication = Publication(b"news", **how)  # type: ignore[arg-type]
            self.send(publication, pairs[:4])
            self.send(publication, pairs[4:])
            self.assertEqual(sorted(made), ["frame", "int32", "line"])
            for connection, transport in pairs:
                self.assertEqual(transport.taken(), connection.framing.encode(b"news"))

    def test_the_very_same_bytes(self) -> None:
        written: list[bytes] = []
        pairs = self.pairs(*[LINE] * 5)
        for _, transport in pairs:
            self.patch(transport, "write", written.append)
        self.send(Publication(b"news", "k"), pairs)
        self.assertEqual((len(written), len({id(data) for data in written})), (5, 1))

    def test_framings_of_one_name_that_encode_differently(self) -> None:
        """As those of two codecs of an application may."""
        other = LINE._replace(encode=lambda payload: payload[::-1] + b"\n")
        pairs = self.pairs(LINE, other, LINE, other)
        self.send(Publication(b"abc"), pairs)
        self.assertEqual([t.value() for _, t in pairs], [b"abc\n", b"cba\n", b"abc\n", b"cba\n"])

    def test_a_function_of_the_framing(self) -> None:
        pairs = self.pairs(LINE, FRAME, LINE)
        asked: list[str] = []

        def make(framing: Framing) -> bytes:
            asked.append(framing.name)
            return framing.encode(framing.name.encode())

        self.send(Publication(make), pairs)
        self.assertEqual(asked, ["line", "frame"])
        self.assertEqual(pairs[0][1].value(), b"line\n")

    def test_a_payload_for_each(self) -> None:
        for how in ({"key": "k"}, {"policy": None}, {}):
            pairs = self.pairs(LINE, FRAME, LINE)
            publication = Publication(ForEach(lambda c: b"%d" % c.id), **how)  # type: ignore[arg-type]
            self.send(publication, pairs[:2])
            publication.send(pairs[2][0])
            for connection, transport in pairs:
                expected = connection.framing.encode(b"%d" % connection.id)
                self.assertEqual(transport.value(), expected)

    def test_packed_by_the_connection(self) -> None:
        [(connection, transport)] = self.pairs(TLV)
        Publication(Packed(Tlv(7, b"x")), policy=None).send(connection)
        self.assertEqual(transport.value(), encode_tlv(b"x", 7))
        with self.assertRaises(MessageTooLarge):
            Publication(Packed(b"x" * 51)).send(connection)


class SlowReaderTests(Case):
    """Issue 13: what becomes of it where the peer does not read."""

    def slow(self) -> tuple[Connection, PeerTransport]:
        pair = self.bench.connect()
        pair[0].pauseProducing()
        return pair

    def test_each_kind(self) -> None:
        kinds: list[tuple[dict[str, Any], bytes, list[int]]] = [
            ({"key": "k"}, b"3333\n", [0, 0, 0, 0]),
            ({"policy": None}, b"0000\n1111\n2222\n3333\n", [0, 0, 0, 0]),
            ({}, b"0000\n1111\n", [0, 0, 1, 1]),
            ({"policy": EventPolicy.DROP_OLDEST}, b"2222\n3333\n", [0, 0, 0, 0]),
            ({"limit": 5}, b"0000\n", [0, 1, 1, 1]),
        ]
        for how, left, dropped in kinds:
            for single in (False, True):
                connection, transport = self.slow()
                found = []
                for n in range(4):
                    publication = Publication(b"%d" % n * 4, **how)
                    one = publication.send(connection) if single else None
                    found.append(self.send(publication, [(connection, 0)]) if one is None else one)
                transport.drain()
                self.assertEqual((transport.value(), found), (left, dropped), how)

    def test_droppable(self) -> None:
        self.assertTrue(Publication(b"x").droppable)
        self.assertTrue(Publication(b"x", "k", None).droppable)
        self.assertFalse(Publication(b"x", policy=None).droppable)

    def test_others_are_not_delayed(self) -> None:
        slow, (other, transport) = self.slow(), self.bench.connect()
        self.assertEqual(self.send(Publication(b"x" * 20), [slow, (other, transport)]), 1)
        self.assertEqual(transport.value(), b"x" * 20 + b"\n")


class FilterTests(Case):
    """One recipient that is left out leaves no other out, whatever is sent."""

    def test_some_are_left_out(self) -> None:
        for how in ({"key": "k"}, {"policy": None}, {}):
            for payload in (b"x", ForEach(lambda c: b"x")):
                pairs = self.pairs(LINE, LINE, LINE)
                left_out = pairs[0][0]
                publication = Publication(payload, **how)  # type: ignore[arg-type]
                self.send(publication, pairs, where=lambda c, out=left_out: c is not out)
                self.assertEqual([t.taken() for _, t in pairs], [b"", b"x\n", b"x\n"])

    def test_nobody_is_asked_while_nothing_has_changed(self) -> None:
        for payload in (b"x", ForEach(lambda c: b"x")):
            pairs, changed = self.pairs(LINE, LINE), set[int]()
            asked: list[Connection] = []

            def where(connection: Connection, asked: Any = asked) -> bool:
                asked.append(connection)
                return False

            self.send(Publication(payload), pairs, where=where, changed=changed)
            self.assertEqual([t.taken() for _, t in pairs], [b"x\n", b"x\n"])
            self.assertEqual(asked, [])
            changed.add(1)
            self.send(Publication(payload), pairs, where=where, changed=changed)
            self.assertEqual([t.taken() for _, t in pairs], [b"", b""])
            self.assertEqual(asked, [c for c, _ in pairs])

    def test_how_many_dropped_it(self) -> None:
        """A payload of its own is dropped and counted like any other."""
        for payload in (b"x" * 20, ForEach(lambda c: b"x" * 20)):
            pairs = self.pairs(LINE, LINE, LINE)
            for connection, _ in pairs[:2]:
                connection.pauseProducing()
            self.assertEqual(self.send(Publication(payload), pairs), 2)
            self.assertEqual(self.send(Publication(payload, "k"), pairs), 0)


class FailureTests(Case):
    """Issue 13: what an encoding raises costs its recipient alone."""

    def test_whatever_is_raised(self) -> None:
        for error in (ZeroDivisionError, SystemExit, KeyboardInterrupt, GeneratorExit):

            def fail(*_: object, error: type[BaseException] = error) -> bytes:
                raise error

            def mine(connection: Any, fail: Any = fail) -> bytes:
                return fail() if connection.framing.name == "hostile" else b"x"

            hostile = LINE._replace(encode=fail, name="hostile")
            payloads: list[Payload] = [b"x", ForEach(mine), Packed(b"x"), lambda f: f.encode(b"x")]
            for payload in payloads:
                pairs = self.pairs(LINE, hostile, LINE, hostile)
                self.failed.clear()
                self.send(Publication(payload), pairs)
                self.assertEqual([t.value() for _, t in pairs], [b"x\n", b""] * 2)
                self.assertEqual(self.failed, [pairs[1][0], pairs[3][0]])
                with self.assertRaises(error):
                    Publication(payload).send(pairs[1][0])

    def test_a_filter_that_raises(self) -> None:
        pairs = self.pairs(LINE, LINE, LINE)
        first = pairs[0][0].id

        def where(connection: Connection) -> bool:
            return bool(2 // (connection.id - first))

        self.send(Publication(b"x"), pairs, where=where)
        self.assertEqual([t.value() for _, t in pairs], [b"", b"x\n", b"x\n"])
        self.assertEqual(self.failed, [pairs[0][0]])


class EndedTests(Case):
    def test_one_that_has_ended_gets_nothing_and_is_asked_for_nothing(self) -> None:
        made: list[Connection] = []
        for end in (partial(Connection.close, reason=None), partial(Connection.lost, reason=DONE)):
            for how in ({"key": "k"}, {"policy": None}, {}):
                for payload in (b"x", ForEach(lambda c: made.append(c) or b"x")):
                    pairs = self.pairs(LINE, LINE, LINE)
                    end(pairs[1][0])
                    publication = Publication(payload, **how)  # type: ignore[arg-type]
                    self.assertEqual(self.send(publication, pairs), 0)
                    self.assertFalse(publication.send(pairs[1][0]))
                    self.assertEqual([t.value() for _, t in pairs], [b"x\n", b"", b"x\n"])
                    self.assertNotIn(pairs[1][0], made)
