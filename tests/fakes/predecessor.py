"""The bytes of the predecessor's clients, over TCP and WebSocket, without any code of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from struct import Struct

MAGIC = 20170103

#: The four models, by the number of a publish: to all, to one, a call to one, a call to the one
#: who can.
ALL, ONE, CALL, SPECIFIC = 10, 11, 12, 13

#: Command, sequence, body, and the two reserved numbers: high and low.
Fields = tuple[int, int, bytes, int, int]

_HEADER = Struct(">6I")


def frame(
    command: int, sequence: int, body: bytes = b"", low: int = 0, high: int = 0, **wrong: int
) -> bytes:
    """The bytes of a frame; ``magic`` and ``length`` may be wrong."""
    length = wrong.get("length", len(body))
    return _HEADER.pack(wrong.get("magic", MAGIC), command, sequence, length, high, low) + body


def frames(data: bytes) -> Iterator[Fields]:
    """The fields of each frame in some bytes, which are whole frames."""
    while data:
        magic, command, sequence, length, high, low = _HEADER.unpack_from(data)
        assert magic == MAGIC, data
        assert len(data) >= 24 + length, data
        yield command, sequence, data[24 : 24 + length], high, low
        data = data[24 + length :]


def topics(*wanted: object) -> bytes:
    """The body of a subscription."""
    return json.dumps({"topics": list(wanted)}).encode()


def acknowledged(*wanted: int) -> bytes:
    """The body that answers it."""
    listed = ",".join(map(str, wanted))
    return f'{{"status":0,"message":"","topics":[{listed}]}}'.encode()


def handshake(path: str = "/", **headers: str) -> bytes:
    """A request for a WebSocket; a header of an underscore is one of a dash."""
    sent = {
        "Host": "localhost",
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    } | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in sent.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


#: What answers that key, as RFC 6455 has it.
ACCEPTED = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def websocket(payload: bytes, first: int = 0x82, mask: bytes = b"\1\2\3\4") -> bytes:
    """A WebSocket frame of a client; ``first`` is its first byte."""
    size = len(payload)
    head = bytes((first, 0x80 | size)) if size < 126 else bytes((first, 0xFE)) + size.to_bytes(2)
    return head + mask + bytes(byte ^ mask[n % 4] for n, byte in enumerate(payload))


def websocket_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The first byte and the payload of each WebSocket frame of a server in some bytes."""
    while data:
        first, size, start = data[0], data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        assert size != 127, "no message is that long"
        assert len(data) >= start + size, data
        yield first, data[start : start + size]
        data = data[start + size :]
