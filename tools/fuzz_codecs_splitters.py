"""Every codec without a network: what is packed arrives, however the bytes are cut, and
whatever else comes in raises nothing and is not kept beyond the limit.
"""

from __future__ import annotations

import tracemalloc
from collections import Counter
from random import Random
from typing import Any

from kupool.wire.framing import Tlv
from kupool.wire.packets import UNLIMITED, MessageTooLarge
from kupool.wire.splitters import MAX_SPARE
from kupool.wire.websocket import WEBSOCKET, WEBSOCKET_BINARY, WholeMessages
from tools.fuzz_codecs_cases import (
    Case,
    codec_case,
    cut,
    mutated,
    packable,
    some_bytes,
    stream,
)

#: Bytes that interpreters and lists may take for a feed beside what is fed and kept.
SLACK = 200_000


class Wrong(AssertionError):
    """A codec does not do what it promises."""


def require(so: object, what: str) -> None:
    """Raise :class:`Wrong` unless something is so."""
    if not so:
        raise Wrong(what)


class SplitterFuzz:
    """Rounds of one random codec each; ``counts`` are messages by the kind of codec."""

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self.rounds = 0
        self.counts: Counter[str] = Counter()
        self.bytes = 0

    def round(self, number: int | None = None) -> None:
        """Do one round, by default the next; raises what it finds."""
        self.rounds += 1
        random = Random(f"{self._seed}/splitters/{self.rounds if number is None else number}")
        if random.random() < 0.03:
            self._websocket(random)
            return
        case = codec_case(random)
        kind = case.name.partition("(")[0]
        try:
            self.counts[kind] += self._identity(random, case)
            self._nonsense(random, case)
            self._limits(random, case)
            if random.random() < 0.02:
                self._allocation(random, case)
        except Exception as error:
            raise Wrong(f"{case.name}, limit {case.codec.max_payload}: {error!r}") from error

    def _identity(self, random: Random, case: Case) -> int:
        """What is packed arrives, and nothing is left."""
        messages = [case.message(random) for _ in range(random.randint(0, 12))]
        data = b"".join(map(case.codec.pack, messages))
        expected = [item for item in map(case.arrives, messages) if item is not None]
        for pieces in (cut(random, data), cut(random, data), [data]):
            splitter: Any = case.codec.splitter(UNLIMITED)
            items = [item for piece in pieces for item in splitter.feed(piece)]
            require(items == expected, f"{messages!r:.300} arrived as {items!r:.300}")
            require(not splitter.too_large and not splitter.corrupt, "legal messages were refused")
            require(splitter.buffered == 0, f"{splitter.buffered} bytes are left over")
        self.bytes += 3 * len(data)
        return len(messages)

    def _nonsense(self, random: Random, case: Case) -> None:
        """Changed and arbitrary bytes do the same however they are cut, within the limit."""
        if random.random() < 0.2:
            data = some_bytes(random, random.choice((1, 20, 300, 3000)))
        else:
            messages = [case.message(random, 300) for _ in range(random.randint(1, 8))]
            data = stream(random, case.codec.pack, messages)
            if random.random() < 0.5:
                data = mutated(random, data)
        limit = random.choice((UNLIMITED, case.codec.max_payload, random.randint(0, 60)))
        whole = self._feed(case, limit, [data])
        for _ in range(2):
            pieces = self._feed(case, limit, cut(random, data))
            require(pieces == whole, f"{data!r:.400} cut differently: {pieces} and {whole}")
        self._resumed(case, limit, cut(random, data))
        self.bytes += 5 * len(data)

    def _feed(self, case: Case, limit: int, pieces: list[bytes]) -> tuple[Any, bool, bool]:
        splitter: Any = case.codec.splitter(limit)
        most = min(limit, case.codec.max_payload)
        out: list[Any] = []
        for piece in pieces:
            refused = splitter.too_large
            items = splitter.feed(piece)
            require(not (refused and items), f"{items} after the stream was refused")
            for item in items:
                size = len(item if isinstance(item, bytes) else item.payload)
                # Where the header is handed out, too, it comes on top.
                require(size <= most + case.around, f"{size} bytes were handed out")
            held = MAX_SPARE if refused else most + case.around + len(piece)
            require(splitter.buffered <= held, f"{splitter.buffered} bytes are held")
            out += items
        return out, splitter.too_large, splitter.corrupt

    def _resumed(self, case: Case, limit: int, pieces: list[bytes]) -> None:
        """With the limit raised it goes on as if that had been the limit all along."""
        raised = case.codec.max_payload + 500
        splitter: Any = case.codec.splitter(limit)
        items = [item for piece in pieces for item in splitter.feed(piece)]
        refused, corrupt = splitter.too_large, splitter.corrupt
        splitter.max_payload = raised
        items += splitter.resume()
        require(not corrupt or splitter.too_large, "a corrupt stream went on")
        if corrupt or not refused:
            return
        other: Any = case.codec.splitter(UNLIMITED)
        other.max_payload = raised
        whole = [item for piece in pieces for item in other.feed(piece)]
        require(items == whole, f"resumed: {items!r:.300}, not {whole!r:.300}")
        require(splitter.too_large == other.too_large, "resumed, and refused differently")

    def _limits(self, random: Random, case: Case) -> None:
        """Too much raises MessageTooLarge, and whatever else cannot be packed ValueError."""
        over = case.legal(bytes(case.sizes[1] + random.choice((1, 2, 1000))))
        try:
            case.codec.pack(Tlv(7, over) if case.ids else over)
        except MessageTooLarge:
            pass
        else:
            raise Wrong(f"{len(over)} bytes were packed, {case.sizes[1]} is the most")
        for _ in range(3):
            odd = packable(random)
            try:
                packed = case.codec.pack(odd)
            except ValueError:
                continue
            splitter: Any = case.codec.splitter(UNLIMITED)
            splitter.feed(packed)
            fine = not splitter.too_large and not splitter.buffered
            require(fine, f"{odd!r:.100} was packed and is not accepted")

    def _allocation(self, random: Random, case: Case) -> None:
        """Nothing is allocated on the word of a header."""
        reads = [some_bytes(random, 64), b"\xff" * 64, b"\x02" + b"\xff" * 63, b"\x7f" * 64]
        splitter: Any = case.codec.splitter(UNLIMITED)
        tracemalloc.start()
        try:
            for read in reads:
                splitter.feed(read)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        require(peak < SLACK, f"{peak} bytes were allocated for {64 * len(reads)}")

    def _websocket(self, random: Random) -> None:
        """The frames that a server sends can be read; what it reads arrives whole."""
        size = random.choice((1, 125, 126, 65535, 65536, random.randint(1, 300)))
        payloads = [some_bytes(random, size) for _ in range(random.randint(1, 4))]
        framing = random.choice((WEBSOCKET, WEBSOCKET_BINARY))
        data, found = framing.join(payloads), []
        while data:
            payload, data = read_websocket(data)
            found.append(payload)
        require(found == payloads, f"WebSocket frames of {size} bytes")
        splitter = WholeMessages(10)
        for payload in (*payloads, b""):
            require(splitter.feed(payload) == ([payload] if payload else []), "a whole message")
        self.counts["websocket"] += len(payloads)


def read_websocket(data: bytes) -> tuple[bytes, bytes]:
    """Return the payload of one unmasked frame, as RFC 6455 has it, and what follows."""
    size, start = data[1], 2
    if size >= 126:
        start = 4 if size == 126 else 10
        size = int.from_bytes(data[2:start], "big")
    return data[start : start + size], data[start + size :]


__all__ = ["SplitterFuzz", "Wrong", "read_websocket", "require"]
