"""Codecs in random configurations, messages for them, and bytes that are nearly right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, NamedTuple

from msgspec import structs

from kupool.bus.remote.compatible import CompatibleCodec
from kupool.net.routing.interceptors import Intercepted
from kupool.wire.codecs import CODECS, Codec, CrcCodec, LengthFieldCodec, Packable
from kupool.wire.framing import Item, Tlv
from kupool.wire.packets import MAX_MESSAGE_ID, NumberedMessage

#: Limits of payloads: small ones, so that most messages are near them.
CAPS = (1, 4, 7, 16, 40, 200, 1000, 5000)

_IDS = (0, 1, 2, 255, 256, 301, 2**31, MAX_MESSAGE_ID)
_LENGTHS = (0, 1, 2, 7, 8, 24, 127, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)

Change = Callable[[bytes], bytes]


class Deliberate(Exception):
    """Raised by what the fuzzer hands to the framework, on purpose."""


class Case(NamedTuple):
    """A codec, and what it does with a message, worked out without it."""

    name: str
    codec: Codec
    #: Whether messages have ids.
    ids: bool
    #: Sizes of data that can be packed, the first and the last.
    sizes: tuple[int, int]
    #: What arrives of a message of such a size; None for nothing.
    arrives: Callable[[bytes | Tlv], Item | None]
    #: Bytes around the data, at most.
    around: int
    #: Makes data that the codec can express of any of the same size.
    legal: Change = bytes

    def message(self, random: Random, most: int | None = None) -> bytes | Tlv:
        """Return a message that can be packed, with at most so much data if that is legal."""
        first, last = self.sizes
        last = max(first, min(last, 10_000 if most is None else most))
        any_size = random.randint(first, last)
        size = random.choice((first, last, any_size, any_size))
        data = self.legal(some_bytes(random, size))
        if not self.ids or random.random() < 0.2:
            return data
        return Tlv(random.choice((*_IDS, random.randrange(16), random.getrandbits(32))), data)


def some_bytes(random: Random, size: int) -> bytes:
    """Return bytes, often such as codecs look for."""
    way = random.randrange(5)
    if way == 0:
        return bytes(size)
    if way == 1:
        return bytes(random.choices(b'\r\n \t{}[]"\0\x01\x02\x08\x09\xff', k=size))
    if way == 2:
        return random.choice((b"\r", b"\n", b"{", b"\xff", b"a")) * size
    return random.randbytes(size)


def codec_case(random: Random, depth: int = 2) -> Case:
    """Return a random case."""
    pick = random.randrange(10)
    if pick < 3:
        return _named(random)
    if pick < 6:
        return _length_field(random)
    if pick < 7:
        return _compatible(random)
    if depth and pick < 9:
        return _crc(random, depth)
    return _intercepted(random, depth) if depth else _named(random)


def _named(random: Random) -> Case:
    name = random.choice(sorted(CODECS))
    cap = random.choice(CAPS)
    codec = CODECS[name](cap)
    if name in ("line", "json"):
        return Case(name, codec, False, (0, cap), _or_nothing, 2, _line)
    if name in ("frame", "int32"):
        return Case(name, codec, False, (0, cap), _or_nothing, 5)
    return Case(name, codec, True, (0, cap), _tagged, 12)


def _line(data: bytes) -> bytes:
    return data.replace(b"\n", b"x").replace(b"\r", b"y")


def _tagged(message: bytes | Tlv) -> Item:
    return message if isinstance(message, Tlv) else Tlv(0, message)


def _or_nothing(message: bytes | Tlv) -> Item | None:
    return message or None


def _compatible(random: Random) -> Case:
    cap = random.choice(CAPS)

    def arrives(message: bytes | Tlv) -> Item:
        return message if isinstance(message, bytes) or message.message_id else message.payload

    return Case("compatible", CompatibleCodec(cap), True, (0, cap), arrives, 24)


def _length_field(random: Random) -> Case:
    offset, width = random.randrange(6), random.randint(1, 8)
    start = offset + width
    adjust = random.choice((0, 0, 0, -start, -width, 1, 3, -1, random.randint(-20, 20)))
    strip = random.choice((start, start, 0, offset, random.randint(0, start + 4)))
    head = random.randbytes(random.randint(0, min(offset, strip)))
    order: Any = random.choice(("little", "big"))
    cap = random.choice(CAPS)
    codec = LengthFieldCodec(
        offset=offset,
        width=width,
        adjust=adjust,
        strip=strip,
        byteorder=order,
        head=head,
        max_payload=cap,
    )
    # What follows the length field is `strip - start` bytes more than the data.
    least = max(0, start - strip, adjust + start - strip)
    most = min(cap, (1 << 8 * width) - 1 + adjust) + start - strip
    if most < least:
        return _length_field(random)

    def arrives(message: bytes | Tlv) -> Item:
        assert isinstance(message, bytes)
        length = strip + len(message) - start - adjust
        field = length.to_bytes(width, order)[max(0, strip - offset) :]
        at = max(0, offset - strip)
        return message[:at] + field + message[at + len(field) :]

    name = f"length-field({offset},{width},{adjust},{strip},{order})"
    around = start + max(0, strip - start)

    def kept(message: bytes | Tlv) -> Item:
        return arrives(message) if strip < start else message

    return Case(name, codec, False, (least, most), kept, around + 8)


def _crc(random: Random, depth: int) -> Case:
    while True:
        inner = codec_case(random, depth - 1)
        first, last = inner.sizes
        try:
            codec = CrcCodec(inner.codec)
        except ValueError:  # what is not transparent, or has no room, as it says
            continue
        if last >= max(first, 4):
            break
    sizes = max(0, first - 4), last - 4
    arrives = inner.arrives

    def checked(message: bytes | Tlv) -> Item | None:
        data = message if isinstance(message, bytes) else message.payload
        padded = data + b"crc."
        item = arrives(padded if isinstance(message, bytes) else Tlv(message.message_id, padded))
        assert item is not None
        return Tlv(item.message_id, data) if isinstance(item, Tlv) else data

    return Case(
        f"crc({inner.name})", codec, inner.ids, sizes, checked, inner.around + 4, inner.legal
    )


def _intercepted(random: Random, depth: int) -> Case:
    inner = codec_case(random, depth - 1)
    key = random.randrange(1, 256)
    if not getattr(inner.codec, "transparent", True):
        key = 0  # changed data would have ends of lines, or another length, in it
    table = bytes(n ^ key for n in range(256))

    def turned(item: Any) -> Any:
        if isinstance(item, bytes):
            return item.translate(table)
        return structs.replace(item, payload=item.payload.translate(table))

    codec = Intercepted(inner.codec, decode=[turned], encode=[turned])
    return inner._replace(name=f"intercepted({inner.name})", codec=codec)


def packable(random: Random) -> Any:
    """Return something to pack, which a codec may well refuse."""
    data = some_bytes(random, random.choice((0, 1, 3, 4, 30, 6000)))
    message_id = random.choice((-1, 0, 5, MAX_MESSAGE_ID, MAX_MESSAGE_ID + 1, 2**70))
    if random.random() < 0.3:
        return data
    if random.random() < 0.5 and 0 <= message_id <= MAX_MESSAGE_ID:
        return NumberedMessage(message_id, data)
    return Tlv(message_id, data)


def cut(random: Random, data: bytes) -> list[bytes]:
    """Return data in random pieces, empty ones among them."""
    way = random.randrange(4)
    if way == 0 and len(data) < 3000:
        return [data[n : n + 1] for n in range(len(data))]
    if way == 1:
        at = random.randint(0, len(data))
        return [data[:at], data[at:]]
    longest = random.choice((2, 9, 40, 500)) + len(data) // 500
    out, at = [], 0
    while at < len(data):
        size = random.randint(0, longest)
        out.append(data[at : at + size])
        at += size
    return out


def mutated(random: Random, data: bytes) -> bytes:
    """Return data with some changes."""
    made = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 5, 20))):
        _mutate(random, made)
    return bytes(made)


def _mutate(random: Random, data: bytearray) -> None:
    way = random.randrange(6)
    at = random.randint(0, len(data))
    if way == 0 and at < len(data):
        data[at] ^= 1 << random.randrange(8)
    elif way == 1:
        data[at:at] = some_bytes(random, random.randint(1, 20))
    elif way == 2:
        del data[at : at + random.choice((1, 2, 4, 50))]
    elif way == 3:
        width = random.choice((1, 2, 4, 8))
        length = random.choice(_LENGTHS) & ((1 << 8 * width) - 1)
        data[at : at + width] = length.to_bytes(width, random.choice(("little", "big")))
    elif way == 4:
        data[at:at] = data[at : at + random.randint(1, 60)]
    elif at < len(data):
        data[at] = random.randrange(256)


def stream(random: Random, pack: Callable[[Packable], bytes], messages: Sequence[Any]) -> bytes:
    """Return messages as bytes, sometimes changed, with nonsense among them."""
    parts = []
    for message in messages:
        packed = pack(message)
        draw = random.random()
        if draw < 0.15:
            packed = mutated(random, packed)
        elif draw < 0.2:
            packed += some_bytes(random, random.randint(1, 40))
        parts.append(packed)
    return b"".join(parts)
