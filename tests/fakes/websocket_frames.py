"""Frames of WebSocket, made and taken apart without the code under test."""

from __future__ import annotations


def frame(first: int, payload: bytes, *, mask: bytes = b"mask", length: int | None = None) -> bytes:
    """Return a masked frame; with ``length``, a header that announces that many bytes."""
    size = len(payload) if length is None else length
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """Return first byte and payload of the frames that a server sent."""
    found = []
    while data:
        size, start = data[1], 2
        if size == 126:
            size, start = int.from_bytes(data[2:4], "big"), 4
        found.append((data[0], data[start : start + size]))
        data = data[start + size :]
    return found
