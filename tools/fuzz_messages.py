"""Messages that are nearly right: what :mod:`tools.fuzz` sends."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from kupool.wire.framing import FRAME, INT32, Framing
from tools.crowd import encode, submission

MAX_FRAME = 65536

_KEYS = ["id", "method", "params", "job_id", "client_nonce", "result", "username", "x", "", "é"]

#: JSON that decoders stumble over, as values.
_ODD_VALUES = [
    b"NaN",
    b"Infinity",
    b"-Infinity",
    b"-0",
    b"1e999",
    b"1e-999",
    b"%d" % 2**63,
    b"%d" % 2**64,
    b"%d" % 2**70,
    b"-%d" % 2**70,
    b"9" * 400,
    b"9" * 5000,
    b"0.1",
    b"1.0",
    b"1e2",
    b"01",
    b"+1",
    b".5",
    b"true",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b'"\\ud800"',
    b'"\\udc00\\ud800"',
    b'"\\u0000"',
    b'"\xff\xfe"',
    b'"\xc0\x80"',
    b'"\xed\xa0\x80"',
    b'"' + b"x" * 300 + b'"',
    b'"' + b"\xf0\x9f\x92\xa9" * 64 + b'"',
    b'"\\',
    b"'1'",
    b"[" * 2000,
    b"[" * 500 + b"]" * 500,
    b'{"a":' * 1500,
    b'{"a":' * 300 + b"1" + b"}" * 300,
    b"[" * 30000,
]

_WHOLE = [
    b"",
    b" ",
    b"\x00",
    b"null",
    b"[]",
    b"{}",
    b"1",
    b'"x"',
    b"[1,2,3]",
    b"\xef\xbb\xbf{}",
    b"\xff" * 40,
    b"{" * 5000,
    b"[" * 60000,
    b'{"id":1}',
    b'{"id":1,"method":null}',
    b'{"id":1,"method":"submit"}',
    b'{"id":1,"method":"submit","params":null}',
    b'{"id":1,"method":"submit","params":[]}',
    b'{"method":"ping"}',
    b'{"id":1,"result":true}',
    b'{"id":{},"method":"ping"}',
    b'{"id":"' + b"i" * 65 + b'","method":"ping"}',
    b'{"id":1.5,"method":"ping"}',
    b'{"id":1,"method":"nothing.such","params":{}}',
    b'{"id":1,"method":"ping","params":{}}}}}',
    b'{"id":1,"id":"2","id":[],"method":"ping","method":"submit"}',
]

#: Lengths that no message of ours has, as a header announces them.
BAD_LENGTHS = (0, 1, MAX_FRAME + 1, 0xFFFFFFF0)


class Mutator:
    """Makes messages; the same seed makes the same ones for the same jobs."""

    def __init__(self, seed: str) -> None:
        self.random = random.Random(seed)
        self._last = b"{}"
        self._ways: list[Callable[[bytes], bytes]] = [
            lambda payload: payload,
            self._flipped,
            self._flipped,
            self._truncated,
            self._doubled,
            self._odd_value,
            self._odd_value,
            self._duplicate_key,
            self._spliced,
            lambda payload: self.random.choice(_WHOLE),
            lambda payload: encode(self._json(3)),
            lambda payload: self.random.randbytes(self.random.randrange(200)),
        ]

    def payload(self, job: dict[str, Any] | None) -> bytes:
        """Return the payload of one message; ``job`` is the peer's newest, if any."""
        valid = self._valid(job)
        made = self.random.choice(self._ways)(valid)
        self._last = valid
        return made

    def greeting(self) -> bytes:
        """Return a first message: rarely one that is right."""
        name = self.random.choice(
            ["u", "u.rig", "", "x" * 255, "x" * 256, "a\nb", "\x00", "\u2028", "é", ".", "..", "a."]
        )
        message = encode({"id": 1, "method": "authorize", "params": {"username": name}})
        return self.random.choice(self._ways)(message)

    def framed(self, framing: Framing, payload: bytes) -> bytes:
        """Return a message in its framing, with a header that is wrong."""
        data = bytearray(framing.encode(payload))
        way = self.random.randrange(4)
        if way == 0 and framing in (FRAME, INT32):
            length = self.random.choice(BAD_LENGTHS)
            at, order = (1, "little") if framing is FRAME else (0, "big")
            data[at : at + 4] = length.to_bytes(4, order)  # type: ignore[arg-type]
        elif way == 1:
            data[0] = self.random.randrange(256)  # an opcode, for one
        elif way == 2:
            del data[self.random.randrange(len(data)) :]
        else:
            for _ in range(3):
                data[self.random.randrange(min(8, len(data)))] = self.random.randrange(256)
        return bytes(data)

    def _valid(self, job: dict[str, Any] | None) -> bytes:
        draw = self.random.random()
        if draw < 0.1 or job is None:
            return encode({"id": self._id(), "method": "ping"})
        if draw < 0.15:
            return encode({"id": 1, "method": "authorize", "params": {"username": "again"}})
        nonce = f"{self.random.getrandbits(96):x}"
        return encode(submission(self._id(), job, nonce))

    def _id(self) -> Any:
        return self.random.choice(
            [1, 0, -1, 2**63 - 1, "", "abc", None, self.random.randrange(999)]
        )

    def _flipped(self, payload: bytes) -> bytes:
        data = bytearray(payload)
        for _ in range(self.random.choice((1, 1, 2, 8))):
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
        return bytes(data)

    def _truncated(self, payload: bytes) -> bytes:
        return payload[: self.random.randrange(len(payload))]

    def _doubled(self, payload: bytes) -> bytes:
        start = self.random.randrange(len(payload))
        end = self.random.randrange(start, len(payload)) + 1
        return payload[:end] + payload[start:end] * self.random.randrange(1, 4) + payload[end:]

    def _spliced(self, payload: bytes) -> bytes:
        return payload[: self.random.randrange(len(payload))] + self._last[len(self._last) // 2 :]

    def _odd_value(self, payload: bytes) -> bytes:
        """Put an odd value in the place of one of the message's."""
        pieces = payload.split(b":")
        where = self.random.randrange(1, len(pieces)) if len(pieces) > 1 else 0
        piece = pieces[where]
        end = len(piece)
        for mark in (b",", b"}"):
            found = piece.find(mark)
            if 0 <= found < end:
                end = found
        pieces[where] = self.random.choice(_ODD_VALUES) + piece[end:]
        return b":".join(pieces)

    def _duplicate_key(self, payload: bytes) -> bytes:
        key = self.random.choice(_KEYS)
        extra = encode(key) + b":" + self.random.choice((encode(self._json(2)), b"1", b'"ping"'))
        if self.random.random() < 0.5:
            return b"{" + extra + b"," + payload[1:]
        return payload[:-1] + b"," + extra + b"}"

    def _json(self, depth: int) -> Any:
        """Return some JSON, with keys that mean something among its keys."""
        pick = self.random.randrange(9 if depth else 6)
        if pick == 6:
            return [self._json(depth - 1) for _ in range(self.random.randrange(4))]
        if pick >= 7:
            size = self.random.randrange(4)
            return {self.random.choice(_KEYS): self._json(depth - 1) for _ in range(size)}
        scalars = [None, True, self.random.getrandbits(40), self.random.random(), "submit", "1"]
        return scalars[pick]
