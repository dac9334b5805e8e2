"""Bytes in JSON as the protocol describes them, in other words than the code under test."""

from __future__ import annotations

import json
from base64 import b64encode


def encode_data(data: bytes) -> tuple[str, bool]:
    """Return the ``data`` and ``base64`` of bytes: as text, or as base64 if they are not text or
    base64 is shorter.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return b64encode(data).decode(), True
    as_text = json.dumps(text, ensure_ascii=False).encode()
    if len(as_text) > 4 + len(data) * 4 // 3:
        return b64encode(data).decode(), True
    return text, False


__all__ = ["encode_data"]
