"""Checks the arguments of a publish, in the same way for every form of the bus. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from kupool.bus.messages import Message, Model, with_values
from kupool.bus.settings import BusSettings
from kupool.bus.topics import topic_name

#: The shortest and the longest time that a reliable message may have, in seconds.
MIN_TIMEOUT = 0.01
MAX_TIMEOUT = 3600.0

#: The size limit of all headers of a message, in bytes of UTF-8; and of a key or an id.
MAX_HEADERS = 2048
MAX_KEY = 255

#: The most keys that one subscriber may declare.
MAX_KEYS = 10_000

#: Bytes of a message on a connection besides its data, topic, key and headers: the envelope.
ENVELOPE = 512

#: More than a topic, a key and headers can have as JSON, with the envelope.
_MOST_BESIDE = 16_384


def make_message(
    settings: BusSettings,
    message_id: str,
    model: Model,
    topic: object,
    *,
    data: bytes,
    timeout: float | None = None,
    key: str = "",
    headers: Mapping[str, str] | None = None,
) -> Message:
    """Return the message of a publish; raises :class:`ValueError` naming what is wrong.

    ``message_id`` is the bus's own id for it.
    """
    name = topic_name(topic)
    if type(data) is not bytes:
        if not isinstance(data, bytes):
            raise ValueError(f"data: expected bytes, not {type(data).__name__}")
        data = bytes(data)  # no codec can encode another module's subclass
    if len(data) > settings.max_data:
        raise ValueError(f"data: {len(data)} bytes, at most {settings.max_data} are allowed")
    if timeout is None:
        timeout = settings.timeout
    if not MIN_TIMEOUT <= timeout <= MAX_TIMEOUT:
        raise ValueError(f"timeout: {timeout!r} is not from {MIN_TIMEOUT} to {MAX_TIMEOUT} s")
    if key != "":
        check_text("key", key)
    checked = checked_headers(headers) if headers else {}
    if len(data) * 4 // 3 + _MOST_BESIDE > settings.max_message:
        size = json_size(data, name, key, checked)
        if size > settings.max_message:
            raise ValueError(
                f"data, topic, key and headers: {size} bytes as JSON, "
                f"at most {settings.max_message} are allowed"
            )
    time_limit = timeout if model.reliable else 0.0
    return with_values(Message, (message_id, name, data, model, checked, key, time_limit, False))


def json_size(data: bytes, topic: str, key: str, headers: Mapping[str, str]) -> int:
    """Return the largest size of a message as JSON in bytes, for any sender and receiver."""
    try:
        text = len(_json(data.decode()))
    except UnicodeDecodeError:
        text = 0
    base64 = -(-len(data) // 3) * 4 + 4
    return min(text or base64, base64) + len(_json([topic, key, dict(headers)])) + ENVELOPE


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def checked_headers(headers: Mapping[str, str] | None) -> Mapping[str, str]:
    """Return a copy of the headers; raises :class:`ValueError`."""
    copy = dict(headers or {})
    size = 0
    for name, value in copy.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ValueError("headers: names and values have to be text")
        if not name or not (name + value).isprintable():
            raise ValueError(f"headers: {name!r} has characters that cannot be printed")
        size += len(name.encode()) + len(value.encode())
    if size > MAX_HEADERS:
        raise ValueError(f"headers: {size} bytes, at most {MAX_HEADERS} are allowed")
    return copy


def checked_keys(keys: Iterable[str]) -> tuple[str, ...]:
    """Return the keys that a subscriber declares; raises :class:`ValueError`."""
    if isinstance(keys, str):
        raise ValueError("keys: expected a list of texts, not one text")
    found = tuple(keys)
    if len(found) > MAX_KEYS:
        raise ValueError(f"keys: {len(found)}, at most {MAX_KEYS} are allowed")
    for key in found:
        check_text("keys", key)
    return found


def check_text(what: str, text: object) -> None:
    """Raise :class:`ValueError` unless a text is printable and not too long."""
    if not isinstance(text, str) or len(text) > MAX_KEY or not text.isprintable():
        raise ValueError(f"{what}: {text!r:.60} is not printable text of at most {MAX_KEY}")


__all__ = [
    "ENVELOPE",
    "MAX_HEADERS",
    "MAX_KEY",
    "MAX_KEYS",
    "MAX_TIMEOUT",
    "MIN_TIMEOUT",
    "check_text",
    "checked_headers",
    "checked_keys",
    "json_size",
    "make_message",
]
