"""P-27: interceptors on decode and encode."""

from __future__ import annotations

import zlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kupool.net.routing.id_router import IdRouter
from kupool.net.routing.interceptors import Intercepted
from kupool.session.lifecycle import OPEN
from kupool.wire.codecs import LineCodec, TlvCodec, framing_of
from kupool.wire.packets import MessageTooLarge, NumberedMessage
from kupool.wire.splitters import Item, Tlv
from tests.fakes.peers import Bench
from tests.fakes.raising import ENDINGS, raising


def packed(message: bytes | Tlv) -> bytes | Tlv:
    assert isinstance(message, Tlv)
    return Tlv(message.message_id, zlib.compress(message.payload))


def unpacked(item: Item) -> Item:
    assert isinstance(item, Tlv)
    return Tlv(item.message_id, zlib.decompress(item.payload))


def wire(message_id: int, data: bytes) -> bytes:
    return len(data).to_bytes(4, "little") + message_id.to_bytes(4, "little") + data


class InterceptorTests(SynchronousTestCase):
    """P-27: they see every message in both directions, and may change or drop it."""

    def test_both_directions_through_a_router(self) -> None:
        router = IdRouter()
        router.add(1, lambda c, n, data: data[::-1])
        codec = Intercepted(TlvCodec(), decode=[unpacked], encode=[packed])
        connection, transport = Bench(router).connect(framing_of(codec))
        connection.feed(wire(1, zlib.compress(b"abc")))
        self.assertEqual(transport.taken(), wire(1, zlib.compress(b"cba")))

    def test_they_are_called_in_order(self) -> None:
        codec = Intercepted(
            LineCodec(),
            decode=[lambda item: item + b"1", lambda item: item + b"2"],  # type: ignore[operator]
            encode=[lambda m: m + b"3", lambda m: m + b"4"],  # type: ignore[operator]
        )
        self.assertEqual(codec.splitter(100).feed(b"a\nb\n"), [b"a12", b"b12"])
        self.assertEqual(codec.pack(b"a"), b"a34\n")

    def test_a_message_can_be_dropped(self) -> None:
        seen: list[Item] = []
        drop = [lambda item: None if item.startswith(b"#") else item, lambda i: seen.append(i) or i]
        codec = Intercepted(LineCodec(), decode=drop)  # type: ignore[arg-type]
        self.assertEqual(codec.splitter(100).feed(b"a\n#b\nc\n"), [b"a", b"c"])
        self.assertEqual(seen, [b"a", b"c"])

    def test_one_that_raises_ends_its_connection_alone(self) -> None:
        router = IdRouter()
        router.add(1, lambda c, n, data: data)
        bench = Bench(router)
        framing = framing_of(Intercepted(TlvCodec(), decode=[unpacked]))
        connection, transport = bench.connect(framing)
        other, _ = bench.connect(framing)
        connection.feed(wire(1, zlib.compress(b"a")) + wire(1, b"not packed") + wire(1, b"x"))
        self.assertTrue(transport.taken().startswith(wire(1, b"a")))
        self.assertEqual((connection.state is OPEN, other.state), (False, OPEN))
        self.assertEqual(len(self.flushLoggedErrors(zlib.error)), 1)

    def test_one_that_wants_the_process_to_exit(self) -> None:
        """Issue 12: whatever it raises, it ends its connection, and nothing else."""
        for error in ENDINGS:
            fails = raising(error)[0]
            framing = framing_of(Intercepted(LineCodec(), decode=[fails]))  # type: ignore[list-item]
            connection, _ = Bench().connect(framing)
            connection.feed(b"a\n")
            self.assertIsNot(connection.state, OPEN)
            self.assertEqual(len(self.flushLoggedErrors(error)), 1)

    def test_limits_hold(self) -> None:
        codec = Intercepted(TlvCodec(max_payload=10), encode=[lambda m: Tlv(1, b"x" * 11)])
        with self.assertRaises(MessageTooLarge):
            codec.pack(NumberedMessage(1, b"short"))
        splitter = Intercepted(TlvCodec(max_payload=10), decode=[unpacked]).splitter(100)
        self.assertEqual(splitter.max_payload, 10)
        self.assertEqual((splitter.feed(wire(1, b"x" * 11)), splitter.too_large), ([], True))
        splitter.max_payload = 20
        self.assertEqual(splitter.max_payload, 20)

    @given(st.lists(st.binary(max_size=50), max_size=8), st.integers(1, 7))
    def test_any_split_gives_the_same_messages(self, payloads: list[bytes], step: int) -> None:
        codec = Intercepted(TlvCodec(), decode=[unpacked], encode=[packed])
        data = b"".join(codec.pack(Tlv(n, payload)) for n, payload in enumerate(payloads))
        splitter = codec.splitter(65536)
        items = [i for s in range(0, len(data), step) for i in splitter.feed(data[s : s + step])]
        self.assertEqual(items, [Tlv(n, payload) for n, payload in enumerate(payloads)])
