"""Times, offsets and sizes in topics, as a command line has them and as a command shows them."""

from __future__ import annotations

import argparse
import re
from datetime import UTC, datetime
from typing import Any

from kupool.commands.target import duration
from kupool.commands.times import parse_time
from kupool.kinds import (
    format_duration,
    format_size,
    parse_count,
    parse_duration,
    parse_size,
)
from kupool.topics.settings import TopicSettings

#: Where a reader may begin, for the help of a flag.
PLACES = "earliest, latest, an offset, or a time such as 2026-11-21T10:05:00Z"

#: The settings of topics that are sizes in bytes.
_SIZES = ("retention_bytes", "compression_threshold", "max_record")

_OFFSET = re.compile(r"[0-9]{1,18}")


def place(text: str) -> dict[str, object]:
    """Return where to begin as parameters of the API: ``at``, or ``offset``.

    Raises :class:`argparse.ArgumentTypeError`.
    """
    if text in ("earliest", "latest"):
        return {"at": text}
    if _OFFSET.fullmatch(text):
        return {"offset": int(text)}
    try:
        return {"at": milliseconds(text)}
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"{text!r} is none of {PLACES}") from None


def milliseconds(text: str) -> int:
    """Return a time in milliseconds since the epoch; raises
    :class:`argparse.ArgumentTypeError`.
    """
    return parse_time(text) * 1000


def milliseconds_of_duration(text: str) -> int:
    """Return a duration in milliseconds; raises :class:`argparse.ArgumentTypeError`."""
    return round(duration(text) * 1000)


def time_text(at: int) -> str:
    """Return a time in milliseconds since the epoch as ``2026-11-21T10:05:00.123Z``."""
    try:
        found = datetime.fromtimestamp(at // 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{at} ms"
    return f"{found:%Y-%m-%dT%H:%M:%S}.{at % 1000:03}Z"


def span_text(ms: int) -> str:
    """Return a time in milliseconds as ``1.5 s``, with three digits at most."""
    return f"{ms / 1000:.3g} s" if ms < 1_000_000 else f"{ms / 1000:,.0f} s"


def topic_settings(words: list[str]) -> dict[str, object]:
    """Return the settings of a topic that a command line has as ``NAME=VALUE``.

    Times are durations such as ``24h``, sizes such as ``64KiB``. Raises :class:`ValueError`. The
    daemon checks whether it takes the values.
    """
    found: dict[str, object] = {}
    for word in words:
        name, separator, text = word.partition("=")
        name = name.replace("-", "_")
        if not separator:
            raise ValueError(f"{word!r}: a setting is NAME=VALUE, as retention_time=24h")
        if name in found:
            raise ValueError(f"{name}: given twice")
        try:
            found[name] = _setting(name, text)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def _setting(name: str, text: str) -> object:
    default = getattr(TopicSettings(), name, None)
    if default is None:
        known = ", ".join(TopicSettings.__struct_fields__)
        raise ValueError(f"there is no such setting of a topic; there are {known}")
    if isinstance(default, bool):
        if text not in ("on", "off"):
            raise ValueError(f"{text!r} is not on or off")
        return text == "on"
    if isinstance(default, float):
        return parse_duration(text)
    if name in _SIZES:
        return parse_size(text)
    if isinstance(default, int):
        return parse_count(text)
    return text


def setting_text(name: str, value: Any) -> str:
    """Return a setting of a topic as :func:`topic_settings` reads it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    default = getattr(TopicSettings(), name, None)
    if isinstance(default, float) and isinstance(value, int | float):
        return format_duration(value)
    if name in _SIZES and isinstance(value, int):
        return format_size(value)
    return str(value)


__all__ = [
    "PLACES",
    "milliseconds",
    "milliseconds_of_duration",
    "place",
    "setting_text",
    "span_text",
    "time_text",
    "topic_settings",
]
